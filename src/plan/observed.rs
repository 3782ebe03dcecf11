//! What the engine has of a project, as one snapshot.

use std::collections::BTreeMap;

use crate::engine::{ContainerState, ImageState, NetworkState, Phase, VolumeState};
use crate::graph::Dependencies;
use crate::model::labels;
use crate::spec::ContainerSpec;

/// Everything the engine has that a decision may depend on.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Containers of the project, one-offs included, by service, number and name.
    pub containers: Vec<ObservedContainer>,
    /// Networks by name: those of the project, and the external ones it uses.
    pub networks: BTreeMap<String, NetworkState>,
    /// Volumes by name: those of the project, and the external ones it uses.
    pub volumes: BTreeMap<String, VolumeState>,
    /// What containers whose configuration differs were asked to be, by id, where the engine knows.
    pub asked: BTreeMap<String, ContainerSpec>,
    /// Local images by the reference that services use.
    pub images: BTreeMap<String, ImageState>,
}

/// One container of the project.
#[derive(Debug, Clone, PartialEq)]
pub struct ObservedContainer {
    /// Its service, which the files may not know any more.
    pub service: String,
    /// Replica number; none for a one-off.
    pub number: Option<u32>,
    /// Made by `run`.
    pub oneoff: bool,
    /// What the engine says.
    pub state: ContainerState,
}

impl ObservedContainer {
    /// Reads the labels. `None` for a container that is no service's (no config hash, such as a hook's).
    pub fn new(state: ContainerState) -> Option<Self> {
        let service = state.labels.get(labels::SERVICE)?.clone();
        if !state.labels.contains_key(labels::CONFIG_HASH) {
            return None;
        }
        let oneoff = state.labels.get(labels::ONE_OFF).is_some_and(|v| v == "True");
        let number = state.labels.get(labels::CONTAINER_NUMBER).and_then(|n| n.parse().ok());
        Some(Self { service, number: number.filter(|_| !oneoff), oneoff, state })
    }

    /// It has a process, or is about to have one again.
    pub fn is_up(&self) -> bool {
        matches!(self.state.phase, Phase::Running | Phase::Paused | Phase::Restarting)
    }

    /// The value of one of its labels.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.state.labels.get(key).map(String::as_str)
    }

    /// The services it depends on, as its label says: name, condition, restart.
    ///
    /// # Source
    /// cli reference §8, `depends_on`: `svc:condition:restart` joined by `,`; older versions wrote less.
    pub fn dependencies(&self) -> Vec<(String, String, bool)> {
        let text = self.label(labels::DEPENDS_ON).unwrap_or_default();
        let parse = |item: &str| {
            let mut parts = item.split(':');
            let service = parts.next().filter(|s| !s.is_empty())?;
            let condition = parts.next().unwrap_or("service_started");
            Some((service.to_owned(), condition.to_owned(), parts.next() == Some("true")))
        };
        text.split(',').filter_map(parse).collect()
    }
}

/// Reads and sorts what `list` has given.
pub fn containers(states: Vec<ContainerState>) -> Vec<ObservedContainer> {
    let mut all: Vec<_> = states.into_iter().filter_map(ObservedContainer::new).collect();
    all.sort_by(|a, b| {
        (&a.service, a.oneoff, a.number, &a.state.name).cmp(&(&b.service, b.oneoff, b.number, &b.state.name))
    });
    all
}

/// The dependencies that the labels of containers tell of.
pub fn dependencies(containers: &[ObservedContainer]) -> Dependencies {
    let mut needs: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for container in containers {
        let of = needs.entry(&container.service).or_default();
        of.extend(container.dependencies().into_iter().map(|(service, ..)| service));
    }
    Dependencies::new(needs.iter().map(|(name, needs)| (*name, needs.iter().map(String::as_str))))
}
