//! The single operations of a plan: what an engine can do in one call, and waiting.

use std::fmt;
use std::time::Duration;

use super::dag::NodeId;
use crate::spec::{ContainerSpec, EndpointSpec, ExecSpec, NetworkSpec, VolumeSpec};

/// The container an operation is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// One that was there when the plan was made.
    Existing {
        /// Its id.
        id: String,
        /// Its name.
        name: String,
    },
    /// One that an earlier node of the plan creates.
    Created {
        /// The node that creates it.
        by: NodeId,
        /// Its final name.
        name: String,
    },
}

impl Target {
    /// The name the user knows it by.
    pub fn name(&self) -> &str {
        match self {
            Self::Existing { name, .. } | Self::Created { name, .. } => name,
        }
    }
}

/// What one container takes from another of the project; filled in when the other's id is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Borrow {
    /// The service that gives.
    pub service: String,
    /// Its container.
    pub from: Target,
    /// What is taken.
    pub what: Borrowed,
}

/// The things that can be taken from another container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Borrowed {
    /// Network namespace.
    Network,
    /// Inter-process communication.
    Ipc,
    /// Process ids.
    Pid,
    /// Mounts.
    Volumes {
        /// Attached read-only.
        read_only: bool,
    },
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// Its containers were started.
    Started,
    /// Its containers are healthy.
    Healthy,
    /// One of its containers exited with 0.
    Completed,
    /// Running, healthy if it has a probe, or done with exit code 0 (`--wait`).
    Ready,
}

impl Condition {
    /// As the user reads it: “waits for db to be …”.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Healthy => "healthy",
            Self::Completed => "completed successfully",
            Self::Ready => "running or healthy",
        }
    }
}

/// A wait for a condition of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// The service waited for.
    pub service: String,
    /// Its containers.
    pub containers: Vec<Target>,
    /// The condition.
    pub condition: Condition,
    /// Failing is only a warning for all who wait.
    pub required: bool,
    /// Services that wait; empty when the user asked for readiness.
    pub waiting: Vec<String>,
}

/// One operation.
#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    /// Makes a network.
    CreateNetwork {
        /// As asked.
        spec: NetworkSpec,
    },
    /// Removes a network.
    RemoveNetwork {
        /// Name or id.
        name: String,
        /// When somebody else uses it, it is left, with a warning.
        tolerate_use: bool,
    },
    /// Attaches a container to a network.
    Connect {
        /// Which.
        container: Target,
        /// How.
        endpoint: Box<EndpointSpec>,
    },
    /// Detaches a container from a network.
    Disconnect {
        /// Which.
        container: Target,
        /// Network name.
        network: String,
    },
    /// Makes a volume.
    CreateVolume {
        /// As asked.
        spec: VolumeSpec,
    },
    /// Removes a volume and its data.
    RemoveVolume {
        /// Name.
        name: String,
        /// When somebody else uses it, it is left, with a warning.
        tolerate_use: bool,
    },
    /// Makes a container.
    CreateContainer {
        /// Its service.
        service: String,
        /// As asked; its name is a temporary one when it replaces another.
        spec: Box<ContainerSpec>,
        /// What is filled in when it is known.
        borrows: Vec<Borrow>,
        /// The container it takes the place of.
        replaces: Option<Target>,
        /// The name it will have in the end.
        name: String,
    },
    /// Gives a container its final name.
    RenameContainer {
        /// Which.
        container: Target,
        /// The name.
        name: String,
        /// It is the last step of a replacement.
        replacement: bool,
    },
    /// Starts a container.
    StartContainer {
        /// Which.
        container: Target,
    },
    /// Stops a container.
    StopContainer {
        /// Which.
        container: Target,
        /// Grace period; none means its own.
        grace: Option<Duration>,
    },
    /// Stops and starts a container.
    RestartContainer {
        /// Which.
        container: Target,
        /// Grace period; none means its own.
        grace: Option<Duration>,
    },
    /// Sends a signal to a container.
    KillContainer {
        /// Which.
        container: Target,
        /// Name or number.
        signal: String,
    },
    /// Freezes a container.
    PauseContainer {
        /// Which.
        container: Target,
    },
    /// Thaws a container.
    UnpauseContainer {
        /// Which.
        container: Target,
    },
    /// Removes a container.
    RemoveContainer {
        /// Which.
        container: Target,
        /// Anonymous volumes too.
        volumes: bool,
        /// As a step of a replacement, which the user does not see.
        replacement: bool,
    },
    /// Runs a hook of the service in its container.
    Hook {
        /// In which.
        container: Target,
        /// `post_start` or `pre_stop`.
        stage: &'static str,
        /// The process.
        spec: Box<ExecSpec>,
    },
    /// Removes an image.
    RemoveImage {
        /// Reference.
        reference: String,
    },
    /// Waits for a condition.
    Wait(Wait),
    /// Does nothing; what comes after it waits for all that comes before.
    Barrier,
}

impl Operation {
    /// False for what only waits.
    pub fn changes_something(&self) -> bool {
        !matches!(self, Self::Wait(_) | Self::Barrier)
    }

    /// It takes something away; that it is gone already is as good.
    pub fn is_removal(&self) -> bool {
        matches!(
            self,
            Self::RemoveNetwork { .. }
                | Self::RemoveVolume { .. }
                | Self::RemoveContainer { .. }
                | Self::RemoveImage { .. }
                | Self::StopContainer { .. }
                | Self::Disconnect { .. }
        )
    }

    /// That somebody else uses it is only a warning.
    pub fn tolerates_use(&self) -> bool {
        match self {
            Self::RemoveNetwork { tolerate_use, .. } | Self::RemoveVolume { tolerate_use, .. } => {
                *tolerate_use
            }
            Self::RemoveImage { .. } => true,
            _ => false,
        }
    }

    /// The container it is about, if it is about one that exists when it runs.
    pub fn target(&self) -> Option<&Target> {
        match self {
            Self::Connect { container, .. }
            | Self::Disconnect { container, .. }
            | Self::RenameContainer { container, .. }
            | Self::StartContainer { container }
            | Self::StopContainer { container, .. }
            | Self::RestartContainer { container, .. }
            | Self::KillContainer { container, .. }
            | Self::PauseContainer { container }
            | Self::UnpauseContainer { container }
            | Self::RemoveContainer { container, .. }
            | Self::Hook { container, .. } => Some(container),
            Self::CreateNetwork { .. }
            | Self::RemoveNetwork { .. }
            | Self::CreateVolume { .. }
            | Self::RemoveVolume { .. }
            | Self::CreateContainer { .. }
            | Self::RemoveImage { .. }
            | Self::Wait(_)
            | Self::Barrier => None,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateNetwork { spec } => write!(f, "create network {}", spec.name),
            Self::RemoveNetwork { name, .. } => write!(f, "remove network {name}"),
            Self::Connect { container, endpoint } => {
                write!(f, "connect container {} to network {}", container.name(), endpoint.network)
            }
            Self::Disconnect { container, network } => {
                write!(f, "disconnect container {} from network {network}", container.name())
            }
            Self::CreateVolume { spec } => write!(f, "create volume {}", spec.name),
            Self::RemoveVolume { name, .. } => write!(f, "remove volume {name}"),
            Self::CreateContainer { name, replaces: None, .. } => write!(f, "create container {name}"),
            Self::CreateContainer { name, replaces: Some(_), .. } => write!(f, "recreate container {name}"),
            Self::RenameContainer { container, name, .. } => {
                let old = container.name();
                if old == name {
                    write!(f, "rename replacement to {name}")
                } else {
                    write!(f, "rename container {old} to {name}")
                }
            }
            Self::StartContainer { container } => write!(f, "start container {}", container.name()),
            Self::StopContainer { container, .. } => write!(f, "stop container {}", container.name()),
            Self::RestartContainer { container, .. } => write!(f, "restart container {}", container.name()),
            Self::KillContainer { container, signal } => {
                write!(f, "send {signal} to container {}", container.name())
            }
            Self::PauseContainer { container } => write!(f, "pause container {}", container.name()),
            Self::UnpauseContainer { container } => write!(f, "unpause container {}", container.name()),
            Self::RemoveContainer { container, replacement: false, .. } => {
                write!(f, "remove container {}", container.name())
            }
            Self::RemoveContainer { container, replacement: true, .. } => {
                write!(f, "remove replaced container {}", container.name())
            }
            Self::Hook { container, stage, .. } => write!(f, "run {stage} hook in {}", container.name()),
            Self::RemoveImage { reference } => write!(f, "remove image {reference}"),
            Self::Wait(wait) => {
                let optional = if wait.required { "" } else { " (optional)" };
                write!(f, "wait for {} to be {}{optional}", wait.service, wait.condition.as_str())
            }
            Self::Barrier => f.write_str("barrier"),
        }
    }
}
