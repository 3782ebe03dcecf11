//! What engines report: states, events, log frames, errors.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A local image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageState {
    /// `sha256:…` of the image config.
    pub id: String,
    /// `name:tag` references.
    pub tags: Vec<String>,
    /// `name@sha256:…` references.
    pub digests: Vec<String>,
    /// `os/arch[/variant]`.
    pub platform: String,
    /// Unpacked bytes.
    pub size: u64,
    /// When it was built.
    pub created: Option<Timestamp>,
    /// When the newest tag was put here.
    pub tagged: Option<Timestamp>,
    /// When its registry last said that the tag still points to it, if the engine keeps that.
    pub confirmed: Option<Timestamp>,
    /// Labels of its config.
    pub labels: BTreeMap<String, String>,
    /// Its `VOLUME`s.
    pub volumes: Vec<String>,
    /// Its `EXPOSE`s, as `80/tcp`.
    pub exposed: Vec<String>,
    /// Its environment as `K=V`.
    pub env: Vec<String>,
    /// Its `ENTRYPOINT`.
    pub entrypoint: Vec<String>,
    /// Its `CMD`.
    pub command: Vec<String>,
    /// Whether it has a health probe.
    pub has_healthcheck: bool,
}

/// A step of a pull or push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullEvent {
    /// Something about the whole image.
    Status(String),
    /// Bytes of one layer.
    Layer {
        /// Short digest.
        id: String,
        /// `Downloading`, `Pull complete`, `Already exists`, `Pushing`, `Pushed`, …
        text: &'static str,
        /// Bytes so far.
        current: u64,
        /// Bytes in all, when known.
        total: Option<u64>,
    },
}

/// A step of a build. Steps are numbered from 1 within one build.
#[derive(Debug, Clone, PartialEq)]
pub enum BuildEvent {
    /// A step begins.
    Started {
        /// Its number.
        step: u32,
        /// `[web 2/4] RUN make`.
        name: String,
    },
    /// A line that its command wrote.
    Output {
        /// Whose.
        step: u32,
        /// Seconds since the command began.
        at: f64,
        /// Without its end.
        text: String,
    },
    /// Something about it, such as the bytes of a context.
    Note {
        /// Whose.
        step: u32,
        /// The text.
        text: String,
    },
    /// It ended.
    Ended {
        /// Whose.
        step: u32,
        /// How.
        outcome: BuildOutcome,
    },
    /// Something the user should know; may have several lines.
    Warning(String),
}

/// How a step of a build ended.
#[derive(Debug, Clone, PartialEq)]
pub enum BuildOutcome {
    /// It was done.
    Done {
        /// In so many seconds.
        seconds: f64,
    },
    /// Its result was there already.
    Cached,
    /// It failed, for this reason.
    Failed(String),
    /// It was given up.
    Cancelled,
}

/// Why an image was not built, as far as the Dockerfile is concerned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildFailure {
    /// In one line.
    pub summary: String,
    /// With `file:line:col`, the line and a caret; several lines, may be empty.
    pub shown: String,
    /// What was being done, as progress has it; empty for mistakes found before.
    pub step: String,
    /// The last lines that the command wrote.
    pub output: Vec<String>,
    /// Exit code of the command.
    pub code: Option<i32>,
}

/// A network as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkState {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Driver.
    pub driver: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// No way out.
    pub internal: bool,
    /// Subnets in CIDR form.
    pub subnets: Vec<String>,
    /// Ids of attached containers.
    pub containers: Vec<String>,
}

/// A volume as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeState {
    /// Name.
    pub name: String,
    /// Driver.
    pub driver: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// Where the data is.
    pub mountpoint: String,
    /// When it was made.
    pub created: Option<Timestamp>,
}

/// Where a container is in its life. The words are Docker's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Made, never started.
    #[default]
    Created,
    /// Its main process runs.
    Running,
    /// Frozen.
    Paused,
    /// Waiting to be started again by its restart policy.
    Restarting,
    /// Being removed.
    Removing,
    /// Stopped.
    Exited,
    /// Could not be removed or started cleanly.
    Dead,
}

impl Phase {
    /// The word as Docker prints it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }
}

/// What the health probe says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// There is no probe.
    #[default]
    None,
    /// Not known yet.
    Starting,
    /// The last probe succeeded.
    Healthy,
    /// `retries` probes failed in a row.
    Unhealthy,
}

impl Health {
    /// The word as Docker prints it; empty for none.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// One finished health probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeResult {
    /// When it ended.
    pub at: Timestamp,
    /// 0 is healthy; -1 a time-out.
    pub exit_code: i32,
    /// The first 4 KiB of its output.
    pub output: String,
}

/// A container as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerState {
    /// Full id.
    pub id: String,
    /// Name without a slash.
    pub name: String,
    /// Image reference it was made from.
    pub image: String,
    /// Image id.
    pub image_id: String,
    /// Entrypoint and command words.
    pub command: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// When it was last started.
    pub started: Option<Timestamp>,
    /// When it last stopped.
    pub finished: Option<Timestamp>,
    /// Phase.
    pub phase: Phase,
    /// Health.
    pub health: Health,
    /// The last probes, oldest first, at most five.
    pub probes: Vec<ProbeResult>,
    /// Exit code of the last run; signals are 128+n. Meaningful when exited.
    pub exit_code: i32,
    /// Killed for lack of memory in its last run.
    pub oom_killed: bool,
    /// Why the last start failed, if it did.
    pub error: String,
    /// Host pid of the main process; 0 when not running.
    pub pid: u32,
    /// Restarts by policy.
    pub restarts: u32,
    /// Has a terminal.
    pub tty: bool,
    /// Its mounts.
    pub mounts: Vec<MountState>,
    /// Its endpoints by network name.
    pub networks: BTreeMap<String, EndpointState>,
    /// `host`, `none`, `container:<id>` or empty.
    pub network_mode: String,
    /// Its ports, published or only exposed.
    pub ports: Vec<PortState>,
    /// Stop signal, as asked.
    pub stop_signal: String,
}

/// A mount of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountState {
    /// `bind`, `volume`, `tmpfs`, `image`.
    pub kind: String,
    /// Volume name, if a volume.
    pub name: Option<String>,
    /// Made for this container without a name.
    pub anonymous: bool,
    /// Host path.
    pub source: String,
    /// Path inside.
    pub target: String,
    /// Attached read-only.
    pub read_only: bool,
}

/// The processes of a container. Every row has as many cells as there are titles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessTable {
    /// `UID`, `PID`, …, `CMD`.
    pub titles: Vec<String>,
    /// One row per process.
    pub rows: Vec<Vec<String>>,
}

/// What a container uses at one moment. Counters begin with its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UsageState {
    /// When this was looked at.
    pub at: Timestamp,
    /// Processor time so far, all processors together.
    pub cpu: std::time::Duration,
    /// Bytes of memory, without file cache that nobody has used for a while.
    pub memory: u64,
    /// Most bytes it may use: its own limit, else the machine's memory.
    pub memory_limit: u64,
    /// Bytes received over its networks.
    pub received: u64,
    /// Bytes sent over its networks.
    pub sent: u64,
    /// Bytes read from block devices.
    pub read: u64,
    /// Bytes written to block devices.
    pub written: u64,
    /// Tasks.
    pub tasks: u64,
}

/// What is at a path of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathKind {
    /// Regular file.
    #[default]
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Link,
    /// Device, FIFO or socket.
    Special,
}

/// What is at a path of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PathState {
    /// Kind.
    pub kind: PathKind,
    /// Bytes.
    pub size: u64,
    /// What a link points to: as it is written in it, or already as an absolute path.
    pub link: Option<String>,
}

/// A container's place on one network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointState {
    /// Network id.
    pub network_id: String,
    /// Addresses; empty when not running.
    pub addresses: Vec<IpAddr>,
    /// Hardware address.
    pub mac: String,
    /// DNS names.
    pub aliases: Vec<String>,
}

/// A port of a container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortState {
    /// Port inside.
    pub target: u16,
    /// Protocol.
    pub protocol: String,
    /// Host address and port, when published.
    pub published: Option<(IpAddr, u16)>,
}

/// Which output stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StdStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A piece of output: one line, or a part of a line longer than the engine's limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFrame {
    /// Stream.
    pub stream: StdStream,
    /// When the engine received it.
    pub time: Timestamp,
    /// The bytes without the line feed.
    pub data: Vec<u8>,
    /// Whether a line feed followed; `false` means the next frame of this stream goes on.
    pub newline: bool,
}

/// Which part of the output is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on with what is printed from now on.
    pub follow: bool,
    /// Only the last n lines; `None` is all.
    pub tail: Option<usize>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Not after.
    pub until: Option<Timestamp>,
}

/// What happened to a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EngineEvent {
    /// When.
    pub time: Timestamp,
    /// Container id.
    pub id: String,
    /// Container name.
    pub name: String,
    /// Image reference.
    pub image: String,
    /// Labels of the container.
    pub labels: BTreeMap<String, String>,
    /// What.
    #[serde(flatten)]
    pub action: EventAction,
}

/// The kinds of events. The words are Docker's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum EventAction {
    /// Made.
    Create,
    /// Main process executed.
    Start,
    /// Main process ended.
    Die {
        /// Exit code.
        exit_code: i32,
        /// Whether it will be started again, by its restart policy or as a part of `restart`.
        restarting: bool,
    },
    /// Killed for lack of memory.
    Oom,
    /// Stopped on request.
    Stop,
    /// Sent a signal.
    Kill {
        /// Signal number.
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
        health: Health,
    },
    /// An extra process started.
    ExecStart {
        /// Its words, joined.
        command: String,
    },
    /// An extra process ended.
    ExecDie {
        /// Exit code.
        exit_code: i32,
    },
}

/// Why an engine call failed. Texts name the object; callers match on the variant.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// No such container, image, network or volume.
    #[error("no such {kind}: {name}")]
    NotFound {
        /// `container`, `image`, `network`, `volume`.
        kind: &'static str,
        /// As asked.
        name: String,
    },
    /// The name is taken.
    #[error("{kind} name `{name}` is already in use")]
    Conflict {
        /// Kind of object.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// Still used by somebody.
    #[error("{kind} `{name}` is still in use by {by}")]
    InUse {
        /// Kind of object.
        kind: &'static str,
        /// Its name.
        name: String,
        /// By whom.
        by: String,
    },
    /// The engine cannot do what an attribute asks for.
    #[error("the {engine} engine does not support `{attribute}`: {reason}")]
    Unsupported {
        /// Engine.
        engine: &'static str,
        /// Attribute, in compose words.
        attribute: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The spec is wrong in a way only the engine can see (command not found, bad address, …).
    #[error("{0}")]
    Invalid(String),
    /// The command could not be executed; exit code as Docker's (126 not executable, 127 not found).
    #[error("{message}")]
    NotExecutable {
        /// What failed.
        message: String,
        /// 126 or 127.
        code: i32,
    },
    /// A host port is taken.
    #[error("cannot publish port {port}: {reason}")]
    PortTaken {
        /// `0.0.0.0:80/tcp`.
        port: String,
        /// Who holds it.
        reason: String,
    },
    /// Not enough rights.
    #[error("{step}: permission denied; {remedy}")]
    Permission {
        /// Step.
        step: String,
        /// What to do.
        remedy: String,
    },
    /// The engine cannot be reached.
    #[error("cannot connect to the {engine} engine: {reason}")]
    Unreachable {
        /// Engine.
        engine: &'static str,
        /// Why, and what to do.
        reason: String,
    },
    /// An image was not built.
    #[error("{}", .0.summary)]
    Build(Box<BuildFailure>),
    /// A step failed; the source has the cause.
    #[error("{step}")]
    Failed {
        /// Step and object.
        step: String,
        /// Cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
