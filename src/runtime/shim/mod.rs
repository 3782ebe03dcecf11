//! The supervisor of one container: our own executable, re-executed.
//!
//! Owns the container's process from its first system call to its last: starts
//! init, keeps the standard streams, writes the log, reaps, applies the restart
//! policy, probes its health, turns the network's [`Source`](super::Source)s
//! and serves a control socket. Does not read anything a user wrote: its [`plan`]
//! is resolved. Single-threaded, because it clones processes that run Rust code.
//!
//! It ends with its container. While it lives it holds the lock of the run
//! directory; when it is killed the container goes on and any command starts
//! another one that takes over (`protocol::Hello::adopt`).

pub(crate) mod finish;
pub mod plan;
pub(crate) mod protocol;

mod attach;
mod clients;
mod health;
mod policy;
mod stdio;
mod supervise;

use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use rustix::fs::{Mode, OFlags, open};

use crate::runtime::container::Containers;
use crate::runtime::error::ShimError;
use crate::runtime::sys;
use crate::util::fs::Lock;
use protocol::{Channel, Hello, Reply};
use supervise::{Begin, Supervisor};

/// Name under which a shim is executed (`argv[0]`).
pub(crate) const ARGV0: &str = "hoist-shim";

/// Runs the shim if this process was executed as one.
///
/// Must be called before any thread exists and before anything else reads
/// arguments or standard input.
pub fn dispatch() -> Option<ExitCode> {
    if std::env::args_os().next()? != ARGV0 {
        return None;
    }
    Some(match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

fn run() -> std::io::Result<()> {
    // Before anything is opened: what our caller forgot to mark close-on-exec goes.
    sys::close_from(3)?;
    // Executed through a descriptor its name would be the descriptor's number.
    rustix::thread::set_name(c"hoist-shim").ok();
    // Alone it is a session leader already only when it was started by hand.
    rustix::process::setsid().ok();
    let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    drop(null);
    std::env::set_current_dir("/")?;
    let channel = Channel::new(socket);
    let Some((hello, descriptors)) = channel.receive::<Hello>()? else { return Ok(()) };
    let reply = match begin(hello, descriptors) {
        Ok(supervisor) => {
            drop(channel.send(&Reply::Done, &[]));
            drop(channel);
            supervisor.turn_until_over();
            return Ok(());
        }
        Err(error) => Reply::Failed { error },
    };
    channel.send(&reply, &[])
}

fn begin(hello: Hello, descriptors: Vec<OwnedFd>) -> Result<Supervisor, ShimError> {
    let mut descriptors = descriptors.into_iter();
    let containers = Containers::new(&hello.root);
    let path = containers.live_dir(&hello.id).join("lock");
    let lock = descriptors
        .next()
        .map(|fd| Lock::inherited(fd.into(), &path))
        .ok_or_else(|| ShimError::Step { text: "the supervisor was not given its lock".into() })?;
    let begin = Begin { containers, id: hello.id, lock, adopt: hello.adopt };
    Supervisor::begin(begin, hello.attachments, &mut descriptors)
}
