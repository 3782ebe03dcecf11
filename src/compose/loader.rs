//! One model out of several files: read, interpolate, include, extend, merge, check, lengthen.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::diagnostic::{Diagnostic, FileId, Severity, SourceMap, Span};

use super::canonical;
use super::checks;
use super::document::{self, Kind, Map, Node, Tag};
use super::files::{Files, LoadOptions};
use super::interpolate::interpolate;
use super::merge::{merge, unique};
use super::paths::{self, Base};
use super::provenance::{History, Layer};
use super::schema;
use super::tree::{get, get_mut, is_null, map_mut, node};

/// The state of one load.
pub(super) struct Loader<'a> {
    pub(super) options: &'a LoadOptions,
    pub(super) files: &'a dyn Files,
    pub(super) sources: SourceMap,
    pub(super) out: Vec<Diagnostic>,
    /// Extended files, read and lengthened, by path.
    pub(super) extended: HashMap<PathBuf, Option<Rc<Node>>>,
    /// What is known about the layers.
    pub(super) history: History,
    /// Whole texts by path, so that a file read twice has one id.
    read: HashMap<PathBuf, FileId>,
}

/// One compose file to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Input {
    Path(PathBuf),
    Stdin,
}

/// What the files of one model have in common.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) base: Base,
    pub(super) env: BTreeMap<String, String>,
    /// Files being included, outermost first.
    pub(super) including: Vec<PathBuf>,
    /// Whether `include` asked for this model.
    pub(super) included: bool,
}

impl<'a> Loader<'a> {
    pub(super) fn new(options: &'a LoadOptions, files: &'a dyn Files) -> Self {
        Self {
            options,
            files,
            sources: SourceMap::default(),
            out: Vec::new(),
            extended: HashMap::new(),
            history: History::default(),
            read: HashMap::new(),
        }
    }

    pub(super) fn failed(&self) -> bool {
        self.out.iter().any(|d| d.severity == Severity::Error)
    }

    fn errors(&self) -> usize {
        self.out.iter().filter(|d| d.severity == Severity::Error).count()
    }

    pub(super) fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.options.current_dir).unwrap_or(path).display().to_string()
    }

    /// Reads a file into the source map; logs why not, at the place that asked for it.
    pub(super) fn text(&mut self, path: &Path, asked: Option<Span>) -> Option<FileId> {
        if let Some(id) = self.read.get(path) {
            return Some(*id);
        }
        match self.files.read(path) {
            Ok(bytes) => {
                let id = self.add(path, bytes)?;
                self.read.insert(path.to_owned(), id);
                Some(id)
            }
            Err(error) => {
                let shown = self.shown(path);
                let why = match error.kind() {
                    std::io::ErrorKind::NotFound => "no such file".to_owned(),
                    std::io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
                    std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
                    _ => error.to_string(),
                };
                let mut d = Diagnostic::error("cannot-read-file", format!("cannot read `{shown}`: {why}"));
                if let Some(span) = asked {
                    d = d.at(span, "named here");
                }
                self.out.push(d);
                None
            }
        }
    }

    fn add(&mut self, path: &Path, bytes: Vec<u8>) -> Option<FileId> {
        let shown = self.shown(path);
        if let Ok(text) = String::from_utf8(bytes) {
            Some(self.sources.add(path, shown, text))
        } else {
            self.out.push(
                Diagnostic::error("not-utf8", format!("`{shown}` is not UTF-8 text"))
                    .help("save it in UTF-8"),
            );
            None
        }
    }

    /// The documents of a file that are mappings.
    pub(super) fn documents(
        &mut self,
        input: &Input,
        asked: Option<Span>,
        layer: Layer,
    ) -> Option<Vec<Node>> {
        let id = match input {
            Input::Path(path) => self.text(path, asked)?,
            Input::Stdin => match self.files.stdin() {
                Ok(bytes) => self.add(Path::new("-"), bytes)?,
                Err(error) => {
                    let text = format!("cannot read standard input: {error}");
                    self.out.push(Diagnostic::error("cannot-read-file", text));
                    return None;
                }
            },
        };
        self.history.files.entry(id).or_insert(layer);
        match document::parse(id, &self.sources) {
            Ok(documents) => {
                let documents: Vec<Node> = documents.into_iter().filter(|d| !is_null(d)).collect();
                for d in &documents {
                    if d.as_map().is_none() {
                        self.out.push(
                            Diagnostic::error("not-a-mapping", "top-level object must be a mapping")
                                .at(d.span, format!("this is {}", d.described()))
                                .help("a compose file starts with `services:`"),
                        );
                        return None;
                    }
                }
                Some(documents)
            }
            Err(d) => {
                self.out.push(d);
                None
            }
        }
    }

    /// Loads files over one another into a canonical model with absolute paths.
    pub(super) fn model(&mut self, inputs: &[Input], context: &Context) -> Option<Node> {
        let mut model: Option<Node> = None;
        for (index, input) in inputs.iter().enumerate() {
            let layer = match index {
                _ if context.included => Layer::Include,
                0 => Layer::Base,
                _ => Layer::Override,
            };
            let documents = self.documents(input, None, layer)?;
            for mut doc in documents {
                let before = self.errors();
                if !self.options.no_interpolate {
                    let lookup = |name: &str| context.env.get(name).cloned();
                    interpolate(&mut doc, &lookup, &self.sources, &mut self.out);
                }
                let cleared = cleared(&mut doc);
                self.sections(&doc);
                if self.errors() > before {
                    return None;
                }
                self.extends(&mut doc, input, context, &cleared)?;
                self.include(&mut doc, context, &cleared)?;
                if self.options.explain {
                    self.history.layer(doc.clone());
                }
                let mut merged = match model.take() {
                    None => doc,
                    Some(mut base) => {
                        for path in &cleared {
                            remove(&mut base, path);
                        }
                        merge(base, doc, &mut Vec::new(), &mut self.out)
                    }
                };
                unique(&mut merged);
                schema::check(&merged, &mut self.out);
                if self.errors() > before {
                    return None;
                }
                if let Some(map) = map_mut(&mut merged)
                    && let Some(version) = map.shift_remove("version")
                {
                    self.out.push(
                        Diagnostic::warning(
                            "obsolete-version",
                            "the attribute `version` is obsolete, it will be ignored",
                        )
                        .at(version.key, "please remove it to avoid potential confusion"),
                    );
                }
                canonical::canonical(&mut merged, self.options.no_interpolate, &mut self.out);
                unique(&mut merged);
                if self.errors() > before {
                    return None;
                }
                model = Some(merged);
            }
        }
        let Some(mut model) = model else {
            self.out.push(
                Diagnostic::error("empty-file", "empty compose file")
                    .help("a compose file starts with `services:`"),
            );
            return None;
        };
        canonical::defaults(&mut model);
        if !self.options.no_interpolate {
            checks::resources(&model, &mut self.out);
        }
        if !self.options.no_path_resolution {
            let files = self.files;
            paths::resolve(&mut model, &context.base, &|p| files.real(p));
        }
        if self.failed() { None } else { Some(model) }
    }

    /// Sections that are there but empty, and services that say nothing, would otherwise vanish in a merge.
    fn sections(&mut self, doc: &Node) {
        let Some(map) = doc.as_map() else { return };
        for key in ["services", "networks", "volumes", "secrets", "configs", "models", "include"] {
            let Some(e) = map.get(key) else { continue };
            let wanted = if key == "include" { "a list" } else { "a mapping" };
            let ok = if key == "include" { e.node.as_list().is_some() } else { e.node.as_map().is_some() };
            if !ok {
                let mut d = Diagnostic::error("wrong-type", format!("`{key}` must be {wanted}"))
                    .at(if is_null(&e.node) { e.key } else { e.node.span }, format!("expected {wanted}"));
                if is_null(&e.node) {
                    d = d.help("indent its entries below it, or remove it");
                }
                self.out.push(d);
            }
            if key == "services" {
                for (name, service) in e.node.as_map().into_iter().flatten() {
                    if service.node.as_map().is_none() {
                        let d = Diagnostic::error(
                            "wrong-type",
                            format!("service `{name}` must be a mapping, found {}", service.node.described()),
                        );
                        self.out.push(if is_null(&service.node) {
                            d.at(service.key, "expected attributes such as `image` below it")
                                .help("indent the attributes of the service below its name")
                        } else {
                            d.at(service.node.span, "expected a mapping")
                        });
                    }
                }
            }
        }
    }
}

/// Takes `!reset` values out of a document; returns the paths that earlier definitions lose.
fn cleared(doc: &mut Node) -> Vec<Vec<String>> {
    fn walk(node: &mut Node, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
        match &mut node.kind {
            Kind::Map(map) => {
                map.retain(|key, e| {
                    path.push(key.clone());
                    let keep = match e.node.tag.take() {
                        Some(Tag::Reset) => {
                            found.push(path.clone());
                            false
                        }
                        Some(Tag::Override) => {
                            found.push(path.clone());
                            true
                        }
                        None => true,
                    };
                    if keep {
                        walk(&mut e.node, path, found);
                    }
                    path.pop();
                    keep
                });
            }
            Kind::List(items) => items.retain_mut(|item| item.tag.take() != Some(Tag::Reset)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(doc, &mut Vec::new(), &mut found);
    found
}

/// Removes a path from a tree, if it is there.
pub(super) fn remove(root: &mut Node, path: &[String]) {
    let Some((last, way)) = path.split_last() else { return };
    let mut at = root;
    for step in way {
        match get_mut(at, step) {
            Some(next) => at = next,
            None => return,
        }
    }
    if let Some(map) = map_mut(at) {
        map.shift_remove(last.as_str());
    }
}

/// A tree `{section: {name: value}}`, to apply paths of a document to one resource.
pub(super) fn wrapped(section: &str, name: &str, value: Node) -> Node {
    let span = value.span;
    let mut inner = Map::new();
    inner.insert(name.to_owned(), super::tree::entry(value));
    let mut outer = Map::new();
    outer.insert(section.to_owned(), super::tree::entry(node(Kind::Map(inner), span)));
    node(Kind::Map(outer), span)
}

/// The inverse of [`wrapped`]; an empty mapping when the resource itself was removed.
pub(super) fn unwrapped(section: &str, name: &str, mut root: Node) -> Node {
    let span = root.span;
    get_mut(&mut root, section)
        .and_then(|s| get_mut(s, name))
        .map_or_else(|| node(Kind::Map(Map::new()), span), super::tree::take)
}

/// Whether a service has `extends`.
pub(super) fn extends_something(service: &Node) -> bool {
    get(service, "extends").is_some()
}
