//! Which files, which directory, which variables, which name.
//!
//! Source: `reference/cli.md` §3.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::diagnostic::{Diagnostic, Span};

use super::dotenv;
use super::loader::{Input, Loader};
use super::paths::Base;
use super::short::clean;

const NAMES: &[&str] = &["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
const OVERRIDES: &[&str] = &[
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
];

/// What was found.
pub(super) struct Found {
    pub(super) inputs: Vec<Input>,
    pub(super) base: Base,
    pub(super) env: BTreeMap<String, String>,
    pub(super) env_files: Vec<PathBuf>,
}

impl Loader<'_> {
    /// Settles files, project directory and environment.
    pub(super) fn discover(&mut self) -> Option<Found> {
        let options = self.options;
        let home = options.environment.get("HOME").cloned();
        let here = Base { dir: options.current_dir.clone(), home };
        let mut env = options.environment.clone();
        let mut loaded = Vec::new();
        let mut files: Vec<String> = options.files.clone();
        // What is known before the compose file is: `.env` of the directory given or of the first `-f`.
        let first_dir = match (&options.project_directory, files.first().map(String::as_str)) {
            (Some(dir), _) => PathBuf::from(here.absolute(&dir.to_string_lossy())),
            (None, None | Some("-")) => here.dir.clone(),
            (None, Some(file)) => parent(&PathBuf::from(here.absolute(file))),
        };
        let explicit: Vec<PathBuf> =
            options.env_files.iter().map(|p| PathBuf::from(here.absolute(&p.to_string_lossy()))).collect();
        let disabled = match env.get("COMPOSE_DISABLE_ENV_FILE").map_or("", String::as_str) {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
            "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
            other => {
                let text =
                    format!("`COMPOSE_DISABLE_ENV_FILE` is `{other}`, which is neither true nor false");
                self.out.push(Diagnostic::error("wrong-value", text).help("set it to `true` or `false`"));
                return None;
            }
        };
        if explicit.is_empty() {
            if !disabled {
                self.dot_env(&first_dir, &mut env, &mut loaded)?;
            }
        } else {
            let mut read: BTreeMap<String, String> = BTreeMap::new();
            for path in &explicit {
                if self.files.is_dir(path) {
                    let text = format!("`{}` is a directory", path.display());
                    self.out.push(Diagnostic::error("cannot-read-file", text));
                    return None;
                }
                if !self.files.is_file(path) {
                    let text = format!("couldn't find env file: {}", path.display());
                    self.out.push(Diagnostic::error("cannot-read-file", text));
                    return None;
                }
                let found = self.project_variables(path, None, &env, &read)?;
                read.extend(found);
            }
            // The last one named wins.
            self.history.variables.reverse();
            for (k, v) in read {
                env.entry(k).or_insert(v);
            }
        }
        if files.is_empty()
            && let Some(list) = env.get("COMPOSE_FILE").filter(|f| !f.is_empty())
        {
            let separator =
                env.get("COMPOSE_PATH_SEPARATOR").filter(|s| !s.is_empty()).map_or(":", String::as_str);
            files = list.split(separator).map(str::to_owned).collect();
        }
        let inputs: Vec<Input> = if files.is_empty() {
            self.search(&first_dir)?
        } else {
            files
                .iter()
                .map(|f| if f == "-" { Input::Stdin } else { Input::Path(PathBuf::from(here.absolute(f))) })
                .collect()
        };
        let dir = match (&options.project_directory, inputs.first()) {
            (Some(dir), _) => PathBuf::from(here.absolute(&dir.to_string_lossy())),
            (None, Some(Input::Path(p))) => parent(p),
            _ => here.dir.clone(),
        };
        if explicit.is_empty() && !disabled && dir != first_dir {
            self.dot_env(&dir, &mut env, &mut loaded)?;
        }
        if !env.contains_key("PWD") {
            env.insert("PWD".into(), options.current_dir.display().to_string());
        }
        Some(Found { inputs, base: Base { dir, home: here.home }, env, env_files: explicit })
    }

    fn dot_env(
        &mut self,
        dir: &Path,
        env: &mut BTreeMap<String, String>,
        loaded: &mut Vec<PathBuf>,
    ) -> Option<()> {
        let path = dir.join(".env");
        if self.files.is_file(&path) && !loaded.contains(&path) {
            for (k, v) in self.project_variables(&path, None, env, &BTreeMap::new())? {
                env.entry(k).or_insert(v);
            }
            loaded.push(path);
        }
        Some(())
    }

    fn search(&mut self, from: &Path) -> Option<Vec<Input>> {
        let mut dir = Some(from);
        while let Some(here) = dir {
            if let Some(main) = self.pick(here, NAMES) {
                let mut all = vec![Input::Path(main)];
                all.extend(self.pick(here, OVERRIDES).map(Input::Path));
                return Some(all);
            }
            dir = here.parent();
        }
        self.out.push(
            Diagnostic::error("no-file", "no configuration file provided: not found")
                .help("create a `compose.yaml`, go to the directory that has one, or name it with `-f`"),
        );
        None
    }

    fn pick(&mut self, dir: &Path, names: &[&str]) -> Option<PathBuf> {
        let found: Vec<PathBuf> =
            names.iter().map(|n| dir.join(n)).filter(|p| self.files.is_file(p)).collect();
        let first = found.first()?.clone();
        if found.len() > 1 {
            let all: Vec<String> = found.iter().map(|p| p.display().to_string()).collect();
            self.out.push(Diagnostic::warning(
                "several-files",
                format!("found several compose files, using `{}`: {}", first.display(), all.join(", ")),
            ));
        }
        Some(first)
    }

    /// [`Loader::variables`] of a file that text is interpolated with.
    pub(super) fn project_variables(
        &mut self,
        path: &Path,
        asked: Option<Span>,
        outer: &BTreeMap<String, String>,
        earlier: &BTreeMap<String, String>,
    ) -> Option<Vec<(String, String)>> {
        let found = self.variables(path, asked, outer, earlier);
        let id = self.text(path, asked)?;
        self.history.variables.push(id);
        found
    }

    /// Reads a file of variables; mistakes are logged at their place in it. What its values use is
    /// looked up in `outer`, then in the file, then in `earlier` files.
    pub(super) fn variables(
        &mut self,
        path: &Path,
        asked: Option<Span>,
        outer: &BTreeMap<String, String>,
        earlier: &BTreeMap<String, String>,
    ) -> Option<Vec<(String, String)>> {
        let id = self.text(path, asked)?;
        let text = self.sources.shared_text(id);
        match dotenv::parse_after(&text, &|name| outer.get(name).cloned(), &|name| earlier.get(name).cloned())
        {
            Ok(found) => {
                for (name, range) in &found.unset {
                    self.out.push(
                        Diagnostic::warning(
                            "unset-variable",
                            format!("the \"{name}\" variable is not set. Defaulting to a blank string."),
                        )
                        .at(Span::new(id, range.start, range.end), "not set"),
                    );
                }
                Some(found.values.into_iter().collect())
            }
            Err(error) => {
                let shown = self.shown(path);
                self.out.push(
                    Diagnostic::error("invalid-env-file", format!("failed to read {shown}: {error}"))
                        .at(Span::new(id, error.span.start, error.span.end), error.kind.to_string()),
                );
                None
            }
        }
    }
}

fn parent(path: &Path) -> PathBuf {
    PathBuf::from(clean(&path.parent().unwrap_or(Path::new("/")).to_string_lossy()))
}

/// Lower case, without what names may not have; empty when nothing is left.
pub(super) fn normalized_name(raw: &str) -> String {
    let lower = raw.to_lowercase();
    let kept: String = lower
        .chars()
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-'))
        .collect();
    kept.trim_start_matches(['_', '-']).to_owned()
}
