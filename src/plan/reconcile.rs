//! Desired × observed × policy → plan.
//!
//! The order of a plan: networks and volumes; all containers that have to be
//! made, replacements under temporary names; a barrier, so that everything
//! that can be refused is refused before anything that runs is touched; then
//! replaced, surplus and orphaned containers go; then services start in
//! dependency order, each after the conditions it waits for.
//!
//! # Source
//! model reference §10, §17; cli reference §12. Where an interrupted command
//! left a replacement under its temporary name, it is finished or removed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::dag::{NodeId, Plan};
use super::diff;
use super::first_start;
use super::lifecycle::existing;
use super::lower::{self, Instance, Invalid, Lowering};
use super::observed::{Observed, ObservedContainer};
use super::operation::{Borrow, Borrowed, Condition, Operation, Target, Wait};
use crate::engine::Phase;
use crate::graph::{Cycle, Dependencies};
use crate::model::{Service, hash, labels};
use crate::spec::{HealthTest, NetworkMode, RestartPolicy};

/// Which containers are made anew although they exist.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Recreate {
    /// Those that differ from what the files ask for.
    #[default]
    Diverged,
    /// All.
    Force,
    /// None.
    Never,
}

/// What the user wants besides the files.
#[expect(clippy::struct_excessive_bools, reason = "independent wishes")]
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Policy {
    /// Services that are brought in line; with the dependencies unless those are to be left out.
    pub services: BTreeSet<String>,
    /// Those of them that the user named; empty when none was.
    pub named: BTreeSet<String>,
    /// For named services (all when none is).
    pub recreate: Recreate,
    /// For the others.
    pub recreate_dependencies: Recreate,
    /// Replacements get new anonymous volumes.
    pub renew_anonymous_volumes: bool,
    /// Containers of unknown services, and stopped one-offs, go.
    pub remove_orphans: bool,
    /// They are not even mentioned.
    pub ignore_orphans: bool,
    /// Replica counts by service, instead of the files'.
    pub scale: BTreeMap<String, u32>,
    /// Grace period of stops.
    pub grace: Option<Duration>,
    /// Containers are started, too.
    pub start: bool,
    /// And waited for until they are ready.
    pub ready: bool,
    /// A one-off container to be made once the conditions its service waits for hold.
    pub one_off: Option<OneOff>,
    /// Names of volumes that differ from the files and may be made anew, with the loss of their data.
    pub renew_volumes: BTreeSet<String>,
}

/// A container made by `run`.
#[derive(Debug, Clone, PartialEq)]
pub struct OneOff {
    /// The service as it is to be run.
    pub service: Service,
    /// Container name.
    pub name: String,
    /// Random id.
    pub slug: String,
    /// It answers to the service's names.
    pub use_aliases: bool,
    /// It goes away when it has ended.
    pub auto_remove: bool,
    /// Its standard input is closed when the one who is connected leaves.
    pub stdin_once: bool,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// An attribute cannot be carried out.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// No order.
    #[error(transparent)]
    Cycle(#[from] Cycle),
    /// A service that was to be started has no container.
    #[error("service `{service}` has no container to start")]
    NothingToStart {
        /// Service.
        service: String,
    },
    /// Declared as there, but not there.
    #[error("{kind} `{name}` is declared as external, but could not be found")]
    ExternalMissing {
        /// `network` or `volume`.
        kind: &'static str,
        /// Its name at the engine.
        name: String,
    },
    /// A condition that can never come true.
    #[error("service `{}` can never be {}", wait.service, wait.condition.as_str())]
    Impossible {
        /// The condition, and who waits for it.
        wait: Wait,
        /// Why.
        why: Impossible,
    },
}

/// Why a condition can never come true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Impossible {
    /// There is no health probe.
    NoHealthcheck,
    /// It is started again whenever it ends.
    NeverCompletes,
}

/// Volumes of the project that exist and differ from the files: key and name.
///
/// They are kept unless [`Policy::renew_volumes`] names them.
pub fn diverged_volumes(lowering: &Lowering<'_>, observed: &Observed) -> Vec<(String, String)> {
    let project = lowering.project;
    let diverged = |key: &str, volume: &crate::model::Volume| {
        let name = lower::volume_name(project, key);
        let state = observed.volumes.get(&name)?;
        let before = state.labels.get(labels::CONFIG_HASH)?;
        (!volume.external && *before != hash::volume(volume)).then_some(name)
    };
    project.volumes.iter().filter_map(|(key, v)| diverged(key, v).map(|name| (key.clone(), name))).collect()
}

/// Decides what has to be done.
///
/// # Errors
/// [`PlanError`]; then nothing has to be undone.
pub fn reconcile(
    lowering: &Lowering<'_>,
    order: &Dependencies,
    observed: &Observed,
    policy: &Policy,
) -> Result<Plan, PlanError> {
    let mut run = Reconciliation::new(lowering, observed, policy);
    let ordered: Vec<String> =
        order.order()?.into_iter().filter(|name| policy.services.contains(name)).collect();
    run.networks()?;
    run.volumes()?;
    for name in &ordered {
        if let Some(service) = lowering.project.services.get(name) {
            run.service(service)?;
        }
    }
    let barrier = run.barrier();
    run.retire(&barrier);
    run.orphans(&barrier);
    if policy.start {
        for name in &ordered {
            if let Some(service) = lowering.project.services.get(name) {
                run.start(service, &barrier)?;
            }
        }
    }
    if let Some(one_off) = &policy.one_off {
        run.one_off(one_off, &barrier)?;
    }
    Ok(run.plan)
}

/// Decides how containers that exist are started, dependencies first, each after what it waits for.
///
/// # Errors
/// [`PlanError`]; a named service without containers is one.
pub fn start(
    lowering: &Lowering<'_>,
    order: &Dependencies,
    observed: &Observed,
    policy: &Policy,
) -> Result<Plan, PlanError> {
    let mut run = Reconciliation::new(lowering, observed, policy);
    let ordered = order.order()?;
    for name in ordered.iter().filter(|name| policy.services.contains(*name)) {
        let Some(service) = lowering.project.services.get(name) else { continue };
        let mut replicas = Vec::new();
        for container in observed.containers.iter().filter(|c| c.service == *name && !c.oneoff) {
            let state = &container.state;
            if matches!(state.phase, Phase::Running | Phase::Restarting) {
                run.plan.kept.push(state.name.clone());
            }
            let (target, phase) = (existing(container), state.phase);
            replicas.push(Replica { target, after: Vec::new(), new: false, phase, started: Vec::new() });
        }
        if replicas.is_empty() && service.replicas() != 0 {
            return Err(PlanError::NothingToStart { service: name.clone() });
        }
        run.replicas.insert(name.clone(), replicas);
        run.start(service, &[])?;
    }
    Ok(run.plan)
}

/// A replica as it will be.
struct Replica {
    target: Target,
    /// What has to be done before it can be started.
    after: Vec<NodeId>,
    /// It is made in this plan.
    new: bool,
    phase: Phase,
    /// Nodes after which it has been started; empty when it ran before.
    started: Vec<NodeId>,
}

/// A container that is replaced or surplus, and the node of its replacement.
struct Obsolete<'a> {
    container: &'a ObservedContainer,
    replacement: Option<(NodeId, String)>,
    cause: String,
}

struct Reconciliation<'a> {
    lowering: &'a Lowering<'a>,
    observed: &'a Observed,
    policy: &'a Policy,
    plan: Plan,
    /// Nodes after which a network or volume is there, by name.
    networks: BTreeMap<String, NodeId>,
    volumes: BTreeMap<String, NodeId>,
    renewed_networks: BTreeSet<String>,
    /// Containers stopped by the plan, by id.
    stopped: BTreeMap<String, NodeId>,
    /// Containers removed because of their volume, by id.
    gone: BTreeMap<String, NodeId>,
    replicas: BTreeMap<String, Vec<Replica>>,
    created: Vec<NodeId>,
    /// Nodes that remove what interrupted commands have left of the service that is looked at.
    leftovers: Vec<NodeId>,
    obsolete: Vec<Obsolete<'a>>,
}

impl<'a> Reconciliation<'a> {
    fn new(lowering: &'a Lowering<'a>, observed: &'a Observed, policy: &'a Policy) -> Self {
        let services = observed.containers.iter().map(|c| (c.state.id.clone(), c.service.clone())).collect();
        Self {
            lowering,
            observed,
            policy,
            plan: Plan::new(services, false),
            networks: BTreeMap::new(),
            volumes: BTreeMap::new(),
            renewed_networks: BTreeSet::new(),
            stopped: BTreeMap::new(),
            gone: BTreeMap::new(),
            replicas: BTreeMap::new(),
            created: Vec::new(),
            leftovers: Vec::new(),
            obsolete: Vec::new(),
        }
    }

    fn of_project(&self, labels: &BTreeMap<String, String>) -> bool {
        labels.get(labels::PROJECT) == Some(&self.lowering.project.name)
    }

    fn selected(&self) -> impl Iterator<Item = &'a Service> + use<'a> {
        let policy = self.policy;
        let services = self.lowering.project.services.values();
        let one_off = policy.one_off.iter().map(|one_off| &one_off.service);
        services.filter(move |service| policy.services.contains(&service.name)).chain(one_off)
    }

    fn networks(&mut self) -> Result<(), PlanError> {
        let project = self.lowering.project;
        let mut keys: BTreeSet<&str> = BTreeSet::new();
        for service in self.selected().filter(|s| s.network_mode.is_none()) {
            keys.extend(service.networks.keys().map(String::as_str));
        }
        for key in keys {
            let declared = project.networks.get(key).cloned().unwrap_or_default();
            let name = lower::network_name(project, key);
            let state = self.observed.networks.get(&name);
            if declared.external {
                if state.is_none() {
                    return Err(PlanError::ExternalMissing { kind: "network", name });
                }
                continue;
            }
            let spec = lower::network(project, key, &declared);
            let Some(state) = state else {
                let node = self.plan.add(Operation::CreateNetwork { spec }, "not there yet", []);
                self.networks.insert(name, node);
                self.created.push(node);
                continue;
            };
            if !self.of_project(&state.labels) {
                self.plan.warnings.push(format!(
                    "network `{name}` exists but was not created for project `{}`: set `external: true` to use an existing network",
                    project.name
                ));
                continue;
            }
            let before = state.labels.get(labels::CONFIG_HASH);
            if before.is_some_and(|before| *before != spec.labels[labels::CONFIG_HASH]) {
                let mut removed = Vec::new();
                for container in
                    self.observed.containers.iter().filter(|c| c.state.networks.contains_key(&name))
                {
                    let after = self.stop(container, "its network is made anew", []);
                    let disconnect =
                        Operation::Disconnect { container: existing(container), network: name.clone() };
                    removed.push(self.plan.add(disconnect, "", after));
                }
                let remove = Operation::RemoveNetwork { name: name.clone(), tolerate_use: false };
                let remove = self.plan.add(remove, "its configuration changed", removed);
                let node = self.plan.add(Operation::CreateNetwork { spec }, "", [remove]);
                self.networks.insert(name.clone(), node);
                self.renewed_networks.insert(name);
                self.created.push(node);
            }
        }
        Ok(())
    }

    fn volumes(&mut self) -> Result<(), PlanError> {
        let project = self.lowering.project;
        let mut keys: BTreeSet<&str> = BTreeSet::new();
        for mount in self.selected().flat_map(|s| &s.volumes) {
            if mount.kind.as_deref().unwrap_or("volume") == "volume" {
                keys.extend(mount.source.as_deref().filter(|s| !s.is_empty()));
            }
        }
        for key in keys {
            let Some(declared) = project.volumes.get(key) else { continue };
            let name = lower::volume_name(project, key);
            let state = self.observed.volumes.get(&name);
            if declared.external {
                if state.is_none() {
                    return Err(PlanError::ExternalMissing { kind: "volume", name });
                }
                continue;
            }
            let spec = lower::volume(project, key, declared);
            let Some(state) = state else {
                let node = self.plan.add(Operation::CreateVolume { spec }, "not there yet", []);
                self.volumes.insert(name, node);
                self.created.push(node);
                continue;
            };
            if !self.of_project(&state.labels) {
                self.plan.warnings.push(format!(
                    "volume `{name}` already exists but was not created for project `{}`: set `external: true` to use an existing volume",
                    project.name
                ));
            } else if self.policy.renew_volumes.contains(&name) {
                let mut removed = Vec::new();
                let uses =
                    |c: &&ObservedContainer| c.state.mounts.iter().any(|m| m.name.as_ref() == Some(&name));
                for container in self.observed.containers.iter().filter(uses) {
                    let after = self.stop(container, "its volume is made anew", []);
                    let target = existing(container);
                    let remove =
                        Operation::RemoveContainer { container: target, volumes: false, replacement: true };
                    let node = self.plan.add(remove, "", after);
                    self.gone.insert(container.state.id.clone(), node);
                    removed.push(node);
                }
                let remove = Operation::RemoveVolume { name: name.clone(), tolerate_use: false };
                let remove = self.plan.add(remove, "its configuration changed", removed);
                let node = self.plan.add(Operation::CreateVolume { spec }, "", [remove]);
                self.volumes.insert(name, node);
                self.created.push(node);
            }
        }
        Ok(())
    }

    /// Stops a container unless that is in the plan already or it does not run; gives the nodes to wait for.
    fn stop(
        &mut self,
        container: &ObservedContainer,
        cause: &str,
        after: impl IntoIterator<Item = NodeId>,
    ) -> Vec<NodeId> {
        let id = &container.state.id;
        let mut after: Vec<NodeId> = after.into_iter().collect();
        if let Some(node) = self.stopped.get(id) {
            after.push(*node);
            return after;
        }
        if !container.is_up() {
            return after;
        }
        if let Some(service) = self.lowering.project.services.get(&container.service) {
            for hook in &service.pre_stop {
                let spec = Box::new(lower::hook(hook));
                let hook = Operation::Hook { container: existing(container), stage: "pre_stop", spec };
                after = vec![self.plan.add(hook, "", after)];
            }
        }
        let stop = Operation::StopContainer { container: existing(container), grace: self.policy.grace };
        let node = self.plan.add(stop, cause, after);
        self.stopped.insert(id.clone(), node);
        vec![node]
    }

    fn wanted_replicas(&self, service: &Service) -> Result<usize, Invalid> {
        let invalid = |reason: String| Invalid { service: service.name.clone(), reason };
        let wanted = match self.policy.scale.get(&service.name) {
            Some(count) => *count as usize,
            None => usize::try_from(service.replicas())
                .map_err(|_| invalid(format!("invalid number of replicas {}", service.replicas())))?,
        };
        if wanted > 1 && service.container_name.is_some() {
            return Err(invalid("`container_name` allows one replica only: remove it to scale".into()));
        }
        Ok(wanted)
    }

    fn service(&mut self, service: &'a Service) -> Result<(), PlanError> {
        let wanted = self.wanted_replicas(service)?;
        let lowered = self.lowering.container(service, Instance::Replica(1), self.observed)?;
        self.plan.warnings.extend(lowered.warnings);
        let borrows = self.borrows(service, lowered.borrows)?;
        let observed = self.observed;
        let all: Vec<&ObservedContainer> =
            observed.containers.iter().filter(|c| c.service == service.name && !c.oneoff).collect();
        self.leftovers.clear();
        let mut next = all.iter().filter_map(|c| c.number).max().unwrap_or(0) + 1;
        let mut keep = Vec::new();
        for container in all {
            match self.leftover(service, container, &keep) {
                Leftover::No => keep.push(container),
                // The next replacement gets the same temporary name. It shares its volumes with the old one.
                Leftover::Remove => {
                    let remove = Operation::RemoveContainer {
                        container: existing(container),
                        volumes: false,
                        replacement: false,
                    };
                    self.leftovers.push(self.plan.add(remove, LEFTOVER, []));
                }
            }
        }
        let mut judged: Vec<(&ObservedContainer, Option<String>)> =
            keep.into_iter().map(|c| (c, self.divergence(service, c, &borrows, &lowered.spec))).collect();
        // Those that differ go first, then the highest numbers.
        judged.sort_by_key(|(c, cause)| (cause.is_some(), c.number));
        for (container, _) in judged.drain(wanted.min(judged.len())..) {
            let cause = format!("{wanted} of service `{}` wanted", service.name);
            self.obsolete.push(Obsolete { container, replacement: None, cause });
        }
        judged.sort_by_key(|(c, _)| c.number);
        let mut replicas = Vec::with_capacity(wanted);
        for (container, cause) in judged {
            let number = container.number.unwrap_or(1);
            replicas.push(match cause {
                None => self.kept(service, container, number),
                Some(cause) => self.made(service, number, Some((container, cause)), &borrows)?,
            });
        }
        while replicas.len() < wanted {
            replicas.push(self.made(service, next, None, &borrows)?);
            next += 1;
        }
        self.replicas.insert(service.name.clone(), replicas);
        Ok(())
    }

    /// The containers that a service takes things from.
    fn borrows(&self, service: &Service, open: Vec<(String, Borrowed)>) -> Result<Vec<Borrow>, PlanError> {
        let mut borrows = Vec::with_capacity(open.len());
        for (from, what) in open {
            let planned = self.replicas.get(&from).and_then(|replicas| replicas.first());
            let target = planned.map(|replica| replica.target.clone()).or_else(|| {
                let there = |c: &&ObservedContainer| c.service == from && !c.oneoff;
                self.observed.containers.iter().find(there).map(existing)
            });
            let Some(target) = target else {
                let reason = format!("it shares with service `{from}`, which has no container");
                return Err(Invalid { service: service.name.clone(), reason }.into());
            };
            borrows.push(Borrow { service: from, from: target, what });
        }
        Ok(borrows)
    }

    /// What an interrupted replacement has left: `<12 digits of the old id>_<final name>`.
    fn leftover(
        &self,
        service: &Service,
        container: &ObservedContainer,
        keep: &[&ObservedContainer],
    ) -> Leftover {
        let Some(number) = container.number else { return Leftover::No };
        let name = self.lowering.container_name(service, number);
        if !is_temporary(&container.state.name, &name) {
            return Leftover::No;
        }
        let has_final = |c: &ObservedContainer| c.number == Some(number) && c.state.id != container.state.id;
        let there =
            self.observed.containers.iter().any(|c| c.service == service.name && !c.oneoff && has_final(c));
        if there || keep.iter().any(|c| has_final(c)) { Leftover::Remove } else { Leftover::No }
    }

    /// Why a container has to be made anew; `None` when it is as wanted.
    fn divergence(
        &self,
        service: &Service,
        container: &ObservedContainer,
        borrows: &[Borrow],
        spec: &crate::spec::ContainerSpec,
    ) -> Option<String> {
        let named = self.policy.named.is_empty() || self.policy.named.contains(&service.name);
        let policy = if named { self.policy.recreate } else { self.policy.recreate_dependencies };
        if self.gone.contains_key(&container.state.id) {
            return Some("its volume is made anew".into());
        }
        match policy {
            Recreate::Never => return None,
            Recreate::Force => return Some("forced".into()),
            Recreate::Diverged => {}
        }
        if container.state.phase == Phase::Dead {
            return Some("it is dead".into());
        }
        let made_anew = |b: &&Borrow| matches!(b.from, Target::Created { .. });
        if let Some(borrow) = borrows.iter().find(made_anew) {
            return Some(format!("service `{}`, which it shares with, is made anew", borrow.service));
        }
        let ids: Vec<(&str, Borrowed, &str)> = borrows
            .iter()
            .filter_map(|b| match &b.from {
                Target::Existing { id, .. } => Some((b.service.as_str(), b.what, id.as_str())),
                Target::Created { .. } => None,
            })
            .collect();
        if container.label(labels::CONFIG_HASH) != Some(lower::bound_hash(service, &ids).as_str()) {
            let number = container.number.unwrap_or(1);
            let now = self.lowering.container(service, Instance::Replica(number), self.observed);
            let asked = self.observed.asked.get(&container.state.id);
            return Some(match &now {
                Ok(now) if borrows.is_empty() => diff::configuration(asked, &now.spec),
                _ => diff::configuration(None, spec),
            });
        }
        let image = spec.labels.get(labels::IMAGE);
        if let (Some(before), Some(now)) = (container.label(labels::IMAGE), image)
            && before != now
        {
            return Some(format!("image {} → {}", diff::short(before), diff::short(now)));
        }
        let digests = lower::image_volume_digests(self.lowering.project, service, self.observed);
        if container.label(labels::IMAGE_VOLUME_DIGEST).unwrap_or_default() != digests.unwrap_or_default() {
            return Some("the image of a mount changed".into());
        }
        self.missing_network(container, spec).or_else(|| self.missing_volume(service, container))
    }

    fn missing_network(
        &self,
        container: &ObservedContainer,
        spec: &crate::spec::ContainerSpec,
    ) -> Option<String> {
        let NetworkMode::Networks { endpoints } = &spec.network else { return None };
        endpoints.iter().find_map(|endpoint| {
            let name = &endpoint.network;
            let attached = container.state.networks.get(name);
            if attached.is_some() && self.renewed_networks.contains(name) {
                // It is connected to the new one.
                return None;
            }
            let state = self.observed.networks.get(name);
            match (attached, state) {
                (None, _) => Some(format!("not connected to network {name}")),
                (Some(_), None) if self.networks.contains_key(name) => {
                    Some(format!("network {name} is made anew"))
                }
                (Some(attached), Some(state))
                    if !attached.network_id.is_empty() && attached.network_id != state.id =>
                {
                    Some(format!("network {name} was made anew"))
                }
                _ => None,
            }
        })
    }

    fn missing_volume(&self, service: &Service, container: &ObservedContainer) -> Option<String> {
        let mounts = service.volumes.iter().filter(|m| m.kind.as_deref().unwrap_or("volume") == "volume");
        let names = mounts.filter_map(|m| m.source.as_deref().filter(|s| !s.is_empty()));
        let mut names = names.map(|key| lower::volume_name(self.lowering.project, key));
        let missing =
            names.find(|name| !container.state.mounts.iter().any(|m| m.name.as_ref() == Some(name)))?;
        Some(format!("volume {missing} is not mounted"))
    }

    fn kept(&mut self, service: &Service, container: &ObservedContainer, number: u32) -> Replica {
        let name = self.lowering.container_name(service, number);
        let mut after: Vec<NodeId> = self.stopped.get(&container.state.id).copied().into_iter().collect();
        if is_temporary(&container.state.name, &name) {
            let rename =
                Operation::RenameContainer { container: existing(container), name, replacement: false };
            after.push(self.plan.add(rename, LEFTOVER, []));
        }
        let renewed: Vec<String> = self
            .renewed_networks
            .iter()
            .filter(|network| container.state.networks.contains_key(*network))
            .cloned()
            .collect();
        for network in renewed {
            let lowered = self.lowering.container(service, Instance::Replica(number), self.observed);
            let Ok(lowered) = lowered else { continue };
            let NetworkMode::Networks { endpoints } = lowered.spec.network else { continue };
            let Some(endpoint) = endpoints.into_iter().find(|e| e.network == network) else { continue };
            let connect = Operation::Connect { container: existing(container), endpoint: Box::new(endpoint) };
            after.push(self.plan.add(connect, "", self.networks.get(&network).copied()));
        }
        let mut phase = container.state.phase;
        if self.stopped.contains_key(&container.state.id) {
            phase = Phase::Exited;
        }
        if matches!(phase, Phase::Running | Phase::Restarting) {
            self.plan.kept.push(container.state.name.clone());
        }
        Replica { target: existing(container), after, new: false, phase, started: Vec::new() }
    }

    /// A container that is made, in place of another or as a further one.
    fn made(
        &mut self,
        service: &Service,
        number: u32,
        replaced: Option<(&'a ObservedContainer, String)>,
        borrows: &[Borrow],
    ) -> Result<Replica, PlanError> {
        let mut spec = self.lowering.container(service, Instance::Replica(number), self.observed)?.spec;
        let name = spec.name.clone();
        let mut after: BTreeSet<NodeId> = self.leftovers.iter().copied().collect();
        if let NetworkMode::Networks { endpoints } = &spec.network {
            after.extend(endpoints.iter().filter_map(|e| self.networks.get(&e.network)));
        }
        for mount in &spec.mounts {
            if let crate::spec::MountSource::Volume { name: Some(volume), .. } = &mount.source {
                after.extend(self.volumes.get(volume));
            }
        }
        for borrow in borrows {
            if let Target::Created { by, .. } = &borrow.from {
                after.insert(*by);
            }
        }
        let mut predecessor = None;
        let mut cause = "not there yet".to_owned();
        let mut old = None;
        if let Some((container, why)) = replaced {
            cause.clone_from(&why);
            let observed = self.observed;
            if let Some(before) = observed.asked.get(&container.state.id) {
                let warning = first_start::ignored(&service.name, before, &spec, &observed.volumes);
                self.plan.warnings.extend(warning.filter(|_| !self.gone.contains_key(&container.state.id)));
            }
            spec.labels.insert(labels::REPLACE.into(), self.lowering.replica_name(service, number));
            let id = &container.state.id;
            if let Some(removed) = self.gone.get(id) {
                after.insert(*removed);
            } else {
                spec.name = format!("{}_{name}", id.get(..12).unwrap_or(id));
                if !self.policy.renew_anonymous_volumes {
                    spec.inherit_anonymous_from = Some(id.clone());
                }
                predecessor = Some(existing(container));
                old = Some((container, why));
            }
        }
        let create = Operation::CreateContainer {
            service: service.name.clone(),
            spec: Box::new(spec),
            borrows: borrows.to_vec(),
            replaces: predecessor,
            name: name.clone(),
        };
        let node = self.plan.add(create, cause, after);
        self.created.push(node);
        if let Some((container, cause)) = old {
            let replacement = Some((node, name.clone()));
            self.obsolete.push(Obsolete { container, replacement, cause });
        }
        let target = Target::Created { by: node, name };
        Ok(Replica { target, after: vec![node], new: true, phase: Phase::Created, started: Vec::new() })
    }

    fn barrier(&mut self) -> Vec<NodeId> {
        match self.created.as_slice() {
            [] => Vec::new(),
            [one] => vec![*one],
            many => vec![self.plan.add(Operation::Barrier, "", many.iter().copied())],
        }
    }

    /// Replaced and surplus containers go.
    fn retire(&mut self, barrier: &[NodeId]) {
        for obsolete in std::mem::take(&mut self.obsolete) {
            let mut after: Vec<NodeId> = barrier.to_vec();
            if obsolete.replacement.is_some() {
                after.extend(self.stop_restarted_dependents(&obsolete.container.service, barrier));
            }
            let stopped = self.stop(obsolete.container, &obsolete.cause, after);
            let replaced = obsolete.replacement.is_some();
            let cause = if stopped.is_empty() || !obsolete.container.is_up() {
                obsolete.cause
            } else {
                String::new()
            };
            let remove = Operation::RemoveContainer {
                container: existing(obsolete.container),
                volumes: !replaced,
                replacement: replaced,
            };
            let cause = if replaced { String::new() } else { cause };
            let removed = self.plan.add(remove, cause, stopped);
            let Some((by, name)) = obsolete.replacement else { continue };
            let container = Target::Created { by, name: name.clone() };
            let rename = Operation::RenameContainer { container: container.clone(), name, replacement: true };
            let renamed = self.plan.add(rename, "", [removed]);
            let replicas = self.replicas.values_mut().flatten();
            if let Some(replica) = replicas.into_iter().find(|replica| replica.target == container) {
                replica.after = vec![renamed];
            }
        }
    }

    /// Running dependents that want to be restarted with a service are stopped before it is.
    fn stop_restarted_dependents(&mut self, service: &str, barrier: &[NodeId]) -> Vec<NodeId> {
        let mut nodes = Vec::new();
        let dependents: Vec<String> = self
            .selected()
            .filter(|s| s.depends_on.get(service).is_some_and(|d| d.restart))
            .map(|s| s.name.clone())
            .collect();
        let observed = self.observed;
        for dependent in dependents {
            let of_dependent = observed.containers.iter().filter(|c| c.service == dependent && !c.oneoff);
            for container in of_dependent {
                let cause = format!("it restarts with service `{service}`");
                let stopped = self.stop(container, &cause, barrier.iter().copied());
                nodes.extend(self.stopped.get(&container.state.id));
                let id = &container.state.id;
                let replicas = self.replicas.get_mut(&dependent).into_iter().flatten();
                let is_it = |r: &&mut Replica| matches!(&r.target, Target::Existing { id: i, .. } if i == id);
                if let Some(replica) = replicas.into_iter().find(is_it) {
                    if replica.phase != Phase::Exited {
                        self.plan.kept.retain(|name| name != replica.target.name());
                    }
                    replica.phase = Phase::Exited;
                    replica.after.extend(stopped);
                }
            }
        }
        nodes
    }

    fn orphans(&mut self, barrier: &[NodeId]) {
        let project = self.lowering.project;
        let observed = self.observed;
        let orphan = |c: &&ObservedContainer| {
            if c.oneoff {
                return matches!(c.state.phase, Phase::Exited | Phase::Dead);
            }
            !project.services.contains_key(&c.service) && !project.disabled.contains_key(&c.service)
        };
        let orphans: Vec<&ObservedContainer> = observed.containers.iter().filter(orphan).collect();
        if orphans.is_empty() || (self.policy.ignore_orphans && !self.policy.remove_orphans) {
            return;
        }
        if !self.policy.remove_orphans {
            let names: Vec<&str> = orphans.iter().map(|c| c.state.name.as_str()).collect();
            self.plan.warnings.push(format!(
                "Found orphan containers ([{}]) for this project. If you removed or renamed this service in your compose file, you can run this command with the --remove-orphans flag to clean it up.",
                names.join(" ")
            ));
            return;
        }
        for container in orphans {
            let cause =
                if container.oneoff { "a one-off that has ended" } else { "its service is not in the files" };
            let stopped = self.stop(container, cause, barrier.iter().copied());
            let remove = Operation::RemoveContainer {
                container: existing(container),
                volumes: false,
                replacement: false,
            };
            self.plan.add(remove, if container.is_up() { "" } else { cause }, stopped);
        }
    }

    fn start(&mut self, service: &'a Service, barrier: &[NodeId]) -> Result<(), PlanError> {
        let mut replicas = self.replicas.remove(&service.name).unwrap_or_default();
        let needs_start = |r: &Replica| r.new || !matches!(r.phase, Phase::Running | Phase::Restarting);
        if replicas.iter().any(needs_start) {
            let mut conditions: Vec<NodeId> = barrier.to_vec();
            for (name, dependency) in &service.depends_on {
                conditions.extend(self.condition(service, name, dependency)?);
            }
            for replica in replicas.iter_mut().filter(|r| needs_start(r)) {
                let after = replica.after.iter().chain(&conditions).copied();
                let container = replica.target.clone();
                let operation = if replica.phase == Phase::Paused {
                    Operation::UnpauseContainer { container }
                } else {
                    Operation::StartContainer { container }
                };
                let mut node = self.plan.add(operation, "", after);
                for hook in &service.post_start {
                    let container = replica.target.clone();
                    let hook =
                        Operation::Hook { container, stage: "post_start", spec: Box::new(lower::hook(hook)) };
                    node = self.plan.add(hook, "", [node]);
                }
                replica.started.push(node);
            }
        }
        let wanted_completed = self
            .selected()
            .any(|s| s.depends_on.get(&service.name).is_some_and(|d| d.condition == COMPLETED));
        if self.policy.ready && !wanted_completed && !replicas.is_empty() {
            let wait = Wait {
                service: service.name.clone(),
                containers: replicas.iter().map(|r| r.target.clone()).collect(),
                condition: Condition::Ready,
                required: true,
                waiting: Vec::new(),
            };
            let started: Vec<NodeId> = replicas.iter().flat_map(|r| r.started.iter().copied()).collect();
            self.plan.add(Operation::Wait(wait), "", started);
        }
        self.replicas.insert(service.name.clone(), replicas);
        Ok(())
    }

    fn one_off(&mut self, one_off: &OneOff, barrier: &[NodeId]) -> Result<(), PlanError> {
        let service = &one_off.service;
        let instance =
            Instance::OneOff { name: &one_off.name, slug: &one_off.slug, use_aliases: one_off.use_aliases };
        let lowered = self.lowering.container(service, instance, self.observed)?;
        self.plan.warnings.extend(lowered.warnings);
        let mut spec = lowered.spec;
        spec.auto_remove = one_off.auto_remove;
        spec.process.stdin_once = one_off.stdin_once;
        let borrows = self.borrows(service, lowered.borrows)?;
        let mut after: Vec<NodeId> = barrier.to_vec();
        for (name, dependency) in &service.depends_on {
            after.extend(self.condition(service, name, dependency)?);
        }
        let create = Operation::CreateContainer {
            service: service.name.clone(),
            spec: Box::new(spec),
            borrows,
            replaces: None,
            name: one_off.name.clone(),
        };
        self.plan.add(create, "", after);
        Ok(())
    }

    /// The nodes that a start has to wait for because of one dependency.
    fn condition(
        &mut self,
        service: &Service,
        name: &str,
        dependency: &crate::model::Dependency,
    ) -> Result<Vec<NodeId>, PlanError> {
        // Left out of this command, disabled, or scaled to nothing: not waited for.
        let Some(replicas) = self.replicas.get(name).filter(|replicas| !replicas.is_empty()) else {
            return Ok(Vec::new());
        };
        let started: Vec<NodeId> = replicas.iter().flat_map(|r| r.started.iter().copied()).collect();
        let condition = match dependency.condition.as_str() {
            HEALTHY => Condition::Healthy,
            COMPLETED => Condition::Completed,
            _ => return Ok(started),
        };
        let wait = Wait {
            service: name.to_owned(),
            containers: replicas.iter().map(|r| r.target.clone()).collect(),
            condition,
            required: dependency.required,
            waiting: vec![service.name.clone()],
        };
        if let Some(why) = self.impossible(&wait) {
            if wait.required {
                return Err(PlanError::Impossible { wait, why });
            }
            self.plan.warnings.push(format!(
                "optional dependency `{name}` of service `{}` can never be {}",
                service.name,
                condition.as_str()
            ));
            return Ok(started);
        }
        // One wait serves all who need the same.
        let same = self.plan.nodes().find_map(|(id, node)| match &node.operation {
            Operation::Wait(other)
                if other.service == wait.service
                    && other.condition == wait.condition
                    && other.required == wait.required
                    && !other.waiting.is_empty() =>
            {
                Some(id)
            }
            _ => None,
        });
        if let Some(id) = same {
            self.plan.add_waiting(id, &service.name);
            return Ok(vec![id]);
        }
        Ok(vec![self.plan.add(Operation::Wait(wait), "", started)])
    }

    fn impossible(&self, wait: &Wait) -> Option<Impossible> {
        let service = self.lowering.project.services.get(&wait.service)?;
        let spec = self.lowering.container(service, Instance::Replica(1), self.observed).ok()?.spec;
        match wait.condition {
            Condition::Healthy => {
                let of_image =
                    || self.observed.images.get(&spec.image).is_none_or(|image| image.has_healthcheck);
                let probed = match spec.health.and_then(|health| health.test) {
                    Some(HealthTest::None) => false,
                    Some(_) => true,
                    None => of_image(),
                };
                (!probed).then_some(Impossible::NoHealthcheck)
            }
            Condition::Completed => {
                matches!(spec.restart, RestartPolicy::Always | RestartPolicy::UnlessStopped)
                    .then_some(Impossible::NeverCompletes)
            }
            Condition::Started | Condition::Ready => None,
        }
    }
}

const LEFTOVER: &str = "left over from an interrupted command";
const HEALTHY: &str = "service_healthy";
const COMPLETED: &str = "service_completed_successfully";

enum Leftover {
    No,
    Remove,
}

/// `<12 hex digits>_<name>`.
fn is_temporary(name: &str, final_name: &str) -> bool {
    let Some(prefix) = name.strip_suffix(final_name).and_then(|rest| rest.strip_suffix('_')) else {
        return false;
    };
    prefix.len() == 12 && prefix.bytes().all(|b| b.is_ascii_hexdigit())
}
