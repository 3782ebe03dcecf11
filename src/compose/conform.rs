//! The pass that checks a tree against the tables of `schema`.

use std::fmt::Write as _;

use crate::diagnostic::{Diagnostic, suggest};

use super::advice;
use super::document::{Entry, Kind, Node};
use super::schema::{Object, PROJECT, Shape};

/// A path of keys; list positions are [`ITEM`].
type Path<'a> = Vec<&'a str>;

/// Stands for any position of a list.
pub(super) const ITEM: &str = "[]";

/// How many mistakes are enough.
const MANY: usize = 10_000;

/// A path for people: `services.web.ports`, and `an item of …` for what a list holds.
pub(super) fn shown(path: &[&str]) -> String {
    let mut text = String::new();
    let item = path.last() == Some(&ITEM);
    let steps = if item { &path[..path.len() - 1] } else { path };
    for (number, step) in steps.iter().enumerate() {
        match *step {
            ITEM => text.push_str("[]"),
            step if number == 0 => text.push_str(step),
            // Writing to a String cannot fail.
            step => drop(write!(text, ".{step}")),
        }
    }
    match (text.is_empty(), item) {
        (true, _) => "the top level".to_owned(),
        (false, true) => format!("an item of `{text}`"),
        (false, false) => format!("`{text}`"),
    }
}

/// Logs everything in `root` that is not as the tables say.
pub(super) fn check(root: &Node, out: &mut Vec<Diagnostic>) {
    let mut path = Vec::new();
    value(root, &PROJECT, &mut path, out);
}

fn fits(node: &Node, shape: &Shape) -> bool {
    match (shape, &node.kind) {
        (Shape::Null, Kind::Null)
        | (Shape::Bool, Kind::Bool(_))
        | (Shape::Int(..), Kind::Int(_))
        | (Shape::Num, Kind::Int(_) | Kind::Float(_))
        | (Shape::Str | Shape::Enum(_) | Shape::PullPolicy | Shape::ContainerName, Kind::Text(_))
        | (Shape::List(_) | Shape::Unique(_), Kind::List(_))
        | (Shape::Dict(_) | Shape::Open(_) | Shape::Named(_) | Shape::Object(_), Kind::Map(_)) => true,
        (Shape::Int(..), Kind::Float(f)) => f.fract() == 0.0,
        (Shape::OneOf(shapes), _) => shapes.iter().any(|s| fits(node, s)),
        _ => false,
    }
}

fn words(shape: &Shape, out: &mut Vec<String>) {
    let word = match shape {
        Shape::Null => return,
        Shape::Bool => "true or false".to_owned(),
        Shape::Int(..) => "an integer".to_owned(),
        Shape::Num => "a number".to_owned(),
        Shape::Str | Shape::PullPolicy | Shape::ContainerName => "a string".to_owned(),
        Shape::Enum(values) => values.iter().map(|v| format!("`{v}`")).collect::<Vec<_>>().join(", "),
        Shape::List(item) | Shape::Unique(item) => {
            if matches!(item, Shape::Str) { "a list of strings" } else { "a list" }.to_owned()
        }
        Shape::Dict(_) | Shape::Open(_) | Shape::Named(_) | Shape::Object(_) => "a mapping".to_owned(),
        Shape::OneOf(shapes) => {
            for s in *shapes {
                words(s, out);
            }
            return;
        }
    };
    if !out.contains(&word) {
        out.push(word);
    }
}

/// “a string or a list of strings”.
fn wanted(shape: &Shape) -> String {
    let mut all = Vec::new();
    words(shape, &mut all);
    match all.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => "nothing".to_owned(),
    }
}

fn what(node: &Node) -> String {
    match &node.kind {
        Kind::Null => "nothing".to_owned(),
        Kind::Map(_) => "a mapping".to_owned(),
        Kind::List(_) => "a list".to_owned(),
        Kind::Text(t) if t.chars().count() <= 40 => format!("the string `{t}`"),
        Kind::Text(_) => "a string".to_owned(),
        Kind::Int(i) => format!("the integer {i}"),
        Kind::Float(f) => format!("the number {f}"),
        Kind::Bool(b) => format!("`{b}`"),
        Kind::Timestamp(_) => "a date".to_owned(),
    }
}

fn value<'a>(node: &'a Node, shape: &Shape, path: &mut Path<'a>, out: &mut Vec<Diagnostic>) {
    if out.len() > MANY {
        return;
    }
    if let Shape::OneOf(shapes) = shape {
        return match shapes.iter().find(|s| fits(node, s)) {
            Some(s) => value(node, s, path, out),
            None => mismatch(node, shape, path, out),
        };
    }
    if !fits(node, shape) {
        return mismatch(node, shape, path, out);
    }
    match (shape, &node.kind) {
        (Shape::Int(low, high), Kind::Int(i)) if *i < i128::from(*low) || *i > i128::from(*high) => {
            range(node, path, low, high, out);
        }
        #[expect(clippy::cast_precision_loss, reason = "bounds are small, or those of the type")]
        (Shape::Int(low, high), Kind::Float(f)) if *f < *low as f64 || *f > *high as f64 => {
            range(node, path, low, high, out);
        }
        (Shape::Enum(values), Kind::Text(t)) if !values.contains(&t.as_str()) => {
            let list = values.iter().map(|v| format!("`{v}`")).collect::<Vec<_>>().join(", ");
            let mut d = Diagnostic::error(
                "unknown-value",
                format!("{} must be one of {list}, found `{t}`", shown(path)),
            )
            .at(node.span, "not one of them");
            if let Some(near) = suggest::nearest(t, values.iter().copied()) {
                d = d.help(format!("did you mean `{near}`?"));
            }
            out.push(d);
        }
        (Shape::PullPolicy, Kind::Text(t)) if !pull_policy(t) => {
            out.push(
                Diagnostic::error("unknown-value", format!("{} is no pull policy: `{t}`", shown(path)))
                    .at(node.span, "not a pull policy")
                    .help("use `always`, `never`, `missing`, `build`, `daily`, `weekly` or `every_12h`"),
            );
        }
        (Shape::ContainerName, Kind::Text(t)) if !container_name(t) => {
            out.push(
                Diagnostic::error("invalid-name", format!("`{t}` cannot be a container name"))
                    .at(node.span, "expected letters, digits, `_`, `.` and `-`, at least two"),
            );
        }
        (Shape::List(item) | Shape::Unique(item), Kind::List(items)) => {
            for one in items {
                path.push(ITEM);
                value(one, item, path, out);
                path.pop();
            }
            if matches!(shape, Shape::Unique(_)) {
                repeated(items, path, out);
            }
        }
        (Shape::Dict(item) | Shape::Open(item), Kind::Map(map)) => {
            for (key, e) in map {
                if key.is_empty() && matches!(shape, Shape::Open(_)) {
                    // Not looked at: its value may be anything.
                    continue;
                }
                if key.is_empty() {
                    let message = format!("{} has an empty key", shown(path));
                    out.push(Diagnostic::error("invalid-name", message).at(e.key, "a key is expected"));
                }
                path.push(key);
                value(&e.node, item, path, out);
                path.pop();
            }
        }
        (Shape::Named(item), Kind::Map(map)) => {
            for (key, e) in map {
                let extension = key.starts_with("x-") && matches!(item, Shape::Object(_));
                if !is_name(key) && !extension {
                    let message = format!("`{key}` under {} is not a valid name", shown(path));
                    let d = Diagnostic::error("invalid-name", message);
                    out.push(d.at(e.key, "expected letters, digits, `.`, `_` and `-`"));
                }
                path.push(key);
                value(&e.node, item, path, out);
                path.pop();
            }
        }
        (Shape::Object(shape), Kind::Map(_)) => object(node, shape, path, out),
        _ => {}
    }
}

fn is_name(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn object<'a>(node: &'a Node, object: &Object, path: &mut Path<'a>, out: &mut Vec<Diagnostic>) {
    let Some(map) = node.as_map() else { return };
    for (key, e) in map.iter().filter(|(key, _)| !key.starts_with("x-")) {
        match object.keys.iter().find(|(name, _)| name == key) {
            Some((_, shape)) => {
                path.push(key);
                value(&e.node, shape, path, out);
                path.pop();
            }
            None => unknown(key, e, object, path, out),
        }
    }
    for key in object.required.iter().filter(|key| !map.contains_key(**key)) {
        let message = format!("{} needs `{key}`", shown(path));
        out.push(Diagnostic::error("missing-key", message).at(node.span, format!("`{key}` is missing")));
    }
}

fn mismatch(node: &Node, shape: &Shape, path: &[&str], out: &mut Vec<Diagnostic>) {
    let wanted = wanted(shape);
    let message = format!("{} must be {wanted}, found {}", shown(path), what(node));
    let mut d = Diagnostic::error("wrong-type", message).at(node.span, format!("expected {wanted}"));
    if let Some(help) = advice::form(node, &wanted, path) {
        d = d.help(help);
    }
    out.push(d);
}

fn range(
    node: &Node,
    path: &[&str],
    low: impl std::fmt::Display,
    high: impl std::fmt::Display,
    out: &mut Vec<Diagnostic>,
) {
    let text = format!("{} must be between {low} and {high}", shown(path));
    out.push(Diagnostic::error("out-of-range", text).at(node.span, "out of range"));
}

fn repeated(items: &[Node], path: &[&str], out: &mut Vec<Diagnostic>) {
    // Lists of pairs and keyed lists are made unique before this, so what is left is a mistake.
    let mut seen: std::collections::HashMap<(bool, String), usize> = std::collections::HashMap::new();
    for (number, item) in items.iter().enumerate() {
        let (key, value) = match &item.kind {
            Kind::Text(t) => ((true, t.clone()), t.parse::<f64>().ok()),
            Kind::Int(i) => ((false, i.to_string()), None),
            Kind::Float(f) => ((false, f.to_string()), None),
            _ => continue,
        };
        let first = seen.insert(key, number);
        if let Some(value) = value {
            // Docker Compose finds a number equal to an earlier text of it, but not the other way round.
            seen.entry((false, value.to_string())).or_insert(number);
        }
        if let Some(first) = first {
            out.push(
                Diagnostic::error(
                    "duplicate-item",
                    format!(
                        "{} has the same item twice: items at {first} and {number} are equal",
                        shown(path)
                    ),
                )
                .at(item.span, "again here")
                .also(items[first].span, "first here"),
            );
        }
    }
}

fn unknown(key: &str, e: &Entry, object: &Object, path: &[&str], out: &mut Vec<Diagnostic>) {
    let mut d = Diagnostic::error("unknown-key", format!("{} has no attribute `{key}`", shown(path)))
        .at(e.key, format!("not an attribute of {}", object.name));
    // Nobody reads the suggestions of hundreds, and they take time.
    let help = if out.len() < 100 { advice::key(key, &e.node, object, path) } else { None };
    d.help.extend(help);
    out.push(d);
}

fn pull_policy(text: &str) -> bool {
    const WORDS: &[&str] =
        &["always", "never", "build", "if_not_present", "missing", "refresh", "daily", "weekly"];
    if WORDS.iter().any(|w| text.contains(w)) {
        return true;
    }
    text.match_indices("every_").any(|(at, _)| {
        let rest = &text[at + 6..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        digits > 0 && rest[digits..].starts_with(['w', 'd', 'h', 'm', 's'])
    })
}

fn container_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.windows(2).any(|w| {
        w[0].is_ascii_alphanumeric() && (w[1].is_ascii_alphanumeric() || matches!(w[1], b'_' | b'.' | b'-'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_for_people() {
        for (path, text) in [
            (&[][..], "the top level"),
            (&["services", "web", "image"], "`services.web.image`"),
            (&["services", "web", "ports", ITEM], "an item of `services.web.ports`"),
            (&["services", "web", "ports", ITEM, "target"], "`services.web.ports[].target`"),
        ] {
            assert_eq!(shown(path), text);
        }
    }
}
