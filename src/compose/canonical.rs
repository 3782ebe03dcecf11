//! Short forms become long ones, and what every long form has by default is filled in.
//!
//! Works on the merged tree after each document, so it must leave alone what is
//! canonical already. Every made value stands at the place of what it was made from.

use crate::diagnostic::{Diagnostic, Span};

use super::document::{Kind, Map, Node};
use super::merge::{Short, long_build, names, pairs};
use super::short;
use super::tree::{entry, get, get_mut, is_null, map_mut, node, scalar, section_mut, set, str, take, text};

/// Rewrites the whole model. `raw` text still has variables in it: what is taken apart only when
/// it is decoded, such as `key=value` lists, stays as it is written, and so does what cannot be.
pub(super) fn canonical(root: &mut Node, raw: bool, out: &mut Vec<Diagnostic>) {
    for (name, service) in section_mut(root, "services") {
        self::service(name, service, raw, out);
    }
    for (name, network) in section_mut(root, "networks") {
        if !raw {
            to_pairs(network, "labels");
        }
        external("networks", name, network, out);
    }
    for (name, volume) in section_mut(root, "volumes") {
        if !raw {
            if is_null(volume) {
                volume.kind = Kind::Map(Map::default());
            }
            to_pairs(volume, "labels");
        }
        external("volumes", name, volume, out);
    }
    for key in ["secrets", "configs"] {
        for (name, item) in section_mut(root, key) {
            external(key, name, item, out);
        }
    }
}

fn to_pairs(parent: &mut Node, key: &str) {
    if let Some(value) = get_mut(parent, key)
        && matches!(value.kind, Kind::List(_))
        && let Some(map) = pairs(value)
    {
        value.kind = Kind::Map(map);
    }
}

fn to_list(parent: &mut Node, key: &str) {
    if let Some(value) = get_mut(parent, key)
        && !matches!(value.kind, Kind::List(_) | Kind::Null | Kind::Map(_))
    {
        let one = take(value);
        value.kind = Kind::List(vec![one]);
    }
}

fn to_words(parent: &mut Node, key: &str, out: &mut Vec<Diagnostic>) {
    let Some(value) = get_mut(parent, key) else { return };
    let span = value.span;
    if let Kind::Text(line) = &value.kind {
        match short::words(line) {
            Ok(words) => value.kind = Kind::List(words.into_iter().map(|w| text(w, span)).collect()),
            Err(_) => out.push(
                Diagnostic::error("invalid-command", format!("the command line of `{key}` is not complete"))
                    .at(span, "a quote or bracket is not closed")
                    .help("close it, or write a list of words: `[\"sh\", \"-c\", \"…\"]` for a shell line"),
            ),
        }
    }
}

fn service(name: &str, service: &mut Node, raw: bool, out: &mut Vec<Diagnostic>) {
    if let Some(env) = get(service, "environment").and_then(Node::as_list) {
        for item in env {
            if let Some(key) = str(item).map(|s| s.split_once('=').map_or(s, |(k, _)| k))
                && key.ends_with([' ', '\t'])
            {
                out.push(
                    Diagnostic::error(
                        "invalid-variable",
                        format!(
                            "service `{name}` has an environment variable `{key}` whose name ends in a blank"
                        ),
                    )
                    .at(item.span, "remove the blank before `=`"),
                );
            }
        }
    }
    if !raw {
        for key in ["annotations", "environment", "labels", "sysctls"] {
            to_pairs(service, key);
        }
        to_list(service, "tmpfs");
    }
    for (key, kind) in [("depends_on", Short::DependsOn), ("networks", Short::Null), ("models", Short::Null)]
    {
        if let Some(value) = get_mut(service, key) {
            let old = take(value);
            *value = names(old, kind);
        }
    }
    for key in ["dns", "dns_search", "label_file", "env_file"] {
        to_list(service, key);
    }
    if let Some(Kind::List(items)) = get_mut(service, "dns").map(|n| &mut n.kind) {
        items.retain(|i| str(i) != Some(""));
    }
    if let Some(Kind::List(items)) = get_mut(service, "env_file").map(|n| &mut n.kind) {
        for item in items {
            let span = item.span;
            if let Kind::Text(path) = &item.kind {
                let mut long = Map::default();
                long.insert("path".into(), entry(text(path.clone(), span)));
                item.kind = Kind::Map(long);
            }
        }
    }
    if let Some(options) = get_mut(service, "provider").and_then(|p| get_mut(p, "options")).and_then(map_mut)
    {
        // An option without a value is none.
        options.retain(|_, e| e.node.as_list() != Some(&[]));
    }
    if !raw {
        commands(service, out);
    }
    if let Some(Kind::List(rules)) =
        get_mut(service, "develop").and_then(|d| get_mut(d, "watch")).map(|n| &mut n.kind)
    {
        for rule in rules {
            to_list(rule, "ignore");
            to_list(rule, "include");
            if !raw && let Some(exec) = get_mut(rule, "exec") {
                to_pairs(exec, "environment");
                to_words(exec, "command", out);
            }
        }
    }
    if !raw && let Some(deploy) = get_mut(service, "deploy") {
        to_pairs(deploy, "labels");
    }
    if let Some(build) = get_mut(service, "build") {
        let old = take(build);
        *build = long_build(old);
        if !raw {
            to_pairs(build, "args");
            to_pairs(build, "labels");
        }
        to_pairs(build, "additional_contexts");
        for (_, context) in section_mut(build, "additional_contexts") {
            if is_null(context) {
                let message = format!("service `{name}` has an additional context without a value");
                out.push(
                    Diagnostic::error("missing-key", message).at(context.span, "expected `name=context`"),
                );
            }
        }
        to_list(build, "no_cache_filter");
        ssh(build, out);
        files(build, "secrets");
    }
    files(service, "secrets");
    files(service, "configs");
    gpus(service);
    devices(service, out);
    ports(name, service, raw, out);
    volumes(name, service, out);
}

/// Command lines become words.
fn commands(service: &mut Node, out: &mut Vec<Diagnostic>) {
    for key in ["command", "entrypoint"] {
        to_words(service, key, out);
    }
    if let Some(test) = get_mut(service, "healthcheck").and_then(|h| get_mut(h, "test"))
        && let Kind::Text(line) = &test.kind
    {
        let words = vec![text("CMD-SHELL", test.span), text(line.clone(), test.span)];
        test.kind = Kind::List(words);
    }
    for key in ["pre_start", "post_start", "pre_stop"] {
        if let Some(Kind::List(hooks)) = get_mut(service, key).map(|n| &mut n.kind) {
            for hook in hooks {
                to_words(hook, "command", out);
                to_pairs(hook, "environment");
            }
        }
    }
}

/// `[NAME]` → `[{source: NAME}]`.
fn files(parent: &mut Node, key: &str) {
    if let Some(Kind::List(items)) = get_mut(parent, key).map(|n| &mut n.kind) {
        for item in items {
            let span = item.span;
            if let Kind::Text(source) = &item.kind {
                let mut long = Map::default();
                long.insert("source".into(), entry(text(source.clone(), span)));
                item.kind = Kind::Map(long);
            }
        }
    }
}

/// `[default, ID=PATH]` → a mapping.
fn ssh(build: &mut Node, out: &mut Vec<Diagnostic>) {
    let Some(value) = get_mut(build, "ssh") else { return };
    let Kind::List(items) = &value.kind else { return };
    for item in items {
        if let Some(id) = str(item)
            && id != "default"
            && !id.contains('=')
        {
            out.push(
                Diagnostic::error("invalid-ssh", format!("invalid ssh key `{id}`"))
                    .at(item.span, "expected `default` or `id=path`"),
            );
        }
    }
    to_pairs(build, "ssh");
}

fn gpus(service: &mut Node) {
    if let Some(gpus) = get_mut(service, "gpus")
        && str(gpus) == Some("all")
    {
        let span = gpus.span;
        let mut one = Map::default();
        one.insert("count".into(), entry(text("all", span)));
        gpus.kind = Kind::List(vec![node(Kind::Map(one), span)]);
    }
}

fn devices(service: &mut Node, out: &mut Vec<Diagnostic>) {
    let Some(Kind::List(items)) = get_mut(service, "devices").map(|n| &mut n.kind) else { return };
    for item in items {
        let span = item.span;
        let Kind::Text(spec) = &item.kind else { continue };
        let fields: Vec<&str> = spec.split(':').collect();
        let (source, target, permissions) = match fields.as_slice() {
            [one] => (*one, *one, "rwm"),
            [source, target] => (*source, *target, "rwm"),
            [source, target, permissions] => (*source, *target, *permissions),
            _ => {
                out.push(
                    Diagnostic::error(
                        "invalid-device",
                        format!("confusing device mapping `{spec}`, please use the long syntax"),
                    )
                    .at(span, "expected `HOST[:CONTAINER[:PERMISSIONS]]`"),
                );
                continue;
            }
        };
        let mut long = Map::default();
        long.insert("source".into(), entry(text(source, span)));
        long.insert("target".into(), entry(text(target, span)));
        long.insert("permissions".into(), entry(text(permissions, span)));
        item.kind = Kind::Map(long);
    }
}

fn ports(name: &str, service: &mut Node, raw: bool, out: &mut Vec<Diagnostic>) {
    let Some(Kind::List(items)) = get_mut(service, "ports").map(|n| &mut n.kind) else { return };
    if items.iter().all(|i| matches!(i.kind, Kind::Map(_))) {
        return;
    }
    let readable = |item: &Node| str(item).is_none_or(|spec| short::ports(spec).is_ok());
    if raw && !items.iter().all(readable) {
        return;
    }
    let mut long: Vec<Node> = Vec::with_capacity(items.len());
    for item in std::mem::take(items) {
        let span = item.span;
        let spec = match &item.kind {
            Kind::Text(s) => s.clone(),
            Kind::Int(i) => i.to_string(),
            Kind::Float(_) => {
                out.push(
                    Diagnostic::error(
                        "invalid-port",
                        format!("service `{name}` has a port that is no whole number"),
                    )
                    .at(span, "expected `[[IP:]HOST:]CONTAINER[/PROTOCOL]`")
                    .help("write `\"HOST:CONTAINER\"` in quotes, such as `\"8080:80\"`"),
                );
                continue;
            }
            _ => {
                long.push(item);
                continue;
            }
        };
        match short::ports(&spec) {
            Ok(ports) => long.extend(ports.into_iter().map(|p| port(p, span))),
            Err(problem) => {
                let mut d = Diagnostic::error(
                    "invalid-port",
                    format!("service `{name}` has an invalid port: {problem}"),
                )
                .at(span, "expected `[[IP:]HOST:]CONTAINER[/PROTOCOL]`");
                if let Some((address, port)) = spec.split_once(':')
                    && address.parse::<std::net::IpAddr>().is_ok()
                    && !port.contains(':')
                {
                    d = d.help(format!("after an address come both ports: `{address}:{port}:{port}`"));
                } else if problem.contains("Port:") {
                    d = d.help("a port is a number from 0 to 65535, or a range `FROM-TO`");
                }
                out.push(d);
            }
        }
    }
    *items = long;
}

fn port(p: short::Port, span: Span) -> Node {
    let mut long = Map::default();
    long.insert("mode".into(), entry(text("ingress", span)));
    if let Some(ip) = p.host_ip {
        long.insert("host_ip".into(), entry(text(ip, span)));
    }
    long.insert("target".into(), entry(node(Kind::Int(i128::from(p.target)), span)));
    if let Some(published) = p.published {
        long.insert("published".into(), entry(text(published, span)));
    }
    long.insert("protocol".into(), entry(text(p.protocol, span)));
    node(Kind::Map(long), span)
}

fn volumes(name: &str, service: &mut Node, out: &mut Vec<Diagnostic>) {
    let Some(Kind::List(items)) = get_mut(service, "volumes").map(|n| &mut n.kind) else { return };
    for item in items {
        let span = item.span;
        match &item.kind {
            Kind::Text(spec) => match short::volume(spec) {
                Ok(v) => item.kind = Kind::Map(volume(v, span)),
                Err(problem) => out.push(
                    Diagnostic::error(
                        "invalid-volume",
                        format!("service `{name}` has an invalid volume: {problem}"),
                    )
                    .at(span, "expected `[SOURCE:]TARGET[:OPTIONS]`"),
                ),
            },
            Kind::Map(_) => {
                if let Some(Kind::Text(target)) = get_mut(item, "target").map(|n| &mut n.kind) {
                    *target = if target.is_empty() { ".".to_owned() } else { short::clean(target) };
                }
            }
            _ => {}
        }
    }
}

fn volume(v: short::Volume, span: Span) -> Map {
    let mut long = Map::default();
    let mut put = |key: &str, value: Node| drop(long.insert(key.to_owned(), entry(value)));
    put("type", text(v.kind, span));
    if let Some(source) = v.source {
        put("source", text(source, span));
    }
    put("target", text(v.target, span));
    if v.read_only {
        put("read_only", node(Kind::Bool(true), span));
    }
    if v.kind == "bind" || v.selinux.is_some() || v.propagation.is_some() {
        let mut bind = Map::default();
        if v.kind == "bind" {
            bind.insert("create_host_path".into(), entry(node(Kind::Bool(true), span)));
        }
        if let Some(selinux) = v.selinux {
            bind.insert("selinux".into(), entry(text(selinux, span)));
        }
        if let Some(propagation) = v.propagation {
            bind.insert("propagation".into(), entry(text(propagation, span)));
        }
        put("bind", node(Kind::Map(bind), span));
    }
    if v.kind == "volume" && !v.tiny || v.nocopy {
        let mut options = Map::default();
        if v.nocopy {
            options.insert("nocopy".into(), entry(node(Kind::Bool(true), span)));
        }
        put("volume", node(Kind::Map(options), span));
    }
    long
}

/// `external: {name: X}` → `external: true`, `name: X`.
fn external(section: &str, name: &str, resource: &mut Node, out: &mut Vec<Diagnostic>) {
    let Some(old) = get(resource, "external") else { return };
    let span = old.span;
    let Kind::Map(object) = &old.kind else { return };
    let given = object.get("name").map(|e| e.node.clone());
    out.push(
        Diagnostic::warning(
            "legacy-external-name",
            format!("`{section}.{name}.external.name` is deprecated in favor of `name`"),
        )
        .at(span, "write `external: true` and `name` beside it"),
    );
    let Some(map) = map_mut(resource) else { return };
    if let Some(given) = given {
        if let Some(own) = map.get("name")
            && scalar(&own.node) != scalar(&given)
        {
            out.push(
                Diagnostic::error(
                    "conflicting-names",
                    format!("`{section}.{name}` has two names: `name` and `external.name` conflict; only use `name`"),
                )
                .at(given.span, "one name here")
                .also(own.node.span, "another here"),
            );
        }
        set(map, "name", given);
    }
    set(map, "external", node(Kind::Bool(true), span));
}

/// Fills in what long forms have by default; runs once, after the last document.
pub(super) fn defaults(root: &mut Node) {
    for (_, service) in section_mut(root, "services") {
        if let Some(build) = get_mut(service, "build") {
            let span = build.span;
            if let Some(map) = map_mut(build)
                && map.get("context").is_none_or(|e| is_null(&e.node))
            {
                set(map, "context", text(".", span));
            }
        }
        if let Some(Kind::List(items)) = get_mut(service, "secrets").map(|n| &mut n.kind) {
            for item in items {
                let source = get(item, "source").and_then(scalar);
                if let (Some(source), Some(map)) = (source, map_mut(item))
                    && !map.contains_key("target")
                {
                    let span = map.get("source").map_or_else(Span::default, |e| e.node.span);
                    set(map, "target", text(format!("/run/secrets/{source}"), span));
                }
            }
        }
        if let Some(Kind::List(items)) = get_mut(service, "ports").map(|n| &mut n.kind) {
            for item in items {
                let span = item.span;
                if let Some(map) = map_mut(item) {
                    for (key, value) in [("protocol", "tcp"), ("mode", "ingress")] {
                        if !map.contains_key(key) {
                            set(map, key, text(value, span));
                        }
                    }
                }
            }
        }
        if let Some(Kind::List(items)) = get_mut(service, "gpus").map(|n| &mut n.kind) {
            items.iter_mut().for_each(all_devices);
        }
        if let Some(Kind::List(items)) = get_mut(service, "deploy")
            .and_then(|d| get_mut(d, "resources"))
            .and_then(|d| get_mut(d, "reservations"))
            .and_then(|d| get_mut(d, "devices"))
            .map(|n| &mut n.kind)
        {
            items.iter_mut().for_each(all_devices);
        }
        if let Some(Kind::List(items)) = get_mut(service, "env_file").map(|n| &mut n.kind) {
            for item in items {
                let span = item.span;
                if let Some(map) = map_mut(item)
                    && !map.contains_key("required")
                {
                    set(map, "required", node(Kind::Bool(true), span));
                }
            }
        }
    }
}

fn all_devices(request: &mut Node) {
    let span = request.span;
    if let Some(map) = map_mut(request)
        && !map.contains_key("count")
        && !map.contains_key("device_ids")
    {
        set(map, "count", node(Kind::Int(-1), span));
    }
}
