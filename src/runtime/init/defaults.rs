//! What Docker gives every container that does not ask for something else.

use super::{DeviceKind, DeviceRule, NamespaceMode};
use crate::runtime::cgroup::Layout;

/// Paths hidden from unprivileged containers, as Docker Engine 28 does it.
pub const MASKED_PATHS: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Paths that are read-only in unprivileged containers, as Docker Engine 28 does it.
pub const READONLY_PATHS: &[&str] =
    &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Device access of an unprivileged container: make any node, use the standard ones.
pub fn default_device_rules() -> Vec<DeviceRule> {
    let rule = |kind, major, minor, use_it| DeviceRule {
        kind: Some(kind),
        major,
        minor,
        read: use_it,
        write: use_it,
        mknod: true,
    };
    let used = [
        (1, Some(3)), // null
        (1, Some(5)), // zero
        (1, Some(7)), // full
        (1, Some(8)), // random
        (1, Some(9)), // urandom
        (5, Some(0)), // tty
        (5, Some(1)), // console
        (5, Some(2)), // ptmx
        (136, None),  // pts/*
    ];
    let mut rules =
        vec![rule(DeviceKind::Char, None, None, false), rule(DeviceKind::Block, None, None, false)];
    rules.extend(used.map(|(major, minor)| rule(DeviceKind::Char, Some(major), minor, true)));
    rules
}

/// All access to all devices, for privileged containers.
pub fn all_device_rules() -> Vec<DeviceRule> {
    vec![DeviceRule { kind: None, major: None, minor: None, read: true, write: true, mknod: true }]
}

/// The cgroup namespace of a container that does not ask for one: its own on a
/// pure v2 machine, else the host's, as Docker does it.
pub fn default_cgroup_namespace() -> NamespaceMode {
    if Layout::get().is_pure_unified() { NamespaceMode::Own } else { NamespaceMode::Host }
}
