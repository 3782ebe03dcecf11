//! A project and its resources other than services.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::record::{Field, Out, Style, record};
use super::{Extensions, Labels, Options, Service};

/// Everything `up` needs to know, resolved.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Project {
    /// Normalised name.
    pub name: String,
    /// Enabled services by name.
    pub services: BTreeMap<String, Service>,
    /// Networks by key.
    pub networks: BTreeMap<String, Network>,
    /// Volumes by key.
    pub volumes: BTreeMap<String, Volume>,
    /// Secrets by key.
    pub secrets: BTreeMap<String, Secret>,
    /// Configs by key.
    pub configs: BTreeMap<String, Config>,
    /// AI models by key.
    pub models: BTreeMap<String, Model>,
    /// Top-level `x-*`.
    pub extensions: Extensions,
    /// Services that no active profile enables, or that were not selected; known, so not orphans.
    pub disabled: BTreeMap<String, Service>,
    /// Absolute project directory.
    pub working_dir: PathBuf,
    /// Absolute compose files in the order they were read; `-` is standard input.
    pub config_files: Vec<PathBuf>,
    /// Files given by `--env-file`, absolute.
    pub env_files: Vec<PathBuf>,
    /// What variables are taken from: the process environment and the `.env` files.
    pub environment: BTreeMap<String, String>,
    /// Active profiles.
    pub profiles: Vec<String>,
}

impl Project {
    /// The image a service runs: its own, or the name its build gets.
    pub fn image_of(&self, service: &Service) -> String {
        service.image.clone().unwrap_or_else(|| default_image_name(&self.name, &service.name))
    }

    /// The whole project as `config` prints it.
    pub fn render(&self, style: Style) -> Out {
        let mut sections: Vec<(&'static str, Out)> = Vec::new();
        let extensions: Vec<(String, Out)> =
            self.extensions.iter().map(|(k, v)| (k.clone(), v.render(style))).collect();
        if !self.name.is_empty() || style == Style::Json {
            sections.push(("name", Out::Str(self.name.clone())));
        }
        sections.push(("services", self.services.render(style)));
        section(&mut sections, "networks", &self.networks, style);
        section(&mut sections, "volumes", &self.volumes, style);
        section(&mut sections, "secrets", &self.secrets, style);
        section(&mut sections, "configs", &self.configs, style);
        if style == Style::Json {
            sections.sort_by_key(|(key, _)| *key);
            let mut all: Vec<(String, Out)> = sections.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
            all.extend(extensions);
            return Out::Map(all);
        }
        section(&mut sections, "models", &self.models, style);
        Out::Record(sections, extensions)
    }
}

fn section<T: Field>(
    out: &mut Vec<(&'static str, Out)>,
    key: &'static str,
    map: &BTreeMap<String, T>,
    style: Style,
) {
    if !map.is_empty() {
        let entries = map.iter().map(|(k, v)| (k.clone(), v.render(style))).collect();
        out.push((key, Out::Map(entries)));
    }
}

/// `<project>-<service>`, the image name of a service that is built and names none.
pub fn default_image_name(project: &str, service: &str) -> String {
    format!("{project}-{service}")
}

record! {
    /// A network of the project.
    open struct Network {
        /// Name at the engine.
        name: Option<String> = "name",
        /// Driver; none means the engine's default.
        driver: Option<String> = "driver",
        /// Driver options.
        driver_opts: Options = "driver_opts",
        /// Address management.
        ipam: Ipam = "ipam",
        /// Exists outside the project.
        external: bool = "external",
        /// No way out.
        internal: bool = "internal",
        /// Others may attach.
        attachable: bool = "attachable",
        /// Labels.
        labels: Labels = "labels",
        /// IPv4; none means the engine's default.
        enable_ipv4: Option<bool> = "enable_ipv4",
        /// IPv6; none means the engine's default.
        enable_ipv6: Option<bool> = "enable_ipv6",
    }
}

record! {
    /// Address management of a network.
    open struct Ipam [
        /// Driver options; Docker Compose reads them and prints them nowhere.
        options: Options,
    ] {
        /// Driver.
        driver: Option<String> = "driver",
        /// Pools.
        config: Vec<IpamPool> = "config",
    }
}

record! {
    /// One pool of addresses.
    closed struct IpamPool {
        /// In CIDR form.
        subnet: Option<String> = "subnet",
        /// Address of the gateway.
        gateway: Option<String> = "gateway",
        /// Part of the subnet to allocate from, in CIDR form.
        ip_range: Option<String> = "ip_range",
        /// Reserved addresses by host name.
        aux_addresses: Options = "aux_addresses",
    }
}

record! {
    /// A named volume.
    open struct Volume {
        /// Name at the engine.
        name: Option<String> = "name",
        /// Driver; none means `local`.
        driver: Option<String> = "driver",
        /// Driver options.
        driver_opts: Options = "driver_opts",
        /// Exists outside the project.
        external: bool = "external",
        /// Labels.
        labels: Labels = "labels",
    }
}

record! {
    /// A secret. Its value is never printed.
    open struct Secret {
        /// Name at the engine.
        name: Option<String> = "name",
        /// Absolute path of the file holding it.
        file: Option<String> = "file",
        /// Variable holding it.
        environment: Option<String> = "environment",
        /// Text.
        content: Option<String> = "content",
        /// Exists outside the project.
        external: bool = "external",
        /// Labels.
        labels: Labels = "labels",
        /// Swarm driver.
        driver: Option<String> = "driver",
        /// Swarm driver options.
        driver_opts: Options = "driver_opts",
        /// Swarm template driver.
        template_driver: Option<String> = "template_driver",
    }
}

/// A config has the fields of a secret, and uses `content` instead of drivers.
pub type Config = Secret;

record! {
    /// An AI model.
    open struct Model {
        /// Name.
        name: Option<String> = "name",
        /// Artifact.
        model: Option<String> = "model",
        /// Tokens.
        context_size: i64 = "context_size",
        /// Flags of the runner.
        runtime_flags: Vec<String> = "runtime_flags",
    }
}
