//! What a group uses.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Cgroup, Layout};

/// A snapshot of what a group uses. What the machine does not account is zero or none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CgroupStats {
    /// Processor time.
    pub cpu: CpuStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Tasks.
    pub pids: PidsStats,
    /// Block devices.
    pub block: BlockStats,
}

/// Processor time since the group was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuStats {
    /// All of it.
    pub usage: Duration,
    /// In user mode.
    pub user: Duration,
    /// In kernel mode.
    pub system: Duration,
    /// Scheduling periods in which the group ran under a quota.
    pub periods: u64,
    /// Of these, those in which the quota ran out.
    pub throttled_periods: u64,
    /// Time the group had to wait for its quota.
    pub throttled: Duration,
}

/// Memory in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// Charged to the group, page cache included.
    pub usage: u64,
    /// Page cache that has not been used for a while. `docker stats` shows `usage` less this.
    pub inactive_file: u64,
    /// Anonymous memory.
    pub anonymous: u64,
    /// Highest usage.
    pub peak: u64,
    /// Limit; none is unlimited.
    pub limit: Option<u64>,
    /// Processes killed for want of memory.
    pub oom_kills: u64,
}

/// Tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PidsStats {
    /// Tasks now.
    pub current: u64,
    /// Limit; none is unlimited.
    pub limit: Option<u64>,
}

/// Traffic with block devices, all devices together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BlockStats {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Read operations.
    pub reads: u64,
    /// Write operations.
    pub writes: u64,
}

impl Cgroup {
    /// What the group uses now; all zero if it does not exist.
    pub fn stats(&self) -> CgroupStats {
        let layout = Layout::get();
        CgroupStats {
            cpu: self.cpu(layout),
            memory: self.memory(layout),
            pids: self.pids(layout),
            block: self.block(layout),
        }
    }

    /// How many processes of the group the kernel killed for want of memory.
    pub fn oom_kills(&self) -> u64 {
        let layout = Layout::get();
        match self.of(layout, "memory") {
            Some((directory, true)) => field(&text(&directory.join("memory.events")), "oom_kill"),
            Some((directory, false)) => field(&text(&directory.join("memory.oom_control")), "oom_kill"),
            None => 0,
        }
    }

    /// The group's directory for a controller and whether it is on v2.
    fn of(&self, layout: &Layout, controller: &str) -> Option<(PathBuf, bool)> {
        if let Some(hierarchy) = layout.legacy(controller) {
            return Some((self.directory(hierarchy), false));
        }
        let unified = layout.unified().filter(|h| h.has(controller))?;
        Some((self.directory(unified), true))
    }

    fn cpu(&self, layout: &Layout) -> CpuStats {
        let mut stats = CpuStats::default();
        if let Some(hierarchy) = layout.legacy("cpuacct") {
            let directory = self.directory(hierarchy);
            stats.usage = Duration::from_nanos(number(&directory.join("cpuacct.usage")));
            stats.user = Duration::from_nanos(number(&directory.join("cpuacct.usage_user")));
            stats.system = Duration::from_nanos(number(&directory.join("cpuacct.usage_sys")));
        } else if let Some(unified) = layout.unified() {
            // The base numbers are there without the cpu controller, too.
            let text = text(&self.directory(unified).join("cpu.stat"));
            stats.usage = Duration::from_micros(field(&text, "usage_usec"));
            stats.user = Duration::from_micros(field(&text, "user_usec"));
            stats.system = Duration::from_micros(field(&text, "system_usec"));
        }
        if let Some((directory, unified)) = self.of(layout, "cpu") {
            let text = text(&directory.join("cpu.stat"));
            stats.periods = field(&text, "nr_periods");
            stats.throttled_periods = field(&text, "nr_throttled");
            stats.throttled = if unified {
                Duration::from_micros(field(&text, "throttled_usec"))
            } else {
                Duration::from_nanos(field(&text, "throttled_time"))
            };
        }
        stats
    }

    fn memory(&self, layout: &Layout) -> MemoryStats {
        let Some((directory, unified)) = self.of(layout, "memory") else { return MemoryStats::default() };
        let stat = text(&directory.join("memory.stat"));
        let oom_kills = self.oom_kills();
        if unified {
            MemoryStats {
                usage: number(&directory.join("memory.current")),
                inactive_file: field(&stat, "inactive_file"),
                anonymous: field(&stat, "anon"),
                peak: number(&directory.join("memory.peak")),
                limit: limit(&directory.join("memory.max")),
                oom_kills,
            }
        } else {
            MemoryStats {
                usage: number(&directory.join("memory.usage_in_bytes")),
                inactive_file: field(&stat, "total_inactive_file"),
                anonymous: field(&stat, "total_rss"),
                peak: number(&directory.join("memory.max_usage_in_bytes")),
                // Unlimited is the largest multiple of a page that fits a signed word.
                limit: limit(&directory.join("memory.limit_in_bytes")).filter(|l| *l < 1 << 62),
                oom_kills,
            }
        }
    }

    fn pids(&self, layout: &Layout) -> PidsStats {
        let Some((directory, _)) = self.of(layout, "pids") else { return PidsStats::default() };
        PidsStats {
            current: number(&directory.join("pids.current")),
            limit: limit(&directory.join("pids.max")),
        }
    }

    fn block(&self, layout: &Layout) -> BlockStats {
        if let Some(hierarchy) = layout.legacy("blkio") {
            let directory = self.directory(hierarchy);
            let bytes = text(&directory.join("blkio.throttle.io_service_bytes_recursive"));
            let operations = text(&directory.join("blkio.throttle.io_serviced_recursive"));
            return BlockStats {
                read_bytes: legacy_sum(&bytes, "Read"),
                written_bytes: legacy_sum(&bytes, "Write"),
                reads: legacy_sum(&operations, "Read"),
                writes: legacy_sum(&operations, "Write"),
            };
        }
        let Some(unified) = layout.unified() else { return BlockStats::default() };
        unified_block(&text(&self.directory(unified).join("io.stat")))
    }
}

fn text(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_default()
}

fn number(file: &Path) -> u64 {
    text(file).trim().parse().unwrap_or(0)
}

/// A limit file's number; `max` is none.
fn limit(file: &Path) -> Option<u64> {
    text(file).trim().parse().ok()
}

/// The number behind `name` in a `name value` file.
fn field(text: &str, name: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok()).unwrap_or(0)
}

/// The sum over all devices of a v1 `8:0 Read 1234` file.
fn legacy_sum(text: &str, operation: &str) -> u64 {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (_device, name, value) = (words.next()?, words.next()?, words.next()?);
            (name == operation).then(|| value.parse::<u64>().ok()).flatten()
        })
        .sum()
}

/// The sum over all devices of a v2 `8:0 rbytes=1 wbytes=2 rios=3 wios=4 …` file.
fn unified_block(text: &str) -> BlockStats {
    let mut stats = BlockStats::default();
    for pair in text.lines().flat_map(str::split_whitespace).filter_map(|word| word.split_once('=')) {
        let value: u64 = pair.1.parse().unwrap_or(0);
        match pair.0 {
            "rbytes" => stats.read_bytes += value,
            "wbytes" => stats.written_bytes += value,
            "rios" => stats.reads += value,
            "wios" => stats.writes += value,
            _ => {}
        }
    }
    stats
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "oom 3\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(field(text, "oom_kill"), 2);
        assert_eq!(field(text, "oom"), 3);
        assert_eq!(field(text, "missing"), 0);
    }

    #[test]
    fn block_devices_are_summed() {
        let v1 = "254:0 Read 4096\n254:0 Write 10\n254:0 Total 4106\n7:0 Read 4\nTotal 4110\n";
        assert_eq!(legacy_sum(v1, "Read"), 4100);
        let v2 =
            "254:0 rbytes=100 wbytes=7 rios=3 wios=1 dbytes=0 dios=0\n7:0 rbytes=1 wbytes=0 rios=1 wios=0\n";
        let expected = BlockStats { read_bytes: 101, written_bytes: 7, reads: 4, writes: 1 };
        assert_eq!(unified_block(v2), expected);
    }
}
