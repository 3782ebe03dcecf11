//! The `hoist` command: re-exec dispatch before any thread exists, then the command line.

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    // A shim is this binary re-executed; it must stay single-threaded, so it
    // is told apart before anything else happens.
    #[cfg(target_os = "linux")]
    if let Some(code) = hoist::runtime::shim::dispatch() {
        return code;
    }
    #[cfg(target_os = "linux")]
    if let Some(code) = hoist::runtime::build::dispatch() {
        return code;
    }
    #[cfg(target_os = "linux")]
    if let Some(code) = hoist::runtime::network::dispatch() {
        return code;
    }
    cli::run()
}
