//! What a shim is told: everything resolved, written once per start.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::runtime::init::LaunchPlan;
use crate::runtime::log::LogPlan;
use crate::runtime::network::NetPlan;
use crate::runtime::root::Root;
use crate::runtime::state::Probe;
use crate::spec::RestartPolicy;

/// `run/c/<id>/plan`: what is started, again after each exit that the policy answers with a
/// restart, and what a later process needs to take over or to clean up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches of the spec")]
pub struct ShimPlan {
    /// [`crate::runtime::state::FORMAT`].
    pub version: u32,
    /// Full container id.
    pub id: String,
    /// Container name, for events.
    pub name: String,
    /// Image reference, for events.
    pub image: String,
    /// Labels, for events.
    pub labels: BTreeMap<String, String>,
    /// Installation.
    pub root: Root,
    /// The container.
    pub launch: LaunchPlan,
    /// Containers whose namespaces are joined.
    pub joins: Joins,
    /// Its network.
    pub net: NetPlan,
    /// The main process has a terminal.
    pub tty: bool,
    /// Standard input stays open; otherwise it is `/dev/null`.
    pub stdin_open: bool,
    /// Standard input is closed when the first attached client leaves.
    pub stdin_once: bool,
    /// Where output goes.
    pub log: LogPlan,
    /// After an exit.
    pub restart: RestartPolicy,
    /// Number of the signal that asks the main process to stop.
    pub stop_signal: i32,
    /// Whether the stop signal was asked for, or is the default.
    pub stop_signal_given: bool,
    /// Milliseconds between the stop signal and SIGKILL.
    pub grace_ms: u64,
    /// Health probe.
    pub probe: Option<Probe>,
    /// The container is removed once it has exited.
    pub auto_remove: bool,
}

/// Full ids of containers whose namespaces are joined. Their pids are looked up at each start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joins {
    /// Network.
    pub network: Option<String>,
    /// Processes.
    pub pid: Option<String>,
    /// Message queues and shared memory.
    pub ipc: Option<String>,
}
