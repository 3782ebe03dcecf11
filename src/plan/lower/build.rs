//! The `build` section of a service: what an engine is asked to build.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::model::{Build, Project, Service, labels};
use crate::spec::{BuildContext, BuildNetwork, BuildSecret, BuildSpec, DockerfileSource};

/// What the command line says over the files.
#[derive(Debug, Clone, Copy)]
pub struct BuildOverrides<'a> {
    /// Values of `ARG`s.
    pub args: &'a BTreeMap<String, String>,
    /// Use no cached step.
    pub no_cache: bool,
    /// Ask registries for newer base images.
    pub pull: bool,
    /// Further SSH agents.
    pub ssh: &'a [(String, Option<String>)],
    /// Memory of each `RUN` in bytes.
    pub memory: Option<i64>,
    /// Provenance attestation.
    pub provenance: Option<&'a str>,
    /// SBOM attestation.
    pub sbom: Option<&'a str>,
    /// Only look for mistakes.
    pub check: bool,
}

/// What is to be built for a service; `name` goes in front of its steps.
///
/// What an engine need not know of (attestations, several platforms, caches elsewhere) is refused here,
/// or warned about when the image is the same without it.
///
/// # Errors
/// The reason in words, naming the attribute.
pub fn build(
    project: &Project,
    service: &Service,
    name: &str,
    overrides: &BuildOverrides<'_>,
    warnings: &mut Vec<String>,
) -> Result<BuildSpec, String> {
    let build = service.build.as_deref().ok_or("it has no `build` section")?;
    refuse(build, overrides)?;
    for cache in &build.cache_from {
        warnings.push(format!(
            "service `{}`: `build.cache_from: {cache}` is not used; steps are taken from the cache of this machine",
            service.name
        ));
    }
    let context = context(build.context.as_deref().unwrap_or("."));
    let mut args: BTreeMap<String, String> =
        build.args.iter().filter_map(|(key, value)| Some((key.clone(), value.clone()?))).collect();
    args.extend(overrides.args.clone());
    let epoch = args.get("SOURCE_DATE_EPOCH").or_else(|| project.environment.get("SOURCE_DATE_EPOCH"));
    let epoch = epoch.filter(|text| !text.is_empty()).map(|text| {
        text.parse::<i64>().map_err(|_| format!("`SOURCE_DATE_EPOCH` is no number of seconds: `{text}`"))
    });
    let mut tags = vec![project.image_of(service)];
    tags.extend(build.tags.iter().cloned());
    let mut own_labels: BTreeMap<String, String> =
        build.labels.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    for (key, value) in [
        (labels::PROJECT, project.name.as_str()),
        (labels::SERVICE, service.name.as_str()),
        (labels::VERSION, env!("CARGO_PKG_VERSION")),
    ] {
        own_labels.insert(key.to_owned(), value.to_owned());
    }
    let entitled = |what: &str| build.entitlements.iter().any(|e| e == what);
    let network = match build.network.as_deref() {
        None | Some("" | "default" | "bridge") => BuildNetwork::Default,
        Some("none") => BuildNetwork::None,
        Some("host") => BuildNetwork::Host,
        Some(other) => {
            return Err(format!("`build.network: {other}` is not possible: use `default`, `none` or `host`"));
        }
    };
    Ok(BuildSpec {
        name: name.to_owned(),
        context,
        dockerfile: match (&build.dockerfile_inline, &build.dockerfile) {
            (Some(text), _) => DockerfileSource::Inline(text.clone()),
            (None, Some(path)) => DockerfileSource::File(path.into()),
            (None, None) => DockerfileSource::default(),
        },
        tags,
        target: build.target.clone(),
        args,
        labels: own_labels,
        platform: platform(service, build)?,
        contexts: contexts(project, build)?,
        no_cache: build.no_cache || overrides.no_cache,
        no_cache_filter: build.no_cache_filter.clone(),
        pull: build.pull || overrides.pull,
        network,
        extra_hosts: build
            .extra_hosts
            .iter()
            .flat_map(|(host, addresses)| addresses.iter().map(|a| (host.clone(), a.clone())))
            .collect(),
        shm_size: u64::try_from(build.shm_size.0).ok().filter(|size| *size > 0),
        ulimits: build.ulimits.iter().map(|(name, limit)| (name.clone(), limit.soft, limit.hard)).collect(),
        memory: overrides.memory,
        secrets: secrets(project, build)?,
        ssh: ssh(project, build, overrides)?,
        insecure: build.privileged || entitled("security.insecure"),
        host_network: network == BuildNetwork::Host || entitled("network.host"),
        source_date_epoch: epoch.transpose()?,
        check: overrides.check,
    })
}

/// Refuses what is asked for and would not be made.
fn refuse(build: &Build, overrides: &BuildOverrides<'_>) -> Result<(), String> {
    let wanted = |text: &str| !matches!(text, "" | "false" | "0" | "disabled=true");
    let attestations = [
        ("provenance", overrides.provenance.or(build.provenance.as_deref())),
        ("sbom", overrides.sbom.or(build.sbom.as_deref())),
    ];
    for (key, value) in attestations {
        if let Some(value) = value.filter(|value| wanted(value)) {
            return Err(format!(
                "`build.{key}: {value}` is not possible: hoist makes no attestations; leave it out or set it to `false`"
            ));
        }
    }
    if let Some(cache) = build.cache_to.first() {
        return Err(format!(
            "`build.cache_to: {cache}` is not possible: hoist keeps its steps in its own cache only; leave it out"
        ));
    }
    if let Some(isolation) = build.isolation.as_deref().filter(|i| !matches!(*i, "" | "default")) {
        return Err(format!("`build.isolation: {isolation}` is not possible: it is for Windows"));
    }
    if let Some(other) =
        build.entitlements.iter().find(|e| !matches!(e.as_str(), "security.insecure" | "network.host"))
    {
        return Err(format!(
            "`build.entitlements: {other}` is not known: there are `security.insecure` and `network.host`"
        ));
    }
    Ok(())
}

/// The one platform that is built for.
fn platform(service: &Service, build: &Build) -> Result<Option<String>, String> {
    match (&service.platform, build.platforms.as_slice()) {
        (Some(platform), _) => Ok(Some(platform.clone())),
        (None, []) => Ok(None),
        (None, [only]) => Ok(Some(only.clone())),
        (None, several) => Err(format!(
            "`build.platforms` has several platforms ({}), and hoist builds one at a time; name it with `platform` of the service",
            several.join(", ")
        )),
    }
}

fn contexts(project: &Project, build: &Build) -> Result<BTreeMap<String, BuildContext>, String> {
    let mut contexts = BTreeMap::new();
    for (name, text) in &build.additional_contexts {
        let found = if let Some(service) = text.strip_prefix("service:") {
            let other = project.services.get(service).or_else(|| project.disabled.get(service));
            let other = other
                .ok_or_else(|| format!("`additional_contexts.{name}`: there is no service `{service}`"))?;
            BuildContext::Image(project.image_of(other))
        } else if let Some(image) = text.strip_prefix("docker-image://") {
            BuildContext::Image(image.to_owned())
        } else if text.starts_with("oci-layout://") {
            return Err(format!(
                "`additional_contexts.{name}: {text}` is not possible: load the layout with `hoist image load` and name it with `docker-image://`"
            ));
        } else {
            context(text)
        };
        contexts.insert(name.to_lowercase(), found);
    }
    Ok(contexts)
}

/// A directory, or an address.
fn context(text: &str) -> BuildContext {
    let remote = text.contains("://") || text.starts_with("git@") || text.starts_with("github.com/");
    if remote { BuildContext::Remote(text.to_owned()) } else { BuildContext::Directory(PathBuf::from(text)) }
}

fn secrets(project: &Project, build: &Build) -> Result<BTreeMap<String, BuildSecret>, String> {
    let mut secrets = BTreeMap::new();
    for secret in &build.secrets {
        let source = secret.source.as_deref().unwrap_or_default();
        let id = secret.target.as_deref().filter(|t| !t.is_empty()).unwrap_or(source);
        let object =
            project.secrets.get(source).ok_or_else(|| format!("secret `{source}` is not declared"))?;
        if object.external {
            return Err(format!("secret `{source}` is external, which needs a swarm"));
        }
        let value = match (&object.file, &object.environment, &object.content) {
            (Some(path), ..) => BuildSecret::File(path.into()),
            (None, Some(variable), _) => {
                let value = project.environment.get(variable);
                let value = value.ok_or_else(|| {
                    format!("secret `{source}`: environment variable `{variable}` is not set")
                })?;
                BuildSecret::Value(value.clone().into_bytes())
            }
            (None, None, Some(content)) => BuildSecret::Value(content.clone().into_bytes()),
            (None, None, None) => return Err(format!("secret `{source}` has no file, variable or content")),
        };
        secrets.insert(id.to_owned(), value);
    }
    Ok(secrets)
}

fn ssh(
    project: &Project,
    build: &Build,
    overrides: &BuildOverrides<'_>,
) -> Result<BTreeMap<String, PathBuf>, String> {
    let written = build.ssh.0.iter().map(|key| (key.id.clone(), key.path.clone()));
    let mut sockets = BTreeMap::new();
    for (id, path) in written.chain(overrides.ssh.iter().cloned()) {
        let path = match path.filter(|path| !path.is_empty()) {
            Some(path) => path,
            None => project.environment.get("SSH_AUTH_SOCK").cloned().ok_or_else(|| {
                format!("`build.ssh: {id}` needs an SSH agent, and `SSH_AUTH_SOCK` is not set; start one with `ssh-agent`")
            })?,
        };
        sockets.insert(id, PathBuf::from(path));
    }
    Ok(sockets)
}
