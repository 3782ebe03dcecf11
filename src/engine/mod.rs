//! The port to whatever runs containers.
//!
//! [`Engine`] speaks in terms an engine can do in one call; everything clever
//! (order, conditions, what to recreate) lives above it in `plan` and `ops`.
//! Implementations: `builtin` (our own runtime, Linux), `docker` (bollard,
//! feature `docker`), [`fake`] (in memory, for tests and embedders).

use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite};

use tokio_util::sync::CancellationToken;

use crate::spec::{BuildSpec, CommitSpec, ContainerSpec, ExecSpec, NetworkSpec, VolumeSpec};

#[cfg(target_os = "linux")]
pub mod builtin;
#[cfg(feature = "docker")]
pub mod docker;
pub mod fake;
pub mod types;
pub use types::*;

/// A boxed stream that ends when the source does.
pub type BoxStream<T> = Pin<Box<dyn Stream<Item = T> + Send>>;
/// Result of every engine call.
pub type Result<T> = std::result::Result<T, EngineError>;
/// Keeps other commands away from a project until it is dropped.
pub type ProjectLock = Box<dyn std::any::Any + Send + Sync>;
/// Called when a lock is not free, with a line that says who holds it; must not block.
pub type LockWaiting<'a> = &'a (dyn Fn(&str) + Send + Sync);
/// Called with each step of a pull or push; must not block.
pub type PullProgress<'a> = &'a (dyn Fn(PullEvent) + Send + Sync);
/// Called with each step of a build; must not block.
pub type BuildProgress<'a> = &'a (dyn Fn(BuildEvent) + Send + Sync);

/// Where an archive is written. Called on a thread that may wait.
pub type ArchiveSink = Box<dyn std::io::Write + Send>;
/// Where an archive is read from, by a thread that may wait.
pub type ArchiveSource = Box<dyn std::io::Read + Send>;

/// Runs containers.
///
/// Names and ids: wherever a container is named by `&str`, a full id, an
/// unambiguous id prefix or a name is accepted. Calls are idempotent where
/// the verb allows: starting a running container and stopping a stopped one
/// succeed. Removing what does not exist is [`EngineError::NotFound`].
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// `builtin`, `docker` or `fake`.
    fn name(&self) -> &'static str;

    // images
    /// The local image, or `None`. Never talks to a registry.
    async fn image(&self, reference: &str, platform: Option<&str>) -> Result<Option<ImageState>>;
    /// All local images.
    async fn images(&self) -> Result<Vec<ImageState>>;
    /// Fetches an image and makes it visible under `reference`.
    async fn pull(
        &self,
        reference: &str,
        platform: Option<&str>,
        progress: PullProgress<'_>,
    ) -> Result<ImageState>;
    /// Sends the image of a tag to its registry, under that tag.
    async fn push(&self, reference: &str, progress: PullProgress<'_>) -> Result<()>;
    /// The digest (`sha256:…`) of what the reference points to in its registry, of an index if it is one. Fetches nothing.
    async fn remote_digest(&self, reference: &str) -> Result<String>;
    /// Removes a tag; the content goes with its last tag. `force` also untags images that stopped containers use.
    async fn remove_image(&self, reference: &str, force: bool) -> Result<()>;

    /// Builds an image, puts it under the spec's tags and gives its id.
    ///
    /// When `stop` is cancelled the build is given up; the call returns once nothing of it runs any more.
    async fn build(
        &self,
        spec: &BuildSpec,
        progress: BuildProgress<'_>,
        stop: &CancellationToken,
    ) -> Result<String>;

    // networks
    /// Creates a network; [`EngineError::Conflict`] when the name is taken.
    async fn create_network(&self, spec: &NetworkSpec) -> Result<String>;
    /// The network of that name or id.
    async fn network(&self, name: &str) -> Result<Option<NetworkState>>;
    /// Networks carrying all these labels (`key` or `key=value`).
    async fn networks(&self, labels: &[String]) -> Result<Vec<NetworkState>>;
    /// Removes; [`EngineError::InUse`] while a container is attached.
    async fn remove_network(&self, name: &str) -> Result<()>;
    /// Detaches a container from a network.
    async fn disconnect(&self, network: &str, container: &str, force: bool) -> Result<()>;
    /// Attaches an existing container to a further network.
    async fn connect(&self, container: &str, endpoint: &crate::spec::EndpointSpec) -> Result<()>;

    // volumes
    /// Creates a volume; succeeds when it exists with the same driver.
    async fn create_volume(&self, spec: &VolumeSpec) -> Result<()>;
    /// The volume of that name.
    async fn volume(&self, name: &str) -> Result<Option<VolumeState>>;
    /// Volumes carrying all these labels.
    async fn volumes(&self, labels: &[String]) -> Result<Vec<VolumeState>>;
    /// Removes with its data; [`EngineError::InUse`] while a container mounts it.
    async fn remove_volume(&self, name: &str) -> Result<()>;

    // containers
    /// Creates but does not start; the image must be local.
    async fn create(&self, spec: &ContainerSpec) -> Result<String>;
    /// Returns once the main process has been executed.
    async fn start(&self, container: &str) -> Result<()>;
    /// Sends the stop signal, waits for the grace period (`None`: the container's own), then kills. Returns after the exit.
    async fn stop(&self, container: &str, grace: Option<Duration>) -> Result<()>;
    /// Sends a signal to the main process.
    async fn kill(&self, container: &str, signal: &str) -> Result<()>;
    /// `stop` and `start` in one, keeping addresses.
    async fn restart(&self, container: &str, grace: Option<Duration>) -> Result<()>;
    /// Freezes all processes.
    async fn pause(&self, container: &str) -> Result<()>;
    /// Thaws.
    async fn unpause(&self, container: &str) -> Result<()>;
    /// Removes; `force` kills first, `volumes` removes anonymous volumes too.
    async fn remove(&self, container: &str, force: bool, volumes: bool) -> Result<()>;
    /// Gives another name.
    async fn rename(&self, container: &str, name: &str) -> Result<()>;
    /// Everything known about one container.
    async fn inspect(&self, container: &str) -> Result<Option<ContainerState>>;
    /// What a container was asked to be; `None` when the engine does not keep that as it was said.
    async fn asked(&self, _container: &str) -> Result<Option<ContainerSpec>> {
        Ok(None)
    }
    /// Containers, stopped ones included, carrying all these labels.
    async fn list(&self, labels: &[String]) -> Result<Vec<ContainerState>>;
    /// The processes of a running container as a table, in the engine's own columns.
    async fn processes(&self, container: &str) -> Result<ProcessTable>;
    /// What a container uses now; `None` when it does not run.
    async fn usage(&self, container: &str) -> Result<Option<UsageState>>;

    // files of a container, whatever its phase; paths are absolute and end inside it
    /// What is at a path; `None` when there is nothing. A link at its end is not followed unless the path ends in `/`.
    async fn path_state(&self, container: &str, path: &str) -> Result<Option<PathState>>;
    /// Writes what is at a path to `sink` as a tar archive whose names begin with the path's last part (`.` for `…/.`).
    async fn pack(&self, container: &str, path: &str, sink: ArchiveSink) -> Result<()>;
    /// Unpacks a tar archive into a directory. Nothing of another kind (file, directory) is replaced. With
    /// `as_user` everything belongs to the container's user, else to whom the archive says.
    async fn unpack(&self, container: &str, path: &str, source: ArchiveSource, as_user: bool) -> Result<()>;
    /// Removes paths with all below them; what is not there is skipped.
    async fn delete_paths(&self, container: &str, paths: &[String]) -> Result<()>;
    /// Waits until the container is not running any more (restarts by policy excluded) and gives its exit code.
    async fn wait(&self, container: &str) -> Result<i32>;

    // projects
    /// Waits until no other command changes that project, then keeps others
    /// waiting until the guard is dropped (or the process ends in any way).
    ///
    /// `waiting` is called at most once, with a line that says who holds it
    /// (may be empty), when it is not free. [`crate::util::lock::acquire`]
    /// is what engines on one machine use. Waits on conditions of containers
    /// happen without the lock.
    async fn lock_project(&self, project: &str, waiting: LockWaiting<'_>) -> Result<ProjectLock>;

    // streams
    /// Makes an image of a container and its changes; gives the image's id.
    async fn commit(&self, container: &str, spec: &CommitSpec) -> Result<String>;
    /// The file system of a container, running or not, as an uncompressed tar in pieces.
    async fn export(&self, container: &str) -> Result<BoxStream<Result<Vec<u8>>>>;
    /// Output, oldest first; with `follow` it ends when the container is removed or stays stopped.
    ///
    /// Times do not decrease along one container's output. All output of a
    /// run can be read when its [`EventAction::Die`] is reported, and bears
    /// times between those of its `Start` and `Die`.
    async fn logs(&self, container: &str, options: &LogOptions) -> Result<BoxStream<Result<Vec<LogFrame>>>>;
    /// Container events from now (or `since`) on, of containers carrying all these labels.
    ///
    /// The subscription is made before this returns. When an event is
    /// reported, `inspect` and `list` show at least what it tells.
    async fn events(
        &self,
        labels: &[String],
        since: Option<jiff::Timestamp>,
    ) -> Result<BoxStream<Result<EngineEvent>>>;
    /// Runs an extra process.
    async fn exec(&self, container: &str, spec: &ExecSpec) -> Result<Attached>;
    /// Connects to the main process's streams. Attach before `start` to miss nothing.
    async fn attach(&self, container: &str, stdin: bool) -> Result<Attached>;
}

/// Streams of a process and control over it. Dropping it detaches.
pub struct Attached {
    /// The process's standard input; `None` when not connected. Shut it down to send end of file.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Standard output (and error, when a terminal).
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// Standard error; `None` with a terminal.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Resizes, signals, and the exit code.
    pub control: Box<dyn ProcessControl>,
}

/// Control over an attached process.
#[async_trait]
pub trait ProcessControl: Send + Sync {
    /// Sets the terminal size.
    async fn resize(&self, columns: u16, rows: u16) -> Result<()>;
    /// Sends a signal by name.
    async fn signal(&self, signal: &str) -> Result<()>;
    /// Waits for the exit code.
    async fn wait(&self) -> Result<i32>;
}
