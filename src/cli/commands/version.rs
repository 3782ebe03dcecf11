//! `version`.

use anyhow::bail;

use super::super::render::out;
use super::{Exit, Settings, Verb};

/// Show the version of hoist
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// pretty or json
    #[arg(long, short, value_name = "FORMAT", default_value = "pretty")]
    format: String,
    /// Show the number only
    #[arg(long)]
    short: bool,
}

impl Verb for Args {
    fn run(self, _settings: Settings) -> anyhow::Result<Exit> {
        let number = env!("CARGO_PKG_VERSION");
        let text = match self.format.as_str() {
            _ if self.short => format!("{number}\n"),
            "pretty" | "" => format!("hoist version v{number}\n"),
            "json" => format!("{{\"version\":\"v{number}\"}}\n"),
            other => bail!("unknown format `{other}`: it should be pretty or json"),
        };
        out::print(&text)?;
        Ok(Exit::Success)
    }
}
