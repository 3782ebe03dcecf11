//! Interpolation of one string: `$NAME`, `${NAME:-default}` and their kin.
//!
//! Source of the rules: `reference/model.md` §4. Works on bytes of the scalar's
//! value; the caller maps a mistake's range to the place in the file.

use std::ops::Range;

/// Where values of variables come from.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A mistake in a template, and the bytes of the string it is about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct TemplateError {
    /// What is wrong.
    pub kind: TemplateErrorKind,
    /// Byte range in the string.
    pub span: Range<usize>,
}

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateErrorKind {
    /// Not a form that exists, such as `${}` or `${X!y}`.
    #[error("invalid interpolation format")]
    Format,
    /// Defaults within defaults, more than 32 levels.
    #[error("variables are nested too deep")]
    TooDeep,
    /// `${NAME?text}` or `${NAME:?text}` with nothing to put there.
    #[error("required variable `{name}` is missing a value: {text}")]
    Required {
        /// Variable.
        name: String,
        /// The file's own words; may be empty.
        text: String,
    },
}

/// A variable that a string uses, as `config --variables` lists it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variable {
    /// Name.
    pub name: String,
    /// Text after `-` or `:-`.
    pub default: String,
    /// Text after `+` or `:+`.
    pub presence: String,
    /// Has `?` or `:?`.
    pub required: bool,
}

/// What came out of a string.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The text.
    pub text: String,
    /// Variables that were used without a default and are not set, each with its place.
    pub unset: Vec<(String, Range<usize>)>,
    /// Variables whose values went into the text, in the order of their use.
    pub used: Vec<String>,
}

/// How deep defaults may nest; each level is looked through once more.
const DEPTH: usize = 32;

/// One parsed piece.
enum Piece<'a> {
    Text(&'a str),
    Dollar,
    Name { name: &'a str, span: Range<usize> },
    Braces { name: &'a str, operator: Option<Operator>, operand: &'a str, at: usize, span: Range<usize> },
}

#[derive(Clone, Copy)]
struct Operator {
    kind: u8,
    /// With a colon: empty counts as unset.
    empty: bool,
}

/// Expands all variables of `text`.
///
/// An unset variable without a default becomes empty and is listed in
/// [`Expanded::unset`]. As in Docker Compose, defaults, alternatives and messages
/// are expanded even where they are not used, so a mistake in them is never hidden.
///
/// # Errors
/// [`TemplateError`] with the range of the expression it is about.
pub fn expand(text: &str, lookup: Lookup<'_>) -> Result<Expanded, TemplateError> {
    let mut out = Expanded::default();
    if memchr::memchr(b'$', text.as_bytes()).is_none() {
        text.clone_into(&mut out.text);
        return Ok(out);
    }
    into(text, 0, DEPTH, lookup, &mut out)?;
    Ok(out)
}

/// Lists the variables of `text`, those in defaults included, in the order they stand.
///
/// # Errors
/// [`TemplateError`] as [`expand`].
pub fn variables(text: &str) -> Result<Vec<Variable>, TemplateError> {
    let mut out = Vec::new();
    list(text, 0, DEPTH, &mut out)?;
    Ok(out)
}

fn into(
    text: &str,
    base: usize,
    depth: usize,
    lookup: Lookup<'_>,
    out: &mut Expanded,
) -> Result<(), TemplateError> {
    let mut at = 0;
    while let Some((piece, end)) = next(text, at, base)? {
        at = end;
        match piece {
            Piece::Text(text) => out.text.push_str(text),
            Piece::Dollar => out.text.push('$'),
            Piece::Name { name, span } | Piece::Braces { name, operator: None, span, .. } => {
                value(name, span, lookup, out);
            }
            Piece::Braces { name, operator: Some(operator), operand, at, span } => {
                let depth = deeper(depth, &span)?;
                let mut inner = Expanded::default();
                into(operand, at, depth, lookup, &mut inner)?;
                out.unset.append(&mut inner.unset);
                let found = lookup(name);
                let set = found.as_ref().is_some_and(|value| !(operator.empty && value.is_empty()));
                match operator.kind {
                    b'+' if !set => {}
                    b'+' | b'-' if set == (operator.kind == b'+') => {
                        out.used.append(&mut inner.used);
                        out.text.push_str(&inner.text);
                    }
                    _ if set => {
                        out.used.push(name.to_owned());
                        out.text.push_str(&found.unwrap_or_default());
                    }
                    _ => {
                        let kind = TemplateErrorKind::Required { name: name.to_owned(), text: inner.text };
                        return Err(TemplateError { kind, span });
                    }
                }
            }
        }
    }
    Ok(())
}

fn value(name: &str, span: Range<usize>, lookup: Lookup<'_>, out: &mut Expanded) {
    if let Some(value) = lookup(name) {
        out.used.push(name.to_owned());
        out.text.push_str(&value);
    } else {
        out.unset.push((name.to_owned(), span));
    }
}

/// One level less to go.
fn deeper(depth: usize, span: &Range<usize>) -> Result<usize, TemplateError> {
    let error = || TemplateError { kind: TemplateErrorKind::TooDeep, span: span.clone() };
    depth.checked_sub(1).ok_or_else(error)
}

fn list(text: &str, base: usize, depth: usize, out: &mut Vec<Variable>) -> Result<(), TemplateError> {
    let mut at = 0;
    while let Some((piece, end)) = next(text, at, base)? {
        at = end;
        match piece {
            Piece::Text(_) | Piece::Dollar => {}
            Piece::Name { name, .. } => {
                out.push(Variable { name: name.to_owned(), ..Variable::default() });
            }
            Piece::Braces { name, operator, operand, at, span } => {
                let mut variable = Variable { name: name.to_owned(), ..Variable::default() };
                match operator.map(|operator| operator.kind) {
                    Some(b'-') => operand.clone_into(&mut variable.default),
                    Some(b'+') => operand.clone_into(&mut variable.presence),
                    Some(_) => variable.required = true,
                    None => {}
                }
                out.push(variable);
                list(operand, at, deeper(depth, &span)?, out)?;
            }
        }
    }
    Ok(())
}

/// The piece at `at` and where the next one begins. Ranges are moved by `base`.
fn next(text: &str, at: usize, base: usize) -> Result<Option<(Piece<'_>, usize)>, TemplateError> {
    let rest = &text[at..];
    if rest.is_empty() {
        return Ok(None);
    }
    let dollar = memchr::memchr(b'$', rest.as_bytes()).unwrap_or(rest.len());
    if dollar > 0 {
        return Ok(Some((Piece::Text(&rest[..dollar]), at + dollar)));
    }
    let after = &rest[1..];
    match after.bytes().next() {
        Some(b'$') => Ok(Some((Piece::Dollar, at + 2))),
        Some(b'{') => braces(text, at, base).map(Some),
        Some(c) if c.is_ascii_alphabetic() || c == b'_' => {
            let name = &after[..name_length(after)];
            let end = at + 1 + name.len();
            Ok(Some((Piece::Name { name, span: base + at..base + end }, end)))
        }
        // A lone `$` means itself.
        _ => Ok(Some((Piece::Text(&rest[..1]), at + 1))),
    }
}

fn braces(text: &str, at: usize, base: usize) -> Result<(Piece<'_>, usize), TemplateError> {
    let open = at + 2;
    let format = |end: usize| TemplateError { kind: TemplateErrorKind::Format, span: base + at..base + end };
    let Some(close) = balanced(&text[open..]).map(|length| open + length) else {
        return Err(format(text.len()));
    };
    let end = close + 1;
    let inner = &text[open..close];
    let name = &inner[..name_length(inner)];
    let tail = &inner[name.len()..];
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || inner.contains('\n') {
        return Err(format(end));
    }
    let (empty, symbol) = tail.strip_prefix(':').map_or((false, tail), |tail| (true, tail));
    let operator = match symbol.bytes().next() {
        None if !empty => None,
        Some(kind @ (b'-' | b'+' | b'?')) => Some(Operator { kind, empty }),
        _ => return Err(format(end)),
    };
    let skip = name.len() + usize::from(empty) + usize::from(operator.is_some());
    let operand = &inner[skip..];
    let span = base + at..base + end;
    Ok((Piece::Braces { name, operator, operand, at: base + open + skip, span }, end))
}

/// How many bytes up to the brace that closes the one just opened.
fn balanced(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for at in memchr::memchr2_iter(b'{', b'}', text.as_bytes()) {
        if text.as_bytes()[at] == b'{' {
            depth += 1;
        } else if depth == 0 {
            return Some(at);
        } else {
            depth -= 1;
        }
    }
    None
}

fn name_length(text: &str) -> usize {
    text.bytes().take_while(|c| c.is_ascii_alphanumeric() || *c == b'_').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "A" => Some("a".to_owned()),
            "E" => Some(String::new()),
            "D" => Some("$A".to_owned()),
            _ => None,
        }
    }

    fn ok(text: &str) -> String {
        expand(text, &lookup).unwrap_or_else(|error| panic!("{text}: {error}")).text
    }

    #[test]
    fn defaults_nest_to_a_limit() {
        let nested = |depth: usize| format!("{}x{}", "${B:-".repeat(depth), "}".repeat(depth));
        assert_eq!(expand(&nested(32), &lookup).expect("deep enough").text, "x");
        for depth in [33, 100_000] {
            let error = expand(&nested(depth), &lookup).expect_err("too deep");
            assert_eq!(error.kind, TemplateErrorKind::TooDeep);
            assert_eq!(variables(&nested(depth)).expect_err("too deep").kind, TemplateErrorKind::TooDeep);
        }
    }

    #[test]
    fn every_form() {
        for (text, expected) in [
            ("$A-${A}", "a-a"),
            ("${U-x}${U:-y}${E-x}${E:-y}", "xyy"),
            ("${A+x}${E+x}${E:+x}${U+x}", "xx"),
            ("${A?m}${E?m}", "a"),
            ("$$A $${A}", "$A ${A}"),
            ("$1 $- $ $", "$1 $- $ $"),
            ("${U:-${V:-$A}b}", "ab"),
            ("${U-a}}", "a}"),
            ("${U:-{}}", "{}"),
            ("$D", "$A"),
            ("é$A", "éa"),
            ("${U:-a:b?c}", "a:b?c"),
        ] {
            assert_eq!(ok(text), expected, "{text}");
        }
    }

    #[test]
    fn invalid_forms_have_their_place() {
        for text in ["${}", "${ A }", "${1}", "${A.y}", "${A!y}", "${A:y}", "${A", "${A:}", "${U:-a\nb}"] {
            let error = expand(text, &lookup).unwrap_err();
            assert_eq!((error.kind, error.span), (TemplateErrorKind::Format, 0..text.len()), "{text}");
        }
    }

    #[test]
    fn a_required_variable_says_why() {
        let error = expand("x${U:?no $A}", &lookup).unwrap_err();
        assert_eq!(error.kind, TemplateErrorKind::Required { name: "U".into(), text: "no a".into() });
        assert_eq!(error.span, 1..12);
    }

    #[test]
    fn unset_variables_are_listed_with_their_places_also_inside_defaults() {
        let out = expand("$U ${V:-${W}}", &lookup).unwrap();
        assert_eq!(out.text, " ");
        assert_eq!(out.unset, [("U".to_owned(), 0..2), ("W".to_owned(), 8..12)]);
    }

    #[test]
    fn variables_are_listed() {
        let all = variables("${A:-${B}} ${C?x} $D ${E+y}").unwrap();
        let names: Vec<_> = all.iter().map(|v| v.name.as_str()).collect();
        assert_eq!(names, ["A", "B", "C", "D", "E"]);
        assert_eq!(all[0].default, "${B}");
        assert!(all[2].required);
        assert_eq!(all[4].presence, "y");
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[A${}:?+ \\-\nü]{0,40}") {
            drop(expand(&text, &lookup));
        }
    }
}
