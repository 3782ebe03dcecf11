//! `ps`.

use anyhow::{Context as _, bail};
use std::collections::BTreeSet;

use hoist::engine::{Health, Phase};
use hoist::ops::{self, ProjectContainer, PsOptions};
use jiff::Timestamp;
use serde::Serialize;

use super::super::render::table::{Style, Table};
use super::super::render::{out, ports, status, template, text};
use super::super::session::{self, NO_LOGS, Need};
use super::{Exit, Settings, Verb};

/// List containers
///
/// Running ones, unless -a is given.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(crate) struct Args {
    /// Only these services
    #[arg(id = "SERVICE")]
    services: Vec<String>,
    /// Show stopped containers and those made by `run`, too
    #[arg(long, short)]
    all: bool,
    /// Only containers with status=STATUS
    #[arg(long, value_name = "FILTER")]
    filter: Option<String>,
    /// table, json, raw, or a template such as '{{.Name}}: {{.Status}}'
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: String,
    /// Do not shorten ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// Show containers of services that are not in the files (--orphans=false hides them)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = super::super::args::go_bool, value_name = "BOOL")]
    orphans: Option<bool>,
    /// Show full container ids only
    #[arg(long, short)]
    quiet: bool,
    /// Show the names of services only
    #[arg(long = "services")]
    services_only: bool,
    /// Only containers that are paused, restarting, removing, running, dead, created or exited
    #[arg(long, value_name = "STATUS", value_delimiter = ',')]
    status: Vec<String>,
}

impl Args {
    fn options(&self) -> anyhow::Result<PsOptions> {
        let mut words = self.status.clone();
        if let Some(filter) = &self.filter {
            match filter.split_once('=').context("arguments to --filter should be in form KEY=VAL")? {
                ("status", status) => words.push(status.to_owned()),
                ("source", _) => {
                    bail!("--filter source=… is not available: no container says where it came from")
                }
                (key, _) => bail!("unknown filter `{key}`: only status=… is known"),
            }
        }
        let phases = words.iter().map(|word| phase(word)).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(PsOptions {
            services: self.services.clone(),
            all: self.all || !phases.is_empty(),
            phases,
            without_orphans: self.orphans == Some(false),
        })
    }
}

fn phase(word: &str) -> anyhow::Result<Phase> {
    Ok(match word {
        "paused" => Phase::Paused,
        "restarting" => Phase::Restarting,
        "removing" => Phase::Removing,
        "running" => Phase::Running,
        "dead" => Phase::Dead,
        "created" => Phase::Created,
        "exited" => Phase::Exited,
        other => bail!(
            "unknown status `{other}`: it should be paused, restarting, removing, running, dead, created or exited"
        ),
    })
}

impl Verb for Args {
    fn run(self, settings: Settings) -> anyhow::Result<Exit> {
        let options = self.options()?;
        let mut containers =
            session::run(&settings, Need::ProjectOrName(&options.services), NO_LOGS, async |session| {
                Ok(ops::ps(&session.context, &options).await?)
            })?;
        containers.sort_by(|a, b| a.state.name.cmp(&b.state.name));
        out::print(&self.render(&containers, Timestamp::now())?)?;
        Ok(Exit::Success)
    }
}

impl Args {
    fn render(&self, containers: &[ProjectContainer], now: Timestamp) -> anyhow::Result<String> {
        if self.quiet {
            return Ok(text::lines(containers.iter().map(|c| c.state.id.as_str())));
        }
        if self.services_only {
            let services: BTreeSet<&str> = containers.iter().map(|c| c.service.as_str()).collect();
            return Ok(text::lines(services));
        }
        let rows: Vec<Row> = containers.iter().map(|c| Row::new(c, !self.no_trunc, now)).collect();
        match self.format.as_str() {
            "json" => rows.iter().map(|row| Ok(go_escaped(&serde_json::to_string(row)?) + "\n")).collect(),
            "table" | "" => Ok(table(&rows)),
            "raw" => Ok(rows.iter().map(Row::raw).collect()),
            template => {
                let rows = rows.iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
                template::list(template, &TITLES, &rows)
            }
        }
    }
}

/// Fields that templates may use, and their headings.
const TITLES: [(&str, &str); 15] = [
    ("Name", "NAME"),
    ("Names", "NAMES"),
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("Service", "SERVICE"),
    ("Project", "PROJECT"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Status", "STATUS"),
    ("State", "STATE"),
    ("Health", "HEALTH"),
    ("ExitCode", "EXIT CODE"),
    ("Ports", "PORTS"),
    ("Labels", "LABELS"),
];

/// Says which engine runs a container, when it is not the usual one.
const ENGINE_LABEL: &str = "com.docker.compose.engine";

/// The columns of a terminal.
fn table(rows: &[Row]) -> String {
    let mut titles = vec!["NAME", "IMAGE", "COMMAND", "SERVICE", "CREATED", "STATUS", "PORTS"];
    let engines = rows.iter().any(|row| !row.engine.is_empty());
    if engines {
        titles.push("ENGINE");
    }
    let mut table = Table::new(Style::Formatter, &titles);
    for row in rows {
        let mut cells = vec![
            row.name.clone(),
            row.image.clone(),
            row.command.clone(),
            row.service.clone(),
            row.running_for.clone(),
            row.status.clone(),
            row.ports.clone(),
        ];
        if engines {
            cells.push(row.engine.clone());
        }
        table.row(cells);
    }
    table.render()
}

/// `<`, `>` and `&` as Go's JSON encoder writes them, so that texts can be compared with the peer's.
fn go_escaped(json: &str) -> String {
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// One container as it is shown.
///
/// # Source
/// reference/cli.md §6, “ps”.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    command: String,
    created_at: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    engine: String,
    exit_code: i32,
    health: &'static str,
    #[serde(rename = "ID")]
    id: String,
    image: String,
    labels: String,
    local_volumes: String,
    mounts: String,
    name: String,
    names: String,
    networks: String,
    ports: String,
    project: String,
    publishers: Vec<Publisher>,
    running_for: String,
    service: String,
    size: &'static str,
    state: &'static str,
    status: String,
}

/// One port of a container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Publisher {
    #[serde(rename = "URL")]
    url: String,
    target_port: u16,
    published_port: u16,
    protocol: String,
}

impl Row {
    fn new(container: &ProjectContainer, cut: bool, now: Timestamp) -> Self {
        let state = &container.state;
        let command = format!("\"{}\"", state.command.join(" "));
        let mounts = state.mounts.iter().map(|m| {
            let name = m.name.as_deref().unwrap_or(&m.source);
            if cut { text::ellipsis(name, 15) } else { name.to_owned() }
        });
        let publishers: BTreeSet<Publisher> = state
            .ports
            .iter()
            .map(|port| Publisher {
                url: port.published.map(|(ip, _)| ip.to_string()).unwrap_or_default(),
                target_port: port.target,
                published_port: port.published.map_or(0, |(_, p)| p),
                protocol: port.protocol.clone(),
            })
            .collect();
        let ended = matches!(state.phase, Phase::Exited | Phase::Dead);
        let up = matches!(state.phase, Phase::Running) && state.health != Health::None;
        Self {
            command: if cut { text::ellipsis(&command, 20) } else { command },
            created_at: state.created.map(text::created_at).unwrap_or_default(),
            engine: state.labels.get(ENGINE_LABEL).cloned().unwrap_or_default(),
            exit_code: if ended { state.exit_code } else { 0 },
            health: if up { state.health.as_str() } else { "" },
            id: if cut { text::short_id(&state.id).to_owned() } else { state.id.clone() },
            image: state.image.clone(),
            labels: state.labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(","),
            local_volumes: state.mounts.iter().filter(|m| m.kind == "volume").count().to_string(),
            mounts: mounts.collect::<Vec<_>>().join(","),
            name: state.name.clone(),
            names: state.name.clone(),
            networks: state.networks.keys().cloned().collect::<Vec<_>>().join(","),
            ports: ports::display(&state.ports),
            project: container.project.clone(),
            publishers: publishers.into_iter().collect(),
            running_for: state.created.map(|t| text::ago(t, now)).unwrap_or_default(),
            service: container.service.clone(),
            size: "0B",
            state: state.phase.as_str(),
            status: status::status(state, now),
        }
    }

    /// `key: value` lines.
    fn raw(&self) -> String {
        format!(
            "container_id: {}\nimage: {}\ncommand: {}\ncreated_at: {}\nstate: {}\nstatus: {}\nnames: {}\nlabels: {}\nports: {}\n\n",
            self.id,
            self.image,
            self.command,
            self.created_at,
            self.state,
            self.status,
            self.names,
            self.labels,
            self.ports
        )
    }
}

#[cfg(test)]
mod tests {
    use hoist::engine::ContainerState;

    use super::*;

    #[test]
    fn a_table_of_containers() {
        let now: Timestamp = "2026-01-02T00:01:00Z".parse().expect("valid");
        let container = ProjectContainer {
            project: "p".into(),
            service: "a".into(),
            number: Some(1),
            oneoff: false,
            state: ContainerState {
                name: "p-a-1".into(),
                image: "busybox".into(),
                command: vec!["sh".into(), "-c".into(), "while sleep 1; do date; done".into()],
                phase: Phase::Running,
                created: Some("2026-01-02T00:00:55Z".parse().expect("valid")),
                started: Some("2026-01-02T00:00:57Z".parse().expect("valid")),
                ..Default::default()
            },
        };
        let row = Row::new(&container, true, now);
        let table = table(std::slice::from_ref(&row));
        let lines: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
            .collect();
        assert_eq!(lines[0], ["NAME", "IMAGE", "COMMAND", "SERVICE", "CREATED", "STATUS", "PORTS"]);
        let cells = ["p-a-1", "busybox", "\"sh -c while sleep …", "a", "5 seconds ago", "Up 3 seconds"];
        assert_eq!(lines[1], cells);
        let json = serde_json::to_string(&row).expect("plain data");
        assert!(json.starts_with(r#"{"Command":""#), "{json}");
        assert!(json.contains(r#""ExitCode":0,"Health":"","ID":"""#), "{json}");
        assert_eq!(go_escaped("a->b"), "a-\\u003eb");
    }
}
