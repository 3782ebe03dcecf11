//! Variables in every string of a document, and the types that strings take at fixed places.
//!
//! One document at a time, before merging: an overridden mistake is still a mistake.

use crate::diagnostic::{Diagnostic, SourceMap, Span};

use super::conform::shown;
use super::document::{Kind, Node};
use super::template::{self, Lookup, TemplateErrorKind};
use super::tree::Trail;

/// Expands all string values below `root`.
pub(super) fn interpolate(
    root: &mut Node,
    lookup: Lookup<'_>,
    sources: &SourceMap,
    out: &mut Vec<Diagnostic>,
) {
    let mut path = Vec::new();
    walk(root, &mut path, lookup, sources, out);
}

fn walk<'a>(
    node: &'a mut Node,
    path: &mut Vec<&'a str>,
    lookup: Lookup<'_>,
    sources: &SourceMap,
    out: &mut Vec<Diagnostic>,
) {
    if matches!(node.kind, Kind::Text(_)) {
        return scalar(node, path, lookup, sources, out);
    }
    match &mut node.kind {
        Kind::List(items) => {
            path.push("[]");
            for item in items {
                walk(item, path, lookup, sources, out);
            }
            path.pop();
        }
        Kind::Map(entries) => {
            for (key, entry) in entries.iter_mut() {
                path.push(key);
                walk(&mut entry.node, path, lookup, sources, out);
                path.pop();
            }
        }
        _ => {}
    }
}

fn scalar(
    node: &mut Node,
    path: &Trail<'_>,
    lookup: Lookup<'_>,
    sources: &SourceMap,
    out: &mut Vec<Diagnostic>,
) {
    let span = node.span;
    let Kind::Text(text) = &mut node.kind else { return };
    if memchr::memchr(b'$', text.as_bytes()).is_some() {
        match template::expand(text, lookup) {
            Ok(expanded) => {
                let mut from = 0;
                for (name, range) in &expanded.unset {
                    if out.len() > MANY {
                        break;
                    }
                    let at = part(sources, span, text, range.clone(), &mut from);
                    out.push(
                        Diagnostic::warning(
                            "unset-variable",
                            format!("the \"{name}\" variable is not set. Defaulting to a blank string."),
                        )
                        .at(at, "not set in the environment or `.env`")
                        .help(format!(
                            "set it, give it a default as in `${{{name}:-default}}`, or write `$$` for a literal `$`"
                        )),
                    );
                }
                *text = expanded.text;
            }
            Err(error) => {
                let at = part(sources, span, text, error.span.clone(), &mut 0);
                let place = shown(path);
                out.push(match error.kind {
                    TemplateErrorKind::TooDeep => Diagnostic::error(
                        "invalid-interpolation",
                        format!("{place} has variables nested in one another too deep"),
                    )
                    .at(at, "more than 32 levels"),
                    TemplateErrorKind::Format => Diagnostic::error(
                        "invalid-interpolation",
                        format!("{place} has a `$` that begins no variable"),
                    )
                    .at(at, "not a variable expression")
                    .help("write `${NAME}`, `${NAME:-default}`, or `$$` for a literal `$`"),
                    TemplateErrorKind::Required { name, text } => Diagnostic::error(
                        "required-variable",
                        format!("required variable `{name}` is missing a value: {text}"),
                    )
                    .at(at, "needs a value")
                    .help(format!("set `{name}` in the environment or in `.env`")),
                });
                return;
            }
        }
    }
    if let Some(cast) = cast(path) {
        let made = match cast {
            Cast::Int => text.parse::<i64>().ok().map(|i| Kind::Int(i128::from(i))),
            Cast::Float => text.parse().ok().map(Kind::Float),
            Cast::Bool => match text.to_ascii_lowercase().as_str() {
                "true" | "y" | "yes" | "on" => Some(Kind::Bool(true)),
                "false" | "n" | "no" | "off" => Some(Kind::Bool(false)),
                _ => None,
            },
        };
        if let Some(kind) = made {
            node.kind = kind;
        } else {
            let message = format!("{} must be {}, found `{text}`", shown(path), cast.name());
            out.push(Diagnostic::error("wrong-type", message).at(span, format!("expected {}", cast.name())));
        }
    }
}

/// How many warnings are enough.
const MANY: usize = 10_000;

/// The place of part of a scalar's value: found by its text, since quotes and escapes shift offsets.
/// Looked for from byte `from` of the source, which moves on behind it.
fn part(
    sources: &SourceMap,
    span: Span,
    value: &str,
    range: std::ops::Range<usize>,
    from: &mut usize,
) -> Span {
    let rest = sources.snippet(span).get(*from..).unwrap_or_default();
    let found = value.get(range).and_then(|wanted| Some((rest.find(wanted)? + *from, wanted.len())));
    let Some((at, length)) = found else { return span };
    *from = at + length;
    span.part(at, at + length)
}

#[derive(Clone, Copy)]
enum Cast {
    Int,
    Float,
    Bool,
}

impl Cast {
    fn name(self) -> &'static str {
        match self {
            Self::Int => "an integer",
            Self::Float => "a number",
            Self::Bool => "true or false",
        }
    }
}

fn cast(path: &Trail<'_>) -> Option<Cast> {
    Some(match path {
        ["services", _, rest @ ..] => match rest {
            [
                "cpu_count" | "cpu_period" | "cpu_quota" | "cpu_rt_period" | "cpu_rt_runtime" | "cpu_shares"
                | "oom_score_adj" | "pids_limit" | "scale",
            ]
            | ["deploy", "replicas"]
            | ["deploy", "update_config" | "rollback_config", "parallelism"]
            | ["deploy", "restart_policy", "max_attempts"]
            | ["deploy", "placement", "max_replicas_per_node"]
            | ["healthcheck", "retries"]
            | ["ports", "[]", "target"]
            | ["ulimits", _]
            | ["ulimits", _, "soft" | "hard"] => Cast::Int,
            ["cpus" | "cpu_percent"]
            | ["deploy", "update_config" | "rollback_config", "max_failure_ratio"] => Cast::Float,
            ["init" | "oom_kill_disable" | "privileged" | "read_only" | "stdin_open" | "tty"]
            | ["depends_on", _, "restart"]
            | ["healthcheck", "disable"]
            | ["volumes", "[]", "read_only"]
            | ["volumes", "[]", "volume", "nocopy"] => Cast::Bool,
            _ => return None,
        },
        ["networks", _, "external" | "internal" | "attachable" | "enable_ipv4" | "enable_ipv6"]
        | ["volumes" | "secrets" | "configs", _, "external"] => Cast::Bool,
        _ => return None,
    })
}
