//! Progress as lines: for pipes and CI (`plain`), and for programs (`json`).

use std::collections::HashMap;

use hoist::ops::events::{ProjectEvent, ResourceKind, Status};
use serde::Serialize;

/// Remembers what was said last about each resource, so that moving byte counts do not fill a CI log.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    said: HashMap<(ResourceKind, String), (&'static str, String)>,
    dry_run: bool,
}

impl Lines {
    /// With `dry_run`, each line says that nothing is really done.
    pub(crate) fn new(dry_run: bool) -> Self {
        Self { said: HashMap::new(), dry_run }
    }

    /// ` Container web-1  Started`, or nothing when it is not worth a line.
    pub(crate) fn plain(&mut self, event: &ProjectEvent) -> Option<String> {
        let ProjectEvent::Progress { kind, name, parent, text, details, .. } = event else { return None };
        let now = (*text, details.clone());
        match self.said.get(&(*kind, name.clone())) {
            Some(before) if *before == now || (*kind == ResourceKind::Layer && before.0 == *text) => {
                return None;
            }
            _ => {}
        }
        self.said.insert((*kind, name.clone()), now);
        let id = match parent {
            Some(image) => format!("{image} {name}"),
            None => format!("{} {name}", kind.as_str()),
        };
        let dry = if self.dry_run { "DRY-RUN MODE -  " } else { "" };
        let details = one_line(details);
        let gap = if details.is_empty() { "" } else { " " };
        Some(format!(" {dry}{id} {text}{gap}{details}\n"))
    }

    /// One JSON object per change.
    pub(crate) fn json(&self, event: &ProjectEvent) -> Option<String> {
        let ProjectEvent::Progress { kind, name, parent, status, text, details, bytes } = event else {
            return None;
        };
        let (current, total) = bytes.unwrap_or_default();
        let message = Message {
            dry_run: self.dry_run,
            id: match kind {
                ResourceKind::Layer => name.clone(),
                _ => format!("{} {name}", kind.as_str()),
            },
            parent_id: parent.as_ref().map(|image| format!("Image {image}")),
            status: match status {
                Status::Working => "Working",
                Status::Done => "Done",
                Status::Warning => "Warning",
                Status::Error => "Error",
            },
            text,
            details,
            current,
            total,
            percent: (current * 100).checked_div(total).unwrap_or(0),
        };
        let mut line = serde_json::to_string(&message).ok()?;
        line.push('\n');
        Some(line)
    }
}

#[derive(Serialize)]
struct Message<'a> {
    #[serde(rename = "dry-run", skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_id: Option<String>,
    status: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    text: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    details: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    current: u64,
    #[serde(skip_serializing_if = "is_zero")]
    total: u64,
    #[serde(skip_serializing_if = "is_zero")]
    percent: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Text without line breaks.
pub(super) fn one_line(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A change of a container.
    pub(in super::super) fn progress(name: &str, status: Status, text: &'static str) -> ProjectEvent {
        ProjectEvent::Progress {
            kind: ResourceKind::Container,
            name: name.into(),
            parent: None,
            status,
            text,
            details: String::new(),
            bytes: None,
        }
    }

    /// A change of a layer.
    pub(in super::super) fn layer(name: &str, text: &'static str, bytes: (u64, u64)) -> ProjectEvent {
        ProjectEvent::Progress {
            kind: ResourceKind::Layer,
            name: name.into(),
            parent: Some("redis:7".into()),
            status: Status::Working,
            text,
            details: String::new(),
            bytes: Some(bytes),
        }
    }

    #[test]
    fn a_pipe_gets_one_line_per_change() {
        let mut lines = Lines::new(false);
        let started = progress("p-web-1", Status::Done, "Started");
        assert_eq!(lines.plain(&started).as_deref(), Some(" Container p-web-1 Started\n"));
        assert_eq!(lines.plain(&started), None);
        assert_eq!(
            lines.plain(&layer("abc", "Downloading", (1, 9))).as_deref(),
            Some(" redis:7 abc Downloading\n")
        );
        assert_eq!(lines.plain(&layer("abc", "Downloading", (5, 9))), None);
        let mut dry = Lines::new(true);
        assert_eq!(dry.plain(&started).as_deref(), Some(" DRY-RUN MODE -  Container p-web-1 Started\n"));
    }

    #[test]
    fn programs_get_objects() {
        let lines = Lines::new(false);
        assert_eq!(
            lines.json(&progress("p-web-1", Status::Working, "Starting")).as_deref(),
            Some("{\"id\":\"Container p-web-1\",\"status\":\"Working\",\"text\":\"Starting\"}\n")
        );
        assert_eq!(
            lines.json(&layer("abc", "Downloading", (5, 10))).as_deref(),
            Some(
                "{\"id\":\"abc\",\"parent_id\":\"Image redis:7\",\"status\":\"Working\",\"text\":\"Downloading\",\"current\":5,\"total\":10,\"percent\":50}\n"
            )
        );
    }
}
