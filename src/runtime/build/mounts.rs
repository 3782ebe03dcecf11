//! `RUN --mount`: what a command finds besides the tree.

use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Gid, Mode, Uid};

use super::beneath;
use super::copy::Copier;
use super::dockerfile::ast::Run;
use super::dockerfile::mount::{self, ResolvedMount, Sharing};
use super::error::{BuildError, Result};
use super::executor::Build;
use super::stage::{Located, Stage};
use super::tree::Tree;
use crate::diagnostic::{Diagnostic, Span};
use crate::runtime::image::Digest;
use crate::runtime::init::{MountPlan, MountSource, Propagation, Recursion};
use crate::runtime::root::Root;
use crate::spec::{BuildSecret, FileSpec};
use crate::util::fs::{self, Lock, PathError};

/// The mounts of one `RUN`, looked up but not yet made.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    planned: Vec<Planned>,
    /// Files that are put in from memory.
    pub(super) files: Vec<FileSpec>,
    /// Variables that hold secrets or lead to an agent: no input of the key.
    pub(super) secret_env: Vec<String>,
    /// What the result depends on.
    pub(super) inputs: Vec<String>,
}

#[derive(Debug)]
enum Planned {
    Tree { tree: Tree, subpath: String, target: String, writable: bool },
    Cache(Cache),
    Tmpfs { target: String, size: Option<u64> },
    Socket { path: PathBuf, target: String },
}

#[derive(Debug)]
struct Cache {
    id: String,
    target: String,
    read_only: bool,
    sharing: Sharing,
    seed: Option<(Tree, String)>,
    mode: u32,
    owner: (u32, u32),
}

/// Where the cache directories of all builds are.
pub(super) fn caches_dir(root: &Root) -> PathBuf {
    root.data().join("build").join("caches")
}

/// Looks the mounts of a `RUN` up.
pub(super) fn prepare(stage: &Stage<'_, '_>, at: &Located<'_>, run: &Run) -> Result<Mounts> {
    let build = stage.build;
    let mut mounts = Mounts::default();
    let mut sockets = 0;
    for flag in &run.mounts {
        let mistake = |diagnostic: &Diagnostic| BuildError::mistake(diagnostic, at.sources);
        let resolved = mount::resolve(flag, at.escape, &stage.scope).map_err(|d| mistake(&d))?;
        let place = |target: &str| stage.absolute(target);
        let tree = |from: Option<&String>| match from {
            Some(from) => stage.source_tree(from, flag.from.as_ref().map_or(flag.span, |word| word.span), at),
            None => build.contexts.snapshot(build),
        };
        match resolved {
            ResolvedMount::Bind { target, source, from, writable } => {
                let (tree, target) = (tree(from.as_ref())?, place(&target));
                let input = format!("bind {target} {} {source} {writable}", tree.identity());
                mounts.inputs.push(input);
                mounts.planned.push(Planned::Tree { tree, subpath: source, target, writable });
            }
            ResolvedMount::Cache { id, target, read_only, sharing, from, source, mode, uid, gid } => {
                let target = place(&target);
                let seed = from.as_ref().map(|from| tree(Some(from)).map(|tree| (tree, source.clone())));
                let seed = seed.transpose()?;
                mounts.inputs.push(format!("cache {id} {target} {read_only}"));
                let owner = (uid, gid);
                mounts.planned.push(Planned::Cache(Cache {
                    id,
                    target,
                    read_only,
                    sharing,
                    seed,
                    mode,
                    owner,
                }));
            }
            ResolvedMount::Tmpfs { target, size } => {
                let target = place(&target);
                mounts.inputs.push(format!("tmpfs {target} {size:?}"));
                mounts.planned.push(Planned::Tmpfs { target, size });
            }
            ResolvedMount::Secret { id, target, env, required, mode, uid, gid } => {
                mounts.inputs.push(format!("secret {id} {target:?} {env:?}"));
                let Some(content) = secret(build, &id)? else {
                    if required {
                        return Err(mistake(&missing("secret", &id, flag.span)));
                    }
                    continue;
                };
                if let Some(name) = env {
                    let text = String::from_utf8(content.clone()).map_err(|_| {
                        let text = format!("secret `{id}` is no text, so it cannot be the variable `{name}`");
                        mistake(&Diagnostic::error("build-secret", text).at(flag.span, ""))
                    })?;
                    mounts.secret_env.push(format!("{name}={text}"));
                }
                if let Some(target) = target {
                    mounts.files.push(FileSpec { target: place(&target), content, uid, gid, mode });
                }
            }
            ResolvedMount::Ssh { id, target, required, mode, uid, gid } => {
                mounts.inputs.push(format!("ssh {id} {target:?}"));
                let Some(path) = build.spec.ssh.get(&id) else {
                    if required {
                        return Err(mistake(&missing("ssh", &id, flag.span)));
                    }
                    continue;
                };
                if (mode, uid, gid) != (0o600, 0, 0) {
                    let text = "`mode`, `uid` and `gid` of an SSH mount are not supported";
                    let help = "the socket keeps the rights it has on this machine; leave them out";
                    return Err(mistake(&Diagnostic::error("build-ssh", text).at(flag.span, "").help(help)));
                }
                let target =
                    target.map_or_else(|| format!("/run/buildkit/ssh_agent.{sockets}"), |t| place(&t));
                sockets += 1;
                if !mounts.secret_env.iter().any(|e| e.starts_with("SSH_AUTH_SOCK=")) {
                    mounts.secret_env.push(format!("SSH_AUTH_SOCK={target}"));
                }
                mounts.planned.push(Planned::Socket { path: path.clone(), target });
            }
        }
    }
    Ok(mounts)
}

fn missing(kind: &str, id: &str, span: Span) -> Diagnostic {
    let help = match kind {
        "ssh" => format!("give the build an agent: `ssh: [{id}]` in the `build` section, or `--ssh {id}`"),
        _ => format!("give the build the secret: `secrets: [{id}]` in the `build` section"),
    };
    Diagnostic::error("build-secret", format!("{kind} `{id}` is required and was not given"))
        .at(span, "")
        .help(help)
}

fn secret(build: &Build<'_>, id: &str) -> Result<Option<Vec<u8>>> {
    match build.spec.secrets.get(id) {
        None => Ok(None),
        Some(BuildSecret::Value(value)) => Ok(Some(value.clone())),
        Some(BuildSecret::File(path)) => Ok(Some(fs::read(path)?)),
    }
}

impl Mounts {
    /// Makes what has to be made and gives the plans, with the locks that must be held meanwhile.
    pub(super) fn open(&self, build: &Build<'_>, dir: &Path) -> Result<(Vec<MountPlan>, Vec<Lock>)> {
        let (mut plans, mut locks) = (Vec::new(), Vec::new());
        for (index, planned) in self.planned.iter().enumerate() {
            let plan = match planned {
                Planned::Tree { tree, subpath, target, writable } => {
                    let below = subpath.trim_matches('/');
                    let subpath = (!below.is_empty() && below != ".").then(|| below.to_owned());
                    let mut layers = tree.paths().to_vec();
                    let scratch = dir.join(format!("mount-{index}"));
                    if layers.is_empty() {
                        let empty = scratch.join("empty");
                        fs::create_dir_all(&empty)?;
                        layers.push(empty);
                    }
                    let source = if *writable {
                        let (upper, work) = (scratch.join("upper"), scratch.join("work"));
                        fs::create_dir_all(&upper)?;
                        fs::create_dir_all(&work)?;
                        MountSource::Scratch { layers, upper, work, subpath }
                    } else {
                        MountSource::Layers { layers, subpath }
                    };
                    MountPlan { source, target: target.clone(), read_only: !writable }
                }
                Planned::Tmpfs { target, size } => {
                    // As BuildKit's: programs may be run from it.
                    let options = vec!["exec".to_owned()];
                    let source = MountSource::Tmpfs { size: *size, mode: None, options };
                    MountPlan { source, target: target.clone(), read_only: false }
                }
                Planned::Socket { path, target } => {
                    MountPlan { source: bind(path.clone()), target: target.clone(), read_only: false }
                }
                Planned::Cache(cache) => {
                    let (path, lock) = cache.open(build)?;
                    locks.push(lock);
                    MountPlan { source: bind(path), target: cache.target.clone(), read_only: cache.read_only }
                }
            };
            plans.push(plan);
        }
        // What lies below another mount is attached after it.
        plans.sort_by_key(|m| m.target.split('/').filter(|part| !part.is_empty()).count());
        Ok((plans, locks))
    }
}

fn bind(path: PathBuf) -> MountSource {
    MountSource::Bind {
        path,
        subpath: None,
        recursive: Recursion::Disabled,
        propagation: Propagation::Rprivate,
    }
}

impl Cache {
    /// The directory, made if need be, and the lock that says it is used.
    fn open(&self, build: &Build<'_>) -> Result<(PathBuf, Lock)> {
        let name = Digest::of(self.id.as_bytes()).hex().to_owned();
        for slot in 0_u32.. {
            let name = if slot == 0 { name.clone() } else { format!("{name}-{slot}") };
            let dir = caches_dir(build.runtime.root()).join(name);
            fs::create_dir_all(&dir)?;
            let path = dir.join("lock");
            let lock = match self.sharing {
                Sharing::Shared => {
                    if !dir.join("fs").is_dir() {
                        let lock = wait_for(&path, build)?;
                        self.fill(&dir)?;
                        drop(lock);
                    }
                    Lock::shared(&path)?
                }
                Sharing::Locked => wait_for(&path, build)?,
                Sharing::Private => match Lock::try_exclusive(&path)? {
                    Some(lock) => lock,
                    None => continue,
                },
            };
            if !dir.join("fs").is_dir() {
                self.fill(&dir)?;
            }
            return Ok((dir.join("fs"), lock));
        }
        unreachable!("a slot is free before numbers run out")
    }

    /// Makes the directory with what it holds at first; it appears whole.
    fn fill(&self, dir: &Path) -> Result<()> {
        let target = dir.join("fs");
        if target.is_dir() {
            return Ok(());
        }
        let fresh = dir.join("fs.new");
        crate::util::files::remove_dir_all(&fresh)?;
        fs::create_dir_all(&fresh)?;
        if let Some((tree, source)) = &self.seed
            && let Some(merged) = tree.merged()?
        {
            let into = beneath::open_root(&fresh).map_err(PathError::at("open", &fresh))?;
            Copier::default().contents(merged, source.as_bytes(), &into)?;
        }
        // For `builder prune` and whoever looks.
        fs::write_atomic(&dir.join("id"), self.id.as_bytes(), false)?;
        let (uid, gid) = self.owner;
        rustix::fs::chown(&fresh, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .map_err(PathError::at("set the owner of", &fresh))?;
        rustix::fs::chmod(&fresh, Mode::from_raw_mode(self.mode))
            .map_err(PathError::at("set the mode of", &fresh))?;
        std::fs::rename(&fresh, &target).map_err(PathError::at("rename", &fresh))?;
        Ok(())
    }
}

/// The exclusive lock on a cache; given up when the build is.
fn wait_for(path: &Path, build: &Build<'_>) -> Result<Lock> {
    loop {
        if let Some(lock) = Lock::try_exclusive(path)? {
            return Ok(lock);
        }
        // flock(2) cannot be polled for: another look now and then, unless the build is given up.
        let pause = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        let mut polled = [PollFd::from_borrowed_fd(build.cancel.fd(), PollFlags::IN)];
        let _tick = poll(&mut polled, Some(&pause));
        build.check()?;
    }
}
