//! Who may import whom: the table of the style guide, read off the sources.
//!
//! The compiler enforces only that `cli` (another crate) uses what is public; a
//! forbidden `use crate::…` or full path anywhere else fails here.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The modules that each top-level module may name.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("util", &[]),
    ("diagnostic", &["util"]),
    ("model", &["util"]),
    ("compose", &["model", "diagnostic", "util"]),
    ("graph", &["model", "util"]),
    ("spec", &["util"]),
    ("plan", &["model", "graph", "engine", "spec", "util"]),
    ("engine", &["spec", "runtime", "util"]),
    ("ops", &["model", "graph", "plan", "engine", "spec", "compose", "util"]),
    ("runtime", &["spec", "diagnostic", "util"]),
];

/// Narrower rules inside a module: a path below `src/`, and the modules that it,
/// of all those its parent may name, must not.
const MUST_NOT: &[(&str, &[&str])] = &[
    ("runtime/sys", &["spec", "diagnostic", "util"]),
    ("engine/mod.rs", &["runtime"]),
    ("engine/types.rs", &["runtime"]),
    ("engine/fake.rs", &["runtime"]),
    ("engine/docker", &["runtime"]),
];

/// Crates that only some places may name.
const CRATES: &[(&str, &[&str])] = &[
    ("clap", &["cli"]),
    ("clap_complete", &["cli"]),
    ("clap_mangen", &["cli"]),
    ("indicatif", &["cli"]),
    ("anyhow", &["cli"]),
    ("petgraph", &["graph", "plan"]),
    ("notify", &["ops"]),
    ("bollard", &["engine/docker"]),
    ("serde_yaml", &["compose", "cli", "model"]),
];

/// Every Rust file below `src/`, with its path relative to it and its code
/// without comments.
fn sources() -> BTreeMap<String, String> {
    fn walk(folder: &Path, root: &Path, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(folder).expect("the sources can be listed") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, root, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).expect("a source can be read");
                let name = path.strip_prefix(root).expect("below src");
                found.insert(name.display().to_string(), without_comments(&text));
            }
        }
    }
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    walk(&root, &root, &mut found);
    found
}

/// Drops what follows `//` on each line; doc links name other modules freely.
fn without_comments(text: &str) -> String {
    text.lines()
        .map(|line| line.split_once("//").map_or(line, |(code, _)| code))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The first segments of all paths that start with `crate::`, groups expanded one
/// level: `use crate::{model::X, util}` names `model` and `util`.
fn named_modules(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        // `$crate::` in a macro and `my_crate::` are something else.
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0_u32;
            let mut start = 0;
            for (i, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth > 0 => depth -= 1,
                    ',' | '}' if depth == 0 => {
                        names.push(first_segment(group[start..i].trim()));
                        start = i + 1;
                        if c == '}' {
                            break;
                        }
                    }
                    _ => {}
                }
            }
        } else {
            names.push(first_segment(rest));
        }
    }
    names.retain(|n| !n.is_empty());
    names
}

/// The identifier at the start of a path.
fn first_segment(path: &str) -> String {
    path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Whether a file lies in a place: a folder, or the file itself.
fn lies_in(file: &str, place: &str) -> bool {
    file == place
        || file == format!("{place}.rs")
        || file.strip_prefix(place).is_some_and(|rest| rest.starts_with('/'))
}

#[test]
fn modules_import_only_what_the_style_guide_allows() {
    let mut wrong = Vec::new();
    for (file, code) in sources() {
        let Some((module, allowed)) = MAY_IMPORT.iter().find(|(m, _)| lies_in(&file, m)) else {
            continue;
        };
        for name in named_modules(&code) {
            let known = MAY_IMPORT.iter().any(|(m, _)| *m == name);
            let forbidden_here =
                MUST_NOT.iter().any(|(place, names)| lies_in(&file, place) && names.contains(&name.as_str()));
            let allowed_here = name == *module || allowed.contains(&name.as_str());
            if known && (!allowed_here || forbidden_here) {
                wrong.push(format!("src/{file} names crate::{name}"));
            }
        }
    }
    wrong.dedup();
    assert!(wrong.is_empty(), "forbidden imports:\n{}", wrong.join("\n"));
}

#[test]
fn every_top_level_module_has_its_rule() {
    for file in sources().keys() {
        let top = file.split(['/', '.']).next().expect("a first segment");
        let known =
            ["main", "lib", "cli"].contains(&top) || MAY_IMPORT.iter().any(|(module, _)| *module == top);
        assert!(known, "src/{file}: no import rule for module `{top}`");
    }
}

#[test]
fn crates_stay_where_they_belong() {
    let mut wrong = Vec::new();
    // Tests may use what they like.
    let tests = |file: &str| file.ends_with("/tests.rs") || file.contains("/tests/");
    for (file, code) in sources().into_iter().filter(|(file, _)| !tests(file)) {
        for (name, places) in CRATES {
            let used = code
                .match_indices(&format!("{name}::"))
                .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'));
            if used && !places.iter().any(|place| lies_in(&file, place)) {
                wrong.push(format!("src/{file} uses {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "misplaced crates:\n{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_is_only_in_runtime_sys() {
    for (file, code) in sources() {
        let has = code.lines().any(|line| {
            let line = line.trim_start();
            line.contains("unsafe {") || line.contains("unsafe fn") || line.contains("unsafe impl")
        });
        assert!(
            !has || lies_in(&file, "runtime/sys"),
            "src/{file} contains unsafe code; it belongs into runtime::sys"
        );
    }
}

#[test]
fn files_stay_readable() {
    for (file, code) in sources() {
        let lines = code.lines().count();
        assert!(lines <= 1000, "src/{file} has {lines} lines; split it");
    }
}

#[test]
fn paths_are_found_in_every_form() {
    let code = "use crate::{model::{A, B}, util};\nlet x = crate::plan::y();\nmy_crate::z();";
    assert_eq!(named_modules(code), ["model", "util", "plan"]);
}
