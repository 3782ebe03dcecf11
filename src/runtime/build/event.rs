//! What happens while an image is built.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// One thing that happened. Steps are numbered from 1 within one build, in the order they begin.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A step begins.
    Started {
        /// Its number.
        step: u32,
        /// `[web 2/4] RUN make`.
        name: String,
    },
    /// A line that its command wrote.
    Output {
        /// Whose.
        step: u32,
        /// Seconds since the step began.
        at: f64,
        /// To standard error.
        error: bool,
        /// Without its end.
        text: String,
    },
    /// Something about it, such as the bytes of a context.
    Note {
        /// Whose.
        step: u32,
        /// The text.
        text: String,
    },
    /// It ended.
    Ended {
        /// Whose.
        step: u32,
        /// How.
        outcome: Outcome,
    },
    /// Something the user should know, rendered with its place.
    Warning(String),
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It was done.
    Done {
        /// In so many seconds.
        seconds: f64,
    },
    /// Its result was there already.
    Cached,
    /// It failed.
    Failed(String),
    /// It was given up.
    Cancelled,
}

/// Called with each [`Event`], from several threads; must not block for long.
pub type Watch<'a> = &'a (dyn Fn(Event) + Send + Sync);

/// Numbers the steps of a build.
pub(super) struct Reporter<'a> {
    watch: Watch<'a>,
    last: AtomicU32,
    begun: Mutex<HashMap<u32, Instant>>,
}

impl<'a> Reporter<'a> {
    pub(super) fn new(watch: Watch<'a>) -> Self {
        Self { watch, last: AtomicU32::new(0), begun: Mutex::default() }
    }

    /// A step begins; gives its number.
    pub(super) fn start(&self, name: String) -> u32 {
        let step = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).insert(step, Instant::now());
        (self.watch)(Event::Started { step, name });
        step
    }

    pub(super) fn note(&self, step: u32, text: impl Into<String>) {
        (self.watch)(Event::Note { step, text: text.into() });
    }

    pub(super) fn output(&self, step: u32, at: f64, error: bool, text: String) {
        (self.watch)(Event::Output { step, at, error, text });
    }

    pub(super) fn warn(&self, text: String) {
        (self.watch)(Event::Warning(text));
    }

    pub(super) fn done(&self, step: u32) {
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner).remove(&step);
        let seconds = begun.map_or(0.0, |begun| begun.elapsed().as_secs_f64());
        self.end(step, Outcome::Done { seconds });
    }

    pub(super) fn end(&self, step: u32, outcome: Outcome) {
        (self.watch)(Event::Ended { step, outcome });
    }

    /// Something that is a step by itself.
    pub(super) fn step<T, E: std::fmt::Display>(
        &self,
        name: impl Into<String>,
        work: impl FnOnce(u32) -> Result<T, E>,
    ) -> Result<T, E> {
        let step = self.start(name.into());
        let result = work(step);
        match &result {
            Ok(_) => self.done(step),
            Err(error) => self.end(step, Outcome::Failed(error.to_string())),
        }
        result
    }
}

impl std::fmt::Debug for Reporter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reporter").field("last", &self.last).finish_non_exhaustive()
    }
}
