//! Mistakes in a user's file: where they are and how they are shown.
//!
//! A [`Diagnostic`] is data until somebody renders it; it says what is wrong at
//! which [`Span`]s, with a stable code. Errors of operations are no diagnostics
//! (style guide §5). This module prints nothing and reads no files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

mod github;
mod render;
pub mod suggest;

pub use github::annotations;
pub use render::render;

/// A file in a [`SourceMap`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct FileId(u32);

/// A byte range in one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Span {
    /// Which file.
    pub file: FileId,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The range `from..to` of `file`; offsets beyond 4 GiB are cut, which no accepted file reaches.
    pub fn new(file: FileId, from: usize, to: usize) -> Self {
        let cut = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Self { file, start: cut(from), end: cut(to.max(from)) }
    }

    /// Part of this span, as byte offsets into it.
    #[must_use]
    pub fn part(self, from: usize, to: usize) -> Self {
        Self::new(self.file, self.start as usize + from, (self.start as usize + to).min(self.end as usize))
    }

    /// From the start of this to the end of `other`, when both are in one file.
    #[must_use]
    pub fn to(self, other: Self) -> Self {
        if self.file == other.file { Self { end: other.end.max(self.end), ..self } } else { self }
    }
}

/// A line and a column, both counted from 1; the column counts characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    shown: String,
    text: Arc<str>,
    /// Byte offset of each line's start.
    lines: Vec<u32>,
}

/// The texts that spans point into.
#[derive(Debug, Default)]
pub struct SourceMap {
    files: Vec<File>,
}

impl SourceMap {
    /// Adds a file; `shown` is how messages name it (usually relative to where the user stands).
    pub fn add(&mut self, path: &Path, shown: impl Into<String>, text: impl Into<Arc<str>>) -> FileId {
        let text: Arc<str> = text.into();
        let starts = memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1);
        let lines =
            std::iter::once(0).chain(starts).map(|at| u32::try_from(at).unwrap_or(u32::MAX)).collect();
        let id = FileId(u32::try_from(self.files.len()).unwrap_or(u32::MAX));
        self.files.push(File { path: path.to_owned(), shown: shown.into(), text, lines });
        id
    }

    fn file(&self, id: FileId) -> Option<&File> {
        self.files.get(id.0 as usize)
    }

    /// The file that was opened under this path.
    pub fn find(&self, path: &Path) -> Option<FileId> {
        let at = self.files.iter().position(|file| file.path == path)?;
        u32::try_from(at).ok().map(FileId)
    }

    /// The text of a file; empty for an id of another map.
    pub fn text(&self, id: FileId) -> &str {
        self.file(id).map_or("", |file| &file.text)
    }

    /// The text of a file, shared.
    pub fn shared_text(&self, id: FileId) -> Arc<str> {
        self.file(id).map_or_else(|| Arc::from(""), |file| Arc::clone(&file.text))
    }

    /// The path of a file as it was opened.
    pub fn path(&self, id: FileId) -> &Path {
        self.file(id).map_or(Path::new(""), |file| &file.path)
    }

    /// The name of a file as messages show it.
    pub fn shown(&self, id: FileId) -> &str {
        self.file(id).map_or("", |file| &file.shown)
    }

    /// The text of a span.
    pub fn snippet(&self, span: Span) -> &str {
        self.text(span.file).get(span.start as usize..span.end as usize).unwrap_or("")
    }

    /// Where a span begins.
    pub fn start(&self, span: Span) -> Position {
        self.position(span.file, span.start)
    }

    /// Where a span ends (one past its last character).
    pub fn end(&self, span: Span) -> Position {
        self.position(span.file, span.end)
    }

    fn position(&self, id: FileId, at: u32) -> Position {
        let Some(file) = self.file(id) else { return Position { line: 1, column: 1 } };
        let line = file.lines.partition_point(|start| *start <= at).max(1);
        let from = file.lines[line - 1] as usize;
        let to = (at as usize).min(file.text.len());
        let before = file.text.get(from..to).unwrap_or("");
        Position { line, column: before.chars().count() + 1 }
    }

    /// The text of a line without its end; lines count from 1.
    fn line(&self, id: FileId, line: usize) -> &str {
        let Some(file) = self.file(id) else { return "" };
        let Some(from) = line.checked_sub(1).and_then(|index| file.lines.get(index)) else { return "" };
        let to = file.lines.get(line).map_or(file.text.len(), |next| *next as usize);
        file.text.get(*from as usize..to).unwrap_or("").trim_end_matches(['\n', '\r'])
    }

    /// `file:line:column` of a span.
    pub fn place(&self, span: Span) -> String {
        let Position { line, column } = self.start(span);
        format!("{}:{line}:{column}", self.shown(span.file))
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing is done.
    Error,
    /// Work goes on.
    Warning,
}

/// A place and what it has to do with the mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Where.
    pub span: Span,
    /// What; may be empty.
    pub text: String,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Stable, in kebab case; each stands in the table of codes.
    pub code: &'static str,
    /// How bad.
    pub severity: Severity,
    /// Lowercase fragment without a full stop, names in backticks, the thing first.
    pub message: String,
    /// The very value; `None` when the mistake is in no file (a flag, a missing file).
    pub primary: Option<Label>,
    /// Other places that matter: the other definition, the declaration with a similar name.
    pub secondary: Vec<Label>,
    /// What to do, one line each.
    pub help: Vec<String>,
}

impl Diagnostic {
    /// A mistake that stops the load.
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: Severity::Error,
            message: message.into(),
            primary: None,
            secondary: Vec::new(),
            help: Vec::new(),
        }
    }

    /// Something to know.
    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, message) }
    }

    /// The value it is about, with a note beside its caret.
    #[must_use]
    pub fn at(mut self, span: Span, text: impl Into<String>) -> Self {
        self.primary = Some(Label { span, text: text.into() });
        self
    }

    /// Another place that matters.
    #[must_use]
    pub fn also(mut self, span: Span, text: impl Into<String>) -> Self {
        self.secondary.push(Label { span, text: text.into() });
        self
    }

    /// What to do.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help.push(text.into());
        self
    }
}

/// Sorts by place, errors before warnings, and drops exact repetitions.
pub fn tidy(all: &mut Vec<Diagnostic>) {
    all.sort_by_key(|d| (d.severity, d.primary.as_ref().map(|label| label.span)));
    all.dedup();
}

#[derive(Serialize)]
struct JsonLabel<'a> {
    file: String,
    start: Position,
    end: Position,
    text: &'a str,
}

#[derive(Serialize)]
struct JsonDiagnostic<'a> {
    code: &'a str,
    severity: Severity,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<JsonLabel<'a>>,
    also: Vec<JsonLabel<'a>>,
    help: &'a [String],
}

/// All of them as a JSON array, for editors. Positions count from 1. Its schema is `schemas/diagnostics.json`.
pub fn to_json(all: &[Diagnostic], sources: &SourceMap) -> serde_json::Value {
    let label = |label: &'_ Label| {
        (sources.path(label.span.file), sources.start(label.span), sources.end(label.span))
    };
    fn json<'a>(label: &'a Label, (path, start, end): (&Path, Position, Position)) -> JsonLabel<'a> {
        JsonLabel { file: path.display().to_string(), start, end, text: &label.text }
    }
    let all: Vec<JsonDiagnostic<'_>> = all
        .iter()
        .map(|d| JsonDiagnostic {
            code: d.code,
            severity: d.severity,
            message: &d.message,
            at: d.primary.as_ref().map(|l| json(l, label(l))),
            also: d.secondary.iter().map(|l| json(l, label(l))).collect(),
            help: &d.help,
        })
        .collect();
    serde_json::to_value(all).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters() {
        let mut map = SourceMap::default();
        let file = map.add(Path::new("/p/c.yaml"), "c.yaml", "a: é\nbü: x\n");
        assert_eq!(map.place(Span::new(file, 6, 7)), "c.yaml:2:1");
        assert_eq!(map.place(Span::new(file, 11, 12)), "c.yaml:2:5");
        assert_eq!(map.place(Span::new(file, 99, 99)), "c.yaml:3:1");
    }

    #[test]
    fn errors_come_first_and_once() {
        let span = |at| Span::new(FileId(0), at, at + 1);
        let mut all = vec![
            Diagnostic::warning("w", "w").at(span(0), ""),
            Diagnostic::error("e", "late").at(span(9), ""),
            Diagnostic::error("e", "early").at(span(1), ""),
            Diagnostic::error("e", "late").at(span(9), ""),
        ];
        tidy(&mut all);
        let order: Vec<_> = all.iter().map(|d| d.message.as_str()).collect();
        assert_eq!(order, ["early", "late", "w"]);
    }

    #[test]
    fn json_has_places() {
        let mut map = SourceMap::default();
        let file = map.add(Path::new("/p/c.yaml"), "c.yaml", "a: b\n");
        let all = [Diagnostic::error("unknown-key", "x").at(Span::new(file, 3, 4), "here").help("do")];
        let json = to_json(&all, &map);
        assert_eq!(json[0]["at"]["file"], "/p/c.yaml");
        assert_eq!(json[0]["at"]["start"]["column"], 4);
        assert_eq!(json[0]["help"][0], "do");
    }
}
