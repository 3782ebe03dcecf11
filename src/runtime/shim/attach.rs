//! Clients that read a container's output as it comes and write to its input.
//!
//! A client that does not read holds the container's output back (as on
//! Docker) once 256 KiB wait for it: nothing is dropped, and memory stays bounded.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::protocol::Attach;
use crate::runtime::log::StreamKind;

/// Bytes waiting for one client above which no more output is taken from the container.
const LIMIT: usize = 256 << 10;

/// One attached client.
#[derive(Debug)]
pub(super) struct Attachment {
    /// What the client types.
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: Option<Sink>,
    pub(super) stderr: Option<Sink>,
    /// The run it was attached to is over: it gets what waits for it, and no more.
    pub(super) ended: bool,
}

/// A pipe to a client.
#[derive(Debug)]
pub(super) struct Sink {
    pub(super) fd: OwnedFd,
    waiting: Vec<u8>,
    /// Whether writability is being waited for.
    pub(super) armed: bool,
}

impl Attachment {
    /// From descriptors that came with a message, in the order of [`Attach`].
    pub(super) fn new(kind: Attach, descriptors: &mut impl Iterator<Item = OwnedFd>) -> io::Result<Self> {
        let mut take = || -> io::Result<OwnedFd> {
            let fd = descriptors.next().ok_or(io::ErrorKind::InvalidInput)?;
            fcntl_setfl(&fd, fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
            Ok(fd)
        };
        let stdin = if kind.stdin { Some(take()?) } else { None };
        let stdout = Some(Sink::new(take()?));
        let stderr = if kind.stderr { Some(Sink::new(take()?)) } else { None };
        Ok(Self { stdin, stdout, stderr, ended: false })
    }

    /// The pipe for a stream.
    pub(super) fn sink(&mut self, stream: StreamKind) -> &mut Option<Sink> {
        match stream {
            StreamKind::Stdout => &mut self.stdout,
            StreamKind::Stderr => &mut self.stderr,
        }
    }

    /// Whether nothing is connected any more.
    pub(super) fn is_gone(&self) -> bool {
        self.stdin.is_none() && self.stdout.is_none() && self.stderr.is_none()
    }

    /// Whether the container's output must wait.
    pub(super) fn is_slow(&self) -> bool {
        [&self.stdout, &self.stderr].into_iter().flatten().any(|sink| sink.waiting.len() > LIMIT)
    }
}

impl Sink {
    fn new(fd: OwnedFd) -> Self {
        Self { fd, waiting: Vec::new(), armed: false }
    }

    /// Writes, keeping what does not fit; `false` when nobody reads any more.
    pub(super) fn write(&mut self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        if self.waiting.is_empty() {
            match write_some(&self.fd, rest) {
                Ok(n) => rest = &rest[n..],
                Err(_) => return false,
            }
        }
        self.waiting.extend_from_slice(rest);
        true
    }

    /// Writes more of what waits; `false` when nobody reads any more.
    pub(super) fn flush(&mut self) -> bool {
        match write_some(&self.fd, &self.waiting) {
            Ok(n) => {
                self.waiting.drain(..n);
                if self.waiting.is_empty() {
                    self.waiting = Vec::new();
                }
                true
            }
            Err(_) => false,
        }
    }

    /// Whether something waits to be written.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

/// Writes what fits without blocking; 0 when nothing does.
pub(super) fn write_some(fd: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        match rustix::io::write(fd, &bytes[done..]) {
            Ok(n) => done += n,
            Err(rustix::io::Errno::AGAIN) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(done)
}

/// Writes all that waits for a client, however long it takes; it ends when the client has left.
pub(super) fn flush_blocking(attachment: Attachment) {
    for sink in [attachment.stdout, attachment.stderr].into_iter().flatten() {
        let blocking =
            fcntl_getfl(&sink.fd).and_then(|flags| fcntl_setfl(&sink.fd, flags - OFlags::NONBLOCK));
        if blocking.is_ok() {
            drop(std::io::Write::write_all(&mut std::fs::File::from(sink.fd), &sink.waiting));
        }
    }
}
