//! Words of the command line → values of `ops`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use hoist::ops::PullPolicy;
use jiff::Timestamp;

/// `SERVICE=NUM` pairs; a later one replaces an earlier one.
pub(super) fn scale(words: &[String]) -> anyhow::Result<BTreeMap<String, u32>> {
    words
        .iter()
        .map(|word| {
            let (service, count) = word
                .split_once('=')
                .with_context(|| format!("invalid --scale option `{word}`: it should be SERVICE=NUM"))?;
            let count = count
                .parse()
                .with_context(|| format!("invalid --scale option `{word}`: `{count}` is not a number"))?;
            Ok((service.to_owned(), count))
        })
        .collect()
}

/// `--pull` of `up`, `create` and `run`.
pub(super) fn pull_policy(word: Option<&str>) -> anyhow::Result<Option<PullPolicy>> {
    Ok(Some(match word {
        // The documented default: as the files say.
        None | Some("policy" | "") => return Ok(None),
        Some("always") => PullPolicy::Always,
        Some("missing" | "if_not_present") => PullPolicy::Missing,
        Some("never") => PullPolicy::Never,
        Some("build") => PullPolicy::Build,
        Some(other) => {
            bail!("invalid --pull option `{other}`: it should be always, missing, never or build")
        }
    }))
}

/// Seconds; negative means for ever.
pub(super) fn timeout(seconds: Option<i64>) -> Option<Duration> {
    seconds.map(|s| Duration::from_secs(u64::try_from(s).unwrap_or(FOR_EVER)))
}

/// Ten years: “for ever” that no arithmetic overflows.
const FOR_EVER: u64 = 10 * 365 * 86_400;

/// `K=V`, or `K` whose value comes from the environment: `None` removes the variable when it is not set there either.
pub(super) fn env_pairs(
    words: &[String],
    environment: &BTreeMap<String, String>,
) -> Vec<(String, Option<String>)> {
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
            None => (word.clone(), environment.get(word).cloned()),
        })
        .collect()
}

/// `K=V` labels; a key alone is an error.
pub(super) fn labels(words: &[String]) -> anyhow::Result<Vec<(String, String)>> {
    words
        .iter()
        .map(|word| {
            let (key, value) =
                word.split_once('=').with_context(|| format!("label `{word}` must be KEY=VALUE"))?;
            Ok((key.to_owned(), value.to_owned()))
        })
        .collect()
}

/// A replica number; 0 means “not given”.
pub(super) fn index(number: u32) -> Option<u32> {
    (number > 0).then_some(number)
}

/// `--since` and `--until`: RFC 3339, its shorter forms in the local time
/// zone, seconds since 1970 with a fraction, or a duration ago (`1h30m`).
pub(super) fn moment(word: &str, now: Timestamp) -> anyhow::Result<Timestamp> {
    if let Some(ago) = go_duration(word) {
        return now.checked_sub(ago).with_context(|| format!("`{word}` ago is out of range"));
    }
    if let Ok(time) = word.parse::<Timestamp>() {
        return Ok(time);
    }
    if word.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && let Some(time) = unix_time(word)
    {
        return Ok(time);
    }
    let civil = word
        .parse::<jiff::civil::DateTime>()
        .or_else(|_| word.parse::<jiff::civil::Date>().map(|date| date.to_datetime(jiff::civil::Time::midnight())))
        .with_context(|| {
            format!("`{word}` is not a time: use 2026-01-31T12:00:00Z, seconds since 1970, or 10m for ten minutes ago")
        })?;
    Ok(civil.to_zoned(jiff::tz::TimeZone::system())?.timestamp())
}

fn unix_time(word: &str) -> Option<Timestamp> {
    let (seconds, fraction) = word.split_once('.').unwrap_or((word, ""));
    let nanos = format!("{:0<9}", fraction.get(..fraction.len().min(9))?);
    Timestamp::new(seconds.parse().ok()?, nanos.parse().ok()?).ok()
}

/// A Go duration: `1h30m`, `1.5s`, `250ms`.
pub(super) fn go_duration(word: &str) -> Option<jiff::SignedDuration> {
    let mut rest = word.strip_prefix('-').unwrap_or(word);
    if rest.is_empty() {
        return None;
    }
    let mut nanos = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|n| *n > 0)?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        nanos += number * unit;
        rest = &rest[end..];
    }
    let duration = jiff::SignedDuration::try_from_secs_f64(nanos / 1e9).ok()?;
    Some(if word.starts_with('-') { -duration } else { duration })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_in_all_their_forms() {
        let now: Timestamp = "2026-01-02T12:00:00Z".parse().expect("valid");
        for (word, expected) in [
            ("10m", "2026-01-02T11:50:00Z"),
            ("1h30m", "2026-01-02T10:30:00Z"),
            ("2026-01-01T00:00:00.5Z", "2026-01-01T00:00:00.5Z"),
            ("2026-01-01T00:00:00+02:00", "2025-12-31T22:00:00Z"),
            ("0", "1970-01-01T00:00:00Z"),
            ("1136073600.25", "2006-01-01T00:00:00.25Z"),
        ] {
            assert_eq!(moment(word, now).expect(word).to_string(), expected, "{word}");
        }
        assert!(moment("2026-01-01", now).is_ok());
        assert!(moment("2026-01-01T10:00:00", now).is_ok());
        assert!(moment("yesterday", now).is_err());
        assert!(moment("10", now).is_ok(), "ten seconds after 1970 began");
    }

    #[test]
    fn scale_needs_a_number() {
        assert_eq!(scale(&["a=2".into()]).expect("valid"), BTreeMap::from([("a".into(), 2)]));
        assert!(scale(&["a".into()]).is_err());
        assert!(scale(&["a=x".into()]).is_err());
        assert!(scale(&["a=-1".into()]).is_err());
    }
}
