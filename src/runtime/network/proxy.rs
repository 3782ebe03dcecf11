//! Published ports that the kernel cannot translate, served from the sockets
//! that keep them.
//!
//! Those are `[::1]` (the kernel discards the answers to translated packets) and
//! host addresses of a family that the container does not have. All reserved
//! sockets are served: what reaches them by any other way, as after somebody
//! flushed the table, ends at the container too.
//!
//! TCP bytes are moved by `splice(2)` through a pipe that a direction holds only
//! while bytes are in it, so that an idle connection costs two descriptors.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pipe::{PipeFlags, SpliceFlags};

use super::error::NetworkError;
use super::plan::Protocol;
use crate::runtime::Source;

/// Connections at a time.
const MOST_CONNECTIONS: usize = 400;
/// Remembered UDP clients at a time.
const MOST_CLIENTS: usize = 256;
/// A UDP client that says nothing is forgotten after this, as with Docker's proxy.
const UDP_IDLE: Duration = Duration::from_secs(90);
/// Bytes moved for one connection before the others get a turn.
const SHARE: usize = 4 << 20;
/// What a pipe holds.
const PIPE: usize = 64 << 10;

/// A reserved host port and where its bytes go.
#[derive(Debug)]
pub(super) struct Reserved {
    pub(super) fd: OwnedFd,
    pub(super) protocol: Protocol,
    pub(super) target: SocketAddr,
}

/// Serves the reserved sockets of one container.
#[derive(Debug)]
pub(super) struct Proxy {
    epoll: OwnedFd,
    listeners: BTreeMap<u64, (TcpListener, SocketAddr)>,
    servers: BTreeMap<u64, (UdpSocket, SocketAddr)>,
    pairs: BTreeMap<u64, Pair>,
    /// By token; and the tokens by server and client address.
    clients: BTreeMap<u64, Client>,
    by_address: BTreeMap<(u64, SocketAddr), u64>,
    /// Connections that used up their share and have more to move.
    again: BTreeSet<u64>,
    pipes: Vec<Pipe>,
    tokens: u64,
    /// Sockets that only keep their port.
    kept: Vec<OwnedFd>,
}

#[derive(Debug)]
struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
}

/// Two connections of which each gets what the other one says.
#[derive(Debug)]
struct Pair {
    client: TcpStream,
    container: TcpStream,
    up: Direction,
    down: Direction,
}

#[derive(Debug, Default)]
struct Direction {
    pipe: Option<Pipe>,
    held: usize,
    ended: bool,
    done: bool,
}

#[derive(Debug)]
struct Client {
    server: u64,
    address: SocketAddr,
    socket: UdpSocket,
    last: Instant,
}

impl Proxy {
    /// Takes the sockets over. They are non-blocking.
    pub(super) fn new(reserved: Vec<Reserved>) -> Result<Self, NetworkError> {
        const STEP: &str = "serve the published ports";
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(NetworkError::step(STEP))?;
        let mut proxy = Self {
            epoll,
            listeners: BTreeMap::new(),
            servers: BTreeMap::new(),
            pairs: BTreeMap::new(),
            clients: BTreeMap::new(),
            by_address: BTreeMap::new(),
            again: BTreeSet::new(),
            pipes: Vec::new(),
            tokens: 0,
            kept: Vec::new(),
        };
        for Reserved { fd, protocol, target } in reserved {
            let token = proxy.token();
            if protocol != Protocol::Sctp {
                epoll::add(&proxy.epoll, &fd, EventData::new_u64(token), EventFlags::IN)
                    .map_err(NetworkError::step(STEP))?;
            }
            match protocol {
                Protocol::Tcp => drop(proxy.listeners.insert(token, (fd.into(), target))),
                Protocol::Udp => drop(proxy.servers.insert(token, (fd.into(), target))),
                Protocol::Sctp => proxy.kept.push(fd),
            }
        }
        Ok(proxy)
    }

    /// The next token. A connection's second socket has the odd number after the first's.
    fn token(&mut self) -> u64 {
        self.tokens += 2;
        self.tokens
    }

    fn accept(&mut self, token: u64) {
        for _ in 0..64 {
            let Some((listener, target)) = self.listeners.get(&token) else { return };
            let target = *target;
            let Ok((client, _)) = listener.accept() else { return };
            if self.pairs.len() >= MOST_CONNECTIONS {
                // Closing tells the client at once; waiting would look like a dead service.
                continue;
            }
            let Ok(container) = connecting(target) else { continue };
            let pair = Pair {
                client,
                container: container.into(),
                up: Direction::default(),
                down: Direction::default(),
            };
            let token = self.token();
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            let ready = pair.client.set_nonblocking(true).is_ok()
                // Small answers leave at once; both ends decide for themselves how to batch.
                && pair.client.set_nodelay(true).is_ok()
                && pair.container.set_nodelay(true).is_ok()
                && epoll::add(&self.epoll, &pair.client, EventData::new_u64(token), flags).is_ok()
                && epoll::add(&self.epoll, &pair.container, EventData::new_u64(token + 1), flags).is_ok();
            if ready {
                self.pairs.insert(token, pair);
            }
        }
    }

    /// Moves what can be moved between the two ends.
    fn pump(&mut self, token: u64) {
        let Some(pair) = self.pairs.get_mut(&token) else { return };
        let (client, container) = (pair.client.as_fd(), pair.container.as_fd());
        let outcome = pair.up.pump(client, container, &mut self.pipes).and_then(|up| {
            let down = pair.down.pump(container, client, &mut self.pipes)?;
            Ok(up || down)
        });
        let finished = pair.up.done && pair.down.done;
        match outcome {
            Ok(more) if !finished => {
                if more {
                    self.again.insert(token);
                }
            }
            // Both ends are closed with the pair; a pipe with bytes in it too.
            _ => drop(self.pairs.remove(&token)),
        }
    }

    fn datagrams(&mut self, token: u64) {
        let mut buffer = vec![0; 65535];
        for _ in 0..64 {
            let Some((server, target)) = self.servers.get(&token) else { return };
            let Ok((length, from)) = server.recv_from(&mut buffer) else { return };
            let target = *target;
            let known = self.by_address.get(&(token, from)).copied();
            let Some(client) = known.or_else(|| self.meet(token, from, target)) else { continue };
            if let Some(client) = self.clients.get_mut(&client) {
                client.last = Instant::now();
                // A refusal of the container is not the client's fault and is not kept.
                client.socket.send(&buffer[..length]).ok();
            }
        }
    }

    /// A socket for a new client.
    fn meet(&mut self, server: u64, address: SocketAddr, target: SocketAddr) -> Option<u64> {
        if self.clients.len() >= MOST_CLIENTS {
            let oldest = *self.clients.iter().min_by_key(|(_, c)| c.last)?.0;
            self.forget(oldest);
        }
        let any: std::net::IpAddr =
            if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.set_nonblocking(true).ok()?;
        socket.connect(target).ok()?;
        let token = self.token();
        epoll::add(&self.epoll, &socket, EventData::new_u64(token), EventFlags::IN).ok()?;
        self.clients.insert(token, Client { server, address, socket, last: Instant::now() });
        self.by_address.insert((server, address), token);
        Some(token)
    }

    fn forget(&mut self, token: u64) {
        if let Some(client) = self.clients.remove(&token) {
            self.by_address.remove(&(client.server, client.address));
        }
    }

    fn replies(&mut self, token: u64) {
        let mut buffer = vec![0; 65535];
        for _ in 0..64 {
            let Some(client) = self.clients.get_mut(&token) else { return };
            match client.socket.recv(&mut buffer) {
                Ok(length) => {
                    client.last = Instant::now();
                    if let Some((server, _)) = self.servers.get(&client.server) {
                        server.send_to(&buffer[..length], client.address).ok();
                    }
                }
                // Also a refusal (ICMP) is consumed by the read.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
                Err(_) => return,
            }
        }
    }
}

/// A connection under way to the container.
fn connecting(target: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&fd, &target) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(fd),
        Err(errno) => Err(errno),
    }
}

impl Direction {
    /// Moves bytes until one end has nothing or takes nothing; `true` when the
    /// share was used up before.
    fn pump(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        pipes: &mut Vec<Pipe>,
    ) -> Result<bool, Errno> {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let mut moved = 0;
        while !self.done {
            if moved >= SHARE {
                return Ok(true);
            }
            let mut stuck = true;
            if !self.ended && self.held == 0 {
                let pipe = match self.pipe.take().or_else(|| pipes.pop()) {
                    Some(pipe) => pipe,
                    None => Pipe::new()?,
                };
                match rustix::pipe::splice(from, None, &pipe.into, None, PIPE, flags) {
                    Ok(0) => self.ended = true,
                    Ok(length) => {
                        self.held = length;
                        stuck = false;
                    }
                    // Not connected yet, or nothing said.
                    Err(Errno::AGAIN | Errno::NOTCONN | Errno::INTR) => {}
                    Err(errno) => return Err(errno),
                }
                self.pipe = Some(pipe);
            }
            if self.held > 0
                && let Some(pipe) = &self.pipe
            {
                match rustix::pipe::splice(&pipe.out, None, to, None, self.held, flags) {
                    Ok(length) => {
                        self.held -= length;
                        moved += length;
                        stuck = length == 0;
                    }
                    Err(Errno::AGAIN | Errno::NOTCONN | Errno::INTR) => stuck = true,
                    Err(errno) => return Err(errno),
                }
            }
            if self.held == 0 {
                const SPARE: usize = 4;
                if let Some(pipe) = self.pipe.take()
                    && pipes.len() < SPARE
                {
                    pipes.push(pipe);
                }
                if self.ended {
                    // The other end may still be connecting; then it learns of the end by an event.
                    match rustix::net::shutdown(to, rustix::net::Shutdown::Write) {
                        Err(Errno::NOTCONN) => return Ok(false),
                        _ => self.done = true,
                    }
                }
            }
            if stuck {
                break;
            }
        }
        Ok(false)
    }
}

impl Pipe {
    fn new() -> Result<Self, Errno> {
        let (out, into) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self { out, into })
    }
}

impl Source for Proxy {
    fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    fn deadline(&self) -> Option<Instant> {
        if !self.again.is_empty() {
            return Some(Instant::now());
        }
        self.clients.values().map(|c| c.last + UDP_IDLE).min()
    }

    fn turn(&mut self) {
        let mut events = Vec::with_capacity(64);
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        if epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&now)).is_err() {
            events.clear();
        }
        let mut busy = std::mem::take(&mut self.again);
        for event in events {
            let token = event.data.u64();
            if self.listeners.contains_key(&token) {
                self.accept(token);
            } else if self.servers.contains_key(&token) {
                self.datagrams(token);
            } else if self.clients.contains_key(&token) {
                self.replies(token);
            } else {
                busy.insert(token & !1);
            }
        }
        for token in busy {
            self.pump(token);
        }
        let limit = Instant::now();
        let idle: Vec<u64> =
            self.clients.iter().filter(|(_, c)| c.last + UDP_IDLE <= limit).map(|(t, _)| *t).collect();
        for token in idle {
            self.forget(token);
        }
    }
}
