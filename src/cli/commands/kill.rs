//! `kill`.

use hoist::ops::{self, KillOptions};

use super::super::render::out;
use super::super::session::{self, NO_LOGS, Need};
use super::{Exit, Settings, Verb};

/// Send a signal to containers, SIGKILL unless told otherwise
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these services
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Kill containers of services that are not in the files, too
    #[arg(long)]
    remove_orphans: bool,
    /// The signal, by name or number
    #[arg(long, short, value_name = "SIGNAL", default_value = "SIGKILL")]
    signal: String,
}

impl Verb for Args {
    fn run(self, settings: Settings) -> anyhow::Result<Exit> {
        let options = KillOptions {
            services: self.services,
            signal: self.signal,
            remove_orphans: settings.remove_orphans(self.remove_orphans),
        };
        let killed =
            session::run(&settings, Need::ProjectOrName(&options.services), NO_LOGS, async |session| {
                Ok(ops::kill(&session.context, &options, &session.events).await?)
            })?;
        if killed == 0 {
            out::talk("No container to kill\n");
        }
        Ok(Exit::Success)
    }
}
