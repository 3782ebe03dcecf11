//! `system df`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use hoist::engine::ContainerState;
use hoist::runtime::image::{Reference, Store, Usage};
use hoist::runtime::root::Root;
use hoist::runtime::volume::{Volume, Volumes};
use hoist::util::files::tree_size;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cli::commands::image::Uses;
use crate::cli::exit::Exit;
use crate::cli::render::text::{ago, ellipsis, human_size, short_id};
use crate::cli::render::{out, status, template};
use crate::cli::session::{self, NO_LOGS};
use crate::cli::settings::Settings;

/// Show what images, containers and volumes take
#[derive(Debug, clap::Args)]
pub(crate) struct Df {
    /// table, json, or a template
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: String,
    /// One line for each image, container and volume
    #[arg(long, short)]
    verbose: bool,
}

impl Df {
    pub(crate) fn run(self, settings: &Settings) -> anyhow::Result<Exit> {
        let containers =
            session::operate(settings, NO_LOGS, async |engine, _, _| Ok(engine.list(&[]).await?))?;
        let disk = Disk::read(&Root::new(settings.root.as_deref()), containers)?;
        if self.verbose {
            out::print(&disk.verbose(&self.format)?)?;
        } else {
            let titles = [
                ("Type", "TYPE"),
                ("TotalCount", "TOTAL"),
                ("Active", "ACTIVE"),
                ("Size", "SIZE"),
                ("Reclaimable", "RECLAIMABLE"),
            ];
            out::print(&template::list(&self.format, &titles, &disk.summary())?)?;
        }
        Ok(Exit::Success)
    }
}

/// All there is, measured.
struct Disk {
    images: Vec<Usage>,
    /// Ids of images that containers use, with how many.
    used: BTreeMap<String, usize>,
    containers: Vec<(ContainerState, u64)>,
    volumes: Vec<(Volume, u64, usize)>,
}

impl Disk {
    fn read(root: &Root, containers: Vec<ContainerState>) -> anyhow::Result<Self> {
        let store = Store::open(root)?;
        let images = store.usage()?;
        let users = Uses::of(root, &store)?;
        let used = images
            .iter()
            .map(|usage| (usage.image.id.to_string(), users.of_image(&usage.image.id).len()))
            .filter(|(_, count)| *count > 0)
            .collect();
        let mut volumes = Vec::new();
        let known = Volumes::new(root);
        for volume in known.list()? {
            let mounts = |state: &&ContainerState| {
                state.mounts.iter().any(|mount| mount.name.as_deref() == Some(&volume.name))
            };
            let links = containers.iter().filter(mounts).count();
            let size = known.size(&volume)?;
            volumes.push((volume, size, links));
        }
        let upper = |id: &str| -> PathBuf { root.containers().join(id).join("upper") };
        let measured = containers
            .into_iter()
            .map(|state| Ok((tree_size(&upper(&state.id))?, state)))
            .map(|found: anyhow::Result<_>| found.map(|(size, state)| (state, size)))
            .collect::<anyhow::Result<_>>()?;
        Ok(Self { images, used, containers: measured, volumes })
    }

    /// How many images have each layer.
    fn owners(&self) -> BTreeMap<&str, usize> {
        let mut owners: BTreeMap<&str, usize> = BTreeMap::new();
        for usage in &self.images {
            let own: BTreeSet<&str> = usage.layers.iter().map(|(key, _)| key.as_str()).collect();
            for key in own {
                *owners.entry(key).or_default() += 1;
            }
        }
        owners
    }

    fn summary(&self) -> Vec<Value> {
        let (mut all, mut needed) = (BTreeMap::new(), BTreeSet::new());
        for usage in &self.images {
            for (key, size) in &usage.layers {
                all.insert(key, *size);
                if self.used.contains_key(&usage.image.id.to_string()) {
                    needed.insert(key);
                }
            }
        }
        let total: u64 = all.values().sum();
        let free: u64 = all.iter().filter(|(key, _)| !needed.contains(*key)).map(|(_, size)| size).sum();
        let idle = |state: &ContainerState| state.pid == 0;
        let sum = |sizes: &mut dyn Iterator<Item = u64>| sizes.sum::<u64>();
        let containers = &self.containers;
        let volumes = &self.volumes;
        vec![
            row("Images", self.images.len(), self.used.len(), total, free),
            row(
                "Containers",
                containers.len(),
                containers.iter().filter(|(state, _)| !idle(state)).count(),
                sum(&mut containers.iter().map(|(_, size)| *size)),
                sum(&mut containers.iter().filter(|(state, _)| idle(state)).map(|(_, size)| *size)),
            ),
            row(
                "Local Volumes",
                volumes.len(),
                volumes.iter().filter(|(_, _, links)| *links > 0).count(),
                sum(&mut volumes.iter().map(|(_, size, _)| *size)),
                sum(&mut volumes.iter().filter(|(_, _, links)| *links == 0).map(|(_, size, _)| *size)),
            ),
        ]
    }

    fn verbose(&self, format: &str) -> anyhow::Result<String> {
        let now = Timestamp::now();
        let (images, containers) = (self.image_rows(now), self.container_rows(now));
        let volumes: Vec<Value> = self
            .volumes
            .iter()
            .map(|(volume, size, links)| {
                json!({"VolumeName": volume.name, "Links": links.to_string(), "Size": human_size(*size)})
            })
            .collect();
        if format.trim() != "table" && !format.trim().is_empty() {
            // One object with three lists, as Docker has it for templates.
            let all = json!({"Images": images, "Containers": containers, "Volumes": volumes});
            return template::list(format, &[], &[all]);
        }
        let image_titles = [
            ("Repository", "REPOSITORY"),
            ("Tag", "TAG"),
            ("ID", "IMAGE ID"),
            ("CreatedSince", "CREATED"),
            ("Size", "SIZE"),
            ("SharedSize", "SHARED SIZE"),
            ("UniqueSize", "UNIQUE SIZE"),
            ("Containers", "CONTAINERS"),
        ];
        let container_titles = [
            ("ID", "CONTAINER ID"),
            ("Image", "IMAGE"),
            ("Command", "COMMAND"),
            ("LocalVolumes", "LOCAL VOLUMES"),
            ("Size", "SIZE"),
            ("RunningFor", "CREATED"),
            ("Status", "STATUS"),
            ("Names", "NAMES"),
        ];
        let volume_titles = [("VolumeName", "VOLUME NAME"), ("Links", "LINKS"), ("Size", "SIZE")];
        Ok(format!(
            "Images space usage:\n\n{}\nContainers space usage:\n\n{}\nLocal Volumes space usage:\n\n{}",
            template::list("table", &image_titles, &images)?,
            template::list("table", &container_titles, &containers)?,
            template::list("table", &volume_titles, &volumes)?,
        ))
    }

    fn image_rows(&self, now: Timestamp) -> Vec<Value> {
        let owners = self.owners();
        let rows = self.images.iter().flat_map(|usage| {
            let image = &usage.image;
            let shared: u64 =
                usage.layers.iter().filter(|(key, _)| owners[key.as_str()] > 1).map(|(_, size)| size).sum();
            let names: Vec<(String, String)> = image
                .tags
                .iter()
                .filter_map(|tag| tag.parse::<Reference>().ok())
                .map(|name| (name.familiar_name(), name.tag().unwrap_or("<none>").to_owned()))
                .collect();
            let names = if names.is_empty() { vec![("<none>".into(), "<none>".into())] } else { names };
            let used = self.used.get(&image.id.to_string()).copied().unwrap_or(0);
            names.into_iter().map(move |(repository, tag): (String, String)| {
                json!({
                    "Repository": repository,
                    "Tag": tag,
                    "ID": image.id.short(),
                    "CreatedSince": image.created.map_or_else(|| "N/A".to_owned(), |at| ago(at, now)),
                    "Size": human_size(image.size),
                    "SharedSize": human_size(shared),
                    "UniqueSize": human_size(image.size.saturating_sub(shared)),
                    "Containers": used.to_string(),
                })
            })
        });
        rows.collect()
    }

    fn container_rows(&self, now: Timestamp) -> Vec<Value> {
        let rows = self.containers.iter().map(|(state, size)| {
            let volumes = state.mounts.iter().filter(|mount| mount.kind == "volume").count();
            json!({
                "ID": short_id(&state.id),
                "Image": state.image,
                "Command": ellipsis(&format!("\"{}\"", state.command.join(" ")), 20),
                "LocalVolumes": volumes.to_string(),
                "Size": human_size(*size),
                "RunningFor": state.created.map_or_else(|| "N/A".to_owned(), |at| ago(at, now)),
                "Status": status::status(state, now),
                "Names": state.name,
            })
        });
        rows.collect()
    }
}

fn row(kind: &str, total: usize, active: usize, size: u64, free: u64) -> Value {
    let percent = (free * 100).checked_div(size).map_or(String::new(), |percent| format!(" ({percent}%)"));
    json!({
        "Type": kind,
        "TotalCount": total.to_string(),
        "Active": active.to_string(),
        "Size": human_size(size),
        "Reclaimable": format!("{}{percent}", human_size(free)),
    })
}
