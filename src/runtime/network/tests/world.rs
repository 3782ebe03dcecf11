//! A host of one test: a namespace, an installation, containers, a machine outside.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::runtime::network::netlink::{Batch, Socket};
use crate::runtime::network::{
    Cidr, Connected, NetPlan, NetworkError, Networks, Request, connect, disconnect, netns, prepare, route,
};
use crate::runtime::root::Root;
use crate::runtime::sys::netlink::unshare_network;
use crate::spec::{EndpointSpec, NetworkMode, NetworkSpec, PortSpec};
use crate::util::ids::random_hex;

pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// The host, an installation on it, and a machine outside at 192.0.2.2 whose
/// default route is the host (192.0.2.1).
pub(super) struct World {
    pub(super) root: Root,
    pub(super) home: OwnedFd,
    pub(super) outside: OwnedFd,
    _dir: tempfile::TempDir,
}

pub(super) struct Container {
    pub(super) plan: NetPlan,
    pub(super) connected: Connected,
}

impl Container {
    pub(super) fn netns(&self) -> &OwnedFd {
        self.connected.netns.as_ref().expect("an own namespace")
    }

    pub(super) fn ip(&self) -> IpAddr {
        self.plan.endpoints[0].ipv4.expect("IPv4").address()
    }

    pub(super) fn ip6(&self) -> IpAddr {
        self.plan.endpoints[0].ipv6.expect("IPv6").address()
    }
}

pub(super) fn outer_v6() -> IpAddr {
    "2001:db8::2".parse().expect("an address")
}

impl World {
    pub(super) fn new() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests need root: run them under `unshare -Ur` or sudo"
        );
        unshare_network().expect("a namespace for the host");
        let dir = tempfile::tempdir().expect("a directory");
        let root = Root::new(Some(dir.path()));
        std::fs::create_dir_all(root.containers()).expect("made");
        let home = netns::current().expect("home");
        let outside = netns::create(home.as_fd()).expect("outside");
        let socket = Socket::route().expect("a socket");
        let mut batch = Batch::default();
        route::set_up(&mut batch, 1);
        // The uplink is a pair of which the other end is the machine outside.
        route::add_veth(
            &mut batch,
            &route::Veth {
                host: "up0",
                bridge: 0,
                group: 0,
                inside: "up1",
                mac: "02:00:00:00:00:02".parse().expect("a MAC"),
                mtu: 1500,
                netns: outside.as_fd(),
                hairpin: false,
                isolated: false,
            },
        );
        socket.run(&mut batch).expect("an uplink");
        let world = Self { root, home, outside, _dir: dir };
        world.address("up0", &["192.0.2.1/24", "2001:db8::1/64"], None);
        world.at(&world.outside, || {
            world.address("up1", &["192.0.2.2/24", "2001:db8::2/64"], Some(["192.0.2.1", "2001:db8::1"]));
        });
        world
    }

    #[expect(clippy::unused_self, reason = "reads as: in this world")]
    fn address(&self, name: &str, addresses: &[&str], gateways: Option<[&str; 2]>) {
        let socket = Socket::route().expect("a socket");
        let index = route::link(&socket, name).expect("asked").expect("there").index;
        let mut batch = Batch::default();
        route::set_up(&mut batch, 1);
        for address in addresses {
            route::add_address(&mut batch, index, address.parse::<Cidr>().expect("a CIDR"));
        }
        route::set_up(&mut batch, index);
        socket.run(&mut batch).expect("configured");
        let mut batch = Batch::default();
        for (gateway, family) in gateways.into_iter().flatten().zip([route::AF_INET, route::AF_INET6]) {
            route::add_default_route(&mut batch, index, family, Some(gateway.parse().expect("an address")));
        }
        socket.run(&mut batch).expect("routed");
    }

    /// Runs work in a namespace, on a thread of its own.
    #[expect(clippy::unused_self, reason = "reads as: in this world, at that place")]
    pub(super) fn at<T: Send>(&self, netns: &OwnedFd, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    rustix::thread::move_into_link_name_space(
                        netns.as_fd(),
                        Some(rustix::thread::LinkNameSpaceType::Network),
                    )
                    .expect("entered");
                    work()
                })
                .join()
                .expect("no panic")
        })
    }

    pub(super) fn network(&self, spec: &NetworkSpec) -> String {
        Networks::new(&self.root).create(spec).expect("a network")
    }

    pub(super) fn plain(&self, name: &str) -> String {
        self.network(&NetworkSpec { name: name.to_owned(), ..NetworkSpec::default() })
    }

    pub(super) fn prepare(
        &self,
        name: &str,
        endpoints: Vec<EndpointSpec>,
        ports: &[PortSpec],
    ) -> Result<NetPlan, NetworkError> {
        let id = random_hex(32);
        std::fs::create_dir_all(self.root.containers().join(&id)).expect("made");
        let mode = NetworkMode::Networks { endpoints };
        prepare(
            &self.root,
            &Request {
                container: &id,
                name,
                hostname: &id[..12],
                domainname: None,
                mode: &mode,
                ports,
                dns: &[],
                dns_search: &[],
                dns_options: &[],
                extra_hosts: &[],
                links: &[],
            },
        )
    }

    pub(super) fn start(&self, name: &str, networks: &[&str], ports: &[PortSpec]) -> Container {
        let endpoints = networks
            .iter()
            .map(|n| EndpointSpec { network: (*n).to_owned(), ..EndpointSpec::default() })
            .collect();
        let plan = self.prepare(name, endpoints, ports).expect("prepared");
        let connected = connect(&plan).expect("connected");
        Container { plan, connected }
    }

    pub(super) fn stop(&self, container: Container) {
        disconnect(&container.plan).expect("disconnected");
        drop(container.connected);
        std::fs::remove_dir_all(self.root.containers().join(&container.plan.container)).expect("removed");
    }

    /// Whether a TCP connection from one namespace to an address served in
    /// another gets an answer. The server answers with the client's address.
    pub(super) fn tcp(&self, from: &OwnedFd, to: SocketAddr) -> Result<String, std::io::Error> {
        self.at(from, || {
            let mut stream = TcpStream::connect_timeout(&to, Duration::from_millis(400))?;
            stream.set_read_timeout(Some(Duration::from_millis(900)))?;
            stream.write_all(b"?")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })
    }

    /// One datagram and its answer.
    pub(super) fn udp(&self, from: &OwnedFd, to: SocketAddr) -> Result<String, std::io::Error> {
        self.at(from, || {
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any)?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(Duration::from_millis(400)))?;
            socket.send(b"?")?;
            let mut buffer = [0; 100];
            let length = socket.recv(&mut buffer)?;
            Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
        })
    }

    /// Serves TCP and UDP at the port of both families, answering `<name> <client address>`, until the test ends.
    pub(super) fn serve(&self, netns: &OwnedFd, port: u16, name: &'static str) {
        self.at(netns, move || {
            for any in ["0.0.0.0", "::"] {
                let address = SocketAddr::new(any.parse().expect("an address"), port);
                let Ok(listener) = only_its_family(address) else { continue };
                std::thread::spawn(move || {
                    for mut stream in listener.incoming().flatten() {
                        let mut byte = [0; 1];
                        if stream.read_exact(&mut byte).is_ok() {
                            let from = stream.peer_addr().map(|a| a.ip().to_string()).unwrap_or_default();
                            write!(stream, "{name} {from}").ok();
                        }
                    }
                });
                if address.is_ipv4() {
                    let socket = UdpSocket::bind(address).expect("bound");
                    std::thread::spawn(move || {
                        let mut buffer = [0; 100];
                        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                            socket.send_to(format!("{name} {}", from.ip()).as_bytes(), from).ok();
                        }
                    });
                }
            }
        });
    }
}

fn only_its_family(address: SocketAddr) -> std::io::Result<TcpListener> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    if address.is_ipv6() {
        rustix::net::sockopt::set_ipv6_v6only(&fd, true)?;
    }
    rustix::net::bind(&fd, &address)?;
    rustix::net::listen(&fd, 64)?;
    Ok(fd.into())
}

pub(super) fn port(target: u16, published: u16) -> PortSpec {
    PortSpec { target, protocol: "tcp".to_owned(), host_ip: None, published: Some((published, published)) }
}

pub(super) fn udp_port(target: u16, published: u16) -> PortSpec {
    PortSpec { protocol: "udp".to_owned(), ..port(target, published) }
}

pub(super) fn address(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip, port)
}

/// Turns the sources of containers until `done`, as a shim's loop does.
pub(super) fn turn_until(containers: &mut [&mut Container], done: &dyn Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "it did not happen in time");
        let mut fds: Vec<rustix::event::PollFd<'_>> = containers
            .iter()
            .flat_map(|c| c.connected.sources.iter())
            .map(|s| rustix::event::PollFd::from_borrowed_fd(s.fd(), rustix::event::PollFlags::IN))
            .collect();
        let wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
        rustix::event::poll(&mut fds, Some(&wait)).expect("polled");
        drop(fds);
        for container in containers.iter_mut() {
            for source in &mut container.connected.sources {
                source.turn();
            }
        }
    }
}

impl World {
    pub(super) fn endpoint(&self, network: &str) -> EndpointSpec {
        let _ = self;
        EndpointSpec { network: network.to_owned(), ..EndpointSpec::default() }
    }

    /// Interfaces and firewall chains of the host.
    pub(super) fn state(&self) -> (Vec<String>, Vec<String>) {
        let _ = self;
        let socket = Socket::route().expect("a socket");
        let links = route::links(&socket).expect("listed").into_iter().map(|l| l.name).collect();
        let netfilter = Socket::netfilter().expect("a socket");
        let chains = crate::runtime::network::nft::list_chains(&netfilter).expect("listed");
        (links, chains.into_iter().map(|c| format!("{} {}", c.table, c.name)).collect())
    }
}
