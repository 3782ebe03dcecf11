//! `restart`.

use hoist::ops::{self, RestartOptions};

use super::super::session::{self, NO_LOGS, Need};
use super::translate;
use super::{Exit, Settings, Verb};

/// Restart containers as they are
///
/// Changes in the files are not applied; that is what `up` does.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these services
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Leave services alone that depend on them with `restart: true`
    #[arg(long)]
    no_deps: bool,
    /// Seconds before a container that should stop is killed
    #[arg(long, short, value_name = "SECONDS", allow_negative_numbers = true)]
    timeout: Option<i64>,
}

impl Verb for Args {
    fn run(self, settings: Settings) -> anyhow::Result<Exit> {
        let options = RestartOptions {
            services: self.services,
            no_deps: self.no_deps,
            timeout: translate::timeout(self.timeout),
        };
        session::run(&settings, Need::ProjectOrName(&options.services), NO_LOGS, async |session| {
            ops::restart(&session.context, &options, &session.events).await?;
            Ok(Exit::Success)
        })
    }
}
