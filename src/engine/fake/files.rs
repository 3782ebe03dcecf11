//! The files of a fake container: paths and content, nothing else.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};

use super::{ArchiveSink, ArchiveSource, EngineError, PathState, Result, not_found};
use crate::engine::PathKind;

/// Paths without slashes around them; a directory has no content.
#[derive(Debug, Clone, Default)]
pub(super) struct Files(BTreeMap<String, Option<Vec<u8>>>);

/// An entry of an archive: its name, and its content unless it is a directory.
pub(super) type Entry = (String, Option<Vec<u8>>);

impl Files {
    /// The paths of all files, absolute, with their content.
    pub(super) fn all(&self) -> BTreeMap<String, Vec<u8>> {
        let files = self.0.iter().filter_map(|(path, content)| Some((path, content.as_ref()?)));
        files.map(|(path, content)| (format!("/{path}"), content.clone())).collect()
    }

    pub(super) fn state(&self, path: &str) -> Option<PathState> {
        let path = clean(path);
        if path.is_empty() {
            return Some(PathState { kind: PathKind::Directory, ..PathState::default() });
        }
        match self.0.get(&path) {
            Some(Some(content)) => {
                Some(PathState { kind: PathKind::File, size: content.len() as u64, link: None })
            }
            Some(None) => Some(PathState { kind: PathKind::Directory, ..PathState::default() }),
            None => None,
        }
    }

    pub(super) fn pack(&self, path: &str) -> Result<Vec<u8>> {
        let whole = clean(path);
        let name = match whole.rsplit('/').next() {
            Some(name) if !name.is_empty() && !path.ends_with("/.") => name,
            _ => ".",
        };
        if self.state(path).is_none() {
            return Err(not_found("file or directory", path));
        }
        let mut archive = tar::Builder::new(Vec::new());
        for (below, content) in &self.0 {
            let Some(rest) =
                below.strip_prefix(&whole).filter(|r| r.is_empty() || r.starts_with('/') || whole.is_empty())
            else {
                continue;
            };
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o755);
            let bytes = content.as_deref().unwrap_or_default();
            header.set_size(bytes.len() as u64);
            if content.is_none() {
                header.set_entry_type(tar::EntryType::Directory);
            }
            let entry = format!("{name}/{}", rest.trim_start_matches('/'));
            archive.append_data(&mut header, entry.trim_end_matches('/'), bytes).map_err(failed)?;
        }
        archive.into_inner().map_err(failed)
    }

    pub(super) fn unpack(&mut self, directory: &str, entries: Vec<Entry>) {
        for (name, content) in entries {
            let path = clean(&format!("{directory}/{name}"));
            let parents = path.match_indices('/').map(|(at, _)| path[..at].to_owned());
            for parent in parents.collect::<Vec<_>>() {
                self.0.entry(parent).or_insert(None);
            }
            if !path.is_empty() {
                self.0.insert(path, content);
            }
        }
    }

    pub(super) fn delete(&mut self, path: &str) {
        let path = clean(path);
        let below = format!("{path}/");
        self.0.retain(|known, _| *known != path && !known.starts_with(&below));
    }
}

/// Writes an archive out.
pub(super) fn write(mut sink: ArchiveSink, archive: &[u8]) -> Result<()> {
    sink.write_all(archive).and_then(|()| sink.flush()).map_err(failed)
}

/// Takes an archive apart. Links are kept as files that hold their target.
pub(super) fn read(source: ArchiveSource) -> Result<Vec<Entry>> {
    let mut archive = tar::Archive::new(source);
    let mut entries = Vec::new();
    for entry in archive.entries().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        let name = entry.path().map_err(failed)?.to_string_lossy().into_owned();
        let content = match entry.link_name().map_err(failed)? {
            _ if entry.header().entry_type().is_dir() => None,
            Some(target) => Some(target.to_string_lossy().into_owned().into_bytes()),
            None => {
                let mut content = Vec::new();
                entry.read_to_end(&mut content).map_err(failed)?;
                Some(content)
            }
        };
        entries.push((name, content));
    }
    Ok(entries)
}

fn failed(source: std::io::Error) -> EngineError {
    EngineError::Failed { step: "cannot handle the archive".into(), source: Box::new(source) }
}

/// Without empty and `.` parts, so without slashes around it.
fn clean(path: &str) -> String {
    path.split('/').filter(|part| !matches!(*part, "" | ".")).collect::<Vec<_>>().join("/")
}
