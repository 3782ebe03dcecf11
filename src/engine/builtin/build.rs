//! Builds of the runtime as an asynchronous call.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::error::{build_error, failed};
use crate::engine::{BuildEvent, BuildOutcome, BuildProgress, Result};
use crate::runtime::Runtime;
use crate::runtime::build::{Cancel, Event, Outcome};
use crate::spec::BuildSpec;

/// Builds an image, passing progress on as it comes.
pub(super) async fn build(
    runtime: &Arc<Runtime>,
    spec: &BuildSpec,
    progress: BuildProgress<'_>,
    stop: &CancellationToken,
) -> Result<String> {
    let cancel = Cancel::new().map_err(|e| failed("cannot prepare the build", e))?;
    // Also when nobody waits for the result any more.
    let guard = CancelOnDrop(cancel.clone());
    let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
    let (runtime, spec) = (Arc::clone(runtime), spec.clone());
    let building =
        tokio::task::spawn_blocking(move || runtime.build(&spec, &|event| drop(sender.send(event)), &cancel));
    let mut stopping = false;
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => progress(build_event(event)),
                None => break,
            },
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                guard.0.cancel();
            }
        }
    }
    match building.await {
        Ok(built) => built.map(|id| id.to_string()).map_err(build_error),
        Err(stopped) => Err(failed("a build was interrupted", stopped)),
    }
}

struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

fn build_event(event: Event) -> BuildEvent {
    match event {
        Event::Started { step, name } => BuildEvent::Started { step, name },
        Event::Output { step, at, text, .. } => BuildEvent::Output { step, at, text },
        Event::Note { step, text } => BuildEvent::Note { step, text },
        Event::Warning(text) => BuildEvent::Warning(text),
        Event::Ended { step, outcome } => BuildEvent::Ended {
            step,
            outcome: match outcome {
                Outcome::Done { seconds } => BuildOutcome::Done { seconds },
                Outcome::Cached => BuildOutcome::Cached,
                Outcome::Failed(text) => BuildOutcome::Failed(text),
                Outcome::Cancelled => BuildOutcome::Cancelled,
            },
        },
    }
}
