//! `export`.

use std::io::{IsTerminal as _, Write};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use futures_util::StreamExt as _;
use hoist::ops::{self, Exported};

use super::super::output::OutputFile;
use super::super::render::out;
use super::super::session::{self, NO_LOGS, Need};
use super::{Exit, Settings, Verb};

/// Write the file system of a service's container as a tar archive
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Service
    service: String,
    /// Which container of the service; 0 is any
    #[arg(long, default_value_t = 0)]
    index: u32,
    /// File; standard output if not given
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Verb for Args {
    fn run(self, settings: Settings) -> anyhow::Result<Exit> {
        if self.output.is_none() && std::io::stdout().is_terminal() {
            bail!("cowardly refusing to write an archive to a terminal; use `-o FILE` or redirect");
        }
        let index = Some(self.index).filter(|index| *index > 0);
        session::run(&settings, Need::Name, NO_LOGS, async |session| {
            let exported = ops::export(&session.context, &self.service, index).await?;
            match &self.output {
                None => copy(exported, &mut out::Stream::Out).await?,
                Some(path) => {
                    // Nobody else is to read what is inside.
                    let mut output = OutputFile::create(path, 0o600)?;
                    tokio::select! {
                        written = copy(exported, output.file()) => written?,
                        () = session.context.interrupt.first.cancelled() => {
                            return Err(ops::OpsError::Interrupted.into());
                        }
                    }
                    output.finish()?;
                }
            }
            Ok(Exit::Success)
        })
    }
}

async fn copy(mut exported: Exported, out: &mut impl Write) -> anyhow::Result<()> {
    while let Some(piece) = exported.tar.next().await {
        out.write_all(&piece?).context("cannot write the archive")?;
    }
    Ok(())
}
