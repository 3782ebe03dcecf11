//! All that a renderer ever sees.

use crate::engine::{BuildEvent, LogFrame};

/// What is being worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceKind {
    /// A container.
    Container,
    /// A network.
    Network,
    /// A volume.
    Volume,
    /// An image.
    Image,
    /// A layer of an image.
    Layer,
}

impl ResourceKind {
    /// As Docker Compose prints it in front of the name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Container => "Container",
            Self::Network => "Network",
            Self::Volume => "Volume",
            Self::Image => "Image",
            Self::Layer => "Layer",
        }
    }
}

/// How it is going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Under way.
    Working,
    /// Finished.
    Done,
    /// Finished, with something to say.
    Warning,
    /// Failed.
    Error,
}

/// One thing that happened, in the order it happened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ProjectEvent {
    /// An operation begins (`up`, `down`, `pull`, …): the heading of the progress tree.
    Begin {
        /// The operation's name.
        operation: &'static str,
    },
    /// A resource changed state.
    Progress {
        /// Kind.
        kind: ResourceKind,
        /// Name.
        name: String,
        /// The image of a layer.
        parent: Option<String>,
        /// State.
        status: Status,
        /// `Creating`, `Created`, `Waiting`, … (reference/cli.md §10).
        text: &'static str,
        /// What it waits for, why it is recreated, bytes, …
        details: String,
        /// Bytes done and bytes in all.
        bytes: Option<(u64, u64)>,
    },
    /// A step of a build. Steps of all builds of a command are numbered together.
    Build(BuildEvent),
    /// The progress tree is complete.
    End,
    /// Something the user should know.
    Warning(String),
    /// What `watch` does about a change.
    Watch(String),
    /// The containers that are followed from now on, by display name, sorted.
    Attaching(Vec<String>),
    /// Output of one container.
    Log {
        /// Display name, as in the prefix.
        source: String,
        /// The frames, in order.
        frames: Vec<LogFrame>,
    },
    /// A followed container ended.
    Exited {
        /// Display name.
        source: String,
        /// Exit code.
        code: i32,
        /// Will be started again.
        restarting: bool,
    },
    /// A followed container was replaced.
    Recreated {
        /// Display name.
        source: String,
    },
    /// The first Ctrl-C, or an abort mode, begins to stop the project.
    Stopping {
        /// Why: shown to the user.
        reason: &'static str,
    },
}

/// Where operations send their events. Bounded: a slow reader slows the sender and loses nothing.
pub type EventSender = tokio::sync::mpsc::Sender<ProjectEvent>;
