//! Docker Compose's list of commands and flags against ours.
//!
//! The list is a fixture, written from the reference; nothing of it may be
//! missing here without being named below with the reason.

use super::{args, commands};

const LIST: &str = include_str!("../../tests/fixtures/cli/flags.txt");

/// Flags that hoist refuses as unknown, and why that is right.
const LEFT_OUT: &[(&str, &str)] =
    &[("build --progress", "the flag stands in front of the verb: `hoist --progress plain build`")];

/// What a list entry asks for and we do not have; empty when we have it.
fn lacks(root: &clap::Command, entry: &str) -> String {
    let mut words = entry.split(' ');
    let (command, flag, short) =
        (words.next().unwrap_or(""), words.next().unwrap_or(""), words.next().unwrap_or("-"));
    if commands::NOT_YET.iter().any(|(name, _)| *name == command) {
        return String::new();
    }
    let found = if command == "-" { Some(root) } else { root.find_subcommand(command) };
    let Some(found) = found else { return format!("{command}: no such command") };
    if flag.is_empty() {
        return String::new();
    }
    let long = flag.trim_start_matches('-');
    let is_it = |arg: &&clap::Arg| {
        arg.get_long() == Some(long) || arg.get_all_aliases().is_some_and(|all| all.contains(&long))
    };
    let Some(arg) = found.get_arguments().find(is_it) else { return format!("{command} {flag}: missing") };
    match short.trim_start_matches('-').chars().next() {
        Some(letter)
            if arg.get_short() != Some(letter)
                && arg.get_all_short_aliases().is_none_or(|all| !all.contains(&letter)) =>
        {
            format!("{command} {flag}: not -{letter}")
        }
        _ => String::new(),
    }
}

#[test]
fn every_command_and_flag_of_the_peer_is_known() {
    let mut root = args::root("hoist");
    root.build();
    let entries = LIST.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let mut lacking: Vec<String> = Vec::new();
    for entry in entries {
        let name = entry.rsplit_once(' ').map_or(entry, |(name, _)| name);
        let lack = lacks(&root, entry);
        if !lack.is_empty() && LEFT_OUT.iter().all(|(left_out, _)| *left_out != name) {
            lacking.push(lack);
        }
    }
    assert!(lacking.is_empty(), "{}", lacking.join("\n"));
}

#[test]
fn a_command_that_is_not_there_says_why() {
    for (name, reason) in commands::NOT_YET {
        assert!(commands::find(name).is_none(), "`{name}` is there, and listed as missing");
        assert!(LIST.lines().any(|line| line == *name), "`{name}` is no command of the peer");
        assert!(reason.len() > 20, "{name}: {reason}");
    }
}
