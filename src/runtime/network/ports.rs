//! Host ports: which are free, keeping them, and who has the others.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use super::error::NetworkError;
use super::plan::{Protocol, Publish};
use super::{record, store};
use crate::runtime::root::Root;
use crate::util::files;

/// Whether the host speaks IPv6 at all.
pub(super) fn host_has_ipv6() -> bool {
    fs::read_to_string("/proc/thread-self/net/if_inet6").is_ok_and(|text| !text.is_empty())
}

/// Ports from which free ones are picked: above those the kernel gives to
/// outgoing connections, or below when there are few above.
pub(super) fn free_range() -> (u16, u16) {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_whitespace().filter_map(|w| w.parse::<u16>().ok());
    let (low, high) = (numbers.next().unwrap_or(32768), numbers.next().unwrap_or(60999));
    if high < 64535 { (high + 1, 65535) } else { (low.saturating_sub(8192).max(1024), low.max(1026) - 1) }
}

/// Whether nobody is bound to the address and port now.
pub(super) fn is_free(address: SocketAddr, protocol: Protocol) -> bool {
    match bind(address, protocol) {
        Ok(_) => true,
        // The kernel lacks the protocol: then nobody listens either.
        Err(errno) => errno == Errno::PROTONOSUPPORT || errno == Errno::SOCKTNOSUPPORT,
    }
}

fn bind(address: SocketAddr, protocol: Protocol) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let (kind, number) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    let fd =
        rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, Some(number))?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&fd, true)?;
    }
    if protocol != Protocol::Udp {
        // Connections of a previous holder that wait for their end are no obstacle.
        sockopt::set_socket_reuseaddr(&fd, true)?;
    }
    rustix::net::bind(&fd, &address)?;
    if protocol != Protocol::Udp {
        rustix::net::listen(&fd, 1024)?;
    }
    Ok(fd)
}

/// Takes a host port with a socket of our own: nobody else can have it then,
/// and connections that the table does not see end there.
///
/// # Errors
/// [`NetworkError::PortTaken`] naming the holder.
pub(super) fn reserve(root: &Root, port: &Publish) -> Result<Option<OwnedFd>, NetworkError> {
    match bind(port.host, port.protocol) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::PROTONOSUPPORT | Errno::SOCKTNOSUPPORT) if port.protocol == Protocol::Sctp => Ok(None),
        Err(errno) => {
            let reason = match errno {
                Errno::ADDRINUSE => holder(root, port),
                Errno::ADDRNOTAVAIL => {
                    format!("no interface of this host has the address {}", port.host.ip())
                }
                Errno::ACCESS | Errno::PERM => "permission denied; ports below 1024 need root".to_owned(),
                errno => std::io::Error::from(errno).to_string(),
            };
            Err(NetworkError::PortTaken { address: port.host, protocol: port.protocol, reason })
        }
    }
}

/// Words for who is bound to the port: a container of ours, or a process.
fn holder(root: &Root, port: &Publish) -> String {
    if let Some(name) = holding_container(root, port) {
        return format!("container `{name}` publishes it");
    }
    match holding_process(port) {
        Some((pid, name)) => {
            format!("process {pid} (`{name}`) listens there; stop it or publish another port")
        }
        None => "it is in use by a process that cannot be seen from here; publish another port".to_owned(),
    }
}

fn holding_container(root: &Root, port: &Publish) -> Option<String> {
    let boot = files::boot_id().ok()?;
    let networks = store::Networks::new(root).list().ok()?;
    networks
        .iter()
        .filter_map(|network| record::live(root, &network.id, &boot).ok())
        .flatten()
        .find(|record| {
            record.ports.iter().any(|p| {
                p.protocol == port.protocol
                    && p.host.port() == port.host.port()
                    && meet(p.host.ip(), port.host.ip())
            })
        })
        .map(|record| record.name)
}

/// Whether two bound addresses exclude each other.
fn meet(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4() && (a == b || a.is_unspecified() || b.is_unspecified())
}

/// Pid and name of the process bound to the port, found by its socket's inode.
fn holding_process(port: &Publish) -> Option<(u32, String)> {
    let inodes = bound_inodes(port);
    if inodes.is_empty() {
        return None;
    }
    let pids = fs::read_dir("/proc").ok()?.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids {
        // Processes come and go while we look.
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for descriptor in descriptors.flatten() {
            let Ok(target) = fs::read_link(descriptor.path()) else { continue };
            if target.to_str().is_some_and(|t| inodes.contains(t)) {
                let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                return Some((pid, name.trim_end().to_owned()));
            }
        }
    }
    None
}

/// `socket:[…]` of the sockets bound to the port on an address that excludes ours.
fn bound_inodes(port: &Publish) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for suffix in ["", "6"] {
        let path = format!("/proc/thread-self/net/{}{suffix}", port.protocol);
        let Ok(text) = fs::read_to_string(Path::new(&path)) else { continue };
        for line in text.lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (Some(local), Some(state), Some(inode)) = (words.get(1), words.get(3), words.get(9)) else {
                continue;
            };
            // 0A is LISTEN; a bound UDP socket is 07.
            if port.protocol == Protocol::Tcp && *state != "0A" {
                continue;
            }
            if local.rsplit(':').next().and_then(|p| u16::from_str_radix(p, 16).ok())
                == Some(port.host.port())
            {
                found.insert(format!("socket:[{inode}]"));
            }
        }
    }
    found
}
