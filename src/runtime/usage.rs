//! What a running container uses.

use crate::runtime::Runtime;
use crate::runtime::cgroup::{Cgroup, CgroupStats};
use crate::runtime::error::{Result, RuntimeError};
use crate::spec::NetworkMode;

/// A snapshot of what a container uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time, memory, tasks, block devices.
    pub group: CgroupStats,
    /// Memory of the machine in bytes: the limit of a container without one.
    pub machine_memory: u64,
    /// Bytes received and sent on its networks; none with the host's.
    pub network: Option<(u64, u64)>,
}

impl Runtime {
    /// What a container uses now; none when it does not run.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`].
    pub fn usage(&self, container: &str) -> Result<Option<Usage>> {
        let found = self.inspect(container)?.ok_or_else(|| RuntimeError::NotFound(container.to_owned()))?;
        let Some(process) = found.state.life.process() else { return Ok(None) };
        let group = Cgroup::at(self.cgroup_path(&found.record.spec, &found.record.id));
        let network = match found.record.spec.network {
            NetworkMode::Host => None,
            _ => std::fs::read_to_string(format!("/proc/{}/net/dev", process.pid)).ok(),
        };
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let total =
            memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
        Ok(Some(Usage {
            group: group.stats(),
            machine_memory: total.and_then(|kib| kib.trim().parse::<u64>().ok()).unwrap_or(0) * 1024,
            network: network.map(|text| traffic(&text)),
        }))
    }
}

/// Bytes received and sent over all interfaces but the loopback one.
///
/// # Source
/// `proc_pid_net(5)`, `dev`: after the name, field 1 is bytes received and field 9 bytes sent.
fn traffic(text: &str) -> (u64, u64) {
    let interfaces = text.lines().skip(2).filter_map(|line| line.split_once(':'));
    interfaces.filter(|(name, _)| name.trim() != "lo").fold((0, 0), |(received, sent), (_, numbers)| {
        let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        let at = |index: usize| numbers.get(index).copied().unwrap_or(0);
        (received + at(0), sent + at(8))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_does_not_count() {
        let text = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     500       5    0    0    0     0          0         0      500       5    0    0    0     0       0          0
  eth0:    1310      15    0    0    0     0          0         0      126       3    0    0    0     0       0          0
  eth1:      10       1    0    0    0     0          0         0        4       1    0    0    0     0       0          0
";
        assert_eq!(traffic(text), (1320, 130));
    }
}
