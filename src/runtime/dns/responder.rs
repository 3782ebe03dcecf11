//! The sockets of the name service and their event loop.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};

use super::codec::{self, Code, Malformed, Query};
use super::forward::{Asker, Forwarder, Outcome, framed, unframed};
use super::names::{Found, Names};
use crate::runtime::Source;
use crate::runtime::network::hosts::SERVER;
use crate::runtime::network::{DnsPlan, NetworkError, netns, redirect_dns};

const UDP: u64 = 0;
const TCP: u64 = 1;
/// First token of connections and attempts.
const FIRST: u64 = 2;
/// Connections at a time; the rest wait in the queue of the socket.
const MOST_CONNECTIONS: usize = 64;
/// An idle connection is closed after this.
const IDLE: Duration = Duration::from_secs(2);
/// Bytes of answers that a connection may leave unread.
const MOST_UNREAD: usize = 256 << 10;

/// Answers the DNS questions of one container.
#[derive(Debug)]
pub struct Responder {
    epoll: OwnedFd,
    udp: UdpSocket,
    tcp: TcpListener,
    names: Names,
    forward: Option<Forwarder>,
    connections: BTreeMap<u64, Connection>,
    tokens: u64,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Questions that an upstream server has.
    waiting: usize,
    last: Instant,
}

impl Responder {
    /// Opens the sockets inside the namespace. The calling thread goes there
    /// and back, so the caller is single-threaded or does not care.
    ///
    /// # Errors
    /// [`NetworkError::Step`] when neither a redirected port nor port 53 itself can be had.
    pub fn open(plan: &DnsPlan, netns: BorrowedFd<'_>) -> Result<Self, NetworkError> {
        const STEP: &str = "open the container's name service";
        let home = netns::current()?;
        let (udp, tcp) = netns::inside(netns, home.as_fd(), sockets)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(NetworkError::step(STEP))?;
        for (fd, token) in [(udp.as_fd(), UDP), (tcp.as_fd(), TCP)] {
            epoll::add(&epoll, fd, EventData::new_u64(token), EventFlags::IN)
                .map_err(NetworkError::step(STEP))?;
        }
        let forward = if plan.forward {
            let epoll = epoll.try_clone().map_err(NetworkError::step(STEP))?;
            let netns = netns.try_clone_to_owned().map_err(NetworkError::step(STEP))?;
            Some(Forwarder::new(plan, epoll, netns, home))
        } else {
            None
        };
        let names = Names::new(plan);
        Ok(Self { epoll, udp, tcp, names, forward, connections: BTreeMap::new(), tokens: FIRST })
    }

    /// The answer to a message, or nothing when it is on its way to an upstream
    /// server or deserves none.
    fn answer(&mut self, message: &[u8], asker: Asker) -> Option<Vec<u8>> {
        let udp = matches!(asker, Asker::Udp(_));
        let query = match Query::parse(message) {
            Ok(query) => query,
            Err(Malformed::Ignore) => return None,
            Err(Malformed::Answer(code)) => return Some(codec::refusal(message, code)),
        };
        let found = match query.name.as_deref().filter(|_| query.is_internet()) {
            Some(name) => {
                self.names.refresh();
                self.names.look_up(name, &|kind| query.wants(kind))
            }
            None => Found::Elsewhere,
        };
        match found {
            Found::Ours(records) => Some(codec::answer(message, &query, Code::NoError, &records, udp)),
            Found::Nobody => Some(codec::answer(message, &query, Code::NoSuchName, &[], udp)),
            Found::Elsewhere => match &mut self.forward {
                None => Some(codec::answer(message, &query, Code::ServerFailure, &[], udp)),
                Some(forward) => {
                    let question = query.bytes(message).to_vec();
                    Some(forward.ask(asker, message, &question, &mut self.tokens)?.message)
                }
            },
        }
    }

    fn receive(&mut self) {
        let mut buffer = [0; 4096];
        // Bounded, so that a flood does not keep the shim from its other work.
        for _ in 0..64 {
            let (length, from) = match self.udp.recv_from(&mut buffer) {
                Ok(got) => got,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            if let Some(answer) = self.answer(&buffer[..length], Asker::Udp(from)) {
                self.send(&answer, from);
            }
        }
    }

    fn send(&self, answer: &[u8], to: SocketAddr) {
        // Datagrams may get lost; whoever asked asks again.
        self.udp.send_to(answer, to).ok();
    }

    fn accept(&mut self) {
        while self.connections.len() < MOST_CONNECTIONS {
            let Ok((stream, _)) = self.tcp.accept() else { break };
            let token = self.tokens;
            self.tokens += 1;
            let ready = stream.set_nonblocking(true).is_ok()
                && epoll::add(&self.epoll, &stream, EventData::new_u64(token), EventFlags::IN).is_ok();
            if ready {
                self.connections.insert(
                    token,
                    Connection {
                        stream,
                        input: Vec::new(),
                        output: Vec::new(),
                        waiting: 0,
                        last: Instant::now(),
                    },
                );
            }
        }
        self.listen();
    }

    /// Stops hearing of new connections while there are too many.
    fn listen(&self) {
        let full = self.connections.len() >= MOST_CONNECTIONS;
        let flags = if full { EventFlags::empty() } else { EventFlags::IN };
        // Cannot fail for a descriptor that is in the set.
        epoll::modify(&self.epoll, &self.tcp, EventData::new_u64(TCP), flags).ok();
    }

    fn close(&mut self, token: u64) {
        if self.connections.remove(&token).is_some() {
            self.listen();
        }
    }

    fn converse(&mut self, token: u64) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        let mut messages = Vec::new();
        let mut open = true;
        let mut buffer = [0; 4096];
        loop {
            match connection.stream.read(&mut buffer) {
                Ok(0) => {
                    open = false;
                    break;
                }
                Ok(length) => {
                    connection.last = Instant::now();
                    connection.input.extend(&buffer[..length]);
                    while let Some(message) = unframed(&mut connection.input) {
                        messages.push(message);
                    }
                    if messages.len() >= 64 {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return self.close(token),
            }
        }
        for message in messages {
            match self.answer(&message, Asker::Tcp(token)) {
                Some(answer) => self.queue(token, &answer),
                None => {
                    if let Some(connection) = self.connections.get_mut(&token) {
                        connection.waiting += 1;
                    }
                }
            }
        }
        let finished =
            self.connections.get(&token).is_some_and(|c| !open && c.waiting == 0 && c.output.is_empty());
        if finished {
            return self.close(token);
        }
        self.flush(token, open);
    }

    fn queue(&mut self, token: u64, answer: &[u8]) {
        if let Some(connection) = self.connections.get_mut(&token) {
            connection.output.extend(framed(answer));
        }
    }

    /// Writes what can be written, and asks to be told when more can be.
    fn flush(&mut self, token: u64, open: bool) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        while !connection.output.is_empty() {
            match connection.stream.write(&connection.output) {
                Ok(written) => {
                    connection.last = Instant::now();
                    connection.output.drain(..written);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return self.close(token),
            }
        }
        if connection.output.len() > MOST_UNREAD
            || (!open && connection.waiting == 0 && connection.output.is_empty())
        {
            return self.close(token);
        }
        let mut flags = EventFlags::empty();
        // A half-closed connection is readable for good.
        flags.set(EventFlags::IN, open);
        flags.set(EventFlags::OUT, !connection.output.is_empty());
        epoll::modify(&self.epoll, &connection.stream, EventData::new_u64(token), flags).ok();
    }

    fn deliver(&mut self, outcome: &Outcome) {
        match outcome.asker {
            Asker::Udp(to) => self.send(&outcome.message, to),
            Asker::Tcp(token) => {
                if let Some(connection) = self.connections.get_mut(&token) {
                    connection.waiting = connection.waiting.saturating_sub(1);
                    self.queue(token, &outcome.message);
                    self.flush(token, true);
                }
            }
        }
    }
}

impl Source for Responder {
    fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    fn deadline(&self) -> Option<Instant> {
        let idle = self.connections.values().map(|c| c.last + IDLE).min();
        let forward = self.forward.as_ref().and_then(Forwarder::deadline);
        [idle, forward].into_iter().flatten().min()
    }

    fn turn(&mut self) {
        let mut events = Vec::with_capacity(64);
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        if epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&now)).is_err() {
            events.clear();
        }
        for event in events {
            match event.data.u64() {
                UDP => self.receive(),
                TCP => self.accept(),
                token => {
                    let outcome = match &mut self.forward {
                        Some(forward) if forward.is_attempt(token) => forward.event(token, &mut self.tokens),
                        _ => {
                            self.converse(token);
                            None
                        }
                    };
                    if let Some(outcome) = outcome {
                        self.deliver(&outcome);
                    }
                }
            }
        }
        if let Some(forward) = &mut self.forward {
            for outcome in forward.tick(&mut self.tokens) {
                self.deliver(&outcome);
            }
        }
        let limit = Instant::now();
        let idle: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, c)| c.last + IDLE <= limit)
            .map(|(token, _)| *token)
            .collect();
        for token in idle {
            self.close(token);
        }
    }
}

/// A UDP and a TCP socket on one port of the server's address, with port 53
/// led there; or on port 53 itself where the kernel has no `nf_tables`.
fn sockets() -> Result<(UdpSocket, TcpListener), NetworkError> {
    let step = || NetworkError::step(format!("bind {SERVER} in the container"));
    let open = |port: u16| -> std::io::Result<(UdpSocket, TcpListener)> {
        let udp = UdpSocket::bind((SERVER, port))?;
        let tcp = TcpListener::bind(udp.local_addr()?)?;
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok((udp, tcp))
    };
    let made = open(0).map_err(step())?;
    let port = made.0.local_addr().map_err(step())?.port();
    match redirect_dns(SERVER, port) {
        Ok(()) => Ok(made),
        Err(NetworkError::Kernel { .. }) => open(53).map_err(step()),
        Err(error) => Err(error),
    }
}
