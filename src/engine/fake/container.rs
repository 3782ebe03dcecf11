//! The life of one fake container.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::files::Files;
use super::script::{Script, Step};
use super::{FakeEngine, State, not_found};
use crate::engine::{
    ContainerState, EndpointState, EngineError, EventAction, Health, LogFrame, MountState, Phase, PortState,
    ProbeResult, Result, StdStream, VolumeState,
};
use crate::spec::{
    ContainerSpec, EndpointSpec, HealthTest, MountSource, NetworkMode, PortSpec, RestartPolicy,
};

pub(super) struct Container {
    pub(super) spec: ContainerSpec,
    pub(super) state: ContainerState,
    pub(super) script: Script,
    pub(super) log: Vec<LogFrame>,
    pub(super) changes: watch::Sender<u64>,
    pub(super) stopped_by_hand: bool,
    pub(super) files: Files,
    /// Counts starts, so that what is left of an earlier run changes nothing.
    run: u64,
    playing: Option<AbortHandle>,
}

/// How a run ends.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct End {
    /// For lack of memory.
    pub(super) oom: bool,
    /// What it was scripted to do is dropped.
    pub(super) abort: bool,
    /// It is started again by the caller.
    pub(super) again: bool,
}

impl Drop for Container {
    fn drop(&mut self) {
        self.stop_playing();
    }
}

impl Container {
    pub(super) fn is_running(&self) -> bool {
        matches!(self.state.phase, Phase::Running | Phase::Paused)
    }

    pub(super) fn changed(&self) {
        self.changes.send_modify(|n| *n += 1);
    }

    pub(super) fn print(&mut self, stream: StdStream, time: Timestamp, line: &str) {
        self.log.push(LogFrame { stream, time, data: line.as_bytes().to_vec(), newline: true });
        self.changed();
    }

    pub(super) fn cancel_restart(&mut self) {
        if self.state.phase == Phase::Restarting {
            self.stop_playing();
            self.state.phase = Phase::Exited;
            self.changed();
        }
    }

    fn stop_playing(&mut self) {
        if let Some(playing) = self.playing.take() {
            playing.abort();
        }
    }

    fn has_probe(&self, image_has: bool) -> bool {
        match &self.spec.health {
            None => image_has,
            Some(health) => match &health.test {
                None => image_has,
                Some(HealthTest::None) => false,
                Some(_) => true,
            },
        }
    }

    fn will_restart(&self, code: i32) -> bool {
        !self.stopped_by_hand
            && match self.spec.restart {
                RestartPolicy::No => false,
                RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
                RestartPolicy::OnFailure { max } => {
                    code != 0 && max.is_none_or(|max| self.state.restarts < max)
                }
            }
    }
}

pub(super) fn endpoint_state(endpoint: &EndpointSpec, network_id: String) -> EndpointState {
    EndpointState {
        network_id,
        addresses: endpoint.ipv4.map(IpAddr::V4).into_iter().collect(),
        mac: endpoint.mac.clone().unwrap_or_default(),
        aliases: endpoint.aliases.clone(),
    }
}

impl State {
    pub(super) fn create(&mut self, spec: &ContainerSpec) -> Result<String> {
        if self.containers.values().any(|c| c.state.name == spec.name) {
            return Err(EngineError::Conflict { kind: "container", name: spec.name.clone() });
        }
        let image =
            self.images.get(&spec.image).or_else(|| self.images.values().find(|i| i.id == spec.image));
        let image = image.cloned().ok_or_else(|| not_found("image", &spec.image))?;
        let mut networks = std::collections::BTreeMap::new();
        let mut network_mode = String::new();
        match &spec.network {
            NetworkMode::Networks { endpoints } => {
                for endpoint in endpoints {
                    let id = self.network_id(&endpoint.network)?;
                    networks.insert(endpoint.network.clone(), endpoint_state(endpoint, id));
                }
            }
            NetworkMode::Host => network_mode = "host".into(),
            NetworkMode::None => network_mode = "none".into(),
            NetworkMode::Container { id } => {
                network_mode = format!("container:{}", self.container(id)?.state.id);
            }
        }
        let mounts = self.mounts(spec, &image.volumes)?;
        let id = self.next_id();
        let created = Some(self.now());
        let state = ContainerState {
            id: id.clone(),
            name: spec.name.clone(),
            image: spec.image.clone(),
            image_id: image.id.clone(),
            command: spec.process.command.clone().unwrap_or_else(|| image.command.clone()),
            labels: spec.labels.clone(),
            created,
            tty: spec.process.tty,
            mounts,
            networks,
            network_mode,
            ports: spec.ports.iter().map(|port| port_state(port, None)).collect(),
            stop_signal: spec.stop_signal.clone().unwrap_or_default(),
            ..ContainerState::default()
        };
        let service = spec.labels.get("com.docker.compose.service");
        let script = [Some(&spec.name), service, Some(&spec.image)]
            .into_iter()
            .flatten()
            .find_map(|subject| self.scripts.get(subject))
            .cloned()
            .unwrap_or_default();
        let container = Container {
            spec: spec.clone(),
            state,
            script,
            log: Vec::new(),
            changes: watch::Sender::new(0),
            stopped_by_hand: false,
            files: Files::default(),
            run: 0,
            playing: None,
        };
        self.containers.insert(id.clone(), container);
        Ok(id)
    }

    fn mounts(&mut self, spec: &ContainerSpec, image_volumes: &[String]) -> Result<Vec<MountState>> {
        let inherited: Vec<MountState> = match &spec.inherit_anonymous_from {
            None => Vec::new(),
            Some(old) => self.container(old)?.state.mounts.iter().filter(|m| m.anonymous).cloned().collect(),
        };
        let mut mounts: Vec<MountState> = Vec::new();
        for mount in &spec.mounts {
            let (kind, name, source) = match &mount.source {
                MountSource::Bind { path, .. } => ("bind", None, path.display().to_string()),
                MountSource::Tmpfs { .. } => ("tmpfs", None, String::new()),
                MountSource::Image { reference, .. } => ("image", None, reference.clone()),
                MountSource::Volume { name, .. } => ("volume", Some(name.clone()), String::new()),
            };
            let mut state = MountState {
                kind: kind.into(),
                source,
                target: mount.target.clone(),
                read_only: mount.read_only,
                ..MountState::default()
            };
            if let Some(name) = name {
                self.mount_volume(&mut state, name, &inherited);
            }
            mounts.push(state);
        }
        for target in image_volumes {
            if !mounts.iter().any(|m| m.target == *target) {
                let mut state =
                    MountState { kind: "volume".into(), target: target.clone(), ..MountState::default() };
                self.mount_volume(&mut state, None, &inherited);
                mounts.push(state);
            }
        }
        Ok(mounts)
    }

    fn mount_volume(&mut self, mount: &mut MountState, name: Option<String>, inherited: &[MountState]) {
        mount.anonymous = name.is_none();
        let old = inherited.iter().find(|m| m.target == mount.target).and_then(|m| m.name.clone());
        let name = name.or(old).unwrap_or_else(|| self.next_id());
        let created = Some(self.now());
        self.volumes.entry(name.clone()).or_insert_with(|| VolumeState {
            name: name.clone(),
            driver: "local".into(),
            created,
            ..VolumeState::default()
        });
        mount.source = format!("/fake/volumes/{name}");
        mount.name = Some(name);
    }

    fn check_ports(&self, id: &str) -> Result<()> {
        let Some(container) = self.containers.get(id) else { return Ok(()) };
        for port in &container.spec.ports {
            let Some((first, last)) = port.published else { continue };
            let taken = |number: u16| {
                self.containers.values().find(|other| {
                    other.state.id != id
                        && other.is_running()
                        && other.state.ports.iter().any(|p| {
                            p.protocol == port.protocol && p.published.is_some_and(|(_, n)| n == number)
                        })
                })
            };
            if first == last
                && let Some(holder) = taken(first)
            {
                return Err(EngineError::PortTaken {
                    port: format!("0.0.0.0:{first}/{}", port.protocol),
                    reason: format!("held by container `{}`", holder.state.name),
                });
            }
        }
        Ok(())
    }
}

fn port_state(port: &PortSpec, published: Option<u16>) -> PortState {
    let address = port.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    PortState {
        target: port.target,
        protocol: port.protocol.clone(),
        published: published.map(|number| (address, number)),
    }
}

impl FakeEngine {
    /// Starts a container by hand.
    pub(super) fn begin(&self, name: &str) -> Result<()> {
        let mut state = self.lock();
        let container = state.container_mut(name)?;
        if container.is_running() {
            return Ok(());
        }
        container.stop_playing();
        container.stopped_by_hand = false;
        container.state.restarts = 0;
        let id = container.state.id.clone();
        if let NetworkMode::Container { id: parent } = &container.spec.network.clone()
            && !state.container(parent)?.is_running()
        {
            return Err(EngineError::Invalid(format!(
                "cannot join the network of a container that is not running: {parent}"
            )));
        }
        for network in state.container(&id)?.state.networks.keys() {
            state.network_id(network)?;
        }
        state.check_ports(&id)?;
        self.launch(&mut state, &id);
        Ok(())
    }

    fn launch(&self, state: &mut State, id: &str) {
        let now = state.now();
        let random = 32_768 + u16::try_from(state.ids % 20_000).unwrap_or_default();
        let Some(container) = state.containers.get_mut(id) else { return };
        let image_probe = false;
        container.run += 1;
        container.state.phase = Phase::Running;
        container.state.started = Some(now);
        container.state.pid = 1000;
        container.state.probes.clear();
        container.state.health =
            if container.has_probe(image_probe) { Health::Starting } else { Health::None };
        let ports = container.spec.ports.iter().zip(random..);
        container.state.ports = ports
            .map(|(port, random)| port_state(port, Some(port.published.map_or(random, |p| p.0))))
            .collect();
        container.changed();
        let (run, steps) = (container.run, container.script.steps.clone());
        let engine = self.clone();
        let task_id = id.to_owned();
        let playing = tokio::spawn(async move { engine.play(&task_id, run, steps).await });
        container.playing = Some(playing.abort_handle());
        self.emit(state, id, EventAction::Start);
    }

    async fn play(&self, id: &str, run: u64, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Sleep(time) => tokio::time::sleep(time).await,
                Step::Await(gate) => gate.pass().await,
                Step::Print(stream, line) => {
                    let mut state = self.lock();
                    let time = state.now();
                    let Some(container) = state.containers.get_mut(id).filter(|c| c.run == run) else {
                        return;
                    };
                    container.print(stream, time, &line);
                }
                Step::Probe(exit_code, output) => self.probe(id, run, exit_code, output),
                Step::Exit(code, oom) => {
                    let current = self.lock().containers.get(id).is_some_and(|c| c.run == run);
                    if current {
                        self.ended(id, code, End { oom, ..End::default() });
                    }
                    return;
                }
            }
            tokio::task::yield_now().await;
        }
    }

    fn probe(&self, id: &str, run: u64, exit_code: i32, output: String) {
        let mut state = self.lock();
        let at = state.now();
        let Some(container) = state.containers.get_mut(id).filter(|c| c.run == run) else { return };
        let health = if exit_code == 0 { Health::Healthy } else { Health::Unhealthy };
        container.state.health = health;
        container.state.probes.push(ProbeResult { at, exit_code, output });
        container.changed();
        self.emit(&mut state, id, EventAction::HealthStatus { health });
    }

    /// The main process has ended. Starts it again if its restart policy says so.
    pub(super) fn ended(&self, id: &str, code: i32, end: End) {
        let mut state = self.lock();
        let finished = state.now();
        let Some(container) = state.containers.get_mut(id).filter(|c| c.is_running()) else { return };
        let oom = end.oom;
        if end.abort {
            container.stop_playing();
        }
        let restarting = !end.again && container.will_restart(code);
        container.state.phase = if restarting { Phase::Restarting } else { Phase::Exited };
        container.state.finished = Some(finished);
        container.state.exit_code = code;
        let ended_as = (id.to_owned(), code);
        container.state.oom_killed = oom;
        container.state.pid = 0;
        container.state.health = Health::None;
        for port in &mut container.state.ports {
            port.published = None;
        }
        let run = container.run;
        let auto_remove = container.spec.auto_remove;
        container.changed();
        state.exit_codes.extend([ended_as]);
        if oom {
            self.emit(&mut state, id, EventAction::Oom);
        }
        self.emit(&mut state, id, EventAction::Die { exit_code: code, restarting: restarting || end.again });
        if restarting {
            let engine = self.clone();
            let task_id = id.to_owned();
            let again = tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let mut state = engine.lock();
                let waiting = |c: &&mut Container| c.run == run && c.state.phase == Phase::Restarting;
                let Some(container) = state.containers.get_mut(&task_id).filter(waiting) else { return };
                container.state.restarts += 1;
                engine.launch(&mut state, &task_id);
            });
            if let Some(container) = state.containers.get_mut(id) {
                container.playing = Some(again.abort_handle());
            }
        } else if auto_remove && !end.again {
            drop(state);
            // It exists: it has just ended, and the lock was not given to anybody who removes by name.
            drop(self.destroy(id, true));
        }
    }

    pub(super) fn destroy(&self, name: &str, volumes: bool) -> Result<()> {
        let mut state = self.lock();
        let id = state.container(name)?.state.id.clone();
        self.emit(&mut state, &id, EventAction::Destroy);
        let Some(container) = state.containers.remove(&id) else { return Ok(()) };
        if volumes {
            for name in container.state.mounts.iter().filter(|m| m.anonymous).filter_map(|m| m.name.as_ref())
            {
                let used = |c: &Container| c.state.mounts.iter().any(|m| m.name.as_ref() == Some(name));
                if !state.containers.values().any(used) {
                    state.volumes.remove(name);
                }
            }
        }
        Ok(())
    }
}
