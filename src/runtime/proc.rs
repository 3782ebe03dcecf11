//! What `/proc` says about single processes.

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::runtime::state::Process;
use crate::runtime::sys;

/// Start time of a process in clock ticks after boot; `None` when there is none of that pid.
///
/// Together with the pid it names a process: a pid is used again, the pair is not.
///
/// # Source
/// `proc_pid_stat(5)`, field 22.
pub fn birth(pid: i32) -> Option<u64> {
    field(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?, 22)?.parse().ok()
}

/// A field of a `stat` line, counted from 1; the second one is the command in parentheses.
fn field(stat: &str, number: usize) -> Option<&str> {
    // The command may hold spaces and parentheses; the fields behind its last one may not.
    stat[stat.rfind(')')? + 1..].split_ascii_whitespace().nth(number.checked_sub(3)?)
}

/// Whether that very process exists and is no zombie.
pub fn is_alive(process: Process) -> bool {
    let line = std::fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap_or_default();
    field(&line, 22).and_then(|f| f.parse().ok()) == Some(process.birth)
        && !matches!(field(&line, 3), Some("Z" | "X"))
}

/// A namespace of a process: `net`, `pid`, `mnt`, …
///
/// # Errors
/// The process is gone, or we may not look.
pub fn open_namespace(pid: i32, kind: &str) -> io::Result<OwnedFd> {
    Ok(File::open(format!("/proc/{pid}/ns/{kind}"))?.into())
}

/// How a process that is not our child has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// Exit code, 128 + n for signal n.
    Code(i32),
    /// The kernel does not tell (before 6.15, when somebody has reaped it already).
    Unknown,
}

/// The exit of a process whose pidfd has become readable.
pub fn foreign_exit(process: Process, pidfd: BorrowedFd<'_>) -> Foreign {
    // While nobody has reaped it, its stat line has the status (field 52).
    let line = std::fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap_or_default();
    let ours = field(&line, 22).and_then(|f| f.parse().ok()) == Some(process.birth);
    if ours
        && field(&line, 3) == Some("Z")
        && let Some(status) = field(&line, 52).and_then(|f| f.parse().ok())
    {
        return Foreign::Code(decode(status));
    }
    match sys::pidfd_exit_status(pidfd) {
        Ok(Some(status)) => Foreign::Code(decode(status)),
        Ok(None) | Err(_) => Foreign::Unknown,
    }
}

/// A wait status as an exit code.
fn decode(status: i32) -> i32 {
    match status & 0x7f {
        0 => (status >> 8) & 0xff,
        signal => 128 + signal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_behind_the_command() {
        let line = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        assert_eq!(field(line, 3), Some("S"));
        assert_eq!(field(line, 22), Some("4242"));
        assert!(birth(i32::try_from(std::process::id()).unwrap()).is_some());
        assert_eq!(birth(i32::MAX), None);
    }

    #[test]
    fn statuses_are_decoded_as_a_shell_does() {
        assert_eq!(decode(42 << 8), 42);
        assert_eq!(decode(9), 137);
        assert_eq!(decode(0x8b), 139, "with a core dump");
    }

    #[test]
    fn the_status_of_a_zombie_can_be_read() {
        let mut child = std::process::Command::new("/bin/sh").args(["-c", "exit 7"]).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let process = Process { pid, birth: birth(pid).unwrap(), started: jiff::Timestamp::now() };
        let pidfd = rustix::process::pidfd_open(
            rustix::process::Pid::from_raw(pid).unwrap(),
            rustix::process::PidfdFlags::empty(),
        )
        .unwrap();
        let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut fds, None).unwrap();
        use std::os::fd::AsFd as _;
        assert_eq!(foreign_exit(process, pidfd.as_fd()), Foreign::Code(7));
        child.wait().unwrap();
    }
}
