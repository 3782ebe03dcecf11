//! What each use case is asked for and what it answers: plain data.
//!
//! One `…Options` per verb with every default decided by the caller (the
//! command line decides them in its settings); a list of services that is
//! empty means all of the project's.

#![expect(clippy::struct_excessive_bools, reason = "independent switches of the command line")]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;

use crate::engine::{Attached, ContainerState, ImageState, Phase};
use crate::model::{Mount, Port};
use crate::spec::ExecSpec;

pub use crate::plan::Recreate;

/// When images are fetched; replaces the policy of every service when given on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// Always ask the registry.
    Always,
    /// Only what is not here.
    Missing,
    /// Never.
    Never,
    /// Build instead.
    Build,
    /// When the tag was put here longer ago than this.
    Every(Duration),
}

/// When images of services with a `build` section are built.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BuildPolicy {
    /// When the image is not here.
    #[default]
    Missing,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How the resources of a project are brought in line with its files: shared by `up`, `create`, `run` and `scale`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConvergeOptions {
    /// For services named on the command line (all when none is).
    pub recreate: Recreate,
    /// For their dependencies.
    pub recreate_dependencies: Recreate,
    /// Do not take anonymous volumes over from replaced containers (implies [`Recreate::Force`] above).
    pub renew_anonymous_volumes: bool,
    /// Leave dependencies out altogether.
    pub no_deps: bool,
    /// Remove containers of services that are not in the files, and stopped one-offs.
    pub remove_orphans: bool,
    /// Do not even mention them.
    pub ignore_orphans: bool,
    /// Replica counts by service.
    pub scale: BTreeMap<String, u32>,
    /// Replaces the pull policy of every service.
    pub pull: Option<PullPolicy>,
    /// No progress of layers.
    pub quiet_pull: bool,
    /// What is built.
    pub build: BuildPolicy,
    /// No output of builds that succeed.
    pub quiet_build: bool,
    /// Grace period of every stop on the way; none means the container's own.
    pub timeout: Option<Duration>,
}

/// `build`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
pub struct BuildOptions {
    /// These services; all if none is named.
    pub services: Vec<String>,
    /// Also what they depend on.
    pub with_dependencies: bool,
    /// Values of `ARG`s; they win over those of the files.
    pub args: BTreeMap<String, String>,
    /// Use no cached step.
    pub no_cache: bool,
    /// Ask registries for newer base images.
    pub pull: bool,
    /// No output of builds that succeed.
    pub quiet: bool,
    /// SSH agents: id, and socket if not that of the environment. They are added to those of the files.
    pub ssh: Vec<(String, Option<String>)>,
    /// Memory of each `RUN` in bytes.
    pub memory: Option<i64>,
    /// Provenance attestation, instead of what the files say.
    pub provenance: Option<String>,
    /// SBOM attestation, instead of what the files say.
    pub sbom: Option<String>,
    /// Only look for mistakes in the Dockerfiles.
    pub check: bool,
}

/// `up` and `create`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpOptions {
    /// Services to bring up, with their dependencies.
    pub services: Vec<String>,
    /// How.
    pub converge: ConvergeOptions,
    /// And then.
    pub mode: UpMode,
}

/// What `up` does once the containers exist.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum UpMode {
    /// Nothing: `create`, `up --no-start`.
    Create,
    /// Start and return.
    #[default]
    Detached,
    /// Start, and return when everything is running, healthy or has done its job.
    Wait(WaitLimit),
    /// Start, follow the output, stop everything when interrupted.
    Attached(AttachOptions),
}

/// How long to wait for readiness.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WaitLimit {
    /// None waits for ever.
    pub timeout: Option<Duration>,
}

/// What an attached `up` follows and when it ends by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttachOptions {
    /// Whose output is shown.
    pub follow: Follow,
    /// Subtracted from it.
    pub except: Vec<String>,
    /// Stop the project when a container ends.
    pub abort: Abort,
    /// Answer with the exit code of this service's first container to end (implies [`Abort::OnExit`] unless it is [`Abort::OnFailure`]).
    pub exit_code_from: Option<String>,
}

/// Whose output an attached `up` shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Follow {
    /// The services named on the command line; those with `attach: false` only if named.
    #[default]
    Named,
    /// And their dependencies.
    WithDependencies,
    /// Exactly these.
    Only(Vec<String>),
}

/// When an attached `up` stops the project by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Abort {
    /// Never.
    #[default]
    Never,
    /// When any container ends.
    OnExit,
    /// When one ends with a code other than 0.
    OnFailure,
}

/// How `up` ended without an error.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpOutcome {
    /// 0, or what the abort modes and `exit_code_from` give.
    pub exit_code: i32,
    /// It was stopped by the user's interrupt (the command ends with 130).
    pub interrupted: bool,
}

/// `down`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DownOptions {
    /// Only these services' containers (networks and volumes are still tried).
    pub services: Vec<String>,
    /// Named and anonymous volumes too.
    pub volumes: bool,
    /// Images too.
    pub images: Option<RemoveImages>,
    /// Containers of unknown services and one-offs too.
    pub remove_orphans: bool,
    /// Grace period; none means the container's own.
    pub timeout: Option<Duration>,
}

/// Which images `down --rmi` removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoveImages {
    /// Those that were built for the project.
    Local,
    /// All that its services use.
    All,
}

/// How `down` ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DownOutcome {
    /// There was nothing of this project.
    pub nothing_found: bool,
}

/// `start`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StartOptions {
    /// With their dependencies.
    pub services: Vec<String>,
    /// Return when everything is ready.
    pub wait: Option<WaitLimit>,
}

/// `stop`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopOptions {
    /// Only these; dependents are left alone.
    pub services: Vec<String>,
    /// Grace period; none means the container's own.
    pub timeout: Option<Duration>,
}

/// `restart`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestartOptions {
    /// Only these.
    pub services: Vec<String>,
    /// Leave dependents with `restart: true` alone.
    pub no_deps: bool,
    /// Grace period; none means the container's own.
    pub timeout: Option<Duration>,
}

/// `kill`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KillOptions {
    /// Only these; one-offs included.
    pub services: Vec<String>,
    /// By name or number.
    pub signal: String,
    /// Containers of unknown services too.
    pub remove_orphans: bool,
}

/// `rm`. Asks through the context's [`Prompt`](super::Prompt).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RmOptions {
    /// Only these.
    pub services: Vec<String>,
    /// Stop running ones first.
    pub stop: bool,
    /// Anonymous volumes too.
    pub volumes: bool,
}

/// How `rm` ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RmOutcome {
    /// They are gone.
    Removed,
    /// There was no stopped container.
    NothingFound,
    /// The user said no.
    Declined,
}

/// `ps`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PsOptions {
    /// Only these.
    pub services: Vec<String>,
    /// Stopped and one-off containers too.
    pub all: bool,
    /// Only these phases (looks at all containers).
    pub phases: Vec<Phase>,
    /// Leave containers of unknown services out.
    pub without_orphans: bool,
}

/// One container of a project.
#[derive(Debug, Clone, PartialEq)]
pub struct ProjectContainer {
    /// The project it belongs to.
    pub project: String,
    /// Its service, which the files may not know any more.
    pub service: String,
    /// Replica number; none for a one-off.
    pub number: Option<u32>,
    /// Made by `run`.
    pub oneoff: bool,
    /// What the engine says.
    pub state: ContainerState,
}

/// `logs`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogsOptions {
    /// Only these.
    pub services: Vec<String>,
    /// Go on until no followed container is left.
    pub follow: bool,
    /// Last lines per container; none is all.
    pub tail: Option<usize>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Not after.
    pub until: Option<Timestamp>,
    /// Only this replica; needs exactly one service.
    pub index: Option<u32>,
}

/// `exec`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOptions {
    /// Where.
    pub service: String,
    /// Which replica; none is the lowest running.
    pub index: Option<u32>,
    /// What.
    pub spec: ExecSpec,
}

/// `run`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunOptions {
    /// Of which service.
    pub service: String,
    /// Instead of its command.
    pub command: Vec<String>,
    /// Instead of its entrypoint; `Some([])` clears it. Without `command` the service's command is cleared too.
    pub entrypoint: Option<Vec<String>>,
    /// On top of its environment; `None` removes.
    pub env: Vec<(String, Option<String>)>,
    /// On top of its labels.
    pub labels: Vec<(String, String)>,
    /// Instead of the generated name.
    pub name: Option<String>,
    /// Instead of its user.
    pub user: Option<String>,
    /// Instead of its working directory.
    pub working_dir: Option<String>,
    /// Appended; taken out of `cap_drop`.
    pub cap_add: Vec<String>,
    /// Appended; taken out of `cap_add`.
    pub cap_drop: Vec<String>,
    /// Further mounts; they take the place of the service's at the same target.
    pub volumes: Vec<Mount>,
    /// Published instead of the service's.
    pub publish: Vec<Port>,
    /// Publish the service's ports.
    pub service_ports: bool,
    /// Join networks with the service's aliases.
    pub use_aliases: bool,
    /// Allocate a terminal.
    pub tty: bool,
    /// Connect standard input.
    pub interactive: bool,
    /// Leave it running in the background.
    pub detach: bool,
    /// Remove it when it has ended.
    pub remove: bool,
    /// How its dependencies are brought up.
    pub converge: ConvergeOptions,
}

/// A process was started by `run` or `exec`.
pub enum Started {
    /// In the background, with the container's id.
    Detached(String),
    /// With its streams, which the caller pumps; its exit code comes from [`Session::attached`]'s control.
    Attached(Session),
}

/// A process the caller is connected to.
pub struct Session {
    /// Container id.
    pub id: String,
    /// Container name.
    pub name: String,
    /// Streams and control.
    pub attached: Attached,
}

/// `wait`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WaitOptions {
    /// Their running containers, one-offs included.
    pub services: Vec<String>,
    /// `down` when the first of them has ended.
    pub down_project: bool,
}

/// One container that `wait` waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waited {
    /// Container id.
    pub id: String,
    /// Container name.
    pub name: String,
    /// Exit code.
    pub exit_code: i32,
}

/// `port`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortOptions {
    /// Of which service.
    pub service: String,
    /// Which replica; none is the lowest.
    pub index: Option<u32>,
    /// Port inside.
    pub target: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
}

/// Where a port is published.
pub type PublishedAt = (IpAddr, u16);

/// One project, as `ls` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectSummary {
    /// Name.
    pub name: String,
    /// Number of containers by phase.
    pub phases: BTreeMap<&'static str, usize>,
    /// Paths of its files, distinct.
    pub config_files: Vec<String>,
}

/// The image of one container.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerImage {
    /// Container name.
    pub container: String,
    /// Reference it was made from.
    pub reference: String,
    /// The image, unless it is gone.
    pub image: Option<ImageState>,
}

/// `pull`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PullOptions {
    /// Only these.
    pub services: Vec<String>,
    /// And their dependencies.
    pub include_deps: bool,
    /// Leave services with `build` out.
    pub ignore_buildable: bool,
    /// Go on, and succeed, when one fails.
    pub ignore_failures: bool,
    /// Instead of the services' own.
    pub policy: Option<PullPolicy>,
    /// No progress of layers.
    pub quiet: bool,
}

/// `push`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PushOptions {
    /// Only these.
    pub services: Vec<String>,
    /// And their dependencies.
    pub include_deps: bool,
    /// Go on, and succeed, when one fails.
    pub ignore_failures: bool,
    /// No progress of layers.
    pub quiet: bool,
}

/// `scale`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScaleOptions {
    /// Replica counts.
    pub replicas: BTreeMap<String, u32>,
    /// Leave dependencies out.
    pub no_deps: bool,
}

/// Where `cp` copies from or to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A path of this machine.
    Local(std::path::PathBuf),
    /// A path of a service's containers.
    Service {
        /// Which.
        service: String,
        /// Absolute, or relative to `/`.
        path: String,
    },
    /// A tar archive on standard input or output.
    Stream,
}

/// `cp`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyOptions {
    /// From where.
    pub source: Place,
    /// To where.
    pub destination: Place,
    /// Which replica; none is the first one to copy from, and all of them to copy to.
    pub index: Option<u32>,
    /// One-off containers, too.
    pub all: bool,
    /// What is copied in belongs to the container's user.
    pub archive: bool,
    /// A link that is named as the source stands for what it points to.
    pub follow_link: bool,
    /// Check everything, copy nothing.
    pub dry_run: bool,
}

/// `watch`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatchOptions {
    /// Only these.
    pub services: Vec<String>,
    /// Bring them up first.
    pub up: bool,
    /// Remove images of the project that a rebuild has left without a name.
    pub prune: bool,
    /// No output of builds.
    pub quiet_build: bool,
}

/// The processes of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerProcesses {
    /// Container name.
    pub container: String,
    /// Its service.
    pub service: String,
    /// Replica number; none for a one-off.
    pub number: Option<u32>,
    /// Its processes.
    pub table: crate::engine::ProcessTable,
}

/// What `stats` shows of one container.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerUsage {
    /// Container id.
    pub id: String,
    /// Container name.
    pub name: String,
    /// Processor time over the time since the last look: 1.0 is one processor. None at the first look.
    pub cpu: Option<f64>,
    /// What the engine says; all zero when it does not run.
    pub state: crate::engine::UsageState,
}

/// `events`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventsOptions {
    /// Only these.
    pub services: Vec<String>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Not after; ends the stream when it lies in the past.
    pub until: Option<Timestamp>,
}
