//! Verbs on containers that exist: stop, restart, kill, rm, pause, unpause, wait.

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::context::{Context, Extra, Origin, under_heading};
use super::events::EventSender;
use super::options::{
    DownOptions, KillOptions, RestartOptions, RmOptions, RmOutcome, StopOptions, WaitOptions, Waited,
};
use super::{OpsError, Result};
use crate::engine::EngineError;
use crate::plan::{ObservedContainer, Plan, Scope, StopHooks};

/// Stops the containers of services, dependents first. Nothing is removed.
///
/// # Errors
/// Unknown services; all stops that failed, after the others were tried.
pub async fn stop(ctx: &Context, options: &StopOptions, events: &EventSender) -> Result<()> {
    ctx.check_services(&options.services)?;
    let hooks = ctx.stop_hooks();
    change(
        ctx,
        events,
        "stop",
        &hooks,
        |c| !c.oneoff && selected(c, &options.services),
        |scope| scope.stop(options.timeout),
    )
    .await
    .map(drop)
}

/// Restarts the containers of services with their present configuration, dependencies first.
/// Dependents that have `restart: true` for a restarted service are restarted as well.
///
/// # Errors
/// Unknown services; the first restart that failed.
pub async fn restart(ctx: &Context, options: &RestartOptions, events: &EventSender) -> Result<()> {
    ctx.check_services(&options.services)?;
    let mut services = options.services.clone();
    if !options.no_deps && !services.is_empty() {
        add_restarted_dependents(ctx, &mut services);
    }
    let hooks = ctx.stop_hooks();
    change(
        ctx,
        events,
        "restart",
        &hooks,
        |c| !c.oneoff && selected(c, &services),
        |scope| scope.restart(options.timeout),
    )
    .await
    .map(drop)
}

/// Adds services that want to be restarted when one of these is, over any number of steps.
fn add_restarted_dependents(ctx: &Context, services: &mut Vec<String>) {
    let mut next = 0;
    while let Some(restarted) = services.get(next).cloned() {
        next += 1;
        for (name, service) in &ctx.project.services {
            let follows = service.depends_on.get(&restarted).is_some_and(|d| d.restart);
            if follows && !services.contains(name) {
                services.push(name.clone());
            }
        }
    }
}

/// Sends a signal to the running containers of services, one-offs included; gives their number.
///
/// # Errors
/// Unknown services; all signals that could not be sent.
pub async fn kill(ctx: &Context, options: &KillOptions, events: &EventSender) -> Result<usize> {
    ctx.check_services(&options.services)?;
    let wanted = |c: &ObservedContainer| {
        let known = options.remove_orphans
            || ctx.origin == Origin::Labels
            || ctx.project.services.contains_key(&c.service);
        known && selected(c, &options.services)
    };
    change(ctx, events, "kill", &StopHooks::new(), wanted, |scope| scope.kill(&options.signal)).await
}

/// Freezes the running containers of services.
///
/// # Errors
/// Unknown services; all that could not be frozen.
pub async fn pause(ctx: &Context, services: &[String], events: &EventSender) -> Result<()> {
    ctx.check_services(services)?;
    let wanted = |c: &ObservedContainer| !c.oneoff && c.is_up() && selected(c, services);
    change(ctx, events, "pause", &StopHooks::new(), wanted, |scope| scope.pause()).await.map(drop)
}

/// Thaws the frozen containers of services.
///
/// # Errors
/// Unknown services; all that could not be thawed.
pub async fn unpause(ctx: &Context, services: &[String], events: &EventSender) -> Result<()> {
    ctx.check_services(services)?;
    let wanted = |c: &ObservedContainer| {
        !c.oneoff && c.state.phase == crate::engine::Phase::Paused && selected(c, services)
    };
    change(ctx, events, "unpause", &StopHooks::new(), wanted, |scope| scope.unpause()).await.map(drop)
}

/// Removes stopped containers of services, after asking.
///
/// # Errors
/// Unknown services; all removals that failed.
pub async fn rm(ctx: &Context, options: &RmOptions, events: &EventSender) -> Result<RmOutcome> {
    ctx.check_services(&options.services)?;
    if options.stop {
        let stop_options = StopOptions { services: options.services.clone(), timeout: None };
        stop(ctx, &stop_options, events).await?;
    }
    // In a rehearsal nothing was stopped, but would have been.
    let stopped = |c: &ObservedContainer| !c.is_up() || (ctx.dry_run && options.stop);
    let wanted = |c: &ObservedContainer| stopped(c) && selected(c, &options.services);
    let names: Vec<String> =
        ctx.containers().await?.into_iter().filter(wanted).map(|c| c.state.name).collect();
    if names.is_empty() {
        return Ok(RmOutcome::NothingFound);
    }
    if !ctx.dry_run && !ctx.prompt.confirm(&format!("Going to remove {}", names.join(", ")), false) {
        return Ok(RmOutcome::Declined);
    }
    // What was started again while the question was open stays.
    change(ctx, events, "remove", &StopHooks::new(), wanted, |scope| {
        scope.remove(ctx.dry_run, options.volumes)
    })
    .await?;
    Ok(RmOutcome::Removed)
}

/// Waits until the running containers of services have stopped; gives them in the order in which they did.
///
/// # Errors
/// [`OpsError::NoContainers`] when none runs.
pub async fn wait(ctx: &Context, options: &WaitOptions, events: &EventSender) -> Result<Vec<Waited>> {
    ctx.check_services(&options.services)?;
    let running: Vec<_> =
        ctx.containers().await?.into_iter().filter(|c| c.is_up() && selected(c, &options.services)).collect();
    if running.is_empty() {
        return Err(OpsError::NoContainers { project: ctx.project.name.clone() });
    }
    let waits = running.into_iter().map(|container| {
        let engine = ctx.engine.clone();
        async move {
            let exit_code = match engine.wait(&container.state.id).await {
                // It was removed as soon as it had ended (`--rm`).
                Err(EngineError::NotFound { .. }) => 0,
                other => other?,
            };
            Ok::<_, OpsError>(Waited { id: container.state.id, name: container.state.name, exit_code })
        }
    });
    let mut waits: FuturesUnordered<_> = waits.collect();
    let mut ended = Vec::new();
    ctx.unless_interrupted(async {
        while let Some(waited) = waits.next().await {
            ended.push(waited?);
            if options.down_project {
                break;
            }
        }
        Ok(())
    })
    .await?;
    if options.down_project {
        let down_options = DownOptions { remove_orphans: true, ..DownOptions::default() };
        super::down(ctx, &down_options, events).await?;
    }
    Ok(ended)
}

/// Whether a container is of one of the services; of any when none is named.
pub(super) fn selected(container: &ObservedContainer, services: &[String]) -> bool {
    services.is_empty() || services.contains(&container.service)
}

/// Plans over the wanted containers and carries the plan out, under the project's lock. Gives the number of operations.
async fn change(
    ctx: &Context,
    events: &EventSender,
    operation: &'static str,
    hooks: &StopHooks,
    wanted: impl Fn(&ObservedContainer) -> bool,
    decide: impl FnOnce(Scope<'_>) -> Plan,
) -> Result<usize> {
    let lock = ctx.lock(events).await?;
    let all = ctx.containers().await?;
    let order = ctx.dependencies(&all);
    let containers: Vec<_> = all.into_iter().filter(|c| wanted(c)).collect();
    let plan = decide(Scope { containers: &containers, order: &order, hooks });
    let count = plan.len();
    if count > 0 {
        under_heading(events, operation, ctx.carry_out(plan, lock, events, Extra::default())).await?;
    }
    Ok(count)
}
