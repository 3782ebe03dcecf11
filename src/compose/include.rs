//! `include`: whole models with project directories and variables of their own.
//!
//! Source: `reference/model.md` §8.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::diagnostic::Diagnostic;

use super::canonical;
use super::document::{Entry, Kind, Map, Node};
use super::loader::{Context, Input, Loader, remove, unwrapped, wrapped};
use super::paths::Base;
use super::tree::{get, map_mut, node, scalar, take};

const SECTIONS: &[&str] = &["services", "volumes", "networks", "secrets", "configs", "models"];

fn strings(node: Option<&Node>) -> Vec<(String, crate::diagnostic::Span)> {
    match node.map(|n| &n.kind) {
        Some(Kind::List(items)) => items.iter().filter_map(|i| Some((scalar(i)?, i.span))).collect(),
        Some(Kind::Null) | None => Vec::new(),
        Some(_) => node.and_then(|n| Some((scalar(n)?, n.span))).into_iter().collect(),
    }
}

impl Loader<'_> {
    /// Copies what the includes of `doc` define into it; what `doc` itself says is on top. What cannot be
    /// included is logged.
    pub(super) fn include(&mut self, doc: &mut Node, context: &Context, cleared: &[Vec<String>]) {
        let Some(list) = map_mut(doc).and_then(|m| m.shift_remove("include")) else { return };
        let Kind::List(items) = list.node.kind else { return };
        for item in items {
            match self.included(&item, context) {
                Some(model) => import(doc, model, cleared, &mut self.out),
                // Its names are not known.
                None => self.damage.incomplete = true,
            }
        }
    }

    fn included(&mut self, item: &Node, context: &Context) -> Option<Node> {
        let paths = match &item.kind {
            Kind::Text(path) => vec![(path.clone(), item.span)],
            Kind::Map(m) => {
                for (key, e) in m {
                    if !matches!(key.as_str(), "path" | "env_file" | "project_directory")
                        && !key.starts_with("x-")
                    {
                        // Docker Compose says nothing, so this must not stop the load.
                        self.out.push(
                            Diagnostic::warning(
                                "unknown-include-key",
                                format!("an include has no attribute `{key}`"),
                            )
                            .at(e.key, "expected `path`, `project_directory` or `env_file`"),
                        );
                    }
                }
                strings(get(item, "path"))
            }
            _ => Vec::new(),
        };
        if paths.is_empty() {
            self.out.push(
                Diagnostic::error("missing-key", "an include needs `path`")
                    .at(item.span, "`path` is missing"),
            );
            return None;
        }
        let files: Vec<(PathBuf, crate::diagnostic::Span)> =
            paths.into_iter().map(|(p, span)| (PathBuf::from(context.base.absolute(&p)), span)).collect();
        let (main, span) = files.first()?.clone();
        if context.including.contains(&main) {
            let names: Vec<String> = context.including.iter().chain([&main]).map(|p| self.shown(p)).collect();
            self.out.push(
                Diagnostic::error(
                    "include-cycle",
                    format!("files include one another in a circle: {}", names.join(" -> ")),
                )
                .at(span, "includes itself in the end"),
            );
            return None;
        }
        for (path, span) in &files {
            self.text(path, Some(*span))?;
        }
        let dir = match get(item, "project_directory").and_then(scalar).filter(|d| !d.is_empty()) {
            Some(dir) => PathBuf::from(context.base.absolute(&dir)),
            None => main.parent().unwrap_or(Path::new("/")).to_owned(),
        };
        let base = Base { dir, home: context.base.home.clone() };
        let given = strings(get(item, "env_file"));
        let mut env_files: Vec<(PathBuf, Option<crate::diagnostic::Span>)> = Vec::new();
        if given.is_empty() {
            let usual = base.dir.join(".env");
            if self.files.is_file(&usual) {
                env_files.push((usual, None));
            }
        } else {
            for (path, span) in given {
                if path != "/dev/null" {
                    env_files.push((PathBuf::from(context.base.absolute(&path)), Some(span)));
                }
            }
        }
        // Later files win, and what was there before wins over all of them.
        let mut read = BTreeMap::new();
        let known = self.history.variables.len();
        for (path, span) in env_files {
            let found = self.project_variables(&path, span, &context.env, &read)?;
            read.extend(found);
        }
        self.history.variables[known..].reverse();
        let mut env = read;
        env.extend(context.env.clone());
        let mut including = context.including.clone();
        including.push(main);
        let inputs: Vec<Input> = files.into_iter().map(|(p, _)| Input::Path(p)).collect();
        self.model(&inputs, &Context { base, env, including, included: true })
    }
}

/// Copies an included model into `doc`; a definition on both sides must be the same.
fn import(doc: &mut Node, mut model: Node, cleared: &[Vec<String>], out: &mut Vec<Diagnostic>) {
    let span = doc.span;
    let Some(target) = map_mut(doc) else { return };
    for section in SECTIONS {
        let Some(Kind::Map(items)) = super::tree::get_mut(&mut model, section).map(take).map(|n| n.kind)
        else {
            continue;
        };
        let own = target
            .entry((*section).to_owned())
            .or_insert_with(|| Entry { key: span, node: node(Kind::Map(Map::default()), span) });
        let Some(own) = map_mut(&mut own.node) else { continue };
        for (name, item) in items {
            let Some(mine) = own.get(&name) else {
                own.insert(name, item);
                continue;
            };
            let mut root = wrapped(section, &name, item.node);
            for path in cleared {
                remove(&mut root, path);
            }
            let imported = unwrapped(section, &name, root);
            let mut long = wrapped(section, &name, mine.node.clone());
            canonical::canonical(&mut long, false, &mut Vec::new());
            let mine_long = unwrapped(section, &name, long);
            if !same(&imported, &mine_long) && !same(&imported, &mine.node) {
                out.push(
                    Diagnostic::error(
                        "include-conflict",
                        format!("`{section}.{name}` is defined here and, differently, in an included file"),
                    )
                    .at(mine.key, "defined here")
                    .also(item.key, "and here")
                    .help(
                        "change it in a file given with a further `-f`, or in a second `path` of the include",
                    ),
                );
            }
        }
    }
}

/// Whether two values are equal, wherever they stand.
fn same(a: &Node, b: &Node) -> bool {
    match (&a.kind, &b.kind) {
        (Kind::Map(x), Kind::Map(y)) => {
            x.len() == y.len() && x.iter().all(|(k, e)| y.get(k).is_some_and(|o| same(&e.node, &o.node)))
        }
        (Kind::List(x), Kind::List(y)) => x.len() == y.len() && x.iter().zip(y).all(|(l, r)| same(l, r)),
        (x, y) => x == y,
    }
}
