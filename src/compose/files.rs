//! What a load is asked for, and the world it may look at.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// What to load, and which stages to leave out.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each switch is a flag of `config`")]
pub struct LoadOptions {
    /// Where the user stands; absolute.
    pub current_dir: PathBuf,
    /// `-f`, in order; `-` is standard input. Empty: `COMPOSE_FILE`, else the files are looked for.
    pub files: Vec<String>,
    /// `--project-directory`.
    pub project_directory: Option<PathBuf>,
    /// `-p`.
    pub project_name: Option<String>,
    /// `--profile`; empty: `COMPOSE_PROFILES`.
    pub profiles: Vec<String>,
    /// `--env-file`; empty: `.env`.
    pub env_files: Vec<PathBuf>,
    /// The environment of the process.
    pub environment: BTreeMap<String, String>,
    /// Services named on the command line, globs allowed; empty means all enabled ones.
    pub services: Vec<String>,
    /// Leave out the dependencies of [`LoadOptions::services`].
    pub no_deps: bool,
    /// Keep networks, volumes and so on that no enabled service uses.
    pub all_resources: bool,
    /// Leave `$…` as it stands.
    pub no_interpolate: bool,
    /// Add no default network, names and implied dependencies.
    pub no_normalize: bool,
    /// Keep relative paths.
    pub no_path_resolution: bool,
    /// Skip the checks across services and resources.
    pub no_consistency: bool,
    /// Keep `env_file` unread.
    pub no_env_resolution: bool,
    /// Keep `label_file` unread.
    pub no_label_resolution: bool,
    /// Warn of networks, volumes and so on that no service uses.
    pub warn_unused: bool,
    /// Remember what each layer said, for [`Loaded::explain`](super::Loaded::explain).
    pub explain: bool,
}

/// The file system, as far as a load needs it.
pub trait Files {
    /// The whole content of a file.
    ///
    /// # Errors
    /// As [`std::fs::read`], and [`io::ErrorKind::FileTooLarge`] beyond 16 MiB.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Whether there is a file, not a directory.
    fn is_file(&self, path: &Path) -> bool;
    /// Whether there is a directory.
    fn is_dir(&self, path: &Path) -> bool;
    /// The path without symbolic links, if it exists.
    fn real(&self, path: &Path) -> Option<PathBuf>;
    /// All of standard input.
    ///
    /// # Errors
    /// As reading it.
    fn stdin(&self) -> io::Result<Vec<u8>>;
}

/// The real file system and standard input.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        whole(std::fs::File::open(path)?)
    }
    fn is_file(&self, path: &Path) -> bool {
        std::fs::metadata(path).is_ok_and(|m| !m.is_dir())
    }
    fn is_dir(&self, path: &Path) -> bool {
        path.is_dir()
    }
    fn real(&self, path: &Path) -> Option<PathBuf> {
        std::fs::canonicalize(path).ok()
    }
    fn stdin(&self) -> io::Result<Vec<u8>> {
        whole(io::stdin().lock())
    }
}

/// The largest file that is read: a device without an end, or an archive named by mistake, must not
/// take all memory.
const LARGEST: u64 = 16 << 20;

fn whole(from: impl Read) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    from.take(LARGEST + 1).read_to_end(&mut all)?;
    if all.len() as u64 > LARGEST {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(all)
}

/// Whether `name` may be a project name: lower-case letters, digits, `-` and `_`, not first.
pub fn is_project_name(name: &str) -> bool {
    name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'))
}
