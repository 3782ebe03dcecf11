//! The STATUS column of `ps`.

use hoist::engine::{ContainerState, Health, Phase};
use jiff::Timestamp;

use super::text::human_duration;

/// `Up 3 seconds (healthy)`, `Exited (0) 2 minutes ago`, `Created`, … in Docker's words.
pub(crate) fn status(state: &ContainerState, now: Timestamp) -> String {
    let since =
        |t: Option<Timestamp>| human_duration(t.map_or_else(Default::default, |t| now.duration_since(t)));
    match state.phase {
        Phase::Running => {
            let up = since(state.started);
            match state.health {
                Health::None => format!("Up {up}"),
                Health::Starting => format!("Up {up} (health: starting)"),
                Health::Healthy | Health::Unhealthy => format!("Up {up} ({})", state.health.as_str()),
            }
        }
        Phase::Paused => format!("Up {} (Paused)", since(state.started)),
        Phase::Restarting => format!("Restarting ({}) {} ago", state.exit_code, since(state.finished)),
        Phase::Removing => "Removal In Progress".into(),
        Phase::Dead => "Dead".into(),
        Phase::Created => "Created".into(),
        Phase::Exited => format!("Exited ({}) {} ago", state.exit_code, since(state.finished)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_since_when() {
        let now: Timestamp = "2026-01-02T00:01:00Z".parse().expect("valid");
        let at = |s: &str| Some(s.parse().expect("valid"));
        let mut state = ContainerState {
            phase: Phase::Running,
            started: at("2026-01-02T00:00:57Z"),
            finished: at("2026-01-02T00:00:00Z"),
            ..Default::default()
        };
        assert_eq!(status(&state, now), "Up 3 seconds");
        state.health = Health::Healthy;
        assert_eq!(status(&state, now), "Up 3 seconds (healthy)");
        state.health = Health::Starting;
        assert_eq!(status(&state, now), "Up 3 seconds (health: starting)");
        state.phase = Phase::Exited;
        assert_eq!(status(&state, now), "Exited (0) About a minute ago");
        state.phase = Phase::Paused;
        assert_eq!(status(&state, now), "Up 3 seconds (Paused)");
    }
}
