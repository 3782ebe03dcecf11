//! Talking to registries: the OCI distribution protocol over HTTP, blocking, by `ureq`.
//!
//! Owns requests, authentication, retries and redirects. Knows nothing of the
//! store. A token or password goes to the host it is meant for and to no other.

mod client;
mod credentials;
mod lookup;
mod trust;
mod web;

pub(crate) use client::{Blob, Client};
pub use credentials::{Credential, Credentials};
pub(crate) use web::agent as web_agent;

use super::reference::{NameError, Platform};

/// How registries are reached.
#[derive(Debug, Clone, Default)]
pub struct Registries {
    /// Who we are there.
    pub credentials: Credentials,
    /// Hosts (with port) that may be spoken to in plain HTTP or with a certificate that cannot be
    /// verified. Loopback addresses always may.
    pub insecure: Vec<String>,
    /// Base URLs that are asked before Docker Hub.
    pub mirrors: Vec<String>,
}

impl Registries {
    /// As the Docker installation of this machine and user has it: `config.json`
    /// (`$DOCKER_CONFIG` or `~/.docker`), and `registry-mirrors` and
    /// `insecure-registries` of `/etc/docker/daemon.json`. What is not there is not used.
    ///
    /// # Errors
    /// [`RegistryError::Settings`] if a file is there and cannot be understood.
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
        Ok(Self {
            credentials: Credentials::from_environment()?,
            insecure: daemon.insecure_registries,
            mirrors: daemon.registry_mirrors,
        })
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
