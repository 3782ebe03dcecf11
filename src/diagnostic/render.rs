//! A diagnostic as text: `file:line:col`, the line, a caret under the value, what to do.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Diagnostic, FileId, Label, Severity, SourceMap};

/// Longest piece of a source line that is shown, in characters.
const WIDTH: usize = 160;

struct Colours {
    error: &'static str,
    warning: &'static str,
    bold: &'static str,
    frame: &'static str,
    off: &'static str,
}

const COLOUR: Colours = Colours {
    error: "\x1b[1;31m",
    warning: "\x1b[1;33m",
    bold: "\x1b[1m",
    frame: "\x1b[1;34m",
    off: "\x1b[0m",
};
const PLAIN: Colours = Colours { error: "", warning: "", bold: "", frame: "", off: "" };

/// The diagnostic as several lines, each with its line feed; readable without colour.
pub fn render(diagnostic: &Diagnostic, sources: &SourceMap, colour: bool) -> String {
    let c = if colour { &COLOUR } else { &PLAIN };
    let (word, tint) = match diagnostic.severity {
        Severity::Error => ("error", c.error),
        Severity::Warning => ("warning", c.warning),
    };
    let mut out =
        format!("{tint}{word}[{}]{}{}: {}{}\n", diagnostic.code, c.off, c.bold, diagnostic.message, c.off);
    let labels: Vec<(&Label, bool)> = diagnostic
        .primary
        .iter()
        .map(|label| (label, true))
        .chain(diagnostic.secondary.iter().map(|label| (label, false)))
        .collect();
    let gutter =
        labels.iter().map(|(label, _)| sources.start(label.span).line.to_string().len()).max().unwrap_or(0);
    let mut files: Vec<FileId> = Vec::new();
    for (label, _) in &labels {
        if !files.contains(&label.span.file) {
            files.push(label.span.file);
        }
    }
    for (index, file) in files.into_iter().enumerate() {
        let first = labels.iter().find(|(label, _)| label.span.file == file);
        if let Some((label, _)) = first {
            let arrow = if index == 0 { "-->" } else { ":::" };
            let pad = " ".repeat(gutter);
            line(&mut out, format_args!("{pad}{}{arrow}{} {}", c.frame, c.off, sources.place(label.span)));
            line(&mut out, format_args!("{pad} {}|{}", c.frame, c.off));
        }
        let mut lines: BTreeMap<usize, Vec<(&Label, bool)>> = BTreeMap::new();
        for (label, primary) in labels.iter().filter(|(label, _)| label.span.file == file) {
            lines.entry(sources.start(label.span).line).or_default().push((*label, *primary));
        }
        let mut last: Option<usize> = None;
        for (number, here) in lines {
            if last.is_some_and(|last| number > last + 1) {
                line(&mut out, format_args!("{}...{}", c.frame, c.off));
            }
            last = Some(number);
            snippet(&mut out, sources, number, &here, gutter, tint, c);
        }
    }
    for help in &diagnostic.help {
        let pad = " ".repeat(gutter);
        line(&mut out, format_args!("{pad} {}={} {}help{}: {help}", c.frame, c.off, c.bold, c.off));
    }
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = out.write_fmt(text);
    out.push('\n');
}

/// One source line and the carets under it.
fn snippet(
    out: &mut String,
    sources: &SourceMap,
    number: usize,
    here: &[(&Label, bool)],
    gutter: usize,
    tint: &str,
    c: &Colours,
) {
    let Some((first, _)) = here.first() else { return };
    let text = sources.line(first.span.file, number);
    // A very long line is shown from a little before the value.
    let start = sources.start(first.span).column - 1;
    let skip = if text.chars().count() > WIDTH && start > WIDTH / 2 { start - WIDTH / 4 } else { 0 };
    let shown: String = text.chars().skip(skip).take(WIDTH).map(plain).collect();
    line(out, format_args!("{}{number:>gutter$} |{} {}", c.frame, c.off, shown.trim_end()));
    for (label, primary) in here {
        let from = sources.start(label.span);
        let to = sources.end(label.span);
        let end = if to.line == from.line { to.column } else { text.chars().count() + 1 };
        let width = end.saturating_sub(from.column).clamp(1, WIDTH);
        let (mark, tint) = if *primary { ("^", tint) } else { ("-", c.frame) };
        let pad = " ".repeat(gutter);
        let blank = " ".repeat((from.column - 1).saturating_sub(skip));
        let carets = mark.repeat(width);
        let note = if label.text.is_empty() { String::new() } else { format!(" {}", label.text) };
        line(out, format_args!("{pad} {}|{} {blank}{tint}{carets}{note}{}", c.frame, c.off, c.off));
    }
}

/// Control characters must not reach a terminal, and a tab is one column wide.
fn plain(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Span;
    use super::*;

    const FILE: &str = "services:\n  web:\n    networks:\n      - backnd\nnetworks:\n  x: {}\n  backend:\n";

    fn example() -> (Diagnostic, SourceMap) {
        let mut map = SourceMap::default();
        let file = map.add(Path::new("/p/compose.yaml"), "compose.yaml", FILE);
        let at = |word: &str| {
            let from = FILE.find(word).expect("in the file");
            Span::new(file, from, from + word.len())
        };
        let diagnostic = Diagnostic::error(
            "undefined-network",
            "service `web` uses network `backnd`, which is not declared",
        )
        .at(at("backnd"), "not found under top-level `networks`")
        .also(at("backend"), "a similar name is declared here")
        .help("did you mean `backend`?");
        (diagnostic, map)
    }

    #[test]
    fn the_line_the_caret_and_the_hint() {
        let (diagnostic, map) = example();
        let expected = "\
error[undefined-network]: service `web` uses network `backnd`, which is not declared
 --> compose.yaml:4:9
  |
4 |       - backnd
  |         ^^^^^^ not found under top-level `networks`
...
7 |   backend:
  |   ------- a similar name is declared here
  = help: did you mean `backend`?
";
        assert_eq!(render(&diagnostic, &map, false), expected);
    }

    #[test]
    fn colour_changes_no_text() {
        let (diagnostic, map) = example();
        let mut coloured = render(&diagnostic, &map, true);
        while let Some(at) = coloured.find('\x1b') {
            let end = coloured[at..].find('m').expect("an end") + at;
            coloured.replace_range(at..=end, "");
        }
        assert_eq!(coloured, render(&diagnostic, &map, false));
    }

    #[test]
    fn escape_sequences_of_a_file_stay_out_of_the_terminal() {
        let mut map = SourceMap::default();
        let file = map.add(Path::new("f"), "f", "a: \"\x1b[31mred\"\n");
        let diagnostic = Diagnostic::error("x", "y").at(Span::new(file, 0, 1), "");
        assert!(!render(&diagnostic, &map, false).contains('\x1b'));
    }

    #[test]
    fn a_mistake_without_a_place_has_its_help() {
        let d = Diagnostic::error("no-file", "no configuration file provided: not found").help("create one");
        assert_eq!(
            render(&d, &SourceMap::default(), false),
            "error[no-file]: no configuration file provided: not found\n = help: create one\n"
        );
    }
}
