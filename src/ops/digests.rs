//! Images by digest: what `config --resolve-image-digests` and `--lock-image-digests` print.

use std::collections::BTreeMap;

use futures_util::future::join_all;

use super::{OpsError, Result};
use crate::engine::Engine;
use crate::model::{Mount, Project, Service};

/// Adds to each image reference of a project the digest it has in its registry now, as
/// `name:tag@sha256:…`: of services, of their `pre_start` hooks, and of `type: image` volumes.
///
/// References that have a digest stay as they are, and so do image volumes that name a service.
///
/// # Errors
/// [`OpsError::Digest`] for the first image of which the registry does not tell it.
pub async fn pin_images(engine: &dyn Engine, project: &mut Project) -> Result<()> {
    let mut digests: BTreeMap<String, String> = BTreeMap::new();
    each_image(project, &mut |image| {
        digests.insert(image.clone(), String::new());
    });
    let asked = digests.iter_mut().map(async |(image, digest)| match engine.remote_digest(image).await {
        Ok(found) => {
            *digest = found;
            Ok(())
        }
        Err(source) => Err(OpsError::Digest { image: image.clone(), source: Box::new(source) }),
    });
    join_all(asked).await.into_iter().collect::<Result<()>>()?;
    each_image(project, &mut |image| {
        if let Some(digest) = digests.get(image) {
            *image = format!("{image}@{digest}");
        }
    });
    Ok(())
}

/// Calls `with` for every reference without a digest.
fn each_image(project: &mut Project, with: &mut dyn FnMut(&mut String)) {
    let names: Vec<String> = project.services.keys().cloned().collect();
    for service in project.services.values_mut() {
        let hooks = service.pre_start.iter_mut().filter_map(|hook| hook.image.as_mut());
        let volumes = service.volumes.iter_mut().filter(|mount| is_image(mount));
        let volumes = volumes.filter_map(|mount| mount.source.as_mut());
        let volumes = volumes.filter(|source| !names.contains(source));
        for image in service.image.iter_mut().chain(hooks).chain(volumes) {
            if !image.is_empty() && !image.contains('@') {
                with(image);
            }
        }
    }
}

fn is_image(mount: &Mount) -> bool {
    mount.kind.as_deref() == Some("image")
}

/// What an override file needs to fix the images of a project: of each service its image and
/// its `type: image` volumes, and nothing else.
#[must_use]
pub fn only_images(project: &Project) -> Project {
    let only = |service: &Service| Service {
        name: service.name.clone(),
        image: service.image.clone(),
        volumes: service.volumes.iter().filter(|mount| is_image(mount)).cloned().collect(),
        ..Service::default()
    };
    let services = project.services.iter().map(|(name, service)| (name.clone(), only(service))).collect();
    Project { services, ..Project::default() }
}
