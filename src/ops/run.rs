//! `run`: a one-off container of a service.

use super::context::{Context, Extra, under_heading};
use super::converge::Goal;
use super::events::EventSender;
use super::options::{RunOptions, Session, Started};
use super::pull::ensure_images;
use super::{OpsError, Result, hook};
use crate::engine::EngineError;
use crate::model::{Command, Service};
use crate::plan::{OneOff, Operation, lower};
use crate::util::ids::random_hex;

/// Brings up what a service depends on, waits for it, and starts one more container of the service.
///
/// The container has a name and labels of its own, no restart policy, and no
/// ports unless asked for. When it cannot be started it is removed.
///
/// # Errors
/// As `up`; what the engine says about the command is in
/// [`EngineError::NotExecutable`] with Docker's exit code.
pub async fn run(ctx: &Context, options: &RunOptions, events: &EventSender) -> Result<Started> {
    ctx.check_services([&options.service])?;
    let Some(service) = ctx.project.services.get(&options.service) else {
        let known = ctx.project.services.keys().cloned().collect();
        return Err(OpsError::NoSuchService { service: options.service.clone(), known });
    };
    let slug = random_hex(32);
    let separator = ctx.naming.separator();
    let name = options.name.clone().unwrap_or_else(|| {
        format!("{}{separator}{}{separator}run{separator}{}", ctx.project.name, service.name, &slug[..12])
    });
    let one_off = OneOff {
        service: one_off_service(service, options),
        name: name.clone(),
        slug,
        use_aliases: options.use_aliases,
        auto_remove: options.remove,
        stdin_once: options.interactive && !options.detach,
    };
    let mut needed = ctx.select(std::slice::from_ref(&options.service), options.converge.no_deps);
    let work = async {
        let images = ensure_images(ctx, &needed, &options.converge, events).await?;
        needed.remove(&options.service);
        let lock = ctx.lock(events).await?;
        let goal = Goal { start: true, ready: false, one_off: Some(one_off) };
        let decided = ctx.decide(&[], &needed, &options.converge, goal, images);
        let (plan, _) = ctx.unless_interrupted(decided).await?;
        let node = plan.nodes().filter_map(|(id, node)| match &node.operation {
            Operation::CreateContainer { name: created, .. } if *created == name => Some(id),
            _ => None,
        });
        let node = node.last();
        let executed = ctx.carry_out(plan, lock, events, Extra::default()).await?;
        let id = node.and_then(|node| executed.created.get(&node).cloned());
        id.ok_or_else(|| OpsError::NoContainer { service: options.service.clone(), index: None })
    };
    let id = Box::pin(under_heading(events, "run", work)).await?;
    match begin(ctx, service, options, &id, &name).await {
        Ok(started) => Ok(started),
        Err(error) => {
            // It never ran. With `--rm` the engine may have been faster.
            drop(ctx.engine.remove(&id, true, true).await);
            Err(error)
        }
    }
}

async fn begin(
    ctx: &Context,
    service: &Service,
    options: &RunOptions,
    id: &str,
    name: &str,
) -> Result<Started> {
    let step = |step, source: EngineError| OpsError::step(step, "container", name, source);
    let attached = if options.detach {
        None
    } else {
        let attached = ctx.engine.attach(id, options.interactive).await;
        Some(attached.map_err(|source| step("attach to", source))?)
    };
    ctx.engine.start(id).await.map_err(|source| step("start", source))?;
    for spec in service.post_start.iter().map(lower::hook) {
        let ran = hook::run(&ctx.engine, id, name, "post_start", &spec).await;
        ran.map_err(|source| step("run a hook in", source))?;
    }
    Ok(match attached {
        None => Started::Detached(id.to_owned()),
        Some(attached) => Started::Attached(Session { id: id.to_owned(), name: name.to_owned(), attached }),
    })
}

/// The service as its one-off container is to have it.
fn one_off_service(service: &Service, options: &RunOptions) -> Service {
    let mut service = service.clone();
    service.restart = None;
    if let Some(deploy) = &mut service.deploy {
        deploy.restart_policy = None;
    }
    service.container_name = None;
    service.tty = options.tty;
    service.stdin_open = options.interactive;
    if let Some(entrypoint) = &options.entrypoint {
        service.entrypoint = Command(Some(entrypoint.clone()));
        if options.command.is_empty() {
            service.command = Command(Some(Vec::new()));
        }
    }
    if !options.command.is_empty() {
        service.command = Command(Some(options.command.clone()));
    }
    service.environment.extend(options.env.iter().cloned());
    service.labels.extend(options.labels.iter().cloned());
    if options.user.is_some() {
        service.user.clone_from(&options.user);
    }
    if options.working_dir.is_some() {
        service.working_dir.clone_from(&options.working_dir);
    }
    service.cap_add.retain(|cap| !options.cap_drop.contains(cap));
    service.cap_drop.retain(|cap| !options.cap_add.contains(cap));
    service.cap_add.extend(options.cap_add.iter().cloned());
    service.cap_drop.extend(options.cap_drop.iter().cloned());
    for mount in &options.volumes {
        service.volumes.retain(|other| other.target != mount.target);
        service.volumes.push(mount.clone());
    }
    if !options.publish.is_empty() {
        service.ports.clone_from(&options.publish);
    } else if !options.service_ports {
        service.ports.clear();
    }
    service
}
