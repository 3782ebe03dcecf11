//! What every use case works with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::events::{EventSender, ProjectEvent};
use super::execute::{Executed, Execution, Finish, execute, project_label, say_waiting};
use super::monitor::Monitor;
use super::progress::{progress_of, send};
use super::{Interrupt, OpsError, Result, SharedPrompt};
use crate::engine::{ContainerState, Engine, ProjectLock};
use crate::graph::Dependencies;
use crate::model::Project;
use crate::plan::{ObservedContainer, Plan, StopHooks, lower, observed};

/// Where the project comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Its files.
    Files,
    /// The labels of its containers ([`project_from_labels`](super::project_from_labels)): services that are not known are ignored.
    Labels,
}

/// What every use case works with. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// Runs the containers.
    pub engine: Arc<dyn Engine>,
    /// The project.
    pub project: Arc<Project>,
    /// Where it comes from.
    pub origin: Origin,
    /// Engine calls at one time; none is unlimited.
    pub parallel: Option<usize>,
    /// Ends what is running.
    pub interrupt: Interrupt,
    /// Asks the user.
    pub prompt: SharedPrompt,
    /// Decide everything, show what would be done, and change nothing.
    pub dry_run: bool,
    /// What only the caller knows about how the project was loaded; goes into labels and names.
    pub naming: lower::Naming,
}

impl Context {
    /// The label that all containers of the project carry.
    pub(super) fn label(&self) -> String {
        project_label(&self.project.name)
    }

    /// Runs something that the user's interrupt ends.
    pub(super) async fn unless_interrupted<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            result = work => result,
            () = self.interrupt.first.cancelled() => Err(OpsError::Interrupted),
        }
    }

    /// Waits until nobody else changes the project, and says so.
    pub(super) async fn lock(&self, events: &EventSender) -> Result<ProjectLock> {
        let waiting = |holder: &str| say_waiting(events, &self.project.name, holder);
        self.unless_interrupted(async { Ok(self.engine.lock_project(&self.project.name, &waiting).await?) })
            .await
    }

    /// All containers of the project, sorted, one-offs included.
    pub(super) async fn containers(&self) -> Result<Vec<ObservedContainer>> {
        Ok(observed::containers(self.states().await?))
    }

    pub(super) async fn states(&self) -> Result<Vec<ContainerState>> {
        Ok(self.engine.list(&[self.label()]).await?)
    }

    /// Who needs whom: by the files, and by labels for what the files do not know.
    pub(super) fn dependencies(&self, containers: &[ObservedContainer]) -> Dependencies {
        let mut needs: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for container in containers {
            let of = needs.entry(&container.service).or_default();
            if !self.project.services.contains_key(&container.service) {
                of.extend(container.dependencies().into_iter().map(|(service, ..)| service));
            }
        }
        for (name, service) in &self.project.services {
            needs.entry(name).or_default().extend(service.depends_on.keys().cloned());
        }
        Dependencies::new(needs.iter().map(|(name, needs)| (*name, needs.iter().map(String::as_str))))
    }

    /// Refuses services that the project does not have. A project rebuilt from labels ignores them.
    pub(super) fn check_services<'a>(&self, services: impl IntoIterator<Item = &'a String>) -> Result<()> {
        if self.origin == Origin::Labels {
            return Ok(());
        }
        let unknown = services.into_iter().find(|name| !self.project.services.contains_key(*name));
        match unknown {
            None => Ok(()),
            Some(service) => Err(OpsError::NoSuchService {
                service: service.clone(),
                known: self.project.services.keys().cloned().collect(),
            }),
        }
    }

    /// `pre_stop` hooks by service.
    pub(super) fn stop_hooks(&self) -> StopHooks {
        let services = self.project.services.iter().filter(|(_, service)| !service.pre_stop.is_empty());
        services
            .map(|(name, service)| (name.clone(), service.pre_stop.iter().map(lower::hook).collect()))
            .collect()
    }

    /// Carries a plan out under the lock.
    pub(super) async fn carry_out(
        &self,
        plan: Plan,
        lock: ProjectLock,
        events: &EventSender,
        extra: Extra,
    ) -> Result<Executed> {
        for warning in &plan.warnings {
            send(events, ProjectEvent::Warning(warning.clone())).await;
        }
        if self.dry_run {
            for (_, node) in plan.nodes() {
                if let Some(line) = progress_of(&node.operation, &node.cause) {
                    line.working(events).await;
                    line.done(events).await;
                }
            }
            return Ok(Executed::default());
        }
        let project = self.project.clone();
        let finish: Finish = Arc::new(move |service, spec, known| {
            lower::bind(&project, service, spec, known)
                .map_err(|reason| OpsError::Invalid { service: service.to_owned(), reason })
        });
        let execution = Execution {
            engine: self.engine.clone(),
            project: self.project.name.clone(),
            plan,
            events: events.clone(),
            interrupt: extra.interrupt.unwrap_or_else(|| self.interrupt.first.clone()),
            parallel: self.parallel,
            wait_limit: extra.wait_limit,
            finish,
            monitor: extra.monitor,
            before_start: extra.before_start,
        };
        execute(execution, lock).await
    }
}

/// What only some plans need when they are carried out.
#[derive(Default)]
pub(super) struct Extra {
    /// Limit of all waits together.
    pub(super) wait_limit: Option<std::time::Duration>,
    /// Somebody else listens to events too.
    pub(super) monitor: Option<Arc<Monitor>>,
    /// Sent before the first container is started, or at the end when none is.
    pub(super) before_start: Vec<ProjectEvent>,
    /// Instead of the user's first interrupt.
    pub(super) interrupt: Option<tokio_util::sync::CancellationToken>,
}

/// Puts a heading in front of progress and closes it.
pub(super) async fn under_heading<T>(
    events: &EventSender,
    operation: &'static str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    send(events, ProjectEvent::Begin { operation }).await;
    let result = work.await;
    send(events, ProjectEvent::End).await;
    result
}
