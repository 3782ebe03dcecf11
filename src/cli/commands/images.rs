//! `images`.

use std::collections::BTreeSet;

use anyhow::bail;
use hoist::ops::{self, ContainerImage};
use jiff::Timestamp;
use serde::Serialize;

use super::super::render::table::{Style, Table};
use super::super::render::{out, text};
use super::super::session::{self, NO_LOGS, Need};
use super::{Exit, Settings, Verb};

/// List the images that the containers use
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these services
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// table or json
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: String,
    /// Show ids only
    #[arg(long, short)]
    quiet: bool,
}

impl Verb for Args {
    fn run(self, settings: Settings) -> anyhow::Result<Exit> {
        let mut images = session::run(&settings, Need::Name, NO_LOGS, async |session| {
            Ok(ops::images(&session.context, &self.services).await?)
        })?;
        images.sort_by(|a, b| a.container.cmp(&b.container));
        out::print(&render(&images, &self.format, self.quiet, Timestamp::now())?)?;
        Ok(Exit::Success)
    }
}

/// One image as it is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    container_name: &'a str,
    repository: String,
    tag: String,
    platform: &'a str,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_tag_time: Option<Timestamp>,
}

impl<'a> Row<'a> {
    fn new(container: &'a ContainerImage) -> Self {
        let image = container.image.as_ref();
        let tags = image.map(|i| i.tags.as_slice()).unwrap_or_default();
        let used = split_reference(&container.reference);
        // The name the container was made from, as long as the image still has it.
        let (repository, tag) = tags
            .iter()
            .map(|t| split_reference(t))
            .find(|t| *t == used)
            .or_else(|| tags.first().map(|t| split_reference(t)))
            .unwrap_or_else(|| ("<none>".into(), "<none>".into()));
        Self {
            id: image.map_or("", |i| &i.id),
            container_name: &container.container,
            repository,
            tag,
            platform: image.map_or("", |i| &i.platform),
            size: image.map_or(0, |i| i.size),
            created: image.and_then(|i| i.created),
            last_tag_time: image.and_then(|i| i.tagged),
        }
    }
}

/// Repository and tag of a familiar reference; `latest` when it has none.
fn split_reference(reference: &str) -> (String, String) {
    let reference = reference.strip_prefix("docker.io/").unwrap_or(reference);
    let reference = reference.strip_prefix("library/").unwrap_or(reference);
    let reference = reference.split_once('@').map_or(reference, |(name, _)| name);
    match reference.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository.into(), tag.into()),
        _ => (reference.into(), "latest".into()),
    }
}

fn render(images: &[ContainerImage], format: &str, quiet: bool, now: Timestamp) -> anyhow::Result<String> {
    let rows: Vec<Row<'_>> = images.iter().map(Row::new).collect();
    if quiet {
        let ids: BTreeSet<&str> =
            rows.iter().map(|row| row.id.strip_prefix("sha256:").unwrap_or(row.id)).collect();
        return Ok(text::lines(ids));
    }
    match format {
        "json" => Ok(format!("{}\n", serde_json::to_string(&rows)?)),
        "table" | "" => {
            let titles = ["CONTAINER", "REPOSITORY", "TAG", "PLATFORM", "IMAGE ID", "SIZE", "CREATED"];
            let mut table = Table::new(Style::Wide, &titles);
            for row in rows {
                table.row(vec![
                    row.container_name.to_owned(),
                    row.repository,
                    row.tag,
                    row.platform.to_owned(),
                    text::short_id(row.id).to_owned(),
                    text::human_size(row.size),
                    row.created.or(row.last_tag_time).map_or_else(|| "N/A".into(), |t| text::ago(t, now)),
                ]);
            }
            Ok(table.render())
        }
        other => bail!("format value `{other}` could not be parsed: it should be table or json"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_split_at_the_tag() {
        for (reference, repository, tag) in [
            ("busybox", "busybox", "latest"),
            ("docker.io/library/redis:7", "redis", "7"),
            ("localhost:5000/a/b", "localhost:5000/a/b", "latest"),
            ("localhost:5000/a/b:1@sha256:0", "localhost:5000/a/b", "1"),
        ] {
            assert_eq!(split_reference(reference), (repository.into(), tag.into()), "{reference}");
        }
    }
}
