//! Limits, devices and isolation.

use super::super::operation::Borrowed;
use super::Lowering;
use crate::model::{self, Bytes, Service};
use crate::spec::{DeviceRequest, DeviceSpec, ResourceSpec, SecuritySpec};

fn set(bytes: Bytes) -> Option<i64> {
    (bytes.0 != 0).then_some(bytes.0)
}

fn nonzero(number: i64) -> Option<i64> {
    (number != 0).then_some(number)
}

/// CPUs in units of 10⁻⁹. Rounded, because 0.1 in single precision is not.
fn nano_cpus(cpus: f32) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "at most some thousand CPUs")]
    let nano = (f64::from(cpus) * 1e6).round() as i64 * 1000;
    nonzero(nano)
}

pub(super) fn resources(service: &Service) -> Result<ResourceSpec, String> {
    let deploy = service.deploy.as_ref().map(|d| &d.resources);
    let limits = deploy.and_then(|r| r.limits.as_ref());
    let reserved = deploy.and_then(|r| r.reservations.as_ref());
    let blkio = service.blkio_config.as_ref();
    let rates = |pick: fn(&model::Blkio) -> &Vec<model::BlkioRate>| -> Vec<(String, u64)> {
        let rates = blkio.map(pick).into_iter().flatten();
        rates.map(|r| (r.path.clone(), u64::try_from(r.rate.0).unwrap_or(0))).collect()
    };
    let (devices, cdi) = devices(service);
    let mut requests: Vec<DeviceRequest> = service.gpus.iter().map(|r| device_request(r, true)).collect();
    requests.extend(reserved.into_iter().flat_map(|r| &r.devices).map(|r| device_request(r, false)));
    if !cdi.is_empty() {
        requests.push(DeviceRequest { driver: "cdi".into(), device_ids: cdi, ..DeviceRequest::default() });
    }
    Ok(ResourceSpec {
        memory: limits.and_then(|l| set(l.memory)).or(set(service.mem_limit)),
        memory_reservation: reserved.and_then(|r| set(r.memory)).or(set(service.mem_reservation)),
        memory_swap: set(service.memswap_limit),
        memory_swappiness: set(service.mem_swappiness),
        oom_kill_disable: service.oom_kill_disable,
        oom_score_adj: i32::try_from(service.oom_score_adj)
            .map_err(|_| format!("invalid oom_score_adj {}", service.oom_score_adj))?,
        nano_cpus: limits.and_then(|l| nano_cpus(l.cpus)).or(nano_cpus(service.cpus)),
        cpu_shares: nonzero(service.cpu_shares),
        cpu_quota: nonzero(service.cpu_quota),
        cpu_period: nonzero(service.cpu_period),
        cpu_rt_runtime: nonzero(service.cpu_rt_runtime),
        cpu_rt_period: nonzero(service.cpu_rt_period),
        cpuset_cpus: service.cpuset.clone(),
        cpuset_mems: None,
        pids: limits.and_then(|l| nonzero(l.pids)).or(nonzero(service.pids_limit)),
        blkio_weight: blkio.map(|b| b.weight).filter(|w| *w != 0),
        blkio_weight_device: blkio
            .into_iter()
            .flat_map(|b| &b.weight_device)
            .map(|w| (w.path.clone(), u64::from(w.weight)))
            .collect(),
        blkio_read_bps: rates(|b| &b.device_read_bps),
        blkio_write_bps: rates(|b| &b.device_write_bps),
        blkio_read_iops: rates(|b| &b.device_read_iops),
        blkio_write_iops: rates(|b| &b.device_write_iops),
        shm_size: u64::try_from(service.shm_size.0).ok().filter(|size| *size > 0),
        ulimits: service.ulimits.iter().map(|(name, limit)| (name.clone(), limit.soft, limit.hard)).collect(),
        devices,
        device_cgroup_rules: service.device_cgroup_rules.clone(),
        device_requests: requests,
        cgroup_parent: service.cgroup_parent.clone(),
        storage_opt: service.storage_opt.clone(),
    })
}

/// Host devices, and names in the Container Device Interface (`vendor/class=name`).
fn devices(service: &Service) -> (Vec<DeviceSpec>, Vec<String>) {
    let (mut devices, mut cdi) = (Vec::new(), Vec::new());
    for device in &service.devices {
        let source = device.source.clone().unwrap_or_default();
        let target = device.target.clone().unwrap_or_else(|| source.clone());
        if source == target && !source.starts_with('/') && source.contains('/') && source.contains('=') {
            cdi.push(source);
            continue;
        }
        let permissions = device.permissions.clone().unwrap_or_else(|| "rwm".into());
        devices.push(DeviceSpec { source: source.into(), target, permissions });
    }
    (devices, cdi)
}

fn device_request(request: &model::DeviceRequest, gpu: bool) -> DeviceRequest {
    let mut capabilities = request.capabilities.clone();
    if gpu && !capabilities.iter().any(|c| c == "gpu") {
        capabilities.push("gpu".into());
    }
    DeviceRequest {
        driver: request.driver.clone().unwrap_or_default(),
        count: request.count.0,
        device_ids: request.device_ids.clone(),
        capabilities: vec![capabilities],
        options: request.options.clone(),
    }
}

impl Lowering<'_> {
    pub(super) fn security(
        &self,
        service: &Service,
        borrows: &mut Vec<(String, Borrowed)>,
    ) -> Result<SecuritySpec, String> {
        let mut shared = |mode: Option<&String>, what: Borrowed| match mode?.strip_prefix("service:") {
            Some(from) => {
                borrows.push((from.to_owned(), what));
                None
            }
            None => mode.cloned(),
        };
        let ipc_mode = shared(service.ipc.as_ref(), Borrowed::Ipc);
        let pid_mode = shared(service.pid.as_ref(), Borrowed::Pid);
        let mut security_opt = Vec::with_capacity(service.security_opt.len());
        for option in &service.security_opt {
            security_opt.push(self.security_option(option)?);
        }
        Ok(SecuritySpec {
            privileged: service.privileged,
            cap_add: service.cap_add.clone(),
            cap_drop: service.cap_drop.clone(),
            security_opt,
            read_only: service.read_only,
            userns_mode: service.userns_mode.clone(),
            pid_mode,
            ipc_mode,
            uts_mode: service.uts.clone(),
            cgroupns_mode: service.cgroup.clone(),
            sysctls: service.sysctls.clone(),
            isolation: service.isolation.clone(),
        })
    }

    /// A seccomp profile is given by its text.
    fn security_option(&self, option: &str) -> Result<String, String> {
        let Some((key, value)) = option.split_once(['=', ':']) else { return Ok(option.to_owned()) };
        let inlined = value == "unconfined" || value == "builtin" || value.starts_with('{');
        if key != "seccomp" || inlined {
            return Ok(option.to_owned());
        }
        let path = self.project.working_dir.join(value);
        let text = (self.read)(&path)
            .map_err(|error| format!("cannot read seccomp profile `{}`: {error}", path.display()))?;
        Ok(format!("seccomp={text}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deployed_limits_win() {
        let limits = model::Resource { cpus: 0.1, pids: 5, ..model::Resource::default() };
        let service = Service {
            cpus: 2.0,
            mem_limit: Bytes(1 << 20),
            deploy: Some(model::Deploy {
                resources: model::Resources { limits: Some(limits), ..model::Resources::default() },
                ..model::Deploy::default()
            }),
            ..Service::default()
        };
        let spec = resources(&service).expect("valid");
        assert_eq!(spec.nano_cpus, Some(100_000_000));
        assert_eq!(spec.memory, Some(1 << 20));
        assert_eq!(spec.pids, Some(5));
    }
}
