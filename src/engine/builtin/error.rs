//! The runtime's errors in the engine's words.

use crate::engine::{BuildFailure, EngineError};
use crate::runtime::build::BuildError;
use crate::runtime::error::{RuntimeError, ShimError};
use crate::runtime::files::FilesError;
use crate::runtime::image::ImageError;
use crate::runtime::init::LaunchError;
use crate::runtime::network::NetworkError;
use crate::runtime::volume::VolumeError;

/// A step that failed for a reason callers need not tell apart.
pub(super) fn failed(step: &str, source: impl std::error::Error + Send + Sync + 'static) -> EngineError {
    EngineError::Failed { step: step.to_owned(), source: Box::new(source) }
}

/// Keeps what callers match on; the rest stays a chain of causes.
pub(super) fn engine_error(error: RuntimeError) -> EngineError {
    let not_found = |kind, name| EngineError::NotFound { kind, name };
    match error {
        RuntimeError::NotFound(name) => not_found("container", name),
        RuntimeError::NoImage(name) | RuntimeError::Image(ImageError::NotFound(name)) => {
            not_found("image", name)
        }
        RuntimeError::NameTaken { name, .. } => EngineError::Conflict { kind: "container", name },
        RuntimeError::Start { container, source } => shim_error(&container, source, "cannot start container"),
        RuntimeError::Exec { container, source } => {
            shim_error(&container, source, "cannot run a command in container")
        }
        RuntimeError::Unsupported { attribute, reason, .. } => {
            EngineError::Unsupported { engine: "builtin", attribute, reason }
        }
        RuntimeError::Network(error) => network_error(error),
        RuntimeError::Image(ImageError::InUse { image, container, .. }) => {
            EngineError::InUse { kind: "image", name: image, by: container }
        }
        RuntimeError::Files(FilesError::Missing { path }) => not_found("file or directory", path),
        RuntimeError::Volume(VolumeError::NotFound(name)) => not_found("volume", name),
        RuntimeError::Volume(VolumeError::InUse { name, users }) => {
            EngineError::InUse { kind: "volume", name, by: users.join(", ") }
        }
        RuntimeError::Path(error) if error.source.kind() == std::io::ErrorKind::PermissionDenied => {
            EngineError::Permission { step: error.to_string(), remedy: "run hoist as root".into() }
        }
        other => match other.to_string() {
            text if std::error::Error::source(&other).is_none() => EngineError::Invalid(text),
            text => EngineError::Failed { step: text, source: cause(&other) },
        },
    }
}

/// The cause of an error whose own text is the step already.
fn cause(error: &RuntimeError) -> Box<dyn std::error::Error + Send + Sync> {
    let text = std::error::Error::source(error).map(crate::runtime::error::chain).unwrap_or_default();
    // The chain as text: the causes borrow from an error that ends here.
    text.into()
}

fn shim_error(container: &str, error: ShimError, step: &str) -> EngineError {
    match error {
        ShimError::Launch {
            error: error @ (LaunchError::CommandNotFound { .. } | LaunchError::NotExecutable { .. }),
        } => EngineError::NotExecutable {
            code: i32::from(error.exit_code()),
            message: format!("{step} `{container}`: {}", crate::runtime::error::chain(&error)),
        },
        ShimError::PortTaken { port, reason } => EngineError::PortTaken { port, reason },
        ShimError::Permission { step } => {
            EngineError::Permission { step, remedy: "run hoist as root".into() }
        }
        other => failed(&format!("{step} `{container}`"), other),
    }
}

fn network_error(error: NetworkError) -> EngineError {
    match error {
        NetworkError::NotFound(name) => EngineError::NotFound { kind: "network", name },
        NetworkError::NameTaken(name) => EngineError::Conflict { kind: "network", name },
        NetworkError::InUse { name, containers } => {
            EngineError::InUse { kind: "network", name, by: containers.join(", ") }
        }
        NetworkError::PortTaken { address, protocol, reason } => {
            EngineError::PortTaken { port: format!("{address}/{protocol}"), reason }
        }
        NetworkError::Permission { step } => {
            EngineError::Permission { step: format!("cannot {step}"), remedy: "run hoist as root".into() }
        }
        NetworkError::Unsupported { network, attribute, reason } => EngineError::Unsupported {
            engine: "builtin",
            attribute: format!("networks.{network}.{attribute}"),
            reason,
        },
        other => EngineError::Invalid(crate::runtime::error::chain(&other)),
    }
}

/// Why an image was not built.
pub(super) fn build_error(error: BuildError) -> EngineError {
    match error {
        BuildError::Instruction(failure) => EngineError::Build(Box::new(BuildFailure {
            summary: failure.summary,
            shown: failure.shown,
            step: failure.step,
            output: failure.output,
            code: failure.code,
        })),
        BuildError::Unsupported { attribute, reason } => {
            EngineError::Unsupported { engine: "builtin", attribute, reason }
        }
        BuildError::Image(error) => engine_error(error.into()),
        BuildError::Runtime(error) => engine_error(error),
        BuildError::Path(error) => engine_error(error.into()),
        other => EngineError::Invalid(crate::runtime::error::chain(&other)),
    }
}
