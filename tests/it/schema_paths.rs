//! Every attribute of the Compose model takes effect somewhere.
//!
//! `tests/fixtures/schema-paths/paths.txt` lists the paths of the model and where each one
//! ends; `everything.json` beside it sets them all. For each path the file is loaded and
//! lowered twice, as it is and with that one value changed or taken away, and what differs
//! is compared with what the list says:
//!
//! - `container`, `network`, `volume`: the specification that an engine is given;
//! - `refused`, `warned`: lowering says so and names the attribute;
//! - `loader`: the file is refused without it;
//! - `project`: the canonical output only; the list says who reads it there;
//! - `nothing`: not even that; the list says why.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use hoist::compose::{self, Files, LoadOptions, yaml};
use hoist::model::record::Style;
use hoist::model::{Project, labels};
use hoist::plan::Observed;
use hoist::plan::lower::{self, Instance, Lowering, Naming};
use serde_json::Value;

const MAIN: &str = "/p/everything.json";

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/schema-paths").join(name);
    std::fs::read_to_string(path).expect("a fixture")
}

/// The project directory, in memory.
struct World(BTreeMap<PathBuf, String>);

impl World {
    fn new(main: &Value) -> Self {
        let files = [
            (MAIN, main.to_string()),
            (
                "/p/base.json",
                r#"{"services": {"base": {"image": "base"}, "base1": {"image": "two"}}}"#.into(),
            ),
            ("/p/base.json1", r#"{"services": {"base": {"image": "three"}}}"#.into()),
            ("/p/inc/long.json1", r#"{"services": {"long": {"image": "other"}}}"#.into()),
            ("/p/v.env1", "E=2".into()),
            ("/p/inc/short.json", r#"{"services": {"short": {"image": "short"}}}"#.into()),
            ("/p/inc/short.json1", r#"{"services": {"short": {"image": "other"}}}"#.into()),
            (
                "/p/inc/long.json",
                r#"{"services": {"long": {"image": "long$V2", "volumes": ["./x:/x"]}}}"#.into(),
            ),
            ("/p/inc/long.env", "V2=v2".into()),
            ("/p/v.env", "E='1'".into()),
            ("/p/l.env", "from=file".into()),
        ];
        Self(files.into_iter().map(|(path, text)| (path.into(), text)).collect())
    }
}

impl Files for World {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let text = self.0.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(text.clone().into_bytes())
    }
    fn is_file(&self, path: &Path) -> bool {
        self.0.contains_key(path)
    }
    fn is_dir(&self, _: &Path) -> bool {
        false
    }
    fn real(&self, _: &Path) -> Option<PathBuf> {
        None
    }
    fn stdin(&self) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// What became of a file.
#[derive(PartialEq)]
struct Outcome {
    canonical: String,
    containers: BTreeMap<String, String>,
    networks: String,
    volumes: String,
    refused: String,
    warned: String,
}

impl Outcome {
    /// None when the file is refused.
    fn of(main: &Value) -> Option<Self> {
        let variables = [("HOME", "/root"), ("V", "v")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let options = LoadOptions {
            current_dir: "/p".into(),
            files: vec![MAIN.to_owned()],
            profiles: vec!["p".to_owned()],
            environment: variables.into(),
            all_resources: true,
            no_consistency: true,
            ..LoadOptions::default()
        };
        let project = compose::load(&options, &World::new(main)).ok()?.project;
        Some(Self::lowered(&project))
    }

    fn lowered(project: &Project) -> Self {
        let read = |_: &Path| Err(io::ErrorKind::NotFound.into());
        let lowering = Lowering { project, naming: Naming::default(), read: &read };
        let (mut containers, mut refused, mut warned) = (BTreeMap::new(), String::new(), String::new());
        for (name, service) in &project.services {
            match lowering.container(service, Instance::Replica(1), &Observed::default()) {
                Ok(mut lowered) => {
                    // The hash tells of every attribute; it is no effect.
                    lowered.spec.labels.remove(labels::CONFIG_HASH);
                    warned.push_str(&lowered.warnings.join("\n"));
                    containers.insert(name.clone(), format!("{:?} {:?}", lowered.spec, lowered.borrows));
                }
                Err(error) => refused.push_str(&error.to_string()),
            }
        }
        let networks = project.networks.iter().map(|(key, n)| lower::network(project, key, n));
        let volumes = project.volumes.iter().map(|(key, v)| lower::volume(project, key, v));
        Self {
            canonical: yaml::print(&project.render(Style::Yaml), false),
            containers,
            networks: format!("{:?}", networks.map(without_hash_network).collect::<Vec<_>>()),
            volumes: format!("{:?}", volumes.map(without_hash_volume).collect::<Vec<_>>()),
            refused,
            warned,
        }
    }

    /// Where `other`, which lacks one value, differs.
    fn effect(&self, other: &Self, path: &str) -> &'static str {
        let named = |text: &str| {
            path.split('.').any(|step| text.contains(&format!("`{}`", step.trim_end_matches("[]"))))
        };
        if self.refused != other.refused && named(&self.refused) {
            "refused"
        } else if self.warned != other.warned && named(&self.warned) {
            "warned"
        } else if self.containers != other.containers {
            "container"
        } else if self.networks != other.networks {
            "network"
        } else if self.volumes != other.volumes {
            "volume"
        } else if self.canonical != other.canonical {
            "project"
        } else {
            "nothing"
        }
    }
}

fn without_hash_network(mut spec: hoist::spec::NetworkSpec) -> hoist::spec::NetworkSpec {
    spec.labels.remove(labels::CONFIG_HASH);
    spec
}

fn without_hash_volume(mut spec: hoist::spec::VolumeSpec) -> hoist::spec::VolumeSpec {
    spec.labels.remove(labels::CONFIG_HASH);
    spec
}

/// JSON pointers of everything that `path` stands for.
fn instances(value: &Value, path: &str) -> Vec<String> {
    let mut found = vec![(String::new(), value)];
    for step in path.split('.') {
        let (key, list) = step.strip_suffix("[]").map_or((step, false), |key| (key, true));
        let mut next = Vec::new();
        for (pointer, value) in found {
            for (name, item) in value.as_object().into_iter().flatten() {
                let fits = name == key || key == "*" || key == "x-*" && name.starts_with("x-");
                if !fits {
                    continue;
                }
                let pointer = format!("{pointer}/{}", name.replace('/', "~1"));
                if list {
                    let items = item.as_array().into_iter().flatten().enumerate();
                    next.extend(items.map(|(number, item)| (format!("{pointer}/{number}"), item)));
                } else {
                    next.push((pointer, item));
                }
            }
        }
        found = next;
    }
    found.into_iter().map(|(pointer, _)| pointer).collect()
}

/// The file with the value changed, where that is another file, and with it taken away.
fn variants(main: &Value, pointer: &str) -> Vec<Value> {
    let (parent, key) = pointer.rsplit_once('/').expect("not the root");
    let mut changed = main.clone();
    let value = changed.pointer_mut(pointer).expect("it was found");
    *value = match &*value {
        Value::String(_) if key == "condition" && parent.contains("depends_on") => "service_started".into(),
        Value::String(_) if key == "action" => "sync".into(),
        Value::String(text) if key == "type" && text == "bind" => "npipe".into(),
        Value::String(text) => Value::String(format!("{text}1")),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            items.iter().cloned().chain(["more".into()]).collect()
        }
        Value::Number(number) => number.as_i64().map_or(Value::Null, |n| (n + 1).into()),
        Value::Bool(flag) => (!flag).into(),
        other => other.clone(),
    };
    let mut removed = main.clone();
    match removed.pointer_mut(parent).expect("it was found") {
        Value::Object(map) => drop(map.remove(key)),
        Value::Array(items) => drop(items.remove(key.parse().expect("a position"))),
        _ => unreachable!("only these have children"),
    }
    [changed, removed].into_iter().filter(|variant| variant != main).collect()
}

#[test]
fn every_path_of_the_model_takes_effect_where_the_list_says() {
    let main: Value = serde_json::from_str(&fixture("everything.json")).expect("JSON");
    let base = Outcome::of(&main).expect("the file is right");
    let order = ["container", "network", "volume", "refused", "warned", "project", "loader", "nothing"];
    let (mut wrong, mut count) = (Vec::new(), 0);
    for line in fixture("paths.txt").lines().filter(|line| !line.starts_with('#')) {
        let mut columns = line.split_whitespace();
        let (path, says) = (columns.next().expect("a path"), columns.next().expect("where it ends"));
        count += 1;
        if matches!(says, "project" | "loader" | "nothing") && columns.next().is_none() {
            wrong.push(format!("{path}: why only {says}?"));
        }
        let places = instances(&main, path);
        if places.is_empty() {
            wrong.push(format!("{path}: not set in everything.json"));
        }
        let tried = places.iter().flat_map(|pointer| variants(&main, pointer));
        let effects = tried
            .map(|variant| Outcome::of(&variant).map_or("loader", |outcome| base.effect(&outcome, path)));
        let found = effects.min_by_key(|effect| order.iter().position(|one| one == effect));
        if found != Some(says) {
            wrong.push(format!("{path}: the list says {says}, it is {}", found.unwrap_or("not set")));
        }
    }
    assert!(count > 350, "only {count} paths are listed");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
