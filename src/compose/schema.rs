//! The shapes that a Compose file may have, as data. `conform` checks trees against them.
//!
//! The tables follow the Compose specification's JSON schema as the reference's
//! loader embeds it. They also are the source of the schema file for editors.

/// What a value may be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// Nothing.
    Null,
    /// A flag.
    Bool,
    /// A whole number in a range.
    Int(i64, i64),
    /// Any number.
    Num,
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
    /// A mapping from any key.
    Open(&'static Shape),
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
/// As `conform` checks it.
pub(super) const CONTAINER_NAME: &str = "[a-zA-Z0-9][a-zA-Z0-9_.-]";
/// As `conform` checks it.
pub(super) const PULL_POLICY: &str =
    "always|never|build|if_not_present|missing|refresh|daily|weekly|every_[0-9]+[wdhms]";

use Shape::{Bool, Dict, Enum, List, Named, Null, Num as NUM, Str, Unique};

const INT: Shape = Shape::Int(i64::MIN, i64::MAX);
const BOOL_STR: Shape = Shape::OneOf(&[Bool, Str]);
const INT_STR: Shape = Shape::OneOf(&[INT, Str]);
const NUM_STR: Shape = Shape::OneOf(&[NUM, Str]);
const SCALAR: Shape = Shape::OneOf(&[Str, NUM, Bool, Null]);
const STRINGS: Shape = List(&Str);
const NAMES: Shape = Unique(&Str);
const ONE_OR_MORE: Shape = Shape::OneOf(&[Str, NAMES]);
const PAIRS: Shape = Shape::OneOf(&[Dict(&SCALAR), STRINGS]);
/// As [`PAIRS`] where Docker Compose does not remove what a list repeats.
const PAIRS_ONCE: Shape = Shape::OneOf(&[Dict(&SCALAR), NAMES]);
const COMMAND: Shape = Shape::OneOf(&[Null, Str, STRINGS]);
const TEXT_OPTIONS: Shape = Shape::Open(&Shape::OneOf(&[Str, NUM]));
const WHOLE_OPTIONS: Shape = Shape::Open(&Shape::OneOf(&[Str, INT]));
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
    "ulimits": LIMITS, "platforms": STRINGS,
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
    "capabilities": NAMES, "count": INT_STR, "device_ids": NAMES, "driver": Str, "options": PAIRS_ONCE,
});
object!(RESERVED_DEVICE, "a device request", ["capabilities"], {
    "capabilities": NAMES, "count": INT_STR, "device_ids": NAMES, "driver": Str, "options": PAIRS_ONCE,
});
object!(HEALTHCHECK, "`healthcheck`", [], {
    "test": Shape::OneOf(&[Str, STRINGS]), "disable": BOOL_STR, "interval": Str, "timeout": Str,
    "retries": NUM_STR, "start_period": Str, "start_interval": Str,
});
object!(LOGGING, "`logging`", [], {
    "driver": Str, "options": Shape::Open(&Shape::OneOf(&[Str, NUM, Null])),
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
    "command": COMMAND, "user": Str, "privileged": BOOL_STR, "working_dir": Str, "environment": PAIRS_ONCE,
});
object!(PRE_START, "a hook", [], {
    "command": COMMAND, "image": Str, "user": Str, "privileged": BOOL_STR, "working_dir": Str,
    "environment": PAIRS_ONCE, "per_replica": BOOL_STR,
});
object!(BIND, "`bind`", [], {
    "propagation": Str, "create_host_path": BOOL_STR,
    "recursive": Enum(&["enabled", "disabled", "writable", "readonly"]), "selinux": Enum(&["z", "Z"]),
});
object!(VOLUME_OPTIONS, "`volume`", [], { "labels": PAIRS_ONCE, "nocopy": BOOL_STR, "subpath": Str });
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
    "command": COMMAND, "user": Str, "privileged": BOOL_STR, "working_dir": Str, "environment": PAIRS_ONCE,
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
    "storage_opt": Shape::Open(&Shape::OneOf(&[Str, INT, Null])), "tmpfs": ONE_OR_MORE, "tty": BOOL_STR, "ulimits": LIMITS,
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
    "name": Str, "driver": Str, "driver_opts": TEXT_OPTIONS, "external": EXTERNAL, "labels": PAIRS_ONCE,
});
object!(SECRET, "a secret", [], {
    "name": Str, "environment": Str, "file": Str, "external": EXTERNAL, "labels": PAIRS_ONCE, "driver": Str,
    "driver_opts": WHOLE_OPTIONS, "template_driver": Str,
});
object!(CONFIG, "a config", [], {
    "name": Str, "content": Str, "environment": Str, "file": Str, "external": EXTERNAL, "labels": PAIRS_ONCE,
    "template_driver": Str,
});
object!(MODEL, "a model", ["model"], { "name": Str, "model": Str, "context_size": INT, "runtime_flags": STRINGS });
object!(INCLUDE, "an include", [], { "path": ONE_OR_MORE, "env_file": ONE_OR_MORE, "project_directory": Str });

object!(pub(super) PROJECT, "the top level", [], {
    "version": Str, "name": Str, "include": List(&Shape::OneOf(&[Str, INCLUDE])),
    "services": Named(&SERVICE), "networks": Named(&Shape::OneOf(&[NETWORK, Null])),
    "volumes": Named(&Shape::OneOf(&[VOLUME, Null])), "secrets": Named(&SECRET), "configs": Named(&CONFIG),
    "models": Named(&MODEL),
});
