//! `down`: everything of a project goes, dependents first.

use std::collections::BTreeSet;

use super::Result;
use super::context::{Context, Extra, Origin, under_heading};
use super::events::EventSender;
use super::lifecycle::selected;
use super::options::{DownOptions, DownOutcome, RemoveImages};
use crate::model::{default_image_name, labels};
use crate::plan::{ObservedContainer, Scope, TakeDown, lower};

/// Stops and removes the project's containers, then its networks, and volumes and images when asked for.
///
/// What others still use is left, with a warning. External networks and
/// volumes are never touched.
///
/// # Errors
/// Unknown services; all steps that failed, after the others were tried.
pub async fn down(ctx: &Context, options: &DownOptions, events: &EventSender) -> Result<DownOutcome> {
    ctx.check_services(&options.services)?;
    let lock = ctx.lock(events).await?;
    let label = [ctx.label()];
    let (states, networks, volumes) =
        tokio::try_join!(ctx.engine.list(&label), ctx.engine.networks(&label), async {
            if options.volumes { ctx.engine.volumes(&label).await } else { Ok(Vec::new()) }
        })?;
    let all = crate::plan::observed::containers(states);
    let order = ctx.dependencies(&all);
    let services = with_dependents(ctx, options, &order);
    let wanted = |c: &ObservedContainer| {
        let known = ctx.origin == Origin::Labels
            || ctx.project.services.contains_key(&c.service)
            || ctx.project.disabled.contains_key(&c.service);
        selected(c, &services) && (options.remove_orphans || (known && !c.oneoff))
    };
    let containers: Vec<_> = all.into_iter().filter(|c| wanted(c)).collect();
    let mut networks: BTreeSet<String> = networks.into_iter().map(|n| n.name).collect();
    let mut volumes: BTreeSet<String> = volumes.into_iter().map(|v| v.name).collect();
    // External ones are not ours even if somebody has put our label on them.
    for (key, _) in ctx.project.networks.iter().filter(|(_, n)| n.external) {
        networks.remove(&lower::network_name(&ctx.project, key));
    }
    for (key, _) in ctx.project.volumes.iter().filter(|(_, v)| v.external) {
        volumes.remove(&lower::volume_name(&ctx.project, key));
    }
    let what = TakeDown {
        grace: options.timeout,
        anonymous_volumes: options.volumes,
        networks: networks.into_iter().collect(),
        volumes: volumes.into_iter().collect(),
        images: images_to_remove(ctx, options, &containers).await?,
    };
    let hooks = ctx.stop_hooks();
    let plan = Scope { containers: &containers, order: &order, hooks: &hooks }.down(&what);
    if plan.is_empty() {
        return Ok(DownOutcome { nothing_found: true });
    }
    under_heading(events, "down", ctx.carry_out(plan, lock, events, Extra::default())).await?;
    Ok(DownOutcome { nothing_found: false })
}

/// Without files, dependents of the named services go too.
fn with_dependents(ctx: &Context, options: &DownOptions, order: &crate::graph::Dependencies) -> Vec<String> {
    if ctx.origin == Origin::Files || options.services.is_empty() {
        return options.services.clone();
    }
    order.dependents(options.services.iter().map(String::as_str)).into_iter().collect()
}

async fn images_to_remove(
    ctx: &Context,
    options: &DownOptions,
    containers: &[ObservedContainer],
) -> Result<Vec<String>> {
    let Some(which) = options.images else { return Ok(Vec::new()) };
    let mut references = BTreeSet::new();
    for service in ctx.project.services.values() {
        match &service.image {
            None => {
                references.insert(default_image_name(&ctx.project.name, &service.name));
            }
            Some(image) if which == RemoveImages::All => {
                references.insert(image.clone());
            }
            Some(_) => {}
        }
    }
    if ctx.origin == Origin::Labels && which == RemoveImages::All {
        references.extend(containers.iter().map(|c| c.state.image.clone()));
    }
    let mut found = BTreeSet::new();
    for image in ctx.engine.images().await? {
        let built = image.labels.get(labels::PROJECT) == Some(&ctx.project.name);
        found.extend(image.tags.into_iter().filter(|tag| built || names(tag, &references)));
    }
    Ok(found.into_iter().collect())
}

/// Whether a local tag is one of the references, which may leave `:latest` and Docker Hub's names out.
fn names(tag: &str, references: &BTreeSet<String>) -> bool {
    let short = tag.strip_prefix("docker.io/").unwrap_or(tag);
    let short = short.strip_prefix("library/").unwrap_or(short);
    let bare = short.strip_suffix(":latest").unwrap_or(short);
    [tag, short, bare].into_iter().any(|name| references.contains(name))
}
