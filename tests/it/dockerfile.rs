//! The Dockerfile front end against BuildKit: what `tests/fixtures/dockerfile/record` wrote down.

#![expect(clippy::result_large_err, reason = "a mistake is met once per file at most")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use hoist::diagnostic::{Diagnostic, SourceMap, render};
use hoist::runtime::build::dockerfile::ast::{Dockerfile, Kind};
use hoist::runtime::build::dockerfile::scope::{Globals, Inputs, Platform, Scope};
use hoist::runtime::build::dockerfile::{codes, expand, lint, parse, rules};
use hoist::runtime::build::ignore::Ignore;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/dockerfile").join(name)
}

/// Title, text and what was recorded of each case.
fn cases(name: &str) -> Vec<(String, String, Vec<String>)> {
    let all = fs::read_to_string(fixture(name)).expect("a fixture");
    let blocks = all.split("=== ").skip(1);
    let case = blocks.map(|block| {
        let (title, rest) = block.split_once('\n').expect("a title");
        let (text, said) = rest.split_once("\n---\n").expect("what was said");
        (
            title.to_owned(),
            format!("{text}\n"),
            said.lines().filter(|l| !l.is_empty()).map(str::to_owned).collect(),
        )
    });
    case.collect()
}

fn inputs(args: &[(&str, &str)]) -> Inputs {
    let here = Platform { os: "linux".into(), architecture: "amd64".into(), variant: String::new() };
    Inputs {
        build_args: args.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        build_platform: here.clone(),
        target_platform: here,
        target_stage: None,
    }
}

fn read(text: &str) -> (SourceMap, Result<Dockerfile, Vec<Diagnostic>>) {
    let mut sources = SourceMap::default();
    let file = sources.add(Path::new("/x/Dockerfile"), "Dockerfile", text);
    let parsed = parse(file, &sources);
    (sources, parsed)
}

fn warnings(file: &Dockerfile) -> Vec<Diagnostic> {
    let surroundings = lint::Surroundings {
        inputs: &inputs(&[]),
        image_env: &|_| Some(Vec::new()),
        ignored: &|path| path.starts_with("ignored"),
    };
    lint::check(file, &surroundings)
}

/// What BuildKit refuses when it carries the file out, and hoist then, too.
const LATER: &[&str] = &[
    "chmod big",
    "chmod wrong",
    "copy from itself",
    "copy from later stage",
    "copy from number beyond",
    "copy from variable",
    "directive check error",
    "expand bad",
    "expand modifier",
    "expand quote",
    "expand unreachable",
    "expose big",
    "expose proto",
    "expose range",
    "expose wrong",
    "from default empty",
    "from default invalid",
    "from undefined arg with platform",
    "platform wrong",
    "required argument",
    "stopsignal",
    "undefined in mount",
];

/// Where hoist differs, and why.
const DIFFERENT: &[(&str, &str)] = &[
    ("copy all flags", "`--parents` is in the labs channel there"),
    ("copy ignored", "there the rule needs the context, which `--check` does not load"),
    ("onbuild unknown", "there a wrong trigger is found when it fires"),
    ("onbuild wrong", "there a wrong trigger is found when it fires"),
    ("undefined in heredoc", "there the place is the instruction, here the line of the body"),
    ("undefined in workdir user", "there the unknown signal ends the check before it is through"),
    ("run security", "`--security` is in the labs channel there"),
];

#[test]
fn files_are_accepted_and_warned_about_as_by_buildkit() {
    let mut wrong = String::new();
    let mut seen = BTreeSet::new();
    for (title, text, said) in cases("check.txt") {
        seen.insert(title.clone());
        let (_, parsed) = read(&text);
        let refused = said.iter().any(|line| line.starts_with("error"));
        let refused_here = refused && !LATER.contains(&title.as_str());
        if DIFFERENT.iter().any(|(name, _)| *name == title) {
            continue;
        }
        if parsed.is_err() != refused_here {
            let _ = writeln!(wrong, "{title}: said {said:?}, got {:?}", parsed.err());
            continue;
        }
        let Ok(file) = parsed else { continue };
        // The line of a blank one is the blank one's here, and that of the instruction's end there.
        let line = |rule: &str, line: usize| {
            if rule == "NoEmptyContinuation" { rule.to_owned() } else { format!("{rule} {line}") }
        };
        let (mut expected, mut got) = (BTreeSet::new(), BTreeSet::new());
        for warning in said.iter().filter(|line| !line.starts_with("error")) {
            let (rule, at) = warning.split_once(' ').expect("a line");
            expected.insert(line(rule, at.parse().expect("a number")));
        }
        let (sources, _) = read(&text);
        for warning in warnings(&file) {
            let rule = rules::RULES.iter().find(|rule| rule.code == warning.code).expect("a rule");
            got.insert(line(rule.name, sources.start(warning.primary.expect("a place").span).line));
        }
        if got != expected {
            let _ = writeln!(wrong, "{title}: said {expected:?}, got {got:?}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    for name in LATER.iter().chain(DIFFERENT.iter().map(|(name, _)| name)) {
        assert!(seen.contains(*name), "no case `{name}`");
    }
}

/// The value of `R` at the end of a file.
fn value(file: &Dockerfile, args: &[(&str, &str)]) -> Result<Option<String>, Diagnostic> {
    let escape = file.directives.escape;
    let globals = Globals::new(file, &inputs(args))?;
    let mut ends: Vec<Scope> = Vec::new();
    for (number, stage) in file.stages.iter().enumerate() {
        let base = expand::expand(&stage.from.base, escape, &globals)?;
        let mut scope = file.stage(&base, number).map_or_else(Scope::default, |parent| ends[parent].clone());
        for instruction in &stage.instructions {
            match &instruction.kind {
                Kind::Arg(args) => {
                    for arg in args {
                        scope.declare(arg, escape, &globals)?;
                    }
                }
                Kind::Env(pairs) => {
                    scope.set(pairs, escape)?;
                }
                _ => {}
            }
        }
        ends.push(scope);
    }
    Ok(ends.last().and_then(|scope| scope.env().get("R").cloned()))
}

#[test]
fn variables_expand_as_with_buildkit() {
    let mut wrong = String::new();
    for (title, text, said) in cases("expand.txt") {
        let (_, parsed) = read(&text);
        let got = match parsed
            .map_err(|mut all| all.remove(0))
            .and_then(|file| value(&file, &[("given", "cli")]))
        {
            Ok(value) => serde_json::to_string(&value).expect("encodes"),
            Err(problem) => format!("error {}", problem.message),
        };
        let same = got == said[0] || got.starts_with("error") && said[0].starts_with("error");
        if !same {
            let _ = writeln!(wrong, "{title}: said {}, got {got}", said[0]);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_context_is_what_buildkit_takes_of_it() {
    let text = fs::read_to_string(fixture("ignore.txt")).expect("a fixture");
    let mut blocks = text.split("=== ");
    let tree: Vec<&str> =
        blocks.next().expect("the context").lines().filter(|line| !line.starts_with('#')).collect();
    let mut wrong = String::new();
    for block in blocks {
        let (patterns, said) = block.split_once('\n').expect("what was said");
        let patterns: String = serde_json::from_str(patterns).expect("a text");
        let mut sources = SourceMap::default();
        let file = sources.add(Path::new(".dockerignore"), ".dockerignore", patterns.as_str());
        let got = match Ignore::parse(file, &sources) {
            Err(_) => "error".to_owned(),
            Ok(ignore) => {
                let counts = |path: &str| !ignore.ignores(path.trim_end_matches('/').as_bytes());
                let below = |path: &str, kept: bool| {
                    tree.iter()
                        .any(|other| other.starts_with(path) && *other != path && counts(other) == kept)
                };
                for path in
                    tree.iter().filter(|path| path.ends_with('/') && !counts(path) && below(path, true))
                {
                    let open = ignore.may_keep_below(path.trim_end_matches('/').as_bytes());
                    assert!(open, "{patterns:?}: something below {path} counts, but would not be looked at");
                }
                let gone = |path: &&&str| !(counts(path) || path.ends_with('/') && below(path, true));
                tree.iter().filter(gone).copied().collect::<Vec<_>>().join(" | ")
            }
        };
        if got != said.trim_end_matches('\n') {
            let _ = writeln!(wrong, "{patterns:?}\n said {}\n got  {got}", said.trim_end());
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Every mistake and warning as it is shown. `UPDATE_EXPECTED=1` writes them anew.
#[test]
fn every_mistake_is_shown_at_its_place_with_what_to_do() {
    let mut got = String::new();
    let mut codes = BTreeSet::new();
    for (title, text, _) in cases("check.txt") {
        let (sources, parsed) = read(&text);
        let mut all = match &parsed {
            Ok(file) => warnings(file),
            Err(all) => all.clone(),
        };
        if let Ok(file) = &parsed {
            all.extend(value(file, &[]).err());
        }
        if all.is_empty() {
            continue;
        }
        let _ = writeln!(got, "=== {title}");
        for diagnostic in all {
            codes.insert(diagnostic.code);
            got.push_str(&render(&diagnostic, &sources, false));
        }
    }
    let file = fixture("check.expected");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(&file, &got).expect("an expectation can be written");
    }
    let expected = fs::read_to_string(&file).unwrap_or_default();
    assert!(got == expected, "not as in {}:\n{got}", file.display());

    let table: BTreeSet<&str> = codes::ERRORS
        .iter()
        .map(|(code, _)| *code)
        .chain(rules::RULES.iter().map(|rule| rule.code))
        .collect();
    let unlisted: Vec<_> = codes.difference(&table).collect();
    assert!(unlisted.is_empty(), "not in the tables: {unlisted:?}");
    let unseen: Vec<_> = table.difference(&codes).filter(|code| **code != "invalid-port").collect();
    assert!(unseen.is_empty(), "never shown: {unseen:?}");
}
