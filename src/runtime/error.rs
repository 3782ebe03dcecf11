//! Why a call of the runtime failed.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::runtime::image::ImageError;
use crate::runtime::init::LaunchError;
use crate::runtime::log::LogOptionError;
use crate::runtime::network::NetworkError;
use crate::runtime::volume::VolumeError;
use crate::util::fs::PathError;

/// A failed call. Texts name the container as the caller did.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// No container has this name or id.
    #[error("no such container: {0}")]
    NotFound(String),
    /// Several ids begin with these digits.
    #[error("`{0}` is the beginning of more than one container id")]
    Ambiguous(String),
    /// Another container has the name.
    #[error("container name `{name}` is already in use by {by}")]
    NameTaken {
        /// The name.
        name: String,
        /// Id of its owner.
        by: String,
    },
    /// The name has characters Docker refuses, too.
    #[error("invalid container name `{0}`: at least two characters, only [a-zA-Z0-9][a-zA-Z0-9_.-]")]
    Name(String),
    /// The spec asks for something that does not exist or contradicts itself.
    #[error("container `{container}`: {reason}")]
    Invalid {
        /// Container name.
        container: String,
        /// What is wrong.
        reason: String,
    },
    /// The spec asks for something that is not built in.
    #[error("container `{container}`: `{attribute}` is not supported: {reason}")]
    Unsupported {
        /// Container name.
        container: String,
        /// Attribute in compose words.
        attribute: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The file system cannot be exported.
    #[error("cannot export container `{container}`")]
    Export {
        /// Container name.
        container: String,
        /// Step and file.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No image can be made of it.
    #[error("cannot make an image of container `{container}`")]
    Commit {
        /// Container name.
        container: String,
        /// Step and file.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A logging option is wrong.
    #[error("container `{container}`: {source}")]
    Log {
        /// Container name.
        container: String,
        /// What is wrong.
        source: LogOptionError,
    },
    /// The image is not here.
    #[error("no such image: {0}")]
    NoImage(String),
    /// A call needs a running container.
    #[error("container `{container}` is {state}, not running")]
    NotRunning {
        /// As asked.
        container: String,
        /// Its state in a word.
        state: String,
    },
    /// A running container cannot be removed.
    #[error("container `{container}` is {state}: stop it before removing it, or use force")]
    Running {
        /// As asked.
        container: String,
        /// Its state in a word.
        state: String,
    },
    /// Something is asked that cannot be done in the container's state.
    #[error("container `{container}` is {state} and cannot {action}")]
    State {
        /// As asked.
        container: String,
        /// Its state in a word.
        state: String,
        /// A verb.
        action: String,
    },
    /// The set-up failed inside the shim.
    #[error("cannot start container `{container}`")]
    Start {
        /// Container name.
        container: String,
        /// What failed.
        #[source]
        source: ShimError,
    },
    /// An extra process could not be run.
    #[error("cannot run a command in container `{container}`")]
    Exec {
        /// Container name.
        container: String,
        /// What failed.
        #[source]
        source: ShimError,
    },
    /// The shim ended without a word.
    #[error("the supervisor of container `{container}` died{}", if detail.is_empty() { String::new() } else { format!(": {detail}") })]
    ShimDied {
        /// Container name.
        container: String,
        /// Last words, if it had any.
        detail: String,
    },
    /// The control socket failed.
    #[error("cannot {step} the supervisor of container `{container}`")]
    Control {
        /// What was tried.
        step: &'static str,
        /// Container name.
        container: String,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// The user or group of the process does not exist in the image.
    #[error("container `{container}`: {source}")]
    User {
        /// Container name.
        container: String,
        /// What is missing.
        source: super::user::UserError,
    },
    /// The signal does not exist.
    #[error("no such signal: {0}")]
    Signal(String),
    /// A file was written by a newer hoist.
    #[error("`{}` was written by a newer hoist (format {found})", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// A file cannot be understood.
    #[error("cannot understand `{}`", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Networks.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Images.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Volumes.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// Copying out of or into a container.
    #[error(transparent)]
    Files(#[from] crate::runtime::files::FilesError),
    /// Files of ours.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// Result of runtime calls.
pub type Result<T> = std::result::Result<T, RuntimeError>;

/// What a shim reports when something it was asked for failed: an error that can travel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ShimError {
    /// The command could not be executed, or a step before it failed.
    #[error(transparent)]
    Launch {
        /// What failed.
        error: LaunchError,
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
    #[error("{step}: permission denied; run as root")]
    Permission {
        /// What was being done.
        step: String,
    },
    /// The container is not in a state for it.
    #[error("the container is {state} and cannot {action}")]
    State {
        /// State in a word.
        state: String,
        /// A verb.
        action: String,
    },
    /// Another step; the text is the whole chain of causes.
    #[error("{text}")]
    Step {
        /// What failed.
        text: String,
    },
}

impl ShimError {
    /// Exit code as Docker's: 127 command not found, 126 not executable, else 128.
    pub fn code(&self) -> i32 {
        match self {
            Self::Launch { error } => i32::from(error.exit_code()),
            Self::PortTaken { .. } | Self::Permission { .. } | Self::State { .. } | Self::Step { .. } => 128,
        }
    }

    /// An error with all its causes in one line.
    pub fn step(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::Step { text: chain(error) }
    }
}

impl From<LaunchError> for ShimError {
    fn from(error: LaunchError) -> Self {
        Self::Launch { error }
    }
}

impl From<NetworkError> for ShimError {
    fn from(error: NetworkError) -> Self {
        match error {
            NetworkError::PortTaken { address, protocol, reason } => {
                Self::PortTaken { port: format!("{address}/{protocol}"), reason }
            }
            NetworkError::Permission { step } => Self::Permission { step },
            other => Self::step(&other),
        }
    }
}

impl From<PathError> for ShimError {
    fn from(error: PathError) -> Self {
        Self::step(&error)
    }
}

impl From<RuntimeError> for ShimError {
    fn from(error: RuntimeError) -> Self {
        match error {
            RuntimeError::Network(error) => error.into(),
            other => Self::step(&other),
        }
    }
}

/// `error: its cause: the cause's cause`.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}
