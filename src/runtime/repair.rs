//! Putting right what a killed process, or a lost machine, has left.
//!
//! Every command begins with [`Runtime::repair`]. It costs one directory listing
//! and one lock attempt per running container when all is well.

use std::time::Duration;

use jiff::Timestamp;

use crate::runtime::Runtime;
use crate::runtime::container::Liveness;
use crate::runtime::error::{Result, RuntimeError};
use crate::runtime::events::Action;
use crate::runtime::network::Networks;
use crate::runtime::proc;
use crate::runtime::shim::finish;
use crate::runtime::shim::plan::ShimPlan;
use crate::runtime::state::{End, Event, Life, State};
use crate::spec::RestartPolicy;
use crate::util::files;
use crate::util::fs::{self, Lock};

/// How long another command may be at creating a container before the sweep is left to a later
/// command. Creating takes some milliseconds, or as long as filling a volume takes.
const CREATION_TAKES: Duration = Duration::from_millis(250);

impl Runtime {
    /// Brings what is on disk in line with what runs: shims that were killed are replaced or their
    /// containers cleaned up, half-made and half-removed containers are swept.
    ///
    /// Containers in the hands of another command are left to it.
    ///
    /// # Errors
    /// The directories cannot be read. What fails for one container does not keep others from being repaired.
    pub fn repair(&self) -> Result<()> {
        self.after_boot()?;
        let mut failed = None;
        for id in self.containers.live_ids()? {
            if let Err(error) = self.repair_one(&id) {
                failed = Some(error);
            }
        }
        self.sweep()?;
        super::build::sweep(self.root())?;
        self.volumes.repair()?;
        Networks::new(self.root()).repair()?;
        failed.map_or(Ok(()), Err)
    }

    fn repair_one(&self, id: &str) -> Result<()> {
        // Nearly always a shim is alive, and that is all there is to know.
        match self.containers.liveness(id, false)? {
            Liveness::Alive | Liveness::Absent => return Ok(()),
            Liveness::Free(_) => {}
        }
        let _lock = match self.containers.lock(id) {
            Ok(lock) => Some(lock),
            // The container is gone, its run directory is not.
            Err(RuntimeError::NotFound(_)) => None,
            Err(error) => return Err(error),
        };
        match self.containers.liveness(id, false)? {
            Liveness::Alive | Liveness::Absent => Ok(()),
            Liveness::Free(lock) => self.repair_dead(id, lock),
        }
    }

    /// Repairs a container whose run directory exists and has no shim, under its lock.
    pub(super) fn repair_dead(&self, id: &str, lock: Lock) -> Result<()> {
        let plan: Option<ShimPlan> = fs::read_json(&self.containers.live_dir(id).join("plan"))?;
        let record = self.containers.record(id)?;
        let state = self.containers.state(id)?;
        let (Some(record), Some(mut state), Some(plan)) = (record, state, plan.as_ref()) else {
            match &plan {
                Some(plan) => finish::clean(&self.containers, plan)?,
                None => finish::clean_run_directory(&self.containers, id)?,
            }
            return self.void(id);
        };
        if let Some(process) = state.life.process()
            && proc::is_alive(process)
        {
            match self.spawn(id, &record.name, lock, true, Vec::new()) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    let Liveness::Free(lock) = self.containers.liveness(id, false)? else {
                        return Err(error);
                    };
                    if proc::is_alive(process) {
                        return Err(error);
                    }
                    // It ended in this moment.
                    return self.repair_dead(id, lock);
                }
            }
        }
        finish::clean(&self.containers, plan)?;
        drop(lock);
        if !state.life.is_live() {
            if plan.auto_remove {
                finish::remove(&self.containers, id, true)?;
            }
            return Ok(());
        }
        let started = !matches!(state.life, Life::Starting);
        let unfinished = matches!(state.life, Life::Restarting { .. });
        let end = match &state.life {
            Life::Restarting { end } => *end,
            _ => lost(),
        };
        if state.apply(Event::Lost(end)).is_ok() {
            self.containers.write_state(id, &state)?;
        }
        let wants = match plan.restart {
            RestartPolicy::No => false,
            RestartPolicy::Always | RestartPolicy::UnlessStopped => !state.stopped,
            RestartPolicy::OnFailure { max } => !state.stopped && max.is_none_or(|max| state.restarts < max),
        };
        let again = started && (wants || unfinished) && !state.stopped;
        if started && !unfinished {
            self.emit(&record, Action::Die { code: end.code, restarting: again });
        }
        if plan.auto_remove {
            return finish::remove(&self.containers, id, true);
        }
        if again && let Liveness::Free(lock) = self.containers.liveness(id, true)? {
            self.start_idle(&record, state, lock)?;
        }
        Ok(())
    }

    /// Corrects a live state that cannot be true.
    pub(super) fn void(&self, id: &str) -> Result<()> {
        let Some(mut state) = self.containers.state(id)? else { return Ok(()) };
        if state.life.is_live() && state.apply(Event::Lost(lost())).is_ok() {
            self.containers.write_state(id, &state)?;
        }
        Ok(())
    }

    /// Once per boot: nothing of before runs any more.
    fn after_boot(&self) -> Result<()> {
        let root = self.containers.root();
        let path = root.run().join("boot");
        let boot = files::boot_id()?;
        if files::read_opt(&path)?.is_some_and(|known| known == boot.as_bytes()) {
            return Ok(());
        }
        let _lock = Lock::exclusive(&root.run().join("boot.lock"))?;
        if files::read_opt(&path)?.is_some_and(|known| known == boot.as_bytes()) {
            return Ok(());
        }
        for id in self.containers.live_ids()? {
            // A tree below `HOIST_ROOT` survives a reboot; what its plans speak of does not.
            if self.containers.state(&id)?.is_none_or(|state| state.boot != boot) {
                if let Some(plan) = fs::read_json::<ShimPlan>(&self.containers.live_dir(&id).join("plan"))? {
                    finish::clean(&self.containers, &plan)?;
                } else {
                    finish::clean_run_directory(&self.containers, &id)?;
                }
            }
        }
        for id in self.containers.ids()? {
            let stale = |state: &State| state.life.is_live() && state.boot != boot;
            if self.containers.state(&id)?.is_some_and(|state| stale(&state)) {
                self.void(&id)?;
                if self.containers.record(&id)?.is_some_and(|record| record.spec.auto_remove) {
                    finish::remove(&self.containers, &id, true)?;
                }
            }
        }
        Ok(fs::write_atomic(&path, boot.as_bytes(), false)?)
    }

    /// Removes containers that were never finished, names without a container, and completes removals.
    fn sweep(&self) -> Result<()> {
        let ids = self.containers.ids()?;
        let dir = self.containers.names_dir();
        let names = files::names(&dir)?;
        // As many names as containers, and nothing to look closer at, is the normal case.
        let half_made: Vec<&String> =
            ids.iter().filter(|id| !self.containers.dir(id).join("spec.json").exists()).collect();
        let suspicious = !half_made.is_empty() || names.len() != ids.len();
        if !suspicious {
            return Ok(());
        }
        // Whoever is creating a container holds this shared.
        let creating = self.containers.root().containers().join(".creating");
        let Some(_lock) = Lock::exclusive_within(&creating, CREATION_TAKES)? else { return Ok(()) };
        for id in half_made {
            if !self.containers.dir(id).join("spec.json").exists() {
                self.remove_promised_volumes(id)?;
                crate::runtime::snapshot::remove(self.containers.root(), id)?;
            }
        }
        for name in names {
            let owner = files::read_opt(&dir.join(&name))?;
            let owner = owner.and_then(|o| String::from_utf8(o).ok()).unwrap_or_default();
            let current = self.containers.record(&owner)?.is_some_and(|record| record.name == name);
            if !current {
                // A rename in progress holds the container's lock.
                let _held = self.containers.lock(&owner).ok();
                if self.containers.record(&owner)?.is_none_or(|record| record.name != name) {
                    files::remove_file(&dir.join(&name))?;
                }
            }
        }
        for id in self.containers.ids()? {
            let Some(state) = self.containers.state(&id)? else { continue };
            if state.life == Life::Removing
                && let Ok(Some(_lock)) = self.containers.try_lock(&id)
            {
                finish::remove(&self.containers, &id, false)?;
            }
        }
        crate::runtime::snapshot::empty_trash(self.containers.root())?;
        Ok(())
    }
}

/// The end of a run that nobody saw.
fn lost() -> End {
    End { code: 255, at: Timestamp::now(), oom_killed: false, unknown: true }
}
