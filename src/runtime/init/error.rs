//! Why a process could not be started.

use serde::{Deserialize, Serialize};

use crate::runtime::sys::Errno;

/// A start that failed, with the step and the thing it was about.
///
/// It can be serialized: some steps happen inside the container, and the shim
/// hands the error on to the command line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum LaunchError {
    /// The command does not exist in the container (exit code 127).
    #[error("command `{command}` was not found in the container")]
    CommandNotFound {
        /// First word.
        command: String,
    },
    /// The command exists and cannot be run (exit code 126): no permission, a
    /// directory, wrong format, missing interpreter.
    #[error("cannot run `{command}`")]
    NotExecutable {
        /// First word, or the path found in `PATH`.
        command: String,
        /// Cause.
        source: Errno,
    },
    /// A cgroup step.
    #[error("cannot {action} cgroup `{path}`")]
    Cgroup {
        /// `create`, `limit`, `join`.
        action: String,
        /// File or directory below the cgroup root.
        path: String,
        /// Cause.
        source: Errno,
    },
    /// The overlay could not be made.
    #[error("cannot mount the root file system (`{object}`)")]
    Rootfs {
        /// Layer, upper or work directory, or option.
        object: String,
        /// Cause.
        source: Errno,
    },
    /// A host path given as mount source cannot be used.
    #[error("cannot use `{path}` as source of the mount on `{target}`")]
    MountSource {
        /// Host path.
        path: String,
        /// Path inside.
        target: String,
        /// Cause.
        source: Errno,
    },
    /// Something could not be attached inside the container.
    #[error("cannot mount {what} on `{target}`")]
    Mount {
        /// What was to be attached.
        what: String,
        /// Path inside.
        target: String,
        /// Cause.
        source: Errno,
    },
    /// A device node could not be made.
    #[error("cannot make device `{path}`")]
    Device {
        /// Path inside.
        path: String,
        /// Cause.
        source: Errno,
    },
    /// The pseudo-terminal could not be set up.
    #[error("cannot set up the terminal ({action})")]
    Terminal {
        /// What failed.
        action: String,
        /// Cause.
        source: Errno,
    },
    /// A namespace could not be made or entered.
    #[error("cannot enter the {namespace} namespace")]
    Namespace {
        /// `pid`, `mount`, `network`, …, or `container's`.
        namespace: String,
        /// Cause.
        source: Errno,
    },
    /// A kernel parameter was refused.
    #[error("cannot set sysctl `{name}` to `{value}`")]
    Sysctl {
        /// Parameter.
        name: String,
        /// Value.
        value: String,
        /// Cause.
        source: Errno,
    },
    /// A resource limit was refused.
    #[error("cannot set limit `{name}`")]
    Rlimit {
        /// Limit.
        name: String,
        /// Cause.
        source: Errno,
    },
    /// User, groups or capabilities could not be taken on.
    #[error("cannot set {what}")]
    Identity {
        /// What failed, with its value.
        what: String,
        /// Cause.
        source: Errno,
    },
    /// The seccomp program was refused.
    #[error("cannot install the seccomp filter")]
    Seccomp {
        /// Cause.
        source: Errno,
    },
    /// The working directory cannot be used.
    #[error("cannot change to working directory `{path}`")]
    WorkingDir {
        /// Path inside.
        path: String,
        /// Cause.
        source: Errno,
    },
    /// The plan asks for something impossible (text says what).
    #[error("invalid start plan: {reason}")]
    Plan {
        /// What is wrong.
        reason: String,
    },
    /// Another step of the set-up.
    #[error("cannot {action}")]
    Setup {
        /// What failed.
        action: String,
        /// Cause.
        source: Errno,
    },
    /// The new process ended before it ran the command and said nothing.
    #[error("the container's first process died during set-up (wait status {status})")]
    Died {
        /// As `waitpid` reports it; −1 if unknown.
        status: i32,
    },
}

impl LaunchError {
    /// The same error, with the wait status where it was not known yet.
    pub(super) fn with_status(self, status: i32) -> Self {
        match self {
            Self::Died { .. } => Self::Died { status },
            other => other,
        }
    }

    /// Exit code that a shell or Docker gives for this: 127 not found, 126 not executable, else 128.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::CommandNotFound { .. } => 127,
            // The file is there, but what should interpret it is not.
            Self::NotExecutable { source, .. } if source.raw() == libc::ENOENT => 127,
            Self::NotExecutable { .. } => 126,
            _ => 128,
        }
    }
}
