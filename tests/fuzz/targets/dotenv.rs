//! Any text as a file of variables.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &str| hoist_fuzz::timed(|| hoist_fuzz::checks::dotenv(input)));
