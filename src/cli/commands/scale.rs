//! `scale`.

use anyhow::bail;
use hoist::ops::{self, ScaleOptions};

use super::super::session::{self, NO_LOGS, Need};
use super::{Exit, Settings, Verb};

/// Set how many containers services have
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many containers of which service
    #[arg(value_name = "SERVICE=REPLICAS", required = true)]
    replicas: Vec<String>,
    /// Leave dependencies alone
    #[arg(long)]
    no_deps: bool,
}

impl Args {
    fn options(&self) -> anyhow::Result<ScaleOptions> {
        let mut options = ScaleOptions { no_deps: self.no_deps, ..ScaleOptions::default() };
        for word in &self.replicas {
            let Some((service, Ok(count))) = word.split_once('=').map(|(s, n)| (s, n.parse())) else {
                bail!("invalid scale specifier: {word}");
            };
            options.replicas.insert(service.to_owned(), count);
        }
        Ok(options)
    }
}

impl Verb for Args {
    fn run(self, settings: Settings) -> anyhow::Result<Exit> {
        let options = self.options()?;
        session::run(&settings, Need::Model(&[]), NO_LOGS, async |session| {
            ops::scale(&session.context, &options, &session.events).await?;
            Ok(Exit::Success)
        })
    }
}
