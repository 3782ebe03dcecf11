//! What is on a test's machine: the things that must not be left behind.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use hoist::runtime::root::Root;

use super::environment::TestEnvironment;

/// Links, packet filter rules, mounts, cgroups, processes and files.
pub(crate) struct Snapshot {
    parts: Vec<(&'static str, BTreeSet<String>)>,
}

impl Snapshot {
    pub(super) fn take(env: &TestEnvironment) -> Self {
        let links = env.host(&["ip", "-o", "link"]).ok();
        let addresses = env.host(&["ip", "-o", "address"]).ok();
        let routes = env.host(&["ip", "route", "show", "table", "all"]).ok();
        let rules = env.host(&["nft", "list", "ruleset"]).ok();
        let mounts = env.host(&["cat", "/proc/self/mountinfo"]).ok();
        let sockets = env.host(&["cat", "/proc/net/tcp", "/proc/net/tcp6", "/proc/net/udp"]).ok();
        Self {
            parts: vec![
                ("link", links.lines().filter_map(|l| l.split(':').nth(1)).map(trimmed).collect()),
                ("address", addresses.lines().map(trimmed).collect()),
                // Broadcast and local routes come and go with their address.
                ("route", routes.lines().map(trimmed).collect()),
                ("rule", rules.lines().map(trimmed).collect()),
                ("mount", mounts.lines().filter_map(|l| l.split(' ').nth(4)).map(trimmed).collect()),
                ("listening socket", sockets.lines().filter_map(listening).collect()),
                ("cgroup", cgroups(&env.root()).into_iter().collect()),
                ("process", processes(env).into_iter().map(|p| format!("{} {}", p.pid, p.name)).collect()),
                ("file", files(&env.root())),
            ],
        }
    }

    /// One line for each thing that is only in one of the two; empty if none.
    pub(crate) fn difference(&self, after: &Self) -> String {
        let mut text = String::new();
        for ((kind, before), (_, after)) in self.parts.iter().zip(&after.parts) {
            for thing in after.difference(before) {
                writeln!(text, "{kind} left behind: {thing}").expect("a string");
            }
            for thing in before.difference(after) {
                writeln!(text, "{kind} gone: {thing}").expect("a string");
            }
        }
        text
    }
}

fn trimmed(text: &str) -> String {
    text.trim().to_owned()
}

/// The local address of a line of `/proc/net/{tcp,udp}` whose socket listens.
fn listening(line: &str) -> Option<String> {
    let mut fields = line.split_whitespace();
    let (local, _, state) = (fields.nth(1)?, fields.next()?, fields.next()?);
    matches!(state, "0A" | "07").then(|| local.to_owned())
}

/// What an installation makes at its first use and keeps: empty folders and locks.
const SKELETON: &[&str] = &[
    "containers",
    "containers/.creating",
    "names",
    "networks",
    "networks/.lock",
    "networks/.rules",
    "networks/by-name",
    "run",
    "run/boot",
    "run/boot.lock",
    "run/c",
    "run/events",
    "run/locks",
    "volumes",
];

/// All files and folders of the state directory, without content.
fn files(root: &Path) -> BTreeSet<String> {
    fn walk(folder: &Path, root: &Path, found: &mut BTreeSet<String>) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            let path = entry.path();
            let name = path.strip_prefix(root).expect("below the root");
            // The content of image layers is not looked at: only that they are there.
            let inside_layer = name.components().count() > 3 && name.starts_with("images/layers");
            if inside_layer {
                continue;
            }
            // Locks stay: to remove one is to pull it from under who waits for it.
            let kept = name.starts_with("run/locks") || SKELETON.iter().any(|kept| name == Path::new(kept));
            if !kept {
                found.insert(name.display().to_string());
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                walk(&path, root, found);
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(root, root, &mut found);
    found
}

/// The cgroups, of all hierarchies, that carry the tag of this installation.
fn cgroups(root: &Path) -> Vec<String> {
    fn walk(folder: &Path, tag: &str, found: &mut Vec<String>) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let path = entry.path();
                if path.to_string_lossy().contains(tag) {
                    found.push(path.display().to_string());
                }
                walk(&path, tag, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(Path::new("/sys/fs/cgroup"), &Root::new(Some(root)).tag(), &mut found);
    found
}

/// Removes what a failed test left in the cgroup trees, the deepest first.
pub(super) fn remove_cgroups(root: &Path) {
    for path in cgroups(root).into_iter().rev() {
        fs::remove_dir(path).ok();
    }
}

/// A process on a test's machine.
pub(crate) struct Process {
    /// Its id as seen from outside.
    pub(crate) pid: u32,
    /// Its command line, or its name.
    pub(crate) name: String,
    /// 1 for a process of the machine itself, more inside its containers.
    pub(crate) depth: usize,
}

/// All processes of the machine and its containers, without those that have ended
/// and wait to be reaped.
pub(super) fn processes(env: &TestEnvironment) -> Vec<Process> {
    let field = |status: &str, name: &str| {
        status.lines().find_map(|l| l.strip_prefix(name)).map(|v| v.trim().to_owned())
    };
    let status_of = |pid: &str| fs::read_to_string(format!("/proc/{pid}/status")).ok();
    let first = env.first_process().to_string();
    let own_depth = status_of("self").and_then(|s| Some(field(&s, "NSpid:")?.split_whitespace().count()));
    // Everything on the machine descends from its first process; a parent is always
    // seen here, because an orphan goes to that first process.
    let mut known = BTreeSet::from([first]);
    let mut all: Vec<(u32, String, String, String, usize)> = Vec::new();
    for entry in fs::read_dir("/proc").expect("proc is mounted").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(status) = name.parse::<u32>().ok().and_then(|_| status_of(&name)) else { continue };
        if field(&status, "State:").is_some_and(|s| s.starts_with('Z')) {
            continue;
        }
        let depth = field(&status, "NSpid:").map_or(0, |v| v.split_whitespace().count());
        let parent = field(&status, "PPid:").unwrap_or_default();
        let program = field(&status, "Name:").unwrap_or_default();
        all.push((name.parse().expect("a number"), name, parent, program, depth));
    }
    loop {
        let before = known.len();
        for (_, name, parent, ..) in &all {
            if known.contains(parent) {
                known.insert(name.clone());
            }
        }
        if known.len() == before {
            break;
        }
    }
    all.into_iter()
        .filter(|(_, id, ..)| known.contains(id))
        .map(|(pid, id, _, name, depth)| {
            // Better than the name, where there is one: a shim's says whose it is.
            let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned();
            let name = if line.is_empty() { name } else { line };
            Process { pid, name, depth: depth.saturating_sub(own_depth.unwrap_or(1)) }
        })
        .collect()
}
