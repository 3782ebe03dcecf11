//! Other processes' namespaces.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use super::{LaunchError, NamespaceMode, Namespaces};
use crate::runtime::mount::{self, MountError, Root};

/// Opens a process whose namespaces are to be joined.
pub(super) fn open_process(pid: i32) -> Result<OwnedFd, LaunchError> {
    let failed = |e: rustix::io::Errno| LaunchError::Namespace {
        namespace: format!("process {pid}'s"),
        source: e.into(),
    };
    let pid = Pid::from_raw(pid).ok_or(rustix::io::Errno::SRCH).map_err(failed)?;
    pidfd_open(pid, PidfdFlags::empty()).map_err(failed)
}

/// Runs `clone` so that its child is born in the PID namespace of `target`.
///
/// One cannot enter a PID namespace, only have children there; so the caller's
/// setting for children is changed for the moment.
pub(super) fn born_in_pid_namespace<T>(
    target: BorrowedFd<'_>,
    clone: impl FnOnce() -> Result<T, LaunchError>,
) -> Result<T, LaunchError> {
    let failed = |e: rustix::io::Errno| LaunchError::Namespace { namespace: "pid".into(), source: e.into() };
    let own = pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).map_err(failed)?;
    move_into_thread_name_spaces(target, ThreadNameSpaceType::PROCESS_ID).map_err(failed)?;
    let result = clone();
    // Also runs in the child, where it would fail: a namespace above one's own cannot be chosen.
    let restored = move_into_thread_name_spaces(own.as_fd(), ThreadNameSpaceType::PROCESS_ID);
    let value = result?;
    match restored {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::SRCH) => Ok(value),
        Err(e) => Err(failed(e)),
    }
}

/// The processes whose namespaces a container joins, opened in the maker's PID
/// namespace: inside another one the numbers mean nothing.
#[derive(Debug, Default)]
pub(super) struct Joined {
    pub(super) ipc: Option<OwnedFd>,
    pub(super) uts: Option<OwnedFd>,
    pub(super) cgroup: Option<OwnedFd>,
}

impl Joined {
    /// Opens them.
    pub(super) fn open(spaces: &Namespaces) -> Result<Self, LaunchError> {
        let open = |mode| match mode {
            NamespaceMode::Join(pid) => open_process(pid).map(Some),
            NamespaceMode::Own | NamespaceMode::Host => Ok(None),
        };
        Ok(Self { ipc: open(spaces.ipc)?, uts: open(spaces.uts)?, cgroup: open(spaces.cgroup)? })
    }
}

/// A detached clone of what is mounted at `path` in the mount namespace of `target`.
///
/// A tree can only be cloned in its own namespace, so the caller visits it and comes back.
pub(super) fn tree_of(target: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, MountError> {
    let failed = |source: rustix::io::Errno| MountError { object: path.to_owned(), source: source.into() };
    let home = std::fs::File::open("/proc/thread-self/ns/mnt")
        .map_err(|e| MountError { object: "/proc/thread-self/ns/mnt".into(), source: e.into() })?;
    move_into_thread_name_spaces(target, ThreadNameSpaceType::MOUNT).map_err(failed)?;
    let cloned = open_root().and_then(|root| {
        let place = root.open_without_links(path)?;
        mount::clone_tree(place.as_fd(), false)
    });
    rustix::thread::move_into_link_name_space(home.as_fd(), Some(rustix::thread::LinkNameSpaceType::Mount))
        .map_err(failed)?;
    cloned.map_err(failed)
}

/// The caller's root directory.
pub(super) fn open_root() -> rustix::io::Result<Root> {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map(Root::new)
}
