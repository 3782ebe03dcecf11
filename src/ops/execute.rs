//! Walks a plan: everything that can run at the same time does; stops at the first failure and undoes what is half-made.
//!
//! The project's lock is held while anything is changed and given up while
//! only conditions are waited for, so that `down` or `stop` from elsewhere
//! can end a wait that takes for ever.
//!
//! **What is undone.** A replacement whose predecessor is still there is
//! removed, whatever ended the walk. When an engine call failed, containers
//! that this plan made and never started are removed as well (except
//! replacements: they hold the volumes of what they replaced), then networks,
//! and volumes if nothing was started. What was started stays.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::SignedDuration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::OpsError;
use super::events::{EventSender, ProjectEvent, ResourceKind, Status};
use super::monitor::Monitor;
use super::progress::{Progress, progress_of, send, step_of};
use super::{Result, wait};
use crate::engine::{Engine, EngineError, ProjectLock};
use crate::plan::{Borrow, NodeId, Operation, Plan, Target, Wait};
use crate::spec::ContainerSpec;

/// Completes a spec whose borrowed ids are known now.
pub(super) type Finish =
    Arc<dyn Fn(&str, &mut ContainerSpec, &[(Borrow, String)]) -> Result<()> + Send + Sync>;

/// A plan and all that is needed to carry it out.
pub(super) struct Execution {
    pub(super) engine: Arc<dyn Engine>,
    /// Name of the project, for its lock and its events.
    pub(super) project: String,
    pub(super) plan: Plan,
    pub(super) events: EventSender,
    pub(super) interrupt: CancellationToken,
    /// Engine calls at one time; none is unlimited.
    pub(super) parallel: Option<usize>,
    /// For all waits together.
    pub(super) wait_limit: Option<Duration>,
    pub(super) finish: Finish,
    /// Made before the plan is walked when somebody else listens too.
    pub(super) monitor: Option<Arc<Monitor>>,
    /// Sent before the first container is started, or at the end when none is.
    pub(super) before_start: Vec<ProjectEvent>,
}

/// What a walked plan has made.
#[derive(Debug, Default)]
pub(super) struct Executed {
    /// Ids of created containers by node.
    pub(super) created: BTreeMap<NodeId, String>,
}

struct Shared {
    engine: Arc<dyn Engine>,
    plan: Plan,
    events: EventSender,
    created: Mutex<BTreeMap<NodeId, String>>,
    slots: Option<Semaphore>,
    finish: Finish,
    monitor: Option<Arc<Monitor>>,
    /// Ends waits.
    give_up: CancellationToken,
    /// Ends long stops.
    interrupt: CancellationToken,
}

/// Walks the plan. The lock is given up when it returns, or earlier.
///
/// # Errors
/// The first failure ([`OpsError::Several`] when the plan keeps going);
/// [`OpsError::Interrupted`].
pub(super) async fn execute(execution: Execution, lock: ProjectLock) -> Result<Executed> {
    let Execution {
        engine,
        project,
        plan,
        events,
        interrupt,
        parallel,
        wait_limit,
        finish,
        monitor,
        before_start,
    } = execution;
    let monitor = match monitor {
        None if plan.has_waits() => Some(Arc::new(Monitor::new(&engine, &project_label(&project)).await?)),
        given => given,
    };
    let shared = Arc::new(Shared {
        engine,
        plan,
        events,
        created: Mutex::default(),
        slots: parallel.map(Semaphore::new),
        finish,
        monitor,
        give_up: CancellationToken::new(),
        interrupt: interrupt.clone(),
    });
    let mut walk = Walk::new(shared.clone(), project, lock, before_start);
    let began = Instant::now();
    let timeout = async {
        match wait_limit {
            Some(limit) => tokio::time::sleep_until(began + limit).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(timeout);
    let (mut timed_out, mut interrupted) = (false, false);
    loop {
        if interrupt.is_cancelled() && !interrupted {
            interrupted = true;
            walk.fail(OpsError::Interrupted);
        }
        walk.launch().await;
        if walk.tasks.is_empty() {
            break;
        }
        tokio::select! {
            Some(done) = walk.tasks.join_next() => match done {
                Ok((node, result)) => walk.done(node, result),
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            },
            () = interrupt.cancelled(), if !interrupted => {}
            () = &mut timeout, if !timed_out && !walk.waits.is_empty() => {
                timed_out = true;
                let report = walk.timeout_report(began.elapsed()).await;
                walk.fail(report);
            }
        }
    }
    walk.finish().await
}

/// The label that all containers of a project carry.
pub(super) fn project_label(project: &str) -> String {
    format!("com.docker.compose.project={project}")
}

/// The state of one walk; owned by one task.
struct Walk {
    shared: Arc<Shared>,
    project: String,
    lock: Option<ProjectLock>,
    tasks: JoinSet<(NodeId, Result<()>)>,
    missing: Vec<usize>,
    ready: BTreeSet<NodeId>,
    waits: BTreeSet<NodeId>,
    changing: usize,
    finished: BTreeSet<NodeId>,
    attempted: usize,
    errors: Vec<OpsError>,
    before_start: Vec<ProjectEvent>,
}

impl Walk {
    fn new(shared: Arc<Shared>, project: String, lock: ProjectLock, before_start: Vec<ProjectEvent>) -> Self {
        let missing: Vec<usize> = shared.plan.nodes().map(|(id, _)| shared.plan.before(id).len()).collect();
        let ready = missing.iter().enumerate().filter(|(_, n)| **n == 0).map(|(i, _)| NodeId(i)).collect();
        Self {
            shared,
            project,
            lock: Some(lock),
            tasks: JoinSet::new(),
            missing,
            ready,
            waits: BTreeSet::new(),
            changing: 0,
            finished: BTreeSet::new(),
            attempted: 0,
            errors: Vec::new(),
            before_start,
        }
    }

    /// Starts everything that is ready, unless something has failed.
    async fn launch(&mut self) {
        while self.going() {
            let Some(node) = self.ready.pop_first() else { break };
            match self.shared.plan.node(node).operation {
                Operation::Barrier => {
                    self.complete(node);
                    continue;
                }
                Operation::Wait(_) => {
                    self.waits.insert(node);
                }
                ref operation => {
                    if matches!(operation, Operation::StartContainer { .. }) {
                        self.announce().await;
                    }
                    if self.lock.is_none() && !self.take_lock().await {
                        return;
                    }
                    self.changing += 1;
                    self.attempted += 1;
                }
            }
            let shared = self.shared.clone();
            self.tasks.spawn(async move { (node, shared.run(node).await) });
        }
        if self.changing == 0 && !self.waits.is_empty() {
            self.lock = None;
        }
    }

    async fn announce(&mut self) {
        for event in std::mem::take(&mut self.before_start) {
            send(&self.shared.events, event).await;
        }
    }

    fn going(&self) -> bool {
        self.errors.is_empty() || (self.shared.plan.keep_going && !self.shared.interrupt.is_cancelled())
    }

    async fn take_lock(&mut self) -> bool {
        let shared = self.shared.clone();
        let waiting = |holder: &str| say_waiting(&shared.events, &self.project, holder);
        let lock = tokio::select! {
            lock = self.shared.engine.lock_project(&self.project, &waiting) => lock.map_err(OpsError::from),
            () = self.shared.interrupt.cancelled() => Err(OpsError::Interrupted),
        };
        match lock {
            Ok(lock) => {
                self.lock = Some(lock);
                true
            }
            Err(error) => {
                self.fail(error);
                false
            }
        }
    }

    fn done(&mut self, node: NodeId, result: Result<()>) {
        if !self.waits.remove(&node) {
            self.changing -= 1;
        }
        match result {
            Ok(()) => self.complete(node),
            Err(error) => {
                self.fail(error);
                if self.shared.plan.keep_going {
                    self.release(node);
                }
            }
        }
    }

    fn complete(&mut self, node: NodeId) {
        self.finished.insert(node);
        self.release(node);
    }

    fn release(&mut self, node: NodeId) {
        for later in self.shared.plan.after(node) {
            self.missing[later.0] -= 1;
            if self.missing[later.0] == 0 {
                self.ready.insert(later);
            }
        }
    }

    /// Remembers a failure. Waits end; what is being changed is finished.
    fn fail(&mut self, error: OpsError) {
        // What was given up because of the first failure is not another one.
        if !self.errors.is_empty() && matches!(error, OpsError::Interrupted) {
            return;
        }
        if !self.shared.plan.keep_going || matches!(error, OpsError::Interrupted) {
            self.shared.give_up.cancel();
        }
        self.errors.push(error);
    }

    async fn timeout_report(&self, waited: Duration) -> OpsError {
        let Some(node) = self.waits.first() else { return OpsError::Interrupted };
        let Operation::Wait(wait) = &self.shared.plan.node(*node).operation else {
            return OpsError::Interrupted;
        };
        let waited = SignedDuration::try_from(waited).unwrap_or(SignedDuration::MAX);
        let ids = self.shared.ids_of(wait);
        let blocked = blocked_by(&self.shared.plan, *node);
        let report = wait::report_timeout(&self.shared.engine, wait, &ids, waited, &blocked).await;
        OpsError::NotReady(Box::new(report))
    }

    async fn finish(mut self) -> Result<Executed> {
        self.announce().await;
        if !self.errors.is_empty() {
            self.undo().await;
        }
        match self.errors.len() {
            0 => {
                let mut created = self.shared.created.lock().expect("no task panicked while it held this");
                Ok(Executed { created: std::mem::take(&mut *created) })
            }
            1 => Err(self.errors.remove(0)),
            _ if !self.shared.plan.keep_going => Err(self.errors.remove(0)),
            _ => Err(OpsError::Several { errors: self.errors, total: self.attempted }),
        }
    }

    async fn undo(&mut self) {
        let step_failed = self.errors.iter().any(|error| {
            !matches!(error, OpsError::Interrupted | OpsError::NotReady(_) | OpsError::EventsEnded)
        });
        let created = self.shared.created.lock().expect("no task panicked while it held this").clone();
        let (mut containers, mut networks, mut volumes) = (Vec::new(), Vec::new(), Vec::new());
        let mut any_started = false;
        for (id, node) in self.shared.plan.nodes() {
            if !self.finished.contains(&id) {
                continue;
            }
            match &node.operation {
                Operation::StartContainer { .. } => any_started = true,
                Operation::CreateContainer { replaces, .. } => {
                    let undone = match replaces {
                        Some(old) => !self.was_removed(old),
                        None => step_failed && !self.was_started(id),
                    };
                    if undone && let Some(container) = created.get(&id) {
                        containers.push((container.clone(), replaces.is_none()));
                    }
                }
                Operation::CreateNetwork { spec } => networks.push(spec.name.clone()),
                Operation::CreateVolume { spec } => volumes.push(spec.name.clone()),
                _ => {}
            }
        }
        if containers.is_empty() && !step_failed {
            return;
        }
        if self.lock.is_none() && !self.take_lock_to_undo().await {
            return;
        }
        // What cannot be undone stays for the next command, which finds it by its labels.
        let engine = &self.shared.engine;
        for (container, own_volumes) in containers {
            drop(engine.remove(&container, true, own_volumes).await);
        }
        if step_failed {
            for network in networks {
                drop(engine.remove_network(&network).await);
            }
            if !any_started {
                for volume in volumes {
                    drop(engine.remove_volume(&volume).await);
                }
            }
        }
    }

    async fn take_lock_to_undo(&mut self) -> bool {
        self.lock = self.shared.engine.lock_project(&self.project, &|_| {}).await.ok();
        self.lock.is_some()
    }

    fn was_removed(&self, target: &Target) -> bool {
        self.shared.plan.nodes().any(|(id, node)| {
            matches!(&node.operation, Operation::RemoveContainer { container, .. } if container == target)
                && self.finished.contains(&id)
        })
    }

    fn was_started(&self, created_by: NodeId) -> bool {
        self.shared.plan.nodes().any(|(id, node)| {
            matches!(
                &node.operation,
                Operation::StartContainer { container: Target::Created { by, .. } } if *by == created_by
            ) && self.finished.contains(&id)
        })
    }
}

/// Tells that another command holds the project.
pub(super) fn say_waiting(events: &EventSender, project: &str, holder: &str) {
    let who = if holder.is_empty() { "another command" } else { holder };
    // The engine calls this from a place that must not block; a reader that is behind misses a courtesy.
    drop(events.try_send(ProjectEvent::Warning(format!(
        "project `{project}` is being changed by {who}: waiting for it to finish"
    ))));
}

/// Services that are not started because a wait has failed, sorted.
fn blocked_by(plan: &Plan, wait: NodeId) -> Vec<String> {
    let mut queue = vec![wait];
    let mut seen = BTreeSet::new();
    let mut services = BTreeSet::new();
    while let Some(node) = queue.pop() {
        for later in plan.after(node) {
            if !seen.insert(later) {
                continue;
            }
            if let Operation::StartContainer { container } = &plan.node(later).operation
                && let Some(service) = plan.service_of(container)
            {
                services.insert(service.to_owned());
            }
            queue.push(later);
        }
    }
    services.into_iter().collect()
}

impl Shared {
    async fn run(&self, node: NodeId) -> Result<()> {
        let operation = &self.plan.node(node).operation;
        if let Operation::Wait(wait) = operation {
            return self.wait(node, wait).await;
        }
        let _slot = match &self.slots {
            Some(slots) => slots.acquire().await.ok(),
            None => None,
        };
        let progress = progress_of(operation, &self.plan.node(node).cause);
        if let Some(progress) = &progress {
            progress.working(&self.events).await;
        }
        match self.call(node, operation).await {
            Ok(()) => {
                if let Some(progress) = &progress {
                    progress.done(&self.events).await;
                }
                Ok(())
            }
            Err(EngineError::NotFound { .. }) if operation.is_removal() => {
                if let Some(progress) = &progress {
                    progress.done(&self.events).await;
                }
                Ok(())
            }
            Err(EngineError::InUse { by, .. }) if operation.tolerates_use() => {
                if let Some(progress) = &progress {
                    progress.ended(&self.events, Status::Warning, "Resource is still in use", by).await;
                }
                Ok(())
            }
            Err(source) => {
                let (step, kind, name) = step_of(operation);
                if let Some(progress) = &progress {
                    progress.ended(&self.events, Status::Error, "Error", source.to_string()).await;
                }
                Err(OpsError::step(step, kind, &name, source))
            }
        }
    }

    /// Waits for a condition; an optional one that fails is told and passed over.
    async fn wait(&self, node: NodeId, wait: &Wait) -> Result<()> {
        let Some(monitor) = &self.monitor else { return Err(OpsError::EventsEnded) };
        let listener = monitor.listen();
        let ids = self.ids_of(wait);
        let blocked = blocked_by(&self.plan, node);
        let progress: Vec<Progress> =
            wait.containers.iter().map(|c| Progress::waiting(c.name(), wait.condition)).collect();
        for line in &progress {
            line.working(&self.events).await;
        }
        let tell = |text: String| {
            if let Some(line) = progress.first() {
                line.note(&self.events, text);
            }
        };
        let waiting = wait::wait_for(&self.engine, listener, wait, &ids, &blocked, &tell);
        let result = tokio::select! {
            result = waiting => result,
            () = self.give_up.cancelled() => return Err(OpsError::Interrupted),
        };
        match result {
            Ok(()) => {
                for line in &progress {
                    line.done(&self.events).await;
                }
                Ok(())
            }
            Err(OpsError::NotReady(report)) if !wait.required => {
                let who = wait.waiting.join(", ");
                let text = format!("optional dependency of {who}: {report}");
                send(&self.events, ProjectEvent::Warning(text)).await;
                Ok(())
            }
            Err(error) => {
                for line in &progress {
                    line.ended(&self.events, Status::Error, "Error", error.to_string()).await;
                }
                Err(error)
            }
        }
    }

    fn ids_of(&self, wait: &Wait) -> Vec<String> {
        wait.containers.iter().filter_map(|target| self.id(target).ok()).collect()
    }

    fn id(&self, target: &Target) -> Result<String, EngineError> {
        match target {
            Target::Existing { id, .. } => Ok(id.clone()),
            Target::Created { by, name } => {
                let created = self.created.lock().expect("no task panicked while it held this");
                let missing = || EngineError::NotFound { kind: "container", name: name.clone() };
                created.get(by).cloned().ok_or_else(missing)
            }
        }
    }

    async fn call(&self, node: NodeId, operation: &Operation) -> Result<(), EngineError> {
        let engine = &self.engine;
        match operation {
            Operation::CreateNetwork { spec } => match engine.create_network(spec).await {
                // Somebody of another project was faster; it is the same network.
                Err(EngineError::Conflict { .. }) | Ok(_) => Ok(()),
                Err(error) => Err(error),
            },
            Operation::RemoveNetwork { name, .. } => engine.remove_network(name).await,
            Operation::Connect { container, endpoint } => {
                engine.connect(&self.id(container)?, endpoint).await
            }
            Operation::Disconnect { container, network } => {
                engine.disconnect(network, &self.id(container)?, true).await
            }
            Operation::CreateVolume { spec } => engine.create_volume(spec).await,
            Operation::RemoveVolume { name, .. } => engine.remove_volume(name).await,
            Operation::CreateContainer { service, spec, borrows, .. } => {
                let id = if borrows.is_empty() {
                    engine.create(spec).await?
                } else {
                    engine.create(&self.finished_spec(service, spec, borrows)?).await?
                };
                self.created.lock().expect("no task panicked while it held this").insert(node, id);
                Ok(())
            }
            Operation::RenameContainer { container, name, .. } => {
                engine.rename(&self.id(container)?, name).await
            }
            Operation::StartContainer { container } => engine.start(&self.id(container)?).await,
            Operation::StopContainer { container, grace } => {
                let id = self.id(container)?;
                self.unless_interrupted(engine.stop(&id, *grace)).await
            }
            Operation::RestartContainer { container, grace } => {
                let id = self.id(container)?;
                self.unless_interrupted(engine.restart(&id, *grace)).await
            }
            Operation::KillContainer { container, signal } => engine.kill(&self.id(container)?, signal).await,
            Operation::PauseContainer { container } => engine.pause(&self.id(container)?).await,
            Operation::UnpauseContainer { container } => engine.unpause(&self.id(container)?).await,
            Operation::RemoveContainer { container, volumes, .. } => {
                engine.remove(&self.id(container)?, true, *volumes).await
            }
            Operation::Hook { container, stage, spec } => {
                super::hook::run(engine, &self.id(container)?, container.name(), stage, spec).await
            }
            Operation::RemoveImage { reference } => engine.remove_image(reference, false).await,
            Operation::Wait(_) | Operation::Barrier => Ok(()),
        }
    }

    /// A stop that the user does not want to wait for goes on without us.
    async fn unless_interrupted(
        &self,
        call: impl Future<Output = Result<(), EngineError>>,
    ) -> Result<(), EngineError> {
        tokio::select! {
            result = call => result,
            () = self.interrupt.cancelled() => Ok(()),
        }
    }

    fn finished_spec(
        &self,
        service: &str,
        spec: &ContainerSpec,
        borrows: &[Borrow],
    ) -> Result<ContainerSpec, EngineError> {
        let mut borrowed = Vec::with_capacity(borrows.len());
        for borrow in borrows {
            borrowed.push((borrow.clone(), self.id(&borrow.from)?));
        }
        let mut finished = spec.clone();
        match (self.finish)(service, &mut finished, &borrowed) {
            Ok(()) => Ok(finished),
            Err(error) => Err(EngineError::Failed {
                step: format!("complete service `{service}`"),
                source: error.into(),
            }),
        }
    }
}

/// The kinds of things that steps are about, for errors.
pub(super) const fn kind_word(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Container => "container",
        ResourceKind::Network => "network",
        ResourceKind::Volume => "volume",
        ResourceKind::Image => "image",
        ResourceKind::Layer => "layer",
    }
}
