//! `push`: from the store to a registry.
//!
//! A layer goes up under the digest it came with wherever that is possible: when
//! the registry has that blob (in this repository, or in another one that we know of),
//! or when it came as a plain tar. Otherwise it is compressed anew; its diff
//! ID stays the same in any case. When every layer has kept its digest, the manifest that the
//! image came by is sent byte for byte.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};

use super::compress::{self, StoredLayer};
use super::config::{Descriptor, Manifest, media};
use super::ingest::{Progress, Staging};
use super::reference::{Digest, Reference};
use super::registry::{Access, Client, Mounted, Registries, RegistryError, UploadError};
use super::store::{FORMAT, ImageRecord, LayerMeta, LayerUse, Store};
use super::{Event, ImageError, NameError, Result};
use crate::util::fs::{self};

/// Layers under way at once.
const PARALLEL: usize = 3;
/// Repositories of the same registry that blobs are taken over from.
const MOUNT_FROM: usize = 5;

/// What a push came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Digest of the manifest that the tag points to now.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
}

/// `layers/<key>/gzip`: what the layer was last compressed to.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Compressed {
    version: u32,
    digest: Digest,
    size: u64,
}

impl Store {
    /// Sends the image of a tag to its registry, under that tag.
    ///
    /// # Errors
    /// [`ImageError::NotFound`]; [`ImageError::Name`] for a name without a tag;
    /// [`ImageError::Registry`] for everything the registry does; [`ImageError::Upload`] if a
    /// layer cannot be read.
    pub fn push(
        &self,
        reference: &str,
        platform: Option<&str>,
        registries: &Registries,
        progress: Progress<'_>,
    ) -> Result<Pushed> {
        let reference: Reference = reference.parse()?;
        let Some(tag) = reference.tag().filter(|_| reference.digest().is_none()) else {
            return Err(NameError::Reference(format!("{reference} (only a tag can be pushed)")).into());
        };
        let missing = || ImageError::NotFound(reference.familiar());
        let staging = Staging::new(self)?;
        let (record, config) = {
            let _hold = self.hold()?;
            let image = self.resolve(&reference.to_string(), platform)?.ok_or_else(missing)?;
            let record = self.record(&image.id)?.ok_or_else(missing)?;
            staging.lease(&record.layers.iter().map(|layer| layer.key.clone()).collect::<Vec<_>>())?;
            let config = fs::read(&self.blob_path(&record.id))?;
            (record, config)
        };
        let original = self.original(&record);
        progress(Event::Status(format!(
            "The push refers to repository [{}/{}]",
            reference.registry(),
            reference.repository()
        )));
        let from = self.neighbours(&reference, &record)?;
        let client = Client::new(&reference, &Access::Push { from: from.clone() }, registries)?;
        let job = Job { store: self, client: &client, from: &from, progress };
        let layers =
            job.layers(&record.layers, original.as_ref().map(|(_, manifest)| &manifest.layers[..]))?;
        if !client.has(&record.id)? {
            client.put_document(&config, &record.id)?;
        }
        let (bytes, media_type) = manifest_of(&record, &config, layers, original)?;
        let (digest, bytes) = match client.put_manifest(tag, media_type, &bytes) {
            Ok(digest) => (digest, bytes),
            // Registries from before OCI: the same in Docker's words.
            Err(RegistryError::Status { status: 400 | 404 | 415, .. })
                if media_type == media::OCI_MANIFEST =>
            {
                let bytes = in_docker_words(&bytes)?;
                (client.put_manifest(tag, media::DOCKER_MANIFEST, &bytes)?, bytes)
            }
            Err(error) => return Err(error.into()),
        };
        self.remember(&reference, &record, &bytes, &digest)?;
        let size = bytes.len() as u64;
        progress(Event::Status(format!("{tag}: digest: {digest} size: {size}")));
        Ok(Pushed { digest, size })
    }

    /// The manifest that the image came by, if it is kept and about the same layers.
    fn original(&self, record: &ImageRecord) -> Option<(Vec<u8>, Manifest)> {
        let bytes = fs::read(&self.blob_path(record.manifest.as_ref()?)).ok()?;
        let manifest: Manifest = serde_json::from_slice(&bytes).ok()?;
        let same = manifest.config.as_ref().is_some_and(|config| config.digest == record.id)
            && manifest.layers.len() == record.layers.len();
        same.then_some((bytes, manifest))
    }

    /// Other repositories of the same registry whose images share a layer with this one.
    fn neighbours(&self, reference: &Reference, record: &ImageRecord) -> Result<Vec<String>> {
        let mut found: Vec<String> = Vec::new();
        for known in self.refs()? {
            let Ok(other) = known.name.parse::<Reference>() else { continue };
            if other.registry() != reference.registry()
                || other.repository() == reference.repository()
                // Only what has a digest has been there.
                || other.digest().is_none()
                || found.iter().any(|name| name == other.repository())
            {
                continue;
            }
            let shares = known.images.iter().any(|id| {
                let other = self.record(id).ok().flatten();
                other.is_some_and(|other| other.layers.iter().any(|layer| record.layers.contains(layer)))
            });
            if shares {
                found.push(other.repository().to_owned());
            }
            if found.len() == MOUNT_FROM {
                break;
            }
        }
        Ok(found)
    }

    /// Records under which digest the registry has the image.
    fn remember(
        &self,
        reference: &Reference,
        record: &ImageRecord,
        bytes: &[u8],
        digest: &Digest,
    ) -> Result<()> {
        let _hold = self.hold()?;
        // Removed meanwhile: then there is nothing to remember it for.
        let Some(now) = self.record(&record.id)? else { return Ok(()) };
        if now.manifest.is_none() {
            let manifest = Some(self.put_blob(bytes)?);
            self.put_record(&ImageRecord { manifest, ..now })?;
        }
        self.point(&reference.with_digest(digest), &record.id)
    }
}

/// One push under way.
struct Job<'a> {
    store: &'a Store,
    client: &'a Client,
    /// Repositories to take blobs over from.
    from: &'a [String],
    progress: Progress<'a>,
}

impl Job<'_> {
    /// Sends the layers, several at a time; gives what the manifest is to say of each.
    fn layers(&self, uses: &[LayerUse], originals: Option<&[Descriptor]>) -> Result<Vec<Descriptor>> {
        let mut todo: Vec<usize> = Vec::new();
        for (index, layer) in uses.iter().enumerate() {
            if !todo.iter().any(|other| uses[*other].diff_id == layer.diff_id) {
                self.show(layer, "Preparing", 0, None);
                todo.push(index);
            }
        }
        let next = AtomicUsize::new(0);
        let done: Mutex<BTreeMap<&Digest, Descriptor>> = Mutex::default();
        let failed: Mutex<Option<ImageError>> = Mutex::default();
        std::thread::scope(|scope| {
            for _ in 0..PARALLEL.min(todo.len()) {
                scope.spawn(|| {
                    while let Some(index) = todo.get(next.fetch_add(1, Ordering::Relaxed)).copied() {
                        if failed.lock().is_ok_and(|failed| failed.is_some()) {
                            return;
                        }
                        let original = originals.and_then(|all| all.get(index));
                        match self.layer(&uses[index], original) {
                            Ok(descriptor) => {
                                let mut done = done.lock().expect("no holder panics");
                                done.insert(&uses[index].diff_id, descriptor);
                            }
                            Err(error) => {
                                failed.lock().expect("no holder panics").get_or_insert(error);
                            }
                        }
                    }
                });
            }
        });
        if let Some(error) = failed.into_inner().expect("no holder panics") {
            return Err(error);
        }
        let done = done.into_inner().expect("no holder panics");
        Ok(uses.iter().filter_map(|layer| done.get(&layer.diff_id).cloned()).collect())
    }

    /// Makes one layer present in the repository.
    fn layer(&self, layer: &LayerUse, original: Option<&Descriptor>) -> Result<Descriptor> {
        if let Some(original) = original.filter(|original| !original.urls.is_empty()) {
            // It is fetched from elsewhere by whoever needs it.
            self.show(layer, "Skipped foreign layer", 0, None);
            return Ok(original.clone());
        }
        let meta = self.store.meta(&layer.key)?;
        let known = candidates(&meta, original);
        let mine = self.store.layer_dir(&layer.key).join("gzip");
        let again: Option<Compressed> = fs::read_json(&mine)?;
        let again = again.map(|kept| descriptor(media::OCI_LAYER_GZIP, kept.digest, kept.size));
        for candidate in known.iter().chain(&again) {
            if self.client.has(&candidate.digest)? {
                self.show(layer, "Layer already exists", candidate.size, Some(candidate.size));
                return Ok(candidate.clone());
            }
        }
        let mut session = None;
        for (candidate, from) in known.iter().flat_map(|one| self.from.iter().map(move |from| (one, from))) {
            match self.client.mount(&candidate.digest, from)? {
                Mounted::Yes => {
                    self.show(layer, "Mounted", candidate.size, Some(candidate.size));
                    return Ok(candidate.clone());
                }
                Mounted::No(begun) => session = begun.or(session),
            }
        }
        // What came as a plain tar goes as it came.
        let plain = known.iter().find(|candidate| candidate.digest == layer.diff_id);
        let source = StoredLayer {
            dir: self.store.layer_dir(&layer.key),
            shadows: meta.shadows.clone(),
            diff_id: layer.diff_id.clone(),
        };
        let content = || Ok(compress::read(source.clone(), plain.is_none()));
        let total = plain.map_or(meta.tar_size, |plain| plain.size);
        let shown = std::sync::atomic::AtomicU64::new(0);
        let tick = |count: u64| {
            if count.saturating_sub(shown.load(Ordering::Relaxed)) >= 512 << 10 {
                shown.store(count, Ordering::Relaxed);
                self.show(layer, "Pushing", count, Some(total));
            }
        };
        let wanted = plain.map(|plain| &plain.digest);
        let sent = self.client.put_blob(&content, wanted, session, &tick);
        let (digest, size) = sent.map_err(|error| match error {
            UploadError::Content(source) => ImageError::Upload { layer: layer.diff_id.clone(), source },
            UploadError::Registry(error) => error.into(),
        })?;
        self.show(layer, "Pushed", size, Some(size));
        if let Some(plain) = plain {
            return Ok(plain.clone());
        }
        // A hint for the next push; that it is lost with the layer is as it should be.
        let kept = Compressed { version: FORMAT, digest: digest.clone(), size };
        if let Err(error) = fs::write_json(&mine, &kept, false) {
            tracing::debug!(%error, "what the layer was compressed to is not remembered");
        }
        Ok(descriptor(media::OCI_LAYER_GZIP, digest, size))
    }

    fn show(&self, layer: &LayerUse, text: &'static str, current: u64, total: Option<u64>) {
        (self.progress)(Event::Layer { id: layer.diff_id.short().to_owned(), text, current, total });
    }
}

/// The blobs that the layer is known to have come as, the image's own first.
fn candidates(meta: &LayerMeta, original: Option<&Descriptor>) -> Vec<Descriptor> {
    let mut found: Vec<Descriptor> = original.cloned().into_iter().collect();
    if let Some((digest, size)) = &meta.blob
        && *digest != meta.diff_id
        && !found.iter().any(|other| other.digest == *digest)
    {
        let media_type =
            if meta.compression == "zstd" { media::OCI_LAYER_ZSTD } else { media::OCI_LAYER_GZIP };
        found.push(descriptor(media_type, digest.clone(), *size));
    }
    found
}

fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
        urls: Vec::new(),
        annotations: BTreeMap::new(),
        platform: None,
    }
}

/// The manifest to send and its media type: the original one if nothing has changed.
fn manifest_of(
    record: &ImageRecord,
    config: &[u8],
    layers: Vec<Descriptor>,
    original: Option<(Vec<u8>, Manifest)>,
) -> Result<(Vec<u8>, &'static str)> {
    let docker = original.as_ref().is_some_and(|(_, manifest)| manifest.media_type == media::DOCKER_MANIFEST);
    if let Some((bytes, manifest)) = original
        && manifest.layers.iter().map(|layer| &layer.digest).eq(layers.iter().map(|layer| &layer.digest))
    {
        return Ok((bytes, if docker { media::DOCKER_MANIFEST } else { media::OCI_MANIFEST }));
    }
    let manifest = Manifest {
        schema_version: 2,
        media_type: media::OCI_MANIFEST.to_owned(),
        config: Some(descriptor(media::OCI_CONFIG, record.id.clone(), config.len() as u64)),
        layers: layers
            .into_iter()
            .map(|layer| Descriptor { media_type: in_oci_words(&layer.media_type), ..layer })
            .collect(),
        manifests: Vec::new(),
        annotations: BTreeMap::new(),
    };
    let bytes = encode(&manifest)?;
    // Docker has no word for zstd.
    let zstd = manifest.layers.iter().any(|layer| layer.media_type == media::OCI_LAYER_ZSTD);
    if docker && !zstd {
        return Ok((in_docker_words(&bytes)?, media::DOCKER_MANIFEST));
    }
    Ok((bytes, media::OCI_MANIFEST))
}

fn in_oci_words(media_type: &str) -> String {
    match media_type {
        media::DOCKER_LAYER_GZIP => media::OCI_LAYER_GZIP,
        media::DOCKER_LAYER => media::OCI_LAYER,
        other => other,
    }
    .to_owned()
}

fn in_docker_words(manifest: &[u8]) -> Result<Vec<u8>> {
    let mut manifest: Manifest = serde_json::from_slice(manifest).map_err(document)?;
    media::DOCKER_MANIFEST.clone_into(&mut manifest.media_type);
    manifest.annotations.clear();
    for part in manifest.config.iter_mut().chain(&mut manifest.layers) {
        part.annotations.clear();
        let word = match part.media_type.as_str() {
            media::OCI_CONFIG => media::DOCKER_CONFIG,
            media::OCI_LAYER_GZIP => media::DOCKER_LAYER_GZIP,
            media::OCI_LAYER => media::DOCKER_LAYER,
            _ => continue,
        };
        word.clone_into(&mut part.media_type);
    }
    encode(&manifest)
}

fn encode(manifest: &Manifest) -> Result<Vec<u8>> {
    serde_json::to_vec(manifest).map_err(document)
}

fn document(source: serde_json::Error) -> ImageError {
    ImageError::Document { what: "manifest", digest: "to push".to_owned(), source }
}
