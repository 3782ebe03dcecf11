//! Secrets and configs: from a file by bind, from a variable or text by value.

use crate::model::{Project, Secret, Service, ServiceFile};
use crate::spec::{ContainerSpec, FileSpec, MountSource, MountSpec};

/// Adds a service's secrets and configs to its spec.
pub(super) fn add(
    project: &Project,
    service: &Service,
    spec: &mut ContainerSpec,
    warnings: &mut Vec<String>,
) -> Result<(), String> {
    for file in &service.secrets {
        one(project, file, "secret", &project.secrets, "/run/secrets/", spec, warnings, &service.name)?;
    }
    for file in &service.configs {
        one(project, file, "config", &project.configs, "/", spec, warnings, &service.name)?;
    }
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "the two kinds differ in four of them")]
fn one(
    project: &Project,
    file: &ServiceFile,
    kind: &str,
    declared: &std::collections::BTreeMap<String, Secret>,
    directory: &str,
    spec: &mut ContainerSpec,
    warnings: &mut Vec<String>,
    service: &str,
) -> Result<(), String> {
    let key = file.source.as_deref().unwrap_or_default();
    let object = declared.get(key).ok_or_else(|| format!("{kind} `{key}` is not declared"))?;
    if object.external {
        return Err(format!("{kind} `{key}` is external, which needs a swarm"));
    }
    if object.driver.is_some() || object.template_driver.is_some() {
        return Err(format!("{kind} `{key}` has a driver, which needs a swarm"));
    }
    let target = match file.target.as_deref().filter(|t| !t.is_empty()) {
        Some(target) if target.starts_with('/') => target.to_owned(),
        Some(target) => format!("{directory}{target}"),
        None => format!("{directory}{key}"),
    };
    if let Some(path) = &object.file {
        if file.uid.is_some() || file.gid.is_some() || file.mode.is_some() {
            warnings.push(format!(
                "service `{service}`: `uid`, `gid` and `mode` of {kind} `{key}` have no effect, because it is a file of the host"
            ));
        }
        let source = MountSource::Bind {
            path: path.into(),
            create: false,
            propagation: None,
            recursive: None,
            selinux: None,
        };
        spec.mounts.push(MountSpec { source, target, read_only: true });
        return Ok(());
    }
    let content = match (&object.environment, &object.content) {
        (Some(variable), _) => project
            .environment
            .get(variable)
            .ok_or_else(|| format!("{kind} `{key}`: environment variable `{variable}` is not set"))?,
        (None, Some(content)) => content,
        (None, None) => return Err(format!("{kind} `{key}` has no file, variable or content")),
    };
    if content.is_empty() {
        return Ok(());
    }
    if service_is_read_only(spec) {
        return Err(format!(
            "{kind} `{key}` is given by value, which cannot be put into a container with `read_only: true`; use a file"
        ));
    }
    let id = |text: Option<&String>, what: &str| match text {
        None => Ok(0),
        Some(text) => {
            text.parse().map_err(|_| format!("{kind} `{key}`: `{what}` must be a number, not `{text}`"))
        }
    };
    spec.files.push(FileSpec {
        target,
        content: content.clone().into_bytes(),
        uid: id(file.uid.as_ref(), "uid")?,
        gid: id(file.gid.as_ref(), "gid")?,
        mode: file.mode.map_or(0o444, |mode| u32::try_from(mode.0).unwrap_or(0o444)),
    });
    Ok(())
}

fn service_is_read_only(spec: &ContainerSpec) -> bool {
    spec.security.read_only
}
