//! Why a use case failed.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use crate::engine::{EngineError, ProbeResult};

/// Why a use case failed. Texts are for the user and name the thing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpsError {
    /// A service named by the user is not in the project.
    #[error("no such service: {service}")]
    NoSuchService {
        /// As asked.
        service: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The project has no service to work on.
    #[error("no service selected")]
    NothingSelected,
    /// Dependencies go round in a circle.
    #[error("dependency cycle detected: {path}")]
    Cycle {
        /// `a -> b -> a`.
        path: String,
    },
    /// The service has no container.
    #[error("no container found for service `{service}`{}", index_text(*index))]
    NoContainer {
        /// Service.
        service: String,
        /// Replica asked for.
        index: Option<u32>,
    },
    /// The service has no running container.
    #[error("service `{service}` is not running{}", index_text(*index))]
    NotRunning {
        /// Service.
        service: String,
        /// Replica asked for.
        index: Option<u32>,
    },
    /// A service that was to be started has no container.
    #[error("service `{service}` has no container to start: create it with `up`")]
    NothingToStart {
        /// Service.
        service: String,
    },
    /// `wait` and others found nothing to work on.
    #[error("no containers for project `{project}`")]
    NoContainers {
        /// Project.
        project: String,
    },
    /// The port is not published.
    #[error("no port {port} for container {container}: {published}")]
    NoPort {
        /// `80/tcp`.
        port: String,
        /// Container name.
        container: String,
        /// What is published.
        published: String,
    },
    /// The image is not here and could not be fetched.
    #[error("service `{service}`: image `{image}` is not available: {reason}")]
    ImageMissing {
        /// Service.
        service: String,
        /// Reference.
        image: String,
        /// Why, and what to do.
        reason: String,
        /// What the registry said.
        #[source]
        source: Option<Box<EngineError>>,
    },
    /// A registry did not take an image.
    #[error("service `{service}`: cannot push image `{image}`")]
    Push {
        /// Service.
        service: String,
        /// Reference.
        image: String,
        /// What the registry said.
        #[source]
        source: Box<EngineError>,
    },
    /// The registry did not tell the digest of an image.
    #[error("cannot find out the digest of image `{image}`")]
    Digest {
        /// Reference.
        image: String,
        /// What the registry said.
        #[source]
        source: Box<EngineError>,
    },
    /// An image was not built.
    #[error("service `{service}`: cannot build image `{image}`")]
    Build {
        /// Service.
        service: String,
        /// The image it would give.
        image: String,
        /// Why.
        #[source]
        source: Box<EngineError>,
    },
    /// An external network or volume does not exist.
    #[error("{kind} `{name}` is declared as external, but could not be found")]
    ExternalMissing {
        /// `network` or `volume`.
        kind: &'static str,
        /// Its name in the engine.
        name: String,
    },
    /// A setting of the service cannot be carried out.
    #[error("service `{service}`: {reason}")]
    Invalid {
        /// Service.
        service: String,
        /// What is wrong.
        reason: String,
    },
    /// A setting of something that is not a service cannot be carried out.
    #[error("{reason}")]
    InvalidProject {
        /// What is wrong.
        reason: String,
    },
    /// A step on a resource failed.
    #[error("cannot {step} {kind} `{name}`")]
    Step {
        /// `create`, `start`, …
        step: &'static str,
        /// `container`, `network`, …
        kind: &'static str,
        /// Its name.
        name: String,
        /// What the engine said.
        #[source]
        source: Box<EngineError>,
    },
    /// `cp` failed.
    #[error("cannot copy {from} to {to}")]
    Copy {
        /// As shown to the user.
        from: String,
        /// As shown to the user.
        to: String,
        /// Why.
        #[source]
        source: super::cp::CopyError,
    },
    /// The kernel cannot tell what changes below a path.
    #[error("cannot watch `{}`", path.display())]
    Watch {
        /// The path.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: notify::Error,
    },
    /// Services did not come up.
    #[error("{0}")]
    NotReady(Box<FailureReport>),
    /// Several things failed; the rest was finished.
    #[error("{} of {total} failed: {}", errors.len(), errors.first().map(ToString::to_string).unwrap_or_default())]
    Several {
        /// All of them.
        errors: Vec<OpsError>,
        /// Attempts.
        total: usize,
    },
    /// The engine stopped telling what happens.
    #[error("the engine's event stream ended while something was waited for")]
    EventsEnded,
    /// The user interrupted it.
    #[error("interrupted")]
    Interrupted,
    /// The engine could not answer.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl OpsError {
    /// A step of the engine that failed. Engines that name the step themselves are taken at their word.
    pub(super) fn step(step: &'static str, kind: &'static str, name: &str, source: EngineError) -> Self {
        if source.to_string().starts_with(&format!("cannot {step} {kind} `{name}`")) {
            return Self::Engine(source);
        }
        Self::Step { step, kind, name: name.to_owned(), source: Box::new(source) }
    }
}

fn index_text(index: Option<u32>) -> String {
    index.map(|n| format!(" container #{n}")).unwrap_or_default()
}

/// Why services did not come up: the culprit, the evidence, and who is blocked.
///
/// `Display` is the first line; the other fields are for the renderer.
#[derive(Debug, Clone, PartialEq)]
pub struct FailureReport {
    /// Service that is to blame.
    pub service: String,
    /// Its container, when it has one.
    pub container: Option<String>,
    /// What happened.
    pub cause: FailureCause,
    /// What was waited for: `healthy`, `completed successfully`, `running`, `running or healthy`, `started`.
    pub condition: &'static str,
    /// A dependent was waiting for it (otherwise the user asked for readiness).
    pub dependency: bool,
    /// When the container was last started.
    pub since: Option<Timestamp>,
    /// How long it was waited for.
    pub waited: Option<SignedDuration>,
    /// Its last probes, oldest first.
    pub probes: Vec<ProbeResult>,
    /// The last lines it printed.
    pub output: Vec<String>,
    /// Services that did not start because of it.
    pub blocked: Vec<String>,
    /// The next command to try.
    pub hint: Option<String>,
}

/// What kept a service from being ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FailureCause {
    /// Its container ended.
    Exited {
        /// Exit code; 128+n for signal n.
        code: i32,
        /// For lack of memory.
        oom: bool,
    },
    /// Its probe failed as often as allowed.
    Unhealthy,
    /// It has no health probe, so it can never be healthy.
    NoHealthcheck,
    /// It is started again whenever it ends, so it can never complete.
    NeverCompletes,
    /// It has no container.
    NoContainer,
    /// Its container was removed while it was waited for.
    Removed,
    /// Time is over.
    Timeout,
}

impl fmt::Display for FailureReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.cause == FailureCause::Timeout {
            let limit = self.waited.unwrap_or_default().as_secs();
            return write!(
                f,
                "application not healthy after {limit}s: service `{}` is not {}",
                self.service, self.condition
            );
        }
        if self.dependency {
            f.write_str("dependency failed to start: ")?;
        }
        match &self.container {
            Some(name) => write!(f, "container {name} (service `{}`) ", self.service)?,
            None => write!(f, "service `{}` ", self.service)?,
        }
        match self.cause {
            FailureCause::Exited { code, oom } => {
                write!(f, "exited ({code}")?;
                if let Some(text) = decode_exit(code, oom) {
                    write!(f, ": {text}")?;
                }
                f.write_str(")")
            }
            FailureCause::Unhealthy => f.write_str("is unhealthy"),
            FailureCause::NoHealthcheck => f.write_str("has no healthcheck configured"),
            FailureCause::NeverCompletes => {
                f.write_str("is restarted whenever it ends, so it never completes")
            }
            FailureCause::NoContainer => f.write_str("has no container"),
            FailureCause::Removed => f.write_str("was removed by another command"),
            FailureCause::Timeout => Ok(()),
        }
    }
}

/// Says in words what an exit code means beyond its number, if it does.
///
/// # Source
/// POSIX shells and Docker: 125–127 are failures to execute, 128+n is signal n.
pub fn decode_exit(code: i32, oom: bool) -> Option<String> {
    if oom {
        return Some("killed for lack of memory: it reached its memory limit".into());
    }
    let text = match code {
        126 => "the command is not executable".into(),
        127 => "the command was not found".into(),
        137 => {
            "killed by SIGKILL: stopped too slowly, killed by a user, or the machine ran out of memory".into()
        }
        139 => "crashed with SIGSEGV".into(),
        143 => "terminated by SIGTERM".into(),
        129..=192 => {
            let n = code - 128;
            match signal_name(n) {
                Some(name) => format!("ended by {name}"),
                None => format!("ended by signal {n}"),
            }
        }
        _ => return None,
    };
    Some(text)
}

/// The name of a Linux signal by number.
fn signal_name(n: i32) -> Option<&'static str> {
    const NAMES: [&str; 31] = [
        "SIGHUP",
        "SIGINT",
        "SIGQUIT",
        "SIGILL",
        "SIGTRAP",
        "SIGABRT",
        "SIGBUS",
        "SIGFPE",
        "SIGKILL",
        "SIGUSR1",
        "SIGSEGV",
        "SIGUSR2",
        "SIGPIPE",
        "SIGALRM",
        "SIGTERM",
        "SIGSTKFLT",
        "SIGCHLD",
        "SIGCONT",
        "SIGSTOP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGXCPU",
        "SIGXFSZ",
        "SIGVTALRM",
        "SIGPROF",
        "SIGWINCH",
        "SIGIO",
        "SIGPWR",
        "SIGSYS",
    ];
    usize::try_from(n - 1).ok().and_then(|i| NAMES.get(i)).copied()
}

/// What several operations beside each other came to: nothing, the one error, or all of them.
/// With `ignored` they are told as warnings instead.
pub(super) async fn sum_up(
    results: Vec<Result<(), OpsError>>,
    ignored: bool,
    events: &super::events::EventSender,
) -> Result<(), OpsError> {
    let total = results.len();
    let mut errors: Vec<OpsError> = results.into_iter().filter_map(Result::err).collect();
    match errors.len() {
        0 => Ok(()),
        _ if ignored => {
            for error in errors {
                let warning = super::events::ProjectEvent::Warning(with_causes(&error));
                super::progress::send(events, warning).await;
            }
            Ok(())
        }
        1 => Err(errors.remove(0)),
        _ => Err(OpsError::Several { errors, total }),
    }
}

/// An error and its causes in one line, for those that are told but do not end the command.
pub(super) fn with_causes(error: &OpsError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_told_in_words() {
        assert_eq!(decode_exit(1, false), None);
        assert_eq!(decode_exit(134, false).as_deref(), Some("ended by SIGABRT"));
        assert_eq!(decode_exit(162, false).as_deref(), Some("ended by signal 34"));
        assert!(decode_exit(137, true).expect("told").contains("memory limit"));
    }

    #[test]
    fn the_first_line_names_the_culprit() {
        let report = FailureReport {
            service: "db".into(),
            container: Some("p-db-1".into()),
            cause: FailureCause::Exited { code: 139, oom: false },
            condition: "healthy",
            dependency: true,
            since: None,
            waited: None,
            probes: vec![],
            output: vec![],
            blocked: vec!["web".into()],
            hint: None,
        };
        assert_eq!(
            report.to_string(),
            "dependency failed to start: container p-db-1 (service `db`) exited (139: crashed with SIGSEGV)"
        );
    }
}
