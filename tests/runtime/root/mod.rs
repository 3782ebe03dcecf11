//! Effects that need root.

mod crash;
mod lifecycle;
mod process;
