//! `config --explain` names who set a value, and `config --diagnostics` is for programs.

use std::path::Path;
use std::process::{Command, Output};

const FILES: &[(&str, &str)] = &[
    (
        "compose.yaml",
        "services:
  web:
    extends: {file: common/base.yaml, service: app}
    image: nginx:1.26
    environment: [MODE=dev, TOKEN, USER]
    env_file: web.env
include: [inc.yaml]
",
    ),
    (
        "compose.override.yaml",
        "services:
  web:
    image: nginx:${TAG:?}
    environment: {MODE: test}
    command: [run, fast]
",
    ),
    (
        "common/base.yaml",
        "services:
  app:
    image: app
    restart: always
    command: [run]
",
    ),
    ("inc.yaml", "services: {db: {image: 'pg:16'}}\n"),
    (".env", "# the version\nTAG=1.27\n"),
    ("web.env", "A=1\nexport COLOR=red\n"),
    ("bad.yaml", "services: {web: {imag: x}}\n"),
];

fn project() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(dir.path().join("common")).expect("a folder");
    for (name, text) in FILES {
        std::fs::write(dir.path().join(name), text).expect("a file");
    }
    dir
}

fn config(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hoist"))
        .args(args)
        .current_dir(dir)
        .env_clear()
        .env("USER", "me")
        .output()
        .expect("hoist runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

#[test]
fn each_value_has_its_file_line_layer_and_what_it_overrode() {
    let dir = project();
    let output = config(dir.path(), &["config", "--explain"]);
    let text = stdout(&output);
    for wanted in [
        "services.web.image: \"nginx:1.27\"
    override compose.override.yaml:3:12
    ${TAG} by env file .env:2:1
    overrides extends common/base.yaml:3:12: \"app\"
    overrides base compose.yaml:4:12: \"nginx:1.26\"
",
        "services.web.command.1: \"fast\"\n    override compose.override.yaml:5:20\n",
        "services.web.environment.COLOR: \"red\"\n    env file web.env:2:8\n",
        "services.web.environment.MODE: \"test\"\n    override compose.override.yaml:4:25\n    overrides base compose.yaml:5:19: \"dev\"\n",
        "services.web.environment.TOKEN: null\n    base compose.yaml:5:29\n    ${TOKEN} is not set\n",
        "services.web.environment.USER: \"me\"\n    base compose.yaml:5:36\n    ${USER} by shell\n",
        "services.web.restart: \"always\"\n    extends common/base.yaml:4:14\n",
        "services.db.image: \"pg:16\"\n    include inc.yaml:1:24\n",
        "networks.default.name: ",
    ] {
        assert!(text.contains(wanted), "{wanted}\nis not in\n{text}");
    }
}

#[test]
fn a_part_is_explained_as_json_and_a_mistyped_path_gets_a_hint() {
    let dir = project();
    let json =
        stdout(&config(dir.path(), &["config", "--explain", "services.web.image", "--format", "json"]));
    let all: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(all.as_array().map(Vec::len), Some(1), "{json}");
    let one = &all[0];
    assert_eq!((one["value"].as_str(), one["line"].as_u64()), (Some("nginx:1.27"), Some(3)), "{json}");
    assert_eq!(
        (one["variables"][0]["name"].as_str(), one["variables"][0]["line"].as_u64()),
        (Some("TAG"), Some(2))
    );
    assert_eq!(one["overrides"][1]["value"], "nginx:1.26");
    let wrong = config(dir.path(), &["config", "--explain", "services.web.imag"]);
    assert_eq!(wrong.status.code(), Some(1));
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(said.contains("did you mean `services.web.image`?"), "{said}");
}

#[test]
fn mistakes_and_warnings_are_told_to_programs() {
    let dir = project();
    let wrong = config(dir.path(), &["-f", "bad.yaml", "config", "--diagnostics", "json"]);
    assert_eq!(wrong.status.code(), Some(1));
    let all: serde_json::Value = serde_json::from_str(&stdout(&wrong)).expect("JSON");
    assert_eq!(all[0]["code"], "unknown-key");
    assert_eq!(
        (all[0]["at"]["start"]["line"].as_u64(), all[0]["at"]["start"]["column"].as_u64()),
        (Some(1), Some(18))
    );
    let right = config(dir.path(), &["config", "--diagnostics", "json"]);
    assert_eq!((right.status.code(), stdout(&right).as_str()), (Some(0), "[]\n"));
    std::fs::write(dir.path().join("compose.override.yaml"), "version: '3'\n").expect("a file");
    let warned = config(dir.path(), &["config", "--diagnostics", "json"]);
    let all: serde_json::Value = serde_json::from_str(&stdout(&warned)).expect("JSON");
    assert_eq!((warned.status.code(), all[0]["severity"].as_str()), (Some(0), Some("warning")), "{all}");
}
