//! Scalars with a grammar or a printed form of their own.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;
use std::ops::{Deref, DerefMut};

use super::record::{Field, Log, Out, Source, Style, View, no_text, scalar_text};

/// A length of time as Compose writes it, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration {
    /// Nanoseconds; may be negative.
    pub nanos: i64,
}

impl Duration {
    /// A whole number of seconds.
    pub const fn from_secs(secs: i64) -> Self {
        Self { nanos: secs.saturating_mul(1_000_000_000) }
    }

    /// The same as std's type; a negative duration becomes zero.
    pub fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_nanos(u64::try_from(self.nanos).unwrap_or(0))
    }

    /// Parses `1m30s`, `1.5h`, `2d`, `0`.
    ///
    /// Units: `ns us µs ms s m h d w`. Fractions and a sign are allowed.
    ///
    /// # Errors
    /// What is wrong, as a fragment: `missing unit in duration`, `unknown unit …`, `invalid duration`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let invalid = || format!("invalid duration `{text}`");
        let (negative, mut rest) = match text.as_bytes() {
            [b'-', ..] => (true, &text[1..]),
            [b'+', ..] => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Ok(Self::default());
        }
        if rest.is_empty() {
            return Err(invalid());
        }
        let mut total: i128 = 0;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            let (number, tail) = rest.split_at(digits);
            let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_end);
            if number.is_empty() || number == "." || number.matches('.').count() > 1 {
                return Err(invalid());
            }
            let scale: i128 = match unit {
                "ns" => 1,
                "us" | "µs" | "μs" => 1_000,
                "ms" => 1_000_000,
                "s" => 1_000_000_000,
                "m" => 60_000_000_000,
                "h" => 3_600_000_000_000,
                "d" => 86_400_000_000_000,
                "w" => 604_800_000_000_000,
                "" => return Err(format!("missing unit in duration `{text}`: write `{text}s` for seconds")),
                _ => {
                    return Err(format!(
                        "unknown unit `{unit}` in duration `{text}`: there are ms, s, m, h, d, w"
                    ));
                }
            };
            let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
            let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
            total = whole.checked_mul(scale).and_then(|n| total.checked_add(n)).ok_or_else(invalid)?;
            let mut place = scale;
            let mut denominator: i128 = 1;
            let mut numerator: i128 = 0;
            for digit in fraction.bytes().take(18) {
                numerator = numerator * 10 + i128::from(digit - b'0');
                denominator *= 10;
            }
            place = place * numerator / denominator;
            total += place;
            rest = tail;
        }
        let total = if negative { -total } else { total };
        i64::try_from(total).map(|nanos| Self { nanos }).map_err(|_| invalid())
    }
}

impl fmt::Display for Duration {
    /// Go's form: `1m30s`, `24h0m0s`, `1.5ms`, `0s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.nanos.unsigned_abs();
        if n == 0 {
            return f.write_str("0s");
        }
        if self.nanos < 0 {
            f.write_char('-')?;
        }
        let decimal = |f: &mut fmt::Formatter<'_>, n: u64, unit: u64, name: &str| {
            let (whole, part) = (n / unit, n % unit);
            write!(f, "{whole}")?;
            if part != 0 {
                let width = unit.ilog10() as usize;
                let digits = format!("{part:0width$}");
                write!(f, ".{}", digits.trim_end_matches('0'))?;
            }
            f.write_str(name)
        };
        match n {
            ..1_000 => write!(f, "{n}ns"),
            1_000..1_000_000 => decimal(f, n, 1_000, "µs"),
            1_000_000..1_000_000_000 => decimal(f, n, 1_000_000, "ms"),
            _ => {
                let (minutes, rest) = (n / 60_000_000_000, n % 60_000_000_000);
                let (hours, minutes) = (minutes / 60, minutes % 60);
                if hours > 0 {
                    write!(f, "{hours}h")?;
                }
                if hours > 0 || minutes > 0 {
                    write!(f, "{minutes}m")?;
                }
                decimal(f, rest, 1_000_000_000, "s")
            }
        }
    }
}

impl Field for Duration {
    fn decode<S: Source>(node: &S, log: &mut Log<S>) -> Self {
        let text = match node.view() {
            View::Str(s) => s.to_owned(),
            View::Null => return Self::default(),
            _ => scalar_text(node).unwrap_or_default(),
        };
        Self::parse(&text).unwrap_or_else(|problem| {
            log.push((node.place(), problem));
            Self::default()
        })
    }
    fn render(&self, _: Style) -> Out {
        Out::Str(self.to_string())
    }
    fn omit(&self, _: Style) -> bool {
        self.nanos == 0
    }
}

/// A number of bytes. 0 is unset, -1 unlimited where that exists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub i64);

impl Bytes {
    /// Parses `64m`, `1.5 GiB`, `1024`. Units are powers of 1024, any case, `b`, or one of
    /// `k m g t p` with an optional `b` or `ib`.
    ///
    /// # Errors
    /// ``invalid size `X` ``, with the form of a size.
    pub fn parse(text: &str) -> Result<Self, String> {
        let invalid =
            || format!("invalid size `{text}`: write a number and a unit, such as `512m` or `1.5g`");
        let cut = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ').ok_or_else(invalid)?;
        let (number, unit) = if text.as_bytes()[cut] == b' ' {
            (&text[..cut], &text[cut + 1..])
        } else {
            text.split_at(cut + 1)
        };
        let plain = number.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'+' | b'e' | b'E'));
        let number: f64 = number.parse().ok().filter(|_| plain).ok_or_else(invalid)?;
        let unit = unit.to_ascii_lowercase();
        let mut letters = unit.chars();
        let power = match letters.next() {
            None | Some('b') => 0,
            Some('k') => 1,
            Some('m') => 2,
            Some('g') => 3,
            Some('t') => 4,
            Some('p') => 5,
            Some(_) => return Err(invalid()),
        };
        let rest = letters.as_str();
        if !(rest.is_empty() || power > 0 && (rest == "b" || rest == "ib")) {
            return Err(invalid());
        }
        #[expect(clippy::cast_possible_truncation, reason = "sizes above 2^63 saturate")]
        Ok(Self((number * 1024_f64.powi(power)) as i64))
    }
}

impl Field for Bytes {
    fn decode<S: Source>(node: &S, log: &mut Log<S>) -> Self {
        match node.view() {
            View::Int(i) => Self(i64::try_from(i).unwrap_or(i64::MAX)),
            View::Str(s) => Self::parse(s).unwrap_or_else(|problem| {
                log.push((node.place(), problem));
                Self::default()
            }),
            // An unquoted float is silently ignored by Docker Compose too.
            _ => Self::default(),
        }
    }
    fn render(&self, _: Style) -> Out {
        Out::Str(self.0.to_string())
    }
    fn omit(&self, _: Style) -> bool {
        self.0 == 0
    }
}

/// Permission bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileMode(pub i64);

impl Field for FileMode {
    fn decode<S: Source>(node: &S, log: &mut Log<S>) -> Self {
        match node.view() {
            View::Null => Self::default(),
            View::Int(i) => Self(i64::try_from(i).unwrap_or(0)),
            View::Str(s) if i64::from_str_radix(s, 8).is_ok() => {
                Self(i64::from_str_radix(s, 8).unwrap_or_default())
            }
            _ => {
                let text = scalar_text(node).unwrap_or_default();
                log.push((node.place(), format!("invalid file mode `{text}`, an octal number is expected")));
                Self::default()
            }
        }
    }
    fn render(&self, _: Style) -> Out {
        let sign = if self.0 < 0 { "-" } else { "" };
        Out::Str(format!("0{sign}{:o}", self.0.unsigned_abs()))
    }
    fn omit(&self, _: Style) -> bool {
        self.0 == 0
    }
}

/// A command line as words. `None` is “the image's”, an empty list is explicitly nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Command(pub Option<Vec<String>>);

impl Deref for Command {
    type Target = Option<Vec<String>>;
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Command {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl Field for Command {
    fn decode<S: Source>(node: &S, log: &mut Log<S>) -> Self {
        match node.view() {
            View::Null => Self(None),
            View::Str("") => Self(Some(Vec::new())),
            _ => Self(Some(Vec::decode(node, log))),
        }
    }
    fn render(&self, style: Style) -> Out {
        self.0.render(style)
    }
    fn omit(&self, style: Style) -> bool {
        // JSON always has the key, as Go's encoder cannot tell null from empty otherwise.
        style == Style::Yaml && self.0.is_none()
    }
}

/// A limit of one process resource; -1 is unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ulimit {
    /// The limit enforced now.
    pub soft: i64,
    /// What the process may raise it to.
    pub hard: i64,
    /// Written as one number; only matters for printing and the hash.
    pub single: bool,
}

impl Field for Ulimit {
    fn decode<S: Source>(node: &S, log: &mut Log<S>) -> Self {
        let mut this = Self::default();
        if let View::Map(m) = node.view() {
            for (k, n) in S::entries(m) {
                match k {
                    "soft" => this.soft = i64::decode(n, log),
                    "hard" => this.hard = i64::decode(n, log),
                    "single" => {
                        let both = i64::decode(n, log);
                        this = Self { soft: both, hard: both, single: both != 0 };
                    }
                    _ => {}
                }
            }
        } else if matches!(node.view(), View::Int(_)) {
            let both = i64::decode(node, log);
            this = Self { soft: both, hard: both, single: both != 0 };
        } else {
            log.push((node.place(), "must be an integer, or a mapping with `soft` and `hard`".to_owned()));
        }
        this
    }
    fn render(&self, style: Style) -> Out {
        if self.single {
            return Out::Int(i128::from(self.soft));
        }
        let fields = [("soft", self.soft), ("hard", self.hard)];
        // Go's JSON leaves a zero out.
        let kept = fields.into_iter().filter(|(_, limit)| style == Style::Yaml || *limit != 0);
        Out::Record(kept.map(|(key, limit)| (key, Out::Int(i128::from(limit)))).collect(), Vec::new())
    }
    fn omit(&self, _: Style) -> bool {
        false
    }
}
no_text!(Ulimit);

/// How many devices; -1 is all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceCount(pub i64);

impl Field for DeviceCount {
    fn decode<S: Source>(node: &S, log: &mut Log<S>) -> Self {
        match node.view() {
            View::Str(s) if s.eq_ignore_ascii_case("all") => Self(-1),
            View::Str(s) => s.parse().map_or_else(
                |_| {
                    log.push((
                        node.place(),
                        format!("invalid device count `{s}`, the only text allowed is `all`, or a number"),
                    ));
                    Self::default()
                },
                Self,
            ),
            View::Float(_) => {
                log.push((node.place(), "must be an integer, or `all`".to_owned()));
                Self::default()
            }
            _ => Self(i64::decode(node, log)),
        }
    }
    fn render(&self, _: Style) -> Out {
        Out::Int(i128::from(self.0))
    }
    fn omit(&self, _: Style) -> bool {
        self.0 == 0
    }
}

/// `gpus` uses the same requests as device reservations.
pub type Gpu = super::service::DeviceRequest;

/// A decimal number in single precision, such as a number of CPUs. 0 is unset.
pub type Ratio = f32;

/// Addresses by host name, in the order given per host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts(pub BTreeMap<String, Vec<String>>);

impl Deref for Hosts {
    type Target = BTreeMap<String, Vec<String>>;
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Hosts {
    /// `host=address` lines, sorted.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .0
            .iter()
            .flat_map(|(host, addresses)| addresses.iter().map(move |a| format!("{host}={a}")))
            .collect();
        lines.sort_unstable();
        lines
    }
}

impl Field for Hosts {
    fn decode<S: Source>(node: &S, log: &mut Log<S>) -> Self {
        let mut this = Self::default();
        match node.view() {
            View::Map(m) => {
                for (k, n) in S::entries(m) {
                    let addresses = Vec::<String>::decode(n, log);
                    this.0.insert(k.to_owned(), addresses.iter().map(|a| unbracket(a)).collect());
                }
            }
            View::List(l) => {
                for item in l {
                    let text = scalar_text(item).unwrap_or_default();
                    match text.split_once('=').or_else(|| text.split_once(':')) {
                        Some((host, address)) if !host.is_empty() => {
                            let address = unbracket(address);
                            this.0.entry(host.to_owned()).or_default().push(address);
                        }
                        _ => log.push((item.place(), format!("invalid additional host, missing IP: {text}"))),
                    }
                }
            }
            View::Null => {}
            _ => log.push((node.place(), "must be a mapping or a list".to_owned())),
        }
        this
    }
    fn render(&self, _: Style) -> Out {
        Out::List(self.lines().into_iter().map(Out::Str).collect())
    }
    fn omit(&self, _: Style) -> bool {
        self.0.is_empty()
    }
}

fn unbracket(address: &str) -> String {
    address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address).to_owned()
}

/// One SSH agent socket or key offered to a build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SshKey {
    /// `default` or a name of one's own.
    pub id: String,
    /// Socket or key file; none means the agent of the environment.
    pub path: Option<String>,
}

/// `build.ssh`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SshKeys(pub Vec<SshKey>);

impl Field for SshKeys {
    fn decode<S: Source>(node: &S, log: &mut Log<S>) -> Self {
        let mut keys = Vec::new();
        match node.view() {
            View::Map(m) => {
                for (k, n) in S::entries(m) {
                    let path = Option::<String>::decode(n, log);
                    keys.push(SshKey { id: k.to_owned(), path });
                }
            }
            View::List(l) => {
                for item in l {
                    let text = scalar_text(item).unwrap_or_default();
                    match text.split_once('=') {
                        Some((id, path)) => {
                            keys.push(SshKey { id: id.to_owned(), path: Some(path.to_owned()) });
                        }
                        None if text == "default" => keys.push(SshKey { id: text, path: None }),
                        None => {
                            log.push((item.place(), format!("invalid ssh key `{text}`, write `id=path`")));
                        }
                    }
                }
            }
            View::Null => {}
            _ => log.push((node.place(), "must be a mapping or a list".to_owned())),
        }
        keys.sort_by(|a, b| a.id.cmp(&b.id));
        Self(keys)
    }
    fn render(&self, style: Style) -> Out {
        let one = |key: &SshKey| match (&key.path, style) {
            (None, _) => Out::Str(key.id.clone()),
            (Some(path), Style::Yaml) => Out::Str(format!("{}: {path}", key.id)),
            // Docker Compose cannot print this one as JSON at all.
            (Some(path), Style::Json) => Out::Str(format!("{}={path}", key.id)),
        };
        Out::List(self.0.iter().map(one).collect())
    }
    fn omit(&self, _: Style) -> bool {
        self.0.is_empty()
    }
}

/// Go's `%v` of a float: the shortest digits, with an exponent below 1e-4 and from 1e6 on.
pub fn go_float(f: f64) -> String {
    go_shortest(&format!("{f:e}"), f.is_finite())
}

/// As [`go_float`], for single precision.
pub fn go_float32(f: f32) -> String {
    go_shortest(&format!("{f:e}"), f.is_finite())
}

/// Lays out Rust's shortest `d.ddde±x` the way Go's `g` format does.
fn go_shortest(scientific: &str, finite: bool) -> String {
    if !finite {
        return match scientific {
            "inf" => "+Inf".to_owned(),
            "-inf" => "-Inf".to_owned(),
            _ => "NaN".to_owned(),
        };
    }
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(m) => ("-", m),
        None => ("", mantissa),
    };
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    if !(-4..6).contains(&exponent) {
        let mut text = format!("{sign}{}", &digits[..1]);
        if digits.len() > 1 {
            let _ = write!(text, ".{}", &digits[1..]);
        }
        let _ = write!(text, "e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
        return text;
    }
    plain_decimal(sign, &digits, exponent)
}

/// `d.ddd × 10^exponent` without an exponent.
fn plain_decimal(sign: &str, digits: &str, exponent: i32) -> String {
    if exponent < 0 {
        let zeros = "0".repeat(usize::try_from(-exponent - 1).unwrap_or(0));
        return format!("{sign}0.{zeros}{digits}");
    }
    let whole = usize::try_from(exponent).unwrap_or(0) + 1;
    if digits.len() <= whole {
        format!("{sign}{digits}{}", "0".repeat(whole - digits.len()))
    } else {
        format!("{sign}{}.{}", &digits[..whole], &digits[whole..])
    }
}
