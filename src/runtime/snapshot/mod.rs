//! The writable layer of a container: upper and work directories over an image's layers.
//!
//! Owns `upper` and `work` below a container's directory and how they are
//! removed. Mounts nothing: `runtime::mount` and init do.

use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, Uid};

use crate::runtime::image::Image;
use crate::runtime::root::Root;
use crate::util::fs::{self, PathError};

/// A container's root file system before it is mounted.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Snapshot {
    /// The image's layers, topmost first; never empty (an image without layers gets one empty directory).
    pub lower: Vec<PathBuf>,
    /// What the container writes.
    pub upper: PathBuf,
    /// Overlay's own, on the same file system as `upper`.
    pub work: PathBuf,
}

/// Makes the upper and work directories of a container; keeps what is there.
///
/// The upper directory gets the mode and owner of the image's root, because
/// overlay shows the upper's. Paths are absolute and below 256 bytes (the limit
/// of one `fsconfig` string) as long as the root's own path is below 120.
///
/// # Errors
/// [`PathError`] with the directory that cannot be made.
pub fn prepare(root: &Root, container: &str, image: &Image) -> Result<Snapshot, PathError> {
    let dir = root.containers().join(container);
    let (upper, work) = (dir.join("upper"), dir.join("work"));
    fs::create_dir_all(&dir)?;
    let mut lower = image.layers.clone();
    if lower.is_empty() {
        let empty = dir.join("empty");
        fs::create_dir_all(&empty)?;
        lower.push(empty);
    }
    if !upper.is_dir() {
        fs::create_dir_all(&work)?;
        // Made beside and renamed, so that an upper never exists with other attributes.
        let fresh = dir.join("upper.new");
        fs::create_dir_all(&fresh)?;
        rustix::fs::chown(&fresh, Some(Uid::from_raw(image.root.uid)), Some(Gid::from_raw(image.root.gid)))
            .map_err(PathError::at("set the owner of", &fresh))?;
        rustix::fs::chmod(&fresh, Mode::from_raw_mode(image.root.mode))
            .map_err(PathError::at("set the mode of", &fresh))?;
        std::fs::rename(&fresh, &upper).map_err(PathError::at("rename", &fresh))?;
    }
    fs::create_dir_all(&work)?;
    Ok(Snapshot { lower, upper, work })
}

/// Makes a container's directory vanish at once by renaming it to the trash, and gives its new
/// path; deleting the trash's content is [`empty_trash`]. `None` when there is no such directory.
///
/// # Errors
/// [`PathError`] if it cannot be renamed.
pub fn remove(root: &Root, container: &str) -> Result<Option<PathBuf>, PathError> {
    let dir = root.containers().join(container);
    let trash = root.images().join("trash");
    fs::create_dir_all(&trash)?;
    let target = trash.join(crate::util::ids::random_hex(8));
    match std::fs::rename(&dir, &target) {
        Ok(()) => Ok(Some(target)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(PathError::at("move to the trash", &dir)(error)),
    }
}

/// Deletes what [`remove`] and image removal have put aside. May take long; needs no lock,
/// several may run at once.
///
/// # Errors
/// [`PathError`] with what cannot be deleted; the rest is deleted first.
pub fn empty_trash(root: &Root) -> Result<(), PathError> {
    let trash = root.images().join("trash");
    let mut failed = None;
    for name in list(&trash)? {
        if let Err(error) = crate::util::files::remove_dir_all(&trash.join(name)) {
            failed = Some(error);
        }
    }
    failed.map_or(Ok(()), Err)
}

fn list(dir: &Path) -> Result<Vec<String>, PathError> {
    if dir.exists() { crate::util::files::names(dir) } else { Ok(Vec::new()) }
}
