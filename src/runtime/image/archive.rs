//! Archives of images: what `docker save`, `skopeo copy`, `buildah push`, `podman save` write.
//!
//! Read from a file in place (its entries are indexed first, layers are then
//! read in parallel); compressed archives and pipes are spooled into staging.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::config::{Descriptor, Manifest};
use super::ingest::{LayerSource, Progress, Staging};
use super::reference::{Digest, Platform, Reference};
use super::store::Store;
use super::tar::{Kind, Reader, TarError, padding};
use super::unpack::{Form, UnpackError};
use super::{Event, ImageError, Result};
use crate::util::fs::PathError;

/// Largest JSON document.
const MAX_DOCUMENT: u64 = 8 << 20;

/// Why an archive gives no image.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It has neither `manifest.json` nor `index.json`.
    #[error(
        "`{0}` is not an image archive: it has neither `manifest.json` nor `index.json`; \
         a plain file system tarball is imported with `hoist image import`"
    )]
    NoManifest(String),
    /// A file that another one names is not in it.
    #[error("`{archive}` is incomplete: it has no `{file}`")]
    Missing {
        /// The archive.
        archive: String,
        /// Path inside.
        file: String,
    },
    /// A document is larger than any is.
    #[error("`{file}` in `{archive}` is too large ({size} bytes)")]
    TooLarge {
        /// The archive.
        archive: String,
        /// Path inside.
        file: String,
        /// Bytes.
        size: u64,
    },
    /// It cannot be read.
    #[error("cannot read the archive `{archive}`")]
    Read {
        /// The archive.
        archive: String,
        /// Why.
        #[source]
        source: UnpackError,
    },
    /// It has images, but none for the platform.
    #[error("`{archive}` has no image for {wanted}, only for {}", found.join(", "))]
    Platform {
        /// The archive.
        archive: String,
        /// Asked for.
        wanted: String,
        /// What there is.
        found: Vec<String>,
    },
}

/// Where an archive is read from.
pub enum Input {
    /// A file, or a directory in OCI layout.
    Path(PathBuf),
    /// A stream, usually standard input.
    Stream(Box<dyn Read + Send>),
}

/// One image of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Its id.
    pub id: Digest,
    /// The references it was put under, in familiar form; none if the archive names none.
    pub tags: Vec<String>,
}

/// One element of `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

impl Store {
    /// Puts all images of an archive into the store.
    ///
    /// Understands what `docker save` writes (of any version since 1.10), OCI
    /// archives and OCI layout directories, each plain, gzip or zstd. Layers may be
    /// compressed, too. With `platform`, of an index only the image for it is
    /// taken, else the host's, else the only one.
    ///
    /// # Errors
    /// [`ImageError::Archive`] if it is no such archive, [`ImageError::Unpack`] and
    /// [`ImageError::Digest`] if it is damaged. Images before the damaged one stay.
    pub fn load(&self, input: Input, platform: Option<&str>, progress: Progress<'_>) -> Result<Vec<Loaded>> {
        let platform = platform.map(str::parse::<Platform>).transpose()?;
        let staging = Staging::new(self)?;
        let bundle = Bundle::open(input, &staging)?;
        if bundle.has("manifest.json") {
            return self.load_docker(&bundle, &staging, progress);
        }
        if bundle.has("index.json") {
            return self.load_oci(&bundle, &staging, platform.as_ref(), progress);
        }
        Err(ArchiveError::NoManifest(bundle.name.clone()).into())
    }

    fn load_docker(&self, bundle: &Bundle, staging: &Staging, progress: Progress<'_>) -> Result<Vec<Loaded>> {
        let entries: Vec<DockerEntry> = json(&bundle.document("manifest.json")?, "manifest.json")?;
        let mut loaded = Vec::new();
        for entry in entries {
            let config = bundle.document(&entry.config)?;
            let layers = entry.layers.unwrap_or_default();
            let sources: Vec<_> =
                layers.iter().map(|path| bundle.layer(path, None)).collect::<Result<_>>()?;
            let id = self.ingest(staging, &config, &sources, &[], progress)?;
            let mut names = Vec::new();
            for tag in entry.repo_tags.unwrap_or_default() {
                names.push(tag.parse::<Reference>()?);
            }
            loaded.push(self.name(id, &names)?);
        }
        Ok(loaded)
    }

    fn load_oci(
        &self,
        bundle: &Bundle,
        staging: &Staging,
        platform: Option<&Platform>,
        progress: Progress<'_>,
    ) -> Result<Vec<Loaded>> {
        let top: Manifest = json(&bundle.document("index.json")?, "index.json")?;
        let mut loaded = Vec::new();
        // Entries of one name are one image for several platforms.
        let mut groups: Vec<(Option<Reference>, Vec<Descriptor>)> = Vec::new();
        for descriptor in top.manifests {
            let name = name_of(&descriptor);
            match groups.iter_mut().find(|(other, _)| name.is_some() && *other == name) {
                Some((_, group)) => group.push(descriptor),
                None => groups.push((name, vec![descriptor])),
            }
        }
        for (name, group) in groups {
            let (manifest_bytes, manifest) = bundle.choose(group, platform)?;
            let Some(config) = &manifest.config else {
                return Err(ArchiveError::NoManifest(bundle.name.clone()).into());
            };
            let config = bundle.blob(&config.digest)?;
            let sources: Vec<_> = manifest
                .layers
                .iter()
                .map(|layer| bundle.layer(&blob_path(&layer.digest), Some(&layer.digest)))
                .collect::<Result<_>>()?;
            let id = self.ingest(staging, &config, &sources, &[&manifest_bytes], progress)?;
            loaded.push(self.name(id, name.as_slice())?);
        }
        Ok(loaded)
    }

    fn name(&self, id: Digest, names: &[Reference]) -> Result<Loaded> {
        let _hold = self.hold()?;
        for name in names {
            self.point(name, &id)?;
        }
        Ok(Loaded { id, tags: names.iter().map(Reference::familiar).collect() })
    }
}

/// The name an OCI index gives an image: containerd's annotation, else the OCI one if it is a whole reference.
fn name_of(descriptor: &Descriptor) -> Option<Reference> {
    let text = |key: &str| descriptor.annotations.get(key);
    if let Some(name) = text("io.containerd.image.name") {
        return name.parse().ok();
    }
    // Often only a tag, which names nothing.
    let name = text("org.opencontainers.image.ref.name")?;
    if name.contains([':', '/']) { name.parse().ok() } else { None }
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn json<T: serde::de::DeserializeOwned>(bytes: &[u8], name: &str) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|source| ImageError::Document {
        what: "archive's",
        digest: name.to_owned(),
        source,
    })
}

/// An archive opened for reading in any order.
struct Bundle {
    name: String,
    files: Files,
}

enum Files {
    /// Offset and length of each file in a tar.
    Tar(Arc<File>, HashMap<String, (u64, u64)>),
    /// An OCI layout.
    Dir(PathBuf),
}

impl Bundle {
    fn open(input: Input, staging: &Staging) -> Result<Self> {
        let (name, file) = match input {
            Input::Path(path) if path.is_dir() => {
                return Ok(Self { name: path.display().to_string(), files: Files::Dir(path) });
            }
            Input::Path(path) => {
                let mut file = File::open(&path).map_err(PathError::at("open", &path))?;
                let name = path.display().to_string();
                let mut start = [0; 6];
                let regular = file.metadata().is_ok_and(|meta| meta.is_file());
                let got = if regular { file.read_at(&mut start, 0).unwrap_or(0) } else { 0 };
                if regular && Form::of(&start[..got]) == Form::Plain {
                    (name, file)
                } else {
                    let spooled = spool(&mut file, &name, staging)?;
                    (name, spooled)
                }
            }
            Input::Stream(mut stream) => {
                let name = "standard input".to_owned();
                let spooled = spool(&mut stream, &name, staging)?;
                (name, spooled)
            }
        };
        let index = index(&file).map_err(|source| ArchiveError::Read {
            archive: name.clone(),
            source: UnpackError::Apply(source.into()),
        })?;
        Ok(Self { name, files: Files::Tar(Arc::new(file), index) })
    }

    fn has(&self, path: &str) -> bool {
        match &self.files {
            Files::Tar(_, index) => index.contains_key(path),
            Files::Dir(dir) => dir.join(path).is_file(),
        }
    }

    /// A reader of a file inside and its length.
    fn reader(&self, path: &str) -> Result<(Box<dyn Read + Send>, u64)> {
        let missing = || ArchiveError::Missing { archive: self.name.clone(), file: path.to_owned() };
        match &self.files {
            Files::Tar(file, index) => {
                let path = path.strip_prefix("./").unwrap_or(path);
                let (offset, length) = *index.get(path).ok_or_else(missing)?;
                Ok((Box::new(Slice { file: file.clone(), offset, end: offset + length }), length))
            }
            Files::Dir(dir) => {
                // Only names we made ourselves (`blobs/sha256/…`) or fixed ones get here in a
                // layout; others must not leave the directory.
                if Path::new(path).components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
                    return Err(missing().into());
                }
                let full = dir.join(path);
                let file = match File::open(&full) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing().into()),
                    other => other.map_err(PathError::at("open", &full))?,
                };
                let length = file.metadata().map_err(PathError::at("look at", &full))?.len();
                Ok((Box::new(file), length))
            }
        }
    }

    /// A whole small file.
    fn document(&self, path: &str) -> Result<Vec<u8>> {
        let (mut reader, size) = self.reader(path)?;
        if size > MAX_DOCUMENT {
            return Err(
                ArchiveError::TooLarge { archive: self.name.clone(), file: path.to_owned(), size }.into()
            );
        }
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map_err(|source| ArchiveError::Read {
            archive: self.name.clone(),
            source: UnpackError::Read(source),
        })?;
        Ok(bytes)
    }

    /// A small blob, verified.
    fn blob(&self, digest: &Digest) -> Result<Vec<u8>> {
        let bytes = self.document(&blob_path(digest))?;
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(ImageError::Digest { what: "document", wanted: digest.clone(), found });
        }
        Ok(bytes)
    }

    fn layer<'a>(&'a self, path: &str, blob: Option<&Digest>) -> Result<LayerSource<'a>> {
        // Missing layers are found out before anything is unpacked.
        let (_, size) = self.reader(path)?;
        let path = path.to_owned();
        Ok(LayerSource {
            blob: blob.cloned(),
            size: Some(size),
            open: Box::new(move || Ok(self.reader(&path)?.0)),
        })
    }

    /// Of several manifests and indexes, the manifest for the platform.
    fn choose(&self, candidates: Vec<Descriptor>, wanted: Option<&Platform>) -> Result<(Vec<u8>, Manifest)> {
        let mut manifests: Vec<(Platform, Vec<u8>, Manifest)> = Vec::new();
        let mut queue = candidates;
        // An index in an index is as deep as anybody goes; 4 bounds hostile ones.
        for _ in 0..4 {
            let mut deeper = Vec::new();
            for descriptor in std::mem::take(&mut queue) {
                if descriptor.platform.as_ref().is_some_and(super::PlatformJson::is_unknown)
                    || !self.has(&blob_path(&descriptor.digest))
                {
                    // Attestations, and platforms that were not exported.
                    continue;
                }
                let bytes = self.blob(&descriptor.digest)?;
                let manifest: Manifest = json(&bytes, "manifest")?;
                let Some(config) = &manifest.config else {
                    deeper.extend(manifest.manifests);
                    continue;
                };
                let platform = match &descriptor.platform {
                    Some(platform) => platform.platform(),
                    None => json::<super::ImageConfig>(&self.blob(&config.digest)?, "config")?.platform(),
                };
                manifests.push((platform, bytes, manifest));
            }
            queue = deeper;
        }
        let host = Platform::host();
        let target = wanted.unwrap_or(&host);
        let best = manifests
            .iter()
            .enumerate()
            .filter_map(|(at, (platform, ..))| Some((platform.serves(target)?, at)))
            .max_by_key(|(rank, at)| (*rank, std::cmp::Reverse(*at)));
        let at = match best {
            Some((_, at)) => at,
            None if wanted.is_none() && manifests.len() == 1 => 0,
            None if manifests.is_empty() => return Err(ArchiveError::NoManifest(self.name.clone()).into()),
            None => {
                return Err(ArchiveError::Platform {
                    archive: self.name.clone(),
                    wanted: target.to_string(),
                    found: manifests.iter().map(|(platform, ..)| platform.to_string()).collect(),
                }
                .into());
            }
        };
        let (_, bytes, manifest) = manifests.swap_remove(at);
        Ok((bytes, manifest))
    }
}

/// Copies a stream, decompressed, into a nameless file of the staging directory.
fn spool(stream: &mut dyn Read, name: &str, staging: &Staging) -> Result<File> {
    let failed = |source| {
        ImageError::from(ArchiveError::Read { archive: name.to_owned(), source: UnpackError::Read(source) })
    };
    let path = staging.dir.join("archive");
    let mut out = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .map_err(PathError::at("create", &path))?;
    std::fs::remove_file(&path).map_err(PathError::at("remove", &path))?;
    let mut input = BufReader::with_capacity(256 << 10, SendRead(stream));
    let form = Form::of(io::BufRead::fill_buf(&mut input).map_err(failed)?);
    if let Form::Unsupported(form) = form {
        return Err(
            ArchiveError::Read { archive: name.to_owned(), source: UnpackError::Compression(form) }.into()
        );
    }
    match form {
        Form::Plain => io::copy(&mut input, &mut out).map_err(failed)?,
        Form::Gzip => io::copy(&mut flate2::bufread::MultiGzDecoder::new(input), &mut out).map_err(failed)?,
        _ => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(failed)?;
            io::copy(&mut decoder, &mut out).map_err(failed)?
        }
    };
    Ok(out)
}

struct SendRead<'a>(&'a mut dyn Read);

impl Read for SendRead<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

/// Where each regular file of a tar is; links (old archives share layers by them) resolved.
fn index(file: &File) -> std::result::Result<HashMap<String, (u64, u64)>, TarError> {
    let mut index = HashMap::new();
    let mut links: Vec<(String, String)> = Vec::new();
    let mut at = 0;
    loop {
        // A reader of its own for each header, so that data is skipped by seeking.
        let slice = SliceRef { file, offset: at };
        let mut reader = Reader::new(BufReader::with_capacity(2048, slice));
        let mut raw = Vec::new();
        let Some(entry) = reader.next(&mut raw)? else { break };
        at += reader.offset();
        let name = entry.name();
        let name = name.trim_start_matches("./").trim_end_matches('/').to_owned();
        match entry.kind {
            Kind::File => {
                index.insert(name, (at, entry.size));
            }
            Kind::Symlink | Kind::HardLink => {
                let target = String::from_utf8_lossy(&entry.link).into_owned();
                let target = if entry.kind == Kind::HardLink {
                    target.trim_start_matches("./").to_owned()
                } else {
                    sibling(&name, &target)
                };
                links.push((name, target));
            }
            _ => {}
        }
        at += entry.size + padding(entry.size);
    }
    for (name, target) in links {
        if let Some(place) = index.get(&target).copied() {
            index.insert(name, place);
        }
    }
    Ok(index)
}

/// `../b/layer.tar` seen from `a/layer.tar` is `b/layer.tar`.
fn sibling(name: &str, target: &str) -> String {
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

/// A part of a file, read without moving anybody's position.
struct Slice {
    file: Arc<File>,
    offset: u64,
    end: u64,
}

impl Read for Slice {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX);
        let part = left.min(buffer.len());
        let count = self.file.read_at(&mut buffer[..part], self.offset)?;
        if count == 0 && part > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += count as u64;
        Ok(count)
    }
}

struct SliceRef<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for SliceRef<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// Tells what an archive's image was loaded as, as Docker does.
impl Loaded {
    /// The event lines: `Loaded image: name:tag`, or by its id.
    pub fn events(&self) -> Vec<Event> {
        if self.tags.is_empty() {
            return vec![Event::Status(format!("Loaded image ID: {}", self.id))];
        }
        self.tags.iter().map(|tag| Event::Status(format!("Loaded image: {tag}"))).collect()
    }
}
