//! Making an image out of a config and the sources of its layers.
//!
//! Loading and pulling differ in where bytes come from; from there on it is
//! this: unpack the missing layers in parallel into staging, verify, rename
//! into place, then write blobs, record and references.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;
use ring::digest::{Context, SHA256};

use super::config::ImageConfig;
use super::reference::Digest;
use super::store::{FORMAT, ImageRecord, LayerMeta, LayerUse, Store};
use super::unpack::{Unpacked, unpack};
use super::{ImageError, Result, apply};
use crate::util::files;
use crate::util::fs::{self, Lock, PathError};

/// What happens while an image comes or goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Something about the whole image.
    Status(String),
    /// Something about one layer.
    Layer {
        /// First 12 digits of its digest.
        id: String,
        /// `Downloading`, `Extracting`, `Pull complete`, `Already exists`, ….
        text: &'static str,
        /// Bytes so far.
        current: u64,
        /// Bytes in all, when known.
        total: Option<u64>,
    },
}

/// Called with each [`Event`], from several threads; must not block.
pub type Progress<'a> = &'a (dyn Fn(Event) + Send + Sync);

/// Where one layer's bytes come from.
pub(crate) struct LayerSource<'a> {
    /// Digest of the blob, if known before.
    pub(crate) blob: Option<Digest>,
    /// Bytes of the blob, if known before.
    pub(crate) size: Option<u64>,
    /// Gives the bytes from the beginning.
    pub(crate) open: Box<dyn Fn() -> Result<Box<dyn Read + Send + 'a>> + Send + Sync + 'a>,
}

/// A directory for something half-made. Dropping it removes what is left.
pub(crate) struct Staging {
    pub(crate) dir: PathBuf,
    _lock: Lock,
}

impl Staging {
    pub(crate) fn new(store: &Store) -> Result<Self> {
        // Alone, so that nobody takes a directory whose lock is about to be taken for a dead one.
        let _hold = store.hold_alone()?;
        store.sweep_staging()?;
        let dir = store.dir().join("staging").join(crate::util::ids::random_hex(8));
        fs::create_dir_all(&dir)?;
        let lock = Lock::exclusive(&dir.join("lock"))?;
        Ok(Self { dir, _lock: lock })
    }

    /// Protects these layers, there or to come, from being collected for as long as we live.
    /// Call with a hold.
    pub(crate) fn lease(&self, keys: &[String]) -> Result<()> {
        Ok(fs::write_json(&self.dir.join("lease"), &keys, false)?)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What cannot be removed now is swept by a later command.
        let _swept_later = std::fs::remove_dir_all(&self.dir);
        // And what others have left: renamed to the trash when it was swept.
        let trash = self.dir.parent().and_then(std::path::Path::parent).map(|images| images.join("trash"));
        for entry in trash.and_then(|trash| std::fs::read_dir(trash).ok()).into_iter().flatten().flatten() {
            let _swept_later = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Being the one who fetches a layer. The file goes with the turn.
struct Turn(Lock);

impl Drop for Turn {
    fn drop(&mut self) {
        // Who waits for the lock notices that its file is gone and makes a new one.
        let _swept_later = std::fs::remove_file(self.0.path());
    }
}

/// A layer that had to be unpacked.
struct Fresh {
    unpacked: Unpacked,
    dir: PathBuf,
    /// Already renamed into place.
    placed: bool,
}

impl Store {
    /// Makes the layers of `config_bytes` present and writes config and record. Gives the image's id.
    ///
    /// `blobs` are documents to keep (manifest, index); the first is the manifest.
    pub(crate) fn ingest(
        &self,
        staging: &Staging,
        config_bytes: &[u8],
        sources: &[LayerSource<'_>],
        documents: &[&[u8]],
        progress: Progress<'_>,
    ) -> Result<Digest> {
        let id = Digest::of(config_bytes);
        let config: ImageConfig = serde_json::from_slice(config_bytes)
            .map_err(|source| ImageError::Document { what: "config", digest: id.to_string(), source })?;
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != sources.len() {
            return Err(ImageError::LayerCount { id, config: diff_ids.len(), manifest: sources.len() });
        }
        let chain = chain_ids(diff_ids);
        let mut keys: Vec<Option<String>> = Vec::new();
        {
            let _hold = self.hold()?;
            for (diff_id, chain_id) in diff_ids.iter().zip(&chain) {
                keys.push(self.present(diff_id, chain_id));
            }
            let all = diff_ids.iter().chain(&chain);
            staging.lease(&all.map(|key| key.hex().to_owned()).collect::<Vec<_>>())?;
        }
        let mut fresh = self.unpack_missing(staging, diff_ids, &keys, sources, progress)?;

        // Layers that imply directories need the ones below them.
        let mut uses: Vec<LayerUse> = Vec::new();
        let (mut size, mut root) = (0, None);
        for (index, diff_id) in diff_ids.iter().enumerate() {
            if keys[index].is_none() {
                keys[index] = self.present(diff_id, &chain[index]);
            }
            let key = if let Some(key) = keys[index].take() {
                key
            } else {
                // The same layer may come again higher up: then it is unpacked once more.
                let layer = if let Some(layer) = fresh.remove(diff_id) {
                    layer
                } else {
                    let dir = staging.dir.join(format!("again-{index}"));
                    let missing = || ImageError::LayerMissing { image: id.clone(), layer: diff_id.clone() };
                    self.unpack_one(&dir, diff_id, &sources[index], progress, &|| false)?
                        .ok_or_else(missing)?
                };
                if layer.placed {
                    diff_id.hex().to_owned()
                } else {
                    let lowers: Vec<PathBuf> =
                        uses.iter().rev().map(|lower| self.layer_dir(&lower.key).join("fs")).collect();
                    apply::adopt(&layer.dir, &layer.unpacked.applied.implied, &lowers)
                        .map_err(|source| layer_error(diff_id, source.into()))?;
                    self.place(&layer.dir, chain[index].hex())?;
                    chain[index].hex().to_owned()
                }
            };
            let meta = self.meta(&key)?;
            size += meta.size;
            root = meta.root.or(root);
            uses.push(LayerUse { diff_id: diff_id.clone(), key });
        }

        let _hold = self.hold()?;
        let kept: Vec<Digest> = documents.iter().map(|bytes| self.put_blob(bytes)).collect::<Result<_>>()?;
        self.put_blob(config_bytes)?;
        let old = self.record(&id)?;
        self.put_record(&ImageRecord {
            version: FORMAT,
            id: id.clone(),
            layers: uses,
            root: root.unwrap_or_default(),
            size,
            manifest: kept.first().cloned().or_else(|| old.as_ref().and_then(|old| old.manifest.clone())),
            index: kept.get(1).cloned().or_else(|| old.as_ref().and_then(|old| old.index.clone())),
            added: old.map_or_else(Timestamp::now, |old| old.added),
        })?;
        Ok(id)
    }

    /// Unpacks each missing layer once, several at a time.
    fn unpack_missing(
        &self,
        staging: &Staging,
        diff_ids: &[Digest],
        keys: &[Option<String>],
        sources: &[LayerSource<'_>],
        progress: Progress<'_>,
    ) -> Result<HashMap<Digest, Fresh>> {
        let mut jobs: Vec<usize> = Vec::new();
        for index in 0..diff_ids.len() {
            if keys[index].is_some() {
                report(progress, &sources[index], &diff_ids[index], "Already exists", 0);
            } else if !jobs.iter().any(|other| diff_ids[*other] == diff_ids[index]) {
                report(progress, &sources[index], &diff_ids[index], "Waiting", 0);
                jobs.push(index);
            }
        }
        let workers = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 4).min(jobs.len());
        let next = AtomicUsize::new(0);
        let done: Mutex<HashMap<Digest, Fresh>> = Mutex::default();
        let failed: Mutex<Option<ImageError>> = Mutex::default();
        let stop = || failed.lock().is_ok_and(|failed| failed.is_some());
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    while let Some(index) = jobs.get(next.fetch_add(1, Ordering::Relaxed)).copied() {
                        if stop() {
                            return;
                        }
                        let dir = staging.dir.join(index.to_string());
                        match self.unpack_one(&dir, &diff_ids[index], &sources[index], progress, &stop) {
                            Ok(Some(layer)) => {
                                done.lock().expect("no holder panics").insert(diff_ids[index].clone(), layer);
                            }
                            Ok(None) => {}
                            Err(error) => {
                                failed.lock().expect("no holder panics").get_or_insert(error);
                            }
                        }
                    }
                });
            }
        });
        match failed.into_inner().expect("no holder panics") {
            Some(error) => Err(error),
            None => Ok(done.into_inner().expect("no holder panics")),
        }
    }

    /// `None` when somebody else has made it meanwhile.
    fn unpack_one(
        &self,
        dir: &Path,
        diff_id: &Digest,
        source: &LayerSource<'_>,
        progress: Progress<'_>,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<Fresh>> {
        // Only one process fetches a layer; the others wait and find it.
        let _turn =
            Turn(Lock::exclusive(&self.dir().join("staging").join(format!("{}.lock", diff_id.hex())))?);
        if self.present(diff_id, diff_id).is_some_and(|key| self.meta(&key).is_ok_and(|meta| !meta.implied)) {
            report(progress, source, diff_id, "Already exists", 0);
            return Ok(None);
        }
        fs::create_dir_all(dir)?;
        let input = Stoppable { inner: (source.open)()?, stop };
        let mut shown = 0;
        let unpacked = unpack(input, dir, self.limits(), &mut |count| {
            if count - shown >= 512 << 10 {
                shown = count;
                report(progress, source, diff_id, "Downloading", count);
            }
        })
        .map_err(|error| layer_error(source.blob.as_ref().unwrap_or(diff_id), error))?;
        if let Some(wanted) = &source.blob
            && unpacked.blob != *wanted
        {
            return Err(ImageError::Digest {
                what: "layer",
                wanted: wanted.clone(),
                found: unpacked.blob.clone(),
            });
        }
        if unpacked.diff_id != *diff_id {
            return Err(ImageError::Digest {
                what: "unpacked layer",
                wanted: diff_id.clone(),
                found: unpacked.diff_id,
            });
        }
        let placed = self.adopt_layer(dir, &unpacked)?;
        report(progress, source, diff_id, "Pull complete", unpacked.blob_size);
        Ok(Some(Fresh { unpacked, dir: dir.to_owned(), placed }))
    }

    /// Writes the meta file of an unpacked layer and makes it visible, `true`, unless it
    /// needs the layers below first.
    pub(crate) fn adopt_layer(&self, dir: &Path, unpacked: &Unpacked) -> Result<bool> {
        let meta = LayerMeta {
            version: FORMAT,
            diff_id: unpacked.diff_id.clone(),
            size: unpacked.applied.size,
            tar_size: unpacked.tar_size,
            root: unpacked.applied.root,
            journal: true,
            shadows: unpacked.applied.shadows.clone(),
            blob: Some((unpacked.blob.clone(), unpacked.blob_size)),
            compression: unpacked.form.name().to_owned(),
            implied: !unpacked.applied.implied.is_empty(),
            boot: files::boot_id()?,
            durable: false,
        };
        fs::write_json(&dir.join("meta"), &meta, false)?;
        let free = unpacked.applied.implied.is_empty();
        if free {
            self.place(dir, unpacked.diff_id.hex())?;
        }
        Ok(free)
    }

    /// The directory of a layer that is there already.
    fn present(&self, diff_id: &Digest, chain_id: &Digest) -> Option<String> {
        if self.layer_dir(chain_id.hex()).is_dir() {
            return Some(chain_id.hex().to_owned());
        }
        // As a lowest layer it may be keyed by its diff ID and still have guessed directories.
        let meta = self.meta(diff_id.hex()).ok()?;
        (!meta.implied).then(|| diff_id.hex().to_owned())
    }

    /// Makes a finished layer visible; one that came first stays.
    pub(crate) fn place(&self, dir: &Path, key: &str) -> Result<()> {
        let target = self.layer_dir(key);
        match rustix::fs::renameat_with(
            rustix::fs::CWD,
            dir,
            rustix::fs::CWD,
            &target,
            rustix::fs::RenameFlags::NOREPLACE,
        ) {
            Ok(()) | Err(rustix::io::Errno::EXIST | rustix::io::Errno::NOTEMPTY) => Ok(()),
            Err(error) => Err(PathError::at("move into place", dir)(error).into()),
        }
    }

    pub(crate) fn meta(&self, key: &str) -> Result<LayerMeta> {
        let path = self.layer_dir(key).join("meta");
        match fs::read_json(&path)? {
            Some(meta) => Ok(meta),
            None => {
                Err(PathError::at("read", &path)(std::io::Error::from(std::io::ErrorKind::NotFound)).into())
            }
        }
    }
}

fn layer_error(layer: &Digest, source: super::UnpackError) -> ImageError {
    ImageError::Unpack { layer: layer.clone(), source: Box::new(source) }
}

/// Chain IDs: the digest of each layer together with all below it.
///
/// # Source
/// OCI image-spec `config.md`, "Layer `ChainID`".
pub(crate) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let id = match chain.last() {
            None => diff_id.clone(),
            Some(below) => {
                let mut context = Context::new(&SHA256);
                context.update(format!("{below} {diff_id}").as_bytes());
                Digest::from_ring(&context.finish())
            }
        };
        chain.push(id);
    }
    chain
}

fn report(
    progress: Progress<'_>,
    source: &LayerSource<'_>,
    diff_id: &Digest,
    text: &'static str,
    current: u64,
) {
    let id = source.blob.as_ref().unwrap_or(diff_id).short().to_owned();
    progress(Event::Layer { id, text, current, total: source.size });
}

/// Ends with an error once another layer has failed.
struct Stoppable<'a, R> {
    inner: R,
    stop: &'a dyn Fn() -> bool,
}

impl<R: Read> Read for Stoppable<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if (self.stop)() {
            return Err(std::io::Error::other("given up because another layer failed"));
        }
        self.inner.read(buffer)
    }
}
