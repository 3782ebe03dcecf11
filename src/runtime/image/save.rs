//! `save`: images as an archive that Docker (any version), podman, skopeo and we ourselves read.
//!
//! An OCI layout with Docker's `manifest.json` beside it, layers as plain tars,
//! regenerated from their journals: a layer keeps its diff ID, the archive
//! of the same images is the same bytes each time.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write};

use ::tar::{EntryType, Header};
use ring::digest::{Context, SHA256};
use serde_json::json;

use super::config::{Descriptor, Manifest, media};
use super::ingest::Staging;
use super::reference::{Digest, Reference};
use super::store::{ImageRecord, Store};
use super::{ImageError, Result, journal};

impl Store {
    /// Writes the images of these names to `out` as one archive. A name with a tag is recorded in it;
    /// an id saves the image without its names, a repository without a tag means `latest`.
    ///
    /// # Errors
    /// [`ImageError::NotFound`] before anything is written; [`ImageError::Write`] for `out`;
    /// [`ImageError::Digest`] if a layer is not any more what it was.
    pub fn save(&self, names: &[String], platform: Option<&str>, out: &mut dyn Write) -> Result<()> {
        // What is being written must not be collected meanwhile, however slowly it is read.
        let staging = Staging::new(self)?;
        let hold = self.hold()?;
        let mut images: Vec<(ImageRecord, Vec<Reference>)> = Vec::new();
        for name in names {
            let image = self.resolve(name, platform)?.ok_or_else(|| ImageError::NotFound(name.clone()))?;
            let record = self.record(&image.id)?.ok_or_else(|| ImageError::NotFound(name.clone()))?;
            let by_id =
                image.id.to_string().starts_with(name.as_str()) || image.id.hex().starts_with(name.as_str());
            let reference = name.parse::<Reference>().ok().filter(|reference| reference.tag().is_some());
            let reference =
                reference.filter(|reference| !by_id || image.tags.contains(&reference.familiar()));
            let at = images.iter().position(|(other, _)| other.id == record.id).unwrap_or_else(|| {
                images.push((record, Vec::new()));
                images.len() - 1
            });
            if let Some(reference) = reference
                && !images[at].1.contains(&reference)
            {
                images[at].1.push(reference);
            }
        }

        let keys = images.iter().flat_map(|(record, _)| record.layers.iter().map(|layer| layer.key.clone()));
        staging.lease(&keys.collect::<Vec<_>>())?;
        let configs: Vec<Vec<u8>> = images
            .iter()
            .map(|(record, _)| crate::util::fs::read(&self.blob_path(&record.id)))
            .collect::<std::result::Result<_, _>>()?;
        drop(hold);

        let mut archive = Archive { out, written: HashSet::new() };
        let (mut index, mut docker) = (Vec::new(), Vec::new());
        for ((record, references), config) in images.iter().zip(&configs) {
            let mut layers = Vec::new();
            for layer in &record.layers {
                let meta = self.meta(&layer.key)?;
                let path = blob_path(&layer.diff_id);
                if archive.written.insert(path.clone()) {
                    archive.header(&path, meta.tar_size, b'0')?;
                    let mut hasher = Hasher { out: archive.out, context: Context::new(&SHA256), count: 0 };
                    journal::replay(&self.layer_dir(&layer.key), &meta.shadows, &mut hasher)
                        .map_err(ImageError::Write)?;
                    let (found, count) = (Digest::from_ring(&hasher.context.finish()), hasher.count);
                    if found != layer.diff_id {
                        let wanted = layer.diff_id.clone();
                        return Err(ImageError::Digest { what: "stored layer", wanted, found });
                    }
                    archive.pad(count)?;
                }
                layers.push(descriptor(media::OCI_LAYER, layer.diff_id.clone(), meta.tar_size));
            }
            archive.file(&blob_path(&record.id), config)?;
            let manifest = Manifest {
                schema_version: 2,
                media_type: media::OCI_MANIFEST.to_owned(),
                config: Some(descriptor(media::OCI_CONFIG, record.id.clone(), config.len() as u64)),
                layers,
                manifests: Vec::new(),
                annotations: BTreeMap::new(),
            };
            let manifest_bytes = encode(&manifest)?;
            let digest = Digest::of(&manifest_bytes);
            archive.file(&blob_path(&digest), &manifest_bytes)?;
            let entry = descriptor(media::OCI_MANIFEST, digest, manifest_bytes.len() as u64);
            if references.is_empty() {
                index.push(entry.clone());
            }
            for reference in references {
                let mut entry = entry.clone();
                entry.annotations.insert("io.containerd.image.name".to_owned(), reference.to_string());
                let tag = reference.tag().unwrap_or("latest").to_owned();
                entry.annotations.insert("org.opencontainers.image.ref.name".to_owned(), tag);
                index.push(entry);
            }
            let tags: Vec<String> = references.iter().map(Reference::familiar).collect();
            docker.push(json!({
                "Config": blob_path(&record.id),
                "RepoTags": if tags.is_empty() { serde_json::Value::Null } else { json!(tags) },
                "Layers": record.layers.iter().map(|layer| blob_path(&layer.diff_id)).collect::<Vec<_>>(),
            }));
        }
        let index = Manifest {
            schema_version: 2,
            media_type: media::OCI_INDEX.to_owned(),
            config: None,
            layers: Vec::new(),
            manifests: index,
            annotations: BTreeMap::new(),
        };
        archive.file("index.json", &encode(&index)?)?;
        archive.file("manifest.json", &encode(&docker)?)?;
        archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        archive.out.write_all(&[0; 1024]).map_err(ImageError::Write)?;
        archive.out.flush().map_err(ImageError::Write)
    }
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
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

fn encode(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|source| ImageError::Document {
        what: "archive's",
        digest: "documents".to_owned(),
        source,
    })
}

/// A tar being written, with constant owners and times.
struct Archive<'a> {
    out: &'a mut dyn Write,
    written: HashSet<String>,
}

impl Archive<'_> {
    fn header(&mut self, path: &str, size: u64, kind: u8) -> Result<()> {
        let mut header = Header::new_ustar();
        header.set_path(path).map_err(ImageError::Write)?;
        header.set_entry_type(EntryType::new(kind));
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_cksum();
        self.out.write_all(header.as_bytes()).map_err(ImageError::Write)
    }

    /// A small file, once.
    fn file(&mut self, path: &str, content: &[u8]) -> Result<()> {
        if !self.written.insert(path.to_owned()) {
            return Ok(());
        }
        self.header(path, content.len() as u64, b'0')?;
        self.out.write_all(content).map_err(ImageError::Write)?;
        self.pad(content.len() as u64)
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let padding = super::tar::padding(size);
        let zeros = [0; 512];
        self.out.write_all(&zeros[..usize::try_from(padding).unwrap_or(0)]).map_err(ImageError::Write)
    }
}

/// Passes bytes on and hashes them.
struct Hasher<'a> {
    out: &'a mut dyn Write,
    context: Context,
    count: u64,
}

impl Write for Hasher<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write_all(bytes)?;
        self.context.update(bytes);
        self.count += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
