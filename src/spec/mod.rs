//! What a container, network or volume is asked to be: plain data, no behaviour.
//!
//! This is the one vocabulary between `plan` (which writes specs), `engine`
//! (which passes them on) and `runtime` (which carries them out). It exists so
//! that the built-in runtime and the engine adapters do not each keep a copy of
//! the same sixty fields; it knows nothing of compose files, and imports nothing
//! of ours. Every value is resolved: host paths are absolute, names are final,
//! variables are expanded. Units are in the types or in the field's doc.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

mod build;
pub use build::{BuildContext, BuildNetwork, BuildSecret, BuildSpec, DockerfileSource};

/// Everything an engine needs to create one container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// Unique name, without a leading slash.
    pub name: String,
    /// Image reference (`nginx:1.27`) or image id (`sha256:…`).
    pub image: String,
    /// `os[/arch[/variant]]`; none means the host's.
    pub platform: Option<String>,
    /// Labels, the `com.docker.compose.*` ones included.
    pub labels: BTreeMap<String, String>,
    /// OCI annotations.
    pub annotations: BTreeMap<String, String>,
    /// What runs.
    pub process: ProcessSpec,
    /// UTS host name; none means the short container id.
    pub hostname: Option<String>,
    /// NIS domain name.
    pub domainname: Option<String>,
    /// Mounts in the order they are attached.
    pub mounts: Vec<MountSpec>,
    /// Files put into the container before each start (secrets and configs given by value).
    pub files: Vec<FileSpec>,
    /// Containers whose mounts are taken over, with `read_only`.
    pub volumes_from: Vec<VolumesFrom>,
    /// Reuse the anonymous volumes of this container (recreation).
    pub inherit_anonymous_from: Option<String>,
    /// Network namespace and endpoints.
    pub network: NetworkMode,
    /// Published ports, one target port each; `published` may be a range to pick from.
    pub ports: Vec<PortSpec>,
    /// Ports announced but not published, as `80/tcp`.
    pub expose: Vec<String>,
    /// Upstream name servers instead of the host's.
    pub dns: Vec<IpAddr>,
    /// `resolv.conf` search domains instead of the host's.
    pub dns_search: Vec<String>,
    /// `resolv.conf` options.
    pub dns_options: Vec<String>,
    /// Extra `/etc/hosts` entries; the address may be `host-gateway`.
    pub extra_hosts: Vec<(String, String)>,
    /// `container:alias` pairs resolvable by this container only.
    pub links: Vec<(String, String)>,
    /// Limits.
    pub resources: ResourceSpec,
    /// Isolation.
    pub security: SecuritySpec,
    /// What the supervisor does after an exit.
    pub restart: RestartPolicy,
    /// Health probe; none means the image's, `Some` with [`HealthTest::None`] disables it.
    pub health: Option<HealthSpec>,
    /// Signal that asks the main process to stop (`SIGTERM`, `SIGRTMIN+3`, `15`); none means the image's or SIGTERM.
    pub stop_signal: Option<String>,
    /// Time between the stop signal and SIGKILL; none means 10 s.
    pub stop_grace_period: Option<Duration>,
    /// Where output goes.
    pub log: LogSpec,
    /// Remove the container and its anonymous volumes once it has exited.
    pub auto_remove: bool,
    /// OCI runtime to use instead of the engine's own (`runc`, `crun`, a path).
    pub runtime: Option<String>,
}

/// The first process of a container. `None` means “as the image says”.
#[expect(clippy::struct_excessive_bools, reason = "independent switches of the process")]
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessSpec {
    /// Entrypoint words; `Some([])` clears the image's.
    pub entrypoint: Option<Vec<String>>,
    /// Command words; `Some([])` clears the image's.
    pub command: Option<Vec<String>>,
    /// Environment in order; a value of `None` removes the image's variable.
    pub env: Vec<(String, Option<String>)>,
    /// Absolute working directory, created if missing.
    pub working_dir: Option<String>,
    /// `uid[:gid]` or names, looked up in the container's `/etc/passwd`.
    pub user: Option<String>,
    /// Supplementary groups, ids or names.
    pub group_add: Vec<String>,
    /// Allocate a pseudo-terminal.
    pub tty: bool,
    /// Keep standard input open (otherwise it is `/dev/null`).
    pub stdin_open: bool,
    /// Close stdin after the first attached client leaves (one-off containers).
    pub stdin_once: bool,
    /// Run a minimal init as PID 1 that reaps and forwards signals.
    pub init: bool,
}

/// An image to make of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommitSpec {
    /// `name[:tag]` of the image; none leaves it unnamed.
    pub reference: Option<String>,
    /// Who made it.
    pub author: String,
    /// Remark.
    pub message: String,
    /// Dockerfile instructions that change its config, one each.
    pub changes: Vec<String>,
    /// Freeze the container meanwhile.
    pub pause: bool,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MountSpec {
    /// What is mounted.
    pub source: MountSource,
    /// Absolute path inside the container.
    pub target: String,
    /// Attach read-only.
    pub read_only: bool,
}

/// Where a mount's content comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum MountSource {
    /// A host path.
    Bind {
        /// Absolute host path.
        path: PathBuf,
        /// Make the directory when it is missing (short syntax), else it is an error.
        create: bool,
        /// `private`, `rprivate`, `shared`, …; none means rprivate.
        propagation: Option<String>,
        /// `enabled`, `disabled`, `writable`, `readonly`; none means enabled.
        recursive: Option<String>,
        /// `z` or `Z`.
        selinux: Option<String>,
    },
    /// A named volume, or an anonymous one.
    Volume {
        /// Volume name; none means an anonymous volume is made.
        name: Option<String>,
        /// Do not fill an empty volume from the image.
        nocopy: bool,
        /// Path inside the volume to mount.
        subpath: Option<String>,
        /// Labels for an anonymous volume.
        labels: BTreeMap<String, String>,
        /// Volume driver and its options for volumes made on the way (local only).
        driver_opts: BTreeMap<String, String>,
    },
    /// Memory file system.
    Tmpfs {
        /// Bytes; none means half of memory.
        size: Option<u64>,
        /// Permission bits; none means 1777.
        mode: Option<u32>,
        /// Further `mount(8)` options (`noexec`, `uid=1000`, …).
        options: Vec<String>,
    },
    /// The content of another image, read-only.
    Image {
        /// Image reference.
        reference: String,
        /// Path inside the image to mount.
        subpath: Option<String>,
    },
}

/// A file given by value (secret or config from environment or `content`).
///
/// `content` is sensitive: `Debug` does not show it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct FileSpec {
    /// Absolute path inside the container.
    pub target: String,
    /// The bytes.
    pub content: Vec<u8>,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

impl std::fmt::Debug for FileSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileSpec")
            .field("target", &self.target)
            .field("content", &format_args!("{} bytes", self.content.len()))
            .field("uid", &self.uid)
            .field("gid", &self.gid)
            .field("mode", &format_args!("{:o}", self.mode))
            .finish()
    }
}

/// `volumes_from` one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumesFrom {
    /// Container id or name.
    pub container: String,
    /// Attach all of them read-only.
    pub read_only: bool,
}

/// Which network namespace a container runs in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
pub enum NetworkMode {
    /// An own namespace with these endpoints, in the order of their interfaces.
    Networks {
        /// May be empty: then only loopback exists.
        endpoints: Vec<EndpointSpec>,
    },
    /// The host's namespace.
    Host,
    /// An own namespace with loopback only and no DNS.
    None,
    /// Another container's namespace, hosts and resolv.conf.
    Container {
        /// Container id or name.
        id: String,
    },
}

impl Default for NetworkMode {
    fn default() -> Self {
        Self::Networks { endpoints: Vec::new() }
    }
}

/// One container's attachment to one network.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointSpec {
    /// Network name.
    pub network: String,
    /// DNS names on this network besides the container's own.
    pub aliases: Vec<String>,
    /// Fixed IPv4 address.
    pub ipv4: Option<std::net::Ipv4Addr>,
    /// Fixed IPv6 address.
    pub ipv6: Option<std::net::Ipv6Addr>,
    /// Further addresses on the interface.
    pub link_local: Vec<IpAddr>,
    /// Hardware address.
    pub mac: Option<String>,
    /// Interface name inside; none means `eth<n>`.
    pub interface: Option<String>,
    /// The endpoint with the highest value gives the default route.
    pub gw_priority: i64,
    /// Driver options of the endpoint.
    pub driver_opts: BTreeMap<String, String>,
    /// DNS names that the project declares on this network, running or not: all
    /// service names, container names and aliases there. The built-in engine
    /// never asks an upstream server for them; others ignore the field.
    pub declared: Vec<String>,
}

/// One published port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSpec {
    /// Port inside the container, 1–65535.
    pub target: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// Host address; none means all IPv4 and IPv6 addresses.
    pub host_ip: Option<IpAddr>,
    /// Host port or inclusive range to pick one from; none means the engine picks.
    pub published: Option<(u16, u16)>,
}

/// Limits and accounting. `None` means unlimited or the engine's default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceSpec {
    /// Bytes of memory.
    pub memory: Option<i64>,
    /// Soft limit in bytes.
    pub memory_reservation: Option<i64>,
    /// Memory + swap in bytes; -1 is unlimited.
    pub memory_swap: Option<i64>,
    /// 0–100.
    pub memory_swappiness: Option<i64>,
    /// Do not kill on out-of-memory (cgroup v1 only).
    pub oom_kill_disable: bool,
    /// −1000–1000.
    pub oom_score_adj: i32,
    /// CPUs in units of 10⁻⁹.
    pub nano_cpus: Option<i64>,
    /// Relative weight, 2–262144.
    pub cpu_shares: Option<i64>,
    /// Microseconds per period.
    pub cpu_quota: Option<i64>,
    /// Period in microseconds.
    pub cpu_period: Option<i64>,
    /// Real-time microseconds per period.
    pub cpu_rt_runtime: Option<i64>,
    /// Real-time period in microseconds.
    pub cpu_rt_period: Option<i64>,
    /// CPU list, `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// Memory node list.
    pub cpuset_mems: Option<String>,
    /// Number of tasks; -1 is unlimited.
    pub pids: Option<i64>,
    /// Block I/O weight 10–1000.
    pub blkio_weight: Option<u16>,
    /// Per device weight.
    pub blkio_weight_device: Vec<(String, u64)>,
    /// Bytes per second.
    pub blkio_read_bps: Vec<(String, u64)>,
    /// Bytes per second.
    pub blkio_write_bps: Vec<(String, u64)>,
    /// Operations per second.
    pub blkio_read_iops: Vec<(String, u64)>,
    /// Operations per second.
    pub blkio_write_iops: Vec<(String, u64)>,
    /// `/dev/shm` in bytes; none means 64 MiB.
    pub shm_size: Option<u64>,
    /// (name, soft, hard); -1 is unlimited.
    pub ulimits: Vec<(String, i64, i64)>,
    /// Host devices to give.
    pub devices: Vec<DeviceSpec>,
    /// `c 1:3 rwm` lines.
    pub device_cgroup_rules: Vec<String>,
    /// GPU and similar requests.
    pub device_requests: Vec<DeviceRequest>,
    /// Parent cgroup.
    pub cgroup_parent: Option<String>,
    /// Storage driver options (`size=10G`).
    pub storage_opt: BTreeMap<String, String>,
}

/// One host device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSpec {
    /// Host path.
    pub source: PathBuf,
    /// Path inside.
    pub target: String,
    /// Subset of `rwm`.
    pub permissions: String,
}

/// A request such as `gpus: all`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceRequest {
    /// `nvidia`, `cdi`, …
    pub driver: String,
    /// -1 is all.
    pub count: i64,
    /// Explicit ids.
    pub device_ids: Vec<String>,
    /// Any of these sets.
    pub capabilities: Vec<Vec<String>>,
    /// Driver options.
    pub options: BTreeMap<String, String>,
}

/// Isolation. Defaults are Docker's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SecuritySpec {
    /// Everything allowed, all devices, nothing masked.
    pub privileged: bool,
    /// Capabilities added, with or without `CAP_`; `ALL`.
    pub cap_add: Vec<String>,
    /// Capabilities dropped; `ALL`.
    pub cap_drop: Vec<String>,
    /// `no-new-privileges:true`, `seccomp=unconfined`, … A profile's text is inlined as `seccomp={…}`.
    pub security_opt: Vec<String>,
    /// Read-only root file system.
    pub read_only: bool,
    /// `host` or none.
    pub userns_mode: Option<String>,
    /// `host`, `container:ID` or none.
    pub pid_mode: Option<String>,
    /// `host`, `shareable`, `private`, `container:ID`, `none` or none.
    pub ipc_mode: Option<String>,
    /// `host` or none.
    pub uts_mode: Option<String>,
    /// Cgroup namespace: `host` or `private`.
    pub cgroupns_mode: Option<String>,
    /// Kernel parameters.
    pub sysctls: BTreeMap<String, String>,
    /// Windows isolation technology; engines on Linux take `default` only.
    pub isolation: Option<String>,
}

/// What happens after an exit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Nothing.
    #[default]
    No,
    /// Start again, also at boot.
    Always,
    /// Start again, also at boot unless it was stopped by a person.
    UnlessStopped,
    /// Start again after a non-zero exit.
    OnFailure {
        /// Give up after this many restarts; none is never.
        max: Option<u32>,
    },
}

/// A health probe. `None` fields mean the image's value, else Docker's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthSpec {
    /// What is run; none means the image's.
    pub test: Option<HealthTest>,
    /// Between the end of a probe and the next; default 30 s.
    pub interval: Option<Duration>,
    /// Limit of one probe; default 30 s.
    pub timeout: Option<Duration>,
    /// During which failures do not count; default 0.
    pub start_period: Option<Duration>,
    /// Interval during the start period; default 5 s.
    pub start_interval: Option<Duration>,
    /// Consecutive failures that make it unhealthy; default 3.
    pub retries: Option<u32>,
}

/// The command of a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthTest {
    /// No probe, also not the image's.
    None,
    /// Words.
    Cmd(Vec<String>),
    /// A line for the image's shell.
    Shell(String),
}

/// Log driver and options; no driver means the engine's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogSpec {
    /// `json-file`, `local`, `none`, …
    pub driver: Option<String>,
    /// Driver options.
    pub options: BTreeMap<String, String>,
}

/// A network to create.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkSpec {
    /// Unique name.
    pub name: String,
    /// `bridge` (default), `macvlan`, `ipvlan`, …
    pub driver: Option<String>,
    /// Driver options.
    pub driver_opts: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// No way out.
    pub internal: bool,
    /// Containers of others may join.
    pub attachable: bool,
    /// Default true.
    pub enable_ipv4: Option<bool>,
    /// Default false.
    pub enable_ipv6: Option<bool>,
    /// Address manager driver.
    pub ipam_driver: Option<String>,
    /// Address manager options.
    pub ipam_options: BTreeMap<String, String>,
    /// Address pools.
    pub ipam: Vec<IpamPool>,
}

/// One address pool, as text of the form `10.0.0.0/24`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IpamPool {
    /// Subnet in CIDR form.
    pub subnet: Option<String>,
    /// Part of the subnet that addresses are taken from.
    pub ip_range: Option<String>,
    /// Address of the bridge.
    pub gateway: Option<String>,
    /// Reserved addresses by host name.
    pub aux_addresses: BTreeMap<String, String>,
}

/// A volume to create.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeSpec {
    /// Unique name.
    pub name: String,
    /// `local` or none.
    pub driver: Option<String>,
    /// `type`, `device`, `o` of the local driver.
    pub driver_opts: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// An extra process in a running container.
#[expect(clippy::struct_excessive_bools, reason = "independent switches of the process")]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecSpec {
    /// Words; the first is looked up in the container's `PATH`.
    pub command: Vec<String>,
    /// Added to the container's environment; `None` removes.
    pub env: Vec<(String, Option<String>)>,
    /// Absolute; none means the container's.
    pub working_dir: Option<String>,
    /// As [`ProcessSpec::user`]; none means the container's.
    pub user: Option<String>,
    /// Allocate a pseudo-terminal.
    pub tty: bool,
    /// Connect standard input.
    pub stdin: bool,
    /// All capabilities, no seccomp.
    pub privileged: bool,
    /// Leave it running in the background.
    pub detach: bool,
}
