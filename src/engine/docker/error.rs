//! bollard's errors in the words of [`EngineError`].

use bollard::errors::Error;

use crate::engine::EngineError;

/// What an engine call was about, for its error.
#[derive(Debug, Clone, Copy)]
pub(super) struct About<'a> {
    /// `container`, `image`, `network`, `volume`.
    pub(super) kind: &'static str,
    /// Its name, as asked.
    pub(super) name: &'a str,
    /// `create`, `start`, … for “cannot start container `x`”.
    pub(super) verb: &'static str,
}

impl<'a> About<'a> {
    pub(super) const fn new(verb: &'static str, kind: &'static str, name: &'a str) -> Self {
        Self { kind, name, verb }
    }

    /// Turns an error of this call into ours.
    ///
    /// The Engine tells most causes only in its message, so a few of them are
    /// recognised by their (long stable) wording; all others keep the message.
    pub(super) fn error(self, error: Error) -> EngineError {
        let Self { kind, name, verb } = self;
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                let text = message.trim().to_owned();
                let lower = text.to_lowercase();
                match status_code {
                    404 if lower.contains("no such") || lower.contains("not found") && verb != "pull" => {
                        if kind == "container" && lower.contains("no such image") {
                            let image = text.rsplit("image: ").next().unwrap_or(name);
                            return EngineError::NotFound { kind: "image", name: image.to_owned() };
                        }
                        EngineError::NotFound { kind, name: name.to_owned() }
                    }
                    409 if lower.contains("is already in use by container")
                        || lower.contains("already exists") =>
                    {
                        EngineError::Conflict { kind, name: name.to_owned() }
                    }
                    403 | 409
                        if lower.contains("has active endpoints") || lower.contains("volume is in use") =>
                    {
                        EngineError::InUse { kind, name: name.to_owned(), by: text }
                    }
                    _ if lower.contains("port is already allocated")
                        || lower.contains("address already in use") =>
                    {
                        EngineError::PortTaken { port: port_of(&text), reason: text }
                    }
                    _ if lower.contains("executable file not found")
                        || lower.contains("no such file or directory: unknown") =>
                    {
                        EngineError::NotExecutable { message: text, code: 127 }
                    }
                    _ if lower.contains("permission denied: unknown")
                        || lower.contains("is a directory: unknown") =>
                    {
                        EngineError::NotExecutable { message: text, code: 126 }
                    }
                    400 => EngineError::Invalid(format!("cannot {verb} {kind} `{name}`: {text}")),
                    _ => EngineError::Failed {
                        step: format!("cannot {verb} {kind} `{name}`"),
                        source: text.into(),
                    },
                }
            }
            Error::DockerStreamError { error } => {
                EngineError::Failed { step: format!("cannot {verb} {kind} `{name}`"), source: error.into() }
            }
            other => unreachable_or_failed(&format!("cannot {verb} {kind} `{name}`"), other),
        }
    }
}

/// Tells a lost connection from any other failure.
pub(super) fn unreachable_or_failed(step: &str, error: Error) -> EngineError {
    let lost = matches!(
        error,
        Error::SocketNotFoundError(_)
            | Error::HyperResponseError { .. }
            | Error::HyperLegacyError { .. }
            | Error::IOError { .. }
            | Error::RequestTimeoutError
    );
    if lost {
        EngineError::Unreachable {
            engine: "docker",
            reason: format!("{error} ({step}); is the Docker Engine running, and does DOCKER_HOST name it?"),
        }
    } else {
        EngineError::Failed { step: step.to_owned(), source: Box::new(error) }
    }
}

/// The `0.0.0.0:80` of “Bind for 0.0.0.0:80 failed: port is already allocated”.
fn port_of(text: &str) -> String {
    text.split_whitespace()
        .find(|word| {
            word.rsplit_once(':').is_some_and(|(_, port)| {
                !port.is_empty() && port.trim_end_matches(':').bytes().all(|b| b.is_ascii_digit())
            })
        })
        .unwrap_or("(unknown)")
        .trim_end_matches(':')
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status_code: u16, message: &str) -> EngineError {
        About::new("start", "container", "web")
            .error(Error::DockerResponseServerError { status_code, message: message.to_owned() })
    }

    #[test]
    fn a_taken_port_is_named() {
        let text = "driver failed programming external connectivity on endpoint web: Bind for 0.0.0.0:80 failed: port is already allocated";
        assert!(matches!(of(500, text), EngineError::PortTaken { port, .. } if port == "0.0.0.0:80"));
    }

    #[test]
    fn a_missing_container_is_not_found() {
        assert!(matches!(of(404, "No such container: web"), EngineError::NotFound { kind: "container", .. }));
    }

    #[test]
    fn a_missing_image_of_a_container_names_the_image() {
        assert!(
            matches!(of(404, "No such image: x:1"), EngineError::NotFound { kind: "image", name } if name == "x:1")
        );
    }

    #[test]
    fn a_missing_program_is_127() {
        let text = "failed to create task for container: OCI runtime create failed: exec: \"nope\": executable file not found in $PATH: unknown";
        assert!(matches!(of(400, text), EngineError::NotExecutable { code: 127, .. }));
    }
}
