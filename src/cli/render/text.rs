//! Durations, sizes and short forms in Docker's words.

use jiff::{SignedDuration, Timestamp};

/// How long something took or is ago: one unit, rounded the way Docker does.
///
/// # Source
/// The observable output of `docker ps`; the steps are 1 s, 1 min, 1 h, 2 days, 2 weeks, 2 months, 2 years.
pub(crate) fn human_duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    let minutes = seconds / 60;
    // Hours alone are rounded to the nearest.
    let hours = (seconds + 1800) / 3600;
    let plain_hours = seconds / 3600;
    match seconds {
        i64::MIN..=0 => "Less than a second".into(),
        1 => "1 second".into(),
        2..60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".into(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".into(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", plain_hours / 24 / 365),
    }
}

/// `2 minutes ago`.
pub(crate) fn ago(then: Timestamp, now: Timestamp) -> String {
    format!("{} ago", human_duration(now.duration_since(then)))
}

/// Bytes in decimal units with three significant digits: `4.43MB`, `219MB`, `0B`.
pub(crate) fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    scaled(bytes, 1000, &UNITS, 3)
}

/// Bytes in binary units with four significant digits: `23.54GiB`, `488KiB`, `0B`.
pub(crate) fn binary_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    scaled(bytes, 1024, &UNITS, 4)
}

/// The largest unit that keeps the number at 1 or more, without trailing zeros.
fn scaled(bytes: u64, base: u64, units: &[&str], digits: usize) -> String {
    let mut unit = 0;
    let mut divisor = 1u128;
    while u128::from(bytes) >= divisor * u128::from(base) && unit + 1 < units.len() {
        divisor *= u128::from(base);
        unit += 1;
    }
    let whole = u128::from(bytes) / divisor;
    let whole_digits = whole.to_string().len();
    let decimals = digits.saturating_sub(whole_digits);
    let factor = 10u128.pow(u32::try_from(decimals).unwrap_or(0));
    let rounded = (u128::from(bytes) * factor + divisor / 2) / divisor;
    let mut text = (rounded / factor).to_string();
    if decimals > 0 {
        let fraction = format!("{:0decimals$}", rounded % factor);
        let fraction = fraction.trim_end_matches('0');
        if !fraction.is_empty() {
            text.push('.');
            text.push_str(fraction);
        }
    }
    text.push_str(units[unit]);
    text
}

/// The first twelve characters of an id, without its algorithm.
pub(crate) fn short_id(id: &str) -> &str {
    let id = id.strip_prefix("sha256:").unwrap_or(id);
    id.get(..12).unwrap_or(id)
}

/// One line for each.
pub(crate) fn lines<'a>(all: impl IntoIterator<Item = &'a str>) -> String {
    let mut out = String::new();
    for line in all {
        out.push_str(line);
        out.push('\n');
    }
    out
}

/// At most `width` characters, the last one `…` when something was cut off.
pub(crate) fn ellipsis(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// A time as `docker ps --format {{.CreatedAt}}` prints it, in the local time zone.
pub(crate) fn created_at(time: Timestamp) -> String {
    time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
}

/// RFC 3339 in UTC with always nine digits of nanoseconds.
pub(crate) fn rfc3339_nano(time: Timestamp) -> String {
    let mut text = String::with_capacity(30);
    push_rfc3339_nano(&mut text, time);
    text
}

/// Appends what [`rfc3339_nano`] gives.
pub(crate) fn push_rfc3339_nano(text: &mut String, time: Timestamp) {
    use std::fmt::Write as _;
    let civil = jiff::tz::Offset::UTC.to_datetime(time);
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z",
        civil.year(),
        civil.month(),
        civil.day(),
        civil.hour(),
        civil.minute(),
        civil.second(),
        civil.subsec_nanosecond()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn human(seconds: i64) -> String {
        human_duration(SignedDuration::from_secs(seconds))
    }

    #[test]
    fn durations_have_one_unit() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (120, "2 minutes"),
            (3540, "59 minutes"),
            (3600, "About an hour"),
            (3 * 3600, "3 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (14 * 86_400, "2 weeks"),
            (60 * 86_400, "2 months"),
            (3 * 365 * 86_400, "3 years"),
        ] {
            assert_eq!(human(seconds), text, "{seconds} s");
        }
    }

    #[test]
    fn sizes_have_few_digits() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (4_430_000, "4.43MB"),
            (219_400_000, "219MB"),
            (1_500_000_000, "1.5GB"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
    }

    #[test]
    fn cuts_at_characters() {
        assert_eq!(ellipsis("\"sleep 1000\"", 20), "\"sleep 1000\"");
        assert_eq!(ellipsis("\"äääääääääääääääääääääää\"", 20), "\"ääääääääääääääääää…");
    }

    #[test]
    fn nanoseconds_are_never_dropped() {
        let time: Timestamp = "2026-01-02T03:04:05.6Z".parse().expect("valid");
        assert_eq!(rfc3339_nano(time), "2026-01-02T03:04:05.600000000Z");
    }
}
