//! The Dockerfile front end: text → [`Dockerfile`](ast::Dockerfile), mistakes and warnings.
//!
//! Pure: no I/O, no image, no clock. [`parse`] gives the tree or all mistakes of
//! the file; [`expand`](mod@expand) resolves its words with the variables of a
//! [`scope`]; [`lint`] tells what is allowed and unwise.

#![expect(clippy::result_large_err, reason = "a mistake is met once per instruction at most")]

pub mod ast;
pub mod codes;
mod duration;
pub mod expand;
mod heredoc;
mod lines;
pub mod lint;
pub mod mount;
mod parser;
pub mod ports;
pub mod rules;
mod run;
pub mod scope;
mod statement;
mod transfer;

pub use parser::{parse, parse_trigger};
