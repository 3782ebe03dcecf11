//! `push`.

use hoist::ops::{self, PushOptions};

use super::super::session::{self, NO_LOGS, Need};
use super::{Exit, Settings, Verb};

/// Send the images of services to their registries
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these services
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Push what can be pushed; failures do not count
    #[arg(long)]
    ignore_push_failures: bool,
    /// Also what they depend on
    #[arg(long)]
    include_deps: bool,
    /// No progress
    #[arg(long, short)]
    quiet: bool,
}

impl Verb for Args {
    fn run(self, settings: Settings) -> anyhow::Result<Exit> {
        let options = PushOptions {
            services: self.services,
            include_deps: self.include_deps,
            ignore_failures: self.ignore_push_failures,
            quiet: self.quiet,
        };
        session::run(&settings, Need::Model(&options.services), NO_LOGS, async |session| {
            ops::push(&session.context, &options, &session.events).await?;
            Ok(Exit::Success)
        })
    }
}
