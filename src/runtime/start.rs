//! Starting a container: from a record to a shim.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::runtime::container::Liveness;
use crate::runtime::create::apply_environment;
use crate::runtime::error::{Result, RuntimeError};
use crate::runtime::init::{
    self, CgroupPlan, DeviceKind, DeviceNode, DeviceRule, LaunchPlan, MountPlan, NameFiles, NamespaceMode,
    Namespaces, ProcessPlan, Propagation, Recursion, RootfsPlan, capabilities,
};
use crate::runtime::log::LogPlan;
use crate::runtime::network::{self, Namespace, NetPlan};
use crate::runtime::security::{self, Security};
use crate::runtime::shim::plan::{Joins, ShimPlan};
use crate::runtime::shim::protocol::{Attach, Channel, Hello, Reply};
use crate::runtime::shim::{ARGV0, finish};
use crate::runtime::state::{Event, FORMAT, Life, MountRecord, Record, State};
use crate::runtime::user::{Identity, RootFiles, identify};
use crate::runtime::watch::Watch;
use crate::runtime::{Runtime, signal, sys};
use crate::spec::{ContainerSpec, MountSource, NetworkMode};
use crate::util::files;
use crate::util::fs::{self, Lock, PathError};

/// Streams of a client that attached before the start.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) kind: Attach,
    pub(super) descriptors: Vec<OwnedFd>,
}

impl Runtime {
    /// Starts a container; returns once its command has been executed. A running one is left alone.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`]; [`RuntimeError::Start`] with the step that failed;
    /// [`RuntimeError::Network`] for addresses and ports; nothing of the start is left then.
    pub fn start(&self, container: &str) -> Result<()> {
        self.reap();
        let id = self.containers.resolve(container)?;
        let _lock = self.containers.lock(&id)?;
        loop {
            let state = self.state_of(&id)?;
            match self.containers.liveness(&id, true)? {
                // Whoever began this start was killed; its shim goes on by itself.
                Liveness::Alive if matches!(state.life, Life::Starting) => self.wait_while_starting(&id)?,
                Liveness::Alive if state.life.is_live() => return Ok(()),
                // It has ended and its shim is about to.
                Liveness::Alive | Liveness::Absent => self.containers.wait_for_shim_to_end(&id)?,
                Liveness::Free(lock) if state.life.is_live() => self.repair_dead(&id, lock)?,
                Liveness::Free(lock) => {
                    let record = self
                        .containers
                        .record(&id)?
                        .ok_or_else(|| RuntimeError::NotFound(container.to_owned()))?;
                    return self.start_idle(&record, state, lock);
                }
            }
        }
    }

    /// Blocks until a shim that is setting its container up has done so or is gone.
    ///
    /// # Errors
    /// The state cannot be read or watched.
    pub(super) fn wait_while_starting(&self, id: &str) -> Result<()> {
        let watch = Watch::new(&self.containers.dir(id))?;
        loop {
            watch.clear();
            let starting = matches!(self.state_of(id)?.life, Life::Starting);
            if !starting || !matches!(self.containers.liveness(id, false)?, Liveness::Alive) {
                return Ok(());
            }
            // A shim that is killed in here writes nothing: its lock is looked at, too.
            watch.wait(Some(Instant::now() + Duration::from_millis(20)));
        }
    }

    /// Starts a container that has no shim, under both of its locks.
    pub(super) fn start_idle(&self, record: &Record, mut state: State, lock: Lock) -> Result<()> {
        let id = &record.id;
        let live_dir = self.containers.live_dir(id);
        // A start that was killed has left its plan.
        if let Some(old) = fs::read_json::<ShimPlan>(&live_dir.join("plan"))? {
            finish::clean(&self.containers, &old)?;
            drop(lock);
            loop {
                match self.containers.liveness(id, true)? {
                    Liveness::Free(lock) => return self.start_clean(record, &mut state, lock),
                    // Another command looks whether somebody is alive.
                    Liveness::Alive | Liveness::Absent => self.containers.wait_for_shim_to_end(id)?,
                }
            }
        }
        self.start_clean(record, &mut state, lock)
    }

    fn start_clean(&self, record: &Record, state: &mut State, lock: Lock) -> Result<()> {
        let id = &record.id;
        let prepared = self.plan(record).and_then(|plan| {
            let path = self.containers.live_dir(id).join("plan");
            let text = serde_json::to_vec(&plan).map_err(PathError::at("encode", &path))?;
            fs::write_atomic(&path, &text, false)?;
            Ok(plan)
        });
        let plan = match prepared {
            Ok(plan) => plan,
            Err(error) => {
                drop(finish::clean_run_directory(&self.containers, id));
                let failed = Event::LaunchFailed {
                    code: 128,
                    error: super::error::chain(&error),
                    at: jiff::Timestamp::now(),
                };
                if state.apply(Event::Launch).and_then(|()| state.apply(failed)).is_ok() {
                    drop(self.containers.write_state(id, state));
                }
                return Err(error);
            }
        };
        state.boot = files::boot_id()?;
        state.restarts = 0;
        state.stopped = false;
        state.apply(Event::Launch).map_err(|e| RuntimeError::State {
            container: record.name.clone(),
            state: e.from.to_owned(),
            action: e.event.to_owned(),
        })?;
        self.containers.write_state(id, state)?;
        let waiting = self.waiting.lock().map(|mut w| w.remove(id)).unwrap_or_default().unwrap_or_default();
        let started = self.spawn(&plan.id, &plan.name, lock, false, waiting);
        if let Err(RuntimeError::ShimDied { .. }) = &started
            && let Liveness::Free(lock) = self.containers.liveness(id, false)?
        {
            // It could not clean up after itself.
            self.repair_dead(id, lock)?;
        }
        started
    }

    /// Executes a shim with the lock of the run directory and waits for its verdict.
    pub(super) fn spawn(
        &self,
        id: &str,
        name: &str,
        lock: Lock,
        adopt: bool,
        waiting: Vec<Waiting>,
    ) -> Result<()> {
        let control = |step| {
            let container = name.to_owned();
            move |source| RuntimeError::Control { step, container, source }
        };
        let (channel, theirs) = Channel::pair().map_err(control("make the channel to"))?;
        let words = self.containers.live_dir(id).join("words");
        let stderr = File::create(&words).map_err(PathError::at("create", &words))?;
        let child = {
            self.executable
                .command(ARGV0)
                .arg(&id[..12.min(id.len())])
                .arg(name)
                .env_clear()
                .stdin(Stdio::from(theirs))
                .stdout(Stdio::null())
                .stderr(Stdio::from(stderr))
                .spawn()
                .map_err(control("execute"))?
        };
        if let Ok(mut children) = self.children.lock() {
            children.push(child);
        }
        let hello = Hello {
            root: self.containers.root().clone(),
            id: id.to_owned(),
            adopt,
            attachments: waiting.iter().map(|w| w.kind).collect(),
        };
        let mut descriptors = vec![lock.file().as_fd()];
        descriptors.extend(waiting.iter().flat_map(|w| w.descriptors.iter().map(AsFd::as_fd)));
        let died = || {
            let detail = std::fs::read_to_string(&words).unwrap_or_default();
            RuntimeError::ShimDied { container: name.to_owned(), detail: detail.trim().to_owned() }
        };
        // The shim's death shows as an end of file here, too.
        if channel.send(&hello, &descriptors).is_err() {
            return Err(died());
        }
        drop(descriptors);
        drop(waiting);
        drop(lock);
        match channel.receive::<Reply>() {
            Ok(Some((Reply::Done, _))) => Ok(()),
            Ok(Some((Reply::Failed { error }, _))) => {
                Err(RuntimeError::Start { container: name.to_owned(), source: error })
            }
            Ok(Some(_) | None) | Err(_) => Err(died()),
        }
    }

    /// Resolves a record into everything a shim needs.
    fn plan(&self, record: &Record) -> Result<ShimPlan> {
        let spec = &record.spec;
        let id = &record.id;
        let joins = self.joins(record)?;
        let host_uts = spec.security.uts_mode.as_deref() == Some("host");
        let host_network = matches!(spec.network, NetworkMode::Host);
        let hostname = match &spec.hostname {
            Some(name) => name.clone(),
            None if host_uts || host_network => {
                rustix::system::uname().nodename().to_string_lossy().into_owned()
            }
            None => id[..12].to_owned(),
        };
        let net = network::prepare(
            self.containers.root(),
            &network::Request {
                container: id,
                name: &record.name,
                hostname: &hostname,
                domainname: spec.domainname.as_deref(),
                mode: &spec.network,
                ports: &spec.ports,
                dns: &spec.dns,
                dns_search: &spec.dns_search,
                dns_options: &spec.dns_options,
                extra_hosts: &spec.extra_hosts,
                links: &spec.links,
            },
        )?;
        let rest = self.plan_with(record, &joins, &net, &hostname);
        match rest {
            Ok(launch) => Ok(self.shim_plan(record, launch, joins, net)?),
            Err(error) => {
                drop(network::disconnect(&net));
                Err(error)
            }
        }
    }

    fn shim_plan(&self, record: &Record, launch: LaunchPlan, joins: Joins, net: NetPlan) -> Result<ShimPlan> {
        let spec = &record.spec;
        let stop_signal =
            if record.stop_signal.is_empty() { libc::SIGTERM } else { signal::parse(&record.stop_signal)? };
        let grace = spec.stop_grace_period.unwrap_or(std::time::Duration::from_secs(10));
        Ok(ShimPlan {
            version: FORMAT,
            id: record.id.clone(),
            name: record.name.clone(),
            image: spec.image.clone(),
            labels: spec.labels.clone(),
            root: self.containers.root().clone(),
            launch,
            joins,
            net,
            tty: spec.process.tty,
            stdin_open: spec.process.stdin_open,
            stdin_once: spec.process.stdin_once,
            log: LogPlan::resolve(&spec.log, &spec.labels, &record.env)
                .map_err(|source| RuntimeError::Log { container: record.name.clone(), source })?,
            restart: spec.restart,
            stop_signal,
            stop_signal_given: !record.stop_signal.is_empty(),
            grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
            probe: record.health.clone(),
            auto_remove: spec.auto_remove,
        })
    }

    fn plan_with(&self, record: &Record, joins: &Joins, net: &NetPlan, hostname: &str) -> Result<LaunchPlan> {
        let spec = &record.spec;
        let id = &record.id;
        let dir = self.containers.dir(id);
        let mut layers = vec![dir.join("upper")];
        layers.extend(record.layers.iter().cloned());
        let identity = identity(record, &record.user, &RootFiles::Layers(layers))?;
        let security = security::resolve(spec)?;
        let own_net = net.namespace == Namespace::Own;
        let (nodes, rules) = devices(spec)?;
        let mut sysctls = BTreeMap::new();
        if own_net {
            // Docker lets unprivileged users bind any port and ping inside their own network.
            sysctls.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
            sysctls.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
        }
        sysctls.extend(spec.security.sysctls.clone());
        Ok(LaunchPlan {
            rootfs: RootfsPlan {
                layers: record.layers.iter().rev().cloned().collect(),
                upper: dir.join("upper"),
                work: dir.join("work"),
                volatile: spec.auto_remove,
                read_only: spec.security.read_only,
            },
            mounts: record.mounts.iter().map(|m| self.mount_plan(&record.name, m)).collect::<Result<_>>()?,
            files: spec.files.clone(),
            devices: nodes,
            masked_paths: security.masked_paths.clone(),
            readonly_paths: security.readonly_paths.clone(),
            process: process(record, &identity, &security, hostname, spec.process.tty)?,
            hostname: hostname.to_owned(),
            domainname: spec.domainname.clone(),
            sysctls,
            name_files: self.name_files(record, joins, net, hostname)?,
            namespaces: namespaces(spec),
            cgroup: CgroupPlan {
                path: self.cgroup_path(spec, id),
                resources: resources(spec),
                devices: rules,
            },
            privileged: spec.security.privileged,
            shm_size: spec.resources.shm_size,
            init: spec.process.init,
        })
    }

    fn joins(&self, record: &Record) -> Result<Joins> {
        let spec = &record.spec;
        let find = |word: Option<&str>| -> Result<Option<String>> {
            word.and_then(|w| w.strip_prefix("container:")).map(|c| self.running_id(c)).transpose()
        };
        Ok(Joins {
            network: match &spec.network {
                NetworkMode::Container { id } => Some(self.running_id(id)?),
                _ => None,
            },
            pid: find(spec.security.pid_mode.as_deref())?,
            ipc: find(spec.security.ipc_mode.as_deref())?,
        })
    }

    fn running_id(&self, container: &str) -> Result<String> {
        let id = self.containers.resolve(container)?;
        let state = self.state_of(&id)?;
        match state.life.process() {
            Some(_) => Ok(id),
            None => Err(RuntimeError::NotRunning {
                container: container.to_owned(),
                state: state.life.word().to_owned(),
            }),
        }
    }

    pub(super) fn cgroup_path(&self, spec: &ContainerSpec, id: &str) -> String {
        let tag = self.containers.root().tag();
        match &spec.resources.cgroup_parent {
            Some(parent) if !parent.trim_matches('/').is_empty() => {
                format!("{}/{id}", parent.trim_matches('/'))
            }
            _ if tag.is_empty() => format!("hoist/{id}"),
            _ => format!("hoist-{tag}/{id}"),
        }
    }

    /// Writes `/etc/hostname`, `/etc/hosts` and `/etc/resolv.conf`; those of a joined network are shared.
    fn name_files(&self, record: &Record, joins: &Joins, net: &NetPlan, hostname: &str) -> Result<NameFiles> {
        let dir = self.containers.dir(&record.id);
        let shared = joins.network.as_ref().map(|id| self.containers.dir(id));
        if let Some(shared) = shared {
            let existing = |name: &str| Some(shared.join(name)).filter(|path| path.exists());
            return Ok(NameFiles {
                hostname: existing("hostname"),
                hosts: existing("hosts"),
                resolv_conf: existing("resolv.conf"),
            });
        }
        let put = |name: &str, text: &str| -> Result<Option<PathBuf>> {
            let path = dir.join(name);
            // In place, not by rename: a running container has the file itself mounted.
            std::fs::write(&path, text).map_err(PathError::at("write", &path))?;
            Ok(Some(path))
        };
        Ok(NameFiles {
            hostname: put("hostname", &format!("{hostname}\n"))?,
            hosts: put("hosts", &net.hosts)?,
            resolv_conf: put("resolv.conf", &net.resolv_conf)?,
        })
    }

    pub(super) fn mount_plan(&self, container: &str, record: &MountRecord) -> Result<MountPlan> {
        let invalid = |reason: String| RuntimeError::Invalid { container: container.to_owned(), reason };
        let mut read_only = record.mount.read_only;
        let source = match &record.mount.source {
            MountSource::Bind { path, create, propagation, recursive, .. } => {
                if !path.exists() {
                    if !*create {
                        return Err(invalid(format!("bind source path does not exist: {}", path.display())));
                    }
                    fs::create_dir_all(path)?;
                }
                init::MountSource::Bind {
                    path: path.clone(),
                    subpath: None,
                    recursive: match recursive.as_deref() {
                        None | Some("" | "enabled") => Recursion::Enabled,
                        Some("disabled") => Recursion::Disabled,
                        Some("writable") => Recursion::Writable,
                        Some("readonly") => Recursion::Readonly,
                        Some(other) => {
                            return Err(invalid(format!("`{other}` is no way to bind recursively")));
                        }
                    },
                    propagation: match propagation.as_deref() {
                        None | Some("" | "rprivate") => Propagation::Rprivate,
                        Some("private") => Propagation::Private,
                        Some("slave") => Propagation::Slave,
                        Some("rslave") => Propagation::Rslave,
                        Some("shared") => Propagation::Shared,
                        Some("rshared") => Propagation::Rshared,
                        Some(other) => {
                            return Err(invalid(format!("there is no mount propagation `{other}`")));
                        }
                    },
                }
            }
            MountSource::Volume { name, subpath, .. } => {
                let name = name.as_deref().unwrap_or_default();
                let volume = self
                    .volumes
                    .get(name)?
                    .ok_or_else(|| crate::runtime::volume::VolumeError::NotFound(name.to_owned()))?;
                let attached = self.volumes.attach(&volume)?;
                read_only |= attached.read_only;
                init::MountSource::Bind {
                    path: attached.directory,
                    subpath: subpath.clone(),
                    recursive: Recursion::Enabled,
                    propagation: Propagation::Rprivate,
                }
            }
            MountSource::Tmpfs { size, mode, options } => {
                init::MountSource::Tmpfs { size: *size, mode: *mode, options: options.clone() }
            }
            MountSource::Image { reference, subpath } => {
                let image = self
                    .store
                    .resolve(reference, None)?
                    .ok_or_else(|| RuntimeError::NoImage(reference.clone()))?;
                init::MountSource::Layers {
                    layers: image.layers.iter().rev().cloned().collect(),
                    subpath: subpath.clone(),
                }
            }
        };
        Ok(MountPlan { source, target: record.mount.target.clone(), read_only })
    }
}

/// User words of a container or an extra process, looked up in its files.
pub(super) fn identity(record: &Record, user: &str, root: &RootFiles) -> Result<Identity> {
    let failed = |source| RuntimeError::User { container: record.name.clone(), source };
    let passwd = root.etc("passwd").map_err(failed)?;
    let group = root.etc("group").map_err(failed)?;
    identify(user, &record.spec.process.group_add, &passwd, &group).map_err(failed)
}

/// How this installation executes itself as a shim.
#[derive(Debug)]
pub(super) enum Executable {
    /// A read-only clone of our own executable that containers cannot reach.
    Sealed(OwnedFd),
    /// A program that calls [`crate::runtime::shim::dispatch`] first.
    Path(PathBuf),
}

impl Executable {
    /// Ourselves under another name; `main` tells by it what is meant.
    pub(super) fn command(&self, arg0: &str) -> Command {
        let mut command = match self {
            Self::Path(path) => Command::new(path),
            Self::Sealed(sealed) => Command::new(format!("/proc/self/fd/{}", sealed.as_raw_fd())),
        };
        command.arg0(arg0);
        command
    }

    pub(super) fn find() -> Result<Self> {
        match sys::sealed_self() {
            Ok(sealed) => Ok(Self::Sealed(sealed)),
            Err(error) => {
                Err(PathError::at("make a read-only clone of", Path::new("/proc/self/exe"))(error).into())
            }
        }
    }
}

/// The first or an extra process of a container.
pub(super) fn process(
    record: &Record,
    identity: &Identity,
    security: &Security,
    hostname: &str,
    tty: bool,
) -> Result<ProcessPlan> {
    let invalid = |reason: String| RuntimeError::Invalid { container: record.name.clone(), reason };
    let mut env = Vec::with_capacity(record.env.len() + 3);
    let set = |env: &[String], name: &str| env.iter().any(|e| e.split('=').next() == Some(name));
    if !set(&record.env, "HOSTNAME") {
        env.push(("HOSTNAME".to_owned(), Some(hostname.to_owned())));
    }
    if tty && !set(&record.env, "TERM") {
        env.push(("TERM".to_owned(), Some("xterm".to_owned())));
    }
    if !set(&record.env, "HOME") {
        env.push(("HOME".to_owned(), Some(identity.home.clone())));
    }
    let mut full = record.env.clone();
    apply_environment(&mut full, &env);
    let mut sets = security.capabilities;
    if identity.uid != 0 {
        // As on Docker: another user than root has capabilities only through set-user-id programs.
        sets.effective = 0;
        sets.permitted = 0;
    }
    Ok(ProcessPlan {
        args: record.args.clone(),
        env: full,
        cwd: record.cwd.clone(),
        uid: identity.uid,
        gid: identity.gid,
        groups: identity.groups.clone(),
        capabilities: sets,
        seccomp: security.seccomp.clone(),
        no_new_privileges: security.no_new_privileges,
        rlimits: init::rlimits(&record.spec.resources.ulimits).map_err(|e| invalid(e.to_string()))?,
        oom_score_adj: Some(record.spec.resources.oom_score_adj).filter(|n| *n != 0),
    })
}

/// Limits with Docker's defaults: swap as much as memory.
fn resources(spec: &ContainerSpec) -> crate::spec::ResourceSpec {
    let mut resources = spec.resources.clone();
    if let (Some(memory), None) = (resources.memory.filter(|m| *m > 0), resources.memory_swap) {
        resources.memory_swap = Some(memory.saturating_mul(2));
    }
    resources
}

fn namespaces(spec: &ContainerSpec) -> Namespaces {
    let mode = |word: Option<&str>| match word {
        Some("host") => NamespaceMode::Host,
        // `container:ID` is resolved by the shim at each start.
        _ => NamespaceMode::Own,
    };
    Namespaces {
        pid: mode(spec.security.pid_mode.as_deref()),
        ipc: mode(spec.security.ipc_mode.as_deref()),
        uts: mode(spec.security.uts_mode.as_deref()),
        cgroup: match spec.security.cgroupns_mode.as_deref() {
            Some("host") => NamespaceMode::Host,
            Some("private") => NamespaceMode::Own,
            _ if spec.security.privileged => NamespaceMode::Host,
            _ => init::default_cgroup_namespace(),
        },
    }
}

/// Device nodes and access rules.
pub(super) fn devices(spec: &ContainerSpec) -> Result<(Vec<DeviceNode>, Vec<DeviceRule>)> {
    let invalid = |reason: String| RuntimeError::Invalid { container: spec.name.clone(), reason };
    if spec.security.privileged {
        let mut nodes = Vec::new();
        host_devices(Path::new("/dev"), &mut nodes);
        return Ok((nodes, init::all_device_rules()));
    }
    let mut nodes = Vec::new();
    let mut rules = init::default_device_rules();
    for device in &spec.resources.devices {
        let mut found = Vec::new();
        if device.source.is_dir() {
            host_devices(&device.source, &mut found);
            for node in &mut found {
                if let Ok(below) = Path::new(&node.path).strip_prefix(&device.source) {
                    node.path = Path::new(&device.target).join(below).to_string_lossy().into_owned();
                }
            }
        } else if let Some(mut node) = device_node(&device.source) {
            node.path.clone_from(&device.target);
            found.push(node);
        }
        if found.is_empty() {
            return Err(invalid(format!("`{}` is not a device", device.source.display())));
        }
        for node in &found {
            rules.push(DeviceRule {
                kind: Some(node.kind),
                major: Some(node.major),
                minor: Some(node.minor),
                read: device.permissions.contains('r'),
                write: device.permissions.contains('w'),
                mknod: device.permissions.contains('m'),
            });
        }
        nodes.extend(found);
    }
    for line in &spec.resources.device_cgroup_rules {
        rules.push(
            parse_rule(line)
                .ok_or_else(|| invalid(format!("`{line}` is no device rule such as `c 1:3 rwm`")))?,
        );
    }
    Ok((nodes, rules))
}

fn device_node(path: &Path) -> Option<DeviceNode> {
    let meta = std::fs::metadata(path).ok()?;
    let kind = if meta.file_type().is_char_device() {
        DeviceKind::Char
    } else if meta.file_type().is_block_device() {
        DeviceKind::Block
    } else {
        return None;
    };
    Some(DeviceNode {
        path: path.to_string_lossy().into_owned(),
        kind,
        major: rustix::fs::major(meta.rdev()),
        minor: rustix::fs::minor(meta.rdev()),
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
    })
}

/// All device nodes below a directory, those that every container has of its own left out.
fn host_devices(dir: &Path, nodes: &mut Vec<DeviceNode>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        let name = entry.file_name();
        if kind.is_dir() {
            if !["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"].iter().any(|own| name == **own)
            {
                host_devices(&path, nodes);
            }
        } else if !["console", "null", "zero", "full", "random", "urandom", "tty", "ptmx"]
            .iter()
            .any(|own| name == **own)
        {
            nodes.extend(device_node(&path).filter(|_| !kind.is_symlink()));
        }
    }
}

fn parse_rule(line: &str) -> Option<DeviceRule> {
    let mut words = line.split_whitespace();
    let kind = match words.next()? {
        "a" => None,
        "c" => Some(DeviceKind::Char),
        "b" => Some(DeviceKind::Block),
        _ => return None,
    };
    let (major, minor) = words.next()?.split_once(':')?;
    let number = |word: &str| if word == "*" { Some(None) } else { word.parse().ok().map(Some) };
    let access = words.next()?;
    if words.next().is_some() || access.chars().any(|c| !"rwm".contains(c)) {
        return None;
    }
    Some(DeviceRule {
        kind,
        major: number(major)?,
        minor: number(minor)?,
        read: access.contains('r'),
        write: access.contains('w'),
        mknod: access.contains('m'),
    })
}

/// Capability names that do not exist, as an error of ours.
pub(super) fn capability_sets(spec: &ContainerSpec, privileged: bool) -> Result<init::CapabilitySets> {
    capabilities::resolve(&spec.security.cap_add, &spec.security.cap_drop, privileged)
        .map_err(|e| RuntimeError::Invalid { container: spec.name.clone(), reason: e.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_rules_are_docker_s() {
        let rule = parse_rule("c 1:* rwm").unwrap();
        assert_eq!(
            (rule.kind, rule.major, rule.minor, rule.write),
            (Some(DeviceKind::Char), Some(1), None, true)
        );
        assert!(!parse_rule("b 8:0 r").unwrap().write);
        for bad in ["", "x 1:3 r", "c 1 r", "c 1:3 x", "c 1:3 r w"] {
            assert!(parse_rule(bad).is_none(), "{bad}");
        }
    }
}
