//! One look at what the engine has of a project.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::try_join_all;

use super::Result;
use super::context::Context;
use crate::engine::ImageState;
use crate::model::{Service, hash, labels};
use crate::plan::{Observed, ObservedContainer, lower, observed};
use crate::spec::ContainerSpec;

/// What containers that differ from the files were asked to be, so that the difference can be told.
async fn asked(ctx: &Context, containers: &[ObservedContainer]) -> Result<BTreeMap<String, ContainerSpec>> {
    let differs = |c: &&ObservedContainer| {
        let service = ctx.project.services.get(&c.service);
        !c.oneoff && service.is_some_and(|s| c.label(labels::CONFIG_HASH) != Some(&hash::service(s)))
    };
    let mut asked = BTreeMap::new();
    for container in containers.iter().filter(differs) {
        if let Some(spec) = ctx.engine.asked(&container.state.id).await? {
            asked.insert(container.state.id.clone(), spec);
        }
    }
    Ok(asked)
}

/// Observes containers, networks and volumes; images were looked up before.
///
/// Resources of the project are found by label in one call per kind; only
/// what the services need and was not found that way is asked for by name.
pub(super) async fn observe(
    ctx: &Context,
    services: &BTreeSet<String>,
    images: BTreeMap<String, ImageState>,
) -> Result<Observed> {
    let label = [ctx.label()];
    let (states, networks, volumes) =
        tokio::try_join!(ctx.engine.list(&label), ctx.engine.networks(&label), ctx.engine.volumes(&label))?;
    let mut networks: BTreeMap<_, _> = networks.into_iter().map(|n| (n.name.clone(), n)).collect();
    let mut volumes: BTreeMap<_, _> = volumes.into_iter().map(|v| (v.name.clone(), v)).collect();
    let wanted: Vec<&Service> = services.iter().filter_map(|name| ctx.project.services.get(name)).collect();
    let network_keys: BTreeSet<&String> =
        wanted.iter().filter(|s| s.network_mode.is_none()).flat_map(|s| s.networks.keys()).collect();
    let by_name = network_keys.into_iter().map(|key| lower::network_name(&ctx.project, key));
    let by_name: Vec<String> = by_name.filter(|name| !networks.contains_key(name)).collect();
    let found = try_join_all(by_name.iter().map(|name| ctx.engine.network(name))).await?;
    networks.extend(found.into_iter().flatten().map(|n| (n.name.clone(), n)));
    let mounts = wanted.iter().flat_map(|s| &s.volumes);
    let volume_keys: BTreeSet<&String> = mounts
        .filter_map(|m| m.source.as_ref().filter(|key| ctx.project.volumes.contains_key(*key)))
        .collect();
    let by_name = volume_keys.into_iter().map(|key| lower::volume_name(&ctx.project, key));
    let by_name: Vec<String> = by_name.filter(|name| !volumes.contains_key(name)).collect();
    let found = try_join_all(by_name.iter().map(|name| ctx.engine.volume(name))).await?;
    volumes.extend(found.into_iter().flatten().map(|v| (v.name.clone(), v)));
    let containers = observed::containers(states);
    let asked = asked(ctx, &containers).await?;
    Ok(Observed { containers, networks, volumes, asked, images })
}
