//! Log lines: a coloured, aligned prefix per container, any bytes after it.

use std::collections::HashMap;
use std::io::{self, Write};

use hoist::engine::{LogFrame, StdStream};

use super::out::Sinks;
use super::text;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches of the command line")]
pub(crate) struct Style {
    /// Colour the prefix.
    pub(crate) color: bool,
    /// Show the container's name.
    pub(crate) prefix: bool,
    /// Show when the line was printed.
    pub(crate) timestamps: bool,
    /// Everything goes to standard output (`logs`), or each stream to its own (`up`).
    pub(crate) one_stream: bool,
    /// One JSON object per line instead of text.
    pub(crate) json: bool,
}

/// The colours of the prefixes, in turn.
const COLORS: [&str; 10] = ["36", "33", "32", "35", "34", "36;1", "33;1", "32;1", "35;1", "34;1"];

/// Turns log frames into lines.
///
/// A line is written when it is complete, so that lines of different
/// containers are never torn; what is left without a line feed is written as a
/// line of its own by [`LogWriter::finish`].
#[derive(Debug)]
pub(crate) struct LogWriter {
    style: Style,
    sources: HashMap<String, Source>,
    /// Length of the longest name.
    width: usize,
    /// Reused for the time of each line.
    time: String,
}

#[derive(Debug)]
struct Source {
    /// What stands before each line, colour included.
    prefix: Vec<u8>,
    color: &'static str,
    /// Incomplete lines of both streams.
    partial: [Vec<u8>; 2],
    /// When they began (for JSON only).
    began: [Option<jiff::Timestamp>; 2],
}

/// One line of output for programs; its schema is `schemas/logs.json`.
#[derive(serde::Serialize)]
struct JsonLine<'a> {
    container: &'a str,
    stream: &'static str,
    time: String,
    line: std::borrow::Cow<'a, str>,
}

impl JsonLine<'_> {
    fn write(
        container: &str,
        stream: usize,
        began: jiff::Timestamp,
        line: &[u8],
        sink: &mut dyn Write,
    ) -> io::Result<()> {
        let line = JsonLine {
            container,
            stream: if stream == 1 { "stderr" } else { "stdout" },
            time: text::rfc3339_nano(began),
            line: String::from_utf8_lossy(line),
        };
        serde_json::to_writer(&mut *sink, &line)?;
        sink.write_all(b"\n")
    }
}

impl LogWriter {
    /// Knows no containers yet.
    pub(crate) fn new(style: Style) -> Self {
        Self { style, sources: HashMap::new(), width: 0, time: String::new() }
    }

    /// Makes room for these names in the prefix of all lines to come.
    pub(crate) fn register(&mut self, names: &[String]) {
        for name in names {
            if !self.sources.contains_key(name) {
                let color = COLORS[self.sources.len() % COLORS.len()];
                let source =
                    Source { prefix: Vec::new(), color, partial: Default::default(), began: [None; 2] };
                self.sources.insert(name.clone(), source);
            }
        }
        let width = self.sources.keys().map(|name| name.chars().count()).max().unwrap_or(0);
        self.width = width;
        for (name, source) in &mut self.sources {
            source.prefix = prefix(name, width, source.color, self.style);
        }
    }

    /// Writes the lines that these frames complete.
    ///
    /// # Errors
    /// Of the writes.
    pub(crate) fn write<O: Write, E: Write>(
        &mut self,
        name: &str,
        frames: &[LogFrame],
        sinks: &mut Sinks<O, E>,
    ) -> io::Result<()> {
        if !self.sources.contains_key(name) {
            self.register(&[name.to_owned()]);
        }
        let Some(source) = self.sources.get_mut(name) else { return Ok(()) };
        if self.style.json {
            for frame in frames {
                let stream = usize::from(frame.stream == StdStream::Stderr);
                let began = *source.began[stream].get_or_insert(frame.time);
                source.partial[stream].extend_from_slice(&frame.data);
                if frame.newline {
                    JsonLine::write(name, stream, began, &source.partial[stream], sinks.stdout())?;
                    source.partial[stream].clear();
                    source.began[stream] = None;
                }
            }
            return Ok(());
        }
        for frame in frames {
            let partial = &mut source.partial[usize::from(frame.stream == StdStream::Stderr)];
            // The time of a line is that of its first frame.
            if self.style.timestamps && partial.is_empty() {
                self.time.clear();
                text::push_rfc3339_nano(&mut self.time, frame.time);
                self.time.push(' ');
                if !frame.newline {
                    partial.extend_from_slice(self.time.as_bytes());
                }
            }
            if !frame.newline {
                partial.extend_from_slice(&frame.data);
                continue;
            }
            let sink = match frame.stream {
                StdStream::Stderr if !self.style.one_stream => sinks.stderr(),
                StdStream::Stderr | StdStream::Stdout => sinks.stdout(),
            };
            sink.write_all(&source.prefix)?;
            if partial.is_empty() {
                if self.style.timestamps {
                    sink.write_all(self.time.as_bytes())?;
                }
            } else {
                sink.write_all(partial)?;
                partial.clear();
                partial.shrink_to(1 << 16);
            }
            sink.write_all(&frame.data)?;
            sink.write_all(b"\n")?;
        }
        Ok(())
    }

    /// Writes what a container left without a line feed.
    ///
    /// # Errors
    /// Of the writes.
    pub(crate) fn finish<O: Write, E: Write>(
        &mut self,
        name: &str,
        sinks: &mut Sinks<O, E>,
    ) -> io::Result<()> {
        let Some(source) = self.sources.get_mut(name) else { return Ok(()) };
        for (i, partial) in source.partial.iter_mut().enumerate() {
            if partial.is_empty() {
                continue;
            }
            if self.style.json {
                let began = source.began[i].take().unwrap_or_default();
                JsonLine::write(name, i, began, partial, sinks.stdout())?;
                partial.clear();
                continue;
            }
            let sink = if i == 1 && !self.style.one_stream { sinks.stderr() } else { sinks.stdout() };
            sink.write_all(&source.prefix)?;
            sink.write_all(partial)?;
            sink.write_all(b"\n")?;
            partial.clear();
        }
        Ok(())
    }

    /// Writes what all containers left without a line feed.
    ///
    /// # Errors
    /// Of the writes.
    pub(crate) fn finish_all<O: Write, E: Write>(&mut self, sinks: &mut Sinks<O, E>) -> io::Result<()> {
        let mut names: Vec<String> = self.sources.keys().cloned().collect();
        names.sort();
        names.iter().try_for_each(|name| self.finish(name, sinks))
    }

    /// A line about a container, in its colour: `web-1 exited with code 0`.
    pub(crate) fn status_line(&self, name: &str, rest: &str) -> String {
        match self.sources.get(name) {
            Some(source) if self.style.color => format!("\x1b[{}m{name} {rest}\x1b[0m\n", source.color),
            _ => format!("{name} {rest}\n"),
        }
    }
}

/// `web-1  | `, padded to the longest name and one more.
fn prefix(name: &str, width: usize, color: &str, style: Style) -> Vec<u8> {
    if !style.prefix {
        return Vec::new();
    }
    let padded = format!("{name:<0$} | ", width + 1);
    if style.color { format!("\x1b[{color}m{padded}\x1b[0m").into_bytes() } else { padded.into_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Style =
        Style { color: false, prefix: true, timestamps: false, one_stream: false, json: false };

    fn frame(stream: StdStream, data: &[u8], newline: bool) -> LogFrame {
        let time = "2026-01-02T03:04:05Z".parse().expect("valid");
        LogFrame { stream, time, data: data.to_vec(), newline }
    }

    fn written(
        style: Style,
        run: impl FnOnce(&mut LogWriter, &mut Sinks<&mut Vec<u8>, &mut Vec<u8>>),
    ) -> (String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut sinks = Sinks::new(&mut out, &mut err, false);
        run(&mut LogWriter::new(style), &mut sinks);
        sinks.flush().expect("memory");
        drop(sinks);
        (String::from_utf8_lossy(&out).into_owned(), String::from_utf8_lossy(&err).into_owned())
    }

    #[test]
    fn names_are_aligned_and_streams_kept_apart() {
        let (out, err) = written(PLAIN, |logs, sinks| {
            logs.register(&["web-1".into(), "database-1".into()]);
            logs.write("web-1", &[frame(StdStream::Stdout, b"hello", true)], sinks).expect("memory");
            logs.write("database-1", &[frame(StdStream::Stderr, b"ready", true)], sinks).expect("memory");
        });
        assert_eq!(out, "web-1       | hello\n");
        assert_eq!(err, "database-1  | ready\n");
    }

    #[test]
    fn pieces_of_a_long_line_are_joined_whatever_comes_between() {
        let (out, _) = written(PLAIN, |logs, sinks| {
            logs.write("a", &[frame(StdStream::Stdout, b"one ", false)], sinks).expect("memory");
            logs.write("b", &[frame(StdStream::Stdout, b"other", true)], sinks).expect("memory");
            logs.write("a", &[frame(StdStream::Stdout, b"line", true)], sinks).expect("memory");
            logs.write("a", &[frame(StdStream::Stdout, b"rest", false)], sinks).expect("memory");
            logs.finish("a", sinks).expect("memory");
        });
        assert_eq!(out, "b  | other\na  | one line\na  | rest\n");
    }

    #[test]
    fn times_come_after_the_prefix_once_per_line() {
        let style = Style { timestamps: true, color: true, one_stream: true, ..PLAIN };
        let (out, err) = written(style, |logs, sinks| {
            let frames = [
                frame(StdStream::Stderr, b"x", false),
                frame(StdStream::Stderr, b"y", true),
                frame(StdStream::Stdout, b"", true),
            ];
            logs.write("a", &frames, sinks).expect("memory");
        });
        assert_eq!(
            out,
            "\x1b[36ma  | \x1b[0m2026-01-02T03:04:05.000000000Z xy\n\x1b[36ma  | \x1b[0m2026-01-02T03:04:05.000000000Z \n"
        );
        assert_eq!(err, "");
    }

    #[test]
    fn bytes_pass_as_they_are() {
        let mut out = Vec::new();
        let mut sinks = Sinks::new(&mut out, io::sink(), false);
        let mut logs = LogWriter::new(Style { prefix: false, ..PLAIN });
        logs.write("a", &[frame(StdStream::Stdout, b"\xff\0\x1b[1m\r", true)], &mut sinks).expect("memory");
        sinks.flush().expect("memory");
        drop(sinks);
        assert_eq!(out, b"\xff\0\x1b[1m\r\n");
    }

    #[test]
    fn programs_get_one_object_per_line() {
        let (out, err) = written(Style { json: true, ..PLAIN }, |logs, sinks| {
            let frames = [
                frame(StdStream::Stdout, b"{\"a\":", false),
                frame(StdStream::Stderr, b"oh", true),
                frame(StdStream::Stdout, b"1}", true),
                frame(StdStream::Stdout, b"rest", false),
            ];
            logs.write("web-1", &frames, sinks).expect("memory");
            logs.finish_all(sinks).expect("memory");
        });
        assert_eq!(err, "", "all of it is data");
        let lines: Vec<serde_json::Value> =
            out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let shown = |n: usize| {
            (lines[n]["container"].as_str(), lines[n]["stream"].as_str(), lines[n]["line"].as_str())
        };
        assert_eq!(shown(0), (Some("web-1"), Some("stderr"), Some("oh")));
        assert_eq!(shown(1), (Some("web-1"), Some("stdout"), Some("{\"a\":1}")));
        assert_eq!(shown(2), (Some("web-1"), Some("stdout"), Some("rest")));
    }
}
