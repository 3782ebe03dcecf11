//! From the upper directory of an overlay to a layer of the store.
//!
//! The directory itself becomes the layer; its tar is written only into the
//! digest and the journal. What a tar cannot or need not say is taken out of the
//! directory first, so that the layer shows the same wherever it is unpacked:
//! sockets, overlay's own attributes, opaque marks over nothing, and files that
//! were copied up but not changed.
//!
//! The tar is canonical (entries sorted by name, whole seconds, no user names, one form of header), so
//! the same tree always has the same digest.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use ::tar::{EntryType, Header};
use ring::digest::{Context, SHA256};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use super::journal;
use super::reference::Digest;
use super::store::{FORMAT, LayerMeta, LayerUse, Store};
use super::{ImageError, Result};
use crate::util::files;

/// Overlay's mark of a directory that hides what is below it.
const OPAQUE: &CStr = c"trusted.overlay.opaque";
/// Largest value of a ustar number of 11 octal digits.
const MAX_OCTAL_11: u64 = 0o777_7777_7777;
/// Largest value of a ustar number of 7 octal digits.
const MAX_OCTAL_7: u32 = 0o777_7777;

/// Why an upper directory does not become a layer.
#[derive(Debug, thiserror::Error)]
pub enum ChangesError {
    /// A system call failed.
    #[error("cannot {step} `{path}` of the new layer")]
    Step {
        /// The verb.
        step: &'static str,
        /// Path inside the layer.
        path: String,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// The overlay was mounted with features whose uppers are no layers.
    #[error("`{path}` of the new layer has the overlay attribute `{attribute}`, which cannot be stored")]
    Attribute {
        /// Path inside the layer.
        path: String,
        /// `trusted.overlay.redirect`, `trusted.overlay.metacopy`.
        attribute: String,
    },
    /// The journal cannot be written.
    #[error("cannot write the journal of the new layer")]
    Journal(#[source] io::Error),
}

type Step<T> = std::result::Result<T, ChangesError>;

/// How a new layer is written.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Recording<'a> {
    /// The tree that the changes were made to; none when there was nothing.
    pub(crate) below: Option<BorrowedFd<'a>>,
    /// Times after this one (seconds since 1970) become it, in the layer too.
    pub(crate) latest: Option<i64>,
}

impl Store {
    /// Makes the tree `dir/fs` a layer, still in `dir`. Nobody may use the tree any more.
    ///
    /// # Errors
    /// [`ImageError::Changes`] with the step and the path.
    pub(crate) fn record_changes(dir: &Path, recording: Recording<'_>) -> Result<LayerUse> {
        let recorded = record(dir, recording).map_err(|e| ImageError::Changes(Box::new(e)))?;
        let meta = LayerMeta {
            version: FORMAT,
            diff_id: recorded.diff_id.clone(),
            size: recorded.size,
            tar_size: recorded.tar_size,
            root: None,
            journal: true,
            shadows: Vec::new(),
            implied: false,
            blob: None,
            compression: String::new(),
            boot: files::boot_id()?,
            durable: false,
        };
        crate::util::fs::write_json(&dir.join("meta"), &meta, false)?;
        let key = recorded.diff_id.hex().to_owned();
        Ok(LayerUse { diff_id: recorded.diff_id, key })
    }

    /// Moves what [`Store::record_changes`] has made of `dir` into the store. Call with a hold.
    ///
    /// `dir` is on the store's file system and holds nothing else that is needed. A layer
    /// of the same content that is there already stays, and `dir` with it.
    ///
    /// # Errors
    /// [`ImageError::Store`].
    pub(crate) fn place_changes(&self, dir: &Path, layer: &LayerUse) -> Result<()> {
        self.place(dir, &layer.key)
    }
}

struct Recorded {
    diff_id: Digest,
    size: u64,
    tar_size: u64,
}

fn record(dir: &Path, recording: Recording<'_>) -> Step<Recorded> {
    let root =
        rustix::fs::open(dir.join("fs"), OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(step("open", b"/"))?;
    let mut writer = Writer {
        root: &root,
        recording,
        hash: Context::new(&SHA256),
        journal: journal::Writer::create(&dir.join("journal")).map_err(ChangesError::Journal)?,
        links: HashMap::new(),
        size: 0,
        tar_size: 0,
    };
    writer.directory(&root, b"", recording.below.is_some())?;
    // Overlay's marks on the root directory itself.
    clean_attributes(&root, b"")?;
    writer.raw(&[0; 1024])?;
    writer.journal.finish().map_err(ChangesError::Journal)?;
    Ok(Recorded {
        diff_id: Digest::from_ring(&writer.hash.finish()),
        size: writer.size,
        tar_size: writer.tar_size,
    })
}

struct Writer<'a> {
    root: &'a OwnedFd,
    recording: Recording<'a>,
    hash: Context,
    journal: journal::Writer,
    /// First path of each file with several names.
    links: HashMap<u64, Vec<u8>>,
    size: u64,
    tar_size: u64,
}

/// What an entry says besides its name.
struct Attributes<'a> {
    kind: EntryType,
    size: u64,
    link: &'a [u8],
    xattrs: Vec<(CString, Vec<u8>)>,
}

impl Writer<'_> {
    /// Writes what is in a directory. `merged`: whether the tree below has it, too. Says whether there was anything.
    fn directory(&mut self, directory: &OwnedFd, path: &[u8], merged: bool) -> Step<bool> {
        let mut names = Vec::new();
        let listing = Dir::read_from(directory).map_err(step("list", path))?;
        for entry in listing {
            let entry = entry.map_err(step("list", path))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        names.sort_unstable();
        let mut any = false;
        for name in names {
            let full = join(path, &name);
            let stat = rustix::fs::statat(directory, &name[..], AtFlags::SYMLINK_NOFOLLOW)
                .map_err(step("look at", &full))?;
            any |= self.entry(directory, &name, &full, &stat, merged)?;
        }
        Ok(any)
    }

    fn entry(
        &mut self,
        directory: &OwnedFd,
        name: &[u8],
        path: &[u8],
        stat: &Stat,
        merged: bool,
    ) -> Step<bool> {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice if stat.st_rdev == 0 => {
                let (parent, _) = split(path);
                self.marker(&join(parent, &[b".wh.", name].concat()))?;
                Ok(true)
            }
            FileType::Directory => self.subdirectory(directory, name, path, stat, merged),
            // Nobody listens to it any more, and a tar has no form for it.
            FileType::Socket => {
                rustix::fs::unlinkat(directory, name, AtFlags::empty()).map_err(step("remove", path))?;
                Ok(false)
            }
            kind => {
                if merged && self.unchanged(directory, name, path, stat)? {
                    rustix::fs::unlinkat(directory, name, AtFlags::empty()).map_err(step("remove", path))?;
                    return Ok(false);
                }
                self.leaf(directory, name, path, stat, kind)?;
                Ok(true)
            }
        }
    }

    fn subdirectory(
        &mut self,
        directory: &OwnedFd,
        name: &[u8],
        path: &[u8],
        stat: &Stat,
        merged: bool,
    ) -> Step<bool> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(directory, name, flags, Mode::empty()).map_err(step("open", path))?;
        let below = if merged { self.below(path)? } else { None };
        let below = below.filter(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
        let opaque = is_opaque(&fd, path)?;
        clean_attributes(&fd, path)?;
        if opaque && below.is_none() {
            // Overlay marks new directories, too; over nothing the mark means nothing, here.
            rustix::fs::fremovexattr(&fd, OPAQUE).map_err(step("change the attributes of", path))?;
        }
        self.clamp(directory, name, path, stat)?;
        let stat = rustix::fs::fstat(&fd).map_err(step("look at", path))?;
        // Whether it is worth an entry is known only when its content is. A tar has
        // parents first, so what is written meanwhile is taken back if it is not.
        let attributes =
            Attributes { kind: EntryType::Directory, size: 0, link: b"", xattrs: attributes_of(&fd, path)? };
        let unchanged = !opaque
            && match &below {
                Some(below) => same_directory(below, &stat),
                None => false,
            };
        if unchanged && !self.has_changes(&fd, path, true)? {
            // Only opened or looked into: nothing that anybody would see.
            remove_tree(directory, name, path)?;
            return Ok(false);
        }
        self.header(path, &stat, &attributes)?;
        if opaque && below.is_some() {
            self.marker(&join(path, b".wh..wh..opq"))?;
        }
        self.directory(&fd, path, below.is_some() && !opaque)?;
        Ok(true)
    }

    /// Whether a directory holds anything that will be written.
    fn has_changes(&self, directory: &OwnedFd, path: &[u8], merged: bool) -> Step<bool> {
        for entry in Dir::read_from(directory).map_err(step("list", path))? {
            let entry = entry.map_err(step("list", path))?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let full = join(path, name);
            let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(step("look at", &full))?;
            let changed = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Socket => false,
                FileType::CharacterDevice if stat.st_rdev == 0 => true,
                FileType::Directory => {
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let fd = rustix::fs::openat(directory, name, flags, Mode::empty())
                        .map_err(step("open", &full))?;
                    let below = if merged { self.below(&full)? } else { None };
                    below.is_none_or(|below| !same_directory(&below, &stat))
                        || is_opaque(&fd, &full)?
                        || self.has_changes(&fd, &full, merged)?
                }
                _ => !(merged && self.unchanged(directory, name, &full, &stat)?),
            };
            if changed {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What the tree below has at a path; links are not followed.
    fn below(&self, path: &[u8]) -> Step<Option<Stat>> {
        let Some(below) = self.recording.below else { return Ok(None) };
        match open_below(below, path) {
            Ok(fd) => Ok(Some(rustix::fs::fstat(&fd).map_err(step("look at", path))?)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(step("look up", path)(error)),
        }
    }

    /// Whether a file was copied up but is as it was: same kind, owner, mode, size, time and attributes.
    fn unchanged(&self, directory: &OwnedFd, name: &[u8], path: &[u8], stat: &Stat) -> Step<bool> {
        let Some(before) = self.below(path)? else { return Ok(false) };
        let same = before.st_mode == stat.st_mode
            && before.st_uid == stat.st_uid
            && before.st_gid == stat.st_gid
            && before.st_size == stat.st_size
            && before.st_rdev == stat.st_rdev
            && (before.st_mtime, before.st_mtime_nsec) == (stat.st_mtime, stat.st_mtime_nsec)
            // Another name of it may have been made or removed.
            && stat.st_nlink == 1
            && before.st_nlink == 1;
        if !same || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(false);
        }
        let Some(root) = self.recording.below else { return Ok(false) };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let old =
            rustix::fs::openat2(root, path, flags, Mode::empty(), resolve).map_err(step("open", path))?;
        let new = rustix::fs::openat(directory, name, flags, Mode::empty()).map_err(step("open", path))?;
        if attributes_of(&old, path)? != attributes_of(&new, path)? {
            return Ok(false);
        }
        // Times can be set back: the content decides.
        same_content(File::from(old), File::from(new)).map_err(step("compare", path))
    }

    fn leaf(
        &mut self,
        directory: &OwnedFd,
        name: &[u8],
        path: &[u8],
        stat: &Stat,
        kind: FileType,
    ) -> Step<()> {
        if stat.st_nlink > 1
            && let Some(first) = self.links.get(&stat.st_ino)
        {
            let first = first.clone();
            let link = Attributes { kind: EntryType::Link, size: 0, link: &first, xattrs: Vec::new() };
            return self.header(path, stat, &link);
        }
        if stat.st_nlink > 1 {
            self.links.insert(stat.st_ino, path.to_vec());
        }
        self.clamp(directory, name, path, stat)?;
        match kind {
            FileType::RegularFile => self.file(directory, name, path, stat),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(directory, name, Vec::new())
                    .map_err(step("read the link", path))?;
                let link = target.to_bytes();
                let link = Attributes { kind: EntryType::Symlink, size: 0, link, xattrs: Vec::new() };
                self.header(path, stat, &link)
            }
            other => {
                let kind = match other {
                    FileType::CharacterDevice => EntryType::Char,
                    FileType::BlockDevice => EntryType::Block,
                    _ => EntryType::Fifo,
                };
                self.header(path, stat, &Attributes { kind, size: 0, link: b"", xattrs: Vec::new() })
            }
        }
    }

    fn file(&mut self, directory: &OwnedFd, name: &[u8], path: &[u8], stat: &Stat) -> Step<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = rustix::fs::openat(directory, name, flags, Mode::empty()).map_err(step("open", path))?;
        clean_attributes(&fd, path)?;
        let xattrs = attributes_of(&fd, path)?;
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        self.header(path, stat, &Attributes { kind: EntryType::Regular, size, link: b"", xattrs })?;
        let mut file = File::from(fd);
        let mut left = size;
        let mut buffer = vec![0; usize::try_from(size).unwrap_or(usize::MAX).clamp(1, 256 << 10)];
        while left > 0 {
            let part = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            file.read_exact(&mut buffer[..part]).map_err(step("read", path))?;
            self.hash.update(&buffer[..part]);
            left -= part as u64;
        }
        if size > 0 {
            self.journal.file(path, &[(0, size)]).map_err(ChangesError::Journal)?;
            self.tar_size += size;
            let padding = usize::try_from(super::tar::padding(size)).unwrap_or(0);
            self.raw(&[0; 512][..padding])?;
        }
        self.size += size;
        Ok(())
    }

    /// Sets a time that is later than it may be.
    fn clamp(&self, directory: &OwnedFd, name: &[u8], path: &[u8], stat: &Stat) -> Step<()> {
        let Some(latest) = self.recording.latest.filter(|latest| stat.st_mtime > *latest) else {
            return Ok(());
        };
        let time = Timespec { tv_sec: latest, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(step("set the time of", path))
    }

    /// An empty file that says what is not there any more.
    fn marker(&mut self, path: &[u8]) -> Step<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        header.set_mtime(0);
        self.named(header, path, Vec::new())
    }

    fn header(&mut self, path: &[u8], stat: &Stat, attributes: &Attributes<'_>) -> Step<()> {
        let mut pax = Vec::new();
        let mut header = Header::new_ustar();
        header.set_entry_type(attributes.kind);
        header.set_mode(stat.st_mode & 0o7777);
        for (id, key, set) in [
            (stat.st_uid, "uid", Header::set_uid as fn(&mut Header, u64)),
            (stat.st_gid, "gid", Header::set_gid),
        ] {
            if id > MAX_OCTAL_7 {
                pax_record(&mut pax, key.as_bytes(), id.to_string().as_bytes());
            }
            set(&mut header, if id > MAX_OCTAL_7 { 0 } else { id.into() });
        }
        if attributes.size > MAX_OCTAL_11 {
            pax_record(&mut pax, b"size", attributes.size.to_string().as_bytes());
        }
        header.set_size(if attributes.size > MAX_OCTAL_11 { 0 } else { attributes.size });
        let mtime = self.recording.latest.map_or(stat.st_mtime, |latest| stat.st_mtime.min(latest));
        match u64::try_from(mtime) {
            Ok(mtime) if mtime <= MAX_OCTAL_11 => header.set_mtime(mtime),
            _ => {
                pax_record(&mut pax, b"mtime", mtime.to_string().as_bytes());
                header.set_mtime(0);
            }
        }
        if matches!(attributes.kind, EntryType::Char | EntryType::Block) {
            let set = header
                .set_device_major(rustix::fs::major(stat.st_rdev))
                .and_then(|()| header.set_device_minor(rustix::fs::minor(stat.st_rdev)));
            set.map_err(step("describe", path))?;
        }
        if !attributes.link.is_empty() && header.set_link_name_literal(attributes.link).is_err() {
            pax_record(&mut pax, b"linkpath", attributes.link);
        }
        for (name, value) in &attributes.xattrs {
            pax_record(&mut pax, &[b"SCHILY.xattr.", name.to_bytes()].concat(), value);
        }
        let mut name = path.to_vec();
        if attributes.kind == EntryType::Directory {
            name.push(b'/');
        }
        self.named(header, &name, pax)
    }

    /// Writes a header under its name, with an extended one before it if need be.
    fn named(&mut self, mut header: Header, name: &[u8], mut pax: Vec<u8>) -> Step<()> {
        if header.set_path(Path::new(OsStr::from_bytes(name))).is_err() {
            pax_record(&mut pax, b"path", name);
            let field = &mut header.as_old_mut().name;
            let kept = name.len().min(field.len());
            field[..kept].copy_from_slice(&name[..kept]);
        }
        if !pax.is_empty() {
            let mut extended = Header::new_ustar();
            extended.set_entry_type(EntryType::XHeader);
            extended.set_path("PaxHeaders.0").map_err(step("describe", name))?;
            extended.set_mode(0o644);
            extended.set_uid(0);
            extended.set_gid(0);
            extended.set_mtime(0);
            extended.set_size(pax.len() as u64);
            extended.set_cksum();
            let padding = usize::try_from(super::tar::padding(pax.len() as u64)).unwrap_or(0);
            pax.resize(pax.len() + padding, 0);
            self.raw(extended.as_bytes())?;
            self.raw(&pax)?;
        }
        header.set_cksum();
        self.raw(header.as_bytes())
    }

    fn raw(&mut self, bytes: &[u8]) -> Step<()> {
        self.hash.update(bytes);
        self.tar_size += bytes.len() as u64;
        self.journal.raw(bytes).map_err(ChangesError::Journal)
    }
}

impl std::fmt::Debug for Writer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("root", &self.root).field("size", &self.size).finish_non_exhaustive()
    }
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn pax_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(format!("{length} ").as_bytes());
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn same_directory(before: &Stat, now: &Stat) -> bool {
    FileType::from_raw_mode(before.st_mode) == FileType::Directory
        && before.st_mode == now.st_mode
        && before.st_uid == now.st_uid
        && before.st_gid == now.st_gid
        && (before.st_mtime, before.st_mtime_nsec) == (now.st_mtime, now.st_mtime_nsec)
}

fn same_content(mut a: File, mut b: File) -> io::Result<bool> {
    let (mut first, mut second) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let count = super::unpack::fill(&mut a, &mut first)?;
        let other = super::unpack::fill(&mut b, &mut second)?;
        if first[..count] != second[..other] {
            return Ok(false);
        }
        if count == 0 {
            return Ok(true);
        }
    }
}

/// The attributes that belong into an image, sorted; see `apply`.
fn attributes_of(file: &impl AsFd, path: &[u8]) -> Step<Vec<(CString, Vec<u8>)>> {
    let mut found = Vec::new();
    for name in attribute_names(file, path)? {
        let bytes = name.to_bytes();
        let user = bytes.starts_with(b"user.") && !bytes.starts_with(b"user.overlay.");
        if !user && bytes != b"security.capability" {
            continue;
        }
        let mut value = vec![0_u8; 64 << 10];
        let length = rustix::fs::fgetxattr(file, name.as_c_str(), &mut value[..])
            .map_err(step("read the attributes of", path))?;
        value.truncate(length);
        found.push((name, value));
    }
    found.sort();
    Ok(found)
}

fn attribute_names(file: &impl AsFd, path: &[u8]) -> Step<Vec<CString>> {
    let mut list = vec![0_u8; 64 << 10];
    let length = match rustix::fs::flistxattr(file, &mut list[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(step("read the attributes of", path)(error)),
    };
    let names = list[..length].split(|c| *c == 0).filter(|name| !name.is_empty());
    Ok(names.filter_map(|name| CString::new(name).ok()).collect())
}

/// Removes what overlay noted for itself; the opaque mark stays.
fn clean_attributes(file: &impl AsFd, path: &[u8]) -> Step<()> {
    for name in attribute_names(file, path)? {
        if !name.to_bytes().starts_with(b"trusted.overlay.") || name.as_c_str() == OPAQUE {
            continue;
        }
        if matches!(name.to_bytes(), b"trusted.overlay.redirect" | b"trusted.overlay.metacopy") {
            return Err(ChangesError::Attribute {
                path: String::from_utf8_lossy(path).into_owned(),
                attribute: name.to_string_lossy().into_owned(),
            });
        }
        rustix::fs::fremovexattr(file, name.as_c_str()).map_err(step("change the attributes of", path))?;
    }
    Ok(())
}

fn is_opaque(directory: &OwnedFd, path: &[u8]) -> Step<bool> {
    let mut value = [0_u8; 4];
    match rustix::fs::fgetxattr(directory, OPAQUE, &mut value[..]) {
        Ok(length) => Ok(&value[..length] == b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(step("read the attributes of", path)(error)),
    }
}

fn open_below(root: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // A link in the middle is something else than the directory that is here now.
    let (parent, name) = split(path);
    let parent = if parent.is_empty() { &b"."[..] } else { parent };
    let directory = rustix::fs::openat2(
        root,
        parent,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        resolve | ResolveFlags::NO_SYMLINKS,
    )?;
    rustix::fs::openat(&directory, name, flags, Mode::empty())
}

/// Removes a directory in which only unchanged copies and empty directories are left.
fn remove_tree(parent: &OwnedFd, name: &[u8], path: &[u8]) -> Step<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(step("open", path))?;
    let mut inside = Vec::new();
    for entry in Dir::read_from(&fd).map_err(step("list", path))? {
        let entry = entry.map_err(step("list", path))?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            inside.push((name.to_vec(), entry.file_type()));
        }
    }
    for (name, kind) in inside {
        let full = join(path, &name);
        if kind == FileType::Directory {
            remove_tree(&fd, &name, &full)?;
        } else {
            rustix::fs::unlinkat(&fd, &name[..], AtFlags::empty()).map_err(step("remove", &full))?;
        }
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR).map_err(step("remove", path))
}

/// For `map_err`: names step and path.
fn step<E: Into<io::Error>>(step: &'static str, path: &[u8]) -> impl FnOnce(E) -> ChangesError + use<E> {
    let path = format!("/{}", String::from_utf8_lossy(path).trim_matches('/'));
    move |source| ChangesError::Step { step, path, source: source.into() }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memrchr(b'/', path) {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}
