//! An error number that can travel between processes.

use serde::{Deserialize, Serialize};

/// An `errno` value, printed as the system's text (`No such file or directory`).
///
/// Unlike [`std::io::Error`] it can be cloned, compared and serialized, because
/// what fails inside a container is reported by another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Errno(i32);

impl Errno {
    /// The error number `raw`, as in `errno.h`.
    pub fn new(raw: i32) -> Self {
        Self(raw)
    }

    /// The number.
    pub fn raw(self) -> i32 {
        self.0
    }

    /// Whether it is `other`.
    pub fn is(self, other: rustix::io::Errno) -> bool {
        self.0 == other.raw_os_error()
    }
}

impl std::fmt::Display for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = std::io::Error::from_raw_os_error(self.0).to_string();
        // The standard library appends “ (os error N)”, which says nothing to a reader.
        f.write_str(text.split(" (os error").next().unwrap_or(&text))
    }
}

impl std::error::Error for Errno {}

impl From<rustix::io::Errno> for Errno {
    fn from(errno: rustix::io::Errno) -> Self {
        Self(errno.raw_os_error())
    }
}

impl From<std::io::Error> for Errno {
    /// An error without a number becomes `EIO`.
    fn from(error: std::io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_the_systems_text_only() {
        assert_eq!(Errno::new(libc::ENOENT).to_string(), "No such file or directory");
    }
}
