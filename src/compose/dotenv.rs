//! Files of variables: `.env`, `--env-file`, `env_file`, `label_file`.
//!
//! Source of the grammar: `reference/model.md` §5, checked against the peer.

use std::borrow::Cow;
use std::ops::Range;

use indexmap::IndexMap;

use super::template::{self, Lookup, TemplateErrorKind};

/// A mistake in a file of variables.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {kind}")]
pub struct DotenvError {
    /// What is wrong.
    pub kind: DotenvErrorKind,
    /// Line, counted from 1.
    pub line: usize,
    /// Byte range in the file.
    pub span: Range<usize>,
}

/// What is wrong with a file of variables.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DotenvErrorKind {
    /// A blank in the middle of a name.
    #[error("key cannot contain a space")]
    Blank,
    /// Nothing before the `=`.
    #[error("no variable name before `=`")]
    NoName,
    /// A character that no name has.
    #[error("unexpected character `{0}` in variable name")]
    Character(char),
    /// A quoted value without its end.
    #[error("unterminated quoted value: `{0}` is not closed")]
    Quote(char),
    /// A value that cannot be interpolated.
    #[error(transparent)]
    Template(#[from] TemplateErrorKind),
}

/// What a file defines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variables {
    /// In the order of their first definition; the last value wins.
    pub values: IndexMap<String, String>,
    /// Byte range of the assignment that won, by name.
    pub places: IndexMap<String, Range<usize>>,
    /// Variables that values use and that are not set, with their places.
    pub unset: Vec<(String, Range<usize>)>,
}

impl Variables {
    fn set(&mut self, key: &str, value: String, span: Range<usize>) {
        self.values.insert(key.to_owned(), value);
        self.places.insert(key.to_owned(), span);
    }
}

/// Reads the usual format. `outer` is asked first for variables in values, then what the file has defined so far.
///
/// A name without a value takes the one of `outer`, and is left out when it has none.
///
/// # Errors
/// [`DotenvError`] at the first mistake.
pub fn parse(text: &str, outer: Lookup<'_>) -> Result<Variables, DotenvError> {
    parse_after(text, outer, &|_| None)
}

/// As [`parse`], for a file that follows others: `earlier` is asked last, so what this file
/// defines itself hides what they defined.
///
/// # Errors
/// [`DotenvError`] at the first mistake.
pub fn parse_after(text: &str, outer: Lookup<'_>, earlier: Lookup<'_>) -> Result<Variables, DotenvError> {
    let mut out = Variables::default();
    let start = if text.starts_with('\u{feff}') { 3 } else { 0 };
    let mut reader = Reader { text, at: start, outer, earlier };
    while reader.skip_blank_and_comments() {
        reader.statement(&mut out)?;
    }
    Ok(out)
}

/// Reads `format: raw`: each line is `K=V`, and V is taken as it stands, quotes and all.
///
/// A name alone is inherited as in [`parse`]; a line whose first character is `#` is a comment.
///
/// # Errors
/// [`DotenvError`] for a name with a blank in it, or none at all.
pub fn parse_raw(text: &str, outer: Lookup<'_>) -> Result<Variables, DotenvError> {
    let mut out = Variables::default();
    let mut at = 0;
    for (number, whole) in text.split_inclusive('\n').enumerate() {
        let line = whole.trim_end_matches(['\r', '\n']);
        let trimmed = line.trim_start_matches('\u{feff}').trim_start();
        let start = at + line.len() - trimmed.len();
        at += whole.len();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let (key, value) = trimmed.split_once('=').map_or((trimmed, None), |(k, v)| (k, Some(v)));
        let fail = |kind, span| Err(DotenvError { kind, line: number + 1, span });
        if key.is_empty() {
            return fail(DotenvErrorKind::NoName, start..start + trimmed.len());
        }
        if let Some(blank) = key.find(char::is_whitespace) {
            return fail(DotenvErrorKind::Blank, start + blank..start + blank + 1);
        }
        if let Some(value) = value.map(str::to_owned).or_else(|| outer(key)) {
            out.set(key, value, start..start + trimmed.len());
        }
    }
    Ok(out)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    outer: Lookup<'a>,
    earlier: Lookup<'a>,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn error(&self, kind: DotenvErrorKind, span: Range<usize>) -> DotenvError {
        let line = 1 + memchr::memchr_iter(b'\n', &self.text.as_bytes()[..span.start]).count();
        DotenvError { kind, line, span }
    }

    /// False at the end of the file.
    fn skip_blank_and_comments(&mut self) -> bool {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start().len();
            self.at += blank;
            if !self.rest().starts_with('#') {
                return !self.rest().is_empty();
            }
            self.skip_line();
        }
    }

    fn skip_line(&mut self) {
        let rest = self.rest();
        self.at += memchr::memchr(b'\n', rest.as_bytes()).map_or(rest.len(), |n| n + 1);
    }

    /// From here to the end of the line, without `\r`.
    fn line(&self) -> &'a str {
        let rest = self.rest();
        let end = memchr::memchr(b'\n', rest.as_bytes()).unwrap_or(rest.len());
        rest[..end].trim_end_matches('\r')
    }

    fn statement(&mut self, out: &mut Variables) -> Result<(), DotenvError> {
        let begin = self.at;
        if let Some(after) = self.rest().strip_prefix("export")
            && after.starts_with([' ', '\t'])
        {
            self.at += "export".len() + (after.len() - after.trim_start_matches([' ', '\t']).len());
        }
        let line = self.line();
        let separator = line.find(['=', ':']);
        let key_text = &line[..separator.unwrap_or(line.len())];
        // A comment may follow a name that stands alone.
        let key_text = match separator {
            None => key_text.split(" #").next().unwrap_or(key_text),
            Some(_) => key_text,
        };
        let key = key_text.trim();
        for (offset, c) in key.char_indices() {
            let lead = key_text.len() - key_text.trim_start().len();
            let at = self.at + lead + offset;
            if c == ' ' || c == '\t' {
                return Err(self.error(DotenvErrorKind::Blank, at..at + 1));
            }
            if !(c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '[' | ']')) {
                return Err(self.error(DotenvErrorKind::Character(c), at..at + c.len_utf8()));
            }
        }
        let Some(separator) = separator else {
            self.skip_line();
            if let Some(value) = (self.outer)(key).or_else(|| (self.earlier)(key)) {
                out.set(key, value, begin..begin + line.trim_end().len());
            }
            return Ok(());
        };
        self.at += separator + 1;
        let lead = self.line();
        self.at += lead.len() - lead.trim_start_matches([' ', '\t']).len();
        let value = match self.rest().chars().next() {
            Some('\'') => self.single()?,
            Some('"') => {
                let (at, raw) = self.double()?;
                let plain = unescape(raw);
                let place = |span: Range<usize>| at + plain.origin(span.start)..at + plain.origin(span.end);
                self.interpolate(&plain.text, place, out)?
            }
            _ => {
                let at = self.at;
                let line = self.line();
                // `K=# x` keeps its text: only a hash after a blank begins a comment.
                let end = line.find(" #").unwrap_or(line.len());
                let raw = line[..end].trim_end();
                let value = self.interpolate(raw, |span| at + span.start..at + span.end, out)?;
                self.skip_line();
                value
            }
        };
        let end = self.at.min(begin + self.text[begin..].trim_end().len());
        let span = begin..begin + self.text[begin..end.max(begin)].trim_end().len();
        out.set(key, value, span);
        Ok(())
    }

    /// `'…'`: literal but for `\'`.
    fn single(&mut self) -> Result<String, DotenvError> {
        let start = self.at;
        let (raw, end) = self.quoted('\'', start)?;
        self.at = end;
        Ok(raw.replace("\\'", "'"))
    }

    /// The text between double quotes, and where it begins.
    fn double(&mut self) -> Result<(usize, &'a str), DotenvError> {
        let start = self.at;
        let (raw, end) = self.quoted('"', start)?;
        self.at = end;
        Ok((start + 1, raw))
    }

    fn quoted(&self, quote: char, start: usize) -> Result<(&'a str, usize), DotenvError> {
        let bytes = self.text.as_bytes();
        let mut at = start + 1;
        while at < bytes.len() {
            match bytes[at] {
                b'\\' => at += 2,
                c if c == quote as u8 => return Ok((&self.text[start + 1..at], at + 1)),
                _ => at += 1,
            }
        }
        Err(self.error(DotenvErrorKind::Quote(quote), start..start + self.line_length(start)))
    }

    fn line_length(&self, at: usize) -> usize {
        self.text[at..].lines().next().map_or(0, str::len)
    }

    fn interpolate(
        &self,
        raw: &str,
        place: impl Fn(Range<usize>) -> Range<usize>,
        out: &mut Variables,
    ) -> Result<String, DotenvError> {
        let lookup = |name: &str| {
            (self.outer)(name).or_else(|| out.values.get(name).cloned()).or_else(|| (self.earlier)(name))
        };
        match template::expand(raw, &lookup) {
            Ok(expanded) => {
                out.unset.extend(expanded.unset.into_iter().map(|(name, span)| (name, place(span))));
                Ok(expanded.text)
            }
            Err(error) => Err(self.error(error.kind.into(), place(error.span))),
        }
    }
}

/// A double-quoted value without its escapes.
struct Unescaped<'t> {
    text: Cow<'t, str>,
    /// For each byte of the text, and its end, where it comes from; empty when nothing was escaped.
    origins: Vec<usize>,
}

impl Unescaped<'_> {
    /// Where a byte of the text stands in what was written.
    fn origin(&self, at: usize) -> usize {
        self.origins.get(at).copied().unwrap_or(at)
    }
}

/// The escapes of a double-quoted value. `\$` becomes `$$`, which interpolation turns into `$`.
fn unescape(raw: &str) -> Unescaped<'_> {
    if !raw.contains('\\') {
        return Unescaped { text: Cow::Borrowed(raw), origins: Vec::new() };
    }
    let mut out = String::with_capacity(raw.len());
    let mut origins = Vec::with_capacity(raw.len() + 1);
    let mut chars = raw.chars().peekable();
    let mut next = 0;
    loop {
        let begin = next;
        let Some(c) = chars.next() else { break };
        next += c.len_utf8();
        if c != '\\' {
            out.push(c);
            origins.resize(out.len(), begin);
            continue;
        }
        let escaped = chars.next();
        next += escaped.map_or(0, char::len_utf8);
        match escaped {
            Some('a') => out.push('\u{7}'),
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('v') => out.push('\u{b}'),
            Some('"') => out.push('"'),
            Some('$') => out.push_str("$$"),
            Some('0') => {
                let mut code = 0_u32;
                for _ in 0..3 {
                    match chars.peek().and_then(|c| c.to_digit(8)) {
                        Some(digit) => {
                            code = code * 8 + digit;
                            chars.next();
                            next += 1;
                        }
                        None => break,
                    }
                }
                out.extend(char::from_u32(code));
            }
            Some('\\') | None => out.push('\\'),
            Some(other) => out.extend(['\\', other]),
        }
        origins.resize(out.len(), begin);
    }
    origins.push(raw.len());
    Unescaped { text: Cow::Owned(out), origins }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outer(name: &str) -> Option<String> {
        (name == "OUT").then(|| "out".to_owned())
    }

    fn read(text: &str) -> Vec<(String, String)> {
        parse(text, &outer).unwrap_or_else(|e| panic!("{text:?}: {e}")).values.into_iter().collect()
    }

    fn one(text: &str) -> String {
        let all = read(text);
        assert_eq!(all.len(), 1, "{text:?} {all:?}");
        all[0].1.clone()
    }

    /// Found by fuzzing: escapes before a variable moved its place, in the worst case into a character.
    #[test]
    fn places_behind_escapes_are_those_of_the_file() {
        for text in ["B=\"\\n\\tx $X\"", "B=\"\\0101\\0101é $X\"", "B=\"\\$\\q $X\"", "A=1\nB=\"é\\\\ $X\""]
        {
            let found = parse(text, &outer).expect("valid");
            let (name, place) = &found.unset[0];
            assert_eq!((name.as_str(), &text[place.clone()]), ("X", "$X"), "{text}");
            let wrong = text.replace("$X", "${X");
            let error = parse(&wrong, &outer).expect_err("an open brace");
            assert_eq!(&wrong[error.span], "${X", "{wrong}");
        }
    }

    #[test]
    fn values() {
        for (text, expected) in [
            ("A=b", "b"),
            ("A = b ", "b"),
            ("A: b", "b"),
            ("export A=b\r\n", "b"),
            ("A=", ""),
            ("A=b # c", "b"),
            ("A=b#c", "b#c"),
            ("A=# c", "# c"),
            ("A=\\n", "\\n"),
            ("A='$OUT \\' # x'", "$OUT ' # x"),
            ("A=\"x\\n\\t\\\"$OUT\\$OUT \\q\"", "x\n\t\"out$OUT \\q"),
            ("A=\"two\nlines\"", "two\nlines"),
            ("A=${OUT}-${B:-d}", "out-d"),
            ("A=a=b:c", "a=b:c"),
            ("A=\"\\0101\"", "A"),
        ] {
            assert_eq!(one(text), expected, "{text:?}");
        }
    }

    #[test]
    fn statements() {
        assert_eq!(
            read("\u{feff}# c\n\nA=1\nB=$A$OUT\nA=2\nOUT\nMISSING\n"),
            [("A".into(), "2".into()), ("B".into(), "1out".into()), ("OUT".into(), "out".into())]
        );
        assert_eq!(read("A='x' B=y"), [("A".into(), "x".into()), ("B".into(), "y".into())]);
    }

    #[test]
    fn mistakes_have_their_line() {
        let fail = |text: &str| parse(text, &outer).unwrap_err();
        let blank = fail("X=1\nA B=1");
        assert_eq!((blank.kind, blank.line, blank.span), (DotenvErrorKind::Blank, 2, 5..6));
        assert_eq!(fail("A$=1").kind, DotenvErrorKind::Character('$'));
        let open = fail("A=1\n\nB='x\ny");
        assert_eq!((open.kind, open.line), (DotenvErrorKind::Quote('\''), 3));
        assert!(matches!(fail("A=${?}").kind, DotenvErrorKind::Template(TemplateErrorKind::Format)));
    }

    #[test]
    fn raw_takes_text_as_it_is() {
        let raw = parse_raw("A=$OUT # x\n B=\"q\"\nOUT\n# c\nC='a\"\n", &outer).expect("valid");
        let raw: Vec<_> = raw.values.into_iter().collect();
        assert_eq!(
            raw,
            [
                ("A".to_owned(), "$OUT # x".to_owned()),
                ("B".to_owned(), "\"q\"".to_owned()),
                ("OUT".to_owned(), "out".to_owned()),
                ("C".to_owned(), "'a\"".to_owned()),
            ]
        );
        let blank = parse_raw("A=1\nB =2", &outer).unwrap_err();
        assert_eq!((blank.kind, blank.line, blank.span), (DotenvErrorKind::Blank, 2, 5..6));
        assert_eq!(parse_raw("=1", &outer).unwrap_err().kind, DotenvErrorKind::NoName);
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[A=:'\"\\\\$ \n#{}é]{0,40}") {
            drop(parse(&text, &outer));
            drop(parse_raw(&text, &outer));
        }
    }
}
