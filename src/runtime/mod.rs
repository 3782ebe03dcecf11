//! The daemonless container runtime: OCI words only; knows nothing of compose.
//!
//! [`Runtime`] is what a command holds. Every call is synchronous and works on
//! files, locks and control sockets only; what outlives the call is one shim per
//! running container ([`shim`]). See [`container`] for what is where on disk and
//! [`repair`](Runtime::repair) for how crashes are put right.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::process::Child;
use std::sync::Mutex;
use std::time::Instant;

use jiff::Timestamp;

pub mod build;
pub mod cgroup;
mod commit;
pub mod container;
pub mod control;
mod create;
pub mod dns;
pub mod error;
pub mod events;
mod export;
pub mod files;
pub mod image;
pub mod init;
pub mod log;
pub mod mount;
pub mod network;
pub mod proc;
pub mod processes;
mod repair;
pub mod root;
pub mod seccomp;
mod security;
pub mod shim;
pub mod signal;
pub mod snapshot;
mod start;
pub mod state;
pub mod sys;
pub mod usage;
pub mod user;
pub mod volume;
pub mod watch;

use container::Containers;
use error::{Result, RuntimeError};
use events::{Action, ContainerEvent};
pub use export::Export;
use image::Store;
use root::Root;
use start::{Executable, Waiting};
use state::{Record, State};
use volume::Volumes;

/// The containers, images and volumes of one installation.
///
/// Cheap to make and shareable between threads. Any number of processes may
/// have the same installation open.
#[derive(Debug)]
pub struct Runtime {
    containers: Containers,
    store: Store,
    volumes: Volumes,
    executable: Executable,
    /// Clients that attached to containers before their start, by id.
    waiting: Mutex<HashMap<String, Vec<Waiting>>>,
    /// Steps of builds under way in this process.
    flights: build::Flights,
    /// Shims made by this process, so that none stays a zombie.
    children: Mutex<Vec<Child>>,
}

/// A container as it is on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Container {
    /// What was asked.
    pub record: Record,
    /// What happened.
    pub state: State,
}

impl Runtime {
    /// Opens an installation, making it if it is not there, and repairs what crashes have left.
    ///
    /// Shims are executed from our own executable, whose `main` must call [`shim::dispatch`] first.
    ///
    /// # Errors
    /// The directories cannot be made or read; the executable cannot be cloned (not enough rights).
    pub fn open(root: &Root) -> Result<Self> {
        Self::open_with(root, Executable::find()?)
    }

    /// As [`Runtime::open`], with shims executed from another program that calls [`shim::dispatch`].
    ///
    /// For tests and for programs that embed the library: such an executable can be
    /// reached by a container's processes, see [`sys::sealed_self`].
    ///
    /// # Errors
    /// The directories cannot be made or read.
    pub fn with_shim(root: &Root, program: PathBuf) -> Result<Self> {
        Self::open_with(root, Executable::Path(program))
    }

    fn open_with(root: &Root, executable: Executable) -> Result<Self> {
        let containers = Containers::new(root);
        containers.make_directories()?;
        let this = Self {
            containers,
            store: Store::open(root)?,
            volumes: Volumes::new(root),
            executable,
            waiting: Mutex::default(),
            flights: build::Flights::default(),
            children: Mutex::default(),
        };
        this.repair()?;
        Ok(this)
    }

    /// Where it keeps its files.
    pub fn root(&self) -> &Root {
        self.containers.root()
    }

    /// Its images.
    pub fn images(&self) -> &Store {
        &self.store
    }

    /// Its volumes.
    pub fn volumes(&self) -> &Volumes {
        &self.volumes
    }

    /// One container by name, id, or beginning of an id; none when there is none.
    ///
    /// # Errors
    /// [`RuntimeError::Ambiguous`]; its files cannot be read.
    pub fn inspect(&self, container: &str) -> Result<Option<Container>> {
        match self.containers.resolve(container) {
            Ok(id) => self.load(&id),
            Err(RuntimeError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All containers, the oldest first.
    ///
    /// # Errors
    /// A container's files cannot be read or understood.
    pub fn list(&self) -> Result<Vec<Container>> {
        let mut all = Vec::new();
        for id in self.containers.ids()? {
            all.extend(self.load(&id)?);
        }
        all.sort_by(|a, b| (a.record.created, &a.record.id).cmp(&(b.record.created, &b.record.id)));
        Ok(all)
    }

    /// Both files; none when the container is half-made or just being removed.
    fn load(&self, id: &str) -> Result<Option<Container>> {
        let (Some(record), Some(state)) = (self.containers.record(id)?, self.containers.state(id)?) else {
            return Ok(None);
        };
        Ok(Some(Container { record, state }))
    }

    /// Full id of a name, id, or beginning of an id.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`], [`RuntimeError::Ambiguous`].
    pub fn resolve(&self, container: &str) -> Result<String> {
        self.containers.resolve(container)
    }

    /// A container's directory, where [`log::reader::LogReader`] finds its output.
    pub fn container_dir(&self, id: &str) -> PathBuf {
        self.containers.dir(id)
    }

    /// A container's state.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`]; its file cannot be read or understood.
    pub fn state_of(&self, id: &str) -> Result<State> {
        self.containers.state(id)?.ok_or_else(|| RuntimeError::NotFound(id.to_owned()))
    }

    /// Names of the containers that mount a volume.
    pub fn volume_users(&self, volume: &str) -> Vec<String> {
        shim::finish::users_of(&self.containers, volume)
    }

    /// Changes what a container that does not run asks for (networks it is attached to).
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`]; [`RuntimeError::State`] while it runs.
    pub fn amend(&self, container: &str, change: impl FnOnce(&mut Record)) -> Result<()> {
        let id = self.containers.resolve(container)?;
        let _lock = self.containers.lock(&id)?;
        let state = self.state_of(&id)?;
        if state.life.is_live() {
            return Err(RuntimeError::State {
                container: container.to_owned(),
                state: state.life.word().to_owned(),
                action: "be changed; stop it first".to_owned(),
            });
        }
        let mut record =
            self.containers.record(&id)?.ok_or_else(|| RuntimeError::NotFound(container.to_owned()))?;
        change(&mut record);
        self.containers.write_record(&record)
    }

    /// Collects shims of ours that have ended.
    fn reap(&self) {
        if let Ok(mut children) = self.children.lock() {
            children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        }
    }

    fn emit(&self, record: &Record, action: Action) {
        let event = ContainerEvent {
            time: Timestamp::now(),
            id: record.id.clone(),
            name: record.name.clone(),
            image: record.spec.image.clone(),
            labels: record.spec.labels.clone(),
            action,
        };
        // What has happened has happened, also when it cannot be recorded.
        drop(events::emit(self.root(), &event));
    }
}

/// Something the shim's event loop turns: it owns descriptors behind one
/// pollable (epoll) descriptor and never blocks.
pub trait Source {
    /// Readable when [`Source::turn`] has something to do.
    fn fd(&self) -> BorrowedFd<'_>;
    /// When [`Source::turn`] must be called even if nothing is readable. `None` costs no wake-ups.
    fn deadline(&self) -> Option<Instant>;
    /// Does all that is pending. Errors of single clients are handled inside.
    fn turn(&mut self);
}
