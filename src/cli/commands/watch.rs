//! `watch`.

use hoist::ops::{self, WatchOptions};

use super::super::session::{self, NO_LOGS, Need};
use super::{Exit, Settings, Verb};

/// Bring changes of source files into the containers, by the rules of `develop.watch`
///
/// Starts the services first, then follows the working tree until Ctrl-C. What a path is when it is looked
/// at decides: it is copied when it exists and removed when it does not. A container that is made anew gets
/// all that has changed since.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these services
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Do not start the services first
    #[arg(long)]
    no_up: bool,
    /// Remove images that a rebuild leaves without a name [default: true]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = super::super::args::go_bool, value_name = "BOOL")]
    prune: Option<bool>,
    /// No output of builds
    #[arg(long)]
    quiet: bool,
}

impl Verb for Args {
    fn run(self, settings: Settings) -> anyhow::Result<Exit> {
        let options = WatchOptions {
            services: self.services,
            up: !self.no_up,
            prune: self.prune != Some(false),
            quiet_build: self.quiet,
        };
        session::run(&settings, Need::Model(&options.services), NO_LOGS, async |session| {
            ops::watch(&session.context, &options, &session.events).await?;
            Ok(Exit::Success)
        })
    }
}
