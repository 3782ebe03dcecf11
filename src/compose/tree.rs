//! Small helpers over the spanned tree, and how the model is decoded from it.

use crate::diagnostic::Span;
use crate::model::record::{Out, Source, View};

use super::document::{Entry, Kind, Map, Node};

/// A path of keys; list positions are `[]`.
pub(super) type Trail<'a> = [&'a str];

pub(super) fn text(value: impl Into<String>, span: Span) -> Node {
    Node { kind: Kind::Text(value.into()), span, tag: None }
}

pub(super) fn node(kind: Kind, span: Span) -> Node {
    Node { kind, span, tag: None }
}

pub(super) fn entry(node: Node) -> Entry {
    Entry { key: node.span, node }
}

pub(super) fn map(node: &Node) -> Option<&Map> {
    match &node.kind {
        Kind::Map(m) => Some(m),
        _ => None,
    }
}

pub(super) fn map_mut(node: &mut Node) -> Option<&mut Map> {
    match &mut node.kind {
        Kind::Map(m) => Some(m),
        _ => None,
    }
}

pub(super) fn get<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    map(node)?.get(key).map(|e| &e.node)
}

pub(super) fn get_mut<'a>(node: &'a mut Node, key: &str) -> Option<&'a mut Node> {
    map_mut(node)?.get_mut(key).map(|e| &mut e.node)
}

/// The entries of the mapping under `key`; none when it is something else.
pub(super) fn section_mut<'a>(
    node: &'a mut Node,
    key: &str,
) -> impl Iterator<Item = (&'a String, &'a mut Node)> {
    get_mut(node, key).and_then(map_mut).into_iter().flatten().map(|(k, e)| (k, &mut e.node))
}

/// The entries of the mapping under `key`; none when it is something else.
pub(super) fn section<'a>(node: &'a Node, key: &str) -> impl Iterator<Item = (&'a String, &'a Entry)> {
    get(node, key).and_then(map).into_iter().flatten()
}

pub(super) fn str(node: &Node) -> Option<&str> {
    match &node.kind {
        Kind::Text(s) => Some(s),
        _ => None,
    }
}

pub(super) fn set(map: &mut Map, key: &str, node: Node) {
    match map.get_mut(key) {
        Some(old) => old.node = node,
        None => drop(map.insert(key.to_owned(), entry(node))),
    }
}

pub(super) fn is_null(node: &Node) -> bool {
    matches!(node.kind, Kind::Null)
}

pub(super) fn take(node: &mut Node) -> Node {
    let span = node.span;
    std::mem::replace(node, self::node(Kind::Null, span))
}

/// A scalar as Compose writes it where text is expected.
pub(super) fn scalar(node: &Node) -> Option<String> {
    crate::model::record::scalar_text(node)
}

/// The place of the deepest node on the way to `path` that exists; for a map entry its key when `key`.
pub(super) fn locate(root: &Node, path: &[&str], key: bool) -> Span {
    let mut at = root;
    let mut span = root.span;
    for step in path {
        match &at.kind {
            Kind::Map(m) => match m.get(*step) {
                Some(e) => {
                    span = if key { e.key } else { e.node.span };
                    at = &e.node;
                }
                None => return span,
            },
            Kind::List(l) => {
                let found = step.parse::<usize>().ok().and_then(|i| l.get(i)).or_else(|| {
                    l.iter().find(|n| str(n) == Some(*step) || get(n, "source").and_then(str) == Some(*step))
                });
                match found {
                    Some(n) => {
                        span = n.span;
                        at = n;
                    }
                    None => return span,
                }
            }
            _ => return span,
        }
    }
    span
}

/// Calls `each` with every text value.
pub(super) fn texts(node: &Node, each: &mut impl FnMut(&str)) {
    match &node.kind {
        Kind::Text(t) => each(t),
        Kind::List(l) => l.iter().for_each(|n| texts(n, each)),
        Kind::Map(m) => m.values().for_each(|e| texts(&e.node, each)),
        _ => {}
    }
}

/// A tree as it stands, for `config --no-interpolate` and `x-*`.
pub(super) fn to_out(node: &Node) -> Out {
    match &node.kind {
        Kind::Null => Out::Null,
        Kind::Bool(b) => Out::Bool(*b),
        Kind::Int(i) => Out::Int(*i),
        Kind::Float(f) => Out::Float(*f),
        Kind::Timestamp(t) => Out::Time(crate::model::record::rfc3339(t)),
        Kind::Text(s) => Out::Str(s.clone()),
        Kind::List(l) => Out::List(l.iter().map(to_out).collect()),
        Kind::Map(m) => Out::Map(m.iter().map(|(k, e)| (k.clone(), to_out(&e.node))).collect()),
    }
}

impl Source for Node {
    type Map = Map;
    type Place = Span;

    fn view(&self) -> View<'_, Self> {
        match &self.kind {
            Kind::Null => View::Null,
            Kind::Bool(b) => View::Bool(*b),
            Kind::Int(i) => View::Int(*i),
            Kind::Float(f) => View::Float(*f),
            Kind::Timestamp(t) => View::Time(t),
            Kind::Text(s) => View::Str(s),
            Kind::List(l) => View::List(l),
            Kind::Map(m) => View::Map(m),
        }
    }

    fn entries<'m>(map: &'m Map) -> impl Iterator<Item = (&'m str, &'m Self)>
    where
        Self: 'm,
    {
        map.iter().map(|(k, e)| (k.as_str(), &e.node))
    }

    fn place(&self) -> Span {
        self.span
    }
}
