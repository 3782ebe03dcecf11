//! The files under `schemas/`: current, and of one mind with the loader and with what is printed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use hoist::compose::document::{self, Kind, Node, Tag};
use hoist::diagnostic::SourceMap;
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn hoist(dir: &Path, args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_hoist"))
        .args(args)
        .current_dir(dir)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", "/root")
        .output()
        .expect("hoist runs");
    String::from_utf8(output.stdout).expect("text")
}

fn schema(name: &str) -> Value {
    let text = std::fs::read_to_string(root().join("schemas").join(name)).expect("it is checked in");
    serde_json::from_str(&text).expect("JSON")
}

/// What is wrong with `value`: as much of draft 7 as the schemas use, and a panic for more.
fn judge(value: &Value, schema: &Value, whole: &Value, path: &str) -> Option<String> {
    let wrong = |what: &str| Some(format!("{path}: {what}: {value}"));
    let matches = |pattern: &Value, text: &str| {
        regex::Regex::new(pattern.as_str().expect("text")).expect("a pattern").is_match(text)
    };
    for (word, rule) in schema.as_object().expect("a schema is an object") {
        let found = match word.as_str() {
            "$schema"
            | "title"
            | "description"
            | "definitions"
            | "additionalProperties"
            | "patternProperties" => None,
            "$ref" => {
                let target = rule.as_str().expect("text").trim_start_matches('#');
                judge(value, whole.pointer(target).expect("it is defined"), whole, path)
            }
            "type" => {
                let right = match rule.as_str().expect("text") {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "boolean" => value.is_boolean(),
                    "null" => value.is_null(),
                    "number" => value.is_number(),
                    "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
                    other => panic!("type {other}"),
                };
                if right { None } else { wrong(&format!("is no {rule}")) }
            }
            "enum" if !rule.as_array().expect("a list").contains(value) => {
                wrong(&format!("is none of {rule}"))
            }
            "pattern" if !value.as_str().is_none_or(|text| matches(rule, text)) => wrong("does not match"),
            "minimum" if value.as_f64() < rule.as_f64() => wrong("is too small"),
            "maximum" if value.as_f64() > rule.as_f64() => wrong("is too big"),
            "enum" | "pattern" | "minimum" | "maximum" => None,
            "anyOf" => {
                let all: Option<Vec<String>> = rule
                    .as_array()
                    .expect("a list")
                    .iter()
                    .map(|one| judge(value, one, whole, path))
                    .collect();
                all.and_then(|all| wrong(&all.join(" and ")))
            }
            "items" => value
                .as_array()
                .into_iter()
                .flatten()
                .enumerate()
                .find_map(|(index, item)| judge(item, rule, whole, &format!("{path}.{index}"))),
            "propertyNames" => value.as_object().into_iter().flatten().find_map(|(key, _)| {
                let short = rule["minLength"].as_u64().is_some_and(|least| (key.len() as u64) < least);
                let odd = rule.get("pattern").is_some_and(|pattern| !matches(pattern, key));
                if short || odd { wrong(&format!("`{key}` is no name")) } else { None }
            }),
            "required" => rule.as_array().expect("a list").iter().find_map(|key| {
                let there = value.get(key.as_str().expect("text")).is_some() || !value.is_object();
                if there { None } else { wrong(&format!("lacks {key}")) }
            }),
            "properties" => value.as_object().into_iter().flatten().find_map(|(key, item)| {
                let extra = key.starts_with("x-") && schema.get("patternProperties").is_some();
                match rule.get(key) {
                    Some(rule) => judge(item, rule, whole, &format!("{path}.{key}")),
                    None if extra || schema["additionalProperties"] != false => None,
                    None => wrong(&format!("has an unknown key `{key}`")),
                }
            }),
            other => panic!("the schema says `{other}`"),
        };
        if found.is_some() {
            return found;
        }
    }
    // A mapping from any name.
    if schema.get("properties").is_none()
        && let Some(rule) = schema.get("additionalProperties")
    {
        return value
            .as_object()
            .into_iter()
            .flatten()
            .find_map(|(key, item)| judge(item, rule, whole, &format!("{path}.{key}")));
    }
    None
}

/// The documents of a compose file as the loader reads them; none when it cannot.
fn documents(file: &Path) -> Option<Vec<Value>> {
    let text = std::fs::read_to_string(file).ok()?;
    let mut sources = SourceMap::default();
    let id = sources.add(file, "", text);
    let all = document::parse(id, &sources).ok()?;
    Some(all.iter().map(json).filter(Value::is_object).collect())
}

fn json(node: &Node) -> Value {
    match &node.kind {
        Kind::Null => Value::Null,
        Kind::Bool(flag) => (*flag).into(),
        Kind::Int(number) => serde_json::Number::from_i128(*number).map_or(Value::Null, Value::Number),
        Kind::Float(number) => (*number).into(),
        Kind::Timestamp(text) | Kind::Text(text) => text.as_str().into(),
        Kind::List(items) => items.iter().map(json).collect(),
        // `!reset` is no value, and nothing that a JSON Schema could speak of.
        Kind::Map(entries) => entries
            .iter()
            .filter(|(_, entry)| entry.node.tag != Some(Tag::Reset))
            .map(|(key, entry)| (key.clone(), json(&entry.node)))
            .collect::<serde_json::Map<String, Value>>()
            .into(),
    }
}

fn folders() -> Vec<PathBuf> {
    let own = std::fs::read_dir(root().join("tests/fixtures/config")).expect("fixtures");
    // The conformance cases, where they stand beside the sources.
    let shared = std::fs::read_dir(root().join("../shared/conformance/cases")).into_iter().flatten();
    let all = own.chain(shared).map(|entry| entry.expect("an entry").path());
    let mut all: Vec<PathBuf> = all.filter(|path| path.is_dir()).collect();
    all.sort();
    all
}

#[test]
fn the_schema_of_compose_files_is_current() {
    let printed = hoist(root(), &["schema", "compose"]);
    let there = std::fs::read_to_string(root().join("schemas/compose.json")).expect("it is checked in");
    assert!(printed == there, "run `hoist schema compose > schemas/compose.json`");
}

#[test]
fn what_docker_compose_accepts_the_schema_accepts() {
    let schema = schema("compose.json");
    let (mut judged, mut wrong) = (0, Vec::new());
    for folder in folders() {
        // A null in a further file only keeps what was there, which no schema of one file can know.
        let null = folder.file_name().is_some_and(|name| name.to_string_lossy().contains("null"));
        if null || folder.join("rejected.txt").exists() {
            continue;
        }
        for name in ["compose.yaml", "compose.override.yaml"] {
            for document in documents(&folder.join(name)).unwrap_or_default() {
                judged += 1;
                if let Some(why) = judge(&document, &schema, &schema, "") {
                    wrong.push(format!("{}/{name}{why}", folder.display()));
                }
            }
        }
    }
    assert!(judged > 100, "only {judged} documents were looked at");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_the_loader_refuses_for_its_shape_the_schema_refuses() {
    let schema = schema("compose.json");
    let shapes: BTreeSet<&str> = ["unknown-key", "unknown-value"].into();
    let mut judged = 0;
    let broken = std::fs::read_dir(root().join("tests/fixtures/diagnostics")).expect("fixtures");
    let broken = broken.map(|entry| entry.expect("an entry").path());
    let rejected = folders().into_iter().filter(|folder| folder.join("rejected.txt").exists());
    for folder in rejected.chain(broken) {
        let file = folder.join("compose.yaml");
        let Some(documents) = documents(&file).filter(|all| all.len() == 1) else { continue };
        // Text with a variable in it is right wherever the schema looks.
        if std::fs::read_to_string(&file).is_ok_and(|text| text.contains('$')) {
            continue;
        }
        let said = hoist(&folder, &["-f", "compose.yaml", "config", "--diagnostics", "json"]);
        let said: Value = serde_json::from_str(&said).expect("JSON");
        let all = said.as_array().expect("a list").iter();
        let errors: Vec<&str> = all
            .filter(|one| one["severity"] == "error")
            // What stands in a file that this one extends or includes is not this one's shape.
            .filter(|one| one["at"]["file"].as_str().is_none_or(|at| at.ends_with("compose.yaml")))
            .map(|one| one["code"].as_str().expect("text"))
            .collect();
        if !errors.is_empty() && errors.iter().all(|code| shapes.contains(code)) {
            judged += 1;
            assert!(judge(&documents[0], &schema, &schema, "").is_some(), "{}: {said}", file.display());
        }
    }
    assert!(judged > 10, "only {judged} files were looked at");
}

#[test]
fn what_is_printed_is_as_its_schema_says() {
    let explain = schema("explain.json");
    let diagnostics = schema("diagnostics.json");
    // Two processes each: one folder in eight is enough.
    for folder in folders().into_iter().step_by(8) {
        let said = hoist(&folder, &["config", "--diagnostics", "json"]);
        let said: Value = serde_json::from_str(&said).expect("JSON");
        assert_eq!(judge(&said, &diagnostics, &diagnostics, ""), None, "{}", folder.display());
        if said.as_array().is_some_and(|all| all.iter().all(|one| one["severity"] != "error")) {
            let text = hoist(&folder, &["config", "--explain", "--format", "json"]);
            if let Ok(all) = serde_json::from_str::<Value>(&text) {
                assert_eq!(judge(&all, &explain, &explain, ""), None, "{}", folder.display());
            }
        }
    }
}

#[test]
fn every_schema_is_printed_as_it_is_checked_in() {
    let files = std::fs::read_dir(root().join("schemas")).expect("the schemas");
    for file in files.map(|entry| entry.expect("an entry").path()) {
        let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
        let there = std::fs::read_to_string(&file).expect("a schema");
        assert!(
            hoist(root(), &["schema", &name]) == there,
            "run `hoist schema {name} > schemas/{name}.json`"
        );
    }
}

#[test]
fn the_version_is_as_its_schema_says() {
    let said = hoist(root(), &["version", "--format", "json"]);
    assert_eq!(wrong(&said, "version.json"), None);
}

/// What is wrong with the first line that is not as the schema says.
fn wrong(lines: &str, name: &str) -> Option<String> {
    let schema = schema(name);
    assert!(!lines.is_empty(), "nothing to look at for {name}");
    lines.lines().find_map(|line| {
        let value = serde_json::from_str(line).expect(line);
        judge(&value, &schema, &schema, name)
    })
}

mod root {
    use super::wrong;
    use crate::support::{TestEnvironment, require};

    #[test]
    fn what_verbs_print_for_programs_is_as_its_schema_says() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(
            "
services:
  web:
    image: 'busybox:latest'
    command: [sleep, '1000']
    stop_signal: SIGKILL
    ports: ['127.0.0.1:8080:80', '81/udp']
    volumes: ['data:/data', '.:/here:ro']
    healthcheck: {test: [CMD, 'true'], interval: 1s}
  job: {image: 'busybox:latest', command: [sh, -c, 'echo printed; exit 1']}
volumes: {data: {labels: {a: b}}}
",
        );
        let events = env.start(&["events", "--json"]);
        let up = env.hoist(&["--progress", "json", "up", "-d", "--wait", "web"]);
        assert_eq!(up.code, 0, "{}", up.stderr);
        assert_eq!(wrong(&up.stderr, "progress.json"), None);
        env.hoist(&["run", "job"]).fails_with(1);
        env.hoist(&["up", "job"]).ok();
        assert_eq!(wrong(&env.hoist(&["logs", "--format", "json", "job"]).ok(), "logs.json"), None);
        events.wait_for_line("a start", |line| line.contains("\"action\":\"start\""));
        assert_eq!(wrong(&events.stdout(), "events.json"), None);
        for (verb, name) in [
            (&["ps", "-a", "--format", "json"][..], "ps.json"),
            (&["images", "--format", "json"], "images.json"),
            (&["ls", "-a", "--format", "json"], "ls.json"),
            (&["volumes", "--format", "json"], "volumes.json"),
            (&["volume", "ls", "--format", "json"], "volumes.json"),
            (&["stats", "--no-stream", "--format", "json"], "stats.json"),
            (&["image", "ls", "--format", "json"], "image-ls.json"),
            (&["image", "history", "--format", "json", "busybox"], "image-history.json"),
            (&["system", "df", "--format", "json"], "system-df.json"),
        ] {
            assert_eq!(wrong(&env.hoist(verb).ok(), name), None, "{verb:?}");
        }
        let volume = env.hoist(&["volume", "inspect", "project_data"]).ok().replace('\n', " ");
        assert_eq!(wrong(&volume, "volume-inspect.json"), None);
        env.write("compose.yaml", "services: {web: {imag: x}}");
        let failed = env.hoist(&["--progress", "json", "up", "-d"]).fails_with(1);
        assert_eq!(wrong(&failed, "progress.json"), None);
        assert!(failed.contains("unknown-key"), "{failed}");
    }
}
