//! Where containers are on disk: directories, names, locks, and reading and writing their files.
//!
//! Owns `containers/`, `names/` and the run directories. Starts nothing and
//! decides nothing; the order in which things appear and vanish is here because
//! any process may be killed in between:
//!
//! ```text
//! names/<name>                the id; made by hard link, so a name has one owner
//! containers/.creating        flock: shared while a container is being created, exclusive to sweep half-made ones
//! containers/<id>/spec.json   Record. Written last at creation: without it the directory is half-made
//! containers/<id>/state.json  State
//! containers/<id>/volumes     names of the anonymous volumes made for it; read only while there is no spec.json
//! containers/<id>/lock        flock: start, remove, rename, connect: one command at a time
//! containers/<id>/log, log.1 … hosts, hostname, resolv.conf, upper/, work/
//! run/c/<id>/lock             flock: the shim, from before it exists (the command takes it and hands it over)
//! run/c/<id>/plan             ShimPlan: what was started; enough to restart, to take over, to clean up
//! run/c/<id>/ctl              control socket
//! run/c/<id>/out, err, in     FIFOs of the standard streams
//! ```
//! `run/c/<id>` exists from before a start until after its clean-up, so what
//! has to be repaired after a crash is exactly the entries there whose lock is free.

use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::runtime::error::{Result, RuntimeError};
use crate::runtime::root::Root;
use crate::runtime::state::{FORMAT, Record, State};
use crate::util::files;
use crate::util::fs::{self, Lock, PathError};

/// The containers of one root.
#[derive(Debug, Clone)]
pub struct Containers {
    root: Root,
}

impl Containers {
    /// Those of this root. Touches nothing.
    pub fn new(root: &Root) -> Self {
        Self { root: root.clone() }
    }

    /// The root.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Makes the directories that hold containers, for the owner only.
    ///
    /// # Errors
    /// They cannot be made.
    pub fn make_directories(&self) -> Result<()> {
        for dir in [self.root.containers(), self.names_dir(), self.root.live()] {
            make_private(&dir)?;
        }
        fs::spread(&self.root.containers());
        fs::spread(&self.root.live());
        Ok(())
    }

    /// A container's directory.
    pub fn dir(&self, id: &str) -> PathBuf {
        self.root.containers().join(id)
    }

    /// A container's run directory.
    pub fn live_dir(&self, id: &str) -> PathBuf {
        self.root.live().join(id)
    }

    /// Puts on record that a container in the making is about to get an anonymous volume.
    ///
    /// # Errors
    /// The file `volumes` in its directory cannot be written.
    pub fn promise_volume(&self, id: &str, volume: &str) -> Result<()> {
        let path = self.dir(id).join("volumes");
        let file = std::fs::OpenOptions::new().append(true).create(true).open(&path);
        let written = file.and_then(|mut file| file.write_all(format!("{volume}\n").as_bytes()));
        Ok(written.map_err(PathError::at("write", &path))?)
    }

    /// The anonymous volumes promised to a container in the making. Once it is made, its record
    /// is what counts.
    ///
    /// # Errors
    /// The file `volumes` in its directory cannot be read.
    pub fn promised_volumes(&self, id: &str) -> Result<Vec<String>> {
        let text = files::read_opt(&self.dir(id).join("volumes"))?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&text).lines().map(str::to_owned).collect())
    }

    /// Where names are.
    pub fn names_dir(&self) -> PathBuf {
        self.root.data().join("names")
    }

    /// All ids, half-made containers included, in no order.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn ids(&self) -> Result<Vec<String>> {
        let mut ids = files::names(&self.root.containers())?;
        ids.retain(|id| is_id(id));
        Ok(ids)
    }

    /// Ids that have a run directory.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn live_ids(&self) -> Result<Vec<String>> {
        let mut ids = files::names(&self.root.live())?;
        ids.retain(|id| is_id(id));
        Ok(ids)
    }

    /// The container of that name, id, or beginning of an id.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`], [`RuntimeError::Ambiguous`].
    pub fn resolve(&self, asked: &str) -> Result<String> {
        let asked = asked.strip_prefix('/').unwrap_or(asked);
        if is_id(asked) && self.dir(asked).join("spec.json").exists() {
            return Ok(asked.to_owned());
        }
        if let Some(id) = self.by_name(asked)? {
            return Ok(id);
        }
        if !asked.is_empty() && asked.bytes().all(|c| c.is_ascii_hexdigit()) {
            let mut found = self.ids()?;
            found.retain(|id| id.starts_with(asked) && self.dir(id).join("spec.json").exists());
            match found.len() {
                0 => {}
                1 => return Ok(found.remove(0)),
                _ => return Err(RuntimeError::Ambiguous(asked.to_owned())),
            }
        }
        Err(RuntimeError::NotFound(asked.to_owned()))
    }

    /// The id of a name; none when it is free or its owner is half-made.
    ///
    /// # Errors
    /// The name's file cannot be read.
    pub fn by_name(&self, name: &str) -> Result<Option<String>> {
        if check_name(name).is_err() {
            return Ok(None);
        }
        let Some(id) = files::read_opt(&self.names_dir().join(name))? else { return Ok(None) };
        let id = String::from_utf8_lossy(&id).into_owned();
        Ok((is_id(&id) && self.dir(&id).join("spec.json").exists()).then_some(id))
    }

    /// Takes a name for an id; gives the present owner when it is taken.
    ///
    /// # Errors
    /// The name is not one, or its file cannot be made.
    pub fn claim_name(&self, name: &str, id: &str) -> Result<std::result::Result<(), String>> {
        check_name(name)?;
        let path = self.names_dir().join(name);
        if files::claim(&path, id.as_bytes())? {
            return Ok(Ok(()));
        }
        let owner = files::read_opt(&path)?.unwrap_or_default();
        Ok(Err(String::from_utf8_lossy(&owner).into_owned()))
    }

    /// Gives a name back if it is this container's.
    ///
    /// # Errors
    /// The name's file cannot be removed.
    pub fn free_name(&self, name: &str, id: &str) -> Result<()> {
        let path = self.names_dir().join(name);
        if files::read_opt(&path)?.is_some_and(|owner| owner == id.as_bytes()) {
            files::remove_file(&path)?;
        }
        Ok(())
    }

    /// A container's record; none when there is no such container (or a half-made one).
    ///
    /// # Errors
    /// [`RuntimeError::Newer`], [`RuntimeError::Damaged`], or it cannot be read.
    pub fn record(&self, id: &str) -> Result<Option<Record>> {
        read_versioned(&self.dir(id).join("spec.json"))
    }

    /// A container's state; none when there is no such container.
    ///
    /// # Errors
    /// As [`Containers::record`].
    pub fn state(&self, id: &str) -> Result<Option<State>> {
        read_versioned(&self.dir(id).join("state.json"))
    }

    /// Replaces a record. The caller holds the container's lock, or creates it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_record(&self, record: &Record) -> Result<()> {
        Ok(write(&self.dir(&record.id).join("spec.json"), record)?)
    }

    /// Replaces a state. The caller holds the run directory's lock, or creates the container.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_state(&self, id: &str, state: &State) -> Result<()> {
        Ok(write(&self.dir(id).join("state.json"), state)?)
    }

    /// Waits for the lock under which commands change this container.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] when it is gone.
    pub fn lock(&self, id: &str) -> Result<Lock> {
        match Lock::exclusive(&self.dir(id).join("lock")) {
            Ok(lock) => Ok(lock),
            Err(error) if error.is_not_found() => Err(RuntimeError::NotFound(id.to_owned())),
            Err(error) => Err(error.into()),
        }
    }

    /// The lock of [`Containers::lock`] if nobody holds it.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] when the container is gone.
    pub fn try_lock(&self, id: &str) -> Result<Option<Lock>> {
        match Lock::try_exclusive(&self.dir(id).join("lock")) {
            Ok(lock) => Ok(lock),
            Err(error) if error.is_not_found() => Err(RuntimeError::NotFound(id.to_owned())),
            Err(error) => Err(error.into()),
        }
    }

    /// The lock that a shim holds while it lives: `Some` when there is none alive.
    ///
    /// With `make` the run directory is made if missing; without, a missing one gives [`Liveness::Absent`].
    ///
    /// # Errors
    /// The directory or the lock cannot be made.
    pub fn liveness(&self, id: &str, make: bool) -> Result<Liveness> {
        let dir = self.live_dir(id);
        loop {
            if make {
                make_private(&dir)?;
            }
            return match Lock::try_exclusive(&dir.join("lock")) {
                Ok(Some(lock)) => Ok(Liveness::Free(lock)),
                Ok(None) => Ok(Liveness::Alive),
                Err(error) if error.is_not_found() => {
                    if make {
                        continue;
                    }
                    Ok(Liveness::Absent)
                }
                Err(error) => Err(error.into()),
            };
        }
    }

    /// Blocks until no shim of this container is alive.
    ///
    /// # Errors
    /// The lock cannot be opened.
    pub fn wait_for_shim_to_end(&self, id: &str) -> Result<()> {
        match Lock::shared(&self.live_dir(id).join("lock")) {
            Ok(_lock) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether a container has a shim.
#[derive(Debug)]
pub enum Liveness {
    /// A shim is alive, or a command is about to hand its lock to one.
    Alive,
    /// The run directory is there and nobody is: a start or a repair may begin under this lock.
    Free(Lock),
    /// There is no run directory.
    Absent,
}

/// Whether a word is a full id.
pub fn is_id(word: &str) -> bool {
    word.len() == 64 && word.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
}

/// Docker's rule for container names.
///
/// # Errors
/// [`RuntimeError::Name`].
pub fn check_name(name: &str) -> Result<()> {
    let mut bytes = name.bytes();
    let good = bytes.next().is_some_and(|c| c.is_ascii_alphanumeric())
        && name.len() > 1
        && name.len() <= 255
        && bytes.all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-'));
    if good { Ok(()) } else { Err(RuntimeError::Name(name.to_owned())) }
}

fn make_private(dir: &Path) -> std::result::Result<(), PathError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(PathError::at("create the directory", dir))
}

/// Compact, because `ps` reads all of them; the format is described by the types.
fn write<T: serde::Serialize>(path: &Path, value: &T) -> std::result::Result<(), PathError> {
    let mut text = serde_json::to_vec(value).map_err(PathError::at("encode", path))?;
    text.push(b'\n');
    fs::write_atomic(path, &text, false)
}

fn read_versioned<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    #[derive(serde::Deserialize)]
    struct Version {
        version: u32,
    }
    let Some(text) = files::read_opt(path)? else { return Ok(None) };
    match serde_json::from_slice(&text) {
        Ok(value) => Ok(Some(value)),
        Err(source) => match serde_json::from_slice::<Version>(&text) {
            Ok(Version { version }) if version > FORMAT => {
                Err(RuntimeError::Newer { path: path.to_owned(), found: version })
            }
            _ => Err(RuntimeError::Damaged { path: path.to_owned(), source }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_docker_s() {
        for good in ["web-1", "a.b_c", "0a"] {
            check_name(good).unwrap();
        }
        for bad in ["", "a", "-a", "a/b", "..", "a b", "ä1"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_of_a_half_made_container_resolves_to_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let containers = Containers::new(&Root::new(Some(dir.path())));
        containers.make_directories().unwrap();
        let id = crate::util::ids::random_hex(32);
        assert_eq!(containers.claim_name("web", &id).unwrap(), Ok(()));
        assert_eq!(containers.claim_name("web", "other").unwrap(), Err(id.clone()));
        assert!(matches!(containers.resolve("web"), Err(RuntimeError::NotFound(_))));
        std::fs::create_dir(containers.dir(&id)).unwrap();
        std::fs::write(containers.dir(&id).join("spec.json"), "{}").unwrap();
        assert_eq!(containers.resolve("web").unwrap(), id);
        assert_eq!(containers.resolve("/web").unwrap(), id);
        assert_eq!(containers.resolve(&id[..6]).unwrap(), id);
        containers.free_name("web", "other").unwrap();
        assert_eq!(containers.by_name("web").unwrap(), Some(id), "only the owner gives a name back");
    }

    #[test]
    fn files_of_a_newer_version_are_told_from_damaged_ones() {
        let dir = tempfile::tempdir().unwrap();
        let containers = Containers::new(&Root::new(Some(dir.path())));
        std::fs::create_dir_all(containers.dir("x")).unwrap();
        let path = containers.dir("x").join("state.json");
        std::fs::write(&path, r#"{"version":99,"other":1}"#).unwrap();
        assert!(matches!(containers.state("x"), Err(RuntimeError::Newer { found: 99, .. })));
        std::fs::write(&path, "{\"versi").unwrap();
        assert!(matches!(containers.state("x"), Err(RuntimeError::Damaged { .. })));
    }

    #[test]
    fn a_held_lock_means_alive() {
        let dir = tempfile::tempdir().unwrap();
        let containers = Containers::new(&Root::new(Some(dir.path())));
        assert!(matches!(containers.liveness("x", false).unwrap(), Liveness::Absent));
        let Liveness::Free(lock) = containers.liveness("x", true).unwrap() else { panic!("nobody holds it") };
        assert!(matches!(containers.liveness("x", true).unwrap(), Liveness::Alive));
        drop(lock);
        containers.wait_for_shim_to_end("x").unwrap();
        assert!(matches!(containers.liveness("x", false).unwrap(), Liveness::Free(_)));
    }
}
