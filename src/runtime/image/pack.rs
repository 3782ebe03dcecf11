//! A directory tree as a tar: a whole file system, or the upper directory of an overlay as a layer.
//!
//! Entries are sorted by name, parents first. Only what means something on another
//! machine is written: of the extended attributes `security.capability` and `user.*`;
//! sockets are left out.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use ::tar::{Builder, EntryType, Header};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// Why a tree cannot be packed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} `{path}`")]
pub struct PackError {
    /// The verb.
    step: &'static str,
    /// Path inside the tree.
    path: String,
    /// The kernel's reason.
    #[source]
    source: io::Error,
}

impl PackError {
    /// Whether nobody took the bytes any more.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        self.source.kind() == io::ErrorKind::BrokenPipe
    }
}

type Result<T> = std::result::Result<T, PackError>;

/// What a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tree {
    /// A file system as it is seen.
    Merged,
    /// The upper directory of an overlay: its marks of what is gone become those of a layer.
    Changes,
}

/// Opens the root of a tree.
pub(crate) fn open(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, DIRECTORY, Mode::empty()).map_err(failed("open", b""))
}

/// Writes the tree below `root` to `out`, but for what `skip` says by path and state.
pub(crate) fn pack(
    root: &OwnedFd,
    tree: Tree,
    skip: &dyn Fn(&[u8], &Stat) -> bool,
    out: impl Write,
) -> Result<()> {
    // By its own name, as it may have been opened for nothing but that.
    let root = rustix::fs::openat(root, ".", DIRECTORY, Mode::empty()).map_err(failed("open", b""))?;
    let mut packer = Packer { tree, skip, archive: Builder::new(out), links: HashMap::new() };
    packer.directory(&root, b"")?;
    let finished = packer.archive.into_inner().and_then(|mut out| out.flush());
    finished.map_err(failed("write", b""))
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// For `map_err`: names step and file.
fn failed<E: Into<io::Error>>(step: &'static str, path: &[u8]) -> impl FnOnce(E) -> PackError + use<E> {
    let path = format!("/{}", String::from_utf8_lossy(path));
    move |source| PackError { step, path, source: source.into() }
}

struct Packer<'a, W: Write> {
    tree: Tree,
    skip: &'a dyn Fn(&[u8], &Stat) -> bool,
    archive: Builder<W>,
    /// First path of each file with several names.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> Packer<'_, W> {
    fn directory(&mut self, directory: &OwnedFd, path: &[u8]) -> Result<()> {
        let mut names = Vec::new();
        for entry in Dir::read_from(directory).map_err(failed("list", path))? {
            let entry = entry.map_err(failed("list", path))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        names.sort_unstable();
        for name in names {
            let full = if path.is_empty() { name.clone() } else { [path, b"/", &name].concat() };
            match rustix::fs::statat(directory, &name[..], AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if (self.skip)(&full, &stat) => {}
                Ok(stat) => self.entry(directory, &name, &full, &stat)?,
                // Somebody has removed it meanwhile.
                Err(Errno::NOENT) => {}
                Err(error) => return Err(failed("look at", &full)(error)),
            }
        }
        Ok(())
    }

    fn entry(&mut self, directory: &OwnedFd, name: &[u8], path: &[u8], stat: &Stat) -> Result<()> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Socket {
            // A tar has no form for it, and nobody would listen.
            return Ok(());
        }
        if self.tree == Tree::Changes && kind == FileType::CharacterDevice && stat.st_rdev == 0 {
            let parent = path.strip_suffix(name).unwrap_or_default();
            return self.marker(&[parent, b".wh.", name].concat());
        }
        let mut header = Header::new_gnu();
        header.set_mode(stat.st_mode & 0o7777);
        header.set_uid(stat.st_uid.into());
        header.set_gid(stat.st_gid.into());
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
        header.set_size(0);
        let shown = Path::new(OsStr::from_bytes(path));
        if kind != FileType::Directory && stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                header.set_entry_type(EntryType::Link);
                let target = PathBuf::from(OsStr::from_bytes(first));
                let done = self.archive.append_link(&mut header, shown, target);
                return done.map_err(failed("write", path));
            }
            self.links.insert((stat.st_dev, stat.st_ino), path.to_vec());
        }
        match kind {
            FileType::Directory => {
                let fd = rustix::fs::openat(directory, name, DIRECTORY, Mode::empty())
                    .map_err(failed("open", path))?;
                self.attributes(&fd, path)?;
                header.set_entry_type(EntryType::Directory);
                let with_slash = PathBuf::from(OsStr::from_bytes(&[path, b"/"].concat()));
                let done = self.archive.append_data(&mut header, with_slash, io::empty());
                done.map_err(failed("write", path))?;
                if self.tree == Tree::Changes && is_opaque(&fd, path)? {
                    self.marker(&[path, b"/.wh..wh..opq"].concat())?;
                }
                self.directory(&fd, path)
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(directory, name, Vec::new())
                    .map_err(failed("read the link", path))?;
                header.set_entry_type(EntryType::Symlink);
                let target = PathBuf::from(OsStr::from_bytes(target.to_bytes()));
                let done = self.archive.append_link(&mut header, shown, target);
                done.map_err(failed("write", path))
            }
            FileType::RegularFile => self.file(directory, name, path, header),
            other => {
                header.set_entry_type(match other {
                    FileType::CharacterDevice => EntryType::Char,
                    FileType::BlockDevice => EntryType::Block,
                    _ => EntryType::Fifo,
                });
                if other != FileType::Fifo {
                    let numbers = header
                        .set_device_major(rustix::fs::major(stat.st_rdev))
                        .and_then(|()| header.set_device_minor(rustix::fs::minor(stat.st_rdev)));
                    numbers.map_err(failed("write", path))?;
                }
                let done = self.archive.append_data(&mut header, shown, io::empty());
                done.map_err(failed("write", path))
            }
        }
    }

    fn file(&mut self, directory: &OwnedFd, name: &[u8], path: &[u8], mut header: Header) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = rustix::fs::openat(directory, name, flags, Mode::empty()).map_err(failed("open", path))?;
        if self.tree == Tree::Changes
            && mark(&fd, c"trusted.overlay.metacopy").map_err(failed("look at", path))?.is_some()
        {
            let reason = io::Error::other("overlay has copied only its attributes (metacopy=on)");
            return Err(failed("pack", path)(reason));
        }
        self.attributes(&fd, path)?;
        let size = rustix::fs::fstat(&fd).map_err(failed("look at", path))?.st_size;
        let size = u64::try_from(size).unwrap_or_default();
        header.set_entry_type(EntryType::Regular);
        header.set_size(size);
        let shown = Path::new(OsStr::from_bytes(path));
        // A file that shrinks meanwhile ends in zeros: its length has been told already.
        let content = File::from(fd).chain(io::repeat(0)).take(size);
        let content = io::BufReader::with_capacity(256 << 10, content);
        let done = self.archive.append_data(&mut header, shown, content);
        done.map_err(failed("write", path))
    }

    /// An empty file that says what is not there any more.
    fn marker(&mut self, path: &[u8]) -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        let done = self.archive.append_data(&mut header, OsStr::from_bytes(path), io::empty());
        done.map_err(failed("write", path))
    }

    /// Writes the attributes that mean something elsewhere, for the entry that follows.
    fn attributes(&mut self, file: &OwnedFd, path: &[u8]) -> Result<()> {
        let found = attributes_of(file).map_err(failed("read the attributes of", path))?;
        if found.is_empty() {
            return Ok(());
        }
        let records: Vec<(String, Vec<u8>)> = found
            .into_iter()
            .map(|(name, value)| (format!("SCHILY.xattr.{}", name.to_string_lossy()), value))
            .collect();
        let records = records.iter().map(|(key, value)| (key.as_str(), &value[..]));
        self.archive.append_pax_extensions(records).map_err(failed("write", path))
    }
}

/// Whether a directory hides the one below; refuses what overlay keeps elsewhere.
fn is_opaque(directory: &OwnedFd, path: &[u8]) -> Result<bool> {
    let redirected = mark(directory, c"trusted.overlay.redirect").map_err(failed("look at", path))?;
    if redirected.is_some() {
        let reason = io::Error::other("overlay has moved this directory without copying it");
        return Err(failed("pack", path)(reason));
    }
    let opaque = mark(directory, c"trusted.overlay.opaque").map_err(failed("look at", path))?;
    Ok(opaque.is_some_and(|value| value == b"y"))
}

/// The value of an attribute of overlay's.
fn mark(file: &OwnedFd, name: &CStr) -> rustix::io::Result<Option<Vec<u8>>> {
    let mut value = [0_u8; 256];
    match rustix::fs::fgetxattr(file, name, &mut value[..]) {
        Ok(length) => Ok(Some(value[..length].to_vec())),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}

/// `security.capability` and `user.*`, sorted.
fn attributes_of(file: &OwnedFd) -> rustix::io::Result<Vec<(CString, Vec<u8>)>> {
    let length = match rustix::fs::flistxattr(file, &mut [0_u8; 0][..]) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Ok(length) => length,
        Err(error) => return Err(error),
    };
    let mut list = vec![0_u8; length];
    let length = rustix::fs::flistxattr(file, &mut list[..])?;
    let mut found = Vec::new();
    for name in list[..length].split_inclusive(|c| *c == 0).filter_map(|n| CStr::from_bytes_with_nul(n).ok())
    {
        let bytes = name.to_bytes();
        let user = bytes.starts_with(b"user.") && !bytes.starts_with(b"user.overlay.");
        if !user && bytes != b"security.capability" {
            continue;
        }
        let mut value = vec![0_u8; 64 << 10];
        let length = rustix::fs::fgetxattr(file, name, &mut value[..])?;
        value.truncate(length);
        found.push((name.to_owned(), value));
    }
    found.sort();
    Ok(found)
}
