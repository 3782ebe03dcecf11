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
    /// `events --json`, each line
    Events,
    /// `config --explain --format json`
    Explain,
    /// `image history --format json`, each line
    ImageHistory,
    /// `image ls --format json`, each line
    ImageLs,
    /// `images --format json`
    Images,
    /// `logs --format json`, each line
    Logs,
    /// `ls --format json`
    Ls,
    /// `--progress json`, each line
    Progress,
    /// `ps --format json`, each line
    Ps,
    /// `stats --format json`, each line
    Stats,
    /// `system df --format json`, each line
    SystemDf,
    /// `version --format json`
    Version,
    /// `volume inspect`
    VolumeInspect,
    /// `volumes --format json` and `volume ls --format json`, each line
    Volumes,
}

impl Verb for Args {
    fn run(self, _settings: Settings) -> anyhow::Result<Exit> {
        let compose;
        out::print(match self.what {
            What::Compose => {
                compose = format!("{:#}\n", json_schema::compose());
                &compose
            }
            What::Diagnostics => include_str!("../../../schemas/diagnostics.json"),
            What::Events => include_str!("../../../schemas/events.json"),
            What::Explain => include_str!("../../../schemas/explain.json"),
            What::ImageHistory => include_str!("../../../schemas/image-history.json"),
            What::ImageLs => include_str!("../../../schemas/image-ls.json"),
            What::Images => include_str!("../../../schemas/images.json"),
            What::Logs => include_str!("../../../schemas/logs.json"),
            What::Ls => include_str!("../../../schemas/ls.json"),
            What::Progress => include_str!("../../../schemas/progress.json"),
            What::Ps => include_str!("../../../schemas/ps.json"),
            What::Stats => include_str!("../../../schemas/stats.json"),
            What::SystemDf => include_str!("../../../schemas/system-df.json"),
            What::Version => include_str!("../../../schemas/version.json"),
            What::VolumeInspect => include_str!("../../../schemas/volume-inspect.json"),
            What::Volumes => include_str!("../../../schemas/volumes.json"),
        })?;
        Ok(Exit::Success)
    }
}
