//! `RUN`: the command, its environment and mounts, and what is left of the tree afterwards.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::beneath;
use super::cache::Key;
use super::error::{BuildError, Failure, Result};
use super::mounts::{Mounts, prepare};
use super::process::{self, Command, End, Network};
use super::stage::{Located, Stage};
use super::tree::Tree;
use crate::diagnostic::Diagnostic;
use crate::runtime::build::dockerfile::ast::{Run, RunNetwork, Script};
use crate::runtime::image::RootAttributes;
use crate::runtime::init::{
    self, CgroupPlan, LaunchPlan, MountPlan, NameFiles, NamespaceMode, Namespaces, ProcessPlan, RootfsPlan,
};
use crate::runtime::security;
use crate::runtime::start;
use crate::runtime::user::identify;
use crate::spec::{BuildNetwork, ContainerSpec, FileSpec, ResourceSpec};
use crate::util::fs::{self, PathError};

/// Lines of a failed command that its error shows.
const LAST_LINES: usize = 20;

/// What of the tree a command finds mounted over.
const NAME_FILES: [&str; 2] = ["etc/hosts", "etc/resolv.conf"];

/// A `RUN` with everything settled.
struct Settled {
    args: Vec<String>,
    /// Complete, in order.
    env: Vec<String>,
    network: Network,
    insecure: bool,
    mounts: Mounts,
}

/// Carries a `RUN` out and gives its layer.
pub(super) fn run(stage: &Stage<'_, '_>, at: &Located<'_>, run: &Run) -> Result<super::executor::Made> {
    let build = stage.build;
    let settled = settle(stage, at, run)?;
    let key = key(stage, &settled);
    let name = Stage::step_name(at.instruction);
    let title = stage.next_title(&name);
    let step = build.reporter.start(title.clone());
    let mut last = VecDeque::new();
    let mut ended = End::Exited { code: 0, oom: false };
    let made = build.layer(&key, &name, stage.use_cache, &stage.tree, &mut |dir| {
        let _turn = build.turn();
        build.check()?;
        ended = execute(stage, dir, &settled, step, &mut last)?;
        match ended {
            End::Exited { code: 0, .. } => Ok(()),
            End::Exited { code, oom } => Err(failed(at, &settled, &title, code, oom, &last)),
            End::Cancelled => Err(BuildError::Cancelled),
        }
    });
    stage.tell(step, made, at, &title)
}

fn settle(stage: &Stage<'_, '_>, at: &Located<'_>, run: &Run) -> Result<Settled> {
    let build = stage.build;
    let refused = |text: String, help: &str| {
        let place = run.flags.first().map_or(at.instruction.span, |flag| flag.span);
        let diagnostic = Diagnostic::error("build-entitlement", text).at(place, "").help(help);
        Err(BuildError::mistake(&diagnostic, at.sources))
    };
    if run.insecure && !build.spec.insecure {
        return refused(
            "`RUN --security=insecure` is not allowed".into(),
            "allow it with `entitlements: [security.insecure]`",
        );
    }
    let network = match (run.network, build.spec.network) {
        (Some(RunNetwork::None), _) | (None | Some(RunNetwork::Default), BuildNetwork::None) => Network::None,
        (Some(RunNetwork::Host), _) if !build.spec.host_network => {
            return refused(
                "`RUN --network=host` is not allowed".into(),
                "allow it with `entitlements: [network.host]`, or `network: host` for all of the build",
            );
        }
        (Some(RunNetwork::Host), _) | (None | Some(RunNetwork::Default), BuildNetwork::Host) => Network::Host,
        (None | Some(RunNetwork::Default), BuildNetwork::Default) => Network::Own,
    };
    let mut mounts = prepare(stage, at, run)?;
    let args = match &run.script {
        Script::Exec(words) => words.clone(),
        Script::Shell(line) => super::config::with_shell(&stage.image.config, line),
        Script::Executable { name, content } => {
            let target = format!("/dev/pipes/{name}");
            mounts.files.push(FileSpec {
                target: target.clone(),
                content: content.clone().into_bytes(),
                uid: 0,
                gid: 0,
                mode: 0o755,
            });
            vec![target]
        }
    };
    let mut env = stage.environment();
    if !env.iter().any(|e| e.starts_with("PATH=")) {
        env.insert(0, format!("PATH={}", super::config::PATH));
    }
    Ok(Settled { args, env, network, insecure: run.insecure, mounts })
}

/// What the result depends on. Content of secrets and caches is no input.
fn key(stage: &Stage<'_, '_>, settled: &Settled) -> String {
    let config = &stage.image.config;
    let mut key = Key::new("run");
    key.text(&stage.tree.identity());
    key.text(&stage.build.platform.to_string());
    key.list(&settled.args);
    key.list(&settled.env);
    key.text(&config.user);
    key.text(&stage.working_dir());
    key.text(match settled.network {
        Network::Own => "own",
        Network::None => "none",
        Network::Host => "host",
    });
    key.text(if settled.insecure { "insecure" } else { "" });
    let hosts: Vec<String> = stage.build.spec.extra_hosts.iter().map(|(n, a)| format!("{n}={a}")).collect();
    key.list(&hosts);
    key.list(&settled.mounts.inputs);
    key.optional(stage.build.spec.source_date_epoch.map(|t| t.to_string()).as_deref());
    key.finish()
}

fn execute(
    stage: &Stage<'_, '_>,
    dir: &Path,
    settled: &Settled,
    step: u32,
    last: &mut VecDeque<String>,
) -> Result<End> {
    let build = stage.build;
    let spec = build.spec;
    let upper = make_upper(dir, stage.tree.root())?;
    let mut layers = stage.tree.paths().to_vec();
    if layers.is_empty() {
        let empty = dir.join("empty");
        fs::create_dir_all(&empty)?;
        layers.push(empty);
    }
    let rights = ContainerSpec {
        name: "build".to_owned(),
        security: crate::spec::SecuritySpec { privileged: settled.insecure, ..Default::default() },
        resources: ResourceSpec {
            memory: spec.memory,
            memory_swap: spec.memory.map(|memory| memory.saturating_mul(2)),
            ..ResourceSpec::default()
        },
        ..ContainerSpec::default()
    };
    let security = security::resolve(&rights)?;
    let (nodes, rules) = start::devices(&rights)?;
    let files = stage.tree.files();
    let unknown = |source| crate::runtime::error::RuntimeError::User { container: "RUN".to_owned(), source };
    let (passwd, group) = (files.etc("passwd").map_err(unknown)?, files.etc("group").map_err(unknown)?);
    let identity = identify(&stage.image.config.user, &[], &passwd, &group).map_err(unknown)?;
    let mut env = settled.env.clone();
    env.extend(stage.proxies());
    env.extend(settled.mounts.secret_env.iter().cloned());
    if !env.iter().any(|e| e.starts_with("HOME=")) {
        env.push(format!("HOME={}", identity.home));
    }
    let mut capabilities = security.capabilities;
    if identity.uid != 0 {
        // As on Docker: another user than root has capabilities only through set-user-id programs.
        capabilities.effective = 0;
        capabilities.permitted = 0;
    }
    let rlimits = init::rlimits(&spec.ulimits)
        .map_err(|e| BuildError::Invalid { attribute: "ulimits".into(), reason: e.to_string() })?;
    let mut sysctls = std::collections::BTreeMap::new();
    if settled.network != Network::Host {
        sysctls.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        sysctls.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
    }
    let (mounts, guards) = settled.mounts.open(build, dir)?;
    let launch = LaunchPlan {
        rootfs: RootfsPlan {
            layers,
            upper: upper.clone(),
            work: dir.join("work"),
            volatile: true,
            read_only: false,
        },
        files: settled.mounts.files.clone(),
        devices: nodes,
        masked_paths: security.masked_paths.clone(),
        readonly_paths: security.readonly_paths.clone(),
        process: ProcessPlan {
            args: settled.args.clone(),
            env,
            cwd: stage.working_dir(),
            uid: identity.uid,
            gid: identity.gid,
            groups: identity.groups,
            capabilities,
            seccomp: security.seccomp.clone(),
            no_new_privileges: false,
            rlimits,
            oom_score_adj: None,
        },
        hostname: String::new(),
        domainname: None,
        sysctls,
        name_files: NameFiles::default(),
        namespaces: Namespaces {
            pid: NamespaceMode::Own,
            ipc: NamespaceMode::Own,
            uts: NamespaceMode::Own,
            cgroup: init::default_cgroup_namespace(),
        },
        cgroup: CgroupPlan { path: String::new(), resources: rights.resources.clone(), devices: rules },
        privileged: settled.insecure,
        shm_size: spec.shm_size,
        init: false,
        mounts,
    };
    let stubs = Stubs::expect(&stage.tree, stub_paths(&launch.mounts, &launch.files))?;
    let command = Command { launch, network: settled.network, extra_hosts: &spec.extra_hosts };
    let ended = process::run(build.runtime, command, build.cancel, &mut |line| {
        let text = String::from_utf8_lossy(line.text).into_owned();
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(format!("{:.3} {text}", line.at));
        build.reporter.output(step, line.at, line.error, text);
    })?;
    drop(guards);
    stubs.remove(&upper)?;
    Ok(ended)
}

/// An empty directory for what a step writes, with the owner and mode of the tree's root; and overlay's own.
pub(super) fn make_upper(dir: &Path, root: RootAttributes) -> Result<PathBuf> {
    let upper = dir.join("fs");
    fs::create_dir_all(&upper)?;
    fs::create_dir_all(&dir.join("work"))?;
    rustix::fs::chown(&upper, Some(Uid::from_raw(root.uid)), Some(Gid::from_raw(root.gid)))
        .map_err(PathError::at("set the owner of", &upper))?;
    rustix::fs::chmod(&upper, Mode::from_raw_mode(root.mode))
        .map_err(PathError::at("set the mode of", &upper))?;
    Ok(upper)
}

fn failed(
    at: &Located<'_>,
    settled: &Settled,
    title: &str,
    code: i32,
    oom: bool,
    last: &VecDeque<String>,
) -> BuildError {
    let command = settled.args.join(" ");
    let why = if oom { ": it was killed because it ran out of memory" } else { "" };
    let summary = format!("process \"{command}\" did not complete successfully: exit code: {code}{why}");
    let diagnostic = Diagnostic::error("build-run", summary.clone()).at(at.instruction.span, "");
    BuildError::Instruction(Box::new(Failure {
        shown: crate::diagnostic::render(&diagnostic, at.sources, false),
        summary,
        step: title.to_owned(),
        output: last.iter().cloned().collect(),
        code: Some(code),
    }))
}

fn stub_paths(mounts: &[MountPlan], files: &[FileSpec]) -> Vec<String> {
    let own = NAME_FILES.iter().map(|name| (*name).to_owned());
    let targets = mounts.iter().map(|m| &m.target).chain(files.iter().map(|f| &f.target));
    own.chain(targets.map(|target| target.trim_matches('/').to_owned())).collect()
}

/// Places for mounts that were not in the tree: they must not stay in the layer.
struct Stubs {
    /// Paths that did not exist, and their parents that did not, deepest first.
    paths: Vec<String>,
    /// Directories that existed and get something made in, with their times.
    parents: Vec<(String, Timespec)>,
}

impl Stubs {
    /// Notes what of these paths does not exist yet.
    fn expect(tree: &Tree, targets: Vec<String>) -> Result<Self> {
        let merged = tree.merged()?;
        let look = |path: &str| {
            let path = if path.is_empty() { "." } else { path };
            let stat = rustix::fs::statat(merged?, path, AtFlags::SYMLINK_NOFOLLOW).ok()?;
            Some(stat)
        };
        let (mut paths, mut parents) = (Vec::new(), Vec::new());
        for target in targets {
            let mut path = target;
            while !path.is_empty() && look(&path).is_none() {
                let parent = path.rsplit_once('/').map_or(String::new(), |(parent, _)| parent.to_owned());
                paths.push(std::mem::replace(&mut path, parent));
            }
            if let Some(stat) = look(&path)
                && !paths.is_empty()
                && !path.is_empty()
            {
                let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec.cast_signed() };
                parents.push((path, time));
            }
        }
        paths.sort_by_key(|path| std::cmp::Reverse(path.matches('/').count()));
        paths.dedup();
        Ok(Self { paths, parents })
    }

    /// Removes those that are still empty.
    ///
    /// The command may have put links in their places: none is followed.
    fn remove(&self, upper: &Path) -> Result<()> {
        let failed = |action: &'static str, path: &str| {
            let path = upper.join(path);
            move |errno: Errno| PathError { action, path, source: errno.into() }
        };
        let root = beneath::open_root(upper).map_err(PathError::at("open", upper))?;
        for path in &self.paths {
            let (above, name) = beneath::split(path.as_bytes());
            let Ok(parent) = beneath::directory(&root, above) else { continue };
            let Ok(stat) = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let flags = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => AtFlags::REMOVEDIR,
                FileType::RegularFile if stat.st_size == 0 => AtFlags::empty(),
                _ => continue,
            };
            match rustix::fs::unlinkat(&parent, name, flags) {
                Ok(()) | Err(Errno::NOTEMPTY) => {}
                Err(error) => return Err(failed("remove", path)(error).into()),
            }
        }
        for (path, time) in &self.parents {
            let Ok(directory) = beneath::directory(&root, path.as_bytes()) else { continue };
            let mut entries = Dir::read_from(&directory).map_err(failed("list", path))?;
            // `.` and `..` are all that an empty one has.
            if entries.by_ref().take(3).count() < 3 {
                let times = Timestamps { last_access: *time, last_modification: *time };
                rustix::fs::futimens(&directory, &times).map_err(failed("set the time of", path))?;
            }
        }
        Ok(())
    }
}
