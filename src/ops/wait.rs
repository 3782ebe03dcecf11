//! Conditions of containers: what satisfies them, what makes them impossible, and the evidence of a failure.
//!
//! A condition is judged from the engine's own words (`inspect`), at the
//! start and after each event of one of its containers; there is no polling.
//! The possible sequences after a start are: `health_status`* then `die`
//! (then `start` again when it is restarted) or `destroy`. A container that is
//! being restarted by its policy is neither up nor lost.

use std::sync::Arc;

use futures_util::StreamExt;
use jiff::SignedDuration;

use super::error::{FailureCause, FailureReport};
use super::monitor::{Heard, Listener};
use super::{OpsError, Result};
use crate::engine::{ContainerState, Engine, EventAction, Health, LogOptions, Phase};
use crate::plan::{Condition, Wait};

/// Lines of output that a failure shows.
const EVIDENCE_LINES: usize = 20;

/// What one look at the containers says.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Satisfied,
    /// Not yet; with what it looks like, for the user.
    Pending(String),
    /// Never; index of the container that is to blame.
    Failed(usize, FailureCause),
}

/// Judges one container: empty is satisfied, a text is not yet.
fn judge(condition: Condition, state: Option<&ContainerState>) -> Result<String, FailureCause> {
    let satisfied = Ok(String::new());
    let Some(state) = state else { return Err(FailureCause::Removed) };
    match (state.phase, condition) {
        (Phase::Removing | Phase::Dead, _) => Err(FailureCause::Removed),
        (Phase::Created | Phase::Restarting, _) | (Phase::Running | Phase::Paused, Condition::Completed) => {
            Ok(state.phase.as_str().to_owned())
        }
        (Phase::Exited | Phase::Running | Phase::Paused, Condition::Started) => satisfied,
        (Phase::Exited, Condition::Completed | Condition::Ready) if state.exit_code == 0 => satisfied,
        (Phase::Exited, _) => Err(FailureCause::Exited { code: state.exit_code, oom: state.oom_killed }),
        (Phase::Running | Phase::Paused, Condition::Healthy | Condition::Ready) => match state.health {
            Health::Healthy => satisfied,
            Health::None if condition == Condition::Ready => satisfied,
            Health::None => Err(FailureCause::NoHealthcheck),
            Health::Unhealthy => Err(FailureCause::Unhealthy),
            Health::Starting => Ok(match state.probes.last() {
                None => "no probe yet".to_owned(),
                Some(probe) => {
                    let output = probe.output.trim().lines().last().unwrap_or_default();
                    let output: String = output.chars().take(60).collect();
                    format!("last probe: exit {} {output}", probe.exit_code).trim_end().to_owned()
                }
            }),
        },
    }
}

/// Judges all containers of a service together.
fn verdict(condition: Condition, states: &[Option<ContainerState>]) -> Verdict {
    if states.is_empty() {
        return Verdict::Failed(0, FailureCause::NoContainer);
    }
    let mut pending = None;
    for (index, state) in states.iter().enumerate() {
        match judge(condition, state.as_ref()) {
            Ok(text) if text.is_empty() => {
                if condition == Condition::Completed {
                    return Verdict::Satisfied;
                }
            }
            Ok(text) => {
                pending.get_or_insert(text);
            }
            Err(cause) => return Verdict::Failed(index, cause),
        }
    }
    pending.map_or(Verdict::Satisfied, Verdict::Pending)
}

/// What a wait says while it lasts.
pub(super) type Note<'a> = &'a (dyn Fn(String) + Send + Sync);

/// Waits until the condition of a service holds.
///
/// `containers` are the ids of the service's containers; `blocked` goes into
/// the report. `note` is called with what it looks like whenever that changes.
///
/// # Errors
/// [`OpsError::NotReady`] as soon as the condition cannot come true any more;
/// engine errors.
pub(super) async fn wait_for(
    engine: &Arc<dyn Engine>,
    mut listener: Listener,
    wait: &Wait,
    containers: &[String],
    blocked: &[String],
    note: Note<'_>,
) -> Result<()> {
    let mut states = Vec::with_capacity(containers.len());
    for id in containers {
        states.push(engine.inspect(id).await?);
    }
    let mut said = None;
    loop {
        match verdict(wait.condition, &states) {
            Verdict::Satisfied => return Ok(()),
            Verdict::Failed(index, cause) => {
                let state = states.get_mut(index).and_then(Option::take);
                let report = report(engine, wait, state, cause, blocked).await;
                return Err(OpsError::NotReady(Box::new(report)));
            }
            Verdict::Pending(text) => {
                if said.as_ref() != Some(&text) {
                    note(text.clone());
                    said = Some(text);
                }
            }
        }
        match listener.hear().await {
            Heard::Event(event) => {
                let Some(index) = containers.iter().position(|id| *id == event.id) else { continue };
                if matters(&event.action) {
                    states[index] = engine.inspect(&event.id).await?;
                }
            }
            Heard::Gap => {
                for (state, id) in states.iter_mut().zip(containers) {
                    *state = engine.inspect(id).await?;
                }
            }
            Heard::End => return Err(OpsError::EventsEnded),
        }
    }
}

fn matters(action: &EventAction) -> bool {
    matches!(
        action,
        EventAction::Start
            | EventAction::Die { .. }
            | EventAction::Destroy
            | EventAction::HealthStatus { .. }
            | EventAction::Pause
            | EventAction::Unpause
    )
}

/// Collects the evidence of a failure. What cannot be had is left out: the failure itself matters more.
pub(super) async fn report(
    engine: &Arc<dyn Engine>,
    wait: &Wait,
    state: Option<ContainerState>,
    cause: FailureCause,
    blocked: &[String],
) -> FailureReport {
    let output = match &state {
        Some(state) => last_lines(engine, &state.id).await,
        None => Vec::new(),
    };
    let hint = match (&cause, &state) {
        (FailureCause::NoHealthcheck, _) => {
            Some(format!("add a `healthcheck` to service `{}`, or wait for `service_started`", wait.service))
        }
        (FailureCause::NeverCompletes, _) => {
            Some(format!("set `restart: on-failure` or `no` for service `{}`", wait.service))
        }
        (FailureCause::NoContainer | FailureCause::Removed, _) | (_, None) => None,
        (_, Some(_)) => Some(format!("hoist logs {}", wait.service)),
    };
    let (container, since, probes) = match state {
        Some(state) => (Some(state.name), state.started, state.probes),
        None => (wait.containers.first().map(|c| c.name().to_owned()), None, Vec::new()),
    };
    FailureReport {
        service: wait.service.clone(),
        container,
        cause,
        condition: wait.condition.as_str(),
        dependency: !wait.waiting.is_empty(),
        since,
        waited: None,
        probes,
        output,
        blocked: blocked.to_vec(),
        hint,
    }
}

/// The report of a wait that took too long, from what its first container that is not ready looks like.
pub(super) async fn report_timeout(
    engine: &Arc<dyn Engine>,
    wait: &Wait,
    containers: &[String],
    waited: SignedDuration,
    blocked: &[String],
) -> FailureReport {
    let mut culprit = None;
    for id in containers {
        if let Ok(Some(state)) = engine.inspect(id).await
            && judge(wait.condition, Some(&state)).is_ok_and(|text| !text.is_empty())
        {
            culprit = Some(state);
            break;
        }
    }
    let mut report = report(engine, wait, culprit, FailureCause::Timeout, blocked).await;
    report.waited = Some(waited);
    report
}

async fn last_lines(engine: &Arc<dyn Engine>, id: &str) -> Vec<String> {
    let options = LogOptions { tail: Some(EVIDENCE_LINES), ..LogOptions::default() };
    let Ok(mut stream) = engine.logs(id, &options).await else { return Vec::new() };
    let mut lines: Vec<String> = Vec::new();
    let mut open = false;
    while let Some(Ok(frames)) = stream.next().await {
        for frame in frames {
            let text = String::from_utf8_lossy(&frame.data).into_owned();
            match lines.last_mut() {
                Some(last) if open => last.push_str(&text),
                _ => lines.push(text),
            }
            open = !frame.newline;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "the table also has `None`")]
    fn state(phase: Phase, health: Health, exit_code: i32) -> Option<ContainerState> {
        Some(ContainerState { phase, health, exit_code, ..ContainerState::default() })
    }

    #[test]
    fn conditions_are_judged_as_documented() {
        use Condition::{Completed, Healthy, Ready, Started};
        let exited = |code| FailureCause::Exited { code, oom: false };
        let table: Vec<(Condition, Option<ContainerState>, Option<Option<FailureCause>>)> = vec![
            // None: satisfied; Some(None): not yet; Some(Some(cause)): never.
            (Started, state(Phase::Created, Health::None, 0), Some(None)),
            (Started, state(Phase::Running, Health::Starting, 0), None),
            (Started, state(Phase::Exited, Health::None, 1), None),
            (Healthy, state(Phase::Running, Health::Starting, 0), Some(None)),
            (Healthy, state(Phase::Running, Health::Healthy, 0), None),
            (Healthy, state(Phase::Running, Health::Unhealthy, 0), Some(Some(FailureCause::Unhealthy))),
            (Healthy, state(Phase::Running, Health::None, 0), Some(Some(FailureCause::NoHealthcheck))),
            (Healthy, state(Phase::Exited, Health::None, 0), Some(Some(exited(0)))),
            (Healthy, state(Phase::Restarting, Health::None, 1), Some(None)),
            (Healthy, None, Some(Some(FailureCause::Removed))),
            (Completed, state(Phase::Running, Health::None, 0), Some(None)),
            (Completed, state(Phase::Exited, Health::None, 0), None),
            (Completed, state(Phase::Exited, Health::None, 3), Some(Some(exited(3)))),
            (Ready, state(Phase::Running, Health::None, 0), None),
            (Ready, state(Phase::Running, Health::Starting, 0), Some(None)),
            (Ready, state(Phase::Exited, Health::None, 0), None),
            (Ready, state(Phase::Exited, Health::None, 2), Some(Some(exited(2)))),
        ];
        for (condition, state, expected) in table {
            let got = match verdict(condition, std::slice::from_ref(&state)) {
                Verdict::Satisfied => None,
                Verdict::Pending(_) => Some(None),
                Verdict::Failed(_, cause) => Some(Some(cause)),
            };
            assert_eq!(got, expected, "{condition:?} {state:?}");
        }
    }

    #[test]
    fn all_replicas_have_to_be_healthy_but_one_completes() {
        let up = state(Phase::Running, Health::Healthy, 0);
        let starting = state(Phase::Running, Health::Starting, 0);
        assert!(matches!(verdict(Condition::Healthy, &[up.clone(), starting.clone()]), Verdict::Pending(_)));
        let done = state(Phase::Exited, Health::None, 0);
        assert_eq!(verdict(Condition::Completed, &[done, starting]), Verdict::Satisfied);
    }
}
