//! Writing to `/proc` where nobody can have redirected it.

use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno as Os;

use super::LaunchError;

/// `PROC_SUPER_MAGIC` of `linux/magic.h`.
const PROC_MAGIC: i64 = 0x9fa0;

/// Opens `path` on the procfs mount `procfs` for writing; anything that leads to
/// another file system or over a link is refused (CVE-2025-52881).
fn open(procfs: BorrowedFd<'_>, path: &str) -> rustix::io::Result<OwnedFd> {
    let file = openat2(
        procfs,
        path,
        OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        Mode::empty(),
        ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV,
    )?;
    if rustix::fs::fstatfs(&file)?.f_type != PROC_MAGIC {
        return Err(Os::XDEV);
    }
    Ok(file)
}

fn write(procfs: BorrowedFd<'_>, path: &str, value: &str) -> rustix::io::Result<()> {
    let file = open(procfs, path)?;
    rustix::io::write(&file, value.as_bytes()).map(drop)
}

/// Sets kernel parameters, `net.ipv4.ip_forward` → `1`, in the caller's namespaces.
pub(super) fn set_parameters(
    procfs: BorrowedFd<'_>,
    parameters: &BTreeMap<String, String>,
) -> Result<(), LaunchError> {
    for (name, value) in parameters {
        write(procfs, &path_of(name), value).map_err(|e| LaunchError::Sysctl {
            name: name.clone(),
            value: value.clone(),
            source: e.into(),
        })?;
    }
    Ok(())
}

/// Dots separate, unless the name has a slash before its first dot: then slashes do
/// (interface names may contain dots), as in `sysctl(8)`.
fn path_of(name: &str) -> String {
    let separator = name.find(['.', '/']).map(|at| name.as_bytes()[at]);
    let path = if separator == Some(b'/') {
        name.to_owned()
    } else {
        name.replace('.', "\0").replace('/', ".").replace('\0', "/")
    };
    format!("sys/{path}")
}

/// Sets the process's own out-of-memory score. Lowering it needs a capability that
/// root lacks on some machines; that is tolerated.
pub(super) fn set_oom_score(procfs: BorrowedFd<'_>, score: i32) -> Result<(), LaunchError> {
    let own = rustix::process::getpid().as_raw_nonzero();
    match write(procfs, &format!("{own}/oom_score_adj"), &score.to_string()) {
        Ok(()) | Err(Os::ACCESS) => Ok(()),
        Err(e) => {
            Err(LaunchError::Setup { action: format!("set oom_score_adj to {score}"), source: e.into() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_paths() {
        assert_eq!(path_of("net.ipv4.ip_forward"), "sys/net/ipv4/ip_forward");
        assert_eq!(path_of("net/ipv4/conf/eth0.1/forwarding"), "sys/net/ipv4/conf/eth0.1/forwarding");
        assert_eq!(path_of("net.ipv4.conf.eth0/1.forwarding"), "sys/net/ipv4/conf/eth0.1/forwarding");
    }
}
