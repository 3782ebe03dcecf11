//! Building images: the Dockerfile front end and what executes it.
//!
//! [`dockerfile`] is pure: text → syntax tree, mistakes and warnings, and the
//! expansion of variables. It reads no file and knows no image.

pub mod archive;
pub mod dockerfile;
pub mod download;
pub mod fetch;
pub mod git;
pub mod ignore;
