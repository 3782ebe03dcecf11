//! What Compose adds to a decoded project: default network, names, implied dependencies, values from outside.
//!
//! Source: `reference/model.md` §10 and §11.

use std::collections::BTreeMap;

use crate::model::{Dependency, Network, Project, Service};

use super::document::{Kind, Map, Node};
use super::tree::{entry, get, get_mut, map_mut, node, section_mut, set, str, text};

/// Values that files leave to the project's environment; happens also without normalisation of the rest.
pub(super) fn outside_values(service: &mut Service, env: &BTreeMap<String, String>) {
    for (key, value) in &mut service.environment {
        if value.is_none() {
            *value = env.get(key).cloned();
        }
    }
}

/// Completes the project. An empty text in `tree`, from which it was decoded, is no gap: as in
/// Docker Compose, `name: ""` gets no name.
pub(super) fn normalize(project: &mut Project, tree: &Node) {
    let env = project.environment.clone();
    let mut uses_default = false;
    for service in project.services.values_mut().chain(project.disabled.values_mut()) {
        self::service(service, &env, tree);
        uses_default |= service.networks.contains_key("default");
    }
    if uses_default && !project.networks.contains_key("default") {
        project.networks.insert("default".to_owned(), Network::default());
    }
    let name = project.name.clone();
    let full = |section: &str, key: &str, external: bool, own: &mut Option<String>| {
        let written = get(tree, section).and_then(|s| get(s, key)).and_then(|r| get(r, "name"));
        if own.is_none() && written.is_none_or(Node::is_null) {
            *own = Some(if external { key.to_owned() } else { format!("{name}_{key}") });
        }
    };
    for (key, n) in &mut project.networks {
        full("networks", key, n.external, &mut n.name);
    }
    for (key, v) in &mut project.volumes {
        full("volumes", key, v.external, &mut v.name);
    }
    for (section, items) in [("secrets", &mut project.secrets), ("configs", &mut project.configs)] {
        for (key, s) in items {
            full(section, key, s.external, &mut s.name);
        }
    }
}

/// As far as it can be done on a tree with variables in it: default network, names.
pub(super) fn raw(root: &mut Node, project: &str, env: &BTreeMap<String, String>) {
    let span = root.span;
    let mut uses_default = false;
    for (_, service) in section_mut(root, "services") {
        if let Some(build) = get_mut(service, "build") {
            raw_build(build, env);
        }
        let given = |key: &str| get(service, key).is_some_and(|n| !n.is_null());
        if !given("networks") && !given("network_mode") && !given("provider") {
            let mut networks = Map::default();
            networks.insert("default".to_owned(), entry(node(Kind::Null, span)));
            if let Some(map) = map_mut(service) {
                set(map, "networks", node(Kind::Map(networks), span));
            }
        }
        uses_default |= get(service, "networks").is_some_and(|n| get(n, "default").is_some());
    }
    let Some(map) = map_mut(root) else { return };
    set(map, "name", text(project, span));
    if uses_default {
        let networks =
            map.entry("networks".to_owned()).or_insert_with(|| entry(node(Kind::Map(Map::default()), span)));
        if let Some(networks) = map_mut(&mut networks.node) {
            networks.entry("default".to_owned()).or_insert_with(|| entry(node(Kind::Null, span)));
        }
    }
    for section in ["networks", "volumes", "secrets", "configs"] {
        for (key, resource) in section_mut(root, section) {
            if resource.is_null() {
                resource.kind = Kind::Map(Map::default());
            }
            let external = get(resource, "external").is_some_and(|e| matches!(e.kind, Kind::Bool(true)));
            if let Some(map) = map_mut(resource)
                && !map.contains_key("name")
            {
                let full = if external { key.clone() } else { format!("{project}_{key}") };
                set(map, "name", text(full, span));
            }
        }
    }
}

/// A Dockerfile where none is named, and arguments with values from outside.
fn raw_build(build: &mut Node, env: &BTreeMap<String, String>) {
    let span = build.span;
    match get_mut(build, "args").map(|args| &mut args.kind) {
        Some(Kind::Map(args)) => args.retain(|key, e| {
            if e.node.is_null()
                && let Some(value) = env.get(key)
            {
                e.node.kind = Kind::Text(value.clone());
            }
            !e.node.is_null()
        }),
        Some(Kind::List(args)) => args.retain(|arg| str(arg).is_some_and(|arg| arg.contains('='))),
        _ => {}
    }
    if let Some(map) = map_mut(build)
        && !map.contains_key("dockerfile")
        && !map.contains_key("dockerfile_inline")
    {
        set(map, "dockerfile", text("Dockerfile", span));
    }
}

fn service(service: &mut Service, env: &BTreeMap<String, String>, tree: &Node) {
    let written = get(tree, "services").and_then(|s| get(s, &service.name));
    let has = |key: &str| written.and_then(|s| get(s, key)).is_some_and(|n| !n.is_null());
    if service.networks.is_empty() && !has("network_mode") && !has("provider") {
        service.networks.insert("default".to_owned(), None);
    }
    if service.pull_policy.as_deref() == Some("if_not_present") {
        service.pull_policy = Some("missing".to_owned());
    }
    outside_values(service, env);
    if let Some(build) = &mut service.build {
        let given = |key: &str| written.and_then(|s| get(s, "build")).and_then(|b| get(b, key)).is_some();
        if !given("dockerfile") && !given("dockerfile_inline") {
            build.dockerfile = Some("Dockerfile".to_owned());
        }
        build.args.retain(|key, value| {
            if value.is_none() {
                *value = env.get(key).cloned();
            }
            value.is_some()
        });
    }
    for hook in &mut service.pre_start {
        if hook.image.is_none() {
            hook.image.clone_from(&service.image);
        }
    }
    let mut implied: Vec<(String, bool)> = Vec::new();
    for link in &service.links {
        implied.push((link.split(':').next().unwrap_or_default().to_owned(), true));
    }
    let spaces = [&service.network_mode, &service.ipc, &service.pid, &service.uts, &service.cgroup];
    for mode in spaces.into_iter().flatten() {
        if let Some(other) = mode.strip_prefix("service:") {
            implied.push((other.to_owned(), true));
        }
    }
    for from in &service.volumes_from {
        if !from.starts_with("container:") {
            implied.push((from.split(':').next().unwrap_or_default().to_owned(), false));
        }
    }
    for (name, restart) in implied {
        service.depends_on.entry(name).or_insert_with(|| Dependency { restart, ..Dependency::default() });
    }
}
