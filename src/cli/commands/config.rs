//! `config`: the project as it is understood, whole or one aspect of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use hoist::compose::{Loaded, yaml};
use hoist::model::record::Style;
use hoist::model::{Project, hash, json};
use hoist::ops;

use super::super::load;
use super::super::render::{explain, out};
use super::super::session;
use super::{Exit, Settings, Verb};

/// Print the compose files as they are understood
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct Args {
    /// Print what is wrong or doubtful instead of the configuration: as JSON for editors and CI, or text
    #[arg(long, value_name = "FORMAT", value_parser = ["json", "text"])]
    diagnostics: Option<String>,
    /// Print the variables that files are interpolated with
    #[arg(long)]
    environment: bool,
    /// Print for each value at PATH (such as services.web.image) who set it, where, and what it overrode
    #[arg(long, value_name = "PATH", num_args = 0..=1, default_missing_value = "")]
    explain: Option<String>,
    /// Output format: yaml or json
    #[arg(long, value_name = "FORMAT", default_value = "yaml", value_parser = ["yaml", "json"])]
    format: String,
    /// Print the configuration hash of these services (comma-separated), or of all with `*`
    #[arg(long, value_name = "SERVICES")]
    hash: Option<String>,
    /// Print the image names, one per line
    #[arg(long)]
    images: bool,
    /// Print an override file that fixes images (and image volumes) by their digests in the registry
    #[arg(long)]
    lock_image_digests: bool,
    /// Print the models, one per line
    #[arg(long)]
    models: bool,
    /// Print the network keys, one per line
    #[arg(long)]
    networks: bool,
    /// Print the profile names, one per line
    #[arg(long)]
    profiles: bool,
    /// Print images by their digests in the registry, as name:tag@sha256:…
    #[arg(long)]
    resolve_image_digests: bool,
    /// Print the service names, one per line
    #[arg(long)]
    services: bool,
    /// Print the variables that the files use, with their defaults
    #[arg(long)]
    variables: bool,
    /// Print the volume keys, one per line
    #[arg(long)]
    volumes: bool,
    /// Skip the checks across services and resources
    #[arg(long)]
    no_consistency: bool,
    /// Keep `env_file` instead of reading it
    #[arg(long)]
    no_env_resolution: bool,
    /// Leave variables as they stand
    #[arg(long)]
    no_interpolate: bool,
    /// Add no defaults such as the default network
    #[arg(long)]
    no_normalize: bool,
    /// Keep relative paths
    #[arg(long)]
    no_path_resolution: bool,
    /// Write to a file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Only say whether the files are right
    #[arg(short, long)]
    quiet: bool,
    /// Only these services and what they depend on
    #[arg(value_name = "SERVICE")]
    only: Vec<String>,
}

impl Verb for Args {
    fn run(self, settings: Settings) -> anyhow::Result<Exit> {
        let mut options = load::options(&settings)?;
        options.no_interpolate = self.no_interpolate || self.variables;
        options.no_normalize = self.no_normalize || settings.compatibility;
        options.no_path_resolution = self.no_path_resolution;
        options.no_consistency = self.no_consistency || self.variables;
        let unread = self.no_env_resolution || self.no_interpolate || self.variables;
        // The hash printed is that of the definition, before variables of files go in.
        options.no_env_resolution = unread || self.hash.is_some();
        options.no_label_resolution = unread;
        if self.hash.is_none() && !self.services {
            options.services.clone_from(&self.only);
        }
        // Aspects that ask for everything declared, not for what is used.
        if self.profiles || self.variables || self.environment || self.no_interpolate {
            options.all_resources = true;
        }
        if self.no_interpolate && !self.only.is_empty() {
            out::talk("warning: service names are ignored together with --no-interpolate\n");
        }
        options.explain = self.explain.is_some();
        options.warn_unused = true;
        if let Some(format) = &self.diagnostics {
            let (report, failed) = load::report(&options, format == "json", settings.color_stdout);
            self.write(&report)?;
            return Ok(if failed { Exit::Failure } else { Exit::Success });
        }
        let mut loaded = load::load(&settings, &options)?;
        if self.resolve_image_digests || self.lock_image_digests {
            if self.no_interpolate {
                bail!(
                    "digests cannot be looked up together with `--no-interpolate`: names may have variables in them"
                );
            }
            session::operate(&settings, session::NO_LOGS, async |engine, _, _| {
                Ok(ops::pin_images(&*engine, &mut loaded.project).await?)
            })?;
        }
        if self.lock_image_digests {
            for (name, service) in &loaded.project.services {
                if service.pre_start.iter().any(|hook| hook.image.is_some()) {
                    out::talk(&format!(
                        "warning: service `{name}`: the images of its `pre_start` hooks are not fixed\n"
                    ));
                }
            }
            loaded.project = ops::only_images(&loaded.project);
        }
        if !self.quiet || self.asks_for_an_aspect() {
            let text = self.text(&loaded)?;
            self.write(&text)?;
        }
        // The process ends here: to take a big project apart piece by piece would be a tenth of its time.
        std::mem::forget(loaded);
        Ok(Exit::Success)
    }
}

fn lines<S: AsRef<str>>(all: impl IntoIterator<Item = S>) -> String {
    all.into_iter().fold(String::new(), |mut text, line| {
        text.push_str(line.as_ref());
        text.push('\n');
        text
    })
}

impl Args {
    /// Whether something else than the whole configuration is asked for; that is printed in any case.
    fn asks_for_an_aspect(&self) -> bool {
        let lists = [self.services, self.volumes, self.networks, self.models, self.profiles, self.images];
        lists.contains(&true)
            || self.variables
            || self.environment
            || self.hash.is_some()
            || self.explain.is_some()
    }

    fn write(&self, text: &str) -> anyhow::Result<()> {
        match &self.output {
            Some(path) => {
                std::fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))
            }
            None => Ok(out::print(text)?),
        }
    }

    fn text(&self, loaded: &Loaded) -> anyhow::Result<String> {
        let project = &loaded.project;
        if let Some(path) = &self.explain {
            return explain::text(loaded, path, self.format == "json");
        }
        if self.services {
            return Ok(lines(dependencies_first(project)));
        }
        if self.volumes {
            return Ok(lines(project.volumes.keys()));
        }
        if self.networks {
            return Ok(lines(project.networks.keys()));
        }
        if self.models {
            return Ok(lines(project.models.values().filter_map(|m| m.model.as_deref())));
        }
        if let Some(wanted) = &self.hash {
            return hashes(project, wanted);
        }
        if self.profiles {
            let services = project.services.values().chain(project.disabled.values());
            let all: BTreeSet<&String> = services.flat_map(|s| &s.profiles).collect();
            return Ok(lines(all));
        }
        if self.images {
            return Ok(lines(images(project)));
        }
        if self.variables {
            return Ok(variables(loaded, self.format == "json"));
        }
        if self.environment {
            return Ok(lines(project.environment.iter().map(|(k, v)| format!("{k}={v}"))));
        }
        let json = self.format == "json";
        if self.no_interpolate {
            let raw = loaded.raw();
            return Ok(if json { json::pretty(&raw) + "\n" } else { yaml::print(&raw, false) });
        }
        Ok(if json {
            let tree = project.render(Style::Json);
            if !tree.is_finite() {
                bail!(
                    "cannot print the project as JSON: it has a value such as `.inf` or `.nan`, which JSON has no number for; use `--format yaml`"
                );
            }
            json::pretty(&tree).replace('$', "$$") + "\n"
        } else {
            yaml::print(&project.render(Style::Yaml), true)
        })
    }
}

/// Service names, each after those it depends on, otherwise by name.
fn dependencies_first(project: &Project) -> Vec<&str> {
    fn visit<'p>(project: &'p Project, name: &'p str, seen: &mut BTreeSet<&'p str>, out: &mut Vec<&'p str>) {
        if !seen.insert(name) {
            return;
        }
        if let Some(service) = project.services.get(name) {
            for other in service.depends_on.keys() {
                visit(project, other, seen, out);
            }
            out.push(name);
        }
    }
    let (mut seen, mut out) = (BTreeSet::new(), Vec::new());
    for name in project.services.keys() {
        visit(project, name, &mut seen, &mut out);
    }
    out
}

fn hashes(project: &Project, wanted: &str) -> anyhow::Result<String> {
    let mut text = String::new();
    let names: Vec<&str> = if wanted == "*" {
        project.services.keys().map(String::as_str).collect()
    } else {
        let mut names: Vec<&str> = wanted.split(',').filter(|n| !n.is_empty()).collect();
        names.sort_unstable();
        names
    };
    for name in names {
        let Some(service) = project.services.get(name) else { bail!("no such service: {name}") };
        let mut service = service.clone();
        if service.platform.is_none()
            && let Some(build) = &service.build
        {
            service.platform = project.environment.get("DOCKER_DEFAULT_PLATFORM").cloned();
            if let Some(platform) = &service.platform
                && !build.platforms.is_empty()
                && !build.platforms.contains(platform)
            {
                bail!(
                    "service `{name}` is not built for `{platform}`, which `DOCKER_DEFAULT_PLATFORM` asks for: add it to `build.platforms`"
                );
            }
        }
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name} {}", hash::service(&service));
    }
    Ok(text)
}

fn images(project: &Project) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for service in project.services.values() {
        all.push(project.image_of(service));
    }
    let hooks = project.services.values().flat_map(|s| &s.pre_start).filter_map(|h| h.image.as_ref());
    for image in hooks {
        if !all.contains(image) {
            all.push(image.clone());
        }
    }
    all
}

fn variables(loaded: &Loaded, json: bool) -> String {
    let mut all: BTreeMap<String, hoist::compose::template::Variable> = BTreeMap::new();
    for variable in loaded.variables() {
        all.entry(variable.name.clone()).or_insert(variable);
    }
    if json {
        let map: serde_json::Map<String, serde_json::Value> = all
            .into_iter()
            .map(|(name, v)| {
                let value = serde_json::json!({
                    "Name": v.name,
                    "DefaultValue": v.default,
                    "PresenceValue": v.presence,
                    "Required": v.required,
                });
                (name, value)
            })
            .collect();
        // Four blanks, as Docker Compose prints this one.
        let mut text = Vec::new();
        let layout = serde_json::ser::PrettyFormatter::with_indent(b"    ");
        let mut printer = serde_json::Serializer::with_formatter(&mut text, layout);
        // Strings and flags cannot fail to print.
        drop(serde::Serialize::serialize(&map, &mut printer));
        text.push(b'\n');
        return String::from_utf8(text).unwrap_or_default();
    }
    let rows: Vec<[String; 4]> =
        all.into_values().map(|v| [v.name, v.required.to_string(), v.default, v.presence]).collect();
    let head = ["NAME", "REQUIRED", "DEFAULT VALUE", "ALTERNATE VALUE"];
    let mut widths = head.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in std::iter::once(head.map(str::to_owned)).chain(rows) {
        for (number, cell) in row.iter().enumerate() {
            if number + 1 == row.len() {
                text.push_str(cell);
            } else {
                let width = (widths[number] + 3).max(20);
                let _ = write!(text, "{cell:width$}");
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_come_first() {
        let mut project = Project::default();
        for (name, needs) in [("a", Some("c")), ("b", None), ("c", None)] {
            let mut service = hoist::model::Service { name: name.to_owned(), ..Default::default() };
            if let Some(other) = needs {
                service.depends_on.insert(other.to_owned(), hoist::model::Dependency::default());
            }
            project.services.insert(name.to_owned(), service);
        }
        assert_eq!(dependencies_first(&project), ["c", "a", "b"]);
    }
}
