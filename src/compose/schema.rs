//! The shapes that a Compose file may have, as data, and the pass that checks a tree against them.
//!
//! The tables follow the Compose specification's JSON schema as the reference's
//! loader embeds it. They also are the source of the schema file for editors.

use crate::diagnostic::{Diagnostic, suggest};

use super::document::{Kind, Node};

/// What a value may be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// Anything.
    Any,
    /// Nothing.
    Null,
    /// A flag.
    Bool,
    /// A whole number in a range.
    Int(i64, i64),
    /// Any number, or one in a range.
    Num(f64, f64),
    /// Text.
    Str,
    /// One of these texts.
    Enum(&'static [&'static str]),
    /// A restart of the image policy, `every_…` included.
    PullPolicy,
    /// Text with at least one name in it.
    ContainerName,
    /// A list.
    List(&'static Shape),
    /// A list without repetitions.
    Unique(&'static Shape),
    /// A mapping from any non-empty key.
    Dict(&'static Shape),
    /// A mapping from names of services, networks and so on.
    Named(&'static Shape),
    /// A mapping with fixed keys.
    Object(&'static Object),
    /// Any of these.
    OneOf(&'static [Shape]),
}

/// A mapping with fixed keys; `x-*` is always allowed.
#[derive(Debug)]
pub(super) struct Object {
    /// Keys and what they take.
    pub(super) keys: &'static [(&'static str, Shape)],
    /// Keys that must be there.
    pub(super) required: &'static [&'static str],
    /// What it is called in messages.
    pub(super) name: &'static str,
}

/// What names of services, networks and so on are made of, for readers of the schema file.
pub(super) const NAME: &str = "^[a-zA-Z0-9._-]+$";
/// As [`container_name`].
pub(super) const CONTAINER_NAME: &str = "[a-zA-Z0-9][a-zA-Z0-9_.-]";
/// As [`pull_policy`].
pub(super) const PULL_POLICY: &str =
    "always|never|build|if_not_present|missing|refresh|daily|weekly|every_[0-9]+[wdhms]";

use Shape::{Any, Bool, Dict, Enum, List, Named, Null, Str, Unique};

const INT: Shape = Shape::Int(i64::MIN, i64::MAX);
const NUM: Shape = Shape::Num(f64::MIN, f64::MAX);
const BOOL_STR: Shape = Shape::OneOf(&[Bool, Str]);
const INT_STR: Shape = Shape::OneOf(&[INT, Str]);
const NUM_STR: Shape = Shape::OneOf(&[NUM, Str]);
const SCALAR: Shape = Shape::OneOf(&[Str, NUM, Bool, Null]);
const STRINGS: Shape = List(&Str);
const NAMES: Shape = Unique(&Str);
const ONE_OR_MORE: Shape = Shape::OneOf(&[Str, NAMES]);
const PAIRS: Shape = Shape::OneOf(&[Dict(&SCALAR), STRINGS]);
const COMMAND: Shape = Shape::OneOf(&[Null, Str, STRINGS]);
const TEXT_OPTIONS: Shape = Dict(&Shape::OneOf(&[Str, NUM]));
const HOSTS: Shape = Shape::OneOf(&[Dict(&Shape::OneOf(&[Str, STRINGS])), NAMES]);

macro_rules! object {
    ($vis:vis $name:ident, $title:literal, [$($req:literal),*], { $($key:literal : $shape:expr),* $(,)? }) => {
        $vis const $name: Shape = Shape::Object(&Object {
            name: $title,
            required: &[$($req),*],
            keys: &[$(($key, $shape)),*],
        });
    };
}

object!(FILE_REF, "a reference to a config or secret", [], {
    "source": Str, "target": Str, "uid": Str, "gid": Str, "mode": NUM_STR,
});
const FILE_REFS: Shape = List(&Shape::OneOf(&[Str, FILE_REF]));
object!(LIMIT, "a limit", ["soft", "hard"], { "soft": INT_STR, "hard": INT_STR });
const LIMITS: Shape = Dict(&Shape::OneOf(&[INT, Str, LIMIT]));

object!(BUILD, "`build`", [], {
    "context": Str, "dockerfile": Str, "dockerfile_inline": Str, "entitlements": STRINGS, "args": PAIRS,
    "ssh": PAIRS, "labels": PAIRS, "cache_from": STRINGS, "cache_to": STRINGS, "no_cache": BOOL_STR,
    "no_cache_filter": ONE_OR_MORE, "additional_contexts": PAIRS, "network": Str,
    "provenance": BOOL_STR, "sbom": BOOL_STR, "pull": BOOL_STR, "target": Str, "shm_size": INT_STR,
    "extra_hosts": HOSTS, "isolation": Str, "privileged": BOOL_STR, "secrets": FILE_REFS, "tags": NAMES,
    "ulimits": LIMITS, "platforms": NAMES,
});
object!(RATE, "a device rate", [], { "path": Str, "rate": INT_STR });
object!(WEIGHT, "a device weight", [], { "path": Str, "weight": INT });
object!(BLKIO, "`blkio_config`", [], {
    "weight": INT, "weight_device": List(&WEIGHT), "device_read_bps": List(&RATE),
    "device_read_iops": List(&RATE), "device_write_bps": List(&RATE), "device_write_iops": List(&RATE),
});
object!(CREDENTIAL_SPEC, "`credential_spec`", [], { "config": Str, "file": Str, "registry": Str });
object!(DEPENDENCY, "a dependency", ["condition"], {
    "condition": Enum(&["service_started", "service_healthy", "service_completed_successfully"]),
    "restart": BOOL_STR, "required": Bool,
});
object!(DEVICE, "a device", ["source"], { "source": Str, "target": Str, "permissions": Str });
object!(ENV_FILE, "an env file", ["path"], { "path": Str, "format": Str, "required": BOOL_STR });
object!(PROVIDER, "`provider`", ["type"], {
    "type": Str,
    "options": Dict(&Shape::OneOf(&[Str, NUM, Bool, List(&Shape::OneOf(&[Str, NUM, Bool]))])),
});
object!(GPU, "a device request", [], {
    "capabilities": NAMES, "count": INT_STR, "device_ids": NAMES, "driver": Str, "options": PAIRS,
});
object!(RESERVED_DEVICE, "a device request", ["capabilities"], {
    "capabilities": NAMES, "count": INT_STR, "device_ids": NAMES, "driver": Str, "options": PAIRS,
});
object!(HEALTHCHECK, "`healthcheck`", [], {
    "test": Shape::OneOf(&[Str, STRINGS]), "disable": BOOL_STR, "interval": Str, "timeout": Str,
    "retries": NUM_STR, "start_period": Str, "start_interval": Str,
});
object!(LOGGING, "`logging`", [], {
    "driver": Str, "options": Dict(&Shape::OneOf(&[Str, NUM, Null])),
});
object!(ENDPOINT, "a network attachment", [], {
    "aliases": NAMES, "interface_name": Str, "ipv4_address": Str, "ipv6_address": Str,
    "link_local_ips": NAMES, "mac_address": Str, "driver_opts": TEXT_OPTIONS, "priority": NUM,
    "gw_priority": NUM,
});
object!(MODEL_USE, "a model", [], { "endpoint_var": Str, "model_var": Str });
object!(PORT, "a port", [], {
    "name": Str, "mode": Str, "host_ip": Str, "target": INT_STR, "published": INT_STR, "protocol": Str,
    "app_protocol": Str,
});
object!(HOOK, "a hook", ["command"], {
    "command": COMMAND, "user": Str, "privileged": BOOL_STR, "working_dir": Str, "environment": PAIRS,
});
object!(PRE_START, "a hook", [], {
    "command": COMMAND, "image": Str, "user": Str, "privileged": BOOL_STR, "working_dir": Str,
    "environment": PAIRS, "per_replica": BOOL_STR,
});
object!(BIND, "`bind`", [], {
    "propagation": Str, "create_host_path": BOOL_STR,
    "recursive": Enum(&["enabled", "disabled", "writable", "readonly"]), "selinux": Enum(&["z", "Z"]),
});
object!(VOLUME_OPTIONS, "`volume`", [], { "labels": PAIRS, "nocopy": BOOL_STR, "subpath": Str });
object!(TMPFS_OPTIONS, "`tmpfs`", [], {
    "size": Shape::OneOf(&[Shape::Int(0, i64::MAX), Str]), "mode": NUM,
});
object!(IMAGE_OPTIONS, "`image`", [], { "subpath": Str });
object!(MOUNT, "a mount", ["type"], {
    "type": Enum(&["bind", "volume", "tmpfs", "cluster", "npipe", "image"]), "source": Str, "target": Str,
    "read_only": BOOL_STR, "consistency": Str, "bind": BIND, "volume": VOLUME_OPTIONS,
    "tmpfs": TMPFS_OPTIONS, "image": IMAGE_OPTIONS,
});
object!(EXEC, "`exec`", ["command"], {
    "command": COMMAND, "user": Str, "privileged": BOOL_STR, "working_dir": Str, "environment": PAIRS,
});
object!(WATCH, "a watch rule", ["path", "action"], {
    "path": Str, "action": Enum(&["rebuild", "sync", "restart", "sync+restart", "sync+exec"]), "target": Str,
    "exec": EXEC, "include": ONE_OR_MORE, "ignore": ONE_OR_MORE, "initial_sync": Bool,
});
object!(DEVELOP, "`develop`", [], { "watch": List(&WATCH) });
object!(ROLLOUT, "a rollout", [], {
    "parallelism": INT_STR, "delay": Str, "failure_action": Str, "monitor": Str,
    "max_failure_ratio": NUM_STR, "order": Enum(&["start-first", "stop-first"]),
});
object!(RESTART_POLICY, "`restart_policy`", [], {
    "condition": Str, "delay": Str, "max_attempts": INT_STR, "window": Str,
});
object!(PREFERENCE, "a placement preference", [], { "spread": Str });
object!(PLACEMENT, "`placement`", [], {
    "constraints": STRINGS, "preferences": List(&PREFERENCE), "max_replicas_per_node": INT_STR,
});
object!(RESOURCE_LIMITS, "`limits`", [], { "cpus": NUM_STR, "memory": Str, "pids": INT_STR });
object!(DISCRETE, "a discrete resource", [], { "kind": Str, "value": NUM_STR });
object!(GENERIC, "a generic resource", [], { "discrete_resource_spec": DISCRETE });
object!(RESERVATIONS, "`reservations`", [], {
    "cpus": NUM_STR, "memory": Str, "generic_resources": List(&GENERIC), "devices": List(&RESERVED_DEVICE),
});
object!(RESOURCES, "`resources`", [], { "limits": RESOURCE_LIMITS, "reservations": RESERVATIONS });
object!(DEPLOY, "`deploy`", [], {
    "mode": Str, "endpoint_mode": Str, "replicas": INT_STR, "labels": PAIRS, "rollback_config": ROLLOUT,
    "update_config": ROLLOUT, "resources": RESOURCES, "restart_policy": RESTART_POLICY,
    "placement": PLACEMENT,
});
object!(EXTENDS, "`extends`", ["service"], { "service": Str, "file": Str });

object!(pub(super) SERVICE, "a service", [], {
    "develop": Shape::OneOf(&[DEVELOP, Null]), "deploy": Shape::OneOf(&[DEPLOY, Null]), "annotations": PAIRS,
    "attach": BOOL_STR, "build": Shape::OneOf(&[Str, BUILD]), "blkio_config": BLKIO, "cap_add": NAMES,
    "cap_drop": NAMES, "cgroup": Enum(&["host", "private"]), "cgroup_parent": Str, "command": COMMAND,
    "configs": FILE_REFS, "container_name": Shape::ContainerName,
    "cpu_count": Shape::OneOf(&[Str, Shape::Int(0, i64::MAX)]),
    "cpu_percent": Shape::OneOf(&[Str, Shape::Int(0, 100)]), "cpu_shares": NUM_STR, "cpu_quota": NUM_STR,
    "cpu_period": NUM_STR, "cpu_rt_period": NUM_STR, "cpu_rt_runtime": NUM_STR, "cpus": NUM_STR,
    "cpuset": Str, "credential_spec": CREDENTIAL_SPEC,
    "depends_on": Shape::OneOf(&[NAMES, Named(&DEPENDENCY)]), "device_cgroup_rules": NAMES,
    "devices": List(&Shape::OneOf(&[Str, DEVICE])), "dns": ONE_OR_MORE, "dns_opt": NAMES,
    "dns_search": ONE_OR_MORE, "domainname": Str, "entrypoint": COMMAND,
    "env_file": Shape::OneOf(&[Str, List(&Shape::OneOf(&[Str, ENV_FILE]))]),
    "label_file": Shape::OneOf(&[Str, STRINGS]), "environment": PAIRS,
    "expose": Unique(&Shape::OneOf(&[Str, NUM])), "extends": Shape::OneOf(&[Str, EXTENDS]),
    "provider": PROVIDER, "external_links": NAMES, "extra_hosts": HOSTS,
    "gpus": Shape::OneOf(&[Enum(&["all"]), List(&GPU)]), "group_add": Unique(&Shape::OneOf(&[Str, NUM])),
    "healthcheck": HEALTHCHECK, "hostname": Str, "image": Str, "init": BOOL_STR, "ipc": Str,
    "isolation": Str, "labels": PAIRS, "links": NAMES, "logging": LOGGING, "mac_address": Str,
    "mem_limit": NUM_STR, "mem_reservation": INT_STR, "mem_swappiness": INT_STR, "memswap_limit": NUM_STR,
    "network_mode": Str, "models": Shape::OneOf(&[NAMES, Named(&Shape::OneOf(&[MODEL_USE, Null]))]),
    "networks": Shape::OneOf(&[NAMES, Named(&Shape::OneOf(&[ENDPOINT, Null]))]),
    "oom_kill_disable": BOOL_STR, "oom_score_adj": Shape::OneOf(&[Str, Shape::Int(-1000, 1000)]),
    "pid": Shape::OneOf(&[Str, Null]), "pids_limit": NUM_STR, "platform": Str,
    "ports": Unique(&Shape::OneOf(&[NUM, Str, PORT])), "pre_start": List(&PRE_START),
    "post_start": List(&HOOK), "pre_stop": List(&HOOK), "privileged": BOOL_STR, "profiles": NAMES,
    "pull_policy": Shape::PullPolicy, "pull_refresh_after": Str, "read_only": BOOL_STR, "restart": Str,
    "runtime": Str, "scale": INT_STR, "security_opt": NAMES, "shm_size": NUM_STR, "secrets": FILE_REFS,
    "sysctls": PAIRS, "stdin_open": BOOL_STR, "stop_grace_period": Str, "stop_signal": Str,
    "storage_opt": Dict(&Any), "tmpfs": ONE_OR_MORE, "tty": BOOL_STR, "ulimits": LIMITS,
    "use_api_socket": Bool, "user": Str, "uts": Str, "userns_mode": Str,
    "volumes": Unique(&Shape::OneOf(&[Str, MOUNT])), "volumes_from": NAMES, "working_dir": Str,
});

object!(EXTERNAL_NAME, "`external`", [], { "name": Str });
const EXTERNAL: Shape = Shape::OneOf(&[Bool, Str, EXTERNAL_NAME]);
object!(POOL, "an address pool", [], {
    "subnet": Str, "ip_range": Str, "gateway": Str, "aux_addresses": Dict(&Str),
});
object!(IPAM, "`ipam`", [], { "driver": Str, "config": List(&POOL), "options": Dict(&Str) });
object!(NETWORK, "a network", [], {
    "name": Str, "driver": Str, "driver_opts": TEXT_OPTIONS, "ipam": IPAM, "external": EXTERNAL,
    "internal": BOOL_STR, "enable_ipv4": BOOL_STR, "enable_ipv6": BOOL_STR, "attachable": BOOL_STR,
    "labels": PAIRS,
});
object!(VOLUME, "a volume", [], {
    "name": Str, "driver": Str, "driver_opts": TEXT_OPTIONS, "external": EXTERNAL, "labels": PAIRS,
});
object!(SECRET, "a secret", [], {
    "name": Str, "environment": Str, "file": Str, "external": EXTERNAL, "labels": PAIRS, "driver": Str,
    "driver_opts": TEXT_OPTIONS, "template_driver": Str,
});
object!(CONFIG, "a config", [], {
    "name": Str, "content": Str, "environment": Str, "file": Str, "external": EXTERNAL, "labels": PAIRS,
    "template_driver": Str,
});
object!(MODEL, "a model", [], { "name": Str, "model": Str, "context_size": INT, "runtime_flags": STRINGS });
object!(INCLUDE, "an include", [], { "path": ONE_OR_MORE, "env_file": ONE_OR_MORE, "project_directory": Str });

object!(pub(super) PROJECT, "the top level", [], {
    "version": Str, "name": Str, "include": List(&Shape::OneOf(&[Str, INCLUDE])),
    "services": Named(&SERVICE), "networks": Named(&Shape::OneOf(&[NETWORK, Null])),
    "volumes": Named(&Shape::OneOf(&[VOLUME, Null])), "secrets": Named(&SECRET), "configs": Named(&CONFIG),
    "models": Named(&MODEL),
});

/// Logs everything in `root` that is not as the tables say.
pub(super) fn check(root: &Node, out: &mut Vec<Diagnostic>) {
    let mut path = Vec::new();
    value(root, &PROJECT, &mut path, out);
}

fn fits(node: &Node, shape: &Shape) -> bool {
    match (shape, &node.kind) {
        (Shape::Any, _)
        | (Shape::Null, Kind::Null)
        | (Shape::Bool, Kind::Bool(_))
        | (Shape::Int(..), Kind::Int(_))
        | (Shape::Num(..), Kind::Int(_) | Kind::Float(_))
        | (Shape::Str | Shape::Enum(_) | Shape::PullPolicy | Shape::ContainerName, Kind::Text(_))
        | (Shape::List(_) | Shape::Unique(_), Kind::List(_))
        | (Shape::Dict(_) | Shape::Named(_) | Shape::Object(_), Kind::Map(_)) => true,
        (Shape::Int(..), Kind::Float(f)) => f.fract() == 0.0,
        (Shape::OneOf(shapes), _) => shapes.iter().any(|s| fits(node, s)),
        _ => false,
    }
}

fn words(shape: &Shape, out: &mut Vec<String>) {
    let word = match shape {
        Shape::Any => "anything".to_owned(),
        Shape::Null => return,
        Shape::Bool => "true or false".to_owned(),
        Shape::Int(..) => "an integer".to_owned(),
        Shape::Num(..) => "a number".to_owned(),
        Shape::Str | Shape::PullPolicy | Shape::ContainerName => "a string".to_owned(),
        Shape::Enum(values) => values.iter().map(|v| format!("`{v}`")).collect::<Vec<_>>().join(", "),
        Shape::List(item) | Shape::Unique(item) => {
            if matches!(item, Shape::Str) { "a list of strings" } else { "a list" }.to_owned()
        }
        Shape::Dict(_) | Shape::Named(_) | Shape::Object(_) => "a mapping".to_owned(),
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

fn value<'a>(node: &'a Node, shape: &Shape, path: &mut Vec<&'a str>, out: &mut Vec<Diagnostic>) {
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
        (Shape::Int(low, high), Kind::Int(i)) if i < low || i > high => range(node, path, low, high, out),
        #[expect(clippy::cast_precision_loss, reason = "bounds are small")]
        (Shape::Num(low, high), Kind::Int(i)) if (*i as f64) < *low || *i as f64 > *high => {
            range(node, path, low, high, out);
        }
        (Shape::Num(low, high), Kind::Float(f)) if f.is_nan() || f < low || f > high => {
            range(node, path, low, high, out);
        }
        (Shape::Enum(values), Kind::Text(t)) if !values.contains(&t.as_str()) => {
            let list = values.iter().map(|v| format!("`{v}`")).collect::<Vec<_>>().join(", ");
            let mut d = Diagnostic::error(
                "unknown-value",
                format!("`{}` must be one of {list}, found `{t}`", path.join(".")),
            )
            .at(node.span, "not one of them");
            if let Some(near) = suggest::nearest(t, values.iter().copied()) {
                d = d.help(format!("did you mean `{near}`?"));
            }
            out.push(d);
        }
        (Shape::PullPolicy, Kind::Text(t)) if !pull_policy(t) => {
            out.push(
                Diagnostic::error("unknown-value", format!("`{}` is no pull policy: `{t}`", path.join(".")))
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
                path.push("[]");
                value(one, item, path, out);
                path.pop();
            }
            if matches!(shape, Shape::Unique(_)) {
                repeated(items, path, out);
            }
        }
        (Shape::Dict(item), Kind::Map(map)) => {
            for (key, e) in map {
                if key.is_empty() {
                    out.push(
                        Diagnostic::error("invalid-name", format!("`{}` has an empty key", path.join(".")))
                            .at(e.key, "a key is expected"),
                    );
                }
                path.push(key);
                value(&e.node, item, path, out);
                path.pop();
            }
        }
        (Shape::Named(item), Kind::Map(map)) => {
            for (key, e) in map {
                if path.is_empty() || !key.starts_with("x-") || !matches!(item, Shape::Object(_)) {
                    let ok = !key.is_empty()
                        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
                    if !ok {
                        out.push(
                            Diagnostic::error(
                                "invalid-name",
                                format!("`{key}` under `{}` is not a valid name", path.join(".")),
                            )
                            .at(e.key, "expected letters, digits, `.`, `_` and `-`"),
                        );
                    }
                }
                path.push(key);
                value(&e.node, item, path, out);
                path.pop();
            }
        }
        (Shape::Object(object), Kind::Map(map)) => {
            for (key, e) in map {
                if key.starts_with("x-") {
                    continue;
                }
                match object.keys.iter().find(|(name, _)| name == key) {
                    Some((_, shape)) => {
                        path.push(key);
                        value(&e.node, shape, path, out);
                        path.pop();
                    }
                    None => unknown(key, e.key, object, path, out),
                }
            }
            for key in object.required {
                if !map.contains_key(*key) {
                    out.push(
                        Diagnostic::error("missing-key", format!("`{}` needs `{key}`", path.join(".")))
                            .at(node.span, format!("`{key}` is missing")),
                    );
                }
            }
        }
        _ => {}
    }
}

fn mismatch(node: &Node, shape: &Shape, path: &[&str], out: &mut Vec<Diagnostic>) {
    let wanted = wanted(shape);
    let place = if path.is_empty() { "the top level".to_owned() } else { format!("`{}`", path.join(".")) };
    let mut d = Diagnostic::error("wrong-type", format!("{place} must be {wanted}, found {}", what(node)))
        .at(node.span, format!("expected {wanted}"));
    match (&node.kind, path) {
        (Kind::Int(_) | Kind::Float(_) | Kind::Bool(_), _) if wanted.contains("a string") => {
            d = d.help("put quotes around it to make it a string");
        }
        (Kind::Null, ["services", _]) => {
            d = d.help("indent the service's attributes below its name");
        }
        (Kind::List(_), _) if wanted == "a mapping" => {
            d = d.help("write `key: value` lines without a dash");
        }
        (Kind::Map(_), _) if wanted.starts_with("a list") => {
            d = d.help("start each item with a dash, `- item`");
        }
        _ => {}
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
    let text = format!("`{}` must be between {low} and {high}", path.join("."));
    out.push(Diagnostic::error("out-of-range", text).at(node.span, "out of range"));
}

fn repeated(items: &[Node], path: &[&str], out: &mut Vec<Diagnostic>) {
    // Lists of pairs and keyed lists are made unique before this, so what is left is a mistake.
    let mut seen: std::collections::HashMap<String, usize> = std::collections::HashMap::new();
    for (number, item) in items.iter().enumerate() {
        let key = match &item.kind {
            Kind::Text(t) => format!("s{t}"),
            Kind::Int(i) => format!("n{i}"),
            Kind::Float(f) => format!("n{f}"),
            _ => continue,
        };
        if let Some(first) = seen.insert(key, number) {
            out.push(
                Diagnostic::error(
                    "duplicate-item",
                    format!(
                        "`{}` has the same item twice: items at {first} and {number} are equal",
                        path.join(".")
                    ),
                )
                .at(item.span, "again here")
                .also(items[first].span, "first here"),
            );
        }
    }
}

fn unknown(
    key: &str,
    span: crate::diagnostic::Span,
    object: &Object,
    path: &[&str],
    out: &mut Vec<Diagnostic>,
) {
    let place = if path.is_empty() { "the top level".to_owned() } else { format!("`{}`", path.join(".")) };
    let mut d = Diagnostic::error("unknown-key", format!("{place} has no attribute `{key}`"))
        .at(span, format!("not an attribute of {}", object.name));
    let lower = key.to_ascii_lowercase().replace('-', "_");
    let names = || object.keys.iter().map(|(name, _)| *name);
    if let Some(near) = names().find(|n| *n == lower).or_else(|| suggest::nearest(&lower, names())) {
        d = d.help(format!("did you mean `{near}`?"));
    } else if let Shape::Object(service) = &SERVICE
        && path.is_empty()
        && service.keys.iter().any(|(name, _)| *name == key)
    {
        d = d.help(format!("`{key}` belongs to a service: indent it below one"));
    } else if let (Shape::Object(project), ["services", _]) = (&PROJECT, path)
        && project.keys.iter().any(|(name, _)| *name == key)
    {
        d = d.help(format!("`{key}` belongs to the top level: take its indentation away"));
    } else if path.is_empty() && is_service_like(key) {
        d = d.help("services stand below `services:`");
    }
    out.push(d);
}

fn is_service_like(key: &str) -> bool {
    matches!(key, "web" | "app" | "db" | "api" | "service" | "redis" | "postgres" | "nginx")
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
