//! From a resolved plan to a running process: everything between the shim and `execve`.
//!
//! Owns the order of steps of a start (`launch`) and of an extra process
//! (`exec`), and what happens inside the new namespaces. Does not look at
//! images, volumes or users (the plan is resolved), does not make networks (the
//! namespace is given), does not supervise (the shim waits on the pidfd).
//!
//! ```text
//! launch(&LaunchPlan, Stdio, netns: Option<BorrowedFd>) -> Result<Launched, LaunchError>
//! exec(&ExecTarget { pidfd, cgroup }, &ProcessPlan, Stdio) -> Result<Executed, LaunchError>
//! ```
//! Both block until the command has been executed or has failed, and must be
//! called by a single-threaded process: the child of the clone runs Rust code.
//! `netns: None` leaves the container in the caller's network namespace (`network_mode: host`).

pub mod capabilities;
mod child;
mod defaults;
pub mod devices;
mod error;
mod exec;
mod identity;
mod launch;
mod limits;
mod namespace;
mod pid1;
mod plan;
mod proc;
mod report;

pub use defaults::{
    MASKED_PATHS, READONLY_PATHS, all_device_rules, default_cgroup_namespace, default_device_rules,
};
pub use error::LaunchError;
pub use exec::{ExecTarget, exec};
pub use launch::launch;
pub(crate) use launch::{Prepared, prepare};
pub use limits::{RlimitError, rlimits};
pub use plan::{
    CapabilitySets, CgroupPlan, DeviceKind, DeviceNode, DeviceRule, LaunchPlan, MountPlan, MountSource,
    NameFiles, NamespaceMode, Namespaces, ProcessPlan, Propagation, Recursion, Rlimit, RootfsPlan,
    SeccompProgram,
};

use std::os::fd::{BorrowedFd, OwnedFd};

use namespace::{born_in_pid_namespace, open_process};

/// Standard streams of a process.
#[derive(Debug, Clone, Copy)]
pub enum Stdio<'a> {
    /// These descriptors become 0, 1 and 2. They are also given to the process's user (`fchown`).
    Fds {
        /// Standard input.
        stdin: BorrowedFd<'a>,
        /// Standard output.
        stdout: BorrowedFd<'a>,
        /// Standard error.
        stderr: BorrowedFd<'a>,
    },
    /// A new pseudo-terminal of the container; its master is returned.
    Pty {
        /// Initial window height; 0 is unknown.
        rows: u16,
        /// Initial window width; 0 is unknown.
        columns: u16,
    },
}

/// A container whose command has been executed.
#[derive(Debug)]
pub struct Launched {
    /// PID 1 of the container in our numbering.
    pub pid: i32,
    /// Its pidfd: wait with `waitid(P_PIDFD)`, signal with `pidfd_send_signal`.
    pub pidfd: OwnedFd,
    /// Its cgroup.
    pub cgroup: crate::runtime::cgroup::Cgroup,
    /// The overlay. Keep it open until the exit has been recorded: its unmount
    /// syncs the upper file system, and whoever closes it last pays for that.
    pub rootfs: OwnedFd,
    /// Master side, with [`Stdio::Pty`].
    pub pty: Option<OwnedFd>,
    /// Limits that this machine's kernel cannot enforce (fields of the resource spec);
    /// the user should be told.
    pub skipped_limits: Vec<&'static str>,
}

/// An extra process whose command has been executed.
#[derive(Debug)]
pub struct Executed {
    /// The process in our numbering; a child of the caller.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// Master side, with [`Stdio::Pty`].
    pub pty: Option<OwnedFd>,
}

#[cfg(test)]
mod tests;
