//! Physical lines → directives and logical lines, comments and continuations resolved.
//!
//! A logical line remembers where each of its bytes came from, so that every
//! word has a place although it may stand lines below its keyword. Bodies of
//! heredocs are taken by whoever parses the instruction ([`Lines::heredoc`]),
//! for only then is it known whether there is one.

use super::ast::{Check, Directives, Word};
use super::codes;
use crate::diagnostic::{Diagnostic, FileId, Span, suggest};

/// An instruction's line: continuations joined, comments gone.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// The text.
    pub(super) text: String,
    /// The whole of it in the file.
    pub(super) span: Span,
    file: FileId,
    /// Offset in the text, offset in the file; ascending, the first is 0.
    pieces: Vec<(usize, usize)>,
}

impl Line {
    /// A part of the text as a place in the file.
    pub(super) fn span(&self, from: usize, to: usize) -> Span {
        let place = |at: usize| {
            let index = self.pieces.partition_point(|(start, _)| *start <= at).max(1) - 1;
            self.pieces.get(index).map_or(0, |(start, file)| file + (at - start))
        };
        // The end belongs to the last byte inside, not to the line that may follow it.
        let end = if to > from { place(to - 1) + 1 } else { place(from) };
        Span::new(self.file, place(from), end)
    }

    /// A part of the text with its place.
    pub(super) fn word(&self, from: usize, to: usize) -> Word {
        Word { text: self.text[from..to].to_owned(), span: self.span(from, to) }
    }
}

/// Reads a Dockerfile from top to bottom.
pub(super) struct Lines<'a> {
    file: FileId,
    text: &'a str,
    at: usize,
    pub(super) escape: char,
    /// Blank lines inside of continued instructions.
    pub(super) empty_continuations: Vec<Span>,
}

impl<'a> Lines<'a> {
    /// Reads the directives at the top.
    pub(super) fn new(file: FileId, text: &'a str, problems: &mut Vec<Diagnostic>) -> (Self, Directives) {
        let at = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        let mut lines = Self { file, text, at, escape: '\\', empty_continuations: Vec::new() };
        let directives = lines.directives(problems);
        lines.escape = directives.escape;
        (lines, directives)
    }

    /// The rest of an instruction, without directives: an `ONBUILD` trigger of an image.
    pub(super) fn trigger(file: FileId, text: &'a str) -> Self {
        Self { file, text, at: 0, escape: '\\', empty_continuations: Vec::new() }
    }

    /// The next physical line without its end, and where it starts.
    fn physical(&mut self) -> Option<(&'a str, usize)> {
        let rest = self.text.get(self.at..).filter(|rest| !rest.is_empty())?;
        let start = self.at;
        let length = memchr::memchr(b'\n', rest.as_bytes()).map_or(rest.len(), |at| at + 1);
        self.at += length;
        Some((rest[..length].trim_end_matches(['\n', '\r']), start))
    }

    fn directives(&mut self, problems: &mut Vec<Diagnostic>) -> Directives {
        let mut out = Directives { syntax: None, escape: '\\', check: Check::default() };
        let mut seen: Vec<(String, Span)> = Vec::new();
        loop {
            let back = self.at;
            let Some((name, value)) =
                self.physical().and_then(|(line, start)| directive(self.file, line, start))
            else {
                self.at = back;
                return out;
            };
            let known = name.text.to_ascii_lowercase();
            if !["syntax", "escape", "check"].contains(&known.as_str()) {
                self.at = back;
                return out;
            }
            if let Some((_, first)) = seen.iter().find(|(other, _)| *other == known) {
                problems.push(
                    Diagnostic::error(
                        codes::INVALID_DIRECTIVE,
                        format!("directive `{known}` is given twice"),
                    )
                    .at(name.span, "")
                    .also(*first, "first given here"),
                );
                continue;
            }
            seen.push((known.clone(), name.span));
            match known.as_str() {
                "escape" => match value.text.as_str() {
                    "\\" => {}
                    "`" => out.escape = '`',
                    _ => problems.push(
                        Diagnostic::error(
                            codes::INVALID_DIRECTIVE,
                            format!("directive `escape` is `{}`, not a backslash or a backtick", value.text),
                        )
                        .at(value.span, ""),
                    ),
                },
                "check" => out.check = check(&value, problems),
                _ => {
                    if let Some(problem) = foreign_syntax(&value) {
                        problems.push(problem);
                    }
                    out.syntax = Some(value);
                }
            }
        }
    }

    /// The next instruction's line.
    pub(super) fn next(&mut self) -> Option<Line> {
        let mut line =
            Line { text: String::new(), span: Span::new(self.file, 0, 0), file: self.file, pieces: vec![] };
        loop {
            let (raw, start) = self.physical()?;
            let content = raw.trim_start();
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let from = start + raw.len() - content.len();
            let (piece, more) = self.continued(content);
            line.pieces.push((0, from));
            line.text.push_str(piece);
            if more {
                self.join(&mut line);
            }
            // Blanks at the end belong to nothing.
            line.span = line.span(0, line.text.trim_end().len());
            return Some(line);
        }
    }

    /// The lines that continue one.
    fn join(&mut self, line: &mut Line) {
        while let Some((raw, start)) = self.physical() {
            let content = raw.trim_start();
            if content.starts_with('#') {
                continue;
            }
            if content.is_empty() {
                self.empty_continuations.push(Span::new(self.file, start, start + raw.len()));
                continue;
            }
            let (piece, more) = self.continued(raw);
            line.pieces.push((line.text.len(), start));
            line.text.push_str(piece);
            if !more {
                return;
            }
        }
    }

    /// A line without the escape character at its end, and whether there was one.
    ///
    /// Two in a row are an escaped escape character and continue nothing.
    fn continued<'t>(&self, line: &'t str) -> (&'t str, bool) {
        match line.trim_end_matches([' ', '\t']).strip_suffix(self.escape) {
            Some(rest) if !rest.ends_with(self.escape) => (rest, true),
            _ => (line, false),
        }
    }

    /// The body of a heredoc up to the line that is `name`, as written; `None` if that never comes.
    pub(super) fn heredoc(&mut self, name: &str, tabs: bool) -> Option<Word> {
        let start = self.at;
        loop {
            let (line, end) = self.physical()?;
            let line = if tabs { line.trim_start_matches('\t') } else { line };
            if line == name {
                return Some(Word {
                    text: self.text[start..end].to_owned(),
                    span: Span::new(self.file, start, end),
                });
            }
        }
    }

    /// How far it was read.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// What was read since then.
    pub(super) fn since(&self, position: usize) -> &'a str {
        self.text.get(position..self.at).unwrap_or("")
    }

    /// The place right after what was read, for spans that end with a heredoc.
    pub(super) fn end_of_read(&self) -> Span {
        let end = self.text[..self.at].trim_end_matches(['\n', '\r']).len();
        Span::new(self.file, end, end)
    }
}

/// `# name = value`.
fn directive(file: FileId, line: &str, start: usize) -> Option<(Word, Word)> {
    let content = line.trim_start();
    let after = content.strip_prefix('#')?;
    let (name, value) = after.split_once('=')?;
    let (key, value) = (name.trim(), value.trim());
    let letters =
        key.starts_with(|c: char| c.is_ascii_alphabetic()) && key.chars().all(|c| c.is_ascii_alphanumeric());
    if !letters || value.is_empty() {
        return None;
    }
    let base = start + line.len() - content.len() + 1;
    let key_at = base + name.len() - name.trim_start().len();
    let value_at = base + after.len() - after[name.len() + 1..].trim_start().len();
    let word =
        |text: &str, at: usize| Word { text: text.to_owned(), span: Span::new(file, at, at + text.len()) };
    Some((word(key, key_at), word(value, value_at)))
}

/// `skip=Rule,Rule;error=true`.
fn check(value: &Word, problems: &mut Vec<Diagnostic>) -> Check {
    let mut out = Check::default();
    let mut at = 0;
    for part in value.text.split(';') {
        let span = value.span.part(at, at + part.len());
        at += part.len() + 1;
        let Some((key, text)) = part.split_once('=') else {
            problems.push(
                Diagnostic::error(
                    codes::INVALID_DIRECTIVE,
                    format!("option `{}` of `check` has no value", part.trim()),
                )
                .at(span, "")
                .help("write `# check=skip=RULE,RULE;error=true`"),
            );
            continue;
        };
        match (key.trim(), text.trim()) {
            ("skip", "all") => out.skip_all = true,
            ("skip", rules) => {
                let rules = rules.split(',').map(str::trim).filter(|rule| !rule.is_empty());
                out.skip.extend(rules.map(str::to_owned));
            }
            ("error", text) => match go_bool(text) {
                Some(value) => out.error = value,
                None => problems.push(
                    Diagnostic::error(
                        codes::INVALID_DIRECTIVE,
                        format!("`error={text}` of `check` is not true or false"),
                    )
                    .at(span, ""),
                ),
            },
            // Rules that are still tried out; none of ours is.
            ("experimental", _) => {}
            (key, _) => {
                let mut problem =
                    Diagnostic::error(codes::INVALID_DIRECTIVE, format!("`check` has no option `{key}`"))
                        .at(span, "");
                if let Some(near) = suggest::nearest(key, ["skip", "error"]) {
                    problem = problem.help(format!("did you mean `{near}`?"));
                }
                problems.push(problem);
            }
        }
    }
    out
}

/// A boolean as Go's `strconv.ParseBool` takes it.
pub(super) fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Frontends other than Docker's own cannot be run here.
fn foreign_syntax(value: &Word) -> Option<Diagnostic> {
    // Options for the frontend may follow the image.
    let image = value.text.split_whitespace().next().unwrap_or_default();
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    let (repository, tag) = name.split_once(':').unwrap_or((name, "latest"));
    let own = matches!(repository, "docker/dockerfile" | "docker/dockerfile-upstream");
    let version = tag.split(['.', '-']).next().unwrap_or_default();
    if own && (version == "1" || ["latest", "labs", "master", "experimental"].contains(&version)) {
        return None;
    }
    let problem = Diagnostic::error(
        codes::FOREIGN_SYNTAX,
        format!("syntax `{image}` is another frontend than the one that is built in"),
    )
    .at(value.span, "not `docker/dockerfile:1`");
    Some(problem.help("frontends run as images of BuildKit; build this file with `docker buildx build`"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::diagnostic::SourceMap;

    fn read(text: &str) -> (Vec<String>, Vec<String>, Directives) {
        let mut map = SourceMap::default();
        let file = map.add(Path::new("Dockerfile"), "Dockerfile", text);
        let mut problems = Vec::new();
        let (mut lines, directives) = Lines::new(file, text, &mut problems);
        let all = std::iter::from_fn(|| lines.next().map(|line| line.text)).collect();
        (all, problems.into_iter().map(|d| d.message).collect(), directives)
    }

    #[test]
    fn continuations_comments_and_blank_lines() {
        let (lines, _, _) = read("RUN a \\\n  # no\n\n  b \\ \n\tc\r\n\n# x\n  CMD d\\\\\nE");
        assert_eq!(lines, ["RUN a   b \tc", "CMD d\\\\", "E"]);
        assert_eq!(read("A \\").0, ["A "]);
        assert_eq!(read("\u{feff}A").0, ["A"]);
        assert_eq!(read("").0, [""; 0]);
    }

    #[test]
    fn places_survive_joining() {
        let text = "RUN a \\\n  bc\n";
        let mut lines = Lines::trigger(FileId::default(), text);
        let line = lines.next().unwrap();
        let at = line.text.find("bc").unwrap();
        let span = line.span(at, at + 2);
        assert_eq!(&text[span.start as usize..span.end as usize], "bc");
        assert_eq!((line.span.start, line.span.end), (0, 12));
    }

    #[test]
    fn directives_end_with_the_first_line_that_is_none() {
        let (lines, problems, d) =
            read("# escape = `\n#syntax=docker/dockerfile:1.7-labs\n# x\n# escape=\\\nA `\nb");
        assert_eq!(problems, [""; 0]);
        assert_eq!((d.escape, d.syntax.unwrap().text.as_str()), ('`', "docker/dockerfile:1.7-labs"));
        assert_eq!(lines, ["A b"]);
        let (_, problems, d) = read("# check=skip=JSONArgsRecommended, UndefinedVar;error=true\nA");
        assert_eq!(problems, [""; 0]);
        assert_eq!((d.check.skip.len(), d.check.error), (2, true));
    }

    #[test]
    fn directives_can_be_wrong() {
        assert_eq!(read("# escape=x\nA").1, ["directive `escape` is `x`, not a backslash or a backtick"]);
        assert_eq!(read("# escape=`\n# ESCAPE=`\nA").1, ["directive `escape` is given twice"]);
        assert_eq!(read("# check=skp=all\nA").1, ["`check` has no option `skp`"]);
        let foreign = "syntax `r.io/x/y:1` is another frontend than the one that is built in";
        assert_eq!(read("# syntax=r.io/x/y:1\nA").1, [foreign]);
        assert_eq!(read("# syntax=docker.io/docker/dockerfile:1@sha256:00\nA").1, [""; 0]);
    }
}
