//! How a new process tells its maker what became of it.
//!
//! One `SOCK_SEQPACKET` pair, close-on-exec on both sides. The child sends `t` with
//! a descriptor (a terminal's master), `x` (about to execute), or a [`LaunchError`]
//! as JSON. End of file after `x` means that `execve` succeeded; without it the
//! child died.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use super::LaunchError;

/// Longest report; a longer one would be cut, which shows as [`LaunchError::Died`].
const LONGEST: usize = 16 * 1024;

/// The child's end.
#[derive(Debug)]
pub(super) struct Reporter(OwnedFd);

/// The maker's end.
#[derive(Debug)]
pub(super) struct Reports(OwnedFd);

/// Makes both ends.
pub(super) fn channel() -> Result<(Reporter, Reports), LaunchError> {
    let (ours, childs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(|e| LaunchError::Setup { action: "make the report channel".into(), source: e.into() })?;
    Ok((Reporter(childs), Reports(ours)))
}

impl Reporter {
    /// Sends why the start failed. Nobody is left to tell if that fails.
    pub(super) fn error(&self, error: &LaunchError) {
        if let Ok(text) = serde_json::to_vec(error) {
            let mut control = SendAncillaryBuffer::default();
            sendmsg(&self.0, &[IoSlice::new(&text)], &mut control, SendFlags::NOSIGNAL).ok();
        }
    }

    /// Hands over the master of a terminal.
    pub(super) fn terminal(&self, master: &OwnedFd) -> rustix::io::Result<()> {
        let descriptors = [master.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(&self.0, &[IoSlice::new(b"t")], &mut control, SendFlags::NOSIGNAL).map(drop)
    }

    /// Says that the next step is `execve`.
    pub(super) fn ready(&self) {
        rustix::net::send(&self.0, b"x", SendFlags::NOSIGNAL).ok();
    }

    /// Whether the maker has died.
    pub(super) fn is_orphan(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::HUP)
    }
}

impl Reports {
    /// Waits until the child has executed its command, and returns the terminal's master if it sent one.
    pub(super) fn wait(self) -> Result<Option<OwnedFd>, LaunchError> {
        let broken = |e: rustix::io::Errno| LaunchError::Setup {
            action: "read the report of the new process".into(),
            source: e.into(),
        };
        let mut terminal = None;
        let mut ready = false;
        let mut text = vec![0; LONGEST];
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::CMSG_CLOEXEC;
            let message = rustix::io::retry_on_intr(|| {
                recvmsg(&self.0, &mut [IoSliceMut::new(&mut text)], &mut control, flags)
            })
            .map_err(broken)?;
            for part in control.drain() {
                if let RecvAncillaryMessage::ScmRights(mut descriptors) = part {
                    terminal = descriptors.next();
                }
            }
            match &text[..message.bytes] {
                [] if ready => return Ok(terminal),
                [] => return Err(LaunchError::Died { status: -1 }),
                b"x" => ready = true,
                b"t" => {}
                error => {
                    return Err(serde_json::from_slice(error).unwrap_or(LaunchError::Died { status: -1 }));
                }
            }
        }
    }
}
