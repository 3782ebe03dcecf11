//! `volume`: the volumes of the built-in runtime.

use std::collections::BTreeMap;

use anyhow::bail;
use hoist::runtime::container::Containers;
use hoist::runtime::root::Root;
use hoist::runtime::volume::{Volume, Volumes};
use hoist::spec::{MountSource, VolumeSpec};
use serde_json::{Value, json};

use super::{Exit, Settings, Verb};
use crate::cli::confirm::confirm;
use crate::cli::render::text::human_size;
use crate::cli::render::{out, template};

/// Manage the volumes of the built-in runtime
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: VolumeVerb,
}

#[derive(Debug, clap::Subcommand)]
enum VolumeVerb {
    /// Make a volume
    Create {
        /// Name; a random one if not given
        name: Option<String>,
        /// Only `local` is built in
        #[arg(long, short, default_value = "local")]
        driver: String,
        /// Label; may be repeated
        #[arg(long, value_name = "KEY[=VALUE]")]
        label: Vec<String>,
        /// Driver option `type`, `device` or `o`; may be repeated
        #[arg(long, short, value_name = "KEY=VALUE")]
        opt: Vec<String>,
    },
    /// List volumes
    #[command(visible_alias = "list")]
    Ls {
        /// `name=PART`, `label=KEY[=VALUE]`, `dangling=true`, `driver=local`
        #[arg(long, short, value_name = "FILTER")]
        filter: Vec<String>,
        /// table, json, or a template
        #[arg(long, value_name = "FORMAT", default_value = "table")]
        format: String,
        /// Show names only
        #[arg(long, short)]
        quiet: bool,
    },
    /// Show everything about volumes
    Inspect {
        /// Names
        #[arg(required = true)]
        volumes: Vec<String>,
        /// Template or `json`
        #[arg(long, short)]
        format: Option<String>,
    },
    /// Remove volumes and their data
    #[command(visible_alias = "remove")]
    Rm {
        /// Names
        #[arg(required = true)]
        volumes: Vec<String>,
        /// Volumes that do not exist are no error
        #[arg(long, short)]
        force: bool,
    },
    /// Remove volumes that no container mounts
    Prune {
        /// Named ones, too
        #[arg(long, short)]
        all: bool,
        /// `label=KEY[=VALUE]`, `label!=…`
        #[arg(long, value_name = "FILTER")]
        filter: Vec<String>,
        /// Do not ask
        #[arg(long, short)]
        force: bool,
    },
}

impl Verb for Args {
    fn run(self, settings: Settings) -> anyhow::Result<Exit> {
        let root = Root::new(settings.root.as_deref());
        let volumes = Volumes::new(&root);
        match self.verb {
            VolumeVerb::Create { name, driver, label, opt } => {
                let labels = label.iter().map(|text| pair(text)).collect();
                let options = opt.iter().map(|text| pair(text)).collect();
                out::print(&format!("{}\n", create(&volumes, name, driver, labels, options)?.name))?;
            }
            VolumeVerb::Ls { filter, format, quiet } => {
                let users = Mounted::of(&root)?;
                let filters = Filters::parse(&filter)?;
                let found: Vec<Volume> =
                    volumes.list()?.into_iter().filter(|volume| filters.passes(volume, &users)).collect();
                if quiet {
                    out::print(
                        &found.iter().flat_map(|volume| [volume.name.as_str(), "\n"]).collect::<String>(),
                    )?;
                } else {
                    let rows: Vec<Value> = found.iter().map(row).collect();
                    let titles = [("Driver", "DRIVER"), ("Name", "VOLUME NAME")];
                    out::print(&template::list(&format, &titles, &rows)?)?;
                }
            }
            VolumeVerb::Inspect { volumes: names, format } => {
                return inspect(&volumes, &names, format.as_deref());
            }
            VolumeVerb::Rm { volumes: names, force } => return remove(&root, &volumes, &names, force),
            VolumeVerb::Prune { all, filter, force } => prune(&root, &volumes, all, &filter, force)?,
        }
        Ok(Exit::Success)
    }
}

/// `K=V`, or `K` with an empty value.
fn pair(text: &str) -> (String, String) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    (key.to_owned(), value.to_owned())
}

fn create(
    volumes: &Volumes,
    name: Option<String>,
    driver: String,
    labels: BTreeMap<String, String>,
    driver_opts: BTreeMap<String, String>,
) -> anyhow::Result<Volume> {
    match name {
        Some(name) => Ok(volumes.create(&VolumeSpec { name, driver: Some(driver), driver_opts, labels })?),
        None => Ok(volumes.create_anonymous(&Volumes::random_name(), &labels, &driver_opts)?),
    }
}

fn row(volume: &Volume) -> Value {
    let labels: Vec<String> = volume.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    json!({
        "Availability": "N/A",
        "Driver": "local",
        "Group": "N/A",
        "Labels": labels.join(","),
        "Links": "N/A",
        "Mountpoint": volume.data.display().to_string(),
        "Name": volume.name,
        "Scope": "local",
        "Size": "N/A",
        "Status": "N/A",
    })
}

fn inspect(volumes: &Volumes, names: &[String], format: Option<&str>) -> anyhow::Result<Exit> {
    let (mut objects, mut missing) = (Vec::new(), Vec::new());
    for name in names {
        let Some(volume) = volumes.get(name)? else {
            missing.push(name);
            continue;
        };
        let or_null = |map: &BTreeMap<String, String>| if map.is_empty() { Value::Null } else { json!(map) };
        objects.push(json!({
            "CreatedAt": volume.created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "Driver": "local",
            "Labels": or_null(&volume.labels),
            "Mountpoint": volume.data.display().to_string(),
            "Name": volume.name,
            "Options": or_null(&volume.options),
            "Scope": "local",
        }));
    }
    out::print(&template::inspect(format, &objects)?)?;
    for name in &missing {
        out::talk(&format!("error: no such volume: {name}\n"));
    }
    Ok(if missing.is_empty() { Exit::Success } else { Exit::Failure })
}

fn remove(root: &Root, volumes: &Volumes, names: &[String], force: bool) -> anyhow::Result<Exit> {
    let users = Mounted::of(root)?;
    let mut exit = Exit::Success;
    for name in names {
        match volumes.remove(name, &|name| users.by(name)) {
            Ok(()) => out::print(&format!("{name}\n"))?,
            Err(hoist::runtime::volume::VolumeError::NotFound(_)) if force => {
                out::print(&format!("{name}\n"))?;
            }
            Err(error) => {
                out::talk(&format!("error: {:#}\n", anyhow::Error::new(error)));
                exit = Exit::Failure;
            }
        }
    }
    Ok(exit)
}

fn prune(root: &Root, volumes: &Volumes, all: bool, filters: &[String], force: bool) -> anyhow::Result<()> {
    let what = if all { "all volumes" } else { "anonymous volumes" };
    if !confirm(force, &format!("This will remove {what} not used by at least one container."))? {
        return Ok(());
    }
    let users = Mounted::of(root)?;
    let filters = Filters::parse(filters)?;
    let (mut removed, mut bytes) = (Vec::new(), 0);
    for volume in volumes.list()? {
        if (all || volume.anonymous) && users.by(&volume.name).is_empty() && filters.passes(&volume, &users) {
            let size = volumes.size(&volume)?;
            volumes.remove(&volume.name, &|name| users.by(name))?;
            bytes += size;
            removed.push(volume.name);
        }
    }
    if !removed.is_empty() {
        out::print(&format!("Deleted Volumes:\n{}\n\n", removed.join("\n")))?;
    }
    out::print(&format!("Total reclaimed space: {}\n", human_size(bytes)))?;
    Ok(())
}

/// Which containers mount which volumes, read once.
pub(crate) struct Mounted {
    by_name: Vec<(String, String)>,
}

impl Mounted {
    /// Reads the records of all containers.
    pub(crate) fn of(root: &Root) -> anyhow::Result<Self> {
        let containers = Containers::new(root);
        let mut by_name = Vec::new();
        for id in containers.ids()? {
            let Some(record) = containers.record(&id)? else { continue };
            for mount in &record.mounts {
                if let MountSource::Volume { name: Some(name), .. } = &mount.mount.source {
                    by_name.push((name.clone(), record.name.clone()));
                }
            }
        }
        Ok(Self { by_name })
    }

    /// Names of those that mount a volume.
    pub(crate) fn by(&self, volume: &str) -> Vec<String> {
        self.by_name.iter().filter(|(name, _)| name == volume).map(|(_, user)| user.clone()).collect()
    }
}

/// `--filter`.
#[derive(Debug, Default)]
struct Filters {
    names: Vec<String>,
    labels: Vec<(String, Option<String>, bool)>,
    dangling: Option<bool>,
    drivers: Vec<String>,
}

impl Filters {
    fn parse(filters: &[String]) -> anyhow::Result<Self> {
        let mut parsed = Self::default();
        for filter in filters {
            let Some((key, value)) = filter.split_once('=') else {
                bail!("invalid filter `{filter}`: expected NAME=VALUE");
            };
            match key {
                "name" => parsed.names.push(value.to_owned()),
                "driver" => parsed.drivers.push(value.to_owned()),
                "dangling" => {
                    parsed.dangling = Some(crate::cli::args::go_bool(value).map_err(anyhow::Error::msg)?);
                }
                "label" | "label!" => {
                    let (name, wanted) = match value.split_once('=') {
                        Some((name, wanted)) => (name, Some(wanted.to_owned())),
                        None => (value, None),
                    };
                    parsed.labels.push((name.to_owned(), wanted, key == "label"));
                }
                _ => bail!("invalid filter `{key}`: there are name, label, dangling and driver"),
            }
        }
        Ok(parsed)
    }

    fn passes(&self, volume: &Volume, users: &Mounted) -> bool {
        (self.names.is_empty() || self.names.iter().any(|part| volume.name.contains(part)))
            && (self.drivers.is_empty() || self.drivers.iter().any(|driver| driver == "local"))
            && self.dangling.is_none_or(|dangling| dangling == users.by(&volume.name).is_empty())
            && self.labels.iter().all(|(name, wanted, present)| {
                let found = volume.labels.get(name);
                found.is_some_and(|value| wanted.as_ref().is_none_or(|wanted| wanted == value)) == *present
            })
    }
}
