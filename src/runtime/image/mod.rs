//! Images: names, content store, archives, registries.
//!
//! Owns `images/` of the data tree. Knows nothing of containers: whoever
//! removes says by a callback which images are in use.
//!
//! ```text
//! images/
//!   lock                     flock: shared while something new is made to refer to content, exclusive to remove
//!   blobs/sha256/<hex>       configs, manifests, indexes (compressed layers are not kept)
//!   refs/<encoded name>      JSON, one per `name:tag` and per `name@digest`: which image, since when
//!   records/<config hex>     JSON, one per image: its layers' directories, sizes, where it came from
//!   layers/<key>/fs          one unpacked layer, ready to be an overlay lower directory (parent has `+T`)
//!   layers/<key>/journal     headers and padding of its tar, zstd: regenerates it bit by bit
//!   layers/<key>/meta        JSON: diff ID, sizes, what the root directory looks like
//!   layers/<key>/gzip        JSON: digest and size of what a push compressed it to
//!   steps/<key>              JSON, one per cached step of a build: the layer it gave
//!   staging/<random>/        something half-made; its `lock` is held by the maker, so a free one is swept
//!   trash/<random>           deleted by renaming to here, removed when there is time
//! ```
//!
//! A layer's key is its diff ID; a layer with directories that its archive
//! implies but does not list takes their mode and owner from the layers below
//! and is therefore keyed by its chain ID.
//!
//! **Finding an image:** [`Store::resolve`]. **Using it:** take a [`Hold`]
//! (`store.hold()`), resolve, write the container's record, drop the hold;
//! from then on the in-use callback protects it.
//!
//! **Getting one:** [`Store::load`], [`Store::import`], [`Store::pull`]. Nothing
//! is visible before all its digests have been verified.

mod apply;
mod archive;
mod built;
mod changes;
mod collect;
mod commit;
mod compress;
mod config;
mod import;
mod ingest;
mod journal;
pub(crate) mod pack;
mod pull;
mod push;
mod reference;
mod registry;
mod save;
mod store;
pub(crate) mod tar;
mod unpack;
mod usage;

pub use apply::ApplyError;
pub use archive::{ArchiveError, Input, Loaded};
pub use built::Step;
pub(crate) use built::{StepRecord, chain_id};
pub use changes::ChangesError;
pub(crate) use changes::Recording;
pub use collect::{Pruned, Removed, User, Users};
pub(crate) use commit::NewImage;
pub use config::{
    Descriptor, Empty, Healthcheck, History, ImageConfig, Manifest, PlatformJson, RootFs, RunConfig, media,
};
pub use import::{Import, ImportError};
pub(crate) use ingest::Staging;
pub use ingest::{Event, Progress};
pub use pack::PackError;
pub use pull::{Pulled, remote_digest};
pub use push::Pushed;
pub use reference::{DOCKER_HUB, Digest, NameError, Platform, Reference};
pub(crate) use registry::web_agent;
pub use registry::{Credential, Credentials, Mirror, Registries, RegistryError, check_login};
pub(crate) use store::{FORMAT, LayerUse as Layer};
pub use store::{Hold, Image, RootAttributes, Store};
pub use tar::TarError;
pub(crate) use unpack::Form;
pub use unpack::{Limits, UnpackError};
pub use usage::Usage;

use std::path::PathBuf;

use crate::util::fs::PathError;

/// Something about images failed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A name does not parse.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A file of the store cannot be read or written.
    #[error(transparent)]
    Store(#[from] PathError),
    /// There is no such image here.
    #[error("no such image: {0}")]
    NotFound(String),
    /// More than one image id starts so.
    #[error("`{0}` is the beginning of more than one image id")]
    Ambiguous(String),
    /// A container uses it.
    #[error(
        "image `{image}` is used by {} container {container}{}",
        if *running { "running" } else { "stopped" },
        if *running { "; stop it first" } else { "; remove the container first, or use --force" }
    )]
    InUse {
        /// As named.
        image: String,
        /// A container.
        container: String,
        /// Whether that runs.
        running: bool,
    },
    /// Removing an id that several names point to.
    #[error("image {} has several names; remove them one by one, or use --force", .0.short())]
    SeveralNames(Digest),
    /// A layer directory that a record names is gone.
    #[error("image {image} is damaged: layer {layer} is missing; remove the image and get it again")]
    LayerMissing {
        /// Image id.
        image: Digest,
        /// Diff ID.
        layer: Digest,
    },
    /// Config and manifest disagree.
    #[error("image {id} is inconsistent: its config has {config} layers, its manifest {manifest}")]
    LayerCount {
        /// Image id.
        id: Digest,
        /// Layers in the config.
        config: usize,
        /// Layers in the manifest.
        manifest: usize,
    },
    /// Bytes are not what their digest says.
    #[error("the {what} does not have the digest it should have: expected {wanted}, found {found}")]
    Digest {
        /// `layer`, `manifest`, ….
        what: &'static str,
        /// Expected.
        wanted: Digest,
        /// Computed.
        found: Digest,
    },
    /// A layer cannot be unpacked.
    #[error("cannot unpack layer {}", layer.short())]
    Unpack {
        /// Its digest.
        layer: Digest,
        /// Why.
        #[source]
        source: Box<UnpackError>,
    },
    /// A changed tree cannot be stored as a layer.
    #[error(transparent)]
    Changes(Box<ChangesError>),
    /// An archive is not one of images.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A tarball cannot be imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// An archive cannot be written.
    #[error("cannot write the archive")]
    Write(#[source] std::io::Error),
    /// A layer cannot be sent.
    #[error("cannot push layer {}", layer.short())]
    Upload {
        /// Diff ID.
        layer: Digest,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A registry did not do what was asked.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A JSON document of an image is not what it should be.
    #[error("cannot understand the {what} {digest}")]
    Document {
        /// `config`, `manifest`, `index`.
        what: &'static str,
        /// Its digest or name.
        digest: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The directory holds a store of a newer hoist.
    #[error("the image store at `{}` was written by a newer hoist (format {found})", path.display())]
    Newer {
        /// Where.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
}

/// Result of image operations.
pub type Result<T> = std::result::Result<T, ImageError>;

#[cfg(test)]
mod tests;
