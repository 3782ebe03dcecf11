//! The standard streams of the main process.
//!
//! Without a terminal they are FIFOs in the run directory, opened read-write by
//! both sides: there is always a reader, so the container never gets SIGPIPE when
//! its shim is killed, and a later shim that opens them finds what was written in between.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, fcntl_getfl, fcntl_setfl, mknodat, open};

use super::attach::write_some;

/// The shim's side.
#[derive(Debug)]
pub(super) struct Streams {
    dir: PathBuf,
    /// What the shim reads: stdout, or the terminal.
    pub(super) out: Option<OwnedFd>,
    /// What the shim reads: stderr.
    pub(super) err: Option<OwnedFd>,
    /// What the shim writes: stdin; the terminal is in `out`.
    pub(super) stdin: Option<OwnedFd>,
    /// Typed bytes that the container has not taken yet.
    pub(super) typed: Vec<u8>,
    tty: bool,
    /// Standard input is closed once all typed bytes are taken.
    closing: bool,
}

/// The container's side.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

const READ_WRITE: OFlags = OFlags::RDWR.union(OFlags::CLOEXEC);

impl Streams {
    /// Nothing opened yet.
    pub(super) fn new(live_dir: &Path, tty: bool) -> Self {
        Self {
            dir: live_dir.to_owned(),
            out: None,
            err: None,
            stdin: None,
            typed: Vec::new(),
            tty,
            closing: false,
        }
    }

    /// Opens both sides for a start. Streams that are open already are kept.
    pub(super) fn prepare(&mut self, stdin_open: bool) -> io::Result<Inner> {
        self.open_ours()?;
        let stdin = if stdin_open {
            self.stdin = None;
            self.closing = false;
            self.typed = Vec::new();
            let path = self.fifo("in")?;
            // Without O_NONBLOCK this would wait for a writer; the container must see a blocking end.
            let inner = open(&path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
            fcntl_setfl(&inner, fcntl_getfl(&inner)? - OFlags::NONBLOCK)?;
            self.stdin =
                Some(open(&path, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?);
            inner
        } else {
            open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?
        };
        Ok(Inner {
            stdin,
            stdout: open(self.fifo("out")?, READ_WRITE, Mode::empty())?,
            stderr: open(self.fifo("err")?, READ_WRITE, Mode::empty())?,
        })
    }

    /// Opens the shim's side only: the container runs already.
    pub(super) fn adopt(&mut self, stdin_open: bool) -> io::Result<()> {
        if self.tty {
            return Ok(());
        }
        self.open_ours()?;
        if stdin_open {
            let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            // Fails when the container has closed its end; then there is nobody to type to.
            self.stdin = open(self.dir.join("in"), flags, Mode::empty()).ok();
        }
        Ok(())
    }

    fn open_ours(&mut self) -> io::Result<()> {
        let flags = READ_WRITE.union(OFlags::NONBLOCK);
        if self.out.is_none() {
            self.out = Some(open(self.fifo("out")?, flags, Mode::empty())?);
        }
        if self.err.is_none() {
            self.err = Some(open(self.fifo("err")?, flags, Mode::empty())?);
        }
        Ok(())
    }

    /// Takes the master of a new terminal.
    pub(super) fn take_terminal(&mut self, master: OwnedFd) -> io::Result<()> {
        fcntl_setfl(&master, fcntl_getfl(&master)? | OFlags::NONBLOCK)?;
        self.out = Some(master);
        Ok(())
    }

    /// The terminal of a container that has one.
    pub(super) fn terminal(&self) -> Option<BorrowedFd<'_>> {
        if self.tty { self.out.as_ref().map(AsFd::as_fd) } else { None }
    }

    /// Where typed bytes go, if they go anywhere.
    pub(super) fn input(&self) -> Option<&OwnedFd> {
        if self.tty { self.out.as_ref() } else { self.stdin.as_ref() }
    }

    /// Writes what was typed as far as the container takes it.
    pub(super) fn push(&mut self) {
        let Some(fd) = self.input() else {
            self.typed = Vec::new();
            return;
        };
        if let Ok(n) = write_some(fd, &self.typed) {
            self.typed.drain(..n);
        } else {
            // The container has closed its end.
            self.typed = Vec::new();
            if !self.tty {
                self.stdin = None;
            }
        }
        if self.typed.is_empty() {
            self.typed = Vec::new();
            if self.closing {
                self.stdin = None;
            }
        }
    }

    /// Gives the container the end of its input, behind what was typed.
    pub(super) fn close_input(&mut self) {
        self.closing = true;
        self.push();
    }

    fn fifo(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.dir.join(name);
        match mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(path),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_without_a_shim_waits_for_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = Streams::new(dir.path(), false);
        let inner = first.prepare(false).unwrap();
        drop(first);
        rustix::io::write(&inner.stdout, b"still here").unwrap();
        let mut second = Streams::new(dir.path(), false);
        second.adopt(false).unwrap();
        let mut buffer = [0; 32];
        let n = rustix::io::read(second.out.as_ref().unwrap(), &mut buffer).unwrap();
        assert_eq!(&buffer[..n], b"still here");
    }

    #[test]
    fn closing_stdin_is_seen_inside() {
        let dir = tempfile::tempdir().unwrap();
        let mut streams = Streams::new(dir.path(), false);
        let inner = streams.prepare(true).unwrap();
        streams.typed.extend_from_slice(b"abc");
        streams.push();
        streams.stdin = None;
        let mut buffer = [0; 8];
        assert_eq!(rustix::io::read(&inner.stdin, &mut buffer).unwrap(), 3);
        assert_eq!(rustix::io::read(&inner.stdin, &mut buffer).unwrap(), 0, "end of file");
    }
}
