//! `man`.

use std::path::PathBuf;

use anyhow::Context as _;

use super::super::args;
use super::{Exit, Settings, Verb};

/// Write the manual pages into a directory
///
/// One page for hoist and one for each command, from the same definitions as `--help`. To install them:
/// `hoist man /usr/local/share/man/man1`; to read one: `man ./DIR/hoist-up.1`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to; made if it is missing
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl Verb for Args {
    fn run(self, _settings: Settings) -> anyhow::Result<Exit> {
        let directory = &self.directory;
        let shown = directory.display();
        std::fs::create_dir_all(directory).with_context(|| format!("cannot make the directory `{shown}`"))?;
        clap_mangen::generate_to(args::root("hoist"), directory)
            .with_context(|| format!("cannot write the manual pages into `{shown}`"))?;
        Ok(Exit::Success)
    }
}
