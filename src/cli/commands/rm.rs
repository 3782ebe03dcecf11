//! `rm`.

use std::sync::Arc;

use hoist::ops::{self, Always, RmOptions, RmOutcome};

use super::super::render::out;
use super::super::session::{self, NO_LOGS, Need};
use super::{Exit, Settings, Verb};

/// Remove stopped containers
///
/// Asks first, unless -f is given.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(crate) struct Args {
    /// Only these services
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Deprecated: has no effect in Docker Compose either
    #[arg(long, short, hide = true)]
    all: bool,
    /// Do not ask
    #[arg(long, short)]
    force: bool,
    /// Stop running containers first
    #[arg(long, short)]
    stop: bool,
    /// Remove anonymous volumes too
    #[arg(long, short)]
    volumes: bool,
}

impl Verb for Args {
    fn run(self, settings: Settings) -> anyhow::Result<Exit> {
        let options = RmOptions { services: self.services, stop: self.stop, volumes: self.volumes };
        let outcome =
            session::run(&settings, Need::ProjectOrName(&options.services), NO_LOGS, async |mut session| {
                if self.force {
                    session.context.prompt = Arc::new(Always(true));
                }
                Ok(ops::rm(&session.context, &options, &session.events).await?)
            })?;
        match outcome {
            RmOutcome::NothingFound => out::talk("No stopped containers\n"),
            RmOutcome::Removed | RmOutcome::Declined => {}
        }
        Ok(Exit::Success)
    }
}
