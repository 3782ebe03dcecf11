//! A stack of layers that a step starts from.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use super::error::{BuildError, Result};
use crate::runtime::image::{Digest, Layer, RootAttributes, Store};
use crate::runtime::mount::{self, MountError};
use crate::runtime::user::RootFiles;

/// Layers over each other, and what can be known of them. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Tree(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Lowest first.
    layers: Vec<Layer>,
    /// Their directories, lowest first.
    paths: Vec<PathBuf>,
    /// Owner and mode of `/`.
    root: RootAttributes,
    /// The merged tree, once somebody looked into it.
    merged: OnceLock<OwnedFd>,
}

impl Tree {
    /// The tree of these layers, lowest first.
    pub(super) fn new(store: &Store, layers: Vec<Layer>, root: RootAttributes) -> Self {
        let paths = layers.iter().map(|layer| store.layer_tree(layer)).collect();
        Self(Arc::new(Inner { layers, paths, root, merged: OnceLock::new() }))
    }

    /// Nothing.
    pub(super) fn empty() -> Self {
        let inner = Inner {
            layers: Vec::new(),
            paths: Vec::new(),
            root: RootAttributes::default(),
            merged: OnceLock::new(),
        };
        Self(Arc::new(inner))
    }

    /// One more layer on top.
    pub(super) fn with(&self, store: &Store, layer: Layer) -> Self {
        let mut layers = self.0.layers.clone();
        layers.push(layer);
        Self::new(store, layers, self.0.root)
    }

    pub(super) fn layers(&self) -> &[Layer] {
        &self.0.layers
    }

    /// Directories, lowest first.
    pub(super) fn paths(&self) -> &[PathBuf] {
        &self.0.paths
    }

    pub(super) fn root(&self) -> RootAttributes {
        self.0.root
    }

    /// What stands for the content in keys: the chain ID of the top layer.
    pub(super) fn identity(&self) -> String {
        let ids: Vec<Digest> = self.0.layers.iter().map(|layer| layer.diff_id.clone()).collect();
        crate::runtime::image::chain_id(&ids).map_or_else(|| "scratch".to_owned(), |id| id.to_string())
    }

    /// The merged tree, read-only; none when there are no layers.
    pub(super) fn merged(&self) -> Result<Option<&OwnedFd>> {
        if self.0.paths.is_empty() {
            return Ok(None);
        }
        if let Some(fd) = self.0.merged.get() {
            return Ok(Some(fd));
        }
        let mounted = mount::read_only_layers(&self.0.paths).map_err(|e| mount_error(&e))?;
        Ok(Some(self.0.merged.get_or_init(|| mounted)))
    }

    /// For looking up users and groups.
    pub(super) fn files(&self) -> RootFiles {
        RootFiles::Layers(self.0.paths.iter().rev().cloned().collect())
    }
}

/// A mount of ours that failed.
pub(super) fn mount_error(error: &MountError) -> BuildError {
    let step = format!("cannot mount `{}`", error.object);
    BuildError::Runtime(crate::runtime::error::RuntimeError::Invalid {
        container: "build".to_owned(),
        reason: format!("{step}: {}", error.source),
    })
}
