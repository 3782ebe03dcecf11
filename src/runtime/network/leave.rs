//! Taking a network out of the kernel.
//!
//! The kernel needs 30–50 ms to free a bridge, in the process that asks for it,
//! though the bridge is out of sight after one. So a child does it: this
//! executable under another name, told by [`dispatch`]. The command goes on as
//! soon as the kernel reports that the bridge is gone.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::connect::{
    FORWARD4, FORWARD6, delete_elements, forwarding_marker, rules_of, rules_path, sysctl, we_forward,
};
use super::error::NetworkError;
use super::netlink::{Batch, Socket};
use super::store::{Network, Networks};
use super::table::{self, Elements};
use super::{foreign, route};
use crate::runtime::root::Root;
use crate::util::files;
use crate::util::fs::Lock;

/// Name under which the child is executed (`argv[0]`).
const ARGV0: &str = "hoist-network";

/// Whether this executable can be the child: it called [`dispatch`] first.
static DISPATCHED: AtomicBool = AtomicBool::new(false);

/// Does the removal if this process was executed for it. Must be called before
/// anything else reads the arguments. A program that does not call it waits for
/// the kernel itself.
pub fn dispatch() -> Option<ExitCode> {
    DISPATCHED.store(true, Ordering::Relaxed);
    let mut arguments = std::env::args_os();
    if arguments.next()? != ARGV0 {
        return None;
    }
    let data = arguments.next()?;
    let id = arguments.next()?.into_string().ok()?;
    let root = Root::new((data != "-").then_some(Path::new(&data)));
    let done = Networks::new(&root)
        .load(&id)
        .and_then(|network| network.map_or(Ok(()), |network| clear(&root, &network)));
    Some(if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Removes what a network has in the kernel: the accepts in other firewalls, its
/// elements or, with the last network, the table, and the bridge with its ports.
/// The caller has made sure that nobody uses it and that its name is gone.
pub(super) fn remove(root: &Root, network: &Network) -> Result<(), NetworkError> {
    if network.driver == "bridge" && DISPATCHED.load(Ordering::Relaxed) {
        let host = Socket::route()?;
        if let Some(link) = route::link(&host, &network.bridge)? {
            // Whatever keeps the child from its work keeps it also from ours, which tells the reason.
            if let Ok(true) = delegate(root, network, link.index) {
                return Ok(());
            }
        }
    }
    clear(root, network)
}

/// Lets a child do the work; `true` once the bridge is gone.
fn delegate(root: &Root, network: &Network, index: u32) -> Result<bool, NetworkError> {
    const PATIENCE: Duration = Duration::from_secs(10);
    const STEP: &str = "remove a network's bridge";
    let notices = Socket::route()?;
    notices.subscribe(route::LINK_NOTICES)?;
    let default = Root::new(None);
    let data = if *root == default { Path::new("-") } else { root.data() };
    let child = Command::new("/proc/self/exe")
        .arg0(ARGV0)
        .arg(data)
        .arg(&network.id)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // An interrupt at the terminal is for us alone.
        .process_group(0)
        .spawn()
        .map_err(NetworkError::step(STEP))?;
    let ended = pidfd(&child)?;
    reap(child);
    let deadline = Instant::now() + PATIENCE;
    while let Some(left) = deadline.checked_duration_since(Instant::now()) {
        let timeout = Timespec::try_from(left).expect("ten seconds fit");
        let mut fds =
            [PollFd::from_borrowed_fd(notices.as_fd(), PollFlags::IN), PollFd::new(&ended, PollFlags::IN)];
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&timeout)))
            .map_err(NetworkError::step(STEP))?;
        let over = fds[1].revents().contains(PollFlags::IN);
        if route::reports_removal(&notices, index) {
            return Ok(true);
        }
        if over {
            return Ok(route::link_by_index(&Socket::route()?, index)?.is_none());
        }
    }
    Ok(false)
}

fn pidfd(child: &Child) -> Result<OwnedFd, NetworkError> {
    rustix::process::pidfd_open(rustix::process::Pid::from_child(child), rustix::process::PidfdFlags::empty())
        .map_err(NetworkError::step("watch a child process"))
}

/// Collects the child when it ends; a command that ends first leaves that to init.
fn reap(mut child: Child) {
    std::thread::spawn(move || child.wait().is_ok());
}

/// The work itself.
fn clear(root: &Root, network: &Network) -> Result<(), NetworkError> {
    let _lock = Lock::exclusive(&rules_path(root))?;
    let last = Networks::new(root).list()?.is_empty();
    if network.driver == "bridge" {
        let netfilter = Socket::kept()?;
        foreign::withdraw(root, &netfilter, &network.bridge)?;
        if !last {
            let mut elements = Elements::default();
            elements.network(&rules_of(network));
            delete_elements(&netfilter, &table::name(root), &elements)?;
        }
    }
    if last {
        leave_host(root, network)?;
    }
    if network.driver == "bridge" {
        let host = Socket::route()?;
        if route::link(&host, &network.bridge)?.is_some_and(|link| link.kind == "bridge") {
            let mut batch = Batch::default();
            route::delete_group(&mut batch, network.group());
            host.run(&mut batch)?;
        }
    }
    Ok(())
}

/// With the last network: removes the table, and stops forwarding if we turned
/// it on and no other bridge could need it.
fn leave_host(root: &Root, network: &Network) -> Result<(), NetworkError> {
    table::remove(&*Socket::kept()?, &table::name(root))?;
    if we_forward(root)? {
        let others = route::links(&Socket::route()?)?
            .iter()
            .any(|link| link.kind == "bridge" && link.name != network.bridge);
        if !others {
            sysctl(FORWARD4, "0")?;
            if Path::new("/proc/sys").join(FORWARD6).exists() {
                sysctl(FORWARD6, "0")?;
            }
        }
        files::remove_file(&forwarding_marker(root))?;
    }
    Ok(())
}
