//! `env_file` and `label_file` of the enabled services, read into their variables and labels.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::diagnostic::{Diagnostic, Span};
use crate::model::{Project, Service};

use super::document::Node;
use super::dotenv;
use super::loader::Loader;
use super::tree::locate;

impl Loader<'_> {
    /// Reads them; the service's own `environment` and `labels` win.
    pub(super) fn resolve_files(&mut self, project: &mut Project, tree: &Node) {
        let env = std::mem::take(&mut project.environment);
        for (name, service) in &mut project.services {
            if !self.options.no_env_resolution {
                super::normalize::outside_values(service, &env);
                self.environment(name, service, &env, tree);
            }
            if !self.options.no_label_resolution {
                self.labels(name, service, tree);
            }
        }
        project.environment = env;
    }

    fn environment(
        &mut self,
        name: &str,
        service: &mut Service,
        env: &BTreeMap<String, String>,
        tree: &Node,
    ) {
        if service.env_file.is_empty() {
            return;
        }
        let mut read: BTreeMap<String, String> = BTreeMap::new();
        for (index, file) in std::mem::take(&mut service.env_file).into_iter().enumerate() {
            let span = locate(tree, &["services", name, "env_file", &index.to_string(), "path"], false);
            let path = PathBuf::from(file.path);
            if !self.files.is_file(&path) {
                if !file.optional {
                    self.missing("env file", &path, span);
                }
                continue;
            }
            let own = &service.environment;
            let outer = |key: &str| env.get(key).cloned().or_else(|| own.get(key).cloned().flatten());
            let earlier = |key: &str| read.get(key).cloned();
            let Some(id) = self.text(&path, Some(span)) else { continue };
            let text = self.sources.shared_text(id);
            let found = match file.format.as_deref() {
                Some("raw") => dotenv::parse_raw(&text, &|key| outer(key).or_else(|| earlier(key))),
                None | Some("dotenv" | "") => dotenv::parse_after(&text, &outer, &earlier),
                Some(other) => {
                    self.out.push(
                        Diagnostic::error("wrong-value", format!("unsupported env_file format \"{other}\""))
                            .at(span, "expected `raw`, or no format"),
                    );
                    continue;
                }
            };
            match found {
                Ok(found) => {
                    for (variable, range) in &found.unset {
                        self.out.push(
                            Diagnostic::warning(
                                "unset-variable",
                                format!(
                                    "the \"{variable}\" variable is not set. Defaulting to a blank string."
                                ),
                            )
                            .at(Span::new(id, range.start, range.end), "not set"),
                        );
                    }
                    read.extend(found.values);
                }
                Err(error) => {
                    let shown = self.shown(&path);
                    self.out.push(
                        Diagnostic::error("invalid-env-file", format!("failed to read {shown}: {error}"))
                            .at(Span::new(id, error.span.start, error.span.end), error.kind.to_string())
                            .also(span, "named here"),
                    );
                }
            }
        }
        for (key, value) in read {
            service.environment.entry(key).or_insert(Some(value));
        }
    }

    fn labels(&mut self, name: &str, service: &mut Service, tree: &Node) {
        let mut read: BTreeMap<String, String> = BTreeMap::new();
        for (index, file) in std::mem::take(&mut service.label_file).into_iter().enumerate() {
            let span = locate(tree, &["services", name, "label_file", &index.to_string()], false);
            let path = PathBuf::from(file);
            if !self.files.is_file(&path) {
                self.missing("label file", &path, span);
                continue;
            }
            let outer = read.clone();
            if let Some(found) = self.variables(&path, Some(span), &outer, &BTreeMap::new()) {
                read.extend(found);
            }
        }
        for (key, value) in read {
            service.labels.entry(key).or_insert(value);
        }
    }

    fn missing(&mut self, what: &str, path: &Path, span: Span) {
        let text = format!("{what} {} not found", path.display());
        let mut d = Diagnostic::error("cannot-read-file", text).at(span, "no such file");
        if what == "env file" {
            d = d.help("create it, or let it be missing: `- {path: FILE, required: false}`");
        }
        self.out.push(d);
    }
}
