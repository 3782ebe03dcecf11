//! The verbs: arguments, translation, one call into `ops`, and what is shown of the answer.

use clap::{Args, FromArgMatches};

use super::args::Entry;
use super::exit::Exit;
use super::settings::Settings;

mod attach;
mod build;
mod builder;
mod commit;
mod completion;
mod config;
mod cp;
mod create;
mod down;
mod events;
mod exec;
mod export;
mod image;
mod images;
mod kill;
mod login;
mod logs;
mod ls;
mod man;
mod pause;
mod plan;
mod port;
mod ps;
mod pull;
mod push;
mod restart;
mod rm;
mod run;
mod scale;
mod schema;
mod start;
mod stats;
mod stop;
mod system;
mod top;
mod translate;
mod up;
mod version;
mod volume;
mod volumes;
mod wait;
mod watch;

/// A verb's arguments, which know how to carry themselves out.
pub(crate) trait Verb: Args + FromArgMatches {
    /// Does it. What it answers is the exit code; errors are printed by the caller.
    fn run(self, settings: Settings) -> anyhow::Result<Exit>;
}

/// All verbs, in the order of the help.
pub(crate) const ALL: &[Entry] = &[
    Entry::of::<attach::Args>("attach", "Connect to the main process of a service"),
    Entry::of::<build::Args>("build", "Build the images of services"),
    Entry::of::<builder::Args>("builder", "Manage the build cache of the built-in runtime"),
    Entry::of::<commit::Args>("commit", "Make an image of a service's container"),
    Entry::of::<completion::Args>("completion", "Print the completion script of a shell").dry_run(),
    Entry::of::<config::Args>("config", "Print the compose files as they are understood")
        .aliases(&["convert"])
        .dry_run(),
    Entry::of::<cp::Args>("cp", "Copy files between this machine and containers of a service").dry_run(),
    Entry::of::<create::Args>("create", "Create containers without starting them").dry_run(),
    Entry::of::<down::Args>("down", "Stop and remove containers and networks").dry_run(),
    Entry::of::<events::Args>("events", "Follow what happens to the containers").dry_run(),
    Entry::of::<exec::Args>("exec", "Run a command in a running container"),
    Entry::of::<export::Args>("export", "Write the file system of a service's container as a tar archive"),
    Entry::of::<image::Args>("image", "Manage the images of the built-in runtime"),
    Entry::of::<images::Args>("images", "List the images that the containers use").dry_run(),
    Entry::of::<kill::Args>("kill", "Send a signal to containers, SIGKILL unless told otherwise").dry_run(),
    Entry::of::<login::Login>("login", "Log in to a registry"),
    Entry::of::<login::Logout>("logout", "Forget the login of a registry"),
    Entry::of::<logs::Args>("logs", "Show the output of containers").dry_run(),
    Entry::of::<ls::Args>("ls", "List projects").dry_run(),
    Entry::of::<man::Args>("man", "Write the manual pages into a directory"),
    Entry::of::<pause::Pause>("pause", "Freeze all processes of services").dry_run(),
    Entry::of::<plan::Plan>("plan", "Show what `up` would do, and why").dry_run(),
    Entry::of::<port::Args>("port", "Show where a port of a service is published").dry_run(),
    Entry::of::<ps::Args>("ps", "List containers").dry_run(),
    Entry::of::<pull::Args>("pull", "Fetch the images of services"),
    Entry::of::<push::Args>("push", "Send the images of services to their registries"),
    Entry::of::<restart::Args>("restart", "Restart containers as they are").dry_run(),
    Entry::of::<rm::Args>("rm", "Remove stopped containers").dry_run(),
    Entry::of::<run::Args>("run", "Run a command in a new container of a service"),
    Entry::of::<scale::Args>("scale", "Set how many containers services have"),
    Entry::of::<schema::Args>("schema", "Print a JSON Schema of compose files, or of what hoist prints")
        .dry_run(),
    Entry::of::<start::Args>("start", "Start existing containers").dry_run(),
    Entry::of::<stats::Args>("stats", "Show how much processor, memory, network and disk containers use")
        .dry_run(),
    Entry::of::<stop::Args>("stop", "Stop containers without removing them").dry_run(),
    Entry::of::<system::Args>("system", "Show and clean up what the built-in runtime has on the disk"),
    Entry::of::<top::Args>("top", "Show the running processes of services").dry_run(),
    Entry::of::<pause::Unpause>("unpause", "Let frozen services go on").dry_run(),
    Entry::of::<up::Args>("up", "Create and start containers, and follow their output").dry_run(),
    Entry::of::<version::Args>("version", "Show the version of hoist").dry_run(),
    Entry::of::<volume::Args>("volume", "Manage the volumes of the built-in runtime"),
    Entry::of::<volumes::Args>("volumes", "List the volumes of the project").dry_run(),
    Entry::of::<wait::Args>("wait", "Wait until services have stopped"),
    Entry::of::<watch::Args>(
        "watch",
        "Bring changes of source files into the containers, by the rules of `develop.watch`",
    ),
];

/// The verb of that name.
pub(crate) fn find(name: &str) -> Option<&'static Entry> {
    ALL.iter().find(|entry| entry.name == name)
}

/// Verbs that Docker Compose has and hoist cannot carry out yet, with the reason and the way round.
pub(crate) const NOT_YET: &[(&str, &str)] = &[
    ("alpha", "the experimental verbs are not part of hoist"),
    ("bridge", "the transformers are images of Docker Inc. that need its engine"),
    ("publish", "hoist cannot publish a compose application yet"),
];
