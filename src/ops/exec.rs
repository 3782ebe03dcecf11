//! `exec`: a further process in a running container.

use super::context::Context;
use super::options::{ExecOptions, Session, Started};
use super::query::{Wanted, one_container};
use super::{OpsError, Result};

/// Starts a process in a running container of a service.
///
/// # Errors
/// [`OpsError::NotRunning`]; what the engine says about the command (its exit
/// code is in [`EngineError::NotExecutable`](crate::engine::EngineError::NotExecutable)).
pub async fn exec(ctx: &Context, options: &ExecOptions) -> Result<Started> {
    let container = one_container(ctx, &options.service, options.index, Wanted::Running).await?;
    let attached =
        ctx.engine.exec(&container.state.id, &options.spec).await.map_err(|source| OpsError::Step {
            step: "execute in",
            kind: "container",
            name: container.state.name.clone(),
            source: Box::new(source),
        })?;
    let (id, name) = (container.state.id, container.state.name);
    if options.spec.detach {
        return Ok(Started::Detached(id));
    }
    Ok(Started::Attached(Session { id, name, attached }))
}

/// Connects to the main process of a running container of a service, and says whether it has a terminal.
///
/// # Errors
/// [`OpsError::NotRunning`]; the engine cannot connect.
pub async fn attach(
    ctx: &Context,
    service: &str,
    index: Option<u32>,
    stdin: bool,
) -> Result<(Session, bool)> {
    let container = one_container(ctx, service, index, Wanted::Running).await?;
    let (id, name, tty) = (container.state.id, container.state.name, container.state.tty);
    let attached = ctx.engine.attach(&id, stdin).await.map_err(|source| OpsError::Step {
        step: "attach to",
        kind: "container",
        name: name.clone(),
        source: Box::new(source),
    })?;
    Ok((Session { id, name, attached }, tty))
}
