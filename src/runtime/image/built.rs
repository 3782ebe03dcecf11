//! What the builder needs of the store: layers that are made here, records of steps, finished images.
//!
//! `steps/<key>` is one JSON file per cached step: which layer it gave. The
//! layers of all records are kept until [`Store::prune_steps`] removes the records.

use std::path::PathBuf;
use std::time::SystemTime;

use jiff::Timestamp;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW};
use serde::{Deserialize, Serialize};

use super::config::ImageConfig;
use super::ingest::{Staging, chain_ids};
use super::reference::{Digest, Reference};
use super::store::{FORMAT, ImageRecord, LayerUse, RootAttributes, Store};
use super::{ImageError, Result};
use crate::util::files;
use crate::util::fs::{self, PathError};

/// The digest that stands for a stack of layers (lowest first); none for no layers.
pub(crate) fn chain_id(diff_ids: &[Digest]) -> Option<Digest> {
    chain_ids(diff_ids).pop()
}

/// `steps/<key>`: what a step gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StepRecord {
    pub(crate) version: u32,
    /// Its layer.
    pub(crate) layer: LayerUse,
    /// When it was made; goes into the history of images.
    pub(crate) created: Timestamp,
    /// The instruction, for people.
    pub(crate) name: String,
}

/// A cached step as `builder prune` and `system df` see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Key of its record.
    pub key: String,
    /// The instruction.
    pub name: String,
    /// Bytes of its layer's files. Images may have the layer, too.
    pub size: u64,
    /// Whether an image has its layer: then removing the record frees nothing.
    pub shared: bool,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last made use of.
    pub used: Timestamp,
}

impl Store {
    /// The tree of a layer.
    pub(crate) fn layer_tree(&self, layer: &LayerUse) -> PathBuf {
        self.layer_dir(&layer.key).join("fs")
    }

    /// Bytes of a layer's files.
    pub(crate) fn layer_size(&self, layer: &LayerUse) -> Result<u64> {
        Ok(self.meta(&layer.key)?.size)
    }

    /// An image's layers, lowest first.
    pub(crate) fn layers_of(&self, id: &Digest) -> Result<Vec<LayerUse>> {
        Ok(self.record(id)?.ok_or_else(|| ImageError::NotFound(id.to_string()))?.layers)
    }

    /// The record of a step; none when it or its layer is not there. Call with a hold.
    pub(crate) fn step(&self, key: &str) -> Result<Option<StepRecord>> {
        let path = self.steps_dir().join(key);
        let Some(record) = fs::read_json::<StepRecord>(&path)? else { return Ok(None) };
        if record.version != FORMAT || !self.layer_tree(&record.layer).is_dir() {
            return Ok(None);
        }
        // So that what is used goes last.
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        let _only_a_hint = rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty());
        Ok(Some(record))
    }

    /// Remembers what a step gave. Call with a hold.
    pub(crate) fn put_step(&self, key: &str, record: &StepRecord) -> Result<()> {
        fs::create_dir_all(&self.steps_dir())?;
        Ok(fs::write_json(&self.steps_dir().join(key), record, false)?)
    }

    pub(super) fn steps_dir(&self) -> PathBuf {
        self.dir().join("steps")
    }

    /// All cached steps, the one used longest ago first.
    ///
    /// # Errors
    /// [`ImageError::Store`].
    pub fn steps(&self) -> Result<Vec<Step>> {
        let mut imaged = std::collections::HashSet::new();
        for hex in files::names(&self.dir().join("records"))? {
            let record: Option<ImageRecord> = fs::read_json(&self.dir().join("records").join(hex))?;
            imaged.extend(record.into_iter().flat_map(|r| r.layers).map(|layer| layer.key));
        }
        let mut steps = Vec::new();
        for key in files::names(&self.steps_dir())? {
            let path = self.steps_dir().join(&key);
            let Some(record) = fs::read_json::<StepRecord>(&path)? else { continue };
            let used = std::fs::metadata(&path).and_then(|meta| meta.modified());
            steps.push(Step {
                size: self.layer_size(&record.layer).unwrap_or(0),
                shared: imaged.contains(&record.layer.key),
                created: record.created,
                used: used.ok().and_then(timestamp).unwrap_or(record.created),
                name: record.name,
                key,
            });
        }
        steps.sort_by_key(|step| step.used);
        Ok(steps)
    }

    /// Forgets the steps that are unwanted, and removes the layers that nothing else has. Gives the bytes.
    ///
    /// # Errors
    /// [`ImageError::Store`].
    pub fn prune_steps(&self, unwanted: &dyn Fn(&Step) -> bool) -> Result<u64> {
        let _hold = self.hold_alone()?;
        for step in self.steps()? {
            if unwanted(&step) {
                files::remove_file(&self.steps_dir().join(&step.key))?;
            }
        }
        self.sweep()
    }

    /// Writes an image of layers that are here (lowest first) and gives its id.
    ///
    /// # Errors
    /// [`ImageError::Store`]; [`ImageError::LayerCount`] if the config has other layers.
    pub(crate) fn put_image(
        &self,
        config: &ImageConfig,
        layers: &[LayerUse],
        root: RootAttributes,
        tags: &[Reference],
    ) -> Result<Digest> {
        let bytes = serde_json::to_vec(config).map_err(|source| ImageError::Document {
            what: "config",
            digest: "of the build".to_owned(),
            source,
        })?;
        let id = Digest::of(&bytes);
        if config.rootfs.diff_ids.len() != layers.len() {
            return Err(ImageError::LayerCount {
                id,
                config: config.rootfs.diff_ids.len(),
                manifest: layers.len(),
            });
        }
        let mut size = 0;
        for layer in layers {
            size += self.layer_size(layer)?;
        }
        let _hold = self.hold()?;
        self.put_blob(&bytes)?;
        let old = self.record(&id)?;
        self.put_record(&ImageRecord {
            version: FORMAT,
            id: id.clone(),
            layers: layers.to_vec(),
            root,
            size,
            manifest: old.as_ref().and_then(|old| old.manifest.clone()),
            index: old.as_ref().and_then(|old| old.index.clone()),
            added: old.map_or_else(Timestamp::now, |old| old.added),
        })?;
        for tag in tags {
            self.point(tag, &id)?;
        }
        Ok(id)
    }

    /// A directory for something half-made in the store.
    pub(crate) fn staging(&self) -> Result<Staging> {
        Staging::new(self)
    }
}

impl Staging {
    /// A new directory inside.
    pub(crate) fn subdirectory(&self, name: &str) -> std::result::Result<PathBuf, PathError> {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir)?;
        Ok(dir)
    }
}

fn timestamp(time: SystemTime) -> Option<Timestamp> {
    Timestamp::try_from(time).ok()
}
