//! Variables, quotes and escapes in the words of a Dockerfile.
//!
//! Which words are expanded is said in [`ast`](super::ast); with which variables,
//! in [`scope`](super::scope). `${v:-w}`, `${v-w}`, `${v:+w}`, `${v+w}`, `${v:?w}`,
//! `${v?w}`, `${v#p}`, `${v##p}`, `${v%p}`, `${v%%p}`, `${v/p/r}` and `${v//p/r}`
//! are understood, nested as deep as [`MAX_DEPTH`].
//!
//! # Source
//! Dockerfile reference, “Environment replacement”; where it is silent, what
//! BuildKit 0.25 does (`tests/fixtures/dockerfile/expand`).

use std::borrow::Cow;
use std::collections::BTreeSet;

use regex::Regex;

use super::ast::{Heredoc, Word};
use crate::diagnostic::{Diagnostic, Span};

/// How deep `${…}` may stand inside of one another.
pub const MAX_DEPTH: usize = 64;

/// What variables mean at some place of the file.
pub trait Variables {
    /// The value; `None` when it is not set.
    fn get(&self, name: &str) -> Option<Cow<'_, str>>;
}

/// What became of a word.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expansion {
    /// The text, quotes and escapes resolved.
    pub text: String,
    /// The text split at blanks that were neither quoted nor escaped.
    pub words: Vec<String>,
    /// Variables that it names and that are not set.
    pub unset: BTreeSet<String>,
    /// Variables that it names and that are set.
    pub used: BTreeSet<String>,
}

/// The word's text with variables replaced, quotes removed and escapes resolved.
///
/// # Errors
/// A `${…}` that does not parse, an open quote, or a `${v:?…}` whose variable is missing.
pub fn expand(word: &Word, escape: char, variables: &dyn Variables) -> Result<String, Diagnostic> {
    expansion(word, escape, variables).map(|done| done.text)
}

/// Like [`expand`], then split at blanks that are not quoted: one word of `EXPOSE` can become several.
///
/// # Errors
/// As [`expand`].
pub fn expand_words(word: &Word, escape: char, variables: &dyn Variables) -> Result<Vec<String>, Diagnostic> {
    expansion(word, escape, variables).map(|done| done.words)
}

/// The body of a heredoc: variables are replaced and escapes resolved, quotes stay; as it is when
/// its delimiter was quoted.
///
/// # Errors
/// As [`expand`], without the quotes.
pub fn expand_heredoc(heredoc: &Heredoc, variables: &dyn Variables) -> Result<String, Diagnostic> {
    heredoc_expansion(heredoc, variables).map(|done| done.text)
}

pub(super) fn heredoc_expansion(
    heredoc: &Heredoc,
    variables: &dyn Variables,
) -> Result<Expansion, Diagnostic> {
    if !heredoc.expand {
        return Ok(Expansion { text: heredoc.content.text.clone(), ..Expansion::default() });
    }
    // The escape character of a body is a backslash whatever the directive says.
    let lexer = Lexer { skip_quotes: true, ..Lexer::new('\\', variables) };
    lexer.run(&heredoc.content.text).map_err(|problem| problem.diagnostic(&heredoc.content))
}

/// Everything there is to know of a word's expansion.
///
/// # Errors
/// As [`expand`].
pub fn expansion(word: &Word, escape: char, variables: &dyn Variables) -> Result<Expansion, Diagnostic> {
    Lexer::new(escape, variables).run(&word.text).map_err(|problem| problem.diagnostic(word))
}

/// No variable at all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Nothing;

impl Variables for Nothing {
    fn get(&self, _: &str) -> Option<Cow<'_, str>> {
        None
    }
}

/// What is wrong with a word, and from which byte on.
#[derive(Debug)]
pub(super) struct Problem {
    code: &'static str,
    message: String,
    from: usize,
    to: usize,
}

impl Problem {
    fn diagnostic(self, word: &Word) -> Diagnostic {
        // Offsets hold only when no continuation was joined.
        let whole = (word.span.end - word.span.start) as usize == word.text.len();
        let span: Span = if whole { word.span.part(self.from, self.to) } else { word.span };
        let dollar = self.code == "invalid-expansion" && !self.message.contains("quote");
        let found = Diagnostic::error(self.code, self.message).at(span, "");
        if dollar {
            return found.help("a `$` that is meant as it is is written `\\$`");
        }
        found
    }
}

/// The lexer with its switches.
#[expect(clippy::struct_excessive_bools, reason = "independent switches of one lexer")]
pub(super) struct Lexer<'a> {
    pub(super) escape: char,
    pub(super) variables: &'a dyn Variables,
    /// Quotes stay in the result.
    pub(super) raw_quotes: bool,
    /// Escape characters stay in the result.
    pub(super) raw_escapes: bool,
    /// Quotes are nothing special.
    pub(super) skip_quotes: bool,
    /// What is not set stays as it was written.
    pub(super) skip_unset: bool,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(escape: char, variables: &'a dyn Variables) -> Self {
        Self {
            escape,
            variables,
            raw_quotes: false,
            raw_escapes: false,
            skip_quotes: false,
            skip_unset: false,
        }
    }

    pub(super) fn run(&self, text: &str) -> Result<Expansion, Problem> {
        let mut state =
            State { lexer: self, text, at: 0, depth: 0, unset: BTreeSet::new(), used: BTreeSet::new() };
        let piece = state.until(None, self.raw_escapes)?;
        Ok(Expansion { text: piece.text, words: piece.words.done(), unset: state.unset, used: state.used })
    }
}

struct State<'a> {
    lexer: &'a Lexer<'a>,
    text: &'a str,
    at: usize,
    depth: usize,
    unset: BTreeSet<String>,
    used: BTreeSet<String>,
}

#[derive(Default)]
struct Piece {
    text: String,
    words: Words,
}

impl State<'_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn eat(&mut self, expected: char) -> bool {
        let is = self.peek() == Some(expected);
        if is {
            self.at += expected.len_utf8();
        }
        is
    }

    fn problem(&self, from: usize, message: impl Into<String>) -> Problem {
        Problem { code: "invalid-expansion", message: message.into(), from, to: self.at.max(from + 1) }
    }

    /// Up to `stop`, which is consumed, or to the end.
    fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Result<Piece, Problem> {
        let mut out = Piece::default();
        let start = self.at;
        while let Some(c) = self.peek() {
            if stop == Some(c) {
                self.next();
                return Ok(out);
            }
            match c {
                '$' => {
                    let value = self.dollar()?;
                    out.words.push_str(&value);
                    out.text.push_str(&value);
                }
                '\'' | '"' if !self.lexer.skip_quotes => {
                    let value =
                        if c == '"' { self.double_quoted(raw_escapes)? } else { self.single_quoted()? };
                    out.words.push_raw(&value);
                    out.text.push_str(&value);
                }
                '<' => {
                    let value = self.angle();
                    out.words.push_raw(value);
                    out.text.push_str(value);
                }
                _ => {
                    self.next();
                    if c != self.lexer.escape {
                        out.words.push(c);
                        out.text.push(c);
                        continue;
                    }
                    if raw_escapes {
                        out.words.push_raw(c.encode_utf8(&mut [0; 4]));
                        out.text.push(c);
                    }
                    if let Some(escaped) = self.next() {
                        out.words.push_raw(escaped.encode_utf8(&mut [0; 4]));
                        out.text.push(escaped);
                    }
                }
            }
        }
        match stop {
            Some(stop) => Err(self.problem(start, format!("`{stop}` is missing"))),
            None => Ok(out),
        }
    }

    /// `<<` takes the blanks after it, so that `<< EOF` is one word.
    fn angle(&mut self) -> &'static str {
        self.next();
        if !self.eat('<') {
            return "<";
        }
        while self.peek().is_some_and(|c| c == ' ' || c == '\t') {
            self.next();
        }
        "<<"
    }

    fn single_quoted(&mut self) -> Result<String, Problem> {
        let start = self.at;
        self.next();
        let Some(length) = self.text[self.at..].find('\'') else {
            self.at = self.text.len();
            return Err(self.problem(start, "a single quote is not closed"));
        };
        let inside = self.at..self.at + length;
        self.at = inside.end + 1;
        let range = if self.lexer.raw_quotes { start..self.at } else { inside };
        Ok(self.text[range].to_owned())
    }

    fn double_quoted(&mut self, raw_escapes: bool) -> Result<String, Problem> {
        let start = self.at;
        let mut out = String::new();
        self.next();
        if self.lexer.raw_quotes {
            out.push('"');
        }
        loop {
            match self.peek() {
                None => return Err(self.problem(start, "a double quote is not closed")),
                Some('"') => {
                    self.next();
                    if self.lexer.raw_quotes {
                        out.push('"');
                    }
                    return Ok(out);
                }
                Some('$') => out.push_str(&self.dollar()?),
                Some(c) if c == self.lexer.escape => {
                    self.next();
                    if raw_escapes {
                        out.push(c);
                    }
                    // Only these can be escaped between double quotes; other escape characters stand for themselves.
                    match self.peek() {
                        None => {}
                        Some(e) if e == '"' || e == '$' || e == self.lexer.escape => {
                            self.next();
                            out.push(e);
                        }
                        Some(_) => out.push(c),
                    }
                }
                Some(c) => {
                    self.next();
                    out.push(c);
                }
            }
        }
    }

    /// A `$` and what belongs to it.
    fn dollar(&mut self) -> Result<String, Problem> {
        let start = self.at;
        self.next();
        if !self.eat('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match self.lookup(&name) {
                Some(value) => value,
                None if self.lexer.skip_unset => format!("${name}"),
                None => String::new(),
            });
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.problem(start, format!("`${{…}}` is nested more than {MAX_DEPTH} deep")));
        }
        let value = self.braces(start);
        self.depth -= 1;
        value
    }

    /// After `${`.
    fn braces(&mut self, start: usize) -> Result<String, Problem> {
        match self.peek() {
            None => return Err(self.problem(start, "`}` is missing")),
            Some('{' | '}' | ':') => {
                self.next();
                return Err(self.problem(start, "a variable's name is missing after `${`"));
            }
            Some(_) => {}
        }
        let name = self.name();
        let value = self.lookup(&name);
        let Some(mut operator) = self.next() else {
            return Err(self.problem(start, "`}` is missing"));
        };
        let colon = operator == ':';
        match operator {
            '}' => {
                return Ok(match value {
                    Some(value) => value,
                    None if self.lexer.skip_unset => self.text[start..self.at].to_owned(),
                    None => String::new(),
                });
            }
            '/' => return self.replace(start, value),
            ':' => match self.next() {
                Some(c) => operator = c,
                None => return Err(self.problem(start, "`}` is missing")),
            },
            _ => {}
        }
        if !matches!(operator, '-' | '+' | '?' | '#' | '%') {
            let shown = if colon { format!(":{operator}") } else { operator.to_string() };
            return Err(self.problem(start, format!("`{shown}` is no operator of `${{…}}`")));
        }
        let pattern = operator == '#' || operator == '%';
        let word = self.until(Some('}'), pattern)?.text;
        if self.lexer.skip_unset && value.is_none() {
            return Ok(self.text[start..self.at].to_owned());
        }
        let missing = value.as_ref().is_none_or(|value| colon && value.is_empty());
        match operator {
            '-' => Ok(if missing { word } else { value.unwrap_or_default() }),
            '+' => Ok(if missing { String::new() } else { word }),
            '?' if missing => {
                let reason = match (word.as_str(), &value) {
                    ("", None) => "it is not set",
                    ("", Some(_)) => "it is empty",
                    (word, _) => word,
                };
                Err(Problem {
                    code: "required-argument",
                    message: format!("variable `{name}` is required: {reason}"),
                    from: start,
                    to: self.at,
                })
            }
            '?' => Ok(value.unwrap_or_default()),
            _ => {
                let (greedy, word) = match word.strip_prefix(operator) {
                    Some(rest) => (true, rest),
                    None => (false, word.as_str()),
                };
                let value = value.unwrap_or_default();
                trim(&value, word, operator == '%', greedy).map_err(|c| {
                    self.problem(start, format!("the pattern `{word}` escapes `{c}`, which needs none"))
                })
            }
        }
    }

    /// `${name/pattern/replacement}`, after the first slash.
    fn replace(&mut self, start: usize, value: Option<String>) -> Result<String, Problem> {
        let all = self.eat('/');
        let missing = |state: &Self, what| state.problem(start, format!("`{what}` is missing"));
        let pattern = self.until(Some('/'), true).map_err(|_| missing(self, '/'))?.text;
        let replacement = self.until(Some('}'), true).map_err(|_| missing(self, '}'))?.text;
        if self.lexer.skip_unset && value.is_none() {
            return Ok(self.text[start..self.at].to_owned());
        }
        let value = value.unwrap_or_default();
        let regex = shell_pattern(&pattern, true, "", "").map_err(|c| {
            self.problem(start, format!("the pattern `{pattern}` escapes `{c}`, which needs none"))
        })?;
        let with = regex::NoExpand(&replacement);
        Ok(if all { regex.replace_all(&value, with) } else { regex.replace(&value, with) }.into_owned())
    }

    /// A variable's name: letters, digits, `_`; a number, or one special character.
    fn name(&mut self) -> String {
        let start = self.at;
        match self.peek() {
            Some(c) if c.is_numeric() => {
                while self.peek().is_some_and(char::is_numeric) {
                    self.next();
                }
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => {
                self.next();
            }
            _ => {
                while self.peek().is_some_and(|c| c.is_alphanumeric() || c == '_') {
                    self.next();
                }
            }
        }
        self.text[start..self.at].to_owned()
    }

    fn lookup(&mut self, name: &str) -> Option<String> {
        let value = self.lexer.variables.get(name).map(Cow::into_owned);
        let list = if value.is_some() { &mut self.used } else { &mut self.unset };
        list.insert(name.to_owned());
        value
    }
}

/// `value` without the shortest (or longest) start (or end) that `pattern` matches.
fn trim(value: &str, pattern: &str, end: bool, greedy: bool) -> Result<String, char> {
    if !end {
        let regex = shell_pattern(pattern, greedy, "^", "")?;
        return Ok(regex.find(value).map_or(value, |found| &value[found.end()..]).to_owned());
    }
    let regex = shell_pattern(pattern, true, "^", "$")?;
    let starts = || value.char_indices().map(|(at, _)| at).chain([value.len()]);
    let fits = |at: &usize| regex.is_match(&value[*at..]);
    let found =
        if greedy { starts().find(fits) } else { starts().collect::<Vec<_>>().into_iter().rev().find(fits) };
    Ok(value[..found.unwrap_or(value.len())].to_owned())
}

/// A pattern with `*`, `?` and escapes as a regular expression; the error is a character that is escaped in vain.
fn shell_pattern(pattern: &str, greedy: bool, before: &str, after: &str) -> Result<Regex, char> {
    let mut out = before.to_owned();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' => out.push_str(if greedy { ".*" } else { ".*?" }),
            '?' => out.push('.'),
            // The braces and slashes of `${…}` itself are escaped for it, not for the pattern.
            '\\' if matches!(chars.peek(), Some('}' | '/')) => {}
            '\\' => match chars.next() {
                Some(escaped @ ('*' | '?' | '\\')) => {
                    out.push_str(&regex::escape(escaped.encode_utf8(&mut [0; 4])));
                }
                other => return Err(other.unwrap_or('\\')),
            },
            c => out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    out.push_str(after);
    Regex::new(&out).map_err(|_| '\\')
}

/// Words in the making.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    word: String,
}

impl Words {
    fn push(&mut self, c: char) {
        if !c.is_whitespace() {
            self.word.push(c);
        } else if !self.word.is_empty() {
            self.done.push(std::mem::take(&mut self.word));
        }
    }

    fn push_str(&mut self, text: &str) {
        text.chars().for_each(|c| self.push(c));
    }

    fn push_raw(&mut self, text: &str) {
        self.word.push_str(text);
    }

    fn done(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.done.push(self.word);
        }
        self.done
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::diagnostic::Span;

    impl Variables for BTreeMap<&str, &str> {
        fn get(&self, name: &str) -> Option<Cow<'_, str>> {
            BTreeMap::get(self, name).map(|value| Cow::Borrowed(*value))
        }
    }

    fn variables() -> BTreeMap<&'static str, &'static str> {
        [("v", "abcabc"), ("e", ""), ("path", "/a/b/c.tar.gz"), ("two", "x  y"), ("star", "a*b*c")].into()
    }

    fn word(text: &str) -> Word {
        Word { text: text.to_owned(), span: Span::new(crate::diagnostic::FileId::default(), 0, text.len()) }
    }

    fn text(from: &str) -> String {
        match expand(&word(from), '\\', &variables()) {
            Ok(text) => text,
            Err(d) => format!("!{}", d.message),
        }
    }

    /// All values were made by BuildKit 0.25 (`ENV r=…`, then `docker inspect`).
    #[test]
    fn operators() {
        for (from, to) in [
            ("$v", "abcabc"),
            ("${v}x", "abcabcx"),
            ("$none|${none}", "|"),
            ("${v:-w}${e:-w}${none:-w}", "abcabcww"),
            ("${v-w}${e-w}${none-w}", "abcabcw"),
            ("${v:+w}|${e:+w}|${none:+w}", "w||"),
            ("${v+w}|${e+w}|${none+w}", "w|w|"),
            ("${none:-${e:-$v}}", "abcabc"),
            ("${v#a*c}|${v##a*c}", "abc|"),
            ("${v%b*}|${v%%b*}", "abca|a"),
            ("${path##*/}|${path%/*}|${path%.*}|${path%%.*}", "c.tar.gz|/a/b|/a/b/c.tar|/a/b/c"),
            ("${v/b/X}|${v//b/X}|${v//b/}", "aXcabc|aXcaXc|acac"),
            ("${path//\\//_}", "_a_b_c.tar.gz"),
            ("${star//\\*/+}", "a+b+c"),
            ("${v/b?a/-}", "a-bc"),
            ("\\$v \\\\$v", "$v \\abcabc"),
            ("'$v' \"$v\" \"a\\\"b\" \"a\\b\"", "$v abcabc a\"b a\\b"),
            ("a$", "a$"),
            ("$1|$12a|$-|$$v", "|a||v"),
            ("é$v-", "éabcabc-"),
        ] {
            assert_eq!(text(from), to, "{from}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        for (from, to) in [
            ("${", "!`}` is missing"),
            ("${v", "!`}` is missing"),
            ("${}", "!a variable's name is missing after `${`"),
            ("${v:-x", "!`}` is missing"),
            ("${v^^}", "!`^` is no operator of `${…}`"),
            ("${v:x}", "!`:x` is no operator of `${…}`"),
            ("'x", "!a single quote is not closed"),
            ("\"x", "!a double quote is not closed"),
            ("${none:?}", "!variable `none` is required: it is not set"),
            ("${e:?}", "!variable `e` is required: it is empty"),
            ("${none?set it}", "!variable `none` is required: set it"),
        ] {
            assert_eq!(text(from), to, "{from}");
        }
        assert_eq!(text("${v?x}${e?x}"), "abcabc");
    }

    #[test]
    fn the_caret_stands_under_the_expression() {
        let d = expand(&word("ab${v^}"), '\\', &variables()).unwrap_err();
        let span = d.primary.unwrap().span;
        assert_eq!((span.start, span.end), (2, 6));
    }

    #[test]
    fn words_are_split_after_expansion_but_not_inside_quotes() {
        let split = |from| expand_words(&word(from), '\\', &variables()).unwrap();
        assert_eq!(split("$two"), ["x", "y"]);
        assert_eq!(split("\"$two\" z"), ["x  y", "z"]);
        assert_eq!(split("a\\ b c"), ["a b", "c"]);
        assert_eq!(split(""), [""; 0]);
    }

    #[test]
    fn names_that_are_not_set_are_reported() {
        let done = expansion(&word("$v$x${y:-z}"), '\\', &variables()).unwrap();
        assert_eq!(done.unset.into_iter().collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!(done.used.into_iter().collect::<Vec<_>>(), ["v"]);
    }

    #[test]
    fn a_heredoc_keeps_its_quotes() {
        let heredoc = |expand, text: &str| Heredoc { name: "E".into(), expand, content: word(text) };
        let run = |h: &Heredoc| expand_heredoc(h, &variables()).unwrap();
        assert_eq!(run(&heredoc(true, "'$v' \"x\" \\$v\n")), "'abcabc' \"x\" $v\n");
        assert_eq!(run(&heredoc(false, "'$v' \\$v\n")), "'$v' \\$v\n");
    }

    #[test]
    fn depth_is_limited() {
        let deep = "${x:-".repeat(MAX_DEPTH + 1);
        assert!(text(&deep).contains("nested"), "{}", text(&deep));
    }

    proptest! {
        #[test]
        fn no_text_panics(from in ".{0,60}", escape in prop_oneof![Just('\\'), Just('`')]) {
            drop(expansion(&word(&from), escape, &variables()));
        }

        #[test]
        fn no_expression_panics(from in r#"[${}:/#%?*+\-\\'"va<` ]{0,40}"#) {
            drop(expansion(&word(&from), '\\', &variables()));
        }
    }
}
