//! Output of fake containers as streams.

use async_trait::async_trait;
use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

use super::FakeEngine;
use crate::engine::{
    Attached, BoxStream, Engine, LogFrame, LogOptions, Phase, ProcessControl, Result, StdStream,
};

struct Reader {
    engine: FakeEngine,
    id: String,
    changes: watch::Receiver<u64>,
    options: LogOptions,
    next: Option<usize>,
}

enum Turn {
    Frames(Vec<LogFrame>),
    Wait,
    End,
}

impl Reader {
    fn turn(&mut self) -> Turn {
        let state = self.engine.lock();
        let Some(container) = state.containers.get(&self.id) else { return Turn::End };
        let wanted = |frame: &&LogFrame| {
            self.options.since.is_none_or(|since| frame.time >= since)
                && self.options.until.is_none_or(|until| frame.time <= until)
        };
        let first = self.next.is_none();
        let new = container.log[self.next.unwrap_or(0)..].iter().filter(wanted);
        let mut frames: Vec<LogFrame> = new.cloned().collect();
        if first && let Some(tail) = self.options.tail {
            frames.drain(..frames.len().saturating_sub(tail));
        }
        self.next = Some(container.log.len());
        if !frames.is_empty() {
            return Turn::Frames(frames);
        }
        let goes_on = container.is_running() || container.state.phase == Phase::Restarting;
        if self.options.follow && goes_on { Turn::Wait } else { Turn::End }
    }
}

pub(super) fn logs(
    engine: FakeEngine,
    id: String,
    changes: watch::Receiver<u64>,
    options: LogOptions,
) -> BoxStream<Result<Vec<LogFrame>>> {
    let reader = Reader { engine, id, changes, options, next: None };
    futures_util::stream::unfold(reader, |mut reader| async move {
        loop {
            reader.changes.mark_unchanged();
            match reader.turn() {
                Turn::Frames(frames) => return Some((Ok(frames), reader)),
                Turn::End => return None,
                // An error means that the container is gone, which the next turn sees.
                Turn::Wait => drop(reader.changes.changed().await),
            }
        }
    })
    .boxed()
}

struct Control {
    engine: FakeEngine,
    id: String,
}

#[async_trait]
impl ProcessControl for Control {
    async fn resize(&self, _columns: u16, _rows: u16) -> Result<()> {
        Ok(())
    }

    async fn signal(&self, signal: &str) -> Result<()> {
        self.engine.kill(&self.id, signal).await
    }

    async fn wait(&self) -> Result<i32> {
        loop {
            let mut changes = {
                let state = self.engine.lock();
                match state.containers.get(&self.id) {
                    Some(c) if c.state.phase == Phase::Exited => return Ok(c.state.exit_code),
                    Some(c) => c.changes.subscribe(),
                    None => return Ok(state.exit_codes.get(&self.id).copied().unwrap_or_default()),
                }
            };
            // An error means that it is gone, which the next turn sees.
            drop(changes.changed().await);
        }
    }
}

/// Streams of a running or not yet started container.
pub(super) fn attach(engine: &FakeEngine, id: String, mut changes: watch::Receiver<u64>) -> Attached {
    let (stdout, mut out) = tokio::io::duplex(1 << 16);
    let (stderr, mut err) = tokio::io::duplex(1 << 16);
    let control = Control { engine: engine.clone(), id: id.clone() };
    let engine = engine.clone();
    // Ends with the container, or when the reader has gone.
    tokio::spawn(async move {
        let mut next = engine.lock().containers.get(&id).map_or(0, |c| c.log.len());
        loop {
            changes.mark_unchanged();
            let (frames, ended) = {
                let state = engine.lock();
                let Some(container) = state.containers.get(&id) else { return };
                let frames = container.log[next..].to_vec();
                next = container.log.len();
                (frames, container.state.phase == Phase::Exited)
            };
            for frame in frames {
                let to = if frame.stream == StdStream::Stdout { &mut out } else { &mut err };
                let mut line = frame.data;
                line.push(b'\n');
                if to.write_all(&line).await.is_err() {
                    return;
                }
            }
            if ended || changes.changed().await.is_err() {
                return;
            }
        }
    });
    Attached {
        stdin: None,
        stdout: Box::new(stdout),
        stderr: Some(Box::new(stderr)),
        control: Box::new(control),
    }
}

struct Finished(i32);

#[async_trait]
impl ProcessControl for Finished {
    async fn resize(&self, _columns: u16, _rows: u16) -> Result<()> {
        Ok(())
    }

    async fn signal(&self, _signal: &str) -> Result<()> {
        Ok(())
    }

    async fn wait(&self) -> Result<i32> {
        Ok(self.0)
    }
}

/// A process that has printed this and ended.
pub(super) fn finished(output: &str, code: i32) -> Attached {
    Attached {
        stdin: None,
        stdout: Box::new(std::io::Cursor::new(output.as_bytes().to_vec())),
        stderr: Some(Box::new(tokio::io::empty())),
        control: Box::new(Finished(code)),
    }
}
