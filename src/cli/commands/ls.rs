//! `ls`.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use hoist::ops::{self, ProjectSummary};
use regex::Regex;
use serde::Serialize;

use super::super::render::table::{Style, Table};
use super::super::render::{out, text};
use super::super::session::{self, NO_LOGS};
use super::{Exit, Settings, Verb};

/// List projects
///
/// Those with a running container, unless -a is given.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show projects whose containers are all stopped, too
    #[arg(long, short)]
    all: bool,
    /// Only projects with name=NAME or name=PATTERN
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// table or json
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: String,
    /// Show names only
    #[arg(long, short)]
    quiet: bool,
}

impl Verb for Args {
    fn run(self, settings: Settings) -> anyhow::Result<Exit> {
        let filters = self.filters()?;
        let mut projects = session::operate(&settings, NO_LOGS, async |engine, _events, _signals| {
            Ok(ops::ls(&engine, self.all).await?)
        })?;
        projects.retain(|project| filters.iter().all(|f| f.is_match(&project.name)));
        projects.sort_by(|a, b| a.name.cmp(&b.name));
        out::print(&self.render(&projects)?)?;
        Ok(Exit::Success)
    }
}

impl Args {
    fn filters(&self) -> anyhow::Result<Vec<Regex>> {
        self.filter
            .iter()
            .map(|filter| match filter.split_once('=') {
                Some(("name", pattern)) => {
                    Regex::new(pattern).with_context(|| format!("--filter name={pattern} is no pattern"))
                }
                Some((key, _)) => bail!("invalid filter `{key}`: only name=… is known"),
                None => bail!("invalid filter `{filter}`: it should be name=NAME"),
            })
            .collect()
    }

    fn render(&self, projects: &[ProjectSummary]) -> anyhow::Result<String> {
        if self.quiet {
            return Ok(text::lines(projects.iter().map(|p| p.name.as_str())));
        }
        match self.format.as_str() {
            "json" => {
                let rows: Vec<Row<'_>> = projects.iter().map(Row::new).collect();
                Ok(format!("{}\n", serde_json::to_string(&rows)?))
            }
            "table" | "pretty" | "" => {
                let mut table = Table::new(Style::Wide, &["NAME", "STATUS", "CONFIG FILES"]);
                for row in projects.iter().map(Row::new) {
                    table.row(vec![row.name.to_owned(), row.status, row.config_files]);
                }
                Ok(table.render())
            }
            other => bail!("format value `{other}` could not be parsed: it should be table or json"),
        }
    }
}

/// One project as it is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row<'a> {
    name: &'a str,
    status: String,
    config_files: String,
}

impl<'a> Row<'a> {
    fn new(project: &'a ProjectSummary) -> Self {
        Self {
            name: &project.name,
            status: states(&project.phases),
            config_files: project.config_files.join(","),
        }
    }
}

/// `exited(1), running(2)`.
fn states(phases: &BTreeMap<&'static str, usize>) -> String {
    phases.iter().map(|(phase, n)| format!("{phase}({n})")).collect::<Vec<_>>().join(", ")
}
