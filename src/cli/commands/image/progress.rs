//! Progress of one image: bars on a terminal, lines elsewhere.

use std::collections::HashMap;
use std::sync::Mutex;

use hoist::runtime::image::Event;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::cli::render::out;

/// Shows [`Event`]s.
pub(crate) struct Bars {
    quiet: bool,
    terminal: bool,
    multi: MultiProgress,
    layers: Mutex<HashMap<String, (ProgressBar, &'static str)>>,
}

impl Bars {
    /// With `quiet`, shows nothing.
    pub(crate) fn new(quiet: bool) -> Self {
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        Self { quiet, terminal, multi: MultiProgress::new(), layers: Mutex::default() }
    }

    /// One event.
    pub(crate) fn show(&self, event: Event) {
        if self.quiet {
            return;
        }
        match event {
            Event::Status(line) if self.terminal => drop(self.multi.println(line)),
            Event::Status(line) => out::talk(&format!("{line}\n")),
            Event::Layer { id, text, current, total } => {
                let Ok(mut layers) = self.layers.lock() else { return };
                let bar = layers.entry(id.clone()).or_insert_with(|| {
                    let bar = if self.terminal {
                        self.multi.add(ProgressBar::no_length())
                    } else {
                        ProgressBar::hidden()
                    };
                    bar.set_prefix(id.clone());
                    (bar, "")
                });
                if bar.1 != text {
                    bar.1 = text;
                    bar.0.set_message(text);
                    if self.terminal {
                        bar.0.set_style(style(total.is_some()));
                    } else if !matches!(text, "Waiting" | "Downloading" | "Importing" | "Pushing") {
                        out::talk(&format!("{id}: {text}\n"));
                    }
                }
                if let Some(total) = total {
                    bar.0.set_length(total);
                }
                if current > 0 {
                    bar.0.set_position(current);
                }
                if matches!(
                    text,
                    "Pull complete" | "Already exists" | "Pushed" | "Layer already exists" | "Mounted"
                ) {
                    bar.0.finish();
                }
            }
        }
    }

    /// Leaves the bars as they are and the cursor below them.
    pub(crate) fn finish(&self) {
        if let Ok(layers) = self.layers.lock() {
            for (bar, _) in layers.values() {
                bar.finish();
            }
        }
    }
}

fn style(known: bool) -> ProgressStyle {
    let template = if known {
        "{prefix}: {msg:16} [{bar:30}] {bytes:>10}/{total_bytes} {bytes_per_sec}"
    } else {
        "{prefix}: {msg:16} {bytes:>10} {bytes_per_sec}"
    };
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}
