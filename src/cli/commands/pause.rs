//! `pause` and `unpause`.

use hoist::ops;

use super::super::session::{self, NO_LOGS, Need};
use super::{Exit, Settings, Verb};

/// Freeze all processes of services
#[derive(Debug, clap::Args)]
pub(crate) struct Pause {
    /// Only these services
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// Let frozen services go on
#[derive(Debug, clap::Args)]
pub(crate) struct Unpause {
    /// Only these services
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Verb for Pause {
    fn run(self, settings: Settings) -> anyhow::Result<Exit> {
        session::run(&settings, Need::ProjectOrName(&self.services), NO_LOGS, async |session| {
            ops::pause(&session.context, &self.services, &session.events).await?;
            Ok(Exit::Success)
        })
    }
}

impl Verb for Unpause {
    fn run(self, settings: Settings) -> anyhow::Result<Exit> {
        session::run(&settings, Need::ProjectOrName(&self.services), NO_LOGS, async |session| {
            ops::unpause(&session.context, &self.services, &session.events).await?;
            Ok(Exit::Success)
        })
    }
}
