//! What [`launch`](super::launch) and [`exec`](super::exec) are asked to do: everything resolved.
//!
//! The plan is written by the command line process and read by the shim, so it
//! is serde data. Host paths are absolute and were chosen by us or by the user;
//! paths inside the container are never trusted, however they look.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::spec::{FileSpec, ResourceSpec};

/// One container start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaunchPlan {
    /// The root file system.
    pub rootfs: RootfsPlan,
    /// Mounts in the order they are attached, after the standard ones
    /// (`/proc`, `/dev`, `/sys`, …), so they may cover them.
    pub mounts: Vec<MountPlan>,
    /// Files given by value (secrets, configs): each is put read-only on its
    /// target from memory, never into the upper layer.
    pub files: Vec<FileSpec>,
    /// Device nodes besides the standard ones (`null`, `zero`, `full`, `random`, `urandom`, `tty`).
    pub devices: Vec<DeviceNode>,
    /// Paths hidden behind an empty directory or the null device; see [`super::MASKED_PATHS`]. Missing ones are skipped.
    pub masked_paths: Vec<String>,
    /// Paths made read-only; see [`super::READONLY_PATHS`]. Missing ones are skipped.
    pub readonly_paths: Vec<String>,
    /// The first process.
    pub process: ProcessPlan,
    /// UTS host name; ignored with [`NamespaceMode::Host`] for `uts`.
    pub hostname: String,
    /// NIS domain name.
    pub domainname: Option<String>,
    /// Kernel parameters, `net.ipv4.ip_forward` → `1`. Only namespaced ones
    /// should get here; they are written inside the container's namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Host files that are bound over the container's name files.
    pub name_files: NameFiles,
    /// Namespaces. The network one is given to `launch` as a descriptor.
    pub namespaces: Namespaces,
    /// Where the container is accounted and limited.
    pub cgroup: CgroupPlan,
    /// Attach `/sys` and the cgroup tree writable (the other effects of
    /// `privileged` are in the capability sets, devices, paths and rules).
    pub privileged: bool,
    /// Size of `/dev/shm` in bytes; none means 64 MiB.
    pub shm_size: Option<u64>,
    /// Run our own minimal init as PID 1: it starts the command, reaps and forwards signals.
    pub init: bool,
}

/// The root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootfsPlan {
    /// Unpacked image layers, **base first** (the order of `rootfs.diff_ids`). At least one.
    pub layers: Vec<PathBuf>,
    /// The container's own layer. Exists, as does `work`; both on one file system.
    pub upper: PathBuf,
    /// Overlay's work directory, empty at the first start.
    pub work: PathBuf,
    /// Skip the sync at unmount (one-off containers that are removed anyway).
    /// Such an upper directory cannot be used for a second start after a crash
    /// unless `work/incompat/volatile` is removed, which `launch` does.
    pub volatile: bool,
    /// Attach the root file system read-only.
    pub read_only: bool,
}

/// One mount with its resolved source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPlan {
    /// What is mounted.
    pub source: MountSource,
    /// Absolute path inside; made if missing (a directory, or a file for a file).
    /// Resolved inside the root, symbolic links included.
    pub target: String,
    /// Attach read-only.
    pub read_only: bool,
}

/// What a [`MountPlan`] attaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum MountSource {
    /// A host path that exists.
    Bind {
        /// Absolute host path; symbolic links in it are followed (the user chose it).
        path: PathBuf,
        /// Path below `path` to mount instead; resolved inside it, so it cannot lead out.
        subpath: Option<String>,
        /// Whether mounts below the source come along.
        recursive: Recursion,
        /// How later mounts travel between host and container.
        propagation: Propagation,
    },
    /// Memory file system.
    Tmpfs {
        /// Bytes; none means half of memory.
        size: Option<u64>,
        /// Permission bits; none means 1777.
        mode: Option<u32>,
        /// Further options: the flags `noexec`, `exec`, `nosuid`, `suid`, `nodev`,
        /// `dev`, `ro`, `rw`, `noatime`, …, and file system keys (`uid=1000`, `nr_inodes=…`).
        options: Vec<String>,
    },
    /// Unpacked layers of another image, always read-only.
    Layers {
        /// Base first.
        layers: Vec<PathBuf>,
        /// Path inside the image to mount.
        subpath: Option<String>,
    },
    /// The same, writable: what is written goes to a directory that the caller throws away.
    Scratch {
        /// Base first.
        layers: Vec<PathBuf>,
        /// Where changes go.
        upper: PathBuf,
        /// Overlay's own, on the file system of `upper`.
        work: PathBuf,
        /// Path inside the image to mount.
        subpath: Option<String>,
    },
}

/// Whether mounts below a bind source come along.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recursion {
    /// Yes; a read-only mount makes the ones below read-only too where the kernel can (Docker's default).
    #[default]
    Enabled,
    /// No.
    Disabled,
    /// Yes, and those below stay writable.
    Writable,
    /// Yes, and all must become read-only.
    Readonly,
}

/// Mount propagation of a bind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// This mount only, nothing travels.
    Private,
    /// All below too (default).
    #[default]
    Rprivate,
    /// Host mounts appear inside.
    Slave,
    /// The same for all below.
    Rslave,
    /// Both directions.
    Shared,
    /// The same for all below.
    Rshared,
}

/// A device node to make inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// Absolute path inside.
    pub path: String,
    /// Kind of node.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
}

/// Kind of a device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// Character device.
    Char,
    /// Block device.
    Block,
}

/// Host files bound over `/etc/hostname`, `/etc/hosts` and `/etc/resolv.conf`; none leaves the image's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameFiles {
    /// `/etc/hostname`.
    pub hostname: Option<PathBuf>,
    /// `/etc/hosts`.
    pub hosts: Option<PathBuf>,
    /// `/etc/resolv.conf`.
    pub resolv_conf: Option<PathBuf>,
}

/// Which namespaces a container has of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// Processes.
    pub pid: NamespaceMode,
    /// System V and POSIX message queues, and with them `/dev/shm`.
    pub ipc: NamespaceMode,
    /// Host name.
    pub uts: NamespaceMode,
    /// Cgroup root. Docker's default is the host's on cgroup v1 and an own one on v2;
    /// [`super::default_cgroup_namespace`] tells which.
    pub cgroup: NamespaceMode,
}

/// One namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceMode {
    /// A new one.
    #[default]
    Own,
    /// The one hoist runs in.
    Host,
    /// That of a running process (the other container's PID 1, host numbering).
    /// The caller checks that the pid is still that container.
    Join(i32),
}

/// Where a container is accounted and limited.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CgroupPlan {
    /// Path below the root of every hierarchy, without a leading slash: `hoist/<id>`
    /// or `<cgroup_parent>/<id>`. The last part must be the container's alone.
    pub path: String,
    /// Limits; also fields that are not the cgroup's (ulimits, devices, …), which are not looked at.
    pub resources: ResourceSpec,
    /// Device access in order, on top of nothing; start from [`super::default_device_rules`].
    pub devices: Vec<DeviceRule>,
}

/// One device access rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Kind; none means all devices.
    pub kind: Option<DeviceKind>,
    /// Major number; none means any.
    pub major: Option<u32>,
    /// Minor number; none means any.
    pub minor: Option<u32>,
    /// May read.
    pub read: bool,
    /// May write.
    pub write: bool,
    /// May make nodes.
    pub mknod: bool,
}

/// A process and its identity: the first one of a container, or an extra one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessPlan {
    /// Words. The first is looked up in the `PATH` of `env` inside the container if it has no slash.
    pub args: Vec<String>,
    /// `NAME=value`, complete and in order (`PATH`, `HOME`, `HOSTNAME`, `TERM` included; nothing is added).
    pub env: Vec<String>,
    /// Absolute; made if missing (by `launch`, not by `exec`).
    pub cwd: String,
    /// Numeric user.
    pub uid: u32,
    /// Numeric primary group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Capability sets, see [`super::capabilities::resolve`].
    pub capabilities: CapabilitySets,
    /// Program made by [`crate::runtime::seccomp::compile`]; none is unconfined.
    pub seccomp: Option<SeccompProgram>,
    /// `no_new_privs`: set-user-id programs and file capabilities give nothing.
    pub no_new_privileges: bool,
    /// Resource limits of the process; the others are inherited.
    pub rlimits: Vec<Rlimit>,
    /// −1000–1000; none leaves the shim's. Lowering may be refused on hosts without
    /// `CAP_SYS_RESOURCE`, which is tolerated.
    pub oom_score_adj: Option<i32>,
}

/// Capability sets as bit masks (bit *n* is capability number *n*).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilitySets {
    /// Effective.
    pub effective: u64,
    /// Permitted.
    pub permitted: u64,
    /// Inheritable.
    pub inheritable: u64,
    /// Bounding.
    pub bounding: u64,
    /// Ambient.
    pub ambient: u64,
}

/// A limit of `setrlimit(2)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// Name as in Compose: `nofile`, `nproc`, …
    pub name: String,
    /// Soft limit; none is unlimited.
    pub soft: Option<u64>,
    /// Hard limit; none is unlimited.
    pub hard: Option<u64>,
}

/// A classic BPF program for `seccomp(2)`: array of `struct sock_filter` in host byte order.
#[derive(Clone, PartialEq, Eq)]
pub struct SeccompProgram(pub Vec<u8>);

impl std::fmt::Debug for SeccompProgram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SeccompProgram({} instructions)", self.0.len() / 8)
    }
}

impl Serialize for SeccompProgram {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::Engine as _;
        serializer.serialize_str(&base64::engine::general_purpose::STANDARD_NO_PAD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for SeccompProgram {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use base64::Engine as _;
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let bytes = base64::engine::general_purpose::STANDARD_NO_PAD
            .decode(text.as_bytes())
            .map_err(serde::de::Error::custom)?;
        if !bytes.len().is_multiple_of(8) {
            return Err(serde::de::Error::custom("a seccomp program is not a multiple of 8 bytes"));
        }
        Ok(Self(bytes))
    }
}
