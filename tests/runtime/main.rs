//! The runtime below any command: real containers of a private installation, looked at from inside and from the host.

#![expect(clippy::print_stderr, reason = "a test that is skipped says why")]

mod rig;
mod root;
