//! JSON as Go's encoder prints it: `<`, `>`, `&` and U+2028/9 escaped, map keys sorted by bytes.

use std::fmt::Write as _;

use super::record::Out;
use super::scalar::{go_float, go_float32};

/// One line, no blanks; the input of hashes.
pub fn compact(out: &Out) -> String {
    let mut text = String::new();
    write(&mut text, out, None);
    text
}

/// Indented by two blanks, without a final line feed.
pub fn pretty(out: &Out) -> String {
    let mut text = String::new();
    write(&mut text, out, Some(0));
    text
}

fn line(text: &mut String, indent: Option<usize>) {
    if let Some(depth) = indent {
        text.push('\n');
        for _ in 0..depth {
            text.push_str("  ");
        }
    }
}

fn write(text: &mut String, out: &Out, indent: Option<usize>) {
    match out {
        Out::Null => text.push_str("null"),
        Out::Bool(b) => text.push_str(if *b { "true" } else { "false" }),
        Out::Int(i) => {
            let _ = write!(text, "{i}");
        }
        Out::Float(f) => text.push_str(&float(*f, go_float)),
        Out::Float32(f) => text.push_str(&float(*f, go_float32)),
        Out::Str(s) | Out::Time(s) => string(text, s),
        Out::List(items) => {
            text.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    text.push(',');
                }
                line(text, indent.map(|d| d + 1));
                write(text, item, indent.map(|d| d + 1));
            }
            if !items.is_empty() {
                line(text, indent);
            }
            text.push(']');
        }
        Out::Map(entries) => {
            let mut sorted: Vec<&(String, Out)> = entries.iter().collect();
            sorted.sort_by(|a, b| a.0.cmp(&b.0));
            mapping(text, sorted.into_iter().map(|(k, v)| (k.as_str(), v)), indent);
        }
        Out::Record(fields, more) => {
            let fields = fields.iter().map(|(k, v)| (*k, v));
            mapping(text, fields.chain(more.iter().map(|(k, v)| (k.as_str(), v))), indent);
        }
    }
}

fn mapping<'a>(text: &mut String, entries: impl Iterator<Item = (&'a str, &'a Out)>, indent: Option<usize>) {
    text.push('{');
    let mut any = false;
    for (key, value) in entries {
        if any {
            text.push(',');
        }
        any = true;
        line(text, indent.map(|d| d + 1));
        string(text, key);
        text.push(':');
        if indent.is_some() {
            text.push(' ');
        }
        write(text, value, indent.map(|d| d + 1));
    }
    if any {
        line(text, indent);
    }
    text.push('}');
}

/// Go switches to an exponent below 1e-6 and from 1e21 on.
fn float<F: Copy + Into<f64> + std::fmt::Display>(f: F, scientific: fn(F) -> String) -> String {
    let magnitude = f.into().abs();
    if magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        return scientific(f).replace("e-0", "e-");
    }
    f.to_string()
}

fn string(text: &mut String, s: &str) {
    text.push('"');
    for c in s.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            '\u{0}'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(text, "\\u{:04x}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text.push('"');
}
