//! `plan`.

use hoist::ops::{self, UpOptions};

use super::super::render::out;
use super::super::session::{self, NO_LOGS, Need};
use super::{Exit, Settings, Verb, up};

/// Show what `up` would do, and why
///
/// One line per step, in an order in which they can be done, each with its
/// reason and the steps it waits for. Nothing is changed. Takes the flags of
/// `up`.
#[derive(Debug, clap::Args)]
pub(crate) struct Plan {
    #[command(flatten)]
    up: up::Args,
    /// End with 2 when there is something to do
    #[arg(long)]
    exit_code: bool,
}

impl Verb for Plan {
    fn run(self, settings: Settings) -> anyhow::Result<Exit> {
        let steps = show(&self.up.options(&settings)?, &settings)?;
        Ok(if self.exit_code && steps > 0 { Exit::Process(2) } else { Exit::Success })
    }
}

/// Prints the plan of `up` and says how many steps it has.
pub(super) fn show(options: &UpOptions, settings: &Settings) -> anyhow::Result<usize> {
    let plan = session::run(settings, Need::Model(&options.services), NO_LOGS, async |session| {
        Ok(ops::plan(&session.context, options, &session.events).await?)
    })?;
    for warning in &plan.warnings {
        out::talk(&format!("warning: {warning}\n"));
    }
    let text = plan.to_string();
    if text.is_empty() {
        out::talk("Nothing to do: everything is as the files ask for.\n");
    } else {
        out::print(&text)?;
    }
    Ok(text.lines().count())
}
