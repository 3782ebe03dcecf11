//! The attached `up`: the plan is carried out, output is followed, and interrupts and exits end it.
//!
//! One loop puts all sources in a single order: the plan, the follower's
//! notices, the user's interrupts, and the stop or kill that one of them has
//! begun. It ends when the plan is done, everything that was started has been
//! seen to start, and nothing that is followed runs any more.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::context::{Context, Extra};
use super::events::{EventSender, ProjectEvent};
use super::follow::{Filter, Follower, Notice, Source, position_after};
use super::lifecycle::{kill, stop};
use super::monitor::Monitor;
use super::options::{Abort, AttachOptions, Follow, KillOptions, StopOptions, UpOutcome};
use super::progress::send;
use super::{Interrupt, OpsError, Result, display_name, is_up};
use crate::engine::ProjectLock;
use crate::model::labels;
use crate::plan::{Observed, Operation, Plan, Target};

/// The services whose output is shown.
pub(super) fn followed_services(
    ctx: &Context,
    named: &[String],
    services: &BTreeSet<String>,
    attach: &AttachOptions,
) -> Result<BTreeSet<String>> {
    let shown =
        |name: &String| ctx.project.services.get(name).is_some_and(|service| service.attach != Some(false));
    let mut followed: BTreeSet<String> = match &attach.follow {
        Follow::Named if named.is_empty() => services.iter().filter(|s| shown(s)).cloned().collect(),
        Follow::Named => named.iter().cloned().collect(),
        Follow::WithDependencies => {
            services.iter().filter(|s| shown(s) || named.contains(s)).cloned().collect()
        }
        Follow::Only(only) => only.iter().cloned().collect(),
    };
    let asked = followed.iter().chain(attach.except.iter()).chain(attach.exit_code_from.iter());
    if let Some(unknown) = asked.into_iter().find(|name| !services.contains(*name)) {
        let known = services.iter().cloned().collect();
        return Err(OpsError::NoSuchService { service: unknown.clone(), known });
    }
    for name in &attach.except {
        followed.remove(name);
    }
    followed.extend(attach.exit_code_from.clone());
    Ok(followed)
}

/// What an attached `up` works with.
pub(super) struct Attachment<'a> {
    pub(super) ctx: &'a Context,
    pub(super) attach: &'a AttachOptions,
    /// What an interrupt stops: the services named on the command line, all if none.
    pub(super) stop_services: Vec<String>,
    pub(super) followed: BTreeSet<String>,
    pub(super) timeout: Option<Duration>,
    pub(super) monitor: Arc<Monitor>,
    pub(super) events: &'a EventSender,
}

type Work<'a> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

/// What the loop knows.
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each set once")]
#[derive(Debug, Default)]
struct Progressed {
    /// Started by the plan and not heard of yet.
    unseen: BTreeSet<String>,
    seen: BTreeSet<String>,
    idle: bool,
    plan_done: bool,
    ending: bool,
    interrupted: bool,
    killed: bool,
    first_exit: Option<i32>,
    chosen_exit: Option<i32>,
    error: Option<OpsError>,
}

impl Attachment<'_> {
    pub(super) async fn run(&self, plan: Plan, observed: &Observed, lock: ProjectLock) -> Result<UpOutcome> {
        let (notices, mut told) = mpsc::unbounded_channel();
        let sources = self.sources(observed).await;
        let follower = Follower {
            engine: self.ctx.engine.clone(),
            listener: self.monitor.listen(),
            filter: self.filter(),
            project: self.ctx.project.name.clone(),
            events: self.events.clone(),
            notices,
            until: None,
        };
        let mut following = tokio::spawn(follower.run(sources));
        let names = self.names(&plan, observed);
        let starts = started_targets(&plan, |service| self.followed.contains(service));
        let give_up = CancellationToken::new();
        let extra = Extra {
            monitor: Some(self.monitor.clone()),
            interrupt: Some(give_up.clone()),
            before_start: vec![ProjectEvent::End, ProjectEvent::Attaching(names)],
            ..Extra::default()
        };
        let mut executing = Box::pin(self.ctx.carry_out(plan, lock, self.events, extra));
        let mut work: Option<Work<'_>> = None;
        let mut now = Progressed::default();
        loop {
            let quiet = now.plan_done && now.unseen.is_empty() && now.idle && work.is_none();
            if quiet {
                break;
            }
            tokio::select! {
                executed = &mut executing, if !now.plan_done => {
                    now.plan_done = true;
                    match executed {
                        Ok(executed) => {
                            let ids = starts.iter().filter_map(|target| match target {
                                Target::Existing { id, .. } => Some(id),
                                Target::Created { by, .. } => executed.created.get(by),
                            });
                            now.unseen = ids.filter(|id| !now.seen.contains(*id)).cloned().collect();
                        }
                        Err(OpsError::Interrupted) => {}
                        Err(error) => {
                            now.error = Some(error);
                            if !now.ending {
                                break;
                            }
                        }
                    }
                    if now.interrupted && work.is_none() {
                        work = Some(self.stop());
                    }
                }
                Some(notice) = told.recv() => {
                    if self.heard(&mut now, notice) {
                        now.ending = true;
                        send(self.events, ProjectEvent::Stopping { reason: "Aborting on container exit..." }).await;
                        give_up.cancel();
                        work = Some(self.stop_all());
                    }
                }
                done = async {
                    match &mut work {
                        Some(work) => work.await,
                        None => std::future::pending().await,
                    }
                } => {
                    work = None;
                    if let Err(error) = done && !matches!(error, OpsError::Interrupted) {
                        now.error.get_or_insert(error);
                    }
                    if now.killed && now.error.is_some() {
                        break;
                    }
                }
                () = self.ctx.interrupt.first.cancelled(), if !now.interrupted => {
                    now.interrupted = true;
                    now.ending = true;
                    give_up.cancel();
                    let reason = "Gracefully Stopping... press Ctrl+C again to force";
                    send(self.events, ProjectEvent::Stopping { reason }).await;
                    // What is being made is finished or undone first; it holds the lock.
                    if now.plan_done && work.is_none() {
                        work = Some(self.stop());
                    }
                }
                () = self.ctx.interrupt.second.cancelled(), if !now.killed => {
                    now.killed = true;
                    now.interrupted = true;
                    work = Some(self.kill());
                }
                _ = &mut following, if !following.is_finished() => {}
            }
        }
        following.abort();
        if let Some(error) = now.error {
            return Err(error);
        }
        let exit_code = match (&self.attach.exit_code_from, self.attach.abort) {
            (Some(_), _) => now.chosen_exit.unwrap_or(0),
            (None, Abort::Never) => 0,
            (None, _) => now.first_exit.unwrap_or(0),
        };
        Ok(UpOutcome { exit_code, interrupted: now.interrupted })
    }

    /// Takes a notice in; true when it ends the project.
    fn heard(&self, now: &mut Progressed, notice: Notice) -> bool {
        match notice {
            Notice::Idle => now.idle = true,
            Notice::Started { id } => {
                now.idle = false;
                now.unseen.remove(&id);
                now.seen.insert(id);
            }
            Notice::Exited { service, code, .. } => {
                if self.attach.exit_code_from.as_ref() == Some(&service) {
                    now.chosen_exit.get_or_insert(code);
                }
                let from = self.attach.exit_code_from.is_some();
                let ends = match self.attach.abort {
                    Abort::OnFailure => code != 0,
                    Abort::OnExit => true,
                    Abort::Never => from,
                };
                if ends {
                    now.first_exit.get_or_insert(code);
                    return !now.ending;
                }
            }
        }
        false
    }

    fn filter(&self) -> Filter {
        let followed = self.followed.clone();
        Arc::new(move |all| {
            all.get(labels::ONE_OFF).is_none_or(|v| v != "True")
                && all.get(labels::SERVICE).is_some_and(|service| followed.contains(service))
        })
    }

    /// Containers that exist: only what they print from now on is shown.
    async fn sources(&self, observed: &Observed) -> Vec<Source> {
        let mut sources = Vec::new();
        for container in
            observed.containers.iter().filter(|c| !c.oneoff && self.followed.contains(&c.service))
        {
            let state = &container.state;
            sources.push(Source {
                id: state.id.clone(),
                service: container.service.clone(),
                display: display_name(&self.ctx.project.name, &state.name, &state.labels),
                position: position_after(&self.ctx.engine, &state.id).await,
                running: is_up(state.phase),
            });
        }
        sources
    }

    /// Display names of all that is followed once the plan is done, sorted.
    fn names(&self, plan: &Plan, observed: &Observed) -> Vec<String> {
        let project = &self.ctx.project.name;
        let mut names = BTreeSet::new();
        let mut removed = BTreeSet::new();
        for (_, node) in plan.nodes() {
            match &node.operation {
                Operation::CreateContainer { service, spec, name, .. } if self.followed.contains(service) => {
                    names.insert(display_name(project, name, &spec.labels));
                }
                Operation::RemoveContainer { container: Target::Existing { id, .. }, .. } => {
                    removed.insert(id.clone());
                }
                _ => {}
            }
        }
        for container in
            observed.containers.iter().filter(|c| !c.oneoff && self.followed.contains(&c.service))
        {
            if !removed.contains(&container.state.id) {
                names.insert(display_name(project, &container.state.name, &container.state.labels));
            }
        }
        names.into_iter().collect()
    }

    /// The user has interrupted once already: the next interrupt ends the stop.
    fn after_interrupt(&self) -> Context {
        let interrupt =
            Interrupt { first: self.ctx.interrupt.second.clone(), second: CancellationToken::new() };
        Context { interrupt, ..self.ctx.clone() }
    }

    fn stop(&self) -> Work<'static> {
        self.stop_these(self.stop_services.clone())
    }

    fn stop_all(&self) -> Work<'static> {
        self.stop_these(Vec::new())
    }

    fn stop_these(&self, services: Vec<String>) -> Work<'static> {
        let (ctx, events) = (self.after_interrupt(), self.events.clone());
        let options = StopOptions { services, timeout: self.timeout };
        Box::pin(async move { stop(&ctx, &options, &events).await })
    }

    fn kill(&self) -> Work<'static> {
        let (mut ctx, events) = (self.after_interrupt(), self.events.clone());
        ctx.interrupt = Interrupt::default();
        let services = self.stop_services.clone();
        let options = KillOptions { services, signal: "SIGKILL".into(), remove_orphans: false };
        Box::pin(async move { kill(&ctx, &options, &events).await.map(drop) })
    }
}

/// The containers of wanted services that a plan starts.
fn started_targets(plan: &Plan, wanted: impl Fn(&str) -> bool) -> Vec<Target> {
    let mut targets = Vec::new();
    for (_, node) in plan.nodes() {
        if let Operation::StartContainer { container } = &node.operation
            && plan.service_of(container).is_some_and(&wanted)
        {
            targets.push(container.clone());
        }
    }
    targets
}
