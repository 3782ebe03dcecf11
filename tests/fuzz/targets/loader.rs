//! Any bytes as a compose file.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| hoist_fuzz::timed(|| hoist_fuzz::checks::loader(input)));
