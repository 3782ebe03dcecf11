//! (Project, Service, replica) → specs: names, labels, hashes, and every attribute in the engine's words.
//!
//! Pure, except that it asks its caller for the text of a seccomp profile.
//! What another container has to give (`service:X`) stays open in a
//! [`Lowered`] and is filled in by [`bind`] when the other's id is known,
//! because the config hash is taken with that id in it.

use std::collections::BTreeMap;
use std::path::Path;

use super::observed::Observed;
use super::operation::{Borrow, Borrowed};
use crate::model::{self, Project, Service, hash, labels};
use crate::spec::{ContainerSpec, ExecSpec, IpamPool, NetworkMode, NetworkSpec, VolumeSpec, VolumesFrom};

mod build;
mod files;
mod network;
mod process;
mod resources;
mod storage;

pub use build::{BuildOverrides, build};

/// How names are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Naming {
    /// `_` between the parts of container names, as `--compatibility` asks for.
    pub underscores: bool,
}

impl Naming {
    /// What stands between the parts of a container's name.
    pub const fn separator(self) -> char {
        if self.underscores { '_' } else { '-' }
    }
}

/// Gives the text of a file, or says why it cannot.
pub type ReadFile<'a> = &'a dyn Fn(&Path) -> std::io::Result<String>;

/// What services are lowered with.
#[derive(Clone, Copy)]
pub struct Lowering<'a> {
    /// The project.
    pub project: &'a Project,
    /// Names.
    pub naming: Naming,
    /// Gives seccomp profiles.
    pub read: ReadFile<'a>,
}

/// A service attribute that cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("service `{service}`: {reason}")]
pub struct Invalid {
    /// Service.
    pub service: String,
    /// What is wrong.
    pub reason: String,
}

/// A container's spec, and what is still open in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Lowered {
    /// The spec under its final name. Its hash label is right when nothing is open.
    pub spec: ContainerSpec,
    /// What it takes from containers of other services.
    pub borrows: Vec<(String, Borrowed)>,
    /// What is accepted but has no effect.
    pub warnings: Vec<String>,
}

/// Which container of a service is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instance<'a> {
    /// A replica, from 1.
    Replica(u32),
    /// A one-off container.
    OneOff {
        /// Its name.
        name: &'a str,
        /// Its random id.
        slug: &'a str,
        /// Answers to the service's names.
        use_aliases: bool,
    },
}

impl Lowering<'_> {
    /// The final name of a replica.
    pub fn container_name(&self, service: &Service, number: u32) -> String {
        let separator = self.naming.separator();
        service
            .container_name
            .clone()
            .unwrap_or_else(|| format!("{}{separator}{}{separator}{number}", self.project.name, service.name))
    }

    /// What a replica is called in the label of its replacement.
    pub fn replica_name(&self, service: &Service, number: u32) -> String {
        let separator = self.naming.separator();
        service.container_name.clone().unwrap_or_else(|| format!("{}{separator}{number}", service.name))
    }

    /// The spec of one container.
    ///
    /// # Errors
    /// [`Invalid`] with the attribute that cannot be carried out.
    ///
    /// # Source
    /// model reference §18.
    pub fn container(
        &self,
        service: &Service,
        instance: Instance<'_>,
        observed: &Observed,
    ) -> Result<Lowered, Invalid> {
        let invalid = |reason: String| Invalid { service: service.name.clone(), reason };
        self.refuse(service).map_err(invalid)?;
        let name = match instance {
            Instance::Replica(number) => self.container_name(service, number),
            Instance::OneOff { name, .. } => name.to_owned(),
        };
        let mut warnings = Vec::new();
        let mut borrows = Vec::new();
        let mut spec = ContainerSpec {
            image: self.project.image_of(service),
            platform: service.platform.clone(),
            annotations: service.annotations.clone(),
            process: process::process(service),
            hostname: service.hostname.clone(),
            domainname: service.domainname.clone(),
            mounts: storage::mounts(self.project, service).map_err(invalid)?,
            files: Vec::new(),
            volumes_from: Vec::new(),
            inherit_anonymous_from: None,
            network: self.network_mode(service, &name, instance, &mut borrows).map_err(invalid)?,
            ports: network::ports(service).map_err(invalid)?,
            expose: network::exposed(service),
            dns: network::dns_servers(service).map_err(invalid)?,
            dns_search: service.dns_search.clone(),
            dns_options: service.dns_opt.clone(),
            extra_hosts: network::extra_hosts(service),
            links: self.links(service, observed),
            resources: resources::resources(service).map_err(invalid)?,
            security: self.security(service, &mut borrows).map_err(invalid)?,
            restart: process::restart_policy(service).map_err(invalid)?,
            health: process::health(service).map_err(invalid)?,
            stop_signal: service.stop_signal.clone(),
            stop_grace_period: service.stop_grace_period.map(model::Duration::to_std),
            log: process::log(service),
            auto_remove: false,
            runtime: service.runtime.clone(),
            labels: BTreeMap::new(),
            name,
        };
        for from in &service.volumes_from {
            volumes_from(from, &mut spec, &mut borrows);
        }
        files::add(self.project, service, &mut spec, &mut warnings).map_err(invalid)?;
        warn_of_no_effect(service, &mut warnings);
        spec.labels = self.labels(service, instance, observed);
        Ok(Lowered { spec, borrows, warnings })
    }

    fn refuse(&self, service: &Service) -> Result<(), String> {
        let later = |attribute: &str| Err(format!("`{attribute}` is not supported yet"));
        if service.provider.is_some() {
            return later("provider");
        }
        if !service.models.is_empty() {
            return later("models");
        }
        if !service.pre_start.is_empty() {
            return later("pre_start");
        }
        if service.use_api_socket {
            return later("use_api_socket");
        }
        if service.credential_spec.is_some() {
            return Err("`credential_spec` needs an engine on Windows".into());
        }
        if self.project.image_of(service).is_empty() {
            return Err("it has neither an `image` nor a `build` section".into());
        }
        Ok(())
    }

    /// Containers of linked services, with the names they are reachable by.
    fn links(&self, service: &Service, observed: &Observed) -> Vec<(String, String)> {
        let split = |link: &str| match link.split_once(':') {
            Some((target, alias)) => (target.to_owned(), alias.to_owned()),
            None => (link.to_owned(), link.to_owned()),
        };
        let mut links = Vec::new();
        for link in &service.links {
            let (target, alias) = split(link);
            let Some(linked) = self.project.services.get(&target) else { continue };
            let existing = observed.containers.iter().filter(|c| c.service == target && !c.oneoff);
            let mut numbers: Vec<u32> = existing.filter_map(|c| c.number).collect();
            if numbers.is_empty() {
                numbers.push(1);
            }
            links.extend(numbers.into_iter().map(|n| (self.container_name(linked, n), alias.clone())));
        }
        links.extend(service.external_links.iter().map(|link| split(link)));
        links
    }

    fn labels(
        &self,
        service: &Service,
        instance: Instance<'_>,
        observed: &Observed,
    ) -> BTreeMap<String, String> {
        let mut all: BTreeMap<String, String> = service.labels.clone();
        let mut set = |key: &str, value: String| {
            all.insert(key.to_owned(), value);
        };
        let paths = |paths: &[std::path::PathBuf]| {
            paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(",")
        };
        set(labels::PROJECT, self.project.name.clone());
        set(labels::SERVICE, service.name.clone());
        set(labels::VERSION, env!("CARGO_PKG_VERSION").to_owned());
        set(labels::CONFIG_HASH, hash::service(service));
        set(labels::WORKING_DIR, self.project.working_dir.display().to_string());
        set(labels::CONFIG_FILES, paths(&self.project.config_files));
        if !self.project.env_files.is_empty() {
            set(labels::ENVIRONMENT_FILE, paths(&self.project.env_files));
        }
        let depends: Vec<String> = service
            .depends_on
            .iter()
            .map(|(name, on)| format!("{name}:{}:{}", on.condition, on.restart))
            .collect();
        set(labels::DEPENDS_ON, depends.join(","));
        if let Some(image) = observed.images.get(&self.project.image_of(service)) {
            set(labels::IMAGE, image.id.clone());
        }
        if let Some(digests) = image_volume_digests(self.project, service, observed) {
            set(labels::IMAGE_VOLUME_DIGEST, digests);
        }
        match instance {
            Instance::Replica(number) => {
                set(labels::CONTAINER_NUMBER, number.to_string());
                set(labels::ONE_OFF, "False".into());
            }
            Instance::OneOff { slug, .. } => {
                set(labels::SLUG, slug.to_owned());
                set(labels::ONE_OFF, "True".into());
            }
        }
        all
    }
}

fn volumes_from(text: &str, spec: &mut ContainerSpec, borrows: &mut Vec<(String, Borrowed)>) {
    let (is_container, rest) = match text.strip_prefix("container:") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (name, mode) = rest.split_once(':').unwrap_or((rest, "rw"));
    let read_only = mode == "ro";
    if is_container {
        spec.volumes_from.push(VolumesFrom { container: name.to_owned(), read_only });
    } else {
        borrows.push((name.to_owned(), Borrowed::Volumes { read_only }));
    }
}

/// `target=digest` of image mounts, sorted; none without image mounts.
pub(super) fn image_volume_digests(
    project: &Project,
    service: &Service,
    observed: &Observed,
) -> Option<String> {
    let images = service.volumes.iter().filter(|m| m.kind.as_deref() == Some("image"));
    let mut digests: Vec<String> = images
        .filter_map(|mount| {
            let source = storage::image_source(project, mount.source.as_deref()?);
            let digest = &observed.images.get(&source)?.id;
            Some(format!("{}={digest}", mount.target.as_deref().unwrap_or_default()))
        })
        .collect();
    digests.sort_unstable();
    (!digests.is_empty()).then(|| digests.join(","))
}

fn warn_of_no_effect(service: &Service, warnings: &mut Vec<String>) {
    let mut warn = |attribute: &str| {
        warnings.push(format!("service `{}`: `{attribute}` has an effect on Windows only", service.name));
    };
    if service.cpu_count != 0 {
        warn("cpu_count");
    }
    if service.cpu_percent != 0.0 {
        warn("cpu_percent");
    }
}

/// Fills in what a container takes from others, and the hash that depends on it.
///
/// # Errors
/// What is wrong, as a fragment.
pub fn bind(
    project: &Project,
    service: &str,
    spec: &mut ContainerSpec,
    known: &[(Borrow, String)],
) -> Result<(), String> {
    let Some(model) = project.services.get(service) else { return Err("it is not in the project".into()) };
    let ids: Vec<(&str, Borrowed, &str)> =
        known.iter().map(|(b, id)| (b.service.as_str(), b.what, id.as_str())).collect();
    for (_, what, id) in &ids {
        let container = format!("container:{id}");
        match what {
            Borrowed::Network => spec.network = NetworkMode::Container { id: (*id).to_owned() },
            Borrowed::Ipc => spec.security.ipc_mode = Some(container),
            Borrowed::Pid => spec.security.pid_mode = Some(container),
            Borrowed::Volumes { read_only } => {
                spec.volumes_from.push(VolumesFrom { container: (*id).to_owned(), read_only: *read_only });
            }
        }
    }
    spec.labels.insert(labels::CONFIG_HASH.to_owned(), bound_hash(model, &ids));
    Ok(())
}

/// The config hash of a service that takes things from these containers: service, what, id.
pub(super) fn bound_hash(service: &Service, ids: &[(&str, Borrowed, &str)]) -> String {
    if ids.is_empty() {
        return hash::service(service);
    }
    let mut bound = service.clone();
    for (from, what, id) in ids {
        let container = || Some(format!("container:{id}"));
        match what {
            Borrowed::Network => bound.network_mode = container(),
            Borrowed::Ipc => bound.ipc = container(),
            Borrowed::Pid => bound.pid = container(),
            Borrowed::Volumes { .. } => {
                for text in &mut bound.volumes_from {
                    if text.split(':').next() == Some(from) {
                        (*id).clone_into(text);
                    }
                }
            }
        }
    }
    hash::service(&bound)
}

/// A hook as a process.
pub fn hook(hook: &model::Hook) -> ExecSpec {
    ExecSpec {
        command: hook.command.0.clone().unwrap_or_default(),
        env: hook.environment.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        working_dir: hook.working_dir.clone(),
        user: hook.user.clone(),
        privileged: hook.privileged,
        ..ExecSpec::default()
    }
}

/// The name of a network at the engine.
pub fn network_name(project: &Project, key: &str) -> String {
    let declared = project.networks.get(key).and_then(|network| network.name.clone());
    declared.unwrap_or_else(|| format!("{}_{key}", project.name))
}

/// The name of a volume at the engine.
pub fn volume_name(project: &Project, key: &str) -> String {
    let declared = project.volumes.get(key).and_then(|volume| volume.name.clone());
    declared.unwrap_or_else(|| format!("{}_{key}", project.name))
}

/// A network of the project.
pub fn network(project: &Project, key: &str, network: &model::Network) -> NetworkSpec {
    let mut all = network.labels.clone();
    all.insert(labels::PROJECT.into(), project.name.clone());
    all.insert(labels::NETWORK.into(), key.to_owned());
    all.insert(labels::VERSION.into(), env!("CARGO_PKG_VERSION").into());
    all.insert(labels::CONFIG_HASH.into(), hash::network(network));
    NetworkSpec {
        name: network_name(project, key),
        driver: network.driver.clone(),
        driver_opts: network.driver_opts.clone(),
        labels: all,
        internal: network.internal,
        attachable: network.attachable,
        enable_ipv4: network.enable_ipv4,
        enable_ipv6: network.enable_ipv6,
        ipam_driver: network.ipam.driver.clone(),
        ipam_options: network.ipam.options.clone(),
        ipam: network
            .ipam
            .config
            .iter()
            .map(|pool| IpamPool {
                subnet: pool.subnet.clone(),
                ip_range: pool.ip_range.clone(),
                gateway: pool.gateway.clone(),
                aux_addresses: pool.aux_addresses.clone(),
            })
            .collect(),
    }
}

/// A volume of the project.
pub fn volume(project: &Project, key: &str, volume: &model::Volume) -> VolumeSpec {
    let mut all = volume.labels.clone();
    all.insert(labels::PROJECT.into(), project.name.clone());
    all.insert(labels::VOLUME.into(), key.to_owned());
    all.insert(labels::VERSION.into(), env!("CARGO_PKG_VERSION").into());
    all.insert(labels::CONFIG_HASH.into(), hash::volume(volume));
    VolumeSpec {
        name: volume_name(project, key),
        driver: volume.driver.clone(),
        driver_opts: volume.driver_opts.clone(),
        labels: all,
    }
}
