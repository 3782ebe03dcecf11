//! Compose files → a [`Project`], or a list of diagnostics.
//!
//! The stages in order are in [`load`]. Reads files through [`Files`] only, is
//! synchronous, and prints nothing. Every value keeps its place through all
//! stages, so that a mistake found at the end is shown where it was written.

mod advice;
mod canonical;
mod checks;
pub mod codes;
mod conform;
mod damage;
mod discover;
pub mod document;
pub mod dotenv;
mod env_files;
mod extends;
pub mod files;
mod include;
mod interpolate;
pub mod json_schema;
mod lint;
mod loader;
mod merge;
mod normalize;
mod paths;
pub mod provenance;
mod schema;
mod select;
mod short;
mod syntax;
pub mod template;
mod tree;
mod validate;
pub mod yaml;

use std::collections::BTreeMap;
use std::path::PathBuf;

use tracing::trace_span;

use crate::diagnostic::{Diagnostic, Severity, SourceMap, tidy};
use crate::model::record::{Field, Log, Out};
use crate::model::{Project, Service};

use document::Node;
pub use files::{Disk, Files, LoadOptions};
use loader::{Context, Input, Loader};

/// A project that is right.
#[derive(Debug)]
pub struct Loaded {
    /// The project, selected services enabled.
    pub project: Project,
    /// What the user should know, sorted by place.
    pub warnings: Vec<Diagnostic>,
    /// The texts that places point into.
    pub sources: SourceMap,
    /// The merged tree before decoding, in which every value knows its place.
    pub tree: Node,
    /// The environment of the process, to tell its variables from those of files.
    shell: BTreeMap<String, String>,
    history: provenance::History,
}

/// A project that is wrong.
#[derive(Debug)]
pub struct Failed {
    /// All mistakes and warnings, sorted by place, errors first; never empty of errors.
    pub diagnostics: Vec<Diagnostic>,
    /// The texts that places point into.
    pub sources: SourceMap,
}

impl Loaded {
    /// The merged tree as it stands, for `config --no-interpolate`.
    pub fn raw(&self) -> Out {
        tree::to_out(&self.tree)
    }

    /// Every variable that strings of the tree use; only of use after a load without interpolation.
    pub fn variables(&self) -> Vec<template::Variable> {
        let mut all = Vec::new();
        tree::texts(&self.tree, &mut |text| all.extend(template::variables(text).unwrap_or_default()));
        all
    }
}

/// Loads the project that `options` describe.
///
/// # Errors
/// [`Failed`] with every mistake that could be found together.
pub fn load(options: &LoadOptions, files: &dyn Files) -> Result<Loaded, Failed> {
    let mut loader = Loader::new(options, files);
    match run(&mut loader) {
        Some((project, tree)) if !loader.failed() => {
            let mut warnings = loader.out;
            tidy(&mut warnings);
            Ok(Loaded {
                project,
                warnings,
                sources: loader.sources,
                tree,
                shell: options.environment.clone(),
                history: loader.history,
            })
        }
        _ => {
            let mut diagnostics = loader.out;
            if !diagnostics.iter().any(|d| d.severity == Severity::Error) {
                diagnostics.push(Diagnostic::error("empty-file", "empty compose file"));
            }
            tidy(&mut diagnostics);
            Err(Failed { diagnostics, sources: loader.sources })
        }
    }
}

fn run(loader: &mut Loader<'_>) -> Option<(Project, Node)> {
    let options = loader.options;
    let found = loader.discover()?;
    let mut env = found.env;
    let name = project_name(loader, &found.inputs, &found.base.dir, &env)?;
    env.insert("COMPOSE_PROJECT_NAME".to_owned(), name.clone());
    let including = first_file(&found.inputs);
    let context = Context { base: found.base, env, including, included: false };
    let mut tree = loader.model(&found.inputs, &context)?;

    if options.no_interpolate {
        // Text that still has variables in it is no value of the model.
        if !options.no_normalize {
            normalize::raw(&mut tree, &name, &context.env);
        }
        return Some((Project { name, ..Project::default() }, tree));
    }
    let mut project = trace_span!("decode").in_scope(|| decode(&tree, loader));
    project.name = name;
    project.working_dir = context.base.dir;
    project.config_files = found
        .inputs
        .into_iter()
        .map(|i| match i {
            Input::Path(p) => p,
            Input::Stdin => PathBuf::from("-"),
        })
        .collect();
    project.env_files = found.env_files;
    project.profiles = active_profiles(options, &context.env);
    project.environment = context.env;
    if !options.no_normalize {
        trace_span!("normalize").in_scope(|| normalize::normalize(&mut project, &tree));
    }
    select::profiles(&mut project);
    let wanted = &options.services;
    select::activate(&mut project, wanted);
    if !options.no_consistency {
        let _stage = trace_span!("consistency").entered();
        validate::consistency(&project, &tree, &loader.sources, &loader.damage, &mut loader.out);
    }
    if loader.failed() {
        // Files that are missing belong to the mistakes.
        loader.resolve_files(&mut project, &tree);
        return None;
    }
    lint::restart_policies(&project, &tree, &mut loader.out);
    lint::container_names(&project, &tree, &mut loader.out);
    if options.warn_unused {
        lint::unused(&project, &tree, &mut loader.out);
    }
    select::select(&mut project, wanted, options.no_deps, &mut loader.out);
    loader.resolve_files(&mut project, &tree);
    if !options.all_resources {
        select::prune(&mut project);
    }
    Some((project, tree))
}

fn first_file(inputs: &[Input]) -> Vec<PathBuf> {
    inputs
        .iter()
        .filter_map(|i| match i {
            Input::Path(p) => Some(p.clone()),
            Input::Stdin => None,
        })
        .collect()
}

fn active_profiles(options: &LoadOptions, env: &BTreeMap<String, String>) -> Vec<String> {
    if !options.profiles.is_empty() {
        return options.profiles.clone();
    }
    env.get("COMPOSE_PROFILES")
        .into_iter()
        .flat_map(|v| v.split(','))
        .map(|p| p.trim().to_owned())
        .filter(|p| !p.is_empty())
        .collect()
}

/// `-p`, `COMPOSE_PROJECT_NAME`, `name:` of the last file that has one, the directory.
fn project_name(
    loader: &mut Loader<'_>,
    inputs: &[Input],
    dir: &std::path::Path,
    env: &BTreeMap<String, String>,
) -> Option<String> {
    let given = loader
        .options
        .project_name
        .clone()
        .or_else(|| env.get("COMPOSE_PROJECT_NAME").cloned())
        .filter(|n| !n.is_empty());
    if let Some(name) = given {
        if files::is_project_name(&name) {
            return Some(name);
        }
        loader.out.push(
            Diagnostic::error(
                "invalid-project-name",
                format!(
                    "invalid project name \"{name}\": must consist only of lowercase alphanumeric characters, hyphens, and underscores as well as start with a letter or number"
                ),
            )
            .help(format!("try `{}`", discover::normalized_name(&name))),
        );
        // It goes on with another name, and fails in the end: the files have mistakes of their own.
        return Some("invalid".to_owned());
    }
    let mut named: Option<String> = None;
    for input in inputs {
        let Input::Path(path) = input else { continue };
        let Some(id) = loader.text(path, None) else { continue };
        // Cheap look before the file is parsed.
        if !loader.sources.text(id).contains("name") {
            continue;
        }
        let raw = loader.options.no_interpolate;
        for doc in loader.peek(id) {
            let Some(name) = tree::get(doc, "name") else { continue };
            let Some(text) = tree::str(name) else { continue };
            let text = if raw {
                text.to_owned()
            } else {
                template::expand(text, &|n| env.get(n).cloned()).map_or_else(|_| text.to_owned(), |e| e.text)
            };
            named = Some(text);
        }
    }
    let raw = match named.filter(|n| !n.is_empty()) {
        Some(name) => name,
        None => dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
    };
    let name = discover::normalized_name(&raw);
    if name.is_empty() {
        loader.out.push(
            Diagnostic::error("invalid-project-name", "project name must not be empty")
                .help("set one with `-p NAME` or a top-level `name:`"),
        );
        return None;
    }
    Some(name)
}

/// The canonical tree as a project.
fn decode(root: &Node, loader: &mut Loader<'_>) -> Project {
    fn all<T: Field>(root: &Node, key: &str, log: &mut Log<Node>) -> BTreeMap<String, T> {
        tree::section(root, key)
            .filter(|(name, _)| !name.starts_with("x-") || key == "services")
            .map(|(name, e)| (name.clone(), T::decode(&e.node, log)))
            .collect()
    }
    let mut log: Log<Node> = Vec::new();
    let mut project = Project {
        services: all::<Service>(root, "services", &mut log),
        networks: all(root, "networks", &mut log),
        volumes: all(root, "volumes", &mut log),
        secrets: all(root, "secrets", &mut log),
        configs: all(root, "configs", &mut log),
        models: all(root, "models", &mut log),
        ..Project::default()
    };
    for (name, service) in &mut project.services {
        service.name.clone_from(name);
    }
    for (name, network) in &mut project.networks {
        let options = tree::get(root, "networks").and_then(|n| tree::get(n, name));
        if let Some(options) =
            options.and_then(|n| tree::get(n, "ipam")).and_then(|n| tree::get(n, "options"))
        {
            network.ipam.options = Field::decode(options, &mut log);
        }
    }
    for (key, e) in root.as_map().into_iter().flatten() {
        if key.starts_with("x-") {
            project.extensions.insert(key.clone(), Field::decode(&e.node, &mut log));
        }
    }
    for (span, problem) in log {
        loader.out.push(Diagnostic::error("wrong-value", problem).at(span, "cannot be read"));
    }
    project
}
