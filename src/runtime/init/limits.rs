//! Names and values of resource limits.

use rustix::process::Resource;

use super::Rlimit;

/// The limit that Compose and Docker call `name`.
pub(super) fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "as" => Resource::As,
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        _ => return None,
    })
}

/// A limit that cannot be set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RlimitError {
    /// No such limit.
    #[error("there is no limit `{name}`")]
    Unknown {
        /// As written.
        name: String,
    },
    /// Soft above hard.
    #[error("limit `{name}`: soft value {soft} is above hard value {hard}")]
    SoftAboveHard {
        /// Limit.
        name: String,
        /// Soft value.
        soft: i64,
        /// Hard value.
        hard: i64,
    },
}

/// Checks the `(name, soft, hard)` limits of a spec; −1 is unlimited.
///
/// # Errors
/// [`RlimitError`] with the first limit that is unknown or upside down.
pub fn rlimits(ulimits: &[(String, i64, i64)]) -> Result<Vec<Rlimit>, RlimitError> {
    ulimits
        .iter()
        .map(|(name, soft, hard)| {
            resource(name).ok_or_else(|| RlimitError::Unknown { name: name.clone() })?;
            let (low, high) = (u64::try_from(*soft).ok(), u64::try_from(*hard).ok());
            if high.is_some_and(|high| low.is_none_or(|low| low > high)) {
                return Err(RlimitError::SoftAboveHard { name: name.clone(), soft: *soft, hard: *hard });
            }
            Ok(Rlimit { name: name.clone(), soft: low, hard: high })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_checked() {
        let ok = rlimits(&[("nofile".into(), 1024, -1), ("core".into(), 0, 0)]).expect("valid");
        assert_eq!(ok[0], Rlimit { name: "nofile".into(), soft: Some(1024), hard: None });
        assert!(matches!(rlimits(&[("files".into(), 1, 1)]), Err(RlimitError::Unknown { .. })));
        assert!(matches!(rlimits(&[("nofile".into(), 2, 1)]), Err(RlimitError::SoftAboveHard { .. })));
        assert!(matches!(rlimits(&[("nofile".into(), -1, 1)]), Err(RlimitError::SoftAboveHard { .. })));
    }
}
