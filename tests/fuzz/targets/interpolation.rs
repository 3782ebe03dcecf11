//! Any text as a template.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &str| hoist_fuzz::timed(|| hoist_fuzz::checks::interpolation(input)));
