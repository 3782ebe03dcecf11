//! A text that is no YAML: what is meant, in words for people.
//!
//! The parser says where it gave up and in its own terms; the mistake often stands a line
//! above. Each rule here looks at the lines around that place for one usual mistake, and the
//! first that recognises it speaks. Nothing here decides whether a text is YAML.

use std::ops::Range;

use crate::diagnostic::{Diagnostic, FileId, Span, suggest};

mod scene;

use scene::{Scene, anchors, innermost_open, key_end, quoted, without_comment};

/// What a rule found.
struct Advice {
    code: &'static str,
    message: String,
    at: Range<usize>,
    note: String,
    also: Option<(Range<usize>, String)>,
    help: String,
}

impl Advice {
    fn new(message: impl Into<String>, at: Range<usize>, note: &str, help: impl Into<String>) -> Self {
        let (message, note, help) = (message.into(), note.to_owned(), help.into());
        Self { code: "yaml-syntax", message, at, note, also: None, help }
    }

    fn also(mut self, at: Range<usize>, note: &str) -> Self {
        self.also = Some((at, note.to_owned()));
        self
    }
}

/// The diagnostic of a text that the parser refused at byte `at` with the words `said`.
pub(super) fn explain(file: FileId, text: &str, at: usize, said: &str) -> Diagnostic {
    let scene = Scene::new(text, at, said);
    let span = |range: Range<usize>| {
        let from = text.floor_char_boundary(range.start);
        Span::new(file, from, text.ceil_char_boundary(range.end.min(text.len())))
    };
    let Some(advice) = RULES.iter().find_map(|rule| rule(&scene)) else {
        return Diagnostic::error("yaml-syntax", "this is no YAML")
            .at(span(scene.at..scene.at + 1), said.to_owned())
            .help("look at the indentation, the colons and the quotes of this line and the one above");
    };
    let mut diagnostic =
        Diagnostic::error(advice.code, advice.message).at(span(advice.at), advice.note).help(advice.help);
    if let Some((range, note)) = advice.also {
        diagnostic = diagnostic.also(span(range), note);
    }
    diagnostic
}

/// A key and a value that were written without a blank between them: `image:nginx`.
pub(super) fn glued(text: &str) -> Option<(&str, &str)> {
    let (key, value) = text.split_once(':')?;
    let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let word = key.starts_with(|c: char| c.is_ascii_alphabetic()) && key.chars().all(name);
    // `http://…` and `C:\…` are no keys, and neither is `host:80`.
    let plain = value.starts_with(|c: char| !c.is_whitespace() && !matches!(c, '/' | '\\' | ':'));
    (word && plain && key.len() > 1).then_some((key, value))
}

const RULES: &[fn(&Scene<'_>) -> Option<Advice>] = &[
    too_deep,
    tab,
    first_character,
    alias,
    anchor_or_tag,
    open_quote,
    escape,
    after_quote,
    glued_above,
    open_bracket,
    stray_bracket,
    list_beside_key,
    missing_dash,
    item_among_keys,
    item_indented,
    missing_colon,
    colon_in_value,
    indented_too_far,
    indented_like_nothing,
    block_text,
];

fn too_deep(scene: &Scene<'_>) -> Option<Advice> {
    if !scene.says(&["recursion limit"]) {
        return None;
    }
    let mut advice = Advice::new(
        "lists and mappings are nested too deep",
        scene.at..scene.at + 1,
        "here the limit is reached",
        "no compose file needs more than a few levels",
    );
    advice.code = "yaml-too-big";
    Some(advice)
}

fn tab(scene: &Scene<'_>) -> Option<Advice> {
    if !scene.says(&["tab"]) {
        return None;
    }
    let near = [scene.here, scene.here + 1].into_iter().chain((0..scene.here).rev());
    let (from, to) = near.filter_map(|index| scene.lines.get(index)).find_map(|line| {
        let blank = &line.text[..line.indent()];
        let first = blank.find('\t')?;
        Some((line.start + first, line.start + blank.trim_end_matches(' ').len()))
    })?;
    Some(Advice::new(
        "a line is indented with a tab",
        from..to,
        "a tab stands here",
        "indent with blanks only: two for each level; most editors can convert tabs",
    ))
}

fn first_character(scene: &Scene<'_>) -> Option<Advice> {
    if !scene.says(&["unexpected character"]) {
        return None;
    }
    let value = without_comment(scene.rest());
    let first = value.chars().next()?;
    Some(Advice::new(
        match first {
            '`' => "a value cannot begin with a backtick".to_owned(),
            first => format!("a value cannot begin with `{first}`"),
        },
        scene.at..scene.at + value.len(),
        "this needs quotes",
        format!("put quotes around it: `{}`", quoted(value)),
    ))
}

fn alias(scene: &Scene<'_>) -> Option<Advice> {
    let line = scene.line();
    let found = scene.says(&["unknown anchor", "scanning an anchor or alias"]);
    let from = line.text.get(..=(scene.at - line.start).min(line.text.len().saturating_sub(1)))?.rfind('*');
    let from = from.filter(|_| found)?;
    let value = without_comment(&line.text[from..]);
    let end = value.find([',', ']', '}', ' ']).unwrap_or(value.len());
    let word = &value[1..end];
    let at = line.start + from..line.start + from + end;
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    let mut advice = if !word.is_empty() && word.chars().all(is_name) {
        let anchors = anchors(&scene.text[..scene.at]);
        let near = suggest::nearest(word, anchors.iter().copied());
        Advice::new(
            format!("the alias `*{word}` refers to no anchor"),
            at,
            "no anchor of this name stands above",
            near.map_or_else(
                || {
                    format!(
                        "define it above as `&{word}`, or put quotes around it if text is meant: `\"*{word}\"`"
                    )
                },
                |near| format!("did you mean `*{near}`?"),
            ),
        )
    } else {
        Advice::new(
            "a value that begins with `*` is read as an alias",
            at,
            "this needs quotes",
            format!("put quotes around it: `{}`", quoted(&value[..end])),
        )
    };
    advice.code = "yaml-alias";
    Some(advice)
}

fn anchor_or_tag(scene: &Scene<'_>) -> Option<Advice> {
    if !scene.says(&["a tag", "anchor or alias", "expected whitespace", "the handle wasn't declared"]) {
        return None;
    }
    let line = scene.line();
    let before = line.text.get(..(scene.at - line.start + 1).min(line.text.len()))?;
    let from = before.rfind(['!', '&'])?;
    let value = without_comment(&line.text[from..]);
    let (first, what) = if value.starts_with('!') { ('!', "a tag") } else { ('&', "an anchor") };
    Some(Advice::new(
        format!("a value that begins with `{first}` is read as {what}"),
        line.start + from..line.start + from + value.len(),
        "this needs quotes",
        format!("put quotes around it: `{}`", quoted(value)),
    ))
}

fn open_quote(scene: &Scene<'_>) -> Option<Advice> {
    if !scene.says(&[
        "quoted scalar, found unexpected end of stream",
        "indentation in quoted scalar",
        "quoted scalar, found unexpected document indicator",
    ]) {
        return None;
    }
    let mark = scene.rest().chars().next().filter(|c| matches!(c, '"' | '\''))?;
    Some(Advice::new(
        format!("the quote `{mark}` is never closed"),
        scene.at..scene.at + 1,
        "opened here",
        format!("add a `{mark}` where the value ends"),
    ))
}

fn escape(scene: &Scene<'_>) -> Option<Advice> {
    if !scene.says(&["unknown escape character", "hexadecimal number", "Unicode character escape"]) {
        return None;
    }
    let rest = scene.text.get(scene.at..)?;
    let mut from = 0;
    let (at, next) = loop {
        let found = from + rest.get(from..)?.find('\\')?;
        let next = rest[found + 1..].chars().next()?;
        if !"0abtnvfre \"/\\N_LP\t\n\r".contains(next) {
            break (found, next);
        }
        from = found + 1 + next.len_utf8();
    };
    Some(Advice::new(
        format!("`\\{next}` is no escape sequence"),
        scene.at + at..scene.at + at + 1 + next.len_utf8(),
        "a backslash in double quotes begins one",
        "use single quotes, in which a backslash is a backslash, or write `\\\\`",
    ))
}

fn after_quote(scene: &Scene<'_>) -> Option<Advice> {
    let line = scene.line();
    let before = &line.text[..(scene.at - line.start).min(line.text.len())];
    let mark = before.trim_end().chars().next_back().filter(|c| matches!(c, '"' | '\''))?;
    let after = without_comment(scene.rest());
    let trailing = scene.says(&["trailing content after double-quoted", "did not find expected key"]);
    if !trailing || after.is_empty() || before.trim().len() < 2 || after.starts_with([']', '}']) {
        return None;
    }
    let other = if mark == '"' { '\'' } else { '"' };
    Some(Advice::new(
        "a value goes on after its closing quote",
        scene.at..scene.at + after.len(),
        "this is outside of the quotes",
        format!("put the whole value in `{other}` quotes, or take out the quotes within it"),
    ))
}

/// `image:nginx` is text, and the lines around it show that only later.
fn glued_above(scene: &Scene<'_>) -> Option<Advice> {
    let found = scene.says(&["mapping values are not allowed", "simple key expect", "expected key"]);
    let above = scene.above(scene.here).filter(|_| found);
    [Some((scene.here, scene.line())), above].into_iter().flatten().find_map(|(_, line)| {
        let body = without_comment(line.body());
        let (item, body) = body.strip_prefix("- ").map_or((0, body), |rest| (2, rest));
        let (key, value) = glued(body).filter(|_| key_end(body).is_none())?;
        if item > 0 {
            return None;
        }
        let at = line.start + line.indent();
        Some(Advice::new(
            "a blank is missing after the colon",
            at..at + body.len(),
            "this is text, not a key with a value",
            format!("write `{key}: {value}`"),
        ))
    })
}

fn open_bracket(scene: &Scene<'_>) -> Option<Advice> {
    if !scene.says(&[
        "flow",
        "invalid indentation",
        "unexpected end of plain scalar",
        "expected node content",
    ]) {
        return None;
    }
    let (at, open) = innermost_open(&scene.text[..scene.at])?;
    let close = if open == '[' { ']' } else { '}' };
    let rest = scene.rest();
    let line = scene.text[at..scene.at].contains('\n');
    if !line && rest.contains(close) {
        return Some(Advice::new(
            format!("a comma is missing between two items of `{open}…{close}`"),
            scene.at..scene.at + without_comment(rest).len().max(1),
            "a comma is expected before this",
            "put a comma between the items, and quotes around an item that has blanks or colons in it",
        ));
    }
    Some(Advice::new(
        format!("the bracket `{open}` is never closed"),
        at..at + 1,
        "opened here",
        format!("add a `{close}` where the {} ends", if open == '[' { "list" } else { "mapping" }),
    ))
}

fn stray_bracket(scene: &Scene<'_>) -> Option<Advice> {
    if !scene.says(&["misplaced bracket", "trailing content after double-quoted"]) {
        return None;
    }
    let mark = scene.rest().chars().next().filter(|c| matches!(c, ']' | '}'))?;
    Some(Advice::new(
        format!("the bracket `{mark}` closes nothing"),
        scene.at..scene.at + 1,
        "nothing is open here",
        "take it away, or add the opening bracket",
    ))
}

/// `ports: - "80:80"`.
fn list_beside_key(scene: &Scene<'_>) -> Option<Advice> {
    if !scene.says(&["block sequence entries are not allowed"]) {
        return None;
    }
    let line = scene.line();
    let end = key_end(line.body()).filter(|_| !line.is_item())?;
    let key = &line.body()[..end];
    Some(Advice::new(
        format!("the list of `{key}` begins on the line of its key"),
        scene.at..line.range().end.max(scene.at + 1),
        "a dash begins a list item only at the start of a line",
        format!("put each item on a line of its own below `{key}:`"),
    ))
}

fn missing_dash(scene: &Scene<'_>) -> Option<Advice> {
    if !scene.says(&["simple key expect", "expected '-'", "expected key"]) {
        return None;
    }
    let (index, line) = scene.spoken()?;
    let (_, above) = scene.above(index)?;
    let item = above.is_item() && !line.is_item() && key_end(line.body()).is_none();
    // Below the dash, or where the item's text begins.
    if !item || !(above.indent()..=above.indent() + 2).contains(&line.indent()) {
        return None;
    }
    let body = without_comment(line.body());
    let range = line.range();
    if let Some(rest) = body.strip_prefix('-') {
        return Some(Advice::new(
            "a blank is missing after the dash",
            range,
            "this is text, not a list item",
            format!("write `- {rest}`"),
        ));
    }
    Some(
        Advice::new(
            "a dash is missing before a list item",
            range,
            "this stands below a list item",
            format!("write `- {body}`, with the dash right below the one above"),
        )
        .also(above.range(), "the item above"),
    )
}

fn item_among_keys(scene: &Scene<'_>) -> Option<Advice> {
    let line = scene.line();
    let at_dash = line.is_item() && scene.at <= line.start + line.indent() + 2;
    if !scene.says(&["expected key", "block sequence entries are not allowed"]) || !at_dash {
        return None;
    }
    let (_, above) = scene.above(scene.here)?;
    if above.is_item() {
        return None;
    }
    let body = without_comment(line.body());
    let item = body.strip_prefix("- ").unwrap_or_default();
    let help = match item.split_once('=') {
        Some((key, value)) => format!("write `{key}: {value}`, or make all of them items: `- KEY=value`"),
        None => "write all of them with a dash, or none".to_owned(),
    };
    Some(
        Advice::new("a list item stands among `key: value` lines", line.range(), "begins with a dash", help)
            .also(above.range(), "has none"),
    )
}

fn item_indented(scene: &Scene<'_>) -> Option<Advice> {
    let (index, line) = scene.spoken().filter(|(_, line)| line.is_item())?;
    let (_, above) = scene.above(index).filter(|(_, above)| above.is_item())?;
    if !scene.says(&["expected '-'", "block sequence entries", "expected key"])
        || line.indent() == above.indent()
    {
        return None;
    }
    let further = if line.indent() > above.indent() { "further" } else { "less" };
    Some(
        Advice::new(
            format!("a list item is indented {further} than the one above"),
            line.range(),
            "begins here",
            "put the dashes of a list right below one another",
        )
        .also(above.range(), "the item above"),
    )
}

fn missing_colon(scene: &Scene<'_>) -> Option<Advice> {
    if !scene.says(&["mapping values are not allowed", "simple key expect", "expected key"]) {
        return None;
    }
    // The line itself, when it is the last one, or the one above.
    let above = scene.above(scene.here).map(|(_, line)| line);
    let own = Some(scene.line()).filter(|line| line.speaks() && key_end(line.body()).is_none());
    let line = own.or(above)?;
    let body = without_comment(line.body());
    if line.is_item() || key_end(body).is_some() || body.contains([':', '"', '\'', '[', '{']) {
        return None;
    }
    let help = match body.split_once(' ') {
        Some((key, value)) => format!("write `{key}: {}`", value.trim_start()),
        None => format!("write `{body}:`"),
    };
    Some(Advice::new("a colon is missing after a key", line.range(), "no colon here", help))
}

fn colon_in_value(scene: &Scene<'_>) -> Option<Advice> {
    if !scene.says(&["mapping values are not allowed"]) {
        return None;
    }
    let line = scene.line();
    let body = without_comment(line.body());
    let end = key_end(body)?;
    let from = line.start + line.indent() + end;
    if scene.at <= from {
        return None;
    }
    let value = body[end + 1..].trim_start();
    let at = line.start + line.indent() + body.len() - value.len();
    let key = &body[..end];
    Some(Advice::new(
        "a value with a colon and a blank in it needs quotes",
        at..at + value.len(),
        "a second `key: value` is seen here",
        format!("write `{key}: {}`", quoted(value)),
    ))
}

fn indented_too_far(scene: &Scene<'_>) -> Option<Advice> {
    let line = scene.line();
    let (_, above) = scene.above(scene.here)?;
    if !scene.says(&["mapping values are not allowed"]) || line.indent() <= above.indent() {
        return None;
    }
    Some(
        Advice::new(
            "a line is indented further than the one above, which has its value already",
            line.range(),
            "indented too far",
            "put both at the same indentation, or take the value away from the line above",
        )
        .also(above.range(), "this is complete"),
    )
}

/// Less than the line above, and not as far as any line that could be its parent or neighbour.
fn indented_like_nothing(scene: &Scene<'_>) -> Option<Advice> {
    let (index, line) = scene.spoken()?;
    if !scene.says(&["expected key", "expected '-'", "<document", "simple key expect"]) {
        return None;
    }
    let mut levels: Vec<usize> = Vec::new();
    for above in scene.lines[..index].iter().rev().filter(|line| line.speaks()) {
        if levels.last().is_none_or(|last| above.indent() < *last) {
            levels.push(above.indent());
        }
    }
    if levels.contains(&line.indent()) || levels.first().is_none_or(|first| line.indent() > *first) {
        return None;
    }
    let near: Vec<String> = levels
        .iter()
        .filter(|level| level.abs_diff(line.indent()) <= 2)
        .rev()
        .map(ToString::to_string)
        .collect();
    let blanks = |n: usize| if n == 1 { "1 blank".to_owned() } else { format!("{n} blanks") };
    let help = match near.split_last() {
        Some((last, [])) => format!("indent it by {last} blanks, as a line above is"),
        Some((last, rest)) => {
            format!("indent it by {} or {last} blanks, as lines above are", rest.join(", "))
        }
        None => "indent it as one of the lines above".to_owned(),
    };
    let message = format!("a line is indented by {}, as no line above is", blanks(line.indent()));
    Some(Advice::new(message, line.range(), "belongs to nothing above", help))
}

fn block_text(scene: &Scene<'_>) -> Option<Advice> {
    if !scene.says(&["scanning a block scalar", "block scalar content"]) {
        return None;
    }
    let line = scene.line();
    let from = line.text.get(..(scene.at - line.start + 1).min(line.text.len()))?.rfind(['|', '>'])?;
    let value = without_comment(&line.text[from..]);
    let first = value.chars().next()?;
    Some(Advice::new(
        format!("a value that begins with `{first}` is read as the start of a block of text"),
        line.start + from..line.start + from + value.len(),
        "nothing may follow it on its line",
        format!("put the text on the lines below, or quotes around it: `{}`", quoted(value)),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glued_keys_are_told_from_other_text() {
        for (text, found) in [
            ("image:nginx", Some(("image", "nginx"))),
            ("image:nginx:1", Some(("image", "nginx:1"))),
            ("http://x", None),
            ("C:\\x", None),
            ("80:80", None),
            ("image: nginx", None),
            ("plain", None),
        ] {
            assert_eq!(glued(text), found, "{text}");
        }
    }

    proptest::proptest! {
        /// Whatever the parser says and wherever: words and places inside the text.
        #[test]
        fn every_text_is_explained(text in "[a:&*<\\[\\]{},'\"!#|> \n\t\\\\-é0-9]{0,60}", at in 0_usize..70) {
            for said in [
                "tab", "unexpected character", "unknown anchor", "a tag", "trailing content after double-quoted",
                "indentation in quoted scalar", "unknown escape character", "mapping values are not allowed",
                "simple key expect", "expected key", "expected '-'", "flow", "misplaced bracket", "<document",
                "block sequence entries are not allowed", "scanning a block scalar", "recursion limit", "?",
            ] {
                let found = explain(FileId::default(), &text, at, said);
                let span = found.primary.expect("a place").span;
                let range = span.start as usize..span.end as usize;
                proptest::prop_assert!(text.get(range.clone()).is_some(), "{said}: {range:?}");
            }
        }
    }
}
