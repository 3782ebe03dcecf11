//! Sources of `ADD` that are elsewhere: files on the web, and git repositories.

use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

use super::download::{self, DownloadError, download};
use super::git::{GitAddress, GitError};

/// Largest file that is fetched.
const LARGEST: u64 = 64 << 30;

/// Where a source of `ADD` is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In the build context.
    Context,
    /// On the web.
    Web(String),
    /// In git.
    Git(GitAddress),
}

/// Why a source could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// From the web.
    #[error(transparent)]
    Web(#[from] DownloadError),
    /// From git.
    #[error(transparent)]
    Git(#[from] GitError),
    /// It is something else than was asked for.
    #[error("the checksum of `{what}` is `{found}`, not `{wanted}`")]
    Checksum {
        /// What was fetched; without a password.
        what: String,
        /// What it is.
        found: String,
        /// What `--checksum` says.
        wanted: String,
    },
    /// A checksum that cannot be held against anything.
    #[error("`{0}` is no checksum; write `sha256:` and 64 digits for a file, or the commit for a repository")]
    NoChecksum(String),
    /// What was fetched cannot be dated.
    #[error("cannot set the time of `{}`", path.display())]
    Time {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// What was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The directory that holds it.
    pub root: PathBuf,
    /// The file in it; `None`: all of it.
    pub file: Option<String>,
    /// What stands for its content: a digest or a commit.
    pub identity: String,
}

/// Tells where a source is, by its text once expanded.
pub fn origin(source: &str) -> Origin {
    if let Some(address) = GitAddress::parse(source) {
        Origin::Git(address)
    } else if download::is_address(source) {
        Origin::Web(source.to_owned())
    } else {
        Origin::Context
    }
}

impl Origin {
    /// Fetches it into `into`, an empty directory; `None` for the context.
    ///
    /// A file has mode 0600 and the time that the server gives, or 1970.
    ///
    /// # Errors
    /// [`FetchError`]; `into` may hold anything then.
    pub fn fetch(
        &self,
        into: &Path,
        checksum: Option<&str>,
        keep_git_directory: bool,
    ) -> Result<Option<Fetched>, FetchError> {
        match self {
            Self::Context => Ok(None),
            Self::Web(address) => {
                let wanted = checksum.map(|text| {
                    let digits = text.strip_prefix("sha256:").unwrap_or_default();
                    let valid = digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit());
                    valid
                        .then(|| text.to_ascii_lowercase())
                        .ok_or_else(|| FetchError::NoChecksum(text.to_owned()))
                });
                let wanted = wanted.transpose()?;
                // Its name is known only when the server has said it.
                let path = into.join("part");
                let done = download(address, &path, LARGEST)?;
                let found = done.digest.to_string();
                if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
                    return Err(FetchError::Checksum { what: download::shown(address), found, wanted });
                }
                let failed = |path: &Path, source| FetchError::Time { path: path.to_owned(), source };
                let time = Timespec { tv_sec: done.modified, tv_nsec: 0 };
                let times = Timestamps { last_access: time, last_modification: time };
                rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty())
                    .map_err(|e| failed(&path, e.into()))?;
                let root = into.join("file");
                let named = root.join(&done.name);
                std::fs::create_dir(&root)
                    .and_then(|()| std::fs::rename(&path, &named))
                    .map_err(|e| failed(&named, e))?;
                Ok(Some(Fetched { root, file: Some(done.name), identity: found }))
            }
            Self::Git(address) => {
                let wanted = checksum.map(|text| {
                    let valid = (7..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
                    valid
                        .then(|| text.to_ascii_lowercase())
                        .ok_or_else(|| FetchError::NoChecksum(text.to_owned()))
                });
                let wanted = wanted.transpose()?;
                let done = address.fetch(into, keep_git_directory)?;
                if let Some(wanted) = wanted.filter(|wanted| !done.commit.starts_with(wanted.as_str())) {
                    return Err(FetchError::Checksum { what: address.shown(), found: done.commit, wanted });
                }
                Ok(Some(Fetched { root: done.root, file: None, identity: done.commit }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::download::tests::{answer, serve};
    use super::*;

    #[test]
    fn sources_are_told_apart() {
        assert_eq!(origin("a/b.git"), Origin::Context);
        assert_eq!(origin("https://x/a.tar"), Origin::Web("https://x/a.tar".into()));
        assert!(matches!(origin("https://x/a.git#v1"), Origin::Git(_)));
    }

    #[test]
    fn a_file_has_its_name_and_its_checksum_must_fit() {
        let hello = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        let address = serve(vec![answer("200 OK", "hello"), answer("200 OK", "hello")]);
        let from = origin(&format!("{address}/a/f.txt"));
        let get = |checksum: &str| {
            let into = tempfile::tempdir().unwrap();
            let done = from.fetch(into.path(), Some(checksum), false)?.expect("not of the context");
            let file = done.root.join(done.file.as_deref().expect("a file"));
            Ok::<_, FetchError>((done.file.unwrap(), std::fs::metadata(file).unwrap().modified().unwrap()))
        };
        assert_eq!(get(hello).unwrap(), ("f.txt".to_owned(), std::time::UNIX_EPOCH));
        let other = hello.replace("2cf", "3cf");
        assert!(matches!(get(&other), Err(FetchError::Checksum { .. })));
        assert!(matches!(get("md5:1"), Err(FetchError::NoChecksum(_))));
    }
}
