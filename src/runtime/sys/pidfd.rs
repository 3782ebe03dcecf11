//! Exit codes through process descriptors.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::{Errno, Result};

/// The wait status of a process that has been reaped, by whomever; `None` while it has not been.
///
/// # Errors
/// `ENOTTY` or `EINVAL` on kernels before 6.15.
///
/// # Source
/// `include/uapi/linux/pidfd.h`: `PIDFD_GET_INFO`, `PIDFD_INFO_EXIT`, `struct pidfd_info` version 0.
pub fn pidfd_exit_status(pidfd: BorrowedFd<'_>) -> Result<Option<i32>> {
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        mask: u64,
        cgroup: u64,
        ids: [u32; 11],
        exit_code: i32,
    }
    const EXIT: u64 = 1 << 3;
    // _IOWR(0xff, 11, struct pidfd_info) with the 64 bytes of version 0.
    const GET_INFO: libc::c_ulong = 0xc040_ff0b;
    let mut info = Info { mask: EXIT, ..Info::default() };
    // SAFETY: the request's number says 64 bytes, which is the size of `Info`; the kernel writes no more.
    let done = unsafe { libc::ioctl(pidfd.as_raw_fd(), GET_INFO, &raw mut info) };
    if done < 0 {
        return Err(last_error());
    }
    Ok((info.mask & EXIT != 0).then_some(info.exit_code))
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;

    #[test]
    fn the_exit_of_a_reaped_process_can_be_read() {
        let mut child =
            std::process::Command::new("/bin/sh").args(["-c", "kill -STOP $$; exit 42"]).spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        // It may not have stopped itself yet; SIGCONT is remembered only by a stopped process, so repeat.
        while child.try_wait().unwrap().is_none() {
            super::super::pidfd_send_signal(pidfd.as_fd(), libc::SIGCONT).unwrap();
            std::thread::yield_now();
        }
        assert_eq!(super::super::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL), Err(Errno::SRCH));
        match pidfd_exit_status(pidfd.as_fd()) {
            Ok(status) => assert_eq!(status, Some(42 << 8)),
            Err(error) => assert!(matches!(error, Errno::NOTTY | Errno::INVAL), "{error}"),
        }
    }
}
