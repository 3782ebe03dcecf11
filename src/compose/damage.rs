//! What mistakes have taken away from a model, so that later stages can look at the rest.
//!
//! A stage that finds mistakes logs them; what they are about is then taken out of the tree,
//! and the next stage goes on with what is right. So all mistakes of a load are shown
//! together and none is shown twice, and nothing is said that only follows from another
//! mistake: checks ask here before they complain that something is missing.

use std::collections::BTreeSet;

use crate::diagnostic::Span;

use super::document::{Entry, Kind, Map, Node};
use super::tree::{map_mut, node};

/// The sections whose entries are referred to by name.
const NAMED: &[&str] = &["services", "networks", "volumes", "secrets", "configs", "models"];

/// What is known to be missing because of a mistake that is logged already.
#[derive(Debug, Default)]
pub(super) struct Damage {
    /// Whole sections or files are missing: whether a name is defined cannot be told.
    pub(super) incomplete: bool,
    resources: BTreeSet<(String, String)>,
}

impl Damage {
    /// Notes that something of a resource is missing.
    pub(super) fn note(&mut self, section: &str, name: &str) {
        self.resources.insert((section.to_owned(), name.to_owned()));
    }

    /// Whether something of a resource may be missing.
    pub(super) fn touches(&self, section: &str, name: &str) -> bool {
        self.incomplete || self.resources.contains(&(section.to_owned(), name.to_owned()))
    }

    /// Takes out of a whole model what mistakes at these places are about. A service, network and so on
    /// stays, at least by name: what refers to it is right.
    pub(super) fn mend(&mut self, root: &mut Node, wrong: impl Iterator<Item = Span>) {
        let wrong = Places::new(wrong);
        if wrong.0.is_empty() {
            return;
        }
        for (section, e) in map_mut(root).into_iter().flatten() {
            if wrong.hit(e) || !NAMED.contains(&section.as_str()) {
                continue;
            }
            for (name, item) in map_mut(&mut e.node).into_iter().flatten() {
                if wrong.hit(item) {
                    item.node = node(Kind::Map(Map::default()), item.node.span);
                    self.note(section, name);
                } else if wrong.strip(&mut item.node) {
                    self.note(section, name);
                }
            }
        }
        if let Some(top) = map_mut(root) {
            top.retain(|section, e| {
                let named = NAMED.contains(&section.as_str());
                let keep = !wrong.hit(e);
                let less = !keep || (!named && wrong.strip(&mut e.node));
                self.incomplete |= less && !section.starts_with("x-");
                keep
            });
        }
    }
}

/// Places of mistakes, sorted.
struct Places(Vec<Span>);

impl Places {
    fn new(all: impl Iterator<Item = Span>) -> Self {
        let mut all: Vec<Span> = all.collect();
        all.sort_unstable();
        Self(all)
    }

    fn hit(&self, entry: &Entry) -> bool {
        self.0.binary_search(&entry.key).is_ok() || self.about(&entry.node)
    }

    /// Whether a mistake is about this very value, or about a part of this text.
    fn about(&self, node: &Node) -> bool {
        if self.0.binary_search(&node.span).is_ok() {
            return true;
        }
        let within = |span: &Span| span.file == node.span.file && span.end <= node.span.end;
        let first = self.0.partition_point(|span| *span < Span { end: 0, ..node.span });
        matches!(node.kind, Kind::Text(_)) && self.0.get(first).is_some_and(within)
    }

    /// Removes every wrong value below `node`; whether there was one.
    fn strip(&self, node: &mut Node) -> bool {
        let mut found = false;
        match &mut node.kind {
            Kind::Map(map) => map.retain(|_, e| {
                let wrong = self.hit(e);
                found |= wrong || self.strip(&mut e.node);
                !wrong
            }),
            Kind::List(items) => items.retain_mut(|item| {
                let wrong = self.about(item);
                found |= wrong || self.strip(item);
                !wrong
            }),
            _ => {}
        }
        found
    }
}
