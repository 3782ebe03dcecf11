//! From limits to control files.
//!
//! A limit becomes a list of `(file, value)` per hierarchy by a pure function, which
//! the tests look at; applying is writing them in order.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{Cgroup, CgroupError, Hierarchy, Layout, layout, set};
use crate::runtime::sys::Errno;
use crate::spec::ResourceSpec;

/// Default scheduling period in microseconds.
const PERIOD: i64 = 100_000;

/// One control file to write.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Setting {
    file: &'static str,
    value: String,
    /// Skip it with a warning naming this limit when the kernel has no such file, as Docker does.
    optional: Option<&'static str>,
}

impl Setting {
    fn new(file: &'static str, value: &(impl ToString + ?Sized)) -> Self {
        Self { file, value: value.to_string(), optional: None }
    }

    fn optional(file: &'static str, value: &(impl ToString + ?Sized), limit: &'static str) -> Self {
        Self { file, value: value.to_string(), optional: Some(limit) }
    }
}

/// Sets all limits that `spec` has; what it does not have stays as it is. Returns
/// the limits that this kernel cannot enforce and Docker would skip, too.
pub(super) fn apply(
    group: &Cgroup,
    layout: &Layout,
    spec: &ResourceSpec,
) -> Result<Vec<&'static str>, CgroupError> {
    let mut skipped = Vec::new();
    for hierarchy in layout.hierarchies() {
        let directory = group.directory(hierarchy);
        if hierarchy.has("cpuset") && !hierarchy.is_unified() {
            layout::inherit_cpuset(hierarchy, &directory)?;
        }
        let settings =
            if hierarchy.is_unified() { unified(hierarchy, spec)? } else { legacy(hierarchy, spec)? };
        for setting in settings {
            apply_one(&directory, &setting, &mut skipped)?;
        }
    }
    if layout.is_pure_unified() {
        for (present, name) in [
            (spec.memory_swappiness.is_some(), "memory_swappiness"),
            (spec.oom_kill_disable, "oom_kill_disable"),
            (spec.cpu_rt_runtime.is_some() || spec.cpu_rt_period.is_some(), "cpu_rt_runtime"),
        ] {
            if present {
                skipped.push(name);
            }
        }
    }
    skipped.dedup();
    Ok(skipped)
}

fn apply_one(
    directory: &Path,
    setting: &Setting,
    skipped: &mut Vec<&'static str>,
) -> Result<(), CgroupError> {
    let file = directory.join(setting.file);
    let Err(error) = set(&file, &setting.value) else { return Ok(()) };
    if let ("blkio.weight" | "blkio.weight_device" | "io.weight", libc::ENOENT) =
        (setting.file, error.source.raw())
    {
        // The BFQ scheduler has files of its own, and since Linux 5.0 v1 has no others.
        let file = directory.join(setting.file.replacen("io.", "io.bfq.", 1));
        if file.exists() {
            return set(&file, &setting.value);
        }
    }
    match setting.optional {
        Some(limit) if error.source.raw() == libc::ENOENT => {
            skipped.push(limit);
            Ok(())
        }
        // Neither memory limit may pass the other: when both are raised, swap goes first.
        _ if setting.file == "memory.limit_in_bytes" && error.source.raw() == libc::EINVAL => {
            set(&directory.join("memory.memsw.limit_in_bytes"), "-1")?;
            set(&file, &setting.value)
        }
        _ => Err(error),
    }
}

/// Memory + swap in bytes: given, or twice the memory as Docker does; −1 is unlimited.
fn memory_swap(spec: &ResourceSpec) -> Option<i64> {
    let memory = spec.memory.filter(|m| *m > 0);
    match (spec.memory_swap.filter(|s| *s != 0), memory) {
        (Some(given), _) => Some(given),
        (None, Some(memory)) => Some(memory.saturating_mul(2)),
        (None, None) => None,
    }
}

/// Quota and period in microseconds, from `nano_cpus` or as given.
fn quota(spec: &ResourceSpec) -> (Option<i64>, Option<i64>) {
    match spec.nano_cpus.filter(|n| *n > 0) {
        Some(nano) => (Some(nano.saturating_mul(PERIOD) / 1_000_000_000), Some(PERIOD)),
        None => (spec.cpu_quota.filter(|q| *q != 0), spec.cpu_period.filter(|p| *p > 0)),
    }
}

/// `pids.max` for a limit; 0 and below is unlimited.
fn pids_max(limit: i64) -> String {
    if limit > 0 { limit.to_string() } else { "max".to_owned() }
}

fn legacy(hierarchy: &Hierarchy, spec: &ResourceSpec) -> Result<Vec<Setting>, CgroupError> {
    let mut settings = Vec::new();
    if hierarchy.has("memory") {
        if let Some(memory) = spec.memory.filter(|m| *m != 0) {
            settings.push(Setting::new("memory.limit_in_bytes", &memory));
        }
        if let Some(swap) = memory_swap(spec) {
            settings.push(Setting::optional("memory.memsw.limit_in_bytes", &swap, "memory_swap"));
        }
        if let Some(soft) = spec.memory_reservation.filter(|m| *m != 0) {
            settings.push(Setting::new("memory.soft_limit_in_bytes", &soft));
        }
        if let Some(swappiness) = spec.memory_swappiness.filter(|s| *s >= 0) {
            settings.push(Setting::optional("memory.swappiness", &swappiness, "memory_swappiness"));
        }
        if spec.oom_kill_disable {
            settings.push(Setting::optional("memory.oom_control", &1, "oom_kill_disable"));
        }
    }
    if hierarchy.has("cpu") {
        if let Some(shares) = spec.cpu_shares.filter(|s| *s > 0) {
            settings.push(Setting::new("cpu.shares", &shares));
        }
        let (quota, period) = quota(spec);
        settings.extend(period.map(|p| Setting::new("cpu.cfs_period_us", &p)));
        settings.extend(quota.map(|q| Setting::new("cpu.cfs_quota_us", &q)));
        let rt_period = spec.cpu_rt_period.filter(|p| *p > 0);
        settings.extend(rt_period.map(|p| Setting::optional("cpu.rt_period_us", &p, "cpu_rt_period")));
        let rt_runtime = spec.cpu_rt_runtime.filter(|p| *p > 0);
        settings.extend(rt_runtime.map(|p| Setting::optional("cpu.rt_runtime_us", &p, "cpu_rt_runtime")));
    }
    if hierarchy.has("cpuset") {
        settings.extend(spec.cpuset_cpus.iter().map(|v| Setting::new("cpuset.cpus", &v)));
        settings.extend(spec.cpuset_mems.iter().map(|v| Setting::new("cpuset.mems", &v)));
    }
    if hierarchy.has("pids") {
        settings.extend(spec.pids.map(|p| Setting::new("pids.max", &pids_max(p))));
    }
    if hierarchy.has("blkio") {
        if let Some(weight) = spec.blkio_weight.filter(|w| *w > 0) {
            settings.push(Setting::optional("blkio.weight", &weight, "blkio_weight"));
        }
        for (device, weight) in &spec.blkio_weight_device {
            let value = format!("{} {weight}", device_number(device)?);
            settings.push(Setting::optional("blkio.weight_device", &value, "blkio_weight_device"));
        }
        for (list, file) in [
            (&spec.blkio_read_bps, "blkio.throttle.read_bps_device"),
            (&spec.blkio_write_bps, "blkio.throttle.write_bps_device"),
            (&spec.blkio_read_iops, "blkio.throttle.read_iops_device"),
            (&spec.blkio_write_iops, "blkio.throttle.write_iops_device"),
        ] {
            for (device, rate) in list {
                settings.push(Setting::new(file, &format!("{} {rate}", device_number(device)?)));
            }
        }
    }
    Ok(settings)
}

fn unified(hierarchy: &Hierarchy, spec: &ResourceSpec) -> Result<Vec<Setting>, CgroupError> {
    let max = |value: i64| if value < 0 { "max".to_owned() } else { value.to_string() };
    let mut settings = Vec::new();
    if hierarchy.has("memory") {
        let memory = spec.memory.filter(|m| *m != 0);
        settings.extend(memory.map(|m| Setting::new("memory.max", &max(m))));
        if let Some(total) = memory_swap(spec) {
            // v2 counts swap alone.
            let swap = match memory.filter(|m| *m > 0) {
                Some(memory) if total >= 0 => (total - memory).max(0),
                _ => -1,
            };
            settings.push(Setting::optional("memory.swap.max", &max(swap), "memory_swap"));
        }
        let reservation = spec.memory_reservation.filter(|m| *m != 0);
        settings.extend(reservation.map(|m| Setting::new("memory.low", &max(m))));
    }
    if hierarchy.has("cpu") {
        let shares = spec.cpu_shares.filter(|s| *s > 0);
        settings.extend(shares.map(|s| Setting::new("cpu.weight", &weight_of_shares(s))));
        let (quota, period) = quota(spec);
        if quota.is_some() || period.is_some() {
            let value = format!("{} {}", max(quota.unwrap_or(-1)), period.unwrap_or(PERIOD));
            settings.push(Setting::new("cpu.max", &value));
        }
    }
    if hierarchy.has("cpuset") {
        settings.extend(spec.cpuset_cpus.iter().map(|v| Setting::new("cpuset.cpus", &v)));
        settings.extend(spec.cpuset_mems.iter().map(|v| Setting::new("cpuset.mems", &v)));
    }
    if hierarchy.has("pids") {
        settings.extend(spec.pids.map(|p| Setting::new("pids.max", &pids_max(p))));
    }
    if hierarchy.has("io") {
        // 10–1000 becomes 1–10000.
        let weight = |w: u64| 1 + w.clamp(10, 1000).saturating_sub(10) * 9999 / 990;
        if let Some(given) = spec.blkio_weight.filter(|w| *w > 0) {
            let value = format!("default {}", weight(u64::from(given)));
            settings.push(Setting::optional("io.weight", &value, "blkio_weight"));
        }
        for (device, given) in &spec.blkio_weight_device {
            let value = format!("{} {}", device_number(device)?, weight(*given));
            settings.push(Setting::optional("io.weight", &value, "blkio_weight_device"));
        }
        for (list, key) in [
            (&spec.blkio_read_bps, "rbps"),
            (&spec.blkio_write_bps, "wbps"),
            (&spec.blkio_read_iops, "riops"),
            (&spec.blkio_write_iops, "wiops"),
        ] {
            for (device, rate) in list {
                settings.push(Setting::new("io.max", &format!("{} {key}={rate}", device_number(device)?)));
            }
        }
    }
    Ok(settings)
}

/// `cpu.weight` (1–10000) for v1 shares (2–262144), so that the defaults 1024 and 100 meet.
///
/// # Source
/// opencontainers/cgroups `ConvertCPUSharesToCgroupV2Value`: a quadratic fit in the logarithms.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "both ranges are small")]
fn weight_of_shares(shares: i64) -> i64 {
    match shares {
        ..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            10_f64.powf(exponent).ceil() as i64
        }
    }
}

/// `major:minor` of a host device.
fn device_number(path: &str) -> Result<String, CgroupError> {
    let metadata = std::fs::metadata(path).map_err(|e| CgroupError::new("use block device", path, e))?;
    let device = metadata.rdev();
    if device == 0 {
        return Err(CgroupError::new("use block device", path, Errno::new(libc::ENOTBLK)));
    }
    Ok(format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(settings: &[Setting]) -> Vec<String> {
        settings.iter().map(|s| format!("{}={}", s.file, s.value)).collect()
    }

    fn spec() -> ResourceSpec {
        ResourceSpec {
            memory: Some(64 << 20),
            nano_cpus: Some(500_000_000),
            cpu_shares: Some(1024),
            pids: Some(100),
            cpuset_cpus: Some("0-1".to_owned()),
            ..ResourceSpec::default()
        }
    }

    #[test]
    fn limits_on_v2() {
        let hierarchy = layout::tests::unified(&["memory", "cpu", "cpuset", "pids", "io"]);
        assert_eq!(
            files(&unified(&hierarchy, &spec()).expect("settings")),
            [
                "memory.max=67108864",
                "memory.swap.max=67108864", // twice the memory in all, as Docker's default
                "cpu.weight=100",
                "cpu.max=50000 100000",
                "cpuset.cpus=0-1",
                "pids.max=100"
            ]
        );
        let unlimited = ResourceSpec { memory_swap: Some(-1), pids: Some(-1), ..spec() };
        let settings = files(&unified(&hierarchy, &unlimited).expect("settings"));
        assert!(settings.contains(&"memory.swap.max=max".to_owned()));
        assert!(settings.contains(&"pids.max=max".to_owned()));
    }

    #[test]
    fn limits_on_v1_go_to_their_own_hierarchy() {
        let memory = layout::tests::legacy(&["memory"]);
        assert_eq!(
            files(&legacy(&memory, &spec()).expect("settings")),
            ["memory.limit_in_bytes=67108864", "memory.memsw.limit_in_bytes=134217728"]
        );
        let cpu = layout::tests::legacy(&["cpu", "cpuacct"]);
        assert_eq!(
            files(&legacy(&cpu, &spec()).expect("settings")),
            ["cpu.shares=1024", "cpu.cfs_period_us=100000", "cpu.cfs_quota_us=50000"]
        );
    }

    #[test]
    fn shares_map_to_weights_at_the_ends_and_the_default() {
        assert_eq!([2, 1024, 262_144].map(weight_of_shares), [1, 100, 10_000]);
    }
}
