//! One build: which stages are needed, and carrying them out beside each other.
//!
//! Each needed stage has a thread. A stage that takes something from another one
//! waits for it at the instruction that does; stages only ever refer to earlier
//! ones, so nobody waits in a circle. The first failure gives the whole build up.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};

use super::cancel::Cancel;
use super::contexts::Contexts;
use super::dockerfile::ast::{Dockerfile, Kind};
use super::dockerfile::scope::Inputs;
use super::error::{BuildError, Result};
use super::event::Reporter;
use super::stage::{self, StageEnd};
use super::tree::Tree;
use crate::diagnostic::SourceMap;
use crate::runtime::Runtime;
use crate::runtime::image::{
    Image, ImageConfig, ImageError, Layer, Platform, Recording, Reference, Registries, Staging, StepRecord,
    Store,
};
use crate::spec::{BuildContext, BuildSpec};

/// Everything the stages of one build share.
pub(super) struct Build<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) spec: &'a BuildSpec,
    pub(super) file: &'a Dockerfile,
    pub(super) sources: &'a SourceMap,
    pub(super) reporter: &'a Reporter<'a>,
    pub(super) cancel: &'a Cancel,
    pub(super) contexts: &'a Contexts<'a>,
    /// What the image is to run on.
    pub(super) platform: Platform,
    /// What variables come from.
    pub(super) inputs: Inputs,
    staging: Staging,
    /// Directories of layers that must stay while we live.
    leased: Mutex<BTreeSet<String>>,
    turns: Turns,
    cells: Vec<Cell>,
    bases: Mutex<Bases>,
}

/// Images by reference and platform.
type Bases = HashMap<(String, String), Arc<OnceLock<Base>>>;

/// An image that a stage begins with or copies from.
#[derive(Debug, Clone)]
pub(super) struct Base {
    /// Full reference, for progress.
    pub(super) name: String,
    pub(super) config: ImageConfig,
    pub(super) tree: Tree,
}

impl<'a> Build<'a> {
    #[expect(clippy::too_many_arguments, reason = "each is a thing of its own, and all are needed")]
    pub(super) fn new(
        runtime: &'a Runtime,
        spec: &'a BuildSpec,
        file: &'a Dockerfile,
        sources: &'a SourceMap,
        reporter: &'a Reporter<'a>,
        cancel: &'a Cancel,
        contexts: &'a Contexts<'a>,
        platform: Platform,
        staging: Staging,
    ) -> Self {
        Self {
            runtime,
            spec,
            file,
            sources,
            reporter,
            cancel,
            contexts,
            inputs: stage::inputs(spec, &platform),
            platform,
            staging,
            leased: Mutex::default(),
            turns: Turns::new(std::thread::available_parallelism().map_or(2, usize::from).max(2)),
            cells: file.stages.iter().map(|_| Cell::default()).collect(),
            bases: Mutex::default(),
        }
    }

    /// Where half-made things are.
    pub(super) fn staging(&self) -> &Staging {
        &self.staging
    }

    /// Carries out the stages that `target` needs.
    pub(super) fn run(&self, target: usize) -> Result<StageEnd> {
        let needed = needed(self.file, &self.spec.contexts, target);
        let mut failed: Option<BuildError> = None;
        let mut end = None;
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                needed.iter().map(|stage| (*stage, scope.spawn(move || self.demand(*stage)))).collect();
            for (stage, thread) in threads {
                match thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
                    Ok(done) if stage == target => end = Some(done),
                    Ok(_) => {}
                    // What others report after the first failure follows from it.
                    Err(BuildError::Cancelled) => {}
                    Err(error) => drop(failed.get_or_insert(error)),
                }
            }
        });
        match (failed, end) {
            (Some(error), _) => Err(error),
            (None, Some(end)) => Ok(end),
            (None, None) => Err(BuildError::Cancelled),
        }
    }

    /// What a stage came to: made now, or waited for.
    pub(super) fn demand(&self, stage: usize) -> Result<StageEnd> {
        let cell = &self.cells[stage];
        let mut state = cell.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match &*state {
                Progress::Idle => break,
                Progress::Done(end) => return Ok((**end).clone()),
                // Whoever made it has said why.
                Progress::Failed => return Err(BuildError::Cancelled),
                Progress::Running => {
                    state = cell.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
        *state = Progress::Running;
        drop(state);
        let result = stage::run(self, stage);
        if result.is_err() {
            self.cancel.cancel();
        }
        let mut state = cell.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = match &result {
            Ok(end) => Progress::Done(Box::new(end.clone())),
            Err(_) => Progress::Failed,
        };
        cell.changed.notify_all();
        result
    }

    /// Fails when the build was given up.
    pub(super) fn check(&self) -> Result<()> {
        if self.cancel.is_cancelled() { Err(BuildError::Cancelled) } else { Ok(()) }
    }

    /// Waits until a processor is free for something heavy.
    pub(super) fn turn(&self) -> Turn<'_> {
        self.turns.take()
    }

    /// The image of a reference (or a named context that stands for one), fetched if need be.
    pub(super) fn base(&self, name: &str, platform: Option<&str>) -> Result<Base> {
        let platform = platform.map_or_else(|| self.platform.to_string(), str::to_owned);
        let cell = {
            let mut bases = self.bases.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(bases.entry((name.to_owned(), platform.clone())).or_default())
        };
        if let Some(base) = cell.get() {
            return Ok(base.clone());
        }
        let reference: Reference = name.parse().map_err(ImageError::from)?;
        let title = self.title(&format!("internal] load metadata for {reference}"));
        let image = self.reporter.step(title, |step| self.image(name, &platform, step))?;
        let layers = self.runtime.images().layers_of(&image.id)?;
        self.lease(layers.iter())?;
        let base = Base {
            name: reference.to_string(),
            tree: Tree::new(self.runtime.images(), layers, image.root),
            config: image.config,
        };
        Ok(cell.get_or_init(|| base).clone())
    }

    fn image(&self, name: &str, platform: &str, step: u32) -> Result<Image> {
        let store = self.runtime.images();
        let local = store.resolve(name, Some(platform))?;
        if let (Some(image), false) = (&local, self.spec.pull) {
            return Ok(image.clone());
        }
        self.check()?;
        let registries = Registries::from_environment().map_err(ImageError::from)?;
        let progress = |event| {
            if let crate::runtime::image::Event::Layer { id, text, total, .. } = event
                && text != "Downloading"
            {
                let size = total.map(|total| format!(" ({total} bytes)")).unwrap_or_default();
                self.reporter.note(step, format!("{id} {text}{size}"));
            }
        };
        match store.pull(name, Some(platform), &registries, &progress) {
            Ok(pulled) => Ok(pulled.image),
            // What is here by its id, or was only ever made here, no registry knows.
            Err(error) => match local {
                Some(image) if !self.spec.pull => Ok(image),
                _ => Err(error.into()),
            },
        }
    }

    /// `[web internal] …`: the build's name in front of what is in brackets.
    pub(super) fn title(&self, rest: &str) -> String {
        if self.spec.name.is_empty() { format!("[{rest}") } else { format!("[{} {rest}", self.spec.name) }
    }

    /// Keeps layers from being collected while this build lives.
    pub(super) fn lease<'l>(&self, layers: impl Iterator<Item = &'l Layer>) -> Result<()> {
        let mut leased = self.leased.lock().unwrap_or_else(PoisonError::into_inner);
        let before = leased.len();
        leased.extend(layers.map(|layer| layer.key.clone()));
        if leased.len() > before {
            let _hold = self.runtime.images().hold()?;
            self.staging.lease(&leased.iter().cloned().collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// The layer of a step: from the cache, or made by `make` in a fresh directory (in `fs`).
    pub(super) fn layer(
        &self,
        key: &str,
        name: &str,
        use_cache: bool,
        below: &Tree,
        make: &mut dyn FnMut(&std::path::Path) -> Result<()>,
    ) -> Result<Made> {
        let store = self.runtime.images();
        let _flight = self.runtime.flights.take(key);
        if use_cache {
            let _hold = store.hold()?;
            if let Some(record) = store.step(key)? {
                self.lease(std::iter::once(&record.layer))?;
                return Ok(Made { record, cached: true });
            }
        }
        self.check()?;
        let dir = self.staging.subdirectory(&crate::util::ids::random_hex(6))?;
        make(&dir)?;
        self.check()?;
        let recording = Recording {
            below: below.merged()?.map(std::os::fd::AsFd::as_fd),
            latest: self.spec.source_date_epoch,
        };
        // Overlay's own directory, and what was mounted.
        for name in crate::util::files::names(&dir)?.into_iter().filter(|name| name != "fs") {
            crate::util::files::remove_dir_all(&dir.join(name))?;
        }
        let layer = Store::record_changes(&dir, recording)?;
        self.lease(std::iter::once(&layer))?;
        let _hold = store.hold()?;
        store.place_changes(&dir, &layer)?;
        let record = StepRecord {
            version: crate::runtime::image::FORMAT,
            layer,
            created: jiff::Timestamp::now(),
            name: name.to_owned(),
        };
        store.put_step(key, &record)?;
        Ok(Made { record, cached: false })
    }
}

/// The layer of a step.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) record: StepRecord,
    pub(super) cached: bool,
}

/// The stages that a target needs, itself included, ascending.
///
/// A name that a named context replaces is no stage.
pub(super) fn needed(
    file: &Dockerfile,
    contexts: &std::collections::BTreeMap<String, BuildContext>,
    target: usize,
) -> BTreeSet<usize> {
    let mut needed = BTreeSet::new();
    let mut todo = vec![target];
    while let Some(index) = todo.pop() {
        if !needed.insert(index) {
            continue;
        }
        let Some(stage) = file.stages.get(index) else { continue };
        let mut names: Vec<&str> = vec![&stage.from.base.text];
        for instruction in &stage.instructions {
            match &instruction.kind {
                Kind::Copy(copy) => names.extend(copy.from.as_ref().map(|from| from.text.as_str())),
                Kind::Run(run) => {
                    names.extend(run.mounts.iter().filter_map(|m| m.from.as_ref()).map(|f| f.text.as_str()));
                }
                _ => {}
            }
        }
        let names = names.into_iter().filter(|name| !contexts.contains_key(&name.to_lowercase()));
        todo.extend(names.filter_map(|name| file.stage(name, index)));
    }
    needed
}

/// One stage's result.
#[derive(Default)]
struct Cell {
    state: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Default)]
enum Progress {
    #[default]
    Idle,
    Running,
    Done(Box<StageEnd>),
    Failed,
}

/// Limits what runs at once.
struct Turns {
    free: Mutex<usize>,
    freed: Condvar,
}

/// A processor for something heavy.
pub(super) struct Turn<'a>(&'a Turns);

impl Turns {
    fn new(count: usize) -> Self {
        Self { free: Mutex::new(count), freed: Condvar::new() }
    }

    fn take(&self) -> Turn<'_> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free == 0 {
            free = self.freed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}
