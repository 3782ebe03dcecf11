//! `RUN`: flags and what is executed.

use super::ast::{Command, Run, RunNetwork, Script};
use super::parser::Parser;
use super::statement::{Statement, Takes};
use super::{codes, heredoc, mount};
use crate::diagnostic::{Diagnostic, suggest};

pub(super) fn run(parser: &mut Parser<'_>, s: &mut Statement<'_>) -> Option<Run> {
    let known = [
        ("mount", Takes::Texts),
        ("network", Takes::Text),
        ("security", Takes::Text),
        ("device", Takes::Texts),
    ];
    s.flags.check("RUN", &known, &mut parser.problems);
    if let Some(device) = s.flags.text("device") {
        parser.problems.push(
            Diagnostic::error(codes::UNSUPPORTED_FLAG, "flag `--device` of `RUN` is not carried out")
                .at(device.span, "")
                .help("hoist knows no CDI devices; build this image with BuildKit"),
        );
    }
    let command = parser.accept(s.command())?;
    let script = script(parser, s, command)?;
    let mut mounts = Vec::new();
    for flag in s.flags.texts("mount") {
        match mount::parse(&flag) {
            Ok(mount) => mounts.push(mount),
            Err(problem) => parser.problems.push(problem),
        }
    }
    let words: Vec<_> = ["network", "security"].iter().filter_map(|name| s.flags.text(name)).collect();
    let network = match s.flags.text("network") {
        None => None,
        Some(word) => match word.text.as_str() {
            "default" => Some(RunNetwork::Default),
            "none" => Some(RunNetwork::None),
            "host" => Some(RunNetwork::Host),
            _ => return parser.wrong(choice("network", &word, &["default", "none", "host"])),
        },
    };
    let insecure = match s.flags.text("security") {
        None => false,
        Some(word) => match word.text.as_str() {
            "sandbox" => false,
            "insecure" => true,
            _ => return parser.wrong(choice("security", &word, &["sandbox", "insecure"])),
        },
    };
    Some(Run { script, mounts, network, insecure, flags: words })
}

fn choice(flag: &str, word: &super::ast::Word, choices: &[&str]) -> Diagnostic {
    let problem =
        Diagnostic::error(codes::INVALID_FLAG, format!("flag `--{flag}` cannot be `{}`", word.text))
            .at(word.span, "");
    match suggest::nearest(&word.text, choices.iter().copied()) {
        Some(near) => problem.help(format!("did you mean `{near}`?")),
        None => problem.help(format!(
            "it can be {}",
            choices.iter().map(|c| format!("`{c}`")).collect::<Vec<_>>().join(", ")
        )),
    }
}

/// Puts the bodies of heredocs to where they are executed.
fn script(parser: &mut Parser<'_>, s: &Statement<'_>, command: Command) -> Option<Script> {
    let text = match command {
        Command::Exec(words) => return Some(Script::Exec(words)),
        Command::Shell(text) => text,
    };
    let bodies = parser.bodies(s)?;
    let Some((first, body)) = bodies.first() else { return Some(Script::Shell(text)) };
    if heredoc::heredoc(&text).is_none() {
        // Among other words the shell itself has to make the files.
        let mut full = text;
        for (announced, body) in &bodies {
            full.push('\n');
            full.push_str(&body.text);
            full.push_str(&announced.name);
        }
        return Some(Script::Shell(full));
    }
    let content = if first.chomp { heredoc::chomp(&body.text) } else { body.text.clone() };
    // The interpreter line counts as it is written, before tabs are removed.
    Some(if body.text.starts_with("#!") {
        Script::Executable { name: first.name.clone(), content }
    } else {
        Script::Shell(content)
    })
}
