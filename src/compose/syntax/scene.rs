//! What rules look at: a text by lines, and where the parser gave up in it.

use std::ops::Range;

/// One line of the text.
#[derive(Clone, Copy)]
pub(super) struct Line<'t> {
    /// Byte offset of its first character.
    pub(super) start: usize,
    /// Without its end.
    pub(super) text: &'t str,
}

impl<'t> Line<'t> {
    /// How many blanks and tabs it begins with.
    pub(super) fn indent(self) -> usize {
        self.text.len() - self.body().len()
    }

    pub(super) fn body(self) -> &'t str {
        self.text.trim_start_matches([' ', '\t'])
    }

    /// The place of what stands in it, without indentation and comment.
    pub(super) fn range(self) -> Range<usize> {
        let from = self.start + self.indent();
        from..from + without_comment(self.body()).len()
    }

    /// Whether it says anything.
    pub(super) fn speaks(self) -> bool {
        let body = self.body();
        !body.trim_end().is_empty() && !body.starts_with('#')
    }

    pub(super) fn is_item(self) -> bool {
        self.body() == "-" || self.body().starts_with("- ")
    }
}

/// The text, and where the parser gave up.
pub(super) struct Scene<'t> {
    pub(super) text: &'t str,
    pub(super) lines: Vec<Line<'t>>,
    /// Index of the line where it gave up.
    pub(super) here: usize,
    /// Byte offset where it gave up.
    pub(super) at: usize,
    /// What the parser said.
    pub(super) said: &'t str,
}

impl<'t> Scene<'t> {
    pub(super) fn new(text: &'t str, at: usize, said: &'t str) -> Self {
        let mut lines = Vec::new();
        let mut start = 0;
        for line in text.split_inclusive('\n') {
            lines.push(Line { start, text: line.trim_end_matches(['\n', '\r']) });
            start += line.len();
        }
        let at = text.floor_char_boundary(at);
        let here = lines.partition_point(|line| line.start <= at).saturating_sub(1);
        Self { text, lines, here, at, said }
    }

    pub(super) fn line(&self) -> Line<'t> {
        self.lines.get(self.here).copied().unwrap_or(Line { start: 0, text: "" })
    }

    /// The closest line above `index` that says anything.
    pub(super) fn above(&self, index: usize) -> Option<(usize, Line<'t>)> {
        self.lines.get(..index)?.iter().copied().enumerate().rev().find(|(_, line)| line.speaks())
    }

    /// Where it gave up, or, past the last line that says something, that line.
    pub(super) fn spoken(&self) -> Option<(usize, Line<'t>)> {
        if self.line().speaks() && self.at >= self.line().range().start {
            Some((self.here, self.line()))
        } else {
            self.above(self.here).or_else(|| Some((self.here, self.line())).filter(|(_, l)| l.speaks()))
        }
    }

    pub(super) fn rest(&self) -> &'t str {
        let line = self.line();
        line.text.get(self.at.saturating_sub(line.start)..).unwrap_or("")
    }

    pub(super) fn says(&self, words: &[&str]) -> bool {
        words.iter().any(|one| self.said.contains(one))
    }
}

/// The text up to a comment, without blanks at its end. Quotes are not looked into: a `#` with a
/// blank before it is rare in them, and only the caret gets shorter.
pub(super) fn without_comment(text: &str) -> &str {
    text.find(" #").map_or(text, |at| &text[..at]).trim_end()
}

pub(super) fn quoted(value: &str) -> String {
    if value.contains('"') { format!("'{value}'") } else { format!("\"{value}\"") }
}

/// The end of a key, when the line begins with `key:` and a blank or nothing after it.
pub(super) fn key_end(body: &str) -> Option<usize> {
    body.match_indices(':').map(|(at, _)| at).find(|at| {
        let rest = &body[at + 1..];
        rest.is_empty() || rest.starts_with([' ', '\t'])
    })
}

/// The names of anchors in a text: `&name` where a value begins.
pub(super) fn anchors(text: &str) -> Vec<&str> {
    text.match_indices('&')
        .filter(|(at, _)| text[..*at].ends_with([' ', '[', '{', ',', '\n']))
        .map(|(at, _)| &text[at + 1..])
        .map(|rest| {
            &rest[..rest
                .find(|c: char| c.is_whitespace() || matches!(c, ',' | ']' | '}'))
                .unwrap_or(rest.len())]
        })
        .filter(|name| !name.is_empty())
        .collect()
}

/// The innermost bracket that opens a list or mapping on one line and is not closed.
pub(super) fn innermost_open(text: &str) -> Option<(usize, char)> {
    let mut open: Vec<(usize, char)> = Vec::new();
    let mut quote = None;
    let mut before = '\n';
    let mut comment = false;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if comment => comment = c != '\n',
            (Some(mark), _) if c == mark && before != '\\' => quote = None,
            (Some(_), _) => {}
            (None, '#') if before.is_whitespace() => comment = true,
            (None, '"' | '\'') if before.is_whitespace() || matches!(before, '[' | '{' | ',' | ':') => {
                quote = Some(c);
            }
            (None, '[' | '{')
                if !open.is_empty() || before.is_whitespace() || matches!(before, '[' | '{') =>
            {
                open.push((at, c));
            }
            (None, ']' | '}') => drop(open.pop()),
            _ => {}
        }
        before = c;
    }
    open.pop()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_in_quotes_and_comments_are_none() {
        for (text, open) in [
            ("a: [b, {c: d}", Some(3)),
            ("a: [b, {c: d}]", None),
            ("a: \"[\"\n", None),
            ("a: b # [\n", None),
            ("a: b[0\n", None),
            ("a: [\n  {b", Some(7)),
        ] {
            assert_eq!(innermost_open(text).map(|(at, _)| at), open, "{text}");
        }
    }
}
