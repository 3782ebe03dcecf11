//! Networks, ports and names.

use std::net::IpAddr;
use std::str::FromStr;

use super::super::operation::Borrowed;
use super::{Instance, Lowering, network_name};
use crate::model::{Endpoint, Port, Service};
use crate::spec::{EndpointSpec, NetworkMode, PortSpec};

impl Lowering<'_> {
    pub(super) fn network_mode(
        &self,
        service: &Service,
        container: &str,
        instance: Instance<'_>,
        borrows: &mut Vec<(String, Borrowed)>,
    ) -> Result<NetworkMode, String> {
        let Some(mode) = service.network_mode.as_deref() else {
            return self.endpoints(service, container, instance).map(|endpoints| {
                if endpoints.is_empty() { NetworkMode::None } else { NetworkMode::Networks { endpoints } }
            });
        };
        Ok(match mode.split_once(':') {
            Some(("service", from)) => {
                borrows.push((from.to_owned(), Borrowed::Network));
                NetworkMode::default()
            }
            Some(("container", id)) => NetworkMode::Container { id: id.to_owned() },
            _ => match mode {
                "host" => NetworkMode::Host,
                "none" => NetworkMode::None,
                network => {
                    let network = network.to_owned();
                    let endpoint = EndpointSpec { network, ..EndpointSpec::default() };
                    NetworkMode::Networks { endpoints: vec![endpoint] }
                }
            },
        })
    }

    /// Endpoints in the order of their interfaces: highest priority first, then by key.
    fn endpoints(
        &self,
        service: &Service,
        container: &str,
        instance: Instance<'_>,
    ) -> Result<Vec<EndpointSpec>, String> {
        let mut networks: Vec<(&String, Option<&Endpoint>)> =
            service.networks.iter().map(|(key, endpoint)| (key, endpoint.as_ref())).collect();
        networks.sort_by_key(|(_, endpoint)| std::cmp::Reverse(endpoint.map_or(0, |e| e.priority)));
        let mut endpoints = Vec::with_capacity(networks.len());
        for (index, (key, settings)) in networks.into_iter().enumerate() {
            let mut endpoint = EndpointSpec {
                network: network_name(self.project, key),
                aliases: aliases(service, container, instance, settings),
                declared: self.declared_names(key),
                ..EndpointSpec::default()
            };
            if index == 0 {
                // The service's own, older attribute is about its first interface.
                endpoint.mac.clone_from(&service.mac_address);
            }
            if let Some(settings) = settings {
                apply(&mut endpoint, settings, key)?;
            }
            endpoints.push(endpoint);
        }
        Ok(endpoints)
    }

    /// Every name that a service of the project has on a network, running or not.
    fn declared_names(&self, network: &str) -> Vec<String> {
        let mut names = Vec::new();
        for service in self.project.services.values() {
            let Some(settings) = service.networks.get(network) else { continue };
            names.push(service.name.clone());
            names.extend(settings.iter().flat_map(|endpoint| endpoint.aliases.iter().cloned()));
            let replicas = u32::try_from(service.replicas()).unwrap_or(1);
            names.extend((1..=replicas).map(|number| self.container_name(service, number)));
        }
        names.sort();
        names.dedup();
        names
    }
}

fn aliases(
    service: &Service,
    container: &str,
    instance: Instance<'_>,
    settings: Option<&Endpoint>,
) -> Vec<String> {
    let all_names = match instance {
        Instance::Replica(_) => true,
        Instance::OneOff { use_aliases, .. } => use_aliases,
    };
    let mut aliases = vec![container.to_owned()];
    if all_names {
        aliases.push(service.name.clone());
        aliases.extend(settings.into_iter().flat_map(|s| s.aliases.iter().cloned()));
    }
    aliases
}

fn apply(endpoint: &mut EndpointSpec, settings: &Endpoint, key: &str) -> Result<(), String> {
    endpoint.ipv4 = parse(settings.ipv4_address.as_deref(), key, "ipv4_address")?;
    endpoint.ipv6 = parse(settings.ipv6_address.as_deref(), key, "ipv6_address")?;
    for address in &settings.link_local_ips {
        endpoint.link_local.extend(parse::<IpAddr>(Some(address), key, "link_local_ips")?);
    }
    if settings.mac_address.is_some() {
        endpoint.mac.clone_from(&settings.mac_address);
    }
    endpoint.interface.clone_from(&settings.interface_name);
    endpoint.gw_priority = settings.gw_priority;
    endpoint.driver_opts.clone_from(&settings.driver_opts);
    Ok(())
}

fn parse<T: FromStr>(text: Option<&str>, key: &str, attribute: &str) -> Result<Option<T>, String> {
    let parsed = text.map(|text| {
        text.parse().map_err(|_| format!("`networks.{key}.{attribute}`: invalid address `{text}`"))
    });
    parsed.transpose()
}

/// Published ports.
pub(super) fn ports(service: &Service) -> Result<Vec<PortSpec>, String> {
    service.ports.iter().map(port).collect()
}

/// One published port of the model.
pub(crate) fn port(port: &Port) -> Result<PortSpec, String> {
    let number = |text: &str| text.parse::<u16>().map_err(|_| format!("invalid published port `{text}`"));
    let published = match port.published.as_deref() {
        None | Some("" | "0") => None,
        Some(text) => Some(match text.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(text)?, number(text)?),
        }),
    };
    let host_ip = match port.host_ip.as_deref() {
        None | Some("") => None,
        Some(text) => {
            let bare = text.trim_start_matches('[').trim_end_matches(']');
            Some(bare.parse().map_err(|_| format!("invalid host address `{text}` of a port"))?)
        }
    };
    Ok(PortSpec {
        target: u16::try_from(port.target).map_err(|_| format!("invalid port `{}`", port.target))?,
        protocol: port.protocol.clone().unwrap_or_else(|| "tcp".into()),
        host_ip,
        published,
    })
}

/// Ports that are announced: published ones and those of `expose`, as `80/tcp`.
pub(super) fn exposed(service: &Service) -> Vec<String> {
    let published =
        service.ports.iter().map(|p| format!("{}/{}", p.target, p.protocol.as_deref().unwrap_or("tcp")));
    let mut all: Vec<String> = published.collect();
    for text in &service.expose {
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        if let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) {
            all.extend((first..=last).map(|port| format!("{port}/{protocol}")));
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|port| seen.insert(port.clone()));
    all
}

pub(super) fn dns_servers(service: &Service) -> Result<Vec<IpAddr>, String> {
    let parse = |text: &String| text.parse().map_err(|_| format!("`dns`: invalid address `{text}`"));
    service.dns.iter().filter(|text| !text.is_empty()).map(parse).collect()
}

pub(super) fn extra_hosts(service: &Service) -> Vec<(String, String)> {
    let lines = service.extra_hosts.0.iter();
    lines.flat_map(|(host, ips)| ips.iter().map(move |ip| (host.clone(), ip.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_ports_may_be_ranges_or_left_to_the_engine() {
        let of = |published: Option<&str>, host: Option<&str>| {
            port(&Port {
                target: 80,
                published: published.map(Into::into),
                host_ip: host.map(Into::into),
                ..Port::default()
            })
        };
        assert_eq!(of(Some("8080"), None).expect("a port").published, Some((8080, 8080)));
        assert_eq!(of(Some("8080-8090"), None).expect("a port").published, Some((8080, 8090)));
        assert_eq!(of(None, Some("[::1]")).expect("a port").host_ip, Some("::1".parse().expect("address")));
        assert!(of(Some("99999"), None).is_err());
    }

    #[test]
    fn announced_ports_are_expanded_once() {
        let service = Service {
            ports: vec![Port { target: 80, ..Port::default() }],
            expose: vec!["80".into(), "90-91/udp".into()],
            ..Service::default()
        };
        assert_eq!(exposed(&service), ["80/tcp", "90/udp", "91/udp"]);
    }
}
