//! Why an image was not built.

use std::path::PathBuf;

use crate::diagnostic::{Diagnostic, SourceMap, Span, render};
use crate::runtime::error::RuntimeError;
use crate::runtime::image::ImageError;
use crate::util::fs::PathError;

/// Why an image was not built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// There is no Dockerfile.
    #[error("cannot find the Dockerfile `{}`; name another one with `dockerfile`", path.display())]
    NoDockerfile {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The context is not there.
    #[error("the build context `{context}` cannot be used: {reason}")]
    Context {
        /// As given.
        context: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The Dockerfile, or an instruction of it, is wrong or cannot be carried out.
    #[error("{0}")]
    Instruction(Box<Failure>),
    /// The target is no stage.
    #[error("target stage `{target}` is not in the Dockerfile; its stages are {}", stages.join(", "))]
    Target {
        /// As given.
        target: String,
        /// What there is.
        stages: Vec<String>,
    },
    /// Something that is asked for and not made.
    #[error("`{attribute}` is not supported by the built-in engine: {reason}")]
    Unsupported {
        /// In compose words.
        attribute: String,
        /// Why, and what to do.
        reason: String,
    },
    /// A value is none.
    #[error("invalid `{attribute}`: {reason}")]
    Invalid {
        /// In compose words.
        attribute: String,
        /// What is wrong.
        reason: String,
    },
    /// An archive that `ADD` is to unpack.
    #[error("cannot unpack `{name}`")]
    Archive {
        /// Its path in the source.
        name: String,
        /// Why.
        #[source]
        source: super::archive::ArchiveError,
    },
    /// The store.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The runtime.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// Files of our own.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A check found something.
    #[error("the Dockerfile has {count} warning{}", if *count == 1 { "" } else { "s" })]
    Warnings {
        /// How many.
        count: usize,
    },
    /// It was given up.
    #[error("the build was cancelled")]
    Cancelled,
}

/// What is wrong with a Dockerfile, or with carrying an instruction of it out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failure {
    /// In one line.
    pub summary: String,
    /// With `file:line:col`, the line and a caret; several lines.
    pub shown: String,
    /// What was being done, as progress has it; empty for mistakes found before.
    pub step: String,
    /// The last lines that the command wrote.
    pub output: Vec<String>,
    /// Exit code of the command.
    pub code: Option<i32>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.summary)
    }
}

/// Result of building.
pub type Result<T> = std::result::Result<T, BuildError>;

impl BuildError {
    /// Mistakes of a Dockerfile.
    pub(super) fn mistakes(all: &[Diagnostic], sources: &SourceMap) -> Self {
        let shown: Vec<String> = all.iter().map(|d| render(d, sources, false)).collect();
        let summary = match all {
            [] => "the Dockerfile is invalid".to_owned(),
            [first, ..] => match &first.primary {
                Some(label) => format!("{}: {}", sources.place(label.span), first.message),
                None => first.message.clone(),
            },
        };
        Self::Instruction(Box::new(Failure { summary, shown: shown.join("\n"), ..Failure::default() }))
    }

    /// One mistake.
    pub(super) fn mistake(diagnostic: &Diagnostic, sources: &SourceMap) -> Self {
        Self::mistakes(std::slice::from_ref(diagnostic), sources)
    }

    /// Says at which instruction something failed, unless that is known.
    pub(super) fn at(self, span: Span, step: &str, sources: &SourceMap) -> Self {
        match self {
            Self::Instruction(mut failure) => {
                if failure.step.is_empty() {
                    step.clone_into(&mut failure.step);
                }
                Self::Instruction(failure)
            }
            Self::Cancelled => Self::Cancelled,
            other => {
                let text = crate::runtime::error::chain(&other);
                let diagnostic = Diagnostic::error("build-step", text).at(span, "");
                let mut located = Self::mistake(&diagnostic, sources);
                if let Self::Instruction(failure) = &mut located {
                    step.clone_into(&mut failure.step);
                }
                located
            }
        }
    }
}
