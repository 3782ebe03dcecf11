//! `top`.

use hoist::ops::{self, ContainerProcesses};

use super::super::render::out;
use super::super::render::table::{Style, Table};
use super::super::session::{self, NO_LOGS, Need};
use super::{Exit, Settings, Verb};

/// Show the running processes of services
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these services
    #[arg(value_name = "SERVICES")]
    services: Vec<String>,
}

impl Verb for Args {
    fn run(self, settings: Settings) -> anyhow::Result<Exit> {
        let found = session::run(&settings, Need::Name, NO_LOGS, async |session| {
            Ok(ops::top(&session.context, &self.services).await?)
        })?;
        out::print(&render(&found))?;
        Ok(Exit::Success)
    }
}

/// One table: service, replica, and the engine's columns in the order met, the command last.
/// Nothing at all without processes.
fn render(found: &[ContainerProcesses]) -> String {
    let mut titles: Vec<&str> = Vec::new();
    for container in found {
        for title in &container.table.titles {
            if !titles.contains(&title.as_str()) {
                titles.push(title);
            }
        }
    }
    let is_command = |title: &&str| matches!(*title, "CMD" | "COMMAND");
    titles.sort_by_key(is_command);
    let mut headings = vec!["SERVICE", "#"];
    headings.extend(&titles);
    let mut table = Table::new(Style::Narrow, &headings);
    let mut any = false;
    for container in found {
        for row in &container.table.rows {
            any = true;
            let number = container.number.map(|n| n.to_string()).unwrap_or_default();
            let mut cells = vec![container.service.clone(), number];
            cells.extend(titles.iter().map(|title| {
                let at = container.table.titles.iter().position(|t| t == title);
                at.and_then(|at| row.get(at)).cloned().unwrap_or_else(|| "-".into())
            }));
            table.row(cells);
        }
    }
    if any { table.render() } else { String::new() }
}

#[cfg(test)]
mod tests {
    use hoist::engine::ProcessTable;

    use super::*;

    fn container(service: &str, titles: &[&str], row: &[&str]) -> ContainerProcesses {
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        ContainerProcesses {
            container: format!("p-{service}-1"),
            service: service.into(),
            number: Some(1),
            table: ProcessTable { titles: words(titles), rows: vec![words(row)] },
        }
    }

    #[test]
    fn columns_are_joined_and_the_command_is_last() {
        let found = [
            container("db", &["PID", "CMD"], &["7", "db"]),
            container("web", &["PID", "C", "CMD"], &["12345", "0", "web -x"]),
        ];
        assert_eq!(
            render(&found),
            "SERVICE  #   PID    C   CMD\ndb       1   7      -   db\nweb      1   12345  0   web -x\n"
        );
        assert_eq!(render(&[]), "");
    }
}
