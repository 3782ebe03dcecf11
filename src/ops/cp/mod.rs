//! `cp`: files between this machine and the containers of a service.
//!
//! The engine gives and takes tar archives of single paths; what is meant by a
//! destination that exists or not, ends in a slash, or is a link, is decided
//! here, by `docker cp`'s rules.

mod local;

use std::path::{Path, PathBuf};

use futures_util::future::try_join_all;

pub(in crate::ops) use local::Packer;
use local::{Target, at};

use super::context::{Context, under_heading};
use super::events::{EventSender, ResourceKind};
use super::options::{CopyOptions, Place};
use super::progress::Progress;
use super::{OpsError, Result};
use crate::engine::{ArchiveSink, ArchiveSource, Engine, EngineError, PathKind, PathState};
use crate::plan::ObservedContainer;

/// How many links one path may lead through, as in the kernel.
const MAX_LINKS: usize = 40;

/// Why a copy failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// No side is in a service.
    #[error("unknown copy direction: one of the two must be SERVICE:PATH")]
    Direction,
    /// Both sides are.
    #[error("copying between services is not supported; copy to this machine first")]
    BetweenServices,
    /// The path inside the container is empty.
    #[error("the path inside the container is missing: SERVICE:PATH")]
    NoPath,
    /// An archive can be read once only.
    #[error("`-` can be copied into one container only, and there are {0}; choose one with --index")]
    StreamIntoMany(usize),
    /// A directory cannot become a file.
    #[error("`{from}` is a directory, and `{to}` is not")]
    DirectoryOntoFile {
        /// Source.
        from: String,
        /// Destination.
        to: String,
    },
    /// A path that ends in a slash, or a parent, is not there.
    #[error("the directory `{0}` does not exist")]
    NoDirectory(String),
    /// An archive is unpacked into directories only.
    #[error("`{0}` must be a directory to unpack an archive into it")]
    NotDirectory(String),
    /// A device or FIFO is no place for files.
    #[error("`{0}` is a device, FIFO or socket")]
    Special(String),
    /// A link leads to itself.
    #[error("`{0}` leads through too many links")]
    Links(String),
    /// The container's archive names something outside of the destination.
    #[error("the archive's entry `{}` leads out of the destination", .0.display())]
    Escapes(PathBuf),
    /// A step on a path of this machine.
    #[error("cannot {step} `{}`", path.display())]
    Local {
        /// The verb.
        step: &'static str,
        /// The path.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The archive between the two sides broke.
    #[error("the archive is broken")]
    Archive(#[source] std::io::Error),
    /// The engine's side.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Standard input and output, for `-`.
#[derive(Default)]
pub struct Pipes {
    /// An archive to unpack.
    pub input: Option<ArchiveSource>,
    /// Where an archive goes.
    pub output: Option<ArchiveSink>,
}

/// Copies files between this machine and containers of a service, running or not.
///
/// # Errors
/// [`OpsError::NoContainer`]; [`OpsError::Copy`] with the reason.
pub async fn cp(ctx: &Context, options: &CopyOptions, pipes: Pipes, events: &EventSender) -> Result<()> {
    let refuse = |source| {
        Err(OpsError::Copy { from: shown(&options.source), to: shown(&options.destination), source })
    };
    match (&options.source, &options.destination) {
        (Place::Service { .. }, Place::Service { .. }) => refuse(CopyError::BetweenServices),
        (Place::Service { path, .. }, _) | (_, Place::Service { path, .. }) if path.is_empty() => {
            refuse(CopyError::NoPath)
        }
        (Place::Service { service, path }, to) => {
            let container = containers(ctx, options, service).await?.swap_remove(0);
            let work = copy_out(&*ctx.engine, &container.state.id, path, to, options, pipes);
            reported(ctx, &container, options, events, work).await
        }
        (from, Place::Service { service, path }) => {
            let containers = containers(ctx, options, service).await?;
            if *from == Place::Stream && containers.len() > 1 {
                return refuse(CopyError::StreamIntoMany(containers.len()));
            }
            let mut input = pipes.input;
            let copies = containers.iter().map(|container| {
                let work = copy_in(&*ctx.engine, &container.state.id, from, path, options, input.take());
                reported(ctx, container, options, events, work)
            });
            try_join_all(copies).await.map(drop)
        }
        _ => refuse(CopyError::Direction),
    }
}

fn shown(place: &Place) -> String {
    match place {
        Place::Local(path) => format!("`{}`", path.display()),
        Place::Service { service, path } => format!("`{service}:{path}`"),
        Place::Stream => "-".into(),
    }
}

/// Shows the copy of one container as a line of progress, and names both sides when it fails.
async fn reported(
    ctx: &Context,
    container: &ObservedContainer,
    options: &CopyOptions,
    events: &EventSender,
    work: impl Future<Output = std::result::Result<(), CopyError>>,
) -> Result<()> {
    let name = &container.state.name;
    let side = |place: &Place| match place {
        Place::Local(path) => path.display().to_string(),
        Place::Service { path, .. } => format!("{name}:{path}"),
        Place::Stream => "-".into(),
    };
    let (from, to) = (side(&options.source), side(&options.destination));
    let line = Progress::new(ResourceKind::Container, name, "Copying", "Copied");
    under_heading(events, "copy", async {
        line.working(events).await;
        line.note(events, format!("{from} to {to}"));
        let copied = ctx.unless_interrupted(async {
            let quoted = |text: &str| if text == "-" { text.to_owned() } else { format!("`{text}`") };
            work.await.map_err(|source| OpsError::Copy { from: quoted(&from), to: quoted(&to), source })
        });
        copied.await?;
        line.done(events).await;
        Ok(())
    })
    .await
}

/// The containers that are meant; at least one.
async fn containers(ctx: &Context, options: &CopyOptions, service: &str) -> Result<Vec<ObservedContainer>> {
    let mut found = ctx.containers().await?;
    found.retain(|c| c.service == service && (options.all || !c.oneoff));
    if found.is_empty() {
        ctx.check_services([&service.to_owned()])?;
        return Err(OpsError::NoContainer { service: service.to_owned(), index: None });
    }
    if options.index.is_some() {
        found.retain(|c| c.number == options.index);
    }
    if found.is_empty() {
        return Err(OpsError::NoContainer { service: service.to_owned(), index: options.index });
    }
    Ok(found)
}

/// What is at the end of a path of a container.
struct Found {
    path: String,
    /// None when there is nothing.
    state: Option<PathState>,
}

/// Follows links at the end of a path.
async fn follow(engine: &dyn Engine, container: &str, path: &str) -> std::result::Result<Found, CopyError> {
    let mut at = path.to_owned();
    for _ in 0..MAX_LINKS {
        let state = engine.path_state(container, &at).await?;
        match &state {
            Some(PathState { kind: PathKind::Link, link: Some(target), .. }) => {
                let plain = at.trim_end_matches('/');
                at = match (target.starts_with('/'), plain.rsplit_once('/')) {
                    (true, _) | (false, None) => target.clone(),
                    (false, Some((parent, _))) => format!("{parent}/{target}"),
                };
            }
            _ => return Ok(Found { path: at, state }),
        }
    }
    Err(CopyError::Links(path.to_owned()))
}

/// An absolute path inside a container.
fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

/// Parent and last part of an absolute path; none for `/` and what ends in `..`.
fn split(path: &str) -> Option<(&str, &str)> {
    let path = path.trim_end_matches('/');
    let (parent, name) = path.rsplit_once('/')?;
    (!matches!(name, "" | "." | "..")).then_some((if parent.is_empty() { "/" } else { parent }, name))
}

async fn copy_out(
    engine: &dyn Engine,
    container: &str,
    path: &str,
    to: &Place,
    options: &CopyOptions,
    pipes: Pipes,
) -> std::result::Result<(), CopyError> {
    let asked = absolute(path);
    let missing = || EngineError::NotFound { kind: "file or directory", name: asked.clone() };
    let (source, state) = if options.follow_link {
        let found = follow(engine, container, &asked).await?;
        (found.path, found.state.ok_or_else(missing)?)
    } else {
        (asked.clone(), engine.path_state(container, &asked).await?.ok_or_else(missing)?)
    };
    let Place::Local(to) = to else {
        let output = pipes.output.ok_or(CopyError::Direction)?;
        if options.dry_run {
            return Ok(());
        }
        return Ok(engine.pack(container, &source, output).await?);
    };
    let is_directory = state.kind == PathKind::Directory;
    let mut target = local_target(&asked, is_directory, to)?;
    let mut source = source;
    if let (Target::Into(directory), Some((_, name))) = (&target, split(&asked))
        && split(&source).is_none_or(|(_, last)| last != name)
    {
        // A followed link: what it points to is called like the link.
        let renamed = directory.join(name);
        if is_directory && renamed.is_dir() {
            source = format!("{}/.", source.trim_end_matches('/'));
            target = Target::Into(renamed);
        } else {
            target = Target::As(renamed);
        }
    }
    if options.dry_run {
        return Ok(());
    }
    let (reader, writer) = std::io::pipe().map_err(CopyError::Archive)?;
    let unpacking = tokio::task::spawn_blocking(move || local::unpack(reader, &target));
    let (packed, unpacked) = tokio::join!(engine.pack(container, &source, Box::new(writer)), unpacking);
    let unpacked = unpacked.unwrap_or_else(|stopped| Err(CopyError::Archive(std::io::Error::other(stopped))));
    match (packed, unpacked) {
        // Half an archive is what a failure at its beginning looks like at its end.
        (Err(packed), Ok(()) | Err(CopyError::Archive(_))) => Err(packed.into()),
        (_, unpacked) => unpacked,
    }
}

/// What a path of this machine means as a destination.
fn local_target(from: &str, is_directory: bool, to: &Path) -> std::result::Result<Target, CopyError> {
    let shown = to.display().to_string();
    match std::fs::metadata(to) {
        Ok(metadata) if metadata.is_dir() => Ok(Target::Into(to.to_owned())),
        Ok(_) if is_directory => Err(CopyError::DirectoryOntoFile { from: from.to_owned(), to: shown }),
        Ok(metadata) if !metadata.is_file() => Err(CopyError::Special(shown)),
        // What a link points to is replaced, not the link.
        Ok(_) => to.canonicalize().map(Target::As).map_err(at("look at", to)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let slash = shown.ends_with('/') || shown.ends_with("/.");
            if slash && !is_directory {
                return Err(CopyError::NoDirectory(shown));
            }
            let parent = to.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if !parent.is_dir() {
                return Err(CopyError::NoDirectory(parent.display().to_string()));
            }
            Ok(Target::As(to.to_owned()))
        }
        Err(error) => Err(at("look at", to)(error)),
    }
}

async fn copy_in(
    engine: &dyn Engine,
    container: &str,
    from: &Place,
    path: &str,
    options: &CopyOptions,
    input: Option<ArchiveSource>,
) -> std::result::Result<(), CopyError> {
    let found = follow(engine, container, &absolute(path)).await?;
    let kind = found.state.as_ref().map(|state| state.kind);
    if kind == Some(PathKind::Special) {
        return Err(CopyError::Special(found.path));
    }
    let Place::Local(from) = from else {
        let input = input.ok_or(CopyError::Direction)?;
        if kind != Some(PathKind::Directory) {
            return Err(CopyError::NotDirectory(absolute(path)));
        }
        if options.dry_run {
            return Ok(());
        }
        return Ok(engine.unpack(container, &found.path, input, options.archive).await?);
    };
    let source = Source::of(from, options.follow_link)?;
    let (directory, name) = match kind {
        Some(PathKind::Directory) => (found.path.clone(), source.name.clone()),
        Some(_) if source.is_directory => {
            return Err(CopyError::DirectoryOntoFile { from: from.display().to_string(), to: found.path });
        }
        None if found.path.ends_with('/') && !source.is_directory => {
            return Err(CopyError::NoDirectory(found.path));
        }
        _ => match split(&found.path) {
            Some((parent, name)) => (parent.to_owned(), PathBuf::from(name)),
            None => return Err(CopyError::NoDirectory(found.path)),
        },
    };
    if options.dry_run {
        return Ok(());
    }
    let (reader, writer) = std::io::pipe().map_err(CopyError::Archive)?;
    let packing = tokio::task::spawn_blocking(move || {
        let mut packer = Packer::new(std::io::BufWriter::with_capacity(128 << 10, writer));
        packer.add(&source.path, &name, source.follow, &|_, _| true)?;
        packer.finish()
    });
    let unpacking = engine.unpack(container, &directory, Box::new(reader), options.archive);
    let (unpacked, packed) = tokio::join!(unpacking, packing);
    let packed = packed.unwrap_or_else(|stopped| Err(CopyError::Archive(std::io::Error::other(stopped))));
    match (packed, unpacked) {
        // Nobody read the archive to its end, and says why.
        (Ok(()) | Err(CopyError::Archive(_)), Err(unpacked)) => Err(unpacked.into()),
        (packed, _) => packed,
    }
}

/// A path of this machine that is copied.
struct Source {
    path: PathBuf,
    /// As it is called inside; empty when the content of a directory is meant.
    name: PathBuf,
    is_directory: bool,
    follow: bool,
}

impl Source {
    fn of(path: &Path, follow_link: bool) -> std::result::Result<Self, CopyError> {
        let text = path.to_string_lossy();
        let content = text == "." || text.ends_with("/.");
        let follow = follow_link || content || text.ends_with('/');
        let metadata = if follow { std::fs::metadata(path) } else { std::fs::symlink_metadata(path) };
        let metadata = metadata.map_err(at("look at", path))?;
        if (content || text.ends_with('/')) && !metadata.is_dir() {
            return Err(CopyError::NotDirectory(text.into_owned()));
        }
        let name = match path.file_name() {
            _ if content => PathBuf::new(),
            Some(name) => PathBuf::from(name),
            // `..` and `/` have no name of their own.
            None => path
                .canonicalize()
                .map_err(at("look at", path))?
                .file_name()
                .map(PathBuf::from)
                .unwrap_or_default(),
        };
        Ok(Self { path: path.to_owned(), name, is_directory: metadata.is_dir(), follow })
    }
}
