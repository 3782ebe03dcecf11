//! `start`: containers that exist, in dependency order; and projects known by their labels only.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::context::{Context, Extra, under_heading};
use super::converge::plan_error;
use super::events::{EventSender, ResourceKind};
use super::options::StartOptions;
use super::progress::Progress;
use super::{OpsError, Result};
use crate::engine::Engine;
use crate::model::{Dependency, Network, Project, Volume, labels};
use crate::plan::lower::Lowering;
use crate::plan::{self, Observed, Policy, observed};

/// Starts the existing containers of services and of what they depend on.
///
/// # Errors
/// [`OpsError::NothingToStart`] names a service without containers;
/// [`OpsError::NotReady`] as for `up`.
pub async fn start(ctx: &Context, options: &StartOptions, events: &EventSender) -> Result<()> {
    ctx.check_services(&options.services)?;
    let services = ctx.select(&options.services, false);
    let lock = ctx.lock(events).await?;
    let observed = Observed { containers: ctx.containers().await?, ..Observed::default() };
    if observed.containers.is_empty() {
        return Err(OpsError::NoContainers { project: ctx.project.name.clone() });
    }
    let read = |path: &std::path::Path| std::fs::read_to_string(path);
    let lowering = Lowering { project: &ctx.project, naming: ctx.naming, read: &read };
    let policy = Policy { services, start: true, ready: options.wait.is_some(), ..Policy::default() };
    let plan = plan::start(&lowering, &ctx.declared(), &observed, &policy).map_err(plan_error)?;
    let work = async {
        for name in &plan.kept {
            Progress::new(ResourceKind::Container, name, "Running", "Running").done(events).await;
        }
        let wait_limit = options.wait.and_then(|wait| wait.timeout);
        ctx.carry_out(plan, lock, events, Extra { wait_limit, ..Extra::default() }).await.map(drop)
    };
    under_heading(events, "start", work).await
}

/// Rebuilds what the labels of a project's containers, networks and volumes tell of it.
///
/// Services have their dependencies and image; nothing else is known.
///
/// # Errors
/// Those of the engine.
///
/// # Source
/// cli reference §3: commands with `-p` and without files.
pub async fn project_from_labels(engine: &Arc<dyn Engine>, name: &str) -> Result<Project> {
    let label = [super::execute::project_label(name)];
    let (states, networks, volumes) =
        tokio::try_join!(engine.list(&label), engine.networks(&label), engine.volumes(&label))?;
    let mut project = Project { name: name.to_owned(), ..Project::default() };
    for container in observed::containers(states) {
        if project.working_dir.as_os_str().is_empty() {
            project.working_dir = container.label(labels::WORKING_DIR).unwrap_or_default().into();
            let files = container.label(labels::CONFIG_FILES).unwrap_or_default();
            project.config_files = files.split(',').filter(|f| !f.is_empty()).map(Into::into).collect();
        }
        if container.oneoff {
            continue;
        }
        let depends_on = container.dependencies().into_iter().map(|(service, condition, restart)| {
            (service, Dependency { condition, restart, ..Dependency::default() })
        });
        let service = project.services.entry(container.service.clone()).or_default();
        service.name.clone_from(&container.service);
        service.image = Some(container.state.image.clone());
        service.depends_on.extend(depends_on);
        service.scale = Some(service.scale.unwrap_or(0) + 1);
    }
    // What a dependency's label names but nothing is left of, nobody waits for.
    let known: Vec<String> = project.services.keys().cloned().collect();
    for service in project.services.values_mut() {
        service.depends_on.retain(|name, _| known.contains(name));
    }
    let key = |all: &BTreeMap<String, String>, key: &str, name: &str| {
        all.get(key).cloned().unwrap_or_else(|| name.to_owned())
    };
    for network in networks {
        let declared = Network { name: Some(network.name.clone()), ..Network::default() };
        project.networks.insert(key(&network.labels, labels::NETWORK, &network.name), declared);
    }
    for volume in volumes {
        let declared = Volume { name: Some(volume.name.clone()), ..Volume::default() };
        project.volumes.insert(key(&volume.labels, labels::VOLUME, &volume.name), declared);
    }
    Ok(project)
}
