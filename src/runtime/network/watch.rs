//! Putting the table back when somebody flushes the rule set.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::connect::{admits, repair};
use super::error::NetworkError;
use super::netlink::Socket;
use super::nft;
use crate::runtime::Source;
use crate::runtime::root::Root;
use crate::runtime::sys::netlink::attach_socket_filter;

/// Repairs the table after something was taken out of the rule set. A filter in
/// the kernel lets only removals of tables, chains, rules and sets through, so
/// that publishing a port wakes nobody.
#[derive(Debug)]
pub(super) struct Watch {
    socket: Socket,
    root: Root,
    bridges: Vec<String>,
    /// When to try again after a repair that failed.
    retry: Option<Instant>,
}

impl Watch {
    pub(super) fn new(root: &Root, bridges: Vec<String>) -> Result<Self, NetworkError> {
        let socket = Socket::netfilter()?;
        attach_socket_filter(socket.as_fd(), &removals())
            .map_err(NetworkError::step("filter firewall notifications"))?;
        socket.subscribe(nft::NOTIFICATIONS)?;
        Ok(Self { socket, root: root.clone(), bridges, retry: None })
    }
}

/// Accepts a datagram when its first message is a removal. A flush sends the
/// removals of rules, chains and sets before that of their table.
fn removals() -> Vec<(u16, u8, u8, u32)> {
    const LOAD_HALF: u16 = 0x28;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const KIND_OFFSET: u32 = 4;
    // BPF reads in network order what the header has in the machine's.
    let mut program = vec![(LOAD_HALF, 0, 0, KIND_OFFSET)];
    let count = nft::REMOVALS.len();
    for (i, kind) in nft::REMOVALS.into_iter().enumerate() {
        let to_accept = u8::try_from(count - i).expect("a handful");
        program.push((JUMP_IF_EQUAL, to_accept, 0, u32::from(u16::from_be_bytes(kind.to_ne_bytes()))));
    }
    program.push((RETURN, 0, 0, 0));
    program.push((RETURN, 0, 0, u32::MAX));
    program
}

impl Source for Watch {
    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn deadline(&self) -> Option<Instant> {
        self.retry
    }

    fn turn(&mut self) {
        const PAUSE: Duration = Duration::from_millis(500);
        let removed = !self.socket.drain().is_empty();
        if !removed && self.retry.is_none_or(|at| at > Instant::now()) {
            return;
        }
        // All shims hear of a flush; the first one repairs, the others find it done.
        let bridges: Vec<&str> = self.bridges.iter().map(String::as_str).collect();
        let outcome = match admits(&self.root, &bridges) {
            Ok(true) => Ok(()),
            Ok(false) => repair(&self.root),
            Err(error) => Err(error),
        };
        self.retry = outcome.is_err().then(|| Instant::now() + PAUSE);
    }
}
