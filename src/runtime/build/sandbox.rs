//! The process around one `RUN`: our own executable, re-executed.
//!
//! It connects the network, starts the command, answers its name queries, and
//! waits. It ends with the command, and the command ends with it: when whoever
//! builds goes away or says so, everything is killed. What a killed sandbox
//! leaves is swept by the next command ([`sweep`]): its directory below
//! `run/steps` names cgroup and network, and its lock is free.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use serde::{Deserialize, Serialize};

use crate::runtime::cgroup::Cgroup;
use crate::runtime::error::ShimError;
use crate::runtime::init::{self, LaunchPlan, Launched, Stdio};
use crate::runtime::network::{self, Connected, NetPlan};
use crate::runtime::root::Root;
use crate::runtime::shim::protocol::Channel;
use crate::runtime::sys;
use crate::util::files;
use crate::util::fs::{self, Lock, PathError};

/// Name under which it is executed (`argv[0]`).
pub(super) const ARGV0: &str = "hoist-step";

/// What is to be run.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Begin {
    pub(super) launch: LaunchPlan,
    pub(super) net: NetPlan,
}

/// What the builder says later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Say {
    /// Kill everything.
    Kill,
}

/// What the sandbox says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Heard {
    /// The command has ended; 128 + n for signal n.
    Ended { code: i32, oom: bool },
    /// It never ran.
    Failed { error: ShimError },
}

/// `run/steps/<id>/record`: what to take back when the sandbox was killed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) version: u32,
    pub(super) cgroup: String,
    pub(super) net: NetPlan,
}

/// Runs a step if this process was executed for one.
///
/// Must be called before any thread exists and before anything else reads
/// arguments or standard input.
pub fn dispatch() -> Option<ExitCode> {
    if std::env::args_os().next()? != ARGV0 {
        return None;
    }
    Some(if run().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run() -> std::io::Result<()> {
    // Before anything is opened: what our caller forgot to mark close-on-exec goes.
    sys::close_from(3)?;
    rustix::thread::set_name(c"hoist-step").ok();
    // A Ctrl-C at the terminal is the builder's to handle.
    rustix::process::setsid().ok();
    let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    std::env::set_current_dir("/")?;
    let channel = Channel::new(socket);
    let Some((begin, descriptors)) = channel.receive::<Begin>()? else { return Ok(()) };
    let heard = match execute(&channel, &begin, descriptors, &null) {
        Ok((code, oom)) => Heard::Ended { code, oom },
        Err(error) => Heard::Failed { error },
    };
    channel.send(&heard, &[])
}

/// Gives the exit code, and whether the kernel killed something for lack of memory.
fn execute(
    channel: &Channel,
    begin: &Begin,
    descriptors: Vec<OwnedFd>,
    null: &OwnedFd,
) -> Result<(i32, bool), ShimError> {
    let step = |what: &str, e: std::io::Error| ShimError::Step { text: format!("cannot {what}: {e}") };
    let Ok([lock, stdout, stderr]) = <[OwnedFd; 3]>::try_from(descriptors) else {
        return Err(ShimError::Step { text: "the sandbox was not given its streams".into() });
    };
    let cgroup = Cgroup::at(begin.launch.cgroup.path.clone());
    let result = (|| {
        let mut connected = network::connect(&begin.net)?;
        let streams = Stdio::Fds { stdin: null.as_fd(), stdout: stdout.as_fd(), stderr: stderr.as_fd() };
        let netns = connected.netns.as_ref().map(AsFd::as_fd);
        let launched = init::launch(&begin.launch, streams, netns)?;
        // The builder reads until all writers are gone.
        drop((stdout, stderr));
        attend(channel, &launched, &mut connected).map_err(|e| step("wait for the command", e))?;
        let status = rustix::io::retry_on_intr(|| {
            waitid(WaitId::PidFd(launched.pidfd.as_fd()), WaitIdOptions::EXITED)
        });
        let status = status.map_err(|e| step("collect the command", e.into()))?;
        let code = status
            .and_then(|s| s.exit_status().or(s.terminating_signal().map(|signal| 128 + signal)))
            .unwrap_or(255);
        Ok((code, launched.cgroup.oom_kills() > 0))
    })();
    drop(cgroup.kill());
    let network = network::disconnect(&begin.net);
    drop(cgroup.remove());
    drop(lock);
    network?;
    result
}

/// Turns the network's sources until the command has ended, or kills it when the builder says so or is gone.
fn attend(channel: &Channel, launched: &Launched, connected: &mut Connected) -> std::io::Result<()> {
    let mut listening = true;
    loop {
        let now = Instant::now();
        let due = connected.sources.iter().filter_map(|source| source.deadline()).min();
        let wait = due.map(|due| {
            let left = due.saturating_duration_since(now);
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        let (ended, said, ready) = {
            let mut polled = vec![PollFd::new(&launched.pidfd, PollFlags::IN)];
            polled.extend(
                connected.sources.iter().map(|source| PollFd::from_borrowed_fd(source.fd(), PollFlags::IN)),
            );
            if listening {
                polled.push(PollFd::new(channel, PollFlags::IN));
            }
            match poll(&mut polled, wait.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let has = |at: usize| polled.get(at).is_some_and(|fd| !fd.revents().is_empty());
            let sources = connected.sources.len();
            let ready: Vec<bool> = (0..sources).map(|at| has(1 + at)).collect();
            (has(0), listening && has(1 + sources), ready)
        };
        if ended {
            return Ok(());
        }
        let now = Instant::now();
        for (source, ready) in connected.sources.iter_mut().zip(ready) {
            if ready || source.deadline().is_some_and(|due| due <= now) {
                source.turn();
            }
        }
        if said {
            // The end of the channel and a message mean the same.
            listening = matches!(channel.receive::<Say>(), Ok(Some((Say::Kill, _))));
            drop(launched.cgroup.kill());
        }
    }
}

/// Takes back what killed sandboxes have left.
///
/// # Errors
/// A directory cannot be read, or a network not be left; the others are swept all the same.
pub(crate) fn sweep(root: &Root) -> crate::runtime::error::Result<()> {
    let mut failed = None;
    for id in files::names(&root.steps())? {
        let dir = root.steps().join(&id);
        let lock = dir.join("lock");
        // Without a lock file it is just being made, or just being removed.
        if !lock.exists() {
            continue;
        }
        let Ok(Some(_lock)) = Lock::try_exclusive(&lock) else { continue };
        if let Err(error) = clean(&dir) {
            failed = Some(error);
        }
    }
    failed.map_or(Ok(()), Err)
}

fn clean(dir: &Path) -> crate::runtime::error::Result<()> {
    if let Some(record) = fs::read_json::<Record>(&dir.join("record"))? {
        let cgroup = Cgroup::at(record.cgroup);
        drop(cgroup.kill());
        let network = network::disconnect(&record.net);
        drop(cgroup.remove());
        network?;
    }
    remove_directory(dir)?;
    Ok(())
}

/// Removes a step's directory, its lock last.
pub(super) fn remove_directory(dir: &Path) -> Result<(), PathError> {
    for name in files::names(dir)? {
        if name != "lock" {
            files::remove_file(&dir.join(name))?;
        }
    }
    files::remove_file(&dir.join("lock"))?;
    files::remove_dir_all(dir)
}
