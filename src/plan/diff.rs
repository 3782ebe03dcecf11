//! Why a configuration differs, in the user's words.
//!
//! Two specs are compared as trees of values; paths are renamed to the compose
//! file's words. Values of variables that look like secrets are not shown.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::spec::ContainerSpec;

/// Differences that are listed; the rest is counted.
const LISTED: usize = 4;
/// Characters of a value that are shown.
const SHOWN: usize = 48;
/// Variables with one of these in their name are not shown.
const SECRET: [&str; 6] = ["PASS", "SECRET", "TOKEN", "KEY", "CREDENTIAL", "AUTH"];

/// What differs between the spec a container was made from and the one it would get now.
///
/// When the old one is not known, or nothing an engine sees differs (such as
/// `develop`), it only says that the configuration changed.
pub(super) fn configuration(before: Option<&ContainerSpec>, now: &ContainerSpec) -> String {
    let unknown = || "its configuration changed".to_owned();
    let Some(before) = before else { return unknown() };
    let mut changes = Vec::new();
    compare("", &tree(before), &tree(now), &mut changes);
    if changes.is_empty() {
        return unknown();
    }
    let more = changes.len().saturating_sub(LISTED);
    changes.truncate(LISTED);
    let text = changes.join(", ");
    if more > 0 { format!("{text} and {more} more") } else { text }
}

/// A spec in the compose file's words: what is the same for all replicas, and what the config hash is about.
fn tree(spec: &ContainerSpec) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    let Ok(Value::Object(fields)) = serde_json::to_value(spec) else { return all };
    for (key, value) in fields {
        match key.as_str() {
            // Names, origin, and content that the hash does not cover.
            "name" | "inherit_anonymous_from" | "files" | "expose" | "links" => {}
            "process" | "resources" | "security" => {
                if let Value::Object(inner) = value {
                    all.extend(inner.into_iter().map(|(k, v)| (word(&k).to_owned(), v)));
                }
            }
            "labels" => {
                all.insert(key, own_labels(value));
            }
            "mounts" => {
                all.insert("volumes".into(), keyed(value, "target"));
            }
            "network" => network(value, &mut all),
            _ => {
                all.insert(word(&key).to_owned(), value);
            }
        }
    }
    if let Some(Value::Array(pairs)) = all.remove("environment") {
        let pairs = pairs.into_iter().filter_map(|pair| {
            let key = pair.get(0)?.as_str()?.to_owned();
            Some((key, pair.get(1).cloned().unwrap_or_default()))
        });
        all.insert("environment".into(), Value::Object(pairs.collect()));
    }
    all
}

/// The compose file's word for a field of a spec.
fn word(field: &str) -> &str {
    match field {
        "env" => "environment",
        "health" => "healthcheck",
        "log" => "logging",
        "memory" => "mem_limit",
        "memory_reservation" => "mem_reservation",
        "memory_swap" => "memswap_limit",
        "nano_cpus" => "cpus",
        "pids" => "pids_limit",
        "pid_mode" => "pid",
        "ipc_mode" => "ipc",
        "uts_mode" => "uts",
        "dns_options" => "dns_opt",
        other => other,
    }
}

fn own_labels(labels: Value) -> Value {
    match labels {
        Value::Object(all) => {
            Value::Object(all.into_iter().filter(|(k, _)| !k.starts_with("com.docker.compose.")).collect())
        }
        other => other,
    }
}

/// A list of objects as a map by one of their fields.
fn keyed(list: Value, key: &str) -> Value {
    let Value::Array(items) = list else { return list };
    let mut map = Map::new();
    for item in items {
        let name = item.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        map.insert(name, item);
    }
    Value::Object(map)
}

fn network(value: Value, all: &mut BTreeMap<String, Value>) {
    let Value::Object(mut network) = value else { return };
    match network.remove("endpoints") {
        Some(endpoints) => {
            let mut endpoints = keyed(endpoints, "network");
            if let Value::Object(map) = &mut endpoints {
                for endpoint in map.values_mut().filter_map(Value::as_object_mut) {
                    // The container's own name is among them.
                    if let Some(Value::Array(aliases)) = endpoint.get_mut("aliases")
                        && !aliases.is_empty()
                    {
                        aliases.remove(0);
                    }
                    endpoint.remove("network");
                }
            }
            all.insert("networks".into(), endpoints);
        }
        None => {
            all.insert("network_mode".into(), Value::Object(network));
        }
    }
}

fn compare(
    path: &str,
    before: &BTreeMap<String, Value>,
    now: &BTreeMap<String, Value>,
    changes: &mut Vec<String>,
) {
    let mut keys: Vec<&String> = before.keys().chain(now.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let (old, new) = (before.get(key).unwrap_or(&Value::Null), now.get(key).unwrap_or(&Value::Null));
        if old == new {
            continue;
        }
        if path.contains('.') && (old.is_object() || new.is_object()) {
            if old.is_null() {
                changes.push(format!("{path} added"));
                continue;
            }
            if new.is_null() {
                changes.push(format!("{path} removed"));
                continue;
            }
        }
        let map = |value: &Value| match value {
            Value::Object(map) => Some(map.iter().map(|(k, v)| (k.clone(), v.clone())).collect()),
            Value::Null => Some(BTreeMap::new()),
            _ => None,
        };
        let either_is_map = old.is_object() || new.is_object();
        match (map(old), map(new)) {
            (Some(old), Some(new)) if either_is_map => compare(&path, &old, &new, changes),
            _ => changes.push(change(&path, old, new)),
        }
    }
}

fn change(path: &str, old: &Value, new: &Value) -> String {
    let upper = path.to_ascii_uppercase();
    if path.starts_with("environment.") && SECRET.iter().any(|word| upper.contains(word)) {
        return format!("{path} changed");
    }
    format!("{path}: {} → {}", show(old), show(new))
}

fn show(value: &Value) -> String {
    let text = match value {
        Value::Null => return "unset".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    };
    if text.is_empty() {
        return "\"\"".to_owned();
    }
    match text.char_indices().nth(SHOWN) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// The first digits of a digest.
pub(super) fn short(digest: &str) -> &str {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    hex.get(..12).unwrap_or(hex)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{EndpointSpec, MountSource, MountSpec, NetworkMode};

    fn spec() -> ContainerSpec {
        let mut spec = ContainerSpec { name: "p-a-1".into(), ..ContainerSpec::default() };
        spec.process.env = vec![("DEBUG".into(), Some("0".into())), ("DB_PASSWORD".into(), Some("a".into()))];
        spec.process.command = Some(vec!["sleep".into(), "1".into()]);
        spec.labels.insert("com.docker.compose.config-hash".into(), "1".into());
        let endpoint = EndpointSpec {
            network: "p_default".into(),
            aliases: vec!["p-a-1".into(), "a".into()],
            ..EndpointSpec::default()
        };
        spec.network = NetworkMode::Networks { endpoints: vec![endpoint] };
        spec
    }

    #[test]
    fn differences_are_told_in_the_words_of_the_compose_file() {
        let before = spec();
        let mut now = spec();
        now.name = "p-a-2".into();
        now.labels.insert("com.docker.compose.config-hash".into(), "2".into());
        if let NetworkMode::Networks { endpoints } = &mut now.network {
            endpoints[0].aliases[0] = "p-a-2".into();
        }
        assert_eq!(configuration(Some(&before), &now), "its configuration changed");
        now.process.env = vec![("DEBUG".into(), Some("1".into())), ("DB_PASSWORD".into(), Some("b".into()))];
        now.process.command = None;
        now.mounts.push(MountSpec {
            source: MountSource::Tmpfs { size: None, mode: None, options: vec![] },
            target: "/run".into(),
            read_only: false,
        });
        now.hostname = Some("h".into());
        insta::assert_snapshot!(configuration(Some(&before), &now), @r"
        command: sleep 1 → unset, environment.DB_PASSWORD changed, environment.DEBUG: 0 → 1, hostname: unset → h and 1 more
        ");
    }
}
