//! What a broken file says: whole outputs, one folder of `tests/fixtures/diagnostics` each.
//!
//! A folder holds the files, `expected.txt`, and `args` when it is not `-p p config -q`.
//! `UPDATE_EXPECTED=1` writes the expectations anew; read the difference before you commit it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn folders() -> Vec<PathBuf> {
    let all = fs::read_dir(root().join("tests/fixtures/diagnostics")).expect("the fixtures can be listed");
    let mut all: Vec<_> = all.map(|entry| entry.expect("an entry").path()).collect();
    all.sort();
    all
}

fn hoist(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hoist"));
    command.args(args).current_dir(folder).env_clear().env("HOME", "/root");
    command
}

#[test]
fn every_mistake_is_shown_at_its_place_with_what_to_do() {
    let mut wrong = Vec::new();
    for folder in folders() {
        let args = fs::read_to_string(folder.join("args")).unwrap_or_else(|_| "-p p config -q".to_owned());
        let args: Vec<&str> = args.split_whitespace().collect();
        let output = hoist(&folder, &args).output().expect("hoist runs");
        let got = String::from_utf8_lossy(&output.stderr).replace(&folder.display().to_string(), "$DIR");
        let file = folder.join("expected.txt");
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            fs::write(&file, &got).expect("an expectation can be written");
        }
        let expected = fs::read_to_string(&file).unwrap_or_default();
        if got != expected || got.is_empty() {
            wrong.push(format!("{}\n--- got\n{got}\n--- expected\n{expected}", folder.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_code_stands_in_the_table_and_no_other() {
    let mut used = BTreeSet::new();
    let folders = ["src/compose", "src/compose/syntax"].map(|folder| root().join(folder));
    let entries = folders.iter().flat_map(|folder| fs::read_dir(folder).expect("the sources can be listed"));
    for path in entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file()) {
        let text = fs::read_to_string(path).expect("a source");
        let known: Vec<&str> = hoist::compose::codes::ALL.iter().map(|(code, _)| *code).collect();
        for code in known {
            if text.contains(&format!("\"{code}\"")) && !text.contains("pub const ALL") {
                used.insert(code.to_owned());
            }
        }
        for start in ["Diagnostic::error(", "Diagnostic::warning("] {
            for (at, _) in text.match_indices(start) {
                let rest = text[at + start.len()..].trim_start();
                if let Some(code) = rest.strip_prefix('"').and_then(|rest| rest.split('"').next()) {
                    let listed = hoist::compose::codes::ALL.iter().any(|(known, _)| *known == code);
                    assert!(listed, "`{code}` is not in the table");
                }
            }
        }
    }
    for (code, _) in hoist::compose::codes::ALL {
        assert!(used.contains(*code), "`{code}` is in the table and nowhere else");
    }
}

#[test]
fn every_code_is_shown_by_a_case() {
    let said: String =
        folders().iter().filter_map(|folder| fs::read_to_string(folder.join("expected.txt")).ok()).collect();
    let missing: Vec<&str> = hoist::compose::codes::ALL
        .iter()
        .map(|(code, _)| *code)
        .filter(|code| !said.contains(&format!("[{code}]: ")))
        .collect();
    assert!(missing.is_empty(), "no case in tests/fixtures/diagnostics shows {missing:?}");
}

#[test]
fn only_the_first_of_many_mistakes_are_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = (0..50).fold(String::new(), |text, n| format!("{text}    wrong{n}: x\n"));
    fs::write(folder.path().join("compose.yaml"), format!("services:\n  web:\n    image: x\n{keys}"))
        .expect("a file");
    let said = |args: &[&str]| {
        let output = hoist(folder.path(), args).output().expect("hoist runs");
        assert!(!output.status.success());
        String::from_utf8(output.stdout).expect("text") + &String::from_utf8_lossy(&output.stderr)
    };
    let text = said(&["config", "-q"]);
    assert_eq!(text.matches("error[unknown-key]").count(), 20, "{text}");
    assert!(
        text.ends_with("... and 30 more; `hoist config --diagnostics text` shows all of them\n"),
        "{text}"
    );
    let all = said(&["config", "--diagnostics", "text"]);
    assert_eq!(all.matches("error[unknown-key]").count(), 50, "{all}");
}

#[test]
fn on_github_mistakes_become_annotations() {
    let folder = root().join("tests/fixtures/diagnostics/typo-ports");
    let output =
        hoist(&folder, &["config", "-q"]).env("GITHUB_ACTIONS", "true").output().expect("hoist runs");
    let said = String::from_utf8(output.stderr).expect("text");
    let last = said.lines().last().unwrap_or_default();
    assert_eq!(
        last,
        "::error file=compose.yaml,line=4,col=5,endColumn=9,title=unknown-key::`services.web` has no attribute `port`%0Adid you mean `ports`?"
    );
}

#[test]
fn programs_that_read_json_progress_get_the_places_too() {
    let folder = root().join("tests/fixtures/diagnostics/typo-ports");
    let output = hoist(&folder, &["--progress", "json", "config", "-q"]).output().expect("hoist runs");
    let said: serde_json::Value = serde_json::from_slice(&output.stderr).expect("one JSON object");
    assert_eq!(said["error"], true);
    assert_eq!(said["diagnostics"][0]["code"], "unknown-key");
    assert_eq!(said["diagnostics"][0]["at"]["start"], serde_json::json!({"line": 4, "column": 5}));
}
