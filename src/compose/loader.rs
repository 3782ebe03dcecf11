//! One model out of several files: read, interpolate, include, extend, merge, check, lengthen.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tracing::trace_span;

use crate::diagnostic::{Diagnostic, FileId, Severity, SourceMap, Span};

use super::canonical;
use super::checks;
use super::conform;
use super::damage::Damage;
use super::document::{self, Kind, Map, Node, Parsed, Tag};
use super::files::{Files, LoadOptions};
use super::interpolate::interpolate;
use super::merge::{merge, unique};
use super::paths::{self, Base};
use super::provenance::{History, Layer};
use super::syntax;
use super::tree::{get, get_mut, is_null, map_mut, node, str};

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
    /// What mistakes have taken away.
    pub(super) damage: Damage,
    /// Whole texts by path, so that a file read twice has one id.
    read: HashMap<PathBuf, FileId>,
    /// Files that were parsed to look for the project's name, until they are asked for again.
    parsed: HashMap<FileId, Parsed>,
}

/// How a service is written, for those who wrote something else.
const SERVICE_FORM: &str = "write `name:` without a dash, and its attributes indented below it";

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
            damage: Damage::default(),
            read: HashMap::new(),
            parsed: HashMap::new(),
        }
    }

    pub(super) fn failed(&self) -> bool {
        self.out.iter().any(|d| d.severity == Severity::Error)
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
                    std::io::ErrorKind::FileTooLarge => "it is larger than 16 MiB".to_owned(),
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
        match String::from_utf8(bytes) {
            Ok(text) => Some(self.sources.add(path, shown, text)),
            Err(error) => {
                let right = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let line = 1 + memchr::memchr_iter(b'\n', right).count();
                let message = format!("`{shown}` is not UTF-8 text: line {line} has a byte that is none");
                self.out.push(
                    Diagnostic::error("not-utf8", message).help("save it in UTF-8; most editors can convert"),
                );
                None
            }
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
        let Parsed { mut documents, problems } = self.parsed(id);
        let broken = documents.is_empty() && !problems.is_empty();
        let from = self.out.len();
        self.out.extend(problems);
        if broken {
            return None;
        }
        for d in &mut documents {
            if d.as_map().is_none() {
                let (what, glued) = (d.described(), str(d).and_then(syntax::glued));
                let help = match glued {
                    _ if is_null(d) => {
                        "nothing stands between two `---`, or after the last one: remove it".to_owned()
                    }
                    Some((key, value)) => format!("a blank is missing after the colon: `{key}: {value}`"),
                    None => "a compose file starts with `services:`".to_owned(),
                };
                let message = format!("a compose file is a mapping, and this is {what}");
                let d =
                    Diagnostic::error("not-a-mapping", message).at(d.span, "expected `services:` and so on");
                self.out.push(d.help(help));
                return None;
            }
            self.mend(d, from);
        }
        Some(documents)
    }

    /// What a file says; the next call parses it anew.
    fn parsed(&mut self, id: FileId) -> Parsed {
        self.parsed.remove(&id).unwrap_or_else(|| {
            let _stage = trace_span!("read yaml").entered();
            document::read(id, &self.sources)
        })
    }

    /// The documents of a file as far as they can be read, for a look before it is loaded for real.
    pub(super) fn peek(&mut self, id: FileId) -> &[Node] {
        let sources = &self.sources;
        &self.parsed.entry(id).or_insert_with(|| document::read(id, sources)).documents
    }

    /// Takes what the errors since `from` are about out of a tree, so that the next stage can look at
    /// the rest.
    pub(super) fn mend(&mut self, root: &mut Node, from: usize) {
        // A key that is no text is known by its text all the same.
        let lost = |d: &&Diagnostic| d.severity == Severity::Error && d.code != "non-string-key";
        let errors = self.out[from.min(self.out.len())..].iter().filter(lost);
        self.damage.mend(root, errors.filter_map(|d| d.primary.as_ref()).map(|label| label.span));
    }

    /// Loads files over one another into a canonical model with absolute paths; what is wrong is logged
    /// and left out.
    pub(super) fn model(&mut self, inputs: &[Input], context: &Context) -> Option<Node> {
        let mut model: Option<Node> = None;
        for (index, input) in inputs.iter().enumerate() {
            let layer = match index {
                _ if context.included => Layer::Include,
                0 => Layer::Base,
                _ => Layer::Override,
            };
            let Some(documents) = self.documents(input, None, layer) else {
                self.damage.incomplete = true;
                continue;
            };
            for mut doc in documents {
                let before = self.out.len();
                let cleared = cleared(&mut doc);
                if !self.options.no_interpolate {
                    let _stage = trace_span!("interpolate").entered();
                    let lookup = |name: &str| context.env.get(name).cloned();
                    interpolate(&mut doc, &lookup, &self.sources, &mut self.out);
                }
                self.sections(&doc);
                self.mend(&mut doc, before);
                self.extends(&mut doc, input, context, &cleared);
                self.include(&mut doc, context, &cleared);
                if self.options.explain {
                    self.history.layer(doc.clone());
                }
                let mut merged = match model.take() {
                    None => doc,
                    Some(mut base) => {
                        for path in &cleared {
                            remove(&mut base, path);
                        }
                        let _stage = trace_span!("merge").entered();
                        merge(base, doc, &mut Vec::new(), &mut self.out)
                    }
                };
                trace_span!("unique").in_scope(|| unique(&mut merged));
                let before = self.out.len();
                trace_span!("check").in_scope(|| conform::check(&merged, &mut self.out));
                self.mend(&mut merged, before);
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
                let before = self.out.len();
                let raw = self.options.no_interpolate;
                trace_span!("canonical").in_scope(|| canonical::canonical(&mut merged, raw, &mut self.out));
                self.mend(&mut merged, before);
                unique(&mut merged);
                model = Some(merged);
            }
        }
        if context.included && model.is_none() && !self.damage.incomplete {
            // An included file may be empty.
            model = Some(node(Kind::Map(Map::default()), Span::default()));
        }
        let said = |m: &Node| m.as_map().is_some_and(|m| context.included || !m.is_empty());
        let Some(mut model) = model.filter(said) else {
            if !self.damage.incomplete {
                self.out.push(
                    Diagnostic::error("empty-file", "empty compose file")
                        .help("a compose file starts with `services:`"),
                );
            }
            return None;
        };
        canonical::defaults(&mut model);
        if !self.options.no_interpolate {
            let before = self.out.len();
            checks::resources(&model, &self.damage, &mut self.out);
            self.mend(&mut model, before);
        }
        if !self.options.no_path_resolution {
            let _stage = trace_span!("paths").entered();
            let files = self.files;
            paths::resolve(&mut model, &context.base, &|p| files.real(p));
        }
        Some(model)
    }

    /// Sections that are there but empty, and services that say nothing, would otherwise vanish in a merge.
    fn sections(&mut self, doc: &Node) {
        let Some(map) = doc.as_map() else { return };
        for key in ["services", "networks", "volumes", "secrets", "configs", "models", "include"] {
            let Some(e) = map.get(key) else { continue };
            let wanted = if key == "include" { "a list" } else { "a mapping" };
            let ok = match key {
                "include" => is_null(&e.node) || e.node.as_list().is_some(),
                _ => e.node.as_map().is_some(),
            };
            if !ok {
                let mut d = Diagnostic::error("wrong-type", format!("`{key}` must be {wanted}"))
                    .at(if is_null(&e.node) { e.key } else { e.node.span }, format!("expected {wanted}"));
                if is_null(&e.node) {
                    d = d.help("indent its entries below it, or remove it");
                } else if wanted == "a mapping" {
                    let form =
                        if key == "services" { SERVICE_FORM } else { "write `name:` lines without a dash" };
                    d = d.help(form);
                } else {
                    d = d.help("start each item with a dash: `- path/to/compose.yaml`");
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
                                .help("indent the attributes of the service further than its name")
                        } else {
                            let d =
                                d.at(service.node.span, "expected attributes such as `image` below the name");
                            match str(&service.node).and_then(syntax::glued) {
                                Some((key, value)) => {
                                    d.help(format!("a blank is missing after the colon: `{key}: {value}`"))
                                }
                                None => d.help(SERVICE_FORM),
                            }
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
    let mut inner = Map::default();
    inner.insert(name.to_owned(), super::tree::entry(value));
    let mut outer = Map::default();
    outer.insert(section.to_owned(), super::tree::entry(node(Kind::Map(inner), span)));
    node(Kind::Map(outer), span)
}

/// The inverse of [`wrapped`]; an empty mapping when the resource itself was removed.
pub(super) fn unwrapped(section: &str, name: &str, mut root: Node) -> Node {
    let span = root.span;
    get_mut(&mut root, section)
        .and_then(|s| get_mut(s, name))
        .map_or_else(|| node(Kind::Map(Map::default()), span), super::tree::take)
}

/// Whether a service has `extends`.
pub(super) fn extends_something(service: &Node) -> bool {
    get(service, "extends").is_some()
}
