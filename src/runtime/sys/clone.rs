//! Making processes.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::{Errno, Result};

use super::check;

/// `CLONE_*` bits of `clone3(2)`, namespaces mostly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloneFlags(pub u64);

/// Which side of the clone we are.
#[derive(Debug)]
pub enum Cloned {
    /// The new process.
    Child,
    /// The caller.
    Parent {
        /// The new process, in the caller's PID namespace.
        pid: i32,
        /// Its pidfd (close-on-exec).
        pidfd: OwnedFd,
    },
}

/// `CLONE_INTO_CGROUP` (since Linux 5.7), which the libc crate lacks.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Whether the calling process has one thread only.
///
/// `unshare(CLONE_VM)` is a no-op that the kernel refuses with `EINVAL` to a
/// process that shares its address space (unshare(2)), so this costs one cheap call.
pub fn is_single_threaded() -> bool {
    // SAFETY: with CLONE_VM | CLONE_SIGHAND | CLONE_THREAD alone unshare(2) changes nothing.
    unsafe { libc::unshare(libc::CLONE_VM | libc::CLONE_SIGHAND | libc::CLONE_THREAD) == 0 }
}

/// Clones the calling process like `fork`, into new namespaces and, on cgroup v2, into a cgroup.
///
/// The child has a copy of all memory and may run any Rust code, because the
/// caller is checked to be single-threaded: no other thread can hold a lock.
///
/// # Errors
/// `EDEADLK` if the caller has several threads; those of `clone3(2)`.
pub fn clone3(flags: CloneFlags, cgroup: Option<BorrowedFd<'_>>) -> Result<Cloned> {
    if !is_single_threaded() {
        return Err(Errno::DEADLK);
    }
    let mut pidfd: libc::c_int = -1;
    // SAFETY: `clone_args` is plain old data for which all zeroes is a valid value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags.0 | u64::from(libc::CLONE_PIDFD.cast_unsigned());
    args.pidfd = std::ptr::from_mut(&mut pidfd) as u64;
    args.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    // SAFETY: without CLONE_VM the child gets its own copy of the address space and
    // continues on a copy of this stack; `args` and `pidfd` outlive the call.
    let pid = check(unsafe {
        libc::syscall(libc::SYS_clone3, &raw const args, std::mem::size_of::<libc::clone_args>())
    })?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: with CLONE_PIDFD a successful clone3 stored a new descriptor that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Cloned::Parent { pid: i32::try_from(pid).map_err(|_| Errno::OVERFLOW)?, pidfd })
}

/// Makes the caller's current cgroups the root of a new cgroup namespace.
///
/// # Errors
/// Those of `unshare(2)`.
pub fn unshare_cgroup() -> Result<()> {
    // SAFETY: a new cgroup namespace affects neither memory nor descriptors.
    check(libc::c_long::from(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) })).map(drop)
}

/// Gives the calling thread a copy of its mount namespace, and root and working
/// directories of its own.
///
/// The namespace goes away with the last thread or descriptor that is in it.
///
/// # Errors
/// Those of `unshare(2)`.
pub fn unshare_mounts() -> Result<()> {
    // SAFETY: CLONE_NEWNS (which implies CLONE_FS) affects neither memory nor descriptors.
    check(libc::c_long::from(unsafe { libc::unshare(libc::CLONE_NEWNS) })).map(drop)
}

/// Ends the process at once: no destructors, no exit handlers, no flushing.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) does not return and touches no memory of ours.
    unsafe { libc::_exit(code) }
}

/// Runs `work` in a forked child and returns what it wrote with its result, for tests
/// that need a single-threaded process (the test harness has threads).
///
/// glibc's `fork` leaves the allocator usable in the child. A panic in `work` ends the
/// child with code 101; its text is in the test's output. Returns the exit code.
#[doc(hidden)]
pub fn in_forked_child(work: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child runs `work` and ends with _exit, so it never returns into the
    // harness, whose other threads do not exist in it.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork failed");
    if pid == 0 {
        let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or(101);
        exit_now(code);
    }
    let mut status = 0;
    // SAFETY: `status` is valid for writing; the pid is our child's.
    while unsafe { libc::waitpid(pid, &raw mut status, 0) } < 0 {}
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_cannot_be_cloned() {
        // The harness runs a test in a thread of its own.
        assert!(!is_single_threaded());
        assert_eq!(clone3(CloneFlags(0), None).expect_err("refused"), Errno::DEADLK);
    }

    #[test]
    fn a_clone_runs_code_and_its_exit_is_seen_through_the_pidfd() {
        let code = in_forked_child(|| match clone3(CloneFlags(0), None).expect("clone") {
            Cloned::Child => exit_now(i32::try_from(vec![1_u8; 42].len()).expect("small")),
            Cloned::Parent { pidfd, .. } => {
                use std::os::fd::AsFd;
                let status = rustix::process::waitid(
                    rustix::process::WaitId::PidFd(pidfd.as_fd()),
                    rustix::process::WaitIdOptions::EXITED,
                );
                status.expect("wait").and_then(|s| s.exit_status()).unwrap_or(-1)
            }
        });
        assert_eq!(code, 42);
    }
}
