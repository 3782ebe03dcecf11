//! Steps of builds as lines, numbered as BuildKit's plain progress numbers them.

use std::collections::HashSet;
use std::fmt::Write as _;

use hoist::engine::{BuildEvent, BuildOutcome};

/// Remembers whose lines came last, so that lines of steps beside each other can be told apart.
#[derive(Debug, Default)]
pub(crate) struct BuildLines {
    last: Option<u32>,
    open: HashSet<u32>,
}

impl BuildLines {
    /// The lines of an event.
    pub(crate) fn plain(&mut self, event: &BuildEvent) -> String {
        let mut out = String::new();
        let step = match event {
            BuildEvent::Started { step, .. }
            | BuildEvent::Output { step, .. }
            | BuildEvent::Note { step, .. }
            | BuildEvent::Ended { step, .. } => *step,
            BuildEvent::Warning(text) => return format!("{text}\n"),
        };
        if self.last.is_some_and(|last| last != step && self.open.contains(&last)) {
            out.push('\n');
        }
        self.last = Some(step);
        // Writing to a String cannot fail.
        let _ = match event {
            BuildEvent::Started { name, .. } => {
                self.open.insert(step);
                writeln!(out, "#{step} {}", printable(name))
            }
            BuildEvent::Output { at, text, .. } => writeln!(out, "#{step} {at:.3} {}", printable(text)),
            BuildEvent::Note { text, .. } => writeln!(out, "#{step} {}", printable(text)),
            BuildEvent::Ended { outcome, .. } => {
                self.open.remove(&step);
                match outcome {
                    BuildOutcome::Done { seconds } => writeln!(out, "#{step} DONE {seconds:.1}s\n"),
                    BuildOutcome::Cached => writeln!(out, "#{step} CACHED\n"),
                    BuildOutcome::Failed(text) => writeln!(out, "#{step} ERROR: {}\n", printable(text)),
                    BuildOutcome::Cancelled => writeln!(out, "#{step} CANCELED\n"),
                }
            }
            BuildEvent::Warning(_) => Ok(()),
        };
        out
    }

    /// One object per event.
    pub(crate) fn json(event: &BuildEvent) -> String {
        let (step, status, text) = match event {
            BuildEvent::Started { step, name } => (*step, "Working", name.clone()),
            BuildEvent::Output { step, text, .. } | BuildEvent::Note { step, text } => {
                (*step, "Working", text.clone())
            }
            BuildEvent::Ended { step, outcome } => match outcome {
                BuildOutcome::Done { seconds } => (*step, "Done", format!("done in {seconds:.1}s")),
                BuildOutcome::Cached => (*step, "Done", "cached".to_owned()),
                BuildOutcome::Failed(text) => (*step, "Error", text.clone()),
                BuildOutcome::Cancelled => (*step, "Warning", "cancelled".to_owned()),
            },
            BuildEvent::Warning(text) => (0, "Warning", text.clone()),
        };
        format!("{}\n", serde_json::json!({ "id": format!("Step {step}"), "status": status, "text": text }))
    }
}

/// A line of a command without what could move the cursor; colours stay.
fn printable(line: &str) -> String {
    // What comes after a carriage return overwrites what was before it.
    let line = line.rsplit('\r').find(|part| !part.is_empty()).unwrap_or("");
    line.chars()
        .map(|c| if c.is_control() && !matches!(c, '\t' | '\u{1b}') { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_read_as_buildkits() {
        let mut lines = BuildLines::default();
        let events = [
            BuildEvent::Started { step: 1, name: "[web 1/2] FROM busybox".into() },
            BuildEvent::Ended { step: 1, outcome: BuildOutcome::Cached },
            BuildEvent::Started { step: 2, name: "[web 2/2] RUN make".into() },
            BuildEvent::Started { step: 3, name: "[db 2/2] RUN true".into() },
            BuildEvent::Output { step: 2, at: 0.1234, text: "10%\r20%".into() },
            BuildEvent::Ended { step: 3, outcome: BuildOutcome::Done { seconds: 0.26 } },
            BuildEvent::Ended { step: 2, outcome: BuildOutcome::Failed("exit code: 1".into()) },
        ];
        let text: String = events.iter().map(|event| lines.plain(event)).collect();
        insta::assert_snapshot!(text, @r"
        #1 [web 1/2] FROM busybox
        #1 CACHED

        #2 [web 2/2] RUN make

        #3 [db 2/2] RUN true

        #2 0.123 20%

        #3 DONE 0.3s

        #2 ERROR: exit code: 1
        ");
    }
}
