//! What holds of any input, by target. `tests/it/fuzz_corpus.rs` runs the same over the corpus.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use hoist::compose::{self, Files, LoadOptions, dotenv, template};
use hoist::diagnostic;
use hoist::model::json;
use hoist::model::record::Style;

/// Any bytes as a compose file: discovery to canonical output.
pub fn loader(bytes: &[u8]) {
    let base = b"services:\n  base: {image: x, ports: ['80:80'], depends_on: [y]}\n  y: {image: y}\n";
    let files: [(&str, &[u8]); 3] = [("compose.yaml", bytes), ("base.yaml", base), (".env", b"TAG=1\nN=2\n")];
    load(&files, &["compose.yaml"]);
}

/// Two files over one another; a line `===` parts them.
pub fn merge(bytes: &[u8]) {
    let parting = b"\n===\n";
    let at = bytes.windows(parting.len()).position(|window| window == parting);
    let (base, over) = match at {
        Some(at) => (&bytes[..at], &bytes[at + parting.len()..]),
        None => bytes.split_at(bytes.len() / 2),
    };
    load(&[("a.yaml", base), ("b.yaml", over)], &["a.yaml", "b.yaml"]);
}

/// Any text as a template.
pub fn interpolation(text: &str) {
    let lookup = |name: &str| match name {
        "A" => Some("a".to_owned()),
        "EMPTY" => Some(String::new()),
        "DOLLAR" => Some("$A ${B".to_owned()),
        _ => None,
    };
    match template::expand(text, &lookup) {
        Ok(expanded) => {
            for (name, range) in &expanded.unset {
                assert!(text.get(range.clone()).is_some_and(|part| part.contains(name.as_str())));
            }
        }
        Err(error) => assert!(text.get(error.span).is_some(), "a place outside of the text"),
    }
    if let Ok(all) = template::variables(text) {
        assert!(all.iter().all(|one| !one.name.is_empty()));
    }
}

/// Any text as a file of variables, in both formats.
pub fn dotenv(text: &str) {
    let outer = |name: &str| (name == "A").then(|| "a".to_owned());
    match dotenv::parse(text, &outer) {
        Ok(found) => {
            for (name, place) in &found.places {
                assert!(found.values.contains_key(name));
                assert!(text.get(place.clone()).is_some(), "a place outside of the text");
            }
        }
        Err(error) => {
            assert!(text.get(error.span).is_some(), "a place outside of the text");
            assert!(error.line >= 1);
        }
    }
    drop(dotenv::parse_raw(text, &outer));
}

/// Files by path below `/p`; nothing else exists.
#[derive(Debug, Default)]
struct Memory(BTreeMap<PathBuf, Vec<u8>>);

impl Files for Memory {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.0.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn is_file(&self, path: &Path) -> bool {
        self.0.contains_key(path)
    }

    fn is_dir(&self, path: &Path) -> bool {
        path == Path::new("/p")
    }

    fn real(&self, path: &Path) -> Option<PathBuf> {
        Some(path.to_owned())
    }

    fn stdin(&self) -> io::Result<Vec<u8>> {
        Ok(Vec::new())
    }
}

/// Loads a project of these files and renders what there is to see of it: what a user would see must
/// not panic either, a failure has an error, and places are inside of their files.
fn load(files: &[(&str, &[u8])], compose_files: &[&str]) {
    let memory =
        Memory(files.iter().map(|(name, bytes)| (Path::new("/p").join(name), bytes.to_vec())).collect());
    let options = LoadOptions {
        current_dir: "/p".into(),
        files: compose_files.iter().map(|name| (*name).to_owned()).collect(),
        environment: [("HOME", "/root"), ("A", "a"), ("EMPTY", "")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        ..LoadOptions::default()
    };
    match compose::load(&options, &memory) {
        Ok(loaded) => {
            drop(json::pretty(&loaded.project.render(Style::Json)));
            drop(compose::yaml::print(&loaded.project.render(Style::Yaml), true));
            for service in loaded.project.services.values() {
                drop(hoist::model::hash::service(service));
            }
            show(&loaded.warnings, &loaded.sources);
        }
        Err(failed) => {
            assert!(!failed.diagnostics.is_empty(), "it failed and does not say why");
            show(&failed.diagnostics, &failed.sources);
        }
    }
}

fn show(all: &[diagnostic::Diagnostic], sources: &diagnostic::SourceMap) {
    for one in all {
        assert!(!one.message.is_empty());
        for label in one.primary.iter().chain(&one.secondary) {
            let text = sources.text(label.span.file);
            let (start, end) = (label.span.start as usize, label.span.end as usize);
            assert!(
                end <= text.len() && text.is_char_boundary(start) && text.is_char_boundary(end),
                "{}: {start}..{end} is no part of the file",
                one.code
            );
        }
        drop(diagnostic::render(one, sources, false));
    }
    drop(diagnostic::to_json(all, sources));
    drop(diagnostic::annotations(all, sources));
}
