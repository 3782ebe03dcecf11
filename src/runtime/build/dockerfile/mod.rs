//! The Dockerfile front end: text → [`Dockerfile`](ast::Dockerfile), mistakes and warnings.
//!
//! Pure: no I/O, no image, no clock. The interface, which stays as it is:
//!
//! - `parse(file: FileId, sources: &SourceMap) -> Result<Dockerfile, Vec<Diagnostic>>`
//! - `parse_trigger(file: FileId, sources: &SourceMap) -> Result<Instruction, Vec<Diagnostic>>`: an `ONBUILD` text
//! - `expand::expand(word: &Word, escape: char, variables: &dyn Variables) -> Result<String, Diagnostic>`
//! - `expand::expand_words(…) -> Result<Vec<String>, Diagnostic>`: for `EXPOSE`
//! - `expand::expand_heredoc(heredoc: &Heredoc, …) -> Result<String, Diagnostic>`
//! - `expand::Variables`: `fn get(&self, name: &str) -> Option<Cow<'_, str>>`
//! - `scope::Scope`: the rules of `ARG` and `ENV`, a `Variables`
//! - `mount::resolve(mount: &Mount, escape, variables) -> Result<mount::ResolvedMount, Diagnostic>`
//! - `lint::check(file: &Dockerfile, inputs: &lint::Inputs) -> Vec<Diagnostic>`

pub mod ast;
