//! `system prune`.

use anyhow::bail;
use hoist::engine::{ContainerState, Engine, Phase};
use hoist::runtime::image::Store;
use hoist::runtime::network::Networks;
use hoist::runtime::root::Root;
use hoist::runtime::volume::Volumes;
use hoist::util::files::tree_size;
use jiff::Timestamp;

use crate::cli::commands::image::{Filters, Uses, lines};
use crate::cli::commands::volume::Mounted;
use crate::cli::confirm::confirm;
use crate::cli::exit::Exit;
use crate::cli::render::out;
use crate::cli::render::text::human_size;
use crate::cli::session::{self, NO_LOGS};
use crate::cli::settings::Settings;

/// Remove what is not used
#[derive(Debug, clap::Args)]
pub(crate) struct Prune {
    /// All images that no container uses, not only those without a name
    #[arg(long, short)]
    all: bool,
    /// `until=TIME`, `label=KEY[=VALUE]`, `label!=…`
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(long, short)]
    force: bool,
    /// Anonymous volumes, too
    #[arg(long)]
    volumes: bool,
}

impl Prune {
    pub(crate) fn run(self, settings: &Settings) -> anyhow::Result<Exit> {
        let filters = Filters::parse(&self.filter)?;
        if let Some(key) = self
            .filter
            .iter()
            .filter_map(|text| text.split('=').next())
            .find(|key| !matches!(key.trim_end_matches('!'), "until" | "label"))
        {
            bail!("invalid filter `{key}`: there are until and label");
        }
        if self.volumes && filters.has_until() {
            bail!("the `until` filter is not available with --volumes: volumes have no such time");
        }
        if !confirm(self.force, &self.warning())? {
            return Ok(Exit::Success);
        }
        let root = Root::new(settings.root.as_deref());
        let mut bytes = 0;
        session::operate(settings, NO_LOGS, async |engine, _, _| {
            let mut removed = Vec::new();
            for container in engine.list(&[]).await? {
                if !is_over(&container) || !filters.match_parts(&container.labels, container.created) {
                    continue;
                }
                let size = tree_size(&root.containers().join(&container.id).join("upper"))?;
                // Its volumes stay, with or without a name: --volumes decides about them.
                match engine.remove(&container.id, false, false).await {
                    Ok(()) => {
                        bytes += size;
                        removed.push(container.id);
                    }
                    Err(error) => out::talk(&format!("warning: {:#}\n", anyhow::Error::new(error))),
                }
            }
            section("Deleted Containers", &removed)?;
            section("Deleted Networks", &networks(&*engine, &root, &filters).await?)
        })?;
        if self.volumes {
            bytes += volumes(&root, &filters)?;
        }
        let store = Store::open(&root)?;
        let users = Uses::of(&root, &store)?;
        let pruned =
            store.prune(self.all, &|image| filters.match_image(image, &store), &|id| users.of_image(id))?;
        bytes += pruned.bytes;
        if !pruned.removed.is_empty() {
            out::print(&format!("Deleted Images:\n{}\n", lines(&pruned.removed).to_lowercase()))?;
        }
        out::print(&format!("Total reclaimed space: {}\n", human_size(bytes)))?;
        hoist::runtime::snapshot::empty_trash(&root)?;
        Ok(Exit::Success)
    }

    fn warning(&self) -> String {
        let mut text = "This will remove:\n  - all stopped containers\n  \
                        - all networks not used by at least one container\n"
            .to_owned();
        if self.volumes {
            text += "  - all anonymous volumes not used by at least one container\n";
        }
        text += if self.all {
            "  - all images without at least one container associated to them\n"
        } else {
            "  - all dangling images\n"
        };
        text
    }
}

/// Whether a container is of no use until somebody starts it.
fn is_over(state: &ContainerState) -> bool {
    matches!(state.phase, Phase::Created | Phase::Exited | Phase::Dead)
}

async fn networks(engine: &dyn Engine, root: &Root, filters: &Filters) -> anyhow::Result<Vec<String>> {
    let known = Networks::new(root);
    let containers = engine.list(&[]).await?;
    let mut removed = Vec::new();
    for network in known.list()? {
        // Also those that are down: they want their network back when they start.
        let wanted = containers.iter().any(|container| container.networks.contains_key(&network.name));
        if wanted
            || !known.containers(&network.id)?.is_empty()
            || !filters.match_parts(&network.labels, Some(network.created))
        {
            continue;
        }
        match engine.remove_network(&network.name).await {
            Ok(()) => removed.push(network.name),
            Err(error) => out::talk(&format!("warning: {:#}\n", anyhow::Error::new(error))),
        }
    }
    Ok(removed)
}

/// Removes anonymous volumes that nobody mounts; gives their bytes.
fn volumes(root: &Root, filters: &Filters) -> anyhow::Result<u64> {
    let known = Volumes::new(root);
    let users = Mounted::of(root)?;
    let (mut removed, mut bytes) = (Vec::new(), 0);
    for volume in known.list()? {
        let unused = volume.anonymous && users.by(&volume.name).is_empty();
        if !unused || !filters.match_parts(&volume.labels, None::<Timestamp>) {
            continue;
        }
        let size = known.size(&volume)?;
        known.remove(&volume.name, &|name| users.by(name))?;
        bytes += size;
        removed.push(volume.name);
    }
    section("Deleted Volumes", &removed)?;
    Ok(bytes)
}

fn section(title: &str, names: &[String]) -> anyhow::Result<()> {
    if !names.is_empty() {
        out::print(&format!("{title}:\n{}\n\n", names.join("\n")))?;
    }
    Ok(())
}
