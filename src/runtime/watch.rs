//! Waiting for a directory to change, without polling.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;

use crate::util::fs::PathError;

/// Watches one directory: writes to its files, and names that come and go.
///
/// Make the watch first and look at the files then; a change between two looks is never missed.
#[derive(Debug)]
pub struct Watch {
    inotify: OwnedFd,
}

impl Watch {
    /// Starts to watch. A removed directory makes the watch readable, too.
    ///
    /// # Errors
    /// The directory does not exist, or the limits of `/proc/sys/fs/inotify` are reached.
    pub fn new(dir: &Path) -> Result<Self, PathError> {
        let failed = || PathError::at("watch", dir);
        let fd =
            inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).map_err(failed())?;
        let events = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::DELETE_SELF
            | inotify::WatchFlags::ONLYDIR;
        inotify::add_watch(&fd, dir, events).map_err(failed())?;
        Ok(Self { inotify: fd })
    }

    /// Forgets what happened so far. Call it before looking at the files.
    pub fn clear(&self) {
        let mut buffer = [0_u8; 4096];
        while matches!(rustix::io::read(&self.inotify, &mut buffer), Ok(n) if n > 0) {}
    }

    /// Blocks until something has happened or the deadline has passed; `false` then.
    pub fn wait(&self, deadline: Option<Instant>) -> bool {
        loop {
            let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
            let timeout = left.map(|left| rustix::time::Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            });
            let mut fds = [PollFd::new(&self.inotify, PollFlags::IN)];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(0) => return false,
                Err(rustix::io::Errno::INTR) => {}
                // No other error can happen to a descriptor we own; the caller looks at the files in any case.
                Ok(_) | Err(_) => return true,
            }
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

impl std::os::fd::AsRawFd for Watch {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        std::os::fd::AsRawFd::as_raw_fd(&self.inotify)
    }
}
