//! `config --explain`: where values come from, as text and as JSON.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::bail;
use hoist::compose::Loaded;
use hoist::compose::provenance::{Explained, Layer, Origin};
use hoist::diagnostic::suggest;
use serde_json::{Value, json};

/// What is known of every value at or below `path`.
///
/// # Errors
/// When the project has nothing there; a similar path is named.
pub(crate) fn text(loaded: &Loaded, path: &str, as_json: bool) -> anyhow::Result<String> {
    let all = loaded.explain(path);
    if all.is_empty() {
        let known = loaded.explain("");
        let paths = known.iter().flat_map(|one| prefixes(&one.path)).collect::<BTreeSet<&str>>();
        match suggest::nearest(path, paths) {
            Some(near) => bail!("the project has nothing at `{path}`; did you mean `{near}`?"),
            None => bail!("the project has nothing at `{path}`; a path is like `services.web.image`"),
        }
    }
    if as_json {
        let all: Vec<Value> = all.iter().map(|one| object(loaded, one)).collect();
        return Ok(format!("{:#}\n", Value::from(all)));
    }
    Ok(all.iter().map(|one| lines(loaded, one)).collect())
}

fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('.').map(|(at, _)| &path[..at]).chain([path])
}

fn place(loaded: &Loaded, origin: Origin) -> String {
    origin.span.map_or_else(String::new, |span| format!(" {}", loaded.sources.place(span)))
}

fn lines(loaded: &Loaded, one: &Explained) -> String {
    let mut text = format!("{}: {}\n", one.path, one.value);
    // Writing to a String cannot fail.
    let _ = writeln!(text, "    {}{}", one.origin.layer, place(loaded, one.origin));
    for (name, origin) in &one.variables {
        let _ = match origin.layer {
            Layer::Default => writeln!(text, "    ${{{name}}} is not set"),
            layer => writeln!(text, "    ${{{name}}} by {layer}{}", place(loaded, *origin)),
        };
    }
    for (value, origin) in &one.overrode {
        let _ = writeln!(text, "    overrides {}{}: {value}", origin.layer, place(loaded, *origin));
    }
    text
}

fn object(loaded: &Loaded, one: &Explained) -> Value {
    let value = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let origin = |origin: Origin| {
        let mut object = json!({ "layer": origin.layer });
        if let Some(span) = origin.span {
            let start = loaded.sources.start(span);
            object["file"] = loaded.sources.path(span.file).display().to_string().into();
            object["line"] = start.line.into();
            object["column"] = start.column.into();
        }
        object
    };
    let with = |key: &str, what: Value, by: Origin| {
        let mut object = origin(by);
        object[key] = what;
        object
    };
    let mut object = with("value", value(&one.value), one.origin);
    object["path"] = one.path.as_str().into();
    object["variables"] =
        one.variables.iter().map(|(name, by)| with("name", name.as_str().into(), *by)).collect();
    object["overrides"] = one.overrode.iter().map(|(old, by)| with("value", value(old), *by)).collect();
    object
}
