//! What a broken file says: whole outputs, one folder of `tests/fixtures/diagnostics` each.
//!
//! `UPDATE_EXPECTED=1` writes them anew; read the difference before you commit it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_mistake_is_shown_at_its_place_with_what_to_do() {
    let mut wrong = Vec::new();
    let mut names: Vec<_> = fs::read_dir(root().join("tests/fixtures/diagnostics"))
        .expect("the fixtures can be listed")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    names.sort();
    for folder in names {
        let output = Command::new(env!("CARGO_BIN_EXE_hoist"))
            .args(["-p", "p", "config", "-q"])
            .current_dir(&folder)
            .env_clear()
            .env("HOME", "/root")
            .output()
            .expect("hoist runs");
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
    for entry in fs::read_dir(root().join("src/compose")).expect("the sources can be listed") {
        let text = fs::read_to_string(entry.expect("an entry").path()).expect("a source");
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
