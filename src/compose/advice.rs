//! What to do about a value of the wrong form, or a key that does not exist.
//!
//! Only helps: whether something is wrong is decided elsewhere.

use crate::diagnostic::suggest;

use super::conform::ITEM;
use super::document::{Kind, Node};
use super::schema::{Object, PROJECT, SERVICE, Shape};
use super::syntax;
use super::tree::scalar;

/// Attributes that take a duration.
const DURATIONS: &[&str] = &[
    "interval",
    "timeout",
    "start_period",
    "start_interval",
    "stop_grace_period",
    "delay",
    "monitor",
    "window",
    "pull_refresh_after",
];

/// What people call an attribute, and what it is called.
const SYNONYMS: &[(&str, &str)] = &[
    ("env", "environment"),
    ("envs", "environment"),
    ("variables", "environment"),
    ("path", "context"),
    ("file", "dockerfile"),
    ("mounts", "volumes"),
    ("cmd", "command"),
    ("run", "command"),
    ("depends", "depends_on"),
    ("requires", "depends_on"),
    ("ip", "ipv4_address"),
    ("ip_address", "ipv4_address"),
    ("memory", "mem_limit"),
    ("mem", "mem_limit"),
    ("cpu", "cpus"),
    ("workdir", "working_dir"),
    ("cwd", "working_dir"),
    ("health_check", "healthcheck"),
    ("host", "hostname"),
    ("name", "container_name"),
];

/// How to write what is `wanted` at `path` instead of `node`.
pub(super) fn form(node: &Node, wanted: &str, path: &[&str]) -> Option<String> {
    let list = wanted.contains("a list");
    let mapping = wanted.contains("a mapping");
    let text = wanted.contains("a string");
    Some(match (&node.kind, path) {
        (Kind::Bool(false), ["services", _, "restart"]) => "write `restart: \"no\"`, with quotes".to_owned(),
        (Kind::Bool(true), ["services", _, "restart"]) => {
            "write `always`, `unless-stopped` or `on-failure`".to_owned()
        }
        (Kind::Int(n), [.., last]) if text && DURATIONS.contains(last) => {
            format!("write a duration with its unit, such as `{n}s`")
        }
        (Kind::Int(_) | Kind::Float(_), [.., "ports"]) => {
            format!("write a list: `- \"{}\"` on a line of its own", scalar(node)?)
        }
        (Kind::Int(_) | Kind::Float(_) | Kind::Bool(_) | Kind::Timestamp(_), _) if text => {
            "put quotes around it to make it a string".to_owned()
        }
        (Kind::Text(line), _) if mapping && syntax::glued(line).is_some() => {
            let (key, value) = syntax::glued(line)?;
            format!("a blank is missing after the colon: `{key}: {value}`")
        }
        (Kind::Text(line), _) if list && line.starts_with('-') => {
            format!("a blank is missing after the dash: write `- {}`", line.trim_start_matches('-'))
        }
        (Kind::Text(_), ["services", _, "depends_on", name]) => {
            format!(
                "write `condition:` on a line below `{name}:`, or a list of names: `depends_on: [{name}]`"
            )
        }
        (Kind::Text(line), _) if list => {
            let plain = line.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/'));
            let item = if plain { line.clone() } else { format!("\"{line}\"") };
            format!("write a list: `[{item}]`, or `- {item}` on a line of its own")
        }
        (Kind::Text(_) | Kind::Int(_) | Kind::Float(_) | Kind::Bool(_), _) if mapping => {
            "write `key: value` lines, indented further than this name".to_owned()
        }
        (Kind::Null, _) if mapping => "indent what belongs to it below it, or remove it".to_owned(),
        (Kind::Null, _) => "write a value, or remove it".to_owned(),
        (Kind::List(items), _) if text && !list && items.len() == 1 => {
            format!("write the value without brackets or dash: `{}`", scalar(&items[0])?)
        }
        (Kind::List(_), _) if mapping => "write `key: value` lines without a dash".to_owned(),
        (Kind::Map(entries), [.., ITEM]) if text && !mapping => {
            let (key, value) = entries.first().filter(|_| entries.len() == 1)?;
            let value = scalar(&value.node)?;
            match path {
                [.., "environment" | "labels" | "args" | "annotations" | "sysctls", ITEM] => {
                    format!("write `- {key}={value}`, or take the dash away: `{key}: {value}`")
                }
                _ => format!("put quotes around the whole item: `- \"{key}: {value}\"`"),
            }
        }
        (Kind::Map(entries), _) if list => match entries.first() {
            Some((key, value)) if scalar(&value.node).is_some_and(|v| !v.is_empty()) => {
                format!("start each item with a dash: `- \"{key}:{}\"`", scalar(&value.node)?)
            }
            _ => "start each item with a dash: `- item`".to_owned(),
        },
        (Kind::Map(_), ["services", _, "environment" | "labels", _]) => {
            "a variable is a single text; put a text with braces or colons in it in quotes".to_owned()
        }
        _ => return None,
    })
}

/// What may be meant by `key`, which `object` at `path` does not have.
pub(super) fn key(key: &str, value: &Node, object: &Object, path: &[&str]) -> Option<String> {
    let (Shape::Object(service), Shape::Object(project)) = (&SERVICE, &PROJECT) else { return None };
    let has = |object: &Object, key: &str| object.keys.iter().any(|(name, _)| *name == key);
    if let ["services", section] = path
        && has(project, section)
    {
        return Some(format!(
            "`{section}` is read as a service here: a top-level `{section}:` begins in the first column, that of a service is indented below the service's name"
        ));
    }
    let lower = key.to_ascii_lowercase().replace('-', "_");
    let names = || object.keys.iter().map(|(name, _)| *name);
    let synonym =
        SYNONYMS.iter().find(|(word, name)| *word == lower && has(object, name)).map(|(_, name)| *name);
    let near = names().find(|name| *name == lower).or(synonym);
    if let Some(near) = near.or_else(|| suggest::nearest(&lower, names())) {
        return Some(format!("did you mean `{near}`?"));
    }
    if let Some(parent) = parent(object, key) {
        return Some(format!("`{key}` belongs below `{parent}:`"));
    }
    if path.is_empty() {
        if has(service, key) {
            return Some(format!("`{key}` belongs to a service: indent it below one"));
        }
        let like = value.as_map().is_some_and(|map| map.keys().any(|inner| has(service, inner)));
        return like.then(|| format!("`{key}` looks like a service: indent it below `services:`"));
    }
    if has(service, key) && path.len() > 2 && path[0] == "services" {
        return Some(format!("`{key}` belongs to the service: give it the indentation of `{}`", path[2]));
    }
    (has(project, key) && path.len() == 2)
        .then(|| format!("`{key}` belongs to the top level: take its indentation away"))
}

/// The one attribute of `object` below which `key` would be right.
fn parent(object: &Object, key: &str) -> Option<&'static str> {
    fn below(shape: &Shape, key: &str) -> bool {
        match shape {
            Shape::Object(object) => object.keys.iter().any(|(name, _)| *name == key),
            Shape::OneOf(shapes) => shapes.iter().any(|shape| below(shape, key)),
            _ => false,
        }
    }
    let mut all = object.keys.iter().filter(|(_, shape)| below(shape, key)).map(|(name, _)| *name);
    let first = all.next()?;
    all.next().is_none().then_some(first)
}
