//! Files of this machine ⇄ tar archives.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use super::CopyError;
use crate::util::exact::Exactly;

/// Names a step on a path of this machine.
pub(super) fn at<E: Into<std::io::Error>>(step: &'static str, path: &Path) -> impl FnOnce(E) -> CopyError {
    let path = path.to_owned();
    move |source| CopyError::Local { step, path, source: source.into() }
}

/// Writes trees of this machine into an archive.
pub(in crate::ops) struct Packer<W: Write> {
    archive: tar::Builder<W>,
    /// Name in the archive of each file that has several names.
    names: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Packer<W> {
    pub(in crate::ops) fn new(sink: W) -> Self {
        Self { archive: tar::Builder::new(sink), names: HashMap::new() }
    }

    /// Adds what is at `path` as `name`, and all below it for which `wanted` holds.
    /// An empty name adds what is below a directory, not the directory. What is
    /// removed meanwhile is left out.
    pub(in crate::ops) fn add(
        &mut self,
        path: &Path,
        name: &Path,
        follow: bool,
        wanted: &dyn Fn(&Path, bool) -> bool,
    ) -> Result<(), CopyError> {
        let metadata = if follow { fs::metadata(path) } else { fs::symlink_metadata(path) };
        let metadata = metadata.map_err(at("look at", path))?;
        if !name.as_os_str().is_empty() {
            self.entry(path, name, &metadata)?;
        }
        if !metadata.is_dir() {
            return Ok(());
        }
        let mut pending = vec![(path.to_owned(), name.to_owned())];
        while let Some((directory, name)) = pending.pop() {
            let listed = match fs::read_dir(&directory) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && directory != path => continue,
                other => other.map_err(at("list", &directory))?,
            };
            let mut children = Vec::new();
            for child in listed {
                children.push(child.map_err(at("list", &directory))?.file_name());
            }
            children.sort();
            let mut directories = Vec::new();
            for child in children {
                let path = directory.join(&child);
                let metadata = match fs::symlink_metadata(&path) {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                    other => other.map_err(at("look at", &path))?,
                };
                if !wanted(&path, metadata.is_dir()) {
                    continue;
                }
                let name = name.join(&child);
                self.entry(&path, &name, &metadata)?;
                if metadata.is_dir() {
                    directories.push((path, name));
                }
            }
            pending.extend(directories.into_iter().rev());
        }
        Ok(())
    }

    /// Adds one thing without what is below it.
    pub(in crate::ops) fn entry(
        &mut self,
        path: &Path,
        name: &Path,
        metadata: &Metadata,
    ) -> Result<(), CopyError> {
        let kind = metadata.file_type();
        if kind.is_socket() {
            // Nobody could connect to it.
            return Ok(());
        }
        let mut header = tar::Header::new_gnu();
        header.set_metadata(metadata);
        let written = CopyError::Archive;
        if metadata.is_dir() {
            return self.archive.append_data(&mut header, name.join(""), std::io::empty()).map_err(written);
        }
        if metadata.nlink() > 1 {
            if let Some(first) = self.names.get(&(metadata.dev(), metadata.ino())) {
                header.set_entry_type(tar::EntryType::Link);
                header.set_size(0);
                return self.archive.append_link(&mut header, name, first).map_err(written);
            }
            self.names.insert((metadata.dev(), metadata.ino()), name.to_owned());
        }
        if kind.is_symlink() {
            header.set_size(0);
            let target = fs::read_link(path).map_err(at("read the link", path))?;
            return self.archive.append_link(&mut header, name, target).map_err(written);
        }
        if !metadata.is_file() {
            header.set_size(0);
            return self.archive.append_data(&mut header, name, std::io::empty()).map_err(written);
        }
        let mut data = Exactly::new(File::open(path).map_err(at("open", path))?, metadata.len());
        let done = self.archive.append_data(&mut header, name, &mut data);
        match data.failure() {
            Some(source) => Err(at("read", path)(source)),
            None => done.map_err(written),
        }
    }

    /// Ends the archive.
    pub(in crate::ops) fn finish(self) -> Result<(), CopyError> {
        self.archive.into_inner().and_then(|mut sink| sink.flush()).map_err(CopyError::Archive)
    }
}

/// Where an archive is unpacked on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// Its entries come into this directory.
    Into(PathBuf),
    /// Its first entry becomes this path, which is no directory.
    As(PathBuf),
}

/// Unpacks an archive whose entries all begin with one name. Everything belongs to the caller.
///
/// Nothing is written outside of the target, whatever names and links the archive has.
pub(super) fn unpack(source: impl Read, target: &Target) -> Result<(), CopyError> {
    match target {
        Target::Into(directory) => unpack_into(source, directory).map(drop),
        Target::As(path) => {
            let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            // Beside it, so that it is put in its place whole and in one step.
            let staging = parent.join(format!(".hoist-cp-{}", crate::util::ids::random_hex(6)));
            fs::create_dir(&staging).map_err(at("create the directory", &staging))?;
            let done = unpack_into(source, &staging).and_then(|first| {
                let from = match first {
                    Some(name) => staging.join(name),
                    // The entries are those of the directory itself.
                    None => staging.clone(),
                };
                fs::rename(&from, path).map_err(at("create", path))
            });
            if staging.exists() {
                // The error, if there is one, says more than a failure to clean up.
                drop(fs::remove_dir_all(&staging));
            }
            done
        }
    }
}

/// Unpacks into a directory, and says how the first entry is called unless that is `.`.
fn unpack_into(source: impl Read, directory: &Path) -> Result<Option<PathBuf>, CopyError> {
    let mut archive = tar::Archive::new(source);
    archive.set_preserve_permissions(true);
    let mut first = None;
    let mut seen = false;
    // Directories get their modes last: one that may not be written to could not be filled.
    let mut directories = Vec::new();
    for entry in archive.entries().map_err(CopyError::Archive)? {
        let mut entry = entry.map_err(CopyError::Archive)?;
        let name = entry.path().map_err(CopyError::Archive)?.into_owned();
        if !seen {
            seen = true;
            first = name.components().find_map(|part| match part {
                Component::Normal(part) => Some(PathBuf::from(part)),
                _ => None,
            });
        }
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            let whole = directory.join(&name);
            let itself = name.components().all(|part| part == Component::CurDir);
            if !itself && !whole.is_dir() {
                if !entry.unpack_in(directory).map_err(at("create the directory", &whole))? {
                    return Err(CopyError::Escapes(name));
                }
                // With its own mode it might not take what belongs into it.
                fs::set_permissions(&whole, PermissionsExt::from_mode(0o700))
                    .map_err(at("set the mode of", &whole))?;
            }
            if let Ok(mode) = entry.header().mode() {
                directories.push((name, mode & 0o7777));
            }
            continue;
        }
        let whole = directory.join(&name);
        if kind.is_fifo() || kind.is_character_special() || kind.is_block_special() {
            special(directory, &whole, entry.header())?;
            continue;
        }
        if !entry.unpack_in(directory).map_err(at("create", &whole))? {
            return Err(CopyError::Escapes(name));
        }
    }
    for (name, mode) in directories.into_iter().rev() {
        let whole = directory.join(&name);
        let itself = name.components().all(|part| part == Component::CurDir);
        // Through a link it would be another directory's.
        if !itself && fs::symlink_metadata(&whole).is_ok_and(|m| m.is_dir()) {
            fs::set_permissions(&whole, PermissionsExt::from_mode(mode))
                .map_err(at("set the mode of", &whole))?;
        }
    }
    Ok(first)
}

/// Makes a FIFO or a device, which the archive crate does not.
fn special(directory: &Path, path: &Path, header: &tar::Header) -> Result<(), CopyError> {
    use rustix::fs::{FileType, Mode};
    let inside = path.parent().and_then(|parent| parent.canonicalize().ok());
    let top = directory.canonicalize().map_err(at("open", directory))?;
    let (Some(parent), Some(name)) = (inside.filter(|p| p.starts_with(&top)), path.file_name()) else {
        return Err(CopyError::Escapes(path.to_owned()));
    };
    let kind = match header.entry_type() {
        tar::EntryType::Char => FileType::CharacterDevice,
        tar::EntryType::Block => FileType::BlockDevice,
        _ => FileType::Fifo,
    };
    let number = |part: std::io::Result<Option<u32>>| part.ok().flatten().unwrap_or(0);
    let device = rustix::fs::makedev(number(header.device_major()), number(header.device_minor()));
    let mode = Mode::from_raw_mode(header.mode().unwrap_or(0o600) & 0o7777);
    let whole = parent.join(name);
    if fs::symlink_metadata(&whole).is_ok_and(|m| !m.is_dir()) {
        fs::remove_file(&whole).map_err(at("replace", &whole))?;
    }
    rustix::fs::mknodat(rustix::fs::CWD, &whole, kind, mode, device).map_err(at("create", &whole))
}
