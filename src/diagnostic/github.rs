//! Diagnostics as GitHub's workflow commands, which become annotations beside the lines of a file.
//!
//! Source: <https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions>.

use std::fmt::Write as _;

use super::{Diagnostic, Severity, SourceMap};

/// One line for each diagnostic. Files are named as messages show them: relative to where the user stands.
pub fn annotations(all: &[Diagnostic], sources: &SourceMap) -> String {
    let mut out = String::new();
    for one in all {
        let word = match one.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let mut place = String::new();
        if let Some(label) = &one.primary {
            let (start, end) = (sources.start(label.span), sources.end(label.span));
            let file = escaped(sources.shown(label.span.file), true);
            // Writing to a String cannot fail.
            let _ = write!(place, "file={file},line={},col={}", start.line, start.column);
            // Columns are only of use on one line.
            let _ = if end.line == start.line {
                write!(place, ",endColumn={},", end.column)
            } else {
                write!(place, ",endLine={},", end.line)
            };
        }
        let mut text = one.message.clone();
        for help in &one.help {
            let _ = write!(text, "\n{help}");
        }
        let _ = writeln!(out, "::{word} {place}title={}::{}", one.code, escaped(&text, false));
    }
    out
}

/// What a command cannot contain as it stands; in a property two more characters.
fn escaped(text: &str, property: bool) -> String {
    let text = text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    if property { text.replace(':', "%3A").replace(',', "%2C") } else { text }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Span;
    use super::*;

    #[test]
    fn nothing_of_a_message_can_begin_another_command() {
        let mut map = SourceMap::default();
        let file = map.add(Path::new("/p/a,b.yaml"), "a,b.yaml", "x: y\nz: [\n]\n");
        let one = Diagnostic::error("unknown-key", "100%\n::error::x").at(Span::new(file, 3, 4), "");
        let two = Diagnostic::warning("w", "m").at(Span::new(file, 8, 11), "").help("do");
        let three = Diagnostic::error("no-file", "m");
        assert_eq!(
            annotations(&[one, two, three], &map),
            "::error file=a%2Cb.yaml,line=1,col=4,endColumn=5,title=unknown-key::100%25%0A::error::x\n\
             ::warning file=a%2Cb.yaml,line=2,col=4,endLine=3,title=w::m%0Ado\n\
             ::error title=no-file::m\n"
        );
    }
}
