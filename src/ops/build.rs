//! `build`: the images of services that have a `build` section.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::future::join_all;
use tokio::sync::mpsc;

use super::context::{Context, under_heading};
use super::events::{EventSender, ProjectEvent, ResourceKind, Status};
use super::options::BuildOptions;
use super::progress::{Progress, send};
use super::{OpsError, Result};
use crate::engine::{BuildEvent, EngineError};
use crate::graph::Dependencies;
use crate::model::Service;
use crate::plan::lower;

/// Builds the images of services, those that others take files from first.
///
/// # Errors
/// Unknown services; [`OpsError::Build`] for the first image that could not be built.
pub async fn build(ctx: &Context, options: &BuildOptions, events: &EventSender) -> Result<()> {
    ctx.check_services(&options.services)?;
    let selected = ctx.select(&options.services, !options.with_dependencies);
    let selected: BTreeSet<String> = selected
        .into_iter()
        .filter(|name| ctx.project.services.get(name).is_some_and(|s| s.build.is_some()))
        .collect();
    if selected.is_empty() {
        send(events, ProjectEvent::Warning("no services to build".into())).await;
        return Ok(());
    }
    under_heading(events, "build", build_services(ctx, &selected, options, events)).await
}

/// Builds these services and those whose images they take files from.
pub(super) async fn build_services(
    ctx: &Context,
    selected: &BTreeSet<String>,
    options: &BuildOptions,
    events: &EventSender,
) -> Result<()> {
    // A service that others take files from is built whether or not it was selected.
    let all = ctx.project.disabled.iter().chain(&ctx.project.services);
    let services: BTreeMap<&str, &Service> = all.map(|(name, service)| (name.as_str(), service)).collect();
    let contexts = |service: &Service| -> Vec<String> {
        let contexts = service.build.iter().flat_map(|build| build.additional_contexts.values());
        contexts.filter_map(|text| text.strip_prefix("service:")).map(str::to_owned).collect()
    };
    let needs: Vec<(String, Vec<String>)> =
        services.iter().map(|(name, service)| ((*name).to_owned(), contexts(service))).collect();
    let all = Dependencies::new(
        needs.iter().map(|(name, needs)| (name.as_str(), needs.iter().map(String::as_str))),
    );
    let wanted = all.closure(selected.iter().map(String::as_str));
    let needs = needs.iter().filter(|(name, _)| wanted.contains(name));
    let graph =
        Dependencies::new(needs.map(|(name, needs)| (name.as_str(), needs.iter().map(String::as_str))));
    let levels = graph.levels().map_err(|cycle| OpsError::Cycle { path: cycle.path.join(" -> ") })?;
    let naming = if wanted.len() > 1 { Naming::ByService } else { Naming::Alone };
    // Everything is checked before anything is built.
    let mut specs = BTreeMap::new();
    let mut warnings = Vec::new();
    for service in wanted.iter().filter_map(|name| services.get(name.as_str())) {
        let name = if naming == Naming::ByService { service.name.as_str() } else { "" };
        let overrides = lower::BuildOverrides {
            args: &options.args,
            no_cache: options.no_cache,
            pull: options.pull,
            ssh: &options.ssh,
            memory: options.memory,
            provenance: options.provenance.as_deref(),
            sbom: options.sbom.as_deref(),
            check: options.check,
        };
        let spec = lower::build(&ctx.project, service, name, &overrides, &mut warnings)
            .map_err(|reason| OpsError::Invalid { service: service.name.clone(), reason })?;
        specs.insert(service.name.clone(), spec);
    }
    for warning in warnings {
        send(events, ProjectEvent::Warning(warning)).await;
    }
    let steps = Steps::default();
    for level in levels {
        let builds = level.iter().filter_map(|name| {
            let service = services.get(name.as_str())?;
            Some(one(ctx, service, specs.get(name)?, options.quiet, &steps, events))
        });
        for built in join_all(builds).await {
            built?;
        }
        if ctx.interrupt.first.is_cancelled() {
            return Err(OpsError::Interrupted);
        }
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Naming {
    Alone,
    ByService,
}

/// Numbers of steps over all builds of a command.
#[derive(Default)]
struct Steps(AtomicU32);

impl Steps {
    fn next(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

async fn one(
    ctx: &Context,
    service: &Service,
    spec: &crate::spec::BuildSpec,
    quiet: bool,
    steps: &Steps,
    events: &EventSender,
) -> Result<()> {
    let image = ctx.project.image_of(service);
    let line = Progress::new(ResourceKind::Image, &image, "Building", "Built");
    line.working(events).await;
    let (sender, mut received) = mpsc::unbounded_channel();
    let forward = async {
        let numbers: Mutex<HashMap<u32, u32>> = Mutex::default();
        let number = |step: u32| {
            let mut numbers = numbers.lock().unwrap_or_else(PoisonError::into_inner);
            *numbers.entry(step).or_insert_with(|| steps.next())
        };
        while let Some(event) = received.recv().await {
            let event = match event {
                BuildEvent::Started { step, name } => BuildEvent::Started { step: number(step), name },
                BuildEvent::Output { step, at, text } => BuildEvent::Output { step: number(step), at, text },
                BuildEvent::Note { step, text } => BuildEvent::Note { step: number(step), text },
                BuildEvent::Ended { step, outcome } => BuildEvent::Ended { step: number(step), outcome },
                BuildEvent::Warning(text) => {
                    send(events, ProjectEvent::Warning(text)).await;
                    continue;
                }
            };
            if !quiet {
                send(events, ProjectEvent::Build(event)).await;
            }
        }
    };
    let build = async {
        // Moved in, so that the forwarder ends with the build. It goes away only with it.
        let progress = move |event: BuildEvent| drop(sender.send(event));
        ctx.engine.build(spec, &progress, &ctx.interrupt.first).await
    };
    let (built, ()) = tokio::join!(build, forward);
    match built {
        Ok(_) => {
            line.done(events).await;
            Ok(())
        }
        Err(_) if ctx.interrupt.first.is_cancelled() => {
            line.ended(events, Status::Error, "Interrupted", String::new()).await;
            Err(OpsError::Interrupted)
        }
        Err(source) => {
            let details = match &source {
                EngineError::Build(failure) => failure.summary.clone(),
                other => other.to_string(),
            };
            line.ended(events, Status::Error, "Error", details).await;
            Err(OpsError::Build { service: service.name.clone(), image, source: Box::new(source) })
        }
    }
}
