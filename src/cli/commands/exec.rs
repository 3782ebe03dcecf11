//! `exec`.

use anyhow::{Context as _, bail};
use hoist::ops::{self, ExecOptions, Started};
use hoist::spec::ExecSpec;

use super::super::attached::{self, Connection};
use super::super::session::{self, NO_LOGS, Need};
use super::translate;
use super::{Exit, Settings, Verb};

/// Run a command in a running container
///
/// The command gets a terminal when stdout is one. The exit code is the
/// command's own; 126 and 127 mean that it could not be executed or found.
#[derive(Debug, clap::Args)]
#[command(override_usage = "hoist exec [OPTIONS] SERVICE COMMAND [ARGS...]")]
pub(crate) struct Args {
    /// The service, the command and its arguments
    #[arg(
        required = true,
        num_args = 2..,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_names = ["SERVICE", "COMMAND"]
    )]
    words: Vec<String>,
    /// Leave it running in the background
    #[arg(long, short)]
    detach: bool,
    /// Set a variable, as K=V, or as K to pass ours on
    #[arg(long, short, value_name = "K=V")]
    env: Vec<String>,
    /// Which replica of the service [default: the first]
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    index: u32,
    /// Keep stdin open
    #[arg(long, short, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = super::super::args::go_bool, value_name = "BOOL")]
    interactive: Option<bool>,
    /// Do not give it a terminal [default: give one when stdout is a terminal]
    #[arg(long, short = 'T', alias = "no-TTY")]
    no_tty: bool,
    /// Give it all capabilities
    #[arg(long)]
    privileged: bool,
    /// Give it a terminal
    #[arg(long, short, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = super::super::args::go_bool, value_name = "BOOL")]
    tty: Option<bool>,
    /// Run it as this user: name or uid, with :group
    #[arg(long, short, value_name = "USER")]
    user: Option<String>,
    /// Run it in this directory of the container
    #[arg(long, short, value_name = "DIR")]
    workdir: Option<String>,
}

impl Args {
    fn options(&self, settings: &Settings) -> anyhow::Result<ExecOptions> {
        let (service, command) = self.words.split_first().context("which service?")?;
        if service.starts_with('-') {
            bail!("unknown flag: {service}");
        }
        let terminal = settings.terminal();
        let tty = !self.no_tty && !self.detach && self.tty != Some(false) && terminal.stdout;
        Ok(ExecOptions {
            service: service.clone(),
            index: translate::index(self.index),
            spec: ExecSpec {
                command: command.to_vec(),
                env: translate::env_pairs(&self.env, settings.environment()),
                working_dir: self.workdir.clone(),
                user: self.user.clone(),
                tty,
                stdin: !self.detach && self.interactive != Some(false),
                privileged: self.privileged,
                detach: self.detach,
            },
        })
    }
}

impl Verb for Args {
    fn run(self, settings: Settings) -> anyhow::Result<Exit> {
        let options = self.options(&settings)?;
        session::run(&settings, Need::Name, NO_LOGS, async |session| {
            match ops::exec(&session.context, &options).await? {
                Started::Detached(_) => Ok(Exit::Success),
                Started::Attached(process) => {
                    let spec = &options.spec;
                    Ok(attached::pump(process, Connection::new(spec.tty, spec.stdin), session.signals)
                        .await?
                        .into())
                }
            }
        })
    }
}
