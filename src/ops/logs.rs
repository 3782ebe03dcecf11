//! `logs`: what containers have printed, merged by time, and what they print from now on.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::try_join_all;
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::context::{Context, Origin};
use super::events::{EventSender, ProjectEvent};
use super::follow::{Filter, Follower, Notice, Position, Source, position_after};
use super::monitor::Monitor;
use super::options::LogsOptions;
use super::progress::send;
use super::{OpsError, Result, display_name};
use crate::engine::{BoxStream, EngineError, LogFrame, LogOptions};
use crate::model::labels;
use crate::plan::ObservedContainer;

/// Shows the output of the project's containers: first what there is, over all of them in the
/// order of time; then, with `follow`, what comes, until no followed container runs any more.
///
/// # Errors
/// Unknown services; output that cannot be read.
pub async fn logs(ctx: &Context, options: &LogsOptions, events: &EventSender) -> Result<()> {
    ctx.check_services(&options.services)?;
    // Listening begins before looking, so that nothing falls between.
    let listening = if options.follow {
        let monitor = Monitor::new(&ctx.engine, &ctx.label()).await?;
        let listener = monitor.listen();
        Some((monitor, listener))
    } else {
        None
    };
    let services = wanted_services(ctx, options);
    let wanted = |c: &ObservedContainer| {
        !c.oneoff
            && services.as_ref().is_none_or(|s| s.contains(&c.service))
            && options.index.is_none_or(|index| c.number == Some(index))
    };
    let containers: Vec<_> = ctx.containers().await?.into_iter().filter(|c| wanted(c)).collect();
    if let (Some(index), true) = (options.index, containers.is_empty()) {
        let service = options.services.first().cloned().unwrap_or_default();
        return Err(OpsError::NoContainer { service, index: Some(index) });
    }
    // All names first, so that the prefixes of all lines are equally wide.
    let names: BTreeSet<String> =
        containers.iter().map(|c| display_name(&ctx.project.name, &c.state.name, &c.state.labels)).collect();
    send(events, ProjectEvent::Attaching(names.into_iter().collect())).await;
    ctx.unless_interrupted(async {
        let positions = history(ctx, options, &containers, events).await?;
        if let Some((monitor, listener)) = listening {
            let filter = filter(services, options.index);
            follow(ctx, options, containers, positions, filter, listener, events).await;
            drop(monitor);
        }
        Ok(())
    })
    .await
}

/// The services shown; `None` is all. Without arguments those with `attach: false` are left out.
fn wanted_services(ctx: &Context, options: &LogsOptions) -> Option<BTreeSet<String>> {
    if !options.services.is_empty() {
        return Some(options.services.iter().cloned().collect());
    }
    if ctx.origin == Origin::Labels {
        return None;
    }
    let shown = ctx.project.services.values().filter(|service| service.attach != Some(false));
    Some(shown.map(|service| service.name.clone()).collect())
}

fn filter(services: Option<BTreeSet<String>>, index: Option<u32>) -> Filter {
    Arc::new(move |all| {
        let label = |key: &str| all.get(key);
        label(labels::ONE_OFF).is_none_or(|v| v != "True")
            && index.is_none_or(|i| label(labels::CONTAINER_NUMBER).is_some_and(|n| *n == i.to_string()))
            && match (&services, label(labels::SERVICE)) {
                (Some(services), Some(service)) => services.contains(service),
                (None, Some(_)) => true,
                (_, None) => false,
            }
    })
}

async fn follow(
    ctx: &Context,
    options: &LogsOptions,
    containers: Vec<ObservedContainer>,
    positions: Vec<Position>,
    filter: Filter,
    listener: super::monitor::Listener,
    events: &EventSender,
) {
    let (notices, mut told) = mpsc::unbounded_channel();
    let follower = Follower {
        engine: ctx.engine.clone(),
        listener,
        filter,
        project: ctx.project.name.clone(),
        events: events.clone(),
        notices,
        until: options.until,
    };
    let sources = containers.into_iter().zip(positions).map(|(container, position)| Source {
        running: container.is_up(),
        display: display_name(&ctx.project.name, &container.state.name, &container.state.labels),
        id: container.state.id,
        service: container.service,
        position,
    });
    let mut following = std::pin::pin!(follower.run(sources.collect()));
    let limit = async {
        match options.until {
            Some(until) => {
                let left = until.duration_since(Timestamp::now());
                tokio::time::sleep(std::time::Duration::try_from(left).unwrap_or_default()).await;
            }
            None => std::future::pending().await,
        }
    };
    let mut limit = std::pin::pin!(limit);
    loop {
        tokio::select! {
            () = &mut following => return,
            () = &mut limit => return,
            notice = told.recv() => match notice {
                Some(Notice::Idle) | None => return,
                Some(_) => {}
            },
        }
    }
}

/// One container's past output, read piece by piece.
struct Past {
    display: String,
    stream: BoxStream<std::result::Result<Vec<LogFrame>, EngineError>>,
    waiting: VecDeque<LogFrame>,
    position: Position,
}

impl Past {
    /// Makes sure that the next frame is there, unless there is none.
    async fn fill(&mut self) -> Result<()> {
        while self.waiting.is_empty() {
            match self.stream.next().await {
                Some(frames) => self.waiting.extend(frames?),
                None => break,
            }
        }
        Ok(())
    }

    /// Everything up to a time; a line in pieces is not torn apart.
    fn take_until(&mut self, limit: Option<Timestamp>) -> Vec<LogFrame> {
        let mut taken: Vec<LogFrame> = Vec::new();
        while let Some(frame) = self.waiting.front() {
            let inside_line = taken.last().is_some_and(|last| !last.newline);
            if !inside_line && limit.is_some_and(|limit| frame.time > limit) && !taken.is_empty() {
                break;
            }
            taken.extend(self.waiting.pop_front());
        }
        taken
    }
}

/// Delivers what there is, merged by time, and gives the position after it for each container.
async fn history(
    ctx: &Context,
    options: &LogsOptions,
    containers: &[ObservedContainer],
    events: &EventSender,
) -> Result<Vec<Position>> {
    let asked = LogOptions { follow: false, tail: options.tail, since: options.since, until: options.until };
    let opened = containers.iter().map(|container| {
        let asked = &asked;
        async move {
            let state = &container.state;
            let stream = match ctx.engine.logs(&state.id, asked).await {
                Ok(stream) => stream,
                // Removed since it was listed.
                Err(EngineError::NotFound { .. }) => futures_util::stream::empty().boxed(),
                Err(EngineError::Unsupported { reason, .. }) => {
                    let text = format!("no output of {}: {reason}", state.name);
                    send(events, ProjectEvent::Warning(text)).await;
                    futures_util::stream::empty().boxed()
                }
                Err(error) => return Err(error),
            };
            let mut past = Past {
                display: display_name(&ctx.project.name, &state.name, &state.labels),
                stream,
                waiting: VecDeque::new(),
                position: options.since.map_or_else(Position::default, Position::at),
            };
            if options.tail == Some(0) && options.follow {
                past.position = position_after(&ctx.engine, &state.id).await;
            }
            Ok(past)
        }
    });
    let mut pasts: Vec<Past> = try_join_all(opened).await?;
    let mut heap = BinaryHeap::new();
    for (index, past) in pasts.iter_mut().enumerate() {
        past.fill().await?;
        heap.extend(past.waiting.front().map(|frame| Reverse((frame.time, index))));
    }
    while let Some(Reverse((_, index))) = heap.pop() {
        let limit = heap.peek().map(|Reverse((time, _))| *time);
        let past = &mut pasts[index];
        let frames = past.take_until(limit);
        if let Some(last) = frames.last() {
            past.position = match options.tail {
                // Earlier frames of the same time were left out and must not come back.
                Some(_) => Position::after(last.time),
                None => past.position.advanced(&frames),
            };
        }
        let open_line = frames.last().is_some_and(|last| !last.newline);
        let source = past.display.clone();
        if !frames.is_empty() {
            send(events, ProjectEvent::Log { source, frames }).await;
        }
        past.fill().await?;
        if let Some(frame) = past.waiting.front() {
            // The rest of a line comes before anything else.
            let time = if open_line { Timestamp::MIN } else { frame.time };
            heap.push(Reverse((time, index)));
        }
    }
    Ok(pasts.into_iter().map(|past| past.position).collect())
}
