//! The limits that every input of a fuzz target keeps.
//!
//! An input is a finding when a check of it panics, when it takes more than a second of processor
//! time, or more than 500 MB of memory.

use std::alloc::System;
use std::time::Duration;

use cap::Cap;
use rustix::time::{ClockId, clock_gettime};

pub mod checks;

/// What libFuzzer itself holds (corpus, coverage) counts too, so the limit is somewhat above the 500 MB.
#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, 600 << 20);

/// The longest that one input may take of a processor.
const TIME: Duration = Duration::from_secs(1);

/// Runs `work` and panics when it took too long. The wall clock would blame the input for a busy machine.
///
/// # Panics
/// When it took more than a second.
pub fn timed(work: impl FnOnce()) {
    let start = processor_time();
    work();
    let took = processor_time() - start;
    assert!(took < TIME, "took {took:?}");
}

fn processor_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}
