//! The only module with `unsafe`: one safe function per system call that rustix lacks.
//!
//! Owns nothing and knows nothing of ours. Descriptors come and go as
//! `OwnedFd`/`BorrowedFd`; every function returns the bare error number and the
//! caller adds the step and the object.

#![expect(unsafe_code, reason = "raw system calls live here and nowhere else")]

mod bpf;
mod clone;
mod errno;
mod exec;
mod fds;
mod memory;
mod mount;
pub mod netlink;
mod pidfd;
mod sealed;
mod seccomp;
mod signals;

pub use bpf::{BpfInstruction, attach_device_filter};
pub use clone::{
    CloneFlags, Cloned, clone3, exit_now, in_forked_child, is_single_threaded, unshare_cgroup, unshare_mounts,
};
pub use errno::Errno;
pub use exec::{CStringArray, execve};
pub use fds::{close_from, getcwd_raw, set_cloexec_from};
pub use memory::release_idle_memory;
pub use mount::{MountAttributes, mount_setattr};
pub use pidfd::pidfd_exit_status;
pub use sealed::sealed_self;
pub use seccomp::install_seccomp;
pub use signals::{block_all_signals, pidfd_send_signal, reset_signals, send_signal, wait_for_signal};

/// Turns the result of a raw call into a `Result`.
fn check(result: libc::c_long) -> rustix::io::Result<libc::c_long> {
    if result < 0 {
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
        return Err(rustix::io::Errno::from_raw_os_error(errno));
    }
    Ok(result)
}
