//! Building images: the Dockerfile front end and what executes it.
//!
//! [`dockerfile`] is pure: text → syntax tree, mistakes and warnings, and the
//! expansion of variables. It reads no file and knows no image.
//!
//! [`Runtime::build`] carries a Dockerfile out. Each step that changes files is a
//! layer of the store from its first byte on: `RUN` writes into the upper
//! directory of an overlay over the layers before it (`process` and the
//! sandbox run the command), `COPY` and `ADD` write through such an overlay
//! without running anything. The upper directory then *is* the layer; its tar only
//! goes into the digest and the journal.
//!
//! Each step has a key: the digest of all that can change its result
//! (`cache`). `images/steps/<key>` says which layer it gave, for all
//! projects. Times of files are no part of keys.
//!
//! ```text
//! run/steps/<id>/           a RUN under way: lock, what to take back after a crash, name files
//! data/build/caches/<id>/   RUN --mount=type=cache: lock, id, fs/
//! data/build/network.lock   shared by each build under way; whoever gets it alone removes the network
//! data/build/contexts/<id>  digests of a context's files by their stat
//! ```

use std::path::Path;

use jiff::Timestamp;

pub mod archive;
mod beneath;
mod cache;
mod cancel;
mod chmod;
mod config;
mod contexts;
mod copy;
pub mod dockerfile;
pub mod download;
mod error;
mod event;
mod executor;
pub mod fetch;
pub mod git;
pub mod ignore;
mod mounts;
mod process;
mod prune;
mod run;
mod sandbox;
mod source;
mod stage;
mod transfer;
mod tree;
mod workdir;

pub(crate) use cache::Flights;
pub use cancel::Cancel;
pub use error::{BuildError, Failure, Result};
pub use event::{Event, Outcome, Watch};
pub use prune::{Forgotten, Keep, prune};
pub use sandbox::dispatch;
pub(crate) use sandbox::sweep;

use contexts::Contexts;
use dockerfile::ast::Dockerfile;
use event::Reporter;
use executor::Build;
use stage::StageEnd;

use crate::diagnostic::{Severity, SourceMap, render};
use crate::runtime::Runtime;
use crate::runtime::image::{Digest, ImageError, Platform, Reference};
use crate::spec::{BuildContext, BuildSpec, DockerfileSource};
use crate::util::fs;

impl Runtime {
    /// Builds an image and gives its id.
    ///
    /// `cancel` gives the build up from another thread; it is cancelled, too, when the build fails.
    ///
    /// # Errors
    /// [`BuildError::Instruction`] with the place in the Dockerfile; others before it was read. Nothing
    /// half-made is visible then; finished steps are kept for the next try.
    pub fn build(&self, spec: &BuildSpec, watch: Watch<'_>, cancel: &Cancel) -> Result<Digest> {
        let reporter = Reporter::new(watch);
        let title = |rest: &str| {
            if spec.name.is_empty() { format!("[{rest}") } else { format!("[{} {rest}", spec.name) }
        };
        let platform = match &spec.platform {
            Some(text) => text.parse::<Platform>().map_err(ImageError::from)?,
            None => Platform::host(),
        };
        let tags =
            spec.tags.iter().map(|tag| tag.parse::<Reference>()).collect::<std::result::Result<Vec<_>, _>>();
        let tags = tags.map_err(ImageError::from)?;
        let staging = self.images().staging()?;
        let dockerfile = match (&spec.dockerfile, &spec.context) {
            (DockerfileSource::File(path), BuildContext::Directory(context)) => Some(context.join(path)),
            _ => None,
        };
        let contexts = Contexts::new(spec, dockerfile);
        contexts.prepare(self.root(), &staging)?;
        let mut sources = SourceMap::default();
        let shown = match &spec.dockerfile {
            DockerfileSource::File(path) => {
                path.file_name().unwrap_or_default().to_string_lossy().into_owned()
            }
            DockerfileSource::Inline(_) => "dockerfile_inline".to_owned(),
        };
        let name = title(&format!("internal] load build definition from {shown}"));
        let file = reporter
            .step(name, |step| definition(spec, contexts.main()?.path(), &mut sources, &reporter, step))?;
        let target = target(&file, spec.target.as_deref())?;
        self.lint(spec, &platform, &file, &sources, &contexts, &reporter)?;
        if spec.check {
            return Ok(Digest::of(b""));
        }
        let build = Build::new(self, spec, &file, &sources, &reporter, cancel, &contexts, platform, staging);
        let joined = process::join_network(self)?;
        let end = build.run(target);
        process::leave_network(self, joined);
        contexts.remember()?;
        let end = end?;
        let name = if spec.name.is_empty() { String::new() } else { format!("[{}] ", spec.name) };
        reporter.step(format!("{name}exporting to image"), |step| {
            let id = self.export(spec, end, &tags)?;
            reporter.note(step, format!("writing image {id}"));
            for tag in &tags {
                reporter.note(step, format!("naming to {tag}"));
            }
            Ok(id)
        })
    }

    /// Tells the warnings about a Dockerfile.
    fn lint(
        &self,
        spec: &BuildSpec,
        platform: &Platform,
        file: &Dockerfile,
        sources: &SourceMap,
        contexts: &Contexts<'_>,
        reporter: &Reporter<'_>,
    ) -> Result<()> {
        let env_of = |stage: usize| {
            let base = &file.stages.get(stage)?.from.base.text;
            let image = self.images().resolve(base, Some(&platform.to_string())).ok()??;
            let split = |e: &String| e.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
            Some(image.config.config.env.iter().filter_map(split).collect())
        };
        let surroundings = dockerfile::lint::Surroundings {
            inputs: &stage::inputs(spec, platform),
            image_env: &env_of,
            ignored: &|path| contexts.ignores(path),
        };
        let found = dockerfile::lint::check(file, &surroundings);
        if found.iter().any(|d| d.severity == Severity::Error) {
            return Err(BuildError::mistakes(&found, sources));
        }
        for warning in &found {
            reporter.warn(render(warning, sources, false).trim_end().to_owned());
        }
        if spec.check && !found.is_empty() {
            return Err(BuildError::Warnings { count: found.len() });
        }
        Ok(())
    }

    /// Makes the image of what a stage came to.
    fn export(&self, spec: &BuildSpec, end: StageEnd, tags: &[Reference]) -> Result<Digest> {
        let StageEnd { tree, mut image, inherited, .. } = end;
        let epoch = spec.source_date_epoch.map(Timestamp::from_second).transpose().map_err(|_| {
            BuildError::Invalid { attribute: "SOURCE_DATE_EPOCH".into(), reason: "it is no time".into() }
        })?;
        config::date(&mut image, inherited, epoch, Timestamp::now());
        image.config.labels.extend(spec.labels.clone());
        image.rootfs.diff_ids = tree.layers().iter().map(|layer| layer.diff_id.clone()).collect();
        Ok(self.images().put_image(&image, tree.layers(), tree.root(), tags)?)
    }
}

/// Reads and parses the Dockerfile.
fn definition(
    spec: &BuildSpec,
    context: Option<&Path>,
    sources: &mut SourceMap,
    reporter: &Reporter<'_>,
    step: u32,
) -> Result<Dockerfile> {
    let (path, text) = match &spec.dockerfile {
        DockerfileSource::Inline(text) => (Path::new("dockerfile_inline").to_owned(), text.clone()),
        DockerfileSource::File(path) => {
            let path = context.map_or_else(|| path.clone(), |context| context.join(path));
            let bytes = match fs::read(&path) {
                Ok(bytes) => bytes,
                Err(error) if error.is_not_found() => return Err(BuildError::NoDockerfile { path }),
                Err(error) => return Err(error.into()),
            };
            (path, String::from_utf8_lossy(&bytes).into_owned())
        }
    };
    reporter.note(step, format!("transferring dockerfile: {}B", text.len()));
    let file = sources.add(&path, path.display().to_string(), text);
    dockerfile::parse(file, sources).map_err(|all| BuildError::mistakes(&all, sources))
}

/// The number of the stage that is wanted.
fn target(file: &Dockerfile, wanted: Option<&str>) -> Result<usize> {
    let last = file.stages.len().saturating_sub(1);
    let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) else { return Ok(last) };
    file.stage(wanted, file.stages.len()).ok_or_else(|| BuildError::Target {
        target: wanted.to_owned(),
        stages: file
            .stages
            .iter()
            .enumerate()
            .map(|(n, s)| {
                s.from.name.as_ref().map_or_else(|| n.to_string(), |name| format!("`{}`", name.text))
            })
            .collect(),
    })
}
