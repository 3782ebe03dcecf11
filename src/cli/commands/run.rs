//! `run`.

use anyhow::{Context as _, bail};
use hoist::ops::{self, BuildPolicy, ConvergeOptions, RunOptions, Started};

use super::super::attached::{self, Connection};
use super::super::load;
use super::super::render::{out, view::Progress};
use super::super::session::{self, NO_LOGS, Need};
use super::translate;
use super::{Exit, Settings, Verb};

/// Run a command in a new container of a service
///
/// The container has the service's configuration, but its ports are not
/// published unless -P or -p is given. Dependencies are started first. The
/// exit code is the command's own.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
#[command(override_usage = "hoist run [OPTIONS] SERVICE [COMMAND] [ARGS...]")]
pub(crate) struct Args {
    /// The service, and the command instead of its own
    #[arg(
        required = true,
        num_args = 1..,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_names = ["SERVICE", "COMMAND"]
    )]
    words: Vec<String>,
    /// Build the image first
    #[arg(long)]
    build: bool,
    /// Add a capability
    #[arg(long, value_name = "CAP")]
    cap_add: Vec<String>,
    /// Drop a capability
    #[arg(long, value_name = "CAP")]
    cap_drop: Vec<String>,
    /// Leave it running in the background and print the container's id
    #[arg(long, short)]
    detach: bool,
    /// Instead of the image's entrypoint; empty for none
    #[arg(long, value_name = "WORDS")]
    entrypoint: Option<String>,
    /// Set a variable, as K=V, or as K to pass ours on
    #[arg(long, short, value_name = "K=V")]
    env: Vec<String>,
    /// Set the variables in this file
    #[arg(long, value_name = "FILE")]
    env_from_file: Vec<String>,
    /// Keep stdin open (--interactive=false closes it)
    #[arg(long, short, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = super::super::args::go_bool, value_name = "BOOL")]
    interactive: Option<bool>,
    /// Add a label, as K=V
    #[arg(long, short, value_name = "K=V", alias = "labels")]
    label: Vec<String>,
    /// Name of the container
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Do not start dependencies
    #[arg(long)]
    no_deps: bool,
    /// Do not give it a terminal [default: give one when stdin and stdout are terminals]
    #[arg(long, short = 'T', alias = "no-TTY", conflicts_with = "tty")]
    no_tty: bool,
    /// Publish a port, as [HOST:]CONTAINER
    #[arg(long, short, value_name = "PORT", conflicts_with = "service_ports")]
    publish: Vec<String>,
    /// When to pull images: always, missing, never or build
    #[arg(long, value_name = "POLICY")]
    pull: Option<String>,
    /// No progress
    #[arg(long, short)]
    quiet: bool,
    /// No output of builds
    #[arg(long)]
    quiet_build: bool,
    /// No progress of pulls
    #[arg(long)]
    quiet_pull: bool,
    /// Remove containers of services that are not in the files
    #[arg(long)]
    remove_orphans: bool,
    /// Remove the container when it ends
    #[arg(long)]
    rm: bool,
    /// Publish the service's ports
    #[arg(long, short = 'P')]
    service_ports: bool,
    /// Give it a terminal
    #[arg(long, short, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = super::super::args::go_bool, value_name = "BOOL")]
    tty: Option<bool>,
    /// Let others find it under the service's names
    #[arg(long)]
    use_aliases: bool,
    /// Run it as this user: name or uid, with :group
    #[arg(long, short, value_name = "USER")]
    user: Option<String>,
    /// Mount something, as SOURCE:TARGET[:ro]
    #[arg(long, short, value_name = "MOUNT", alias = "volumes")]
    volume: Vec<String>,
    /// Run it in this directory of the container
    #[arg(long, short, value_name = "DIR")]
    workdir: Option<String>,
}

impl Args {
    fn options(&self, settings: &Settings) -> anyhow::Result<RunOptions> {
        let (service, command) = self.words.split_first().context("which service?")?;
        if service.starts_with('-') {
            bail!("unknown flag: {service}");
        }
        let terminal = settings.terminal();
        // Without a word about it, both ends must be terminals.
        let wants_tty = self.tty.unwrap_or(true) && !self.no_tty && terminal.stdout;
        let told = self.no_tty || self.tty.is_some() || self.interactive.is_some();
        let tty = wants_tty && (told || terminal.stdin);
        let mut env = Vec::new();
        for file in &self.env_from_file {
            env.extend(settings.read_env_file(file)?);
        }
        env.extend(translate::env_pairs(&self.env, settings.environment()));
        let (publish, volumes) = load::ports_and_mounts(settings, &self.publish, &self.volume)?;
        Ok(RunOptions {
            service: service.clone(),
            command: command.to_vec(),
            entrypoint: self.entrypoint.as_deref().map(split_words).transpose()?,
            env,
            labels: translate::labels(&self.label)?,
            name: self.name.clone(),
            user: self.user.clone(),
            working_dir: self.workdir.clone(),
            cap_add: self.cap_add.clone(),
            cap_drop: self.cap_drop.clone(),
            volumes,
            publish,
            service_ports: self.service_ports,
            use_aliases: self.use_aliases,
            tty,
            interactive: !self.detach && self.interactive != Some(false),
            detach: self.detach,
            remove: self.rm,
            converge: ConvergeOptions {
                no_deps: self.no_deps,
                remove_orphans: self.remove_orphans,
                ignore_orphans: settings.ignore_orphans(),
                pull: translate::pull_policy(self.pull.as_deref())?,
                quiet_pull: self.quiet_pull || self.quiet,
                build: if self.build { BuildPolicy::Always } else { BuildPolicy::Missing },
                ..ConvergeOptions::default()
            },
        })
    }
}

impl Verb for Args {
    fn run(self, mut settings: Settings) -> anyhow::Result<Exit> {
        let options = self.options(&settings)?;
        if self.quiet {
            settings.progress = Progress::Quiet;
        }
        session::run(
            &settings,
            Need::Model(std::slice::from_ref(&options.service)),
            NO_LOGS,
            async |session| match ops::run(&session.context, &options, &session.events).await? {
                Started::Detached(id) => {
                    out::print(&format!("{id}\n"))?;
                    Ok(Exit::Success)
                }
                Started::Attached(process) => Ok(attached::pump(
                    process,
                    Connection::new(options.tty, options.interactive),
                    session.signals,
                )
                .await?
                .into()),
            },
        )
    }
}

/// Splits a line into words as a shell does: blanks, quotes, backslashes; nothing is expanded.
fn split_words(line: &str) -> anyhow::Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' => words.extend(word.take()),
            '\\' => word.get_or_insert_default().push(chars.next().context("a backslash ends the line")?),
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().with_context(|| format!("the quote {c} is not closed"))? {
                        end if end == c => break,
                        '\\' if c == '"' => {
                            let next = chars.next().context("a backslash ends the line")?;
                            if !matches!(next, '"' | '\\' | '$' | '`') {
                                word.push('\\');
                            }
                            word.push(next);
                        }
                        other => word.push(other),
                    }
                }
            }
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_like_a_shell() {
        let split = |line| split_words(line).expect(line);
        assert_eq!(
            split("sh -c 'echo  a' \"b \\\" c\" d\\ e ''"),
            ["sh", "-c", "echo  a", "b \" c", "d e", ""]
        );
        assert!(split("").is_empty());
        assert!(split_words("'a").is_err());
    }
}
