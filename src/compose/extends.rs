//! `extends`: a service on top of another one, of the same file or another.
//!
//! Source: `reference/model.md` §7. Per file and before merging: definitions of
//! other `-f` files are invisible.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::diagnostic::{Diagnostic, Span, suggest};

use super::canonical;
use super::document::{Map, Node};
use super::interpolate::interpolate;
use super::loader::{Context, Input, Loader, extends_something, remove, unwrapped, wrapped};
use super::merge::{merge, unique};
use super::paths::{self, Base};
use super::provenance::Layer;
use super::tree::{get, get_mut, map, map_mut, scalar, str};

/// Where a service that extends stands.
struct Place<'p> {
    file: PathBuf,
    base: Base,
    services: &'p Map,
}

/// The services passed on the way: file, name, where `extends` stands.
type Chain = Vec<(PathBuf, String, Span)>;

impl Loader<'_> {
    /// Replaces every service of `doc` that extends another by the result; what cannot be is logged.
    pub(super) fn extends(
        &mut self,
        doc: &mut Node,
        input: &Input,
        context: &Context,
        cleared: &[Vec<String>],
    ) {
        let any = get(doc, "services")
            .and_then(map)
            .is_some_and(|s| s.values().any(|e| extends_something(&e.node)));
        let Some(services) = get(doc, "services").and_then(map).filter(|_| any).cloned() else { return };
        let file = match input {
            Input::Path(p) => p.clone(),
            Input::Stdin => PathBuf::from("-"),
        };
        let place = Place { file, base: context.base.clone(), services: &services };
        for (name, e) in &services {
            if !extends_something(&e.node) {
                continue;
            }
            let whole = self.extended(&place, name, context, cleared, &mut Vec::new());
            let Some(slot) = get_mut(doc, "services").and_then(|s| get_mut(s, name)) else { continue };
            match whole {
                Some(whole) => *slot = whole,
                // It goes on with what it says itself.
                None => {
                    map_mut(slot).and_then(|own| own.shift_remove("extends"));
                    self.damage.note("services", name);
                }
            }
        }
    }

    fn extended(
        &mut self,
        place: &Place<'_>,
        name: &str,
        context: &Context,
        cleared: &[Vec<String>],
        chain: &mut Chain,
    ) -> Option<Node> {
        let mut own = place.services.get(name)?.node.clone();
        let Some(extends) = map_mut(&mut own).and_then(|m| m.shift_remove("extends")) else {
            return Some(own);
        };
        let extends = extends.node;
        let span = extends.span;
        let (wanted, at) = if let Some(s) = str(&extends) {
            (s.to_owned(), span)
        } else if let Some(service) = get(&extends, "service") {
            (scalar(service)?, service.span)
        } else {
            self.out.push(
                Diagnostic::error("missing-key", format!("extends.{name}.service is required"))
                    .at(span, "expected `service`, the name of what is extended"),
            );
            return None;
        };
        if let Some(first) = chain.iter().position(|(f, n, _)| *f == place.file && n == name) {
            // Every service of the circle comes here; it is told once.
            let told = |d: &Diagnostic| d.primary.iter().chain(&d.secondary).any(|label| label.span == span);
            if self.out.iter().any(|d| d.code == "extends-cycle" && told(d)) {
                return None;
            }
            let names: Vec<&str> = chain[first..].iter().map(|(_, n, _)| n.as_str()).chain([name]).collect();
            let mut d = Diagnostic::error(
                "extends-cycle",
                format!("services extend one another in a circle: {}", names.join(" -> ")),
            )
            .at(span, format!("`{name}` extends itself in the end"));
            for (_, n, s) in &chain[first..] {
                if *s != span {
                    d = d.also(*s, format!("`{n}` extends here"));
                }
            }
            self.out.push(d);
            return None;
        }
        chain.push((place.file.clone(), name.to_owned(), span));
        let base = match get(&extends, "file").filter(|f| !f.is_null()) {
            None => {
                if !place.services.contains_key(&wanted) {
                    let shown = self.shown(&place.file);
                    let mut d = Diagnostic::error(
                        "undefined-service",
                        format!("cannot extend service `{name}` in {shown}: service `{wanted}` not found"),
                    )
                    .at(at, "not in this file");
                    if let Some(near) = suggest::nearest(&wanted, place.services.keys().map(String::as_str)) {
                        d = d
                            .also(place.services[near].key, "a similar name is declared here")
                            .help(format!("did you mean `{near}`?"));
                    }
                    self.out.push(d);
                    return None;
                }
                self.extended(place, &wanted, context, &[], chain)?
            }
            Some(file) => {
                let given = scalar(file)?;
                let path = PathBuf::from(place.base.absolute(&given));
                let root = self.extended_file(&path, file.span, context)?;
                let empty = Map::default();
                let services = get(&root, "services").and_then(map).unwrap_or(&empty);
                if !services.contains_key(&wanted) {
                    let (shown, other) = (self.shown(&place.file), self.shown(&path));
                    let mut d = Diagnostic::error(
                        "undefined-service",
                        format!("cannot extend service `{name}` in {shown}: service `{wanted}` not found in {other}"),
                    )
                    .at(at, "not in that file");
                    if let Some(near) = suggest::nearest(&wanted, services.keys().map(String::as_str)) {
                        d = d
                            .also(services[near].key, "a similar name is declared here")
                            .help(format!("did you mean `{near}`?"));
                    }
                    self.out.push(d);
                    return None;
                }
                let dir = path.parent().unwrap_or(Path::new("/")).to_owned();
                let base = Base { dir, home: place.base.home.clone() };
                let there = Place { file: path, base: base.clone(), services };
                let mut found = self.extended(&there, &wanted, context, &[], chain)?;
                if !self.options.no_path_resolution {
                    let files = self.files;
                    paths::service(&mut found, &base, &|p| files.real(p));
                }
                found
            }
        };
        if self.options.explain
            && let Some((_, outermost, _)) = chain.first()
        {
            self.history.layer(wrapped("services", outermost, base.clone()));
        }
        chain.pop();
        let mut root = wrapped("services", name, base);
        for path in cleared {
            if path.first().is_some_and(|s| s == "services") && path.get(1).is_some_and(|n| n == name) {
                remove(&mut root, path);
            }
        }
        let base = unwrapped("services", name, root);
        let mut path = vec!["services".to_owned(), name.to_owned()];
        let whole = merge(base, own, &mut path, &mut self.out);
        Some(whole)
    }

    /// An extended file in long form, with the variables of the main project.
    fn extended_file(&mut self, path: &Path, asked: Span, context: &Context) -> Option<Rc<Node>> {
        if let Some(done) = self.extended.get(path) {
            return done.clone();
        }
        let loaded = self.read_extended(path, asked, context).map(Rc::new);
        self.extended.insert(path.to_owned(), loaded.clone());
        loaded
    }

    fn read_extended(&mut self, path: &Path, asked: Span, context: &Context) -> Option<Node> {
        let documents = self.documents(&Input::Path(path.to_owned()), Some(asked), Layer::Extends)?;
        let mut model: Option<Node> = None;
        for mut doc in documents {
            let before = self.out.len();
            if !self.options.no_interpolate {
                let lookup = |name: &str| context.env.get(name).cloned();
                interpolate(&mut doc, &lookup, &self.sources, &mut self.out);
            }
            self.mend(&mut doc, before);
            let mut merged = match model.take() {
                None => doc,
                Some(base) => merge(base, doc, &mut Vec::new(), &mut self.out),
            };
            unique(&mut merged);
            let before = self.out.len();
            canonical::canonical(&mut merged, self.options.no_interpolate, &mut self.out);
            self.mend(&mut merged, before);
            unique(&mut merged);
            model = Some(merged);
        }
        if model.is_none() {
            self.out.push(
                Diagnostic::error("empty-file", format!("empty compose file `{}`", self.shown(path)))
                    .at(asked, "named here"),
            );
        }
        model
    }
}
