//! What containers of the [`FakeEngine`](super::FakeEngine) do, and which calls fail.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::engine::{EngineError, StdStream};

/// What a container does from each of its starts on. After the last step it runs until it is stopped.
#[derive(Debug, Clone, Default)]
pub struct Script {
    pub(super) steps: Vec<Step>,
    pub(super) ignores_stop: bool,
    pub(super) exec: Vec<(Vec<String>, String, i32)>,
}

#[derive(Debug, Clone)]
pub(super) enum Step {
    Print(StdStream, String),
    Probe(i32, String),
    Sleep(Duration),
    Await(Gate),
    Exit(i32, bool),
}

impl Script {
    /// Runs until it is stopped.
    pub fn new() -> Self {
        Self::default()
    }

    /// Prints one line.
    #[must_use]
    pub fn print(mut self, line: &str) -> Self {
        self.steps.push(Step::Print(StdStream::Stdout, line.into()));
        self
    }

    /// Prints one line to standard error.
    #[must_use]
    pub fn eprint(mut self, line: &str) -> Self {
        self.steps.push(Step::Print(StdStream::Stderr, line.into()));
        self
    }

    /// Its probe succeeds.
    #[must_use]
    pub fn healthy(mut self) -> Self {
        self.steps.push(Step::Probe(0, String::new()));
        self
    }

    /// Its probe fails with this output for the last allowed time.
    #[must_use]
    pub fn unhealthy(mut self, output: &str) -> Self {
        self.steps.push(Step::Probe(1, output.into()));
        self
    }

    /// Lets tokio's time pass.
    #[must_use]
    pub fn sleep(mut self, time: Duration) -> Self {
        self.steps.push(Step::Sleep(time));
        self
    }

    /// Goes on once the test opens the gate. Each opening lets one pass.
    #[must_use]
    pub fn until(mut self, gate: &Gate) -> Self {
        self.steps.push(Step::Await(gate.clone()));
        self
    }

    /// Ends.
    #[must_use]
    pub fn exit(mut self, code: i32) -> Self {
        self.steps.push(Step::Exit(code, false));
        self
    }

    /// Is killed for lack of memory.
    #[must_use]
    pub fn out_of_memory(mut self) -> Self {
        self.steps.push(Step::Exit(137, true));
        self
    }

    /// Does not react to the stop signal.
    #[must_use]
    pub fn ignore_stop(mut self) -> Self {
        self.ignores_stop = true;
        self
    }

    /// What an `exec` of this command prints and gives; others print nothing and give 0.
    #[must_use]
    pub fn exec(mut self, command: &[&str], output: &str, code: i32) -> Self {
        self.exec.push((command.iter().map(ToString::to_string).collect(), output.into(), code));
        self
    }
}

/// Something that waits until the test lets it go on.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Semaphore>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets one pass.
    pub fn open(&self) {
        self.0.add_permits(1);
    }

    pub(super) async fn pass(&self) {
        self.0.acquire().await.expect("gates are never closed for good").forget();
    }
}

/// Makes the error of an injected failure.
pub(super) type MakeError = Arc<dyn Fn() -> EngineError + Send + Sync>;

/// An injected failure or hold of one call.
pub(super) struct Injection {
    pub(super) call: String,
    pub(super) effect: Effect,
    pub(super) times: usize,
}

#[derive(Clone)]
pub(super) enum Effect {
    Fail(MakeError),
    Hold(Gate),
}
