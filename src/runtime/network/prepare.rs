//! The part of a start that the command does: claim, choose, check, record.
//!
//! Nothing here needs rights in the kernel. What is claimed is recorded first
//! (a lease names its container), so that a killed command leaves nothing that
//! a later one cannot take over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::cidr::Cidr;
use super::error::NetworkError;
use super::hosts::{self, ResolvConf};
use super::ipam::{self, Claimant};
use super::plan::{
    DnsPlan, Endpoint, EndpointKind, Mac, Namespace, NetPlan, Protocol, Publish, Request, Zone,
};
use super::store::{self, Network, Networks, names_dir};
use super::{connect, ports};
use crate::runtime::root::Root;
use crate::spec::{EndpointSpec, NetworkMode, PortSpec};
use crate::util::files;
use crate::util::ids::random_hex;

/// Settles a container's network for one start: claims its addresses and
/// picked ports. Safe to call again for the
/// same container. After an error nothing is held.
///
/// # Errors
/// [`NetworkError::NotFound`] for an unknown network, [`NetworkError::AddressTaken`],
/// [`NetworkError::NoAddress`], [`NetworkError::NoPort`], [`NetworkError::InvalidEndpoint`].
pub fn prepare(root: &Root, request: &Request<'_>) -> Result<NetPlan, NetworkError> {
    let mut plan = NetPlan {
        root: root.clone(),
        container: request.container.to_owned(),
        name: request.name.to_owned(),
        hostname: request.hostname.to_owned(),
        namespace: Namespace::Own,
        endpoints: Vec::new(),
        ports: Vec::new(),
        dns: None,
        hosts: String::new(),
        resolv_conf: String::new(),
    };
    let host_text = hosts::host_resolv_conf();
    let settled = hosts::settle(request, &ResolvConf::parse(&host_text));
    let no_endpoints = Vec::new();
    let endpoints = match request.mode {
        NetworkMode::Container { id } => {
            if !request.ports.is_empty() {
                return Err(invalid(
                    request,
                    "a container in another one's network namespace cannot publish ports; publish them there"
                        .to_owned(),
                ));
            }
            plan.namespace = Namespace::Container { id: id.clone() };
            return Ok(plan);
        }
        NetworkMode::Host => {
            // Docker discards published ports here too: they are the host's anyway.
            plan.namespace = Namespace::Host;
            plan.hosts = hosts::hosts_of_host(request);
            plan.resolv_conf = hosts::resolv_conf_upstream(request, &host_text, &settled);
            return Ok(plan);
        }
        NetworkMode::None => &no_endpoints,
        NetworkMode::Networks { endpoints } => endpoints,
    };
    if endpoints.is_empty() {
        plan.hosts = hosts::hosts(request, &[], None);
        plan.resolv_conf = hosts::resolv_conf_upstream(request, &host_text, &settled);
        return Ok(plan);
    }
    let result = attach(root, request, endpoints, &settled, &mut plan);
    if let Err(error) = result {
        // The first error counts; what cannot be given back now is void with the container.
        connect::release(&plan).ok();
        return Err(error);
    }
    Ok(plan)
}

fn invalid(request: &Request<'_>, reason: String) -> NetworkError {
    NetworkError::InvalidEndpoint { container: request.name.to_owned(), reason }
}

fn attach(
    root: &Root,
    request: &Request<'_>,
    specs: &[EndpointSpec],
    settled: &ResolvConf,
    plan: &mut NetPlan,
) -> Result<(), NetworkError> {
    let boot = files::boot_id()?;
    let claimant = Claimant { id: request.container, name: request.name, boot: &boot };
    let store = Networks::new(root);
    let mut networks = Vec::with_capacity(specs.len());
    for spec in specs {
        let network = store.get(&spec.network)?;
        if plan.endpoints.iter().any(|e| e.network_id == network.id) {
            return Err(invalid(request, format!("it is attached to network `{}` twice", network.name)));
        }
        let index = plan.endpoints.len();
        let endpoint = endpoint(request, spec, &network, index)?;
        plan.endpoints.push(endpoint);
        let endpoint = &mut plan.endpoints[index];
        for v6 in [false, true] {
            let fixed = if v6 { spec.ipv6.map(IpAddr::V6) } else { spec.ipv4.map(IpAddr::V4) };
            let Some(pool) = network.pool(v6) else {
                if let Some(address) = fixed {
                    return Err(invalid(
                        request,
                        format!("address {address}: network `{}` has no subnet of that family", network.name),
                    ));
                }
                continue;
            };
            let address = ipam::claim(root, &network, pool, &claimant, fixed)?;
            let cidr = Cidr::new(address, pool.subnet.prefix());
            let gateway = (!network.internal).then_some(pool.gateway);
            match gateway {
                Some(IpAddr::V4(ip)) => endpoint.gateway4 = Some(ip),
                Some(IpAddr::V6(ip)) => endpoint.gateway6 = Some(ip),
                None => {}
            }
            *(if v6 { &mut endpoint.ipv6 } else { &mut endpoint.ipv4 }) = cidr;
        }
        if spec.mac.is_none() {
            endpoint.mac = derived_mac(endpoint);
        }
        networks.push(network);
    }
    let interfaces: Vec<&str> = plan.endpoints.iter().map(|e| e.interface.as_str()).collect();
    if let Some(twice) = interfaces.iter().enumerate().find(|(i, n)| interfaces[..*i].contains(n)) {
        return Err(invalid(request, format!("two of its interfaces are named `{}`", twice.1)));
    }
    choose_gateways(plan, specs);
    publish(root, request, &claimant, &networks, plan)?;

    let gateway = plan
        .endpoints
        .iter()
        .find(|e| e.default4)
        .and_then(|e| e.gateway4.map(IpAddr::V4))
        .or_else(|| plan.endpoints.iter().find(|e| e.default6).and_then(|e| e.gateway6.map(IpAddr::V6)));
    if gateway.is_none() && request.extra_hosts.iter().any(|(_, address)| address == "host-gateway") {
        return Err(invalid(
            request,
            "`host-gateway` in extra_hosts needs a network that is not internal".to_owned(),
        ));
    }
    plan.hosts = hosts::hosts(request, &plan.endpoints, gateway);
    plan.resolv_conf = hosts::resolv_conf_ours(settled);
    plan.dns = Some(DnsPlan {
        zones: plan
            .endpoints
            .iter()
            .zip(specs)
            .map(|(endpoint, spec)| Zone {
                network: endpoint.network.clone(),
                names: names_dir(root, &endpoint.network_id),
                declared: spec.declared.clone(),
            })
            .collect(),
        search: settled.search.clone(),
        upstreams: request.dns.to_vec(),
        forward: plan.endpoints.iter().any(|e| !e.internal),
        ipv6: plan.endpoints.iter().any(|e| e.default6),
        links: request.links.to_vec(),
    });
    Ok(())
}

/// The endpoint without its addresses.
fn endpoint(
    request: &Request<'_>,
    spec: &EndpointSpec,
    network: &Network,
    index: usize,
) -> Result<Endpoint, NetworkError> {
    let mac = match &spec.mac {
        Some(text) => text
            .parse()
            .map_err(|()| invalid(request, format!("`{text}` is no hardware address of an interface")))?,
        None => Mac([0; 6]),
    };
    if let Some(key) = spec.driver_opts.keys().next() {
        return Err(NetworkError::Unsupported {
            network: network.name.clone(),
            attribute: format!("driver_opts.{key}"),
            reason: format!(
                "the built-in engine has no options for one endpoint (container `{}`)",
                request.name
            ),
        });
    }
    let option = |key: &str| network.driver_opts.get(key).map(String::as_str).filter(|v| !v.is_empty());
    let prefix = option(store::INTERFACE_PREFIX).unwrap_or("eth");
    let interface = spec.interface.clone().unwrap_or_else(|| format!("{prefix}{index}"));
    if !store::is_interface(&interface) || interface == "lo" {
        return Err(invalid(request, format!("`{interface}` is no name for an interface")));
    }
    let mut names: Vec<String> = Vec::new();
    let short = request.container.get(..12).unwrap_or(request.container);
    let own = [request.name, short, request.hostname];
    for name in own.into_iter().chain(spec.aliases.iter().map(String::as_str)) {
        if !name.is_empty() && !names.iter().any(|n| n == name) {
            names.push(name.to_owned());
        }
    }
    Ok(Endpoint {
        network_id: network.id.clone(),
        network: network.name.clone(),
        kind: match network.driver.as_str() {
            "macvlan" => EndpointKind::Macvlan {
                parent: network.bridge.clone(),
                mode: option(store::MACVLAN_MODE).unwrap_or("bridge").to_owned(),
            },
            "ipvlan" => EndpointKind::Ipvlan {
                parent: network.bridge.clone(),
                mode: option(store::IPVLAN_MODE).unwrap_or("l2").to_owned(),
            },
            _ => EndpointKind::Bridge {
                bridge: network.bridge.clone(),
                isolated: !network.option(store::ENABLE_ICC, true),
            },
        },
        interface,
        host_interface: format!("hv{}", random_hex(6)),
        mac,
        ipv4: None,
        ipv6: None,
        gateway4: None,
        gateway6: None,
        mtu: network.mtu,
        link_local: spec.link_local.clone(),
        default4: false,
        default6: false,
        internal: network.internal,
        names,
    })
}

/// A hardware address that goes with the IP address, so that neighbours' tables
/// stay right when a container is made anew with the same address.
fn derived_mac(endpoint: &Endpoint) -> Mac {
    let [a, b, c, d] = match (endpoint.ipv4, endpoint.ipv6) {
        (Some(v4), _) => match v4.address() {
            IpAddr::V4(ip) => ip.octets(),
            IpAddr::V6(_) => [0; 4],
        },
        (None, Some(v6)) => {
            let [a, b, c, d, ..] = ipam::hash(v6.address().to_string().as_bytes()).to_be_bytes();
            [a, b, c, d]
        }
        (None, None) => [0; 4],
    };
    Mac([0x02, 0x42, a, b, c, d])
}

/// The default route of each family goes to the endpoint with the highest
/// priority; among equals to the first network by name, as with Docker.
fn choose_gateways(plan: &mut NetPlan, specs: &[EndpointSpec]) {
    let mut order: Vec<usize> = (0..plan.endpoints.len()).collect();
    order.sort_by(|a, b| {
        specs[*b]
            .gw_priority
            .cmp(&specs[*a].gw_priority)
            .then_with(|| plan.endpoints[*a].network.cmp(&plan.endpoints[*b].network))
    });
    if let Some(i) = order.iter().find(|i| plan.endpoints[**i].gateway4.is_some()) {
        plan.endpoints[*i].default4 = true;
    }
    if let Some(i) = order.iter().find(|i| plan.endpoints[**i].gateway6.is_some()) {
        plan.endpoints[*i].default6 = true;
    }
}

/// The endpoint that published ports lead to: one on a bridge, with the default route if possible.
pub(super) fn publishing_endpoint(endpoints: &[Endpoint]) -> Option<usize> {
    let bridged = |e: &Endpoint| matches!(e.kind, EndpointKind::Bridge { .. });
    let best = |wanted: &dyn Fn(&Endpoint) -> bool| endpoints.iter().position(|e| bridged(e) && wanted(e));
    best(&|e| e.default4).or_else(|| best(&|e| e.default6)).or_else(|| best(&|_| true))
}

/// Settles host addresses and ports, and claims those we pick.
fn publish(
    root: &Root,
    request: &Request<'_>,
    claimant: &Claimant<'_>,
    networks: &[Network],
    plan: &mut NetPlan,
) -> Result<(), NetworkError> {
    if request.ports.is_empty() {
        return Ok(());
    }
    let Some(index) = publishing_endpoint(&plan.endpoints) else {
        return Err(invalid(request, "it publishes ports, but none of its networks is a bridge".to_owned()));
    };
    let (v4, v6) = (plan.endpoints[index].ipv4, plan.endpoints[index].ipv6);
    let binding = networks[index].host_binding();
    let host_has_ipv6 = ports::host_has_ipv6();
    for port in request.ports {
        let protocol: Protocol = port
            .protocol
            .parse()
            .map_err(|()| invalid(request, format!("`{}` is no protocol of a port", port.protocol)))?;
        let mut hosts: Vec<IpAddr> = match port.host_ip.or(binding) {
            Some(ip) => vec![ip],
            None if host_has_ipv6 => {
                vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)]
            }
            None => vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
        };
        if protocol == Protocol::Sctp {
            // No proxy speaks SCTP, so a family the container lacks cannot be served.
            hosts.retain(|ip| if ip.is_ipv6() { v6.is_some() } else { v4.is_some() });
        }
        let (published, picked) = settle_port(root, request, claimant, port, protocol, &hosts, &plan.ports)?;
        for ip in hosts {
            let target = if ip.is_ipv6() { v6.or(v4) } else { v4.or(v6) };
            let Some(target) = target else { continue };
            plan.ports.push(Publish {
                host: SocketAddr::new(ip, published),
                protocol,
                target: SocketAddr::new(target.address(), port.target),
                picked,
            });
        }
    }
    Ok(())
}

/// The host port of a spec, and whether we picked it.
fn settle_port(
    root: &Root,
    request: &Request<'_>,
    claimant: &Claimant<'_>,
    port: &PortSpec,
    protocol: Protocol,
    hosts: &[IpAddr],
    settled: &[Publish],
) -> Result<(u16, bool), NetworkError> {
    let (low, high) = match port.published {
        Some((low, high)) if low == high && low != 0 => return Ok((low, false)),
        Some((low, high)) if low != 0 && low < high => (low, high),
        Some((0, 0)) | None => ports::free_range(),
        Some((low, high)) => {
            return Err(invalid(request, format!("`{low}-{high}` is no range of host ports")));
        }
    };
    let count = u32::from(high - low) + 1;
    // A range is used from its beginning, a free choice anywhere: two commands then rarely meet.
    let start = if port.published.is_some_and(|(low, _)| low != 0) { 0 } else { random_below(count) };
    for i in 0..count {
        let number = low + u16::try_from((start + i) % count).expect("less than the range");
        let key =
            SocketAddr::new(hosts.first().copied().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), number);
        if settled.iter().any(|p| p.protocol == protocol && p.host.port() == number) {
            continue;
        }
        if !hosts.iter().all(|ip| ports::is_free(SocketAddr::new(*ip, number), protocol)) {
            continue;
        }
        if ipam::claim_port(root, claimant, protocol, key)? {
            return Ok((number, true));
        }
    }
    Err(NetworkError::NoPort { target: port.target, protocol, low, high })
}

fn random_below(count: u32) -> u32 {
    let number = u32::from_str_radix(&random_hex(4), 16).expect("eight hex digits");
    number % count
}
