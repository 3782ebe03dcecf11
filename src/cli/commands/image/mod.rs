//! `image`: what is in the built-in runtime's image store, and how it gets there.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use hoist::runtime::container::Containers;
use hoist::runtime::image::{
    Digest, Event, Image, Import, Input, Reference, Registries, Removed, Store, User,
};
use hoist::runtime::root::Root;
use hoist::spec::MountSource;

use super::{Exit, Settings, Verb};
use crate::cli::confirm::confirm;
use crate::cli::output::OutputFile;
use crate::cli::render::out;
use crate::cli::settings::EngineChoice;

mod list;
mod progress;

pub(crate) use list::Filters;
use progress::Bars;

/// Manage the images of the built-in runtime
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: ImageVerb,
}

#[derive(Debug, clap::Subcommand)]
enum ImageVerb {
    /// Put the images of an archive (docker save, OCI archive or layout) into the store
    Load {
        /// Archive or OCI layout directory; standard input if not given
        #[arg(long, short)]
        input: Option<PathBuf>,
        /// Take this platform of a multi-platform image
        #[arg(long, value_name = "OS/ARCH")]
        platform: Option<String>,
        /// Print nothing but errors
        #[arg(long, short)]
        quiet: bool,
    },
    /// Make an image of one layer from a file system tarball
    Import {
        /// Tarball (plain, gzip or zstd); `-` is standard input
        file: String,
        /// Name of the image
        reference: Option<String>,
        /// Apply a Dockerfile instruction to the image's config; may be repeated
        #[arg(long, short, value_name = "INSTRUCTION")]
        change: Vec<String>,
        /// Remark in the image's history
        #[arg(long, short)]
        message: Option<String>,
        /// What it runs on
        #[arg(long, value_name = "OS/ARCH")]
        platform: Option<String>,
    },
    /// Write images to an archive
    Save {
        /// Names or ids
        #[arg(required = true)]
        images: Vec<String>,
        /// File; standard output if not given
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Take this platform's image
        #[arg(long, value_name = "OS/ARCH")]
        platform: Option<String>,
    },
    /// Fetch an image from a registry
    Pull {
        /// `[registry/]name[:tag][@digest]`
        image: String,
        /// What it is to run on
        #[arg(long, value_name = "OS/ARCH")]
        platform: Option<String>,
        /// Print only the name
        #[arg(long, short)]
        quiet: bool,
    },
    /// Send an image to its registry
    Push {
        /// `[registry/]name[:tag]`
        image: String,
        /// All tags of the repository
        #[arg(long, short)]
        all_tags: bool,
        /// Of a multi-platform name, this platform's image
        #[arg(long, value_name = "OS/ARCH")]
        platform: Option<String>,
        /// Print only the name
        #[arg(long, short)]
        quiet: bool,
    },
    /// List images
    #[command(visible_alias = "list")]
    Ls(list::Ls),
    /// Show everything about images
    Inspect {
        /// Names or ids
        #[arg(required = true)]
        images: Vec<String>,
        /// Template or `json`
        #[arg(long, short)]
        format: Option<String>,
        /// Look at this platform's image
        #[arg(long, value_name = "OS/ARCH")]
        platform: Option<String>,
    },
    /// Show how an image was made
    History(list::HistoryArgs),
    /// Give an image a further name
    Tag {
        /// Name or id
        source: String,
        /// New name
        target: String,
    },
    /// Remove names, and images with their last name
    #[command(visible_alias = "remove")]
    Rm {
        /// Names or ids
        #[arg(required = true)]
        images: Vec<String>,
        /// Also when stopped containers use it, or an id has several names
        #[arg(long, short)]
        force: bool,
        /// Accepted for Docker's sake: there are no untagged parents here
        #[arg(long, hide = true)]
        no_prune: bool,
    },
    /// Remove images that are not used
    Prune {
        /// All that no container uses, not only those without a name
        #[arg(long, short)]
        all: bool,
        /// `until=TIME`, `label=KEY[=VALUE]`, `label!=…`
        #[arg(long, value_name = "FILTER")]
        filter: Vec<String>,
        /// Do not ask
        #[arg(long, short)]
        force: bool,
    },
}

impl Verb for Args {
    fn run(self, settings: Settings) -> anyhow::Result<Exit> {
        if settings.engine == EngineChoice::Docker {
            bail!(
                "`hoist image` is about the built-in runtime's images; for a Docker Engine use `docker image`"
            );
        }
        let root = Root::new(settings.root.as_deref());
        let store = open(&root)?;
        match self.verb {
            ImageVerb::Load { input, platform, quiet } => load(&store, input, platform.as_deref(), quiet)?,
            ImageVerb::Import { file, reference, change, message, platform } => {
                let import = Import {
                    reference,
                    changes: change,
                    message: message.unwrap_or_default(),
                    platform,
                    created: None,
                };
                out::print(&format!("{}\n", import_file(&store, &file, &import)?))?;
            }
            ImageVerb::Pull { image, platform, quiet } => pull(&store, &image, platform.as_deref(), quiet)?,
            ImageVerb::Push { image, all_tags, platform, quiet } => {
                push(&store, &image, all_tags, platform.as_deref(), quiet)?;
            }
            ImageVerb::Save { images, output, platform } => {
                save(&store, &images, output.as_deref(), platform.as_deref())?;
            }
            ImageVerb::Ls(args) => out::print(&args.run(&store)?)?,
            ImageVerb::Inspect { images, format, platform } => {
                return list::inspect(&store, &images, format.as_deref(), platform.as_deref());
            }
            ImageVerb::History(args) => out::print(&args.run(&store)?)?,
            ImageVerb::Tag { source, target } => store.tag(&source, &target)?,
            ImageVerb::Rm { images, force, no_prune: _ } => return remove(&root, &store, &images, force),
            ImageVerb::Prune { all, filter, force } => prune(&root, &store, all, &filter, force)?,
        }
        Ok(Exit::Success)
    }
}

/// The store of a root, with the limits that the environment sets.
pub(crate) fn open(root: &Root) -> anyhow::Result<Store> {
    Ok(Store::open(root)?)
}

fn load(store: &Store, input: Option<PathBuf>, platform: Option<&str>, quiet: bool) -> anyhow::Result<()> {
    let input = match input {
        Some(path) if path != Path::new("-") => Input::Path(path),
        _ => {
            if std::io::IsTerminal::is_terminal(&std::io::stdin()) {
                bail!("requested load from stdin, but stdin is empty; name an archive with `-i`");
            }
            Input::Stream(Box::new(std::io::stdin()))
        }
    };
    let bars = Bars::new(quiet);
    let loaded = store.load(input, platform, &|event| bars.show(event))?;
    bars.finish();
    for image in loaded {
        for event in image.events() {
            if let Event::Status(line) = event {
                out::print(&format!("{line}\n"))?;
            }
        }
    }
    Ok(())
}

fn pull(store: &Store, image: &str, platform: Option<&str>, quiet: bool) -> anyhow::Result<()> {
    let reference: Reference = image.parse()?;
    if !quiet
        && reference.digest().is_none()
        && !image.rsplit('/').next().is_some_and(|last| last.contains(':'))
    {
        out::talk("Using default tag: latest\n");
    }
    let registries = Registries::from_environment()?;
    let bars = Bars::new(quiet);
    store.pull(image, platform, &registries, &|event| bars.show(event))?;
    bars.finish();
    out::print(&format!("{reference}\n"))?;
    Ok(())
}

fn push(
    store: &Store,
    image: &str,
    all_tags: bool,
    platform: Option<&str>,
    quiet: bool,
) -> anyhow::Result<()> {
    let reference: Reference = image.parse()?;
    let tagged = image.rsplit('/').next().is_some_and(|last| last.contains(':'));
    let names = if all_tags {
        if tagged {
            bail!("a tag cannot be named together with --all-tags");
        }
        let of_repository = |tag: &String| {
            tag.parse::<Reference>().is_ok_and(|tag| tag.familiar_name() == reference.familiar_name())
        };
        let all = store.list()?.into_iter().flat_map(|image| image.tags).filter(of_repository);
        let names: std::collections::BTreeSet<String> = all.collect();
        if names.is_empty() {
            bail!("no image has a tag of the repository {}", reference.familiar_name());
        }
        names
    } else {
        if !quiet && !tagged && reference.digest().is_none() {
            out::talk("Using default tag: latest\n");
        }
        std::collections::BTreeSet::from([reference.familiar()])
    };
    let registries = Registries::from_environment()?;
    for name in names {
        let bars = Bars::new(quiet);
        store.push(&name, platform, &registries, &|event| bars.show(event))?;
        bars.finish();
        if quiet {
            out::print(&format!("{}\n", name.parse::<Reference>()?))?;
        }
    }
    Ok(())
}

fn save(
    store: &Store,
    images: &[String],
    output: Option<&Path>,
    platform: Option<&str>,
) -> anyhow::Result<()> {
    let Some(output) = output else {
        if std::io::IsTerminal::is_terminal(&std::io::stdout()) {
            bail!("cowardly refusing to save to a terminal; use `-o FILE` or redirect");
        }
        return Ok(store.save(
            images,
            platform,
            &mut std::io::BufWriter::with_capacity(1 << 20, out::Stream::Out),
        )?);
    };
    let mut file = OutputFile::create(output, 0o600)?;
    store.save(images, platform, &mut std::io::BufWriter::with_capacity(1 << 20, file.file()))?;
    file.finish()
}

fn import_file(store: &Store, file: &str, import: &Import) -> anyhow::Result<Digest> {
    let bars = Bars::new(false);
    let id = if file == "-" {
        store.import(std::io::stdin(), import, &|event| bars.show(event))?
    } else {
        let opened = std::fs::File::open(file).with_context(|| format!("cannot open `{file}`"))?;
        store.import(opened, import, &|event| bars.show(event))?
    };
    bars.finish();
    Ok(id)
}

fn remove(root: &Root, store: &Store, images: &[String], force: bool) -> anyhow::Result<Exit> {
    let users = Uses::of(root, store)?;
    let mut exit = Exit::Success;
    for image in images {
        match store.remove(image, force, &|id| users.of_image(id)) {
            Ok(removed) => out::print(&lines(&removed))?,
            Err(error) => {
                out::talk(&format!("error: {:#}\n", anyhow::Error::new(error)));
                exit = Exit::Failure;
            }
        }
    }
    hoist::runtime::snapshot::empty_trash(root)?;
    Ok(exit)
}

fn prune(root: &Root, store: &Store, all: bool, filters: &[String], force: bool) -> anyhow::Result<()> {
    let what = if all { "all images without a container" } else { "all images without a name" };
    if !confirm(force, &format!("This will remove {what}."))? {
        return Ok(());
    }
    let filters = Filters::parse(filters)?;
    let users = Uses::of(root, store)?;
    let pruned = store.prune(all, &|image| filters.match_image(image, store), &|id| users.of_image(id))?;
    if !pruned.removed.is_empty() {
        out::print(&format!("Deleted Images:\n{}\n", lines(&pruned.removed).to_lowercase()))?;
    }
    out::print(&format!("Total reclaimed space: {}\n", crate::cli::render::text::human_size(pruned.bytes)))?;
    hoist::runtime::snapshot::empty_trash(root)?;
    Ok(())
}

/// What a removal did, as Docker tells it.
pub(crate) fn lines(removed: &[Removed]) -> String {
    removed
        .iter()
        .map(|one| match one {
            Removed::Untagged(name) => format!("Untagged: {name}\n"),
            Removed::Deleted(digest) => format!("Deleted: {digest}\n"),
        })
        .collect()
}

/// Which containers use which images, read once.
pub(crate) struct Uses {
    by_image: Vec<(String, User)>,
}

impl Uses {
    /// Reads the records of all containers.
    pub(crate) fn of(root: &Root, store: &Store) -> anyhow::Result<Self> {
        let containers = Containers::new(root);
        let mut by_image = Vec::new();
        for id in containers.ids()? {
            let Some(record) = containers.record(&id)? else { continue };
            // A shim lives as long as its container runs.
            let running =
                matches!(containers.liveness(&id, false)?, hoist::runtime::container::Liveness::Alive);
            let user = User { container: record.name.clone(), running };
            by_image.push((record.image_id.clone(), user.clone()));
            for mount in &record.mounts {
                if let MountSource::Image { reference, .. } = &mount.mount.source
                    && let Some(image) = store.resolve(reference, None)?
                {
                    by_image.push((image.id.to_string(), user.clone()));
                }
            }
        }
        Ok(Self { by_image })
    }

    /// Those of one image.
    pub(crate) fn of_image(&self, id: &Digest) -> Vec<User> {
        let id = id.to_string();
        self.by_image.iter().filter(|(image, _)| *image == id).map(|(_, user)| user.clone()).collect()
    }
}

/// The image of that name, or the error that Docker's users know.
pub(crate) fn find(store: &Store, name: &str, platform: Option<&str>) -> anyhow::Result<Image> {
    match store.resolve(name, platform)? {
        Some(image) => Ok(image),
        None => bail!("no such image: {name}"),
    }
}
