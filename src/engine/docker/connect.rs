//! Which Engine is meant: `-H`, `DOCKER_HOST`, `--context`, `DOCKER_CONTEXT`, the current context.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::engine::{EngineError, Result};

/// Where the Docker command line would connect to. Filled by the command line from flags and environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DockerAddress {
    /// `-H` or `DOCKER_HOST`; wins over a context.
    pub host: Option<String>,
    /// `--context` or `DOCKER_CONTEXT`.
    pub context: Option<String>,
    /// `DOCKER_TLS_VERIFY` is set: TLS also for `tcp://`, with the certificates of `DOCKER_CERT_PATH`.
    pub tls_verify: bool,
    /// `DOCKER_CONFIG`, else `~/.docker`.
    pub config_dir: Option<PathBuf>,
}

/// The default socket.
pub(super) const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

#[derive(Deserialize)]
struct Meta {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Endpoints")]
    endpoints: Endpoints,
}

#[derive(Deserialize)]
struct Endpoints {
    docker: Endpoint,
}

#[derive(Deserialize)]
struct Endpoint {
    #[serde(rename = "Host")]
    host: String,
}

#[derive(Deserialize, Default)]
struct Config {
    #[serde(rename = "currentContext", default)]
    current_context: String,
}

impl DockerAddress {
    /// The URL to connect to, in the Docker command line's order of precedence.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] when a named context does not exist or cannot be read.
    pub fn url(&self) -> Result<String> {
        if let Some(host) = self.host.as_deref().filter(|host| !host.is_empty()) {
            return Ok(host.to_owned());
        }
        let Some(dir) = &self.config_dir else { return Ok(DEFAULT_HOST.to_owned()) };
        let name = match self.context.clone().filter(|name| !name.is_empty()) {
            Some(name) => name,
            // A broken config.json is reported by whoever needs credentials from it.
            None => {
                std::fs::read(dir.join("config.json"))
                    .ok()
                    .and_then(|text| serde_json::from_slice::<Config>(&text).ok())
                    .unwrap_or_default()
                    .current_context
            }
        };
        if name.is_empty() || name == "default" {
            return Ok(DEFAULT_HOST.to_owned());
        }
        context_host(dir, &name)
    }
}

/// Contexts lie in directories named by a hash of their name; each says its name inside.
fn context_host(dir: &Path, name: &str) -> Result<String> {
    let root = dir.join("contexts/meta");
    let entries = std::fs::read_dir(&root).map(|entries| entries.flatten().collect::<Vec<_>>());
    for entry in entries.unwrap_or_default() {
        let path = entry.path().join("meta.json");
        let Ok(text) = std::fs::read(&path) else { continue };
        match serde_json::from_slice::<Meta>(&text) {
            Ok(meta) if meta.name == name => return Ok(meta.endpoints.docker.host),
            _ => {}
        }
    }
    Err(EngineError::Invalid(format!(
        "docker context `{name}` not found under `{}`; `docker context ls` lists those there are",
        root.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_beats_context_beats_current_context() {
        let dir = tempfile::tempdir().unwrap();
        let meta = dir.path().join("contexts/meta/abc");
        std::fs::create_dir_all(&meta).unwrap();
        std::fs::write(
            meta.join("meta.json"),
            r#"{"Name":"far","Metadata":{},"Endpoints":{"docker":{"Host":"tcp://127.0.0.1:1","SkipTLSVerify":false}}}"#,
        )
        .unwrap();
        std::fs::write(dir.path().join("config.json"), r#"{"currentContext":"far"}"#).unwrap();
        let mut address =
            DockerAddress { config_dir: Some(dir.path().to_owned()), ..DockerAddress::default() };
        assert_eq!(address.url().unwrap(), "tcp://127.0.0.1:1");
        address.context = Some("default".to_owned());
        assert_eq!(address.url().unwrap(), DEFAULT_HOST);
        address.context = Some("nowhere".to_owned());
        assert!(address.url().unwrap_err().to_string().contains("`nowhere` not found"));
        address.host = Some("unix:///x".to_owned());
        assert_eq!(address.url().unwrap(), "unix:///x");
    }
}
