//! Detached mounts and their attachment inside a root that nobody trusts.
//!
//! Everything is made with the descriptor-based mount interface (Linux 5.2,
//! `mount_setattr` 5.12): a mount exists only as a descriptor until it is
//! attached in a container's own mount namespace, so the host's mount table never
//! shows it and a crash leaves nothing behind. Targets are resolved once, inside
//! the root, to a descriptor, and the mount is moved onto that descriptor: no
//! path is used twice.

mod dev;
mod filesystem;
mod overlay;
mod root;

pub use dev::{devices, make_node, open_terminal, pseudo_terminals};
pub use filesystem::{bind, clone_tree, filesystem, set_attributes, tmpfs};
pub use overlay::{Overlay, overlay, read_only_layers};
pub use root::Root;

use crate::runtime::sys::Errno;

/// A mount step that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{object}`: {source}")]
pub struct MountError {
    /// Path, file system or option it was about.
    pub object: String,
    /// Cause.
    pub source: Errno,
}

impl MountError {
    fn new(object: impl Into<String>, source: rustix::io::Errno) -> Self {
        Self { object: object.into(), source: source.into() }
    }
}

/// Adds the object to a bare error number.
fn about<T>(object: impl Into<String>, result: rustix::io::Result<T>) -> Result<T, MountError> {
    result.map_err(|errno| MountError::new(object, errno))
}
