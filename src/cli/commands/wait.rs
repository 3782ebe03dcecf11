//! `wait`.

use hoist::ops::{self, WaitOptions};

use super::super::render::out;
use super::super::session::{self, NO_LOGS, Need};
use super::{Exit, Settings, Verb};

/// Wait until services have stopped
///
/// The exit code is that of the last container to end.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which services
    #[arg(value_name = "SERVICE", required = true)]
    services: Vec<String>,
    /// Then stop and remove the whole project
    #[arg(long)]
    down_project: bool,
}

impl Verb for Args {
    fn run(self, settings: Settings) -> anyhow::Result<Exit> {
        let options = WaitOptions { services: self.services, down_project: self.down_project };
        session::run(&settings, Need::ProjectOrName(&options.services), NO_LOGS, async |session| {
            let mut exit = Exit::Success;
            for ended in ops::wait(&session.context, &options, &session.events).await? {
                out::print(&format!(
                    "container \"{}\" exited with status code {}\n",
                    ended.id, ended.exit_code
                ))?;
                exit = Exit::Process(ended.exit_code);
            }
            Ok(exit)
        })
    }
}
