//! `up`, `create`, `scale` and `plan`.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::attached::{self, Attachment};
use super::context::{Context, Extra, under_heading};
use super::converge::Goal;
use super::events::{EventSender, ResourceKind};
use super::options::{AttachOptions, ConvergeOptions, ScaleOptions, UpMode, UpOptions, UpOutcome, WaitLimit};
use super::progress::Progress;
use super::pull::ensure_images;
use super::{OpsError, Result};
use crate::plan::Plan;

/// Brings services up: creates, recreates and starts what is needed, and nothing else.
///
/// # Errors
/// [`OpsError`] of the first step that failed; what was half-made is undone.
pub async fn up(ctx: &Context, options: &UpOptions, events: &EventSender) -> Result<UpOutcome> {
    let services = selection(ctx, &options.services, &options.converge)?;
    match &options.mode {
        UpMode::Attached(attach) => Box::pin(attach_up(ctx, options, attach, &services, events)).await,
        UpMode::Create | UpMode::Detached => {
            Box::pin(bring_up(ctx, options, &services, None, events)).await?;
            Ok(UpOutcome::default())
        }
        UpMode::Wait(WaitLimit { timeout }) => {
            Box::pin(bring_up(ctx, options, &services, *timeout, events)).await?;
            Ok(UpOutcome::default())
        }
    }
}

/// Decides what [`up`] would do, and changes nothing: images are looked up, not fetched.
///
/// # Errors
/// As [`up`], before it changes anything.
pub async fn plan(ctx: &Context, options: &UpOptions, events: &EventSender) -> Result<Plan> {
    let services = selection(ctx, &options.services, &options.converge)?;
    let images = super::pull::local_images(ctx, &services, events).await?;
    let (plan, _) =
        ctx.decide(&options.services, &services, &options.converge, goal(&options.mode), images).await?;
    Ok(plan)
}

/// Creates or removes replicas and starts them. Dependencies are brought up too unless left out.
///
/// # Errors
/// As [`up`].
pub async fn scale(ctx: &Context, options: &ScaleOptions, events: &EventSender) -> Result<()> {
    let converge = ConvergeOptions {
        scale: options.replicas.clone(),
        no_deps: options.no_deps,
        ..ConvergeOptions::default()
    };
    let services = options.replicas.keys().cloned().collect();
    let options = UpOptions { services, converge, mode: UpMode::Detached };
    Box::pin(up(ctx, &options, events)).await.map(drop)
}

fn goal(mode: &UpMode) -> Goal {
    Goal { start: *mode != UpMode::Create, ready: matches!(mode, UpMode::Wait(_)), one_off: None }
}

fn selection(ctx: &Context, named: &[String], options: &ConvergeOptions) -> Result<BTreeSet<String>> {
    ctx.check_services(named)?;
    ctx.check_services(options.scale.keys())?;
    let services = ctx.select(named, options.no_deps);
    if services.is_empty() {
        return Err(OpsError::NothingSelected);
    }
    Ok(services)
}

async fn bring_up(
    ctx: &Context,
    options: &UpOptions,
    services: &BTreeSet<String>,
    wait_limit: Option<std::time::Duration>,
    events: &EventSender,
) -> Result<()> {
    let operation = if options.mode == UpMode::Create { "create" } else { "up" };
    let work = async {
        let images = ensure_images(ctx, services, &options.converge, events).await?;
        let lock = ctx.lock(events).await?;
        let decided = ctx.decide(&options.services, services, &options.converge, goal(&options.mode), images);
        let (plan, _) = ctx.unless_interrupted(decided).await?;
        tell_kept(&plan, events).await;
        let extra = Extra { wait_limit, ..Extra::default() };
        ctx.carry_out(plan, lock, events, extra).await.map(drop)
    };
    Box::pin(under_heading(events, operation, work)).await
}

async fn tell_kept(plan: &Plan, events: &EventSender) {
    for name in &plan.kept {
        Progress::new(ResourceKind::Container, name, "Running", "Running").done(events).await;
    }
}

async fn attach_up(
    ctx: &Context,
    options: &UpOptions,
    attach: &AttachOptions,
    services: &BTreeSet<String>,
    events: &EventSender,
) -> Result<UpOutcome> {
    let followed = attached::followed_services(ctx, &options.services, services, attach)?;
    super::progress::send(events, super::events::ProjectEvent::Begin { operation: "up" }).await;
    let prepared = async {
        let images = ensure_images(ctx, services, &options.converge, events).await?;
        let lock = ctx.lock(events).await?;
        let decided = ctx.decide(&options.services, services, &options.converge, goal(&options.mode), images);
        let (plan, observed) = ctx.unless_interrupted(decided).await?;
        tell_kept(&plan, events).await;
        let monitor = Arc::new(super::monitor::Monitor::new(&ctx.engine, &ctx.label()).await?);
        Ok((plan, observed, lock, monitor))
    };
    let (plan, observed, lock, monitor) = match prepared.await {
        Ok(prepared) => prepared,
        Err(error) => {
            super::progress::send(events, super::events::ProjectEvent::End).await;
            return Err(error);
        }
    };
    let attachment = Attachment {
        ctx,
        attach,
        stop_services: options.services.clone(),
        followed,
        timeout: None,
        monitor,
        events,
    };
    attachment.run(plan, &observed, lock).await
}
