//! Named and anonymous volumes.
//!
//! Owns `volumes/<name>/` of the data tree:
//!
//! ```text
//! volumes/<name>/config   JSON: driver options, labels, creation time, whether it is anonymous
//! volumes/<name>/data/    its content (not used when `device` says where it is)
//! volumes/<name>/lock     flock: exclusive while it is filled from an image or mounted
//! volumes/<name>/filling  there while it is being filled: a killed copy is completed later
//! ```
//!
//! The record exists before the data directory and goes after it. Who mounts
//! a volume is not known here: removal asks a callback.

mod attach;
mod copy;

pub use attach::Attached;
pub use copy::{CopyError, copy_tree};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::runtime::root::Root;
use crate::spec::VolumeSpec;
use crate::util::fs::{self, PathError};
use crate::util::{files, ids};

/// Something about volumes failed.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The name has characters Docker refuses, too.
    #[error("invalid volume name `{0}`: at least two characters, only [a-zA-Z0-9][a-zA-Z0-9_.-]")]
    Name(String),
    /// There is no such volume.
    #[error("no such volume: {0}")]
    NotFound(String),
    /// It exists with other options.
    #[error("volume `{name}` exists already with different {what}; remove it first or use another name")]
    Conflict {
        /// Its name.
        name: String,
        /// `driver options`.
        what: &'static str,
    },
    /// Only `local` is built in.
    #[error("volume `{name}` wants driver `{driver}`; only `local` is available")]
    Driver {
        /// Its name.
        name: String,
        /// The driver.
        driver: String,
    },
    /// A driver option is unknown.
    #[error("volume `{name}`: invalid option `{option}`: the local driver has `type`, `device`, `o`")]
    Option {
        /// Its name.
        name: String,
        /// The option's key.
        option: String,
    },
    /// A needed driver option is not there.
    #[error("volume `{name}`: missing required option `{option}`")]
    Missing {
        /// Its name.
        name: String,
        /// The option's key.
        option: &'static str,
    },
    /// Containers mount it.
    #[error("volume `{name}` is in use by {}", users.join(", "))]
    InUse {
        /// Its name.
        name: String,
        /// Names or ids of containers.
        users: Vec<String>,
    },
    /// Its device is not there or cannot be mounted.
    #[error("volume `{name}`: cannot mount `{device}`")]
    Device {
        /// Its name.
        name: String,
        /// `device` of its options.
        device: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The image's content cannot be copied into it.
    #[error("cannot fill volume `{name}` from the image")]
    Copy {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: CopyError,
    },
    /// The image's layers cannot be shown as one tree.
    #[error("cannot merge the image's layers")]
    Layers(#[source] Box<crate::runtime::mount::MountError>),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] PathError),
}

/// Result of volume operations.
pub type Result<T> = std::result::Result<T, VolumeError>;

/// The volumes of one root.
#[derive(Debug, Clone)]
pub struct Volumes {
    dir: PathBuf,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Format of the file.
    version: u32,
    /// Unique name.
    pub name: String,
    /// `type`, `device`, `o` of the local driver, as given.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Made without a name, for one container.
    pub anonymous: bool,
    /// When it was made.
    pub created: Timestamp,
    /// Its data directory: what Docker calls the mountpoint.
    #[serde(skip)]
    pub data: PathBuf,
}

impl Volumes {
    /// The volumes of this root. Touches nothing.
    pub fn new(root: &Root) -> Self {
        Self { dir: root.volumes() }
    }

    /// Makes a volume; gives the one that is there if its options are the same.
    ///
    /// # Errors
    /// [`VolumeError::Name`], [`VolumeError::Driver`], [`VolumeError::Option`],
    /// [`VolumeError::Missing`] for what is asked; [`VolumeError::Conflict`] when it exists otherwise.
    pub fn create(&self, spec: &VolumeSpec) -> Result<Volume> {
        check_name(&spec.name)?;
        if let Some(driver) = spec.driver.as_deref().filter(|driver| !matches!(*driver, "" | "local")) {
            return Err(VolumeError::Driver { name: spec.name.clone(), driver: driver.to_owned() });
        }
        check_options(&spec.name, &spec.driver_opts)?;
        self.make(Volume {
            version: 1,
            name: spec.name.clone(),
            options: spec.driver_opts.clone(),
            labels: spec.labels.clone(),
            anonymous: false,
            created: Timestamp::now(),
            data: PathBuf::new(),
        })
    }

    /// A name for [`Volumes::create_anonymous`]: 64 hex digits.
    pub fn random_name() -> String {
        ids::random_hex(32)
    }

    /// Makes a volume without a name of the user's, for one container. The caller chooses the
    /// name, so that it can be on record before there is a volume to lose.
    ///
    /// # Errors
    /// [`VolumeError::Option`], [`VolumeError::Missing`], [`VolumeError::File`].
    pub fn create_anonymous(
        &self,
        name: &str,
        labels: &BTreeMap<String, String>,
        driver_opts: &BTreeMap<String, String>,
    ) -> Result<Volume> {
        check_options(name, driver_opts)?;
        let mut labels = labels.clone();
        labels.insert("com.docker.volume.anonymous".to_owned(), String::new());
        self.make(Volume {
            version: 1,
            name: name.to_owned(),
            options: driver_opts.clone(),
            labels,
            anonymous: true,
            created: Timestamp::now(),
            data: PathBuf::new(),
        })
    }

    fn make(&self, volume: Volume) -> Result<Volume> {
        let dir = self.dir.join(&volume.name);
        fs::create_dir_all(&dir)?;
        let mut text =
            serde_json::to_vec_pretty(&volume).map_err(PathError::at("encode", &dir.join("config")))?;
        text.push(b'\n');
        // Two may make it at once: the first one's record counts for both. A repair may take the
        // directory away before it has one.
        for attempt in 0..10 {
            match files::claim(&dir.join("config"), &text) {
                Err(error) if error.is_not_found() && attempt < 9 => fs::create_dir_all(&dir)?,
                claimed => {
                    claimed?;
                    break;
                }
            }
        }
        let there = self.get(&volume.name)?.ok_or_else(|| VolumeError::NotFound(volume.name.clone()))?;
        if there.options != volume.options {
            return Err(VolumeError::Conflict { name: volume.name, what: "driver options" });
        }
        fs::create_dir_all(&there.data)?;
        Ok(there)
    }

    /// The volume of that name.
    ///
    /// # Errors
    /// [`VolumeError::File`] if its record cannot be read.
    pub fn get(&self, name: &str) -> Result<Option<Volume>> {
        if check_name(name).is_err() {
            return Ok(None);
        }
        let dir = self.dir.join(name);
        let volume: Option<Volume> = fs::read_json(&dir.join("config"))?;
        Ok(volume.map(|volume| Volume { data: dir.join("data"), ..volume }))
    }

    /// All volumes, by name.
    ///
    /// # Errors
    /// [`VolumeError::File`].
    pub fn list(&self) -> Result<Vec<Volume>> {
        let mut names = files::names(&self.dir)?;
        names.sort();
        let mut volumes = Vec::new();
        for name in names {
            volumes.extend(self.get(&name)?);
        }
        Ok(volumes)
    }

    /// Bytes of the files in a volume's own data directory; 0 for one whose content is elsewhere.
    ///
    /// # Errors
    /// [`VolumeError::File`] with what cannot be read.
    pub fn size(&self, volume: &Volume) -> Result<u64> {
        Ok(crate::util::files::tree_size(&volume.data)?)
    }

    /// Removes a volume and its data. `users` gives the names of the containers that mount it.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`], [`VolumeError::InUse`], [`VolumeError::File`].
    pub fn remove(&self, name: &str, users: &dyn Fn(&str) -> Vec<String>) -> Result<()> {
        let volume = self.get(name)?.ok_or_else(|| VolumeError::NotFound(name.to_owned()))?;
        let users = users(name);
        if !users.is_empty() {
            return Err(VolumeError::InUse { name: volume.name, users });
        }
        self.delete(&volume)
    }

    /// Removes a volume that no container came to mount, in whatever state its making was left.
    ///
    /// # Errors
    /// [`VolumeError::File`].
    pub(super) fn discard(&self, name: &str) -> Result<()> {
        match self.get(name)? {
            Some(volume) => self.delete(&volume),
            None => self.repair_one(name),
        }
    }

    /// Removes what a killed creation or removal has left: directories without a record.
    ///
    /// # Errors
    /// [`VolumeError::File`].
    pub(super) fn repair(&self) -> Result<()> {
        files::names(&self.dir)?.iter().try_for_each(|name| self.repair_one(name))
    }

    fn repair_one(&self, name: &str) -> Result<()> {
        let dir = self.dir.join(name);
        if dir.join("config").exists() {
            return Ok(());
        }
        // Without a record there is no data: that goes before it and comes after it. Nothing but
        // an empty directory is ever taken, so a volume in the making is safe.
        match std::fs::remove_dir(&dir) {
            Err(error)
                if !matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound
                        | std::io::ErrorKind::DirectoryNotEmpty
                        | std::io::ErrorKind::NotADirectory
                ) =>
            {
                Err(PathError::at("remove", &dir)(error).into())
            }
            _ => Ok(()),
        }
    }

    fn delete(&self, volume: &Volume) -> Result<()> {
        let dir = self.dir.join(&volume.name);
        self.detach(volume)?;
        // The data goes first and the record last: a killed removal leaves a volume that can be removed again.
        files::remove_dir_all(&volume.data)?;
        files::remove_file(&dir.join("config"))?;
        Ok(files::remove_dir_all(&dir)?)
    }
}

/// Docker's rule for names, also of volumes.
fn check_name(name: &str) -> Result<()> {
    let mut bytes = name.bytes();
    let good = bytes.next().is_some_and(|c| c.is_ascii_alphanumeric())
        && name.len() > 1
        && name.len() <= 255
        && bytes.all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-'));
    if good { Ok(()) } else { Err(VolumeError::Name(name.to_owned())) }
}

/// `type`, `device` and `o`, and `device` needed with any of them.
fn check_options(name: &str, options: &BTreeMap<String, String>) -> Result<()> {
    for option in options.keys() {
        if !matches!(option.as_str(), "type" | "device" | "o") {
            return Err(VolumeError::Option { name: name.to_owned(), option: option.clone() });
        }
    }
    let given = |key: &str| options.get(key).is_some_and(|value| !value.is_empty());
    for (option, needed) in [("device", "type"), ("type", "device")] {
        // `o=bind` alone with a device is common; Docker asks for both `type` and `device`.
        if given(option) && !given(needed) {
            return Err(VolumeError::Missing { name: name.to_owned(), option: needed });
        }
    }
    if given("o") && !given("device") {
        return Err(VolumeError::Missing { name: name.to_owned(), option: "device" });
    }
    Ok(())
}

impl Volume {
    /// Where its content is when it is an ordinary directory of the store or a bound host directory;
    /// `None` if something must be mounted first (tmpfs, nfs, a block device).
    pub fn directory(&self) -> Option<&Path> {
        match (self.options.get("device"), self.options.get("o")) {
            (None, _) => Some(&self.data),
            (Some(device), Some(o)) if o.split(',').any(|word| matches!(word, "bind" | "rbind")) => {
                Some(Path::new(device))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
