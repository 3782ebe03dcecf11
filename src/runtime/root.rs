//! Where the runtime keeps its files.

use std::path::{Path, PathBuf};

/// The two trees of one installation.
///
/// `data` survives a reboot (`/var/lib/hoist`); `run` does not (`/run/hoist`).
/// `HOIST_ROOT=DIR` moves both: `DIR` and `DIR/run`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Root {
    data: PathBuf,
    run: PathBuf,
}

impl Root {
    /// The tree at `moved`, or the default one.
    pub fn new(moved: Option<&Path>) -> Self {
        match moved {
            Some(dir) => Self { data: dir.to_owned(), run: dir.join("run") },
            None => Self { data: "/var/lib/hoist".into(), run: "/run/hoist".into() },
        }
    }

    /// What survives a reboot.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// What does not.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// Blobs, references and unpacked layers.
    pub fn images(&self) -> PathBuf {
        self.data.join("images")
    }

    /// One directory per network id.
    pub fn networks(&self) -> PathBuf {
        self.data.join("networks")
    }

    /// One directory per volume name.
    pub fn volumes(&self) -> PathBuf {
        self.data.join("volumes")
    }

    /// One directory per container id: spec, state, log, upper, work.
    pub fn containers(&self) -> PathBuf {
        self.data.join("containers")
    }

    /// One directory per running container id: lock, control socket, FIFOs.
    pub fn live(&self) -> PathBuf {
        self.run.join("c")
    }

    /// One directory per `RUN` of a build under way: lock, record, name files.
    pub fn steps(&self) -> PathBuf {
        self.run.join("steps")
    }

    /// Whether what holds addresses and names under this id is still there: a container, or a step of a build.
    pub(super) fn has(&self, id: &str) -> bool {
        self.containers().join(id).exists() || self.steps().join(id).exists()
    }

    /// A short word that tells this installation's kernel objects (nft table,
    /// cgroup, bridge names) from those of another root on the same machine:
    /// empty for the default root.
    pub fn tag(&self) -> String {
        if self.data == Path::new("/var/lib/hoist") {
            return String::new();
        }
        // FNV-1a: stable over versions, and no need to be secret.
        let hash =
            self.data.as_os_str().as_encoded_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
                (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3)
            });
        format!("{:06x}", hash & 0xff_ffff)
    }
}
