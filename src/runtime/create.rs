//! Creating a container: from a spec and an image to a record.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

use crate::runtime::container::check_name;
use crate::runtime::error::{Result, RuntimeError};
use crate::runtime::events::Action;
use crate::runtime::image::{Image, RunConfig};
use crate::runtime::log::LogPlan;
use crate::runtime::shim::finish;
use crate::runtime::state::{FORMAT, MountRecord, Probe, Record, State};
use crate::runtime::{Runtime, Volumes};
use crate::runtime::{signal, snapshot};
use crate::spec::{ContainerSpec, HealthSpec, HealthTest, MountSource, MountSpec, VolumeSpec};
use crate::util::files;
use crate::util::fs::Lock;
use crate::util::ids::random_hex;

/// `PATH` of a container whose image sets none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Runtime {
    /// Creates a container and gives its id. The image must be here; nothing is started.
    ///
    /// Everything about the spec that can be checked without starting is checked.
    /// After an error nothing is left, except named volumes made on the way (as on Docker).
    ///
    /// # Errors
    /// [`RuntimeError::NameTaken`], [`RuntimeError::NoImage`], [`RuntimeError::Invalid`],
    /// [`RuntimeError::Unsupported`], and whatever volumes and files give.
    pub fn create(&self, spec: &ContainerSpec) -> Result<String> {
        check_name(&spec.name)?;
        let creating = self.containers.root().containers().join(".creating");
        loop {
            let lock = Lock::shared(&creating)?;
            let id = random_hex(32);
            let Err(owner) = self.containers.claim_name(&spec.name, &id)? else {
                let made = self.create_named(&id, spec);
                if made.is_err() {
                    self.undo_create(&id, &spec.name);
                }
                drop(lock);
                return made.map(|()| id);
            };
            if self.containers.by_name(&spec.name)?.is_some() {
                return Err(RuntimeError::NameTaken { name: spec.name.clone(), by: owner });
            }
            // The owner is half-made: by somebody who is at it, or who was killed. With the
            // exclusive lock nobody is at it.
            drop(lock);
            let lock = Lock::exclusive(&creating)?;
            if self.containers.by_name(&spec.name)?.is_none() {
                files::remove_file(&self.containers.names_dir().join(&spec.name))?;
            }
            drop(lock);
        }
    }

    fn undo_create(&self, id: &str, name: &str) {
        // The error that is being returned says more than these could; what stays is swept later.
        drop(self.remove_promised_volumes(id));
        drop(snapshot::remove(self.containers.root(), id));
        drop(self.containers.free_name(name, id));
        drop(snapshot::empty_trash(self.containers.root()));
    }

    /// Removes the anonymous volumes that were made, or about to be, for a container that never
    /// came to be.
    pub(super) fn remove_promised_volumes(&self, id: &str) -> Result<()> {
        for name in self.containers.promised_volumes(id)? {
            self.volumes.discard(&name)?;
        }
        Ok(())
    }

    fn create_named(&self, id: &str, spec: &ContainerSpec) -> Result<()> {
        // What the record names is protected from removal once the record is there.
        let hold = self.store.hold()?;
        let image = self
            .store
            .resolve(&spec.image, spec.platform.as_deref())?
            .ok_or_else(|| RuntimeError::NoImage(spec.image.clone()))?;
        let config = &image.config.config;
        check_supported(spec)?;
        let args = arguments(spec, config)?;
        let env = environment(spec, config);
        LogPlan::resolve(&spec.log, &spec.labels, &env)
            .map_err(|source| RuntimeError::Log { container: spec.name.clone(), source })?;
        if let Some(word) = &spec.stop_signal {
            signal::parse(word)?;
        }
        let mut spec = spec.clone();
        for (key, value) in &config.labels {
            spec.labels.entry(key.clone()).or_insert_with(|| value.clone());
        }
        let cwd = spec.process.working_dir.clone().unwrap_or_else(|| config.working_dir.clone());
        let cwd = if cwd.is_empty() { "/".to_owned() } else { cwd };
        if !cwd.starts_with('/') {
            return Err(RuntimeError::Invalid {
                container: spec.name,
                reason: format!("the working directory `{cwd}` is not an absolute path"),
            });
        }
        let snapshot = snapshot::prepare(self.containers.root(), id, &image)?;
        let mounts = self.mounts(id, &spec, &image)?;
        let mut exposed: BTreeSet<String> = config.exposed_ports.keys().map(|p| with_protocol(p)).collect();
        exposed.extend(spec.expose.iter().map(|p| with_protocol(p)));
        exposed.extend(spec.ports.iter().map(|p| format!("{}/{}", p.target, p.protocol)));
        let record = Record {
            version: FORMAT,
            id: id.to_owned(),
            name: spec.name.clone(),
            created: Timestamp::now(),
            image_id: image.id.to_string(),
            layers: snapshot.lower,
            args,
            env,
            cwd,
            user: spec.process.user.clone().unwrap_or_else(|| config.user.clone()),
            stop_signal: spec.stop_signal.clone().unwrap_or_else(|| config.stop_signal.clone()),
            health: probe(spec.health.as_ref(), config),
            mounts,
            exposed: exposed.into_iter().collect(),
            spec,
        };
        let boot = files::boot_id()?;
        self.containers.write_state(id, &State::new(&boot))?;
        self.containers.write_record(&record)?;
        drop(hold);
        self.emit(&record, Action::Create);
        Ok(())
    }

    /// Names, makes and fills volumes; adds those of the image and of `volumes_from`.
    fn mounts(&self, id: &str, spec: &ContainerSpec, image: &Image) -> Result<Vec<MountRecord>> {
        let inherited = match &spec.inherit_anonymous_from {
            Some(other) => self.anonymous_volumes(other)?,
            None => BTreeMap::new(),
        };
        let mut mounts: Vec<MountRecord> = Vec::new();
        for mount in &spec.mounts {
            if mounts.iter().any(|m| m.mount.target == mount.target) {
                return Err(RuntimeError::Invalid {
                    container: spec.name.clone(),
                    reason: format!("two mounts have the target `{}`", mount.target),
                });
            }
            mounts.push(self.mount(id, spec, mount, image, &inherited)?);
        }
        for from in &spec.volumes_from {
            let id = self.containers.resolve(&from.container)?;
            let record =
                self.containers.record(&id)?.ok_or_else(|| RuntimeError::NotFound(from.container.clone()))?;
            for mut mount in record.mounts {
                if mounts.iter().all(|m| m.mount.target != mount.mount.target) {
                    mount.mount.read_only |= from.read_only;
                    mounts.push(mount);
                }
            }
        }
        for target in image.config.config.volumes.keys() {
            if mounts.iter().all(|m| m.mount.target.trim_end_matches('/') != target.trim_end_matches('/')) {
                let mount = MountSpec {
                    source: MountSource::Volume {
                        name: None,
                        nocopy: false,
                        subpath: None,
                        labels: BTreeMap::new(),
                        driver_opts: BTreeMap::new(),
                    },
                    target: target.clone(),
                    read_only: false,
                };
                mounts.push(self.mount(id, spec, &mount, image, &inherited)?);
            }
        }
        // What lies below another mount is attached after it.
        mounts.sort_by_key(|m| m.mount.target.split('/').filter(|part| !part.is_empty()).count());
        Ok(mounts)
    }

    fn mount(
        &self,
        id: &str,
        spec: &ContainerSpec,
        mount: &MountSpec,
        image: &Image,
        inherited: &BTreeMap<String, String>,
    ) -> Result<MountRecord> {
        if !mount.target.starts_with('/') || mount.target.trim_end_matches('/').is_empty() {
            return Err(RuntimeError::Invalid {
                container: spec.name.clone(),
                reason: format!(
                    "`{}` is no mount target: it must be an absolute path, and not `/`",
                    mount.target
                ),
            });
        }
        let mut mount = mount.clone();
        let mut anonymous = false;
        let source = match &mut mount.source {
            MountSource::Bind { path, create, .. } => {
                if !*create && !path.exists() {
                    return Err(RuntimeError::Invalid {
                        container: spec.name.clone(),
                        reason: format!("bind source path does not exist: {}", path.display()),
                    });
                }
                path.clone()
            }
            MountSource::Volume { name, nocopy, labels, driver_opts, .. } => {
                let volume = if let Some(name) = name {
                    match self.volumes.get(name)? {
                        Some(volume) => volume,
                        None => self.volumes.create(&VolumeSpec {
                            name: name.clone(),
                            driver: None,
                            driver_opts: driver_opts.clone(),
                            labels: labels.clone(),
                        })?,
                    }
                } else {
                    anonymous = true;
                    let kept = inherited.get(&mount.target).map(|name| self.volumes.get(name)).transpose()?;
                    match kept.flatten() {
                        Some(volume) => volume,
                        None => {
                            let name = Volumes::random_name();
                            self.containers.promise_volume(id, &name)?;
                            self.volumes.create_anonymous(&name, labels, driver_opts)?
                        }
                    }
                };
                // Whoever made the volume may have been killed between its record and its directory.
                crate::util::fs::create_dir_all(&volume.data)?;
                *name = Some(volume.name.clone());
                if !*nocopy {
                    self.volumes.fill(&volume, &image.layers, &mount.target)?;
                }
                volume.directory().map_or_else(|| volume.data.clone(), PathBuf::from)
            }
            MountSource::Tmpfs { .. } => PathBuf::new(),
            MountSource::Image { reference, .. } => {
                if self.store.resolve(reference, None)?.is_none() {
                    return Err(RuntimeError::NoImage(reference.clone()));
                }
                PathBuf::new()
            }
        };
        Ok(MountRecord { mount, anonymous, source })
    }

    /// Anonymous volumes of a container by target; none when it is gone.
    fn anonymous_volumes(&self, container: &str) -> Result<BTreeMap<String, String>> {
        let record = match self.containers.resolve(container) {
            Ok(id) => self.containers.record(&id)?,
            Err(RuntimeError::NotFound(_)) => None,
            Err(error) => return Err(error),
        };
        let mounts = record.map(|r| r.mounts).unwrap_or_default();
        Ok(mounts
            .into_iter()
            .filter(|m| m.anonymous)
            .filter_map(|m| match m.mount.source {
                MountSource::Volume { name: Some(name), .. } => Some((m.mount.target, name)),
                _ => None,
            })
            .collect())
    }

    /// Removes a container that does not run, or with `force` one that does.
    ///
    /// `volumes` removes its anonymous volumes as well, unless another container mounts them.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`]; [`RuntimeError::Running`] without `force`; a step that failed.
    pub fn remove(&self, container: &str, force: bool, volumes: bool) -> Result<()> {
        let id = self.containers.resolve(container)?;
        let _lock = self.containers.lock(&id)?;
        self.make_idle(&id, container, force)?;
        finish::remove(&self.containers, &id, volumes)
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`], [`RuntimeError::NameTaken`], [`RuntimeError::Name`].
    pub fn rename(&self, container: &str, name: &str) -> Result<()> {
        let id = self.containers.resolve(container)?;
        let _lock = self.containers.lock(&id)?;
        let mut record =
            self.containers.record(&id)?.ok_or_else(|| RuntimeError::NotFound(container.to_owned()))?;
        if record.name == name {
            return Ok(());
        }
        if let Err(owner) = self.containers.claim_name(name, &id)?
            && owner != id
        {
            return Err(RuntimeError::NameTaken { name: name.to_owned(), by: owner });
        }
        let old = std::mem::replace(&mut record.name, name.to_owned());
        name.clone_into(&mut record.spec.name);
        self.containers.write_record(&record)?;
        self.containers.free_name(&old, &id)?;
        self.emit(&record, Action::Rename);
        Ok(())
    }
}

fn with_protocol(port: &str) -> String {
    if port.contains('/') { port.to_owned() } else { format!("{port}/tcp") }
}

/// Entrypoint and command. A changed entrypoint drops the image's command.
fn arguments(spec: &ContainerSpec, config: &RunConfig) -> Result<Vec<String>> {
    let mut args = match &spec.process.entrypoint {
        Some(entrypoint) => entrypoint.iter().filter(|_| entrypoint != &[String::new()]).cloned().collect(),
        None => config.entrypoint.clone(),
    };
    match &spec.process.command {
        Some(command) => args.extend(command.iter().cloned()),
        None if spec.process.entrypoint.is_none() => args.extend(config.cmd.iter().cloned()),
        None => {}
    }
    if args.is_empty() {
        return Err(RuntimeError::Invalid {
            container: spec.name.clone(),
            reason: "no command specified: neither the image nor the service has one".into(),
        });
    }
    Ok(args)
}

/// The image's environment with the spec's changes.
fn environment(spec: &ContainerSpec, config: &RunConfig) -> Vec<String> {
    let mut env = Vec::new();
    if !config.env.iter().any(|e| e.starts_with("PATH=")) {
        env.push(DEFAULT_PATH.to_owned());
    }
    env.extend(config.env.iter().cloned());
    apply_environment(&mut env, &spec.process.env);
    env
}

/// Sets, replaces or removes variables in place.
pub(super) fn apply_environment(env: &mut Vec<String>, changes: &[(String, Option<String>)]) {
    for (name, value) in changes {
        let place = env.iter().position(|e| e.split('=').next() == Some(name));
        match (value, place) {
            (Some(value), Some(place)) => env[place] = format!("{name}={value}"),
            (Some(value), None) => env.push(format!("{name}={value}")),
            (None, Some(place)) => drop(env.remove(place)),
            (None, None) => {}
        }
    }
}

/// Merges the spec's probe with the image's; none when there is none or it is disabled.
fn probe(spec: Option<&HealthSpec>, config: &RunConfig) -> Option<Probe> {
    let image = config.healthcheck.as_ref();
    let shell = |line: &str| {
        let mut words =
            if config.shell.is_empty() { vec!["/bin/sh".into(), "-c".into()] } else { config.shell.clone() };
        words.push(line.to_owned());
        words
    };
    let args = match spec.and_then(|s| s.test.as_ref()) {
        Some(HealthTest::None) => return None,
        Some(HealthTest::Cmd(words)) => words.clone(),
        Some(HealthTest::Shell(line)) => shell(line),
        None => match image.map(|i| i.test.as_slice()).unwrap_or_default() {
            [kind, words @ ..] if kind == "CMD" => words.to_vec(),
            [kind, line, ..] if kind == "CMD-SHELL" => shell(line),
            _ => return None,
        },
    };
    if args.is_empty() {
        return None;
    }
    let pick = |mine: Option<Duration>, theirs: Option<i64>, default: u64| {
        let mine = mine.filter(|d| !d.is_zero()).map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
        let theirs = theirs.and_then(|ns| u64::try_from(ns / 1_000_000).ok()).filter(|ms| *ms > 0);
        mine.or(theirs).unwrap_or(default)
    };
    Some(Probe {
        args,
        interval_ms: pick(spec.and_then(|s| s.interval), image.map(|i| i.interval), 30_000),
        timeout_ms: pick(spec.and_then(|s| s.timeout), image.map(|i| i.timeout), 30_000),
        start_period_ms: pick(spec.and_then(|s| s.start_period), image.map(|i| i.start_period), 0),
        start_interval_ms: pick(spec.and_then(|s| s.start_interval), image.map(|i| i.start_interval), 5_000),
        retries: spec
            .and_then(|s| s.retries)
            .filter(|n| *n > 0)
            .or_else(|| image.and_then(|i| u32::try_from(i.retries).ok()).filter(|n| *n > 0))
            .unwrap_or(3),
    })
}

/// Refuses what is not built in, so that nothing is silently ignored.
fn check_supported(spec: &ContainerSpec) -> Result<()> {
    let refuse = |attribute: &str, reason: &str| {
        Err(RuntimeError::Unsupported {
            container: spec.name.clone(),
            attribute: attribute.to_owned(),
            reason: reason.to_owned(),
        })
    };
    let engine = "use the docker engine for it (`--engine docker`)";
    if spec.runtime.is_some() {
        return refuse("runtime", engine);
    }
    if !spec.resources.device_requests.is_empty() {
        return refuse("gpus", engine);
    }
    if !spec.resources.storage_opt.is_empty() {
        return refuse("storage_opt", engine);
    }
    if spec.security.userns_mode.as_deref().is_some_and(|m| !matches!(m, "" | "host")) {
        return refuse("userns_mode", "only `host` is built in");
    }
    if spec.security.isolation.as_deref().is_some_and(|m| !matches!(m, "" | "default")) {
        return refuse("isolation", "only `default` exists on Linux");
    }
    if spec.security.ipc_mode.as_deref() == Some("none") {
        return refuse("ipc", "`none` is not built in; use `private`");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::image::Healthcheck;

    fn spec(entrypoint: Option<&[&str]>, command: Option<&[&str]>) -> ContainerSpec {
        let words = |w: &[&str]| w.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let mut spec = ContainerSpec { name: "c1".into(), ..ContainerSpec::default() };
        spec.process.entrypoint = entrypoint.map(words);
        spec.process.command = command.map(words);
        spec
    }

    #[test]
    fn entrypoint_and_command_combine_as_on_docker() {
        let config =
            RunConfig { entrypoint: vec!["/e".into()], cmd: vec!["c".into()], ..RunConfig::default() };
        let args = |e, c| arguments(&spec(e, c), &config).map(|a| a.join(" ")).ok();
        assert_eq!(args(None, None).unwrap(), "/e c");
        assert_eq!(args(None, Some(&["x", "y"])).unwrap(), "/e x y");
        assert_eq!(args(Some(&["/n"]), None).unwrap(), "/n");
        assert_eq!(args(Some(&["/n"]), Some(&["z"])).unwrap(), "/n z");
        assert_eq!(args(Some(&[]), Some(&["z"])).unwrap(), "z");
        assert_eq!(args(Some(&[""]), Some(&["z"])).unwrap(), "z");
        assert_eq!(args(Some(&[]), None), None);
    }

    #[test]
    fn variables_replace_remove_and_keep_their_place() {
        let config = RunConfig { env: vec!["A=1".into(), "B=2".into()], ..RunConfig::default() };
        let mut spec = spec(None, None);
        spec.process.env =
            vec![("B".into(), Some("x=y".into())), ("C".into(), Some(String::new())), ("A".into(), None)];
        assert_eq!(environment(&spec, &config), [DEFAULT_PATH, "B=x=y", "C="]);
    }

    #[test]
    fn probes_take_missing_fields_from_the_image_then_from_docker() {
        let config = RunConfig {
            healthcheck: Some(Healthcheck {
                test: vec!["CMD-SHELL".into(), "true".into()],
                interval: 5_000_000_000,
                ..Healthcheck::default()
            }),
            ..RunConfig::default()
        };
        let from_image = probe(None, &config).unwrap();
        assert_eq!(from_image.args, ["/bin/sh", "-c", "true"]);
        assert_eq!((from_image.interval_ms, from_image.timeout_ms, from_image.retries), (5_000, 30_000, 3));
        let mine = HealthSpec {
            retries: Some(1),
            timeout: Some(Duration::from_millis(20)),
            ..HealthSpec::default()
        };
        let merged = probe(Some(&mine), &config).unwrap();
        assert_eq!((merged.interval_ms, merged.timeout_ms, merged.retries), (5_000, 20, 1));
        let off = HealthSpec { test: Some(HealthTest::None), ..HealthSpec::default() };
        assert_eq!(probe(Some(&off), &config), None);
        assert_eq!(probe(None, &RunConfig::default()), None);
    }
}
