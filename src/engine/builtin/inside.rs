//! What is inside a container, in the engine's words: processes, usage, files.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::engine::{PathKind, PathState, ProcessTable, UsageState};
use crate::runtime::files::FileState;
use crate::runtime::processes::ProcessState;
use crate::runtime::usage::Usage;

/// The columns of `ps -ef`, which is what a Docker Engine shows.
pub(super) fn table(processes: &[ProcessState]) -> ProcessTable {
    let titles = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let now = Timestamp::now().to_zoned(TimeZone::system());
    let row = |process: &ProcessState| {
        vec![
            user_name(process.uid, &users),
            process.pid.to_string(),
            process.parent.to_string(),
            process.utilization.to_string(),
            start_time(process.started, &now),
            process.terminal.clone(),
            cpu_time(process.cpu.as_secs()),
            process.command.clone(),
        ]
    };
    ProcessTable { titles: titles.map(str::to_owned).into(), rows: processes.iter().map(row).collect() }
}

/// A user's name on the host, its number when it has none; cut to eight characters as `ps` does.
fn user_name(uid: u32, users: &str) -> String {
    let number = uid.to_string();
    let entry = users.lines().find(|line| line.split(':').nth(2) == Some(&number));
    match entry.and_then(|line| line.split(':').next()) {
        None | Some("") => number,
        Some(name) if name.chars().count() <= 8 => name.to_owned(),
        Some(name) => name.chars().take(7).chain(['+']).collect(),
    }
}

/// The time of day, on an earlier day the day, in an earlier year the year.
fn start_time(started: Timestamp, now: &jiff::Zoned) -> String {
    let started = started.to_zoned(now.time_zone().clone());
    let form = if started.year() != now.year() {
        "%Y"
    } else if started.date() != now.date() {
        "%b%d"
    } else {
        "%H:%M"
    };
    started.strftime(form).to_string()
}

fn cpu_time(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let days = if days > 0 { format!("{days}-") } else { String::new() };
    format!("{days}{hours:02}:{minutes:02}:{:02}", seconds % 60)
}

/// A snapshot that was taken at `at`.
pub(super) fn usage(usage: &Usage, at: Timestamp) -> UsageState {
    let (group, (received, sent)) = (&usage.group, usage.network.unwrap_or_default());
    UsageState {
        at,
        cpu: group.cpu.usage,
        memory: group.memory.usage.saturating_sub(group.memory.inactive_file),
        memory_limit: group.memory.limit.unwrap_or(usage.machine_memory).min(usage.machine_memory),
        received,
        sent,
        read: group.block.read_bytes,
        written: group.block.written_bytes,
        tasks: group.pids.current,
    }
}

pub(super) fn path_state(found: FileState) -> PathState {
    use rustix::fs::FileType;
    let kind = match FileType::from_raw_mode(found.mode) {
        FileType::RegularFile => PathKind::File,
        FileType::Directory => PathKind::Directory,
        FileType::Symlink => PathKind::Link,
        _ => PathKind::Special,
    };
    PathState { kind, size: found.size, link: found.link }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_those_of_ps() {
        let users = "root:x:0:0::/root:/bin/sh\nsystemd-network:x:998:998::/:/bin/false\n";
        assert_eq!(user_name(0, users), "root");
        assert_eq!(user_name(998, users), "systemd+");
        assert_eq!(user_name(1000, users), "1000");
        assert_eq!(cpu_time(3661), "01:01:01");
        assert_eq!(cpu_time(90_061), "1-01:01:01");
        let now: Timestamp = "2026-11-24T12:00:00Z".parse().expect("time");
        let now = now.to_zoned(TimeZone::UTC);
        let at = |text: &str| start_time(text.parse().expect("time"), &now);
        assert_eq!(at("2026-11-24T03:04:05Z"), "03:04");
        assert_eq!(at("2026-11-04T03:04:05Z"), "Nov04");
        assert_eq!(at("2025-11-04T03:04:05Z"), "2025");
    }
}
