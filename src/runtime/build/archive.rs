//! Unpacking a tar archive into a directory: a build context, or what `ADD` found.
//!
//! Archives may hold anything: parents are resolved by the kernel inside of the
//! directory (`openat2` with `RESOLVE_IN_ROOT`), last components are never
//! followed, names with `..` are refused, and what grows out of all proportion
//! is stopped. Unlike a layer's, whiteouts are ordinary files here.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timestamps, Uid};
use rustix::io::Errno;

use crate::runtime::image::tar::{Entry, Kind, Reader, padding};
use crate::runtime::image::{Form, Limits, TarError};

/// More entries than any real archive has.
const MAX_ENTRIES: u64 = 10_000_000;
/// How much of a file is looked at to tell what it is.
pub const MAGIC: usize = 512;

/// Why an archive cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The archive does not parse.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// The bytes could not be had or inflated.
    #[error("cannot read the archive ({0})")]
    Read(&'static str, #[source] io::Error),
    /// A compression we do not have.
    #[error("the archive is compressed with {0}, which is not supported; use gzip or zstd")]
    Compression(&'static str),
    /// A name that leads outside, or is none.
    #[error("the archive entry `{0}` leads outside of its root")]
    Escapes(String),
    /// A hard link to something that is not there.
    #[error("the archive entry `{name}` is a hard link to `{target}`, which is not there")]
    LinkTarget {
        /// Entry.
        name: String,
        /// Target as written.
        target: String,
    },
    /// Too many entries or bytes.
    #[error("the archive unpacks to more than {0}; this looks like a decompression bomb and was stopped")]
    Bomb(String),
    /// A system call failed.
    #[error("cannot {step} `{name}`")]
    Step {
        /// The verb.
        step: &'static str,
        /// Entry.
        name: String,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
}

type Result<T> = std::result::Result<T, ArchiveError>;

/// Whether a file that begins like this is an archive that `ADD` unpacks: a tar, or something compressed
/// that may hold one.
///
/// What is compressed is an archive only if a tar is inside, which [`unpack`] finds out; Docker
/// looks inside, too.
pub fn is_archive(start: &[u8]) -> bool {
    match Form::of(start) {
        Form::Plain => is_tar(start),
        Form::Unsupported(_) => true,
        form => {
            let mut header = Vec::new();
            // A start is enough for the first block; its end is cut off, which is no mistake here.
            let inflated =
                form.decoder(start).map(|decoder| decoder.take(MAGIC as u64).read_to_end(&mut header));
            drop(inflated);
            is_tar(&header)
        }
    }
}

/// Whether a block begins a tar: its checksum fits.
fn is_tar(block: &[u8]) -> bool {
    let mut raw = Vec::new();
    let padded: Vec<u8> = block.iter().copied().chain(std::iter::repeat(0)).take(MAGIC).collect();
    block.len() >= MAGIC
        && matches!(Reader::new(&padded[..]).next(&mut raw), Ok(Some(_)) | Err(TarError::Truncated))
}

/// Unpacks `input` (plain, gzip or zstd, told by its first bytes) into the directory `target`.
///
/// What is there already is replaced, but for directories, which are merged. `owner` is that of
/// everything; none takes it from the archive.
///
/// # Errors
/// [`ArchiveError`]; what was unpacked before stays.
pub fn unpack(
    input: impl Read + Send,
    target: &OwnedFd,
    owner: Option<(u32, u32)>,
    limits: Limits,
) -> Result<()> {
    let mut input = BufReader::with_capacity(256 << 10, input);
    let start =
        io::BufRead::fill_buf(&mut input).map_err(|error| ArchiveError::Read("reading it failed", error))?;
    let form = Form::of(start);
    if let Form::Unsupported(name) = form {
        return Err(ArchiveError::Compression(name));
    }
    let plain = form.decoder(input).map_err(|error| ArchiveError::Read(form.name(), error))?;
    let mut reader = Reader::new(BufReader::with_capacity(256 << 10, plain));
    let mut unpacker = Unpacker { target, owner, times: Vec::new(), bytes: 0, limit: limits.layer_bytes };
    let mut raw = Vec::new();
    let mut entries = 0;
    while let Some(entry) = reader.next(&mut raw)? {
        raw.clear();
        entries += 1;
        if entries > MAX_ENTRIES {
            return Err(ArchiveError::Bomb(format!("{MAX_ENTRIES} files")));
        }
        unpacker.entry(&entry, &mut reader)?;
    }
    unpacker.finish()
}

struct Unpacker<'a> {
    target: &'a OwnedFd,
    owner: Option<(u32, u32)>,
    /// Directories get their times last.
    times: Vec<(Vec<u8>, Timestamps)>,
    bytes: u64,
    limit: u64,
}

fn step(step: &'static str, entry: &Entry) -> impl FnOnce(Errno) -> ArchiveError + use<> {
    let name = entry.name();
    move |errno| ArchiveError::Step { step, name, source: errno.into() }
}

impl Unpacker<'_> {
    fn entry<R: io::BufRead>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<()> {
        let path = clean(&entry.path).ok_or_else(|| ArchiveError::Escapes(entry.name()))?;
        let mut left = entry.size;
        // The root itself stays as it is.
        if let Some((above, name)) = split(&path) {
            let parent = self.parent(above, entry)?;
            match entry.kind {
                Kind::File => {
                    self.file(entry, reader, &parent, name)?;
                    left = 0;
                }
                Kind::Directory => self.directory(entry, &parent, &path, name)?,
                Kind::HardLink => self.hard_link(entry, &parent, name)?,
                Kind::Symlink => {
                    Self::clear(entry, &parent, name)?;
                    rustix::fs::symlinkat(&entry.link[..], &parent, name)
                        .map_err(step("make the link", entry))?;
                    self.node(entry, &parent, name)?;
                }
                Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
                    Self::clear(entry, &parent, name)?;
                    let (kind, device) = match entry.kind {
                        Kind::CharDevice => (FileType::CharacterDevice, entry.device),
                        Kind::BlockDevice => (FileType::BlockDevice, entry.device),
                        _ => (FileType::Fifo, (0, 0)),
                    };
                    let device = rustix::fs::makedev(device.0, device.1);
                    let mode = Mode::from_raw_mode(entry.mode);
                    rustix::fs::mknodat(&parent, name, kind, mode, device)
                        .map_err(step("make the device", entry))?;
                    self.node(entry, &parent, name)?;
                }
            }
        }
        reader.pass(left + padding(entry.size), |_| Ok::<(), TarError>(()))?;
        Ok(())
    }

    /// Opens the directory an entry goes into, and makes what is missing of it.
    fn parent(&self, path: &[u8], entry: &Entry) -> Result<OwnedFd> {
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let open = |path: &[u8]| {
            let path = if path.is_empty() { b"." } else { path };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::openat2(self.target, path, flags, Mode::empty(), inside)
        };
        match open(path) {
            Err(Errno::NOENT) => {}
            other => return other.map_err(step("open the directory of", entry)),
        }
        let (above, name) = split(path).ok_or_else(|| step("open the directory of", entry)(Errno::NOENT))?;
        let above = self.parent(above, entry)?;
        match rustix::fs::mkdirat(&above, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                let made = open(path).map_err(step("open the directory of", entry))?;
                // Root's, also where everything that the archive lists is somebody else's: as in Docker.
                own(&made, 0, 0).map_err(step("set the owner of the directory of", entry))?;
                rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))
                    .map_err(step("set the mode of the directory of", entry))?;
                Ok(made)
            }
            // A link to nothing stands there.
            Err(error) => Err(step("make the directory of", entry)(error)),
        }
    }

    fn file<R: io::BufRead>(
        &mut self,
        entry: &Entry,
        reader: &mut Reader<R>,
        parent: &OwnedFd,
        name: &[u8],
    ) -> Result<()> {
        let length = entry.sparse.as_ref().map_or(entry.size, |(_, length)| *length);
        self.bytes = self.bytes.saturating_add(length);
        if self.bytes > self.limit {
            return Err(ArchiveError::Bomb(format!("{} bytes", self.limit)));
        }
        Self::clear(entry, parent, name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600));
        let file = File::from(file.map_err(step("create", entry))?);
        let failed = |source| ArchiveError::Step { step: "write", name: entry.name(), source };
        let whole = [(0, entry.size)];
        let pieces = entry.sparse.as_ref().map_or(&whole[..], |(pieces, _)| pieces);
        for &(mut offset, count) in pieces {
            reader.pass::<ArchiveError>(count, |bytes| {
                file.write_all_at(bytes, offset).map_err(failed)?;
                offset += bytes.len() as u64;
                Ok(())
            })?;
        }
        if entry.sparse.is_some() {
            file.set_len(length).map_err(failed)?;
        }
        let (uid, gid) = self.owner.unwrap_or((entry.uid, entry.gid));
        own(&file, uid, gid).map_err(step("set the owner of", entry))?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode)).map_err(step("set the mode of", entry))?;
        entry.set_xattrs(&file).map_err(step("set the extended attributes of", entry))?;
        rustix::fs::futimens(&file, &entry.times()).map_err(step("set the time of", entry))
    }

    fn directory(&mut self, entry: &Entry, parent: &OwnedFd, path: &[u8], name: &[u8]) -> Result<()> {
        match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let there = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(step("look at", entry))?;
                if FileType::from_raw_mode(there.st_mode) != FileType::Directory {
                    Self::clear(entry, parent, name)?;
                    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700))
                        .map_err(step("make the directory", entry))?;
                }
            }
            Err(error) => return Err(step("make the directory", entry)(error)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(step("open", entry))?;
        let (uid, gid) = self.owner.unwrap_or((entry.uid, entry.gid));
        own(&made, uid, gid).map_err(step("set the owner of", entry))?;
        rustix::fs::fchmod(&made, Mode::from_raw_mode(entry.mode)).map_err(step("set the mode of", entry))?;
        entry.set_xattrs(&made).map_err(step("set the extended attributes of", entry))?;
        self.times.push((path.to_vec(), entry.times()));
        Ok(())
    }

    fn hard_link(&self, entry: &Entry, parent: &OwnedFd, name: &[u8]) -> Result<()> {
        let missing = || ArchiveError::LinkTarget {
            name: entry.name(),
            target: String::from_utf8_lossy(&entry.link).into_owned(),
        };
        let target = clean(&entry.link).ok_or_else(missing)?;
        let (above, last) = split(&target).ok_or_else(missing)?;
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let above = if above.is_empty() { b"." } else { above };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let from =
            rustix::fs::openat2(self.target, above, flags, Mode::empty(), inside).map_err(|_| missing())?;
        let there = rustix::fs::statat(&from, last, AtFlags::SYMLINK_NOFOLLOW).map_err(|_| missing())?;
        if FileType::from_raw_mode(there.st_mode) == FileType::Directory {
            return Err(missing());
        }
        if let Ok(own) = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
            && (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino)
        {
            return Ok(());
        }
        Self::clear(entry, parent, name)?;
        rustix::fs::linkat(&from, last, parent, name, AtFlags::empty())
            .map_err(step("make the hard link", entry))
    }

    /// Owner, mode and time of what is neither file nor directory.
    fn node(&self, entry: &Entry, parent: &OwnedFd, name: &[u8]) -> Result<()> {
        let (uid, gid) = self.owner.unwrap_or((entry.uid, entry.gid));
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(step("set the owner of", entry))?;
        if entry.kind != Kind::Symlink {
            rustix::fs::chmodat(parent, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
                .map_err(step("set the mode of", entry))?;
        }
        rustix::fs::utimensat(parent, name, &entry.times(), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(step("set the time of", entry))
    }

    /// Takes away what has the name of an entry.
    fn clear(entry: &Entry, parent: &OwnedFd, name: &[u8]) -> Result<()> {
        match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => remove_tree(parent, name).map_err(step("replace", entry)),
            Err(error) => Err(step("replace", entry)(error)),
        }
    }

    fn finish(self) -> Result<()> {
        for (path, times) in self.times.iter().rev() {
            let name = || String::from_utf8_lossy(path).into_owned();
            let failed = |errno: Errno| ArchiveError::Step {
                step: "set the time of",
                name: name(),
                source: errno.into(),
            };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            match rustix::fs::openat2(self.target, &path[..], flags, Mode::empty(), inside) {
                Ok(fd) => rustix::fs::futimens(&fd, times).map_err(failed)?,
                // A later entry replaced it.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }
}

/// Removes a directory with all below, without following a link.
fn remove_tree(parent: &impl AsFd, name: &[u8]) -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(&fd)? {
        let entry = entry?;
        let inner = entry.file_name().to_bytes();
        if inner == b"." || inner == b".." {
            continue;
        }
        match rustix::fs::unlinkat(&fd, inner, AtFlags::empty()) {
            Err(Errno::ISDIR) => remove_tree(&fd, inner)?,
            other => other?,
        }
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

fn own(file: &impl AsFd, uid: u32, gid: u32) -> rustix::io::Result<()> {
    rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
}

/// A name without empty parts and `.`; `None` with `..` or a NUL in it.
fn clean(name: &[u8]) -> Option<Vec<u8>> {
    let parts: Vec<&[u8]> =
        name.split(|c| *c == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    let valid = parts.iter().all(|part| *part != b".." && !part.contains(&0));
    valid.then(|| parts.join(&b'/'))
}

/// Parent and last part; `None` for the root.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    Some(match memchr::memrchr(b'/', path) {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::{MetadataExt as _, symlink};
    use std::path::Path;

    use super::*;

    fn open(path: &Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    /// One entry after the other; the path is taken as it is.
    fn tar(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, data) in entries {
            let mut header = tar::Header::new_ustar();
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o640);
            header.set_mtime(1_000_000_000);
            let file = *kind == tar::EntryType::Regular;
            if !file {
                header.set_link_name_literal(data).unwrap();
            }
            header.set_size(if file { data.len() as u64 } else { 0 });
            header.set_cksum();
            builder.append(&header, if file { data.as_bytes() } else { b"" }).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn run(bytes: &[u8], target: &Path) -> Result<()> {
        // Everything belongs to whoever runs it, so that it need not be root.
        let me = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        unpack(bytes, &open(target), Some(me), Limits::default())
    }

    use tar::EntryType::{Directory, Link, Regular, Symlink};

    #[test]
    fn files_keep_mode_and_time_and_replace_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/was")).unwrap();
        let bytes = tar(&[
            ("d/", Directory, ""),
            ("d/f", Regular, "hello"),
            ("d/h", Link, "d/f"),
            ("a", Regular, "file now"),
        ]);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&bytes).unwrap();
        for archive in [bytes.clone(), gzip.finish().unwrap(), zstd::encode_all(&bytes[..], 1).unwrap()] {
            assert!(is_archive(&archive[..archive.len().min(MAGIC)]));
            run(&archive, dir.path()).unwrap();
            let f = std::fs::metadata(dir.path().join("d/f")).unwrap();
            assert_eq!((f.mode() & 0o7777, f.mtime(), f.nlink()), (0o640, 1_000_000_000, 2));
            assert_eq!(std::fs::metadata(dir.path().join("d")).unwrap().mtime(), 1_000_000_000);
            assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"file now");
        }
    }

    #[test]
    fn nothing_leaves_the_directory() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("kept"), "kept").unwrap();
        let out = outside.path().to_str().unwrap();
        let through = format!("l{}", "/x");
        let attacks: &[&[(&str, tar::EntryType, &str)]] = &[
            &[("../x", Regular, "evil")],
            &[("a/../../x", Regular, "evil")],
            &[("l", Symlink, out), (&through, Regular, "evil")],
            &[("l", Symlink, "../../../../../.."), ("l/tmp/x", Regular, "evil")],
            &[("h", Link, "../kept")],
            &[("l", Symlink, out), ("h", Link, "l/kept"), ("h", Regular, "evil")],
        ];
        for attack in attacks {
            let dir = tempfile::tempdir().unwrap();
            let target = dir.path().join("target");
            std::fs::create_dir(&target).unwrap();
            drop(run(&tar(attack), &target));
            assert_eq!(std::fs::read(outside.path().join("kept")).unwrap(), b"kept", "{attack:?}");
            assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1, "{attack:?}");
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "{attack:?}");
        }
    }

    #[test]
    fn a_link_in_the_way_is_replaced_not_followed() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(outside.path().join("kept"), "kept").unwrap();
        symlink(outside.path().join("kept"), dir.path().join("f")).unwrap();
        run(&tar(&[("f", Regular, "new")]), dir.path()).unwrap();
        assert_eq!(std::fs::read(outside.path().join("kept")).unwrap(), b"kept");
        assert_eq!(std::fs::read(dir.path().join("f")).unwrap(), b"new");
    }

    #[test]
    fn bombs_and_other_things_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let small = Limits { layer_bytes: 3, ..Limits::default() };
        let error = unpack(&tar(&[("f", Regular, "four")])[..], &open(dir.path()), None, small).unwrap_err();
        assert!(matches!(error, ArchiveError::Bomb(_)), "{error}");
        assert!(matches!(run(b"BZh91AY&SY", dir.path()), Err(ArchiveError::Compression("bzip2"))));
        assert!(!is_archive(b"FROM scratch\n"));
        assert!(!is_archive(&[b'x'; MAGIC]));
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&[b'x'; 2000]).unwrap();
        assert!(!is_archive(&gzip.finish().unwrap()));
    }
}
