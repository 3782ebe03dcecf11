//! Rules of single resources that the tables of shapes cannot say.

use crate::diagnostic::Diagnostic;

use super::damage::Damage;
use super::document::{Kind, Node};
use super::tree::{get, is_null, scalar, section, str};

/// Checks the canonical tree of one model, after defaults.
pub(super) fn resources(root: &Node, damage: &Damage, out: &mut Vec<Diagnostic>) {
    for (name, e) in section(root, "services") {
        service(name, &e.node, out);
    }
    for (name, e) in section(root, "volumes") {
        let Some(map) = e.node.as_map() else { continue };
        let external = map.get("external").is_some_and(|x| matches!(x.node.kind, Kind::Bool(true)));
        if !external {
            continue;
        }
        for (key, other) in map {
            if !matches!(key.as_str(), "external" | "name") && !key.starts_with("x-") {
                let text =
                    format!("volumes.{name}: conflicting parameters \"external\" and \"{key}\" specified");
                out.push(
                    Diagnostic::error("conflicting-keys", text)
                        .at(other.key, "an external volume is only looked up by name")
                        .also(map["external"].key, "declared external here"),
                );
            }
        }
    }
    for (key, options) in
        [("configs", &["file", "environment", "content"][..]), ("secrets", &["file", "environment"])]
    {
        for (name, e) in section(root, key) {
            let Some(map) = e.node.as_map() else { continue };
            let given: Vec<&&str> = options.iter().filter(|o| map.contains_key(**o)).collect();
            let list = options.join("|");
            if given.len() > 1 {
                out.push(
                    Diagnostic::error(
                        "conflicting-keys",
                        format!("{key}.{name}: {list} attributes are mutually exclusive"),
                    )
                    .at(map[*given[1]].key, "remove one")
                    .also(map[*given[0]].key, "given here too"),
                );
            } else if given.is_empty()
                && !map.contains_key("external")
                && !map.contains_key("driver")
                && !damage.touches(key, name)
            {
                out.push(
                    Diagnostic::error(
                        "missing-key",
                        format!("{key}.{name}: one of {} must be set", options.join(", ")),
                    )
                    .at(e.key, "says nothing about its value"),
                );
            }
        }
    }
}

fn missing(out: &mut Vec<Diagnostic>, at: &Node, message: String, note: &str) {
    out.push(Diagnostic::error("missing-key", message).at(at.span, note.to_owned()));
}

fn list<'a>(parent: &'a Node, key: &str) -> &'a [Node] {
    get(parent, key).and_then(Node::as_list).unwrap_or_default()
}

fn service(name: &str, service: &Node, out: &mut Vec<Diagnostic>) {
    for port in list(service, "ports") {
        if get(port, "target").is_none_or(is_null) {
            missing(
                out,
                port,
                format!("service `{name}` has a port without `target`"),
                "missing a target port",
            );
        }
        if let Some(ip) = get(port, "host_ip").filter(|n| !is_null(n))
            && let Some(text) = scalar(ip)
            && text.parse::<std::net::IpAddr>().is_err()
        {
            let message = format!("service `{name}` has a port with an invalid ip address: {text}");
            out.push(Diagnostic::error("invalid-address", message).at(ip.span, "not an IP address"));
        }
    }
    for volume in list(service, "volumes") {
        let kind = get(volume, "type").and_then(str);
        if get(volume, "target").is_none_or(is_null) {
            missing(
                out,
                volume,
                format!("service `{name}` has a volume without `target`"),
                "missing a mount target",
            );
        }
        if kind == Some("bind") && get(volume, "source").is_none_or(is_null) {
            let message = format!("service `{name}` has a bind mount without `source`");
            missing(out, volume, message, "field source must not be empty");
        }
    }
    let groups = list(service, "group_add").iter().map(|n| ("a group", n));
    let exposed = list(service, "expose").iter().map(|n| ("an exposed port", n));
    let published = list(service, "ports").iter().filter_map(|p| get(p, "published"));
    for (what, value) in groups.chain(exposed).chain(published.map(|n| ("a published port", n))) {
        if matches!(value.kind, Kind::Float(_)) {
            let message = format!("service `{name}` has {what} that is no whole number");
            out.push(
                Diagnostic::error("wrong-value", message)
                    .at(value.span, "expected an integer, or text in quotes"),
            );
        }
    }
    for device in list(service, "devices") {
        if get(device, "target").is_none_or(is_null) {
            missing(
                out,
                device,
                format!("service `{name}` has a device without `target`"),
                "missing a mount target",
            );
        }
    }
    let reserved = get(service, "deploy")
        .and_then(|d| get(d, "resources"))
        .and_then(|r| get(r, "reservations"))
        .map(|r| list(r, "devices"))
        .unwrap_or_default();
    for request in list(service, "gpus").iter().chain(reserved) {
        if let (Some(count), Some(_)) = (get(request, "count"), get(request, "device_ids")) {
            out.push(
                Diagnostic::error(
                    "conflicting-keys",
                    format!("service `{name}`: \"count\" and \"device_ids\" attributes are exclusive"),
                )
                .at(count.span, "remove one"),
            );
        }
    }
    let rules = get(service, "develop").map(|d| list(d, "watch")).unwrap_or_default();
    for rule in rules {
        if let Some(path) = get(rule, "path")
            && str(path).is_some_and(str::is_empty)
        {
            out.push(
                Diagnostic::error(
                    "missing-key",
                    format!("service `{name}` watches no path: value can't be blank"),
                )
                .at(path.span, "expected a path"),
            );
        }
    }
}
