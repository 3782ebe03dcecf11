//! What of a build context does not count: `.dockerignore`.
//!
//! The rules are Go's and moby's, not git's: a pattern is anchored at the root of
//! the context, `**` goes over directories, later lines beat earlier ones, `!`
//! takes back, and what a directory's pattern says holds for all below it.
//! A directory that does not count is still there when something below it does.
//!
//! # Source
//! Dockerfile reference, “.dockerignore file”; `moby/patternmatcher`'s behaviour
//! as recorded in `tests/fixtures/dockerfile/ignore.txt`.

use std::borrow::Cow;

use regex::Regex;

use crate::diagnostic::{Diagnostic, FileId, SourceMap, Span};

/// Code of a pattern that does not parse.
pub const INVALID_PATTERN: &str = "invalid-ignore-pattern";

/// The patterns of a `.dockerignore`, or of `--exclude`s.
#[derive(Debug, Clone, Default)]
pub struct Ignore {
    patterns: Vec<Pattern>,
}

#[derive(Debug, Clone)]
struct Pattern {
    /// Begins with `!`.
    keeps: bool,
    rule: Rule,
    /// Everything it can match is below this path (without a wildcard); empty when it can be anywhere.
    fixed: String,
}

#[derive(Debug, Clone)]
enum Rule {
    /// This path.
    Exact(String),
    /// `x**`: what begins so.
    Prefix(String),
    /// `**x`: what ends so; `**/x` is `x` in any directory.
    Suffix(String),
    Regex(Regex),
}

impl Ignore {
    /// Reads a `.dockerignore`.
    ///
    /// # Errors
    /// All patterns that do not parse.
    pub fn parse(file: FileId, sources: &SourceMap) -> Result<Self, Vec<Diagnostic>> {
        let text = sources.text(file);
        let mut out = Self::default();
        let mut problems = Vec::new();
        let mut start = 0;
        for line in text.split_inclusive('\n') {
            let from = start;
            start += line.len();
            let line = if from == 0 { line.trim_start_matches('\u{feff}') } else { line };
            if line.starts_with('#') {
                continue;
            }
            let word = line.trim();
            match Pattern::new(word) {
                Ok(pattern) => out.patterns.extend(pattern),
                Err(why) => {
                    let at = from + text[from..].find(word).unwrap_or(0);
                    let message = format!("`{word}` is no pattern: {why}");
                    let span = Span::new(file, at, at + word.len());
                    problems.push(Diagnostic::error(INVALID_PATTERN, message).at(span, ""));
                }
            }
        }
        if problems.is_empty() { Ok(out) } else { Err(problems) }
    }

    /// The patterns of `--exclude`s. Unlike lines of a file they have no comments.
    ///
    /// # Errors
    /// Which pattern does not parse, and why.
    pub fn of<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut out = Self::default();
        for text in patterns {
            let pattern =
                Pattern::new(text.trim()).map_err(|why| format!("`{text}` is no pattern: {why}"))?;
            out.patterns.extend(pattern);
        }
        Ok(out)
    }

    /// Whether everything counts.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether a path does not count. It is relative to the root, with `/` between its parts.
    ///
    /// A directory for which this says yes may still be there for what is below it:
    /// see [`may_keep_below`](Self::may_keep_below).
    pub fn ignores(&self, path: &[u8]) -> bool {
        let path = String::from_utf8_lossy(path);
        let parents = || path.match_indices('/').map(|(at, _)| &path[..at]);
        let mut ignored = false;
        for pattern in &self.patterns {
            if pattern.keeps == ignored
                && (pattern.matches(&path) || parents().any(|above| pattern.matches(above)))
            {
                ignored = !pattern.keeps;
            }
        }
        ignored
    }

    /// Takes out what does not count. `all` has directories before what is in them; of those that do
    /// not count, the ones that something below is kept of stay. Tells of each whether it counts itself.
    pub fn retain<T>(
        &self,
        all: Vec<(Vec<u8>, T)>,
        is_directory: impl Fn(&T) -> bool,
    ) -> Vec<(Vec<u8>, T, bool)> {
        let mut out: Vec<(Vec<u8>, T, bool)> = Vec::with_capacity(all.len());
        // Directories at the end of `out` that stay only if something of them follows.
        let mut waiting = 0;
        for (path, what) in all {
            while waiting > 0 && out.last().is_some_and(|(above, ..)| !is_within(&path, above)) {
                out.pop();
                waiting -= 1;
            }
            let counts = !self.ignores(&path);
            if counts {
                waiting = 0;
                out.push((path, what, true));
            } else if is_directory(&what) && self.may_keep_below(&path) {
                waiting += 1;
                out.push((path, what, false));
            }
        }
        out.truncate(out.len() - waiting);
        out
    }

    /// Whether something below a directory that does not count may count.
    pub fn may_keep_below(&self, directory: &[u8]) -> bool {
        let directory = String::from_utf8_lossy(directory);
        self.patterns.iter().filter(|pattern| pattern.keeps).any(|pattern| {
            let fixed = pattern.fixed.as_str();
            is_below(fixed, &directory) || is_below(&directory, fixed)
        })
    }
}

/// Whether `path` is below the directory `above`.
fn is_within(path: &[u8], above: &[u8]) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.first() == Some(&b'/'))
}

/// Whether `path` is `above` or below it.
fn is_below(path: &str, above: &str) -> bool {
    above.is_empty() || path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Pattern {
    /// Reads a pattern without blanks around it; none if it is empty.
    fn new(text: &str) -> Result<Option<Self>, &'static str> {
        let (keeps, text) = match text.strip_prefix('!') {
            Some(rest) => (true, rest.trim()),
            None => (false, text),
        };
        if text.is_empty() {
            return if keeps { Err("nothing follows the `!`") } else { Ok(None) };
        }
        let clean = clean(text);
        let clean = match clean.strip_prefix('/') {
            Some(rest) if !rest.is_empty() => rest,
            _ => &clean,
        };
        let rule = rule(clean)?;
        let wild = clean.find(['*', '?', '[', '\\']).unwrap_or(clean.len());
        let fixed = if wild == clean.len() {
            clean
        } else {
            clean[..wild].rfind('/').map_or("", |slash| &clean[..slash])
        };
        Ok(Some(Self { keeps, fixed: fixed.to_owned(), rule }))
    }

    fn matches(&self, path: &str) -> bool {
        match &self.rule {
            Rule::Exact(text) => path == text,
            Rule::Prefix(text) => path.starts_with(text.as_str()),
            Rule::Suffix(text) => path.ends_with(text.as_str()) || text.strip_prefix('/') == Some(path),
            Rule::Regex(regex) => regex.is_match(path),
        }
    }
}

/// Go's `path.Clean`: no empty parts, no `.`, `..` taken back where possible.
pub(super) fn clean(path: &str) -> Cow<'_, str> {
    let plain = !path.is_empty()
        && path
            .split('/')
            .enumerate()
            .all(|(at, part)| !matches!(part, "" | "." | "..") || (at == 0 && part.is_empty()));
    if plain && path != "/" {
        return Cow::Borrowed(path);
    }
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    Cow::Owned(match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    })
}

/// How a clean pattern matches.
fn rule(pattern: &str) -> Result<Rule, &'static str> {
    #[derive(PartialEq)]
    enum Simple {
        Exact,
        Prefix,
        Suffix,
        No,
    }
    let mut simple = Simple::Exact;
    let mut out = "^".to_owned();
    let mut chars = pattern.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '*' if chars.next_if(|(_, next)| *next == '*').is_some() => {
                let slash = chars.next_if(|(_, next)| *next == '/').is_some();
                if chars.peek().is_none() {
                    // Also a slash before the end is no part of a clean pattern.
                    simple = if simple == Simple::Exact && !slash { Simple::Prefix } else { Simple::No };
                    out.push_str(".*");
                } else {
                    simple = if at == 0 { Simple::Suffix } else { Simple::No };
                    out.push_str("(.*/)?");
                }
            }
            '*' => {
                simple = Simple::No;
                out.push_str("[^/]*");
            }
            '?' => {
                simple = Simple::No;
                out.push_str("[^/]");
            }
            '[' => {
                simple = Simple::No;
                class(&mut chars, &mut out)?;
            }
            '\\' => {
                simple = Simple::No;
                let (_, escaped) = chars.next().ok_or("the backslash at the end escapes nothing")?;
                push_literal(&mut out, escaped);
            }
            c => push_literal(&mut out, c),
        }
    }
    out.push('$');
    Ok(match simple {
        Simple::Exact => Rule::Exact(pattern.to_owned()),
        Simple::Prefix => Rule::Prefix(pattern[..pattern.len() - 2].to_owned()),
        Simple::Suffix => Rule::Suffix(pattern[2..].to_owned()),
        Simple::No => Rule::Regex(Regex::new(&out).map_err(|_| "the brackets hold no characters")?),
    })
}

fn push_literal(out: &mut String, c: char) {
    out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
}

/// `[a-z]`, `[^a]`; the bracket is read.
fn class(
    chars: &mut std::iter::Peekable<std::str::CharIndices<'_>>,
    out: &mut String,
) -> Result<(), &'static str> {
    const OPEN: &str = "a bracket is not closed";
    out.push('[');
    if chars.next_if(|(_, c)| *c == '^').is_some() {
        out.push('^');
    }
    let mut any = false;
    loop {
        match chars.next().ok_or(OPEN)?.1 {
            ']' if any => break,
            ']' => return Err("the brackets hold no characters"),
            '-' if any => out.push('-'),
            '-' => return Err("a range in brackets has no start"),
            '\\' => {
                let (_, escaped) = chars.next().ok_or(OPEN)?;
                push_class(out, escaped);
            }
            c => push_class(out, c),
        }
        any = true;
    }
    out.push(']');
    Ok(())
}

/// A character inside of brackets, where others are special than outside.
fn push_class(out: &mut String, c: char) {
    if c.is_ascii_punctuation() {
        out.push('\\');
    }
    out.push(c);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Ignore, Vec<Diagnostic>> {
        let mut map = SourceMap::default();
        let file = map.add(Path::new(".dockerignore"), ".dockerignore", text);
        Ignore::parse(file, &map)
    }

    #[test]
    fn later_lines_beat_earlier_ones() {
        let ignore = parse("# comment\n*.md\n!README*.md\nREADME-secret.md\n").unwrap();
        assert!(ignore.ignores(b"a.md") && ignore.ignores(b"README-secret.md"));
        assert!(
            !ignore.ignores(b"README.md") && !ignore.ignores(b"sub/a.md") && !ignore.ignores(b"# comment")
        );
    }

    #[test]
    fn directories_hold_for_all_below() {
        let ignore = parse("/dir/\n!dir/keep/x").unwrap();
        assert!(ignore.ignores(b"dir") && ignore.ignores(b"dir/a/b") && ignore.ignores(b"dir/keep"));
        assert!(
            !ignore.ignores(b"dir/keep/x") && !ignore.ignores(b"dir/keep/x/y") && !ignore.ignores(b"sub/dir")
        );
        assert!(
            ignore.may_keep_below(b"dir")
                && ignore.may_keep_below(b"dir/keep")
                && !ignore.may_keep_below(b"dir/a")
        );
    }

    #[test]
    fn directories_stay_for_what_is_kept_in_them() {
        let all = ["a", "a/b", "a/b/c", "a/b/keep", "a/d", "a/d/e", "f", "g", "g/h"];
        let all = all.iter().map(|path| (path.as_bytes().to_vec(), ())).collect();
        let kept = Ignore::of(["a", "!a/b/keep", "g/*", "!g/none"]).unwrap().retain(all, |()| true);
        let kept: Vec<_> = kept.iter().map(|(path, (), own)| (str::from_utf8(path).unwrap(), *own)).collect();
        assert_eq!(kept, [("a", false), ("a/b", false), ("a/b/keep", true), ("f", true), ("g", true)]);
    }

    #[test]
    fn mistakes_have_places() {
        let problems = parse("ok\n  [a\n!\n").unwrap_err();
        let all: Vec<_> =
            problems.iter().map(|d| (d.message.as_str(), d.primary.as_ref().unwrap().span.start)).collect();
        assert_eq!(
            all,
            [
                ("`[a` is no pattern: a bracket is not closed", 5),
                ("`!` is no pattern: nothing follows the `!`", 8)
            ]
        );
    }

    #[test]
    fn clean_is_gos() {
        for (from, to) in [
            ("a/b", "a/b"),
            ("a//b/./c/", "a/b/c"),
            ("a/../b", "b"),
            ("../a", "../a"),
            ("/..", "/"),
            ("", "."),
            ("./", "."),
            ("/", "/"),
        ] {
            assert_eq!(clean(from), to, "{from}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}", path in ".{0,20}") {
            if let Ok(ignore) = parse(&text) {
                ignore.ignores(path.as_bytes());
            }
        }

        #[test]
        fn no_pattern_panics(text in r"[*?\[\]^\-!/.\\ab\n]{0,20}", path in "[ab/.]{0,10}") {
            if let Ok(ignore) = parse(&text) {
                ignore.ignores(path.as_bytes());
                ignore.may_keep_below(path.as_bytes());
            }
        }
    }
}
