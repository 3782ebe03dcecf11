//! Giving a build up from another thread.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::pipe::{PipeFlags, pipe_with};

/// Says to all threads and sandboxes of a build that it is not wanted any more. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Cancel(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    cancelled: AtomicBool,
    /// Readable (its end) once the writer is gone.
    reader: OwnedFd,
    writer: Mutex<Option<OwnedFd>>,
}

impl Cancel {
    /// A build that is wanted.
    ///
    /// # Errors
    /// No more descriptors.
    pub fn new() -> std::io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        Ok(Self(Arc::new(Shared {
            cancelled: AtomicBool::new(false),
            reader,
            writer: Mutex::new(Some(writer)),
        })))
    }

    /// Gives it up. May be called several times.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::SeqCst);
        drop(self.0.writer.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Whether it was given up.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    /// Polls as readable once it was given up.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.reader.as_fd()
    }
}
