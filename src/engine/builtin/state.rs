//! The runtime's records in the engine's words.

use std::collections::BTreeMap;

use crate::engine::{
    ContainerState, EndpointState, Health, ImageState, MountState, NetworkState, Phase, PortState,
    ProbeResult, VolumeState,
};
use crate::runtime::Container;
use crate::runtime::image::Image;
use crate::runtime::network::{Network, Networks};
use crate::runtime::state::{HealthStatus, Life};
use crate::runtime::volume::Volume;
use crate::spec::{MountSource, NetworkMode};

pub(super) fn health(status: HealthStatus) -> Health {
    match status {
        HealthStatus::None => Health::None,
        HealthStatus::Starting => Health::Starting,
        HealthStatus::Healthy => Health::Healthy,
        HealthStatus::Unhealthy => Health::Unhealthy,
    }
}

pub(super) fn container(container: Container, networks: &Networks) -> ContainerState {
    let Container { record, state } = container;
    let (phase, code, error) = match &state.life {
        Life::Created | Life::Starting => (Phase::Created, 0, String::new()),
        Life::Running { .. } => (Phase::Running, 0, String::new()),
        Life::Paused { .. } => (Phase::Paused, 0, String::new()),
        Life::Restarting { end } => (Phase::Restarting, end.code, String::new()),
        Life::Exited { end } if end.unknown => {
            (Phase::Exited, end.code, "its supervisor was lost, and with it the exit code".to_owned())
        }
        Life::Exited { end } => (Phase::Exited, end.code, String::new()),
        // A container whose first start failed stays `created` on Docker.
        Life::Failed { code, error, .. } => {
            (if state.started.is_some() { Phase::Exited } else { Phase::Created }, *code, error.clone())
        }
        Life::Removing => (Phase::Removing, 0, String::new()),
    };
    let spec = record.spec;
    let mut attached: BTreeMap<String, EndpointState> = state
        .endpoints
        .iter()
        .map(|e| {
            let endpoint = EndpointState {
                network_id: e.network_id.clone(),
                addresses: e.addresses.clone(),
                mac: e.mac.clone(),
                aliases: e.names.clone(),
            };
            (e.network.clone(), endpoint)
        })
        .collect();
    if let NetworkMode::Networks { endpoints } = &spec.network {
        for endpoint in endpoints {
            attached.entry(endpoint.network.clone()).or_insert_with(|| EndpointState {
                // The network may be gone, which is not this container's fault.
                network_id: networks.get(&endpoint.network).map(|n| n.id).unwrap_or_default(),
                aliases: endpoint.aliases.clone(),
                ..EndpointState::default()
            });
        }
    }
    let mut ports: Vec<PortState> = state
        .ports
        .iter()
        .map(|p| PortState {
            target: p.target.port(),
            protocol: p.protocol.as_str().to_owned(),
            published: Some((p.host.ip(), p.host.port())),
        })
        .collect();
    for exposed in &record.exposed {
        let (port, protocol) = exposed.split_once('/').unwrap_or((exposed, "tcp"));
        if let Ok(target) = port.parse()
            && !ports.iter().any(|p| p.target == target && p.protocol == protocol)
        {
            ports.push(PortState { target, protocol: protocol.to_owned(), published: None });
        }
    }
    ports.sort();
    ContainerState {
        id: record.id,
        name: record.name,
        image: spec.image,
        image_id: record.image_id,
        command: record.args,
        labels: spec.labels,
        created: Some(record.created),
        started: state.started,
        finished: state.end.map(|end| end.at),
        phase,
        health: health(state.health.status),
        probes: state
            .health
            .probes
            .into_iter()
            .map(|p| ProbeResult { at: p.at, exit_code: p.code, output: p.output })
            .collect(),
        exit_code: code,
        oom_killed: !state.life.is_live() && state.end.is_some_and(|end| end.oom_killed),
        error,
        pid: state.life.process().and_then(|p| u32::try_from(p.pid).ok()).unwrap_or(0),
        restarts: state.restarts,
        tty: spec.process.tty,
        mounts: record.mounts.into_iter().map(mount).collect(),
        networks: attached,
        network_mode: match spec.network {
            NetworkMode::Networks { .. } => String::new(),
            NetworkMode::Host => "host".to_owned(),
            NetworkMode::None => "none".to_owned(),
            NetworkMode::Container { id } => format!("container:{id}"),
        },
        ports,
        stop_signal: record.stop_signal,
    }
}

fn mount(record: crate::runtime::state::MountRecord) -> MountState {
    let (kind, name) = match record.mount.source {
        MountSource::Bind { .. } => ("bind", None),
        MountSource::Volume { name, .. } => ("volume", name),
        MountSource::Tmpfs { .. } => ("tmpfs", None),
        MountSource::Image { reference, .. } => ("image", Some(reference)),
    };
    MountState {
        kind: kind.to_owned(),
        name,
        anonymous: record.anonymous,
        source: record.source.to_string_lossy().into_owned(),
        target: record.mount.target,
        read_only: record.mount.read_only,
    }
}

pub(super) fn image(image: Image) -> ImageState {
    let config = image.config.config;
    let has_healthcheck = config
        .healthcheck
        .as_ref()
        .is_some_and(|h| h.test.first().is_some_and(|kind| kind != "NONE" && !kind.is_empty()));
    ImageState {
        id: image.id.to_string(),
        tags: image.tags,
        digests: image.digests,
        platform: image.platform.to_string(),
        size: image.size,
        created: image.created,
        tagged: image.tagged,
        confirmed: image.confirmed,
        labels: config.labels,
        volumes: config.volumes.into_keys().collect(),
        exposed: config.exposed_ports.into_keys().collect(),
        env: config.env,
        entrypoint: config.entrypoint,
        command: config.cmd,
        has_healthcheck,
    }
}

pub(super) fn network(network: Network, containers: Vec<String>) -> NetworkState {
    NetworkState {
        id: network.id,
        name: network.name,
        driver: network.driver,
        labels: network.labels,
        internal: network.internal,
        subnets: network.pools.iter().map(|p| p.subnet.to_string()).collect(),
        containers,
    }
}

pub(super) fn volume(volume: Volume) -> VolumeState {
    let mountpoint = volume.data.to_string_lossy().into_owned();
    VolumeState {
        name: volume.name,
        driver: "local".to_owned(),
        labels: volume.labels,
        options: volume.options,
        mountpoint,
        created: Some(volume.created),
    }
}
