//! One definition over another: the merge rules by path, and lists whose items have a key.
//!
//! Source: `reference/model.md` §6. The base may be in canonical form, the override
//! is as written; every value keeps the place it came from.

use indexmap::IndexMap;

use crate::diagnostic::Diagnostic;

use super::document::{Entry, Kind, Map, Node};
use super::tree::{self, Trail, entry, get, is_null, node, scalar, str, text};

/// `over` on top of `base` at `path`.
pub(super) fn merge(base: Node, over: Node, path: &mut Vec<String>, out: &mut Vec<Diagnostic>) -> Node {
    let trail: Vec<&str> = path.iter().map(String::as_str).collect();
    let rule = rule(&trail);
    if is_null(&over) && rule != Rule::ReplaceAlsoByNull {
        return base;
    }
    match rule {
        Rule::Replace | Rule::ReplaceAlsoByNull => over,
        Rule::Pairs => {
            let (Some(mut left), Some(right)) = (pairs(&base), pairs(&over)) else {
                return plain(base, over, path, out);
            };
            for (key, value) in right {
                left.insert(key, value);
            }
            node(Kind::Map(left), over.span)
        }
        Rule::Items => {
            let mut items = into_items(base);
            let span = over.span;
            items.extend(into_items(over));
            node(Kind::List(items), span)
        }
        Rule::Names(kind) => {
            let base = names(base, kind);
            plain(base, names(over, kind), path, out)
        }
        Rule::Build => plain(long_build(base), long_build(over), path, out),
        Rule::Hosts => {
            let (Some(mut left), Some(right)) = (hosts(&base), hosts(&over)) else {
                return plain(base, over, path, out);
            };
            for item in right {
                if !left.iter().any(|old| str(old) == str(&item)) {
                    left.push(item);
                }
            }
            node(Kind::List(left), over.span)
        }
        Rule::Logging => {
            let driver = |n: &Node| get(n, "driver").and_then(scalar);
            match (driver(&base), driver(&over)) {
                (Some(a), Some(b)) if a != b => over,
                _ => plain(base, over, path, out),
            }
        }
        Rule::Pools => pools(base, over, path, out),
        Rule::Plain => plain(base, over, path, out),
    }
}

fn plain(base: Node, over: Node, path: &mut Vec<String>, out: &mut Vec<Diagnostic>) -> Node {
    match (base.kind, over.kind) {
        (Kind::Map(mut left), Kind::Map(right)) => {
            for (key, item) in right {
                match left.get_mut(&key) {
                    None => drop(left.insert(key, item)),
                    Some(slot) => {
                        let old = tree::take(&mut slot.node);
                        path.push(key);
                        slot.node = merge(old, item.node, path, out);
                        path.pop();
                        slot.key = item.key;
                    }
                }
            }
            // The place of a mapping stays that of its first definition.
            node(Kind::Map(left), base.span)
        }
        (Kind::List(mut left), Kind::List(right)) => {
            left.extend(right);
            node(Kind::List(left), over.span)
        }
        (left @ (Kind::Map(_) | Kind::List(_)), right) => {
            let word = |k: &Kind| match k {
                Kind::Map(_) => "a mapping",
                Kind::List(_) => "a list",
                _ => "a single value",
            };
            out.push(
                Diagnostic::error(
                    "merge-conflict",
                    format!(
                        "cannot override `{}`: it is {}, this is {}",
                        path.join("."),
                        word(&left),
                        word(&right)
                    ),
                )
                .at(over.span, format!("expected {}", word(&left)))
                .also(base.span, "defined here first"),
            );
            node(left, base.span)
        }
        (_, right) => Node { kind: right, span: over.span, tag: over.tag },
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    Plain,
    Replace,
    ReplaceAlsoByNull,
    Pairs,
    Items,
    Names(Short),
    Build,
    Hosts,
    Logging,
    Pools,
}

/// What a list of names stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Short {
    DependsOn,
    Null,
}

fn rule(path: &Trail<'_>) -> Rule {
    match path {
        ["services", _, rest @ ..] => match rest {
            ["annotations" | "environment" | "labels" | "sysctls"]
            | ["build", "args" | "labels" | "additional_contexts"]
            | ["deploy", "labels"] => Rule::Pairs,
            ["label_file" | "dns" | "dns_search" | "dns_opt" | "tmpfs" | "env_file"] => Rule::Items,
            ["command" | "entrypoint"] => Rule::ReplaceAlsoByNull,
            ["healthcheck", "test"] | ["ulimits", _] => Rule::Replace,
            ["logging"] => Rule::Logging,
            ["build"] => Rule::Build,
            ["depends_on"] => Rule::Names(Short::DependsOn),
            ["networks" | "models"] => Rule::Names(Short::Null),
            ["extra_hosts"] | ["build", "extra_hosts"] => Rule::Hosts,
            _ => Rule::Plain,
        },
        ["networks" | "volumes", _, "labels"] => Rule::Pairs,
        ["networks", _, "ipam", "config"] => Rule::Pools,
        _ => Rule::Plain,
    }
}

/// A mapping, or a list of `key=value`, as a mapping; later items win.
pub(super) fn pairs(source: &Node) -> Option<Map> {
    match &source.kind {
        Kind::Map(m) => Some(m.clone()),
        Kind::Null => Some(Map::default()),
        Kind::List(items) => {
            let mut out: Map = Map::default();
            for item in items {
                let line = scalar(item)?;
                let (key, value) = match line.split_once('=') {
                    Some((k, v)) => (k.to_owned(), text(v, item.span)),
                    None => (line, node(Kind::Null, item.span)),
                };
                out.insert(key, entry(value));
            }
            Some(out)
        }
        _ => None,
    }
}

fn into_items(source: Node) -> Vec<Node> {
    match source.kind {
        Kind::List(items) => items,
        Kind::Null => Vec::new(),
        _ => vec![source],
    }
}

/// A list of names as a mapping from them.
pub(super) fn names(source: Node, kind: Short) -> Node {
    let span = source.span;
    match source.kind {
        Kind::List(items) if items.iter().all(|i| str(i).is_some()) => {
            let mut out: Map = Map::default();
            for item in items {
                let value = match kind {
                    Short::Null => Kind::Null,
                    Short::DependsOn => {
                        let mut long: Map = Map::default();
                        long.insert("condition".into(), entry(text("service_started", item.span)));
                        long.insert("required".into(), entry(node(Kind::Bool(true), item.span)));
                        Kind::Map(long)
                    }
                };
                let at = item.span;
                if let Kind::Text(name) = item.kind {
                    out.insert(name, Entry { key: at, node: node(value, at) });
                }
            }
            node(Kind::Map(out), span)
        }
        kind => node(kind, span),
    }
}

/// `build: DIR` as a mapping.
pub(super) fn long_build(source: Node) -> Node {
    let span = source.span;
    match source.kind {
        Kind::Text(context) => {
            let mut out: Map = Map::default();
            out.insert("context".into(), entry(text(context, span)));
            node(Kind::Map(out), span)
        }
        kind => node(kind, span),
    }
}

fn hosts(source: &Node) -> Option<Vec<Node>> {
    match &source.kind {
        Kind::List(items) => Some(items.clone()),
        Kind::Map(m) => {
            let mut out = Vec::new();
            for (host, e) in m {
                match &e.node.kind {
                    Kind::List(addresses) => {
                        for a in addresses {
                            out.push(text(format!("{host}={}", scalar(a)?), a.span));
                        }
                    }
                    _ => out.push(text(format!("{host}={}", scalar(&e.node)?), e.node.span)),
                }
            }
            Some(out)
        }
        _ => None,
    }
}

/// Pools match by subnet. Base pools whose subnet does not occur again are lost, and a base pool
/// goes on changing after it was taken over: artefacts of Docker Compose that are kept.
fn pools(base: Node, over: Node, path: &mut Vec<String>, out: &mut Vec<Diagnostic>) -> Node {
    let (Kind::List(left), Kind::List(right)) = (&base.kind, &over.kind) else {
        return plain(base, over, path, out);
    };
    let subnet = |n: &Node| get(n, "subnet").and_then(scalar);
    // `None` stands for the base pool at hand, wherever it was put.
    let mut merged: Vec<Option<Node>> = Vec::new();
    for old in left {
        let mut current = old.clone();
        for pool in right {
            let at = |subnet_of: Option<String>, current: &Node, merged: &[Option<Node>]| {
                merged.iter().position(|m| subnet(m.as_ref().unwrap_or(current)) == subnet_of)
            };
            if subnet(&current) != subnet(pool) && at(subnet(pool), &current, &merged).is_none() {
                merged.push(Some(pool.clone()));
                continue;
            }
            path.push("[]".into());
            current = plain(current, pool.clone(), path, out);
            path.pop();
            match at(subnet(&current), &current, &merged) {
                Some(at) => merged[at] = None,
                None => merged.push(None),
            }
        }
        for slot in merged.iter_mut().filter(|m| m.is_none()) {
            *slot = Some(current.clone());
        }
    }
    node(Kind::List(merged.into_iter().flatten().collect()), over.span)
}

/// Removes what a later item of a keyed list replaces; the later one takes the earlier one's place.
pub(super) fn unique(root: &mut Node) {
    for (_, service) in tree::section_mut(root, "services") {
        for (key, index) in LISTS {
            if let Some(list) = tree::get_mut(service, key) {
                dedup(list, *index);
            }
        }
        if let Some(networks) = tree::get_mut(service, "networks").and_then(tree::map_mut) {
            for e in networks.values_mut() {
                for key in ["aliases", "link_local_ips"] {
                    if let Some(list) = tree::get_mut(&mut e.node, key) {
                        dedup(list, before_equals);
                    }
                }
            }
        }
        if let Some(build) = tree::get_mut(service, "build")
            && let Some(list) = tree::get_mut(build, "tags")
        {
            dedup(list, before_equals);
        }
    }
}

type Index = fn(&Node) -> Option<String>;

const LISTS: &[(&str, Index)] = &[
    ("ports", port),
    ("volumes", volume),
    ("devices", device),
    ("configs", config),
    ("secrets", secret),
    ("env_file", env_file),
    ("expose", scalar),
    ("cap_add", before_equals),
    ("cap_drop", before_equals),
    ("dns", before_equals),
    ("dns_opt", before_equals),
    ("dns_search", before_equals),
    ("links", before_equals),
    ("profiles", before_equals),
    ("tmpfs", before_equals),
];

fn dedup(list: &mut Node, index: Index) {
    let Kind::List(items) = &mut list.kind else { return };
    if items.len() < 2 {
        return;
    }
    let keys: Vec<Option<String>> = items.iter().map(index).collect();
    // Most lists are short and have nothing twice.
    let twice = |(at, key): (usize, &Option<String>)| key.is_some() && keys[..at].contains(key);
    if items.len() <= 16 && !keys.iter().enumerate().any(twice) {
        return;
    }
    let mut seen: IndexMap<String, Node> = IndexMap::with_capacity(items.len());
    for ((number, item), key) in std::mem::take(items).into_iter().enumerate().zip(keys) {
        seen.insert(key.unwrap_or_else(|| format!("\0{number}")), item);
    }
    items.extend(seen.into_values());
}

fn before_equals(item: &Node) -> Option<String> {
    let line = scalar(item)?;
    Some(line.split_once('=').map_or(line.as_str(), |(k, _)| k).to_owned())
}

fn port(item: &Node) -> Option<String> {
    match &item.kind {
        Kind::Map(_) => {
            let field = |key: &str, default: &str| {
                get(item, key).and_then(scalar).unwrap_or_else(|| default.to_owned())
            };
            // A number and the same text count as different, as in Docker Compose.
            let number = get(item, "published").is_some_and(|p| matches!(p.kind, Kind::Int(_)));
            Some(format!(
                "{}:{}{}:{}/{}",
                field("host_ip", "0.0.0.0"),
                if number { "#" } else { "" },
                field("published", ""),
                field("target", ""),
                field("protocol", "tcp")
            ))
        }
        _ => scalar(item),
    }
}

fn volume(item: &Node) -> Option<String> {
    match &item.kind {
        Kind::Map(_) => get(item, "target").and_then(scalar),
        Kind::Text(s) => super::short::volume(s).ok().map(|v| v.target),
        _ => None,
    }
}

fn device(item: &Node) -> Option<String> {
    if matches!(item.kind, Kind::Map(_)) {
        return get(item, "target").and_then(scalar);
    }
    let line = scalar(item)?;
    let mut fields = line.split(':');
    let first = fields.next().unwrap_or_default().to_owned();
    Some(fields.next().map_or(first, str::to_owned))
}

fn mounted(item: &Node, folder: &str) -> Option<String> {
    match &item.kind {
        Kind::Map(_) => get(item, "target")
            .and_then(scalar)
            .or_else(|| get(item, "source").and_then(scalar).map(|s| format!("{folder}/{s}"))),
        _ => scalar(item).map(|s| format!("{folder}/{s}")),
    }
}

fn config(item: &Node) -> Option<String> {
    mounted(item, "")
}

fn secret(item: &Node) -> Option<String> {
    mounted(item, "/run/secrets")
}

fn env_file(item: &Node) -> Option<String> {
    match &item.kind {
        Kind::Map(_) => get(item, "path").and_then(scalar),
        _ => scalar(item),
    }
}
