//! The Engine's answers in the words of `engine::types`.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum, EndpointSettings, EventMessage, HealthStatusEnum,
    ImageInspect, MountPoint, PortMap,
};
use jiff::Timestamp;

use crate::engine::{
    ContainerState, EndpointState, EngineEvent, EventAction, Health, ImageState, MountState, Phase,
    PortState, ProbeResult,
};

/// The Engine writes year 1 for “never”.
pub(super) fn time(text: Option<&str>) -> Option<Timestamp> {
    text.filter(|text| !text.starts_with("0001-")).and_then(|text| text.parse().ok())
}

/// A container from its inspection.
pub(super) fn container(from: ContainerInspectResponse) -> ContainerState {
    let config = from.config.unwrap_or_default();
    let state = from.state.unwrap_or_default();
    let host = from.host_config.unwrap_or_default();
    let settings = from.network_settings.unwrap_or_default();
    let phase = match state.status {
        Some(ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::STOPPING) => Phase::Running,
        Some(ContainerStateStatusEnum::PAUSED) => Phase::Paused,
        Some(ContainerStateStatusEnum::RESTARTING) => Phase::Restarting,
        Some(ContainerStateStatusEnum::REMOVING) => Phase::Removing,
        Some(ContainerStateStatusEnum::EXITED) => Phase::Exited,
        Some(ContainerStateStatusEnum::DEAD) => Phase::Dead,
        Some(ContainerStateStatusEnum::CREATED | ContainerStateStatusEnum::EMPTY) | None => Phase::Created,
    };
    let probes = state.health.as_ref().and_then(|h| h.log.as_ref()).map_or_else(Vec::new, |log| {
        log.iter()
            .filter_map(|probe| {
                Some(ProbeResult {
                    at: time(probe.end.as_deref())?,
                    exit_code: code(probe.exit_code),
                    output: probe.output.clone().unwrap_or_default(),
                })
            })
            .collect()
    });
    let health = match state.health.as_ref().and_then(|h| h.status) {
        Some(HealthStatusEnum::STARTING) => Health::Starting,
        Some(HealthStatusEnum::HEALTHY) => Health::Healthy,
        Some(HealthStatusEnum::UNHEALTHY) => Health::Unhealthy,
        Some(HealthStatusEnum::NONE | HealthStatusEnum::EMPTY) | None => Health::None,
    };
    let mode = host.network_mode.unwrap_or_default();
    ContainerState {
        id: from.id.unwrap_or_default(),
        name: from.name.unwrap_or_default().trim_start_matches('/').to_owned(),
        image: config.image.unwrap_or_default(),
        image_id: from.image.unwrap_or_default(),
        command: from
            .path
            .into_iter()
            .filter(|path| !path.is_empty())
            .chain(from.args.unwrap_or_default())
            .collect(),
        labels: sorted(config.labels),
        created: time(from.created.as_deref()),
        started: time(state.started_at.as_deref()),
        finished: time(state.finished_at.as_deref()),
        phase,
        health,
        probes,
        exit_code: code(state.exit_code),
        oom_killed: state.oom_killed.unwrap_or(false),
        error: state.error.unwrap_or_default(),
        pid: state.pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0),
        restarts: from.restart_count.and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        tty: config.tty.unwrap_or(false),
        mounts: from.mounts.unwrap_or_default().into_iter().map(mount).collect(),
        networks: settings.networks.unwrap_or_default().into_iter().map(endpoint).collect(),
        network_mode: if matches!(mode.as_str(), "host" | "none") || mode.starts_with("container:") {
            mode
        } else {
            String::new()
        },
        ports: ports(settings.ports.unwrap_or_default()),
        stop_signal: config.stop_signal.unwrap_or_default(),
    }
}

/// An image from its inspection.
pub(super) fn image(from: ImageInspect) -> ImageState {
    let config = from.config.unwrap_or_default();
    let mut platform = format!("{}/{}", from.os.unwrap_or_default(), from.architecture.unwrap_or_default());
    if let Some(variant) = from.variant.filter(|v| !v.is_empty()) {
        platform = format!("{platform}/{variant}");
    }
    ImageState {
        id: from.id.unwrap_or_default(),
        tags: from.repo_tags.unwrap_or_default(),
        digests: from.repo_digests.unwrap_or_default(),
        platform,
        size: from.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
        created: time(from.created.as_deref()),
        tagged: from.metadata.and_then(|m| time(m.last_tag_time.as_deref())),
        confirmed: None,
        labels: sorted(config.labels),
        volumes: config.volumes.unwrap_or_default(),
        exposed: config.exposed_ports.unwrap_or_default(),
        env: config.env.unwrap_or_default(),
        entrypoint: config.entrypoint.unwrap_or_default(),
        command: config.cmd.unwrap_or_default(),
        has_healthcheck: config
            .healthcheck
            .and_then(|h| h.test)
            .is_some_and(|test| test.first().is_some_and(|word| word != "NONE")),
    }
}

/// A container event, or `None` for kinds that nobody asked for.
pub(super) fn event(from: EventMessage) -> Option<EngineEvent> {
    let actor = from.actor?;
    let mut attributes = actor.attributes.unwrap_or_default();
    let text = from.action?;
    let (word, rest) = text.split_once(": ").unwrap_or((text.as_str(), ""));
    let number = |key: &str| attributes.get(key).and_then(|text| text.parse().ok());
    let action = match word {
        "create" => EventAction::Create,
        "start" => EventAction::Start,
        // The Engine does not say here whether its policy starts it again; a
        // reader that needs to know looks at the container.
        "die" => EventAction::Die { exit_code: number("exitCode").unwrap_or(0), restarting: false },
        "oom" => EventAction::Oom,
        "stop" => EventAction::Stop,
        "kill" => EventAction::Kill { signal: number("signal").unwrap_or(0) },
        "pause" => EventAction::Pause,
        "unpause" => EventAction::Unpause,
        "restart" => EventAction::Restart,
        "rename" => EventAction::Rename,
        // Podman says `remove`.
        "destroy" | "remove" => EventAction::Destroy,
        "health_status" => EventAction::HealthStatus {
            health: match rest {
                "healthy" => Health::Healthy,
                "unhealthy" => Health::Unhealthy,
                _ => Health::Starting,
            },
        },
        "exec_start" => EventAction::ExecStart { command: rest.to_owned() },
        "exec_die" => EventAction::ExecDie { exit_code: number("exitCode").unwrap_or(0) },
        _ => return None,
    };
    let time = from
        .time_nano
        .and_then(|nanos| Timestamp::from_nanosecond(i128::from(nanos)).ok())
        .or_else(|| from.time.and_then(|seconds| Timestamp::from_second(seconds).ok()))?;
    Some(EngineEvent {
        time,
        id: actor.id?,
        name: attributes.remove("name").unwrap_or_default(),
        image: attributes.remove("image").unwrap_or_default(),
        labels: attributes.into_iter().collect(),
        action,
    })
}

pub(super) fn sorted(map: Option<HashMap<String, String>>) -> BTreeMap<String, String> {
    map.unwrap_or_default().into_iter().collect()
}

fn code(code: Option<i64>) -> i32 {
    code.and_then(|code| i32::try_from(code).ok()).unwrap_or(0)
}

fn mount(from: MountPoint) -> MountState {
    let kind = from.typ.as_deref().unwrap_or("bind").to_owned();
    // The Engine marks an anonymous volume by a label on the volume only; its
    // generated names are 64 hex digits, which no compose volume name is.
    let anonymous = from
        .name
        .as_deref()
        .is_some_and(|name| name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit()));
    MountState {
        kind,
        name: from.name.filter(|name| !name.is_empty()),
        anonymous,
        source: from.source.unwrap_or_default(),
        target: from.destination.unwrap_or_default(),
        read_only: !from.rw.unwrap_or(true),
    }
}

fn endpoint((name, from): (String, EndpointSettings)) -> (String, EndpointState) {
    let address = |text: Option<String>| text.and_then(|text| text.parse::<IpAddr>().ok());
    let state = EndpointState {
        network_id: from.network_id.unwrap_or_default(),
        addresses: address(from.ip_address).into_iter().chain(address(from.global_ipv6_address)).collect(),
        mac: from.mac_address.unwrap_or_default(),
        aliases: from.aliases.unwrap_or_default(),
    };
    (name, state)
}

fn ports(from: PortMap) -> Vec<PortState> {
    let mut out: Vec<PortState> = from
        .into_iter()
        .filter_map(|(key, bindings)| {
            let (target, protocol) = key.split_once('/')?;
            let target = target.parse().ok()?;
            let one = |published| PortState { target, protocol: protocol.to_owned(), published };
            Some(match bindings.filter(|bindings| !bindings.is_empty()) {
                None => vec![one(None)],
                Some(bindings) => bindings
                    .into_iter()
                    .filter_map(|binding| {
                        let ip = binding.host_ip.filter(|ip| !ip.is_empty());
                        let ip = ip.map_or(Some(IpAddr::from([0, 0, 0, 0])), |ip| ip.parse().ok())?;
                        Some(one(Some((ip, binding.host_port?.parse().ok()?))))
                    })
                    .collect(),
            })
        })
        .flatten()
        .collect();
    out.sort();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn year_one_is_never() {
        assert_eq!(time(Some("0001-01-01T00:00:00Z")), None);
        assert!(time(Some("2026-11-21T07:00:00.5Z")).is_some());
    }

    #[test]
    fn a_published_and_an_exposed_port() {
        let json = r#"{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"}],"443/tcp":null}"#;
        let map: PortMap = serde_json::from_str(json).unwrap();
        assert_eq!(
            ports(map),
            [
                PortState {
                    target: 80,
                    protocol: "tcp".into(),
                    published: Some(([0, 0, 0, 0].into(), 8080))
                },
                PortState { target: 443, protocol: "tcp".into(), published: None },
            ]
        );
    }

    #[test]
    fn a_health_event_says_which() {
        let json = r#"{"Type":"container","Action":"health_status: healthy","timeNano":1,"Actor":{"ID":"a","Attributes":{"name":"web","image":"x","k":"v"}}}"#;
        let event = event(serde_json::from_str(json).unwrap()).unwrap();
        assert_eq!(event.action, EventAction::HealthStatus { health: Health::Healthy });
        assert_eq!(event.labels, BTreeMap::from([("k".to_owned(), "v".to_owned())]));
    }
}
