//! [`ContainerSpec`] → the body of the Engine's create call, mapped as Docker
//! Compose maps it (`reference/model.md` §18).

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, DeviceMapping, DeviceRequest, EndpointIpamConfig, EndpointSettings, HealthConfig,
    HostConfig, HostConfigCgroupnsModeEnum, HostConfigIsolationEnum, HostConfigLogConfig, Mount,
    MountBindOptions, MountBindOptionsPropagationEnum, MountImageOptions, MountTmpfsOptions, MountType,
    MountVolumeOptions, MountVolumeOptionsDriverConfig, NetworkingConfig, PortBinding,
    ResourcesBlkioWeightDevice, ResourcesUlimits, RestartPolicy as DockerRestart, RestartPolicyNameEnum,
    ThrottleDevice,
};

use crate::engine::{EngineError, Result};
use crate::spec::{
    ContainerSpec, EndpointSpec, HealthSpec, HealthTest, MountSource, MountSpec, NetworkMode, PortSpec,
    ResourceSpec, RestartPolicy,
};

/// The create body. `inherited` are anonymous volumes of a replaced container, as (target, volume name).
///
/// # Errors
/// [`EngineError::Unsupported`] names an attribute the Engine API cannot express.
pub(super) fn body(spec: &ContainerSpec, inherited: &[(String, String)]) -> Result<ContainerCreateBody> {
    let process = &spec.process;
    let (network_mode, networking_config) = network(spec);
    let mut exposed: Vec<String> = spec.expose.clone();
    exposed.extend(spec.ports.iter().map(port_key));
    exposed.sort();
    exposed.dedup();
    let (binds, mounts, tmpfs) = mounts(spec, inherited)?;
    let mut host = resources(&spec.resources);
    let security = &spec.security;
    host.binds = some(binds);
    host.mounts = some(mounts);
    host.tmpfs = (!tmpfs.is_empty()).then_some(tmpfs);
    host.volumes_from = some(
        spec.volumes_from
            .iter()
            .map(|from| format!("{}:{}", from.container, if from.read_only { "ro" } else { "rw" }))
            .collect(),
    );
    host.network_mode = Some(network_mode);
    host.port_bindings = Some(bindings(&spec.ports));
    host.restart_policy = Some(restart(spec.restart));
    host.auto_remove = Some(spec.auto_remove);
    host.log_config = spec.log.driver.as_ref().map(|driver| HostConfigLogConfig {
        typ: Some(driver.clone()),
        config: Some(map(&spec.log.options)),
    });
    if spec.log.driver.is_none() && !spec.log.options.is_empty() {
        host.log_config =
            Some(HostConfigLogConfig { typ: Some(String::new()), config: Some(map(&spec.log.options)) });
    }
    host.init = process.init.then_some(true);
    host.annotations = (!spec.annotations.is_empty()).then(|| map(&spec.annotations));
    host.cap_add = some(security.cap_add.clone());
    host.cap_drop = some(security.cap_drop.clone());
    host.cgroupns_mode = match security.cgroupns_mode.as_deref() {
        Some("host") => Some(HostConfigCgroupnsModeEnum::HOST),
        Some("private") => Some(HostConfigCgroupnsModeEnum::PRIVATE),
        _ => None,
    };
    host.dns = some(spec.dns.iter().map(ToString::to_string).collect());
    host.dns_options = some(spec.dns_options.clone());
    host.dns_search = some(spec.dns_search.clone());
    host.extra_hosts = some(spec.extra_hosts.iter().map(|(name, ip)| format!("{name}:{ip}")).collect());
    host.group_add = some(process.group_add.clone());
    host.links = some(spec.links.iter().map(|(container, alias)| format!("{container}:{alias}")).collect());
    host.ipc_mode.clone_from(&security.ipc_mode);
    host.pid_mode.clone_from(&security.pid_mode);
    host.uts_mode.clone_from(&security.uts_mode);
    host.userns_mode.clone_from(&security.userns_mode);
    host.privileged = Some(security.privileged);
    host.readonly_rootfs = Some(security.read_only);
    host.security_opt = some(security.security_opt.clone());
    host.sysctls = (!security.sysctls.is_empty()).then(|| map(&security.sysctls));
    host.runtime.clone_from(&spec.runtime);
    host.isolation = isolation(security.isolation.as_deref())?;
    Ok(ContainerCreateBody {
        hostname: spec.hostname.clone(),
        domainname: spec.domainname.clone(),
        user: process.user.clone(),
        exposed_ports: some(exposed),
        tty: Some(process.tty),
        open_stdin: Some(process.stdin_open),
        stdin_once: Some(process.stdin_once),
        attach_stdin: Some(process.stdin_open && process.stdin_once),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        env: some(environment(&process.env)),
        cmd: process.command.clone(),
        entrypoint: process.entrypoint.clone(),
        healthcheck: spec.health.as_ref().map(health),
        image: Some(spec.image.clone()),
        working_dir: process.working_dir.clone(),
        labels: Some(map(&spec.labels)),
        stop_signal: spec.stop_signal.clone(),
        stop_timeout: spec.stop_grace_period.map(seconds),
        host_config: Some(host),
        networking_config,
        ..ContainerCreateBody::default()
    })
}

/// `K=V`, and `K` alone for one that is to be removed (the Engine unsets it).
pub(super) fn environment(env: &[(String, Option<String>)]) -> Vec<String> {
    env.iter()
        .map(|(key, value)| match value {
            Some(value) => format!("{key}={value}"),
            None => key.clone(),
        })
        .collect()
}

/// The endpoints by network name.
pub(super) fn networking(endpoints: &[EndpointSpec]) -> NetworkingConfig {
    let endpoints = endpoints.iter().map(|e| (e.network.clone(), endpoint(e))).collect();
    NetworkingConfig { endpoints_config: Some(endpoints) }
}

/// One endpoint as the Engine takes it.
pub(super) fn endpoint(endpoint: &EndpointSpec) -> EndpointSettings {
    let fixed = endpoint.ipv4.is_some() || endpoint.ipv6.is_some() || !endpoint.link_local.is_empty();
    let mut driver_opts = map(&endpoint.driver_opts);
    if let Some(name) = &endpoint.interface {
        driver_opts.insert("com.docker.network.endpoint.ifname".to_owned(), name.clone());
    }
    EndpointSettings {
        aliases: some(endpoint.aliases.clone()),
        ipam_config: fixed.then(|| EndpointIpamConfig {
            ipv4_address: endpoint.ipv4.map(|ip| ip.to_string()),
            ipv6_address: endpoint.ipv6.map(|ip| ip.to_string()),
            link_local_ips: some(endpoint.link_local.iter().map(ToString::to_string).collect()),
        }),
        mac_address: endpoint.mac.clone(),
        driver_opts: (!driver_opts.is_empty()).then_some(driver_opts),
        gw_priority: (endpoint.gw_priority != 0).then_some(endpoint.gw_priority),
        ..EndpointSettings::default()
    }
}

/// Whole seconds, rounded up: the Engine's stop time-outs know nothing smaller.
pub(super) fn seconds(duration: Duration) -> i64 {
    let whole = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    whole.saturating_add(i64::from(duration.subsec_nanos() > 0))
}

fn isolation(value: Option<&str>) -> Result<Option<HostConfigIsolationEnum>> {
    match value {
        None | Some("") => Ok(None),
        Some("default") => Ok(Some(HostConfigIsolationEnum::DEFAULT)),
        Some("process") => Ok(Some(HostConfigIsolationEnum::PROCESS)),
        Some("hyperv") => Ok(Some(HostConfigIsolationEnum::HYPERV)),
        Some(other) => Err(EngineError::Unsupported {
            engine: "docker",
            attribute: "isolation".to_owned(),
            reason: format!("`{other}` is not one of `default`, `process`, `hyperv`"),
        }),
    }
}

fn network(spec: &ContainerSpec) -> (String, Option<NetworkingConfig>) {
    match &spec.network {
        NetworkMode::Host => ("host".to_owned(), None),
        NetworkMode::None => ("none".to_owned(), None),
        NetworkMode::Container { id } => (format!("container:{id}"), None),
        NetworkMode::Networks { endpoints } => match endpoints.first() {
            None => ("none".to_owned(), None),
            Some(first) => (first.network.clone(), Some(networking(endpoints))),
        },
    }
}

fn port_key(port: &PortSpec) -> String {
    format!("{}/{}", port.target, port.protocol)
}

fn bindings(ports: &[PortSpec]) -> HashMap<String, Option<Vec<PortBinding>>> {
    let mut out: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in ports {
        out.entry(port_key(port)).or_default().get_or_insert_default().push(PortBinding {
            host_ip: Some(port.host_ip.map(|ip| ip.to_string()).unwrap_or_default()),
            host_port: Some(match port.published {
                None => String::new(),
                Some((from, to)) if from == to => from.to_string(),
                Some((from, to)) => format!("{from}-{to}"),
            }),
        });
    }
    out
}

fn restart(policy: RestartPolicy) -> DockerRestart {
    let (name, max) = match policy {
        RestartPolicy::No => (RestartPolicyNameEnum::NO, None),
        RestartPolicy::Always => (RestartPolicyNameEnum::ALWAYS, None),
        RestartPolicy::UnlessStopped => (RestartPolicyNameEnum::UNLESS_STOPPED, None),
        RestartPolicy::OnFailure { max } => (RestartPolicyNameEnum::ON_FAILURE, max.map(i64::from)),
    };
    DockerRestart { name: Some(name), maximum_retry_count: max }
}

fn health(health: &HealthSpec) -> HealthConfig {
    let nanos = |d: Option<Duration>| d.map(|d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX));
    HealthConfig {
        test: health.test.as_ref().map(|test| match test {
            HealthTest::None => vec!["NONE".to_owned()],
            HealthTest::Cmd(words) => {
                std::iter::once("CMD".to_owned()).chain(words.iter().cloned()).collect()
            }
            HealthTest::Shell(line) => vec!["CMD-SHELL".to_owned(), line.clone()],
        }),
        interval: nanos(health.interval),
        timeout: nanos(health.timeout),
        start_period: nanos(health.start_period),
        start_interval: nanos(health.start_interval),
        retries: health.retries.map(i64::from),
    }
}

type Mounts = (Vec<String>, Vec<Mount>, HashMap<String, String>);

/// Docker Compose uses the bind-string form where it can, because only that
/// form creates a missing host directory.
fn mounts(spec: &ContainerSpec, inherited: &[(String, String)]) -> Result<Mounts> {
    let mut binds = Vec::new();
    let mut mounts = Vec::new();
    let mut tmpfs = HashMap::new();
    for mount in &spec.mounts {
        let mode = if mount.read_only { "ro" } else { "rw" };
        match &mount.source {
            MountSource::Bind { path, create, propagation, recursive, selinux } => {
                if *create && propagation.is_none() && recursive.is_none() {
                    let selinux = selinux.as_ref().map(|z| format!(",{z}")).unwrap_or_default();
                    binds.push(format!("{}:{}:{mode}{selinux}", path.display(), mount.target));
                } else {
                    mounts.push(bind_mount(
                        mount,
                        &path.to_string_lossy(),
                        propagation.as_deref(),
                        recursive.as_deref(),
                    )?);
                }
            }
            MountSource::Volume { name: Some(name), nocopy: false, subpath: None, driver_opts, .. }
                if driver_opts.is_empty() =>
            {
                binds.push(format!("{name}:{}:{mode}", mount.target));
            }
            MountSource::Volume { name, nocopy, subpath, labels, driver_opts } => {
                let source = name.clone().or_else(|| {
                    inherited.iter().find(|(target, _)| *target == mount.target).map(|(_, v)| v.clone())
                });
                mounts.push(Mount {
                    target: Some(mount.target.clone()),
                    source,
                    typ: Some(MountType::VOLUME),
                    read_only: Some(mount.read_only),
                    volume_options: Some(MountVolumeOptions {
                        no_copy: Some(*nocopy),
                        labels: (!labels.is_empty()).then(|| map(labels)),
                        driver_config: (!driver_opts.is_empty()).then(|| MountVolumeOptionsDriverConfig {
                            name: Some("local".to_owned()),
                            options: Some(map(driver_opts)),
                        }),
                        subpath: subpath.clone(),
                    }),
                    ..Mount::default()
                });
            }
            MountSource::Tmpfs { size, mode, options } => {
                let mut words: Vec<String> = options.clone();
                words.extend(size.map(|size| format!("size={size}")));
                words.extend(mode.map(|mode| format!("mode={mode:o}")));
                if options.is_empty() && mount_api_tmpfs(spec, mount) {
                    mounts.push(Mount {
                        target: Some(mount.target.clone()),
                        typ: Some(MountType::TMPFS),
                        read_only: Some(mount.read_only),
                        tmpfs_options: Some(MountTmpfsOptions {
                            size_bytes: size.and_then(|size| i64::try_from(size).ok()),
                            mode: mode.map(i64::from),
                            options: None,
                        }),
                        ..Mount::default()
                    });
                } else {
                    tmpfs.insert(mount.target.clone(), words.join(","));
                }
            }
            MountSource::Image { reference, subpath } => mounts.push(Mount {
                target: Some(mount.target.clone()),
                source: Some(reference.clone()),
                typ: Some(MountType::IMAGE),
                read_only: Some(true),
                image_options: Some(MountImageOptions { subpath: subpath.clone() }),
                ..Mount::default()
            }),
        }
    }
    for (target, volume) in inherited {
        if spec.mounts.iter().all(|mount| mount.target != *target) {
            binds.push(format!("{volume}:{target}"));
        }
    }
    Ok((binds, mounts, tmpfs))
}

/// Read-only and size limits are said through the mount API; plain ones through `Tmpfs`.
fn mount_api_tmpfs(_spec: &ContainerSpec, mount: &MountSpec) -> bool {
    mount.read_only || !matches!(mount.source, MountSource::Tmpfs { size: None, mode: None, .. })
}

fn bind_mount(
    mount: &MountSpec,
    source: &str,
    propagation: Option<&str>,
    recursive: Option<&str>,
) -> Result<Mount> {
    let propagation = match propagation {
        None => None,
        Some("private") => Some(MountBindOptionsPropagationEnum::PRIVATE),
        Some("rprivate") => Some(MountBindOptionsPropagationEnum::RPRIVATE),
        Some("shared") => Some(MountBindOptionsPropagationEnum::SHARED),
        Some("rshared") => Some(MountBindOptionsPropagationEnum::RSHARED),
        Some("slave") => Some(MountBindOptionsPropagationEnum::SLAVE),
        Some("rslave") => Some(MountBindOptionsPropagationEnum::RSLAVE),
        Some(other) => {
            return Err(EngineError::Unsupported {
                engine: "docker",
                attribute: "bind.propagation".to_owned(),
                reason: format!("`{other}` is not a mount propagation"),
            });
        }
    };
    let create = matches!(mount.source, MountSource::Bind { create: true, .. });
    Ok(Mount {
        target: Some(mount.target.clone()),
        source: Some(source.to_owned()),
        typ: Some(MountType::BIND),
        read_only: Some(mount.read_only),
        bind_options: Some(MountBindOptions {
            propagation,
            create_mountpoint: create.then_some(true),
            non_recursive: (recursive == Some("disabled")).then_some(true),
            read_only_non_recursive: (recursive == Some("writable")).then_some(true),
            read_only_force_recursive: (recursive == Some("readonly")).then_some(true),
        }),
        ..Mount::default()
    })
}

fn resources(r: &ResourceSpec) -> HostConfig {
    let throttle = |list: &[(String, u64)]| {
        some(
            list.iter()
                .map(|(path, rate)| ThrottleDevice {
                    path: Some(path.clone()),
                    rate: i64::try_from(*rate).ok(),
                })
                .collect(),
        )
    };
    HostConfig {
        memory: r.memory,
        memory_reservation: r.memory_reservation,
        memory_swap: r.memory_swap,
        memory_swappiness: r.memory_swappiness,
        oom_kill_disable: r.oom_kill_disable.then_some(true),
        oom_score_adj: (r.oom_score_adj != 0).then_some(i64::from(r.oom_score_adj)),
        nano_cpus: r.nano_cpus,
        cpu_shares: r.cpu_shares,
        cpu_quota: r.cpu_quota,
        cpu_period: r.cpu_period,
        cpu_realtime_runtime: r.cpu_rt_runtime,
        cpu_realtime_period: r.cpu_rt_period,
        cpuset_cpus: r.cpuset_cpus.clone(),
        cpuset_mems: r.cpuset_mems.clone(),
        pids_limit: r.pids,
        blkio_weight: r.blkio_weight,
        blkio_weight_device: some(
            r.blkio_weight_device
                .iter()
                .map(|(path, weight)| ResourcesBlkioWeightDevice {
                    path: Some(path.clone()),
                    weight: usize::try_from(*weight).ok(),
                })
                .collect(),
        ),
        blkio_device_read_bps: throttle(&r.blkio_read_bps),
        blkio_device_write_bps: throttle(&r.blkio_write_bps),
        blkio_device_read_iops: throttle(&r.blkio_read_iops),
        blkio_device_write_iops: throttle(&r.blkio_write_iops),
        shm_size: r.shm_size.and_then(|size| i64::try_from(size).ok()),
        ulimits: some(
            r.ulimits
                .iter()
                .map(|(name, soft, hard)| ResourcesUlimits {
                    name: Some(name.clone()),
                    soft: Some(*soft),
                    hard: Some(*hard),
                })
                .collect(),
        ),
        devices: some(
            r.devices
                .iter()
                .map(|device| DeviceMapping {
                    path_on_host: Some(device.source.to_string_lossy().into_owned()),
                    path_in_container: Some(device.target.clone()),
                    cgroup_permissions: Some(device.permissions.clone()),
                })
                .collect(),
        ),
        device_cgroup_rules: some(r.device_cgroup_rules.clone()),
        device_requests: some(
            r.device_requests
                .iter()
                .map(|request| DeviceRequest {
                    driver: Some(request.driver.clone()),
                    count: Some(request.count),
                    device_ids: some(request.device_ids.clone()),
                    capabilities: some(request.capabilities.clone()),
                    options: (!request.options.is_empty()).then(|| map(&request.options)),
                })
                .collect(),
        ),
        cgroup_parent: r.cgroup_parent.clone(),
        storage_opt: (!r.storage_opt.is_empty()).then(|| map(&r.storage_opt)),
        ..HostConfig::default()
    }
}

/// An empty list is left out: the Engine tells “none given” from “given empty” in a few places.
fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

pub(super) fn map(from: &std::collections::BTreeMap<String, String>) -> HashMap<String, String> {
    from.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
}
