//! Endpoint records: what other containers and commands have to know of one
//! container on one network. Name services answer from them, and the table is
//! rebuilt from them.

use std::net::IpAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::NetworkError;
use super::plan::Publish;
use super::store::names_dir;
use crate::runtime::root::Root;
use crate::util::files;
use crate::util::fs;

/// Version of the file.
pub(super) const VERSION: u32 = 1;

/// Content of `networks/<id>/names/<container id>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Format version, 1.
    pub(crate) version: u32,
    /// Container id.
    pub(crate) container: String,
    /// Container name.
    pub(crate) name: String,
    /// Boot id; the record is void after the next boot.
    pub(crate) boot: String,
    /// Addresses on this network.
    pub(crate) addresses: Vec<IpAddr>,
    /// DNS names on this network, the container's name first.
    pub(crate) names: Vec<String>,
    /// Ports published for this endpoint.
    pub(crate) ports: Vec<Publish>,
}

impl Record {
    /// Reads one record; `None` when it does not exist or is no record.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        let record: Self = serde_json::from_slice(&files::read_opt(path).ok()??).ok()?;
        (record.version == VERSION).then_some(record)
    }

    /// Writes the record; it appears whole, replacing an older one.
    pub(super) fn write(&self, root: &Root, network: &str) -> Result<(), NetworkError> {
        Ok(fs::write_json(&names_dir(root, network).join(&self.container), self, false)?)
    }
}

/// The records of a network that count: this boot's, of containers that exist. The newest come last.
pub(super) fn live(root: &Root, network: &str, boot: &str) -> Result<Vec<Record>, NetworkError> {
    let dir = names_dir(root, network);
    let names = match files::names(&dir) {
        Ok(names) => names,
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found: Vec<(std::time::SystemTime, Record)> = names
        .iter()
        .filter(|name| !name.starts_with('.'))
        .filter_map(|name| {
            let path = dir.join(name);
            Some((std::fs::metadata(&path).ok()?.modified().ok()?, Record::read(&path)?))
        })
        .filter(|(_, record)| record.boot == boot && root.has(&record.container))
        .collect();
    found.sort_by_key(|(modified, _)| *modified);
    Ok(found.into_iter().map(|(_, record)| record).collect())
}

/// Removes the record of a container; it may be gone already.
pub(super) fn remove(root: &Root, network: &str, container: &str) -> Result<(), NetworkError> {
    Ok(files::remove_file(&names_dir(root, network).join(container))?)
}
