//! The harness of the end-to-end tests: a private machine for each test, the
//! `hoist` command on it, and what a person would look at afterwards.

mod command;
mod environment;
mod host;
mod http;
mod registry;

use std::time::{Duration, Instant};

pub(crate) use command::{Finished, Running};
pub(crate) use environment::{TestEnvironment, hoist};
pub(crate) use registry::Door;

/// Ends the test here, with a reason, when this machine lacks what it needs. With
/// `TEST_REQUIRE=root` (or `all`), as in CI, that is a failure instead.
macro_rules! require {
    (Root) => {
        if !$crate::support::is_root() {
            let wanted = std::env::var("TEST_REQUIRE").unwrap_or_default();
            assert!(
                !wanted.split(',').any(|w| w == "root" || w == "all"),
                "this test needs root, and TEST_REQUIRE={wanted} forbids to skip it"
            );
            eprintln!("skipped: this test needs root");
            return;
        }
    };
}
pub(crate) use require;

/// Whether this process may make namespaces, networks and mounts.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Asks `check` again until it gives a value, for at most `limit`; then fails with
/// `what` was waited for and what `check` said last.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, limit: Duration, mut check: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match check() {
            Ok(value) => return value,
            Err(last) => {
                assert!(Instant::now() < deadline, "waited {limit:?} for {what}; at last: {last}");
            }
        }
        pause(Duration::from_millis(20));
    }
}

/// Between two looks of [`eventually`], and where a test means a moment that
/// nobody announces.
#[expect(clippy::disallowed_methods, reason = "the one place that waits for a time instead of an event")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
