//! The minimal init of a container with `init: true`.
//!
//! PID 1 is a process of ours that never executes anything: it starts the command
//! as its child, forwards signals to it, reaps whatever is orphaned and ends with
//! the command's exit code. It has the command's identity and filter, so being it
//! gains nothing; its memory cannot be read (not dumpable) and it holds no
//! descriptors but the standard streams.

use rustix::process::{DumpableBehavior, Pid, WaitOptions, wait};

use super::{ProcessPlan, identity};
use crate::runtime::sys;

/// Serves as PID 1 for the command `pid`. All signals must be blocked already. Never returns.
pub(super) fn run(pid: i32, process: &ProcessPlan) -> ! {
    // If this process cannot take the command's identity it must not serve at all.
    if prepare(process).is_err() {
        sys::exit_now(128);
    }
    let Some(command) = Pid::from_raw(pid) else { sys::exit_now(128) };
    // It was cloned from the shim, with everything the shim had mapped.
    sys::release_idle_memory();
    loop {
        match sys::wait_for_signal() {
            Ok(libc::SIGCHLD) => reap(command),
            Ok(signal) => forward(command, signal),
            Err(_) => {}
        }
    }
}

fn prepare(process: &ProcessPlan) -> Result<(), super::LaunchError> {
    identity::assume(process)?;
    identity::assume_filter(process)?;
    // A change of user resets it.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .and_then(|()| rustix::process::set_parent_process_death_signal(None))
        .and_then(|()| sys::close_from(3))
        .map_err(|e| super::LaunchError::Setup { action: "become the init process".into(), source: e.into() })
}

/// Collects all dead children; ends with the command.
fn reap(command: Pid) {
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == command && !status.stopped() && !status.continued() {
            let code = status.exit_status().or_else(|| status.terminating_signal().map(|s| 128 + s));
            sys::exit_now(code.unwrap_or(128));
        }
    }
}

fn forward(command: Pid, signal: i32) {
    // Not ours to forward: they are about this process's own doings on the terminal.
    if matches!(signal, libc::SIGTTIN | libc::SIGTTOU) {
        return;
    }
    sys::send_signal(command, signal).ok();
}
