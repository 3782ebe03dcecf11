//! `COPY` and `ADD`: flags, sources, destination.

use super::ast::{Add, Copy, Heredoc, Source, Transfer, Word};
use super::codes;
use super::heredoc::{self, Announced};
use super::parser::Parser;
use super::statement::{Statement, Takes};
use crate::diagnostic::Diagnostic;

const SHARED: [(&str, Takes); 5] = [
    ("chown", Takes::Text),
    ("chmod", Takes::Text),
    ("link", Takes::Bool),
    ("parents", Takes::Bool),
    ("exclude", Takes::Texts),
];

pub(super) fn copy(parser: &mut Parser<'_>, s: &mut Statement<'_>) -> Option<Copy> {
    let known: Vec<_> = SHARED.into_iter().chain([("from", Takes::Text)]).collect();
    let transfer = transfer(parser, s, &known)?;
    Some(Copy { from: s.flags.text("from").filter(|from| !from.text.is_empty()), transfer })
}

pub(super) fn add(parser: &mut Parser<'_>, s: &mut Statement<'_>) -> Option<Add> {
    let own = [("checksum", Takes::Text), ("keep-git-dir", Takes::Bool), ("unpack", Takes::Bool)];
    let known: Vec<_> = SHARED.into_iter().chain(own).collect();
    let transfer = transfer(parser, s, &known)?;
    Some(Add {
        transfer,
        checksum: s.flags.text("checksum").filter(|sum| !sum.text.is_empty()),
        keep_git_dir: s.flags.switch("keep-git-dir").unwrap_or_default(),
        unpack: s.flags.switch("unpack"),
    })
}

fn transfer(parser: &mut Parser<'_>, s: &mut Statement<'_>, known: &[(&str, Takes)]) -> Option<Transfer> {
    s.flags.check(&s.name(), known, &mut parser.problems);
    let (mut words, json) = parser.accept(s.list())?;
    // Bodies are read before anything can go wrong, so that they are not taken for instructions.
    let bodies = if json { Vec::new() } else { parser.bodies(s)? };
    let destination = words.pop().filter(|_| !words.is_empty());
    let Some(destination) = destination else {
        let problem = s.arguments("needs at least one source and a destination");
        return parser.wrong(problem);
    };
    if heredoc::heredoc(&destination.text).is_some() {
        let message = format!("the destination of `{}` is a heredoc", s.name());
        return parser.wrong(
            Diagnostic::error(codes::HEREDOC_DESTINATION, message)
                .at(destination.span, "")
                .help("write the path of the file to make after it"),
        );
    }
    let sources = words.into_iter().map(|word| source(word, &bodies)).collect();
    let non_empty = |word: Option<Word>| word.filter(|word| !word.text.is_empty());
    Some(Transfer {
        sources,
        destination,
        chown: non_empty(s.flags.text("chown")),
        chmod: non_empty(s.flags.text("chmod")),
        link: s.flags.switch("link").unwrap_or_default(),
        parents: s.flags.switch("parents").unwrap_or_default(),
        exclude: s.flags.texts("exclude"),
    })
}

fn source(word: Word, bodies: &[(Announced, Word)]) -> Source {
    let Some(announced) = heredoc::heredoc(&word.text) else { return Source::Path(word) };
    // Of two with one name, the last counts for both.
    let Some((_, body)) = bodies.iter().rfind(|(other, _)| other.name == announced.name) else {
        return Source::Path(word);
    };
    let text = if announced.chomp { heredoc::chomp(&body.text) } else { body.text.clone() };
    let content = Word { text, span: body.span };
    Source::Heredoc(Heredoc { name: announced.name, expand: announced.expand, content })
}

impl Parser<'_> {
    /// The bodies of all heredocs that a line announces; `None` when one does not end.
    pub(super) fn bodies(&mut self, s: &Statement<'_>) -> Option<Vec<(Announced, Word)>> {
        let mut out = Vec::new();
        for announced in heredoc::announced(&s.line.text) {
            let Some(body) = self.lines.heredoc(&announced.name, announced.chomp) else {
                let message = format!("heredoc `{}` has no end", announced.name);
                return self.wrong(
                    Diagnostic::error(codes::UNTERMINATED_HEREDOC, message)
                        .at(s.place(), "")
                        .help(format!("end it with a line that is just `{}`", announced.name)),
                );
            };
            out.push((announced, body));
        }
        Some(out)
    }
}
