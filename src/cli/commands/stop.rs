//! `stop`.

use hoist::ops::{self, StopOptions};

use super::super::session::{self, NO_LOGS, Need};
use super::translate;
use super::{Exit, Settings, Verb};

/// Stop containers without removing them
///
/// In reverse order of their dependencies. `start` starts them again.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these services
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Seconds before a container that should stop is killed
    #[arg(long, short, value_name = "SECONDS", allow_negative_numbers = true)]
    timeout: Option<i64>,
}

impl Verb for Args {
    fn run(self, settings: Settings) -> anyhow::Result<Exit> {
        let options = StopOptions { services: self.services, timeout: translate::timeout(self.timeout) };
        session::run(&settings, Need::ProjectOrName(&options.services), NO_LOGS, async |session| {
            ops::stop(&session.context, &options, &session.events).await?;
            Ok(Exit::Success)
        })
    }
}
