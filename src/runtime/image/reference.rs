//! Names of images: references, digests, platforms.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Registry of names without one.
pub const DOCKER_HUB: &str = "docker.io";

/// Why a text is no reference, digest or platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Does not follow the grammar.
    #[error("invalid image reference `{0}`: expected [registry[:port]/]name[:tag][@sha256:…]")]
    Reference(String),
    /// Has capitals in the repository part.
    #[error("invalid image reference `{0}`: the repository name must be lowercase")]
    Uppercase(String),
    /// Longer than 255 bytes.
    #[error("invalid image reference `{0}`: the repository name must not be longer than 255 characters")]
    TooLong(String),
    /// Not `sha256:` and 64 hex digits.
    #[error("invalid digest `{0}`: expected `sha256:` and 64 lowercase hex digits")]
    Digest(String),
    /// Not `os[/arch[/variant]]`.
    #[error("invalid platform `{0}`: expected os[/arch[/variant]]")]
    Platform(String),
}

/// A sha256 content digest; displays as `sha256:<64 hex>`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    hex: String,
}

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_ring(&ring::digest::digest(&ring::digest::SHA256, bytes))
    }

    /// The result of a finished sha256.
    pub(crate) fn from_ring(digest: &ring::digest::Digest) -> Self {
        Self { hex: crate::util::ids::hex(digest.as_ref()) }
    }

    /// The 64 hex digits.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// The first 12 hex digits, as lists show them.
    pub fn short(&self) -> &str {
        &self.hex[..12]
    }
}

impl FromStr for Digest {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.strip_prefix("sha256:") {
            Some(hex) if hex.len() == 64 && hex.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) => {
                Ok(Self { hex: hex.to_owned() })
            }
            _ => Err(NameError::Digest(text.to_owned())),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// An image reference in full form: `docker.io/library/nginx:1.27`.
///
/// Parsing normalises as Docker does: no registry means `docker.io`, one name
/// component there means `library/…`, neither tag nor digest means `latest`.
/// [`fmt::Display`] gives the full form, [`Reference::familiar`] the short one.
///
/// # Source
/// `distribution/reference`, grammar in its package documentation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Host and optional port of the registry.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Repository path inside the registry, `library/nginx`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if there is one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if there is one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// As people write it: without `docker.io/` and `library/`.
    pub fn familiar(&self) -> String {
        let mut text = self.familiar_name();
        self.suffix(&mut text);
        text
    }

    /// The familiar name without tag and digest.
    pub fn familiar_name(&self) -> String {
        if self.registry == DOCKER_HUB {
            self.repository.strip_prefix("library/").unwrap_or(&self.repository).to_owned()
        } else {
            format!("{}/{}", self.registry, self.repository)
        }
    }

    /// The same repository under this digest and no tag.
    #[must_use]
    pub fn with_digest(&self, digest: &Digest) -> Self {
        Self { tag: None, digest: Some(digest.clone()), ..self.clone() }
    }

    /// The same repository under this tag and no digest.
    #[must_use]
    pub fn with_tag(&self, tag: &str) -> Self {
        Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() }
    }

    fn suffix(&self, text: &mut String) {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!("{}/{}", self.registry, self.repository);
        self.suffix(&mut text);
        f.write_str(&text)
    }
}

impl FromStr for Reference {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bad = || NameError::Reference(text.to_owned());
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|_| bad())?)),
            None => (text, None),
        };
        // A colon after the last slash starts the tag; before it, a port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(bad());
        }
        let (registry, path) = match name.split_once('/') {
            Some((first, path))
                if first == "localhost"
                    || first.contains(['.', ':'])
                    || first.chars().any(|c| c.is_ascii_uppercase()) =>
            {
                (first, path)
            }
            _ => (DOCKER_HUB, name),
        };
        let registry = if registry == "index.docker.io" { DOCKER_HUB } else { registry };
        if path.bytes().any(|c| c.is_ascii_uppercase()) {
            return Err(NameError::Uppercase(text.to_owned()));
        }
        if !is_registry(registry) || path.is_empty() || !path.split('/').all(is_component) {
            return Err(bad());
        }
        // 64 hex digits are an image id, never a name.
        if text.len() == 64 && text.bytes().all(|c| c.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let repository = if registry == DOCKER_HUB && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        if registry.len() + 1 + repository.len() > 255 {
            return Err(NameError::TooLong(text.to_owned()));
        }
        let tag = match (tag, &digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }
}

fn is_tag(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= 128
        && bytes.next().is_some_and(|c| c.is_ascii_alphanumeric() || c == b'_')
        && bytes.all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-'))
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            ("v6", rest.strip_prefix(':').or_else(|| rest.is_empty().then_some("0")))
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, Some("0")),
        },
    };
    port.is_some_and(|port| !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit()))
        && !host.is_empty()
        && host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
        })
}

/// `[a-z0-9]+` joined by `.`, `_`, `__` or any number of `-`.
fn is_component(text: &str) -> bool {
    let bytes = text.as_bytes();
    let word = |c: &u8| c.is_ascii_digit() || c.is_ascii_lowercase();
    if !bytes.first().is_some_and(word) || !bytes.last().is_some_and(word) {
        return false;
    }
    bytes
        .chunk_by(|a, b| word(a) == word(b))
        .all(|run| word(&run[0]) || matches!(run, b"." | b"_" | b"__") || run.iter().all(|c| *c == b'-'))
}

/// Operating system and processor of an image; displays as `linux/arm64/v8`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// Go's word: `amd64`, `arm64`, `arm`, `386`, ….
    pub architecture: String,
    /// `v8` and the like; empty when it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

impl Platform {
    /// The machine we run on.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", ""),
            "x86" => ("386", ""),
            "aarch64" => ("arm64", "v8"),
            "arm" => ("arm", "v7"),
            "powerpc64" => ("ppc64le", ""),
            other => (other, ""),
        };
        Self { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: variant.to_owned() }
    }

    /// With other spellings (`x86_64`, `aarch64`) and default variants replaced by the usual ones.
    #[must_use]
    pub fn normalised(os: &str, architecture: &str, variant: &str) -> Self {
        let os = os.to_ascii_lowercase();
        let architecture = architecture.to_ascii_lowercase();
        let (architecture, variant) = match (architecture.as_str(), variant) {
            ("x86_64" | "x86-64" | "amd64", "v1" | "") => ("amd64", ""),
            ("x86_64" | "x86-64", v) => ("amd64", v),
            ("aarch64" | "arm64", "" | "8" | "v8") => ("arm64", "v8"),
            ("aarch64", v) => ("arm64", v),
            ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
            ("armel", _) | ("arm", "6") => ("arm", "v6"),
            ("arm", "5") => ("arm", "v5"),
            ("i386" | "i686", _) => ("386", ""),
            (a, v) => (a, v),
        };
        Self { os, architecture: architecture.to_owned(), variant: variant.to_owned() }
    }

    /// How well an image for `self` serves a request for `wanted`: `None` not at all, higher is better.
    ///
    /// An image without variant serves any; an older arm variant runs on a newer one.
    pub fn serves(&self, wanted: &Self) -> Option<u32> {
        let (have, wanted) = (
            Self::normalised(&self.os, &self.architecture, &self.variant),
            Self::normalised(&wanted.os, &wanted.architecture, &wanted.variant),
        );
        if have.os != wanted.os || have.architecture != wanted.architecture {
            return None;
        }
        let level = |v: &str| v.trim_start_matches('v').parse::<u32>().unwrap_or(0);
        let (h, w) = (level(&have.variant), level(&wanted.variant));
        match h.cmp(&w) {
            std::cmp::Ordering::Equal => Some(1000),
            std::cmp::Ordering::Less => Some(h),
            std::cmp::Ordering::Greater => None,
        }
    }
}

impl FromStr for Platform {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bad = || NameError::Platform(text.to_owned());
        let parts: Vec<&str> = text.split('/').collect();
        if parts.iter().any(|part| {
            part.is_empty()
                || !part.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.'))
        }) {
            return Err(bad());
        }
        let host = Self::host();
        match parts.as_slice() {
            // One word is an operating system if we know it, else a processor.
            ["linux" | "windows" | "darwin" | "freebsd"] => {
                Ok(Self::normalised(parts[0], &host.architecture, &host.variant))
            }
            [architecture] => Ok(Self::normalised(&host.os, architecture, "")),
            [os, architecture] => Ok(Self::normalised(os, architecture, "")),
            [os, architecture, variant] => Ok(Self::normalised(os, architecture, variant)),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(text: &str) -> String {
        text.parse::<Reference>().map_or_else(|e| e.to_string(), |r| r.to_string())
    }

    #[test]
    fn references_normalise_as_docker_does() {
        assert_eq!(full("nginx"), "docker.io/library/nginx:latest");
        assert_eq!(full("nginx:1.27"), "docker.io/library/nginx:1.27");
        assert_eq!(full("user/app"), "docker.io/user/app:latest");
        assert_eq!(full("index.docker.io/user/app:x"), "docker.io/user/app:x");
        assert_eq!(full("localhost/app"), "localhost/app:latest");
        assert_eq!(full("localhost:5000/app:v1"), "localhost:5000/app:v1");
        assert_eq!(full("[::1]:5000/app"), "[::1]:5000/app:latest");
        assert_eq!(full("ghcr.io/a/b/c:1"), "ghcr.io/a/b/c:1");
        assert_eq!(full("a__b/c.d-e--f"), "docker.io/a__b/c.d-e--f:latest");
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(full(&format!("nginx@{digest}")), format!("docker.io/library/nginx@{digest}"));
        assert_eq!(full(&format!("nginx:1@{digest}")), format!("docker.io/library/nginx:1@{digest}"));
    }

    #[test]
    fn bad_references_are_refused() {
        for text in [
            "",
            ":",
            "a:",
            "a//b",
            "/a",
            "a/",
            "a b",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a@sha256:1",
            "a:b:c",
            "a:-x",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
        assert!(full("Nginx").contains("must be lowercase"), "{}", full("Nginx"));
        assert!(full(&"a".repeat(300)).contains("longer than 255"));
        assert!("0".repeat(64).parse::<Reference>().is_err());
    }

    #[test]
    fn the_familiar_form_is_what_people_type() {
        for text in ["nginx:latest", "user/app:1", "localhost:5000/x:y"] {
            assert_eq!(text.parse::<Reference>().expect("valid").familiar(), text);
        }
    }

    #[test]
    fn platforms_match_with_variants() {
        let p = |t: &str| t.parse::<Platform>().expect("valid");
        assert_eq!(p("linux/x86_64"), p("linux/amd64"));
        assert_eq!(p("linux/arm64").to_string(), "linux/arm64/v8");
        assert_eq!(p("linux/arm/v6").serves(&p("linux/arm/v7")), Some(6));
        assert_eq!(p("linux/arm/v7").serves(&p("linux/arm/v6")), None);
        assert_eq!(p("linux/amd64").serves(&p("linux/amd64")), Some(1000));
        assert_eq!(p("linux/arm64").serves(&p("linux/amd64")), None);
        assert!("linux//x".parse::<Platform>().is_err());
    }
}
