//! The root directory of a container, whatever state it is in.
//!
//! A running container's is reached through its first process; look-ups from that
//! descriptor see the container's own mounts. For a stopped one the root file
//! system and its volumes are put together once more, in a mount namespace that
//! only a thread of ours is in and that ends with it; the container's lock keeps
//! anybody from starting it meanwhile.

use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountAttrFlags, MountPropagationFlags, mount_change};

use super::FilesError;
use crate::runtime::container::Liveness;
use crate::runtime::error::{Result, RuntimeError};
use crate::runtime::init::{MountPlan, Prepared, prepare};
use crate::runtime::mount::{self, Overlay, Root};
use crate::runtime::state::{Life, Process, Record};
use crate::runtime::{Runtime, proc, sys};
use crate::spec::MountSource;

impl Runtime {
    /// Runs `work` with the root directory of a container.
    pub(super) fn with_files<T: Send>(
        &self,
        container: &str,
        work: impl FnOnce(&Root) -> std::result::Result<T, FilesError> + Send,
    ) -> Result<T> {
        let id = self.containers.resolve(container)?;
        let lock = self.containers.lock(&id)?;
        let idle = loop {
            let state = self.state_of(&id)?;
            match self.containers.liveness(&id, false)? {
                Liveness::Alive => match state.life {
                    Life::Running { process, .. } | Life::Paused { process, .. } => {
                        let root = root_of(process).map_err(|source| FilesError::Step {
                            step: "open the root directory of",
                            path: container.to_owned(),
                            source,
                        })?;
                        if let Some(root) = root {
                            // Stopping it meanwhile is nobody's harm.
                            drop(lock);
                            return Ok(work(&root)?);
                        }
                        self.containers.wait_for_shim_to_end(&id)?;
                    }
                    Life::Starting => self.wait_while_starting(&id)?,
                    Life::Restarting { .. } => {
                        return Err(FilesError::Restarting(container.to_owned()).into());
                    }
                    Life::Created | Life::Exited { .. } | Life::Failed { .. } | Life::Removing => {
                        self.containers.wait_for_shim_to_end(&id)?;
                    }
                },
                Liveness::Free(live) => break Some(live),
                Liveness::Absent => break None,
            }
        };
        let record =
            self.containers.record(&id)?.ok_or_else(|| RuntimeError::NotFound(container.to_owned()))?;
        let done = self.with_mounted(&record, work);
        drop(idle);
        drop(lock);
        done
    }

    /// Runs `work` with the root of a container that does not run.
    fn with_mounted<T: Send>(
        &self,
        record: &Record,
        work: impl FnOnce(&Root) -> std::result::Result<T, FilesError> + Send,
    ) -> Result<T> {
        // Memory file systems of an earlier run are gone; files put into a new one would be lost.
        let lasting = record.mounts.iter().filter(|m| !matches!(m.mount.source, MountSource::Tmpfs { .. }));
        let plans: Vec<MountPlan> =
            lasting.map(|m| self.mount_plan(&record.name, m)).collect::<Result<_>>()?;
        let done = std::thread::scope(|scope| {
            let spawned = std::thread::Builder::new()
                .name("files".into())
                .spawn_scoped(scope, || work(&self.assemble(record, &plans)?));
            match spawned {
                Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                Err(source) => Err(FilesError::Mount { object: "a thread's own name space".into(), source }),
            }
        });
        self.detach_volumes(record);
        Ok(done?)
    }

    /// Puts the tree together in a mount namespace of this thread's own.
    fn assemble(&self, record: &Record, plans: &[MountPlan]) -> std::result::Result<Root, FilesError> {
        let failed = |object: &str| {
            let object = object.to_owned();
            move |errno: rustix::io::Errno| FilesError::Mount { object, source: errno.into() }
        };
        let unmade = |target: &str| {
            let object = format!("`{target}`");
            move |errno: rustix::io::Errno| FilesError::Mount { object, source: errno.into() }
        };
        sys::unshare_mounts().map_err(failed("a name space"))?;
        let quiet = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        mount_change("/", quiet).map_err(failed("a private copy of the mounts"))?;
        let dir = self.containers.dir(&record.id);
        let (upper, work) = (dir.join("upper"), dir.join("work"));
        let layers: Vec<_> = record.layers.iter().rev().cloned().collect();
        let overlay =
            mount::overlay(&Overlay { layers: &layers, upper: &upper, work: &work, volatile: false })?;
        let place =
            rustix::fs::open(&upper, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(failed("the container's layer"))?;
        Root::attach(overlay.as_fd(), place.as_fd()).map_err(failed("the root file system"))?;
        let root = Root::new(overlay);
        for name in ["hostname", "hosts", "resolv.conf"] {
            let source = dir.join(name);
            if source.exists() {
                let target = format!("/etc/{name}");
                let tree = mount::bind(&source, false)?;
                let place = root.make_file(&target).map_err(unmade(&target))?;
                Root::attach(tree.as_fd(), place.as_fd()).map_err(unmade(&target))?;
            }
        }
        for plan in plans {
            let Prepared { mount, is_file, .. } = prepare(plan).map_err(|error| FilesError::Mount {
                object: format!("`{}`", plan.target),
                source: std::io::Error::other(crate::runtime::error::chain(&error)),
            })?;
            let target = &plan.target;
            let place = if is_file { root.make_file(target) } else { root.make_directory(target) };
            let place = place.map_err(unmade(target))?;
            Root::attach(mount.as_fd(), place.as_fd()).map_err(unmade(target))?;
        }
        if record.spec.security.read_only {
            let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
            mount::set_attributes(root.as_fd(), false, attributes, 0)
                .map_err(failed("the root file system read-only"))?;
        }
        Ok(root)
    }

    /// Unmounts volumes with a file system of their own that nobody else uses.
    fn detach_volumes(&self, record: &Record) {
        for mount in &record.mounts {
            let MountSource::Volume { name: Some(name), .. } = &mount.mount.source else { continue };
            let in_use = self.list().is_ok_and(|all| {
                all.iter().any(|c| {
                    c.state.life.is_live()
                        && c.record.mounts.iter().any(|m| {
                            matches!(&m.mount.source, MountSource::Volume { name: Some(n), .. } if n == name)
                        })
                })
            });
            if !in_use && let Ok(Some(volume)) = self.volumes.get(name) {
                // It is only untidy when it stays, and the next use finds it mounted.
                drop(self.volumes.detach(&volume));
            }
        }
    }
}

/// The root directory of a process; none when it has ended.
fn root_of(process: Process) -> std::io::Result<Option<Root>> {
    let path = format!("/proc/{}/root", process.pid);
    let opened = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    // Looked at after it was opened: a pid may have been used again before.
    match opened {
        _ if !proc::is_alive(process) => Ok(None),
        Ok(fd) => Ok(Some(Root::new(fd))),
        Err(error) => Err(error.into()),
    }
}
