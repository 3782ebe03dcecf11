//! Sources in git: `https://host/repo.git#ref:directory`.
//!
//! A client of our own would be large and worse; the `git` on this machine is
//! called, as Docker does. It gets no say beyond that: no prompts, no hooks, no
//! local or exotic transports, and nothing that a name could pass off as a flag.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Transports that git may use.
const PROTOCOLS: &str = "git:http:https:ssh";

/// Why something could not be had from git.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// There is no git.
    #[error("cannot fetch `{0}`: the program `git` is not installed; install it, or name a local directory")]
    Missing(String),
    /// It cannot be started.
    #[error("cannot start `git` to fetch `{address}`")]
    Start {
        /// What was wanted.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It says no.
    #[error("cannot {step} `{address}`: {said}")]
    Failed {
        /// The verb.
        step: &'static str,
        /// Of what; without a password.
        address: String,
        /// Its last words.
        said: String,
    },
    /// The address is none.
    #[error("`{address}` is no address of a git repository: {reason}")]
    Address {
        /// As given.
        address: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The directory after `:` is not there.
    #[error("`{address}` has no directory `{directory}`")]
    Directory {
        /// Of what.
        address: String,
        /// As given.
        directory: String,
    },
}

/// An address taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitAddress {
    /// What git is given.
    pub repository: String,
    /// Branch, tag or commit; the default branch when absent.
    pub reference: Option<String>,
    /// Path inside of the repository, without a slash at its start.
    pub directory: Option<String>,
}

/// What was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkout {
    /// The directory that was asked for.
    pub root: PathBuf,
    /// The whole commit ID.
    pub commit: String,
}

impl GitAddress {
    /// Recognises an address as Docker does: `git://`, `ssh://`, `git@host:path`, `github.com/…`, or
    /// HTTP with a path that ends in `.git`. `None` for everything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, fragment) = match text.split_once('#') {
            Some((address, fragment)) => (address, Some(fragment)),
            None => (text, None),
        };
        let http = address.starts_with("http://") || address.starts_with("https://");
        let scp = address.split_once('@').is_some_and(|(user, rest)| {
            let word = |text: &str| {
                !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            };
            word(user) && rest.split_once(':').is_some_and(|(host, path)| word(host) && !path.is_empty())
        });
        let repository = if address.starts_with("github.com/") {
            format!("https://{address}")
        } else if address.starts_with("git://")
            || address.starts_with("ssh://")
            || scp
            || http && address.strip_suffix(".git").is_some()
        {
            address.to_owned()
        } else {
            return None;
        };
        let (reference, directory) =
            match fragment.map(|fragment| fragment.split_once(':').unwrap_or((fragment, ""))) {
                Some((reference, directory)) => (reference, directory.trim_start_matches('/')),
                None => ("", ""),
            };
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Some(Self { repository, reference: given(reference), directory: given(directory) })
    }

    /// The repository without a password.
    pub(super) fn shown(&self) -> String {
        match self
            .repository
            .split_once("://")
            .and_then(|(scheme, rest)| Some((scheme, rest.split_once('@')?)))
        {
            Some((scheme, (user, host))) if user.contains(':') && !user.contains('/') => {
                format!("{scheme}://…@{host}")
            }
            _ => self.repository.clone(),
        }
    }

    fn check(&self) -> Result<(), GitError> {
        let wrong = |reason| Err(GitError::Address { address: self.shown(), reason });
        if self.repository.starts_with('-') {
            return wrong("it begins with a dash");
        }
        let reference = self.reference.as_deref().unwrap_or_default();
        if reference.starts_with('-') || reference.chars().any(|c| c.is_control() || " ~^:?*[\\".contains(c))
        {
            return wrong("what follows the `#` cannot be the name of a branch, tag or commit");
        }
        let directory = self.directory.as_deref().unwrap_or_default();
        if directory.split('/').any(|part| part == "..") {
            return wrong("the directory after `:` leads outside");
        }
        Ok(())
    }

    /// Fetches it into `into`, an empty directory; submodules, too. `keep` leaves `.git` in place.
    ///
    /// # Errors
    /// [`GitError`]; `into` may hold anything then.
    pub fn fetch(&self, into: &Path, keep: bool) -> Result<Checkout, GitError> {
        self.fetch_by(into, keep, PROTOCOLS)
    }

    fn fetch_by(&self, into: &Path, keep: bool, protocols: &str) -> Result<Checkout, GitError> {
        self.check()?;
        let git = Git { address: self, at: into, protocols };
        git.run("prepare the directory for", &["init", "--quiet", "--template="])?;
        // Submodules with relative addresses need to know where from.
        git.run("prepare the directory for", &["remote", "add", "origin", "--", &self.repository])?;
        let reference = self.reference.as_deref().unwrap_or("HEAD");
        let shallow =
            git.run("fetch", &["fetch", "--quiet", "--depth=1", "--no-tags", "--", "origin", reference]);
        if shallow.is_ok() {
            git.run("check out", &["checkout", "--quiet", "--detach", "FETCH_HEAD", "--"])?;
        } else {
            // Some servers give no single commit, and none knows shortened ones.
            let all = "+refs/heads/*:refs/remotes/origin/*";
            git.run("fetch", &["fetch", "--quiet", "--tags", "--", "origin", all])?;
            let found = ["", "origin/"].iter().find_map(|prefix| {
                let name = format!("{prefix}{reference}^{{commit}}");
                git.run("find", &["rev-parse", "--verify", "--quiet", "--end-of-options", &name]).ok()
            });
            // The first answer says best what is wrong.
            let Some(commit) = found else {
                return Err(shallow.err().unwrap_or_else(|| git.failed("find", "no such commit")));
            };
            git.run("check out", &["checkout", "--quiet", "--detach", commit.trim(), "--"])?;
        }
        if into.join(".gitmodules").exists() {
            git.run(
                "fetch the submodules of",
                &["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"],
            )?;
        }
        let commit = git.run("look at", &["rev-parse", "HEAD"])?.trim().to_owned();
        if !keep {
            let failed = |error: std::io::Error| git.failed("tidy up", &error.to_string());
            std::fs::remove_dir_all(into.join(".git")).map_err(failed)?;
        }
        let root = match &self.directory {
            None => into.to_owned(),
            Some(directory) => self.inside(into, directory)?,
        };
        Ok(Checkout { root, commit })
    }

    /// The directory that was asked for; links of the repository do not lead out of it.
    fn inside(&self, root: &Path, directory: &str) -> Result<PathBuf, GitError> {
        let missing = || GitError::Directory { address: self.shown(), directory: directory.to_owned() };
        let real = root.join(directory).canonicalize().map_err(|_| missing())?;
        let root = root.canonicalize().map_err(|_| missing())?;
        if real.starts_with(&root) && real.is_dir() { Ok(real) } else { Err(missing()) }
    }
}

struct Git<'a> {
    address: &'a GitAddress,
    at: &'a Path,
    protocols: &'a str,
}

impl Git<'_> {
    fn failed(&self, step: &'static str, said: &str) -> GitError {
        GitError::Failed { step, address: self.address.shown(), said: said.to_owned() }
    }

    /// Runs one command in the directory and gives what it printed.
    fn run(&self, step: &'static str, arguments: &[&str]) -> Result<String, GitError> {
        let ssh = std::env::var_os("GIT_SSH_COMMAND")
            .unwrap_or_else(|| "ssh -o BatchMode=yes -o ConnectTimeout=30".into());
        let mut command = Command::new("git");
        command
            .args([
                "-c",
                "core.hooksPath=/dev/null",
                "-c",
                "advice.detachedHead=false",
                "-c",
                "core.fsmonitor=false",
            ])
            .args(arguments)
            .current_dir(self.at)
            .env("GIT_DIR", self.at.join(".git"))
            .env("GIT_WORK_TREE", self.at)
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ALLOW_PROTOCOL", self.protocols)
            .env("GIT_SSH_COMMAND", ssh)
            // A server that falls silent does not hold the build up for ever.
            .env("GIT_HTTP_LOW_SPEED_LIMIT", "100")
            .env("GIT_HTTP_LOW_SPEED_TIME", "60")
            .env_remove("GIT_INDEX_FILE")
            .env_remove("GIT_OBJECT_DIRECTORY")
            .stdin(Stdio::null());
        if arguments.first() == Some(&"submodule") {
            // It works in several repositories and finds them by itself.
            command.env_remove("GIT_DIR").env_remove("GIT_WORK_TREE");
        }
        let output = command.output().map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound if self.at.is_dir() => GitError::Missing(self.address.shown()),
            _ => GitError::Start { address: self.address.shown(), source },
        })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it gave no reason");
        let last = last.trim_start_matches("fatal: ").trim_start_matches("error: ");
        Err(self.failed(step, &last.replace(&self.address.repository, &self.address.shown())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_recognised() {
        let parse = |text| {
            GitAddress::parse(text)
                .map(|a| (a.repository, a.reference.unwrap_or_default(), a.directory.unwrap_or_default()))
        };
        let is = |a: &str, b: &str, c: &str| Some((a.to_owned(), b.to_owned(), c.to_owned()));
        assert_eq!(parse("https://x.y/a.git"), is("https://x.y/a.git", "", ""));
        assert_eq!(parse("https://x.y/a.git#v1:sub/dir"), is("https://x.y/a.git", "v1", "sub/dir"));
        assert_eq!(parse("git@x.y:a/b.git#:sub"), is("git@x.y:a/b.git", "", "sub"));
        assert_eq!(parse("github.com/a/b#main"), is("https://github.com/a/b", "main", ""));
        assert_eq!(parse("ssh://git@x/a"), is("ssh://git@x/a", "", ""));
        for other in
            ["https://x.y/a.tar.gz", "./dir.git", "dir", "/abs", "a@b", "C:\\x@y:z", "user@host/path"]
        {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn addresses_cannot_be_flags_or_lead_outside() {
        for text in ["ssh://x/a#--upload-pack=x", "git://x/a#:../..", "git://x/a#a b"] {
            let dir = tempfile::tempdir().unwrap();
            let error = GitAddress::parse(text).unwrap().fetch(dir.path(), false).unwrap_err();
            assert!(matches!(error, GitError::Address { .. }), "{text}: {error}");
        }
        let secret = GitAddress::parse("https://me:hunter2@127.0.0.1:1/a.git").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let error = secret.fetch(dir.path(), false).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_branch_a_tag_a_commit_and_a_directory() {
        let origin = tempfile::tempdir().unwrap();
        let git = |arguments: &[&str]| {
            let out = Command::new("git")
                .args(["-c", "user.name=x", "-c", "user.email=x@y", "-c", "init.defaultBranch=main"])
                .args(arguments)
                .current_dir(origin.path())
                .env("GIT_CONFIG_GLOBAL", "/dev/null")
                .output();
            out.ok()
                .filter(|out| out.status.success())
                .map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned())
        };
        if git(&["init", "--quiet"]).is_none() {
            eprintln!("skipped: needs git");
            return;
        }
        std::fs::create_dir(origin.path().join("sub")).unwrap();
        std::fs::write(origin.path().join("sub/f"), "one").unwrap();
        std::os::unix::fs::symlink("/etc", origin.path().join("out")).unwrap();
        git(&["add", "."]).unwrap();
        git(&["commit", "--quiet", "-m", "one"]).unwrap();
        git(&["tag", "v1"]).unwrap();
        std::fs::write(origin.path().join("sub/f"), "two").unwrap();
        git(&["commit", "--quiet", "-am", "two"]).unwrap();
        let first = git(&["rev-parse", "v1"]).unwrap();

        let fetch = |reference: Option<&str>, directory: Option<&str>, protocols: &str| {
            let into = tempfile::tempdir().unwrap();
            let address = GitAddress {
                repository: format!("file://{}", origin.path().display()),
                reference: reference.map(str::to_owned),
                directory: directory.map(str::to_owned),
            };
            let done = address.fetch_by(into.path(), false, protocols)?;
            let file = done.root.join(if directory.is_some() { "f" } else { "sub/f" });
            assert!(!into.path().join(".git").exists());
            Ok::<_, GitError>((std::fs::read_to_string(file).unwrap(), done.commit))
        };
        assert_eq!(fetch(None, None, "file").unwrap().0, "two");
        assert_eq!(fetch(Some("main"), Some("sub"), "file").unwrap().0, "two");
        assert_eq!(fetch(Some("v1"), None, "file").unwrap(), ("one".to_owned(), first.clone()));
        assert_eq!(fetch(Some(&first[..8]), None, "file").unwrap(), ("one".to_owned(), first));
        assert!(matches!(fetch(Some("none"), None, "file"), Err(GitError::Failed { .. })));
        assert!(matches!(fetch(None, Some("out"), "file"), Err(GitError::Directory { .. })));
        let refused = fetch(None, None, PROTOCOLS).unwrap_err().to_string();
        assert!(refused.contains("not allowed"), "{refused}");
    }
}
