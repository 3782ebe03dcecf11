//! Where each value of a project comes from: file, place and layer, what it overrode, and which
//! variables went into it.
//!
//! The tree keeps the place of every value through all stages; what is missing there, and kept
//! here while loading when [`LoadOptions::explain`](super::LoadOptions::explain) asks for it, is
//! what each layer said before the next one was put on top.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::diagnostic::{FileId, SourceMap, Span};
use crate::model::json;
use crate::model::record::{Out, Style};

use super::Loaded;
use super::canonical;
use super::document::{Kind, Node};
use super::template;
use super::tree::{get, str, to_out};

/// What kind of source a value was set by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// The first compose file.
    Base,
    /// A compose file on top of the first: `compose.override.yaml`, a further `-f`.
    Override,
    /// A file that `extends` names.
    Extends,
    /// A file that `include` names.
    Include,
    /// A file of variables: `.env`, `--env-file`, `env_file`, `label_file`.
    EnvFile,
    /// The environment of the process.
    Shell,
    /// Nobody: what Compose takes where nothing is said.
    Default,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Base => "base",
            Self::Override => "override",
            Self::Extends => "extends",
            Self::Include => "include",
            Self::EnvFile => "env file",
            Self::Shell => "shell",
            Self::Default => "default",
        })
    }
}

/// Who said a value, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Kind of source.
    pub layer: Layer,
    /// Where; none for the shell and for defaults.
    pub span: Option<Span>,
}

/// One value of the project: a path without anything below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// Keys and list positions, joined by dots: `services.web.ports.0.target`.
    pub path: String,
    /// The value as JSON on one line.
    pub value: String,
    /// Who set it.
    pub origin: Origin,
    /// Variables in it, by name, and who set those; [`Layer::Default`] for one that is not set.
    pub variables: Vec<(String, Origin)>,
    /// Values of other layers that it took the place of, in the order in which they were applied.
    pub overrode: Vec<(String, Origin)>,
}

/// What a load remembers about its layers.
#[derive(Debug, Default)]
pub(super) struct History {
    /// What each file is to the project.
    pub(super) files: BTreeMap<FileId, Layer>,
    /// Files of variables, the one that wins first.
    pub(super) variables: Vec<FileId>,
    /// Every layer in long form, in the order of application; empty unless asked for.
    layers: Vec<Node>,
}

impl History {
    /// Remembers a layer before another one is put on top of it.
    pub(super) fn layer(&mut self, mut tree: Node) {
        // Its mistakes are reported when the project itself is lengthened.
        canonical::canonical(&mut tree, false, &mut Vec::new());
        self.layers.push(tree);
    }

    fn origin(&self, span: Span) -> Origin {
        Origin { layer: self.files.get(&span.file).copied().unwrap_or(Layer::Base), span: Some(span) }
    }
}

impl Loaded {
    /// Explains every value at or below `wanted`, a path as in [`Explained::path`]; all when it is
    /// empty. In the order in which `config` prints them. What values overrode is known only after
    /// a load with [`LoadOptions::explain`](super::LoadOptions::explain).
    pub fn explain(&self, wanted: &str) -> Vec<Explained> {
        let mut leaves = Vec::new();
        collect(&self.project.render(Style::Yaml), &mut Vec::new(), &mut leaves);
        leaves
            .into_iter()
            .filter_map(|(path, value)| {
                let joined = path.join(".");
                let rest = joined.strip_prefix(wanted)?;
                (wanted.is_empty() || rest.is_empty() || rest.starts_with('.'))
                    .then(|| self.explained(&path, joined.clone(), json::compact(&value)))
            })
            .collect()
    }

    fn explained(&self, path: &[String], joined: String, value: String) -> Explained {
        let steps: Vec<&str> = path.iter().map(String::as_str).collect();
        let mut explained = Explained {
            path: joined,
            value,
            origin: Origin { layer: Layer::Default, span: None },
            variables: Vec::new(),
            overrode: Vec::new(),
        };
        let Some(node) = find(&self.tree, &steps) else {
            explained.origin = self.listed_file(&steps).unwrap_or(explained.origin);
            return explained;
        };
        explained.origin = self.history.origin(node.span);
        // A key of `environment` without a value takes that of the variable.
        if node.is_null()
            && let ["services", _, "environment", name] = steps.as_slice()
        {
            explained.variables.push(((*name).to_owned(), self.variable(name)));
        } else {
            let mut names: Vec<String> = template::variables(self.sources.snippet(node.span))
                .unwrap_or_default()
                .into_iter()
                .map(|variable| variable.name)
                .collect();
            names.dedup();
            explained.variables =
                names.into_iter().map(|name| (name.clone(), self.variable(&name))).collect();
        }
        let positions = path.iter().any(|step| step.bytes().all(|b| b.is_ascii_digit()));
        for layer in self.history.layers.iter().filter(|_| !positions) {
            let Some(old) = find(layer, &steps) else { continue };
            let origin = self.history.origin(old.span);
            if old.span != node.span && explained.overrode.iter().all(|(_, known)| *known != origin) {
                explained.overrode.push((json::compact(&to_out(old)), origin));
            }
        }
        explained
    }

    /// A variable or label that a file listed in `env_file` or `label_file` sets.
    fn listed_file(&self, steps: &[&str]) -> Option<Origin> {
        let ["services", service, section, name] = steps else { return None };
        let list = match *section {
            "environment" => "env_file",
            "labels" => "label_file",
            _ => return None,
        };
        let files = get(get(get(&self.tree, "services")?, service)?, list)?.as_list()?;
        files.iter().rev().find_map(|file| {
            let path = str(file).or_else(|| get(file, "path").and_then(str))?;
            let id = self.sources.find(Path::new(path))?;
            Some(Origin { layer: Layer::EnvFile, span: Some(assignment(&self.sources, id, name)?) })
        })
    }

    fn variable(&self, name: &str) -> Origin {
        if self.shell.contains_key(name) {
            return Origin { layer: Layer::Shell, span: None };
        }
        let found = self.history.variables.iter().find_map(|id| assignment(&self.sources, *id, name));
        Origin { layer: found.map_or(Layer::Default, |_| Layer::EnvFile), span: found }
    }
}

/// The values that have nothing below them, with their paths.
fn collect(out: &Out, path: &mut Vec<String>, found: &mut Vec<(Vec<String>, Out)>) {
    let mut below = |key: String, value: &Out| {
        path.push(key);
        collect(value, path, found);
        path.pop();
    };
    match out {
        Out::List(items) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                below(index.to_string(), item);
            }
        }
        Out::Map(entries) if !entries.is_empty() => {
            let mut sorted: Vec<_> = entries.iter().collect();
            sorted.sort_by(|a, b| a.0.cmp(&b.0));
            for (key, value) in sorted {
                below(key.clone(), value);
            }
        }
        Out::Record(fields, more) if !(fields.is_empty() && more.is_empty()) => {
            for (key, value) in fields {
                below((*key).to_owned(), value);
            }
            for (key, value) in more {
                below(key.clone(), value);
            }
        }
        _ => found.push((path.clone(), out.clone())),
    }
}

/// The node at a path, if the files say anything there.
fn find<'n>(root: &'n Node, steps: &[&str]) -> Option<&'n Node> {
    steps.iter().try_fold(root, |at, step| match &at.kind {
        Kind::Map(map) => map.get(*step).map(|entry| &entry.node),
        Kind::List(items) => items.get(step.parse::<usize>().ok()?),
        _ => None,
    })
}

/// Where a file of variables sets `name`: the last place, which is the one that counts.
fn assignment(sources: &SourceMap, file: FileId, name: &str) -> Option<Span> {
    let mut found = None;
    let mut at = 0;
    for line in sources.text(file).split_inclusive('\n') {
        let trimmed = line.trim_start();
        let key = trimmed.strip_prefix("export ").map_or(trimmed, str::trim_start);
        if let Some(rest) = key.strip_prefix(name)
            && rest.trim_start().starts_with(['=', ':'])
        {
            let from = at + line.len() - key.len();
            found = Some(Span::new(file, from, from + name.len()));
        }
        at += line.len();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_assignment_of_a_file_counts() {
        let mut sources = SourceMap::default();
        let file = sources.add(Path::new("/p/.env"), ".env", "A=1\nAB=2\nexport A = 3\n# A=4\n");
        let span = assignment(&sources, file, "A").expect("it is set");
        assert_eq!(sources.place(span), ".env:3:8");
        assert!(assignment(&sources, file, "B").is_none());
    }
}
