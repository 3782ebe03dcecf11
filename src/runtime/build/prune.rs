//! Forgetting what builds have left to be used again.

use std::time::Duration;

use jiff::Timestamp;

use super::error::Result;
use super::mounts::caches_dir;
use super::process::NETWORK;
use crate::runtime::image::{Step, Store};
use crate::runtime::network::Networks;
use crate::runtime::root::Root;
use crate::util::files;
use crate::util::fs::Lock;

/// What stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keep {
    /// Forget also steps whose layers an image has, and cache directories.
    pub all: bool,
    /// Only what was not used for so long goes; none means everything.
    pub unused_for: Option<Duration>,
    /// So many bytes of what was used last stay; none means none.
    pub bytes: Option<u64>,
}

/// What was forgotten.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// The steps and caches, in words.
    pub removed: Vec<String>,
    /// Bytes of files that are gone.
    pub bytes: u64,
}

/// Forgets cached steps and cache directories that `keep` does not keep. What a build is using stays.
///
/// # Errors
/// A file of the cache cannot be read or removed.
pub fn prune(root: &Root, keep: &Keep) -> Result<Forgotten> {
    let store = Store::open(root)?;
    let mut forgotten = Forgotten::default();
    let now = Timestamp::now();
    let is_old = |used: Timestamp| {
        keep.unused_for
            .is_none_or(|age| Duration::try_from(now.duration_since(used)).is_ok_and(|passed| passed >= age))
    };
    // From the one used last on, until the room is full.
    let mut room = keep.bytes.unwrap_or(0);
    let mut unwanted = std::collections::HashSet::new();
    for step in store.steps()?.iter().rev() {
        if keep.bytes.is_some() && step.size <= room {
            room -= step.size;
        } else if (keep.all || !step.shared) && is_old(step.used) {
            unwanted.insert(step.key.clone());
            forgotten.removed.push(step.name.clone());
        }
    }
    forgotten.bytes += store.prune_steps(&|step: &Step| unwanted.contains(&step.key))?;
    crate::runtime::snapshot::empty_trash(root)?;
    if keep.all && keep.bytes.is_none() {
        for name in files::names(&caches_dir(root))? {
            let dir = caches_dir(root).join(&name);
            let used = std::fs::metadata(dir.join("lock")).and_then(|meta| meta.modified()).ok();
            let old = used.and_then(|time| Timestamp::try_from(time).ok()).is_none_or(is_old);
            // Who runs with it holds the lock.
            let Some(_lock) = Lock::try_exclusive(&dir.join("lock"))?.filter(|_| old) else { continue };
            let id = files::read_opt(&dir.join("id"))?.unwrap_or_default();
            forgotten.removed.push(format!("cache {}", String::from_utf8_lossy(&id)));
            forgotten.bytes += size_of(&dir);
            files::remove_dir_all(&dir)?;
        }
    }
    // Builds that were killed could not; one that runs keeps it.
    drop(Networks::new(root).remove(NETWORK));
    Ok(forgotten)
}

/// Bytes of the files below a directory of ours.
fn size_of(dir: &std::path::Path) -> u64 {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes += size_of(&entry.path()),
            Ok(meta) => bytes += meta.len(),
            Err(_) => {}
        }
    }
    bytes
}
