//! `pull`: from a registry into the store in one pass.

use super::config::{Manifest, media};
use super::ingest::{LayerSource, Progress, Staging};
use super::reference::{Digest, Platform, Reference};
use super::registry::{Access, Blob, Client, Registries, RegistryError};
use super::store::{Image, Store};
use super::{Event, ImageError, Result};

/// Largest config blob.
const MAX_CONFIG: u64 = 8 << 20;

/// What a pull came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Pulled {
    /// The image, now here.
    pub image: Image,
    /// Digest of what the reference points to in the registry (of the index, if it is one).
    pub digest: Digest,
    /// It was not here before.
    pub new: bool,
}

/// Asks the registry for the digest of what a reference points to there (of the index, if it is one).
///
/// A reference with a digest has that one, and nobody is asked.
///
/// # Errors
/// The reference is none; [`ImageError::Registry`].
pub fn remote_digest(reference: &str, registries: &Registries) -> Result<Digest> {
    let reference: Reference = reference.parse()?;
    if let Some(digest) = reference.digest() {
        return Ok(digest.clone());
    }
    let client = Client::new(&reference, &Access::Pull, registries)?;
    let tag = reference.tag().unwrap_or("latest");
    match client.head(tag)? {
        Some(digest) => Ok(digest),
        None => Ok(client.manifest(tag)?.1),
    }
}

impl Store {
    /// Fetches the image of a reference and puts it under that name.
    ///
    /// `platform` is `os[/arch[/variant]]`; `None` means this machine's, or one it can
    /// emulate if nothing else is there. An unchanged tag costs one request.
    ///
    /// # Errors
    /// [`ImageError::Registry`] for everything the registry does; [`ImageError::Digest`] and
    /// [`ImageError::Unpack`] if what it sends is not what it should be. Nothing is visible then;
    /// finished layers are kept for the next try.
    pub fn pull(
        &self,
        reference: &str,
        platform: Option<&str>,
        registries: &Registries,
        progress: Progress<'_>,
    ) -> Result<Pulled> {
        let reference: Reference = reference.parse()?;
        let wanted = platform.map(str::parse::<Platform>).transpose()?;
        let client = Client::new(&reference, &Access::Pull, registries)?;
        let name = match reference.digest() {
            Some(digest) => digest.to_string(),
            None => reference.tag().unwrap_or("latest").to_owned(),
        };
        progress(Event::Status(format!("{name}: Pulling from {}", shown_repository(&reference))));
        if let Some(pulled) = self.unchanged(&client, &reference, &name, platform)? {
            // Alone: it must not write over what somebody tags at this moment.
            let _hold = self.hold_alone()?;
            self.confirm(&reference)?;
            finish(progress, &pulled, &reference);
            return Ok(pulled);
        }

        let (top_bytes, top_digest) = client.manifest(&name)?;
        let top = document(&top_bytes, "manifest", &top_digest)?;
        let (manifest_bytes, manifest) = if top.config.is_some() {
            (top_bytes.clone(), top)
        } else {
            let chosen = choose(&reference, &top, wanted.as_ref())?;
            let (bytes, digest) = client.manifest(&chosen.to_string())?;
            let manifest = document(&bytes, "manifest", &digest)?;
            (bytes, manifest)
        };
        let Some(config) = &manifest.config else {
            return Err(not_an_image(&reference, &manifest));
        };
        if !matches!(config.media_type.as_str(), media::OCI_CONFIG | media::DOCKER_CONFIG) {
            return Err(not_an_image(&reference, &manifest));
        }
        if config.size > MAX_CONFIG {
            return Err(RegistryError::Answer {
                host: reference.registry().to_owned(),
                what: format!("a config of {} bytes", config.size),
            }
            .into());
        }
        let config_bytes = client.document(&config.digest, config.size)?;
        let settled: super::ImageConfig = serde_json::from_slice(&config_bytes).map_err(|source| {
            ImageError::Document { what: "config", digest: config.digest.to_string(), source }
        })?;
        let found = settled.platform();
        let fits = match &wanted {
            Some(wanted) => found.serves(wanted).is_some(),
            None => found.serves(&Platform::host()).is_some() || can_emulate(&found),
        };
        if !fits {
            let wanted = wanted.unwrap_or_else(Platform::host);
            let image = reference.familiar();
            return Err(RegistryError::Platform { image, wanted, found: vec![found] }.into());
        }

        let sources: Vec<LayerSource<'_>> = manifest
            .layers
            .iter()
            .map(|layer| {
                let (digest, size, client) = (layer.digest.clone(), layer.size, &client);
                LayerSource {
                    blob: Some(layer.digest.clone()),
                    size: Some(layer.size),
                    open: Box::new(move || Ok(Box::new(Blob::new(client, digest.clone(), size)))),
                }
            })
            .collect();
        let known = self.resolve(&config.digest.to_string(), None)?.is_some();
        let staging = Staging::new(self)?;
        let documents: Vec<&[u8]> = if top_bytes == manifest_bytes {
            vec![&manifest_bytes]
        } else {
            vec![&manifest_bytes, &top_bytes]
        };
        let id = self.ingest(&staging, &config_bytes, &sources, &documents, progress)?;
        {
            let _hold = self.hold()?;
            if reference.digest().is_none() {
                self.point(&reference, &id)?;
            }
            self.point(&reference.with_digest(&top_digest), &id)?;
        }
        let image =
            self.resolve(&id.to_string(), None)?.ok_or_else(|| ImageError::NotFound(id.to_string()))?;
        let pulled = Pulled { image, digest: top_digest, new: !known };
        finish(progress, &pulled, &reference);
        Ok(pulled)
    }

    /// If the registry's tag still points to what we have under that name: nothing to do.
    fn unchanged(
        &self,
        client: &Client,
        reference: &Reference,
        name: &str,
        platform: Option<&str>,
    ) -> Result<Option<Pulled>> {
        let Some(image) = self.resolve(&reference.to_string(), platform)? else { return Ok(None) };
        let digest = match reference.digest() {
            Some(digest) => Some(digest.clone()),
            None => client.head(name)?,
        };
        let Some(digest) = digest else { return Ok(None) };
        let known = reference.with_digest(&digest).to_string();
        // The digest must stand for the same image, else the tag was moved here by hand.
        let same = self.resolve(&known, platform)?.is_some_and(|other| other.id == image.id);
        Ok(same.then_some(Pulled { image, digest, new: false }))
    }
}

fn finish(progress: Progress<'_>, pulled: &Pulled, reference: &Reference) {
    progress(Event::Status(format!("Digest: {}", pulled.digest)));
    let what = if pulled.new { "Downloaded newer image for" } else { "Image is up to date for" };
    progress(Event::Status(format!("Status: {what} {}", reference.familiar())));
}

/// `library/nginx` for Docker Hub, with the host for others.
fn shown_repository(reference: &Reference) -> String {
    if reference.registry() == super::DOCKER_HUB {
        reference.repository().to_owned()
    } else {
        reference.familiar_name()
    }
}

fn document(bytes: &[u8], what: &'static str, digest: &Digest) -> Result<Manifest> {
    serde_json::from_slice(bytes).map_err(|source| ImageError::Document {
        what,
        digest: digest.to_string(),
        source,
    })
}

/// The manifest of an index for the platform; attestations are none.
fn choose(reference: &Reference, index: &Manifest, wanted: Option<&Platform>) -> Result<Digest> {
    let candidates: Vec<(Platform, &Digest)> = index
        .manifests
        .iter()
        .filter_map(|entry| {
            let platform = entry.platform.as_ref().filter(|platform| !platform.is_unknown())?;
            Some((platform.platform(), &entry.digest))
        })
        .collect();
    if candidates.is_empty() {
        return Err(not_an_image(reference, index));
    }
    let host = Platform::host();
    let target = wanted.unwrap_or(&host);
    let mut best: Option<(u32, &Digest)> = None;
    for (platform, digest) in &candidates {
        if let Some(rank) = platform.serves(target)
            && best.is_none_or(|(other, _)| rank > other)
        {
            best = Some((rank, digest));
        }
    }
    let emulated = || {
        let usable = candidates.iter().find(|(platform, _)| wanted.is_none() && can_emulate(platform));
        usable.map(|(_, digest)| *digest)
    };
    best.map(|(_, digest)| digest).or_else(emulated).cloned().ok_or_else(|| {
        let mut found: Vec<Platform> = candidates.iter().map(|(platform, _)| platform.clone()).collect();
        found.sort();
        found.dedup();
        RegistryError::Platform { image: reference.familiar(), wanted: target.clone(), found }.into()
    })
}

/// Whether the kernel hands that platform's programs to an emulator (`binfmt_misc`).
fn can_emulate(platform: &Platform) -> bool {
    let word = match platform.architecture.as_str() {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        "386" => "i386",
        other => other,
    };
    platform.os == "linux"
        && std::path::Path::new("/proc/sys/fs/binfmt_misc").join(format!("qemu-{word}")).exists()
}

fn not_an_image(reference: &Reference, manifest: &Manifest) -> ImageError {
    let what = match &manifest.config {
        Some(config) if !config.media_type.is_empty() => format!("`{}`", config.media_type),
        _ if manifest.schema_version == 1 => {
            "in the old schema 1 format, which registries gave up; push it again with a current tool"
                .to_owned()
        }
        _ => "something without a config".to_owned(),
    };
    RegistryError::NotAnImage { image: reference.familiar(), what }.into()
}
