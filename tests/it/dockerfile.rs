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

mod root {
    use std::collections::BTreeMap;
    use std::fmt::Write as _;
    use std::fs;
    use std::io::Read as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::Path;

    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

    use super::{cases, fixture};
    use crate::support::{TestEnvironment, require};

    /// When everything in the context was changed last.
    const TIME: u64 = 1_000_000_000;
    /// What an image of busybox has itself, and the record leaves out.
    const BASE: [&str; 15] = [
        "bin", "dev", "etc", "home", "lib", "lib64", "root", "sys", "proc", "tmp", "usr", "var", "sbin",
        "run", "init",
    ];

    /// Where hoist differs, and why.
    const DIFFERENT: &[(&str, &str)] =
        &[("chown unknown", "there an unknown user becomes root without a word")];

    fn tar() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut add = |name: &str, kind: tar::EntryType, mode: u32, id: u64, content: &str| {
            let mut header = tar::Header::new_ustar();
            header.set_path(name).expect("a short name");
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_uid(id);
            header.set_gid(id);
            header.set_mtime(TIME);
            let file = kind == tar::EntryType::Regular;
            if kind == tar::EntryType::Symlink {
                header.set_link_name(content).expect("a short name");
            }
            header.set_size(if file { content.len() as u64 } else { 0 });
            header.set_cksum();
            builder.append(&header, if file { content.as_bytes() } else { b"" }).expect("appended");
        };
        add("in/", tar::EntryType::Directory, 0o711, 3, "");
        add("in/f", tar::EntryType::Regular, 0o640, 4, "f");
        add("in/l", tar::EntryType::Symlink, 0o777, 0, "f");
        add("deep/g", tar::EntryType::Regular, 0o600, 0, "g");
        builder.into_inner().expect("written")
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, bytes).expect("compressed");
        encoder.finish().expect("compressed")
    }

    /// The context that `copy.txt` begins with.
    fn make_context(folder: &Path) {
        fs::create_dir_all(folder).expect("made");
        let text = fs::read_to_string(fixture("copy.txt")).expect("a fixture");
        let mut paths = Vec::new();
        let lines = text.lines().take_while(|line| !line.starts_with("=== "));
        for line in lines.filter(|line| !line.starts_with('#')) {
            let path = if let Some((name, target)) = line.split_once(" -> ") {
                symlink(target, folder.join(name)).expect("linked");
                folder.join(name)
            } else if let Some((name, target)) = line.split_once(" = ") {
                fs::hard_link(folder.join(target), folder.join(name)).expect("linked");
                folder.join(name)
            } else {
                let (name, mode) = line.rsplit_once(' ').expect("a mode");
                let path = folder.join(name);
                if name.ends_with('/') {
                    fs::create_dir(&path).expect("made");
                } else {
                    fs::write(&path, name).expect("written");
                }
                let mode = u32::from_str_radix(mode, 8).expect("a mode");
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("changed");
                path
            };
            paths.push(path);
        }
        let files: [(&str, Vec<u8>); 4] = [
            ("t.tar", tar()),
            ("t.tar.gz", gzip(&tar())),
            ("plain.gz", gzip(&[b'x'; 2000])),
            (".dockerignore", b"ignored\n".to_vec()),
        ];
        for (name, content) in files {
            fs::write(folder.join(name), content).expect("written");
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o644)).expect("changed");
            paths.push(folder.join(name));
        }
        let time = Timespec { tv_sec: TIME.cast_signed(), tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        for path in paths.iter().rev() {
            rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("dated");
        }
    }

    /// The trees of all images in an archive of `image save`, by tag, as `copy.txt` has them.
    fn trees(archive: &Path) -> BTreeMap<String, Vec<String>> {
        let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut reader = tar::Archive::new(fs::File::open(archive).expect("opened"));
        for entry in reader.entries().expect("an archive") {
            let mut entry = entry.expect("an entry");
            let name = entry.path().expect("a name").display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("read");
            files.insert(name, content);
        }
        let manifest: serde_json::Value = serde_json::from_slice(&files["manifest.json"]).expect("JSON");
        let mut out = BTreeMap::new();
        for image in manifest.as_array().expect("a list") {
            let mut tree: BTreeMap<String, String> = BTreeMap::new();
            for layer in image["Layers"].as_array().expect("a list") {
                apply(&files[layer.as_str().expect("a name")], &mut tree);
            }
            let tag = image["RepoTags"][0].as_str().expect("a tag").to_owned();
            let tag = tag.rsplit('/').next().unwrap_or_default().to_owned();
            let mut lines: Vec<_> = tree.into_iter().collect();
            lines.sort();
            out.insert(tag, lines.into_iter().map(|(_, line)| line).collect());
        }
        out
    }

    /// Puts a layer's entries over those of the layers below.
    fn apply(layer: &[u8], tree: &mut BTreeMap<String, String>) {
        for entry in tar::Archive::new(layer).entries().expect("a layer") {
            let entry = entry.expect("an entry");
            let name = entry.path().expect("a name").display().to_string();
            let name = name.trim_start_matches("./").trim_end_matches('/').to_owned();
            let (above, last) =
                name.rsplit_once('/').map_or(("", name.as_str()), |(above, last)| (above, last));
            if let Some(hidden) = last.strip_prefix(".wh.") {
                let whole = if above.is_empty() { hidden.to_owned() } else { format!("{above}/{hidden}") };
                tree.retain(|path, _| *path != whole && !path.starts_with(&format!("{whole}/")));
                continue;
            }
            if name.is_empty() || BASE.contains(&name.split('/').next().unwrap_or_default()) {
                continue;
            }
            let header = entry.header();
            let target =
                entry.link_name().ok().flatten().map(|link| link.display().to_string()).unwrap_or_default();
            let kind = match header.entry_type() {
                tar::EntryType::Directory => "/".to_owned(),
                tar::EntryType::Symlink => format!(" -> {target}"),
                tar::EntryType::Link => format!(" = {target}"),
                _ => String::new(),
            };
            let time = if header.mtime().expect("a time") == TIME { " t" } else { "" };
            let mode = header.mode().expect("a mode") & 0o7777;
            let (uid, gid) = (header.uid().expect("a number"), header.gid().expect("a number"));
            tree.insert(name.clone(), format!("{mode:o} {uid}:{gid} {name}{kind}{time}"));
        }
    }

    /// All cases at once: each is a service with its Dockerfile inline.
    #[test]
    fn files_are_copied_where_and_as_buildkit_copies_them() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        make_context(&env.project().join("context"));
        let all = cases("copy.txt");
        let tag = |number: usize| format!("case{number}:1");
        let service = |number: usize, text: &str| {
            let text = serde_json::to_string(text).expect("encodes").replace('$', "$$");
            format!(
                "  s{number}: {{image: '{}', build: {{context: context, dockerfile_inline: {text}}}}}\n",
                tag(number)
            )
        };
        let skipped = |title: &str| DIFFERENT.iter().any(|(name, _)| *name == title);
        let mut compose = "services:\n".to_owned();
        let mut tags = Vec::new();
        let mut wrong = String::new();
        for (number, (title, text, said)) in all.iter().enumerate().filter(|(_, (title, ..))| !skipped(title))
        {
            if said.first().is_some_and(|line| line.starts_with("error")) {
                env.compose(&format!("services:\n{}", service(number, text)));
                let output = env.hoist(&["build", "-q"]);
                if output.code == 0 {
                    let _ = writeln!(wrong, "=== {title}\nwas not refused");
                }
            } else if !said.is_empty() {
                compose.push_str(&service(number, text));
                tags.push(tag(number));
            }
        }
        env.compose(&compose);
        env.hoist(&["build"]).ok();
        let archive = env.project().join("images.tar");
        let mut save =
            vec!["image".to_owned(), "save".to_owned(), "-o".to_owned(), archive.display().to_string()];
        save.extend(tags);
        env.hoist(&save.iter().map(String::as_str).collect::<Vec<_>>()).ok();
        let trees = trees(&archive);
        for (number, (title, text, said)) in all.iter().enumerate() {
            let Some(tree) = trees.get(&tag(number)) else { continue };
            let mut said = said.clone();
            said.sort_by(|a, b| path_of(a).cmp(path_of(b)));
            let mut tree = tree.clone();
            tree.sort_by(|a, b| path_of(a).cmp(path_of(b)));
            if *tree != said {
                let only = |a: &[String], b: &[String]| {
                    a.iter().filter(|line| !b.contains(line)).cloned().collect::<Vec<_>>().join("\n  ")
                };
                let _ = writeln!(
                    wrong,
                    "=== {title}\n{text} there:\n  {}\n here:\n  {}",
                    only(&said, &tree),
                    only(&tree, &said)
                );
            }
        }
        assert!(wrong.is_empty(), "{wrong}");
    }

    fn path_of(line: &str) -> &str {
        line.splitn(3, ' ').nth(2).unwrap_or_default()
    }
}
