//! Questions passed on to upstream servers, byte for byte but for the id.
//!
//! Each attempt has a socket, source port and id of its own, so that nobody who
//! does not see the question can answer it. UDP questions go by UDP, TCP ones by
//! TCP, and truncation is passed through.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::codec;
use crate::runtime::network::hosts::ResolvConf;
use crate::runtime::network::{DnsPlan, NetworkError, netns};

/// After this the second server is asked too.
const HEDGE: Duration = Duration::from_millis(300);
/// After this the next attempt begins.
const ATTEMPT: Duration = Duration::from_millis(1500);
/// After this the asker is told that it failed; resolvers wait 5 s.
const PATIENCE: Duration = Duration::from_millis(4500);
/// Questions in flight; more are refused, so that a flood cannot use up the shim's descriptors.
const MOST: usize = 256;
const MOST_SERVERS: usize = 3;

/// Who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    Udp(SocketAddr),
    /// A connection, by its token.
    Tcp(u64),
}

/// What came of a question.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) asker: Asker,
    pub(super) message: Vec<u8>,
}

/// All questions in flight.
#[derive(Debug)]
pub(super) struct Forwarder {
    epoll: OwnedFd,
    netns: OwnedFd,
    home: OwnedFd,
    given: Vec<IpAddr>,
    ipv6: bool,
    host: HostServers,
    pending: BTreeMap<u64, Pending>,
    /// Which question an attempt's token belongs to.
    attempts: BTreeMap<u64, u64>,
}

#[derive(Debug)]
struct Pending {
    asker: Asker,
    message: Vec<u8>,
    question: Vec<u8>,
    servers: Vec<IpAddr>,
    tried: usize,
    attempts: Vec<Attempt>,
    next: Instant,
    end: Instant,
    failure: Option<Vec<u8>>,
}

#[derive(Debug)]
struct Attempt {
    token: u64,
    id: u16,
    link: Link,
}

#[derive(Debug)]
enum Link {
    Udp(UdpSocket),
    Tcp { stream: TcpStream, output: Vec<u8>, input: Vec<u8> },
}

/// The host's servers, read again when `/etc/resolv.conf` changes.
#[derive(Debug, Default)]
struct HostServers {
    servers: Vec<IpAddr>,
    modified: Option<SystemTime>,
}

impl HostServers {
    fn get(&mut self) -> &[IpAddr] {
        let modified = std::fs::metadata("/etc/resolv.conf").and_then(|m| m.modified()).ok();
        if modified.is_none() || modified != self.modified {
            self.servers = ResolvConf::parse(&crate::runtime::network::hosts::host_resolv_conf()).nameservers;
            self.modified = modified;
        }
        &self.servers
    }
}

impl Forwarder {
    /// `epoll` gets the sockets of attempts, with their tokens.
    pub(super) fn new(plan: &DnsPlan, epoll: OwnedFd, netns: OwnedFd, home: OwnedFd) -> Self {
        Self {
            epoll,
            netns,
            home,
            given: plan.upstreams.clone(),
            ipv6: plan.ipv6,
            host: HostServers::default(),
            pending: BTreeMap::new(),
            attempts: BTreeMap::new(),
        }
    }

    /// When [`Forwarder::tick`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.pending.values().map(|p| p.next.min(p.end)).min()
    }

    pub(super) fn is_attempt(&self, token: u64) -> bool {
        self.attempts.contains_key(&token)
    }

    /// Passes a question on. The outcome comes later, or at once when nobody can be asked.
    pub(super) fn ask(
        &mut self,
        asker: Asker,
        message: &[u8],
        question: &[u8],
        tokens: &mut u64,
    ) -> Option<Outcome> {
        let servers = if self.given.is_empty() { self.host.get() } else { &self.given };
        let servers: Vec<IpAddr> = servers.iter().take(MOST_SERVERS).copied().collect();
        if servers.is_empty() || self.pending.len() >= MOST {
            return Some(failed(asker, message));
        }
        let now = Instant::now();
        let key = *tokens;
        *tokens += 1;
        let pending = Pending {
            asker,
            message: message.to_vec(),
            question: question.to_vec(),
            servers,
            tried: 0,
            attempts: Vec::new(),
            next: now,
            end: now + PATIENCE,
            failure: None,
        };
        self.pending.insert(key, pending);
        self.advance(key, now, tokens)
    }

    /// Begins attempts that are due and ends questions nobody answered.
    pub(super) fn tick(&mut self, tokens: &mut u64) -> Vec<Outcome> {
        let now = Instant::now();
        let due: Vec<u64> =
            self.pending.iter().filter(|(_, p)| p.next.min(p.end) <= now).map(|(key, _)| *key).collect();
        due.into_iter().filter_map(|key| self.advance(key, now, tokens)).collect()
    }

    /// The next attempt of a question; its end when there is none.
    fn advance(&mut self, key: u64, now: Instant, tokens: &mut u64) -> Option<Outcome> {
        let pending = self.pending.get_mut(&key)?;
        while now < pending.end && pending.tried < pending.servers.len() * 2 {
            let server = pending.servers[pending.tried % pending.servers.len()];
            pending.tried += 1;
            let outside = server.is_loopback() || (server.is_ipv6() && !self.ipv6);
            let place = if outside { &self.home } else { &self.netns };
            let link = netns::inside(place.as_fd(), self.home.as_fd(), || {
                Link::open(SocketAddr::new(server, 53), pending.asker)
                    .map_err(NetworkError::step("ask a name server"))
            });
            let Ok(link) = link else { continue };
            let token = *tokens;
            *tokens += 1;
            let mut attempt = Attempt { token, id: random_id(), link };
            if attempt.begin(&pending.message).is_err() || attempt.register(self.epoll.as_fd()).is_err() {
                continue;
            }
            let first = pending.tried == 1 && pending.servers.len() > 1;
            pending.next = now + if first { HEDGE } else { ATTEMPT };
            pending.attempts.push(attempt);
            self.attempts.insert(token, key);
            return None;
        }
        if now < pending.end && !pending.attempts.is_empty() {
            pending.next = pending.end;
            return None;
        }
        let pending = self.finish(key)?;
        Some(match pending.failure {
            Some(message) => Outcome { asker: pending.asker, message },
            None => failed(pending.asker, &pending.message),
        })
    }

    fn finish(&mut self, key: u64) -> Option<Pending> {
        let pending = self.pending.remove(&key)?;
        for attempt in &pending.attempts {
            self.attempts.remove(&attempt.token);
        }
        Some(pending)
    }

    /// Reads what an attempt got.
    pub(super) fn event(&mut self, token: u64, tokens: &mut u64) -> Option<Outcome> {
        let key = *self.attempts.get(&token)?;
        let pending = self.pending.get_mut(&key)?;
        let at = pending.attempts.iter().position(|a| a.token == token)?;
        let step = pending.attempts[at].step(&pending.question);
        if let Step::Waiting = step
            && pending.attempts[at].register_writes(self.epoll.as_fd()).is_ok()
        {
            return None;
        }
        if let Step::Answer(mut message) = step {
            message[..2].copy_from_slice(&pending.message[..2]);
            if !codec::is_failure(&message) {
                let pending = self.finish(key)?;
                return Some(Outcome { asker: pending.asker, message });
            }
            pending.failure = Some(message);
        }
        // This one is of no use; the next is asked now.
        pending.attempts.remove(at);
        self.attempts.remove(&token);
        self.advance(key, Instant::now(), tokens)
    }
}

enum Step {
    Waiting,
    Answer(Vec<u8>),
    Broken,
}

impl Link {
    fn open(server: SocketAddr, asker: Asker) -> std::io::Result<Self> {
        if let Asker::Udp(_) = asker {
            let any: IpAddr =
                if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
            socket.set_nonblocking(true)?;
            socket.connect(server)?;
            return Ok(Self::Udp(socket));
        }
        let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&fd, &server) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Self::Tcp { stream: fd.into(), output: Vec::new(), input: Vec::new() })
    }
}

impl Attempt {
    fn begin(&mut self, message: &[u8]) -> std::io::Result<()> {
        let mut message = message.to_vec();
        message[..2].copy_from_slice(&self.id.to_be_bytes());
        match &mut self.link {
            Link::Udp(socket) => socket.send(&message).map(drop),
            Link::Tcp { output, .. } => {
                *output = framed(&message);
                Ok(())
            }
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match &self.link {
            Link::Udp(socket) => socket.as_fd(),
            Link::Tcp { stream, .. } => stream.as_fd(),
        }
    }

    fn interest(&self) -> rustix::event::epoll::EventFlags {
        use rustix::event::epoll::EventFlags;
        match &self.link {
            Link::Tcp { output, .. } if !output.is_empty() => EventFlags::IN | EventFlags::OUT,
            _ => EventFlags::IN,
        }
    }

    fn register(&self, epoll: BorrowedFd<'_>) -> rustix::io::Result<()> {
        let data = rustix::event::epoll::EventData::new_u64(self.token);
        rustix::event::epoll::add(epoll, self.fd(), data, self.interest())
    }

    fn register_writes(&self, epoll: BorrowedFd<'_>) -> rustix::io::Result<()> {
        let data = rustix::event::epoll::EventData::new_u64(self.token);
        rustix::event::epoll::modify(epoll, self.fd(), data, self.interest())
    }

    fn step(&mut self, question: &[u8]) -> Step {
        match &mut self.link {
            Link::Udp(socket) => {
                let mut buffer = vec![0; 65535];
                loop {
                    match socket.recv(&mut buffer) {
                        Ok(length) if codec::answers(&buffer[..length], self.id, question) => {
                            buffer.truncate(length);
                            return Step::Answer(buffer);
                        }
                        // Not the answer to this: somebody guesses.
                        Ok(_) => {}
                        Err(error) if error.kind() == ErrorKind::WouldBlock => return Step::Waiting,
                        Err(error) if error.kind() == ErrorKind::Interrupted => {}
                        Err(_) => return Step::Broken,
                    }
                }
            }
            Link::Tcp { stream, output, input } => {
                while !output.is_empty() {
                    match stream.write(output) {
                        Ok(written) => drop(output.drain(..written)),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => return Step::Waiting,
                        Err(error) if error.kind() == ErrorKind::Interrupted => {}
                        Err(_) => return Step::Broken,
                    }
                }
                let mut buffer = [0; 4096];
                loop {
                    match stream.read(&mut buffer) {
                        Ok(0) => return Step::Broken,
                        Ok(length) => input.extend(&buffer[..length]),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => return Step::Waiting,
                        Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                        Err(_) => return Step::Broken,
                    }
                    if let Some(message) = unframed(input) {
                        let ours = codec::answers(&message, self.id, question);
                        return if ours { Step::Answer(message) } else { Step::Broken };
                    }
                }
            }
        }
    }
}

/// A message as TCP carries it: its length first.
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).expect("a message is at most 65535 bytes");
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend(message);
    bytes
}

/// Takes the first whole message out of a TCP stream's bytes.
pub(super) fn unframed(input: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = usize::from(u16::from_be_bytes(*input.first_chunk()?));
    let message = input.get(2..2 + length)?.to_vec();
    input.drain(..2 + length);
    Some(message)
}

fn failed(asker: Asker, message: &[u8]) -> Outcome {
    Outcome { asker, message: codec::failure(message) }
}

fn random_id() -> u16 {
    let mut bytes = [0; 2];
    // Never short for so few bytes, and the pool is ready long before a container runs.
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).ok();
    u16::from_ne_bytes(bytes)
}
