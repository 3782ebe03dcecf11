//! `volumes`.

use hoist::engine::VolumeState;
use hoist::ops;
use serde::Serialize;

use super::super::render::{out, template, text};
use super::super::session::{self, NO_LOGS, Need};
use super::{Exit, Settings, Verb};

/// List the volumes of the project
///
/// With services: those that their running containers use.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these services
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// table, json, or a template such as '{{.Name}}'
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: String,
    /// Show names only
    #[arg(long, short)]
    quiet: bool,
}

impl Verb for Args {
    fn run(self, settings: Settings) -> anyhow::Result<Exit> {
        let need = Need::ProjectOrName(&self.services);
        let mut volumes = session::run(&settings, need, NO_LOGS, async |session| {
            Ok(ops::volumes(&session.context, &self.services).await?)
        })?;
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        out::print(&self.render(&volumes)?)?;
        Ok(Exit::Success)
    }
}

impl Args {
    fn render(&self, volumes: &[VolumeState]) -> anyhow::Result<String> {
        if self.quiet {
            return Ok(text::lines(volumes.iter().map(|v| v.name.as_str())));
        }
        let rows =
            volumes.iter().map(|v| serde_json::to_value(Row::new(v))).collect::<Result<Vec<_>, _>>()?;
        template::list(&self.format, &[("Driver", "DRIVER"), ("Name", "VOLUME NAME")], &rows)
    }
}

/// One volume, with the keys of `docker volume ls --format json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row<'a> {
    availability: &'static str,
    driver: &'a str,
    group: &'static str,
    labels: String,
    links: &'static str,
    mountpoint: &'a str,
    name: &'a str,
    scope: &'static str,
    size: &'static str,
    status: &'static str,
}

impl<'a> Row<'a> {
    fn new(volume: &'a VolumeState) -> Self {
        let labels: Vec<String> = volume.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        Self {
            availability: "N/A",
            driver: &volume.driver,
            group: "N/A",
            labels: labels.join(","),
            links: "N/A",
            mountpoint: &volume.mountpoint,
            name: &volume.name,
            scope: "local",
            size: "N/A",
            status: "N/A",
        }
    }
}
