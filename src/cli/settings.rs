//! argv and environment → settled settings, which nobody interprets again.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::PathBuf;

use anyhow::{Context as _, bail};

use hoist::engine::docker::DockerAddress;

use super::args::GlobalArgs;
use super::render::view::Progress;

/// What runs the containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EngineChoice {
    /// Our own runtime.
    Builtin,
    /// A Docker Engine.
    Docker,
}

/// Which standard streams are terminals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Terminal {
    /// Standard input.
    pub(crate) stdin: bool,
    /// Standard output.
    pub(crate) stdout: bool,
    /// Standard error.
    pub(crate) stderr: bool,
}

impl Terminal {
    /// As it is.
    pub(crate) fn detect() -> Self {
        Self {
            stdin: std::io::stdin().is_terminal(),
            stdout: std::io::stdout().is_terminal(),
            stderr: std::io::stderr().is_terminal(),
        }
    }
}

/// When colours are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ansi {
    Never,
    Always,
    Auto,
}

/// Everything that is decided before a verb runs.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches of the command line")]
pub(crate) struct Settings {
    /// What runs the containers.
    pub(crate) engine: EngineChoice,
    /// Where the built-in runtime keeps its files; none is the usual place.
    pub(crate) root: Option<PathBuf>,
    /// Compose files as given; empty means they are looked for.
    pub(crate) files: Vec<String>,
    /// `-p`.
    pub(crate) project_name: Option<String>,
    /// `--project-directory`.
    pub(crate) project_directory: Option<PathBuf>,
    /// `--profile`.
    pub(crate) profiles: Vec<String>,
    /// `--env-file`; empty means `.env`.
    pub(crate) env_files: Vec<PathBuf>,
    /// Which Docker Engine, if one is used.
    pub(crate) docker: DockerAddress,
    /// Keep what no service uses.
    pub(crate) all_resources: bool,
    /// Container names with `_`.
    pub(crate) compatibility: bool,
    /// Change nothing.
    pub(crate) dry_run: bool,
    /// Most engine calls at once; none is no limit.
    pub(crate) parallel: Option<usize>,
    /// How progress is shown.
    pub(crate) progress: Progress,
    /// Colour what goes to stdout (log prefixes).
    pub(crate) color_stdout: bool,
    /// Colour what goes to stderr (progress, diagnostics).
    pub(crate) color_stderr: bool,
    terminal: Terminal,
    environment: BTreeMap<String, String>,
}

impl Settings {
    /// Decides everything. `environment` is the process's own, with the
    /// `COMPOSE_*` variables of `.env` added by the caller.
    ///
    /// # Errors
    /// About flags and variables whose value makes no sense, by name.
    pub(crate) fn new(
        args: GlobalArgs,
        environment: BTreeMap<String, String>,
        terminal: Terminal,
    ) -> anyhow::Result<Self> {
        let var = |name: &str| environment.get(name).map(String::as_str).filter(|v| !v.is_empty());
        if !args.insecure_registry.is_empty() {
            bail!(
                "`--insecure-registry` is not available: hoist does not load compose files from registries"
            );
        }
        let engine = match args.engine.as_deref().or(var("HOIST_ENGINE")) {
            None | Some("builtin") => EngineChoice::Builtin,
            Some("docker") => EngineChoice::Docker,
            Some(other) => bail!("unknown engine `{other}`: it should be builtin or docker"),
        };
        for (flag, given) in [("--host", args.host.is_some()), ("--context", args.context.is_some())] {
            if given && engine == EngineChoice::Builtin {
                bail!(
                    "`{flag}` has no effect on the built-in engine, which runs containers here: use --engine docker with it"
                );
            }
        }
        let docker = DockerAddress {
            host: args.host.or_else(|| var("DOCKER_HOST").map(str::to_owned)),
            context: args.context.or_else(|| var("DOCKER_CONTEXT").map(str::to_owned)),
            tls_verify: var("DOCKER_TLS_VERIFY").is_some(),
            config_dir: var("DOCKER_CONFIG")
                .map(PathBuf::from)
                .or_else(|| var("HOME").map(|home| PathBuf::from(home).join(".docker"))),
        };
        if args.no_ansi && args.ansi.as_deref().is_some_and(|ansi| ansi != "auto") {
            bail!("cannot specify --no-ansi and --ansi together: --no-ansi is the old form of --ansi never");
        }
        let ansi = match args.ansi.as_deref().or(var("COMPOSE_ANSI")) {
            None | Some("auto") if !args.no_ansi => Ansi::Auto,
            Some("always") if !args.no_ansi => Ansi::Always,
            // Unknown words behave as never, as the peer's do.
            _ => Ansi::Never,
        };
        if args.workdir.is_some() && args.project_directory.is_some() {
            bail!("cannot specify --workdir and --project-directory together: they mean the same");
        }
        let no_color = var("NO_COLOR").is_some();
        let color = |is_terminal: bool| match ansi {
            _ if no_color || ansi == Ansi::Never => false,
            Ansi::Always => true,
            _ => is_terminal,
        };
        let parallel = match (args.parallel, var("COMPOSE_PARALLEL_LIMIT")) {
            (Some(n), _) => usize::try_from(n).ok().filter(|n| *n > 0),
            (None, Some(word)) => match word.trim().parse::<i64>() {
                Ok(n) => usize::try_from(n).ok().filter(|n| *n > 0),
                Err(_) => bail!("COMPOSE_PARALLEL_LIMIT must be an integer (found: `{word}`)"),
            },
            (None, None) => None,
        };
        Ok(Self {
            engine,
            docker,
            root: var("HOIST_ROOT").map(PathBuf::from),
            files: args.file,
            project_name: args.project_name.filter(|name| !name.is_empty()),
            project_directory: args.project_directory.or(args.workdir),
            profiles: args.profile,
            env_files: if args.env_file.is_empty() {
                var("COMPOSE_ENV_FILES")
                    .map(|list| list.split(',').map(PathBuf::from).collect())
                    .unwrap_or_default()
            } else {
                args.env_file
            },
            all_resources: args.all_resources,
            compatibility: args.compatibility || var("COMPOSE_COMPATIBILITY").is_some_and(truthy),
            dry_run: args.dry_run,
            parallel,
            progress: progress(args.progress.as_deref().or(var("COMPOSE_PROGRESS")), ansi, terminal)?,
            color_stdout: color(terminal.stdout),
            color_stderr: color(terminal.stderr),
            terminal,
            environment,
        })
    }

    /// Which standard streams are terminals.
    pub(crate) fn terminal(&self) -> Terminal {
        self.terminal
    }

    /// The environment of this process.
    pub(crate) fn environment(&self) -> &BTreeMap<String, String> {
        &self.environment
    }

    /// `--remove-orphans`, or its variable.
    pub(crate) fn remove_orphans(&self, flag: bool) -> bool {
        flag || self.switch("COMPOSE_REMOVE_ORPHANS")
    }

    /// Whether orphans are not to be mentioned.
    pub(crate) fn ignore_orphans(&self) -> bool {
        self.switch("COMPOSE_IGNORE_ORPHANS")
    }

    /// The variables that a file of variables defines, for `--env-from-file`.
    ///
    /// # Errors
    /// With the file's name when it cannot be read or understood.
    pub(crate) fn read_env_file(&self, path: &str) -> anyhow::Result<Vec<(String, Option<String>)>> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read `{path}`"))?;
        let variables = hoist::compose::dotenv::parse(&text, &|name| self.environment.get(name).cloned())
            .with_context(|| format!("cannot understand `{path}`"))?;
        Ok(variables.values.into_iter().map(|(key, value)| (key, Some(value))).collect())
    }

    /// A variable that is set to something.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A format that the user has chosen for all lists of a kind in Docker's `config.json`:
    /// `psFormat`, `statsFormat`. A file that cannot be read or understood chooses nothing.
    pub(crate) fn docker_format(&self, key: &str) -> Option<String> {
        let path = self.docker.config_dir.as_ref()?.join("config.json");
        let config: serde_json::Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        config.get(key)?.as_str().filter(|format| !format.is_empty()).map(str::to_owned)
    }

    fn switch(&self, name: &str) -> bool {
        self.environment.get(name).is_some_and(|word| truthy(word))
    }
}

/// 1, t, true, y in any case are true, everything else is false.
fn truthy(word: &str) -> bool {
    matches!(word.trim().to_ascii_lowercase().as_str(), "1" | "t" | "true" | "y")
}

fn progress(word: Option<&str>, ansi: Ansi, terminal: Terminal) -> anyhow::Result<Progress> {
    Ok(match word {
        None | Some("auto") if terminal.stderr && ansi != Ansi::Never => Progress::Tty,
        Some("tty") if ansi == Ansi::Never => {
            bail!("can't use --progress tty while ANSI support is disabled")
        }
        Some("tty") => Progress::Tty,
        Some("plain") if ansi == Ansi::Always => {
            bail!("can't use --progress plain while ANSI support is forced")
        }
        None | Some("auto" | "plain") => Progress::Plain,
        Some("json") => Progress::Json,
        Some("quiet" | "none") => Progress::Quiet,
        Some(other) => {
            bail!("unsupported --progress value `{other}`: it should be auto, tty, plain, json or quiet")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(args: GlobalArgs, env: &[(&str, &str)], terminal: Terminal) -> anyhow::Result<Settings> {
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Settings::new(args, env, terminal)
    }

    const SCREEN: Terminal = Terminal { stdin: true, stdout: true, stderr: true };

    #[test]
    fn a_terminal_gets_a_tree_and_a_pipe_lines() {
        let progress =
            |args, env: &[(&str, &str)], terminal| settled(args, env, terminal).map(|s| s.progress).ok();
        let none = GlobalArgs::default;
        assert_eq!(progress(none(), &[], SCREEN), Some(Progress::Tty));
        assert_eq!(progress(none(), &[], Terminal::default()), Some(Progress::Plain));
        assert_eq!(progress(none(), &[("COMPOSE_ANSI", "never")], SCREEN), Some(Progress::Plain));
        assert_eq!(progress(none(), &[("COMPOSE_PROGRESS", "none")], SCREEN), Some(Progress::Quiet));
        assert_eq!(progress(none(), &[("NO_COLOR", "1")], SCREEN), Some(Progress::Tty));
        assert_eq!(progress(none(), &[("COMPOSE_PROGRESS", "bright")], SCREEN), None);
        let both =
            GlobalArgs { ansi: Some("never".into()), progress: Some("tty".into()), ..GlobalArgs::default() };
        assert_eq!(progress(both, &[], SCREEN), None);
    }

    #[test]
    fn colours_follow_the_stream_unless_told() {
        let colors = |ansi: Option<&str>, env: &[(&str, &str)], terminal| {
            let args = GlobalArgs { ansi: ansi.map(Into::into), ..GlobalArgs::default() };
            settled(args, env, terminal).map(|s| (s.color_stdout, s.color_stderr)).expect("settled")
        };
        assert_eq!(colors(None, &[], Terminal { stdout: false, ..SCREEN }), (false, true));
        assert_eq!(colors(Some("always"), &[], Terminal::default()), (true, true));
        assert_eq!(colors(Some("never"), &[], SCREEN), (false, false));
        assert_eq!(colors(Some("sometimes"), &[], SCREEN), (false, false));
        assert_eq!(colors(Some("always"), &[("NO_COLOR", "1")], SCREEN), (false, false));
    }

    #[test]
    fn variables_are_defaults_of_flags() {
        let args = GlobalArgs { parallel: Some(3), ..GlobalArgs::default() };
        let env = [("COMPOSE_PARALLEL_LIMIT", "5"), ("HOIST_ENGINE", "docker")];
        let settings = settled(args, &env, SCREEN).expect("settled");
        assert_eq!((settings.parallel, settings.engine), (Some(3), EngineChoice::Docker));
        assert!(settled(GlobalArgs::default(), &[("COMPOSE_PARALLEL_LIMIT", "x")], SCREEN).is_err());
        let args = GlobalArgs { no_ansi: true, ansi: Some("always".into()), ..GlobalArgs::default() };
        assert!(settled(args, &[], SCREEN).is_err());
    }
}
