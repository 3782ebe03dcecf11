//! Any two files over one another.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| hoist_fuzz::timed(|| hoist_fuzz::checks::merge(input)));
