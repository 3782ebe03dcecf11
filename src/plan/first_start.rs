//! Variables that an image reads only when its data directory is empty, and that have changed since.
//!
//! The official database images make the data directory at their first start, with the password,
//! user and database that the environment says, and never look at these variables again. Somebody
//! who changes the password in the file gets a container with the new one and a database with the
//! old one.

use std::collections::BTreeMap;

use crate::engine::VolumeState;
use crate::spec::{ContainerSpec, MountSource};

/// The variables, by the images' documentation: `mysql`, `mariadb`, `postgres`, `mongo`, `influxdb`.
const VARIABLES: &[&str] = &[
    "MYSQL_ROOT_PASSWORD",
    "MYSQL_PASSWORD",
    "MYSQL_USER",
    "MYSQL_DATABASE",
    "MARIADB_ROOT_PASSWORD",
    "MARIADB_PASSWORD",
    "MARIADB_USER",
    "MARIADB_DATABASE",
    "POSTGRES_PASSWORD",
    "POSTGRES_USER",
    "POSTGRES_DB",
    "MONGO_INITDB_ROOT_USERNAME",
    "MONGO_INITDB_ROOT_PASSWORD",
    "MONGO_INITDB_DATABASE",
    "DOCKER_INFLUXDB_INIT_PASSWORD",
    "DOCKER_INFLUXDB_INIT_USERNAME",
];

/// A warning when `now` changes such a variable of `before` and keeps a volume that exists. Says no values.
pub(super) fn ignored(
    service: &str,
    before: &ContainerSpec,
    now: &ContainerSpec,
    volumes: &BTreeMap<String, VolumeState>,
) -> Option<String> {
    fn value<'s>(spec: &'s ContainerSpec, name: &str) -> Option<&'s str> {
        spec.process.env.iter().rev().find(|(key, _)| key == name).and_then(|(_, value)| value.as_deref())
    }
    let named = |spec: &ContainerSpec| -> Vec<String> {
        let names = spec.mounts.iter().filter_map(|mount| match &mount.source {
            MountSource::Volume { name: Some(name), .. } => Some(name.clone()),
            _ => None,
        });
        names.collect()
    };
    let old = named(before);
    let kept = named(now).into_iter().find(|name| old.contains(name) && volumes.contains_key(name))?;
    let changed: Vec<String> = VARIABLES
        .iter()
        .filter(|name| value(before, name).is_some() && value(before, name) != value(now, name))
        .map(|name| format!("`{name}`"))
        .collect();
    let (verb, it) = match changed.len() {
        0 => return None,
        1 => ("has", "it"),
        _ => ("have", "them"),
    };
    Some(format!(
        "service `{service}`: {} {verb} changed, but a database reads {it} only when its data is first made, and volume `{kept}` has data: change the database itself, or let `hoist down -v` delete the data",
        changed.join(" and ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::MountSpec;

    fn spec(password: &str, volume: Option<&str>) -> ContainerSpec {
        let mounts = volume.map(|name| MountSpec {
            source: MountSource::Volume {
                name: Some(name.to_owned()),
                nocopy: false,
                subpath: None,
                labels: BTreeMap::new(),
                driver_opts: BTreeMap::new(),
            },
            target: "/var/lib/mysql".into(),
            read_only: false,
        });
        let mut spec = ContainerSpec { mounts: mounts.into_iter().collect(), ..ContainerSpec::default() };
        spec.process.env = vec![("MYSQL_ROOT_PASSWORD".into(), Some(password.into()))];
        spec
    }

    #[test]
    fn a_new_password_for_old_data_is_told_without_the_password() {
        let volumes = BTreeMap::from([("p_data".to_owned(), VolumeState::default())]);
        let said =
            ignored("db", &spec("old-one", Some("p_data")), &spec("new-one", Some("p_data")), &volumes)
                .expect("a warning");
        assert!(said.contains("`MYSQL_ROOT_PASSWORD` has changed") && said.contains("p_data"), "{said}");
        assert!(!said.contains("old-one") && !said.contains("new-one"), "{said}");
    }

    #[test]
    fn nothing_is_said_when_there_is_nothing_to_keep() {
        let volumes = BTreeMap::from([("p_data".to_owned(), VolumeState::default())]);
        let old = spec("a", Some("p_data"));
        assert_eq!(ignored("db", &old, &spec("a", Some("p_data")), &volumes), None, "the same password");
        assert_eq!(ignored("db", &old, &spec("b", None), &volumes), None, "no volume any more");
        assert_eq!(ignored("db", &old, &spec("b", Some("p_new")), &volumes), None, "another volume");
        assert_eq!(ignored("db", &old, &spec("b", Some("p_data")), &BTreeMap::new()), None, "no data yet");
    }
}
