//! `logs`.

use anyhow::{Context as _, bail};
use hoist::ops::{self, LogsOptions};
use jiff::Timestamp;

use super::super::render::logs::Style;
use super::super::session::{self, Need};
use super::translate;
use super::{Exit, Settings, Verb};

/// Show the output of containers
///
/// Stopped containers are included. All output goes to stdout, each line after
/// the name of its container.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(crate) struct Args {
    /// Only these services
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Go on with what is printed from now on
    #[arg(long, short)]
    follow: bool,
    /// text, or json: one object per line, with container, stream, time and line
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    format: String,
    /// Only this replica of the service
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    index: u32,
    /// Do not colour the output
    #[arg(long)]
    no_color: bool,
    /// Do not put the container's name before each line
    #[arg(long)]
    no_log_prefix: bool,
    /// Not before this time (2026-01-31T12:00:00Z) or duration ago (42m)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Not after this time or duration ago
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only the last lines of each container
    #[arg(long, short = 'n', value_name = "LINES", allow_negative_numbers = true)]
    tail: Option<String>,
    /// Put the time before each line
    #[arg(long, short)]
    timestamps: bool,
}

impl Args {
    fn options(&self, now: Timestamp) -> anyhow::Result<LogsOptions> {
        if self.index > 0 && self.services.len() != 1 {
            bail!("--index requires one service to be selected");
        }
        let moment = |word: &Option<String>| word.as_deref().map(|w| translate::moment(w, now)).transpose();
        Ok(LogsOptions {
            services: self.services.clone(),
            follow: self.follow,
            tail: match self.tail.as_deref() {
                None | Some("all" | "") => None,
                Some(word) => match word.parse::<i64>() {
                    // Docker takes a negative number as “all”.
                    Ok(n) => usize::try_from(n).ok(),
                    Err(_) => bail!("invalid --tail option `{word}`: it should be a number or all"),
                },
            },
            since: moment(&self.since).context("--since")?,
            until: moment(&self.until).context("--until")?,
            index: translate::index(self.index),
        })
    }
}

impl Verb for Args {
    fn run(self, settings: Settings) -> anyhow::Result<Exit> {
        let options = self.options(Timestamp::now())?;
        let style = Style {
            color: settings.color_stdout && !self.no_color,
            prefix: !self.no_log_prefix,
            timestamps: self.timestamps,
            one_stream: true,
            json: self.format == "json",
        };
        session::run(&settings, Need::ProjectOrName(&options.services), style, async |session| {
            ops::logs(&session.context, &options, &session.events).await?;
            Ok(Exit::Success)
        })
    }
}
