//! Logs, events, and the streams of processes, as tokio sees them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use futures_util::stream;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::unix::pipe;

use super::error::{engine_error, failed};
use super::{matches, pull_event, state};
use crate::engine::{
    Attached, BoxStream, EngineError, EngineEvent, EventAction, ImageState, LogFrame, LogOptions,
    ProcessControl, PullProgress, Result, StdStream,
};
use crate::runtime::control::{ExecProcess, Streams};
use crate::runtime::error::RuntimeError;
use crate::runtime::events::{Action, ContainerEvent, EventReader};
use crate::runtime::image::{self, ImageError, Registries, Store};
use crate::runtime::log::reader::{LogReader, Range};
use crate::runtime::log::{Frame, StreamKind};
use crate::runtime::state::Life;
use crate::runtime::watch::Watch;
use crate::runtime::{Runtime, signal};
use crate::util::fs::PathError;

/// Bytes of an export that are handed over at once.
const PIECE: usize = 256 << 10;

fn path_error(error: PathError) -> EngineError {
    engine_error(error.into())
}

/// Follows a container's log files.
struct Follower {
    runtime: Arc<Runtime>,
    id: String,
    reader: LogReader,
    /// None when not following.
    watch: Option<AsyncFd<Watch>>,
    ended: bool,
}

pub(super) fn logs(
    runtime: &Arc<Runtime>,
    container: &str,
    options: &LogOptions,
) -> Result<BoxStream<Result<Vec<LogFrame>>>> {
    let found = runtime.inspect(container).map_err(engine_error)?;
    let found =
        found.ok_or_else(|| EngineError::NotFound { kind: "container", name: container.to_owned() })?;
    if found.record.spec.log.driver.as_deref() == Some("none") {
        return Err(EngineError::Unsupported {
            engine: "builtin",
            attribute: "logging.driver: none".into(),
            reason: format!("nothing is written of container `{container}`; attach to it instead"),
        });
    }
    let dir = runtime.container_dir(&found.record.id);
    // The watch before the first look, so that nothing falls in between.
    let watch = if options.follow {
        let watch = Watch::new(&dir).map_err(path_error)?;
        Some(register(watch, Interest::READABLE, "cannot wait for output")?)
    } else {
        None
    };
    let range = Range { tail: options.tail, since: options.since, until: options.until };
    let reader = LogReader::open(&dir, range).map_err(path_error)?;
    let follower =
        Follower { runtime: Arc::clone(runtime), id: found.record.id, reader, watch, ended: false };
    Ok(Box::pin(stream::unfold(follower, |mut follower| async {
        let batch = follower.next().await?;
        // Many batches are ready at once when there is much to catch up on; others want to run, too.
        tokio::task::yield_now().await;
        Some((batch, follower))
    })))
}

impl Follower {
    async fn next(&mut self) -> Option<Result<Vec<LogFrame>>> {
        loop {
            if let Some(watch) = &self.watch {
                watch.get_ref().clear();
            }
            match self.reader.batch() {
                Ok(frames) if !frames.is_empty() => {
                    return Some(Ok(frames.into_iter().map(frame).collect()));
                }
                Ok(_) => {}
                Err(error) => return Some(Err(path_error(error))),
            }
            if self.ended || self.watch.is_none() || self.reader.over() {
                return None;
            }
            let stopped = match self.runtime.state_of(&self.id) {
                Ok(state) => matches!(state.life, Life::Exited { .. } | Life::Failed { .. } | Life::Removing),
                Err(_) => true,
            };
            if stopped {
                // All output was written before the state said so: one more look gets the rest.
                self.ended = true;
                continue;
            }
            if let Some(watch) = &self.watch {
                match watch.readable().await {
                    Ok(mut ready) => ready.clear_ready(),
                    Err(error) => return Some(Err(failed("cannot wait for output", error))),
                }
            }
        }
    }
}

fn frame(frame: Frame) -> LogFrame {
    LogFrame {
        stream: match frame.stream {
            StreamKind::Stdout => StdStream::Stdout,
            StreamKind::Stderr => StdStream::Stderr,
        },
        time: frame.time,
        data: frame.data,
        newline: frame.newline,
    }
}

/// Follows the event file.
struct Listener {
    reader: EventReader,
    watch: AsyncFd<Watch>,
    labels: Vec<String>,
    ready: VecDeque<EngineEvent>,
}

pub(super) fn events(
    runtime: &Arc<Runtime>,
    labels: &[String],
    since: Option<jiff::Timestamp>,
) -> Result<BoxStream<Result<EngineEvent>>> {
    let watch = Watch::new(runtime.root().run()).map_err(path_error)?;
    let watch = register(watch, Interest::READABLE, "cannot wait for events")?;
    let reader = EventReader::open(runtime.root(), since).map_err(path_error)?;
    let listener = Listener { reader, watch, labels: labels.to_vec(), ready: VecDeque::new() };
    Ok(Box::pin(stream::unfold(listener, |mut listener| async {
        let event = listener.next().await;
        Some((event, listener))
    })))
}

impl Listener {
    async fn next(&mut self) -> Result<EngineEvent> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            self.watch.get_ref().clear();
            let batch = self.reader.batch().map_err(path_error)?;
            self.ready.extend(batch.into_iter().filter(|e| matches(&e.labels, &self.labels)).map(event));
            if self.ready.is_empty() {
                let mut ready =
                    self.watch.readable().await.map_err(|e| failed("cannot wait for events", e))?;
                ready.clear_ready();
            }
        }
    }
}

fn event(event: ContainerEvent) -> EngineEvent {
    EngineEvent {
        time: event.time,
        id: event.id,
        name: event.name,
        image: event.image,
        labels: event.labels,
        action: match event.action {
            Action::Create => EventAction::Create,
            Action::Start => EventAction::Start,
            Action::Die { code, restarting } => EventAction::Die { exit_code: code, restarting },
            Action::Oom => EventAction::Oom,
            Action::Stop => EventAction::Stop,
            Action::Kill { signal } => EventAction::Kill { signal },
            Action::Pause => EventAction::Pause,
            Action::Unpause => EventAction::Unpause,
            Action::Restart => EventAction::Restart,
            Action::Rename => EventAction::Rename,
            Action::Destroy => EventAction::Destroy,
            Action::HealthStatus { status } => EventAction::HealthStatus { health: state::health(status) },
            Action::ExecStart { command } => EventAction::ExecStart { command },
            Action::ExecDie { code } => EventAction::ExecDie { exit_code: code },
        },
    }
}

type Input = Option<Box<dyn AsyncWrite + Send + Unpin>>;
type Output = Box<dyn AsyncRead + Send + Unpin>;

/// Descriptors as tokio's readers and writers.
fn open(streams: Streams) -> io::Result<(Input, Output, Option<Output>)> {
    if streams.terminal {
        let stdin = match streams.stdin {
            Some(fd) => Some(Box::new(Terminal::new(fd)?) as Box<dyn AsyncWrite + Send + Unpin>),
            None => None,
        };
        return Ok((stdin, Box::new(Terminal::new(streams.stdout)?), None));
    }
    let stdin = match streams.stdin {
        Some(fd) => Some(Box::new(pipe::Sender::from_owned_fd(fd)?) as Box<dyn AsyncWrite + Send + Unpin>),
        None => None,
    };
    let stderr = match streams.stderr {
        Some(fd) => Some(Box::new(pipe::Receiver::from_owned_fd(fd)?) as Output),
        None => None,
    };
    Ok((stdin, Box::new(pipe::Receiver::from_owned_fd(streams.stdout)?), stderr))
}

/// The master of a terminal.
struct Terminal(AsyncFd<OwnedFd>);

impl Terminal {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
        fcntl_setfl(&fd, fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        register(fd, both, "cannot wait for the terminal").map(Self).map_err(io::Error::other)
    }
}

impl AsyncRead for Terminal {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            let room = buf.initialize_unfilled();
            match guard.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut *room)?)) {
                Ok(Ok(n)) => {
                    buf.advance(n);
                    return Poll::Ready(Ok(()));
                }
                // The last process has closed its side.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            match guard.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), bytes)?)) {
                Ok(done) => return Poll::Ready(done),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A terminal has no end of input but the typed one.
        Poll::Ready(Ok(()))
    }
}

/// An extra process.
struct ExecControl {
    process: Arc<ExecProcess>,
    /// For its size.
    terminal: Option<OwnedFd>,
    code: Arc<Mutex<Option<i32>>>,
}

pub(super) fn exec(mut process: ExecProcess) -> Result<Attached> {
    let streams = process.streams.take();
    let broken = |e| failed("cannot connect to the command", e);
    let terminal = match &streams {
        Some(streams) if streams.terminal => Some(streams.stdout.try_clone().map_err(broken)?),
        _ => None,
    };
    let (stdin, stdout, stderr) = match streams {
        Some(streams) => open(streams).map_err(broken)?,
        None => (None, Box::new(tokio::io::empty()) as Output, None),
    };
    let control = ExecControl { process: Arc::new(process), terminal, code: Arc::default() };
    Ok(Attached { stdin, stdout, stderr, control: Box::new(control) })
}

#[async_trait]
impl ProcessControl for ExecControl {
    async fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        let Some(terminal) = &self.terminal else { return Ok(()) };
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(terminal, size)
            .map_err(|e| failed("cannot set the terminal size", io::Error::from(e)))
    }

    async fn signal(&self, signal: &str) -> Result<()> {
        self.process.signal(signal).map_err(engine_error)
    }

    async fn wait(&self) -> Result<i32> {
        let (process, code) = (Arc::clone(&self.process), Arc::clone(&self.code));
        let waited = tokio::task::spawn_blocking(move || {
            let mut known = code.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if let Some(code) = *known {
                return Ok(code);
            }
            let got = process.wait()?;
            *known = Some(got);
            Ok(got)
        })
        .await;
        match waited {
            Ok(code) => code.map_err(engine_error),
            Err(stopped) => Err(failed("a wait was interrupted", stopped)),
        }
    }
}

/// The main process of a container.
struct MainControl {
    runtime: Arc<Runtime>,
    container: String,
    /// From the moment of attaching on: knows the exit code of a container that has removed itself.
    events: Arc<Mutex<EventReader>>,
}

pub(super) fn attached(runtime: &Arc<Runtime>, container: &str, streams: Streams) -> Result<Attached> {
    let (stdin, stdout, stderr) =
        open(streams).map_err(|e| failed(&format!("cannot connect to container `{container}`"), e))?;
    let container = runtime.resolve(container).map_err(engine_error)?;
    let events = EventReader::open(runtime.root(), None).map_err(path_error)?;
    let events = Arc::new(Mutex::new(events));
    let control = MainControl { runtime: Arc::clone(runtime), container, events };
    Ok(Attached { stdin, stdout, stderr, control: Box::new(control) })
}

#[async_trait]
impl ProcessControl for MainControl {
    async fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        self.runtime.resize(&self.container, columns, rows).map_err(engine_error)
    }

    async fn signal(&self, word: &str) -> Result<()> {
        signal::parse(word).map_err(engine_error)?;
        self.runtime.kill(&self.container, word).map_err(engine_error)
    }

    async fn wait(&self) -> Result<i32> {
        let (runtime, container) = (Arc::clone(&self.runtime), self.container.clone());
        match tokio::task::spawn_blocking(move || runtime.wait(&container)).await {
            Ok(Err(RuntimeError::NotFound(name))) => {
                let mut events = self.events.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                let code =
                    events.batch().map_err(path_error)?.into_iter().rev().find_map(|event| {
                        match event.action {
                            Action::Die { code, restarting: false } if event.id == self.container => {
                                Some(code)
                            }
                            _ => None,
                        }
                    });
                code.ok_or_else(|| engine_error(RuntimeError::NotFound(name)))
            }
            Ok(code) => code.map_err(engine_error),
            Err(stopped) => Err(failed("a wait was interrupted", stopped)),
        }
    }
}

/// Fetches an image, passing progress on as it comes.
pub(super) async fn pull(
    runtime: &Arc<Runtime>,
    reference: &str,
    platform: Option<&str>,
    progress: PullProgress<'_>,
) -> Result<ImageState> {
    let (reference, platform) = (reference.to_owned(), platform.map(str::to_owned));
    let pulled = transfer(runtime, progress, move |store, registries, step| {
        store.pull(&reference, platform.as_deref(), registries, step)
    });
    pulled.await.map(|pulled| state::image(pulled.image))
}

pub(super) async fn push(runtime: &Arc<Runtime>, reference: &str, progress: PullProgress<'_>) -> Result<()> {
    let reference = reference.to_owned();
    transfer(runtime, progress, move |store, registries, step| store.push(&reference, None, registries, step))
        .await
        .map(drop)
}

/// Has a thread move an image, and reports its steps here.
pub(super) async fn transfer<T: Send + 'static>(
    runtime: &Arc<Runtime>,
    progress: PullProgress<'_>,
    work: impl FnOnce(&Store, &Registries, image::Progress<'_>) -> image::Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, mut steps) = tokio::sync::mpsc::unbounded_channel();
    let runtime = Arc::clone(runtime);
    let working = tokio::task::spawn_blocking(move || {
        let registries = Registries::from_environment().map_err(ImageError::from)?;
        // Nobody listens any more when it was given up; it then ends in its own time.
        let step = |event| drop(sender.send(event));
        work(runtime.images(), &registries, &step)
    });
    while let Some(event) = steps.recv().await {
        progress(pull_event(event));
    }
    match working.await {
        Ok(done) => done.map_err(|e| engine_error(e.into())),
        Err(stopped) => Err(failed("a transfer of an image was interrupted", stopped)),
    }
}

/// The file system of a container, written by a thread that waits for whoever reads.
pub(super) fn export(runtime: &Arc<Runtime>, container: &str) -> Result<BoxStream<Result<Vec<u8>>>> {
    // Found out now, so that a wrong name is told before anything is written.
    let export = runtime.export_of(container).map_err(engine_error)?;
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let last = sender.clone();
    tokio::task::spawn_blocking(move || {
        if let Err(error) = export.write(Pieces { sender, buffer: Vec::new() }) {
            // Nobody to tell when the reader has gone, which may be the very reason.
            drop(last.blocking_send(Err(engine_error(error))));
        }
    });
    Ok(Box::pin(stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|piece| (piece, receiver))
    })))
}

/// Writes into a channel, in pieces that are worth one.
struct Pieces {
    sender: tokio::sync::mpsc::Sender<Result<Vec<u8>>>,
    buffer: Vec<u8>,
}

impl Pieces {
    fn pass_on(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE));
        self.sender.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.pass_on()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() { Ok(()) } else { self.pass_on() }
    }
}

/// Puts a descriptor into tokio's loop.
#[expect(
    deprecated,
    reason = "its replacement is unsafe; everything given here owns its descriptor and keeps it"
)]
fn register<T: std::os::fd::AsRawFd>(owner: T, interest: Interest, step: &str) -> Result<AsyncFd<T>> {
    AsyncFd::with_interest(owner, interest).map_err(|e| failed(step, e))
}
