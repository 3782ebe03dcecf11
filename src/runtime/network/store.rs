//! Network definitions on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::cidr::Cidr;
use super::error::NetworkError;
use super::netlink::Socket;
use super::plan::Mac;
use super::{ipam, leave, record, route};
use crate::runtime::root::Root;
use crate::spec::{IpamPool, NetworkSpec};
use crate::util::fs::{self, Lock};
use crate::util::{files, ids};

/// Version of `config.json`.
const VERSION: u32 = 1;

/// A network as it is defined. Serialized as its `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Format version, 1.
    pub version: u32,
    /// Full id.
    pub id: String,
    /// Unique name.
    pub name: String,
    /// When it was created.
    pub created: Timestamp,
    /// `bridge`, `macvlan` or `ipvlan`.
    pub driver: String,
    /// Options as given.
    pub driver_opts: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// No way out.
    pub internal: bool,
    /// Containers of others may join.
    pub attachable: bool,
    /// IPv4 and IPv6 subnets, at most one each.
    pub pools: Vec<Pool>,
    /// Name of the bridge, or of the parent of a macvlan or ipvlan network.
    pub bridge: String,
    /// Bytes.
    pub mtu: u32,
}

/// An address block of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// The subnet, without host bits.
    pub subnet: Cidr,
    /// Part of it that addresses are taken from.
    pub range: Option<Cidr>,
    /// Address of the bridge, or the router of a macvlan network.
    pub gateway: IpAddr,
    /// Reserved addresses by name.
    pub aux: BTreeMap<String, IpAddr>,
    /// The user gave the subnet.
    pub chosen_by_user: bool,
}

impl Network {
    /// The pool of a family.
    pub(super) fn pool(&self, v6: bool) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.subnet.is_ipv6() == v6)
    }

    /// Whether an option that Docker knows as a boolean is on.
    pub(super) fn option(&self, key: &str, default: bool) -> bool {
        self.driver_opts.get(key).map_or(default, |value| parse_bool(value).unwrap_or(default))
    }

    /// Address that published ports without a host address are bound to.
    pub(super) fn host_binding(&self) -> Option<IpAddr> {
        self.driver_opts.get(HOST_BINDING).and_then(|text| text.parse::<Ipv4Addr>().ok()).map(IpAddr::V4)
    }

    /// Device group of all its interfaces on the host.
    pub(super) fn group(&self) -> u32 {
        group(&self.id)
    }

    /// A hardware address that depends on the id only.
    pub(super) fn bridge_mac(&self) -> Mac {
        let [a, b, c, d, ..] = ipam::hash(self.id.as_bytes()).to_be_bytes();
        Mac([0x02, 0x42, a, b, c, d])
    }
}

pub(super) const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
pub(super) const ENABLE_ICC: &str = "com.docker.network.bridge.enable_icc";
pub(super) const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
pub(super) const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
pub(super) const MTU: &str = "com.docker.network.driver.mtu";
pub(super) const INTERFACE_PREFIX: &str = "com.docker.network.container_iface_prefix";
pub(super) const PARENT: &str = "parent";
pub(super) const MACVLAN_MODE: &str = "macvlan_mode";
pub(super) const IPVLAN_MODE: &str = "ipvlan_mode";

/// All networks of an installation.
#[derive(Debug, Clone)]
pub struct Networks {
    root: Root,
}

/// The lock for creating, removing, and taking over void leases.
pub(super) fn lock(root: &Root) -> Result<Lock, NetworkError> {
    fs::create_dir_all(&root.networks())?;
    Ok(Lock::exclusive(&root.networks().join(".lock"))?)
}

impl Networks {
    /// Those of this installation.
    pub fn new(root: &Root) -> Self {
        Self { root: root.clone() }
    }

    /// Creates a network and returns its id. Only files are made; the bridge
    /// comes with the first container.
    ///
    /// # Errors
    /// [`NetworkError::NameTaken`], [`NetworkError::Unsupported`] and
    /// [`NetworkError::Invalid`] for specs we do not carry out,
    /// [`NetworkError::NoSubnet`], [`NetworkError::SubnetTaken`].
    pub fn create(&self, spec: &NetworkSpec) -> Result<String, NetworkError> {
        check(spec)?;
        let _lock = lock(&self.root)?;
        let by_name = self.root.networks().join("by-name");
        fs::create_dir_all(&by_name)?;
        if files::read_opt(&by_name.join(&spec.name))?.is_some() {
            return Err(NetworkError::NameTaken(spec.name.clone()));
        }
        self.sweep()?;
        let id = ids::random_hex(32);
        let network = self.define(spec, &id)?;
        let staging = self.root.networks().join(format!(".new-{id}"));
        let leases = staging.join("leases");
        fs::create_dir_all(&leases)?;
        fs::create_dir_all(&staging.join("names"))?;
        for pool in &network.pools {
            let mut reserved: BTreeSet<_> = [pool.gateway].into();
            ipam::reserve(&leases, pool.gateway, ipam::GATEWAY)?;
            for (name, address) in &pool.aux {
                if reserved.insert(*address) {
                    ipam::reserve(&leases, *address, &format!("auxiliary address {name}"))?;
                }
            }
        }
        fs::write_json(&staging.join("config.json"), &network, true)?;
        let home = self.root.networks().join(&id);
        std::fs::rename(&staging, &home).map_err(fs::PathError::at("put in place", &home))?;
        if !files::claim(&by_name.join(&spec.name), id.as_bytes())? {
            files::remove_dir_all(&home)?;
            return Err(NetworkError::NameTaken(spec.name.clone()));
        }
        Ok(id)
    }

    /// The network with this name, id, or unambiguous beginning of an id.
    ///
    /// # Errors
    /// [`NetworkError::NotFound`], [`NetworkError::Ambiguous`].
    pub fn get(&self, name_or_id: &str) -> Result<Network, NetworkError> {
        let missing = || NetworkError::NotFound(name_or_id.to_owned());
        if is_name(name_or_id) {
            if let Some(id) = files::read_opt(&self.root.networks().join("by-name").join(name_or_id))? {
                return self.load(&String::from_utf8_lossy(&id))?.ok_or_else(missing);
            }
            if let Some(network) = self.load(name_or_id)? {
                return Ok(network);
            }
            if name_or_id.len() >= 3 && name_or_id.bytes().all(|c| c.is_ascii_hexdigit()) {
                let mut found = self.list()?.into_iter().filter(|n| n.id.starts_with(name_or_id));
                let first = found.next().ok_or_else(missing)?;
                if found.next().is_some() {
                    return Err(NetworkError::Ambiguous(name_or_id.to_owned()));
                }
                return Ok(first);
            }
        }
        Err(missing())
    }

    /// All networks by name.
    ///
    /// # Errors
    /// Those of reading the definitions.
    pub fn list(&self) -> Result<Vec<Network>, NetworkError> {
        let by_name = self.root.networks().join("by-name");
        let mut found = Vec::new();
        for name in visible(&by_name)? {
            let Some(id) = files::read_opt(&by_name.join(&name))? else { continue };
            found.extend(self.load(&String::from_utf8_lossy(&id))?);
        }
        found.sort_by(|a: &Network, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Ids of the containers connected to a network.
    ///
    /// # Errors
    /// Those of reading the records.
    pub fn containers(&self, id: &str) -> Result<Vec<String>, NetworkError> {
        let boot = files::boot_id()?;
        Ok(record::live(&self.root, id, &boot)?.into_iter().map(|r| r.container).collect())
    }

    /// Removes a network: its bridge, then its definition, and with the last one the table.
    ///
    /// # Errors
    /// [`NetworkError::InUse`] while containers are connected, [`NetworkError::NotFound`].
    pub fn remove(&self, name_or_id: &str) -> Result<(), NetworkError> {
        let _lock = lock(&self.root)?;
        let network = self.get(name_or_id)?;
        let boot = files::boot_id()?;
        let users: Vec<String> =
            record::live(&self.root, &network.id, &boot)?.into_iter().map(|r| r.name).collect();
        if !users.is_empty() {
            return Err(NetworkError::InUse { name: network.name, containers: users });
        }
        // The name goes first: whatever is left after a crash is swept by its missing name.
        files::remove_file(&self.root.networks().join("by-name").join(&network.name))?;
        self.erase(&network)
    }

    /// Takes back what a network has in the kernel, then its files.
    fn erase(&self, network: &Network) -> Result<(), NetworkError> {
        leave::remove(&self.root, network)?;
        Ok(files::remove_dir_all(&self.root.networks().join(&network.id))?)
    }

    /// Removes what creations and removals that were killed have left; two directory
    /// listings when there is nothing.
    ///
    /// # Errors
    /// What is left cannot be read or removed.
    pub fn repair(&self) -> Result<(), NetworkError> {
        let home = self.root.networks();
        let whole = files::names(&home)?.iter().filter(|name| name.len() == 64).count();
        // Each whole network has one name.
        if unfinished(&home)?.is_empty() && whole == files::names(&home.join("by-name"))?.len() {
            return Ok(());
        }
        let _lock = lock(&self.root)?;
        self.sweep()
    }

    /// Removes what creations and removals that were killed have left. The lock is held.
    fn sweep(&self) -> Result<(), NetworkError> {
        let home = self.root.networks();
        for path in unfinished(&home)? {
            if path.is_dir() {
                files::remove_dir_all(&path)?;
            } else {
                files::remove_file(&path)?;
            }
        }
        for name in files::names(&home)? {
            if name.len() == 64 {
                let Some(network) = self.load(&name)? else { continue };
                let owner = files::read_opt(&home.join("by-name").join(&network.name))?;
                if owner.as_deref() != Some(name.as_bytes()) {
                    self.erase(&network)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn load(&self, id: &str) -> Result<Option<Network>, NetworkError> {
        Ok(fs::read_json(&self.root.networks().join(id).join("config.json"))?)
    }

    /// Settles everything about a new network.
    fn define(&self, spec: &NetworkSpec, id: &str) -> Result<Network, NetworkError> {
        let driver = spec.driver.clone().filter(|d| !d.is_empty()).unwrap_or_else(|| "bridge".to_owned());
        let socket = Socket::route()?;
        let routes = route::routes(&socket)?;
        let others = self.list()?;
        let mut used: Vec<Cidr> = routes.iter().map(|r| r.destination).filter(|d| d.prefix() > 0).collect();
        used.extend(others.iter().flat_map(|n| n.pools.iter().map(|p| p.subnet)));
        used.extend(
            super::hosts::nameservers(&super::hosts::host_resolv_conf())
                .into_iter()
                .filter_map(|ip| Cidr::new(ip, if ip.is_ipv6() { 128 } else { 32 })),
        );
        let mut pools = Vec::new();
        for given in &spec.ipam {
            if given.subnet.is_some() {
                let pool = user_pool(spec, given)?;
                if driver == "bridge" {
                    refuse_overlap(spec, &pool, &others, &routes, &socket)?;
                }
                if pools.iter().any(|p: &Pool| p.subnet.is_ipv6() == pool.subnet.is_ipv6()) {
                    return Err(NetworkError::Unsupported {
                        network: spec.name.clone(),
                        attribute: "ipam.config".to_owned(),
                        reason: "only one subnet per address family; remove the others".to_owned(),
                    });
                }
                pools.push(pool);
            }
        }
        let has = |pools: &[Pool], v6| pools.iter().any(|p| p.subnet.is_ipv6() == v6);
        if spec.enable_ipv4 != Some(false) && !has(&pools, false) {
            let subnet = ipam::choose_subnet(&spec.name, &used)
                .ok_or_else(|| NetworkError::NoSubnet { network: spec.name.clone() })?;
            pools.insert(0, own_pool(subnet));
        }
        if spec.enable_ipv6 == Some(true) && !has(&pools, true) {
            let subnet = ipam::choose_ula(&spec.name, &self.root, &used)
                .ok_or_else(|| NetworkError::NoSubnet { network: spec.name.clone() })?;
            pools.push(own_pool(subnet));
        }
        let option = |key: &str| spec.driver_opts.get(key).filter(|v| !v.is_empty()).cloned();
        let bridge = match driver.as_str() {
            "bridge" => option(BRIDGE_NAME).unwrap_or_else(|| bridge_name(&self.root, id)),
            _ => option(PARENT).unwrap_or_default(),
        };
        if let Some(other) =
            others.iter().find(|o| o.driver == "bridge" && driver == "bridge" && o.bridge == bridge)
        {
            return Err(NetworkError::Invalid {
                network: spec.name.clone(),
                reason: format!("its bridge `{bridge}` belongs to network `{}`", other.name),
            });
        }
        let mtu = match option(MTU) {
            Some(text) => text.parse().ok().filter(|mtu| (68..=65535).contains(mtu)).ok_or_else(|| {
                NetworkError::Invalid {
                    network: spec.name.clone(),
                    reason: format!("`{text}` is no MTU (68–65535)"),
                }
            })?,
            None => route::default_mtu(&socket, &routes)?,
        };
        Ok(Network {
            version: VERSION,
            id: id.to_owned(),
            name: spec.name.clone(),
            created: Timestamp::now(),
            driver,
            driver_opts: spec.driver_opts.clone(),
            labels: spec.labels.clone(),
            internal: spec.internal,
            attachable: spec.attachable,
            pools,
            bridge,
            mtu,
        })
    }
}

/// A subnet the user gave must not hide a route or another network. The
/// default route and routes of the bridge itself do not count.
fn refuse_overlap(
    spec: &NetworkSpec,
    pool: &Pool,
    others: &[Network],
    routes: &[route::Route],
    socket: &Socket,
) -> Result<(), NetworkError> {
    let taken = |with: String| NetworkError::SubnetTaken {
        network: spec.name.clone(),
        subnet: pool.subnet.to_string(),
        with,
    };
    for other in others.iter().filter(|o| o.driver == "bridge") {
        if other.pools.iter().any(|p| p.subnet.overlaps(&pool.subnet)) {
            return Err(taken(format!("network `{}`", other.name)));
        }
    }
    for route in routes.iter().filter(|r| r.destination.prefix() > 0) {
        if !route.destination.overlaps(&pool.subnet) {
            continue;
        }
        let link = match route.link {
            Some(index) => route::link_by_index(socket, index)?.map(|l| l.name),
            None => None,
        };
        let through = link.map_or_else(String::new, |name| format!(" through `{name}`"));
        return Err(taken(format!("the host's route to {}{through}", route.destination)));
    }
    Ok(())
}

/// Names in a directory that are not temporary files; none when it does not exist.
fn visible(dir: &std::path::Path) -> Result<Vec<String>, NetworkError> {
    let mut names = match files::names(dir) {
        Ok(names) => names,
        Err(error) if error.is_not_found() => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    names.retain(|name| !name.starts_with('.'));
    Ok(names)
}

/// Device group of a network: far above the small numbers people give by hand.
pub(super) fn group(id: &str) -> u32 {
    const OURS: u32 = 0x4000_0000;
    let [a, b, c, d, ..] = ipam::hash(id.as_bytes()).to_be_bytes();
    OURS | (u32::from_be_bytes([a, b, c, d]) & (OURS - 1))
}

/// Directory of a network's endpoint records.
pub(super) fn names_dir(root: &Root, network: &str) -> PathBuf {
    root.networks().join(network).join("names")
}

/// A bridge name of at most 15 bytes: the installation's tag, then part of the id.
fn bridge_name(root: &Root, id: &str) -> String {
    match root.tag() {
        tag if tag.is_empty() => format!("hb-{}", &id[..12]),
        tag => format!("h{tag}-{}", &id[..7]),
    }
}

fn own_pool(subnet: Cidr) -> Pool {
    Pool { subnet, range: None, gateway: subnet.nth(1), aux: BTreeMap::new(), chosen_by_user: false }
}

fn user_pool(spec: &NetworkSpec, given: &IpamPool) -> Result<Pool, NetworkError> {
    let invalid = |reason: String| NetworkError::Invalid { network: spec.name.clone(), reason };
    let text = given.subnet.as_deref().unwrap_or_default();
    let subnet: Cidr =
        text.parse().map_err(|()| invalid(format!("`{text}` is no subnet of the form `10.0.0.0/24`")))?;
    let subnet = subnet.network();
    if subnet.size() < 4 {
        return Err(invalid(format!("subnet {subnet} has no room for a gateway and a container")));
    }
    let range = match given.ip_range.as_deref().filter(|t| !t.is_empty()) {
        None => None,
        Some(text) => {
            let range: Cidr = text
                .parse()
                .map_err(|()| invalid(format!("`{text}` is no address range of the form `10.0.0.0/25`")))?;
            if !subnet.contains(range.address()) || range.prefix() < subnet.prefix() {
                return Err(invalid(format!("address range {range} is not in subnet {subnet}")));
            }
            Some(range.network())
        }
    };
    let address = |what: &str, text: &str| {
        let address: IpAddr = text.parse().map_err(|_| invalid(format!("{what} `{text}` is no address")))?;
        if subnet.contains(address) {
            Ok(address)
        } else {
            Err(invalid(format!("{what} {address} is not in subnet {subnet}")))
        }
    };
    let gateway = match given.gateway.as_deref().filter(|t| !t.is_empty()) {
        Some(text) => address("gateway", text)?,
        None => range.map_or_else(
            || subnet.nth(1),
            |range| if range.offset(subnet.nth(0)).is_some() { subnet.nth(1) } else { range.nth(0) },
        ),
    };
    let mut aux = BTreeMap::new();
    for (name, text) in &given.aux_addresses {
        aux.insert(name.clone(), address(&format!("auxiliary address of `{name}`"), text)?);
    }
    Ok(Pool { subnet, range, gateway, aux, chosen_by_user: true })
}

/// Whether a text can be a network name: it is used as a file name.
fn is_name(text: &str) -> bool {
    text.len() <= 200
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"_.-".contains(&c))
}

fn parse_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" => Some(true),
        "0" | "f" | "false" => Some(false),
        _ => None,
    }
}

/// Folders of networks, and names, whose creation has not come to its end.
fn unfinished(home: &Path) -> Result<Vec<PathBuf>, NetworkError> {
    let mut found = Vec::new();
    for (folder, beginning) in [(home.to_owned(), ".new-"), (home.join("by-name"), ".")] {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(fs::PathError::at("list", &folder)(error).into()),
        };
        let paths = entries.flatten().filter(|e| e.file_name().to_string_lossy().starts_with(beginning));
        found.extend(paths.map(|entry| entry.path()));
    }
    Ok(found)
}

/// Refuses what no driver of ours does, by name.
fn check(spec: &NetworkSpec) -> Result<(), NetworkError> {
    let unsupported = |attribute: &str, reason: &str| NetworkError::Unsupported {
        network: spec.name.clone(),
        attribute: attribute.to_owned(),
        reason: reason.to_owned(),
    };
    if !is_name(&spec.name) || matches!(spec.name.as_str(), "host" | "none" | "default") {
        return Err(NetworkError::Invalid {
            network: spec.name.clone(),
            reason: "a name has letters, digits, `_`, `.` and `-` only, begins with a letter or digit, and is not `host`, `none` or `default`"
                .to_owned(),
        });
    }
    let driver = spec.driver.as_deref().unwrap_or_default();
    let known: &[&str] = match driver {
        "" | "bridge" => &[BRIDGE_NAME, ENABLE_ICC, MASQUERADE, HOST_BINDING, MTU, INTERFACE_PREFIX],
        "macvlan" => &[PARENT, MACVLAN_MODE, MTU, INTERFACE_PREFIX],
        "ipvlan" => &[PARENT, IPVLAN_MODE, MTU, INTERFACE_PREFIX],
        "overlay" => {
            return Err(unsupported(
                "driver: overlay",
                "it needs a Docker Swarm; use `--engine docker` there",
            ));
        }
        other => {
            return Err(unsupported(
                &format!("driver: {other}"),
                "the built-in engine has `bridge`, `macvlan` and `ipvlan`",
            ));
        }
    };
    for (key, value) in &spec.driver_opts {
        if !known.contains(&key.as_str()) {
            return Err(unsupported(
                &format!("driver_opts.{key}"),
                &format!("the options of this driver are {}", known.join(", ")),
            ));
        }
        let wrong = match key.as_str() {
            ENABLE_ICC | MASQUERADE => parse_bool(value).is_none().then_some("a boolean"),
            HOST_BINDING => value.parse::<Ipv4Addr>().is_err().then_some("an IPv4 address"),
            BRIDGE_NAME | INTERFACE_PREFIX => (!is_interface(value))
                .then_some("an interface name of at most 15 letters, digits, `-`, `_` and `.`"),
            MACVLAN_MODE => {
                macvlan_mode(value).is_none().then_some("`bridge`, `private`, `vepa` or `passthru`")
            }
            IPVLAN_MODE => ipvlan_mode(value).is_none().then_some("`l2`, `l3` or `l3s`"),
            _ => None,
        };
        if let Some(expected) = wrong {
            return Err(NetworkError::Invalid {
                network: spec.name.clone(),
                reason: format!("`driver_opts.{key}` is `{value}`, not {expected}"),
            });
        }
    }
    if matches!(driver, "macvlan" | "ipvlan") {
        if spec.driver_opts.get(PARENT).is_none_or(String::is_empty) {
            return Err(unsupported(
                "driver_opts.parent",
                "name the host interface that the network is put on",
            ));
        }
        if spec.internal {
            return Err(unsupported("internal", "a macvlan or ipvlan network is as open as its parent"));
        }
    }
    if !matches!(spec.ipam_driver.as_deref(), None | Some("" | "default")) {
        return Err(unsupported("ipam.driver", "the built-in engine has only the `default` address manager"));
    }
    if let Some(key) = spec.ipam_options.keys().next() {
        return Err(unsupported(
            &format!("ipam.options.{key}"),
            "the `default` address manager has no options",
        ));
    }
    if spec.ipam.iter().any(|p| p.subnet.is_none() && *p != IpamPool::default()) {
        return Err(NetworkError::Invalid {
            network: spec.name.clone(),
            reason: "`ip_range`, `gateway` and `aux_addresses` need a `subnet` beside them".to_owned(),
        });
    }
    if spec.enable_ipv4 == Some(false) && spec.enable_ipv6 != Some(true) {
        return Err(NetworkError::Invalid {
            network: spec.name.clone(),
            reason: "IPv4 is off, so `enable_ipv6` must be on".to_owned(),
        });
    }
    for pool in &spec.ipam {
        let v6 = pool.subnet.as_deref().is_some_and(|s| s.contains(':'));
        if v6 && spec.enable_ipv6 != Some(true) {
            return Err(NetworkError::Invalid {
                network: spec.name.clone(),
                reason: "it has an IPv6 subnet, so `enable_ipv6` must be on".to_owned(),
            });
        }
    }
    Ok(())
}

/// Whether the kernel takes the text as an interface name.
pub(super) fn is_interface(text: &str) -> bool {
    (1..=15).contains(&text.len())
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"_.-".contains(&c))
        && !matches!(text, "." | "..")
}

/// `MACVLAN_MODE_*`.
pub(super) fn macvlan_mode(text: &str) -> Option<u32> {
    Some(match text {
        "private" => 1,
        "vepa" => 2,
        "" | "bridge" => 4,
        "passthru" => 8,
        _ => return None,
    })
}

/// `IPVLAN_MODE_*`.
pub(super) fn ipvlan_mode(text: &str) -> Option<u32> {
    Some(match text {
        "" | "l2" => 0,
        "l3" => 1,
        "l3s" => 2,
        _ => return None,
    })
}
