//! Copying a tree of files: owners, modes, times, extended attributes, hard links, devices.
//!
//! Both sides are directory descriptors; links are copied, never followed. Copying again over
//! a half-made copy completes it. Overlay's own marks (whiteouts are not visible through a
//! merged view, `trusted.overlay.*` attributes) are left out.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

/// A file that cannot be copied.
#[derive(Debug, thiserror::Error)]
#[error("cannot copy `{}`: cannot {step}", path.display())]
pub struct CopyError {
    /// The verb.
    pub step: &'static str,
    /// Path below the copied directory.
    pub path: PathBuf,
    /// The kernel's reason.
    #[source]
    pub source: io::Error,
}

type Result<T> = std::result::Result<T, CopyError>;

fn at(step: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> CopyError {
    let path = PathBuf::from(String::from_utf8_lossy(path).into_owned());
    move |error| CopyError { step, path, source: error.into() }
}

const INSIDE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// Copies the content of directory `from` into directory `to`, and `from`'s own attributes onto `to`.
///
/// # Errors
/// [`CopyError`] with the path below `from`.
pub fn copy_tree(from: impl AsFd, to: impl AsFd) -> Result<()> {
    let (from, to) = (from.as_fd(), to.as_fd());
    // First path of each file that has several names.
    let mut names: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
    let mut pending: Vec<Vec<u8>> = vec![Vec::new()];
    let mut finished: Vec<Vec<u8>> = Vec::new();
    while let Some(directory) = pending.pop() {
        let source = open_directory(from, &directory)?;
        let target = open_directory(to, &directory)?;
        for entry in Dir::read_from(&source).map_err(at("list the directory", &directory))? {
            let entry = entry.map_err(at("list the directory", &directory))?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let path =
                if directory.is_empty() { name.to_vec() } else { [&directory[..], b"/", name].concat() };
            let stat = rustix::fs::statat(&source, name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(at("look at it", &path))?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                match rustix::fs::mkdirat(&target, name, Mode::from_raw_mode(0o700)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(at("make the directory", &path)(error)),
                }
                pending.push(path);
                continue;
            }
            if stat.st_nlink > 1 {
                if let Some(first) = names.get(&(stat.st_dev, stat.st_ino)) {
                    fresh(&target, name, &path, "make the hard link", || {
                        rustix::fs::linkat(to, &first[..], &target, name, AtFlags::empty())
                    })?;
                    continue;
                }
                names.insert((stat.st_dev, stat.st_ino), path.clone());
            }
            copy_one(&source, &target, name, &path, &stat)?;
        }
        finished.push(directory);
    }
    // Directories last, children first: making entries changes their times.
    for directory in finished.iter().rev() {
        let source = open_directory(from, directory)?;
        let target = open_directory(to, directory)?;
        let stat = rustix::fs::fstat(&source).map_err(at("look at it", directory))?;
        attributes(&source, &target, &stat, directory)?;
    }
    Ok(())
}

fn open_directory(root: impl AsFd, path: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let name = if path.is_empty() { &b"."[..] } else { path };
    rustix::fs::openat2(root, name, flags, Mode::empty(), INSIDE).map_err(at("open the directory", path))
}

/// Makes one name, first taking away what a killed copy left there.
fn fresh<T>(
    target: &OwnedFd,
    name: &[u8],
    path: &[u8],
    step: &'static str,
    make: impl Fn() -> rustix::io::Result<T>,
) -> Result<T> {
    match make() {
        Err(Errno::EXIST) => {
            rustix::fs::unlinkat(target, name, AtFlags::empty()).map_err(at("replace it", path))?;
            make().map_err(at(step, path))
        }
        other => other.map_err(at(step, path)),
    }
}

fn copy_one(source: &OwnedFd, target: &OwnedFd, name: &[u8], path: &[u8], stat: &Stat) -> Result<()> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let from = rustix::fs::openat(source, name, read, Mode::empty()).map_err(at("open it", path))?;
            let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let to = fresh(target, name, path, "create it", || {
                rustix::fs::openat(target, name, write, Mode::from_raw_mode(0o600))
            })?;
            let (mut from, mut to) = (File::from(from), File::from(to));
            // std copies inside the kernel (copy_file_range) where that is possible.
            io::copy(&mut from, &mut to).map_err(|source| CopyError {
                step: "copy its content",
                path: PathBuf::from(String::from_utf8_lossy(path).into_owned()),
                source,
            })?;
            attributes(&from, &to, stat, path)
        }
        FileType::Symlink => {
            let link = rustix::fs::readlinkat(source, name, Vec::new()).map_err(at("read the link", path))?;
            fresh(target, name, path, "make the link", || rustix::fs::symlinkat(&link, target, name))?;
            owner_and_time(target, name, stat, path)
        }
        kind => {
            let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
            fresh(target, name, path, "make the device", || {
                rustix::fs::mknodat(target, name, kind, mode, stat.st_rdev)
            })?;
            owner_and_time(target, name, stat, path)?;
            rustix::fs::chmodat(target, name, mode, AtFlags::empty()).map_err(at("set its mode", path))
        }
    }
}

fn owner_and_time(target: &OwnedFd, name: &[u8], stat: &Stat, path: &[u8]) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(target, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(at("set its owner", path))?;
    rustix::fs::utimensat(target, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(at("set its time", path))
}

fn attributes(from: impl AsFd, to: impl AsFd, stat: &Stat, path: &[u8]) -> Result<()> {
    let (from, to) = (from.as_fd(), to.as_fd());
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(to, Some(uid), Some(gid)).map_err(at("set its owner", path))?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777)).map_err(at("set its mode", path))?;
    let mut list = vec![0; 64 << 10];
    let length = match rustix::fs::flistxattr(from, &mut list[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(at("list its extended attributes", path)(error)),
    };
    for name in list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"trusted.overlay.") || name == b"security.selinux" {
            continue;
        }
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::fgetxattr(from, name, &mut value[..])
            .map_err(at("read its extended attributes", path))?;
        match rustix::fs::fsetxattr(to, name, &value[..length], XattrFlags::empty()) {
            Err(Errno::OPNOTSUPP) if name.starts_with(b"user.") => {}
            other => other.map_err(at("set its extended attributes", path))?,
        }
    }
    rustix::fs::futimens(to, &times(stat)).map_err(at("set its time", path))
}

fn times(stat: &Stat) -> Timestamps {
    let time =
        |seconds, nanos: u64| Timespec { tv_sec: seconds, tv_nsec: nanos.try_into().unwrap_or_default() };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}
