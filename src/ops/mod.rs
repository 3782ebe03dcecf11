//! Use cases: what the verbs of the command line do, without terminal, environment or signals.
//!
//! Every verb is one `async fn` that takes a [`Context`], its options and (where
//! something takes time) an [`EventSender`](events::EventSender). Signals arrive as [`Interrupt`]; questions
//! to the user leave through [`Prompt`]. Nothing here prints.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

mod attached;
mod build;
mod commit;
mod context;
mod converge;
mod cp;
mod digests;
mod down;
pub mod error;
pub mod events;
mod exec;
mod execute;
mod export;
mod follow;
mod hook;
mod lifecycle;
mod logs;
mod monitor;
mod observe;
pub mod options;
mod progress;
mod pull;
mod push;
mod query;
mod run;
mod start;
mod stats;
mod up;
mod wait;
mod watch;

pub use build::build;
pub use commit::commit;
pub use context::{Context, Origin};
pub use cp::{CopyError, Pipes, cp};
pub use digests::{only_images, pin_images};
pub use down::down;
pub use error::{FailureCause, FailureReport, OpsError, decode_exit};
pub use exec::{attach, exec};
pub use export::{Exported, export};
pub use lifecycle::{kill, pause, restart, rm, stop, unpause, wait};
pub use logs::logs;
pub use options::*;
pub use pull::pull;
pub use push::push;
pub use query::{events, images, ls, port, ps, top, volumes};
pub use run::run;
pub use start::{project_from_labels, start};
pub use stats::{Meter, usage_of};
pub use up::{plan, scale, up};
pub use watch::watch;

use crate::engine::Phase;
use crate::model::labels;

/// Result of every use case.
pub type Result<T, E = OpsError> = std::result::Result<T, E>;

/// The user's wish to end what is running. The command line turns signals into it.
///
/// Every use case ends with [`OpsError::Interrupted`] at the first one, with
/// nothing half-made left; an attached `up` stops the project instead and goes
/// on following, and kills it at the second one.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    /// Cancelled by the first Ctrl-C or SIGTERM.
    pub first: CancellationToken,
    /// Cancelled by the second.
    pub second: CancellationToken,
}

/// Questions to the user.
pub trait Prompt: Send + Sync {
    /// Blocks until the user has answered yes or no. `default` is what an empty answer means.
    fn confirm(&self, question: &str, default: bool) -> bool;
}

/// Answers every question the same way.
#[derive(Debug, Clone, Copy)]
pub struct Always(pub bool);

impl Prompt for Always {
    fn confirm(&self, _question: &str, _default: bool) -> bool {
        self.0
    }
}

/// Whether a container has a process, or will have one again by its restart policy.
pub(crate) const fn is_up(phase: Phase) -> bool {
    matches!(phase, Phase::Running | Phase::Paused | Phase::Restarting)
}

/// A container's name as log lines show it: without the project when the name is the default one.
pub fn display_name(project: &str, name: &str, labels: &BTreeMap<String, String>) -> String {
    let label = |key: &str| labels.get(key).map(String::as_str);
    if let (Some(service), Some(number)) = (label(labels::SERVICE), label(labels::CONTAINER_NUMBER)) {
        for separator in ['-', '_'] {
            let short = format!("{service}{separator}{number}");
            if name.strip_prefix(project).and_then(|rest| rest.strip_prefix(separator)) == Some(&short) {
                return short;
            }
        }
    }
    name.to_owned()
}

/// A shared [`Prompt`].
pub type SharedPrompt = Arc<dyn Prompt>;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
