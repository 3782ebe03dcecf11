//! The project from its files: settings → loader, and the loader's diagnostics → one error.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use hoist::compose::files::{self, LoadOptions};
use hoist::compose::{self, Files, Loaded, dotenv};
use hoist::diagnostic::{self, Diagnostic, Severity, SourceMap};
use hoist::model::{Mount, Port, Project};

use super::args::GlobalArgs;
use super::render::out;
use super::settings::Settings;

/// Mistakes in the user's files, as they are to be printed.
#[derive(Debug)]
pub(crate) struct Mistakes {
    /// Rendered diagnostics.
    pub(crate) text: String,
    /// Their first lines, for those who want one line.
    pub(crate) summary: String,
    /// All of them, as `schemas/diagnostics.json` describes.
    pub(crate) json: serde_json::Value,
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary)
    }
}

impl std::error::Error for Mistakes {}

/// What the loader is asked for.
///
/// # Errors
/// When the current directory is gone, or `-p` is no project name.
pub(crate) fn options(settings: &Settings) -> anyhow::Result<LoadOptions> {
    if let Some(name) = &settings.project_name {
        check_name(name)?;
    }
    Ok(LoadOptions {
        current_dir: std::env::current_dir().context("cannot find out the current directory")?,
        files: settings.files.clone(),
        project_name: settings.project_name.clone(),
        project_directory: settings.project_directory.clone(),
        env_files: settings.env_files.clone(),
        profiles: settings.profiles.clone(),
        environment: settings.environment().clone(),
        all_resources: settings.all_resources,
        ..LoadOptions::default()
    })
}

/// Refuses what can be no project name.
///
/// # Errors
/// With what a name may be.
pub(crate) fn check_name(name: &str) -> anyhow::Result<()> {
    if !files::is_project_name(name) {
        bail!(
            "invalid project name `{name}`: it must consist of lower-case letters, digits, hyphens and underscores, and begin with a letter or digit"
        );
    }
    Ok(())
}

/// Adds the `COMPOSE_*` variables of `.env` (or `--env-file`) that are not set already.
///
/// They are settings of the command line, so they are needed before a project
/// is looked for. Files that cannot be read or understood are left to the
/// loader, which says where the mistake is.
pub(crate) fn add_compose_variables(args: &GlobalArgs, environment: &mut BTreeMap<String, String>) {
    let dir: Option<PathBuf> =
        args.project_directory.clone().or_else(|| args.workdir.clone()).or_else(|| {
            let first = args.file.first().filter(|file| *file != "-")?;
            Path::new(first).parent().map(Path::to_owned)
        });
    let default = dir.unwrap_or_default().join(".env");
    let named = if args.env_file.is_empty() { std::slice::from_ref(&default) } else { &args.env_file };
    for file in named {
        let Ok(text) = std::fs::read_to_string(file) else { continue };
        if !text.contains("COMPOSE_") {
            continue;
        }
        let Ok(variables) = dotenv::parse(&text, &|name| environment.get(name).cloned()) else { continue };
        for (key, value) in variables.values {
            if key.starts_with("COMPOSE_") {
                environment.entry(key).or_insert(value);
            }
        }
    }
}

/// Loads what `options` say; warnings are printed.
///
/// # Errors
/// [`Mistakes`] in the files.
pub(crate) fn load(settings: &Settings, options: &LoadOptions) -> anyhow::Result<Loaded> {
    let shown = |all: &[Diagnostic], sources: &SourceMap| -> String { shown(settings, all, sources) };
    match compose::load(options, &compose::Disk) {
        Ok(loaded) => {
            out::talk(&shown(&loaded.warnings, &loaded.sources));
            Ok(loaded)
        }
        Err(failed) => {
            let text = shown(&failed.diagnostics, &failed.sources);
            let errors = failed.diagnostics.iter().filter(|d| d.severity == Severity::Error);
            let summary: Vec<&str> = errors.map(|d| d.message.as_str()).collect();
            let json = diagnostic::to_json(&failed.diagnostics, &failed.sources);
            Err(Mistakes { text, summary: summary.join("; "), json }.into())
        }
    }
}

/// How many diagnostics are shown: what is beyond them cannot be seen on a screen.
const SHOWN: usize = 20;

/// The first of them for a terminal, how many more there are, and all of them for GitHub when it runs us.
fn shown(settings: &Settings, all: &[Diagnostic], sources: &SourceMap) -> String {
    let mut text: String =
        all.iter().take(SHOWN).map(|one| diagnostic::render(one, sources, settings.color_stderr)).collect();
    if let Some(more) = all.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "... and {more} more; `hoist config --diagnostics text` shows all of them");
    }
    if settings.environment().get("GITHUB_ACTIONS").is_some_and(|v| v == "true") {
        text.push_str(&diagnostic::annotations(all, sources));
    }
    text
}

/// Loads, and gives what there is to say of the files instead of the project; and whether they are wrong.
pub(crate) fn report(options: &LoadOptions, json: bool, color: bool) -> (String, bool) {
    let (all, sources, failed) = match compose::load(options, &compose::Disk) {
        Ok(loaded) => (loaded.warnings, loaded.sources, false),
        Err(failed) => (failed.diagnostics, failed.sources, true),
    };
    let text = if json {
        format!("{:#}\n", diagnostic::to_json(&all, &sources))
    } else {
        all.iter().map(|one| diagnostic::render(one, &sources, color)).collect()
    };
    (text, failed)
}

/// Loads the project with these services (all when none is named) and what they depend on.
///
/// # Errors
/// [`Mistakes`] in the files.
pub(crate) fn model(settings: &Settings, services: &[String]) -> anyhow::Result<Project> {
    let mut options = options(settings)?;
    options.services = services.to_vec();
    Ok(load(settings, &options)?.project)
}

/// Loads the project for a verb that works on what is there: `env_file`s need
/// not exist, and services are not left out.
///
/// # Errors
/// [`Mistakes`] in the files.
pub(crate) fn existing(settings: &Settings, services: &[String]) -> anyhow::Result<Project> {
    let mut options = options(settings)?;
    options.no_env_resolution = true;
    let project = load(settings, &options)?.project;
    // Naming a service enables its profiles.
    if services.iter().any(|name| project.disabled.contains_key(name)) {
        options.profiles = project
            .disabled
            .values()
            .filter(|service| services.contains(&service.name))
            .flat_map(|service| service.profiles.clone())
            .chain(project.profiles.clone())
            .collect();
        return Ok(load(settings, &options)?.project);
    }
    Ok(project)
}

/// Ports and mounts of the command line in the compose file's short form.
///
/// They are read by the loader itself, from a file that only exists in memory,
/// so that they mean exactly what they mean in a compose file.
///
/// # Errors
/// [`Mistakes`] in them, and a path that is not text.
pub(crate) fn ports_and_mounts(
    settings: &Settings,
    ports: &[String],
    mounts: &[String],
) -> anyhow::Result<(Vec<Port>, Vec<Mount>)> {
    if ports.is_empty() && mounts.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let text =
        serde_json::json!({ "services": { "run": { "image": "run", "ports": ports, "volumes": mounts } } });
    let options = LoadOptions {
        files: vec!["-".into()],
        project_name: Some("run".into()),
        no_interpolate: true,
        no_consistency: true,
        ..options(settings)?
    };
    match compose::load(&options, &Given(text.to_string())) {
        Ok(mut loaded) => {
            let service =
                loaded.project.services.remove("run").context("cannot read --publish and --volume")?;
            Ok((service.ports, service.volumes))
        }
        Err(failed) => {
            let errors = failed.diagnostics.iter().filter(|d| d.severity == Severity::Error);
            let messages: Vec<&str> = errors.map(|d| d.message.as_str()).collect();
            bail!("cannot understand --publish or --volume: {}", messages.join("; "))
        }
    }
}

/// One file, given as standard input; the rest of the disk as it is.
struct Given(String);

impl Files for Given {
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        compose::Disk.read(path)
    }

    fn is_file(&self, path: &Path) -> bool {
        compose::Disk.is_file(path)
    }

    fn is_dir(&self, path: &Path) -> bool {
        compose::Disk.is_dir(path)
    }

    fn stdin(&self) -> std::io::Result<Vec<u8>> {
        Ok(self.0.clone().into_bytes())
    }

    fn real(&self, path: &Path) -> Option<PathBuf> {
        compose::Disk.real(path)
    }
}
