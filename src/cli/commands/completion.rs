//! `completion`.

use super::super::args;
use super::super::render::out;
use super::{Exit, Settings, Verb};

/// Print the completion script of a shell
///
/// For bash: `source <(hoist completion bash)`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// bash, zsh, fish, elvish or powershell
    #[arg(value_name = "SHELL")]
    shell: clap_complete::Shell,
}

impl Verb for Args {
    fn run(self, _settings: Settings) -> anyhow::Result<Exit> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut args::root("hoist"), "hoist", &mut script);
        out::write(&script)?;
        Ok(Exit::Success)
    }
}
