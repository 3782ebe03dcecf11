//! argv: the flags in front of the verb, the table of verbs, and what other
//! programs' ways of calling us are turned into.
//!
//! Parsing only records; [`super::settings`] decides. A verb's own arguments
//! are next to the verb, in `commands/`, and are built only when it is used.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::{ArgAction, ArgMatches, Args as _, Command, FromArgMatches as _};

use super::commands::{self, Verb};
use super::exit::Exit;
use super::settings::Settings;

/// Flags that stand before the verb.
#[derive(Debug, Clone, Default, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(crate) struct GlobalArgs {
    /// Keep networks, volumes, secrets and configs that no service uses
    #[arg(long)]
    pub(crate) all_resources: bool,
    /// When to use colours and cursor movement: never, always or auto
    #[arg(long, value_name = "WHEN")]
    pub(crate) ansi: Option<String>,
    /// Use `_` instead of `-` in container names, as Compose v1 did
    #[arg(long)]
    pub(crate) compatibility: bool,
    /// Show what would be done; change nothing
    #[arg(long, global = true)]
    pub(crate) dry_run: bool,
    /// What runs the containers: builtin or docker
    ///
    /// `builtin` is hoist's own runtime and needs no daemon. `docker` drives a
    /// Docker Engine. Default: $`HOIST_ENGINE`, else builtin.
    #[arg(long, value_name = "ENGINE")]
    pub(crate) engine: Option<String>,
    /// Read variables from this file instead of `.env`; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Compose file; may be repeated, later ones override; `-` is stdin
    ///
    /// Default: compose.yaml (or its older names) in this directory or the
    /// nearest parent that has one, with compose.override.yaml beside it.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) file: Vec<String>,
    /// How many engine calls may run at once; -1 is no limit
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) parallel: Option<i64>,
    /// Enable this profile; may be repeated; `*` is all
    #[arg(long, value_name = "PROFILE")]
    pub(crate) profile: Vec<String>,
    /// How progress is shown: auto, tty, plain, json or quiet
    #[arg(long, value_name = "STYLE")]
    pub(crate) progress: Option<String>,
    /// Base of relative paths [default: directory of the first compose file]
    #[arg(long, value_name = "DIR")]
    pub(crate) project_directory: Option<PathBuf>,
    /// Project name [default: `name:` in the file, else the directory's name]
    #[arg(long, short, value_name = "NAME")]
    pub(crate) project_name: Option<String>,
    /// Show the version
    #[arg(long, short = 'v', hide = true)]
    pub(crate) version: bool,
    /// Log what is done, for developers (also `HOIST_LOG=debug`)
    #[arg(long, hide = true, alias = "debug", short_alias = 'D')]
    pub(crate) verbose: bool,
    /// Deprecated form of `--ansi never`
    #[arg(long, hide = true)]
    pub(crate) no_ansi: bool,
    /// Deprecated form of `--project-directory`
    #[arg(long, hide = true, value_name = "DIR")]
    pub(crate) workdir: Option<PathBuf>,
    /// Address of a Docker Engine
    #[arg(long, short = 'H', hide = true, value_name = "URL")]
    pub(crate) host: Option<String>,
    /// Docker context
    #[arg(long, hide = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Registry of compose artifacts to talk plain HTTP to
    #[arg(long, hide = true, value_name = "HOST")]
    pub(crate) insecure_registry: Vec<String>,
}

/// One verb, as the table of verbs knows it. Its arguments are built when it is used.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    about: &'static str,
    aliases: &'static [&'static str],
    dry_run: bool,
    augment: fn(Command) -> Command,
    run: fn(&mut ArgMatches, Settings) -> anyhow::Result<Exit>,
}

impl Entry {
    /// The entry of a verb whose arguments are `V`.
    pub(crate) const fn of<V: Verb>(name: &'static str, about: &'static str) -> Self {
        Self { name, about, aliases: &[], dry_run: false, augment: V::augment_args, run: run_verb::<V> }
    }

    /// Further names, not shown.
    pub(crate) const fn aliases(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    /// `--dry-run` has a meaning for it: it changes nothing, or says what it would change.
    pub(crate) const fn dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }

    /// Runs the verb with what was parsed.
    pub(crate) fn run(&self, matches: &mut ArgMatches, settings: Settings) -> anyhow::Result<Exit> {
        if settings.dry_run && !self.dry_run {
            anyhow::bail!(
                "`--dry-run` is not available for `{}` yet; `hoist plan` shows what `up` would do",
                self.name
            );
        }
        (self.run)(matches, settings)
    }

    fn command(&self) -> Command {
        Command::new(self.name)
            .about(self.about)
            .aliases(self.aliases)
            // Building 30 verbs costs more than most of them take to run.
            .defer(self.augment)
            // A flag given twice: the last one counts, as everywhere in Docker.
            .args_override_self(true)
            .disable_version_flag(true)
    }
}

fn run_verb<V: Verb>(matches: &mut ArgMatches, settings: Settings) -> anyhow::Result<Exit> {
    V::from_arg_matches_mut(matches)?.run(settings)
}

/// The whole command line as clap sees it. `name` is how we were called.
pub(crate) fn root(name: &'static str) -> Command {
    GlobalArgs::augment_args(Command::new(name))
        .about("Runs a compose.yaml: all its services, in order, without a daemon")
        .long_about(None)
        .after_help(AFTER_HELP)
        // Not what argv[0] says: as a plugin we are called `docker compose`.
        .bin_name(name)
        .subcommand_value_name("COMMAND")
        .subcommand_help_heading("Commands")
        .disable_version_flag(true)
        .args_override_self(true)
        .subcommands(commands::ALL.iter().map(Entry::command))
}

const AFTER_HELP: &str = "\
A first session:
  hoist up -d          start everything in ./compose.yaml in the background
  hoist ps             what is running
  hoist logs -f web    follow the output of the service `web`
  hoist exec web sh    a shell in it
  hoist down           stop and remove everything (data in volumes stays)

`hoist help COMMAND` tells more about each.";

/// What argv turned out to ask for.
pub(crate) enum Parsed {
    /// A verb with its arguments.
    Verb(&'static Entry, ArgMatches, Box<GlobalArgs>),
    /// Nothing: show the help.
    Help,
}

/// Parses argv.
///
/// # Errors
/// Whatever clap has to say, which includes help texts.
pub(crate) fn parse(argv: Vec<OsString>, name: &'static str) -> Result<Parsed, clap::Error> {
    let mut command = root(name);
    let mut matches = match command.try_get_matches_from_mut(argv.iter().cloned()) {
        // Go programs take `--flag=false` for every switch; ours are told so only when somebody tries.
        Err(e) if e.kind() == clap::error::ErrorKind::TooManyValues => {
            match with_explicit_switches(root(name)).try_get_matches_from_mut(argv) {
                Ok(matches) => matches,
                Err(_) => return Err(e),
            }
        }
        other => other?,
    };
    let globals = GlobalArgs::from_arg_matches_mut(&mut matches)?;
    if globals.version {
        let entry = commands::find("version").expect("`version` is in the table of verbs");
        let mut version = Command::new("version");
        version = (entry.augment)(version);
        return Ok(Parsed::Verb(entry, version.try_get_matches_from(["version"])?, Box::new(globals)));
    }
    Ok(match matches.remove_subcommand() {
        Some((verb, matches)) => {
            let entry = commands::find(&verb).expect("clap only knows verbs of the table");
            Parsed::Verb(entry, matches, Box::new(globals))
        }
        None => Parsed::Help,
    })
}

/// Lets every switch take `=true` or `=false`.
fn with_explicit_switches(command: Command) -> Command {
    fn explicit(command: Command) -> Command {
        command.mut_args(|arg| {
            if matches!(arg.get_action(), ArgAction::SetTrue) {
                arg.action(ArgAction::Set)
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true")
                    .default_value("false")
                    .value_parser(go_bool)
            } else {
                arg
            }
        })
    }
    let verbs = commands::ALL.iter().map(|entry| {
        let command = Command::new(entry.name).aliases(entry.aliases).args_override_self(true);
        explicit((entry.augment)(command))
    });
    let root = GlobalArgs::augment_args(Command::new("hoist")).args_override_self(true);
    drop(command);
    explicit(root).subcommands(verbs)
}

/// A boolean as Go spells them.
///
/// # Errors
/// With what is accepted.
pub(crate) fn go_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("a boolean is true or false".into()),
    }
}

/// How we were called, and argv without what only says that.
pub(crate) struct Invocation {
    /// The name in usage lines.
    pub(crate) name: &'static str,
    /// Program name first.
    pub(crate) argv: Vec<OsString>,
}

/// Recognises the three ways of being called: `hoist up`, `docker-compose up`
/// (a link to us) and `docker-compose compose up` (the docker command line
/// running us as its plugin; `hoist compose up` works too).
///
/// Engine connection flags may stand before the word `compose` then.
pub(crate) fn invocation(mut argv: Vec<OsString>) -> Invocation {
    let called_as_compose = argv
        .first()
        .and_then(|program| std::path::Path::new(program).file_name())
        .is_some_and(|name| name == "docker-compose");
    let mut i = 1;
    let mut plugin = false;
    while let Some(word) = argv.get(i).and_then(|w| w.to_str()) {
        match word {
            "compose" => {
                argv.remove(i);
                plugin = true;
                break;
            }
            "-D" | "--debug" | "--tls" | "--tlsverify" => i += 1,
            "-H" | "--host" | "-c" | "--context" | "-l" | "--log-level" | "--config" | "--tlscacert"
            | "--tlscert" | "--tlskey" => i += 2,
            _ if word.starts_with("--") && word.contains('=') => i += 1,
            _ => break,
        }
    }
    let name = match (called_as_compose, plugin) {
        (true, true) => "docker compose",
        (true, false) => "docker-compose",
        (false, _) => "hoist",
    };
    Invocation { name, argv }
}

/// Whether a word is the plugin protocol's question for our metadata.
pub(crate) fn asks_for_metadata(argv: &[OsString]) -> bool {
    argv.get(1).map(OsString::as_os_str) == Some(OsStr::new("docker-cli-plugin-metadata"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn parsed(line: &str) -> (&'static str, ArgMatches, GlobalArgs) {
        match parse(words(line), "hoist").expect(line) {
            Parsed::Verb(entry, matches, globals) => (entry.name, matches, *globals),
            Parsed::Help => panic!("{line}: no verb"),
        }
    }

    #[test]
    fn the_definitions_are_sound() {
        let mut command = root("hoist");
        command.build();
        command.debug_assert();
    }

    #[test]
    fn the_list_of_verbs_says_what_their_own_help_says() {
        for entry in commands::ALL {
            let own = (entry.augment)(Command::new(entry.name));
            let about = own.get_about().map(ToString::to_string).unwrap_or_default();
            assert_eq!(entry.about, about, "{}", entry.name);
        }
    }

    #[test]
    fn every_argument_is_explained() {
        for entry in commands::ALL {
            let own = (entry.augment)(Command::new(entry.name));
            for arg in own.get_arguments() {
                assert!(arg.get_help().is_some() || arg.is_hide_set(), "{} {}", entry.name, arg.get_id());
            }
        }
    }

    #[test]
    fn switches_take_values_and_the_last_one_counts() {
        let (_, matches, _) = parsed("hoist up --detach=false -d=true --build=true");
        assert!(matches.get_flag("detach"));
        let (_, matches, _) = parsed("hoist down --volumes=false");
        assert!(!matches.get_flag("volumes"));
        let (_, _, globals) = parsed("hoist -p a -p b ps");
        assert_eq!(globals.project_name.as_deref(), Some("b"));
    }

    #[test]
    fn dry_run_may_follow_the_verb_but_not_the_command_of_exec() {
        assert!(parsed("hoist up --dry-run").2.dry_run);
        assert!(parsed("hoist --dry-run up").2.dry_run);
        assert!(!parsed("hoist exec web make --dry-run").2.dry_run);
    }

    #[test]
    fn other_flags_before_the_verb_stay_there() {
        assert!(parse(words("hoist up --profile x"), "hoist").is_err());
    }

    #[test]
    fn the_ways_of_being_called() {
        for (line, name, rest) in [
            ("hoist up", "hoist", "hoist up"),
            ("/usr/bin/docker-compose up", "docker-compose", "/usr/bin/docker-compose up"),
            ("/x/docker-compose compose up", "docker compose", "/x/docker-compose up"),
            ("/x/docker-compose -H tcp://h compose up", "docker compose", "/x/docker-compose -H tcp://h up"),
            ("hoist compose compose", "hoist", "hoist compose"),
            ("hoist exec web compose", "hoist", "hoist exec web compose"),
        ] {
            let invocation = invocation(words(line));
            assert_eq!((invocation.name, invocation.argv), (name, words(rest)), "{line}");
        }
    }
}
