//! Removing paths of a container.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{FilesError, open, step};
use crate::runtime::mount::Root;

/// Removes a path with all below it; succeeds when it is not there.
///
/// Links are removed, not followed: each step is taken from the descriptor of the
/// directory that was looked at.
pub(super) fn delete(root: &Root, path: &[u8]) -> Result<(), FilesError> {
    let trimmed = path.iter().rposition(|c| *c != b'/').map_or(&path[..0], |end| &path[..=end]);
    let (parent, name) = match trimmed.iter().rposition(|c| *c == b'/') {
        Some(at) => (&trimmed[..at], &trimmed[at + 1..]),
        None => (&b""[..], trimmed),
    };
    if matches!(name, b"" | b"." | b"..") {
        return Err(step("remove", path)(Errno::INVAL));
    }
    match open(root, parent, true) {
        Ok(parent) => remove(&parent, name, path),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
        Err(errno) => Err(step("open the directory of", path)(errno)),
    }
}

fn remove(parent: &impl AsFd, name: &[u8], path: &[u8]) -> Result<(), FilesError> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // Linux says EISDIR, POSIX has EPERM for it.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(step("remove", path)(errno)),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Ok(directory) => directory,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(step("open", path)(errno)),
    };
    for entry in Dir::read_from(&directory).map_err(step("list", path))? {
        let entry = entry.map_err(step("list", path))?;
        let child = entry.file_name().to_bytes();
        if matches!(child, b"." | b"..") {
            continue;
        }
        let below = [path, b"/", child].concat();
        if entry.file_type() == FileType::Directory {
            remove(&directory, child, &below)?;
        } else {
            match rustix::fs::unlinkat(&directory, child, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR) => remove(&directory, child, &below)?,
                Err(errno) => return Err(step("remove", &below)(errno)),
            }
        }
    }
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(step("remove", path)(errno)),
    }
}
