//! A logical line taken apart: keyword, flags, and the rest as words or JSON.

use super::ast::{Command, Word};
use super::codes;
use super::lines::Line;
use crate::diagnostic::{Diagnostic, Span, suggest};

/// One line as keyword, flags and arguments.
#[derive(Debug)]
pub(super) struct Statement<'a> {
    pub(super) line: &'a Line,
    pub(super) keyword: Word,
    pub(super) flags: Flags,
    /// Where the arguments stand in the line, blanks around them removed.
    pub(super) from: usize,
    pub(super) to: usize,
}

/// Blanks that separate words; unlike elsewhere not all of Unicode's.
fn blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\u{b}' | '\u{c}' | '\r')
}

impl<'a> Statement<'a> {
    /// The statement that begins at `from`: the whole line, or what follows `ONBUILD`.
    pub(super) fn new(line: &'a Line, from: usize) -> Self {
        let text = &line.text;
        let start = from + text[from..].len() - text[from..].trim_start().len();
        let end = text.trim_end().len().max(start);
        let key_end = text[start..end].find(blank).map_or(end, |at| start + at);
        let (flags, after) = Flags::read(line, key_end, end);
        let from = after + text[after..end].len() - text[after..end].trim_start().len();
        Self { line, keyword: line.word(start, key_end), flags, from, to: end.max(from) }
    }

    /// The arguments as they are.
    pub(super) fn rest(&self) -> &'a str {
        &self.line.text[self.from..self.to]
    }

    /// The arguments as one word.
    pub(super) fn whole(&self) -> Word {
        self.line.word(self.from, self.to)
    }

    /// Where the arguments are, or the keyword when there are none.
    pub(super) fn place(&self) -> Span {
        if self.from < self.to { self.line.span(self.from, self.to) } else { self.keyword.span }
    }

    /// The keyword in capitals.
    pub(super) fn name(&self) -> String {
        self.keyword.text.to_ascii_uppercase()
    }

    /// The arguments split at blanks, quotes notwithstanding.
    pub(super) fn words(&self) -> Vec<Word> {
        let mut out = Vec::new();
        let mut start = None;
        let ends = self.rest().char_indices().chain([(self.rest().len(), ' ')]);
        for (at, c) in ends {
            match (blank(c), start) {
                (false, None) => start = Some(at),
                (true, Some(from)) => {
                    out.push(self.line.word(self.from + from, self.from + at));
                    start = None;
                }
                _ => {}
            }
        }
        out
    }

    /// The arguments split at blanks outside of quotes; quotes and escapes stay in the words.
    pub(super) fn quoted_words(&self, escape: char) -> Vec<Word> {
        let mut out = Vec::new();
        let mut start = None;
        let mut quote = None;
        let mut escaped = false;
        let rest = self.rest();
        for (at, c) in rest.char_indices().chain([(rest.len(), ' ')]) {
            if at == rest.len() {
                (quote, escaped) = (None, false);
            }
            if start.is_none() {
                if c.is_whitespace() {
                    continue;
                }
                start = Some(at);
            }
            match quote {
                _ if escaped => escaped = false,
                Some(open) => {
                    if c == open {
                        quote = None;
                    } else if c == escape && open == '"' {
                        escaped = true;
                    }
                }
                None if c.is_whitespace() => {
                    let from = start.take().unwrap_or(at);
                    out.push(self.line.word(self.from + from, self.from + at));
                }
                None if c == '\'' || c == '"' => quote = Some(c),
                None if c == escape => escaped = true,
                None => {}
            }
        }
        out
    }

    /// The arguments as a JSON array of texts; `None` if they are no JSON array.
    ///
    /// # Errors
    /// An array with something else than texts.
    pub(super) fn json(&self) -> Result<Option<Vec<String>>, Diagnostic> {
        if !self.rest().starts_with('[') {
            return Ok(None);
        }
        let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(self.rest()) else { return Ok(None) };
        let texts = values.into_iter().map(|value| match value {
            serde_json::Value::String(text) => Some(text),
            _ => None,
        });
        texts.collect::<Option<_>>().map(Some).ok_or_else(|| {
            Diagnostic::error(
                codes::INVALID_JSON_FORM,
                format!("the JSON array of `{}` holds something else than texts", self.name()),
            )
            .at(self.place(), "")
            .help("put every element between double quotes")
        })
    }

    /// The arguments as a command, in JSON or shell form.
    pub(super) fn command(&self) -> Result<Command, Diagnostic> {
        Ok(match self.json()? {
            Some(words) => Command::Exec(words),
            None => Command::Shell(self.rest().to_owned()),
        })
    }

    /// The arguments as a JSON array or split at blanks.
    pub(super) fn list(&self) -> Result<(Vec<Word>, bool), Diagnostic> {
        Ok(match self.json()? {
            Some(texts) => {
                let span = self.place();
                (texts.into_iter().map(|text| Word { text, span }).collect(), true)
            }
            None => (self.words(), false),
        })
    }

    /// Something is wrong with the number of arguments.
    pub(super) fn arguments(&self, message: &str) -> Diagnostic {
        Diagnostic::error(codes::WRONG_ARGUMENTS, format!("`{}` {message}", self.name())).at(self.place(), "")
    }
}

/// A flag as given: quotes and backslashes are resolved.
#[derive(Debug, Clone)]
struct Flag {
    name: Word,
    value: Option<Word>,
}

/// What a flag can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// `--f`, `--f=true`, `--f=false`.
    Bool,
    /// `--f=text`, once.
    Text,
    /// `--f=text`, any number of times.
    Texts,
}

/// The flags of a statement.
#[derive(Debug, Default)]
pub(super) struct Flags {
    given: Vec<Flag>,
}

impl Flags {
    /// Reads words that begin with `--`, up to one that does not; tells where that is.
    fn read(line: &Line, from: usize, to: usize) -> (Self, usize) {
        let mut out = Self::default();
        let mut at = from;
        loop {
            let rest = &line.text[at..to];
            at += rest.len() - rest.trim_start().len();
            let rest = &line.text[at..to];
            if !rest.starts_with("--") {
                return (out, at);
            }
            let (text, length) = flag_text(rest);
            if text == "--" {
                return (out, at + length);
            }
            let span = line.span(at, at + length);
            let (name, value) = match text[2..].split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (text[2..].to_owned(), None),
            };
            let name_end = (at + 2 + name.len()).min(at + length);
            let name_span = if line.text.is_char_boundary(name_end) { line.span(at, name_end) } else { span };
            let value_from = (name_end + 1).min(at + length);
            let value_span = if line.text.is_char_boundary(value_from) {
                line.span(value_from, at + length)
            } else {
                span
            };
            out.given.push(Flag {
                name: Word { text: name, span: name_span },
                value: value.map(|text| Word { text, span: value_span }),
            });
            at += length;
        }
    }

    /// Holds the flags against those that there are; what remains is right.
    pub(super) fn check(&mut self, keyword: &str, known: &[(&str, Takes)], problems: &mut Vec<Diagnostic>) {
        let mut seen: Vec<(String, Span)> = Vec::new();
        self.given.retain(|flag| {
            let name = flag.name.text.as_str();
            let Some((_, takes)) = known.iter().find(|(known, _)| *known == name) else {
                let mut problem =
                    Diagnostic::error(codes::UNKNOWN_FLAG, format!("`{keyword}` has no flag `--{name}`"))
                        .at(flag.name.span, "");
                let near = suggest::nearest(name, known.iter().map(|(known, _)| *known));
                if let Some(near) = near {
                    problem = problem.help(format!("did you mean `--{near}`?"));
                }
                problems.push(problem);
                return false;
            };
            if let Some((_, first)) =
                seen.iter().find(|(other, _)| other == name).filter(|_| *takes != Takes::Texts)
            {
                problems.push(
                    Diagnostic::error(codes::DUPLICATE_FLAG, format!("flag `--{name}` is given twice"))
                        .at(flag.name.span, "")
                        .also(*first, "first given here"),
                );
                return false;
            }
            seen.push((name.to_owned(), flag.name.span));
            let wrong = match (takes, &flag.value) {
                (Takes::Text | Takes::Texts, None) => Some("needs a value".to_owned()),
                (Takes::Bool, Some(value)) if boolean(&value.text).is_none() => {
                    Some(format!("is `{}`, not true or false", value.text))
                }
                _ => None,
            };
            let right = wrong.is_none();
            if let Some(wrong) = wrong {
                let span = flag.value.as_ref().map_or(flag.name.span, |value| value.span);
                let problem = Diagnostic::error(codes::INVALID_FLAG, format!("flag `--{name}` {wrong}"));
                problems.push(problem.at(span, ""));
            }
            right
        });
    }

    /// The value of a flag that can be given once.
    pub(super) fn text(&self, name: &str) -> Option<Word> {
        self.texts(name).into_iter().next()
    }

    /// All values of a flag.
    pub(super) fn texts(&self, name: &str) -> Vec<Word> {
        self.given
            .iter()
            .filter(|flag| flag.name.text == name)
            .filter_map(|flag| flag.value.clone())
            .collect()
    }

    /// A switch, if it was given.
    pub(super) fn switch(&self, name: &str) -> Option<bool> {
        let flag = self.given.iter().find(|flag| flag.name.text == name)?;
        flag.value.as_ref().map_or(Some(true), |value| boolean(&value.text))
    }
}

/// A switch's value; fewer words than Go's booleans.
fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// The first word of a text that begins with one, quotes and backslashes resolved, and its length as written.
fn flag_text(rest: &str) -> (String, usize) {
    let mut out = String::new();
    let mut quote = None;
    let mut chars = rest.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => return (out, at),
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ if c == '\\' => out.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => out.push(c),
        }
    }
    (out, rest.len())
}

#[cfg(test)]
mod tests {
    use super::super::lines::Lines;
    use super::*;
    use crate::diagnostic::FileId;

    fn with<T>(text: &str, use_it: impl FnOnce(Statement<'_>) -> T) -> T {
        let line = Lines::trigger(FileId::default(), text).next().expect("a line");
        use_it(Statement::new(&line, 0))
    }

    fn texts(words: Vec<Word>) -> Vec<String> {
        words.into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn flags_end_with_the_first_other_word() {
        with("copy --a=1 --b=\"x y\" --c  src --d", |mut s| {
            let mut problems = Vec::new();
            let known = [("a", Takes::Text), ("b", Takes::Text), ("c", Takes::Bool)];
            s.flags.check("COPY", &known, &mut problems);
            assert!(problems.is_empty(), "{problems:?}");
            assert_eq!(s.flags.text("b").unwrap().text, "x y");
            assert_eq!(s.flags.switch("c"), Some(true));
            assert_eq!((s.keyword.text.as_str(), s.rest()), ("copy", "src --d"));
        });
        with("CMD -- --x", |s| assert_eq!(s.rest(), "--x"));
    }

    #[test]
    fn words_of_both_kinds() {
        with("ENV a=\"b c\" d=e\\ f 'g h'", |s| {
            assert_eq!(texts(s.quoted_words('\\')), ["a=\"b c\"", "d=e\\ f", "'g h'"]);
            assert_eq!(texts(s.words()).len(), 6);
        });
        with("ENV a='\\' b", |s| assert_eq!(texts(s.quoted_words('\\')), ["a='\\'", "b"]));
        with("ENV", |s| assert!(s.words().is_empty()));
    }

    #[test]
    fn json_or_not() {
        with("CMD [\"a\", \"b\"]", |s| assert_eq!(s.json().unwrap().unwrap(), ["a", "b"]));
        with("CMD [\"a\" ] x", |s| assert_eq!(s.json().unwrap(), None));
        with("CMD ['a']", |s| assert_eq!(s.json().unwrap(), None));
        with("CMD [1]", |s| assert!(s.json().is_err()));
        with("CMD []", |s| assert_eq!(s.json().unwrap().unwrap(), [""; 0]));
    }
}
