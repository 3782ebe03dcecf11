//! From a tar archive into a directory of a container.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::{FilesError, INSIDE, open, step};
use crate::runtime::image::tar::{Entry, Kind, Reader, padding};
use crate::runtime::mount::Root;

type Result<T> = std::result::Result<T, FilesError>;

/// See [`Runtime::unpack`](crate::runtime::Runtime::unpack).
pub(super) fn unpack(
    root: &Root,
    path: &str,
    source: &mut dyn Read,
    owner: Option<(u32, u32)>,
) -> Result<()> {
    let top = open(root, path.as_bytes(), true).map_err(step("open", path.as_bytes()))?;
    let stat = rustix::fs::fstat(&top).map_err(step("look at", path.as_bytes()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err(FilesError::NotDirectory { path: path.to_owned() });
    }
    let top = path.trim_matches('/').as_bytes().to_vec();
    let mut unpacker = Unpacker { root, top, owner, parent: None, times: Vec::new() };
    let mut reader = Reader::new(BufReader::with_capacity(128 << 10, source));
    let mut raw = Vec::new();
    while let Some(entry) = reader.next(&mut raw)? {
        raw.clear();
        unpacker.entry(&entry, &mut reader)?;
        reader.pass(padding(entry.size), |_| Ok::<(), FilesError>(()))?;
    }
    // Whoever writes the archive would be told of a closed pipe otherwise.
    io::copy(&mut reader.inner, &mut io::sink())
        .map_err(|e| FilesError::Archive(crate::runtime::image::TarError::Read(e)))?;
    unpacker.finish()
}

struct Unpacker<'a> {
    root: &'a Root,
    /// The directory, without slashes around it.
    top: Vec<u8>,
    owner: Option<(u32, u32)>,
    /// The directory that the last entry was put into.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Of directories; set last, because making entries changes them.
    times: Vec<(Vec<u8>, Timestamps)>,
}

impl Unpacker<'_> {
    fn entry<R: io::BufRead>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<()> {
        let path = clean(&entry.path).ok_or_else(|| FilesError::Escapes(entry.name()))?;
        if path.is_empty() {
            // The directory itself is there already and stays as it is.
            return reader.pass(entry.size, |_| Ok(()));
        }
        let (parent_path, name) = split(&path);
        self.enter(parent_path)?;
        let (_, parent) = self.parent.as_ref().expect("just entered");
        let there = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Some(FileType::from_raw_mode(stat.st_mode) == FileType::Directory),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(step("look at", &self.shown(&path))(errno)),
        };
        let is_directory = entry.kind == Kind::Directory;
        let overwrite =
            |there, with| FilesError::Overwrite { there, path: self.shown_text(&path), entry: with };
        match there {
            Some(true) if !is_directory => return Err(overwrite("directory", "non-directory")),
            Some(false) if is_directory => return Err(overwrite("non-directory", "directory")),
            Some(false) => {
                rustix::fs::unlinkat(parent, name, AtFlags::empty())
                    .map_err(step("replace", &self.shown(&path)))?;
            }
            Some(true) | None => {}
        }
        let failed = |what| step(what, &self.shown(&path));
        match entry.kind {
            Kind::Directory => {
                if there.is_none() {
                    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700))
                        .map_err(failed("make the directory"))?;
                }
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(failed("open"))?;
                self.own(&made, entry, &path)?;
                self.times.push((path, entry.times()));
                return Ok(());
            }
            Kind::File => {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600));
                let file = File::from(made.map_err(failed("create"))?);
                self.write(entry, reader, &file, &path)?;
                self.own(&file, entry, &path)?;
                return rustix::fs::futimens(&file, &entry.times()).map_err(failed("set the time of"));
            }
            Kind::HardLink => return self.hard_link(entry, &path),
            Kind::Symlink => {
                rustix::fs::symlinkat(&entry.link[..], parent, name).map_err(failed("make the link"))?;
            }
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
                let (kind, device) = match entry.kind {
                    Kind::CharDevice => (FileType::CharacterDevice, entry.device),
                    Kind::BlockDevice => (FileType::BlockDevice, entry.device),
                    _ => (FileType::Fifo, (0, 0)),
                };
                let device = rustix::fs::makedev(device.0, device.1);
                rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(entry.mode), device)
                    .map_err(failed("make the device"))?;
            }
        }
        let (uid, gid) = self.owner.unwrap_or((entry.uid, entry.gid));
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(parent, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), nofollow)
            .map_err(failed("set the owner of"))?;
        if entry.kind != Kind::Symlink {
            // What was just made is no link, and whoever swaps it for one gets a mode bit set inside.
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(failed("open"))?;
            let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&made));
            rustix::fs::chmod(path, Mode::from_raw_mode(entry.mode)).map_err(failed("set the mode of"))?;
        }
        rustix::fs::utimensat(parent, name, &entry.times(), nofollow).map_err(failed("set the time of"))
    }

    fn write<R: io::BufRead>(
        &self,
        entry: &Entry,
        reader: &mut Reader<R>,
        file: &File,
        path: &[u8],
    ) -> Result<()> {
        let failed = |source| FilesError::Step { step: "write", path: self.shown_text(path), source };
        let whole = [(0, entry.size)];
        let (pieces, length) = match &entry.sparse {
            Some((pieces, length)) => (&pieces[..], *length),
            None => (&whole[..], entry.size),
        };
        for &(mut offset, count) in pieces {
            reader.pass::<FilesError>(count, |bytes| {
                file.write_all_at(bytes, offset).map_err(failed)?;
                offset += bytes.len() as u64;
                Ok(())
            })?;
        }
        if entry.sparse.is_some() {
            file.set_len(length).map_err(failed)?;
        }
        Ok(())
    }

    /// Owner, mode and capabilities of a file or directory; a change of owner takes set-id bits away.
    fn own(&self, made: &impl std::os::fd::AsFd, entry: &Entry, path: &[u8]) -> Result<()> {
        let (uid, gid) = self.owner.unwrap_or((entry.uid, entry.gid));
        rustix::fs::fchown(made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .map_err(step("set the owner of", &self.shown(path)))?;
        rustix::fs::fchmod(made, Mode::from_raw_mode(entry.mode))
            .map_err(step("set the mode of", &self.shown(path)))?;
        for (name, value) in entry.xattrs.iter().filter(|(name, _)| name == b"security.capability") {
            rustix::fs::fsetxattr(made, &name[..], value, XattrFlags::empty())
                .map_err(step("set the capabilities of", &self.shown(path)))?;
        }
        Ok(())
    }

    fn hard_link(&mut self, entry: &Entry, path: &[u8]) -> Result<()> {
        let missing = || FilesError::LinkTarget {
            name: entry.name(),
            target: String::from_utf8_lossy(&entry.link).into_owned(),
        };
        let target = clean(&entry.link).filter(|target| !target.is_empty()).ok_or_else(missing)?;
        let (from_path, from_name) = split(&target);
        let from = open(self.root, &self.shown(from_path), true).map_err(|_| missing())?;
        let (_, parent) = self.parent.as_ref().expect("the entry's parent was entered");
        // Without AT_SYMLINK_FOLLOW the name itself is linked, whatever it is.
        match rustix::fs::linkat(&from, from_name, parent, split(path).1, AtFlags::empty()) {
            Err(Errno::NOENT | Errno::PERM) => Err(missing()),
            other => other.map_err(step("make the hard link", &self.shown(path))),
        }
    }

    /// Makes `path`, below the top, the current parent; what is missing of it is made.
    fn enter(&mut self, path: &[u8]) -> Result<()> {
        if self.parent.as_ref().is_some_and(|(known, _)| known == path) {
            return Ok(());
        }
        let whole = self.shown(path);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |path: &[u8]| {
            let path = if path.is_empty() { b"." } else { path };
            rustix::fs::openat2(self.root.as_fd(), path, flags, Mode::empty(), INSIDE)
        };
        let opened = match open(&whole) {
            Err(Errno::NOENT) => {
                let mut place = open(&self.top).map_err(step("open", &self.top))?;
                let mut walked = self.top.clone();
                for part in path.split(|c| *c == b'/') {
                    walked = join(&walked, part);
                    match rustix::fs::mkdirat(&place, part, Mode::from_raw_mode(0o755)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(errno) => return Err(step("make the directory", &walked)(errno)),
                    }
                    place = open(&walked).map_err(step("open", &walked))?;
                }
                place
            }
            other => other.map_err(step("open the directory", &whole))?,
        };
        self.parent = Some((path.to_vec(), opened));
        Ok(())
    }

    fn finish(self) -> Result<()> {
        for (path, times) in self.times.iter().rev() {
            let (parent, name) = split(path);
            let parent = open(self.root, &self.shown(parent), true);
            let set = parent
                .and_then(|parent| rustix::fs::utimensat(&parent, name, times, AtFlags::SYMLINK_NOFOLLOW));
            match set {
                // The container has removed it meanwhile.
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(step("set the time of", &self.shown(path))(errno)),
            }
        }
        Ok(())
    }

    /// A path below the top as one of the container.
    fn shown(&self, path: &[u8]) -> Vec<u8> {
        join(&self.top, path)
    }

    fn shown_text(&self, path: &[u8]) -> String {
        format!("/{}", String::from_utf8_lossy(&self.shown(path)))
    }
}

/// Without empty and `.` parts; none when `..` leads above the top, or with a NUL.
fn clean(name: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|c| *c == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    let path = parts.join(&b'/');
    (!path.contains(&0)).then_some(path)
}

/// Parent and last part.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|c| *c == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    match (parent, name) {
        (b"", name) => name.to_vec(),
        (parent, b"") => parent.to_vec(),
        (parent, name) => [parent, b"/", name].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An archive with one file of that name, and one link of that name before it.
    fn archive(link: Option<(&str, &str)>, name: &[u8]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        if let Some((name, target)) = link {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            header.set_mode(0o777);
            builder.append_link(&mut header, name, target).expect("link");
        }
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_size(3);
        header.set_mode(0o600);
        header.set_uid(u64::from(rustix::process::geteuid().as_raw()));
        header.set_gid(u64::from(rustix::process::getegid().as_raw()));
        header.set_cksum();
        builder.append(&header, &b"own"[..]).expect("file");
        builder.into_inner().expect("archive")
    }

    #[test]
    fn hostile_archives_stay_inside_the_root() {
        let dir = tempfile::tempdir().expect("dir");
        let root_path = dir.path().join("root");
        std::fs::create_dir_all(root_path.join("top")).expect("dir");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = Root::new(rustix::fs::open(&root_path, flags, Mode::empty()).expect("open"));
        let run = |link, name: &[u8]| unpack(&root, "/top", &mut &archive(link, name)[..], None);

        assert!(matches!(run(None, b"../out"), Err(FilesError::Escapes(_))));
        assert!(matches!(run(None, b"a/../../../out"), Err(FilesError::Escapes(_))));
        run(None, b"/absolute").expect("taken as relative");
        assert!(root_path.join("top/absolute").is_file());
        // Through a link that the archive itself has made: it ends inside the root.
        let up = "../../../../../../../../..";
        run(Some(("up", up)), b"up/out").expect("inside");
        assert!(root_path.join("out").is_file());
        run(Some(("abs", "/")), b"abs/out2").expect("inside");
        assert!(root_path.join("out2").is_file());
        assert!(!dir.path().join("out").exists() && !std::path::Path::new("/out2").exists());
    }

    #[test]
    fn names_are_cleaned_and_cannot_lead_out() {
        assert_eq!(clean(b"./a//b/../c/").as_deref(), Some(&b"a/c"[..]));
        assert_eq!(clean(b"/etc/passwd").as_deref(), Some(&b"etc/passwd"[..]));
        assert_eq!(clean(b"./").as_deref(), Some(&b""[..]));
        assert_eq!(clean(b"../x"), None);
        assert_eq!(clean(b"a/../../x"), None);
        assert_eq!(clean(b"a\0b"), None);
    }
}
