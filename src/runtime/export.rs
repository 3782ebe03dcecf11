//! `export`: the file system of a container as a tar.
//!
//! What the container's processes see of its root, without what is mounted into
//! it: the image's layers under its own changes, read through a read-only overlay
//! of their own, so a container may run meanwhile. What it changes during the export
//! is in it or not, as with any other copy of a tree in use.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::error::{Result, RuntimeError};
use super::image::pack::{self, Tree};
use super::{Runtime, mount};

/// A container to export.
#[derive(Debug)]
pub struct Export {
    name: String,
    /// Base first.
    layers: Vec<PathBuf>,
    /// Kept open, so that the container's files stay until the export has ended.
    _upper: OwnedFd,
}

impl Runtime {
    /// Finds what to export of a container.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`]; its files cannot be read.
    pub fn export_of(&self, container: &str) -> Result<Export> {
        let found = self.inspect(container)?.ok_or_else(|| RuntimeError::NotFound(container.to_owned()))?;
        let upper = self.container_dir(&found.record.id).join("upper");
        let name = found.record.name;
        let opened = pack::open(&upper)
            .map_err(|source| RuntimeError::Export { container: name.clone(), source: source.into() })?;
        let layers = found.record.layers.into_iter().rev().chain([upper]).collect();
        Ok(Export { name, layers, _upper: opened })
    }
}

impl Export {
    /// Writes the tar.
    ///
    /// # Errors
    /// [`RuntimeError::Export`] with the step and the file.
    pub fn write(self, out: impl Write) -> Result<()> {
        let failed = |source| RuntimeError::Export { container: self.name.clone(), source };
        let root = mount::read_only_layers(&self.layers).map_err(|error| failed(error.into()))?;
        pack::pack(&root, Tree::Merged, &|_, _| false, out).map_err(|error| failed(error.into()))
    }
}
