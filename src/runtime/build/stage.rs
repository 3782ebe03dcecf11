//! One stage: its base and its instructions, one after the other.

use jiff::Timestamp;

use super::config;
use super::dockerfile::ast::{Instruction, Kind, Word};
use super::dockerfile::expand::{expand, expand_words};
use super::dockerfile::scope::{self, Globals, Scope};
use super::dockerfile::{parse_trigger, ports};
use super::error::{BuildError, Result};
use super::event::Outcome;
use super::executor::{Build, Made};
use super::tree::Tree;
use super::{run, transfer, workdir};
use crate::diagnostic::{Diagnostic, SourceMap, Span};
use crate::runtime::image::{History, ImageConfig, Platform};
use crate::spec::BuildContext;

/// What a stage came to.
#[derive(Debug, Clone)]
pub(super) struct StageEnd {
    pub(super) tree: Tree,
    pub(super) image: ImageConfig,
    /// Entries of the history that the base image brought.
    pub(super) inherited: usize,
    pub(super) scope: Scope,
}

/// An instruction and the text it stands in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Located<'i> {
    pub(super) instruction: &'i Instruction,
    pub(super) sources: &'i SourceMap,
    /// The escape character of that text.
    pub(super) escape: char,
}

/// A stage under way.
pub(super) struct Stage<'s, 'a> {
    pub(super) build: &'s Build<'a>,
    pub(super) index: usize,
    pub(super) tree: Tree,
    pub(super) image: ImageConfig,
    pub(super) scope: Scope,
    globals: Globals,
    /// Cached steps may be used.
    pub(super) use_cache: bool,
    inherited: usize,
    label: String,
    /// Steps that progress counts.
    total: usize,
    at: std::cell::Cell<usize>,
    own_cmd: bool,
}

/// Carries a stage out.
pub(super) fn run(build: &Build<'_>, index: usize) -> Result<StageEnd> {
    let mut stage = begin(build, index)?;
    let triggers = std::mem::take(&mut stage.image.config.on_build);
    let parsed = parse_triggers(&triggers)?;
    let own = &build.file.stages[index].instructions;
    for (instruction, sources) in &parsed {
        let at = Located { instruction, sources, escape: '\\' };
        stage.located(&at)?;
    }
    for instruction in own {
        let at = Located { instruction, sources: build.sources, escape: build.file.directives.escape };
        stage.located(&at)?;
    }
    Ok(StageEnd { tree: stage.tree, image: stage.image, inherited: stage.inherited, scope: stage.scope })
}

/// How many steps progress counts, besides `FROM`.
fn count(own: &[Instruction], triggers: &[String]) -> usize {
    let counted = |trigger: &&String| {
        let word = trigger.split_whitespace().next().unwrap_or_default();
        ["RUN", "COPY", "ADD", "WORKDIR"].iter().any(|known| word.eq_ignore_ascii_case(known))
    };
    own.iter().filter(|i| is_counted(&i.kind)).count() + triggers.iter().filter(counted).count()
}

fn is_counted(kind: &Kind) -> bool {
    matches!(kind, Kind::Run(_) | Kind::Copy(_) | Kind::Add(_) | Kind::Workdir(_))
}

fn parse_triggers(triggers: &[String]) -> Result<Vec<(Instruction, SourceMap)>> {
    let mut parsed = Vec::new();
    for trigger in triggers {
        let mut sources = SourceMap::default();
        let path = std::path::Path::new("ONBUILD");
        let file = sources.add(path, "ONBUILD of the base image", trigger.as_str());
        let instruction =
            parse_trigger(file, &sources).map_err(|all| BuildError::mistakes(&all, &sources))?;
        parsed.push((instruction, sources));
    }
    Ok(parsed)
}

/// Finds the base.
fn begin<'s, 'a>(build: &'s Build<'a>, index: usize) -> Result<Stage<'s, 'a>> {
    let from = &build.file.stages[index].from;
    let escape = build.file.directives.escape;
    let mistake = |d: Diagnostic| BuildError::mistake(&d, build.sources);
    let globals = Globals::new(build.file, &build.inputs).map_err(mistake)?;
    let name = expand(&from.base, escape, &globals).map_err(mistake)?;
    if name.trim().is_empty() {
        let text = format!("the base name `{}` is empty", from.base.text);
        let help = "give the `ARG` a default before the first `FROM`, or a value with `args`";
        return Err(mistake(Diagnostic::error("build-base", text).at(from.base.span, "").help(help)));
    }
    let expanded = |word: &Word| expand(word, escape, &globals).map_err(mistake);
    let platform = from.platform.as_ref().map(expanded).transpose()?;
    let platform = platform.filter(|text| !text.is_empty());
    if let Some(text) = &platform {
        text.parse::<Platform>().map_err(|e| {
            let place = from.platform.as_ref().map_or(from.span, |word| word.span);
            mistake(Diagnostic::error("build-platform", e.to_string()).at(place, ""))
        })?;
    }
    let own = from.name.as_ref().map(|name| name.text.as_str());
    let label = match own {
        Some(name) => name.to_owned(),
        None if build.file.stages.len() > 1 => format!("stage-{index}"),
        None => String::new(),
    };
    let filter = &build.spec.no_cache_filter;
    let unwanted =
        filter.iter().any(|f| own.is_some_and(|own| own.eq_ignore_ascii_case(f)) || *f == index.to_string());
    let mut stage = Stage {
        build,
        index,
        tree: Tree::empty(),
        image: ImageConfig::default(),
        scope: Scope::default(),
        globals,
        use_cache: !build.spec.no_cache && !unwanted,
        inherited: 0,
        label,
        total: count(&build.file.stages[index].instructions, &[]),
        at: std::cell::Cell::new(0),
        own_cmd: false,
    };
    let located = |e: BuildError| e.at(from.span, &format!("FROM {name}"), build.sources);
    // A named context stands for the image, or the stage, of that name.
    let context = own
        .and_then(|own| build.spec.contexts.get(&own.to_lowercase()))
        .or_else(|| build.spec.contexts.get(&name.to_lowercase()));
    match context {
        Some(BuildContext::Image(image)) => {
            return stage.on_image(image, platform.as_deref()).map_err(located);
        }
        Some(_) => {
            stage.tree = build.contexts.named(build, &name.to_lowercase()).map_err(located)?;
            stage.on_nothing(platform.as_deref());
            return Ok(stage);
        }
        None => {}
    }
    if let Some(other) = build.file.stage(&name, index) {
        let end = build.demand(other)?;
        stage.tree = end.tree;
        stage.image = end.image;
        stage.inherited = end.inherited;
        stage.scope = end.scope;
        stage.total += count(&[], &stage.image.config.on_build);
        return Ok(stage);
    }
    if name == "scratch" {
        stage.on_nothing(platform.as_deref());
        return Ok(stage);
    }
    stage.on_image(&name, platform.as_deref()).map_err(located)
}

impl Stage<'_, '_> {
    fn on_nothing(&mut self, platform: Option<&str>) {
        let platform = platform.and_then(|p| p.parse().ok()).unwrap_or_else(|| self.build.platform.clone());
        self.image = ImageConfig {
            architecture: platform.architecture,
            variant: platform.variant,
            os: platform.os,
            ..ImageConfig::default()
        };
        "/".clone_into(&mut self.image.config.working_dir);
        self.image.config.env = vec![format!("PATH={}", config::PATH)];
        self.scope = Scope::new(split_env(&self.image.config.env));
    }

    fn on_image(mut self, name: &str, platform: Option<&str>) -> Result<Self> {
        let base = self.build.base(name, platform)?;
        self.total += 1 + count(&[], &base.config.config.on_build);
        self.at.set(1);
        let step = self.build.reporter.start(self.counted(&format!("FROM {}", base.name)));
        self.build.reporter.done(step);
        self.tree = base.tree;
        self.image = base.config;
        // It is about how the base came to be.
        self.image.comment.clear();
        // Layers that no entry speaks of would be taken for those of the entries that follow.
        let layers = self.image.history.iter().filter(|entry| !entry.empty_layer).count();
        for _ in layers..self.tree.layers().len() {
            self.image.history.push(History { created: self.image.created, ..History::default() });
        }
        self.inherited = self.image.history.len();
        if !self.image.config.env.iter().any(|e| e.starts_with("PATH=")) {
            self.image.config.env.insert(0, format!("PATH={}", config::PATH));
        }
        self.scope = Scope::new(split_env(&self.image.config.env));
        Ok(self)
    }

    fn located(&mut self, at: &Located<'_>) -> Result<()> {
        self.build.check()?;
        self.instruction(at)
            .map_err(|error| error.at(at.instruction.span, &Self::step_name(at.instruction), at.sources))
    }

    fn instruction(&mut self, at: &Located<'_>) -> Result<()> {
        match &at.instruction.kind {
            Kind::Env(pairs) => {
                let pairs =
                    self.scope.set(pairs, at.escape).map_err(|d| BuildError::mistake(&d, at.sources))?;
                config::env(&mut self.image, &pairs);
            }
            Kind::Label(pairs) => {
                let pairs =
                    self.scope.pairs(pairs, at.escape).map_err(|d| BuildError::mistake(&d, at.sources))?;
                config::label(&mut self.image, &pairs);
            }
            Kind::Arg(args) => {
                let mut texts = Vec::new();
                for arg in args {
                    let declared = self.scope.declare(arg, at.escape, &self.globals);
                    let declared = declared.map_err(|d| BuildError::mistake(&d, at.sources))?;
                    texts.push(match declared {
                        (name, Some(value)) => format!("{name}={value}"),
                        (name, None) => name,
                    });
                }
                config::remember(&mut self.image, format!("ARG {}", texts.join(" ")), None);
            }
            Kind::Cmd(command) => {
                config::cmd(&mut self.image, command);
                self.own_cmd = true;
            }
            Kind::Entrypoint(command) => config::entrypoint(&mut self.image, command, self.own_cmd),
            Kind::Expose(words) => {
                let mut all = Vec::new();
                for word in words {
                    let texts = expand_words(word, at.escape, &self.scope)
                        .map_err(|d| BuildError::mistake(&d, at.sources))?;
                    for text in texts {
                        let found = ports::exposed_ports(&text, word);
                        all.extend(found.map_err(|d| BuildError::mistake(&d, at.sources))?.ports);
                    }
                }
                config::expose(&mut self.image, &all);
            }
            Kind::Healthcheck(check) => config::healthcheck(&mut self.image, check),
            Kind::Maintainer(word) => config::maintainer(&mut self.image, &word.text),
            Kind::Onbuild(onbuild) => self.image.config.on_build.push(onbuild.trigger.text.clone()),
            Kind::Shell(words) => config::shell(&mut self.image, words),
            Kind::StopSignal(word) => {
                let signal = self.expanded(at, word)?;
                config::stop_signal(&mut self.image, &signal);
            }
            Kind::User(word) => {
                let user = self.expanded(at, word)?;
                config::user(&mut self.image, &user);
            }
            Kind::Volume(words) => {
                let paths = words.iter().map(|word| self.expanded(at, word)).collect::<Result<Vec<_>>>()?;
                if paths.iter().any(String::is_empty) {
                    let diagnostic = Diagnostic::error("build-volume", "a `VOLUME` path is empty");
                    return Err(BuildError::mistake(&diagnostic.at(at.instruction.span, ""), at.sources));
                }
                config::volume(&mut self.image, &paths);
            }
            Kind::Workdir(word) => {
                let path = self.expanded(at, word)?;
                let path = self.absolute(&path);
                path.clone_into(&mut self.image.config.working_dir);
                let layer = workdir::make(self, at, &path)?;
                self.add_layer(format!("WORKDIR {path}"), layer);
            }
            Kind::Run(instruction) => {
                let text = format!("RUN {}# buildkit", self.run_text(instruction));
                let made = run::run(self, at, instruction)?;
                self.add_layer(text, Some(made));
            }
            Kind::Copy(copy) => {
                let (text, made) = transfer::copy(self, at, copy)?;
                self.add_layer(text, Some(made));
            }
            Kind::Add(add) => {
                let (text, made) = transfer::add(self, at, add)?;
                self.add_layer(text, Some(made));
            }
        }
        Ok(())
    }

    fn add_layer(&mut self, text: String, made: Option<Made>) {
        let Some(made) = made else { return config::remember(&mut self.image, text, None) };
        self.tree = self.tree.with(self.build.runtime.images(), made.record.layer);
        let created = self.build.spec.source_date_epoch.and_then(|t| Timestamp::from_second(t).ok());
        config::remember(&mut self.image, text, Some(created.unwrap_or(made.record.created)));
    }

    /// `|1 V=x /bin/sh -c true ` as the history has it.
    fn run_text(&self, run: &super::dockerfile::ast::Run) -> String {
        use super::dockerfile::ast::Script;
        let words = match &run.script {
            Script::Exec(words) => words.clone(),
            Script::Shell(line) => config::with_shell(&self.image.config, line),
            Script::Executable { name, .. } => vec![format!("<<{name}")],
        };
        let args = self.scope.args();
        let mut text = String::new();
        if !args.is_empty() {
            text = format!("|{} ", args.len());
            for (name, value) in args {
                let value = self.scope.variables().get(name).or(value.as_ref());
                text.push_str(&format!("{name}={} ", value.map_or("", String::as_str)));
            }
        }
        for word in words {
            text.push_str(&word);
            text.push(' ');
        }
        text
    }

    pub(super) fn expanded(&self, at: &Located<'_>, word: &Word) -> Result<String> {
        expand(word, at.escape, &self.scope).map_err(|d| BuildError::mistake(&d, at.sources))
    }

    /// The working directory; `/` when none is set.
    pub(super) fn working_dir(&self) -> String {
        let dir = &self.image.config.working_dir;
        if dir.is_empty() { "/".to_owned() } else { dir.clone() }
    }

    /// A path below the working directory, `.` and `..` resolved, without a trailing slash.
    pub(super) fn absolute(&self, path: &str) -> String {
        let whole =
            if path.starts_with('/') { path.to_owned() } else { format!("{}/{path}", self.working_dir()) };
        let mut parts: Vec<&str> = Vec::new();
        for part in whole.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        format!("/{}", parts.join("/"))
    }

    /// The environment of a `RUN`, without `HOME` and proxies.
    pub(super) fn environment(&self) -> Vec<String> {
        self.scope.variables().iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    /// Proxies that were given and not declared: commands get them, and nothing remembers them.
    pub(super) fn proxies(&self) -> Vec<String> {
        let given = self.build.inputs.proxies();
        let undeclared = given.filter(|(name, _)| !self.scope.variables().contains_key(*name));
        undeclared.map(|(name, value)| format!("{name}={value}")).collect()
    }

    /// The tree that `from` means: a named context, an earlier stage, or an image.
    pub(super) fn source_tree(&self, from: &str, place: Span, at: &Located<'_>) -> Result<Tree> {
        let build = self.build;
        let tree = match build.spec.contexts.get(&from.to_lowercase()) {
            Some(BuildContext::Image(image)) => build.base(image, None).map(|base| base.tree),
            Some(_) => build.contexts.named(build, &from.to_lowercase()),
            None => match build.file.stage(from, self.index) {
                Some(stage) => build.demand(stage).map(|end| end.tree),
                None if from == "scratch" => Ok(Tree::empty()),
                None => build.base(from, None).map(|base| base.tree),
            },
        };
        tree.map_err(|error| error.at(place, &Self::step_name(at.instruction), at.sources))
    }

    /// `RUN make` in one line.
    pub(super) fn step_name(instruction: &Instruction) -> String {
        let text = instruction.original.split_whitespace().collect::<Vec<_>>().join(" ");
        match text.split_once(' ') {
            Some((keyword, rest)) => format!("{} {rest}", keyword.to_uppercase()),
            None => text.to_uppercase(),
        }
    }

    /// `[web base 2/4] RUN make`, the next number.
    pub(super) fn next_title(&self, name: &str) -> String {
        self.at.set(self.at.get() + 1);
        self.counted(name)
    }

    fn counted(&self, name: &str) -> String {
        let count = format!("{}/{}", self.at.get(), self.total);
        let parts = [self.build.spec.name.as_str(), self.label.as_str(), count.as_str()];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        format!("[{}] {name}", parts.join(" "))
    }

    /// Tells how a step ended.
    pub(super) fn tell(&self, step: u32, made: Result<Made>, at: &Located<'_>, title: &str) -> Result<Made> {
        match made {
            Ok(made) if made.cached => {
                self.build.reporter.end(step, Outcome::Cached);
                Ok(made)
            }
            Ok(made) => {
                self.build.reporter.done(step);
                Ok(made)
            }
            Err(BuildError::Cancelled) => {
                self.build.reporter.end(step, Outcome::Cancelled);
                Err(BuildError::Cancelled)
            }
            Err(error) => {
                let error = error.at(at.instruction.span, title, at.sources);
                self.build.reporter.end(step, Outcome::Failed(error.to_string()));
                Err(error)
            }
        }
    }
}

/// What the variables of a build come from.
pub(super) fn inputs(spec: &crate::spec::BuildSpec, target: &Platform) -> scope::Inputs {
    let platform = |platform: &Platform| scope::Platform {
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone(),
    };
    scope::Inputs {
        build_args: spec.args.clone(),
        build_platform: platform(&Platform::host()),
        target_platform: platform(target),
        target_stage: spec.target.clone(),
    }
}

fn split_env(env: &[String]) -> impl Iterator<Item = (String, String)> {
    env.iter().filter_map(|e| e.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned()))
}
