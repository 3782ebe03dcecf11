//! Which subnets a network gets, and which addresses its containers.
//!
//! An address is held by a file named after it that appears whole and only once
//! (a hard link), so claiming needs no lock. A lease counts while its boot id is
//! this boot's and its container's directory exists; others are taken over under
//! the lock of the installation.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use super::cidr::Cidr;
use super::error::NetworkError;
use super::plan::Protocol;
use super::store::{Network, Pool};
use crate::runtime::root::Root;
use crate::util::files;
use crate::util::fs;

/// Private space that Docker's default pools leave alone first, then more.
const POOLS: [(&str, u8); 4] =
    [("172.16.0.0/16", 24), ("10.213.0.0/16", 24), ("10.214.0.0/15", 24), ("192.168.128.0/17", 24)];

/// Who holds a lease that is no container's.
pub(super) const GATEWAY: &str = "gateway";

/// FNV-1a: the same on every version, so that choices made from names stay.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The first /24 that overlaps nothing in use, beginning at a place that
/// depends on the network's name: the same name gets the same subnet again.
pub(super) fn choose_subnet(name: &str, used: &[Cidr]) -> Option<Cidr> {
    POOLS.iter().find_map(|(pool, prefix)| {
        let pool: Cidr = pool.parse().expect("a constant");
        let count = 1_u64 << (prefix - pool.prefix());
        let start = hash(name.as_bytes()) % count;
        (0..count)
            .filter_map(|i| Cidr::new(pool.nth(u128::from((start + i) % count) << (32 - prefix)), *prefix))
            .find(|candidate| !used.iter().any(|u| u.overlaps(candidate)))
    })
}

/// A /64 of this machine's unique local prefix (RFC 4193), chosen by name.
pub(super) fn choose_ula(name: &str, install: &Root, used: &[Cidr]) -> Option<Cidr> {
    // A machine without an id still gets a private prefix, only a guessable one.
    let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let global = hash(format!("{machine}{}", install.data().display()).as_bytes()) & 0xff_ffff_ffff;
    let start = hash(name.as_bytes()) & 0xffff;
    (0..=0xffff_u64)
        .map(|i| {
            let subnet = (start + i) & 0xffff;
            let bits = (0xfd_u128 << 120) | (u128::from(global) << 80) | (u128::from(subnet) << 64);
            Cidr::new(IpAddr::V6(bits.into()), 64).expect("64 is at most 128")
        })
        .find(|candidate| !used.iter().any(|u| u.overlaps(candidate)))
}

/// A container that claims addresses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claimant<'a> {
    pub(super) id: &'a str,
    pub(super) name: &'a str,
    pub(super) boot: &'a str,
}

impl Claimant<'_> {
    fn lease(&self) -> String {
        format!("{} {} {}\n", self.id, self.boot, self.name)
    }
}

/// Takes an address of the pool for the container: `fixed`, or one that depends
/// on the container's name so that recreation gets it again. In a subnet that
/// the user chose it is the lowest free one, because there he also fixes addresses.
pub(super) fn claim(
    root: &Root,
    network: &Network,
    pool: &Pool,
    claimant: &Claimant<'_>,
    fixed: Option<IpAddr>,
) -> Result<IpAddr, NetworkError> {
    let leases = leases(root, &network.id);
    if let Some(address) = fixed {
        if !pool.subnet.contains(address) {
            return Err(NetworkError::InvalidEndpoint {
                container: claimant.name.to_owned(),
                reason: format!(
                    "address {address} is not in the subnet {} of network `{}`",
                    pool.subnet, network.name
                ),
            });
        }
        if !is_host(&pool.subnet, address) {
            return Err(NetworkError::InvalidEndpoint {
                container: claimant.name.to_owned(),
                reason: format!("{address} is no host address of {}", pool.subnet),
            });
        }
        return match take(root, &leases.join(address.to_string()), claimant)? {
            None => Ok(address),
            Some(by) => Err(NetworkError::AddressTaken { network: network.name.clone(), address, by }),
        };
    }
    let range = pool.range.unwrap_or(pool.subnet);
    // Enough candidates for any bridge; a /64 has more addresses than tries.
    let count = range.size().min(1 << 20);
    let start = if pool.chosen_by_user { 0 } else { u128::from(hash(claimant.name.as_bytes())) % count };
    for i in 0..count {
        let address = range.nth((start + i) % count);
        if is_host(&pool.subnet, address)
            && take(root, &leases.join(address.to_string()), claimant)?.is_none()
        {
            return Ok(address);
        }
    }
    Err(NetworkError::NoAddress { network: network.name.clone(), pool: range.to_string() })
}

/// Whether an interface can have the address: not the network's nor, in IPv4, its broadcast address.
fn is_host(subnet: &Cidr, address: IpAddr) -> bool {
    let small = subnet.size() <= 2;
    small || (address != subnet.nth(0) && (subnet.is_ipv6() || address != subnet.last()))
}

/// `None` when the address is the container's now, else who has it.
fn take(root: &Root, path: &Path, claimant: &Claimant<'_>) -> Result<Option<String>, NetworkError> {
    for _ in 0..64 {
        // Looking first is cheaper than linking when the address is taken.
        match holder(root, path, claimant.boot)? {
            Holder::Nobody => {
                if files::claim(path, claimant.lease().as_bytes())? {
                    return Ok(None);
                }
            }
            Holder::Container { id, .. } if id == claimant.id => return Ok(None),
            Holder::Container { name, .. } => return Ok(Some(format!("container `{name}`"))),
            Holder::Reserved(what) => return Ok(Some(what)),
            Holder::Void => {
                let _lock = super::store::lock(root)?;
                if matches!(holder(root, path, claimant.boot)?, Holder::Void) {
                    files::remove_file(path)?;
                }
            }
        }
    }
    Ok(Some("somebody who keeps changing".to_owned()))
}

enum Holder {
    Nobody,
    Container {
        id: String,
        name: String,
    },
    Reserved(String),
    /// Its container is gone, or the machine was started since.
    Void,
}

fn holder(root: &Root, path: &Path, boot: &str) -> Result<Holder, NetworkError> {
    let Some(bytes) = files::read_opt(path)? else { return Ok(Holder::Nobody) };
    let text = String::from_utf8_lossy(&bytes);
    let mut words = text.split_whitespace();
    let first = words.next().unwrap_or_default();
    let Some(claimed) = words.next() else { return Ok(Holder::Reserved(first.to_owned())) };
    if claimed != boot || !root.has(first) {
        return Ok(Holder::Void);
    }
    Ok(Holder::Container { id: first.to_owned(), name: words.next().unwrap_or(first).to_owned() })
}

/// Reserves an address for the network itself.
pub(super) fn reserve(leases: &Path, address: IpAddr, what: &str) -> Result<bool, NetworkError> {
    let mut text = what.replace(char::is_whitespace, "_");
    writeln!(text).expect("a String takes all");
    Ok(files::claim(&leases.join(address.to_string()), text.as_bytes())?)
}

/// Gives an address back if the container holds it.
pub(super) fn release(
    root: &Root,
    network: &str,
    address: IpAddr,
    container: &str,
) -> Result<(), NetworkError> {
    release_file(&leases(root, network).join(address.to_string()), container)
}

fn leases(root: &Root, network: &str) -> PathBuf {
    root.networks().join(network).join("leases")
}

/// File of a picked host port.
fn port_file(root: &Root, protocol: Protocol, host: SocketAddr) -> PathBuf {
    root.networks().join("ports").join(format!("{protocol}-{}-{}", host.ip(), host.port()))
}

/// Claims a host port picked for a container, so that no other command picks it
/// before it is bound. `false` when another container has it.
pub(super) fn claim_port(
    root: &Root,
    claimant: &Claimant<'_>,
    protocol: Protocol,
    host: SocketAddr,
) -> Result<bool, NetworkError> {
    fs::create_dir_all(&root.networks().join("ports"))?;
    Ok(take(root, &port_file(root, protocol, host), claimant)?.is_none())
}

/// Gives a picked port back if the container holds it.
pub(super) fn release_port(
    root: &Root,
    container: &str,
    protocol: Protocol,
    host: SocketAddr,
) -> Result<(), NetworkError> {
    release_file(&port_file(root, protocol, host), container)
}

fn release_file(path: &Path, container: &str) -> Result<(), NetworkError> {
    if let Some(bytes) = files::read_opt(path)?
        && String::from_utf8_lossy(&bytes).split_whitespace().next() == Some(container)
    {
        files::remove_file(path)?;
    }
    Ok(())
}
