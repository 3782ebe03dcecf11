//! `commit`.

use hoist::ops;
use hoist::spec::CommitSpec;

use super::super::session::{self, NO_LOGS, Need};
use super::{Exit, Settings, Verb};

/// Make an image of a service's container
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Service
    service: String,
    /// Name of the image
    #[arg(value_name = "REPOSITORY[:TAG]")]
    reference: Option<String>,
    /// Who made it
    #[arg(long, short, value_name = "TEXT", default_value = "")]
    author: String,
    /// Apply a Dockerfile instruction to the image's config; may be repeated
    #[arg(long, short, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Which container of the service; 0 is any
    #[arg(long, default_value_t = 0)]
    index: u32,
    /// Remark in the image's history
    #[arg(long, short, value_name = "TEXT", default_value = "")]
    message: String,
    /// Freeze the container meanwhile; --pause=false lets it run
    #[arg(long, short, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = crate::cli::args::go_bool)]
    pause: bool,
}

impl Verb for Args {
    fn run(self, settings: Settings) -> anyhow::Result<Exit> {
        let index = Some(self.index).filter(|index| *index > 0);
        let spec = CommitSpec {
            reference: self.reference,
            author: self.author,
            message: self.message,
            changes: self.change,
            pause: self.pause,
        };
        session::run(&settings, Need::Name, NO_LOGS, async |session| {
            ops::commit(&session.context, &self.service, index, &spec, &session.events).await?;
            Ok(Exit::Success)
        })
    }
}
