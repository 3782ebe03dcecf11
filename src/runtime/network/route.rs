//! Route netlink: links, addresses and routes, as few messages as the kernel allows.
//!
//! See `rtnetlink(7)`; attribute numbers are those of `linux/if_link.h`,
//! `linux/if_addr.h` and `linux/rtnetlink.h`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use super::cidr::Cidr;
use super::netlink::{Batch, CREATE, EXCL, Failure, ROOT_AND_MATCH, Socket, as_text, as_u32, attribute};
use super::plan::Mac;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_GROUP: u16 = 27;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;

pub(super) const AF_INET: u8 = 2;
pub(super) const AF_INET6: u8 = 10;
pub(super) const IFF_UP: u32 = 1;

/// A link as the kernel reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) up: bool,
    pub(super) mtu: u32,
    /// `bridge`, `veth`, …; empty for hardware.
    pub(super) kind: String,
}

fn link_header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

fn parse_link(body: &[u8]) -> Option<Link> {
    let attributes = body.get(16..)?;
    let kind = attribute(attributes, IFLA_LINKINFO).and_then(|info| attribute(info, IFLA_INFO_KIND));
    Some(Link {
        index: as_u32(&body[4..])?,
        up: as_u32(&body[8..])? & IFF_UP != 0,
        name: attribute(attributes, IFLA_IFNAME).map(as_text).unwrap_or_default(),
        mtu: attribute(attributes, IFLA_MTU).and_then(as_u32).unwrap_or(1500),
        kind: kind.map(as_text).unwrap_or_default(),
    })
}

/// The link of this name in the socket's namespace; `None` when there is none.
pub(super) fn link(socket: &Socket, name: &str) -> Result<Option<Link>, Failure> {
    let mut batch = Batch::default();
    batch
        .message(RTM_GETLINK, 0, &link_header(0, 0, 0), format!("look up the interface `{name}`"))
        .text(IFLA_IFNAME, name);
    match socket.request(&mut batch) {
        Ok(found) => Ok(found.first().and_then(|body| parse_link(body))),
        Err(failure) if failure.errno == Errno::NODEV => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// The link with this index.
pub(super) fn link_by_index(socket: &Socket, index: u32) -> Result<Option<Link>, Failure> {
    let mut batch = Batch::default();
    batch.message(RTM_GETLINK, 0, &link_header(index, 0, 0), format!("look up interface {index}"));
    match socket.request(&mut batch) {
        Ok(found) => Ok(found.first().and_then(|body| parse_link(body))),
        Err(failure) if failure.errno == Errno::NODEV => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Notification group of links (`RTNLGRP_LINK`).
pub(super) const LINK_NOTICES: u32 = 1;

/// Reads the pending notifications; whether one says that the link is gone.
pub(super) fn reports_removal(notices: &Socket, index: u32) -> bool {
    // A bridge also reports the ports that leave it, in a family of its own (the first byte).
    notices.drain().iter().any(|(kind, body)| {
        *kind == RTM_DELLINK && body.first() == Some(&0) && body.get(4..).and_then(as_u32) == Some(index)
    })
}

/// All links of the socket's namespace.
pub(super) fn links(socket: &Socket) -> Result<Vec<Link>, Failure> {
    let mut batch = Batch::default();
    batch.message(RTM_GETLINK, ROOT_AND_MATCH, &link_header(0, 0, 0), "list interfaces");
    Ok(socket.request(&mut batch)?.iter().filter_map(|body| parse_link(body)).collect())
}

/// Asks for a bridge that is down, forwards at once and speaks no spanning
/// tree. Its address is pinned, else it would follow that of its lowest port
/// and leave stale neighbour entries. Succeeds when a link of the name exists.
pub(super) fn add_bridge(batch: &mut Batch, name: &str, group: u32, mtu: u32, mac: Mac) {
    const IFLA_BR_FORWARD_DELAY: u16 = 1;
    const IFLA_BR_STP_STATE: u16 = 5;
    batch
        .message(RTM_NEWLINK, CREATE | EXCL, &link_header(0, 0, 0), format!("make the bridge `{name}`"))
        .ignoring(&[Errno::EXIST])
        .text(IFLA_IFNAME, name)
        .u32(IFLA_MTU, mtu)
        .u32(IFLA_GROUP, group)
        .attr(IFLA_ADDRESS, &mac.0)
        .nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "bridge").nest(IFLA_INFO_DATA, |data| {
                data.u32(IFLA_BR_FORWARD_DELAY, 0).u32(IFLA_BR_STP_STATE, 0);
            });
        });
}

/// A veth pair to make.
#[derive(Debug)]
pub(super) struct Veth<'a> {
    /// Name of the host's end.
    pub(super) host: &'a str,
    /// Index of the bridge.
    pub(super) bridge: u32,
    /// Device group, see [`delete_group`].
    pub(super) group: u32,
    /// Name of the container's end.
    pub(super) inside: &'a str,
    /// Its address.
    pub(super) mac: Mac,
    pub(super) mtu: u32,
    /// Namespace the container's end is born in.
    pub(super) netns: BorrowedFd<'a>,
    /// Send frames back to where they came from: with `br_netfilter` a
    /// container that calls its own published port is bridged back to itself.
    pub(super) hairpin: bool,
    /// Never bridge to another isolated port (inter-container communication off).
    pub(super) isolated: bool,
}

/// Asks for a veth pair in one message: the host's end up and on its bridge,
/// the other one already inside. The latter cannot be made up (`ENOTCONN`).
pub(super) fn add_veth(batch: &mut Batch, veth: &Veth<'_>) {
    const VETH_INFO_PEER: u16 = 1;
    const IFLA_BRPORT_MODE: u16 = 4;
    const IFLA_BRPORT_ISOLATED: u16 = 33;
    let netns = u32::try_from(veth.netns.as_raw_fd()).expect("a descriptor is not negative");
    batch
        .message(
            RTM_NEWLINK,
            CREATE | EXCL,
            &link_header(0, IFF_UP, IFF_UP),
            format!("make the interface pair `{}`", veth.host),
        )
        .text(IFLA_IFNAME, veth.host)
        .u32(IFLA_MTU, veth.mtu)
        .u32(IFLA_GROUP, veth.group)
        .u32(IFLA_MASTER, veth.bridge)
        .nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |peer| {
                    peer.raw(&link_header(0, 0, 0))
                        .text(IFLA_IFNAME, veth.inside)
                        .u32(IFLA_MTU, veth.mtu)
                        .attr(IFLA_ADDRESS, &veth.mac.0)
                        .u32(IFLA_NET_NS_FD, netns);
                });
            });
        });
    if veth.hairpin || veth.isolated {
        batch
            .message(RTM_NEWLINK, 0, &link_header(0, 0, 0), format!("set up the bridge port `{}`", veth.host))
            .text(IFLA_IFNAME, veth.host)
            .nest(IFLA_LINKINFO, |info| {
                info.text(IFLA_INFO_SLAVE_KIND, "bridge").nest(IFLA_INFO_SLAVE_DATA, |data| {
                    if veth.hairpin {
                        data.attr(IFLA_BRPORT_MODE, &[1]);
                    }
                    if veth.isolated {
                        data.attr(IFLA_BRPORT_ISOLATED, &[1]);
                    }
                });
            });
    }
}

/// A macvlan or ipvlan interface to make inside a namespace.
#[derive(Debug)]
pub(super) struct SubLink<'a> {
    /// `macvlan` or `ipvlan`.
    pub(super) kind: &'static str,
    /// `MACVLAN_MODE_*` or `IPVLAN_MODE_*`.
    pub(super) mode: u32,
    /// Index of the parent.
    pub(super) parent: u32,
    pub(super) inside: &'a str,
    pub(super) mac: Option<Mac>,
    pub(super) mtu: u32,
    pub(super) netns: BorrowedFd<'a>,
}

/// Asks for a macvlan or ipvlan interface, born in the namespace.
pub(super) fn add_sub_link(batch: &mut Batch, link: &SubLink<'_>) {
    const IFLA_MODE: u16 = 1;
    let netns = u32::try_from(link.netns.as_raw_fd()).expect("a descriptor is not negative");
    batch
        .message(
            RTM_NEWLINK,
            CREATE | EXCL,
            &link_header(0, 0, 0),
            format!("make the {} interface `{}`", link.kind, link.inside),
        )
        .text(IFLA_IFNAME, link.inside)
        .u32(IFLA_MTU, link.mtu)
        .u32(IFLA_LINK, link.parent)
        .u32(IFLA_NET_NS_FD, netns);
    if let Some(mac) = link.mac {
        batch.attr(IFLA_ADDRESS, &mac.0);
    }
    batch.nest(IFLA_LINKINFO, |info| {
        info.text(IFLA_INFO_KIND, link.kind).nest(IFLA_INFO_DATA, |data| {
            if link.kind == "ipvlan" {
                let mode = u16::try_from(link.mode).expect("a small mode");
                data.attr(IFLA_MODE, &mode.to_ne_bytes());
            } else {
                data.u32(IFLA_MODE, link.mode);
            }
        });
    });
}

/// Asks for a VLAN interface `name` on the parent.
pub(super) fn add_vlan(batch: &mut Batch, name: &str, parent: u32, id: u16) {
    const IFLA_VLAN_ID: u16 = 1;
    batch
        .message(
            RTM_NEWLINK,
            CREATE | EXCL,
            &link_header(0, IFF_UP, IFF_UP),
            format!("make the VLAN interface `{name}`"),
        )
        .ignoring(&[Errno::EXIST])
        .text(IFLA_IFNAME, name)
        .u32(IFLA_LINK, parent)
        .nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "vlan").nest(IFLA_INFO_DATA, |data| {
                data.attr(IFLA_VLAN_ID, &id.to_ne_bytes());
            });
        });
}

/// Raises the link with this index.
pub(super) fn set_up(batch: &mut Batch, index: u32) {
    batch.message(RTM_NEWLINK, 0, &link_header(index, IFF_UP, IFF_UP), format!("raise interface {index}"));
}

/// Removes all links of a device group at once: one wait of the kernel for a
/// bridge with all its ports, instead of one each. There may be none.
pub(super) fn delete_group(batch: &mut Batch, group: u32) {
    batch
        .message(RTM_DELLINK, 0, &link_header(0, 0, 0), "remove a network's interfaces")
        .ignoring(&[Errno::NODEV])
        .u32(IFLA_GROUP, group);
}

/// Gives the link an address; it may have it already. IPv6 addresses skip
/// duplicate detection: the claim of the address has ruled duplicates out.
pub(super) fn add_address(batch: &mut Batch, index: u32, address: Cidr) {
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    const IFA_BROADCAST: u16 = 4;
    const IFA_F_NODAD: u8 = 2;
    let step = format!("give interface {index} the address {address}");
    let mut header = [0, address.prefix(), 0, 0, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    match address.address() {
        IpAddr::V4(ip) => {
            header[0] = AF_INET;
            batch.message(RTM_NEWADDR, CREATE | EXCL, &header, step).ignoring(&[Errno::EXIST]);
            batch.attr(IFA_LOCAL, &ip.octets()).attr(IFA_ADDRESS, &ip.octets());
            if let (true, IpAddr::V4(last)) = (address.prefix() < 31, address.last()) {
                batch.attr(IFA_BROADCAST, &last.octets());
            }
        }
        IpAddr::V6(ip) => {
            header[0] = AF_INET6;
            header[2] = IFA_F_NODAD;
            batch.message(RTM_NEWADDR, CREATE | EXCL, &header, step).ignoring(&[Errno::EXIST]);
            batch.attr(IFA_LOCAL, &ip.octets()).attr(IFA_ADDRESS, &ip.octets());
        }
    }
}

/// Sends everything without a better route to the gateway, or out of the link when there is none.
pub(super) fn add_default_route(batch: &mut Batch, index: u32, family: u8, gateway: Option<IpAddr>) {
    const RTA_OIF: u16 = 4;
    const RTA_GATEWAY: u16 = 5;
    const RT_TABLE_MAIN: u8 = 254;
    const RTPROT_STATIC: u8 = 4;
    const RT_SCOPE_UNIVERSE: u8 = 0;
    const RT_SCOPE_LINK: u8 = 253;
    const RTN_UNICAST: u8 = 1;
    let scope = if gateway.is_some() || family == AF_INET6 { RT_SCOPE_UNIVERSE } else { RT_SCOPE_LINK };
    let header = [family, 0, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, scope, RTN_UNICAST, 0, 0, 0, 0];
    batch
        .message(RTM_NEWROUTE, CREATE | EXCL, &header, "add the default route")
        .ignoring(&[Errno::EXIST])
        .u32(RTA_OIF, index);
    match gateway {
        Some(IpAddr::V4(ip)) => {
            batch.attr(RTA_GATEWAY, &ip.octets());
        }
        Some(IpAddr::V6(ip)) => {
            batch.attr(RTA_GATEWAY, &ip.octets());
        }
        None => {}
    }
}

/// A route: where it leads and, for default routes, through which link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    /// Destination; prefix 0 is the default route.
    pub(super) destination: Cidr,
    /// Index of the outgoing link.
    pub(super) link: Option<u32>,
}

/// All routes of all tables in both families: addresses of the host included
/// (table `local`), multicast and link-local ones left out.
pub(super) fn routes(socket: &Socket) -> Result<Vec<Route>, Failure> {
    const RTA_DST: u16 = 1;
    const RTA_OIF: u16 = 4;
    let mut found = Vec::new();
    for family in [AF_INET, AF_INET6] {
        let header = [family, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut batch = Batch::default();
        batch.message(RTM_GETROUTE, ROOT_AND_MATCH, &header, "list routes");
        for body in socket.request(&mut batch)? {
            let Some(attributes) = body.get(12..) else { continue };
            let prefix = body[1];
            let destination = match (family, attribute(attributes, RTA_DST)) {
                (AF_INET, Some(bytes)) => bytes.first_chunk::<4>().map(|b| IpAddr::V4(Ipv4Addr::from(*b))),
                (_, Some(bytes)) => bytes.first_chunk::<16>().map(|b| IpAddr::V6(Ipv6Addr::from(*b))),
                (AF_INET, None) => Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
                (_, None) => Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
            };
            let Some(destination) = destination.and_then(|ip| Cidr::new(ip, prefix)) else { continue };
            let useless = match destination.address() {
                IpAddr::V4(ip) => ip.is_multicast() || ip.is_loopback(),
                IpAddr::V6(ip) => ip.is_multicast() || ip.is_loopback() || ip.is_unicast_link_local(),
            };
            if !useless {
                let link = attribute(attributes, RTA_OIF).and_then(as_u32);
                found.push(Route { destination, link });
            }
        }
    }
    Ok(found)
}

/// MTU of the link that the default route leads to, IPv4 before IPv6; 1500 without one.
pub(super) fn default_mtu(socket: &Socket, routes: &[Route]) -> Result<u32, Failure> {
    let index = routes.iter().filter(|r| r.destination.prefix() == 0).find_map(|r| r.link);
    let Some(index) = index else { return Ok(1500) };
    Ok(link_by_index(socket, index)?.map_or(1500, |link| link.mtu))
}
