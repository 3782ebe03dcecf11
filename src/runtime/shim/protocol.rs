//! What commands and shims say to each other, and how it travels.
//!
//! One message is one `SOCK_SEQPACKET` packet: JSON, with descriptors beside it.
//! Two conversations exist:
//!
//! * **Start.** The command spawns the shim with one end of a socket pair as
//!   standard input and sends [`Hello`] with the held lock of the run directory
//!   and the streams of those who attached before the start. The shim answers
//!   once with [`Reply::Done`] or [`Reply::Failed`]. End of file without an
//!   answer means that it died.
//! * **Control.** A client connects to `ctl`, sends one [`Request`] and gets one
//!   [`Reply`], except for [`Request::Exec`], which gets [`Reply::Started`] and,
//!   when the process ends, [`Reply::Exited`]. A client that leaves gives up waiting; what it asked
//!   for is done all the same.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::runtime::error::ShimError;
use crate::runtime::init::ProcessPlan;
use crate::runtime::root::Root;

/// First message to a shim. Descriptors: the lock, then per attachment stdin (if connected), stdout, stderr (without terminal).
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// Installation.
    pub(crate) root: Root,
    /// Full container id.
    pub(crate) id: String,
    /// Take over a running container instead of starting one.
    pub(crate) adopt: bool,
    /// Those who attached before the start.
    pub(crate) attachments: Vec<Attach>,
}

/// Which streams an attachment connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attach {
    /// Standard input, as the first descriptor.
    pub(crate) stdin: bool,
    /// Standard error has a descriptor of its own (there is no terminal).
    pub(crate) stderr: bool,
}

/// What a client wants.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub(crate) enum Request {
    /// Ask the main process to stop, kill it after the grace period; answered after the exit.
    Stop {
        /// None is the container's own.
        grace_ms: Option<u64>,
    },
    /// Send a signal to the main process.
    Kill {
        /// Its number.
        signal: i32,
    },
    /// Stop and start in one; answered when it runs again.
    Restart {
        /// None is the container's own.
        grace_ms: Option<u64>,
    },
    /// Freeze.
    Pause,
    /// Thaw.
    Unpause,
    /// Answered with [`Reply::Exited`] when the container has stopped for good.
    Wait,
    /// Answered when the container runs (at once unless it waits for a restart).
    Ready,
    /// Connect to the streams; descriptors as in [`Hello`].
    Attach(Attach),
    /// Set the terminal size.
    Resize {
        /// Height.
        rows: u16,
        /// Width.
        columns: u16,
    },
    /// Run an extra process. Descriptors: stdin, stdout, stderr; none with a terminal.
    Exec {
        /// What runs.
        process: Box<ProcessPlan>,
        /// Height and width of its terminal.
        terminal: Option<(u16, u16)>,
    },
}

/// What a shim answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub(crate) enum Reply {
    /// Done.
    Done,
    /// The process ended.
    Exited {
        /// 128 + n for signal n.
        code: i32,
    },
    /// The extra process runs. Descriptors: its pidfd, and the master of its terminal.
    Started,
    /// It could not be done.
    Failed {
        /// Why.
        error: ShimError,
    },
}

/// One end of a conversation.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

impl Channel {
    /// Both ends of a new one.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (a, b) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self::new(a), b))
    }

    /// Over a connected socket. Large environments need a large buffer.
    pub(crate) fn new(socket: OwnedFd) -> Self {
        // Without the right to exceed the limit the default has to do; a packet that is too large then fails.
        rustix::net::sockopt::set_socket_send_buffer_size_force(&socket, 8 << 20).ok();
        Self(socket)
    }

    /// Connects to a shim. The path may be longer than a socket address.
    pub(crate) fn connect(live_dir: &Path) -> io::Result<Self> {
        let dir = rustix::fs::openat(
            CWD,
            live_dir,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        rustix::net::connect(&socket, &short_address(dir.as_fd())?)?;
        Ok(Self::new(socket))
    }

    /// Sends one message.
    pub(crate) fn send<T: Serialize>(&self, message: &T, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors in one message"));
        }
        rustix::net::sendmsg(&self.0, &[io::IoSlice::new(&text)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Receives one message; `None` at the end.
    pub(crate) fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut probe = [0_u8; 1];
        let (_, size) = rustix::io::retry_on_intr(|| {
            rustix::net::recv(&self.0, &mut probe[..], RecvFlags::PEEK | RecvFlags::TRUNC)
        })?;
        if size == 0 {
            return Ok(None);
        }
        let mut text = vec![0; size];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = rustix::net::recvmsg(
            &self.0,
            &mut [io::IoSliceMut::new(&mut text)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                descriptors.extend(fds);
            }
        }
        Ok(Some((serde_json::from_slice(&text[..got.bytes])?, descriptors)))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Opens the control socket of a run directory for clients.
pub(super) fn listen(live_dir: &Path) -> io::Result<OwnedFd> {
    match std::fs::remove_file(live_dir.join("ctl")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let dir =
        rustix::fs::openat(CWD, live_dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::net::bind(&socket, &short_address(dir.as_fd())?)?;
    rustix::net::listen(&socket, 64)?;
    Ok(socket)
}

/// `ctl` in an open directory: a socket address holds 107 bytes, a path of ours may have more.
fn short_address(dir: BorrowedFd<'_>) -> io::Result<SocketAddrUnix> {
    use std::os::fd::AsRawFd as _;
    Ok(SocketAddrUnix::new(format!("/proc/self/fd/{}/ctl", dir.as_raw_fd()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_descriptors_arrive_whole() {
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = Channel::new(theirs);
        let file = tempfile::tempfile().unwrap();
        ours.send(&Request::Kill { signal: 15 }, &[file.as_fd(), file.as_fd()]).unwrap();
        ours.send(&Request::Wait, &[]).unwrap();
        drop(ours);
        let (message, fds) = theirs.receive::<Request>().unwrap().unwrap();
        assert!(matches!(message, Request::Kill { signal: 15 }));
        assert_eq!(fds.len(), 2);
        let (message, fds) = theirs.receive::<Request>().unwrap().unwrap();
        assert!(matches!(message, Request::Wait));
        assert!(fds.is_empty());
        assert!(theirs.receive::<Request>().unwrap().is_none());
    }

    #[test]
    fn a_control_socket_works_below_a_long_path() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("x".repeat(150));
        std::fs::create_dir(&long).unwrap();
        let listener = listen(&long).unwrap();
        let client = Channel::connect(&long).unwrap();
        let server = Channel::new(rustix::net::accept(&listener).unwrap());
        client.send(&Request::Pause, &[]).unwrap();
        assert!(matches!(server.receive::<Request>().unwrap().unwrap().0, Request::Pause));
    }
}
