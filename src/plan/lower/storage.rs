//! Mounts.

use super::volume_name;
use crate::model::{Mount, Project, Service};
use crate::spec::{MountSource, MountSpec};

pub(super) fn mounts(project: &Project, service: &Service) -> Result<Vec<MountSpec>, String> {
    let mut all = Vec::with_capacity(service.volumes.len() + service.tmpfs.len());
    for mount in &service.volumes {
        all.push(self::mount(project, mount)?);
    }
    for text in &service.tmpfs {
        all.push(tmpfs(text)?);
    }
    Ok(all)
}

/// One mount of the model.
pub(crate) fn mount(project: &Project, mount: &Mount) -> Result<MountSpec, String> {
    let target = mount.target.clone().unwrap_or_default();
    let source = || {
        mount
            .source
            .clone()
            .filter(|s| !s.is_empty())
            .ok_or_else(|| format!("mount at `{target}` has no source"))
    };
    let source = match mount.kind.as_deref().unwrap_or("volume") {
        "bind" => bind(mount, source()?),
        "volume" => volume(project, mount)?,
        "tmpfs" => {
            let settings = mount.tmpfs.as_ref();
            MountSource::Tmpfs {
                size: settings.and_then(|t| u64::try_from(t.size.0).ok()).filter(|size| *size > 0),
                mode: settings.map(|t| t.mode).filter(|mode| *mode > 0),
                options: Vec::new(),
            }
        }
        "image" => MountSource::Image {
            reference: image_source(project, &source()?),
            subpath: mount.image.as_ref().and_then(|i| i.subpath.clone()),
        },
        other => return Err(format!("mounts of type `{other}` (at `{target}`) are not supported")),
    };
    Ok(MountSpec { source, target, read_only: mount.read_only })
}

fn bind(mount: &Mount, source: String) -> MountSource {
    let settings = mount.bind.as_ref();
    MountSource::Bind {
        path: source.into(),
        create: settings.is_none_or(|b| b.create_host_path),
        propagation: settings.and_then(|b| b.propagation.clone()),
        recursive: settings.and_then(|b| b.recursive.clone()),
        selinux: settings.and_then(|b| b.selinux.clone()),
    }
}

fn volume(project: &Project, mount: &Mount) -> Result<MountSource, String> {
    let settings = mount.volume.as_ref();
    let key = mount.source.as_deref().filter(|s| !s.is_empty());
    let declared = match key {
        None => None,
        Some(key) => Some(project.volumes.get(key).ok_or_else(|| format!("volume `{key}` is not declared"))?),
    };
    Ok(MountSource::Volume {
        name: key.map(|key| volume_name(project, key)),
        nocopy: settings.is_some_and(|v| v.nocopy),
        subpath: settings.and_then(|v| v.subpath.clone()),
        labels: settings.map(|v| v.labels.clone()).unwrap_or_default(),
        driver_opts: declared.map(|v| v.driver_opts.clone()).unwrap_or_default(),
    })
}

/// The image of an image mount: a reference, or the image of a service of that name.
pub(super) fn image_source(project: &Project, source: &str) -> String {
    project.services.get(source).map_or_else(|| source.to_owned(), |service| project.image_of(service))
}

/// `PATH[:opts]`, options as `mount(8)` takes them.
fn tmpfs(text: &str) -> Result<MountSpec, String> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let (mut size, mut mode, mut read_only, mut rest) = (None, None, false, Vec::new());
    for option in options.split(',').filter(|o| !o.is_empty()) {
        let wrong = || format!("tmpfs `{text}`: invalid option `{option}`");
        match option.split_once('=') {
            Some(("size", value)) => size = Some(bytes(value).ok_or_else(wrong)?),
            Some(("mode", value)) => mode = Some(u32::from_str_radix(value, 8).map_err(|_| wrong())?),
            None if option == "ro" => read_only = true,
            None if option == "rw" => {}
            _ => rest.push(option.to_owned()),
        }
    }
    let source = MountSource::Tmpfs { size, mode, options: rest };
    Ok(MountSpec { source, target: target.to_owned(), read_only })
}

/// A size as tmpfs takes it: `64m`, `1g`, plain bytes.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" => 10,
        "m" | "mb" => 20,
        "g" | "gb" => 30,
        "t" | "tb" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tmpfs_options_are_told_apart() {
        let spec = tmpfs("/run:size=64m,mode=700,noexec,ro").expect("valid");
        assert_eq!(spec.target, "/run");
        assert!(spec.read_only);
        assert_eq!(
            spec.source,
            MountSource::Tmpfs { size: Some(64 << 20), mode: Some(0o700), options: vec!["noexec".into()] }
        );
        assert!(tmpfs("/run:size=lots").is_err());
    }
}
