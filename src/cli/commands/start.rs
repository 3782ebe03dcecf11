//! `start`.

use std::time::Duration;

use anyhow::bail;
use hoist::ops::{self, StartOptions, WaitLimit};

use super::super::session::{self, NO_LOGS, Need};
use super::{Exit, Settings, Verb};

/// Start existing containers
///
/// Together with those of the services they depend on. Nothing is created;
/// that is what `up` does.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these services and what they depend on
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Return when everything is running and healthy
    #[arg(long)]
    wait: bool,
    /// Seconds to wait at most with --wait
    #[arg(
        long,
        value_name = "SECONDS",
        allow_negative_numbers = true,
        default_value_t = 0,
        hide_default_value = true
    )]
    wait_timeout: i64,
}

impl Args {
    fn options(&self) -> anyhow::Result<StartOptions> {
        let Ok(seconds) = u64::try_from(self.wait_timeout) else {
            bail!("--wait-timeout must be 0 or more");
        };
        let timeout = (seconds > 0).then(|| Duration::from_secs(seconds));
        Ok(StartOptions { services: self.services.clone(), wait: self.wait.then_some(WaitLimit { timeout }) })
    }
}

impl Verb for Args {
    fn run(self, settings: Settings) -> anyhow::Result<Exit> {
        let options = self.options()?;
        session::run(&settings, Need::ProjectOrName(&options.services), NO_LOGS, async |session| {
            ops::start(&session.context, &options, &session.events).await?;
            Ok(Exit::Success)
        })
    }
}
