//! `builder`: the cache of builds.

use std::time::Duration;

use anyhow::{Context as _, bail};
use hoist::model::Bytes;
use hoist::runtime::build::{Keep, prune};
use hoist::runtime::root::Root;

use super::{Exit, Settings, Verb};
use crate::cli::render::out;
use crate::cli::render::text::human_size;

/// Manage the build cache of the built-in runtime
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: BuilderVerb,
}

#[derive(Debug, clap::Subcommand)]
enum BuilderVerb {
    /// Forget steps that were built, and remove what nothing else needs
    Prune {
        /// Also steps whose layers an image has, and the directories of `RUN --mount=type=cache`
        #[arg(long, short)]
        all: bool,
        /// `until=DURATION`: only what was not used for so long, such as 24h
        #[arg(long, value_name = "FILTER")]
        filter: Vec<String>,
        /// Do not ask
        #[arg(long, short)]
        force: bool,
        /// Keep so much of what was used last
        #[arg(long, visible_alias = "max-used-space", value_name = "BYTES")]
        keep_storage: Option<String>,
    },
}

impl Verb for Args {
    fn run(self, settings: Settings) -> anyhow::Result<Exit> {
        let BuilderVerb::Prune { all, filter, force, keep_storage } = self.verb;
        let mut keep = Keep { all, ..Keep::default() };
        for word in &filter {
            let Some(text) = word.strip_prefix("until=") else {
                bail!("invalid --filter option `{word}`: there is only until=DURATION");
            };
            let age: jiff::SignedDuration =
                text.parse().with_context(|| format!("invalid --filter option `{word}`"))?;
            keep.unused_for = Some(Duration::try_from(age).context("the duration of --filter is negative")?);
        }
        if let Some(text) = &keep_storage {
            let bytes = Bytes::parse(text).map_err(anyhow::Error::msg);
            let bytes = bytes.with_context(|| format!("invalid --keep-storage option `{text}`"))?;
            keep.bytes = u64::try_from(bytes.0).ok();
        }
        if !force && !confirmed(all)? {
            return Ok(Exit::Success);
        }
        let pruned = prune(&Root::new(settings.root.as_deref()), &keep)?;
        for name in &pruned.removed {
            out::print(&format!("{name}\n"))?;
        }
        out::print(&format!("Total:\t{}\n", human_size(pruned.bytes)))?;
        Ok(Exit::Success)
    }
}

fn confirmed(all: bool) -> anyhow::Result<bool> {
    let what = if all { "all build cache" } else { "all dangling build cache" };
    if !std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        bail!("this would remove {what}; use --force when nobody can be asked");
    }
    out::talk(&format!("WARNING! This will remove {what}. Are you sure you want to continue? [y/N] "));
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
