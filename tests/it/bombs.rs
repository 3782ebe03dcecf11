//! Files made to take all memory or time are refused, or read, within bounds.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

/// CI looks at the product.
fn program() -> String {
    std::env::var("HOIST_TEST_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_hoist").to_owned())
}

/// `config -q` of this file in 500 MB of memory, however it ends; what it said.
#[track_caller]
fn bounded(text: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("compose.yaml"), text).expect("a file");
    let output = Command::new("sh")
        // Seconds of processor time: a second is the promise for the product, a debug build is slow.
        .args(["-c", "ulimit -v 500000; ulimit -t 10; exec \"$0\" -p p config -q", &program()])
        .current_dir(folder.path())
        .env_clear()
        .output()
        .expect("sh runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(matches!(output.status.code(), Some(0 | 1)), "{:?}: {said}", output.status);
    said
}

#[track_caller]
fn refused(text: &str, code: &str) {
    let said = bounded(text);
    assert!(said.contains(&format!("error[{code}]")), "{said}");
    assert!(said.len() < 100_000, "{} bytes of complaint", said.len());
}

/// The text that `line` gives for each number.
fn repeated(count: usize, line: impl Fn(usize) -> String) -> String {
    (0..count).fold(String::new(), |text, number| text + &line(number))
}

/// Ten levels, each with ten aliases of the one before.
fn tenfold(item: impl Fn(usize, &str) -> String) -> String {
    let mut text = String::from("x-a0: &a0 {k: v}\n");
    for level in 1..10 {
        let alias = format!("*a{}", level - 1);
        writeln!(text, "x-a{level}: &a{level} {}", item(level, &alias)).expect("a string");
    }
    text + "services: {web: {image: x}}\n"
}

#[test]
fn aliases_of_aliases() {
    refused(&tenfold(|_, alias| format!("[{}]", [alias; 10].join(","))), "yaml-too-big");
    let keys = |_, alias: &str| (0..10).map(|n| format!("k{n}: {alias}")).collect::<Vec<_>>().join(", ");
    refused(&tenfold(|level, alias| format!("{{{}}}", keys(level, alias))), "yaml-too-big");
}

#[test]
fn merge_keys_of_merge_keys() {
    // Each level doubles what is merged, though hardly anything is left in the end.
    bounded(&tenfold(|level, alias| format!("{{<<: [{}], k{level}: {alias}}}", [alias; 10].join(","))));
}

#[test]
fn anchors_within_anchors() {
    let open = repeated(200, |n| format!("&a{n} ["));
    let items = "x,".repeat(20_000);
    refused(
        &format!("x-a: {open}{items}{}\nservices: {{web: {{image: x}}}}\n", "]".repeat(200)),
        "yaml-too-big",
    );
}

#[test]
fn depth() {
    refused(&"[".repeat(100_000), "yaml-too-big");
    refused(&format!("x-a: {}", "{a: ".repeat(100_000)), "yaml-too-big");
    let block = repeated(1_000, |n| format!("{}a:\n", " ".repeat(n)));
    refused(&block, "yaml-too-big");
    refused(&"- ".repeat(100_000), "yaml-too-big");
}

#[test]
fn width() {
    bounded(&format!("x-a: [{}]\nservices: {{web: {{image: x}}}}\n", "x,".repeat(100_000)));
    refused(&format!("x-a: [{}]\n", "x,".repeat(1_100_000)), "yaml-too-big");
    let keys = repeated(20_000, |n| format!("  k{n}: x\n"));
    bounded(&format!("x-a:\n{keys}services: {{web: {{image: x}}}}\n"));
    let wrong = repeated(20_000, |n| format!("    k{n}: x\n"));
    refused(&format!("services:\n  web:\n    image: x\n{wrong}"), "unknown-key");
    refused(
        &format!("services:\n  web:\n    image: x\n{}", "    image: x\n".repeat(20_000)),
        "duplicate-key",
    );
}

#[test]
fn length() {
    let long = "k".repeat(1_000_000);
    refused(&format!("{long}: x\n"), "yaml-syntax");
    bounded(&format!("x-a: {long}\nservices: {{web: {{image: x}}}}\n"));
    bounded(&format!("x-a: \"{}\"\n", "\\n".repeat(500_000)));
    bounded(&format!("services: {{web: {{image: x, command: {}}}}}\n", "${A}".repeat(100_000)));
    bounded(&format!(
        "services: {{web: {{image: \"{}x{}\"}}}}\n",
        "${A:-".repeat(100_000),
        "}".repeat(100_000)
    ));
    refused(&" ".repeat(17 << 20), "cannot-read-file");
}

#[test]
fn a_device_without_an_end() {
    let output = Command::new("sh")
        .args(["-c", "ulimit -v 500000; ulimit -t 10; exec \"$0\" -f /dev/zero config", &program()])
        .output()
        .expect("sh runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("larger than 16 MiB"), "{said}");
}
