//! Applying a layer's tar to a directory.
//!
//! Archives may hold anything: every parent is resolved by the kernel inside
//! the root (`openat2` with `RESOLVE_IN_ROOT`), last components are never
//! followed, names with `..` are refused, so nothing outside is ever touched.
//! Whiteouts become what overlay wants: character device 0:0, and
//! `trusted.overlay.opaque` on opaque directories.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::journal::{self, Shadow};
use super::store::RootAttributes;
use super::tar::{Entry, Kind, Reader, TarError, padding};

/// Open parents kept at once.
const OPEN_PARENTS: usize = 200;
/// More entries than any real layer has.
const MAX_ENTRIES: u64 = 10_000_000;

/// Why a layer cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The archive does not parse.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// A name that leads outside, or is none.
    #[error("the archive entry `{0}` leads outside of its root")]
    Escapes(String),
    /// A hard link whose target is not in the archive.
    #[error("the archive entry `{name}` is a hard link to `{target}`, which is not in the same layer")]
    LinkTarget {
        /// Entry.
        name: String,
        /// Target as written.
        target: String,
    },
    /// A whiteout of nothing.
    #[error("the archive entry `{0}` is not a valid whiteout")]
    Whiteout(String),
    /// Far too many entries.
    #[error("the layer has more than {MAX_ENTRIES} entries")]
    Entries,
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
    /// The journal cannot be written.
    #[error("cannot write the layer's journal")]
    Journal(#[source] io::Error),
}

type Result<T> = std::result::Result<T, ApplyError>;

/// What came out.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// Bytes of regular files.
    pub(crate) size: u64,
    /// Entries of the archive.
    pub(crate) entries: u64,
    /// Directories that entries needed but the archive does not list, parents first.
    pub(crate) implied: Vec<Vec<u8>>,
    /// If the archive lists the root.
    pub(crate) root: Option<RootAttributes>,
    /// What the layer itself replaced.
    pub(crate) shadows: Vec<Shadow>,
}

/// Applies the tar from `input` to `layer/fs`, writing `layer/journal` and `layer/shadow/` if `keep_journal`.
pub(crate) fn apply(layer: &Path, input: impl BufRead, keep_journal: bool) -> Result<Applied> {
    let mut reader = Reader::new(input);
    let mut applier = Applier::new(layer, keep_journal)?;
    let mut raw = Vec::new();
    let mut entries = 0;
    while let Some(entry) = reader.next(&mut raw)? {
        entries += 1;
        if entries > MAX_ENTRIES {
            return Err(ApplyError::Entries);
        }
        applier.entry(&entry, &mut reader, &mut raw)?;
    }
    // What follows the end marker belongs to the tar's digest.
    loop {
        let buffer = reader.inner.fill_buf().map_err(TarError::from)?;
        if buffer.is_empty() {
            break;
        }
        if raw.len() > 1 << 20 {
            applier.journal_raw(&mut raw)?;
        }
        raw.extend_from_slice(buffer);
        let used = buffer.len();
        reader.inner.consume(used);
    }
    applier.journal_raw(&mut raw)?;
    applier.applied.entries = entries;
    applier.finish()
}

struct Applier<'a> {
    layer: &'a Path,
    root: Rc<OwnedFd>,
    /// Parents by textual path; void whenever a directory or a link is replaced.
    parents: HashMap<Vec<u8>, Rc<OwnedFd>>,
    times: Vec<(Vec<u8>, Timestamps)>,
    /// Permission bits this process's umask takes away.
    umask: u32,
    journal: Option<journal::Writer>,
    implied: indexmap::IndexSet<Vec<u8>>,
    applied: Applied,
}

impl<'a> Applier<'a> {
    fn new(layer: &'a Path, keep_journal: bool) -> Result<Self> {
        let fail = |step| {
            move |source: Errno| ApplyError::Step {
                step,
                name: layer.join("fs").display().to_string(),
                source: source.into(),
            }
        };
        let fs = layer.join("fs");
        rustix::fs::mkdir(&fs, Mode::from_raw_mode(0o777)).map_err(fail("make the directory"))?;
        let root = rustix::fs::open(&fs, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(fail("open"))?;
        let umask = 0o777 & !rustix::fs::fstat(&root).map_err(fail("look at"))?.st_mode;
        rustix::fs::fchmod(&root, Mode::from_raw_mode(0o755)).map_err(fail("set the mode of"))?;
        let journal = if keep_journal {
            Some(journal::Writer::create(&layer.join("journal")).map_err(ApplyError::Journal)?)
        } else {
            None
        };
        Ok(Self {
            layer,
            root: Rc::new(root),
            parents: HashMap::new(),
            times: Vec::new(),
            umask,
            journal,
            implied: indexmap::IndexSet::new(),
            applied: Applied::default(),
        })
    }

    fn journal_raw(&mut self, raw: &mut Vec<u8>) -> Result<()> {
        if let Some(journal) = &mut self.journal {
            journal.raw(raw).map_err(ApplyError::Journal)?;
        }
        raw.clear();
        Ok(())
    }

    /// Applies one entry and takes its data and padding from the stream.
    fn entry<R: BufRead>(&mut self, entry: &Entry, reader: &mut Reader<R>, raw: &mut Vec<u8>) -> Result<()> {
        let path = clean(&entry.path).ok_or_else(|| ApplyError::Escapes(entry.name()))?;
        let mut stored = None;
        if path.is_empty() {
            self.set_root(entry)?;
        } else if !path
            .split(|c| *c == b'/')
            .any(|part| part.starts_with(b".wh..wh.") && part != b".wh..wh..opq")
        {
            let (parent_path, name) = split(&path);
            if let Some(hidden) = name.strip_prefix(b".wh.") {
                self.whiteout(entry, parent_path, hidden)?;
            } else {
                let parent = self.parent(parent_path, entry)?;
                match entry.kind {
                    Kind::File => {
                        self.file(entry, reader, &parent, &path, name)?;
                        stored = Some(());
                    }
                    Kind::Directory => self.directory(entry, &parent, &path, name)?,
                    Kind::Symlink => {
                        self.fresh(entry, &parent, &path, name, "make the link", |fd| {
                            rustix::fs::symlinkat(&entry.link[..], fd, name)
                        })?;
                        self.attributes(entry, &parent, name)?;
                    }
                    Kind::HardLink => self.hard_link(entry, parent_path, &path, name)?,
                    Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
                        let (kind, device) = match entry.kind {
                            Kind::CharDevice => (FileType::CharacterDevice, entry.device),
                            Kind::BlockDevice => (FileType::BlockDevice, entry.device),
                            _ => (FileType::Fifo, (0, 0)),
                        };
                        let device = rustix::fs::makedev(device.0, device.1);
                        self.fresh(entry, &parent, &path, name, "make the device", |fd| {
                            rustix::fs::mknodat(fd, name, kind, Mode::from_raw_mode(entry.mode), device)
                        })?;
                        self.attributes(entry, &parent, name)?;
                    }
                }
            }
        }
        if stored.is_some() {
            self.journal_raw(raw)?;
            if entry.size > 0
                && let Some(journal) = &mut self.journal
            {
                match &entry.sparse {
                    Some((pieces, _)) => journal.file(&path, pieces),
                    None => journal.file(&path, &[(0, entry.size)]),
                }
                .map_err(ApplyError::Journal)?;
            }
        } else {
            // Data of something that is not stored as a file (a whiteout with content) goes to the journal.
            reader.pass(entry.size, |bytes| {
                raw.extend_from_slice(bytes);
                if raw.len() > 1 << 20 { self.journal_raw(raw) } else { Ok(()) }
            })?;
        }
        reader.pass(padding(entry.size), |bytes| {
            raw.extend_from_slice(bytes);
            Ok::<(), TarError>(())
        })?;
        if raw.len() > 64 << 10 {
            self.journal_raw(raw)?;
        }
        Ok(())
    }

    fn set_root(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != Kind::Directory {
            return Err(ApplyError::Escapes(entry.name()));
        }
        let owner = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        rustix::fs::fchown(&self.root, Some(owner.0), Some(owner.1))
            .map_err(step("set the owner of", entry))?;
        rustix::fs::fchmod(&self.root, Mode::from_raw_mode(entry.mode))
            .map_err(step("set the mode of", entry))?;
        self.applied.root = Some(RootAttributes { mode: entry.mode, uid: entry.uid, gid: entry.gid });
        self.times.push((Vec::new(), entry.times()));
        Ok(())
    }

    fn file<R: BufRead>(
        &mut self,
        entry: &Entry,
        reader: &mut Reader<R>,
        parent: &OwnedFd,
        path: &[u8],
        name: &[u8],
    ) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let file = match rustix::fs::openat(parent, name, flags, mode) {
            Err(Errno::EXIST) => {
                self.clear(entry, parent, path, name)?;
                rustix::fs::openat(parent, name, flags, mode)
            }
            other => other,
        };
        let file = File::from(file.map_err(step("create", entry))?);
        let failed = |source| ApplyError::Step { step: "write", name: entry.name(), source };
        if let Some((pieces, length)) = &entry.sparse {
            file.set_len(*length).map_err(failed)?;
            for &(mut offset, count) in pieces {
                reader.pass::<ApplyError>(count, |bytes| {
                    file.write_all_at(bytes, offset).map_err(failed)?;
                    offset += bytes.len() as u64;
                    Ok(())
                })?;
            }
            self.applied.size += length;
        } else {
            reader.pass::<ApplyError>(entry.size, |bytes| {
                io::Write::write_all(&mut &file, bytes).map_err(failed)
            })?;
            self.applied.size += entry.size;
        }
        let owned = entry.uid != 0 || entry.gid != 0;
        if owned {
            rustix::fs::fchown(&file, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
                .map_err(step("set the owner of", entry))?;
        }
        // Creation took the umask's bits and never gives set-id bits; a change of owner takes those, too.
        if entry.mode & (0o7000 | self.umask) != 0 {
            rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode))
                .map_err(step("set the mode of", entry))?;
        }
        entry.set_xattrs(&file).map_err(step("set the extended attributes of", entry))?;
        rustix::fs::futimens(&file, &entry.times()).map_err(step("set the time of", entry))
    }

    fn directory(&mut self, entry: &Entry, parent: &OwnedFd, path: &[u8], name: &[u8]) -> Result<()> {
        let mode = Mode::from_raw_mode(entry.mode);
        match rustix::fs::mkdirat(parent, name, mode) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let there = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(step("look at", entry))?;
                if FileType::from_raw_mode(there.st_mode) != FileType::Directory {
                    let hidden = is_whiteout(&there);
                    self.clear(entry, parent, path, name)?;
                    rustix::fs::mkdirat(parent, name, mode).map_err(step("make the directory", entry))?;
                    if hidden {
                        // The layer removed what was below and puts a new directory in its place.
                        self.opaque(entry, path)?;
                    }
                }
            }
            Err(error) => return Err(step("make the directory", entry)(error)),
        }
        self.implied.shift_remove(path);
        let fd = rustix::fs::openat(
            parent,
            name,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(step("open", entry))?;
        rustix::fs::fchown(&fd, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
            .map_err(step("set the owner of", entry))?;
        rustix::fs::fchmod(&fd, mode).map_err(step("set the mode of", entry))?;
        entry.set_xattrs(&fd).map_err(step("set the extended attributes of", entry))?;
        self.times.push((path.to_vec(), entry.times()));
        Ok(())
    }

    fn hard_link(&mut self, entry: &Entry, parent_path: &[u8], path: &[u8], name: &[u8]) -> Result<()> {
        let missing = || ApplyError::LinkTarget {
            name: entry.name(),
            target: String::from_utf8_lossy(&entry.link).into_owned(),
        };
        let target = clean(&entry.link).filter(|target| !target.is_empty()).ok_or_else(missing)?;
        let (target_parent, target_name) = split(&target);
        let from = self.look_up(target_parent).map_err(|_| missing())?;
        if target == path {
            return Ok(());
        }
        let there =
            rustix::fs::statat(&from, target_name, AtFlags::SYMLINK_NOFOLLOW).map_err(|_| missing())?;
        if FileType::from_raw_mode(there.st_mode) == FileType::Directory || is_whiteout(&there) {
            return Err(missing());
        }
        let parent = self.parent(parent_path, entry)?;
        self.fresh(entry, &parent, path, name, "make the hard link", |fd| {
            rustix::fs::linkat(&from, target_name, fd, name, AtFlags::empty())
        })
    }

    fn whiteout(&mut self, entry: &Entry, parent_path: &[u8], hidden: &[u8]) -> Result<()> {
        if hidden == b".wh..opq" {
            self.parent(parent_path, entry)?;
            return self.opaque(entry, parent_path);
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(ApplyError::Whiteout(entry.name()));
        }
        let parent = self.parent(parent_path, entry)?;
        let kind = FileType::CharacterDevice;
        match rustix::fs::mknodat(&parent, hidden, kind, Mode::empty(), rustix::fs::makedev(0, 0)) {
            Ok(()) => Ok(()),
            // A whiteout is about the layers below. What this layer has itself stays, and hides
            // them already unless it is a directory.
            Err(Errno::EXIST) => {
                let there = rustix::fs::statat(&parent, hidden, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(step("look at", entry))?;
                if FileType::from_raw_mode(there.st_mode) == FileType::Directory {
                    let path = join(parent_path, hidden);
                    self.opaque(entry, &path)?;
                }
                Ok(())
            }
            Err(error) => Err(step("make the whiteout", entry)(error)),
        }
    }

    /// Marks a directory of this layer as hiding the one below.
    fn opaque(&mut self, entry: &Entry, path: &[u8]) -> Result<()> {
        let fd = if path.is_empty() {
            self.root.clone()
        } else {
            let (parent, name) = split(path);
            let parent = self.parent(parent, entry)?;
            Rc::new(
                rustix::fs::openat(
                    &parent,
                    name,
                    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
                    Mode::empty(),
                )
                .map_err(step("open", entry))?,
            )
        };
        rustix::fs::fsetxattr(&fd, "trusted.overlay.opaque", b"y", XattrFlags::empty())
            .map_err(step("mark as opaque the directory of", entry))
    }

    /// Makes something by `make`, first removing what has its name.
    fn fresh(
        &mut self,
        entry: &Entry,
        parent: &OwnedFd,
        path: &[u8],
        name: &[u8],
        verb: &'static str,
        make: impl Fn(&OwnedFd) -> rustix::io::Result<()>,
    ) -> Result<()> {
        match make(parent) {
            Err(Errno::EXIST) => {
                self.clear(entry, parent, path, name)?;
                make(parent).map_err(step(verb, entry))
            }
            other => other.map_err(step(verb, entry)),
        }
    }

    /// Owner, mode and time of something that cannot be opened.
    fn attributes(&self, entry: &Entry, parent: &OwnedFd, name: &[u8]) -> Result<()> {
        let owner = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
        rustix::fs::chownat(parent, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(step("set the owner of", entry))?;
        if entry.kind != Kind::Symlink && entry.mode & (0o7000 | self.umask) != 0 {
            // The name was made by us a moment ago, and nobody else is in here.
            rustix::fs::chmodat(parent, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
                .map_err(step("set the mode of", entry))?;
        }
        rustix::fs::utimensat(parent, name, &entry.times(), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(step("set the time of", entry))
    }

    /// Takes away what has the name of a later entry.
    fn clear(&mut self, entry: &Entry, parent: &OwnedFd, path: &[u8], name: &[u8]) -> Result<()> {
        self.parents.clear();
        let there =
            rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(step("look at", entry))?;
        let kind = FileType::from_raw_mode(there.st_mode);
        if kind != FileType::Directory && kind != FileType::RegularFile {
            return rustix::fs::unlinkat(parent, name, AtFlags::empty()).map_err(step("replace", entry));
        }
        // The journal may need the content, and a rename removes whole trees at once.
        let shadows = self.layer.join("shadow");
        if self.applied.shadows.is_empty() {
            rustix::fs::mkdir(&shadows, Mode::from_raw_mode(0o700)).map_err(step("replace", entry))?;
        }
        let place = shadows.join(self.applied.shadows.len().to_string());
        rustix::fs::renameat(parent, name, rustix::fs::CWD, &place).map_err(step("replace", entry))?;
        let before = self.journal.as_ref().map_or(0, journal::Writer::files);
        self.applied.shadows.push(Shadow { before, path: path.to_vec() });
        if kind == FileType::Directory {
            let below = [path, b"/"].concat();
            self.implied.retain(|implied| implied != path && !implied.starts_with(&below));
            self.times.retain(|(timed, _)| timed != path && !timed.starts_with(&below));
        }
        Ok(())
    }

    /// The directory `path`, made with its parents if it is missing.
    fn parent(&mut self, path: &[u8], entry: &Entry) -> Result<Rc<OwnedFd>> {
        match self.look_up(path) {
            Ok(fd) => return Ok(fd),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(error) => return Err(step("open the parent of", entry)(error)),
        }
        let mut made: Vec<u8> = Vec::new();
        let mut above = self.root.clone();
        for part in path.split(|c| *c == b'/') {
            let next = join(&made, part);
            above = match self.look_up(&next) {
                Ok(fd) => fd,
                Err(error @ (Errno::NOENT | Errno::NOTDIR)) => {
                    let mut hidden = false;
                    if let Ok(there) = rustix::fs::statat(&above, part, AtFlags::SYMLINK_NOFOLLOW) {
                        // A whiteout gives way to the directory that replaces it. A file or a
                        // dangling link as a parent is an archive that makes no sense.
                        if !is_whiteout(&there) {
                            return Err(step("open the parent of", entry)(error));
                        }
                        hidden = true;
                        self.clear(entry, &above, &next, part)?;
                    }
                    rustix::fs::mkdirat(&above, part, Mode::from_raw_mode(0o755))
                        .map_err(step("make the parent of", entry))?;
                    self.implied.insert(next.clone());
                    let fd = self.look_up(&next).map_err(step("open the parent of", entry))?;
                    if hidden {
                        rustix::fs::chmodat(&above, part, Mode::from_raw_mode(0o755), AtFlags::empty())
                            .map_err(step("make the parent of", entry))?;
                        self.opaque(entry, &next)?;
                    }
                    fd
                }
                Err(error) => return Err(step("open the parent of", entry)(error)),
            };
            made = next;
        }
        Ok(above)
    }

    /// An existing directory inside the root; links are followed inside the root only.
    fn look_up(&mut self, path: &[u8]) -> rustix::io::Result<Rc<OwnedFd>> {
        if path.is_empty() {
            return Ok(self.root.clone());
        }
        if let Some(fd) = self.parents.get(path) {
            return Ok(fd.clone());
        }
        let fd = Rc::new(rustix::fs::openat2(
            &self.root,
            path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )?);
        if self.parents.len() >= OPEN_PARENTS {
            self.parents.clear();
        }
        self.parents.insert(path.to_vec(), fd.clone());
        Ok(fd)
    }

    fn finish(mut self) -> Result<Applied> {
        // Children first, and after everything that touches directories.
        for (path, times) in std::mem::take(&mut self.times).iter().rev() {
            let (parent, name) = split(path);
            let Ok(parent) = self.look_up(parent) else { continue };
            let name = if name.is_empty() { &b"."[..] } else { name };
            let there = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW);
            if there.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory) {
                rustix::fs::utimensat(&parent, name, times, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| {
                    ApplyError::Step {
                        step: "set the time of",
                        name: String::from_utf8_lossy(path).into_owned(),
                        source: error.into(),
                    }
                })?;
            }
        }
        if let Some(journal) = self.journal.take() {
            journal.finish().map_err(ApplyError::Journal)?;
        }
        self.applied.implied = self.implied.into_iter().collect();
        Ok(self.applied)
    }
}

/// Gives directories that a layer's archive only implied the attributes they have in the layers
/// below (`lowers`, topmost first).
pub(crate) fn adopt(layer: &Path, implied: &[Vec<u8>], lowers: &[std::path::PathBuf]) -> Result<()> {
    let failed = |path: &[u8], source: Errno| ApplyError::Step {
        step: "adopt the attributes of",
        name: String::from_utf8_lossy(path).into_owned(),
        source: source.into(),
    };
    let open =
        |dir: &Path| rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let root = open(&layer.join("fs")).map_err(|error| failed(b"/", error))?;
    for lower in lowers.iter().rev().map(|lower| open(lower)) {
        let lower = lower.map_err(|error| failed(b"/", error))?;
        // From the lowest up, so that the topmost has the last word.
        for path in implied {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let Ok(below) = rustix::fs::openat2(&lower, &path[..], flags, Mode::empty(), resolve) else {
                continue;
            };
            let stat = rustix::fs::fstat(&below).map_err(|error| failed(path, error))?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let ours = rustix::fs::openat2(&root, &path[..], flags, Mode::empty(), resolve)
                .map_err(|error| failed(path, error))?;
            (|| {
                rustix::fs::fchown(
                    &ours,
                    Some(Uid::from_raw(stat.st_uid)),
                    Some(Gid::from_raw(stat.st_gid)),
                )?;
                rustix::fs::fchmod(&ours, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
                let time = Timespec {
                    tv_sec: stat.st_mtime,
                    tv_nsec: stat.st_mtime_nsec.try_into().unwrap_or_default(),
                };
                rustix::fs::futimens(&ours, &Timestamps { last_access: time, last_modification: time })
            })()
            .map_err(|error| failed(path, error))?;
        }
    }
    Ok(())
}

/// For `map_err`: names step and entry.
fn step(step: &'static str, entry: &Entry) -> impl Fn(Errno) -> ApplyError + use<> {
    let name = entry.name();
    move |error| ApplyError::Step { step, name: name.clone(), source: error.into() }
}

fn is_whiteout(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Without empty and `.` components and leading slashes; `None` with `..` or a NUL.
fn clean(name: &[u8]) -> Option<Vec<u8>> {
    let mut path = Vec::with_capacity(name.len());
    for part in name.split(|c| *c == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return None,
            _ => {
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(part);
            }
        }
    }
    (!path.contains(&0)).then_some(path)
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
