//! Removing images, and collecting what nothing refers to any more.
//!
//! There are no reference counts: what the records, the live staging
//! directories and the containers name is kept, the rest goes. Content goes by
//! a rename to the trash under the exclusive lock; deleting takes its time afterwards.

use std::collections::HashSet;
use std::path::Path;

use super::reference::{Digest, Reference};
use super::store::{Image, ImageRecord, RefRecord, Store};
use super::{ImageError, Result};
use crate::util::files;
use crate::util::fs::{self, Lock, PathError};

/// A container that uses an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its name or id, for messages.
    pub container: String,
    /// Whether it runs.
    pub running: bool,
}

/// Gives the containers that use the image of this id.
pub type Users<'a> = &'a dyn Fn(&Digest) -> Vec<User>;

/// One thing that a removal did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name does not point to it any more. Familiar form.
    Untagged(String),
    /// The image, or a layer (by chain ID), is gone.
    Deleted(Digest),
}

/// What a prune did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// In order.
    pub removed: Vec<Removed>,
    /// Bytes of unpacked files that were freed.
    pub bytes: u64,
}

impl Store {
    /// Removes a name, and with its last name the image; or an image by its id.
    ///
    /// An image that a container uses, running or not, loses with `force` its names only; its
    /// content goes with the first prune after the container.
    ///
    /// # Errors
    /// [`ImageError::NotFound`]; [`ImageError::InUse`] when a container uses it (stopped ones
    /// not with `force`); [`ImageError::SeveralNames`] for an id with names in several repositories
    /// without `force`.
    ///
    /// # Source
    /// Docker's `rmi`: `daemon/images/image_delete.go` describes the cases.
    pub fn remove(&self, name: &str, force: bool, users: Users<'_>) -> Result<Vec<Removed>> {
        let _hold = self.hold_alone()?;
        let missing = || ImageError::NotFound(name.to_owned());
        let image = self.resolve(name, None)?.ok_or_else(missing)?;
        let using = users(&image.id);
        let names: Vec<Reference> = self
            .refs()?
            .iter()
            .filter(|known| known.images.contains(&image.id))
            .filter_map(|known| known.name.parse().ok())
            .collect();
        let tags = names.iter().filter(|name| name.digest().is_none()).count();
        let by_id = image.id.to_string().starts_with(name) || image.id.hex().starts_with(name);
        let mut removed = Vec::new();
        if by_id && !names.iter().any(|known| known.familiar() == name) {
            let repositories: HashSet<String> = names.iter().map(Reference::familiar_name).collect();
            if (tags > 1 || repositories.len() > 1) && !force {
                return Err(ImageError::SeveralNames(image.id));
            }
            check_users(name, &using, force)?;
            self.untag(&names, &image, &mut removed)?;
        } else {
            let reference: Reference = name.parse()?;
            let mut going: Vec<Reference> = vec![match reference.digest() {
                Some(digest) => reference.with_digest(digest),
                None => reference.clone(),
            }];
            let same = |other: &&Reference| other.familiar_name() == reference.familiar_name();
            let others =
                names.iter().filter(same).filter(|other| other.digest().is_none() && !going.contains(other));
            if others.count() == 0 {
                // Digests alone do not keep an image whose last tag in the repository goes.
                let digests = names.iter().filter(same).filter(|other| other.digest().is_some());
                let digests: Vec<Reference> =
                    digests.filter(|other| !going.contains(other)).cloned().collect();
                going.extend(digests);
            }
            if going.len() == names.len() {
                check_users(name, &using, force)?;
            }
            self.untag(&going, &image, &mut removed)?;
            if going.len() < names.len() {
                return Ok(removed);
            }
        }
        if using.is_empty() {
            self.delete(&image.id, &mut removed)?;
        }
        Ok(removed)
    }

    /// Removes images without a name, or with `all` every image that no container uses, if `wanted`
    /// says so, and everything in the store that nothing refers to.
    ///
    /// # Errors
    /// [`ImageError::Store`].
    pub fn prune(&self, all: bool, wanted: &dyn Fn(&Image) -> bool, users: Users<'_>) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        {
            let _hold = self.hold_alone()?;
            for image in self.list()? {
                let named = !image.tags.is_empty() || (!all && !image.digests.is_empty());
                if (named && !all) || !users(&image.id).is_empty() || !wanted(&image) {
                    continue;
                }
                let names: Vec<Reference> = self
                    .refs()?
                    .iter()
                    .filter(|known| known.images.contains(&image.id))
                    .filter_map(|known| known.name.parse().ok())
                    .collect();
                self.untag(&names, &image, &mut pruned.removed)?;
                pruned.bytes += self.delete(&image.id, &mut pruned.removed)?;
            }
            pruned.bytes += self.sweep()?;
        }
        Ok(pruned)
    }

    fn untag(&self, names: &[Reference], image: &Image, removed: &mut Vec<Removed>) -> Result<()> {
        for name in names {
            let path = self.ref_path(&name.to_string());
            if let Some(mut record) = fs::read_json::<RefRecord>(&path)? {
                record.images.retain(|id| *id != image.id);
                if record.images.is_empty() {
                    files::remove_file(&path)?;
                } else {
                    fs::write_json(&path, &record, true)?;
                }
            }
            removed.push(Removed::Untagged(name.familiar()));
        }
        Ok(())
    }

    /// Deletes record and documents of an image and the layers that only it had. Gives the bytes.
    fn delete(&self, id: &Digest, removed: &mut Vec<Removed>) -> Result<u64> {
        let Some(entry) = self.record(id)? else { return Ok(0) };
        let diff_ids: Vec<Digest> = entry.layers.iter().map(|layer| layer.diff_id.clone()).collect();
        files::remove_file(&self.record_path(id))?;
        removed.push(Removed::Deleted(id.clone()));
        let kept = self.kept()?;
        let mut bytes = 0;
        let chain = super::ingest::chain_ids(&diff_ids);
        for (layer, chain_id) in entry.layers.iter().zip(chain).rev() {
            if !kept.layers.contains(&layer.key) && self.layer_dir(&layer.key).is_dir() {
                bytes += self.meta(&layer.key).map_or(0, |meta| meta.size);
                self.discard(&self.layer_dir(&layer.key))?;
                removed.push(Removed::Deleted(chain_id));
            }
        }
        for document in [Some(id), entry.manifest.as_ref(), entry.index.as_ref()].into_iter().flatten() {
            if !kept.blobs.contains(document) {
                files::remove_file(&self.blob_path(document))?;
            }
        }
        Ok(bytes)
    }

    /// Moves everything away that nothing refers to. Call with the exclusive hold.
    pub(super) fn sweep(&self) -> Result<u64> {
        self.sweep_staging()?;
        let kept = self.kept()?;
        let mut bytes = 0;
        for key in files::names(&self.dir().join("layers"))? {
            if !kept.layers.contains(&key) {
                bytes += self.meta(&key).map_or(0, |meta| meta.size);
                self.discard(&self.layer_dir(&key))?;
            }
        }
        for hex in files::names(&self.dir().join("blobs/sha256"))? {
            if let Ok(digest) = format!("sha256:{hex}").parse::<Digest>()
                && !kept.blobs.contains(&digest)
            {
                files::remove_file(&self.blob_path(&digest))?;
            }
        }
        Ok(bytes)
    }

    /// Removes what killed processes have left: what nobody holds the lock of in staging, and
    /// documents that never got their name. Call with the exclusive hold: who writes a document
    /// has the shared one.
    pub(crate) fn sweep_staging(&self) -> Result<()> {
        for part in ["blobs/sha256", "refs", "records"] {
            let dir = self.dir().join(part);
            for entry in std::fs::read_dir(&dir).map_err(PathError::at("list", &dir))? {
                let entry = entry.map_err(PathError::at("list", &dir))?;
                if entry.file_name().as_encoded_bytes().starts_with(b".") {
                    files::remove_file(&entry.path())?;
                }
            }
        }
        let staging = self.dir().join("staging");
        for name in files::names(&staging)? {
            let path = staging.join(&name);
            if path.is_dir() {
                // Its maker takes the lock while it holds the store alone, as we do now: without a
                // lock file it was left by a maker, or is being removed by one, who loses nothing.
                // It may also vanish while we look: then there is nothing to do.
                let lock = path.join("lock");
                if !lock.exists() || Lock::try_exclusive(&lock).is_ok_and(|lock| lock.is_some()) {
                    self.discard(&path)?;
                }
            } else if let Ok(Some(lock)) = Lock::try_exclusive(&path) {
                files::remove_file(lock.path())?;
            }
        }
        Ok(())
    }

    /// What records and processes at work need.
    fn kept(&self) -> Result<Kept> {
        let mut kept = Kept::default();
        for hex in files::names(&self.dir().join("records"))? {
            let path = self.dir().join("records").join(&hex);
            let Some(record) = fs::read_json::<ImageRecord>(&path)? else { continue };
            kept.layers.extend(record.layers.into_iter().map(|layer| layer.key));
            kept.blobs.insert(record.id);
            kept.blobs.extend(record.manifest);
            kept.blobs.extend(record.index);
        }
        for key in files::names(&self.steps_dir())? {
            let step: Option<super::StepRecord> = fs::read_json(&self.steps_dir().join(key))?;
            kept.layers.extend(step.map(|step| step.layer.key));
        }
        let staging = self.dir().join("staging");
        for name in files::names(&staging)? {
            let dir = staging.join(name);
            if let Some(keys) = fs::read_json::<Vec<String>>(&dir.join("lease")).ok().flatten()
                && Lock::try_exclusive(&dir.join("lock")).is_ok_and(|lock| lock.is_none())
            {
                kept.layers.extend(keys);
            }
        }
        Ok(kept)
    }

    /// Makes a directory vanish at once; [`crate::runtime::snapshot::empty_trash`] deletes it.
    fn discard(&self, dir: &Path) -> Result<()> {
        let target = self.dir().join("trash").join(crate::util::ids::random_hex(8));
        match std::fs::rename(dir, &target) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(PathError::at("move to the trash", dir)(error).into()),
        }
    }
}

#[derive(Default)]
struct Kept {
    layers: HashSet<String>,
    blobs: HashSet<Digest>,
}

fn check_users(name: &str, using: &[User], force: bool) -> Result<()> {
    let user = using.iter().find(|user| user.running).or_else(|| using.iter().find(|_| !force));
    match user {
        Some(user) => Err(ImageError::InUse {
            image: name.to_owned(),
            container: user.container.clone(),
            running: user.running,
        }),
        None => Ok(()),
    }
}
