//! What happened to containers, as JSON lines that any number of processes append to and follow.
//!
//! Owns `run/events` and `run/events.1`. One event is one `write` to a file
//! opened with `O_APPEND`, so lines of different shims never mix. When the file
//! has grown over 4 MiB the writer that notices renames it; history goes back one
//! segment and is lost with the machine's uptime, as everything below `run/`.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::runtime::root::Root;
use crate::runtime::state::HealthStatus;
use crate::util::fs::{Lock, PathError};

/// Size at which a new segment is begun.
const SEGMENT: u64 = 4 << 20;

/// Something that happened to a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerEvent {
    /// When.
    pub time: Timestamp,
    /// Container id.
    pub id: String,
    /// Its name at that time.
    pub name: String,
    /// Image reference.
    pub image: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// What.
    pub action: Action,
}

/// The kinds of events. The words are Docker's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum Action {
    /// Made.
    Create,
    /// Main process executed.
    Start,
    /// Main process ended.
    Die {
        /// Exit code.
        code: i32,
        /// The restart policy will start it again.
        restarting: bool,
    },
    /// Killed for lack of memory.
    Oom,
    /// Stopped on request.
    Stop,
    /// Sent a signal.
    Kill {
        /// Its number.
        signal: i32,
    },
    /// Frozen.
    Pause,
    /// Thawed.
    Unpause,
    /// Stopped and started.
    Restart,
    /// Renamed.
    Rename,
    /// Gone.
    Destroy,
    /// Health changed.
    HealthStatus {
        /// To what.
        status: HealthStatus,
    },
    /// An extra process started.
    ExecStart {
        /// Its words, joined.
        command: String,
    },
    /// An extra process ended.
    ExecDie {
        /// Exit code.
        code: i32,
    },
}

/// Appends one event.
///
/// # Errors
/// The file cannot be written. Callers go on: an event that cannot be recorded must not stop a container.
pub fn emit(root: &Root, event: &ContainerEvent) -> Result<(), PathError> {
    let path = root.run().join("events");
    let mut line = serde_json::to_vec(event).map_err(PathError::at("encode", &path))?;
    line.push(b'\n');
    let mut file = File::options()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path)
        .map_err(PathError::at("open", &path))?;
    file.write_all(&line).map_err(PathError::at("write", &path))?;
    if file.metadata().is_ok_and(|m| m.len() > SEGMENT) {
        rotate(root, &path)?;
    }
    Ok(())
}

fn rotate(root: &Root, path: &Path) -> Result<(), PathError> {
    let _lock = Lock::exclusive(&root.run().join("events.lock"))?;
    if fs::metadata(path).is_ok_and(|m| m.len() > SEGMENT) {
        fs::rename(path, root.run().join("events.1")).map_err(PathError::at("rename", path))?;
    }
    Ok(())
}

/// Reads events in order, from a time or from now on, and goes on as they come.
///
/// Never blocks; wait with a [`crate::runtime::watch::Watch`] on the run directory.
#[derive(Debug)]
pub struct EventReader {
    dir: PathBuf,
    files: VecDeque<File>,
    held: Vec<u8>,
    since: Option<Timestamp>,
}

impl EventReader {
    /// Starts at the first event not before `since`, or behind the last one so far.
    ///
    /// # Errors
    /// An event file that exists cannot be read.
    pub fn open(root: &Root, since: Option<Timestamp>) -> Result<Self, PathError> {
        let dir = root.run().to_owned();
        let mut files = VecDeque::new();
        // Newest first, so that a rotation meanwhile loses nothing; a file seen twice is dropped.
        let newest = open(&dir.join("events"))?;
        let older = if since.is_some() || newest.is_none() { open(&dir.join("events.1"))? } else { None };
        let inode = |file: &Option<File>| file.as_ref().and_then(|f| f.metadata().ok()).map(|m| m.ino());
        if inode(&older) != inode(&newest) {
            files.extend(older);
        }
        files.extend(newest);
        let mut reader = Self { dir, files, held: Vec::new(), since };
        if since.is_none() {
            reader.skip()?;
        }
        Ok(reader)
    }

    /// All events that have happened since the last call; empty when there are none at present.
    ///
    /// # Errors
    /// An event file cannot be read.
    pub fn batch(&mut self) -> Result<Vec<ContainerEvent>, PathError> {
        let mut events = Vec::new();
        loop {
            if self.files.is_empty() {
                self.files.extend(open(&self.dir.join("events"))?);
            }
            let Some(file) = self.files.front_mut() else { break };
            let path = self.dir.join("events");
            file.read_to_end(&mut self.held).map_err(PathError::at("read", &path))?;
            let whole = memchr::memrchr(b'\n', &self.held).map_or(0, |at| at + 1);
            for line in self.held[..whole].split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
                // A line of a newer version with an action unknown here is passed over.
                let Ok(event) = serde_json::from_slice::<ContainerEvent>(line) else { continue };
                if self.since.is_none_or(|since| event.time >= since) {
                    events.push(event);
                }
            }
            self.held.drain(..whole);
            if self.files.len() > 1 {
                self.files.pop_front();
                continue;
            }
            // Rotated: what was appended to the old file before the rename was seen is still read.
            let ours = self.files.front().and_then(|f| f.metadata().ok());
            let named = fs::metadata(&path).ok();
            match (ours, named) {
                (Some(ours), Some(named)) if ours.ino() != named.ino() => {
                    if let Some(new) = open(&path)? {
                        self.files.push_back(new);
                        continue;
                    }
                }
                _ => {}
            }
            break;
        }
        Ok(events)
    }

    fn skip(&mut self) -> Result<(), PathError> {
        use std::io::Seek as _;
        let path = self.dir.join("events");
        for file in &mut self.files {
            file.seek(io::SeekFrom::End(0)).map_err(PathError::at("read", &path))?;
        }
        Ok(())
    }
}

fn open(path: &Path) -> Result<Option<File>, PathError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(PathError::at("open", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(n: i64, labels: usize) -> ContainerEvent {
        ContainerEvent {
            time: Timestamp::from_second(n).unwrap(),
            id: "1".repeat(64),
            name: "c".into(),
            image: "i".into(),
            labels: [("l".to_owned(), "x".repeat(labels))].into(),
            action: Action::Die { code: 1, restarting: false },
        }
    }

    #[test]
    fn followers_see_every_event_once_over_rotations() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(Some(dir.path()));
        fs::create_dir_all(root.run()).unwrap();
        let mut early = EventReader::open(&root, None).unwrap();
        assert!(early.batch().unwrap().is_empty());
        let mut seen = Vec::new();
        for n in 0..300 {
            emit(&root, &event(n, 40_000)).unwrap();
            if n % 50 == 0 {
                seen.extend(early.batch().unwrap());
            }
        }
        seen.extend(early.batch().unwrap());
        let times: Vec<_> = seen.iter().map(|e| e.time.as_second()).collect();
        assert_eq!(times, (0..300).collect::<Vec<_>>());
        assert!(dir.path().join("run/events.1").exists(), "it was rotated");

        let since = Timestamp::from_second(290).unwrap();
        let late = EventReader::open(&root, Some(since)).unwrap().batch().unwrap();
        assert_eq!(late.len(), 10);
        assert_eq!(late[0], event(290, 40_000));
        assert!(
            EventReader::open(&root, None).unwrap().batch().unwrap().is_empty(),
            "only what comes from now on"
        );
    }
}
