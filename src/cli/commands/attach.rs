//! `attach`.

use hoist::ops;

use super::super::attached::{self, Connection, DetachKeys};
use super::super::session::{self, NO_LOGS, Need};
use super::translate;
use super::{Exit, Settings, Verb};

/// Connect to the main process of a service
///
/// What it prints from now on is shown, and what is typed goes to it. The exit
/// code is the container's. ctrl-p ctrl-q ends the connection and leaves it
/// running.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which service
    #[arg(value_name = "SERVICE")]
    service: String,
    /// Keys that end the connection, such as ctrl-a,x
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<DetachKeys>,
    /// Which replica of the service [default: the first]
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    index: u32,
    /// Do not connect stdin
    #[arg(long)]
    no_stdin: bool,
    /// Pass signals on to it (--sig-proxy=false does not)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = super::super::args::go_bool, value_name = "BOOL")]
    sig_proxy: Option<bool>,
}

impl Verb for Args {
    fn run(self, settings: Settings) -> anyhow::Result<Exit> {
        session::run(&settings, Need::Name, NO_LOGS, async |session| {
            let index = translate::index(self.index);
            let (process, tty) = ops::attach(&session.context, &self.service, index, !self.no_stdin).await?;
            let connection = Connection {
                tty,
                stdin: !self.no_stdin,
                forward_signals: self.sig_proxy.unwrap_or(true),
                detach: self.detach_keys.unwrap_or_default(),
            };
            let interrupted = session.context.interrupt.first.clone();
            tokio::select! {
                ended = attached::pump(process, connection, session.signals) => Ok(ended?.into()),
                () = interrupted.cancelled() => Ok(Exit::Interrupted),
            }
        })
    }
}
