//! Our `nf_tables` table: constant rules, and sets and maps that hold all that changes.
//!
//! A container or a port is an element, never a rule. The rules, and why each is there:
//!
//! | chain | rule |
//! | --- | --- |
//! | `raw` | from a bridge to 127/8: drop. `route_localnet` on our bridges would let containers reach the host's loopback. |
//! | `prerouting`, `output` | to an address of this host: `ports`. |
//! | `ports` | not `::1` (the kernel discards the answers; a proxy serves it); one-address map, then all-addresses map. |
//! | `forward` | from or to an internal bridge: `inner`; to a bridge: `fwd`; else, if we made the host a router, `guard`. |
//! | `inner` | within one network: accept; drop. |
//! | `fwd` | established; published; within one network (with `br_netfilter` bridged frames come here too): accept; drop. |
//! | `guard` | neither from nor to any bridge, ours or others': drop. Turning `ip_forward` on must not make the host a router. |
//! | `postrouting` | from a bridge to elsewhere; published, back into the network it came from; published, from 127/8; a container to itself: masquerade. |
//!
//! An accept here does not overrule a drop in another table: see [`super::foreign`].

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::netlink::{Failure, Socket};
use super::nft::{
    self, Base, Conntrack, Element, Family, Field, Header, Hook, Meta, R0, Table, Transaction, Verdict,
    interface,
};
use super::plan::{Protocol, Publish};
use crate::runtime::root::Root;

const IPV4: u8 = 2;
const IPV6: u8 = 10;

/// Name, key and value of every set.
const SETS: [(&str, &[Field], &[Field]); 10] = [
    ("bridges", &[Field::Interface], &[]),
    ("internal", &[Field::Interface], &[]),
    ("masquerade", &[Field::Interface], &[]),
    ("pairs", &[Field::Interface, Field::Interface], &[]),
    ("dnat4", &[Field::Protocol, Field::Port], &[Field::Ipv4, Field::Port]),
    ("dnat4a", &[Field::Ipv4, Field::Protocol, Field::Port], &[Field::Ipv4, Field::Port]),
    ("dnat6", &[Field::Protocol, Field::Port], &[Field::Ipv6, Field::Port]),
    ("dnat6a", &[Field::Ipv6, Field::Protocol, Field::Port], &[Field::Ipv6, Field::Port]),
    ("self4", &[Field::Ipv4, Field::Ipv4], &[]),
    ("self6", &[Field::Ipv6, Field::Ipv6], &[]),
];

/// Number of rules [`write_rules`] makes, without the guard.
const RULES: usize = 22;

/// Number of rules the guard adds.
const GUARD_RULES: usize = 2;

/// Name of an installation's table.
pub(super) fn name(root: &Root) -> String {
    match root.tag() {
        tag if tag.is_empty() => "hoist".to_owned(),
        tag => format!("hoist-{tag}"),
    }
}

/// What the sets hold, by set name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Elements(BTreeMap<&'static str, BTreeMap<Vec<u8>, Option<Vec<u8>>>>);

impl Elements {
    /// A key has one value: the last one put.
    fn put(&mut self, set: &'static str, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.0.entry(set).or_default().insert(key, value);
    }

    fn lists(&self) -> impl Iterator<Item = (&'static str, Vec<Element>)> {
        self.0.iter().map(|(set, elements)| {
            let list = elements.iter().map(|(key, value)| Element { key: key.clone(), value: value.clone() });
            (*set, list.collect())
        })
    }

    /// A network: its bridge, and what may pass there.
    pub(super) fn network(&mut self, network: &BridgeRules) {
        let bridge = interface(&network.bridge);
        self.put("bridges", bridge.to_vec(), None);
        if network.internal {
            self.put("internal", bridge.to_vec(), None);
        }
        if network.masquerade && !network.internal {
            self.put("masquerade", bridge.to_vec(), None);
        }
        if network.between_containers {
            self.put("pairs", [bridge, bridge].concat(), None);
        }
    }

    /// A published port. `[::1]` and ports whose host and container families
    /// differ are the proxy's and have no element.
    pub(super) fn port(&mut self, port: &Publish) {
        let (host, target) = (port.host, port.target);
        let service = service(port.protocol, host.port());
        match (host.ip(), target) {
            (IpAddr::V4(ip), SocketAddr::V4(_)) if ip.is_unspecified() => {
                self.put("dnat4", service, Some(destination(target)));
            }
            (IpAddr::V4(ip), SocketAddr::V4(_)) => {
                self.put("dnat4a", [&ip.octets()[..], &service].concat(), Some(destination(target)));
            }
            (IpAddr::V6(ip), SocketAddr::V6(_)) if ip.is_unspecified() => {
                self.put("dnat6", service, Some(destination(target)));
            }
            (IpAddr::V6(ip), SocketAddr::V6(_)) if !ip.is_loopback() => {
                self.put("dnat6a", [&ip.octets()[..], &service].concat(), Some(destination(target)));
            }
            _ => return,
        }
        match target.ip() {
            IpAddr::V4(ip) => self.put("self4", [ip.octets(), ip.octets()].concat(), None),
            IpAddr::V6(ip) => self.put("self6", [ip.octets(), ip.octets()].concat(), None),
        }
    }

    /// Adds all elements to a transaction.
    pub(super) fn add_to(&self, transaction: &mut Transaction, table: Table<'_>) {
        for (set, elements) in self.lists() {
            transaction.add(table, set, &elements);
        }
    }

    /// Keeps what is in both, compared with values.
    pub(super) fn retain(&mut self, existing: &Self) {
        for (set, elements) in &mut self.0 {
            let there = existing.0.get(set);
            elements.retain(|key, value| there.is_some_and(|there| there.get(key) == Some(value)));
        }
        self.0.retain(|_, elements| !elements.is_empty());
    }

    /// Deletes all elements in a transaction; they must exist.
    pub(super) fn delete_from(&self, transaction: &mut Transaction, table: Table<'_>) {
        for (set, elements) in self.lists() {
            transaction.delete(table, set, &elements);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads the sets of the kernel that `like` has elements in, or all with `None`.
    /// `None` when the table or one of its sets is not there.
    pub(super) fn read(
        socket: &Socket,
        table: Table<'_>,
        like: Option<&Self>,
    ) -> Result<Option<Self>, Failure> {
        let mut found = Self::default();
        for (set, _, _) in SETS {
            if like.is_some_and(|like| !like.0.contains_key(set)) {
                continue;
            }
            match nft::list_elements(socket, table, set)? {
                None => return Ok(None),
                Some(elements) if elements.is_empty() => {}
                Some(elements) => {
                    let elements = elements.into_iter().map(|e| (e.key, e.value)).collect();
                    found.0.insert(set, elements);
                }
            }
        }
        Ok(Some(found))
    }
}

/// What the table has to know of one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BridgeRules {
    pub(super) bridge: String,
    pub(super) internal: bool,
    pub(super) masquerade: bool,
    pub(super) between_containers: bool,
}

fn service(protocol: Protocol, port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    vec![protocol.number(), 0, 0, 0, high, low, 0, 0]
}

fn destination(target: SocketAddr) -> Vec<u8> {
    let mut bytes = match target.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    bytes.extend(target.port().to_be_bytes());
    bytes.extend([0, 0]);
    bytes
}

/// The table of an installation.
pub(super) fn table(name: &str) -> Table<'_> {
    Table { family: Family::Inet, name }
}

/// Puts the whole table in place in one step, replacing what is there.
/// With `guard` the host forwards nothing that is not ours.
pub(super) fn rebuild(socket: &Socket, name: &str, elements: &Elements, guard: bool) -> Result<(), Failure> {
    let table = table(name);
    let mut transaction = Transaction::new();
    transaction.table(table).delete_table(table).table(table);
    write_rules(&mut transaction, table, guard);
    elements.add_to(&mut transaction, table);
    transaction.commit(socket)
}

/// Removes the table if it is there.
pub(super) fn remove(socket: &Socket, name: &str) -> Result<(), Failure> {
    let table = table(name);
    if !nft::table_exists(socket, table)? {
        return Ok(());
    }
    let mut transaction = Transaction::new();
    transaction.table(table).delete_table(table);
    transaction.commit(socket)
}

/// Whether the table has all its rules.
pub(super) fn has_rules(socket: &Socket, name: &str, guard: bool) -> Result<bool, Failure> {
    let table = table(name);
    let rules = nft::list_rules(socket, table.family as u8, name, "")?.len();
    Ok(rules == RULES + if guard { GUARD_RULES } else { 0 })
}

/// Whether the table knows these bridges.
pub(super) fn has_bridges(socket: &Socket, name: &str, bridges: &[&str]) -> Result<bool, Failure> {
    let known = nft::list_elements(socket, table(name), "bridges")?.unwrap_or_default();
    Ok(bridges.iter().all(|bridge| known.iter().any(|element| element.key == interface(bridge))))
}

/// Whether the table has all its rules and exactly these elements.
pub(super) fn is_intact(
    socket: &Socket,
    name: &str,
    wanted: &Elements,
    guard: bool,
) -> Result<bool, Failure> {
    Ok(has_rules(socket, name, guard)? && Elements::read(socket, table(name), None)?.as_ref() == Some(wanted))
}

fn write_rules(t: &mut Transaction, table: Table<'_>, guard: bool) {
    let base = |kind, hook, priority| Some(Base { kind, hook, priority, drops: false });
    for (set, key, value) in SETS {
        t.set(table, set, key, value);
    }
    for chain in ["ports", "inner", "fwd"] {
        t.chain(table, chain, None);
    }
    t.chain(table, "raw", base("filter", Hook::Prerouting, -300))
        .chain(table, "prerouting", base("nat", Hook::Prerouting, -100))
        .chain(table, "output", base("nat", Hook::Output, -100))
        .chain(table, "forward", base("filter", Hook::Forward, 0))
        .chain(table, "postrouting", base("nat", Hook::Postrouting, 100));

    t.rule(table, "raw", |r| {
        r.meta(Meta::InterfaceIn, R0).is_in("bridges", R0).family(IPV4);
        r.payload(Header::Network, 16, 1, R0).equals(R0, &[127]).counter().verdict(Verdict::Drop);
    });
    for chain in ["prerouting", "output"] {
        t.rule(table, chain, |r| r.for_this_host().verdict(Verdict::Jump("ports")));
    }

    t.rule(table, "ports", |r| {
        let loopback = std::net::Ipv6Addr::LOCALHOST.octets();
        r.family(IPV6).payload(Header::Network, 24, 16, R0).equals(R0, &loopback).verdict(Verdict::Return);
    });
    // The key is built in consecutive registers: [host address] . protocol . port.
    t.rule(table, "ports", |r| {
        r.family(IPV4).payload(Header::Network, 16, 4, R0).meta(Meta::L4Proto, R0 + 1);
        r.payload(Header::Transport, 2, 2, R0 + 2).map("dnat4a", R0, R0).dnat(IPV4, R0, R0 + 1);
    });
    t.rule(table, "ports", |r| {
        r.family(IPV4).meta(Meta::L4Proto, R0).payload(Header::Transport, 2, 2, R0 + 1);
        r.map("dnat4", R0, R0).dnat(IPV4, R0, R0 + 1);
    });
    t.rule(table, "ports", |r| {
        r.family(IPV6).payload(Header::Network, 24, 16, R0).meta(Meta::L4Proto, R0 + 4);
        r.payload(Header::Transport, 2, 2, R0 + 5).map("dnat6a", R0, R0).dnat(IPV6, R0, R0 + 4);
    });
    t.rule(table, "ports", |r| {
        r.family(IPV6).meta(Meta::L4Proto, R0).payload(Header::Transport, 2, 2, R0 + 1);
        r.map("dnat6", R0, R0).dnat(IPV6, R0, R0 + 4);
    });

    for direction in [Meta::InterfaceIn, Meta::InterfaceOut] {
        t.rule(table, "forward", |r| {
            r.meta(direction, R0).is_in("internal", R0).verdict(Verdict::Jump("inner"));
        });
    }
    t.rule(table, "forward", |r| {
        r.meta(Meta::InterfaceOut, R0).is_in("bridges", R0).verdict(Verdict::Jump("fwd"));
    });
    t.rule(table, "inner", |r| {
        r.meta(Meta::InterfaceIn, R0).meta(Meta::InterfaceOut, R0 + 4).is_in("pairs", R0);
        r.verdict(Verdict::Accept);
    });
    t.rule(table, "inner", |r| r.counter().verdict(Verdict::Drop));
    t.rule(table, "fwd", |r| r.conntrack(Conntrack::Established).verdict(Verdict::Accept));
    t.rule(table, "fwd", |r| r.conntrack(Conntrack::Dnat).verdict(Verdict::Accept));
    t.rule(table, "fwd", |r| {
        r.meta(Meta::InterfaceIn, R0).meta(Meta::InterfaceOut, R0 + 4).is_in("pairs", R0);
        r.verdict(Verdict::Accept);
    });
    t.rule(table, "fwd", |r| r.counter().verdict(Verdict::Drop));
    if guard {
        t.chain(table, "guard", None);
        t.rule(table, "guard", |r| {
            r.meta(Meta::KindIn, R0).differs(R0, &interface("bridge"));
            r.meta(Meta::KindOut, R0).differs(R0, &interface("bridge")).counter().verdict(Verdict::Drop);
        });
        t.rule(table, "forward", |r| r.verdict(Verdict::Jump("guard")));
    }

    t.rule(table, "postrouting", |r| {
        r.meta(Meta::InterfaceIn, R0).is_in("masquerade", R0);
        r.meta(Meta::InterfaceOut, R0).is_not_in("bridges", R0).masquerade();
    });
    t.rule(table, "postrouting", |r| {
        r.meta(Meta::InterfaceIn, R0).meta(Meta::InterfaceOut, R0 + 4).is_in("pairs", R0);
        r.conntrack(Conntrack::Dnat).masquerade();
    });
    t.rule(table, "postrouting", |r| {
        r.meta(Meta::InterfaceOut, R0).is_in("bridges", R0).conntrack(Conntrack::Dnat).family(IPV4);
        r.payload(Header::Network, 12, 1, R0).equals(R0, &[127]).masquerade();
    });
    t.rule(table, "postrouting", |r| {
        r.family(IPV4).payload(Header::Network, 12, 4, R0).payload(Header::Network, 16, 4, R0 + 1);
        r.is_in("self4", R0).masquerade();
    });
    t.rule(table, "postrouting", |r| {
        r.family(IPV6).payload(Header::Network, 8, 16, R0).payload(Header::Network, 24, 16, R0 + 4);
        r.is_in("self6", R0).masquerade();
    });
}
