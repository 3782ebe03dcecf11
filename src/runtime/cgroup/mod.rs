//! Control groups: limits, accounting, freezing and killing, on v2, v1 and the hybrid layout.
//!
//! A container has one group of the same path in every hierarchy that is mounted.
//! On v1 that is one hierarchy per controller; on v2 one for all; on the hybrid
//! layout both, and the v2 group, which has no controllers there, still gives
//! atomic kill and freeze. Owns the groups below the path it is given and nothing
//! above it, except that it makes missing parents and removes empty ones.
//!
//! Joining never writes a pid to `cgroup.procs`: that takes a global lock and costs
//! an RCU grace period (8–14 ms on an idle machine). A process is born in the v2
//! group (`CLONE_INTO_CGROUP`) and writes `0` to the v1 `tasks` files itself.

mod control;
mod devices;
mod layout;
mod limits;
mod stats;

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

pub use layout::{Hierarchy, Layout};
pub use stats::{BlockStats, CgroupStats, CpuStats, MemoryStats, PidsStats};

use crate::runtime::init::CgroupPlan;
use crate::runtime::sys::Errno;

/// A container's group in every hierarchy that is in use.
///
/// It is only a name: nothing is opened or kept, so any process can make one
/// for a path and act on the group, also long after its maker died.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    path: String,
}

/// A cgroup step that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot {action} `{path}`")]
pub struct CgroupError {
    /// `create`, `set`, `read`, `remove`, …
    pub action: &'static str,
    /// Directory or file, with the value that was to be written where there is one.
    pub path: String,
    /// Cause.
    pub source: Errno,
}

impl CgroupError {
    fn new(action: &'static str, path: impl Into<String>, source: impl Into<Errno>) -> Self {
        Self { action, path: path.into(), source: source.into() }
    }
}

/// How a new process gets into a group.
#[derive(Debug)]
pub struct Entrance {
    /// Directory of the v2 group, for `CLONE_INTO_CGROUP`.
    pub unified: Option<OwnedFd>,
    /// `tasks` files of the v1 groups, opened for writing: the new process writes `0` to each.
    pub tasks: Vec<OwnedFd>,
}

impl Cgroup {
    /// The group at `path` below the root of every hierarchy; it need not exist.
    pub fn at(path: impl Into<String>) -> Self {
        Self { path: path.into() }
    }

    /// The path it was made with.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Makes the group in every hierarchy and sets its limits.
    ///
    /// A group that is left from an earlier start is made anew; one that still has
    /// processes is taken over. When a step fails, what was made is removed again. Also returns the names of limits that
    /// this kernel cannot enforce and that were skipped, as Docker skips them with a warning.
    ///
    /// # Errors
    /// [`CgroupError`] with the file and value; `ENOENT` on a limit whose controller the machine lacks.
    pub fn create(plan: &CgroupPlan) -> Result<(Self, Vec<&'static str>), CgroupError> {
        let layout = Layout::get();
        let group = Self::at(plan.path.trim_matches('/'));
        let mut made = group.create_in(layout, plan);
        // Another container's end may take the parent away between two of our steps.
        for _ in 0..10 {
            match &made {
                Err(error) if error.source == Errno::new(libc::ENOENT) => {}
                _ => break,
            }
            made = group.create_in(layout, plan);
        }
        if made.is_err() {
            group.remove_directories(layout);
        }
        made.map(|skipped| (group, skipped))
    }

    fn create_in(&self, layout: &Layout, plan: &CgroupPlan) -> Result<Vec<&'static str>, CgroupError> {
        if layout.hierarchies().is_empty() {
            return Err(CgroupError::new("find", "/sys/fs/cgroup", Errno::new(libc::ENOENT)));
        }
        for hierarchy in layout.hierarchies() {
            let directory = self.directory(hierarchy);
            let failed = |e| CgroupError::new("create", directory.display().to_string(), e);
            match std::fs::create_dir(&directory) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    // A group without processes is made anew: its counters, limits and
                    // device programs were another start's.
                    if std::fs::remove_dir(&directory).is_ok() {
                        std::fs::create_dir(&directory).map_err(failed)?;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    Layout::make_parents(hierarchy, &self.path)?;
                    match std::fs::create_dir(&directory) {
                        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(e)),
                        _ => {}
                    }
                }
                Err(error) => return Err(failed(error)),
            }
        }
        let skipped = limits::apply(self, layout, &plan.resources)?;
        devices::apply(self, layout, &plan.devices)?;
        Ok(skipped)
    }

    /// Changes the limits of a group that exists; what `resources` does not have stays.
    /// Returns limits that were skipped, as [`Cgroup::create`] does.
    ///
    /// # Errors
    /// [`CgroupError`] with the file and value.
    pub fn update(&self, resources: &crate::spec::ResourceSpec) -> Result<Vec<&'static str>, CgroupError> {
        limits::apply(self, Layout::get(), resources)
    }

    /// Opens what a new process needs to get in.
    ///
    /// # Errors
    /// [`CgroupError`] if the group does not exist.
    pub fn entrance(&self) -> Result<Entrance, CgroupError> {
        let mut entrance = Entrance { unified: None, tasks: Vec::new() };
        for hierarchy in Layout::get().hierarchies() {
            let directory = self.directory(hierarchy);
            if hierarchy.is_unified() {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let opened = rustix::fs::open(&directory, flags, Mode::empty());
                entrance.unified =
                    Some(opened.map_err(|e| CgroupError::new("open", directory.display().to_string(), e))?);
            } else {
                let tasks = directory.join("tasks");
                let opened = rustix::fs::open(&tasks, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
                entrance
                    .tasks
                    .push(opened.map_err(|e| CgroupError::new("open", tasks.display().to_string(), e))?);
            }
        }
        Ok(entrance)
    }

    /// Removes the group's directories, ignoring what is missing or busy.
    fn remove_directories(&self, layout: &Layout) {
        for hierarchy in layout.hierarchies() {
            std::fs::remove_dir(self.directory(hierarchy)).ok();
        }
    }

    /// The group's directory in `hierarchy`.
    pub fn directory(&self, hierarchy: &Hierarchy) -> PathBuf {
        hierarchy.mount_point().join(&self.path)
    }
}

/// Writes `value` to a control file in one `write`.
fn write(file: &std::path::Path, value: &str) -> std::io::Result<()> {
    let mut opened = File::options().write(true).open(file)?;
    opened.write_all(value.as_bytes())
}

/// Writes a control file and says which one and what if that fails.
fn set(file: &std::path::Path, value: &str) -> Result<(), CgroupError> {
    write(file, value).map_err(|e| CgroupError::new("set", format!("{}` to `{value}", file.display()), e))
}

/// Reads a control file.
fn read(file: &std::path::Path) -> Result<String, CgroupError> {
    std::fs::read_to_string(file).map_err(|e| CgroupError::new("read", file.display().to_string(), e))
}

#[cfg(test)]
mod tests;
