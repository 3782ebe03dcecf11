//! Commands under test: run to the end, or followed while they run.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Longest time any command of a test may take, unless the test says otherwise.
const LIMIT: Duration = Duration::from_mins(1);

/// What a command printed, and how it ended.
#[must_use = "say what the command should have done"]
#[derive(Debug)]
pub(crate) struct Finished {
    /// The command, for messages.
    pub(crate) line: String,
    /// Exit code, or 128 + the signal.
    pub(crate) code: i32,
    /// All of standard output.
    pub(crate) stdout: String,
    /// All of standard error.
    pub(crate) stderr: String,
}

impl Finished {
    /// Fails unless the command succeeded; its standard output.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert!(
            self.code == 0,
            "`{}` ended with {}\n--- stdout\n{}--- stderr\n{}",
            self.line,
            self.code,
            self.stdout,
            self.stderr
        );
        self.stdout
    }

    /// Fails unless the command ended with this code; its standard error.
    #[track_caller]
    pub(crate) fn fails_with(self, code: i32) -> String {
        assert!(
            self.code == code,
            "`{}` ended with {}, not {code}\n--- stdout\n{}--- stderr\n{}",
            self.line,
            self.code,
            self.stdout,
            self.stderr
        );
        self.stderr
    }

    /// Fails unless the command failed and its standard error names all of these.
    #[track_caller]
    pub(crate) fn fails_naming(self, words: &[&str]) -> String {
        assert!(self.code != 0, "`{}` succeeded\n--- stdout\n{}", self.line, self.stdout);
        for word in words {
            assert!(self.stderr.contains(word), "`{}` does not name `{word}`:\n{}", self.line, self.stderr);
        }
        self.stderr
    }
}

/// Lines of one stream, as they come.
#[derive(Default)]
struct Lines {
    text: Mutex<(String, bool)>,
    changed: Condvar,
}

impl Lines {
    fn follow(self: &Arc<Self>, stream: impl std::io::Read + Send + 'static) -> JoinHandle<()> {
        let lines = Arc::clone(self);
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                let mut text = lines.text.lock().expect("a reader does not panic");
                text.0.push_str(&String::from_utf8_lossy(&line));
                line.clear();
                lines.changed.notify_all();
            }
            lines.text.lock().expect("a reader does not panic").1 = true;
            lines.changed.notify_all();
        })
    }

    fn all(&self) -> String {
        self.text.lock().expect("a reader does not panic").0.clone()
    }
}

/// A command that runs while the test goes on; killed when dropped.
pub(crate) struct Running {
    child: Child,
    line: String,
    stdout: Arc<Lines>,
    stderr: Arc<Lines>,
    readers: Vec<JoinHandle<()>>,
}

impl Running {
    /// Starts it. `line` names it in messages.
    pub(crate) fn start(mut command: Command, line: String) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start `{line}`: {error}"));
        let (stdout, stderr) = (Arc::new(Lines::default()), Arc::new(Lines::default()));
        let readers = vec![
            stdout.follow(child.stdout.take().expect("piped")),
            stderr.follow(child.stderr.take().expect("piped")),
        ];
        Self { child, line, stdout, stderr, readers }
    }

    /// What standard output said so far.
    pub(crate) fn stdout(&self) -> String {
        self.stdout.all()
    }

    /// Waits until standard output has a line for which `wanted` holds.
    #[track_caller]
    pub(crate) fn wait_for_line(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + LIMIT;
        let mut text = self.stdout.text.lock().expect("a reader does not panic");
        loop {
            if let Some(line) = text.0.lines().find(|line| wanted(line)) {
                return line.to_owned();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !text.1 && !left.is_zero(),
                "`{}` never printed {what}\n--- stdout\n{}--- stderr\n{}",
                self.line,
                text.0,
                self.stderr.all()
            );
            text = self.stdout.changed.wait_timeout(text, left).expect("a reader does not panic").0;
        }
    }

    /// Sends a signal to the command itself, not to what started it: it runs in
    /// another process id namespace, below an `nsenter` that passes nothing on.
    pub(crate) fn signal(&self, signal: Signal) {
        let wrapper = self.child.id();
        let children = super::eventually("the command behind nsenter", Duration::from_secs(5), || {
            match std::fs::read_to_string(format!("/proc/{wrapper}/task/{wrapper}/children")) {
                Ok(text) if !text.trim().is_empty() => Ok(text),
                Ok(_) if !ended(wrapper) => Err("no child".to_owned()),
                // It ended by itself meanwhile.
                Ok(_) | Err(_) => Ok(String::new()),
            }
        });
        for pid in children.split_whitespace().filter_map(|p| p.parse().ok()).filter_map(Pid::from_raw) {
            // It may be gone since; then there is nobody to signal.
            kill_process(pid, signal).ok();
        }
    }

    /// Waits for its end; fails after a minute.
    #[track_caller]
    pub(crate) fn finish(self) -> Finished {
        self.finish_within(LIMIT)
    }

    /// Waits for its end; fails after `limit`.
    #[track_caller]
    pub(crate) fn finish_within(mut self, limit: Duration) -> Finished {
        use std::os::unix::process::ExitStatusExt as _;
        let deadline = Instant::now() + limit;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("the child is ours") {
                break status;
            }
            if Instant::now() >= deadline {
                self.signal(Signal::KILL);
                panic!(
                    "`{}` did not end within {limit:?}\n--- stdout\n{}--- stderr\n{}",
                    self.line,
                    self.stdout.all(),
                    self.stderr.all()
                );
            }
            super::pause(Duration::from_millis(2));
        };
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader does not panic");
        }
        Finished {
            line: self.line.clone(),
            code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            stdout: self.stdout.all(),
            stderr: self.stderr.all(),
        }
    }
}

/// Whether a process of ours has ended and waits to be reaped.
fn ended(process: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{process}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')))
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::KILL);
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}
