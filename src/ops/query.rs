//! Verbs that only look: ps, port, ls, images, events.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::{ready, try_join_all};

use super::context::{Context, Origin};
use super::lifecycle::selected;
use super::options::{
    ContainerImage, ContainerProcesses, EventsOptions, PortOptions, ProjectContainer, ProjectSummary,
    PsOptions, PublishedAt,
};
use super::{OpsError, Result};
use crate::engine::{BoxStream, Engine, EngineError, EngineEvent, Phase, PortState, VolumeState};
use crate::model::labels;
use crate::plan::ObservedContainer;

/// The containers of the project, sorted by name.
///
/// # Errors
/// Unknown services, when the project comes from files.
pub async fn ps(ctx: &Context, options: &PsOptions) -> Result<Vec<ProjectContainer>> {
    let all = ctx.containers().await?;
    if let Some(unknown) = options.services.iter().find(|s| all.iter().all(|c| c.service != **s)) {
        ctx.check_services([unknown])?;
    }
    let every = options.all || !options.phases.is_empty();
    let wanted = |c: &ObservedContainer| {
        selected(c, &options.services)
            && (every
                || (!c.oneoff && matches!(c.state.phase, Phase::Running | Phase::Paused | Phase::Restarting)))
            && (options.phases.is_empty() || options.phases.contains(&c.state.phase))
            && (!options.without_orphans
                || ctx.origin == Origin::Labels
                || ctx.project.services.contains_key(&c.service))
    };
    let mut found: Vec<_> = all.into_iter().filter(wanted).map(|c| entry(ctx, c)).collect();
    found.sort_by(|a, b| a.state.name.cmp(&b.state.name));
    Ok(found)
}

fn entry(ctx: &Context, container: ObservedContainer) -> ProjectContainer {
    ProjectContainer {
        project: ctx.project.name.clone(),
        service: container.service,
        number: container.number,
        oneoff: container.oneoff,
        state: container.state,
    }
}

/// Which container of a service a verb is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Any,
    Running,
}

/// The container of a service with that number; else the lowest, one-offs last.
pub(super) async fn one_container(
    ctx: &Context,
    service: &str,
    index: Option<u32>,
    wanted: Wanted,
) -> Result<ObservedContainer> {
    let mut of_service: Vec<_> =
        ctx.containers().await?.into_iter().filter(|c| c.service == service).collect();
    if of_service.is_empty() {
        ctx.check_services([&service.to_owned()])?;
    }
    of_service.retain(|c| index.is_none() || c.number == index);
    let any = !of_service.is_empty();
    let running = |c: &ObservedContainer| matches!(c.state.phase, Phase::Running | Phase::Paused);
    let found = of_service.into_iter().find(|c| wanted == Wanted::Any || running(c));
    let service = service.to_owned();
    found.ok_or(match wanted {
        Wanted::Any if !any => OpsError::NoContainer { service, index },
        _ => OpsError::NotRunning { service, index },
    })
}

/// Where a port of a service is published.
///
/// # Errors
/// [`OpsError::NoPort`] with what is published instead.
pub async fn port(ctx: &Context, options: &PortOptions) -> Result<PublishedAt> {
    let container = one_container(ctx, &options.service, options.index, Wanted::Any).await?;
    let is_it = |p: &&PortState| p.target == options.target && p.protocol == options.protocol;
    let found = container.state.ports.iter().filter(is_it).find_map(|p| p.published);
    found.ok_or_else(|| {
        let published: Vec<String> = container.state.ports.iter().filter_map(port_text).collect();
        OpsError::NoPort {
            port: format!("{}/{}", options.target, options.protocol),
            container: container.state.name,
            published: if published.is_empty() {
                "nothing is published".into()
            } else {
                published.join(", ")
            },
        }
    })
}

fn port_text(port: &PortState) -> Option<String> {
    let (address, number) = port.published?;
    Some(format!("{}->{}/{}", std::net::SocketAddr::new(address, number), port.target, port.protocol))
}

/// The processes of the running containers of services, by container name.
///
/// # Errors
/// Unknown services; those of the engine.
pub async fn top(ctx: &Context, services: &[String]) -> Result<Vec<ContainerProcesses>> {
    ctx.check_services(services)?;
    let running = |c: &ObservedContainer| {
        selected(c, services) && matches!(c.state.phase, Phase::Running | Phase::Paused)
    };
    let looked_up = ctx.containers().await?.into_iter().filter(running).map(|container| async move {
        let table = match ctx.engine.processes(&container.state.id).await {
            // It has ended since it was listed.
            Err(EngineError::NotFound { .. }) => return Ok(None),
            other => other?,
        };
        Ok::<_, OpsError>(Some(ContainerProcesses {
            container: container.state.name,
            service: container.service,
            number: container.number,
            table,
        }))
    });
    let mut found: Vec<_> = try_join_all(looked_up).await?.into_iter().flatten().collect();
    found.sort_by(|a, b| a.container.cmp(&b.container));
    Ok(found)
}

/// All projects of an engine, by name.
///
/// # Errors
/// Those of the engine.
pub async fn ls(engine: &Arc<dyn Engine>, all: bool) -> Result<Vec<ProjectSummary>> {
    let mut projects: BTreeMap<String, (BTreeMap<&'static str, usize>, BTreeSet<String>)> = BTreeMap::new();
    for container in engine.list(&[labels::PROJECT.to_owned()]).await? {
        let label = |key: &str| container.labels.get(key);
        let Some(name) = label(labels::PROJECT) else { continue };
        if label(labels::ONE_OFF).is_some_and(|v| v == "True") {
            continue;
        }
        if !all && container.phase != Phase::Running {
            continue;
        }
        let (phases, files) = projects.entry(name.clone()).or_default();
        *phases.entry(container.phase.as_str()).or_default() += 1;
        files.extend(label(labels::CONFIG_FILES).into_iter().flat_map(|f| f.split(',')).map(str::to_owned));
    }
    let summary = |(name, (phases, files)): (String, (_, BTreeSet<String>))| ProjectSummary {
        name,
        phases,
        config_files: files.into_iter().filter(|f| !f.is_empty()).collect(),
    };
    Ok(projects.into_iter().map(summary).collect())
}

/// The images of the project's containers, by container name.
///
/// # Errors
/// Unknown services; those of the engine.
pub async fn images(ctx: &Context, services: &[String]) -> Result<Vec<ContainerImage>> {
    ctx.check_services(services)?;
    let containers = ctx.containers().await?.into_iter().filter(|c| selected(c, services));
    let looked_up = containers.map(|container| async move {
        let id = &container.state.image_id;
        let image = match ctx.engine.image(id, None).await {
            Err(EngineError::NotFound { .. }) => None,
            other => other?,
        };
        Ok::<_, OpsError>(ContainerImage {
            container: container.state.name,
            reference: container.state.image,
            image,
        })
    });
    let mut found = try_join_all(looked_up).await?;
    found.sort_by(|a, b| a.container.cmp(&b.container));
    Ok(found)
}

/// The project's volumes, by name; with services, those that their containers mount.
///
/// # Errors
/// Unknown services; those of the engine.
pub async fn volumes(ctx: &Context, services: &[String]) -> Result<Vec<VolumeState>> {
    ctx.check_services(services)?;
    let mut volumes = ctx.engine.volumes(&[ctx.label()]).await?;
    if !services.is_empty() {
        let containers = ctx.containers().await?;
        let mounted: BTreeSet<String> = containers
            .into_iter()
            .filter(|c| selected(c, services))
            .flat_map(|c| c.state.mounts)
            .filter_map(|mount| mount.name)
            .collect();
        volumes.retain(|volume| mounted.contains(&volume.name));
    }
    volumes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(volumes)
}

/// What happens to the containers of services from now (or `since`) on; one-offs are left out.
///
/// # Errors
/// Unknown services; those of the engine.
pub async fn events(
    ctx: &Context,
    options: &EventsOptions,
) -> Result<BoxStream<crate::engine::Result<EngineEvent>>> {
    ctx.check_services(&options.services)?;
    let stream = ctx.engine.events(&[ctx.label()], options.since).await?;
    let services = options.services.clone();
    let wanted = move |event: &EngineEvent| {
        let label = |key: &str| event.labels.get(key);
        label(labels::ONE_OFF).is_none_or(|v| v != "True")
            && (services.is_empty() || label(labels::SERVICE).is_some_and(|s| services.contains(s)))
    };
    let stream = stream.filter(move |event| ready(event.as_ref().map_or(true, &wanted)));
    let Some(until) = options.until else { return Ok(stream.boxed()) };
    let stream =
        stream.take_while(move |event| ready(event.as_ref().map_or(true, |event| event.time <= until)));
    let left = until.duration_since(jiff::Timestamp::now());
    let left = std::time::Duration::try_from(left).unwrap_or_default();
    Ok(stream.take_until(tokio::time::sleep(left)).boxed())
}
