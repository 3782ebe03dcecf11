//! The part of a start that the shim does, and its opposite.
//!
//! Order: bridge and table, host ports, namespace, interfaces, addresses, and
//! only then the elements that let traffic in. Each kernel object dies with the
//! namespace or is found again by the plan, so that [`disconnect`] can run
//! at any point, twice, and in another process.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;

use super::cidr::Cidr;
use super::error::NetworkError;
use super::netlink::{Batch, Socket};
use super::nft::Transaction;
use super::plan::{Connected, Endpoint, EndpointKind, Namespace, NetPlan, Protocol};
use super::prepare::publishing_endpoint;
use super::proxy::{Proxy, Reserved};
use super::record::Record;
use super::store::{self, Network, Networks};
use super::table::{self, BridgeRules, Elements};
use super::watch::Watch;
use super::{conntrack, foreign, ipam, netns, ports, record, route};
use crate::runtime::Source;
use crate::runtime::dns::Responder;
use crate::runtime::root::Root;
use crate::util::files;
use crate::util::fs::{self, Lock};

/// Makes the container's namespace with everything of the plan in it, and
/// publishes its ports. Blocks for about a millisecond; the caller is single-threaded.
///
/// # Errors
/// [`NetworkError::PortTaken`] naming the holder; [`NetworkError::Permission`];
/// [`NetworkError::NotFound`] when a network was removed meanwhile;
/// [`NetworkError::Step`]. What was made is gone then, but for claims:
/// call [`disconnect`].
pub fn connect(plan: &NetPlan) -> Result<Connected, NetworkError> {
    if plan.namespace != Namespace::Own {
        return Ok(Connected::default());
    }
    let home = netns::current()?;
    let host = Socket::route()?;
    let reserved = reserve(plan)?;
    // Only now: a record promises that its ports are bound.
    write_records(plan)?;
    let mut bridges = Vec::with_capacity(plan.endpoints.len());
    for endpoint in &plan.endpoints {
        bridges.push(ensure_carrier(&plan.root, endpoint, &host)?);
    }
    let netns = netns::create(home.as_fd())?;
    let mut batch = Batch::default();
    for (endpoint, carrier) in plan.endpoints.iter().zip(&bridges) {
        add_interface(&mut batch, plan, endpoint, *carrier, netns.as_fd());
    }
    host.run(&mut batch)?;
    netns::inside(netns.as_fd(), home.as_fd(), || set_up_inside(plan))?;
    publish(plan)?;
    attend(plan, netns, reserved)
}

/// Takes over a container that runs: reserves its ports again and serves its
/// names in the namespace that is still there. For a new shim after a crash.
///
/// # Errors
/// As [`connect`].
pub fn adopt(plan: &NetPlan, netns: OwnedFd) -> Result<Connected, NetworkError> {
    if plan.namespace != Namespace::Own {
        return Ok(Connected::default());
    }
    let reserved = reserve(plan)?;
    write_records(plan)?;
    repair(&plan.root)?;
    attend(plan, netns, reserved)
}

/// Takes everything of the plan back: published ports, endpoint records, and
/// claimed addresses. The interfaces die with the namespace. Idempotent, and
/// safe for ports and addresses that another container has meanwhile.
///
/// # Errors
/// The first failure, after everything else was tried.
pub fn disconnect(plan: &NetPlan) -> Result<(), NetworkError> {
    let unpublished = unpublish(plan);
    let released = release(plan);
    unpublished.and(released)
}

/// Gives back what [`prepare`](super::prepare) claimed.
pub(super) fn release(plan: &NetPlan) -> Result<(), NetworkError> {
    let mut result = Ok(());
    let mut keep = |outcome: Result<(), NetworkError>| {
        if result.is_ok() {
            result = outcome;
        }
    };
    for endpoint in &plan.endpoints {
        keep(record::remove(&plan.root, &endpoint.network_id, &plan.container));
        for address in [endpoint.ipv4, endpoint.ipv6].into_iter().flatten() {
            keep(ipam::release(&plan.root, &endpoint.network_id, address.address(), &plan.container));
        }
    }
    for port in plan.ports.iter().filter(|p| p.picked) {
        keep(ipam::release_port(&plan.root, &plan.container, port.protocol, port.host));
    }
    result
}

fn reserve(plan: &NetPlan) -> Result<Vec<Reserved>, NetworkError> {
    let mut reserved = Vec::new();
    for port in &plan.ports {
        let fd = ports::reserve(&plan.root, port)?;
        reserved.extend(fd.map(|fd| Reserved { fd, protocol: port.protocol, target: port.target }));
    }
    Ok(reserved)
}

/// Makes the container known to name services and to whoever rebuilds the table.
fn write_records(plan: &NetPlan) -> Result<(), NetworkError> {
    let boot = files::boot_id()?;
    let publisher = publishing_endpoint(&plan.endpoints);
    for (index, endpoint) in plan.endpoints.iter().enumerate() {
        let record = Record {
            version: record::VERSION,
            container: plan.container.clone(),
            name: plan.name.clone(),
            boot: boot.clone(),
            addresses: [endpoint.ipv4, endpoint.ipv6].into_iter().flatten().map(|c| c.address()).collect(),
            names: endpoint.names.clone(),
            ports: if Some(index) == publisher { plan.ports.clone() } else { Vec::new() },
        };
        record.write(&plan.root, &endpoint.network_id)?;
    }
    Ok(())
}

/// What an endpoint's interface is put on, by index: the bridge, made if it is not there, or the parent.
fn ensure_carrier(root: &Root, endpoint: &Endpoint, host: &Socket) -> Result<u32, NetworkError> {
    match &endpoint.kind {
        EndpointKind::Bridge { bridge, .. } => {
            if let Some(link) = route::link(host, bridge)?
                && link.up
                && link.kind == "bridge"
            {
                return Ok(link.index);
            }
            let network = Networks::new(root)
                .load(&endpoint.network_id)?
                .ok_or_else(|| NetworkError::NotFound(endpoint.network.clone()))?;
            ensure_bridge(root, &network, host)
        }
        EndpointKind::Macvlan { parent, .. } | EndpointKind::Ipvlan { parent, .. } => {
            ensure_parent(parent, &endpoint.network, host)
        }
    }
}

/// The interface a macvlan or ipvlan network sits on; a VLAN interface `eth0.10` is made on demand.
fn ensure_parent(parent: &str, network: &str, host: &Socket) -> Result<u32, NetworkError> {
    if let Some(link) = route::link(host, parent)? {
        return Ok(link.index);
    }
    let missing = || NetworkError::Invalid {
        network: network.to_owned(),
        reason: format!("its parent interface `{parent}` does not exist on this host"),
    };
    let (base, id) = parent.rsplit_once('.').ok_or_else(missing)?;
    let id: u16 = id.parse().ok().filter(|id| (1..4095).contains(id)).ok_or_else(missing)?;
    let base = route::link(host, base)?.ok_or_else(missing)?;
    let mut batch = Batch::default();
    route::add_vlan(&mut batch, parent, base.index, id);
    host.run(&mut batch)?;
    Ok(route::link(host, parent)?.ok_or_else(missing)?.index)
}

/// The lock around the table: shared to change elements, exclusive to rebuild
/// it from the records, so that a rebuild never loses an element added meanwhile.
pub(super) fn rules_path(root: &Root) -> std::path::PathBuf {
    root.networks().join(".rules")
}

/// Makes the bridge and all that goes with it. It is raised last: a bridge that
/// is up is complete.
fn ensure_bridge(root: &Root, network: &Network, host: &Socket) -> Result<u32, NetworkError> {
    let _lock = Lock::exclusive(&rules_path(root))?;
    let name = &network.bridge;
    let missing = || NetworkError::Step {
        step: format!("find the bridge `{name}`"),
        detail: "it was removed meanwhile".to_owned(),
        source: Errno::NODEV.into(),
    };
    if let Some(link) = route::link(host, name)? {
        if link.kind != "bridge" {
            return Err(NetworkError::Invalid {
                network: network.name.clone(),
                reason: format!("the host has an interface `{name}` that is no bridge; remove or rename it"),
            });
        }
        if link.up {
            return Ok(link.index);
        }
    }
    let mut batch = Batch::default();
    route::add_bridge(&mut batch, name, network.group(), network.mtu, network.bridge_mac());
    host.run(&mut batch)?;
    let index = route::link(host, name)?.ok_or_else(missing)?.index;
    let v6 = network.pool(true).is_some();
    sysctl(&format!("net/ipv4/conf/{name}/route_localnet"), "1")?;
    configure_ipv6(name, v6)?;
    let guard = forward_packets(root, v6)?;
    let mut batch = Batch::default();
    for pool in &network.pools {
        if let Some(address) = Cidr::new(pool.gateway, pool.subnet.prefix()) {
            route::add_address(&mut batch, index, address);
        }
    }
    host.run(&mut batch)?;
    let netfilter = Socket::kept()?;
    admit_network(root, network, &netfilter, guard)?;
    foreign::admit(root, &netfilter, &[name])?;
    let mut batch = Batch::default();
    route::set_up(&mut batch, index);
    host.run(&mut batch)?;
    Ok(index)
}

/// Adds a network to the table, or makes the table. Adding takes nothing out,
/// so it wakes none of those who watch for a flush.
fn admit_network(
    root: &Root,
    network: &Network,
    netfilter: &Socket,
    guard: bool,
) -> Result<(), NetworkError> {
    let name = table::name(root);
    if table::has_rules(netfilter, &name, guard)? {
        let mut elements = Elements::default();
        elements.network(&rules_of(network));
        let mut transaction = Transaction::new();
        elements.add_to(&mut transaction, table::table(&name));
        match transaction.commit(netfilter) {
            Err(failure) if matches!(failure.errno, Errno::NOENT | Errno::EXIST) => {}
            result => return Ok(result?),
        }
    }
    Ok(table::rebuild(netfilter, &name, &wanted(root)?, guard)?)
}

pub(super) fn rules_of(network: &Network) -> BridgeRules {
    BridgeRules {
        bridge: network.bridge.clone(),
        internal: network.internal,
        masquerade: network.option(store::MASQUERADE, true),
        between_containers: network.option(store::ENABLE_ICC, true),
    }
}

/// IPv6 on an interface: on with fixed configuration, or off altogether.
fn configure_ipv6(interface: &str, on: bool) -> Result<(), NetworkError> {
    let conf = format!("net/ipv6/conf/{interface}");
    if !Path::new("/proc/sys/net/ipv6").exists() {
        if on {
            return Err(NetworkError::Kernel {
                step: format!("use IPv6 on `{interface}`"),
                missing: "this kernel has IPv6 turned off (`ipv6.disable=1`)".to_owned(),
            });
        }
        return Ok(());
    }
    sysctl(&format!("{conf}/disable_ipv6"), if on { "0" } else { "1" })?;
    if on {
        sysctl(&format!("{conf}/accept_ra"), "0")?;
    }
    Ok(())
}

/// Writes a kernel parameter of the thread's network namespace, unless it has the value.
pub(super) fn sysctl(name: &str, value: &str) -> Result<(), NetworkError> {
    let path = Path::new("/proc/sys").join(name);
    std::fs::write(&path, value).map_err(|source| fs::PathError::at("write", &path)(source).into())
}

fn sysctl_is(name: &str, value: &str) -> bool {
    std::fs::read_to_string(Path::new("/proc/sys").join(name)).is_ok_and(|text| text.trim_end() == value)
}

pub(super) const FORWARD4: &str = "net/ipv4/ip_forward";
pub(super) const FORWARD6: &str = "net/ipv6/conf/all/forwarding";

/// File that says that this installation turned forwarding on, with the boot id.
pub(super) fn forwarding_marker(root: &Root) -> std::path::PathBuf {
    root.networks().join(".forwarding")
}

/// Lets the host forward packets. True when we turned it on: then the table
/// keeps the host from routing what is nobody's container traffic.
fn forward_packets(root: &Root, v6: bool) -> Result<bool, NetworkError> {
    let boot = files::boot_id()?;
    let marker = forwarding_marker(root);
    let mark = || fs::write_atomic(&marker, boot.as_bytes(), false);
    if !sysctl_is(FORWARD4, "1") {
        mark()?;
        sysctl(FORWARD4, "1")?;
    }
    if v6 && !sysctl_is(FORWARD6, "1") {
        mark()?;
        keep_router_advertisements();
        sysctl(FORWARD6, "1")?;
    }
    we_forward(root)
}

/// A host that forwards IPv6 ignores router advertisements where `accept_ra` is
/// 1, and would lose its own address and default route; 2 keeps them.
fn keep_router_advertisements() {
    let Ok(interfaces) = std::fs::read_dir("/proc/sys/net/ipv6/conf") else { return };
    for interface in interfaces.flatten() {
        let path = interface.path().join("accept_ra");
        if std::fs::read_to_string(&path).is_ok_and(|text| text.trim_end() == "1") {
            // An interface that vanishes meanwhile needs none.
            std::fs::write(&path, "2").ok();
        }
    }
}

pub(super) fn we_forward(root: &Root) -> Result<bool, NetworkError> {
    let boot = files::boot_id()?;
    Ok(files::read_opt(&forwarding_marker(root))?.is_some_and(|text| text == boot.as_bytes()))
}

/// What the sets have to hold, from the definitions and records.
fn wanted(root: &Root) -> Result<Elements, NetworkError> {
    let boot = files::boot_id()?;
    let mut elements = Elements::default();
    for network in Networks::new(root).list()?.iter().filter(|n| n.driver == "bridge") {
        elements.network(&rules_of(network));
        for record in record::live(root, &network.id, &boot)? {
            record.ports.iter().for_each(|port| elements.port(port));
        }
    }
    Ok(elements)
}

/// Puts back what somebody took away: the table with all its elements, and the
/// accepts in other firewalls' chains. Cheap when nothing is missing.
///
/// # Errors
/// [`NetworkError::Permission`], [`NetworkError::Step`].
pub fn repair(root: &Root) -> Result<(), NetworkError> {
    if !root.networks().exists() {
        return Ok(());
    }
    let _lock = Lock::exclusive(&rules_path(root))?;
    let host = Socket::route()?;
    let mut bridges = Vec::new();
    for network in Networks::new(root).list()?.into_iter().filter(|n| n.driver == "bridge") {
        if route::link(&host, &network.bridge)?.is_some() {
            bridges.push(network.bridge);
        }
    }
    if bridges.is_empty() {
        return Ok(());
    }
    let guard = we_forward(root)?;
    let netfilter = Socket::kept()?;
    let wanted = wanted(root)?;
    let name = table::name(root);
    if !table::is_intact(&netfilter, &name, &wanted, guard)? {
        table::rebuild(&netfilter, &name, &wanted, guard)?;
    }
    let bridges: Vec<&str> = bridges.iter().map(String::as_str).collect();
    foreign::admit(root, &netfilter, &bridges)
}

fn add_interface(
    batch: &mut Batch,
    plan: &NetPlan,
    endpoint: &Endpoint,
    carrier: u32,
    netns: BorrowedFd<'_>,
) {
    let sub = |kind, mode, mac| route::SubLink {
        kind,
        mode,
        parent: carrier,
        inside: &endpoint.interface,
        mac,
        mtu: endpoint.mtu,
        netns,
    };
    match &endpoint.kind {
        EndpointKind::Bridge { isolated, .. } => route::add_veth(
            batch,
            &route::Veth {
                host: &endpoint.host_interface,
                bridge: carrier,
                group: store::group(&endpoint.network_id),
                inside: &endpoint.interface,
                mac: endpoint.mac,
                mtu: endpoint.mtu,
                netns,
                hairpin: !plan.ports.is_empty(),
                isolated: *isolated,
            },
        ),
        EndpointKind::Macvlan { mode, .. } => {
            let mode = store::macvlan_mode(mode).unwrap_or_default();
            route::add_sub_link(batch, &sub("macvlan", mode, Some(endpoint.mac)));
        }
        EndpointKind::Ipvlan { mode, .. } => {
            // All share the parent's hardware address.
            let mode = store::ipvlan_mode(mode).unwrap_or_default();
            route::add_sub_link(batch, &sub("ipvlan", mode, None));
        }
    }
}

/// Addresses, routes and parameters, seen from inside.
fn set_up_inside(plan: &NetPlan) -> Result<(), NetworkError> {
    const LOOPBACK: u32 = 1;
    let socket = Socket::route()?;
    // Docker's defaults in a namespace of its own: any user may bind any port and ping.
    sysctl("net/ipv4/ip_unprivileged_port_start", "0")?;
    sysctl("net/ipv4/ping_group_range", "0 2147483647")?;
    let mut batch = Batch::default();
    route::set_up(&mut batch, LOOPBACK);
    let mut gateways = Batch::default();
    for endpoint in &plan.endpoints {
        let name = &endpoint.interface;
        let link = route::link(&socket, name)?.ok_or_else(|| NetworkError::Step {
            step: format!("find the interface `{name}` in the container"),
            detail: String::new(),
            source: Errno::NODEV.into(),
        })?;
        configure_ipv6(name, endpoint.ipv6.is_some())?;
        // Raising it then tells the bridge where the address is now.
        sysctl(&format!("net/ipv4/conf/{name}/arp_notify"), "1")?;
        if endpoint.ipv6.is_some() {
            sysctl(&format!("net/ipv6/conf/{name}/ndisc_notify"), "1")?;
        }
        for address in [endpoint.ipv4, endpoint.ipv6].into_iter().flatten() {
            route::add_address(&mut batch, link.index, address);
        }
        for address in &endpoint.link_local {
            let prefix = if address.is_ipv6() { 64 } else { 16 };
            if let Some(address) = Cidr::new(*address, prefix) {
                route::add_address(&mut batch, link.index, address);
            }
        }
        route::set_up(&mut batch, link.index);
        // On an ipvlan in a routed mode the gateway is nobody's neighbour.
        let routed = matches!(&endpoint.kind, EndpointKind::Ipvlan { mode, .. } if mode != "l2");
        if let (true, Some(gateway)) = (endpoint.default4, endpoint.gateway4) {
            let gateway = (!routed).then_some(IpAddr::V4(gateway));
            route::add_default_route(&mut gateways, link.index, route::AF_INET, gateway);
        }
        if let (true, Some(gateway)) = (endpoint.default6, endpoint.gateway6) {
            let gateway = (!routed).then_some(IpAddr::V6(gateway));
            route::add_default_route(&mut gateways, link.index, route::AF_INET6, gateway);
        }
    }
    socket.run(&mut batch)?;
    socket.run(&mut gateways)?;
    Ok(())
}

fn elements_of(plan: &NetPlan) -> Elements {
    let mut elements = Elements::default();
    plan.ports.iter().for_each(|port| elements.port(port));
    elements
}

/// Puts the ports into the maps.
fn publish(plan: &NetPlan) -> Result<(), NetworkError> {
    let elements = elements_of(plan);
    if elements.is_empty() {
        return Ok(());
    }
    let name = table::name(&plan.root);
    let added = {
        let _lock = Lock::shared(&rules_path(&plan.root))?;
        let mut transaction = Transaction::new();
        elements.add_to(&mut transaction, table::table(&name));
        transaction.commit(&*Socket::kept()?)
    };
    match added {
        Ok(()) => {}
        // The table is gone, or holds an element that a crash has left. The
        // port itself is ours: we are bound to it.
        Err(failure) if matches!(failure.errno, Errno::NOENT | Errno::EXIST) => repair(&plan.root)?,
        Err(failure) => return Err(failure.into()),
    }
    forget_flows(plan)
}

/// Takes the ports out of the maps where they still lead to this container.
fn unpublish(plan: &NetPlan) -> Result<(), NetworkError> {
    let ours = elements_of(plan);
    if ours.is_empty() {
        return Ok(());
    }
    let name = table::name(&plan.root);
    {
        let _lock = Lock::shared(&rules_path(&plan.root))?;
        // From here on a rebuild does not know the ports any more.
        for endpoint in &plan.endpoints {
            record::remove(&plan.root, &endpoint.network_id, &plan.container)?;
        }
        delete_elements(&*Socket::kept()?, &name, &ours)?;
    }
    forget_flows(plan)
}

/// Deletes what the kernel remembers of UDP conversations with the ports: a
/// client that keeps sending would otherwise stay with the old answer for good.
fn forget_flows(plan: &NetPlan) -> Result<(), NetworkError> {
    let udp: Vec<SocketAddr> =
        plan.ports.iter().filter(|p| p.protocol == Protocol::Udp).map(|p| p.host).collect();
    if udp.is_empty() {
        return Ok(());
    }
    conntrack::forget_udp(&udp)
}

/// Deletes those of the elements that are in the table with these values.
pub(super) fn delete_elements(
    netfilter: &Socket,
    table: &str,
    elements: &Elements,
) -> Result<(), NetworkError> {
    let table = table::table(table);
    loop {
        let Some(there) = Elements::read(netfilter, table, Some(elements))? else { return Ok(()) };
        let mut leaving = elements.clone();
        leaving.retain(&there);
        if leaving.is_empty() {
            return Ok(());
        }
        let mut transaction = Transaction::new();
        leaving.delete_from(&mut transaction, table);
        match transaction.commit(netfilter) {
            // Somebody else was faster; look again.
            Err(failure) if failure.errno == Errno::NOENT => {}
            result => return Ok(result?),
        }
    }
}

/// Whether the table has its rules and lets these bridges through, also in other
/// firewalls. A look at the kernel only, for those who watch.
pub(super) fn admits(root: &Root, bridges: &[&str]) -> Result<bool, NetworkError> {
    let netfilter = Socket::kept()?;
    let name = table::name(root);
    let guard = we_forward(root)?;
    Ok(table::has_rules(&netfilter, &name, guard)?
        && table::has_bridges(&netfilter, &name, bridges)?
        && foreign::missing(root, &netfilter, bridges)?.is_empty())
}

/// Everything that the shim's loop turns for this container.
fn attend(plan: &NetPlan, netns: OwnedFd, reserved: Vec<Reserved>) -> Result<Connected, NetworkError> {
    let mut sources: Vec<Box<dyn Source>> = Vec::new();
    if let Some(dns) = &plan.dns {
        sources.push(Box::new(Responder::open(dns, netns.as_fd())?));
    }
    if !reserved.is_empty() {
        sources.push(Box::new(Proxy::new(reserved)?));
    }
    let bridges: Vec<String> = plan
        .endpoints
        .iter()
        .filter_map(|e| match &e.kind {
            EndpointKind::Bridge { bridge, .. } => Some(bridge.clone()),
            _ => None,
        })
        .collect();
    if !bridges.is_empty() {
        sources.push(Box::new(Watch::new(&plan.root, bridges)?));
    }
    Ok(Connected { netns: Some(netns), sources })
}
