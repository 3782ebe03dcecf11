//! `system`: everything the built-in runtime has on the disk.

use anyhow::bail;

use super::{Exit, Settings, Verb};
use crate::cli::settings::EngineChoice;

mod df;
mod prune;

/// Show and clean up what the built-in runtime has on the disk
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: SystemVerb,
}

#[derive(Debug, clap::Subcommand)]
enum SystemVerb {
    /// Show what images, containers and volumes take
    Df(df::Df),
    /// Remove what is not used
    Prune(prune::Prune),
}

impl Verb for Args {
    fn run(self, settings: Settings) -> anyhow::Result<Exit> {
        if settings.engine == EngineChoice::Docker {
            bail!("`hoist system` is about the built-in runtime; for a Docker Engine use `docker system`");
        }
        match self.verb {
            SystemVerb::Df(args) => args.run(&settings),
            SystemVerb::Prune(args) => args.run(&settings),
        }
    }
}
