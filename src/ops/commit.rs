//! `commit`: an image of a service's container.

use super::context::Context;
use super::events::{EventSender, ResourceKind, Status};
use super::progress::Progress;
use super::query::{Wanted, one_container};
use super::{OpsError, Result};
use crate::spec::CommitSpec;

/// Makes an image of a running container of a service and gives the image's id.
///
/// # Errors
/// [`OpsError::NotRunning`]; what the engine says.
pub async fn commit(
    ctx: &Context,
    service: &str,
    index: Option<u32>,
    spec: &CommitSpec,
    events: &EventSender,
) -> Result<String> {
    let container = one_container(ctx, service, index, Wanted::Running).await?;
    let name = container.state.name;
    let line = Progress::new(ResourceKind::Container, &name, "Committing", "Committed");
    line.working(events).await;
    match ctx.engine.commit(&container.state.id, spec).await {
        Ok(id) => {
            line.ended(events, Status::Done, "Committed", format!("as {id}")).await;
            Ok(id)
        }
        Err(source) => {
            line.ended(events, Status::Error, "Error", source.to_string()).await;
            Err(OpsError::Step {
                step: "make an image of",
                kind: "container",
                name,
                source: Box::new(source),
            })
        }
    }
}
