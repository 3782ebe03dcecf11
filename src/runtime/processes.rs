//! The processes of a container as `ps -ef` shows them: read from procfs, no program is run.

use std::time::Duration;

use jiff::Timestamp;

use crate::runtime::Runtime;
use crate::runtime::cgroup::Cgroup;
use crate::runtime::error::{Result, RuntimeError};

/// One process, seen from the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessState {
    /// Effective user.
    pub uid: u32,
    /// Process id.
    pub pid: i32,
    /// Parent's process id.
    pub parent: i32,
    /// Percentage of its lifetime that it spent on a processor.
    pub utilization: u64,
    /// When it was made.
    pub started: Timestamp,
    /// Its terminal, `pts/0`; `?` for none.
    pub terminal: String,
    /// Processor time so far.
    pub cpu: Duration,
    /// Its words joined by blanks, or `[name]` when it has none.
    pub command: String,
}

impl Runtime {
    /// The processes of a running container, extra ones included, by process id.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`], [`RuntimeError::NotRunning`].
    pub fn processes(&self, container: &str) -> Result<Vec<ProcessState>> {
        let found = self.inspect(container)?.ok_or_else(|| RuntimeError::NotFound(container.to_owned()))?;
        if found.state.life.process().is_none() {
            return Err(RuntimeError::NotRunning {
                container: container.to_owned(),
                state: found.state.life.word().to_owned(),
            });
        }
        let group = Cgroup::at(self.cgroup_path(&found.record.spec, &found.record.id));
        let mut pids = group.processes();
        pids.sort_unstable();
        pids.dedup();
        let clock = Clock::now();
        // One that has ended since is left out.
        Ok(pids.into_iter().filter_map(|pid| describe(pid, &clock)).collect())
    }
}

/// What turns clock ticks since boot into times.
struct Clock {
    ticks_per_second: u64,
    since_boot: Duration,
    now: Timestamp,
}

impl Clock {
    fn now() -> Self {
        let since_boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Self {
            ticks_per_second: rustix::param::clock_ticks_per_second().max(1),
            since_boot: Duration::new(
                u64::try_from(since_boot.tv_sec).unwrap_or(0),
                u32::try_from(since_boot.tv_nsec).unwrap_or(0),
            ),
            now: Timestamp::now(),
        }
    }

    fn duration(&self, ticks: u64) -> Duration {
        Duration::from_millis(ticks.saturating_mul(1000) / self.ticks_per_second)
    }
}

fn describe(pid: i32, clock: &Clock) -> Option<ProcessState> {
    use std::os::unix::fs::MetadataExt as _;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The directory belongs to the effective user, unless the process may not be dumped.
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let uid = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().nth(1)?.parse().ok())
        .or_else(|| Some(std::fs::metadata(format!("/proc/{pid}")).ok()?.uid()))?;
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    parse(&stat, &words, uid, clock)
}

/// # Source
/// `proc_pid_stat(5)`: fields 1–4 (pid, comm, state, ppid), 7 (`tty_nr`), 14 and 15 (utime, stime), 22 (starttime).
fn parse(stat: &str, words: &[u8], uid: u32, clock: &Clock) -> Option<ProcessState> {
    let (open, close) = (stat.find('(')?, stat.rfind(')')?);
    let name = &stat[open + 1..close];
    let fields: Vec<&str> = stat[close + 1..].split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let cpu = clock.duration(number(14)? + number(15)?);
    let age = clock.since_boot.saturating_sub(clock.duration(number(22)?));
    let utilization = match age.as_millis() {
        0 => 0,
        age => u64::try_from(cpu.as_millis() * 100 / age).unwrap_or(u64::MAX),
    };
    let mut command = if words.iter().all(|byte| *byte == 0) {
        format!("[{name}]")
    } else {
        let end = words.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        words[..end]
            .split(|byte| *byte == 0)
            .map(String::from_utf8_lossy)
            .collect::<Vec<_>>()
            .join(" ")
            .replace(|c: char| c.is_control(), "?")
    };
    if fields.first() == Some(&"Z") {
        command.push_str(" <defunct>");
    }
    Some(ProcessState {
        uid,
        pid: stat[..open].trim().parse().ok()?,
        parent: fields.get(1)?.parse().ok()?,
        utilization,
        started: clock.now - jiff::SignedDuration::try_from(age).ok()?,
        terminal: terminal(fields.get(4)?.parse().ok()?),
        cpu,
        command,
    })
}

/// The name of a terminal by its device number.
///
/// # Source
/// `proc_pid_stat(5)` for the bits; `devices.txt` of the kernel: 4 is consoles and serial lines, 136–143 pseudo-terminals.
fn terminal(number: i64) -> String {
    let (major, minor) = ((number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & 0xf_ff00));
    match major {
        136..=143 => format!("pts/{}", minor + (major - 136) * 256),
        4 if minor < 64 => format!("tty{minor}"),
        4 => format!("ttyS{}", minor - 64),
        _ => "?".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_is_understood() {
        let clock = Clock {
            ticks_per_second: 100,
            since_boot: Duration::from_secs(1000),
            now: "2026-01-01T01:00:00Z".parse().expect("time"),
        };
        let stat = "42 (a) b) S 7 42 42 34816 42 4194304 1 2 3 4 1500 500 0 0 20 0 1 0 96000 1 1";
        let found = parse(stat, b"sh\0-c\0sleep 1\0", 5, &clock).expect("parsed");
        assert_eq!((found.pid, found.parent, found.uid), (42, 7, 5));
        assert_eq!(found.terminal, "pts/0");
        assert_eq!(found.cpu, Duration::from_secs(20));
        assert_eq!(found.utilization, 50, "20 of 40 seconds");
        assert_eq!(found.started.to_string(), "2026-01-01T00:59:20Z");
        assert_eq!(found.command, "sh -c sleep 1");
        let zombie = parse(&stat.replace(" S ", " Z "), b"", 5, &clock).expect("parsed");
        assert_eq!(zombie.command, "[a) b] <defunct>");
    }

    #[test]
    fn we_find_ourselves() {
        let own = i32::try_from(std::process::id()).expect("a pid");
        let found = describe(own, &Clock::now()).expect("we live");
        assert_eq!(found.uid, rustix::process::geteuid().as_raw());
        assert!(Timestamp::now().duration_since(found.started).as_secs() < 24 * 3600);
    }
}
