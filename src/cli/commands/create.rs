//! `create`.

use hoist::ops::{self, BuildPolicy, ConvergeOptions, Recreate, UpMode, UpOptions};

use super::super::session::{self, NO_LOGS, Need};
use super::translate;
use super::{Exit, Settings, Verb, plan};

/// Create containers without starting them
///
/// Does everything that `up` does short of starting: images, networks,
/// volumes, containers.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(crate) struct Args {
    /// Only these services and what they depend on
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Build images first
    #[arg(long, conflicts_with = "no_build")]
    build: bool,
    /// Make containers anew even if nothing has changed
    #[arg(long, conflicts_with = "no_recreate")]
    force_recreate: bool,
    /// Never build an image
    #[arg(long)]
    no_build: bool,
    /// Keep existing containers even if the files have changed
    #[arg(long)]
    no_recreate: bool,
    /// When to pull images: always, missing, never or build
    #[arg(long, value_name = "POLICY")]
    pull: Option<String>,
    /// No progress of pulls
    #[arg(long)]
    quiet_pull: bool,
    /// Remove containers of services that are not in the files
    #[arg(long)]
    remove_orphans: bool,
    /// Create this many containers of a service, as SERVICE=NUM
    #[arg(long, value_name = "SERVICE=NUM")]
    scale: Vec<String>,
    /// Answer every question with yes
    #[arg(long, short, alias = "y")]
    yes: bool,
}

impl Args {
    fn options(&self, settings: &Settings) -> anyhow::Result<UpOptions> {
        let recreate = if self.no_recreate {
            Recreate::Never
        } else if self.force_recreate {
            Recreate::Force
        } else {
            Recreate::Diverged
        };
        Ok(UpOptions {
            services: self.services.clone(),
            converge: ConvergeOptions {
                recreate,
                recreate_dependencies: if self.no_recreate { Recreate::Never } else { Recreate::Diverged },
                remove_orphans: self.remove_orphans,
                ignore_orphans: settings.ignore_orphans(),
                scale: translate::scale(&self.scale)?,
                pull: translate::pull_policy(self.pull.as_deref())?,
                quiet_pull: self.quiet_pull,
                build: if self.build {
                    BuildPolicy::Always
                } else if self.no_build {
                    BuildPolicy::Never
                } else {
                    BuildPolicy::Missing
                },
                ..ConvergeOptions::default()
            },
            mode: UpMode::Create,
        })
    }
}

impl Verb for Args {
    fn run(self, settings: Settings) -> anyhow::Result<Exit> {
        let options = self.options(&settings)?;
        if settings.dry_run {
            return plan::show(&options, &settings).map(|_| Exit::Success);
        }
        session::run(&settings, Need::Model(&options.services), NO_LOGS, async |session| {
            ops::up(&session.context, &options, &session.events).await?;
            Ok(Exit::Success)
        })
    }
}
