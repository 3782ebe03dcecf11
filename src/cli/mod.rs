//! The command line: argv, environment, terminal, exit codes.
//!
//! A run is: [`args`] records what was typed → [`settings`] decides → a verb of
//! [`commands`] translates, calls `ops` once, and [`render`] shows the answer.
//! Errors are printed in one place, [`report`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::ExitCode;

mod args;
mod attached;
mod commands;
mod confirm;
mod exit;
mod load;
mod output;
#[cfg(test)]
mod reference;
mod render;
mod report;
mod session;
mod settings;
mod signals;
mod terminal;

use args::Parsed;
use exit::Exit;
use render::out;
use settings::{Settings, Terminal};

/// Runs the command that argv asks for.
pub(crate) fn run() -> ExitCode {
    let invocation = args::invocation(std::env::args_os().collect());
    if args::asks_for_metadata(&invocation.argv) {
        return ExitCode::from(print(PLUGIN_METADATA));
    }
    ExitCode::from(execute(invocation))
}

/// What the docker command line wants to know about a plugin.
const PLUGIN_METADATA: &str = concat!(
    "{\"SchemaVersion\":\"0.1.0\",\"Vendor\":\"hoist\",\"Version\":\"v",
    env!("CARGO_PKG_VERSION"),
    "\",\"ShortDescription\":\"docker compose without a daemon\"}\n"
);

fn execute(invocation: args::Invocation) -> Exit {
    let parsed = match args::parse(invocation.argv, invocation.name) {
        Ok(parsed) => parsed,
        Err(e) => return usage(&e),
    };
    let (entry, mut matches, globals) = match parsed {
        Parsed::Verb(entry, matches, globals) => (entry, matches, globals),
        Parsed::Help => return print(&args::root(invocation.name).render_help().to_string()),
    };
    start_tracing(globals.verbose);
    let json = globals.progress.as_deref() == Some("json");
    let terminal = Terminal::detect();
    let mut environment = environment();
    load::add_compose_variables(&globals, &mut environment);
    let result =
        Settings::new(*globals, environment, terminal).and_then(|settings| entry.run(&mut matches, settings));
    match result {
        Ok(exit) => exit,
        Err(e) => report::error(&e, json, terminal.stderr && std::env::var_os("NO_COLOR").is_none()),
    }
}

/// Lets developers see what is done: `HOIST_LOG=hoist=debug`, or `--verbose` for everything of ours.
fn start_tracing(verbose: bool) {
    let wanted = std::env::var("HOIST_LOG").ok().filter(|filter| !filter.is_empty());
    let Some(filter) = wanted.or_else(|| verbose.then(|| "hoist=trace".to_owned())) else { return };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .init();
}

/// Shows what clap has to say: help on stdout, mistakes on stderr with exit code 1.
fn usage(error: &clap::Error) -> Exit {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => print(&error.render().to_string()),
        ErrorKind::InvalidSubcommand => {
            if let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidSubcommand)
                && let Some((_, reason)) = commands::NOT_YET.iter().find(|(verb, _)| verb == name)
            {
                out::talk(&format!("error: `{name}` is not available: {reason}\n"));
            } else {
                out::talk(&error.render().to_string());
            }
            Exit::Failure
        }
        _ => {
            out::talk(&error.render().to_string());
            Exit::Failure
        }
    }
}

fn print(text: &str) -> Exit {
    match out::print(text) {
        Ok(()) => Exit::Success,
        Err(e) => report::error(&e.into(), false, false),
    }
}

/// The variables of this process that are text. Others cannot be meant for us.
fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(key, value): (OsString, OsString)| {
            Some((key.into_string().ok()?, value.into_string().ok()?))
        })
        .collect()
}
