//! YAML text → a tree in which every key and value knows its place.
//!
//! `serde_yaml` forgets positions once it hands out values, so the tree is built
//! from parser events. Source of the rules: `reference/model.md` §2. Does not
//! know what any key means.
#![expect(clippy::result_large_err, reason = "a mistake is met once per file at most")]

use std::collections::HashMap;
use std::ops::Range;

use indexmap::IndexMap;
use saphyr_parser::{Event, Parser, ScalarStyle};

use crate::diagnostic::{Diagnostic, FileId, SourceMap, Span};

use super::syntax;

/// How many nodes a file may have once its aliases are expanded: ten times what 5 000 services take.
const NODES: usize = 1_000_000;
/// How many nodes one alias may stand for.
const ALIASED: usize = 100_000;
/// How many mistakes of one file are collected.
const PROBLEMS: usize = 1_000;
/// How deep mappings and lists may nest.
const DEPTH: usize = 256;

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The value.
    pub kind: Kind,
    /// Where it stands; for an alias, where the anchored value stands.
    pub span: Span,
    /// `!reset` or `!override`.
    pub tag: Option<Tag>,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// `null`, `~`, nothing.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// An integer of 64 bits, with or without sign.
    Int(i128),
    /// A number with a fraction, an integer beyond 64 bits, or none at all (`.inf`, `.nan`).
    Float(f64),
    /// A date or time, as Go prints it.
    Timestamp(String),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order of the file.
    Map(Map),
}

/// A mapping.
///
/// Its hashing is quick and seeded for each process: most of a load is looking things up in small mappings.
pub type Map = IndexMap<String, Entry, foldhash::fast::RandomState>;

/// A value of a mapping, with the place of its key.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Where the key stands.
    pub key: Span,
    /// The value.
    pub node: Node,
}

/// What a tag does to values of earlier files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// Removes the value.
    Reset,
    /// Replaces the value instead of merging with it.
    Override,
}

impl Node {
    /// A node that no file wrote: it takes the place of what it was made from.
    pub fn new(kind: Kind, span: Span) -> Self {
        Self { kind, span, tag: None }
    }

    /// Text made from something at `span`.
    pub fn from_text(text: impl Into<String>, span: Span) -> Self {
        Self::new(Kind::Text(text.into()), span)
    }

    /// The mapping, if it is one.
    pub fn as_map(&self) -> Option<&Map> {
        if let Kind::Map(map) = &self.kind { Some(map) } else { None }
    }

    /// The list, if it is one.
    pub fn as_list(&self) -> Option<&[Node]> {
        if let Kind::List(list) = &self.kind { Some(list) } else { None }
    }

    /// The text, if it is text.
    pub fn as_text(&self) -> Option<&str> {
        if let Kind::Text(text) = &self.kind { Some(text) } else { None }
    }

    /// True for nothing and `null`.
    pub fn is_null(&self) -> bool {
        matches!(self.kind, Kind::Null)
    }

    /// The value of a key, if this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.as_map().and_then(|map| map.get(key)).map(|entry| &entry.node)
    }

    /// Its type with an article, for messages: `an integer`, `null`.
    pub fn described(&self) -> &'static str {
        match self.kind {
            Kind::Null => "null",
            Kind::Bool(_) => "a boolean",
            Kind::Int(_) => "an integer",
            Kind::Float(_) => "a number",
            Kind::Timestamp(_) => "a timestamp",
            Kind::Text(_) => "a string",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
        }
    }

    /// The place of a byte range of this text, as exactly as it can be told:
    /// escapes and line folding make it the whole value.
    pub fn inside(&self, range: Range<usize>, sources: &SourceMap) -> Span {
        let Kind::Text(text) = &self.kind else { return self.span };
        let source = sources.snippet(self.span);
        match source.find(text.as_str()) {
            Some(at) if !text.is_empty() => self.span.part(at + range.start, at + range.end),
            _ => self.span,
        }
    }
}

/// What a file says, as far as it can be read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parsed {
    /// All documents, an empty file has none; none either when the text is no YAML.
    pub documents: Vec<Node>,
    /// Every mistake. What cannot be used (the second value of a key, say) is left out of the documents.
    pub problems: Vec<Diagnostic>,
}

/// Reads all documents of a file.
///
/// Its mistakes: bad YAML (`yaml-syntax`), a key given twice (`duplicate-key`), a key that is
/// no text (`non-string-key`), a scalar that its tag does not allow (`yaml-value`), an alias to
/// nothing or to itself (`yaml-alias`), a merge key with something else than mappings
/// (`yaml-merge`), too many nodes once aliases are expanded (`yaml-too-big`).
pub fn read(file: FileId, sources: &SourceMap) -> Parsed {
    let text = sources.text(file);
    let mut builder = Builder::new(file, text);
    if let Err(fatal) = builder.run(text) {
        builder.documents.clear();
        builder.problems.push(fatal);
    }
    Parsed { documents: builder.documents, problems: builder.problems }
}

/// [`read`] for those who want it right or not at all.
///
/// # Errors
/// The first mistake.
pub fn parse(file: FileId, sources: &SourceMap) -> Result<Vec<Node>, Diagnostic> {
    let Parsed { documents, problems } = read(file, sources);
    problems.into_iter().next().map_or(Ok(documents), Err)
}

struct Builder {
    file: FileId,
    /// Byte offset of each character, when the file is not plain ASCII.
    offsets: Option<Vec<u32>>,
    length: usize,
    stack: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    /// Anchors whose value is still being read.
    pending: Vec<usize>,
    nodes: usize,
    documents: Vec<Node>,
    problems: Vec<Diagnostic>,
}

/// A mapping or list that is not complete.
struct Open {
    anchor: usize,
    tag: Option<Tag>,
    start: usize,
    nodes: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map { map: Map, merge: Option<(Span, Node)>, key: Option<(Key, Span)> },
}

enum Key {
    Text(String),
    Merge,
    /// No key at all; its value is left out.
    Wrong,
}

impl Builder {
    fn new(file: FileId, text: &str) -> Self {
        let offsets = (!text.is_ascii()).then(|| {
            text.char_indices()
                .map(|(at, _)| at)
                .chain([text.len()])
                .map(|at| u32::try_from(at).unwrap_or(u32::MAX))
                .collect()
        });
        Self {
            file,
            offsets,
            length: text.len(),
            stack: Vec::new(),
            anchors: HashMap::new(),
            pending: Vec::new(),
            nodes: 0,
            documents: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Logs a mistake after which the rest of the file can still be read.
    fn problem(&mut self, problem: Diagnostic) {
        keep(&mut self.problems, problem);
    }

    /// The parser counts characters, spans count bytes.
    fn byte(&self, index: usize) -> usize {
        match &self.offsets {
            Some(offsets) => offsets.get(index).map_or(self.length, |at| *at as usize),
            None => index.min(self.length),
        }
    }

    fn span(&self, span: saphyr_parser::Span) -> Span {
        Span::new(self.file, self.byte(span.start.index()), self.byte(span.end.index()))
    }

    /// Reads the whole text.
    ///
    /// # Errors
    /// A mistake after which nothing more can be read.
    fn run(&mut self, text: &str) -> Result<(), Diagnostic> {
        let body = text.strip_prefix('\u{feff}').unwrap_or(text);
        let shift = usize::from(body.len() != text.len());
        for event in Parser::new_from_str(body) {
            let (event, mut span) = event.map_err(|error| {
                syntax::explain(self.file, text, self.byte(error.marker().index() + shift), error.info())
            })?;
            if shift == 1 {
                let moved =
                    |m: saphyr_parser::Marker| saphyr_parser::Marker::new(m.index() + 1, m.line(), m.col());
                span = saphyr_parser::Span::new(moved(span.start), moved(span.end));
            }
            self.event(event, span)?;
        }
        Ok(())
    }

    fn event(&mut self, event: Event<'_>, at: saphyr_parser::Span) -> Result<(), Diagnostic> {
        let span = self.span(at);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let tag = tag.as_deref();
                let kind = scalar(&text, style, tag).unwrap_or_else(|what| {
                    let help = "put quotes around it if text is meant";
                    let problem = Diagnostic::error("yaml-value", format!("`{text}` is {what}"));
                    self.problem(problem.at(span, "cannot be used").help(help));
                    Kind::Null
                });
                let node = Node { kind, span, tag: own_tag(tag) };
                self.count(1, span)?;
                if anchor > 0 {
                    self.anchors.insert(anchor, (node.clone(), 1));
                }
                self.value(node, Some((&text, style)));
                Ok(())
            }
            Event::Alias(anchor) => {
                if self.pending.contains(&anchor) {
                    return Err(Diagnostic::error(
                        "yaml-alias",
                        "an alias refers to the value that contains it",
                    )
                    .at(span, "this would go on for ever"));
                }
                let Some((node, nodes)) = self.anchors.get(&anchor) else {
                    return Err(Diagnostic::error("yaml-alias", "an alias refers to no anchor").at(span, ""));
                };
                let nodes = *nodes;
                if nodes > ALIASED {
                    let message = format!("an alias stands for more than {ALIASED} values");
                    let d = Diagnostic::error("yaml-too-big", message);
                    return Err(d.at(span, "here the limit is reached"));
                }
                let node = node.clone();
                // Counted before the copy is kept: a bomb stops here.
                self.count(nodes, span)?;
                self.value(node, None);
                Ok(())
            }
            Event::SequenceStart(anchor, tag) => {
                self.open(anchor, own_tag(tag.as_deref()), span, Content::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                let content = Content::Map { map: Map::default(), merge: None, key: None };
                self.open(anchor, own_tag(tag.as_deref()), span, content)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(span),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    fn count(&mut self, nodes: usize, span: Span) -> Result<(), Diagnostic> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes <= NODES {
            return Ok(());
        }
        let message = format!("the document has more than {NODES} values once its aliases are expanded");
        Err(Diagnostic::error("yaml-too-big", message).at(span, "here the limit is reached"))
    }

    fn open(
        &mut self,
        anchor: usize,
        tag: Option<Tag>,
        span: Span,
        content: Content,
    ) -> Result<(), Diagnostic> {
        if self.stack.len() >= DEPTH {
            return Err(Diagnostic::error("yaml-too-big", format!("more than {DEPTH} levels are nested"))
                .at(span, "here the limit is reached"));
        }
        self.count(1, span)?;
        if anchor > 0 {
            self.pending.push(anchor);
        }
        self.stack.push(Open { anchor, tag, start: span.start as usize, nodes: self.nodes, content });
        Ok(())
    }

    fn close(&mut self, end: Span) -> Result<(), Diagnostic> {
        let Some(open) = self.stack.pop() else { return Ok(()) };
        let kind = match open.content {
            Content::List(list) => Kind::List(list),
            Content::Map { mut map, merge, .. } => {
                if let Some((_, from)) = merge
                    && let Err(problem) = merged(&mut map, from)
                {
                    self.problem(problem);
                }
                Kind::Map(map)
            }
        };
        let end = (end.end as usize).max(open.start);
        let node = Node { kind, span: Span::new(self.file, open.start, end), tag: open.tag };
        if open.anchor > 0 {
            self.pending.retain(|anchor| *anchor != open.anchor);
            let nodes = self.nodes - open.nodes + 1;
            // The copy is counted, too: anchors within anchors keep their content once for each.
            self.count(nodes, node.span)?;
            self.anchors.insert(open.anchor, (node.clone(), nodes));
        }
        self.value(node, None);
        Ok(())
    }

    /// A complete value goes where it belongs. `plain` is the text of a scalar, for keys.
    fn value(&mut self, node: Node, plain: Option<(&str, ScalarStyle)>) {
        let Some(open) = self.stack.last_mut() else {
            self.documents.push(node);
            return;
        };
        match &mut open.content {
            Content::List(list) => list.push(node),
            Content::Map { map, merge, key } => match key.take() {
                None => {
                    let merges =
                        plain.is_some_and(|(text, style)| text == "<<" && style == ScalarStyle::Plain);
                    let span = node.span;
                    *key = Some(match node.kind {
                        Kind::Text(_) if merges => (Key::Merge, span),
                        Kind::Text(text) => (Key::Text(text), span),
                        _ => {
                            let text = plain.map(|(text, _)| text);
                            keep(&mut self.problems, no_key(&node, text));
                            // It stays known by what is written, so that what refers to it is right.
                            (text.map_or(Key::Wrong, |text| Key::Text(text.to_owned())), span)
                        }
                    });
                }
                Some((Key::Wrong, _)) => {}
                Some((Key::Merge, span)) => {
                    if let Some((first, _)) = &*merge {
                        let problem = Diagnostic::error("duplicate-key", "key `<<` is given twice")
                            .at(span, "the second time")
                            .also(*first, "the first time")
                            .help("merge both under one key: `<<: [*one, *other]`");
                        keep(&mut self.problems, problem);
                    } else {
                        *merge = Some((span, node));
                    }
                }
                Some((Key::Text(name), span)) => {
                    if let Some(first) = map.get(&name) {
                        let problem =
                            Diagnostic::error("duplicate-key", format!("key `{name}` is given twice"))
                                .at(span, "the second time")
                                .also(first.key, "the first time")
                                .help("remove one of them, or put both contents under one key");
                        keep(&mut self.problems, problem);
                    } else {
                        map.insert(name, Entry { key: span, node });
                    }
                }
            },
        }
    }
}

fn keep(problems: &mut Vec<Diagnostic>, problem: Diagnostic) {
    if problems.len() < PROBLEMS {
        problems.push(problem);
    }
}

/// The mistake of a key that is no text; `plain` is how a scalar is written.
fn no_key(node: &Node, plain: Option<&str>) -> Diagnostic {
    let what = node.described();
    match plain {
        Some(text) => {
            let message = format!("the key `{text}` is {what}, and keys are text");
            let help = if node.is_null() {
                "write a name before the colon".to_owned()
            } else {
                format!("put quotes around it: `\"{text}\"`")
            };
            Diagnostic::error("non-string-key", message).at(node.span, "this key").help(help)
        }
        // `{{ x }}`, which templates of other tools look like.
        None => Diagnostic::error("non-string-key", format!("{what} stands where a key is expected"))
            .at(node.span, format!("{what}, since it begins with a bracket"))
            .help("put quotes around the whole value if text is meant"),
    }
}

/// `<<`: what the mapping does not have itself comes from the merged one; of several, the first wins.
fn merged(map: &mut Map, merge: Node) -> Result<(), Diagnostic> {
    match merge.kind {
        Kind::Map(from) => {
            for (key, entry) in from {
                map.entry(key).or_insert(entry);
            }
            Ok(())
        }
        Kind::List(list) if list.iter().all(|node| matches!(node.kind, Kind::Map(_))) => {
            list.into_iter().try_for_each(|node| merged(map, node))
        }
        other => {
            Err(Diagnostic::error("yaml-merge", "a merge key `<<` takes a mapping or a list of mappings")
                .at(merge.span, format!("what is merged is {}", Node::new(other, merge.span).described())))
        }
    }
}

fn own_tag(tag: Option<&saphyr_parser::Tag>) -> Option<Tag> {
    let tag = tag.filter(|tag| tag.handle == "!")?;
    match tag.suffix.as_str() {
        "reset" => Some(Tag::Reset),
        "override" => Some(Tag::Override),
        _ => None,
    }
}

/// The type of a scalar. `Err` says what is wrong with it.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&saphyr_parser::Tag>) -> Result<Kind, &'static str> {
    let core = tag.filter(|tag| tag.handle == "tag:yaml.org,2002:").map(|tag| tag.suffix.as_str());
    match core {
        Some("str") => return Ok(Kind::Text(text.to_owned())),
        Some("null") => return Ok(Kind::Null),
        Some("binary") => return Err("binary data, which no attribute takes"),
        Some("float") => {
            return text.replace('_', "").parse().map(Kind::Float).map_err(|_| "not a number");
        }
        Some("int" | "bool") => {
            return match (core, plain(text)) {
                (Some("int"), kind @ Kind::Int(_)) | (Some("bool"), kind @ Kind::Bool(_)) => Ok(kind),
                _ => Err("not of the type that its tag says"),
            };
        }
        _ => {}
    }
    // A tag of somebody's own, `!override` too, makes a scalar text.
    if style != ScalarStyle::Plain || tag.is_some_and(|tag| tag.handle == "!" && !tag.suffix.is_empty()) {
        return Ok(Kind::Text(text.to_owned()));
    }
    Ok(plain(text))
}

fn plain(text: &str) -> Kind {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Kind::Null,
        "true" | "True" | "TRUE" => return Kind::Bool(true),
        "false" | "False" | "FALSE" => return Kind::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Kind::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Kind::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Kind::Float(f64::NEG_INFINITY),
        _ => {}
    }
    let number = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
    if !number {
        return Kind::Text(text.to_owned());
    }
    if let Some(time) = timestamp(text) {
        return Kind::Timestamp(time);
    }
    let bare = text.replace('_', "");
    if let Some(int) = integer(&bare) {
        return Kind::Int(int);
    }
    if is_float(&bare)
        && let Ok(float) = bare.parse()
    {
        return Kind::Float(float);
    }
    Kind::Text(text.to_owned())
}

/// `17`, `-1`, `010` (octal), `0o17`, `0x1F`, `0b11`.
fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if !digits.bytes().next()?.is_ascii_alphanumeric() {
        return None;
    }
    let value = i128::from_str_radix(digits, radix).ok()?;
    let value = if negative { -value } else { value };
    (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&value).then_some(value)
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) =
        text.find(['e', 'E']).map_or((text, None), |at| (&text[..at], Some(&text[at + 1..])));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let some = !whole.is_empty() || !fraction.is_empty();
    let exponent = exponent.is_none_or(|e| {
        let e = e.strip_prefix(['-', '+']).unwrap_or(e);
        !e.is_empty() && digits(e)
    });
    some && digits(whole) && digits(fraction) && exponent
}

/// Whether plain text would be read as a timestamp.
pub(super) fn is_timestamp(text: &str) -> bool {
    timestamp(text).is_some()
}

/// The four forms of a YAML 1.1 timestamp that Go's reader knows, as Go prints a time.
fn timestamp(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    // Four digits and a dash, or it is none: cheap to tell.
    if bytes.len() < 8 || bytes[4] != b'-' || !bytes[..4].iter().all(u8::is_ascii_digit) {
        return None;
    }
    let (date, time) = match text.find(['T', 't', ' ']) {
        Some(at) => (&text[..at], Some((bytes[at], &text[at + 1..]))),
        None => (text, None),
    };
    let year: i16 = date.get(..4)?.parse().ok()?;
    let mut rest = date.get(5..)?.split('-');
    let mut two = |max: i8| -> Option<i8> {
        let part = rest.next()?;
        let digits = (1..=2).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        part.parse().ok().filter(|n| digits && (1..=max).contains(n))
    };
    let (month, day) = (two(12)?, two(31)?);
    if rest.next().is_some() {
        return None;
    }
    let date = jiff::civil::Date::new(year, month, day).ok()?;
    let Some((separator, time)) = time else { return Some(format!("{date} 00:00:00 +0000 UTC")) };
    let zone_at = if separator == b' ' { None } else { time.find(['Z', '+', '-']) };
    let (clock, zone) = match zone_at {
        Some(at) => (&time[..at], &time[at..]),
        None if separator == b' ' => (time, "Z"),
        None => return None,
    };
    let mut clock = clock.splitn(3, ':');
    let hour: u8 = clock.next()?.parse().ok().filter(|n| *n < 24)?;
    let minute: u8 = clock.next()?.parse().ok().filter(|n| *n < 60)?;
    let second = clock.next()?;
    let (whole, fraction) = second.split_once('.').unwrap_or((second, ""));
    let whole: u8 = whole.parse().ok().filter(|n| *n < 60)?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let dot = if fraction.is_empty() { "" } else { "." };
    let zone = match zone {
        "Z" => "+0000 UTC".to_owned(),
        zone => {
            let bare = zone.replace(':', "");
            format!("{bare} {bare}")
        }
    };
    Some(format!("{date} {hour:02}:{minute:02}:{whole:02}{dot}{fraction} {zone}"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn read(text: &str) -> Result<Vec<Node>, (Diagnostic, SourceMap)> {
        let mut sources = SourceMap::default();
        let file = sources.add(Path::new("c.yaml"), "c.yaml", text);
        parse(file, &sources).map_err(|diagnostic| (diagnostic, sources))
    }

    fn one(text: &str) -> Kind {
        let node = read(&format!("k: {text}\n")).expect("valid").remove(0);
        node.get("k").expect("k").kind.clone()
    }

    #[test]
    fn scalars_are_typed_as_compose_types_them() {
        for (text, kind) in [
            ("010", Kind::Int(8)),
            ("0o17", Kind::Int(15)),
            ("0x1F", Kind::Int(31)),
            ("0b11", Kind::Int(3)),
            ("1_000", Kind::Int(1000)),
            ("-5", Kind::Int(-5)),
            ("18446744073709551615", Kind::Int(u64::MAX.into())),
            ("18446744073709551616", Kind::Float(18_446_744_073_709_551_616.0)),
            ("1.50", Kind::Float(1.5)),
            ("1e6", Kind::Float(1e6)),
            ("yes", Kind::Text("yes".into())),
            ("on", Kind::Text("on".into())),
            ("1:30", Kind::Text("1:30".into())),
            ("08", Kind::Float(8.0)),
            ("1.2.3", Kind::Text("1.2.3".into())),
            ("'1'", Kind::Text("1".into())),
            ("~", Kind::Null),
            ("!!str 1", Kind::Text("1".into())),
            ("2024-01-01", Kind::Timestamp("2024-01-01 00:00:00 +0000 UTC".into())),
            ("2024-01-01T01:02:03.50Z", Kind::Timestamp("2024-01-01 01:02:03.5 +0000 UTC".into())),
            ("2024-13-01", Kind::Text("2024-13-01".into())),
        ] {
            assert_eq!(one(text), kind, "{text}");
        }
        assert_eq!(one("-.Inf"), Kind::Float(f64::NEG_INFINITY));
    }

    #[test]
    fn keys_and_values_know_their_places() {
        let mut sources = SourceMap::default();
        let file = sources.add(Path::new("c.yaml"), "c.yaml", "# é\nservices:\n  wéb:\n    image: \"a$B\"\n");
        let root = parse(file, &sources).expect("valid").remove(0);
        let web = &root.get("services").expect("services").as_map().expect("map")["wéb"];
        assert_eq!(sources.place(web.key), "c.yaml:3:3");
        let image = web.node.get("image").expect("image");
        assert_eq!(sources.snippet(image.span), "\"a$B\"");
        assert_eq!(sources.snippet(image.inside(1..3, &sources)), "$B");
    }

    #[test]
    fn anchors_aliases_and_merge_keys() {
        let root = read("a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 3}\nc: {<<: [*a, *b], x: 9}\nd: *a\n")
            .expect("valid")
            .remove(0);
        let c = root.get("c").expect("c");
        let value = |key: &str| c.get(key).map(|node| node.kind.clone());
        assert_eq!(value("x"), Some(Kind::Int(9)));
        assert_eq!(value("y"), Some(Kind::Int(2)));
        assert_eq!(value("z"), Some(Kind::Int(3)));
        assert_eq!(root.get("d").and_then(|d| d.get("y")).map(|y| y.kind.clone()), Some(Kind::Int(2)));
    }

    #[test]
    fn tags_and_documents() {
        let all = read("a: !reset null\nb: !override [1]\n---\nc: 1\n").expect("valid");
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].get("a").and_then(|a| a.tag), Some(Tag::Reset));
        assert_eq!(all[0].get("b").and_then(|b| b.tag), Some(Tag::Override));
        assert!(read("").expect("valid").is_empty());
    }

    #[test]
    fn mistakes_are_told_with_their_places() {
        for (text, code, place) in [
            ("a: 1\nb: 2\na: 3\n", "duplicate-key", "c.yaml:3:1"),
            ("a:\n  1: x\n", "non-string-key", "c.yaml:2:3"),
            ("a: [1, 2\nb: 3\n", "yaml-syntax", "c.yaml:2:2"),
            ("a: &a [*a]\n", "yaml-alias", "c.yaml:1:8"),
            ("a: {<<: 1}\n", "yaml-merge", "c.yaml:1:9"),
        ] {
            let (diagnostic, sources) = read(text).expect_err(text);
            assert_eq!(diagnostic.code, code, "{text}");
            let span = diagnostic.primary.expect("a place").span;
            assert_eq!(sources.place(span), place, "{text}");
        }
    }

    #[test]
    fn a_bomb_stops_early() {
        use std::fmt::Write as _;
        let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for i in 1..12 {
            let aliases = vec![format!("*a{}", i - 1); 10].join(",");
            writeln!(text, "a{i}: &a{i} [{aliases}]").expect("a string");
        }
        assert_eq!(read(&text).expect_err("refused").0.code, "yaml-too-big");
        // The parser has a limit of its own for flow collections.
        assert!(read(&"[".repeat(100_000)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[a:&*<\\[\\]{},'\"!#|> \n\t-é0-9]{0,60}") {
            drop(read(&text));
        }
    }
}
