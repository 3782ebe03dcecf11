//! Taking back what a start has made, and removing a container: used by shims, commands and repair alike.

use crate::runtime::cgroup::Cgroup;
use crate::runtime::container::Containers;
use crate::runtime::error::Result;
use crate::runtime::events::{Action, ContainerEvent, emit};
use crate::runtime::shim::plan::ShimPlan;
use crate::runtime::state::{Event, State};
use crate::runtime::volume::{VolumeError, Volumes};
use crate::runtime::{network, snapshot};
use crate::util::files;

/// Takes back everything of one start: processes left over, cgroup, network, run directory.
///
/// The caller holds the lock of the run directory. Each step may have been done before.
///
/// # Errors
/// The network could not be taken back; the run directory is then kept as the record of it.
pub(crate) fn clean(containers: &Containers, plan: &ShimPlan) -> Result<()> {
    let cgroup = Cgroup::at(plan.launch.cgroup.path.clone());
    // Nothing is left there but after a crash.
    drop(cgroup.kill());
    let network = network::disconnect(&plan.net);
    drop(cgroup.remove());
    network?;
    clean_run_directory(containers, &plan.id)
}

/// Removes the run directory, its lock file last.
///
/// # Errors
/// A file cannot be removed.
pub(crate) fn clean_run_directory(containers: &Containers, id: &str) -> Result<()> {
    let dir = containers.live_dir(id);
    for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
        if entry.file_name() != "lock" {
            files::remove_file(&entry.path())?;
        }
    }
    files::remove_file(&dir.join("lock"))?;
    // Somebody may have begun a new start in it; then it stays.
    drop(std::fs::remove_dir(&dir));
    Ok(())
}

/// Deletes a container that does not run: name, directory, and with `volumes` its anonymous volumes.
///
/// The caller has made sure that no shim is alive. Can be repeated after a crash at any point.
///
/// # Errors
/// A step fails; the container is then still there as `removing`.
pub(crate) fn remove(containers: &Containers, id: &str, volumes: bool) -> Result<()> {
    let root = containers.root();
    let Some(record) = containers.record(id)? else { return Ok(()) };
    if let Some(mut state) = containers.state(id)? {
        if state.apply(Event::Remove).is_ok() {
            containers.write_state(id, &state)?;
        }
    } else {
        containers.write_state(id, &State::new(""))?;
    }
    containers.free_name(&record.name, id)?;
    snapshot::remove(root, id)?;
    if volumes {
        let store = Volumes::new(root);
        for mount in record.mounts.iter().filter(|m| m.anonymous) {
            if let crate::spec::MountSource::Volume { name: Some(name), .. } = &mount.mount.source {
                let users = |volume: &str| users_of(containers, volume);
                match store.remove(name, &users) {
                    Ok(()) | Err(VolumeError::NotFound(_) | VolumeError::InUse { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
    let event = ContainerEvent {
        time: jiff::Timestamp::now(),
        id: record.id,
        name: record.name,
        image: record.spec.image,
        labels: record.spec.labels,
        action: Action::Destroy,
    };
    // An event that cannot be recorded does not undo a removal.
    drop(emit(root, &event));
    snapshot::empty_trash(root)?;
    Ok(())
}

/// Names of the containers that mount a volume.
pub(crate) fn users_of(containers: &Containers, volume: &str) -> Vec<String> {
    let mut names = Vec::new();
    for id in containers.ids().unwrap_or_default() {
        // A record that cannot be read counts as a user: rather keep a volume too many.
        match containers.record(&id) {
            Ok(None) => {}
            Ok(Some(record)) => {
                let uses = record.mounts.iter().any(|m| {
                    matches!(&m.mount.source, crate::spec::MountSource::Volume { name: Some(name), .. } if name == volume)
                });
                if uses {
                    names.push(record.name);
                }
            }
            Err(_) => names.push(id),
        }
    }
    names
}
