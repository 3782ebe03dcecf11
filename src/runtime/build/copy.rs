//! Putting files into a tree: what `COPY`, `ADD`, `WORKDIR` and caches have in common.
//!
//! Source and target are directories that hold what strangers made. The
//! target's path is resolved once, links inside of it ([`resolve`]); below that
//! no link is followed on either side.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::beneath::{self, is_directory, join, split};
use super::chmod::Chmod;
use super::error::{BuildError, Result};
use crate::util::fs::PathError;

/// Links that one path may go through, as in the kernel.
const MAX_LINKS: u32 = 40;

/// Copies files, and remembers those with several names.
#[derive(Debug, Default)]
pub(super) struct Copier {
    /// Owner of everything; none keeps the source's.
    owner: Option<(u32, u32)>,
    /// Change of mode of everything but links.
    mode: Option<Chmod>,
    /// First copy of each file with several names, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
}

/// For `map_err`: names step and path.
fn failed(action: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> BuildError + use<> {
    let path = PathBuf::from(format!("/{}", String::from_utf8_lossy(path)));
    move |errno| PathError { action, path, source: errno.into() }.into()
}

fn wrong(path: &[u8], reason: &str) -> BuildError {
    BuildError::Invalid {
        attribute: format!("/{}", String::from_utf8_lossy(path)),
        reason: reason.to_owned(),
    }
}

/// The path that `path` really is below `root`, links resolved; it and its last components need not exist.
pub(super) fn resolve(root: impl AsFd, path: &[u8]) -> Result<Vec<u8>> {
    let mut real: Vec<Vec<u8>> = Vec::new();
    let mut todo: Vec<Vec<u8>> = components(path).rev().collect();
    let mut links = 0;
    while let Some(part) = todo.pop() {
        if part == b".." {
            real.pop();
            continue;
        }
        let parent = real.join(&b'/');
        let target = match beneath::directory(&root, &parent) {
            Ok(dir) => match rustix::fs::readlinkat(&dir, &part[..], Vec::new()) {
                Ok(target) => Some(target.into_bytes()),
                Err(Errno::INVAL | Errno::NOENT) => None,
                Err(error) => return Err(failed("look up", &join(&parent, &part))(error)),
            },
            Err(Errno::NOENT) => None,
            Err(Errno::NOTDIR) => return Err(wrong(&parent, "it is not a directory")),
            Err(error) => return Err(failed("look up", &parent)(error)),
        };
        let Some(target) = target else {
            real.push(part);
            continue;
        };
        links += 1;
        if links > MAX_LINKS {
            return Err(failed("look up", path)(Errno::LOOP));
        }
        if target.first() == Some(&b'/') {
            real.clear();
        }
        todo.extend(components(&target).rev());
    }
    Ok(real.join(&b'/'))
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> + '_ {
    path.split(|c| *c == b'/').filter(|c| !c.is_empty() && *c != b".").map(<[u8]>::to_vec)
}

impl Copier {
    /// With this owner and change of mode.
    pub(super) fn new(owner: Option<(u32, u32)>, mode: Option<Chmod>) -> Self {
        Self { owner, mode, links: HashMap::new() }
    }

    /// Makes the directory at the real path `path` and its missing parents, and opens it.
    pub(super) fn make_directories(&self, root: &OwnedFd, path: &[u8]) -> Result<OwnedFd> {
        match beneath::directory(root, path) {
            Ok(dir) => return Ok(dir),
            Err(Errno::NOENT) => {}
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(wrong(path, "it is not a directory")),
            Err(error) => return Err(failed("open", path)(error)),
        }
        let (above, name) = split(path);
        let parent = self.make_directories(root, above)?;
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                let dir = open_directory(&parent, name).map_err(failed("open", path))?;
                let (uid, gid) = self.owner.unwrap_or((0, 0));
                own(&dir, uid, gid).map_err(failed("set the owner of", path))?;
                // The umask of this process is not the user's wish.
                // A symbolic change is one of what is copied, which these are not: as in Docker.
                let octal = self.mode.as_ref().filter(|mode| matches!(mode, Chmod::Octal(_)));
                let mode = octal.map_or(0o755, |mode| mode.apply(0o755, true));
                rustix::fs::fchmod(&dir, Mode::from_raw_mode(mode))
                    .map_err(failed("set the mode of", path))?;
                Ok(dir)
            }
            Err(Errno::EXIST) => open_directory(&parent, name).map_err(failed("open", path)),
            Err(error) => Err(failed("make the directory", path)(error)),
        }
    }

    /// Copies what is in the directory at `path` of `source` into `target`, directories with all below.
    pub(super) fn contents(&mut self, source: impl AsFd, path: &[u8], target: &OwnedFd) -> Result<()> {
        let from = beneath::follow(&source, path).map_err(failed("open", path))?;
        let from = beneath::directory(&from, b"").map_err(failed("open", path))?;
        self.tree(&from, b"", target)
    }

    fn tree(&mut self, from: &OwnedFd, path: &[u8], target: &OwnedFd) -> Result<()> {
        for name in names(from).map_err(failed("list", path))? {
            let full = join(path, &name);
            let stat = rustix::fs::statat(from, &name[..], AtFlags::SYMLINK_NOFOLLOW)
                .map_err(failed("look at", &full))?;
            if is_directory(&stat) {
                let inner = self.directory(from.as_fd(), &name, target, &full, &full)?;
                let below = open_directory(from, &name).map_err(failed("open", &full))?;
                self.tree(&below, &full, target)?;
                set_times(&inner, &stat).map_err(failed("set the time of", &full))?;
            } else {
                self.leaf(from.as_fd(), &name, &stat, target, &full)?;
            }
        }
        Ok(())
    }

    /// Makes the directory at the real path `to` like `name` in `from`, unless one is there.
    pub(super) fn directory(
        &self,
        from: BorrowedFd<'_>,
        name: &[u8],
        target: &OwnedFd,
        to: &[u8],
        shown: &[u8],
    ) -> Result<OwnedFd> {
        let (above, last) = split(to);
        let parent = self.make_directories(target, above)?;
        match rustix::fs::mkdirat(&parent, last, Mode::from_raw_mode(0o700)) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                return match open_directory(&parent, last) {
                    Ok(dir) => Ok(dir),
                    Err(Errno::NOTDIR | Errno::LOOP) => {
                        Err(wrong(to, "a directory cannot be copied over what is no directory"))
                    }
                    Err(error) => Err(failed("open", to)(error)),
                };
            }
            Err(error) => return Err(failed("make the directory", to)(error)),
        }
        let made = open_directory(&parent, last).map_err(failed("open", to))?;
        let source = open_directory(from, name).map_err(failed("open", shown))?;
        let stat = rustix::fs::fstat(&source).map_err(failed("look at", shown))?;
        self.attributes(&source, &made, &stat).map_err(failed("set the attributes of", to))?;
        Ok(made)
    }

    /// Copies what is no directory to the real path `to`, replacing what is there.
    pub(super) fn leaf(
        &mut self,
        from: BorrowedFd<'_>,
        name: &[u8],
        stat: &Stat,
        target: &OwnedFd,
        to: &[u8],
    ) -> Result<()> {
        let (above, last) = split(to);
        let parent = self.make_directories(target, above)?;
        clear(&parent, last, to)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if stat.st_nlink > 1 && kind == FileType::RegularFile {
            let id = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&id) {
                let (first_above, first_last) = split(first);
                let other = beneath::directory(target, first_above).map_err(failed("open", first))?;
                return rustix::fs::linkat(&other, first_last, &parent, last, AtFlags::empty())
                    .map_err(failed("link", to));
            }
            self.links.insert(id, to.to_vec());
        }
        let (uid, gid) = self.owner.unwrap_or((stat.st_uid, stat.st_gid));
        match kind {
            FileType::RegularFile => {
                let source = beneath::file(from, name).map_err(failed("open", to))?;
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = rustix::fs::openat(&parent, last, flags, Mode::from_raw_mode(0o600))
                    .map_err(failed("create", to))?;
                let (mut input, mut output) = (File::from(source), File::from(made));
                // In the kernel where the file systems can, sharing blocks if they do.
                io::copy(&mut input, &mut output).map_err(|source| PathError {
                    action: "write",
                    path: PathBuf::from(format!("/{}", String::from_utf8_lossy(to))),
                    source,
                })?;
                self.attributes(&input, &output, stat).map_err(failed("set the attributes of", to))?;
                set_times(&output, stat).map_err(failed("set the time of", to))?;
            }
            FileType::Symlink => {
                let link =
                    rustix::fs::readlinkat(from, name, Vec::new()).map_err(failed("read the link", to))?;
                rustix::fs::symlinkat(&link, &parent, last).map_err(failed("make the link", to))?;
                own_link(&parent, last, uid, gid).map_err(failed("set the owner of", to))?;
                time_link(&parent, last, stat).map_err(failed("set the time of", to))?;
            }
            // Docker leaves sockets of a context out, too.
            FileType::Socket => {}
            kind => {
                let mode = self
                    .mode
                    .as_ref()
                    .map_or(stat.st_mode & 0o7777, |m| m.apply(stat.st_mode & 0o7777, false));
                rustix::fs::mknodat(&parent, last, kind, Mode::from_raw_mode(mode), stat.st_rdev)
                    .map_err(failed("make the node", to))?;
                own_link(&parent, last, uid, gid).map_err(failed("set the owner of", to))?;
                rustix::fs::chmodat(&parent, last, Mode::from_raw_mode(mode), AtFlags::empty())
                    .map_err(failed("set the mode of", to))?;
                time_link(&parent, last, stat).map_err(failed("set the time of", to))?;
            }
        }
        Ok(())
    }

    /// Writes a file of this content to the real path `to`: mode 644 and the present time.
    pub(super) fn write(&self, content: &[u8], mode: u32, target: &OwnedFd, to: &[u8]) -> Result<()> {
        let (above, last) = split(to);
        let parent = self.make_directories(target, above)?;
        clear(&parent, last, to)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&parent, last, flags, Mode::from_raw_mode(0o600))
            .map_err(failed("create", to))?;
        let mut file = File::from(made);
        io::Write::write_all(&mut file, content).map_err(|source| PathError {
            action: "write",
            path: PathBuf::from(format!("/{}", String::from_utf8_lossy(to))),
            source,
        })?;
        let (uid, gid) = self.owner.unwrap_or((0, 0));
        own(&file, uid, gid).map_err(failed("set the owner of", to))?;
        let mode = self.mode.as_ref().map_or(mode, |change| change.apply(mode, false));
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(failed("set the mode of", to))
    }

    /// Owner, mode and extended attributes.
    fn attributes(&self, source: &impl AsFd, made: &impl AsFd, stat: &Stat) -> rustix::io::Result<()> {
        let (uid, gid) = self.owner.unwrap_or((stat.st_uid, stat.st_gid));
        own(made, uid, gid)?;
        let mode = stat.st_mode & 0o7777;
        let mode = self.mode.as_ref().map_or(mode, |change| change.apply(mode, is_directory(stat)));
        rustix::fs::fchmod(made, Mode::from_raw_mode(mode))?;
        for (name, value) in attributes_of(source)? {
            match rustix::fs::fsetxattr(made, &name[..], &value, XattrFlags::empty()) {
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The extended attributes that mean something in an image, sorted.
pub(super) fn attributes_of(file: &impl AsFd) -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut list = vec![0_u8; 64 << 10];
    let length = match rustix::fs::flistxattr(file, &mut list[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for name in list[..length].split(|c| *c == 0).filter(|name| !name.is_empty()) {
        let user = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
        if user || name == b"security.capability" {
            let mut value = vec![0_u8; 64 << 10];
            let length = rustix::fs::fgetxattr(file, name, &mut value[..])?;
            value.truncate(length);
            found.push((name.to_vec(), value));
        }
    }
    found.sort();
    Ok(found)
}

/// Names in a directory, sorted.
pub(super) fn names(directory: &OwnedFd) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Opens a directory by name, not through a link.
pub(super) fn open_directory(parent: impl AsFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Takes away what is no directory.
fn clear(parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => Err(wrong(path, "a file cannot be copied over a directory")),
        Err(error) => Err(failed("replace", path)(error)),
    }
}

fn own(file: &impl AsFd, uid: u32, gid: u32) -> rustix::io::Result<()> {
    rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
}

fn own_link(parent: &OwnedFd, name: &[u8], uid: u32, gid: u32) -> rustix::io::Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    rustix::fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
}

fn times(stat: &Stat) -> Timestamps {
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec.cast_signed() };
    Timestamps { last_access: time, last_modification: time }
}

/// Gives a file the time of another.
pub(super) fn set_times(file: &impl AsFd, stat: &Stat) -> rustix::io::Result<()> {
    rustix::fs::futimens(file, &times(stat))
}

fn time_link(parent: &OwnedFd, name: &[u8], stat: &Stat) -> rustix::io::Result<()> {
    rustix::fs::utimensat(parent, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_target_is_resolved_inside_of_its_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = beneath::open_root(dir.path()).unwrap();
        std::fs::create_dir_all(dir.path().join("real/sub")).unwrap();
        symlink("/real", dir.path().join("link")).unwrap();
        symlink("../../../../../etc/passwd", dir.path().join("real/out")).unwrap();
        symlink("gone", dir.path().join("dangling")).unwrap();
        symlink("loop", dir.path().join("loop")).unwrap();
        let real = |path: &str| resolve(&root, path.as_bytes()).map(|p| String::from_utf8(p).unwrap());
        assert_eq!(real("/link/sub/new/x").unwrap(), "real/sub/new/x");
        assert_eq!(real("link/out").unwrap(), "etc/passwd");
        assert_eq!(real("dangling").unwrap(), "gone");
        assert_eq!(real("a/../../b/.").unwrap(), "b");
        assert!(real("loop/x").is_err());
    }

    #[test]
    fn files_keep_what_they_are_and_replace_what_is_there() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (from, to) = (source.path(), target.path());
        std::fs::create_dir(from.join("d")).unwrap();
        std::fs::write(from.join("d/f"), "x").unwrap();
        std::fs::hard_link(from.join("d/f"), from.join("d/g")).unwrap();
        symlink("f", from.join("d/l")).unwrap();
        std::fs::set_permissions(from.join("d/f"), std::fs::Permissions::from_mode(0o4711)).unwrap();
        // What is in the way is a link that leads out.
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("kept"), "kept").unwrap();
        std::fs::create_dir(to.join("d")).unwrap();
        symlink(outside.path().join("kept"), to.join("d/f")).unwrap();

        let mut copier = Copier { owner: Some((7, 8)), ..Copier::default() };
        let into = beneath::open_root(to).unwrap();
        copier.contents(beneath::open_root(from).unwrap(), b"", &into).unwrap();

        let f = std::fs::symlink_metadata(to.join("d/f")).unwrap();
        assert_eq!((f.mode() & 0o7777, f.uid(), f.gid()), (0o4711, 7, 8));
        assert_eq!(f.mtime(), std::fs::metadata(from.join("d/f")).unwrap().mtime());
        assert_eq!(f.ino(), std::fs::metadata(to.join("d/g")).unwrap().ino(), "still one file");
        assert_eq!(std::fs::read_link(to.join("d/l")).unwrap(), PathBuf::from("f"));
        assert_eq!(std::fs::read(outside.path().join("kept")).unwrap(), b"kept");
        // Not root's: the directory was there before.
        assert_eq!(std::fs::metadata(to.join("d")).unwrap().uid(), 0);
    }
}
