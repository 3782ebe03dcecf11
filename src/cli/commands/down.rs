//! `down`.

use anyhow::bail;
use hoist::ops::{self, DownOptions, RemoveImages};

use super::super::render::out;
use super::super::session::{self, NO_LOGS, Need};
use super::translate;
use super::{Exit, Settings, Verb};

/// Stop and remove containers and networks
///
/// Containers stop in reverse order of their dependencies. Volumes keep their
/// data unless -v is given; external networks and volumes are never touched.
/// With -p NAME no compose file is needed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only the containers of these services
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Remove containers of services that are not in the files
    #[arg(long)]
    remove_orphans: bool,
    /// Remove images too: local (built for the project) or all
    #[arg(long, value_name = "WHICH")]
    rmi: Option<String>,
    /// Seconds before a container that should stop is killed
    #[arg(long, short, value_name = "SECONDS", allow_negative_numbers = true)]
    timeout: Option<i64>,
    /// Remove volumes too, with their data
    #[arg(long, short, alias = "volume")]
    volumes: bool,
}

impl Args {
    fn options(&self, settings: &Settings) -> anyhow::Result<DownOptions> {
        Ok(DownOptions {
            services: self.services.clone(),
            volumes: self.volumes,
            images: match self.rmi.as_deref() {
                None | Some("") => None,
                Some("local") => Some(RemoveImages::Local),
                Some("all") => Some(RemoveImages::All),
                Some(other) => bail!("invalid value for --rmi: `{other}`: it should be local or all"),
            },
            remove_orphans: settings.remove_orphans(self.remove_orphans),
            timeout: translate::timeout(self.timeout),
        })
    }
}

impl Verb for Args {
    fn run(self, settings: Settings) -> anyhow::Result<Exit> {
        let options = self.options(&settings)?;
        let (outcome, project) =
            session::run(&settings, Need::ProjectOrName(&options.services), NO_LOGS, async |session| {
                let outcome = ops::down(&session.context, &options, &session.events).await?;
                Ok((outcome, session.context.project.name.clone()))
            })?;
        if outcome.nothing_found {
            out::talk(&format!("warning: no resource found to remove for project \"{project}\"\n"));
        }
        Ok(Exit::Success)
    }
}
