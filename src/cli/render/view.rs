//! The thread that shows events: owns stdout and stderr while an operation runs.
//!
//! A thread of its own because writing blocks: a terminal stopped with Ctrl-S
//! or a slow pipe must not keep signals from being handled. The channel is
//! bounded, so a slow reader slows the operation down and nothing is lost.
//!
//! The live tree is erased before anything else is printed and drawn again
//! below it, so the two never mix.

use std::io::{self, IsTerminal as _};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hoist::ops::Interrupt;
use hoist::ops::events::{EventSender, ProjectEvent, Status};
use tokio::sync::mpsc::{Receiver, channel, error::TryRecvError};
use unicode_width::UnicodeWidthStr as _;

use super::build::BuildLines;
use super::frame::{Shape, Tree};
use super::lines::Lines;
use super::logs::{LogWriter, Style};
use super::out::{self, Sinks, Stream};

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// A live tree.
    Tty,
    /// One line per change.
    Plain,
    /// One object per change.
    Json,
    /// Not at all.
    Quiet,
}

/// What is shown, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    /// Progress.
    pub(crate) progress: Progress,
    /// Colours on stderr.
    pub(crate) color: bool,
    /// Log lines.
    pub(crate) logs: Style,
    /// Say on each line that nothing is really done.
    pub(crate) dry_run: bool,
}

/// A running view.
pub(crate) struct View {
    sender: Option<EventSender>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

/// Events under way between an operation and the terminal.
const QUEUE: usize = 256;
/// Time between two pictures of the tree.
const TICK: Duration = Duration::from_millis(100);

impl View {
    /// Starts the thread. When its output is gone (closed pipe), it interrupts the operation.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn start(look: Look, interrupt: Interrupt) -> io::Result<Self> {
        let (sender, receiver) = channel(QUEUE);
        let thread = std::thread::Builder::new().name("view".into()).spawn(move || {
            let mut screen = Screen::new(look);
            let result = screen.run(receiver);
            if result.is_err() {
                interrupt.first.cancel();
            }
            result
        })?;
        Ok(Self { sender: Some(sender), thread: Some(thread) })
    }

    /// Where events go.
    pub(crate) fn sender(&self) -> EventSender {
        self.sender.clone().expect("only `finish` takes it")
    }

    /// Waits until all events are shown. All clones of the sender must be gone.
    ///
    /// # Errors
    /// Of the writes.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        drop(self.sender.take());
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            // The panic has been reported by its hook.
            Some(Err(_)) => Err(io::Error::other("the output thread failed")),
            None => Ok(()),
        }
    }
}

/// What is on the screen.
struct Screen {
    look: Look,
    started: Instant,
    tree: Option<Tree>,
    lines: Lines,
    build: BuildLines,
    logs: LogWriter,
    sinks: Sinks<Stream, Stream>,
    /// Widths of the lines of the picture that is on the terminal.
    drawn: Vec<usize>,
    drawn_at: Option<Instant>,
    cursor_hidden: bool,
    /// Logs are followed: progress without a heading is only of interest while something is waited for.
    attached: bool,
}

impl Screen {
    fn new(look: Look) -> Self {
        Self {
            look,
            started: Instant::now(),
            tree: None,
            lines: Lines::new(look.dry_run),
            build: BuildLines::default(),
            logs: LogWriter::new(look.logs),
            sinks: Sinks::new(Stream::Out, Stream::Err, out::streams_are_one()),
            drawn: Vec::new(),
            drawn_at: None,
            cursor_hidden: false,
            attached: false,
        }
    }

    fn run(&mut self, mut events: Receiver<ProjectEvent>) -> io::Result<()> {
        // Only a live tree needs a clock. Its own, since the main one may be gone before the last event is shown.
        let clock = if self.look.progress == Progress::Tty {
            Some(tokio::runtime::Builder::new_current_thread().enable_time().build()?)
        } else {
            None
        };
        loop {
            let event = match events.try_recv() {
                Ok(event) => Some(event),
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => {
                    // Idle: what was gathered is shown now.
                    self.sinks.flush()?;
                    self.draw_if_due();
                    if let (Some(_), Some(clock)) = (&self.tree, &clock) {
                        match clock.block_on(async { tokio::time::timeout(TICK, events.recv()).await }) {
                            Ok(Some(event)) => Some(event),
                            Ok(None) => break,
                            Err(_tick) => None,
                        }
                    } else {
                        match events.blocking_recv() {
                            Some(event) => Some(event),
                            None => break,
                        }
                    }
                }
            };
            if let Some(event) = event {
                self.show(event)?;
            }
            self.draw_if_due();
        }
        self.erase();
        self.logs.finish_all(&mut self.sinks)?;
        self.sinks.flush()?;
        self.close_tree();
        Ok(())
    }

    fn show(&mut self, event: ProjectEvent) -> io::Result<()> {
        match event {
            ProjectEvent::Begin { operation } => {
                self.close_tree();
                self.attached = false;
                if self.look.progress == Progress::Tty {
                    self.tree = Some(Tree::new(operation, self.look.dry_run));
                }
            }
            ProjectEvent::Progress { .. } => self.progress(&event),
            ProjectEvent::Build(event) => {
                let text = match self.look.progress {
                    Progress::Quiet => return Ok(()),
                    Progress::Json => BuildLines::json(&event),
                    Progress::Tty | Progress::Plain => self.build.plain(&event),
                };
                self.talk(&text);
            }
            ProjectEvent::End => self.close_tree(),
            ProjectEvent::Watch(text) => self.talk(&format!("⦿ {text}\n")),
            ProjectEvent::Warning(text) => self.talk(&format!("warning: {text}\n")),
            ProjectEvent::Attaching(mut names) => {
                self.close_tree();
                self.attached = true;
                self.logs.register(&names);
                names.sort();
                // `logs` shows nobody but itself.
                if self.look.logs.one_stream {
                    return Ok(());
                }
                self.interject(|screen| {
                    let line = format!("Attaching to {}\n", names.join(", "));
                    screen.sinks.stdout().write_all(line.as_bytes())
                })?;
            }
            ProjectEvent::Log { source, frames } => {
                self.interject(|screen| screen.logs.write(&source, &frames, &mut screen.sinks))?;
            }
            ProjectEvent::Exited { source, code, restarting } => {
                let again = if restarting { " (restarting)" } else { "" };
                self.interject(|screen| {
                    screen.logs.finish(&source, &mut screen.sinks)?;
                    let rest = format!("exited with code {code}{again}");
                    let line = screen.logs.status_line(&source, &rest);
                    screen.sinks.stdout().write_all(line.as_bytes())
                })?;
            }
            ProjectEvent::Recreated { source } => {
                self.interject(|screen| {
                    let line = screen.logs.status_line(&source, "has been recreated");
                    screen.sinks.stdout().write_all(line.as_bytes())
                })?;
            }
            ProjectEvent::Stopping { reason } => self.talk(&format!("{reason}\n")),
            // A kind of event that this renderer has no picture for.
            _ => {}
        }
        Ok(())
    }

    fn progress(&mut self, event: &ProjectEvent) {
        if self.attached
            && let ProjectEvent::Progress { text: "Starting" | "Started" | "Running", status, .. } = event
            && matches!(status, Status::Working | Status::Done)
        {
            // Its first line of output says as much.
            return;
        }
        match self.look.progress {
            Progress::Tty => {
                let now = self.started.elapsed();
                let tree = self.tree.get_or_insert_with(|| Tree::new("start", self.look.dry_run));
                tree.update(event, now);
                if self.attached && tree.is_content() {
                    self.erase();
                    self.tree = None;
                    self.close_tree();
                }
            }
            Progress::Plain => {
                if let Some(line) = self.lines.plain(event) {
                    self.talk(&line);
                }
            }
            Progress::Json => {
                if let Some(line) = self.lines.json(event) {
                    self.talk(&line);
                }
            }
            // Failures are part of the error that follows; warnings have no other place.
            Progress::Quiet => {
                if let ProjectEvent::Progress { status: Status::Warning, .. } = event
                    && let Some(line) = self.lines.plain(event)
                {
                    self.talk(&line);
                }
            }
        }
    }

    /// Prints a line on stderr, above the tree.
    fn talk(&mut self, text: &str) {
        self.erase();
        // Lines that came before it must be seen before it.
        let _reported_later = self.sinks.flush();
        out::talk(text);
    }

    /// Prints something that is not progress, above the tree.
    fn interject(&mut self, print: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        self.erase();
        print(self)
    }

    fn shape(&self, whole: bool) -> Shape {
        let (width, height) = terminal_size();
        Shape {
            width,
            height: if whole { usize::MAX } else { height.saturating_sub(1) },
            color: self.look.color,
        }
    }

    fn draw_if_due(&mut self) {
        let due = self.drawn_at.is_none_or(|at| at.elapsed() >= TICK) || self.drawn.is_empty();
        if due && self.tree.as_ref().is_some_and(|tree| !tree.is_empty()) {
            // What has been printed above belongs before the tree.
            let _reported_later = self.sinks.flush();
            self.draw(false);
        }
    }

    fn draw(&mut self, whole: bool) {
        let Some(tree) = &self.tree else { return };
        let shape = self.shape(whole);
        let lines = tree.frame(shape, self.started.elapsed());
        let mut text = self.up_over_picture();
        if !self.cursor_hidden {
            text.push_str("\x1b[?25l");
            self.cursor_hidden = true;
        }
        for line in &lines {
            text.push_str("\x1b[2K");
            text.push_str(line);
            text.push('\n');
        }
        text.push_str("\x1b[J");
        out::talk(&text);
        self.drawn = lines.iter().map(|line| printed_width(line)).collect();
        self.drawn_at = Some(Instant::now());
    }

    /// Moves the cursor to where the picture begins; counts lines that a narrower terminal has wrapped.
    fn up_over_picture(&self) -> String {
        let (width, _) = terminal_size();
        let rows: usize = self.drawn.iter().map(|w| w.div_ceil(width.max(1)).max(1)).sum();
        if rows == 0 { String::new() } else { format!("\r\x1b[{rows}A") }
    }

    fn erase(&mut self) {
        if !self.drawn.is_empty() {
            let mut text = self.up_over_picture();
            text.push_str("\x1b[J");
            out::talk(&text);
            self.drawn.clear();
        }
    }

    /// Leaves the last picture of the tree on the terminal.
    fn close_tree(&mut self) {
        if self.tree.as_ref().is_some_and(|tree| !tree.is_empty()) {
            self.erase();
            let _reported_later = self.sinks.flush();
            self.draw(true);
        }
        self.tree = None;
        self.drawn.clear();
        self.drawn_at = None;
        if self.cursor_hidden {
            out::talk("\x1b[?25h");
            self.cursor_hidden = false;
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Also when this thread panics.
        if self.cursor_hidden {
            out::talk("\x1b[?25h");
        }
    }
}

/// Columns and rows of the terminal on stderr, or 80 × 24.
pub(crate) fn terminal_size() -> (usize, usize) {
    let size = if io::stderr().is_terminal() {
        rustix::termios::tcgetwinsize(rustix::stdio::stderr()).ok()
    } else {
        None
    };
    match size {
        Some(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}

/// Columns of a line, colour codes not counted.
fn printed_width(line: &str) -> usize {
    let mut plain = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            chars.by_ref().take_while(|c| *c != 'm').for_each(drop);
        } else {
            plain.push(c);
        }
    }
    plain.width()
}
