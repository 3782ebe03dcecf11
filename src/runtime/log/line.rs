//! One line of a segment: bytes → JSON object and back.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Deserialize;

use super::{Frame, StreamKind};

/// The longest piece of output in one line; longer lines are split, as Docker does.
pub const MAX_PIECE: usize = 16 << 10;

const PREFIX: &[u8] = b"{\"log\":\"";
const STDOUT: &[u8] = b"\",\"stream\":\"stdout\"";
const STDERR: &[u8] = b"\",\"stream\":\"stderr\"";
const TIME: &[u8] = b",\"time\":\"";
/// Length of `2026-01-02T03:04:05.000000006Z`.
const STAMP: usize = 30;
const SUFFIX: usize = STDOUT.len() + TIME.len() + STAMP + 2;

/// Turns the time into text; keeps the last second, as most lines share it.
#[derive(Debug)]
pub struct Stamp {
    second: i64,
    text: [u8; STAMP],
}

impl Default for Stamp {
    fn default() -> Self {
        Self { second: i64::MIN, text: [b'0'; STAMP] }
    }
}

impl Stamp {
    /// `2026-01-02T03:04:05.000000006Z`, always nine fractional digits.
    pub fn render(&mut self, time: Timestamp) -> &[u8; STAMP] {
        let second = time.as_second();
        if second != self.second {
            let (days, of_day) = (second.div_euclid(86_400), second.rem_euclid(86_400));
            let (year, month, day) = civil(days);
            let mut put = |at: usize, width: usize, value: i64| digits(&mut self.text[at..at + width], value);
            put(0, 4, year);
            put(5, 2, month);
            put(8, 2, day);
            put(11, 2, of_day / 3600);
            put(14, 2, of_day / 60 % 60);
            put(17, 2, of_day % 60);
            for (at, mark) in
                [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (29, b'Z')]
            {
                self.text[at] = mark;
            }
            self.second = second;
        }
        digits(&mut self.text[20..29], i64::from(time.subsec_nanosecond()));
        &self.text
    }
}

fn digits(place: &mut [u8], mut value: i64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
    }
}

/// Days since 1970-01-01 → proleptic Gregorian (year, month, day).
///
/// # Source
/// Howard Hinnant, “chrono-Compatible Low-Level Date Algorithms”, `civil_from_days`.
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

/// The inverse of [`civil`].
fn days(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let mp = if month > 2 { month - 3 } else { month + 9 };
    let doy = (153 * mp + 2) / 5 + day - 1;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    era * 146_097 + doe - 719_468
}

/// Appends one line. `attrs` is `,"attrs":{…}` ready-made, or empty.
pub fn encode(
    out: &mut Vec<u8>,
    piece: &[u8],
    newline: bool,
    stream: StreamKind,
    attrs: &[u8],
    stamp: &[u8; STAMP],
) {
    out.extend_from_slice(PREFIX);
    let whole = escape(out, piece);
    if newline {
        out.extend_from_slice(b"\\n");
    }
    if !whole {
        out.extend_from_slice(b"\",\"raw\":\"");
        out.extend_from_slice(STANDARD.encode(piece).as_bytes());
    }
    out.extend_from_slice(match stream {
        StreamKind::Stdout => STDOUT,
        StreamKind::Stderr => STDERR,
    });
    out.extend_from_slice(attrs);
    out.extend_from_slice(TIME);
    out.extend_from_slice(stamp);
    out.extend_from_slice(b"\"}\n");
}

/// Appends the text as the inside of a JSON string; `false` when some bytes had to be replaced.
fn escape(out: &mut Vec<u8>, piece: &[u8]) -> bool {
    let mut rest = piece;
    let mut checked = false;
    loop {
        let plain = plain_prefix(rest);
        out.extend_from_slice(&rest[..plain]);
        let Some(&byte) = rest.get(plain) else { return true };
        if byte >= 0x80 {
            // The first byte outside ASCII decides how all that follows is treated.
            if !checked {
                if std::str::from_utf8(&rest[plain..]).is_err() {
                    escape(out, String::from_utf8_lossy(&rest[plain..]).as_bytes());
                    return false;
                }
                checked = true;
            }
            let run = rest[plain..].iter().position(|b| *b < 0x80).unwrap_or(rest.len() - plain);
            out.extend_from_slice(&rest[plain..plain + run]);
            rest = &rest[plain + run..];
            continue;
        }
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(control >> 4)]);
                out.push(HEX[usize::from(control & 15)]);
            }
        }
        rest = &rest[plain + 1..];
    }
}

/// How many bytes from the start need neither escaping nor checking. Eight at a time.
fn plain_prefix(text: &[u8]) -> usize {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let mut at = 0;
    while let Some(chunk) = text.get(at..at + 8) {
        let word = u64::from_ne_bytes(chunk.try_into().expect("eight bytes were taken"));
        let zero_in = |w: u64| w.wrapping_sub(LOW) & !w & HIGH;
        let special = (word & HIGH)
            | (word.wrapping_sub(LOW * 0x20) & !word & HIGH)
            | zero_in(word ^ (LOW * u64::from(b'"')))
            | zero_in(word ^ (LOW * u64::from(b'\\')));
        if special != 0 {
            break;
        }
        at += 8;
    }
    while let Some(&byte) = text.get(at) {
        if !(0x20..0x80).contains(&byte) || byte == b'"' || byte == b'\\' {
            break;
        }
        at += 1;
    }
    at
}

/// Reads lines back; keeps the last second, as most lines share it.
#[derive(Debug, Default)]
pub struct Decoder {
    second_text: [u8; 19],
    second: i64,
}

impl Decoder {
    /// The frame on a line (without its line feed); `None` when the line is damaged
    /// (the end of a file after a power failure).
    pub fn decode(&mut self, line: &[u8]) -> Option<Frame> {
        self.decode_ours(line).or_else(|| decode_any(line))
    }

    /// When a line was received, without looking at its text.
    pub fn time(&mut self, line: &[u8]) -> Option<Timestamp> {
        if line.len() > STAMP + 2 && line.ends_with(b"Z\"}") {
            let stamp = &line[line.len() - STAMP - 2..line.len() - 2];
            if let Some(time) = self.stamp(stamp) {
                return Some(time);
            }
        }
        decode_any(line).map(|f| f.time)
    }

    fn decode_ours(&mut self, line: &[u8]) -> Option<Frame> {
        let body = line.strip_prefix(PREFIX)?;
        let split = body.len().checked_sub(SUFFIX)?;
        let (text, suffix) = body.split_at(split);
        let stream = if suffix.starts_with(STDOUT) {
            StreamKind::Stdout
        } else if suffix.starts_with(STDERR) {
            StreamKind::Stderr
        } else {
            return None;
        };
        let stamp = suffix[STDOUT.len()..].strip_prefix(TIME)?.strip_suffix(b"\"}")?;
        let time = self.stamp(stamp)?;
        let (plain, newline) = match text.strip_suffix(b"\\n") {
            Some(plain) => (plain, true),
            None => (text, false),
        };
        if memchr::memchr2(b'\\', b'"', plain).is_none() {
            return Some(Frame { stream, time, data: plain.to_vec(), newline });
        }
        if memchr::memmem::find(text, b"\",\"raw\":\"").is_some() {
            return None; // the general decoder knows it
        }
        let mut data = unescape(text)?;
        let newline = data.last() == Some(&b'\n');
        if newline {
            data.pop();
        }
        Some(Frame { stream, time, data, newline })
    }

    fn stamp(&mut self, text: &[u8]) -> Option<Timestamp> {
        let text: &[u8; STAMP] = text.try_into().ok()?;
        let number = |from: usize, to: usize| -> Option<i64> {
            text[from..to]
                .iter()
                .try_fold(0_i64, |n, c| c.is_ascii_digit().then(|| n * 10 + i64::from(c - b'0')))
        };
        if text[..19] != self.second_text {
            let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (29, b'Z')];
            if marks.iter().any(|(at, mark)| text[*at] != *mark) {
                return None;
            }
            let day = days(number(0, 4)?, number(5, 7)?, number(8, 10)?);
            self.second = day * 86_400 + number(11, 13)? * 3600 + number(14, 16)? * 60 + number(17, 19)?;
            self.second_text.copy_from_slice(&text[..19]);
        }
        Timestamp::new(self.second, i32::try_from(number(20, 29)?).ok()?).ok()
    }
}

/// The bytes of a JSON string's inside; `None` when it is malformed.
fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        let (byte, used) = match *rest.get(at + 1)? {
            b'n' => (b'\n', 2),
            b'r' => (b'\r', 2),
            b't' => (b'\t', 2),
            b'u' => {
                let code = std::str::from_utf8(rest.get(at + 2..at + 6)?).ok()?;
                // We only write control characters this way; pairs are for the general decoder.
                (u8::try_from(u16::from_str_radix(code, 16).ok()?).ok().filter(u8::is_ascii)?, 6)
            }
            same @ (b'"' | b'\\' | b'/') => (same, 2),
            b'b' => (8, 2),
            b'f' => (12, 2),
            _ => return None,
        };
        out.push(byte);
        rest = &rest[at + used..];
    }
    out.extend_from_slice(rest);
    Some(out)
}

/// Any object with Docker's members, in whatever order and spelling.
fn decode_any(line: &[u8]) -> Option<Frame> {
    #[derive(Deserialize)]
    struct Line<'a> {
        #[serde(borrow)]
        log: std::borrow::Cow<'a, str>,
        #[serde(default)]
        raw: Option<&'a str>,
        stream: StreamKind,
        time: Timestamp,
    }
    let line: Line<'_> = serde_json::from_slice(line).ok()?;
    let newline = line.log.ends_with('\n');
    let data = match line.raw {
        Some(raw) => STANDARD.decode(raw).ok()?,
        None => line.log[..line.log.len() - usize::from(newline)].as_bytes().to_vec(),
    };
    Some(Frame { stream: line.stream, time: line.time, data, newline })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(data: &[u8], newline: bool, stream: StreamKind, time: Timestamp) {
        let mut out = Vec::new();
        encode(&mut out, data, newline, stream, b"", Stamp::default().render(time));
        assert_eq!(memchr::memchr_iter(b'\n', &out).count(), 1, "one line");
        let line = out.strip_suffix(b"\n").unwrap();
        let frame = Frame { stream, time, data: data.to_vec(), newline };
        assert_eq!(Decoder::default().decode(line).unwrap(), frame);
        assert_eq!(decode_any(line).unwrap(), frame, "any JSON reader understands it");
        assert_eq!(Decoder::default().time(line), Some(time));
    }

    proptest! {
        #[test]
        fn any_bytes_survive(data in proptest::collection::vec(any::<u8>(), 0..200), newline: bool, err: bool,
                             second in 0_i64..4_000_000_000, nano in 0_i32..1_000_000_000) {
            let data: Vec<u8> = data.into_iter().map(|b| if b == b'\n' { b' ' } else { b }).collect();
            let stream = if err { StreamKind::Stderr } else { StreamKind::Stdout };
            round_trip(&data, newline, stream, Timestamp::new(second, nano).unwrap());
        }

        #[test]
        fn any_text_survives(text in "[^\n]*", newline: bool) {
            round_trip(text.as_bytes(), newline, StreamKind::Stdout, Timestamp::UNIX_EPOCH);
        }

        #[test]
        fn no_line_panics(line in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _frame = Decoder::default().decode(&line);
        }
    }

    #[test]
    fn the_format_is_docker_s() {
        let time = Timestamp::new(1_767_323_045, 6).unwrap();
        let mut out = Vec::new();
        encode(&mut out, b"a \"b\"\t\\", true, StreamKind::Stderr, b"", Stamp::default().render(time));
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"log\":\"a \\\"b\\\"\\t\\\\\\n\",\"stream\":\"stderr\",\"time\":\"2026-01-02T03:04:05.000000006Z\"}\n"
        );
        let docker =
            br#"{"log":"\u003ca\u003e \ud83d\ude00\n","stream":"stdout","time":"2026-01-02T03:04:05.5Z"}"#;
        let frame = Decoder::default().decode(docker).unwrap();
        assert_eq!((frame.data, frame.newline), ("<a> 😀".as_bytes().to_vec(), true));
        assert_eq!(frame.time, Timestamp::new(1_767_323_045, 500_000_000).unwrap());
    }
}
