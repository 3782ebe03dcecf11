//! What is known about a container: its record (what was asked and settled) and its state (what happened).
//!
//! Owns the two JSON files of a container's directory, `spec.json` ([`Record`])
//! and `state.json` ([`State`]), and the rules of the lifecycle ([`Life`]). Does
//! not decide when to start or stop, and touches no process.
//!
//! `spec.json` exists from the moment a container exists until its directory
//! goes; it is written by commands only, under the container's lock. `state.json`
//! is written by the shim while it lives (it holds the lock of the run
//! directory), else by a command that holds that lock.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::runtime::network::Publish;
use crate::spec::{ContainerSpec, MountSpec};

/// Version of both files. A newer one is refused, not guessed at.
pub const FORMAT: u32 = 1;

/// What was asked for when the container was created, and what that came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`FORMAT`].
    pub version: u32,
    /// Full id.
    pub id: String,
    /// Current name.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// As asked. Endpoints that were added or taken away later are up to date here.
    pub spec: ContainerSpec,
    /// Image id.
    pub image_id: String,
    /// Unpacked image layers, topmost first, as [`crate::runtime::snapshot`] gave them.
    pub layers: Vec<PathBuf>,
    /// Entrypoint and command words.
    pub args: Vec<String>,
    /// Environment of image and spec, `NAME=value`, without what is added at each start (`HOSTNAME`, `HOME`).
    pub env: Vec<String>,
    /// Absolute working directory.
    pub cwd: String,
    /// `uid[:gid]` or names; empty is root.
    pub user: String,
    /// Stop signal as written.
    pub stop_signal: String,
    /// Health probe of spec and image.
    pub health: Option<Probe>,
    /// Mounts in the order they are attached.
    pub mounts: Vec<MountRecord>,
    /// Ports announced by image and spec, `80/tcp`.
    pub exposed: Vec<String>,
}

/// One mount of a container, its volume named and made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MountRecord {
    /// The mount; a volume always has its name.
    pub mount: MountSpec,
    /// The volume was made for this container and goes with it.
    pub anonymous: bool,
    /// Host directory or file that is mounted; empty for memory file systems and images.
    pub source: PathBuf,
}

/// A health probe, settled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Words to execute.
    pub args: Vec<String>,
    /// Milliseconds between the end of a probe and the next.
    pub interval_ms: u64,
    /// Milliseconds after which a probe counts as failed.
    pub timeout_ms: u64,
    /// Milliseconds after the start during which failures do not count.
    pub start_period_ms: u64,
    /// Milliseconds between probes during the start period.
    pub start_interval_ms: u64,
    /// Consecutive failures that make it unhealthy.
    pub retries: u32,
}

/// Where a container is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "lowercase")]
pub enum Life {
    /// Made, never started.
    Created,
    /// A shim is setting it up.
    Starting,
    /// Its command was executed.
    Running {
        /// The main process.
        process: Process,
    },
    /// Frozen.
    Paused {
        /// The main process.
        process: Process,
    },
    /// Ended, to be started again by its policy.
    Restarting {
        /// How it ended.
        end: End,
    },
    /// Ended.
    Exited {
        /// How it ended.
        end: End,
    },
    /// Its last start failed before the command was executed.
    Failed {
        /// 127, 126 or 128.
        code: i32,
        /// What failed, the whole chain in one line.
        error: String,
        /// When.
        at: Timestamp,
    },
    /// Its parts are being deleted.
    Removing,
}

/// A running main process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// In the host's numbering.
    pub pid: i32,
    /// Start time in clock ticks after boot (field 22 of `/proc/<pid>/stat`): pid and birth are never reused together.
    pub birth: u64,
    /// When the command was executed.
    pub started: Timestamp,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Exit code; 128 + n for signal n; 255 if nobody saw it.
    pub code: i32,
    /// When.
    pub at: Timestamp,
    /// The kernel killed something in it for lack of memory.
    pub oom_killed: bool,
    /// Nobody saw the exit (shim killed, or power lost): `code` is a guess.
    pub unknown: bool,
}

/// What can happen to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A shim begins to set it up.
    Launch,
    /// The command was executed.
    Executed(Process),
    /// The set-up failed.
    LaunchFailed {
        /// 127, 126 or 128.
        code: i32,
        /// What failed.
        error: String,
        /// When.
        at: Timestamp,
    },
    /// All processes are frozen.
    Pause,
    /// All processes go on.
    Unpause,
    /// The main process ended, and that is it.
    Exit(End),
    /// The main process ended and the policy starts it again.
    ExitToRestart(End),
    /// The wait for the next start was called off.
    GiveUp,
    /// It is found not to run although nobody reported an end.
    Lost(End),
    /// Its parts begin to be deleted.
    Remove,
}

/// An event that cannot happen in a state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a container that is {from} cannot {event}")]
pub struct IllegalTransition {
    /// State, in a word.
    pub from: &'static str,
    /// Event, as a verb.
    pub event: &'static str,
}

impl Life {
    /// The state after an event.
    ///
    /// # Errors
    /// [`IllegalTransition`] if the event cannot happen in this state.
    pub fn next(self, event: Event) -> Result<Self, IllegalTransition> {
        let from = self.word();
        let illegal = |event| Err(IllegalTransition { from, event });
        match (self, event) {
            (
                Self::Created | Self::Restarting { .. } | Self::Exited { .. } | Self::Failed { .. },
                Event::Launch,
            ) => Ok(Self::Starting),
            (Self::Starting, Event::Executed(process)) | (Self::Paused { process }, Event::Unpause) => {
                Ok(Self::Running { process })
            }
            (Self::Starting, Event::LaunchFailed { code, error, at }) => Ok(Self::Failed { code, error, at }),
            (Self::Running { process }, Event::Pause) => Ok(Self::Paused { process }),
            (Self::Running { .. } | Self::Paused { .. }, Event::Exit(end))
            | (Self::Restarting { end }, Event::GiveUp)
            | (
                Self::Starting | Self::Running { .. } | Self::Paused { .. } | Self::Restarting { .. },
                Event::Lost(end),
            ) => Ok(Self::Exited { end }),
            (Self::Running { .. } | Self::Paused { .. }, Event::ExitToRestart(end)) => {
                Ok(Self::Restarting { end })
            }
            (Self::Created | Self::Exited { .. } | Self::Failed { .. } | Self::Removing, Event::Remove) => {
                Ok(Self::Removing)
            }
            (Self::Starting | Self::Running { .. } | Self::Paused { .. } | Self::Removing, Event::Launch) => {
                illegal("start")
            }
            (
                Self::Created
                | Self::Running { .. }
                | Self::Paused { .. }
                | Self::Restarting { .. }
                | Self::Exited { .. }
                | Self::Failed { .. }
                | Self::Removing,
                Event::Executed(_),
            ) => illegal("execute its command"),
            (
                Self::Created
                | Self::Running { .. }
                | Self::Paused { .. }
                | Self::Restarting { .. }
                | Self::Exited { .. }
                | Self::Failed { .. }
                | Self::Removing,
                Event::LaunchFailed { .. },
            ) => illegal("fail to start"),
            (
                Self::Created
                | Self::Starting
                | Self::Paused { .. }
                | Self::Restarting { .. }
                | Self::Exited { .. }
                | Self::Failed { .. }
                | Self::Removing,
                Event::Pause,
            ) => illegal("be paused"),
            (
                Self::Created
                | Self::Starting
                | Self::Running { .. }
                | Self::Restarting { .. }
                | Self::Exited { .. }
                | Self::Failed { .. }
                | Self::Removing,
                Event::Unpause,
            ) => illegal("be unpaused"),
            (
                Self::Created
                | Self::Starting
                | Self::Restarting { .. }
                | Self::Exited { .. }
                | Self::Failed { .. }
                | Self::Removing,
                Event::Exit(_) | Event::ExitToRestart(_),
            ) => illegal("exit"),
            (
                Self::Created
                | Self::Starting
                | Self::Running { .. }
                | Self::Paused { .. }
                | Self::Exited { .. }
                | Self::Failed { .. }
                | Self::Removing,
                Event::GiveUp,
            ) => illegal("give up restarting"),
            (Self::Created | Self::Exited { .. } | Self::Failed { .. } | Self::Removing, Event::Lost(_)) => {
                illegal("be lost")
            }
            (
                Self::Starting | Self::Running { .. } | Self::Paused { .. } | Self::Restarting { .. },
                Event::Remove,
            ) => illegal("be removed"),
        }
    }

    /// The state in a word.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running { .. } => "running",
            Self::Paused { .. } => "paused",
            Self::Restarting { .. } => "restarting",
            Self::Exited { .. } => "exited",
            Self::Failed { .. } => "failed to start",
            Self::Removing => "being removed",
        }
    }

    /// Whether a shim must be alive in this state.
    pub const fn is_live(&self) -> bool {
        match self {
            Self::Starting | Self::Running { .. } | Self::Paused { .. } | Self::Restarting { .. } => true,
            Self::Created | Self::Exited { .. } | Self::Failed { .. } | Self::Removing => false,
        }
    }

    /// The main process, when there is one.
    pub const fn process(&self) -> Option<Process> {
        match self {
            Self::Running { process } | Self::Paused { process } => Some(*process),
            Self::Created
            | Self::Starting
            | Self::Restarting { .. }
            | Self::Exited { .. }
            | Self::Failed { .. }
            | Self::Removing => None,
        }
    }
}

/// What the health probe says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// There is no probe.
    #[default]
    None,
    /// Not known yet.
    Starting,
    /// The last probe succeeded.
    Healthy,
    /// Enough probes failed in a row.
    Unhealthy,
}

/// One finished probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeRecord {
    /// When it ended.
    pub at: Timestamp,
    /// 0 is healthy; −1 a time-out or a probe that could not be run.
    pub code: i32,
    /// The first 4 KiB of its output.
    pub output: String,
}

/// Health of the current or last run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthRecord {
    /// Verdict.
    pub status: HealthStatus,
    /// Failures in a row.
    pub streak: u32,
    /// The last probes, oldest first, at most five.
    pub probes: Vec<ProbeRecord>,
}

/// A container's place on one network during its current run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRecord {
    /// Network id.
    pub network_id: String,
    /// Network name.
    pub network: String,
    /// Addresses.
    pub addresses: Vec<std::net::IpAddr>,
    /// Hardware address.
    pub mac: String,
    /// DNS names.
    pub names: Vec<String>,
}

/// What happened to a container so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// [`FORMAT`].
    pub version: u32,
    /// Boot during which this was written: a live state of another boot is void.
    pub boot: String,
    /// Where it is in its life.
    pub life: Life,
    /// When it was last started.
    pub started: Option<Timestamp>,
    /// How its last finished run ended.
    pub end: Option<End>,
    /// Starts by policy since the last start by a person.
    pub restarts: u32,
    /// A person stopped it: `unless-stopped` does not start it again.
    pub stopped: bool,
    /// Health.
    pub health: HealthRecord,
    /// Networks of the current run.
    pub endpoints: Vec<EndpointRecord>,
    /// Published ports of the current run.
    pub ports: Vec<Publish>,
    /// Lines of output dropped because the log could not be written.
    pub dropped_lines: u64,
}

impl State {
    /// The state of a container that was just created.
    pub fn new(boot: &str) -> Self {
        Self {
            version: FORMAT,
            boot: boot.to_owned(),
            life: Life::Created,
            started: None,
            end: None,
            restarts: 0,
            stopped: false,
            health: HealthRecord::default(),
            endpoints: Vec::new(),
            ports: Vec::new(),
            dropped_lines: 0,
        }
    }

    /// Applies an event.
    ///
    /// # Errors
    /// [`IllegalTransition`]; the state is then as before.
    pub fn apply(&mut self, event: Event) -> Result<(), IllegalTransition> {
        let next = self.life.clone().next(event)?;
        match &next {
            Life::Running { process } if self.started != Some(process.started) => {
                self.started = Some(process.started);
            }
            Life::Restarting { end } | Life::Exited { end } => self.end = Some(*end),
            _ => {}
        }
        if !next.is_live() {
            self.endpoints.clear();
            self.ports.clear();
        }
        self.life = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lifecycle_is_this_table() {
        let at = Timestamp::UNIX_EPOCH;
        let process = Process { pid: 7, birth: 9, started: at };
        let end = End { code: 3, at, oom_killed: false, unknown: false };
        let failed = || Event::LaunchFailed { code: 127, error: "e".into(), at };
        let states = [
            Life::Created,
            Life::Starting,
            Life::Running { process },
            Life::Paused { process },
            Life::Restarting { end },
            Life::Exited { end },
            Life::Failed { code: 127, error: "e".into(), at },
            Life::Removing,
        ];
        // One row per event; the column is the state before, the letter the state after, `-` refused.
        let letters = |c: char| match c {
            'S' => Some("starting"),
            'R' => Some("running"),
            'P' => Some("paused"),
            'A' => Some("restarting"),
            'E' => Some("exited"),
            'F' => Some("failed to start"),
            'X' => Some("being removed"),
            _ => None,
        };
        let table: [(Event, &str); 10] = [
            //                               C S R P A E F X
            (Event::Launch, /*            */ "S---SSS-"),
            (Event::Executed(process), /* */ "-R------"),
            (failed(), /*                 */ "-F------"),
            (Event::Pause, /*             */ "--P-----"),
            (Event::Unpause, /*           */ "---R----"),
            (Event::Exit(end), /*         */ "--EE----"),
            (Event::ExitToRestart(end), /**/ "--AA----"),
            (Event::GiveUp, /*            */ "----E---"),
            (Event::Lost(end), /*         */ "-EEEE---"),
            (Event::Remove, /*            */ "X----XXX"),
        ];
        for (event, row) in table {
            for (state, letter) in states.iter().zip(row.chars()) {
                let next = state.clone().next(event.clone());
                assert_eq!(
                    next.as_ref().ok().map(Life::word),
                    letters(letter),
                    "{} + {event:?}",
                    state.word()
                );
                if let Err(error) = next {
                    assert_eq!(error.from, state.word());
                }
            }
        }
    }

    #[test]
    fn a_state_survives_its_file_and_keeps_the_last_run() {
        let at = Timestamp::from_second(5).unwrap();
        let mut state = State::new("boot");
        state.apply(Event::Launch).unwrap();
        state.apply(Event::Executed(Process { pid: 1, birth: 2, started: at })).unwrap();
        state.apply(Event::Exit(End { code: 137, at, oom_killed: true, unknown: false })).unwrap();
        let again: State = serde_json::from_slice(&serde_json::to_vec(&state).unwrap()).unwrap();
        assert_eq!(again, state);
        assert_eq!(again.started, Some(at));
        assert_eq!(again.end.unwrap().code, 137);
    }
}
