//! Capability sets from names.

use super::CapabilitySets;

/// Names by number (`linux/capability.h`, Linux 5.9 has the last).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What Docker gives by default.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// A name that is no capability.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no capability `{name}`")]
pub struct CapabilityError {
    /// As written.
    pub name: String,
}

/// The number of a capability, with or without `CAP_`, in any case.
pub fn number(name: &str) -> Option<u32> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|n| *n == short).and_then(|n| u32::try_from(n).ok())
}

/// The names in a set, with `CAP_`, in order of number.
pub fn names(set: u64) -> Vec<String> {
    NAMES
        .iter()
        .enumerate()
        .filter(|(n, _)| set >> n & 1 == 1)
        .map(|(_, name)| format!("CAP_{name}"))
        .collect()
}

/// The capabilities of a container: Docker's defaults plus `add` minus `drop`; all if `privileged`.
///
/// `ALL` stands for every capability that we have ourselves. With `ALL` added the
/// drops count from there; with `ALL` dropped only the added ones remain. Names
/// come with or without `CAP_`. What the process may hold is limited to our own
/// bounding set, as a container cannot have what its maker lacks.
///
/// # Errors
/// [`CapabilityError`] with the first unknown name.
///
/// # Source
/// moby `oci/caps/utils.go`, `TweakCapabilities`.
pub fn resolve(add: &[String], drop: &[String], privileged: bool) -> Result<CapabilitySets, CapabilityError> {
    resolve_within(add, drop, privileged, own_bounding_set())
}

fn resolve_within(
    add: &[String],
    drop: &[String],
    privileged: bool,
    available: u64,
) -> Result<CapabilitySets, CapabilityError> {
    let (add_all, add) = parse(add)?;
    let (drop_all, drop) = parse(drop)?;
    let default = parse(&DEFAULT.map(str::to_owned))?.1;
    let set = if privileged {
        u64::MAX
    } else if add_all {
        !drop
    } else if drop_all {
        add
    } else {
        (default & !drop) | add
    };
    let set = set & available;
    Ok(CapabilitySets { effective: set, permitted: set, inheritable: 0, bounding: set, ambient: 0 })
}

fn parse(names: &[String]) -> Result<(bool, u64), CapabilityError> {
    let mut all = false;
    let mut set = 0;
    for name in names {
        if name.eq_ignore_ascii_case("all") || name.eq_ignore_ascii_case("cap_all") {
            all = true;
            continue;
        }
        let number = number(name).ok_or_else(|| CapabilityError { name: name.clone() })?;
        set |= 1 << number;
    }
    Ok((all, set))
}

/// The capabilities that we can hand on.
fn own_bounding_set() -> u64 {
    (0..64)
        .filter(|n| {
            let capability = rustix::thread::CapabilitySet::from_bits_retain(1 << n);
            rustix::thread::capability_is_in_bounding_set(capability).unwrap_or(false)
        })
        .fold(0, |set, n| set | 1 << n)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u64 = (1 << 41) - 1;

    fn set(add: &[&str], drop: &[&str], privileged: bool) -> u64 {
        let words = |w: &[&str]| w.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        resolve_within(&words(add), &words(drop), privileged, ALL).expect("known").bounding
    }

    #[test]
    fn the_default_set_is_dockers() {
        // /proc/1/status of a container of Docker Engine 28: CapBnd 00000000a80425fb.
        assert_eq!(set(&[], &[], false), 0xa804_25fb);
    }

    #[test]
    fn add_and_drop_combine_as_in_docker() {
        assert_eq!(set(&["NET_ADMIN"], &["cap_mknod"], false), 0xa804_25fb & !(1 << 27) | 1 << 12);
        assert_eq!(set(&["ALL"], &["SYS_ADMIN"], false), ALL & !(1 << 21));
        assert_eq!(set(&["CHOWN"], &["ALL"], false), 1);
        assert_eq!(set(&[], &["ALL"], false), 0);
        assert_eq!(set(&[], &["ALL"], true), ALL);
    }

    #[test]
    fn an_unknown_name_is_refused() {
        let error = resolve(&["NET_ADMN".to_owned()], &[], false).expect_err("unknown");
        assert_eq!(error.to_string(), "there is no capability `NET_ADMN`");
    }
}
