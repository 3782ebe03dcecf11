//! Signal dispositions and masks of a process about to run something else.

use rustix::io::Result;

/// Highest signal number.
const LAST_SIGNAL: libc::c_int = 64;

/// Puts all signals back to their default action and unblocks them.
///
/// Ignored signals stay ignored over `execve`, and Rust ignores `SIGPIPE`.
pub fn reset_signals() {
    for signal in 1..=LAST_SIGNAL {
        // SAFETY: SIG_DFL runs no code of ours. The call fails for SIGKILL, SIGSTOP and
        // the C library's own signals, which cannot have been changed either.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    set_mask(false);
}

/// Blocks all signals, to be taken with [`wait_for_signal`].
pub fn block_all_signals() {
    set_mask(true);
}

fn set_mask(full: bool) {
    // SAFETY: `sigset_t` is plain old data.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    if full {
        // SAFETY: `set` is valid for writing.
        unsafe { libc::sigfillset(&raw mut set) };
    }
    // SAFETY: `set` is initialised; no old mask is asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) };
}

/// Sends any signal, real-time ones included (rustix knows the named ones only).
///
/// # Errors
/// Those of `kill(2)`.
pub fn send_signal(process: rustix::process::Pid, signal: i32) -> Result<()> {
    // SAFETY: sending a signal touches no memory of ours.
    let result = unsafe { libc::kill(process.as_raw_nonzero().get(), signal) };
    super::check(libc::c_long::from(result)).map(drop)
}

/// Sends any signal to the process of a pidfd.
///
/// # Errors
/// Those of `pidfd_send_signal(2)`; `ESRCH` when it is gone.
pub fn pidfd_send_signal(pidfd: std::os::fd::BorrowedFd<'_>, signal: i32) -> Result<()> {
    use std::os::fd::AsRawFd;
    let no_details = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed and means what kill(2) would send.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, no_details, 0) };
    super::check(result).map(drop)
}

/// Waits for any blocked signal and takes it.
///
/// # Errors
/// `EINTR` and the like; call again.
pub fn wait_for_signal() -> Result<i32> {
    // SAFETY: `sigset_t` is plain old data.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is valid for writing.
    unsafe { libc::sigfillset(&raw mut set) };
    // SAFETY: `set` is initialised; no siginfo is asked for.
    let signal = unsafe { libc::sigwaitinfo(&raw const set, std::ptr::null_mut()) };
    super::check(libc::c_long::from(signal))?;
    Ok(signal)
}
