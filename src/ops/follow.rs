//! The log multiplexer: output of many containers as one sequence of events.
//!
//! One reader task per container owns its position in that container's
//! output; nobody else reads it. A position is a time and the number of frames
//! already delivered that bear it, so reading can stop and go on anywhere
//! without losing or repeating a frame, whatever the engine's streams do when
//! containers stop.
//!
//! Event sequences of one container, and what the reader does:
//!
//! - `start`: read from the position on, following.
//! - `die` (restarting or not): the follow stream is dropped; what is in the
//!   log up to the time of death is delivered; then `Exited` is. When it is
//!   restarting, following goes on; otherwise the reader rests until `start`.
//! - `destroy`: the rest of the stream that is open is delivered; the reader ends.
//!
//! A container made in place of another (label `replace`) is announced by
//! `Recreated`; its reader begins at its `start`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::StreamExt;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::events::{EventSender, ProjectEvent};
use super::monitor::{Heard, Listener};
use super::progress::send;
use super::{display_name, is_up};
use crate::engine::{BoxStream, Engine, EngineError, EngineEvent, EventAction, LogFrame, LogOptions};
use crate::model::labels;

/// A position in the output of one container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// Time of the last delivered frame, or of where to begin.
    time: Option<Timestamp>,
    /// Frames of that time that were delivered.
    delivered: usize,
}

impl Position {
    /// Frames from that time on.
    pub(super) const fn at(time: Timestamp) -> Self {
        Self { time: Some(time), delivered: 0 }
    }

    /// Everything later than that time.
    pub(super) fn after(time: Timestamp) -> Self {
        let next = time.checked_add(jiff::SignedDuration::from_nanos(1));
        Self::at(next.unwrap_or(Timestamp::MAX))
    }

    /// The position after these frames, all of which were delivered.
    pub(super) fn advanced(mut self, frames: &[LogFrame]) -> Self {
        self.advance_over(frames);
        self
    }

    fn advance_over(&mut self, frames: &[LogFrame]) {
        let Some(last) = frames.last().map(|frame| frame.time) else { return };
        let same = frames.iter().rev().take_while(|frame| frame.time == last).count();
        self.delivered = if self.time == Some(last) { self.delivered + same } else { same };
        self.time = Some(last);
    }

    /// Takes what is new out of a batch that was read from this position on; `skip` is what is still to be skipped of it.
    fn advance(&mut self, frames: &mut Vec<LogFrame>, skip: &mut usize) {
        if *skip > 0 || self.delivered == 0 {
            let time = self.time.unwrap_or(Timestamp::MIN);
            let is_old = |frame: &&LogFrame| {
                let again = frame.time == time && *skip > 0;
                *skip -= usize::from(again);
                frame.time < time || again
            };
            let old = frames.iter().take_while(is_old).count();
            frames.drain(..old);
        }
        self.advance_over(frames);
    }
}

/// The position after all that a container has printed so far. At its beginning when that cannot be told.
pub(super) async fn position_after(engine: &Arc<dyn Engine>, id: &str) -> Position {
    let options = LogOptions { tail: Some(1), ..LogOptions::default() };
    let Ok(mut stream) = engine.logs(id, &options).await else { return Position::default() };
    let mut last = None;
    while let Some(Ok(frames)) = stream.next().await {
        last = frames.last().map(|frame| frame.time).or(last);
    }
    last.map_or_else(Position::default, Position::after)
}

/// Who is followed, decided by a container's labels.
pub(super) type Filter = Arc<dyn Fn(&BTreeMap<String, String>) -> bool + Send + Sync>;

/// A container that is followed from the beginning.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// Id.
    pub(super) id: String,
    /// Its service.
    pub(super) service: String,
    /// Name as shown.
    pub(super) display: String,
    /// Where its output begins.
    pub(super) position: Position,
    /// It runs, or is about to.
    pub(super) running: bool,
}

/// What the owner of a follower learns of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Notice {
    /// A container ended, and all of its output was delivered before.
    Exited {
        /// Its service.
        service: String,
        /// Exit code.
        code: i32,
        /// It will be started again.
        restarting: bool,
    },
    /// A followed container was started.
    Started {
        /// Its id.
        id: String,
    },
    /// No followed container runs or is about to, and all output was delivered.
    Idle,
}

/// Follows containers until it is told to stop or the engine's events end.
pub(super) struct Follower {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) listener: Listener,
    pub(super) filter: Filter,
    pub(super) project: String,
    pub(super) events: EventSender,
    /// Learns of exits and of silence.
    pub(super) notices: mpsc::UnboundedSender<Notice>,
    pub(super) until: Option<Timestamp>,
}

/// What the follower knows of one reader.
struct Reading {
    orders: mpsc::UnboundedSender<Order>,
    display: String,
    /// Orders given so far.
    given: u64,
    /// It has carried out all of them, and there is nothing to read.
    resting: bool,
}

impl Reading {
    fn order(&mut self, order: Order) {
        self.given += 1;
        self.resting = false;
        // A reader that has ended reports so.
        let _ended = self.orders.send(order);
    }
}

#[derive(Debug, Clone, Copy)]
enum Order {
    Started,
    Died { code: i32, restarting: bool, time: Timestamp },
    Destroyed,
}

/// A reader has carried out so many orders and has nothing to read; or it has ended.
struct Report {
    id: String,
    carried_out: u64,
    ended: bool,
}

/// The follower's own state; one task owns it.
struct Followed {
    readers: JoinSet<()>,
    readings: BTreeMap<String, Reading>,
    /// Replacements that have not started yet.
    expected: BTreeSet<String>,
    reports: mpsc::UnboundedSender<Report>,
}

impl Followed {
    fn idle(&self) -> bool {
        self.expected.is_empty() && self.readings.values().all(|reading| reading.resting)
    }
}

impl Follower {
    /// Follows until the future is dropped or events end. What was delivered is delivered in order.
    pub(super) async fn run(mut self, sources: Vec<Source>) {
        let (reports, mut reported) = mpsc::unbounded_channel();
        let mut followed = Followed {
            readers: JoinSet::new(),
            readings: BTreeMap::new(),
            expected: BTreeSet::new(),
            reports,
        };
        if sources.is_empty() {
            self.tell(Notice::Idle);
        }
        for source in sources {
            self.read(&mut followed, source);
        }
        loop {
            let heard = tokio::select! {
                heard = self.listener.hear() => heard,
                Some(report) = reported.recv() => {
                    self.reported(&mut followed, &report);
                    continue;
                }
            };
            match heard {
                Heard::Event(event) => self.heard(&mut followed, &event).await,
                Heard::Gap => self.look_again(&mut followed).await,
                Heard::End => break,
            }
        }
        // Without events nobody tells the readers that containers have ended; their streams do.
        followed.readings.clear();
        while followed.readers.join_next().await.is_some() {}
        self.tell(Notice::Idle);
    }

    fn reported(&self, followed: &mut Followed, report: &Report) {
        if report.ended {
            followed.readings.remove(&report.id);
        } else if let Some(reading) = followed.readings.get_mut(&report.id) {
            reading.resting = reading.given == report.carried_out;
        }
        // Finished tasks are let go of; what they had to say came in the report.
        while followed.readers.try_join_next().is_some() {}
        if followed.idle() {
            self.tell(Notice::Idle);
        }
    }

    async fn heard(&mut self, followed: &mut Followed, event: &EngineEvent) {
        if !(self.filter)(&event.labels) {
            return;
        }
        let reading = followed.readings.get_mut(&event.id);
        match &event.action {
            EventAction::Create => {
                // A replacement keeps its service alive for us until it starts.
                if let Some(replaced) = event.labels.get(labels::REPLACE) {
                    followed.expected.insert(event.id.clone());
                    if followed.readings.values().any(|r| r.display == *replaced) {
                        send(&self.events, ProjectEvent::Recreated { source: replaced.clone() }).await;
                    }
                }
            }
            EventAction::Start => {
                self.tell(Notice::Started { id: event.id.clone() });
                followed.expected.remove(&event.id);
                if let Some(reading) = reading {
                    reading.order(Order::Started);
                } else {
                    let source = Source {
                        id: event.id.clone(),
                        service: event.labels.get(labels::SERVICE).cloned().unwrap_or_default(),
                        display: display_name(&self.project, &event.name, &event.labels),
                        position: Position::default(),
                        running: true,
                    };
                    self.read(followed, source);
                }
            }
            EventAction::Die { exit_code, restarting } => {
                if let Some(reading) = reading {
                    let (code, restarting) = (*exit_code, *restarting);
                    reading.order(Order::Died { code, restarting, time: event.time });
                }
            }
            EventAction::Destroy => {
                let expected = followed.expected.remove(&event.id);
                if let Some(reading) = reading {
                    reading.order(Order::Destroyed);
                } else if expected && followed.idle() {
                    self.tell(Notice::Idle);
                }
            }
            _ => {}
        }
    }

    /// Events were missed: readers are told what must have happened.
    async fn look_again(&mut self, followed: &mut Followed) {
        let label = super::execute::project_label(&self.project);
        let Ok(states) = self.engine.list(&[label]).await else { return };
        let mut seen = BTreeSet::new();
        followed.expected.clear();
        for state in states {
            if !(self.filter)(&state.labels) {
                continue;
            }
            seen.insert(state.id.clone());
            self.tell(Notice::Started { id: state.id.clone() });
            let runs = is_up(state.phase);
            match followed.readings.get_mut(&state.id) {
                Some(reading) if runs => reading.order(Order::Started),
                Some(reading) => {
                    let time = state.finished.unwrap_or(Timestamp::MAX);
                    reading.order(Order::Died { code: state.exit_code, restarting: false, time });
                }
                None if runs => {
                    let source = Source {
                        service: state.labels.get(labels::SERVICE).cloned().unwrap_or_default(),
                        display: display_name(&self.project, &state.name, &state.labels),
                        position: state.started.map_or_else(Position::default, Position::at),
                        running: true,
                        id: state.id,
                    };
                    self.read(followed, source);
                }
                None => {}
            }
        }
        for (id, reading) in &mut followed.readings {
            if !seen.contains(id) {
                reading.order(Order::Destroyed);
            }
        }
    }

    fn read(&self, followed: &mut Followed, source: Source) {
        let (orders, receiver) = mpsc::unbounded_channel();
        let reader = Reader {
            engine: self.engine.clone(),
            id: source.id.clone(),
            service: source.service,
            display: source.display.clone(),
            position: source.position,
            events: self.events.clone(),
            notices: self.notices.clone(),
            reports: followed.reports.clone(),
            orders: receiver,
            carried_out: 0,
            until: self.until,
        };
        followed.readers.spawn(reader.run(source.running));
        let reading = Reading { orders, display: source.display, given: 0, resting: false };
        followed.readings.insert(source.id, reading);
    }

    fn tell(&self, notice: Notice) {
        // The owner may have lost interest.
        drop(self.notices.send(notice));
    }
}

/// Reads one container; the only one to know the position in its output.
struct Reader {
    engine: Arc<dyn Engine>,
    id: String,
    service: String,
    display: String,
    position: Position,
    events: EventSender,
    notices: mpsc::UnboundedSender<Notice>,
    reports: mpsc::UnboundedSender<Report>,
    orders: mpsc::UnboundedReceiver<Order>,
    carried_out: u64,
    until: Option<Timestamp>,
}

impl Reader {
    async fn run(mut self, mut following: bool) {
        loop {
            let order = if following {
                self.follow().await
            } else {
                self.report(false);
                self.orders.recv().await
            };
            let Some(order) = order else { break };
            self.carried_out += 1;
            match order {
                Order::Started => following = true,
                // Told twice after a gap in the events.
                Order::Died { .. } if !following => {}
                Order::Died { code, restarting, time } => {
                    // What comes later than the death is of the next run.
                    self.drain(restarting.then_some(time)).await;
                    let source = self.display.clone();
                    send(&self.events, ProjectEvent::Exited { source, code, restarting }).await;
                    let service = self.service.clone();
                    drop(self.notices.send(Notice::Exited { service, code, restarting }));
                    following = restarting;
                }
                Order::Destroyed => break,
            }
        }
        self.report(true);
    }

    fn report(&self, ended: bool) {
        let report = Report { id: self.id.clone(), carried_out: self.carried_out, ended };
        drop(self.reports.send(report));
    }

    /// Delivers what is printed until an order comes that ends it; `None` when there will be no more orders.
    async fn follow(&mut self) -> Option<Order> {
        let mut skip = self.position.delivered;
        let mut stream = self.open(true, self.until).await;
        loop {
            let open = stream.is_some();
            let next = async {
                match &mut stream {
                    Some(stream) => stream.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                order = self.orders.recv() => match order {
                    Some(Order::Started) => {
                        self.carried_out += 1;
                        // The stream may have ended with the run before.
                        if !open {
                            skip = self.position.delivered;
                            stream = self.open(true, self.until).await;
                        }
                    }
                    Some(Order::Destroyed) | None => {
                        // The stream ends with the container.
                        while let Some(Ok(frames)) = match &mut stream {
                            Some(stream) => stream.next().await,
                            None => None,
                        } {
                            self.deliver(frames, &mut skip).await;
                        }
                        return order;
                    }
                    died => return died,
                },
                frames = next => match frames {
                    Some(Ok(frames)) => self.deliver(frames, &mut skip).await,
                    Some(Err(error)) => {
                        self.complain(&error).await;
                        stream = None;
                    }
                    None => stream = None,
                },
            }
        }
    }

    /// Delivers what is in the log now, up to a time.
    async fn drain(&mut self, until: Option<Timestamp>) {
        let mut skip = self.position.delivered;
        let until = until.or(self.until);
        let Some(mut stream) = self.open(false, until).await else { return };
        while let Some(frames) = stream.next().await {
            match frames {
                Ok(mut frames) => {
                    if let Some(until) = until {
                        frames.retain(|frame| frame.time <= until);
                    }
                    self.deliver(frames, &mut skip).await;
                }
                Err(error) => return self.complain(&error).await,
            }
        }
    }

    async fn open(
        &self,
        follow: bool,
        until: Option<Timestamp>,
    ) -> Option<BoxStream<Result<Vec<LogFrame>, EngineError>>> {
        let options = LogOptions { follow, tail: None, since: self.position.time, until };
        match self.engine.logs(&self.id, &options).await {
            Ok(stream) => Some(stream),
            // It is being removed, which we will be told.
            Err(EngineError::NotFound { .. }) => None,
            Err(error) => {
                self.complain(&error).await;
                None
            }
        }
    }

    async fn deliver(&mut self, mut frames: Vec<LogFrame>, skip: &mut usize) {
        self.position.advance(&mut frames, skip);
        if !frames.is_empty() {
            send(&self.events, ProjectEvent::Log { source: self.display.clone(), frames }).await;
        }
    }

    async fn complain(&self, error: &EngineError) {
        let text = format!("cannot read the output of {}: {error}", self.display);
        send(&self.events, ProjectEvent::Warning(text)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::StdStream;

    fn frames(times: &[i64]) -> Vec<LogFrame> {
        times
            .iter()
            .map(|t| LogFrame {
                stream: StdStream::Stdout,
                time: Timestamp::from_second(*t).expect("a time"),
                data: Vec::new(),
                newline: true,
            })
            .collect()
    }

    #[test]
    fn a_position_neither_loses_nor_repeats_frames_of_one_time() {
        let log = frames(&[1, 1, 2, 2, 2, 3, 3]);
        for first in 0..=log.len() {
            for second in first..=log.len() {
                let mut position = Position::default();
                let mut got = Vec::new();
                // Three readings, each from the position's time on, of a log that has grown.
                for end in [first, second, log.len()] {
                    let from = position.time;
                    let mut batch: Vec<_> =
                        log[..end].iter().filter(|f| from.is_none_or(|t| f.time >= t)).cloned().collect();
                    let mut skip = position.delivered;
                    // In pieces of one, as a slow stream gives them.
                    for frame in batch.drain(..) {
                        let mut piece = vec![frame];
                        position.advance(&mut piece, &mut skip);
                        got.extend(piece);
                    }
                }
                assert_eq!(got, log, "{first} {second}");
            }
        }
    }
}
