//! A container's files seen from outside: look at a path, pack it into a tar archive, unpack one into a directory.
//!
//! Works on running, frozen and stopped containers alike (`view`). Paths inside
//! a container are never trusted: every look-up ends inside its root
//! (`RESOLVE_IN_ROOT`), every step of a walk is taken from a descriptor without
//! following links, and nothing but regular files is opened for reading. What
//! the container's processes change meanwhile can spoil the copy, never lead it out.

mod delete;
mod pack;
mod unpack;
mod view;

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::runtime::Runtime;
use crate::runtime::error::{Result, RuntimeError};
use crate::runtime::image::TarError;
use crate::runtime::mount::{MountError, Root};

/// A copy out of or into a container that failed. Paths are those inside the container.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// There is nothing of that name.
    #[error("no such file or directory: {path}")]
    Missing {
        /// As asked.
        path: String,
    },
    /// The archive is to be unpacked into something that is no directory.
    #[error("not a directory: {path}")]
    NotDirectory {
        /// As asked.
        path: String,
    },
    /// A file would take the place of a directory, or the other way round.
    #[error("cannot overwrite {there} `{path}` with {entry}")]
    Overwrite {
        /// What is there: `directory` or `non-directory`.
        there: &'static str,
        /// Its path.
        path: String,
        /// What was to be put there.
        entry: &'static str,
    },
    /// An entry of the archive has `..` in its name and would leave the directory.
    #[error("the archive's entry `{0}` leads out of the directory it is unpacked into")]
    Escapes(String),
    /// A hard link's target is not there.
    #[error("the archive's hard link `{name}` has no target `{target}`")]
    LinkTarget {
        /// The entry.
        name: String,
        /// What it links to.
        target: String,
    },
    /// One system call on one path.
    #[error("cannot {step} `{path}`")]
    Step {
        /// The verb.
        step: &'static str,
        /// The path.
        path: String,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// The file system of a stopped container cannot be put together.
    #[error("cannot mount {object} to look into the stopped container")]
    Mount {
        /// File system, directory or option.
        object: String,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// The container is between two runs.
    #[error("container `{0}` is being restarted; stop it or wait until it runs")]
    Restarting(String),
    /// The archive cannot be read.
    #[error(transparent)]
    Archive(#[from] TarError),
    /// The archive cannot be written.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
}

impl From<MountError> for FilesError {
    fn from(error: MountError) -> Self {
        Self::Mount { object: error.object, source: io::Error::from_raw_os_error(error.source.raw()) }
    }
}

/// A kernel call that failed on a path.
fn step(step: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> FilesError + use<> {
    let path = format!("/{}", String::from_utf8_lossy(path).trim_start_matches('/'));
    move |errno| match errno {
        Errno::NOENT => FilesError::Missing { path },
        errno => FilesError::Step { step, path, source: errno.into() },
    }
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileState {
    /// Type and permission bits, as in `stat(2)`.
    pub mode: u32,
    /// Bytes.
    pub size: u64,
    /// Seconds since 1970.
    pub modified: i64,
    /// What a symbolic link says, as it is written in it.
    pub link: Option<String>,
}

impl Runtime {
    /// What is at `path` of a container; none when there is nothing. A link at its
    /// end is not followed, unless the path ends in `/` or `/.`.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`]; [`FilesError`] when the path cannot be looked at.
    pub fn file_state(&self, container: &str, path: &str) -> Result<Option<FileState>> {
        self.with_files(container, |root| {
            let found = match open(root, path.as_bytes(), asks_for_directory(path)) {
                Ok(found) => found,
                Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
                Err(errno) => return Err(step("look at", path.as_bytes())(errno)),
            };
            let stat = rustix::fs::fstat(&found).map_err(step("look at", path.as_bytes()))?;
            let link = if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                let target = rustix::fs::readlinkat(&found, "", Vec::new());
                let target = target.map_err(step("read the link", path.as_bytes()))?;
                Some(target.to_string_lossy().into_owned())
            } else {
                None
            };
            let size = u64::try_from(stat.st_size).unwrap_or(0);
            Ok(Some(FileState { mode: stat.st_mode, size, modified: stat.st_mtime, link }))
        })
    }

    /// Writes what is at `path` of a container to `sink` as a tar archive. The names of
    /// its entries begin with the path's last part; with `.` for `/` and when the path ends in `/.`.
    ///
    /// Sockets, and what kernel file systems below the path show, are left out.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`]; [`FilesError`] with the path, or when `sink` fails.
    pub fn pack(&self, container: &str, path: &str, sink: &mut (dyn Write + Send)) -> Result<()> {
        self.with_files(container, |root| pack::pack(root, path, sink))
    }

    /// Unpacks a tar archive into the directory `path` of a container.
    ///
    /// Files take the place of files; a directory is never replaced by something else,
    /// or the other way round. With `as_user` everything belongs to the container's
    /// user, else to whom the archive says.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`]; [`FilesError`] with the path or the entry. What was unpacked before stays.
    pub fn unpack(
        &self,
        container: &str,
        path: &str,
        source: &mut (dyn Read + Send),
        as_user: bool,
    ) -> Result<()> {
        let id = self.containers.resolve(container)?;
        let record =
            self.containers.record(&id)?.ok_or_else(|| RuntimeError::NotFound(container.to_owned()))?;
        self.with_files(&id, |root| {
            let owner = if as_user && !record.user.is_empty() {
                let files = root.as_fd().try_clone_to_owned().map_err(|source| FilesError::Step {
                    step: "open",
                    path: "/".into(),
                    source,
                })?;
                let files = crate::runtime::user::RootFiles::Mounted(files);
                match crate::runtime::start::identity(&record, &record.user, &files) {
                    Ok(identity) => Some((identity.uid, identity.gid)),
                    Err(error) => {
                        return Err(FilesError::Step {
                            step: "look up the owner of files in",
                            path: path.to_owned(),
                            source: io::Error::other(crate::runtime::error::chain(&error)),
                        });
                    }
                }
            } else {
                None
            };
            unpack::unpack(root, path, source, owner)
        })
    }
}

impl Runtime {
    /// Removes paths of a container with all below them. What is not there is skipped.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`]; [`FilesError`] with the path that cannot be removed.
    pub fn delete_paths(&self, container: &str, paths: &[String]) -> Result<()> {
        self.with_files(container, |root| {
            paths.iter().try_for_each(|path| delete::delete(root, path.as_bytes()))
        })
    }
}

/// Whether the spelling of a path says that a directory is meant.
fn asks_for_directory(path: &str) -> bool {
    path.ends_with('/') || path.ends_with("/.") || path == "." || path.is_empty()
}

/// Opens a path inside the root (`O_PATH`), following a link at its end only when told.
fn open(root: &Root, path: &[u8], follow: bool) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
    let start = path.iter().take_while(|c| **c == b'/').count();
    let path = if path.len() == start { &b"."[..] } else { &path[start..] };
    rustix::fs::openat2(root.as_fd(), path, flags, Mode::empty(), INSIDE)
}

/// How every path of a container is looked up.
const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// Opens a directory for listing that a descriptor already refers to.
fn reopen_directory(place: impl AsFd) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(place, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}
