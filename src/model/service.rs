//! A service and everything that stands below it.

use std::collections::BTreeMap;

use super::record::record;
use super::record::{Field, Log, Out, Source, Style, no_text};
use super::{
    Bytes, Command, DeviceCount, Duration, Environment, FileMode, Hosts, Labels, Options, Ratio, SshKeys,
    Ulimit,
};

record! {
    /// One entry under `services`.
    open struct Service [
        /// The key under `services`.
        name: String,
    ] {
        /// Profiles that enable it; none means always.
        profiles: Vec<String> = "profiles",
        /// OCI annotations.
        annotations: Labels = "annotations",
        /// Whether `up` shows its output; none means yes.
        attach: Option<bool> = "attach",
        /// How the image is built.
        build: Option<Box<Build>> = "build",
        /// Rules of `watch`.
        develop: Option<Develop> = "develop",
        /// Block I/O limits.
        blkio_config: Option<Blkio> = "blkio_config",
        /// Capabilities added.
        cap_add: Vec<String> = "cap_add",
        /// Capabilities dropped.
        cap_drop: Vec<String> = "cap_drop",
        /// Parent cgroup.
        cgroup_parent: Option<String> = "cgroup_parent",
        /// Cgroup namespace, `host` or `private`.
        cgroup: Option<String> = "cgroup",
        /// Number of CPUs (Windows).
        cpu_count: i64 = "cpu_count",
        /// Percent of CPU (Windows).
        cpu_percent: Ratio = "cpu_percent",
        /// Microseconds.
        cpu_period: i64 = "cpu_period",
        /// Microseconds per period.
        cpu_quota: i64 = "cpu_quota",
        /// Microseconds.
        cpu_rt_period: i64 = "cpu_rt_period",
        /// Microseconds per period.
        cpu_rt_runtime: i64 = "cpu_rt_runtime",
        /// Number of CPUs, 0 is unlimited.
        cpus: Ratio = "cpus",
        /// `0-2,4`.
        cpuset: Option<String> = "cpuset",
        /// Relative weight.
        cpu_shares: i64 = "cpu_shares",
        /// Arguments of the entrypoint.
        command: Command = "command",
        /// Configs mounted.
        configs: Vec<ServiceFile> = "configs",
        /// Fixed container name.
        container_name: Option<String> = "container_name",
        /// Windows credentials.
        credential_spec: Option<CredentialSpec> = "credential_spec",
        /// Services to wait for, implied ones included after normalisation.
        depends_on: DependsOn = "depends_on",
        /// Deployment.
        deploy: Option<Deploy> = "deploy",
        /// `c 1:3 mr` lines.
        device_cgroup_rules: Vec<String> = "device_cgroup_rules",
        /// Host devices.
        devices: Vec<Device> = "devices",
        /// Name servers.
        dns: Vec<String> = "dns",
        /// Resolver options.
        dns_opt: Vec<String> = "dns_opt",
        /// Search domains.
        dns_search: Vec<String> = "dns_search",
        /// NIS domain.
        domainname: Option<String> = "domainname",
        /// What is executed.
        entrypoint: Command = "entrypoint",
        /// Plugin that provides the service instead of a container.
        provider: Option<Provider> = "provider",
        /// Variables, those of env files included once resolved.
        environment: Environment = "environment",
        /// Files of variables, until they are resolved.
        env_file: Vec<EnvFile> = "env_file",
        /// Ports documented but not published, `80` or `80-82/udp`.
        expose: Vec<String> = "expose",
        /// Containers of others to link.
        external_links: Vec<String> = "external_links",
        /// Additional `/etc/hosts` lines.
        extra_hosts: Hosts = "extra_hosts",
        /// Supplementary groups.
        group_add: Vec<String> = "group_add",
        /// GPUs.
        gpus: Vec<DeviceRequest> = "gpus",
        /// Host name.
        hostname: Option<String> = "hostname",
        /// Probe.
        healthcheck: Option<Healthcheck> = "healthcheck",
        /// Image reference.
        image: Option<String> = "image",
        /// Run an init as PID 1; none means the engine's default.
        init: Option<bool> = "init",
        /// IPC namespace.
        ipc: Option<String> = "ipc",
        /// Isolation technology (Windows).
        isolation: Option<String> = "isolation",
        /// Labels, those of label files included once resolved.
        labels: Labels = "labels",
        /// Files of labels, until they are resolved.
        label_file: Vec<String> = "label_file",
        /// Legacy links, `S` or `S:ALIAS`.
        links: Vec<String> = "links",
        /// Log driver.
        logging: Option<Logging> = "logging",
        /// Memory limit.
        mem_limit: Bytes = "mem_limit",
        /// Soft memory limit.
        mem_reservation: Bytes = "mem_reservation",
        /// Memory plus swap; -1 is unlimited.
        memswap_limit: Bytes = "memswap_limit",
        /// 0–100.
        mem_swappiness: Bytes = "mem_swappiness",
        /// Hardware address (legacy).
        mac_address: Option<String> = "mac_address",
        /// AI models used.
        models: BTreeMap<String, Option<ServiceModel>> = "models",
        /// `host`, `none`, `bridge`, `service:S`, `container:C` or a network name.
        network_mode: Option<String> = "network_mode",
        /// Networks attached, by key; no settings is `None`.
        networks: BTreeMap<String, Option<Endpoint>> = "networks",
        /// Do not kill on out-of-memory.
        oom_kill_disable: bool = "oom_kill_disable",
        /// −1000–1000.
        oom_score_adj: i64 = "oom_score_adj",
        /// PID namespace.
        pid: Option<String> = "pid",
        /// Number of tasks; -1 is unlimited, 0 is unset.
        pids_limit: i64 = "pids_limit",
        /// `os[/arch[/variant]]`.
        platform: Option<String> = "platform",
        /// Published ports, ranges of container ports expanded.
        ports: Vec<Port> = "ports",
        /// Everything allowed.
        privileged: bool = "privileged",
        /// `always`, `never`, `missing`, `build`, `daily`, …
        pull_policy: Option<String> = "pull_policy",
        /// Read-only root file system.
        read_only: bool = "read_only",
        /// `no`, `always`, `on-failure[:n]`, `unless-stopped`.
        restart: Option<String> = "restart",
        /// OCI runtime.
        runtime: Option<String> = "runtime",
        /// Number of replicas (legacy twin of `deploy.replicas`).
        scale: Option<i64> = "scale",
        /// Secrets mounted.
        secrets: Vec<ServiceFile> = "secrets",
        /// `opt=value` lines.
        security_opt: Vec<String> = "security_opt",
        /// Size of `/dev/shm`.
        shm_size: Bytes = "shm_size",
        /// Keep stdin open.
        stdin_open: bool = "stdin_open",
        /// Time between the stop signal and SIGKILL.
        stop_grace_period: Option<Duration> = "stop_grace_period",
        /// Signal that asks to stop.
        stop_signal: Option<String> = "stop_signal",
        /// Storage driver options.
        storage_opt: Options = "storage_opt",
        /// Kernel parameters.
        sysctls: Labels = "sysctls",
        /// `PATH[:opts]` memory mounts.
        tmpfs: Vec<String> = "tmpfs",
        /// Allocate a terminal.
        tty: bool = "tty",
        /// Process limits by name.
        ulimits: BTreeMap<String, Ulimit> = "ulimits",
        /// Mount the engine's API socket.
        use_api_socket: bool = "use_api_socket",
        /// `uid[:gid]` or names.
        user: Option<String> = "user",
        /// User namespace.
        userns_mode: Option<String> = "userns_mode",
        /// UTS namespace.
        uts: Option<String> = "uts",
        /// Mounts.
        volumes: Vec<Mount> = "volumes",
        /// `S[:ro]` or `container:C[:ro]`.
        volumes_from: Vec<String> = "volumes_from",
        /// Working directory.
        working_dir: Option<String> = "working_dir",
        /// One-off containers run before the first start.
        pre_start: Vec<Hook> = "pre_start",
        /// Commands run in the container after start.
        post_start: Vec<Hook> = "post_start",
        /// Commands run in the container before stop.
        pre_stop: Vec<Hook> = "pre_stop",
    }
}

impl Service {
    /// Number of containers wanted: `scale`, else `deploy.replicas`, else 1.
    pub fn replicas(&self) -> i64 {
        self.scale.or_else(|| self.deploy.as_ref().and_then(|d| d.replicas)).unwrap_or(1)
    }
}

record! {
    /// How an image is built.
    open struct Build {
        /// Directory, or address of a remote context.
        context: Option<String> = "context",
        /// Dockerfile, relative to the context.
        dockerfile: Option<String> = "dockerfile",
        /// Text of the Dockerfile.
        dockerfile_inline: Option<String> = "dockerfile_inline",
        /// Extra permissions.
        entitlements: Vec<String> = "entitlements",
        /// Build arguments.
        args: Environment = "args",
        /// Provenance attestation.
        provenance: Option<String> = "provenance",
        /// SBOM attestation.
        sbom: Option<String> = "sbom",
        /// SSH agents and keys.
        ssh: SshKeys = "ssh",
        /// Labels of the image.
        labels: Labels = "labels",
        /// Cache sources.
        cache_from: Vec<String> = "cache_from",
        /// Cache destinations.
        cache_to: Vec<String> = "cache_to",
        /// Use no cache.
        no_cache: bool = "no_cache",
        /// Stages built without cache.
        no_cache_filter: Vec<String> = "no_cache_filter",
        /// Named contexts.
        additional_contexts: Options = "additional_contexts",
        /// Refresh base images.
        pull: bool = "pull",
        /// Additional hosts during the build.
        extra_hosts: Hosts = "extra_hosts",
        /// Isolation technology.
        isolation: Option<String> = "isolation",
        /// Network of RUN.
        network: Option<String> = "network",
        /// Stage.
        target: Option<String> = "target",
        /// Secrets of RUN.
        secrets: Vec<BuildSecret> = "secrets",
        /// Size of `/dev/shm`.
        shm_size: Bytes = "shm_size",
        /// Additional tags.
        tags: Vec<String> = "tags",
        /// Process limits.
        ulimits: BTreeMap<String, Ulimit> = "ulimits",
        /// Platforms.
        platforms: Vec<String> = "platforms",
        /// Privileged RUN.
        privileged: bool = "privileged",
    }
}

/// A secret given to a build.
pub type BuildSecret = ServiceFile;

record! {
    /// A secret or config mounted into a container.
    open struct ServiceFile {
        /// Key in the project.
        source: Option<String> = "source",
        /// Path inside.
        target: Option<String> = "target",
        /// Owner.
        uid: Option<String> = "uid",
        /// Group.
        gid: Option<String> = "gid",
        /// Permission bits; none means 0444.
        mode: Option<FileMode> = "mode",
    }
}

record! {
    /// Development rules.
    open struct Develop {
        /// What `watch` does for which change.
        watch: Vec<Watch> = "watch",
    }
}

record! {
    /// One rule of `watch`.
    open struct Watch {
        /// Absolute path watched.
        path: Option<String> = "path",
        /// `rebuild`, `sync`, `restart`, `sync+restart`, `sync+exec`.
        action: Option<String> = "action",
        /// Path inside the container.
        target: Option<String> = "target",
        /// What to run after a sync.
        exec: WatchExec = "exec",
        /// Patterns taken.
        include: Vec<String> = "include",
        /// Patterns left out.
        ignore: Vec<String> = "ignore",
        /// Sync everything once at start.
        initial_sync: bool = "initial_sync",
    }
}

/// `develop.watch[].exec` has the fields of a hook.
pub type WatchExec = Hook;

record! {
    /// A command run around a container's life.
    open struct Hook {
        /// Words.
        command: Command = "command",
        /// Image (`pre_start` only).
        image: Option<String> = "image",
        /// User.
        user: Option<String> = "user",
        /// All capabilities.
        privileged: bool = "privileged",
        /// Directory.
        working_dir: Option<String> = "working_dir",
        /// Additional variables.
        environment: Environment = "environment",
        /// Once per replica (`pre_start` only).
        per_replica: bool = "per_replica",
    }
}

record! {
    /// Block I/O limits.
    open struct Blkio {
        /// 10–1000.
        weight: u16 = "weight",
        /// Per device.
        weight_device: Vec<BlkioWeight> = "weight_device",
        /// Bytes per second.
        device_read_bps: Vec<BlkioRate> = "device_read_bps",
        /// Operations per second.
        device_read_iops: Vec<BlkioRate> = "device_read_iops",
        /// Bytes per second.
        device_write_bps: Vec<BlkioRate> = "device_write_bps",
        /// Operations per second.
        device_write_iops: Vec<BlkioRate> = "device_write_iops",
    }
}

record! {
    /// Weight of a device.
    open struct BlkioWeight {
        /// Device.
        path: String = "path" | "Path" => always,
        /// 10–1000.
        weight: u16 = "weight" | "Weight" => always,
    }
}

record! {
    /// Rate of a device.
    open struct BlkioRate {
        /// Device.
        path: String = "path" | "Path" => always,
        /// Bytes or operations per second.
        rate: Bytes = "rate" | "Rate" => always,
    }
}

record! {
    /// Windows credentials.
    open struct CredentialSpec {
        /// Config holding it.
        config: Option<String> = "config",
        /// File holding it.
        file: Option<String> = "file",
        /// Registry key holding it.
        registry: Option<String> = "registry",
    }
}

/// Dependencies by service name.
pub type DependsOn = BTreeMap<String, Dependency>;

/// One dependency.
#[derive(Debug, Clone, PartialEq)]
pub struct Dependency {
    /// `service_started`, `service_healthy`, `service_completed_successfully`.
    pub condition: String,
    /// Restarting or recreating the dependency does the same to the dependent.
    pub restart: bool,
    /// A missing or failed dependency is an error.
    pub required: bool,
    /// `x-*` attributes.
    pub extensions: super::Extensions,
}

impl Default for Dependency {
    fn default() -> Self {
        Self {
            condition: "service_started".to_owned(),
            restart: false,
            required: true,
            extensions: super::Extensions::new(),
        }
    }
}

impl Field for Dependency {
    fn decode<S: Source>(node: &S, log: &mut Log<S>) -> Self {
        let mut this = Self::default();
        super::record::entries(node, log, |key, value, log| match key {
            "condition" => this.condition = String::decode(value, log),
            "restart" => this.restart = bool::decode(value, log),
            "required" => this.required = bool::decode(value, log),
            _ if key.starts_with("x-") => {
                this.extensions.insert(key.to_owned(), Field::decode(value, log));
            }
            _ => {}
        });
        this
    }
    fn render(&self, style: Style) -> Out {
        let mut fields = vec![("condition", Out::Str(self.condition.clone()))];
        if self.restart {
            fields.push(("restart", Out::Bool(true)));
        }
        fields.push(("required", Out::Bool(self.required)));
        let extensions = match style {
            Style::Json => Vec::new(),
            Style::Yaml => self.extensions.iter().map(|(k, v)| (k.clone(), v.render(style))).collect(),
        };
        Out::Record(fields, extensions)
    }
    fn omit(&self, _: Style) -> bool {
        false
    }
}
no_text!(Dependency, Option<Endpoint>, Option<ServiceModel>);

record! {
    /// Deployment.
    open struct Deploy {
        /// `replicated`, `global`, …
        mode: Option<String> = "mode",
        /// Number of containers.
        replicas: Option<i64> = "replicas",
        /// Labels of the swarm service.
        labels: Labels = "labels",
        /// Swarm update.
        update_config: Option<UpdateConfig> = "update_config",
        /// Swarm rollback.
        rollback_config: Option<UpdateConfig> = "rollback_config",
        /// Limits and reservations.
        resources: Resources = "resources",
        /// Overrides `restart`.
        restart_policy: Option<RestartPolicy> = "restart_policy",
        /// Swarm placement.
        placement: Placement = "placement",
        /// Swarm endpoint mode.
        endpoint_mode: Option<String> = "endpoint_mode",
    }
}

record! {
    /// How swarm rolls out a change.
    open struct UpdateConfig {
        /// Containers at a time.
        parallelism: Option<u64> = "parallelism",
        /// Between them.
        delay: Duration = "delay",
        /// `continue`, `rollback`, `pause`.
        failure_action: Option<String> = "failure_action",
        /// Time a task is watched.
        monitor: Duration = "monitor",
        /// Tolerated share of failures.
        max_failure_ratio: Ratio = "max_failure_ratio",
        /// `start-first`, `stop-first`.
        order: Option<String> = "order",
    }
}

/// Update and rollback have the same fields.
pub type RolloutConfig = UpdateConfig;

record! {
    /// Limits and reservations.
    open struct Resources {
        /// Upper bounds.
        limits: Option<Resource> = "limits",
        /// Guaranteed.
        reservations: Option<Resource> = "reservations",
    }
}

record! {
    /// Amounts.
    open struct Resource {
        /// Number of CPUs.
        cpus: Ratio = "cpus",
        /// Memory.
        memory: Bytes = "memory",
        /// Tasks; -1 is unlimited.
        pids: i64 = "pids",
        /// Devices (reservations only).
        devices: Vec<DeviceRequest> = "devices",
        /// Swarm resources.
        generic_resources: Vec<GenericResource> = "generic_resources",
    }
}

record! {
    /// A swarm resource.
    open struct GenericResource {
        /// A countable one.
        discrete_resource_spec: Option<DiscreteResource> = "discrete_resource_spec",
    }
}

record! {
    /// A countable swarm resource.
    open struct DiscreteResource {
        /// Kind.
        kind: String = "kind" => always,
        /// Amount.
        value: i64 = "value" => always,
    }
}

record! {
    /// Devices asked for by capability.
    closed struct DeviceRequest {
        /// `gpu`, `tpu`, …
        capabilities: Vec<String> = "capabilities",
        /// Driver.
        driver: Option<String> = "driver",
        /// How many; -1 is all.
        count: DeviceCount = "count",
        /// Which.
        device_ids: Vec<String> = "device_ids",
        /// Driver options.
        options: Options = "options",
    }
}

record! {
    /// Restarts.
    open struct RestartPolicy {
        /// `none`, `on-failure`, `any`.
        condition: Option<String> = "condition",
        /// Between attempts.
        delay: Option<Duration> = "delay",
        /// How often.
        max_attempts: Option<u64> = "max_attempts",
        /// After which a start counts as a success.
        window: Option<Duration> = "window",
    }
}

record! {
    /// Swarm placement.
    open struct Placement {
        /// Constraints.
        constraints: Vec<String> = "constraints",
        /// Preferences.
        preferences: Vec<PlacementPreference> = "preferences",
        /// At most this many per node.
        max_replicas_per_node: u64 = "max_replicas_per_node",
    }
}

record! {
    /// Swarm placement preference.
    open struct PlacementPreference {
        /// Label to spread over.
        spread: Option<String> = "spread",
    }
}

record! {
    /// A host device.
    open struct Device {
        /// Host path, or a CDI name.
        source: Option<String> = "source",
        /// Path inside.
        target: Option<String> = "target",
        /// Subset of `rwm`.
        permissions: Option<String> = "permissions",
    }
}

record! {
    /// An external plugin.
    open struct Provider {
        /// Name of the plugin.
        kind: Option<String> = "type",
        /// Flags.
        options: BTreeMap<String, Vec<String>> = "options",
    }
}

/// A file of variables.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EnvFile {
    /// Absolute path.
    pub path: String,
    /// Missing is fine.
    pub optional: bool,
    /// `raw` or none.
    pub format: Option<String>,
}

impl Field for EnvFile {
    fn decode<S: Source>(node: &S, log: &mut Log<S>) -> Self {
        let mut this = Self::default();
        super::record::entries(node, log, |key, value, log| match key {
            "path" => this.path = String::decode(value, log),
            "required" => this.optional = !bool::decode(value, log),
            "format" => this.format = Option::decode(value, log),
            _ => {}
        });
        this
    }
    fn render(&self, _: Style) -> Out {
        // A required file is printed in its short form, whatever its format: hashes depend on it.
        if !self.optional {
            return Out::Str(self.path.clone());
        }
        let mut fields = vec![("path", Out::Str(self.path.clone())), ("required", Out::Bool(!self.optional))];
        if let Some(format) = &self.format {
            fields.push(("format", Out::Str(format.clone())));
        }
        Out::Record(fields, Vec::new())
    }
    fn omit(&self, _: Style) -> bool {
        false
    }
}

record! {
    /// A health probe.
    open struct Healthcheck {
        /// Words, the first `CMD`, `CMD-SHELL` or `NONE`.
        test: Vec<String> = "test",
        /// Limit of one probe.
        timeout: Option<Duration> = "timeout",
        /// Between probes.
        interval: Option<Duration> = "interval",
        /// Failures in a row that make it unhealthy.
        retries: Option<u64> = "retries",
        /// During which failures do not count.
        start_period: Option<Duration> = "start_period",
        /// Interval during the start period.
        start_interval: Option<Duration> = "start_interval",
        /// No probe, also not the image's.
        disable: bool = "disable",
    }
}

record! {
    /// Log driver.
    open struct Logging {
        /// Driver.
        driver: Option<String> = "driver",
        /// Options.
        options: Options = "options",
    }
}

record! {
    /// Use of an AI model.
    open struct ServiceModel {
        /// Variable that gets the address.
        endpoint_var: Option<String> = "endpoint_var",
        /// Variable that gets the model's name.
        model_var: Option<String> = "model_var",
    }
}

record! {
    /// Attachment to a network.
    open struct Endpoint {
        /// Additional DNS names.
        aliases: Vec<String> = "aliases",
        /// Driver options.
        driver_opts: Options = "driver_opts",
        /// Highest gives the default route.
        gw_priority: i64 = "gw_priority",
        /// Name of the interface inside.
        interface_name: Option<String> = "interface_name",
        /// Fixed address.
        ipv4_address: Option<String> = "ipv4_address",
        /// Fixed address.
        ipv6_address: Option<String> = "ipv6_address",
        /// Further addresses.
        link_local_ips: Vec<String> = "link_local_ips",
        /// Hardware address.
        mac_address: Option<String> = "mac_address",
        /// Connect order, highest first.
        priority: i64 = "priority",
    }
}

record! {
    /// A published port.
    open struct Port {
        /// Name, informational.
        name: Option<String> = "name",
        /// `ingress` or `host`, informational.
        mode: Option<String> = "mode",
        /// Host address; none means all.
        host_ip: Option<String> = "host_ip",
        /// Port inside.
        target: u32 = "target",
        /// Host port or range; none means any free one.
        published: Option<String> = "published",
        /// `tcp`, `udp`, `sctp`.
        protocol: Option<String> = "protocol",
        /// Informational.
        app_protocol: Option<String> = "app_protocol",
    }
}

record! {
    /// A mount.
    open struct Mount {
        /// `bind`, `volume`, `tmpfs`, `image`, `npipe`, `cluster`.
        kind: Option<String> = "type",
        /// Host path, volume key or image; none means an anonymous volume.
        source: Option<String> = "source",
        /// Absolute path inside.
        target: Option<String> = "target",
        /// Attach read-only.
        read_only: bool = "read_only",
        /// Ignored by engines.
        consistency: Option<String> = "consistency",
        /// Settings of a bind.
        bind: Option<MountBind> = "bind",
        /// Settings of a volume.
        volume: Option<MountVolume> = "volume",
        /// Settings of a tmpfs.
        tmpfs: Option<MountTmpfs> = "tmpfs",
        /// Settings of an image mount.
        image: Option<MountImage> = "image",
    }
}

record! {
    /// Settings of a bind mount.
    open struct MountBind {
        /// `z`, `Z`.
        selinux: Option<String> = "selinux",
        /// `rprivate`, …
        propagation: Option<String> = "propagation",
        /// Make a missing directory.
        create_host_path: bool = "create_host_path",
        /// `enabled`, `disabled`, `writable`, `readonly`.
        recursive: Option<String> = "recursive",
    }
}

record! {
    /// Settings of a volume mount.
    open struct MountVolume {
        /// Labels of an anonymous volume.
        labels: Labels = "labels",
        /// Do not fill an empty volume from the image.
        nocopy: bool = "nocopy",
        /// Path inside the volume.
        subpath: Option<String> = "subpath",
    }
}

record! {
    /// Settings of a tmpfs mount.
    open struct MountTmpfs {
        /// Size.
        size: Bytes = "size",
        /// Permission bits, as a plain number.
        mode: u32 = "mode",
    }
}

record! {
    /// Settings of an image mount.
    open struct MountImage {
        /// Path inside the image.
        subpath: Option<String> = "subpath",
    }
}
