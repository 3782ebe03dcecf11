//! Images: what a command needs is looked up, and fetched when the policies say so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::build::build_services;
use super::context::{Context, under_heading};
use super::error::sum_up;
use super::events::{EventSender, ProjectEvent, ResourceKind, Status};

use super::options::{BuildOptions, BuildPolicy, ConvergeOptions, PullOptions, PullPolicy};
use super::progress::{Progress, send};
use super::{OpsError, Result};
use crate::engine::{EngineError, ImageState, PullEvent};
use crate::model::Service;

/// One image and who needs it.
#[derive(Debug, Clone)]
struct Need {
    reference: String,
    platform: Option<String>,
    service: String,
    policy: PullPolicy,
    buildable: bool,
    /// It is named after the service.
    unnamed: bool,
}

/// What became of a need.
enum Ensured {
    /// The image is here.
    Here(String, Box<ImageState>),
    /// It has to be built.
    ToBuild(Need),
}

/// Looks up the images that services need, fetches what is missing or due, and builds the rest.
///
/// # Errors
/// [`OpsError::ImageMissing`] and [`OpsError::Build`] name the service.
pub(super) async fn ensure_images(
    ctx: &Context,
    services: &BTreeSet<String>,
    options: &ConvergeOptions,
    events: &EventSender,
) -> Result<BTreeMap<String, ImageState>> {
    let mut needs: BTreeMap<String, Need> = BTreeMap::new();
    for service in services.iter().filter_map(|name| ctx.project.services.get(name)) {
        if service.provider.is_some() {
            continue;
        }
        let policy = options.pull.unwrap_or_else(|| policy_of(service));
        for need in needs_of(ctx, service, policy) {
            needs.entry(need.reference.clone()).or_insert(need);
        }
    }
    let ensured = join_all(needs.into_values().map(|need| ensure(ctx, need, options, events)));
    let ensured = ctx.unless_interrupted(async { Ok(ensured.await) }).await?;
    let mut images = BTreeMap::new();
    let mut missing = Vec::new();
    for one in ensured {
        match one? {
            Ensured::Here(reference, image) => drop(images.insert(reference, *image)),
            Ensured::ToBuild(need) => missing.push(need),
        }
    }
    if missing.is_empty() {
        return Ok(images);
    }
    let quiet = options.quiet_build;
    let build = BuildOptions { quiet, ..BuildOptions::default() };
    let wanted = missing.iter().map(|need| need.service.clone()).collect();
    build_services(ctx, &wanted, &build, events).await?;
    for need in missing {
        let image = ctx.engine.image(&need.reference, need.platform.as_deref()).await?;
        let image = image.ok_or_else(|| {
            let reason = format!(
                "its build made none for platform {}",
                need.platform.as_deref().unwrap_or("of this machine")
            );
            self::missing(&need, reason, None)
        })?;
        images.insert(need.reference, image);
    }
    Ok(images)
}

/// The local images that services need; those that are missing are told and left out.
pub(super) async fn local_images(
    ctx: &Context,
    services: &BTreeSet<String>,
    events: &EventSender,
) -> Result<BTreeMap<String, ImageState>> {
    let mut images = BTreeMap::new();
    for service in services.iter().filter_map(|name| ctx.project.services.get(name)) {
        for need in needs_of(ctx, service, PullPolicy::Never) {
            match ctx.engine.image(&need.reference, need.platform.as_deref()).await? {
                Some(image) => drop(images.insert(need.reference, image)),
                None if need.buildable => {
                    let text = format!("image `{}` would be built", need.reference);
                    send(events, ProjectEvent::Warning(text)).await;
                }
                None => {
                    let text = format!("image `{}` would be pulled", need.reference);
                    send(events, ProjectEvent::Warning(text)).await;
                }
            }
        }
    }
    Ok(images)
}

fn needs_of(ctx: &Context, service: &Service, policy: PullPolicy) -> Vec<Need> {
    let need = |reference: String, buildable: bool, policy: PullPolicy| Need {
        reference,
        platform: service.platform.clone(),
        service: service.name.clone(),
        policy,
        buildable,
        unnamed: buildable && service.image.is_none(),
    };
    let mut needs = vec![need(ctx.project.image_of(service), service.build.is_some(), policy)];
    let mounted = service.volumes.iter().filter(|m| m.kind.as_deref() == Some("image"));
    for source in mounted.filter_map(|m| m.source.as_deref()) {
        if !ctx.project.services.contains_key(source) {
            needs.push(need(source.to_owned(), false, PullPolicy::Missing));
        }
    }
    needs
}

/// The pull policy of a service, as its text says.
///
/// # Source
/// model reference §3.3: unknown texts that match the schema behave as `missing`.
fn policy_of(service: &Service) -> PullPolicy {
    const DAY: u64 = 24 * 60 * 60;
    match service.pull_policy.as_deref() {
        Some("always") => PullPolicy::Always,
        Some("never") => PullPolicy::Never,
        Some("build") => PullPolicy::Build,
        Some("daily") => PullPolicy::Every(Duration::from_secs(DAY)),
        Some("weekly") => PullPolicy::Every(Duration::from_secs(7 * DAY)),
        Some(text) => match text.strip_prefix("every_").and_then(|t| crate::model::Duration::parse(t).ok()) {
            Some(every) => PullPolicy::Every(every.to_std()),
            None => PullPolicy::Missing,
        },
        None => PullPolicy::Missing,
    }
}

async fn ensure(
    ctx: &Context,
    need: Need,
    options: &ConvergeOptions,
    events: &EventSender,
) -> Result<Ensured> {
    let local = ctx.engine.image(&need.reference, need.platform.as_deref()).await?;
    let here = |need: Need, image| Ok(Ensured::Here(need.reference, Box::new(image)));
    let may_build = need.buildable && options.build != BuildPolicy::Never;
    if need.buildable
        && (options.build == BuildPolicy::Always || (may_build && need.policy == PullPolicy::Build))
    {
        return Ok(Ensured::ToBuild(need));
    }
    let due = match need.policy {
        PullPolicy::Always => true,
        PullPolicy::Never => false,
        // An image without a name of its own is in no registry.
        PullPolicy::Missing | PullPolicy::Build => local.is_none() && !(may_build && need.unnamed),
        PullPolicy::Every(age) => local.as_ref().is_none_or(|image| is_older(image, age)),
    };
    match local {
        Some(image) if !due => here(need, image),
        None if !due && may_build => Ok(Ensured::ToBuild(need)),
        None if !due => {
            let reason = match need.policy {
                PullPolicy::Never => "it is not in the local store, and the pull policy is `never`",
                _ => "it is not in the local store, and `--no-build` was given",
            };
            Err(missing(&need, reason.to_owned(), None))
        }
        local => match pull_one(ctx, &need, options.quiet_pull, events).await {
            Ok(image) => here(need, image),
            // What can be built need not be in a registry.
            Err(_) if may_build && local.is_none() => Ok(Ensured::ToBuild(need)),
            Err(error) => match local {
                Some(image) if need.buildable => here(need, image),
                _ => Err(error),
            },
        },
    }
}

fn is_older(image: &ImageState, age: Duration) -> bool {
    let Some(checked) = image.tagged.max(image.confirmed) else { return true };
    Duration::try_from(Timestamp::now().duration_since(checked)).is_ok_and(|passed| passed > age)
}

fn missing(need: &Need, reason: String, source: Option<EngineError>) -> OpsError {
    OpsError::ImageMissing {
        service: need.service.clone(),
        image: need.reference.clone(),
        reason,
        source: source.map(Box::new),
    }
}

async fn pull_one(ctx: &Context, need: &Need, quiet: bool, events: &EventSender) -> Result<ImageState> {
    let line = Progress::new(ResourceKind::Image, &need.reference, "Pulling", "Pulled");
    line.working(events).await;
    let (steps, mut stepped) = mpsc::unbounded_channel();
    let progress = move |step: PullEvent| {
        // The forwarder goes away only when the pull does.
        drop(steps.send(step));
    };
    let forward = async {
        while let Some(step) = stepped.recv().await {
            if !quiet && let Some(event) = layer_event(&need.reference, step) {
                send(events, event).await;
            }
        }
    };
    let pull = async {
        // Moved in, so that the forwarder ends with the pull.
        let progress = progress;
        ctx.engine.pull(&need.reference, need.platform.as_deref(), &progress).await
    };
    let (pulled, ()) = tokio::join!(pull, forward);
    match pulled {
        Ok(image) => {
            line.done(events).await;
            Ok(image)
        }
        Err(source) => {
            line.ended(events, Status::Error, "Error", source.to_string()).await;
            let reason = match &source {
                EngineError::NotFound { .. } => {
                    "the registry does not have it; check the name and the tag, or put it into the store with `hoist image load`"
                }
                EngineError::Unreachable { .. } => {
                    "it is not in the local store, and its registry cannot be reached; `hoist image load` takes an archive"
                }
                _ => "it could not be pulled",
            };
            Err(missing(need, reason.to_owned(), Some(source)))
        }
    }
}

pub(super) fn layer_event(image: &str, step: PullEvent) -> Option<ProjectEvent> {
    let PullEvent::Layer { id, text, current, total } = step else { return None };
    let done = matches!(
        text,
        "Pull complete"
            | "Already exists"
            | "Download complete"
            | "Pushed"
            | "Layer already exists"
            | "Mounted"
    );
    Some(ProjectEvent::Progress {
        kind: ResourceKind::Layer,
        name: id,
        parent: Some(image.to_owned()),
        status: if done { Status::Done } else { Status::Working },
        text,
        details: String::new(),
        bytes: total.map(|total| (current, total)),
    })
}

/// Fetches the images of services.
///
/// # Errors
/// Unknown services; all images that could not be fetched, after the others were.
pub async fn pull(ctx: &Context, options: &PullOptions, events: &EventSender) -> Result<()> {
    ctx.check_services(&options.services)?;
    let selected = ctx.select(&options.services, !options.include_deps);
    let mut needs: BTreeMap<String, Need> = BTreeMap::new();
    for service in selected.iter().filter_map(|name| ctx.project.services.get(name)) {
        let skipped = service.provider.is_some()
            || (service.build.is_some() && (options.ignore_buildable || service.image.is_none()));
        if skipped {
            continue;
        }
        // Asking for a pull means it, unless the service says otherwise.
        let own = if service.pull_policy.is_none() { PullPolicy::Always } else { policy_of(service) };
        for need in needs_of(ctx, service, options.policy.unwrap_or(own)) {
            needs.entry(need.reference.clone()).or_insert(need);
        }
    }
    let work = async {
        let pulls = join_all(needs.values().map(|need| pull_if_due(ctx, need, options.quiet, events)));
        let results = ctx.unless_interrupted(async { Ok(pulls.await) }).await?;
        sum_up(results, options.ignore_failures, events).await
    };
    under_heading(events, "pull", work).await
}

async fn pull_if_due(ctx: &Context, need: &Need, quiet: bool, events: &EventSender) -> Result<()> {
    let due = match need.policy {
        PullPolicy::Never | PullPolicy::Build => false,
        PullPolicy::Missing => {
            is_latest(&need.reference)
                || ctx.engine.image(&need.reference, need.platform.as_deref()).await?.is_none()
        }
        PullPolicy::Always | PullPolicy::Every(_) => true,
    };
    if due {
        return pull_one(ctx, need, quiet, events).await.map(drop);
    }
    let line = Progress::new(ResourceKind::Image, &need.reference, "Pulling", "Skipped");
    line.done(events).await;
    Ok(())
}

/// Whether a reference means the tag that is expected to move, said or not.
fn is_latest(reference: &str) -> bool {
    let last = reference.rsplit('/').next().unwrap_or(reference);
    match last.rsplit_once(':') {
        _ if reference.contains('@') => false,
        Some((_, tag)) => tag == "latest",
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_tag_means_latest() {
        for latest in ["busybox", "busybox:latest", "localhost:5000/a/b"] {
            assert!(is_latest(latest), "{latest}");
        }
        for fixed in ["busybox:1", "localhost:5000/a:1", "busybox@sha256:00", "a:latest@sha256:00"] {
            assert!(!is_latest(fixed), "{fixed}");
        }
    }

    #[test]
    fn an_image_is_old_when_neither_tagged_nor_confirmed_lately() {
        let at = |hours: i64| Timestamp::now().checked_sub(jiff::SignedDuration::from_hours(hours)).ok();
        let image = |tagged, confirmed| ImageState { tagged, confirmed, ..ImageState::default() };
        let day = Duration::from_hours(24);
        assert!(is_older(&image(None, None), day));
        assert!(is_older(&image(at(25), None), day));
        assert!(!is_older(&image(at(23), None), day));
        assert!(!is_older(&image(at(100), at(1)), day));
        assert!(is_older(&image(at(100), at(30)), day));
    }
}
