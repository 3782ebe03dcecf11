//! Acting on a running group: freeze, kill, remove, what is in it.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};

use super::{Cgroup, CgroupError, Entrance, Hierarchy, Layout, write};
use crate::runtime::sys::Errno;

/// How long dying processes may keep a group busy before its removal is given up.
const REMOVAL_DEADLINE: Duration = Duration::from_secs(5);

/// How long freezing may take. A process in uninterruptible sleep delays it.
const FREEZE_DEADLINE: Duration = Duration::from_secs(10);

impl Entrance {
    /// Moves the calling, single-threaded process into the v1 groups (it was born in the v2 one).
    ///
    /// Writing `0` to `tasks` moves the writer only and skips the lock that
    /// `cgroup.procs` takes.
    ///
    /// # Errors
    /// [`CgroupError`]; `ENOMEM`, `EBUSY` and the like say that the group's limits leave no room.
    pub fn enter(&self) -> Result<(), CgroupError> {
        for tasks in &self.tasks {
            rustix::io::write(tasks, b"0").map_err(|e| CgroupError::new("join", "tasks", e))?;
        }
        Ok(())
    }
}

impl Cgroup {
    /// Stops all processes of the group where they are, and waits until they are stopped.
    ///
    /// # Errors
    /// [`CgroupError`]; `ETIMEDOUT` if a process does not stop.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        self.set_frozen(true)
    }

    /// Lets the processes go on.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub fn thaw(&self) -> Result<(), CgroupError> {
        self.set_frozen(false)
    }

    /// Whether the group is frozen; false if it does not exist.
    pub fn is_frozen(&self) -> bool {
        self.frozen_state().is_ok_and(|(frozen, _)| frozen)
    }

    fn freezer(&self) -> Option<(&'static Hierarchy, std::path::PathBuf)> {
        let layout = Layout::get();
        let hierarchy = layout.unified().or_else(|| layout.legacy("freezer"))?;
        Some((hierarchy, self.directory(hierarchy)))
    }

    /// Whether it is frozen, and the file that says so.
    fn frozen_state(&self) -> Result<(bool, std::path::PathBuf), CgroupError> {
        let missing = || CgroupError::new("find the freezer of", self.path(), Errno::new(libc::ENOTSUP));
        let (hierarchy, directory) = self.freezer().ok_or_else(missing)?;
        let file = directory.join(if hierarchy.is_unified() { "cgroup.events" } else { "freezer.state" });
        let text = super::read(&file)?;
        let frozen = text.lines().any(|line| line == "frozen 1" || line == "FROZEN");
        Ok((frozen, file))
    }

    fn set_frozen(&self, frozen: bool) -> Result<(), CgroupError> {
        let missing = || CgroupError::new("find the freezer of", self.path(), Errno::new(libc::ENOTSUP));
        let (hierarchy, directory) = self.freezer().ok_or_else(missing)?;
        let (file, value) = match (hierarchy.is_unified(), frozen) {
            (true, true) => ("cgroup.freeze", "1"),
            (true, false) => ("cgroup.freeze", "0"),
            (false, true) => ("freezer.state", "FROZEN"),
            (false, false) => ("freezer.state", "THAWED"),
        };
        let deadline = Instant::now() + FREEZE_DEADLINE;
        loop {
            super::set(&directory.join(file), value)?;
            let (state, events) = self.frozen_state()?;
            if state == frozen {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(CgroupError::new("freeze", self.path(), Errno::new(libc::ETIMEDOUT)));
            }
            wait_for_change(&events);
        }
    }

    /// Kills every process of the group, also frozen ones and such that are being made.
    /// Returns at once; the processes die on their own time. A missing group is no error.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub fn kill(&self) -> Result<(), CgroupError> {
        let layout = Layout::get();
        if let Some(unified) = layout.unified() {
            // Since Linux 5.14, in one step that a fork cannot outrun.
            let file = self.directory(unified).join("cgroup.kill");
            match write(&file, "1") {
                Ok(()) => return Ok(()),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(CgroupError::new("write", file.display().to_string(), e)),
            }
        }
        // One by one, until no new ones appear; the pids limit bounds a forking crowd.
        for _ in 0..64 {
            let pids = self.processes();
            if pids.is_empty() {
                return Ok(());
            }
            for pid in pids.into_iter().filter_map(Pid::from_raw) {
                kill_process(pid, Signal::KILL).ok();
            }
            if self.is_frozen() {
                self.thaw().ok();
            }
        }
        Ok(())
    }

    /// The processes in the group (host numbering) and in groups below it; empty if it does not exist.
    pub fn processes(&self) -> Vec<i32> {
        let layout = Layout::get();
        let hierarchy =
            layout.unified().or_else(|| layout.legacy("pids")).or_else(|| layout.hierarchies().first());
        let mut found = Vec::new();
        if let Some(hierarchy) = hierarchy {
            collect_processes(&self.directory(hierarchy), &mut found);
        }
        found
    }

    /// Whether the group exists in any hierarchy.
    pub fn exists(&self) -> bool {
        Layout::get().hierarchies().iter().any(|h| self.directory(h).exists())
    }

    /// Removes the group with all groups below it, waiting while dying processes leave
    /// it. Processes that live on keep it: [`Cgroup::kill`] them first. Any process may
    /// call this, at any time and again; what is missing is skipped. Our own
    /// parent goes too when it is empty, so that the tree is as before the first container.
    ///
    /// # Errors
    /// [`CgroupError`] with the directory that is still busy.
    pub fn remove(&self) -> Result<(), CgroupError> {
        if self.path().is_empty() {
            return Err(CgroupError::new("remove", "/", Errno::new(libc::EINVAL)));
        }
        let deadline = Instant::now() + REMOVAL_DEADLINE;
        for hierarchy in Layout::get().hierarchies() {
            let directory = self.directory(hierarchy);
            while let Err(error) = remove_tree(&directory) {
                if error.raw_os_error() != Some(libc::EBUSY) || Instant::now() >= deadline {
                    return Err(CgroupError::new("remove", directory.display().to_string(), error));
                }
                wait_for_change(&directory.join("cgroup.events"));
            }
            // A parent that the user named is the user's. The kernel refuses to remove
            // one that has groups, and a start that misses it makes it again.
            let ours =
                |p: &&Path| p.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"hoist"));
            if let Some(parent) = directory.parent().filter(ours) {
                std::fs::remove_dir(parent).ok();
            }
        }
        Ok(())
    }
}

/// Waits until a v2 `cgroup.events` file changes, at most a few milliseconds (a v1
/// group has no such file and is simply looked at again then).
fn wait_for_change(events: &Path) {
    let pause = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
    let opened = std::fs::File::open(events);
    let mut watched: Vec<PollFd<'_>> = opened.iter().map(|file| PollFd::new(file, PollFlags::PRI)).collect();
    poll(&mut watched, Some(&pause)).ok();
}

/// Removes a group and those below it, deepest first. Control files go by themselves.
fn remove_tree(directory: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir(directory) {
        Ok(()) => return Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(_) => {}
    }
    if let Ok(entries) = std::fs::read_dir(directory) {
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                remove_tree(&entry.path())?;
            }
        }
    }
    match std::fs::remove_dir(directory) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn collect_processes(directory: &Path, found: &mut Vec<i32>) {
    if let Ok(text) = std::fs::read_to_string(directory.join("cgroup.procs")) {
        found.extend(text.lines().filter_map(|l| l.parse::<i32>().ok()));
    }
    if let Ok(entries) = std::fs::read_dir(directory) {
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                collect_processes(&entry.path(), found);
            }
        }
    }
}
