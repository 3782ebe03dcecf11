//! Everything that is tested through the `hoist` binary: one module per thing a
//! user can do, and the rules that the sources follow.
//!
//! Scenarios run containers for real, each on a private machine (see `support`),
//! and live in modules named `root`. Their names are obligations.
#![expect(clippy::print_stderr, reason = "a failed or skipped test says why")]

#[path = "../support/mod.rs"]
mod support;

mod architecture;
mod bombs;
mod build;
mod chaos;
mod cli;
mod commit_export;
mod config;
mod copy;
mod depends_on;
mod diagnostics;
mod dockerfile;
mod errors;
mod examples;
mod exec_run;
mod explain;
mod fuzz_corpus;
mod harness;
mod images;
mod isolation;
mod logs;
mod networks;
mod profiles;
mod registry;
mod schema;
mod schema_paths;
mod store_faults;
mod up_down;
mod volumes;
mod watch;
