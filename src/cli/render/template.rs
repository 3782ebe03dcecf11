//! `--format` of lists and inspections: `json`, `table`, `table TEMPLATE`, or a template in the
//! subset of Go's language that people type: fields, `json`, `index`, `len`, `join`, `upper`, `lower`.

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::table::{Style, Table};

/// Prints rows of named cells as `--format` asks. `titles` gives the default columns as
/// (field, heading); every field of a row may be used in a template.
pub(crate) fn list(format: &str, titles: &[(&str, &str)], rows: &[Value]) -> anyhow::Result<String> {
    let mut out = String::new();
    match format.trim() {
        "" | "table" => {
            let headings: Vec<&str> = titles.iter().map(|(_, heading)| *heading).collect();
            let mut table = Table::new(Style::Formatter, &headings);
            for row in rows {
                table.row(titles.iter().map(|(field, _)| text(&row[*field])).collect());
            }
            out = table.render();
        }
        "json" | "{{json .}}" => {
            for row in rows {
                out.push_str(&serde_json::to_string(row)?);
                out.push('\n');
            }
        }
        other => {
            if let Some(template) = other.strip_prefix("table ") {
                let template = unescape(template);
                let mut headings = String::new();
                for part in parse(&template)? {
                    match part {
                        Part::Text(text) => headings.push_str(text),
                        Part::Action(action) => headings.push_str(&heading(action, titles)),
                    }
                }
                let headings: Vec<&str> = headings.split('\t').collect();
                let mut table = Table::new(Style::Formatter, &headings);
                for row in rows {
                    table.row(render(&template, row)?.split('\t').map(str::to_owned).collect());
                }
                out = table.render();
            } else {
                let template = unescape(other);
                for row in rows {
                    out.push_str(&render(&template, row)?);
                    out.push('\n');
                }
            }
        }
    }
    Ok(out)
}

/// Prints whole objects: an indented JSON list without a format, else one line each.
pub(crate) fn inspect(format: Option<&str>, objects: &[Value]) -> anyhow::Result<String> {
    let mut out = String::new();
    match format {
        None | Some("") => {
            let mut buffer = Vec::new();
            let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
            let mut serializer = serde_json::Serializer::with_formatter(&mut buffer, indent);
            serde::Serialize::serialize(objects, &mut serializer)?;
            out = String::from_utf8(buffer)?;
            out.push('\n');
        }
        Some("json") => {
            out = serde_json::to_string(objects)?;
            out.push('\n');
        }
        Some(template) => {
            let template = unescape(template);
            for object in objects {
                out.push_str(&render(&template, object)?);
                out.push('\n');
            }
        }
    }
    Ok(out)
}

enum Part<'a> {
    Text(&'a str),
    Action(&'a str),
}

fn parse(template: &str) -> anyhow::Result<Vec<Part<'_>>> {
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some(open) = rest.find("{{") {
        parts.push(Part::Text(&rest[..open]));
        let close = rest[open..].find("}}").context("template parsing error: unclosed `{{`")? + open;
        parts.push(Part::Action(rest[open + 2..close].trim_matches('-').trim()));
        rest = &rest[close + 2..];
    }
    parts.push(Part::Text(rest));
    Ok(parts)
}

fn render(template: &str, object: &Value) -> anyhow::Result<String> {
    let mut out = String::new();
    for part in parse(template)? {
        match part {
            Part::Text(literal) => out.push_str(literal),
            Part::Action(action) => out.push_str(&text(&evaluate(action, object)?)),
        }
    }
    Ok(out)
}

fn evaluate(action: &str, object: &Value) -> anyhow::Result<Value> {
    let mut value = None;
    for stage in action.split('|') {
        let mut words: Vec<&str> = split_words(stage);
        if words.is_empty() {
            bail!("template parsing error: empty action");
        }
        let function = (!words[0].starts_with('.') && !words[0].starts_with('"')).then(|| words.remove(0));
        let mut arguments =
            words.iter().map(|word| argument(word, object)).collect::<anyhow::Result<Vec<Value>>>()?;
        arguments.extend(value.take());
        let first = arguments.first().context("template parsing error: missing argument")?.clone();
        value = Some(match function {
            None | Some("println" | "print") => first,
            Some("json") => Value::String(serde_json::to_string(&first)?),
            Some("upper") => Value::String(text(&first).to_uppercase()),
            Some("lower") => Value::String(text(&first).to_lowercase()),
            Some("len") => Value::from(match &first {
                Value::Array(items) => items.len(),
                Value::Object(fields) => fields.len(),
                other => text(other).len(),
            }),
            Some("join") => {
                let by = arguments.get(1).map(text).unwrap_or_default();
                let items = first.as_array().map(Vec::as_slice).unwrap_or_default();
                Value::String(items.iter().map(text).collect::<Vec<_>>().join(&by))
            }
            Some("index") => arguments[1..].iter().try_fold(first, |held, key| {
                let found = match key {
                    Value::Number(at) => at.as_u64().and_then(|at| held.get(usize::try_from(at).ok()?)),
                    other => held.get(text(other)),
                };
                found.cloned().with_context(|| format!("template: index {} is out of range", text(key)))
            })?,
            Some(other) => bail!(
                "template parsing error: function \"{other}\" is not supported (json, index, len, join, upper, lower are)"
            ),
        });
    }
    value.context("template parsing error: empty action")
}

fn split_words(stage: &str) -> Vec<&str> {
    let (mut words, mut start, mut quoted) = (Vec::new(), None, false);
    for (at, c) in stage.char_indices() {
        match (c, start) {
            ('"', _) => {
                quoted = !quoted;
                start.get_or_insert(at);
            }
            (c, Some(begin)) if c.is_whitespace() && !quoted => {
                words.push(&stage[begin..at]);
                start = None;
            }
            (c, None) if !c.is_whitespace() => start = Some(at),
            _ => {}
        }
    }
    if let Some(begin) = start {
        words.push(&stage[begin..]);
    }
    words
}

fn argument(word: &str, object: &Value) -> anyhow::Result<Value> {
    if let Some(literal) = word.strip_prefix('"') {
        return Ok(Value::String(literal.trim_end_matches('"').to_owned()));
    }
    if let Ok(number) = word.parse::<u64>() {
        return Ok(Value::from(number));
    }
    let Some(path) = word.strip_prefix('.') else {
        bail!("template parsing error: \"{word}\" is not understood");
    };
    let mut value = object;
    for field in path.split('.').filter(|field| !field.is_empty()) {
        value = match value.get(field) {
            Some(value) => value,
            // A field that may be missing is nothing; one that no object has is a mistake.
            None if value.is_null() => return Ok(Value::Null),
            None => bail!("template: can't evaluate field {field}"),
        };
    }
    Ok(value.clone())
}

/// Go prints a bare value: strings without quotes, lists and maps in its own form.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<no value>".to_owned(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(text).collect::<Vec<_>>().join(" "))
        }
        Value::Object(fields) => {
            let fields: Vec<_> = fields.iter().map(|(key, value)| format!("{key}:{}", text(value))).collect();
            format!("map[{}]", fields.join(" "))
        }
        other => other.to_string(),
    }
}

fn heading(action: &str, titles: &[(&str, &str)]) -> String {
    let field = action.rsplit('.').next().unwrap_or(action).trim();
    titles
        .iter()
        .find(|(name, _)| *name == field)
        .map_or_else(|| field.to_uppercase(), |(_, title)| (*title).to_owned())
}

fn unescape(template: &str) -> String {
    template.replace("\\t", "\t").replace("\\n", "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn templates_of_the_usual_kinds() {
        let object =
            json!({"ID": "abc", "Tags": ["a", "b"], "Config": {"Env": ["X=1"], "Labels": {"k": "v"}}});
        let render = |template: &str| render(template, &object).unwrap();
        assert_eq!(render("{{.ID}}: {{ upper .ID }}"), "abc: ABC");
        assert_eq!(render("{{json .Tags}}"), r#"["a","b"]"#);
        assert_eq!(render("{{index .Tags 1}} {{len .Tags}} {{join .Tags \", \"}}"), "b 2 a, b");
        assert_eq!(render("{{.Config.Env}} {{.Config.Labels}}"), "[X=1] map[k:v]");
        assert_eq!(render("{{.Config | json}}"), r#"{"Env":["X=1"],"Labels":{"k":"v"}}"#);
        assert_eq!(render("{{index .Config.Labels \"k\"}}"), "v");
        assert!(super::render("{{.Nope}}", &object).is_err());
        assert!(super::render("{{.ID", &object).is_err());
    }

    #[test]
    fn lists_as_table_json_and_template() {
        let rows = [json!({"Name": "x", "Size": "1kB"})];
        let titles = [("Name", "NAME"), ("Size", "SIZE")];
        assert_eq!(list("", &titles, &rows).unwrap(), "NAME      SIZE\nx         1kB\n");
        assert_eq!(list("json", &titles, &rows).unwrap(), "{\"Name\":\"x\",\"Size\":\"1kB\"}\n");
        assert_eq!(
            list("table {{.Size}}\\t{{.Name}}", &titles, &rows).unwrap(),
            "SIZE      NAME\n1kB       x\n"
        );
        assert_eq!(list("{{.Name}}", &titles, &rows).unwrap(), "x\n");
    }
}
