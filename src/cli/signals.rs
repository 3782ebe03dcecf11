//! Signals → [`Interrupt`], or on to the process we are connected to.
//!
//! A thread of its own, so that Ctrl-C is noticed also while the main thread
//! waits for an answer or for a slow terminal. First SIGINT or SIGTERM: the
//! operation ends (an attached `up` stops the project). Second: it kills. From
//! the third on we leave at once, whatever hangs.

use std::io;
use std::sync::{Arc, Mutex};

use hoist::ops::Interrupt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::UnboundedSender;

use super::terminal;

/// What a connected process is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forwarded {
    /// A signal, by name.
    Signal(&'static str),
    /// The terminal has another size.
    Resized,
}

/// Where signals go.
#[derive(Clone)]
pub(crate) struct Signals {
    /// What they are turned into, usually.
    pub(crate) interrupt: Interrupt,
    forward: Arc<Mutex<Option<UnboundedSender<Forwarded>>>>,
}

/// Those that are passed on; what else there is keeps its usual meaning.
const NAMES: [(&str, SignalKind); 7] = [
    ("SIGINT", SignalKind::interrupt()),
    ("SIGTERM", SignalKind::terminate()),
    ("SIGHUP", SignalKind::hangup()),
    ("SIGQUIT", SignalKind::quit()),
    ("SIGUSR1", SignalKind::user_defined1()),
    ("SIGUSR2", SignalKind::user_defined2()),
    ("SIGWINCH", SignalKind::window_change()),
];

impl Signals {
    /// Takes SIGINT and SIGTERM over.
    ///
    /// # Errors
    /// When the thread or its handlers cannot be set up.
    pub(crate) fn start(hide_cursor: bool) -> io::Result<Self> {
        let signals = Self { interrupt: Interrupt::default(), forward: Arc::default() };
        signals.listen(2, hide_cursor)?;
        Ok(signals)
    }

    /// From now on, everything goes to a connected process.
    ///
    /// # Errors
    /// When the further handlers cannot be set up.
    pub(crate) fn forward_to(&self, sender: UnboundedSender<Forwarded>) -> io::Result<()> {
        if let Ok(mut forward) = self.forward.lock() {
            *forward = Some(sender);
        }
        self.listen_rest()
    }

    fn listen(&self, count: usize, hide_cursor: bool) -> io::Result<()> {
        self.spawn(&NAMES[..count], hide_cursor)
    }

    fn listen_rest(&self) -> io::Result<()> {
        self.spawn(&NAMES[2..], false)
    }

    fn spawn(&self, kinds: &'static [(&'static str, SignalKind)], hide_cursor: bool) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        // Handlers must be there before anything is started.
        let streams = {
            let _inside = runtime.enter();
            kinds.iter().map(|(name, kind)| Ok((*name, signal(*kind)?))).collect::<io::Result<Vec<_>>>()?
        };
        let this = self.clone();
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            runtime.block_on(async {
                let mut received = futures_util::stream::SelectAll::new();
                for (name, stream) in streams {
                    received
                        .push(Box::pin(futures_util::stream::unfold(stream, move |mut stream| async move {
                            stream.recv().await.map(|()| (name, stream))
                        })));
                }
                while let Some(name) = futures_util::StreamExt::next(&mut received).await {
                    this.received(name, hide_cursor);
                }
            });
        })?;
        Ok(())
    }

    fn received(&self, name: &'static str, hide_cursor: bool) {
        if let Ok(forward) = self.forward.lock()
            && let Some(sender) = &*forward
        {
            let what = if name == "SIGWINCH" { Forwarded::Resized } else { Forwarded::Signal(name) };
            if sender.send(what).is_ok() {
                return;
            }
        }
        if !self.interrupt.first.is_cancelled() {
            self.interrupt.first.cancel();
        } else if !self.interrupt.second.is_cancelled() {
            self.interrupt.second.cancel();
        } else {
            leave(hide_cursor);
        }
    }
}

/// Ends the process without waiting for anything.
#[expect(clippy::exit, reason = "the user has asked three times; whatever we wait for does not answer")]
fn leave(cursor: bool) -> ! {
    terminal::restore_all(cursor);
    std::process::exit(130)
}
