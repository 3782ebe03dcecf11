//! `stats`.

use std::time::Duration;

use hoist::ops::{self, ContainerUsage, Meter, OpsError};
use serde::Serialize;

use super::super::render::{out, template, text};
use super::super::session::{self, NO_LOGS, Need};
use super::{Exit, Settings, Verb};

/// Show how much processor, memory, network and disk containers use
///
/// Goes on until Ctrl-C. CPU % is of one processor: 200 % are two processors. Memory is without file cache
/// that has not been used for a while.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this service
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    /// Containers that do not run, too
    #[arg(long, short)]
    all: bool,
    /// table, json, or a template such as '{{.Name}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show one sample and end
    #[arg(long)]
    no_stream: bool,
    /// Do not shorten ids
    #[arg(long)]
    no_trunc: bool,
}

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Time over which a single sample is measured.
const SAMPLE: Duration = Duration::from_millis(500);

const TITLES: [(&str, &str); 8] = [
    ("ID", "CONTAINER ID"),
    ("Name", "NAME"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
];

impl Verb for Args {
    fn run(self, settings: Settings) -> anyhow::Result<Exit> {
        let screen = settings.terminal().stdout && !self.no_stream;
        let format = match &self.format {
            Some(format) => format.clone(),
            None => settings.docker_format("statsFormat").unwrap_or_default(),
        };
        session::run(&settings, Need::Name, NO_LOGS, async |session| {
            let context = &session.context;
            let mut meter = Meter::default();
            let mut usage = ops::usage_of(context, self.service.as_ref(), self.all, &mut meter).await?;
            let mut wait = SAMPLE;
            loop {
                if !usage.is_empty() {
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = context.interrupt.first.cancelled() => return Err(OpsError::Interrupted.into()),
                    }
                    usage = ops::usage_of(context, self.service.as_ref(), self.all, &mut meter).await?;
                } else if !self.no_stream {
                    // There is nothing to measure, but there may be soon.
                    tokio::select! {
                        () = tokio::time::sleep(INTERVAL) => {}
                        () = context.interrupt.first.cancelled() => return Err(OpsError::Interrupted.into()),
                    }
                    usage = ops::usage_of(context, self.service.as_ref(), self.all, &mut meter).await?;
                }
                let rows: Vec<_> = usage
                    .iter()
                    .map(|usage| serde_json::to_value(Row::new(usage, self.no_trunc)))
                    .collect::<Result<_, _>>()?;
                let shown = template::list(&format, &TITLES, &rows)?;
                if screen {
                    out::print(&redraw(&shown))?;
                } else {
                    out::print(&shown)?;
                }
                if self.no_stream {
                    return Ok(Exit::Success);
                }
                wait = INTERVAL;
            }
        })
    }
}

/// The text at the top of an otherwise empty screen, without the flicker of clearing it first.
fn redraw(text: &str) -> String {
    format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"))
}

/// One container, with the keys of `docker stats --format json`.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(rename = "BlockIO")]
    block: String,
    #[serde(rename = "CPUPerc")]
    cpu: String,
    #[serde(rename = "Container")]
    container: String,
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "MemPerc")]
    memory_share: String,
    #[serde(rename = "MemUsage")]
    memory: String,
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "NetIO")]
    network: String,
    #[serde(rename = "PIDs")]
    tasks: String,
}

impl Row {
    fn new(usage: &ContainerUsage, whole_id: bool) -> Self {
        let state = &usage.state;
        #[expect(clippy::cast_precision_loss, reason = "a percentage with two decimals")]
        let share = match state.memory_limit {
            0 => 0.0,
            limit => state.memory as f64 / limit as f64 * 100.0,
        };
        let pair = |a: String, b: String| format!("{a} / {b}");
        Self {
            block: pair(text::human_size(state.read), text::human_size(state.written)),
            cpu: format!("{:.2}%", usage.cpu.unwrap_or(0.0) * 100.0),
            container: usage.id.clone(),
            id: if whole_id { usage.id.clone() } else { text::short_id(&usage.id).to_owned() },
            memory_share: format!("{share:.2}%"),
            memory: pair(text::binary_size(state.memory), text::binary_size(state.memory_limit)),
            name: usage.name.clone(),
            network: pair(text::human_size(state.received), text::human_size(state.sent)),
            tasks: state.tasks.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use hoist::engine::UsageState;

    use super::*;

    #[test]
    fn numbers_are_written_as_docker_writes_them() {
        let state = UsageState {
            memory: 488 << 10,
            memory_limit: 25_276_000_000,
            received: 1270,
            sent: 126,
            read: 0,
            written: 81_920,
            tasks: 2,
            ..UsageState::default()
        };
        let usage =
            ContainerUsage { id: "4ee2a984a988aa".into(), name: "p-web-1".into(), cpu: Some(1.5), state };
        let row = Row::new(&usage, false);
        assert_eq!(row.cpu, "150.00%");
        assert_eq!(row.memory, "488KiB / 23.54GiB");
        assert_eq!(row.network, "1.27kB / 126B");
        assert_eq!(row.block, "0B / 81.9kB");
        assert_eq!(row.id, "4ee2a984a988");
    }

    #[test]
    fn a_redrawn_screen_keeps_nothing_of_the_one_before() {
        assert_eq!(redraw("a\nb\n"), "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
    }
}
