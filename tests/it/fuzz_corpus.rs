//! What fuzzing has found stays found: the checks of `tests/fuzz` over its corpus.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

#[expect(unreachable_pub, reason = "a crate of its own uses them, too")]
#[path = "../fuzz/src/checks.rs"]
mod checks;

/// Runs a check over the inputs of its target; none of them takes long.
fn replay(target: &str, check: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let files = fs::read_dir(&folder).expect("a corpus").map(|entry| entry.expect("an entry").path());
    let mut seen = 0;
    for file in files {
        let input = fs::read(&file).expect("an input");
        let start = Instant::now();
        check(&input);
        // A debug build on a busy machine; what is looked for takes minutes.
        assert!(start.elapsed() < Duration::from_secs(20), "{} took {:?}", file.display(), start.elapsed());
        seen += 1;
    }
    assert!(seen > 10, "only {seen} inputs in {}", folder.display());
}

#[test]
fn loader() {
    replay("loader", checks::loader);
}

#[test]
fn merge() {
    replay("merge", checks::merge);
}

#[test]
fn interpolation() {
    replay("interpolation", |input| checks::interpolation(&String::from_utf8_lossy(input)));
}

#[test]
fn dotenv() {
    replay("dotenv", |input| checks::dotenv(&String::from_utf8_lossy(input)));
}
