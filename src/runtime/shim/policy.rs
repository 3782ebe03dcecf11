//! Whether and when a container is started again: pure decisions.

use std::time::Duration;

use crate::runtime::state::Probe;
use crate::spec::RestartPolicy;

/// First wait before a restart.
const FIRST: Duration = Duration::from_millis(100);
/// Longest wait.
const LONGEST: Duration = Duration::from_mins(1);
/// A run of this length ends a series of failures.
const STABLE: Duration = Duration::from_secs(10);

/// The waits between restarts: 100 ms, doubled each time up to a minute, from the beginning after a run of 10 s.
///
/// # Source
/// Docker's restart manager.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    last: Option<Duration>,
}

impl Backoff {
    /// How long to wait after a run of this length.
    pub(super) fn next(&mut self, ran: Duration) -> Duration {
        let wait = match self.last {
            Some(last) if ran < STABLE => (last * 2).min(LONGEST),
            _ => FIRST,
        };
        self.last = Some(wait);
        wait
    }
}

/// Whether the policy answers an exit with a start. `stopped`: a person asked for the exit.
pub(super) fn starts_again(policy: RestartPolicy, code: i32, restarts: u32, stopped: bool) -> bool {
    if stopped {
        return false;
    }
    match policy {
        RestartPolicy::No => false,
        RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
        RestartPolicy::OnFailure { max } => code != 0 && max.is_none_or(|max| restarts < max),
    }
}

/// When the next probe is due, counted from the end of the last one (or from the start).
///
/// # Source
/// Docker's `daemon/health.go`: the start interval counts while the start period lasts and nothing has succeeded.
pub(super) fn probe_wait(probe: &Probe, since_start: Duration, succeeded: bool) -> Duration {
    let in_start_period = !succeeded && since_start < Duration::from_millis(probe.start_period_ms);
    Duration::from_millis(if in_start_period { probe.start_interval_ms } else { probe.interval_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute_and_start_anew_after_a_stable_run() {
        let mut backoff = Backoff::default();
        let short = Duration::from_millis(5);
        let waits: Vec<_> = (0..12).map(|_| backoff.next(short).as_millis()).collect();
        assert_eq!(waits[..4], [100, 200, 400, 800]);
        assert_eq!(waits[11], 60_000);
        assert_eq!(backoff.next(STABLE), FIRST);
        assert_eq!(backoff.next(short), FIRST * 2);
    }

    #[test]
    fn policies_answer_exits_as_on_docker() {
        use RestartPolicy::{Always, No, OnFailure, UnlessStopped};
        for (policy, code, restarts, stopped, again) in [
            (No, 1, 0, false, false),
            (Always, 0, 1000, false, true),
            (Always, 0, 0, true, false),
            (UnlessStopped, 1, 0, false, true),
            (UnlessStopped, 1, 0, true, false),
            (OnFailure { max: None }, 0, 0, false, false),
            (OnFailure { max: None }, 1, 99, false, true),
            (OnFailure { max: Some(2) }, 1, 1, false, true),
            (OnFailure { max: Some(2) }, 1, 2, false, false),
        ] {
            assert_eq!(
                starts_again(policy, code, restarts, stopped),
                again,
                "{policy:?} {code} {restarts} {stopped}"
            );
        }
    }

    #[test]
    fn probes_come_faster_in_the_start_period() {
        let probe = Probe {
            args: vec![],
            interval_ms: 30_000,
            timeout_ms: 1,
            start_period_ms: 10_000,
            start_interval_ms: 500,
            retries: 3,
        };
        assert_eq!(probe_wait(&probe, Duration::from_secs(1), false), Duration::from_millis(500));
        assert_eq!(probe_wait(&probe, Duration::from_secs(1), true), Duration::from_secs(30));
        assert_eq!(probe_wait(&probe, Duration::from_secs(11), false), Duration::from_secs(30));
    }
}
