//! The health probe: an extra process now and then, and what its exits add up to.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::fs::{Mode, OFlags, open};
use rustix::pipe::{PipeFlags, pipe_with};

use super::clients::reap;
use super::policy::probe_wait;
use super::supervise::{Supervisor, Token, read_plan};
use crate::runtime::error::ShimError;
use crate::runtime::events::Action;
use crate::runtime::init::{self, ExecTarget, Stdio};
use crate::runtime::state::{HealthRecord, HealthStatus, Life, Probe, ProbeRecord};
use crate::runtime::sys;

/// Bytes of a probe's output that are kept.
const KEPT: usize = 4096;
/// Probes that are kept.
const REMEMBERED: usize = 5;

/// The probe of one container.
#[derive(Debug)]
pub(super) struct Prober {
    probe: Probe,
    /// Start of the container's run.
    started: Option<Instant>,
    due: Option<Instant>,
    running: Option<Running>,
    succeeded: bool,
}

#[derive(Debug)]
struct Running {
    pidfd: OwnedFd,
    output: Option<OwnedFd>,
    text: Vec<u8>,
    /// When it is killed; none once it was.
    limit: Option<Instant>,
    timed_out: bool,
}

impl Prober {
    pub(super) fn new(probe: Probe) -> Self {
        Self { probe, started: None, due: None, running: None, succeeded: false }
    }

    /// The container runs from now on.
    pub(super) fn started(&mut self, now: Instant) {
        self.started = Some(now);
        self.succeeded = false;
        self.running = None;
        self.due = Some(now + probe_wait(&self.probe, Duration::ZERO, false));
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.running {
            Some(running) => running.limit,
            None => self.due,
        }
    }
}

/// Adds a finished probe to a record; says whether the verdict changed.
fn judge(record: &mut HealthRecord, probe: &Probe, result: ProbeRecord, in_start_period: bool) -> bool {
    let before = record.status;
    if result.code == 0 {
        record.streak = 0;
        record.status = HealthStatus::Healthy;
    } else if !(in_start_period && record.status == HealthStatus::Starting) {
        record.streak += 1;
        if record.streak >= probe.retries {
            record.status = HealthStatus::Unhealthy;
        }
    }
    record.probes.push(result);
    if record.probes.len() > REMEMBERED {
        record.probes.remove(0);
    }
    record.status != before
}

impl Supervisor {
    /// Starts the probe that is due, and kills the one that takes too long.
    pub(super) fn prober_timers(&mut self, now: Instant) {
        let Some(prober) = &mut self.prober else { return };
        match &mut prober.running {
            Some(running) if running.limit.is_some_and(|at| at <= now) => {
                running.limit = None;
                running.timed_out = true;
                sys::pidfd_send_signal(running.pidfd.as_fd(), libc::SIGKILL).ok();
            }
            None if prober.due.is_some_and(|at| at <= now) => {
                prober.due = None;
                if !matches!(self.state.life, Life::Running { .. }) {
                    // Nobody answers while frozen; ask again when the next one would be due.
                    let wait = Duration::from_millis(prober.probe.interval_ms);
                    prober.due = Some(now + wait);
                    return;
                }
                if let Err(error) = self.run_probe(now) {
                    self.probe_result(-1, error.to_string());
                }
            }
            _ => {}
        }
    }

    fn run_probe(&mut self, now: Instant) -> Result<(), ShimError> {
        let step =
            |e: rustix::io::Errno| ShimError::Step { text: format!("cannot run the health probe: {e}") };
        let (Some(prober), Some(run)) = (&mut self.prober, &self.run) else { return Ok(()) };
        let mut process = read_plan(&self.live_dir)?.launch.process;
        process.args.clone_from(&prober.probe.args);
        let (output, inner) = pipe_with(PipeFlags::CLOEXEC).map_err(step)?;
        rustix::fs::fcntl_setfl(&output, OFlags::NONBLOCK).map_err(step)?;
        let null = open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(step)?;
        let target = ExecTarget { pidfd: run.pidfd.as_fd(), cgroup: &run.cgroup };
        let stdio = Stdio::Fds { stdin: null.as_fd(), stdout: inner.as_fd(), stderr: inner.as_fd() };
        let executed = init::exec(&target, &process, stdio)?;
        prober.running = Some(Running {
            pidfd: executed.pidfd,
            output: Some(output),
            text: Vec::new(),
            limit: Some(now + Duration::from_millis(prober.probe.timeout_ms)),
            timed_out: false,
        });
        if let Some(Running { pidfd, output: Some(output), .. }) =
            self.prober.as_ref().and_then(|p| p.running.as_ref())
        {
            self.watch(pidfd, Token::Probe, EventFlags::IN);
            self.watch(output, Token::ProbeOutput, EventFlags::IN);
        }
        Ok(())
    }

    /// Takes the probe's output, of which the beginning is kept.
    pub(super) fn probe_output(&mut self) {
        let Some(running) = self.prober.as_mut().and_then(|p| p.running.as_mut()) else { return };
        let Some(output) = &running.output else { return };
        let mut chunk = [0_u8; 4096];
        loop {
            match rustix::io::read(output, &mut chunk) {
                Ok(n) if n > 0 => {
                    let room = KEPT.saturating_sub(running.text.len());
                    running.text.extend_from_slice(&chunk[..n.min(room)]);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return,
                Ok(_) | Err(_) => break,
            }
        }
        if let Some(output) = running.output.take() {
            self.unwatch(&output);
        }
    }

    /// The probe has ended.
    pub(super) fn probe_exited(&mut self) {
        let Some(running) = self.prober.as_ref().and_then(|p| p.running.as_ref()) else { return };
        let Some(code) = reap(&running.pidfd, false) else { return };
        self.probe_output();
        let Some(running) = self.prober.as_mut().and_then(|p| p.running.take()) else { return };
        self.unwatch(&running.pidfd);
        if let Some(output) = &running.output {
            self.unwatch(output);
        }
        let timeout = self.prober.as_ref().map_or(0, |p| p.probe.timeout_ms);
        if running.timed_out {
            let limit = Duration::from_millis(timeout);
            self.probe_result(-1, format!("Health check exceeded timeout ({limit:?})"));
        } else {
            self.probe_result(code, String::from_utf8_lossy(&running.text).into_owned());
        }
    }

    fn probe_result(&mut self, code: i32, output: String) {
        let at = self.now();
        let now = Instant::now();
        let Some(prober) = &mut self.prober else { return };
        let since_start = prober.started.map_or(Duration::ZERO, |s| now.saturating_duration_since(s));
        let in_start_period =
            !prober.succeeded && since_start < Duration::from_millis(prober.probe.start_period_ms);
        prober.succeeded |= code == 0;
        prober.due = Some(now + probe_wait(&prober.probe, since_start, prober.succeeded));
        let changed =
            judge(&mut self.state.health, &prober.probe, ProbeRecord { at, code, output }, in_start_period);
        self.save();
        if changed {
            self.event(Action::HealthStatus { status: self.state.health.status });
        }
    }

    /// The container has ended, and with it a probe that was running.
    pub(super) fn end_probe(&mut self) {
        let Some(prober) = &mut self.prober else { return };
        prober.due = None;
        if let Some(running) = prober.running.take() {
            sys::pidfd_send_signal(running.pidfd.as_fd(), libc::SIGKILL).ok();
            reap(&running.pidfd, true);
            self.unwatch(&running.pidfd);
            if let Some(output) = &running.output {
                self.unwatch(output);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_follow_docker_s_rules() {
        let probe = Probe {
            args: vec![],
            interval_ms: 1,
            timeout_ms: 1,
            start_period_ms: 1,
            start_interval_ms: 1,
            retries: 2,
        };
        let mut record = HealthRecord { status: HealthStatus::Starting, ..HealthRecord::default() };
        let mut step = |code, start| {
            let result = ProbeRecord { at: jiff::Timestamp::UNIX_EPOCH, code, output: String::new() };
            let changed = judge(&mut record, &probe, result, start);
            (record.status, changed, record.probes.len())
        };
        use HealthStatus::{Healthy, Starting, Unhealthy};
        assert_eq!(step(1, true), (Starting, false, 1), "failures in the start period do not count");
        assert_eq!(step(1, true), (Starting, false, 2));
        assert_eq!(step(1, false), (Starting, false, 3));
        assert_eq!(step(1, false), (Unhealthy, true, 4));
        assert_eq!(step(0, false), (Healthy, true, 5));
        assert_eq!(step(-1, true), (Healthy, false, 5), "after a success the start period is over");
        assert_eq!(step(-1, true), (Unhealthy, true, 5));
    }
}
