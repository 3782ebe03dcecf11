//! Logs, and the streams of attached and extra processes.

use std::pin::Pin;

use async_trait::async_trait;
use bollard::Docker as Client;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::query_parameters::{
    KillContainerOptionsBuilder, ResizeContainerTTYOptionsBuilder, ResizeExecOptionsBuilder,
};
use futures_util::{Stream, StreamExt};
use jiff::Timestamp;
use tokio::io::{AsyncWrite, AsyncWriteExt, DuplexStream};

use super::error::About;
use crate::engine::{Attached, BoxStream, EngineError, LogFrame, ProcessControl, Result, StdStream};

type Output = Pin<Box<dyn Stream<Item = std::result::Result<LogOutput, Error>> + Send>>;

/// How many bytes wait between the Engine and a slow reader, per stream.
const PIPE: usize = 64 * 1024;

/// Turns the Engine's log stream (with timestamps) into frames, in batches of what is ready.
pub(super) fn frames(
    output: impl Stream<Item = std::result::Result<LogOutput, Error>> + Send + 'static,
    name: String,
) -> BoxStream<Result<Vec<LogFrame>>> {
    Box::pin(output.ready_chunks(512).map(move |batch| {
        batch
            .into_iter()
            .map(|item| match item {
                Ok(output) => Ok(frame(output)),
                Err(error) => Err(About::new("read the log of", "container", &name).error(error)),
            })
            .collect()
    }))
}

/// `2026-11-21T07:00:00.123456789Z text\n` → a frame.
fn frame(output: LogOutput) -> LogFrame {
    let stream = match &output {
        LogOutput::StdErr { .. } => StdStream::Stderr,
        _ => StdStream::Stdout,
    };
    let bytes = output.into_bytes();
    let (time, text) = match memchr::memchr(b' ', &bytes) {
        Some(at) => match std::str::from_utf8(&bytes[..at]).ok().and_then(|t| t.parse().ok()) {
            Some(time) => (time, &bytes[at + 1..]),
            None => (Timestamp::UNIX_EPOCH, &bytes[..]),
        },
        None => (Timestamp::UNIX_EPOCH, &bytes[..]),
    };
    let newline = text.ends_with(b"\n");
    let data = text.strip_suffix(b"\n").unwrap_or(text).to_vec();
    LogFrame { stream, time, data, newline }
}

/// What a [`Control`] controls.
pub(super) enum Target {
    /// The main process of a container.
    Container(String),
    /// An extra process by its exec id.
    Exec(String),
}

/// Connects the Engine's multiplexed stream to two pipes.
pub(super) fn attached(
    client: Client,
    mut output: Output,
    input: Option<Pin<Box<dyn AsyncWrite + Send>>>,
    tty: bool,
    target: Target,
) -> Attached {
    let (mut out_tx, out_rx) = tokio::io::duplex(PIPE);
    let (mut err_tx, err_rx) = tokio::io::duplex(PIPE);
    let (done_tx, done_rx) = tokio::sync::watch::channel(false);
    // Ends with the Engine's stream, or when the reader has gone.
    tokio::spawn(async move {
        while let Some(Ok(item)) = output.next().await {
            let to: &mut DuplexStream =
                if matches!(item, LogOutput::StdErr { .. }) { &mut err_tx } else { &mut out_tx };
            if to.write_all(&item.into_bytes()).await.is_err() {
                break;
            }
        }
        done_tx.send_replace(true);
    });
    Attached {
        stdin: input.map(|input| Box::new(input) as Box<dyn AsyncWrite + Send + Unpin>),
        stdout: Box::new(out_rx),
        stderr: (!tty).then(|| Box::new(err_rx) as Box<dyn tokio::io::AsyncRead + Send + Unpin>),
        control: Box::new(Control { client, target, done: done_rx }),
    }
}

struct Control {
    client: Client,
    target: Target,
    done: tokio::sync::watch::Receiver<bool>,
}

#[async_trait]
impl ProcessControl for Control {
    async fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        let (columns, rows) = (i32::from(columns), i32::from(rows));
        match &self.target {
            Target::Container(id) => {
                let options = ResizeContainerTTYOptionsBuilder::default().w(columns).h(rows).build();
                let done = self.client.resize_container_tty(id, options).await;
                done.map_err(|e| About::new("resize the terminal of", "container", id).error(e))
            }
            Target::Exec(id) => {
                let options = ResizeExecOptionsBuilder::default().w(columns).h(rows).build();
                let done = self.client.resize_exec(id, options).await;
                done.map_err(|e| About::new("resize the terminal of", "process", id).error(e))
            }
        }
    }

    async fn signal(&self, signal: &str) -> Result<()> {
        match &self.target {
            Target::Container(id) => {
                let options = KillContainerOptionsBuilder::default().signal(signal).build();
                let done = self.client.kill_container(id, Some(options)).await;
                done.map_err(|e| About::new("signal", "container", id).error(e))
            }
            Target::Exec(_) => Err(EngineError::Unsupported {
                engine: "docker",
                attribute: format!("signal {signal} to an extra process"),
                reason: "the Engine API has no call for it; use a terminal (Ctrl-C goes through it)"
                    .to_owned(),
            }),
        }
    }

    async fn wait(&self) -> Result<i32> {
        match &self.target {
            Target::Container(id) => super::wait(&self.client, id).await,
            Target::Exec(id) => {
                let mut done = self.done.clone();
                // An error means the task has gone, which is an end as well.
                drop(done.wait_for(|done| *done).await);
                let state = self.client.inspect_exec(id).await;
                let state = state.map_err(|e| About::new("inspect", "process", id).error(e))?;
                Ok(state.exit_code.and_then(|code| i32::try_from(code).ok()).unwrap_or(0))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_its_time_and_any_bytes() {
        let message = b"2026-11-21T07:00:00.5Z \xff a b\n"[..].to_vec().into();
        let frame = frame(LogOutput::StdErr { message });
        assert_eq!(frame.stream, StdStream::Stderr);
        assert_eq!(frame.data, b"\xff a b");
        assert!(frame.newline);
        assert_eq!(frame.time, "2026-11-21T07:00:00.5Z".parse().unwrap());
    }

    #[test]
    fn a_part_of_a_long_line_goes_on() {
        let message = b"2026-11-21T07:00:00Z aaa"[..].to_vec().into();
        assert!(!frame(LogOutput::StdOut { message }).newline);
    }
}
