//! The canonical model as YAML text, laid out and quoted as Docker Compose does.

use std::cmp::Ordering;

use crate::model::go_float;
use crate::model::record::Out;

/// Prints a tree; `escape` doubles every `$`, so that the output can be loaded again.
pub fn print(out: &Out, escape: bool) -> String {
    let mut text = String::new();
    match out {
        Out::Record(fields, more) if fields.is_empty() && more.is_empty() => text.push_str("{}\n"),
        Out::Map(entries) if entries.is_empty() => text.push_str("{}\n"),
        _ => block(&mut text, out, 0, false),
    }
    if escape { text.replace('$', "$$") } else { text }
}

fn indent(text: &mut String, depth: usize) {
    for _ in 0..depth {
        text.push(' ');
    }
}

/// Writes a non-empty collection; `inline` when its first line continues the current one (after `- `).
fn block(text: &mut String, out: &Out, depth: usize, inline: bool) {
    match out {
        Out::List(items) => {
            for (number, item) in items.iter().enumerate() {
                if number > 0 || !inline {
                    indent(text, depth);
                }
                text.push_str("- ");
                if empty(item) || !matches!(item, Out::List(_) | Out::Map(_) | Out::Record(..)) {
                    leaf(text, item, depth);
                } else {
                    block(text, item, depth + 2, true);
                }
            }
        }
        Out::Map(entries) => {
            let mut sorted: Vec<&(String, Out)> = entries.iter().collect();
            sorted.sort_by(|a, b| natural(&a.0, &b.0));
            for (number, (key, value)) in sorted.into_iter().enumerate() {
                pair(text, key, value, depth, inline && number == 0);
            }
        }
        Out::Record(fields, more) => {
            let mut sorted: Vec<&(String, Out)> = more.iter().collect();
            sorted.sort_by(|a, b| natural(&a.0, &b.0));
            let fields = fields.iter().map(|(k, v)| (*k, v));
            for (number, (key, value)) in
                fields.chain(sorted.into_iter().map(|(k, v)| (k.as_str(), v))).enumerate()
            {
                pair(text, key, value, depth, inline && number == 0);
            }
        }
        other => leaf(text, other, depth),
    }
}

fn empty(out: &Out) -> bool {
    match out {
        Out::List(l) => l.is_empty(),
        Out::Map(m) => m.is_empty(),
        Out::Record(a, b) => a.is_empty() && b.is_empty(),
        _ => false,
    }
}

fn pair(text: &mut String, key: &str, value: &Out, depth: usize, inline: bool) {
    if !inline {
        indent(text, depth);
    }
    if key.contains('\n') || key.len() > 128 {
        text.push_str("? ");
        scalar(text, key, depth, false);
        text.push('\n');
        indent(text, depth);
    } else {
        scalar(text, key, depth, true);
    }
    text.push(':');
    match value {
        Out::List(_) | Out::Map(_) | Out::Record(..) if !empty(value) => {
            text.push('\n');
            block(text, value, depth + 2, false);
        }
        _ => {
            text.push(' ');
            leaf(text, value, depth);
        }
    }
}

fn leaf(text: &mut String, out: &Out, depth: usize) {
    match out {
        Out::Null => text.push_str("null"),
        Out::Bool(b) => text.push_str(if *b { "true" } else { "false" }),
        Out::Int(i) => text.push_str(&i.to_string()),
        Out::Float(f) => text.push_str(&special(go_float(*f))),
        Out::Float32(f) => text.push_str(&special(crate::model::go_float32(*f))),
        Out::Time(t) => text.push_str(t),
        Out::Str(s) => scalar(text, s, depth, false),
        Out::List(_) => text.push_str("[]"),
        Out::Map(_) | Out::Record(..) => text.push_str("{}"),
    }
    text.push('\n');
}

fn special(text: String) -> String {
    match text.as_str() {
        "+Inf" => ".inf".to_owned(),
        "-Inf" => "-.inf".to_owned(),
        "NaN" => ".nan".to_owned(),
        _ => text,
    }
}

/// Punctuation before digits before letters; runs of digits compare as numbers.
fn natural(a: &str, b: &str) -> Ordering {
    let (left, right): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut digits = false;
    let shortest = left.len().min(right.len());
    for at in 0..shortest {
        if left[at] == right[at] {
            digits = left[at].is_ascii_digit();
            continue;
        }
        let (al, bl) = (left[at].is_alphabetic(), right[at].is_alphabetic());
        if al && bl {
            return left[at].cmp(&right[at]);
        }
        if al || bl {
            return if digits {
                if al { Ordering::Less } else { Ordering::Greater }
            } else if bl {
                Ordering::Less
            } else {
                Ordering::Greater
            };
        }
        let (mut ai, mut an) = (at, 0_i64);
        let (mut bi, mut bn) = (at, 0_i64);
        if left[at] == '0' || right[at] == '0' {
            let mut back = at;
            while back > 0 && left[back - 1].is_ascii_digit() {
                back -= 1;
                if left[back] != '0' {
                    an = 1;
                    bn = 1;
                    break;
                }
            }
        }
        while ai < left.len() && left[ai].is_ascii_digit() {
            an = an.wrapping_mul(10).wrapping_add(i64::from(u32::from(left[ai]) - 48));
            ai += 1;
        }
        while bi < right.len() && right[bi].is_ascii_digit() {
            bn = bn.wrapping_mul(10).wrapping_add(i64::from(u32::from(right[bi]) - 48));
            bi += 1;
        }
        if an != bn {
            return an.cmp(&bn);
        }
        if ai != bi {
            return ai.cmp(&bi);
        }
        return left[at].cmp(&right[at]);
    }
    left.len().cmp(&right.len())
}

/// Whether a plain scalar would be read as something else than text: those are double-quoted.
fn reads_as_other(s: &str) -> bool {
    matches!(
        s,
        "" | "~"
            | "null"
            | "Null"
            | "NULL"
            | "true"
            | "True"
            | "TRUE"
            | "false"
            | "False"
            | "FALSE"
            | ".inf"
            | ".Inf"
            | ".INF"
            | "+.inf"
            | "+.Inf"
            | "+.INF"
            | "-.inf"
            | "-.Inf"
            | "-.INF"
            | ".nan"
            | ".NaN"
            | ".NAN"
    ) || number(s)
        || old_bool(s)
        || base60(s)
        || timestamp(s)
}

fn old_bool(s: &str) -> bool {
    matches!(
        s,
        "y" | "Y"
            | "yes"
            | "Yes"
            | "YES"
            | "on"
            | "On"
            | "ON"
            | "n"
            | "N"
            | "no"
            | "No"
            | "NO"
            | "off"
            | "Off"
            | "OFF"
    )
}

fn number(s: &str) -> bool {
    let Some(first) = s.bytes().next() else { return false };
    if !(first.is_ascii_digit() || matches!(first, b'+' | b'-' | b'.')) {
        return false;
    }
    let plain = s.replace('_', "");
    let unsigned = plain.strip_prefix(['+', '-']).unwrap_or(&plain);
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2), ("0X", 16), ("0O", 8), ("0B", 2)] {
        if let Some(digits) = unsigned.strip_prefix(prefix) {
            return !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
        }
    }
    if unsigned.bytes().all(|b| b.is_ascii_digit()) && !unsigned.is_empty() {
        return true;
    }
    // [-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((m, e)) => (m, Some(e)),
        None => (unsigned, None),
    };
    let exponent_ok = exponent.is_none_or(|e| {
        let digits = e.strip_prefix(['+', '-']).unwrap_or(e);
        !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
    });
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((w, f)) => (w, Some(f)),
        None => (mantissa, None),
    };
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    let mantissa_ok = digits(whole)
        && fraction.is_none_or(digits)
        && (!whole.is_empty() || fraction.is_some_and(|f| !f.is_empty()));
    mantissa_ok && exponent_ok
}

/// `1:30` was a number in YAML 1.1.
fn base60(s: &str) -> bool {
    let rest = s.strip_prefix(['+', '-']).unwrap_or(s);
    if !rest.starts_with(|c: char| c.is_ascii_digit()) || !rest.contains(':') {
        return false;
    }
    let mut parts = rest.split(':');
    let first = parts.next().unwrap_or_default();
    if !first.bytes().all(|b| b.is_ascii_digit() || b == b'_') {
        return false;
    }
    let parts: Vec<&str> = parts.collect();
    parts.iter().enumerate().all(|(number, part)| {
        let whole = if number + 1 == parts.len() { part.split('.').next().unwrap_or_default() } else { part };
        let tail_ok = part.len() == whole.len()
            || part[whole.len() + 1..].bytes().all(|b| b.is_ascii_digit() || b == b'_');
        let b = whole.as_bytes();
        tail_ok
            && match b {
                [x] => x.is_ascii_digit(),
                [x, y] => (b'0'..=b'5').contains(x) && y.is_ascii_digit(),
                _ => false,
            }
    })
}

fn timestamp(s: &str) -> bool {
    let b = s.as_bytes();
    if b.len() < 8 || !b[..4].iter().all(u8::is_ascii_digit) || b[4] != b'-' {
        return false;
    }
    super::document::is_timestamp(s)
}

fn scalar(text: &mut String, s: &str, depth: usize, key: bool) {
    if s.contains('\n') && !key && block_allowed(s) {
        literal(text, s, depth);
    } else if reads_as_other(s) || !printable(s) || s.contains(['\t', '\n']) {
        double(text, s);
    } else if plain_ok(s) {
        text.push_str(s);
    } else {
        text.push('\'');
        text.push_str(&s.replace('\'', "''"));
        text.push('\'');
    }
}

/// A block cannot show a blank at the end of a line, nor what must be escaped.
fn block_allowed(s: &str) -> bool {
    printable(s) && !s.ends_with(' ') && !s.contains(" \n")
}

/// What needs no escape; Go's emitter also escapes everything beyond the basic plane.
fn printable(s: &str) -> bool {
    s.chars().all(|c| {
        matches!(c, '\t' | '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}')
            && !matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}' | '\u{85}')
    })
}

fn plain_ok(s: &str) -> bool {
    let chars: Vec<char> = s.chars().collect();
    let Some(first) = chars.first() else { return false };
    if s.starts_with("---") || s.starts_with("...") {
        return false;
    }
    if *first == ' ' || chars.last() == Some(&' ') || s.contains(['\n', '\t']) {
        return false;
    }
    for (at, c) in chars.iter().enumerate() {
        let next_blank = chars.get(at + 1).is_none_or(|n| matches!(n, ' ' | '\t'));
        if at == 0 {
            if matches!(
                c,
                '#' | ','
                    | '['
                    | ']'
                    | '{'
                    | '}'
                    | '&'
                    | '*'
                    | '!'
                    | '|'
                    | '>'
                    | '\''
                    | '"'
                    | '%'
                    | '@'
                    | '`'
            ) || matches!(c, '?' | ':' | '-') && next_blank
            {
                return false;
            }
        } else if *c == ':' && next_blank || *c == '#' && chars[at - 1] == ' ' {
            return false;
        }
    }
    true
}

fn literal(text: &mut String, s: &str, depth: usize) {
    text.push('|');
    let first = s.chars().next();
    if matches!(first, Some(' ' | '\n')) {
        text.push('2');
    }
    if !s.ends_with('\n') {
        text.push('-');
    } else if s.ends_with("\n\n") || s == "\n" {
        text.push('+');
    }
    let body = s.strip_suffix('\n').unwrap_or(s);
    for line in body.split('\n') {
        text.push('\n');
        if !line.is_empty() {
            indent(text, depth + 2);
            text.push_str(line);
        }
    }
}

fn double(text: &mut String, s: &str) {
    use std::fmt::Write as _;
    text.push('"');
    for c in s.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            '\r' => text.push_str("\\r"),
            '\0' => text.push_str("\\0"),
            '\u{7}' => text.push_str("\\a"),
            '\u{8}' => text.push_str("\\b"),
            '\u{b}' => text.push_str("\\v"),
            '\u{c}' => text.push_str("\\f"),
            '\u{1b}' => text.push_str("\\e"),
            '\u{85}' => text.push_str("\\N"),
            '\u{2028}' => text.push_str("\\L"),
            '\u{2029}' => text.push_str("\\P"),
            '\u{feff}' => text.push_str("\\uFEFF"),
            c if printable(c.encode_utf8(&mut [0; 4])) => text.push(c),
            c if u32::from(c) < 0x100 => {
                let _ = write!(text, "\\x{:02X}", u32::from(c));
            }
            c if u32::from(c) > 0xffff => {
                let _ = write!(text, "\\U{:08X}", u32::from(c));
            }
            c => {
                let _ = write!(text, "\\u{:04X}", u32::from(c));
            }
        }
    }
    text.push('"');
}
