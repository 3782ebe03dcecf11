//! `stats`: what containers use, and how busy they were since the last look.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;

use super::context::Context;
use super::lifecycle::selected;
use super::options::ContainerUsage;
use super::{OpsError, Result};
use crate::engine::{EngineError, UsageState};
use crate::plan::ObservedContainer;

/// Remembers the last look at each container, for the share of a processor since then.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    last: BTreeMap<String, UsageState>,
}

impl Meter {
    /// Processors that a container kept busy since it was last looked at; none at the first look.
    fn share(&mut self, id: &str, now: &UsageState) -> Option<f64> {
        let before = self.last.insert(id.to_owned(), *now)?;
        let time = now.at.duration_since(before.at).as_secs_f64();
        // A container that was started anew begins at zero.
        let used = now.cpu.saturating_sub(before.cpu).as_secs_f64();
        (time > 0.0).then(|| used / time)
    }
}

/// What the containers of the project use, one-offs included, the newest first.
///
/// With `service` only its containers; with `all` those that do not run, too.
///
/// # Errors
/// An unknown service; those of the engine.
pub async fn usage_of(
    ctx: &Context,
    service: Option<&String>,
    all: bool,
    meter: &mut Meter,
) -> Result<Vec<ContainerUsage>> {
    ctx.check_services(service)?;
    let services: Vec<String> = service.cloned().into_iter().collect();
    let wanted = |c: &ObservedContainer| selected(c, &services) && (all || c.is_up());
    let mut containers: Vec<_> = ctx.containers().await?.into_iter().filter(wanted).collect();
    containers.sort_by(|a, b| (b.state.created, &a.state.name).cmp(&(a.state.created, &b.state.name)));
    let looked_up = containers.into_iter().map(|container| async move {
        match ctx.engine.usage(&container.state.id).await {
            // Removed since it was listed.
            Err(EngineError::NotFound { .. }) => Ok(None),
            Ok(None) if !all => Ok(None),
            other => Ok::<_, OpsError>(Some((container.state, other?.unwrap_or_default()))),
        }
    });
    let found = try_join_all(looked_up).await?.into_iter().flatten();
    let usage = |(container, state): (crate::engine::ContainerState, UsageState)| ContainerUsage {
        cpu: meter.share(&container.id, &state),
        id: container.id,
        name: container.name,
        state,
    };
    Ok(found.map(usage).collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_share_is_processor_time_over_time_since_the_last_look() {
        let at = |seconds: i64, cpu: u64| UsageState {
            at: jiff::Timestamp::from_second(seconds).expect("time"),
            cpu: Duration::from_millis(cpu),
            ..UsageState::default()
        };
        let mut meter = Meter::default();
        assert_eq!(meter.share("a", &at(10, 500)), None);
        assert_eq!(meter.share("a", &at(12, 3500)), Some(1.5));
        assert_eq!(meter.share("a", &at(13, 0)), Some(0.0), "it was started anew");
        assert_eq!(meter.share("b", &at(13, 0)), None);
    }
}
