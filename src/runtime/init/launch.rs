//! The first process of a container, seen from the shim.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::mount::MountAttrFlags;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::child::{self, Child};
use super::namespace::Joined;
use super::{
    LaunchError, LaunchPlan, Launched, MountPlan, MountSource, NamespaceMode, Propagation, Recursion, Stdio,
    identity, report,
};
use crate::runtime::cgroup::{Cgroup, CgroupError, Entrance};
use crate::runtime::mount::{self, MountError, Root};
use crate::runtime::sys::{self, CloneFlags, Cloned, Errno};

/// A user's mount, ready to be attached.
#[derive(Debug)]
pub(crate) struct Prepared<'a> {
    pub(crate) mount: OwnedFd,
    pub(crate) plan: &'a MountPlan,
    /// Whether a file is to be attached, not a directory.
    pub(crate) is_file: bool,
}

/// Starts a container and returns once its command has been executed.
///
/// Leaves nothing behind when it fails, except directories made in the upper layer
/// for mount targets. The caller must be single-threaded and keeps the cgroup to remove.
///
/// # Errors
/// [`LaunchError`] with the step and the object.
pub fn launch(
    plan: &LaunchPlan,
    stdio: Stdio<'_>,
    netns: Option<BorrowedFd<'_>>,
) -> Result<Launched, LaunchError> {
    if plan.process.args.is_empty() {
        return Err(LaunchError::Plan { reason: "there is no command".into() });
    }
    let (cgroup, skipped) = Cgroup::create(&plan.cgroup).map_err(cgroup_error)?;
    let started = start(plan, stdio, netns, &cgroup);
    match started {
        Ok((pid, pidfd, rootfs, pty)) => {
            Ok(Launched { pid, pidfd, cgroup, rootfs, pty, skipped_limits: skipped })
        }
        Err(error) => {
            cgroup.remove().ok();
            Err(error)
        }
    }
}

type Started = (i32, OwnedFd, OwnedFd, Option<OwnedFd>);

fn start(
    plan: &LaunchPlan,
    stdio: Stdio<'_>,
    netns: Option<BorrowedFd<'_>>,
    cgroup: &Cgroup,
) -> Result<Started, LaunchError> {
    let rootfs = mount::overlay(&mount::Overlay {
        layers: &plan.rootfs.layers,
        upper: &plan.rootfs.upper,
        work: &plan.rootfs.work,
        volatile: plan.rootfs.volatile,
    })
    .map_err(|MountError { object, source }| LaunchError::Rootfs { object, source })?;
    let mounts = plan.mounts.iter().map(prepare).collect::<Result<Vec<_>, _>>()?;
    let pts = mount::pseudo_terminals()
        .map_err(|e| LaunchError::Terminal { action: e.object, source: e.source })?;
    let terminal = match stdio {
        Stdio::Pty { rows, columns } => Some(
            mount::open_terminal(pts.as_fd(), rows, columns)
                .map_err(|e| LaunchError::Terminal { action: "open it".into(), source: e.into() })?,
        ),
        Stdio::Fds { .. } => None,
    };
    let entrance = cgroup.entrance().map_err(cgroup_error)?;
    let (reporter, reports) = report::channel()?;
    let child = Child {
        plan,
        stdio,
        netns,
        rootfs: &rootfs,
        mounts,
        pts,
        terminal: terminal.as_ref(),
        entrance: &entrance,
        joined: Joined::open(&plan.namespaces)?,
    };

    identity::hide_memory()?;
    let (pid, pidfd) = match clone_into(plan, &entrance)? {
        Cloned::Child => {
            drop(reports);
            child::run(&child, &reporter)
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(child);
    drop(reporter);
    match reports.wait() {
        Ok(_) => Ok((pid, pidfd, rootfs, terminal.map(|(master, _)| master))),
        Err(error) => Err(error.with_status(reap(pidfd.as_fd()))),
    }
}

/// Clones into the plan's own namespaces; those that are joined are entered by the
/// child, except for the PID namespace, which one can only be born in.
fn clone_into(plan: &LaunchPlan, entrance: &Entrance) -> Result<Cloned, LaunchError> {
    let spaces = &plan.namespaces;
    let mut flags = libc::CLONE_NEWNS;
    for (mode, flag) in
        [(spaces.pid, libc::CLONE_NEWPID), (spaces.ipc, libc::CLONE_NEWIPC), (spaces.uts, libc::CLONE_NEWUTS)]
    {
        if mode == NamespaceMode::Own {
            flags |= flag;
        }
    }
    let flags = CloneFlags(u64::from(flags.cast_unsigned()));
    let clone = || {
        sys::clone3(flags, entrance.unified.as_ref().map(AsFd::as_fd)).map_err(|e| LaunchError::Setup {
            action: "make the container's first process".into(),
            source: e.into(),
        })
    };
    match spaces.pid {
        NamespaceMode::Join(pid) => {
            let target = super::open_process(pid)?;
            super::born_in_pid_namespace(target.as_fd(), clone)
        }
        NamespaceMode::Own | NamespaceMode::Host => clone(),
    }
}

/// Waits for the end of a process that failed to start.
pub(super) fn reap(pidfd: BorrowedFd<'_>) -> i32 {
    let waited = rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED));
    match waited {
        Ok(Some(status)) => {
            status.exit_status().map(|code| code << 8).or(status.terminating_signal()).unwrap_or(-1)
        }
        _ => -1,
    }
}

pub(super) fn cgroup_error(error: CgroupError) -> LaunchError {
    LaunchError::Cgroup { action: error.action.to_owned(), path: error.path, source: error.source }
}

/// Opens and clones a mount's source in the host's view, before the container exists.
pub(crate) fn prepare(plan: &MountPlan) -> Result<Prepared<'_>, LaunchError> {
    let mount = match &plan.source {
        MountSource::Bind { path, subpath, recursive, propagation } => {
            let failed = |source: Errno| LaunchError::MountSource {
                path: path.display().to_string(),
                target: plan.target.clone(),
                source,
            };
            let deep = *recursive != Recursion::Disabled;
            let tree = match subpath {
                None => mount::bind(path, deep).map_err(|e| failed(e.source))?,
                Some(below) => open_below(path, below)
                    .and_then(|place| mount::clone_tree(place.as_fd(), deep))
                    .map_err(|e| failed(e.into()))?,
            };
            if plan.read_only {
                let all = matches!(recursive, Recursion::Enabled | Recursion::Readonly);
                mount::set_attributes(tree.as_fd(), all, MountAttrFlags::MOUNT_ATTR_RDONLY, 0)
                    .map_err(|e| failed(e.into()))?;
            }
            let (kind, all) = match propagation {
                Propagation::Private => (libc::MS_PRIVATE, false),
                Propagation::Rprivate => (libc::MS_PRIVATE, true),
                Propagation::Slave => (libc::MS_SLAVE, false),
                Propagation::Rslave => (libc::MS_SLAVE, true),
                Propagation::Shared => (libc::MS_SHARED, false),
                Propagation::Rshared => (libc::MS_SHARED, true),
            };
            mount::set_attributes(tree.as_fd(), all, MountAttrFlags::empty(), kind)
                .map_err(|e| failed(e.into()))?;
            tree
        }
        MountSource::Tmpfs { size, mode, options } => mount::tmpfs(*size, *mode, options, plan.read_only)
            .map_err(|e| LaunchError::Mount {
                what: e.object,
                target: plan.target.clone(),
                source: e.source,
            })?,
        MountSource::Layers { layers, subpath } => {
            let failed = |object: String, source: Errno| LaunchError::MountSource {
                path: object,
                target: plan.target.clone(),
                source,
            };
            let tree = mount::read_only_layers(layers).map_err(|e| failed(e.object, e.source))?;
            mount::set_attributes(tree.as_fd(), false, MountAttrFlags::MOUNT_ATTR_RDONLY, 0)
                .map_err(|e| failed("image".into(), e.into()))?;
            part_of(tree, subpath.as_deref())
                .map_err(|e| failed(subpath.clone().unwrap_or_default(), e.into()))?
        }
        MountSource::Scratch { layers, upper, work, subpath } => {
            let failed = |object: String, source: Errno| LaunchError::MountSource {
                path: object,
                target: plan.target.clone(),
                source,
            };
            let tree = mount::overlay(&mount::Overlay { layers, upper, work, volatile: true })
                .map_err(|e| failed(e.object, e.source))?;
            part_of(tree, subpath.as_deref())
                .map_err(|e| failed(subpath.clone().unwrap_or_default(), e.into()))?
        }
    };
    let is_file = rustix::fs::fstat(&mount)
        .is_ok_and(|s| rustix::fs::FileType::from_raw_mode(s.st_mode) != rustix::fs::FileType::Directory);
    Ok(Prepared { mount, plan, is_file })
}

/// A mount, or a part of it; nothing in it can lead out of it.
fn part_of(tree: OwnedFd, below: Option<&str>) -> rustix::io::Result<OwnedFd> {
    let Some(below) = below else { return Ok(tree) };
    let place = Root::new(tree).open(below)?;
    mount::clone_tree(place.as_fd(), false)
}

/// Opens `below` inside directory `base`; nothing in it can lead out of `base`.
fn open_below(base: &std::path::Path, below: &str) -> rustix::io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let base = rustix::fs::open(base, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Root::new(base).open(below)
}
