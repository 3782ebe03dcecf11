//! `export`: the file system of a service's container.

use super::context::Context;
use super::query::{Wanted, one_container};
use super::{OpsError, Result};
use crate::engine::BoxStream;

/// A file system on its way out.
pub struct Exported {
    /// The container's name.
    pub name: String,
    /// An uncompressed tar in pieces; an error ends it.
    pub tar: BoxStream<crate::engine::Result<Vec<u8>>>,
}

/// Reads the file system of a running container of a service.
///
/// # Errors
/// [`OpsError::NotRunning`]; the engine cannot read it.
pub async fn export(ctx: &Context, service: &str, index: Option<u32>) -> Result<Exported> {
    let container = one_container(ctx, service, index, Wanted::Running).await?;
    let name = container.state.name;
    match ctx.engine.export(&container.state.id).await {
        Ok(tar) => Ok(Exported { name, tar }),
        Err(source) => {
            Err(OpsError::Step { step: "export", kind: "container", name, source: Box::new(source) })
        }
    }
}
