//! Paths below a directory that holds what strangers made.
//!
//! Nothing here ever follows a link out of the directory it is given, whatever
//! the commands of a build have put there.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat, openat2};
use rustix::io::Errno;

/// A step of `openat2(2)` inside the directory, without links anywhere.
const PLAIN: ResolveFlags =
    ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_SYMLINKS);
/// The same, links resolved inside.
const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// Opens a directory of ours.
pub(super) fn open_root(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens the directory `path`, in which no component is a link.
pub(super) fn directory(root: impl AsFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(root.as_fd(), relative(path), flags, Mode::empty(), PLAIN)
}

/// Opens whatever `path` leads to (`O_PATH`), links resolved inside.
pub(super) fn follow(root: impl AsFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    openat2(root.as_fd(), relative(path), OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), INSIDE)
}

/// Opens a regular file for reading in the directory `at`; the name itself is not followed.
pub(super) fn file(at: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    // NONBLOCK: it may have become a FIFO meanwhile, and must not hold us up.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = rustix::fs::openat(at, name, flags, Mode::empty())?;
    if FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    Ok(fd)
}

pub(super) fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memrchr(b'/', path) {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

pub(super) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    match (parent, name) {
        (b"", name) => name.to_vec(),
        (parent, b"") => parent.to_vec(),
        (parent, name) => [parent, b"/", name].concat(),
    }
}

fn relative(path: &[u8]) -> &OsStr {
    let start = path.iter().position(|c| *c != b'/').unwrap_or(path.len());
    OsStr::from_bytes(if start == path.len() { b"." } else { &path[start..] })
}
