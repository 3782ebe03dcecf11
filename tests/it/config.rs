//! `config` says what Docker Compose says.
//!
//! Each folder of `tests/fixtures/config` holds files and what Docker Compose
//! 2.40.3 made of them: `expected.yaml`, `expected.json` and `expected.hash`, or
//! `rejected.txt` with its last line of complaint (the wording is not compared).
//! `$DIR` is the folder, `$UP` the one above it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

#[derive(serde::Deserialize)]
struct Case {
    args: Vec<String>,
    config_args: Vec<String>,
    env: std::collections::BTreeMap<String, String>,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a fixture can be listed") {
        let entry = entry.expect("an entry");
        let (path, name) = (entry.path(), entry.file_name());
        let kept = !matches!(name.to_str(), Some("case.json" | "rejected.txt"))
            && !name.to_string_lossy().starts_with("expected.");
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else if kept {
            fs::copy(&path, to.join(name)).expect("a file can be copied");
        }
    }
}

fn run(case: &Case, dir: &Path, form: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hoist"))
        .args(&case.args)
        .arg("config")
        .args(&case.config_args)
        .args(form)
        .current_dir(dir)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", "/root")
        .env("PWD", dir)
        .envs(&case.env)
        .output()
        .expect("hoist runs")
}

/// What differs, if something does.
fn judge(folder: &Path) -> Option<String> {
    let case = fs::read_to_string(folder.join("case.json")).expect("a case.json");
    let case: Case = serde_json::from_str(&case).expect("a valid case.json");
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let up = temporary.path().canonicalize().expect("it exists");
    let dir = up.join(folder.file_name().expect("a name"));
    copy(folder, &dir);
    if folder.join("rejected.txt").exists() {
        let output = run(&case, &dir, &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            return Some("is accepted".to_owned());
        }
        return (said.trim().is_empty() || said.contains("panicked")).then(|| format!("says: {said}"));
    }
    let forms: [(&str, &[&str]); 4] = [
        ("expected.yaml", &[]),
        ("expected.json", &["--format", "json"]),
        ("expected.hash", &["--hash", "*"]),
        ("expected.txt", &[]),
    ];
    for (file, form) in forms {
        let Ok(expected) = fs::read_to_string(folder.join(file)) else { continue };
        let output = run(&case, &dir, form);
        let got = String::from_utf8_lossy(&output.stdout)
            .replace(&dir.display().to_string(), "$DIR")
            .replace(&up.display().to_string(), "$UP");
        if got.trim_end() != expected.trim_end() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Some(format!("{file} differs\n--- got\n{got}\n--- expected\n{expected}\n{said}"));
        }
    }
    None
}

#[test]
fn every_case_is_resolved_as_docker_compose_does() {
    let mut folders: Vec<PathBuf> = fs::read_dir(fixtures())
        .expect("the fixtures can be listed")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    folders.sort();
    assert!(folders.len() > 100, "the fixtures are there");
    let wrong: Vec<String> = folders
        .iter()
        .filter_map(|folder| judge(folder).map(|what| format!("{}: {what}", folder.display())))
        .collect();
    assert!(wrong.is_empty(), "{} of {} differ\n{}", wrong.len(), folders.len(), wrong.join("\n\n"));
}

#[test]
fn the_output_of_config_can_be_loaded_again() {
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let dir = temporary.path();
    let text =
        "name: again\nservices:\n  a:\n    image: x\n    command: echo $$HOME\n    ports: ['8080:80']\n";
    fs::write(dir.join("compose.yaml"), text).expect("a file");
    let case = Case { args: vec![], config_args: vec![], env: std::collections::BTreeMap::default() };
    let first = run(&case, dir, &[]).stdout;
    fs::write(dir.join("compose.yaml"), &first).expect("a file");
    let second = run(&case, dir, &[]).stdout;
    assert_eq!(String::from_utf8_lossy(&first), String::from_utf8_lossy(&second));
}
