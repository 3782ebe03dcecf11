//! An engine in memory: containers that behave as scripted, and calls that fail when asked to.
//!
//! It keeps the promises of [`Engine`] (idempotence, order of events and
//! output, health, restart policies) and its clock is a counter, so tests are
//! deterministic. It is public for embedders' tests. It does not check what
//! only a kernel can check.
//!
//! Events of one start, in order: `create`, `start`, `health_status` (repeated),
//! `die`, then `start` again (restart policy) or `stop` (when asked), `destroy`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use jiff::Timestamp;
use tokio::sync::{broadcast, watch};

use super::{
    ArchiveSink, ArchiveSource, Attached, BoxStream, ContainerState, Engine, EngineError, EngineEvent,
    EventAction, ImageState, LockWaiting, LogFrame, LogOptions, NetworkState, PathState, Phase, ProcessTable,
    ProjectLock, PullEvent, PullProgress, Result, StdStream, UsageState, VolumeState,
};
use crate::spec::{CommitSpec, ContainerSpec, EndpointSpec, ExecSpec, NetworkSpec, VolumeSpec};

mod container;
mod files;
mod script;
mod streams;

use container::{Container, End};
use script::{Effect, Injection, MakeError};
pub use script::{Gate, Script};

/// An engine in memory. Clones are handles to the same engine.
#[derive(Clone)]
pub struct FakeEngine {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    events: broadcast::Sender<EngineEvent>,
}

#[derive(Default)]
struct State {
    clock: i64,
    ids: u64,
    images: BTreeMap<String, ImageState>,
    registry: BTreeMap<String, ImageState>,
    networks: BTreeMap<String, NetworkState>,
    volumes: BTreeMap<String, VolumeState>,
    containers: BTreeMap<String, Container>,
    scripts: BTreeMap<String, Script>,
    injections: Vec<Injection>,
    calls: Vec<String>,
    locks: BTreeMap<String, Arc<tokio::sync::Mutex<()>>>,
    outage: Option<(usize, MakeError)>,
    history: Vec<EngineEvent>,
    /// Of containers that ran, also of those that are gone.
    exit_codes: BTreeMap<String, i32>,
}

impl Default for FakeEngine {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeEngine {
    /// An engine that has nothing.
    pub fn new() -> Self {
        let (events, _) = broadcast::channel(1 << 16);
        Self { inner: Arc::new(Inner { state: Mutex::default(), events }) }
    }

    /// Puts an image into the local store.
    pub fn add_image(&self, reference: &str) {
        let image = self.make_image(reference);
        self.lock().images.insert(reference.to_owned(), image);
    }

    /// Puts an image into the local store, or replaces the one of that name, as it is.
    pub fn set_image(&self, reference: &str, image: ImageState) {
        self.lock().images.insert(reference.to_owned(), image);
    }

    /// Puts an image into the registry, from where it can be pulled.
    pub fn publish_image(&self, reference: &str) {
        let image = self.make_image(reference);
        self.lock().registry.insert(reference.to_owned(), image);
    }

    /// Whether the registry has an image, published or pushed.
    pub fn is_published(&self, reference: &str) -> bool {
        self.lock().registry.contains_key(reference)
    }

    /// What containers of that image, service or container name do; the most particular one wins.
    pub fn script(&self, subject: &str, script: Script) {
        self.lock().scripts.insert(subject.to_owned(), script);
    }

    /// Makes the next call of that form (`start p-web-1`, `pull nginx`, …; a prefix is enough) fail.
    pub fn fail(&self, call: &str, error: impl Fn() -> EngineError + Send + Sync + 'static) {
        let make: MakeError = Arc::new(error);
        self.lock().injections.push(Injection { call: call.into(), effect: Effect::Fail(make), times: 1 });
    }

    /// Lets this many calls that change something work, and makes all later ones fail until [`FakeEngine::heal`].
    pub fn fail_all_after(&self, working: usize, error: impl Fn() -> EngineError + Send + Sync + 'static) {
        self.lock().outage = Some((working, Arc::new(error)));
    }

    /// Ends what [`FakeEngine::fail_all_after`] has begun.
    pub fn heal(&self) {
        self.lock().outage = None;
    }

    /// Makes every call of that form wait until the gate is opened for it.
    pub fn hold(&self, call: &str) -> Gate {
        let gate = Gate::new();
        self.lock().injections.push(Injection {
            call: call.into(),
            effect: Effect::Hold(gate.clone()),
            times: usize::MAX,
        });
        gate
    }

    /// The calls so far that changed or asked something, oldest first, and forgets them.
    pub fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().calls)
    }

    /// The files that were copied into a container: absolute paths and content.
    pub fn files(&self, container: &str) -> BTreeMap<String, Vec<u8>> {
        self.lock().container(container).map(|found| found.files.all()).unwrap_or_default()
    }

    /// Puts a file into a container.
    pub fn put_file(&self, container: &str, path: &str, content: &[u8]) {
        if let Ok(container) = self.lock().container_mut(container) {
            container.files.unpack("/", vec![(path.to_owned(), Some(content.to_vec()))]);
        }
    }

    /// Prints a line as the main process of a container.
    pub fn print(&self, container: &str, stream: StdStream, line: &str) {
        let mut state = self.lock();
        let time = state.now();
        if let Ok(container) = state.container_mut(container) {
            container.print(stream, time, line);
        }
    }

    /// Ends the main process of a running container.
    pub fn exit(&self, container: &str, code: i32) {
        let id = self.lock().container(container).map(|c| c.state.id.clone());
        if let Ok(id) = id {
            self.ended(&id, code, End { abort: true, ..End::default() });
        }
    }

    fn make_image(&self, reference: &str) -> ImageState {
        let mut state = self.lock();
        let created = state.now();
        ImageState {
            id: format!("sha256:{}", state.next_id()),
            tags: vec![reference.to_owned()],
            platform: "linux/amd64".into(),
            created: Some(created),
            tagged: Some(created),
            size: 1 << 20,
            ..ImageState::default()
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().expect("no test panics while it holds the state")
    }

    /// Records the call, and waits or fails as injected.
    async fn call(&self, verb: &str, subject: &str) -> Result<()> {
        let call = format!("{verb} {subject}");
        let effects: Vec<Effect> = {
            let mut state = self.lock();
            state.calls.push(call.clone());
            let effects: Vec<Effect> = state
                .injections
                .iter_mut()
                .filter(|i| i.times > 0 && call.starts_with(&i.call))
                .map(|i| {
                    i.times -= 1;
                    i.effect.clone()
                })
                .collect();
            state.injections.retain(|i| i.times > 0);
            if let Some((working, error)) = &mut state.outage
                && !LOOKING.contains(&verb)
            {
                let Some(fewer) = working.checked_sub(1) else { return Err(error()) };
                *working = fewer;
            }
            effects
        };
        tokio::task::yield_now().await;
        for effect in effects {
            match effect {
                Effect::Hold(gate) => gate.pass().await,
                Effect::Fail(make) => return Err(make()),
            }
        }
        Ok(())
    }

    fn emit(&self, state: &mut State, id: &str, action: EventAction) {
        let time = state.now();
        let Some(container) = state.containers.get(id) else { return };
        let event = EngineEvent {
            time,
            id: id.to_owned(),
            name: container.state.name.clone(),
            image: container.state.image.clone(),
            labels: container.state.labels.clone(),
            action,
        };
        state.history.push(event.clone());
        // Nobody listening is fine.
        drop(self.inner.events.send(event));
    }
}

impl State {
    fn now(&mut self) -> Timestamp {
        self.clock += 1;
        // 2026-01-01, and a millisecond for each thing that happens.
        Timestamp::from_millisecond(1_767_225_600_000 + self.clock).expect("a time in this millennium")
    }

    fn next_id(&mut self) -> String {
        self.ids += 1;
        // Distinct from the first digit on, as real ids are.
        format!("{:016x}{:048x}", self.ids.wrapping_mul(0x9e37_79b9_7f4a_7c15), self.ids)
    }

    fn container(&self, name: &str) -> Result<&Container> {
        let found = self.containers.get(name).or_else(|| {
            self.containers.values().find(|c| c.state.name == name).or_else(|| {
                let mut matches = self.containers.values().filter(|c| c.state.id.starts_with(name));
                matches.next().filter(|_| name.len() >= 4 && matches.next().is_none())
            })
        });
        found.ok_or_else(|| not_found("container", name))
    }

    fn container_mut(&mut self, name: &str) -> Result<&mut Container> {
        let id = self.container(name)?.state.id.clone();
        self.containers.get_mut(&id).ok_or_else(|| not_found("container", name))
    }
}

/// Calls that change nothing.
const LOOKING: [&str; 13] = [
    "asked", "export", "image", "images", "network", "networks", "volume", "volumes", "inspect", "list",
    "wait", "logs", "events",
];

fn not_found(kind: &'static str, name: &str) -> EngineError {
    EngineError::NotFound { kind, name: name.to_owned() }
}

fn has_labels(labels: &BTreeMap<String, String>, wanted: &[String]) -> bool {
    wanted.iter().all(|want| match want.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|v| v == value),
        None => labels.contains_key(want),
    })
}

#[async_trait]
impl Engine for FakeEngine {
    fn name(&self) -> &'static str {
        "fake"
    }

    async fn image(&self, reference: &str, _platform: Option<&str>) -> Result<Option<ImageState>> {
        self.call("image", reference).await?;
        let state = self.lock();
        let by_id = || state.images.values().find(|image| image.id == reference);
        Ok(state.images.get(reference).or_else(by_id).cloned())
    }

    async fn images(&self) -> Result<Vec<ImageState>> {
        self.call("images", "").await?;
        Ok(self.lock().images.values().cloned().collect())
    }

    async fn pull(
        &self,
        reference: &str,
        _platform: Option<&str>,
        progress: PullProgress<'_>,
    ) -> Result<ImageState> {
        self.call("pull", reference).await?;
        let image = self.lock().registry.get(reference).cloned();
        let image = image.ok_or_else(|| not_found("image", reference))?;
        let id = image.id["sha256:".len()..][..12].to_owned();
        for (text, current) in [("Downloading", 50), ("Pull complete", 100)] {
            progress(PullEvent::Layer { id: id.clone(), text, current, total: Some(100) });
        }
        self.lock().images.insert(reference.to_owned(), image.clone());
        Ok(image)
    }

    async fn push(&self, reference: &str, progress: PullProgress<'_>) -> Result<()> {
        self.call("push", reference).await?;
        let image = self.lock().images.get(reference).cloned();
        let image = image.ok_or_else(|| not_found("image", reference))?;
        let id = image.id["sha256:".len()..][..12].to_owned();
        for (text, current) in [("Pushing", 50), ("Pushed", 100)] {
            progress(PullEvent::Layer { id: id.clone(), text, current, total: Some(100) });
        }
        self.lock().registry.insert(reference.to_owned(), image);
        Ok(())
    }

    async fn remote_digest(&self, reference: &str) -> Result<String> {
        self.call("remote_digest", reference).await?;
        let image = self.lock().registry.get(reference).cloned();
        image.map(|image| image.id).ok_or_else(|| not_found("image", reference))
    }

    async fn commit(&self, container: &str, spec: &CommitSpec) -> Result<String> {
        self.call("commit", container).await?;
        self.lock().container(container)?;
        let image = self.make_image(spec.reference.as_deref().unwrap_or_default());
        let id = image.id.clone();
        self.lock().images.insert(spec.reference.clone().unwrap_or_else(|| id.clone()), image);
        Ok(id)
    }

    async fn export(&self, container: &str) -> Result<BoxStream<Result<Vec<u8>>>> {
        self.call("export", container).await?;
        let name = self.lock().container(container)?.state.name.clone();
        // A name is all that a container in memory has.
        Ok(Box::pin(futures_util::stream::iter([Ok(name.into_bytes())])))
    }

    async fn remove_image(&self, reference: &str, _force: bool) -> Result<()> {
        self.call("remove_image", reference).await?;
        let mut state = self.lock();
        if let Some(user) = state.containers.values().find(|c| c.state.image == reference) {
            let by = user.state.name.clone();
            return Err(EngineError::InUse { kind: "image", name: reference.into(), by });
        }
        state.images.remove(reference).map(drop).ok_or_else(|| not_found("image", reference))
    }

    async fn build(
        &self,
        spec: &crate::spec::BuildSpec,
        progress: crate::engine::BuildProgress<'_>,
        _stop: &tokio_util::sync::CancellationToken,
    ) -> Result<String> {
        let name = spec.tags.first().cloned().unwrap_or_default();
        progress(crate::engine::BuildEvent::Started { step: 1, name: format!("building {name}") });
        self.call("build", &name).await?;
        for tag in &spec.tags {
            self.add_image(tag);
        }
        let outcome = crate::engine::BuildOutcome::Done { seconds: 0.0 };
        progress(crate::engine::BuildEvent::Ended { step: 1, outcome });
        Ok(self.lock().images.get(&name).map(|image| image.id.clone()).unwrap_or_default())
    }

    async fn create_network(&self, spec: &NetworkSpec) -> Result<String> {
        self.call("create_network", &spec.name).await?;
        let mut state = self.lock();
        if state.networks.contains_key(&spec.name) {
            return Err(EngineError::Conflict { kind: "network", name: spec.name.clone() });
        }
        let id = state.next_id();
        let network = NetworkState {
            id: id.clone(),
            name: spec.name.clone(),
            driver: spec.driver.clone().unwrap_or_else(|| "bridge".into()),
            labels: spec.labels.clone(),
            internal: spec.internal,
            subnets: spec.ipam.iter().filter_map(|pool| pool.subnet.clone()).collect(),
            containers: Vec::new(),
        };
        state.networks.insert(spec.name.clone(), network);
        Ok(id)
    }

    async fn network(&self, name: &str) -> Result<Option<NetworkState>> {
        self.call("network", name).await?;
        let state = self.lock();
        Ok(state.networks.values().find(|n| n.name == name || n.id == name).map(|n| state.with_members(n)))
    }

    async fn networks(&self, labels: &[String]) -> Result<Vec<NetworkState>> {
        self.call("networks", "").await?;
        let state = self.lock();
        let matching = state.networks.values().filter(|n| has_labels(&n.labels, labels));
        Ok(matching.map(|n| state.with_members(n)).collect())
    }

    async fn remove_network(&self, name: &str) -> Result<()> {
        self.call("remove_network", name).await?;
        let mut state = self.lock();
        let network = state.networks.values().find(|n| n.name == name || n.id == name);
        let network = network.ok_or_else(|| not_found("network", name))?.name.clone();
        let user = state.containers.values().find(|c| {
            c.state.networks.contains_key(&network) && matches!(c.state.phase, Phase::Running | Phase::Paused)
        });
        if let Some(user) = user {
            let by = format!("container `{}`", user.state.name);
            return Err(EngineError::InUse { kind: "network", name: network, by });
        }
        state.networks.remove(&network);
        Ok(())
    }

    async fn disconnect(&self, network: &str, container: &str, _force: bool) -> Result<()> {
        self.call("disconnect", &format!("{container} {network}")).await?;
        let mut state = self.lock();
        let attached = state.container_mut(container)?;
        attached.state.networks.remove(network).map(drop).ok_or_else(|| not_found("network", network))
    }

    async fn connect(&self, container: &str, endpoint: &EndpointSpec) -> Result<()> {
        self.call("connect", &format!("{container} {}", endpoint.network)).await?;
        let mut state = self.lock();
        let id = state.network_id(&endpoint.network)?;
        let container = state.container_mut(container)?;
        container.state.networks.insert(endpoint.network.clone(), container::endpoint_state(endpoint, id));
        Ok(())
    }

    async fn create_volume(&self, spec: &VolumeSpec) -> Result<()> {
        self.call("create_volume", &spec.name).await?;
        let mut state = self.lock();
        let created = Some(state.now());
        state.volumes.entry(spec.name.clone()).or_insert_with(|| VolumeState {
            name: spec.name.clone(),
            driver: spec.driver.clone().unwrap_or_else(|| "local".into()),
            labels: spec.labels.clone(),
            options: spec.driver_opts.clone(),
            mountpoint: format!("/fake/volumes/{}", spec.name),
            created,
        });
        Ok(())
    }

    async fn volume(&self, name: &str) -> Result<Option<VolumeState>> {
        self.call("volume", name).await?;
        Ok(self.lock().volumes.get(name).cloned())
    }

    async fn volumes(&self, labels: &[String]) -> Result<Vec<VolumeState>> {
        self.call("volumes", "").await?;
        Ok(self.lock().volumes.values().filter(|v| has_labels(&v.labels, labels)).cloned().collect())
    }

    async fn remove_volume(&self, name: &str) -> Result<()> {
        self.call("remove_volume", name).await?;
        let mut state = self.lock();
        let user = state
            .containers
            .values()
            .find(|c| c.state.mounts.iter().any(|m| m.name.as_deref() == Some(name)))
            .map(|c| format!("container `{}`", c.state.name));
        if let Some(by) = user {
            return Err(EngineError::InUse { kind: "volume", name: name.into(), by });
        }
        state.volumes.remove(name).map(drop).ok_or_else(|| not_found("volume", name))
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<String> {
        self.call("create", &spec.name).await?;
        let mut state = self.lock();
        let id = state.create(spec)?;
        self.emit(&mut state, &id, EventAction::Create);
        Ok(id)
    }

    async fn start(&self, container: &str) -> Result<()> {
        let name = self.display(container);
        self.call("start", &name).await?;
        self.begin(container)
    }

    async fn stop(&self, container: &str, grace: Option<Duration>) -> Result<()> {
        let name = self.display(container);
        self.call("stop", &name).await?;
        let Some(id) = self.end_by_request(container, grace, false).await? else { return Ok(()) };
        let mut state = self.lock();
        self.emit(&mut state, &id, EventAction::Stop);
        Ok(())
    }

    async fn kill(&self, container: &str, signal: &str) -> Result<()> {
        let name = self.display(container);
        self.call("kill", &format!("{name} {signal}")).await?;
        let (number, id) = {
            let mut state = self.lock();
            let container = state.container_mut(container)?;
            if !container.is_running() {
                return Err(EngineError::Invalid(format!(
                    "container `{}` is not running",
                    container.state.name
                )));
            }
            let number = match signal.trim_start_matches("SIG") {
                "KILL" | "9" => 9,
                "TERM" | "15" => 15,
                "INT" | "2" => 2,
                "HUP" | "1" => 1,
                other => return Err(EngineError::Invalid(format!("unknown signal `{other}`"))),
            };
            container.stopped_by_hand |= number == 9;
            let id = container.state.id.clone();
            self.emit(&mut state, &id, EventAction::Kill { signal: number });
            (number, id)
        };
        if number != 1 {
            self.ended(&id, 128 + number, End::default());
        }
        Ok(())
    }

    async fn restart(&self, container: &str, grace: Option<Duration>) -> Result<()> {
        let name = self.display(container);
        self.call("restart", &name).await?;
        self.end_by_request(container, grace, true).await?;
        self.begin(container)?;
        let mut state = self.lock();
        let id = state.container(container)?.state.id.clone();
        self.emit(&mut state, &id, EventAction::Restart);
        Ok(())
    }

    async fn pause(&self, container: &str) -> Result<()> {
        self.set_paused(container, true).await
    }

    async fn unpause(&self, container: &str) -> Result<()> {
        self.set_paused(container, false).await
    }

    async fn remove(&self, container: &str, force: bool, volumes: bool) -> Result<()> {
        let name = self.display(container);
        self.call("remove", &name).await?;
        let running = {
            let state = self.lock();
            let container = state.container(container)?;
            container.is_running().then(|| container.state.id.clone())
        };
        if let Some(id) = running {
            if !force {
                return Err(EngineError::InUse { kind: "container", name, by: "its running process".into() });
            }
            self.lock().container_mut(&id)?.stopped_by_hand = true;
            self.ended(&id, 137, End::default());
        }
        self.destroy(container, volumes)
    }

    async fn rename(&self, container: &str, name: &str) -> Result<()> {
        let old = self.display(container);
        self.call("rename", &format!("{old} {name}")).await?;
        let mut state = self.lock();
        if state.containers.values().any(|c| c.state.name == name) {
            return Err(EngineError::Conflict { kind: "container", name: name.into() });
        }
        let renamed = state.container_mut(container)?;
        name.clone_into(&mut renamed.state.name);
        let id = renamed.state.id.clone();
        self.emit(&mut state, &id, EventAction::Rename);
        Ok(())
    }

    async fn inspect(&self, container: &str) -> Result<Option<ContainerState>> {
        self.call("inspect", container).await?;
        Ok(self.lock().container(container).ok().map(|c| c.state.clone()))
    }

    async fn asked(&self, container: &str) -> Result<Option<ContainerSpec>> {
        self.call("asked", container).await?;
        Ok(self.lock().container(container).ok().map(|c| c.spec.clone()))
    }

    async fn list(&self, labels: &[String]) -> Result<Vec<ContainerState>> {
        self.call("list", "").await?;
        let state = self.lock();
        let matching = state.containers.values().filter(|c| has_labels(&c.state.labels, labels));
        Ok(matching.map(|c| c.state.clone()).collect())
    }

    async fn processes(&self, container: &str) -> Result<ProcessTable> {
        self.call("top", container).await?;
        let state = self.lock();
        let container = state.container(container)?;
        let row = vec![container.state.pid.to_string(), container.state.command.join(" ")];
        Ok(ProcessTable { titles: vec!["PID".into(), "CMD".into()], rows: vec![row] })
    }

    async fn usage(&self, container: &str) -> Result<Option<UsageState>> {
        self.call("usage", container).await?;
        let mut state = self.lock();
        let at = state.now();
        let runs = state.container(container)?.is_running();
        // One processor, always busy: the clock counts both.
        let cpu = Duration::try_from(at.duration_since(Timestamp::UNIX_EPOCH)).unwrap_or_default();
        Ok(runs.then(|| UsageState {
            at,
            cpu,
            memory: 1 << 20,
            memory_limit: 1 << 30,
            tasks: 1,
            ..UsageState::default()
        }))
    }

    async fn path_state(&self, container: &str, path: &str) -> Result<Option<PathState>> {
        Ok(self.lock().container(container)?.files.state(path))
    }

    async fn pack(&self, container: &str, path: &str, sink: ArchiveSink) -> Result<()> {
        self.call("pack", container).await?;
        let archive = self.lock().container(container)?.files.pack(path)?;
        files::write(sink, &archive)
    }

    async fn unpack(&self, container: &str, path: &str, source: ArchiveSource, _as_user: bool) -> Result<()> {
        self.call("unpack", container).await?;
        // Others want to run while the archive is made.
        let entries = tokio::task::spawn_blocking(|| files::read(source)).await;
        let entries = entries.map_err(|stopped| EngineError::Invalid(stopped.to_string()))??;
        self.lock().container_mut(container)?.files.unpack(path, entries);
        Ok(())
    }

    async fn delete_paths(&self, container: &str, paths: &[String]) -> Result<()> {
        self.call("delete", container).await?;
        let mut state = self.lock();
        let files = &mut state.container_mut(container)?.files;
        for path in paths {
            files.delete(path);
        }
        Ok(())
    }

    async fn wait(&self, container: &str) -> Result<i32> {
        self.call("wait", container).await?;
        let mut changes = self.changes(container)?;
        loop {
            {
                let state = self.lock();
                let container = state.container(container)?;
                if !container.is_running() && container.state.phase != Phase::Restarting {
                    return Ok(container.state.exit_code);
                }
            }
            if changes.changed().await.is_err() {
                return Err(not_found("container", container));
            }
        }
    }

    async fn lock_project(&self, project: &str, waiting: LockWaiting<'_>) -> Result<ProjectLock> {
        let lock = self.lock().locks.entry(project.to_owned()).or_default().clone();
        if let Ok(guard) = lock.clone().try_lock_owned() {
            return Ok(Box::new(guard));
        }
        waiting("another command");
        Ok(Box::new(lock.lock_owned().await))
    }

    async fn logs(&self, container: &str, options: &LogOptions) -> Result<BoxStream<Result<Vec<LogFrame>>>> {
        self.call("logs", container).await?;
        let changes = self.changes(container)?;
        let id = self.lock().container(container)?.state.id.clone();
        Ok(streams::logs(self.clone(), id, changes, options.clone()))
    }

    async fn events(
        &self,
        labels: &[String],
        since: Option<Timestamp>,
    ) -> Result<BoxStream<Result<EngineEvent>>> {
        self.call("events", "").await?;
        let (past, live) = {
            let state = self.lock();
            let past: Vec<_> =
                state.history.iter().filter(|e| since.is_some_and(|s| e.time >= s)).cloned().collect();
            (past, self.inner.events.subscribe())
        };
        let labels = labels.to_vec();
        let live = futures_util::stream::unfold(live, |mut live| async move {
            loop {
                match live.recv().await {
                    Ok(event) => return Some((event, live)),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        });
        let all = futures_util::stream::iter(past).chain(live);
        let matching =
            all.filter(move |event| futures_util::future::ready(has_labels(&event.labels, &labels)));
        Ok(matching.map(Ok).boxed())
    }

    async fn exec(&self, container: &str, spec: &ExecSpec) -> Result<Attached> {
        let name = self.display(container);
        self.call("exec", &format!("{name} {}", spec.command.join(" "))).await?;
        let (output, code) = {
            let state = self.lock();
            let container = state.container(container)?;
            if !container.is_running() {
                return Err(EngineError::Invalid(format!("container `{name}` is not running")));
            }
            let known = container.script.exec.iter().find(|(command, ..)| *command == spec.command);
            known.map_or_else(|| (String::new(), 0), |(_, output, code)| (output.clone(), *code))
        };
        Ok(streams::finished(&output, code))
    }

    async fn attach(&self, container: &str, _stdin: bool) -> Result<Attached> {
        self.call("attach", container).await?;
        let changes = self.changes(container)?;
        let id = self.lock().container(container)?.state.id.clone();
        Ok(streams::attach(self, id, changes))
    }
}

impl State {
    fn with_members(&self, network: &NetworkState) -> NetworkState {
        let members: BTreeSet<&String> = self
            .containers
            .iter()
            .filter(|(_, c)| c.state.networks.contains_key(&network.name))
            .map(|(id, _)| id)
            .collect();
        NetworkState { containers: members.into_iter().cloned().collect(), ..network.clone() }
    }

    fn network_id(&self, name: &str) -> Result<String> {
        self.networks.get(name).map(|n| n.id.clone()).ok_or_else(|| not_found("network", name))
    }
}

impl FakeEngine {
    fn display(&self, container: &str) -> String {
        self.lock().container(container).map_or_else(|_| container.to_owned(), |c| c.state.name.clone())
    }

    /// Ends a container that runs, and gives its id; `None` when it does not run.
    async fn end_by_request(
        &self,
        container: &str,
        grace: Option<Duration>,
        again: bool,
    ) -> Result<Option<String>> {
        let (id, ignores, wait) = {
            let mut state = self.lock();
            let container = state.container_mut(container)?;
            container.stopped_by_hand = true;
            if !container.is_running() {
                container.cancel_restart();
                return Ok(None);
            }
            let wait = grace.or(container.spec.stop_grace_period).unwrap_or(Duration::from_secs(10));
            (container.state.id.clone(), container.script.ignores_stop, wait)
        };
        if ignores {
            tokio::time::sleep(wait).await;
        }
        let code = if ignores { 137 } else { 143 };
        self.ended(&id, code, End { again, ..End::default() });
        Ok(Some(id))
    }

    fn changes(&self, container: &str) -> Result<watch::Receiver<u64>> {
        Ok(self.lock().container(container)?.changes.subscribe())
    }

    async fn set_paused(&self, container: &str, paused: bool) -> Result<()> {
        let name = self.display(container);
        self.call(if paused { "pause" } else { "unpause" }, &name).await?;
        let mut state = self.lock();
        let container = state.container_mut(container)?;
        let (from, to, action) = if paused {
            (Phase::Running, Phase::Paused, EventAction::Pause)
        } else {
            (Phase::Paused, Phase::Running, EventAction::Unpause)
        };
        if container.state.phase != from {
            let phase = container.state.phase.as_str();
            return Err(EngineError::Invalid(format!("container `{name}` is {phase}")));
        }
        container.state.phase = to;
        container.changed();
        let id = container.state.id.clone();
        self.emit(&mut state, &id, action);
        Ok(())
    }
}
