//! What a build is asked to make.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Everything needed to build one image. Host paths are absolute, variables are expanded.
#[derive(Debug, Clone, Default, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
pub struct BuildSpec {
    /// Put in front of the names of steps (`[web 2/4]`); empty for a build that stands alone.
    pub name: String,
    /// Where `COPY` takes files from.
    pub context: BuildContext,
    /// The Dockerfile.
    pub dockerfile: DockerfileSource,
    /// References the image gets. Without one it can be used by its id only.
    pub tags: Vec<String>,
    /// The stage that is wanted, by name or number; none means the last.
    pub target: Option<String>,
    /// Values of `ARG`s; `BUILDKIT_SYNTAX` and the like are no exception.
    pub args: BTreeMap<String, String>,
    /// Labels of the image, besides those of the Dockerfile.
    pub labels: BTreeMap<String, String>,
    /// `os/arch[/variant]`; none means this machine's.
    pub platform: Option<String>,
    /// Named contexts: they replace images and stages of that name.
    pub contexts: BTreeMap<String, BuildContext>,
    /// Use no cached step.
    pub no_cache: bool,
    /// Stages of which no cached step is used.
    pub no_cache_filter: Vec<String>,
    /// Ask the registry for a newer version of base images.
    pub pull: bool,
    /// Network of `RUN`.
    pub network: BuildNetwork,
    /// Further lines of `/etc/hosts` in `RUN`: name, and address or `host-gateway`.
    pub extra_hosts: Vec<(String, String)>,
    /// `/dev/shm` of `RUN` in bytes; none means 64 MiB.
    pub shm_size: Option<u64>,
    /// (name, soft, hard) of `RUN`; -1 is unlimited.
    pub ulimits: Vec<(String, i64, i64)>,
    /// Memory of each `RUN` in bytes.
    pub memory: Option<i64>,
    /// Secrets by id.
    pub secrets: BTreeMap<String, BuildSecret>,
    /// SSH agents' sockets by id.
    pub ssh: BTreeMap<String, PathBuf>,
    /// `RUN --security=insecure` is allowed.
    pub insecure: bool,
    /// `RUN --network=host` is allowed.
    pub host_network: bool,
    /// Seconds since 1970 that all times of the image are at most.
    pub source_date_epoch: Option<i64>,
    /// Only look for mistakes in the Dockerfile.
    pub check: bool,
}

/// A tree of files that a build takes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum BuildContext {
    /// A directory of this machine; its `.dockerignore` counts.
    Directory(PathBuf),
    /// A tar archive (plain, gzip or zstd) of this machine.
    Archive(PathBuf),
    /// An address: git, or a tar archive over HTTP.
    Remote(String),
    /// An image, by reference or id.
    Image(String),
    /// Nothing.
    #[default]
    Empty,
}

/// Where a Dockerfile comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DockerfileSource {
    /// A file in the context, by its path there; or anywhere, by an absolute path.
    File(PathBuf),
    /// Its text.
    Inline(String),
}

impl Default for DockerfileSource {
    fn default() -> Self {
        Self::File("Dockerfile".into())
    }
}

/// Network of `RUN`s that ask for none themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BuildNetwork {
    /// A bridge with a way out.
    #[default]
    Default,
    /// Loopback only.
    None,
    /// The host's.
    Host,
}

/// A secret that `RUN` may mount.
#[derive(Clone, PartialEq, Eq)]
pub enum BuildSecret {
    /// The content of a file.
    File(PathBuf),
    /// The bytes.
    Value(Vec<u8>),
}

impl std::fmt::Debug for BuildSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Value(bytes) => {
                f.debug_tuple("Value").field(&format_args!("{} bytes", bytes.len())).finish()
            }
        }
    }
}
