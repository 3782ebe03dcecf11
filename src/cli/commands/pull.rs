//! `pull`.

use anyhow::bail;
use hoist::ops::{self, PullOptions, PullPolicy};

use super::super::session::{self, NO_LOGS, Need};
use super::{Exit, Settings, Verb};

/// Fetch the images of services
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(crate) struct Args {
    /// Only these services
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Leave services out that can be built
    #[arg(long)]
    ignore_buildable: bool,
    /// Pull what can be pulled; failures do not count
    #[arg(long)]
    ignore_pull_failures: bool,
    /// Also what they depend on
    #[arg(long)]
    include_deps: bool,
    /// Deprecated: pulls are parallel anyway
    #[arg(long, hide = true)]
    no_parallel: bool,
    /// Deprecated: pulls are parallel anyway
    #[arg(long, hide = true)]
    parallel: bool,
    /// When to pull: missing or always
    #[arg(long, value_name = "POLICY")]
    policy: Option<String>,
    /// No progress
    #[arg(long, short)]
    quiet: bool,
}

impl Args {
    fn options(&self) -> anyhow::Result<PullOptions> {
        Ok(PullOptions {
            services: self.services.clone(),
            include_deps: self.include_deps,
            ignore_buildable: self.ignore_buildable,
            ignore_failures: self.ignore_pull_failures,
            policy: match self.policy.as_deref() {
                None | Some("") => None,
                Some("missing") => Some(PullPolicy::Missing),
                Some("always") => Some(PullPolicy::Always),
                Some(other) => bail!("invalid --policy option `{other}`: it should be missing or always"),
            },
            quiet: self.quiet,
        })
    }
}

impl Verb for Args {
    fn run(self, settings: Settings) -> anyhow::Result<Exit> {
        let options = self.options()?;
        session::run(&settings, Need::Model(&options.services), NO_LOGS, async |session| {
            ops::pull(&session.context, &options, &session.events).await?;
            Ok(Exit::Success)
        })
    }
}
