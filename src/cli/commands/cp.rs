//! `cp`.

use std::path::PathBuf;

use hoist::ops::{self, CopyOptions, Pipes, Place};

use super::super::render::out;
use super::super::session::{self, NO_LOGS, Need};
use super::translate;
use super::{Exit, Settings, Verb};

/// Copy files between this machine and containers of a service
///
/// Works on stopped containers, too. `SERVICE:PATH` is a path in the service's containers: the first one to
/// copy from, all of them to copy to, unless --index says which. `-` is a tar archive on stdin or stdout.
///
/// A directory that exists at the destination gets the source under its own name; `SRC/.` stands for what
/// is in a directory. Files keep their numeric owner inside; what is copied out is yours.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "hoist cp [OPTIONS] SERVICE:SRC_PATH DEST_PATH|-\n       hoist cp [OPTIONS] SRC_PATH|- SERVICE:DEST_PATH"
)]
pub(crate) struct Args {
    /// What to copy: PATH, SERVICE:PATH, or - for an archive on stdin
    #[arg(value_name = "SOURCE", allow_hyphen_values = true)]
    source: String,
    /// Where to: PATH, SERVICE:PATH, or - for an archive on stdout
    #[arg(value_name = "DESTINATION", allow_hyphen_values = true)]
    destination: String,
    /// One-off containers made by `run`, too
    #[arg(long)]
    all: bool,
    /// What is copied in belongs to the container's user
    #[arg(long, short)]
    archive: bool,
    /// Copy what a link points to instead of the link
    #[arg(long, short = 'L')]
    follow_link: bool,
    /// Which replica of the service
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    index: u32,
}

/// `SERVICE:PATH`, `-`, or a path; a path with a colon is told by a leading `/` or `.`.
fn place(word: &str) -> Place {
    if word == "-" {
        return Place::Stream;
    }
    match word.split_once(':') {
        Some((service, path)) if !word.starts_with(['/', '.']) => {
            Place::Service { service: service.to_owned(), path: path.to_owned() }
        }
        _ => Place::Local(PathBuf::from(word)),
    }
}

impl Verb for Args {
    fn run(self, settings: Settings) -> anyhow::Result<Exit> {
        let options = CopyOptions {
            source: place(&self.source),
            destination: place(&self.destination),
            index: translate::index(self.index),
            all: self.all,
            archive: self.archive,
            follow_link: self.follow_link,
            dry_run: settings.dry_run,
        };
        if options.destination == Place::Stream && settings.terminal().stdout {
            anyhow::bail!("an archive is not for a terminal: redirect stdout to a file or a pipe");
        }
        let pipes =
            Pipes { input: Some(Box::new(std::io::stdin())), output: Some(Box::new(out::Stream::Out)) };
        session::run(&settings, Need::Name, NO_LOGS, async |session| {
            ops::cp(&session.context, &options, pipes, &session.events).await?;
            Ok(Exit::Success)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_colon_makes_a_service_unless_a_path_is_plainly_meant() {
        let service =
            |service: &str, path: &str| Place::Service { service: service.into(), path: path.into() };
        assert_eq!(place("web:/etc"), service("web", "/etc"));
        assert_eq!(place("web:a:b"), service("web", "a:b"));
        assert_eq!(place("./web:x"), Place::Local(Path::new("./web:x").into()));
        assert_eq!(place("/a:b"), Place::Local(Path::new("/a:b").into()));
        assert_eq!(place("-"), Place::Stream);
    }
}
