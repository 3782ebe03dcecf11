//! The exit codes of the command line.

use std::process::ExitCode;

/// How the whole process ends.
///
/// # Source
/// reference/cli.md §5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0.
    Success,
    /// 1: any error that has no code of its own; its message is on stderr.
    Failure,
    /// 130: ended by SIGINT or SIGTERM.
    Interrupted,
    /// The code of a process that ran in a container, or of the abort modes of `up`.
    Process(i32),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Success => Self::SUCCESS,
            Exit::Failure => Self::FAILURE,
            Exit::Interrupted => Self::from(130),
            // The kernel keeps the low eight bits of any code.
            Exit::Process(code) => Self::from(code.to_le_bytes()[0]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_keep_their_low_byte() {
        assert_eq!(format!("{:?}", ExitCode::from(Exit::Process(137))), format!("{:?}", ExitCode::from(137)));
        assert_eq!(format!("{:?}", ExitCode::from(Exit::Process(-1))), format!("{:?}", ExitCode::from(255)));
    }
}
