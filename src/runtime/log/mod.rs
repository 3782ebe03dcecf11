//! Container output on disk, in the format of Docker's `json-file` driver.
//!
//! Owns the line format ([`mod@line`]), writing with rotation ([`writer`]) and
//! reading with tail, time limits and following ([`reader`]). Does not own the
//! pipes (the shim reads them) and knows nothing of containers but their
//! directory: `log` is the current segment, `log.1` the one before, and so on.
//!
//! Every line of a segment is one JSON object:
//! `{"log":"text\n","stream":"stdout","time":"2026-01-02T03:04:05.000000006Z"}`.
//! A `log` that does not end in `\n` is a part of a line; the next object of the
//! same stream goes on. Bytes that are not UTF-8 are shown as U+FFFD in `log`,
//! and then `raw` has all bytes of the piece in base64, so nothing is lost.

pub mod line;
pub mod reader;
pub mod writer;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::spec::LogSpec;

/// Which output stream of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamKind {
    /// Standard output, and everything from a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line of output, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Stream.
    pub stream: StreamKind,
    /// When the shim read it.
    pub time: Timestamp,
    /// The bytes without the line feed.
    pub data: Vec<u8>,
    /// Whether a line feed followed.
    pub newline: bool,
}

/// Settled logging options of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPlan {
    /// Whether anything is written at all (driver `none` writes nothing).
    pub enabled: bool,
    /// A segment is rotated before it grows over this many bytes; none never rotates.
    pub max_size: Option<u64>,
    /// Segments kept, the current one included; at least 1.
    pub max_files: u32,
    /// Members added to each line as `attrs`, from the options `labels`, `env` and `tag`.
    pub attrs: BTreeMap<String, String>,
}

impl Default for LogPlan {
    fn default() -> Self {
        Self { enabled: true, max_size: None, max_files: 1, attrs: BTreeMap::new() }
    }
}

/// Why logging options cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogOptionError {
    /// The driver does not exist here.
    #[error("logging driver `{driver}` is not supported; use `json-file`, `local` or `none`")]
    Driver {
        /// As asked.
        driver: String,
    },
    /// The option does not exist for the driver.
    #[error("unknown option `{option}` for logging driver `{driver}`")]
    Unknown {
        /// Driver.
        driver: String,
        /// Option.
        option: String,
    },
    /// The value is not understood.
    #[error("invalid value `{value}` for logging option `{option}`: {reason}")]
    Value {
        /// Option.
        option: String,
        /// Its value.
        value: String,
        /// What is wrong.
        reason: &'static str,
    },
}

impl LogPlan {
    /// Settles driver and options; `labels`, `env` and `id`/`name`/`image` feed the `attrs`.
    ///
    /// # Errors
    /// Drivers and options that do not exist here, and values that are not understood.
    ///
    /// # Source
    /// Docker's documentation of the `json-file` and `local` drivers; `local`
    /// has their defaults (20 MB × 5) but our one format.
    pub fn resolve(
        spec: &LogSpec,
        labels: &BTreeMap<String, String>,
        env: &[String],
    ) -> Result<Self, LogOptionError> {
        let driver = spec.driver.as_deref().unwrap_or("json-file");
        let mut plan = match driver {
            "json-file" => Self::default(),
            "local" => Self { max_size: Some(20 << 20), max_files: 5, ..Self::default() },
            "none" => Self { enabled: false, ..Self::default() },
            other => return Err(LogOptionError::Driver { driver: other.to_owned() }),
        };
        for (option, value) in &spec.options {
            let bad = |reason| LogOptionError::Value { option: option.clone(), value: value.clone(), reason };
            match (driver, option.as_str()) {
                ("json-file" | "local", "max-size") => {
                    plan.max_size = if value == "-1" {
                        None
                    } else {
                        Some(parse_size(value).ok_or_else(|| bad("expected a size such as `10m`"))?)
                    };
                }
                ("json-file" | "local", "max-file") => {
                    plan.max_files = value
                        .parse()
                        .ok()
                        .filter(|n| *n >= 1)
                        .ok_or_else(|| bad("expected a number from 1"))?;
                }
                ("json-file" | "local", "compress") => match value.as_str() {
                    "false" => {}
                    "true" => return Err(bad("compressed segments are not supported")),
                    _ => return Err(bad("expected `true` or `false`")),
                },
                ("json-file" | "local", "mode") => match value.as_str() {
                    "blocking" => {}
                    "non-blocking" => {
                        return Err(bad("output is never dropped here; only `blocking` is supported"));
                    }
                    _ => return Err(bad("expected `blocking`")),
                },
                ("json-file", "labels") => {
                    for key in value.split(',').filter(|k| !k.is_empty()) {
                        if let Some(v) = labels.get(key) {
                            plan.attrs.insert(key.to_owned(), v.clone());
                        }
                    }
                }
                ("json-file", "env") => {
                    for key in value.split(',').filter(|k| !k.is_empty()) {
                        let found =
                            env.iter().rev().find_map(|e| e.split_once('=').filter(|(name, _)| *name == key));
                        if let Some((_, v)) = found {
                            plan.attrs.insert(key.to_owned(), v.to_owned());
                        }
                    }
                }
                ("json-file", "tag") if !value.contains("{{") => {
                    plan.attrs.insert("tag".into(), value.clone());
                }
                ("json-file", "tag") => return Err(bad("templates are not supported")),
                _ => {
                    return Err(LogOptionError::Unknown {
                        driver: driver.to_owned(),
                        option: option.clone(),
                    });
                }
            }
        }
        if plan.max_files > 1 && plan.max_size.is_none() && driver == "json-file" {
            return Err(LogOptionError::Value {
                option: "max-file".into(),
                value: plan.max_files.to_string(),
                reason: "it needs `max-size`",
            });
        }
        Ok(plan)
    }
}

/// `10`, `10k`, `10m`, `10g`, with an optional `b`/`ib` behind the unit, in powers of 1024.
fn parse_size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let shift = match unit.trim_start().trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return None,
    };
    let whole: u64 = number.parse().ok()?;
    whole.checked_mul(1 << shift).filter(|n| *n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(driver: &str, options: &[(&str, &str)]) -> Result<LogPlan, LogOptionError> {
        let spec = LogSpec {
            driver: Some(driver.into()),
            options: options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        };
        LogPlan::resolve(
            &spec,
            &BTreeMap::from([("team".into(), "web".into())]),
            &["A=1".into(), "B=2".into()],
        )
    }

    #[test]
    fn options_are_settled_or_refused() {
        let plan = resolve(
            "json-file",
            &[("max-size", "10k"), ("max-file", "3"), ("labels", "team,none"), ("env", "B")],
        )
        .unwrap();
        assert_eq!((plan.max_size, plan.max_files), (Some(10 << 10), 3));
        assert_eq!(plan.attrs, BTreeMap::from([("team".into(), "web".into()), ("B".into(), "2".into())]));
        assert_eq!(resolve("local", &[]).unwrap().max_size, Some(20 << 20));
        assert!(!resolve("none", &[]).unwrap().enabled);
        for (driver, options) in [
            ("syslog", &[][..]),
            ("json-file", &[("max-size", "ten")]),
            ("json-file", &[("max-file", "0")]),
            ("json-file", &[("max-file", "3")]),
            ("json-file", &[("compress", "true")]),
            ("json-file", &[("max-seize", "1m")]),
        ] {
            assert!(resolve(driver, options).is_err(), "{driver} {options:?}");
        }
    }

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(parse_size("1"), Some(1));
        assert_eq!(parse_size("2K"), Some(2048));
        assert_eq!(parse_size("3mb"), Some(3 << 20));
        assert_eq!(parse_size("1GiB"), Some(1 << 30));
        assert_eq!(parse_size("0"), None);
        assert_eq!(parse_size("1x"), None);
    }
}
