//! What is asked of `prepare` and what it settles.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::cidr::Cidr;
use crate::runtime::Source;
use crate::runtime::root::Root;
use crate::spec::{NetworkMode, PortSpec};

/// What one container asks of the network; see the `spec` fields of the same names.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Full container id.
    pub container: &'a str,
    /// Container name.
    pub name: &'a str,
    /// Host name inside; already defaulted to the short id.
    pub hostname: &'a str,
    /// Domain name inside.
    pub domainname: Option<&'a str>,
    /// Namespace and endpoints.
    pub mode: &'a NetworkMode,
    /// Published ports.
    pub ports: &'a [PortSpec],
    /// Upstream name servers instead of the host's.
    pub dns: &'a [IpAddr],
    /// Search domains instead of the host's; `.` alone means none.
    pub dns_search: &'a [String],
    /// `resolv.conf` options added to the host's.
    pub dns_options: &'a [String],
    /// Extra `/etc/hosts` lines; the address may be `host-gateway`.
    pub extra_hosts: &'a [(String, String)],
    /// `container:alias` pairs resolvable by this container only.
    pub links: &'a [(String, String)],
}

/// Everything settled about one container's network, for one start.
///
/// Written by `prepare`, carried to the shim as part of its
/// plan, and enough for any later process to take everything back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetPlan {
    /// Installation it belongs to.
    pub root: Root,
    /// Full container id.
    pub container: String,
    /// Container name.
    pub name: String,
    /// Host name inside.
    pub hostname: String,
    /// Which namespace the container runs in.
    pub namespace: Namespace,
    /// Interfaces in order.
    pub endpoints: Vec<Endpoint>,
    /// Published ports, one entry per host address, as `docker ps` shows them.
    pub ports: Vec<Publish>,
    /// Name service at 127.0.0.11; none when the container uses the host's servers directly.
    pub dns: Option<DnsPlan>,
    /// Content of `/etc/hosts`; empty with [`Namespace::Container`], whose file is shared.
    pub hosts: String,
    /// Content of `/etc/resolv.conf`; empty with [`Namespace::Container`], whose file is shared.
    pub resolv_conf: String,
}

/// Which network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Namespace {
    /// An own one, made by `connect`.
    Own,
    /// The host's.
    Host,
    /// That of a running container, which the shim looks up.
    Container {
        /// Name or id, as asked.
        id: String,
    },
}

/// One interface of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Network id.
    pub network_id: String,
    /// Network name.
    pub network: String,
    /// How it is attached.
    pub kind: EndpointKind,
    /// Name inside the container.
    pub interface: String,
    /// Name of the host's end of the pair; unique per start.
    pub host_interface: String,
    /// Hardware address.
    pub mac: Mac,
    /// IPv4 address with its prefix length.
    pub ipv4: Option<Cidr>,
    /// IPv6 address with its prefix length.
    pub ipv6: Option<Cidr>,
    /// Gateway on this network.
    pub gateway4: Option<Ipv4Addr>,
    /// Gateway on this network.
    pub gateway6: Option<Ipv6Addr>,
    /// Bytes.
    pub mtu: u32,
    /// Further addresses on the interface.
    pub link_local: Vec<IpAddr>,
    /// This endpoint gives the IPv4 default route.
    pub default4: bool,
    /// This endpoint gives the IPv6 default route.
    pub default6: bool,
    /// No way out through this network.
    pub internal: bool,
    /// DNS names on this network, the container's own name and short id included.
    pub names: Vec<String>,
}

/// What carries an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum EndpointKind {
    /// A veth pair on a bridge of ours.
    Bridge {
        /// Name of the bridge.
        bridge: String,
        /// Never reach other containers on it (`enable_icc: false`).
        isolated: bool,
    },
    /// A macvlan interface on a host interface.
    Macvlan {
        /// Parent interface, `eth0` or `eth0.10`.
        parent: String,
        /// `bridge`, `private`, `vepa`, `passthru`.
        mode: String,
    },
    /// An ipvlan interface on a host interface.
    Ipvlan {
        /// Parent interface.
        parent: String,
        /// `l2`, `l3`, `l3s`.
        mode: String,
    },
}

/// One published port on one host address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// Host address (`0.0.0.0` and `::` are all of their family) and port.
    pub host: SocketAddr,
    /// Protocol.
    pub protocol: Protocol,
    /// Container address and port; its family may differ from `host`'s, then bytes are proxied.
    pub target: SocketAddr,
    /// Whether we picked the host port.
    pub picked: bool,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// IANA number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// Lower-case name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Protocol {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.to_ascii_lowercase().as_str() {
            "" | "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(()),
        }
    }
}

/// What the container's name service answers from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsPlan {
    /// Networks whose names it knows, in order of the endpoints.
    pub zones: Vec<Zone>,
    /// Search domains of the container's `resolv.conf`.
    pub search: Vec<String>,
    /// Upstream servers given for this container; empty means the host's `/etc/resolv.conf`, re-read when it changes.
    pub upstreams: Vec<IpAddr>,
    /// Whether unknown names are asked of an upstream (not on internal networks only).
    pub forward: bool,
    /// Whether the container has an IPv6 way out.
    pub ipv6: bool,
    /// Names for this container only: alias → container id or name (`links`).
    pub links: Vec<(String, String)>,
}

/// The names of one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    /// Network name: `web.<network>` is answered too.
    pub network: String,
    /// Directory of endpoint records.
    pub names: PathBuf,
    /// Names the project declares, running or not: never asked of an upstream,
    /// neither with a search domain appended.
    pub declared: Vec<String>,
}

/// A hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, rest @ ..] = self.0;
        write!(f, "{first:02x}")?;
        rest.iter().try_for_each(|byte| write!(f, ":{byte:02x}"))
    }
}

impl std::str::FromStr for Mac {
    type Err = ();

    /// Six hex pairs separated by `:` or `-`; a group address is refused.
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or(())?;
            *byte = u8::from_str_radix(part, 16).map_err(drop)?;
        }
        if parts.next().is_some() || bytes[0] & 1 == 1 {
            return Err(());
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Mac {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(|()| serde::de::Error::custom("not a hardware address"))
    }
}

/// What `connect` made; dropping it closes the reserved ports and stops the name service.
#[derive(Default)]
pub struct Connected {
    /// The container's namespace; none means the host's, or the one the shim looks up
    /// ([`Namespace::Container`]).
    pub netns: Option<OwnedFd>,
    /// Name service, `[::1]` proxies, table guard: turned by the shim's loop until the container is gone.
    pub sources: Vec<Box<dyn Source>>,
}

impl fmt::Debug for Connected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connected").field("netns", &self.netns).field("sources", &self.sources.len()).finish()
    }
}
