//! `config` says what Docker Compose says.
//!
//! Each folder of `tests/fixtures/config` holds files and what Docker Compose
//! 2.40.3 made of them (`tests/fixtures/record` writes it, and says how a case is
//! laid out): `expected.yaml`, `expected.json` and `expected.hash`, `expected.txt`
//! for other forms of `config`, or `rejected.txt` with its last line of complaint
//! (the wording is not compared).
//!
//! # Where hoist differs on purpose
//!
//! Docker Compose 2.40.3 crashes on, loses or ignores some of what is written; no
//! case is recorded for these:
//! - keys that begin with `x-` in mappings of the user's own names (`labels`, `environment`,
//!   `driver_opts`, …): there `{x-a: b}` becomes `#extensions: map[x-a:b]`, here it stays what it is;
//! - an override of the wrong type where a short form exists (`environment: 5` over a mapping): there
//!   it vanishes, here it is refused; so is an unknown key of `gpus` or of `external`;
//! - `!reset` of one key of a mapping that the first file wrote as a list takes effect;
//! - `--no-env-resolution` takes effect; an SSH key with a path has a JSON form;
//! - `configs.*.environment` works in an included file;
//! - the order of `--images`, `--networks` and `--variables` is that of names, there it is random;
//! - a null where there is none to have (`logging`, `pid`, a context) is refused, there it crashes;
//! - numbers too big for what they count are refused, there they wrap round;
//! - `%YAML 1.2` and `\/` in quotes are YAML; `!!binary` is refused;
//! - `pre_start` and `build.no_cache_filter`, which later versions have, are known.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;

#[derive(serde::Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Case {
    args: Vec<String>,
    config_args: Vec<String>,
    env: std::collections::BTreeMap<String, String>,
    cwd: PathBuf,
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
    let dir = &dir.join(&case.cwd).canonicalize().expect("the folder is there");
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
    let case = match fs::read_to_string(folder.join("case.json")) {
        Ok(text) => serde_json::from_str(&text).expect("a valid case.json"),
        Err(_) => Case::default(),
    };
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
    let mut compared = 0;
    for (file, form) in forms {
        let Ok(expected) = fs::read_to_string(folder.join(file)) else { continue };
        compared += 1;
        let output = run(&case, &dir, form);
        let got = String::from_utf8_lossy(&output.stdout)
            .replace(&dir.display().to_string(), "$DIR")
            .replace(&up.display().to_string(), "$UP");
        if got.trim_end() != expected.trim_end() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Some(format!("{file} differs\n--- got\n{got}\n--- expected\n{expected}\n{said}"));
        }
    }
    (compared == 0).then(|| "has no expectation: run tests/fixtures/record".to_owned())
}

#[test]
fn every_case_is_resolved_as_docker_compose_does() {
    let mut folders: Vec<PathBuf> = fs::read_dir(fixtures())
        .expect("the fixtures can be listed")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    folders.sort();
    assert!(folders.len() > 900, "the fixtures are there");
    let number = folders.len();
    let queue = Mutex::new(folders.into_iter());
    let wrong = Mutex::new(Vec::new());
    let next = || queue.lock().expect("no panic").next();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(folder) = next() {
                    if let Some(what) = judge(&folder) {
                        wrong.lock().expect("no panic").push(format!("{}: {what}", folder.display()));
                    }
                }
            });
        }
    });
    let mut wrong = wrong.into_inner().expect("no panic");
    wrong.sort();
    assert!(wrong.is_empty(), "{} of {number} differ\n{}", wrong.len(), wrong.join("\n\n"));
}

#[test]
fn the_output_of_config_can_be_loaded_again() {
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let dir = temporary.path();
    let text =
        "name: again\nservices:\n  a:\n    image: x\n    command: echo $$HOME\n    ports: ['8080:80']\n";
    fs::write(dir.join("compose.yaml"), text).expect("a file");
    let case = Case::default();
    let first = run(&case, dir, &[]).stdout;
    fs::write(dir.join("compose.yaml"), &first).expect("a file");
    let second = run(&case, dir, &[]).stdout;
    assert_eq!(String::from_utf8_lossy(&first), String::from_utf8_lossy(&second));
}
