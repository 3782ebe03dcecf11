//! The content store: layout, locks, references, records.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::Mode;
use serde::{Deserialize, Serialize};

use super::config::ImageConfig;
use super::journal::Shadow;
use super::reference::{Digest, Platform, Reference};
use super::unpack::Limits;
use super::{ImageError, Result};
use crate::runtime::root::Root;
use crate::util::files;
use crate::util::fs::{self, Lock, PathError};

/// Version of every JSON file of the store.
pub(crate) const FORMAT: u32 = 1;

/// The images of one root. Cheap to open; any number of processes may have it open.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
    limits: Limits,
}

/// While held, nothing is removed from the store. Keep it short.
#[derive(Debug)]
pub struct Hold {
    _lock: Lock,
}

/// A local image, ready to be used.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Digest of its config.
    pub id: Digest,
    /// What its containers run, and how it was made.
    pub config: ImageConfig,
    /// Its layers as overlay lower directories, **topmost first** (the order of `lowerdir=`).
    ///
    /// Absolute; at most the root's length + 80 bytes each. Empty for an image without layers.
    pub layers: Vec<PathBuf>,
    /// What the root directory of the merged tree looks like. Overlay takes it
    /// from the upper directory; `snapshot::prepare` sets it there.
    pub root: RootAttributes,
    /// Familiar `name:tag` references, sorted.
    pub tags: Vec<String>,
    /// Familiar `name@sha256:…` references, sorted.
    pub digests: Vec<String>,
    /// Bytes of its files, unpacked; shared layers are counted in each image.
    pub size: u64,
    /// What it runs on.
    pub platform: Platform,
    /// When it was built, says its config.
    pub created: Option<Timestamp>,
    /// When a tag last began to point to it.
    pub tagged: Option<Timestamp>,
    /// When its registry last gave it, or said that its tag still points to it.
    pub confirmed: Option<Timestamp>,
}

/// Owner and permission bits of an image's root directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootAttributes {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Default for RootAttributes {
    fn default() -> Self {
        Self { mode: 0o755, uid: 0, gid: 0 }
    }
}

/// `refs/<encoded name>`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RefRecord {
    pub(crate) version: u32,
    /// Full form.
    pub(crate) name: String,
    /// Images of different platforms, the newest first.
    pub(crate) images: Vec<Digest>,
    /// When it began to point to the first of them.
    pub(crate) tagged: Timestamp,
    /// When the registry last said that it still points to it there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) confirmed: Option<Timestamp>,
}

/// `records/<config hex>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    pub(crate) version: u32,
    pub(crate) id: Digest,
    /// Lowest first, in the order of the config's diff IDs.
    pub(crate) layers: Vec<LayerUse>,
    pub(crate) root: RootAttributes,
    /// Unpacked bytes.
    pub(crate) size: u64,
    /// The manifest it came by, kept in `blobs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) manifest: Option<Digest>,
    /// The index that named the manifest, kept in `blobs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) index: Option<Digest>,
    /// When it came.
    pub(crate) added: Timestamp,
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerUse {
    pub(crate) diff_id: Digest,
    /// Name of its directory: hex of the diff ID or of the chain ID.
    pub(crate) key: String,
}

/// `layers/<key>/meta`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LayerMeta {
    pub(crate) version: u32,
    pub(crate) diff_id: Digest,
    /// Bytes of its regular files.
    pub(crate) size: u64,
    /// Bytes of its tar.
    pub(crate) tar_size: u64,
    /// If its archive lists the root directory.
    pub(crate) root: Option<RootAttributes>,
    /// Whether the journal regenerates the tar exactly.
    pub(crate) journal: bool,
    /// What later entries of the same layer replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) shadows: Vec<Shadow>,
    /// It has directories its archive does not list.
    pub(crate) implied: bool,
    /// Digest and bytes of the blob it came as.
    pub(crate) blob: Option<(Digest, u64)>,
    /// How that was compressed: `plain`, `gzip`, `zstd`; empty when not known.
    #[serde(default)]
    pub(crate) compression: String,
    /// Boot during which it was written; trusted without question until the next.
    pub(crate) boot: String,
    /// Its files have reached the disk.
    #[serde(default)]
    pub(crate) durable: bool,
}

impl Store {
    /// Opens the store of a root, making it if it is not there.
    ///
    /// # Errors
    /// [`ImageError::Store`] if the directories cannot be made.
    pub fn open(root: &Root) -> Result<Self> {
        let store = Self { dir: root.images(), limits: Limits::default() };
        if !store.dir.join("trash").is_dir() {
            store.create()?;
        }
        Ok(store)
    }

    /// The same store with other limits for unpacking.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    fn create(&self) -> Result<()> {
        fs::create_dir_all(&self.dir)?;
        for part in ["blobs/sha256", "refs", "records", "layers", "staging", "trash"] {
            fs::create_dir_all(&self.dir.join(part))?;
        }
        for private in ["layers", "staging", "trash"] {
            // Unpacked layers have set-uid files of any age: nobody but us goes in.
            let path = self.dir.join(private);
            rustix::fs::chmod(&path, Mode::from_raw_mode(0o710))
                .map_err(PathError::at("set the mode of", &path))?;
        }
        fs::spread(&self.dir.join("layers"));
        fs::spread(&self.dir.join("staging"));
        Ok(())
    }

    /// `images/`.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Keeps all content from being removed for as long as the guard lives.
    ///
    /// # Errors
    /// [`ImageError::Store`] if the lock cannot be taken.
    pub fn hold(&self) -> Result<Hold> {
        Ok(Hold { _lock: Lock::shared(&self.dir.join("lock"))? })
    }

    /// As [`Store::hold`], and keeps others from holding.
    pub(crate) fn hold_alone(&self) -> Result<Hold> {
        Ok(Hold { _lock: Lock::exclusive(&self.dir.join("lock"))? })
    }

    /// Finds a local image by reference, id, or beginning of an id.
    ///
    /// `None` when there is none, or none for `platform` (`os[/arch[/variant]]`;
    /// `None` takes what is there, the host's if there are several).
    /// Never talks to a registry.
    ///
    /// # Errors
    /// [`ImageError::Ambiguous`]; [`ImageError::Name`] for an impossible platform;
    /// [`ImageError::LayerMissing`] and [`ImageError::Store`] for a damaged store.
    /// A name that is no reference is no error: it is not here.
    pub fn resolve(&self, name: &str, platform: Option<&str>) -> Result<Option<Image>> {
        let wanted = platform.map(str::parse::<Platform>).transpose()?;
        let Some(ids) = self.ids_of(name)? else { return Ok(None) };
        let refs = self.refs()?;
        let mut best: Option<(u32, Image)> = None;
        for id in ids {
            let Some(image) = self.image(&id, &refs)? else { continue };
            let rank = match &wanted {
                Some(wanted) => match image.platform.serves(wanted) {
                    Some(rank) => rank,
                    None => continue,
                },
                None => image.platform.serves(&Platform::host()).unwrap_or(0),
            };
            if best.as_ref().is_none_or(|(other, _)| rank > *other) {
                best = Some((rank, image));
            }
        }
        Ok(best.map(|(_, image)| image))
    }

    /// All local images, newest first, those without a tag included.
    ///
    /// # Errors
    /// [`ImageError::Store`].
    pub fn list(&self) -> Result<Vec<Image>> {
        let refs = self.refs()?;
        let mut images = Vec::new();
        for hex in files::names(&self.dir.join("records"))? {
            let Ok(id) = format!("sha256:{hex}").parse() else { continue };
            images.extend(self.image(&id, &refs)?);
        }
        images.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.tags.cmp(&b.tags)));
        Ok(images)
    }

    /// Bytes of the files of each layer of an image, lowest first.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], [`ImageError::Store`].
    pub fn layer_sizes(&self, id: &Digest) -> Result<Vec<u64>> {
        let record = self.record(id)?.ok_or_else(|| ImageError::NotFound(id.to_string()))?;
        record.layers.iter().map(|layer| Ok(self.meta(&layer.key)?.size)).collect()
    }

    /// Gives an image another name. A name that pointed elsewhere is moved.
    ///
    /// # Errors
    /// [`ImageError::NotFound`] for the source; [`ImageError::Name`] for the target,
    /// also when it has a digest.
    pub fn tag(&self, source: &str, target: &str) -> Result<()> {
        let target: Reference = target.parse()?;
        if target.digest().is_some() {
            return Err(super::NameError::Reference(format!("{target} (a tag cannot have a digest)")).into());
        }
        let _hold = self.hold()?;
        let image = self.resolve(source, None)?.ok_or_else(|| ImageError::NotFound(source.to_owned()))?;
        self.point(&target, &image.id)
    }

    /// Makes a reference point to an image, beside images of other platforms. Call with a hold.
    pub(crate) fn point(&self, reference: &Reference, id: &Digest) -> Result<()> {
        let path = self.ref_path(&reference.to_string());
        let platform = self.config(id)?.platform();
        let old: Option<RefRecord> = fs::read_json(&path)?;
        let mut images = vec![id.clone()];
        let mut tagged = Timestamp::now();
        if let Some(old) = old {
            if old.images.first() == Some(id) {
                tagged = old.tagged;
            }
            for other in old.images {
                if other != *id && self.config(&other).is_ok_and(|config| config.platform() != platform) {
                    images.push(other);
                }
            }
        }
        let name = reference.to_string();
        let record = RefRecord { version: FORMAT, name, images, tagged, confirmed: None };
        Ok(fs::write_json(&path, &record, true)?)
    }

    /// Notes that a reference is as its registry has it. Not worth waiting for the disk. Call with a hold of one's own.
    pub(crate) fn confirm(&self, reference: &Reference) -> Result<()> {
        let path = self.ref_path(&reference.to_string());
        if let Some(old) = fs::read_json::<RefRecord>(&path)? {
            fs::write_json(&path, &RefRecord { confirmed: Some(Timestamp::now()), ..old }, false)?;
        }
        Ok(())
    }

    /// Ids that a name may mean; `None` for no such name.
    fn ids_of(&self, name: &str) -> Result<Option<Vec<Digest>>> {
        if let Ok(id) = name.parse::<Digest>() {
            return Ok(self.record_path(&id).exists().then(|| vec![id]));
        }
        if let Ok(id) = format!("sha256:{name}").parse::<Digest>() {
            return Ok(self.record_path(&id).exists().then(|| vec![id]));
        }
        if let Ok(reference) = name.parse::<Reference>() {
            // `name:tag@digest` is found by its digest alone.
            let key = match reference.digest() {
                Some(digest) => reference.with_digest(digest).to_string(),
                None => reference.to_string(),
            };
            if let Some(record) = fs::read_json::<RefRecord>(&self.ref_path(&key))? {
                self.check(record.version)?;
                return Ok(Some(record.images));
            }
        }
        let prefix = name.strip_prefix("sha256:").unwrap_or(name);
        if prefix.is_empty() || !prefix.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(None);
        }
        let mut found = files::names(&self.dir.join("records"))?
            .into_iter()
            .filter(|hex| hex.starts_with(prefix))
            .filter_map(|hex| format!("sha256:{hex}").parse().ok());
        match (found.next(), found.next()) {
            (Some(id), None) => Ok(Some(vec![id])),
            (Some(_), Some(_)) => Err(ImageError::Ambiguous(name.to_owned())),
            (None, _) => Ok(None),
        }
    }

    /// The image of that id with the names that point to it; `None` when there is no record.
    fn image(&self, id: &Digest, refs: &[RefRecord]) -> Result<Option<Image>> {
        let Some(record) = self.record(id)? else { return Ok(None) };
        let config = self.config(id)?;
        let mut layers = Vec::with_capacity(record.layers.len());
        for layer in record.layers.iter().rev() {
            let path = self.layer_dir(&layer.key).join("fs");
            if !path.is_dir() {
                return Err(ImageError::LayerMissing { image: id.clone(), layer: layer.diff_id.clone() });
            }
            layers.push(path);
        }
        let (mut tags, mut digests) = (Vec::new(), Vec::new());
        let (mut tagged, mut confirmed) = (None, None);
        for known in refs.iter().filter(|known| known.images.contains(id)) {
            let Ok(reference) = known.name.parse::<Reference>() else { continue };
            if reference.digest().is_some() {
                digests.push(reference.familiar());
            } else {
                tags.push(reference.familiar());
                tagged = tagged.max(Some(known.tagged));
                confirmed = confirmed.max(known.confirmed);
            }
        }
        tags.sort();
        digests.sort();
        Ok(Some(Image {
            id: id.clone(),
            platform: config.platform(),
            created: config.created,
            config,
            layers,
            root: record.root,
            tags,
            digests,
            size: record.size,
            tagged,
            confirmed,
        }))
    }

    pub(crate) fn record(&self, id: &Digest) -> Result<Option<ImageRecord>> {
        let record: Option<ImageRecord> = fs::read_json(&self.record_path(id))?;
        if let Some(record) = &record {
            self.check(record.version)?;
        }
        Ok(record)
    }

    /// The config of an image by its id.
    pub(crate) fn config(&self, id: &Digest) -> Result<ImageConfig> {
        let bytes = fs::read(&self.blob_path(id))?;
        serde_json::from_slice(&bytes).map_err(|source| ImageError::Document {
            what: "config",
            digest: id.to_string(),
            source,
        })
    }

    /// All references, in the order of their file names.
    pub(crate) fn refs(&self) -> Result<Vec<RefRecord>> {
        let dir = self.dir.join("refs");
        let mut refs = Vec::new();
        for name in files::names(&dir)? {
            if !name.starts_with('.')
                && let Some(record) = fs::read_json::<RefRecord>(&dir.join(name))?
            {
                self.check(record.version)?;
                refs.push(record);
            }
        }
        Ok(refs)
    }

    /// Puts a small document into `blobs` under its digest.
    pub(crate) fn put_blob(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        let path = self.blob_path(&digest);
        if !path.exists() {
            fs::write_atomic(&path, bytes, true)?;
        }
        Ok(digest)
    }

    pub(crate) fn put_record(&self, record: &ImageRecord) -> Result<()> {
        Ok(fs::write_json(&self.record_path(&record.id), record, true)?)
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.hex())
    }

    pub(crate) fn record_path(&self, id: &Digest) -> PathBuf {
        self.dir.join("records").join(id.hex())
    }

    pub(crate) fn layer_dir(&self, key: &str) -> PathBuf {
        self.dir.join("layers").join(key)
    }

    /// File of a reference in full form.
    pub(crate) fn ref_path(&self, name: &str) -> PathBuf {
        self.dir.join("refs").join(encode(name))
    }

    fn check(&self, found: u32) -> Result<()> {
        if found > FORMAT {
            return Err(ImageError::Newer { path: self.dir.clone(), found });
        }
        Ok(())
    }
}

/// A reference as a file name: `/` and `%` escaped; long ones by their hash, the name is in the file.
fn encode(name: &str) -> String {
    let text = name.replace('%', "%25").replace('/', "%2F");
    if text.len() <= 200 { text } else { format!("long-{}", Digest::of(name.as_bytes()).hex()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(&Root::new(Some(dir.path()))).expect("opens");
        (dir, store)
    }

    fn add(store: &Store, architecture: &str, comment: &str) -> Digest {
        let config = ImageConfig {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            comment: comment.to_owned(),
            ..ImageConfig::default()
        };
        let id = store.put_blob(&serde_json::to_vec(&config).expect("encodes")).expect("kept");
        let record = ImageRecord {
            version: FORMAT,
            id: id.clone(),
            layers: Vec::new(),
            root: RootAttributes::default(),
            size: 0,
            manifest: None,
            index: None,
            added: Timestamp::now(),
        };
        store.put_record(&record).expect("kept");
        id
    }

    #[test]
    fn an_image_is_found_by_name_id_and_prefix() {
        let (_dir, store) = store();
        let id = add(&store, "amd64", "");
        let reference: Reference = "app:1".parse().expect("valid");
        store.point(&reference, &id).expect("tagged");
        for name in
            ["app:1", "docker.io/library/app:1", &id.to_string(), id.hex(), id.short(), &id.hex()[..3]]
        {
            let image = store.resolve(name, None).expect("resolves").expect("is there");
            assert_eq!(image.id, id, "{name}");
            assert_eq!(image.tags, ["app:1"]);
        }
        assert!(store.resolve("app", None).expect("resolves").is_none());
        assert!(store.resolve("App", None).expect("resolves").is_none());
    }

    #[test]
    fn one_name_may_have_images_of_several_platforms() {
        let (_dir, store) = store();
        let (amd, arm, newer) =
            (add(&store, "amd64", ""), add(&store, "arm64", ""), add(&store, "amd64", "newer"));
        let reference: Reference = "app".parse().expect("valid");
        for id in [&amd, &arm, &newer] {
            store.point(&reference, id).expect("tagged");
        }
        let get = |p| store.resolve("app", p).expect("resolves").map(|image| image.id);
        assert_eq!(get(Some("linux/arm64")), Some(arm));
        assert_eq!(get(Some("linux/amd64")), Some(newer));
        assert_eq!(get(Some("linux/s390x")), None);
        // The replaced one lost its name but is still there.
        assert_eq!(store.resolve(&amd.to_string(), None).expect("resolves").expect("is there").tags.len(), 0);
    }

    #[test]
    fn tagging_needs_a_source_and_a_plain_target() {
        let (_dir, store) = store();
        assert!(matches!(store.tag("a", "b"), Err(ImageError::NotFound(_))));
        let id = add(&store, "amd64", "");
        store.tag(id.short(), "b:2").expect("tagged");
        assert_eq!(store.resolve("b:2", None).expect("resolves").expect("there").id, id);
        assert!(store.tag("b:2", &format!("b@sha256:{}", "0".repeat(64))).is_err());
    }
}
