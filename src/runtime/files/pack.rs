//! From a path of a container to a tar archive.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use tar::{EntryType, Header};

use super::{FilesError, asks_for_directory, open, reopen_directory, step};
use crate::runtime::mount::Root;
use crate::util::exact::Exactly;

/// File systems that show the kernel, not files: `statfs(2)`, `f_type`.
const KERNEL_FILE_SYSTEMS: [i64; 9] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x27_e0eb,   // cgroup
    0x6367_7270, // cgroup2
    0x1cd1,      // devpts
    0x1980_0202, // mqueue
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0xcafe_4a11, // bpf
];

type Result<T> = std::result::Result<T, FilesError>;

/// See [`Runtime::pack`](crate::runtime::Runtime::pack).
pub(super) fn pack(root: &Root, path: &str, sink: &mut dyn Write) -> Result<()> {
    let bytes = path.as_bytes();
    let place = open(root, bytes, asks_for_directory(path)).map_err(step("open", bytes))?;
    let stat = rustix::fs::fstat(&place).map_err(step("look at", bytes))?;
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    if asks_for_directory(path) && !is_directory && !path.is_empty() {
        return Err(FilesError::NotDirectory { path: path.to_owned() });
    }
    let mut packer = Packer { archive: tar::Builder::new(sink), names: HashMap::new(), path: bytes };
    let name = entry_name(path);
    if is_directory {
        packer.tree(&place, name.as_bytes(), &stat)?;
    } else {
        packer.entry(&place, name.as_bytes(), &stat)?;
    }
    packer.archive.into_inner().map_err(FilesError::Write)?.flush().map_err(FilesError::Write)
}

/// The last part of a path, `.` when that is the directory itself.
fn entry_name(path: &str) -> &str {
    if path.ends_with("/.") || path == "." {
        return ".";
    }
    match path.trim_end_matches('/').rsplit('/').next() {
        None | Some("" | "..") => ".",
        Some(name) => name,
    }
}

struct Packer<'a, W: Write> {
    archive: tar::Builder<W>,
    /// Name in the archive of each file that has several names.
    names: HashMap<(u64, u64), Vec<u8>>,
    /// What is packed, for errors.
    path: &'a [u8],
}

impl<W: Write> Packer<'_, W> {
    /// A directory and all below it, parents first and in the order of names.
    fn tree(&mut self, top: &OwnedFd, name: &[u8], stat: &Stat) -> Result<()> {
        self.directory(name, stat)?;
        let mut pending = vec![(Vec::new(), stat.st_dev)];
        while let Some((below, device)) = pending.pop() {
            let directory = self.open_below(top, &below)?;
            let mut names = Vec::new();
            for entry in Dir::read_from(&directory).map_err(step("list", &self.shown(&below)))? {
                let entry = entry.map_err(step("list", &self.shown(&below)))?;
                if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                    names.push(entry.file_name().to_bytes().to_vec());
                }
            }
            names.sort();
            let mut directories = Vec::new();
            for child in names {
                let path = join(&below, &child);
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let place = match rustix::fs::openat(&directory, &child[..], flags, Mode::empty()) {
                    // Removed since it was listed.
                    Err(rustix::io::Errno::NOENT) => continue,
                    other => other.map_err(step("open", &self.shown(&path)))?,
                };
                let stat = rustix::fs::fstat(&place).map_err(step("look at", &self.shown(&path)))?;
                let entry = join(name, &path);
                if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                    self.entry(&place, &entry, &stat)?;
                    continue;
                }
                self.directory(&entry, &stat)?;
                let shows_kernel = stat.st_dev != device
                    && rustix::fs::fstatfs(&place).is_ok_and(|f| KERNEL_FILE_SYSTEMS.contains(&f.f_type));
                if !shows_kernel {
                    directories.push((path, stat.st_dev));
                }
            }
            pending.extend(directories.into_iter().rev());
        }
        Ok(())
    }

    fn open_below(&self, top: &OwnedFd, below: &[u8]) -> Result<OwnedFd> {
        let opened = if below.is_empty() {
            reopen_directory(top)
        } else {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            rustix::fs::openat2(top, below, flags, Mode::empty(), inside)
        };
        opened.map_err(step("open the directory", &self.shown(below)))
    }

    fn shown(&self, below: &[u8]) -> Vec<u8> {
        join(self.path, below)
    }

    fn directory(&mut self, name: &[u8], stat: &Stat) -> Result<()> {
        let mut header = header(EntryType::Directory, stat, 0);
        let name = [name, b"/"].concat();
        self.archive.append_data(&mut header, as_path(&name), io::empty()).map_err(FilesError::Write)
    }

    /// Anything but a directory.
    fn entry(&mut self, place: &OwnedFd, name: &[u8], stat: &Stat) -> Result<()> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let kind = match kind {
            // Nobody could connect to it.
            FileType::Socket | FileType::Unknown | FileType::Directory => return Ok(()),
            kind => kind,
        };
        if stat.st_nlink > 1 {
            if let Some(first) = self.names.get(&(stat.st_dev, stat.st_ino)) {
                let mut header = header(EntryType::Link, stat, 0);
                return self
                    .archive
                    .append_link(&mut header, as_path(name), as_path(first))
                    .map_err(FilesError::Write);
            }
            self.names.insert((stat.st_dev, stat.st_ino), name.to_vec());
        }
        match kind {
            FileType::RegularFile => self.file(place, name, stat),
            FileType::Symlink => {
                let target =
                    rustix::fs::readlinkat(place, "", Vec::new()).map_err(step("read the link", name))?;
                let mut header = header(EntryType::Symlink, stat, 0);
                self.archive
                    .append_link(&mut header, as_path(name), as_path(target.as_bytes()))
                    .map_err(FilesError::Write)
            }
            other => {
                let entry_type = match other {
                    FileType::CharacterDevice => EntryType::Char,
                    FileType::BlockDevice => EntryType::Block,
                    _ => EntryType::Fifo,
                };
                let mut header = header(entry_type, stat, 0);
                let number = |n: u32| header_number(n, name);
                let device =
                    (number(rustix::fs::major(stat.st_rdev))?, number(rustix::fs::minor(stat.st_rdev))?);
                header.set_device_major(device.0).map_err(FilesError::Write)?;
                header.set_device_minor(device.1).map_err(FilesError::Write)?;
                self.archive.append_data(&mut header, as_path(name), io::empty()).map_err(FilesError::Write)
            }
        }
    }

    fn file(&mut self, place: &OwnedFd, name: &[u8], stat: &Stat) -> Result<()> {
        // Through the descriptor that was looked at: the name may be something else by now.
        let file = File::open(format!("/proc/self/fd/{}", place.as_raw_fd()))
            .map_err(|source| FilesError::Step { step: "open", path: shown(name), source })?;
        let capability = capability(&file);
        if let Some(value) = &capability {
            self.extended("SCHILY.xattr.security.capability", value)?;
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let mut header = header(EntryType::Regular, stat, size);
        let mut data = Exactly::new(file, size);
        let written = self.archive.append_data(&mut header, as_path(name), &mut data);
        match data.failure() {
            Some(source) => Err(FilesError::Step { step: "read", path: shown(name), source }),
            None => written.map_err(FilesError::Write),
        }
    }

    /// A PAX header with one record for the entry that follows.
    fn extended(&mut self, key: &str, value: &[u8]) -> Result<()> {
        // The record's length counts its own digits.
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        let mut record = format!("{length} {key}=").into_bytes();
        record.extend_from_slice(value);
        record.push(b'\n');
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        header.set_mode(0o644);
        header.set_size(record.len() as u64);
        self.archive.append_data(&mut header, "PaxHeaders/attributes", &record[..]).map_err(FilesError::Write)
    }
}

/// File capabilities, which Docker copies, too.
fn capability(file: &File) -> Option<Vec<u8>> {
    let mut value = vec![0; 64];
    let length = rustix::fs::fgetxattr(file, "security.capability", &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

fn header(kind: EntryType, stat: &Stat, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(u64::from(stat.st_uid));
    header.set_gid(u64::from(stat.st_gid));
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header.set_size(size);
    header
}

fn header_number(number: u32, name: &[u8]) -> Result<u32> {
    // Seven octal digits are all that a header has room for.
    if number < 1 << 21 {
        return Ok(number);
    }
    let source = io::Error::other("its device number does not fit a tar header");
    Err(FilesError::Step { step: "pack", path: shown(name), source })
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    match (parent, name) {
        (b"", name) => name.to_vec(),
        (parent, b"") => parent.to_vec(),
        (parent, name) => [parent, b"/", name].concat(),
    }
}
