//! Talking to registries: the OCI distribution protocol over HTTP, blocking, by `ureq`.
//!
//! Owns requests, authentication, retries and redirects. Knows nothing of the
//! store. A token or password goes to the host it is meant for and to no other.

mod auth;
mod blob;
mod client;
mod credentials;
mod login;
mod lookup;
mod proxy;
mod trust;
mod upload;
mod url;
mod web;

pub(crate) use blob::Blob;
pub(crate) use client::{Access, Client};
pub use credentials::{Credential, Credentials};
pub use login::check_login;
pub(crate) use upload::{Mounted, UploadError};
pub(crate) use web::agent as web_agent;

use super::reference::{DOCKER_HUB, NameError, Platform};
use crate::runtime::network::Cidr;

/// How registries are reached.
#[derive(Debug, Clone, Default)]
pub struct Registries {
    /// Who we are there.
    pub credentials: Credentials,
    /// Hosts (with or without port) and CIDR blocks that may be spoken to in plain HTTP or with a
    /// certificate that cannot be verified. Loopback addresses always may.
    pub insecure: Vec<String>,
    /// What is asked before a registry, in this order; only for reading.
    pub mirrors: Vec<Mirror>,
}

/// A copy of a registry, or a cache before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Host of the registry whose images it has.
    pub of: String,
    /// Base URL.
    pub url: String,
}

impl Registries {
    /// As this machine and user have it.
    ///
    /// - Credentials: Docker's `config.json` (`$DOCKER_CONFIG` or `~/.docker`).
    /// - Mirrors: `$HOIST_REGISTRY_MIRRORS`, a list of `URL` (of Docker Hub) or `REGISTRY=URL`
    ///   separated by commas, then `registry-mirrors` of `/etc/docker/daemon.json`.
    /// - Insecure registries: `$HOIST_INSECURE_REGISTRIES`, hosts or CIDR blocks separated by
    ///   commas, and `insecure-registries` of `/etc/docker/daemon.json`.
    ///
    /// What is not there is not used.
    ///
    /// # Errors
    /// [`RegistryError::Settings`] if a file is there and cannot be understood;
    /// [`RegistryError::Mirror`] for a variable that makes no sense.
    pub fn from_environment() -> Result<Self, RegistryError> {
        #[derive(Default, serde::Deserialize)]
        #[serde(default, rename_all = "kebab-case")]
        struct Daemon {
            registry_mirrors: Vec<String>,
            insecure_registries: Vec<String>,
        }
        let path = std::path::Path::new("/etc/docker/daemon.json");
        let daemon: Daemon =
            crate::util::fs::read_json(path).map_err(RegistryError::Settings)?.unwrap_or_default();
        let list = |name: &str| -> Vec<String> {
            let text = std::env::var(name).unwrap_or_default();
            text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
        };
        let mut mirrors: Vec<Mirror> =
            list("HOIST_REGISTRY_MIRRORS").iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
        let hub = |url: String| Mirror { of: DOCKER_HUB.to_owned(), url };
        mirrors.extend(daemon.registry_mirrors.into_iter().map(hub));
        let mut insecure = list("HOIST_INSECURE_REGISTRIES");
        insecure.extend(daemon.insecure_registries);
        Ok(Self { credentials: Credentials::from_environment()?, insecure, mirrors })
    }

    /// Base URLs to ask before a registry.
    fn mirrors_of(&self, registry: &str) -> impl Iterator<Item = &str> {
        self.mirrors.iter().filter(move |mirror| mirror.of == registry).map(|mirror| mirror.url.as_str())
    }

    /// Whether a host (with port, if it has one) may be spoken to without verified encryption.
    fn is_insecure(&self, registry: &str) -> bool {
        let name = url::name_of(registry);
        let address = name.parse::<std::net::IpAddr>().ok();
        self.insecure.iter().any(|known| {
            let block = || known.parse::<Cidr>().ok().zip(address);
            known == registry || known == name || block().is_some_and(|(block, ip)| block.contains(ip))
        })
    }
}

impl std::str::FromStr for Mirror {
    type Err = RegistryError;

    /// `URL` is a mirror of Docker Hub, `REGISTRY=URL` of that registry.
    fn from_str(text: &str) -> Result<Self, RegistryError> {
        let (of, url) = match text.split_once('=') {
            Some((of, url)) if !of.contains("://") => (of.trim(), url.trim()),
            _ => (DOCKER_HUB, text),
        };
        if of.is_empty() || !(url.starts_with("https://") || url.starts_with("http://")) {
            return Err(RegistryError::Mirror(text.to_owned()));
        }
        Ok(Self { of: of.to_owned(), url: url.to_owned() })
    }
}

/// A registry did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No such image there, or none that we may see.
    #[error(
        "image `{image}` was not found in registry {registry}; check name and tag, \
         and for a private image log in with `hoist login {registry}`"
    )]
    NotFound {
        /// Reference, familiar form.
        image: String,
        /// Host.
        registry: String,
    },
    /// We may not.
    #[error("registry {registry} denies access to `{image}`: {reason}; log in with `hoist login {registry}`")]
    Denied {
        /// Reference, familiar form.
        image: String,
        /// Host.
        registry: String,
        /// What the registry says.
        reason: String,
    },
    /// It cannot be reached at all.
    #[error("cannot reach registry {host}; check the network, DNS and proxy settings")]
    Connect {
        /// Host.
        host: String,
        /// Why.
        #[source]
        source: Box<ureq::Error>,
    },
    /// An answer that is no success.
    #[error("registry {host} answered {status} to {what}{}", message(.reason))]
    Status {
        /// Host.
        host: String,
        /// HTTP status.
        status: u16,
        /// The request.
        what: String,
        /// What the registry says.
        reason: String,
    },
    /// An answer that makes no sense.
    #[error("registry {host} gave an answer that cannot be understood: {what}")]
    Answer {
        /// Host.
        host: String,
        /// What is wrong.
        what: String,
    },
    /// Only other platforms.
    #[error("image `{image}` is not available for {wanted}, only for {}", list(.found))]
    Platform {
        /// Reference, familiar form.
        image: String,
        /// Asked for.
        wanted: Platform,
        /// What there is.
        found: Vec<Platform>,
    },
    /// A helm chart, a signature, ….
    #[error("`{image}` is not a container image but {what}")]
    NotAnImage {
        /// Reference, familiar form.
        image: String,
        /// What it is.
        what: String,
    },
    /// It does not accept a credential.
    #[error("login to {registry} was refused: {reason}")]
    Login {
        /// Host.
        registry: String,
        /// What the registry says.
        reason: String,
    },
    /// A mirror in `$HOIST_REGISTRY_MIRRORS` is none.
    #[error("invalid mirror `{0}` in HOIST_REGISTRY_MIRRORS: expected URL or REGISTRY=URL")]
    Mirror(String),
    /// A credential helper failed.
    #[error("credential helper `docker-credential-{helper}` failed: {reason}")]
    Helper {
        /// Its name.
        helper: String,
        /// What it says.
        reason: String,
    },
    /// A file with settings is there and cannot be used.
    #[error(transparent)]
    Settings(crate::util::fs::PathError),
    /// A certificate of `certs.d` cannot be used.
    #[error("cannot use the certificate `{path}`")]
    Certificate {
        /// File.
        path: String,
        /// Why.
        #[source]
        source: Box<ureq::Error>,
    },
    /// A name does not parse.
    #[error(transparent)]
    Name(#[from] NameError),
}

fn message(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

fn list(platforms: &[Platform]) -> String {
    platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
