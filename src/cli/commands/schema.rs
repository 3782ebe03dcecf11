//! `schema`.

use hoist::compose::json_schema;

use super::super::render::out;
use super::{Exit, Settings, Verb};

/// Print a JSON Schema of compose files, or of what hoist prints
///
/// An editor with the YAML language server completes and checks compose files after
/// `hoist schema compose > compose.json` and a first line
/// `# yaml-language-server: $schema=compose.json`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Of what
    #[arg(value_name = "WHAT", value_enum)]
    what: What,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum What {
    /// Compose files
    Compose,
    /// `config --diagnostics json`
    Diagnostics,
    /// `config --explain --format json`
    Explain,
}

impl Verb for Args {
    fn run(self, _settings: Settings) -> anyhow::Result<Exit> {
        match self.what {
            What::Compose => out::print(&format!("{:#}\n", json_schema::compose()))?,
            What::Diagnostics => out::print(include_str!("../../../schemas/diagnostics.json"))?,
            What::Explain => out::print(include_str!("../../../schemas/explain.json"))?,
        }
        Ok(Exit::Success)
    }
}
