//! Relative paths become absolute ones.
//!
//! Source: `reference/model.md` §13. Works on the canonical tree, once per project
//! directory: absolute paths of included and extended files stay as they are.

use std::path::{Path, PathBuf};

use super::document::{Kind, Node};
use super::short::clean;
use super::tree::{get, get_mut, map_mut, section_mut, str};

/// What relative paths are resolved against.
#[derive(Debug, Clone)]
pub(super) struct Base {
    /// Absolute project directory.
    pub(super) dir: PathBuf,
    /// For `~`.
    pub(super) home: Option<String>,
}

impl Base {
    /// An absolute path; empty is the directory itself.
    pub(super) fn absolute(&self, path: &str) -> String {
        let path = self.user(path);
        if path.starts_with('/') { path } else { self.join(&path) }
    }

    fn join(&self, path: &str) -> String {
        clean(&format!("{}/{path}", self.dir.display()))
    }

    fn user(&self, path: &str) -> String {
        match (path.strip_prefix('~'), &self.home) {
            (Some(rest), Some(home)) => clean(&format!("{home}/{rest}")),
            _ => path.to_owned(),
        }
    }

    fn context(&self, path: &str) -> String {
        const REMOTE: &[&str] =
            &["https://", "http://", "git://", "ssh://", "github.com/", "git@", "service:"];
        if path.is_empty() || path.contains("://") || REMOTE.iter().any(|p| path.starts_with(p)) {
            return path.to_owned();
        }
        self.absolute(path)
    }

    fn source(&self, path: &str) -> String {
        let path = self.user(path);
        if path.starts_with('/') || windows_absolute(&path) {
            return path;
        }
        self.join(&path)
    }
}

/// `C:\…`, `C:/…` or `\\server\…`.
pub(super) fn windows_absolute(path: &str) -> bool {
    let b = path.as_bytes();
    path.starts_with("\\\\")
        || b.len() > 2 && b[0].is_ascii_alphabetic() && b[1] == b':' && matches!(b[2], b'\\' | b'/')
}

fn rewrite(parent: &mut Node, key: &str, f: impl Fn(&str) -> String) {
    if let Some(node) = get_mut(parent, key)
        && let Kind::Text(t) = &mut node.kind
    {
        *t = f(t);
    }
}

/// Resolves every path of a canonical model. `real` follows the symbolic links of a path that exists.
pub(super) fn resolve(root: &mut Node, base: &Base, real: &dyn Fn(&Path) -> Option<PathBuf>) {
    for (_, s) in section_mut(root, "services") {
        service(s, base, real);
    }
    for (_, volume) in section_mut(root, "volumes") {
        let local = get(volume, "driver").and_then(str) == Some("local");
        if local
            && let Some(options) = get_mut(volume, "driver_opts")
            && get(options, "o").and_then(str) == Some("bind")
        {
            rewrite(options, "device", |p| base.absolute(p));
        }
    }
    for key in ["secrets", "configs"] {
        for (_, item) in section_mut(root, key) {
            rewrite(item, "file", |p| base.absolute(p));
        }
    }
}

/// Resolves the paths of one service.
pub(super) fn service(s: &mut Node, base: &Base, real: &dyn Fn(&Path) -> Option<PathBuf>) {
    if let Some(build) = get_mut(s, "build") {
        rewrite(build, "context", |p| base.context(p));
        if let Some(contexts) = get_mut(build, "additional_contexts").and_then(map_mut) {
            for e in contexts.values_mut() {
                if let Kind::Text(t) = &mut e.node.kind {
                    *t = base.context(t);
                }
            }
        }
        match get_mut(build, "ssh").map(|n| &mut n.kind) {
            Some(Kind::Map(keys)) => {
                for e in keys.values_mut() {
                    if let Kind::Text(t) = &mut e.node.kind {
                        *t = base.absolute(t);
                    }
                }
            }
            Some(Kind::List(keys)) => {
                for item in keys {
                    if let Kind::Text(t) = &mut item.kind
                        && let Some((id, path)) = t.split_once('=')
                    {
                        *t = format!("{id}={}", base.absolute(path));
                    }
                }
            }
            _ => {}
        }
    }
    if let Some(Kind::List(items)) = get_mut(s, "env_file").map(|n| &mut n.kind) {
        for item in items {
            rewrite(item, "path", |p| base.absolute(p));
        }
    }
    if let Some(Kind::List(items)) = get_mut(s, "label_file").map(|n| &mut n.kind) {
        for item in items {
            if let Kind::Text(t) = &mut item.kind {
                *t = base.absolute(t);
            }
        }
    }
    if let Some(extends) = get_mut(s, "extends") {
        rewrite(extends, "file", |p| base.absolute(p));
    }
    if let Some(Kind::List(rules)) =
        get_mut(s, "develop").and_then(|d| get_mut(d, "watch")).map(|n| &mut n.kind)
    {
        for rule in rules {
            rewrite(rule, "path", |p| {
                let path = base.absolute(p);
                real(Path::new(&path)).map_or(path, |r| r.display().to_string())
            });
        }
    }
    if let Some(Kind::List(items)) = get_mut(s, "volumes").map(|n| &mut n.kind) {
        for item in items {
            if get(item, "type").and_then(str) == Some("bind") {
                rewrite(item, "source", |p| base.source(p));
            }
        }
    }
}
