//! Standard output and error as byte sinks: whole buffers, no line buffering.

use std::io::{self, Write as _};

/// Writes text to standard output at once.
///
/// # Errors
/// Of the write; a closed pipe is [`io::ErrorKind::BrokenPipe`], which ends the command quietly.
pub(crate) fn print(text: &str) -> io::Result<()> {
    write(text.as_bytes())
}

/// Writes bytes to standard output at once.
///
/// # Errors
/// As [`print`].
pub(crate) fn write(bytes: &[u8]) -> io::Result<()> {
    write_all(rustix::stdio::stdout(), bytes)
}

/// Writes text to standard error; there is nowhere left to complain to.
pub(crate) fn talk(text: &str) {
    let _gone = write_all(rustix::stdio::stderr(), text.as_bytes());
}

/// Writes everything to a descriptor that may be non-blocking.
fn write_all(fd: std::os::fd::BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => bytes = &bytes[n..],
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => {
                // Somebody who shares the terminal made it non-blocking.
                let mut ready = [rustix::event::PollFd::from_borrowed_fd(fd, rustix::event::PollFlags::OUT)];
                match rustix::event::poll(&mut ready, None) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(e) => return Err(e.into()),
                }
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// One of the two standard streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

impl io::Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let fd = match self {
            Self::Out => rustix::stdio::stdout(),
            Self::Err => rustix::stdio::stderr(),
        };
        write_all(fd, bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A pair of buffered sinks that keeps the order of lines where it can be
/// seen: when both go to the same file or terminal they share one buffer.
#[derive(Debug)]
pub(crate) struct Sinks<O: io::Write, E: io::Write> {
    out: io::BufWriter<O>,
    err: io::BufWriter<E>,
    shared: bool,
}

/// Large enough that a busy log costs one system call per thousand lines.
const BUFFER: usize = 64 * 1024;

impl<O: io::Write, E: io::Write> Sinks<O, E> {
    /// With `shared`, what is meant for `err` goes to `out`.
    pub(crate) fn new(out: O, err: E, shared: bool) -> Self {
        Self {
            out: io::BufWriter::with_capacity(BUFFER, out),
            err: io::BufWriter::with_capacity(BUFFER, err),
            shared,
        }
    }

    /// Where lines of standard error are to be written.
    pub(crate) fn stderr(&mut self) -> &mut dyn io::Write {
        if self.shared { &mut self.out } else { &mut self.err }
    }

    /// Where lines of standard output are to be written.
    pub(crate) fn stdout(&mut self) -> &mut dyn io::Write {
        &mut self.out
    }

    /// Writes out what is buffered.
    ///
    /// # Errors
    /// Of the writes.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()?;
        self.err.flush()
    }
}

/// Whether both standard streams are the same file, pipe or terminal.
pub(crate) fn streams_are_one() -> bool {
    let stat =
        |fd: std::os::fd::BorrowedFd<'_>| rustix::fs::fstat(fd).map(|s| (s.st_dev, s.st_ino, s.st_rdev)).ok();
    let out = stat(rustix::stdio::stdout());
    out.is_some() && out == stat(rustix::stdio::stderr())
}
