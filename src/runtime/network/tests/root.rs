//! What gets where.

use std::sync::atomic::{AtomicBool, Ordering};

use super::world::{Container, World, address, outer_v6, port, turn_until, udp_port};
use crate::runtime::network::netlink::Socket;
use crate::runtime::network::nft::{Base, Family, Hook, Table, Transaction, Verdict};
use crate::runtime::network::{NetworkError, Networks, disconnect};
use crate::runtime::network::{repair, table};
use crate::spec::{NetworkSpec, PortSpec};

fn local(port: u16) -> std::net::SocketAddr {
    format!("127.0.0.1:{port}").parse().expect("an address")
}

fn at(ip: &str, port: u16) -> std::net::SocketAddr {
    address(ip.parse().expect("an address"), port)
}

fn outer(port: u16) -> std::net::SocketAddr {
    format!("192.0.2.1:{port}").parse().expect("an address")
}

/// The table of reachability, with the bridge filter on and off.
fn matrix(bridge_filter: bool) {
    let w = World::new();
    let filter = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    if std::path::Path::new(filter).exists() {
        std::fs::write(filter, if bridge_filter { "1" } else { "0" }).expect("written");
        std::fs::write(filter.replace("iptables", "ip6tables"), if bridge_filter { "1" } else { "0" })
            .expect("written");
    }
    w.network(&NetworkSpec { name: "one".into(), enable_ipv6: Some(true), ..NetworkSpec::default() });
    w.network(&NetworkSpec { name: "two".into(), enable_ipv6: Some(true), ..NetworkSpec::default() });
    w.network(&NetworkSpec { name: "in".into(), internal: true, ..NetworkSpec::default() });
    let c1 = w.start("c1", &["one"], &[port(80, 8080), udp_port(53, 8053)]);
    let c2 = w.start("c2", &["one"], &[]);
    let c3 = w.start("c3", &["two"], &[port(80, 8083)]);
    let c4 = w.start("c4", &["in"], &[]);
    let c5 = w.start("c5", &["in"], &[]);
    for (c, name) in [(&c1, "c1"), (&c2, "c2"), (&c3, "c3"), (&c5, "c5")] {
        w.serve(c.netns(), 80, name);
    }
    w.serve(c1.netns(), 53, "c1");
    w.serve(&w.outside, 80, "outside");
    w.serve(&w.home, 81, "host");

    let tcp = |what: &str, from, to, expected: Option<&str>| {
        let got = w.tcp(from, to);
        match expected {
            Some(text) => {
                let got = got.unwrap_or_else(|e| panic!("{what}: {e}"));
                assert!(got.starts_with(text), "{what}: {got}");
            }
            None => assert!(got.is_err(), "{what}: got through: {got:?}"),
        }
    };
    let (v4, v6) = (c1.ip(), c1.ip6());
    tcp("same network, direct", c2.netns(), address(v4, 80), Some("c1"));
    tcp("same network, direct, v6", c2.netns(), address(v6, 80), Some("c1"));
    tcp("same network, host address", c2.netns(), outer(8080), Some("c1"));
    tcp("itself through the host", c1.netns(), outer(8080), Some("c1"));
    tcp("itself through the host, v6", c1.netns(), at("2001:db8::1", 8080), Some("c1"));
    let gateway = c1.plan.endpoints[0].gateway4.expect("a gateway").into();
    tcp("itself through the gateway", c1.netns(), address(gateway, 8080), Some("c1"));
    tcp("same network, gateway", c2.netns(), address(gateway, 8080), Some("c1"));
    tcp("outside to a port", &w.outside, outer(8080), Some("c1 192.0.2.2"));
    tcp("outside to a port, v6", &w.outside, at("2001:db8::1", 8080), Some("c1 2001:db8::2"));
    tcp("outside to a container", &w.outside, address(v4, 80), None);
    tcp("outside to a container, v6", &w.outside, address(v6, 80), None);
    tcp("another network to a container", c3.netns(), address(v4, 80), None);
    tcp("another network to a container, v6", c3.netns(), address(v6, 80), None);
    tcp("another network to a port", c3.netns(), outer(8080), Some("c1"));
    tcp("container to outside", c1.netns(), at("192.0.2.2", 80), Some("outside 192.0.2.1"));
    tcp("container to outside, v6", c1.netns(), address(outer_v6(), 80), Some("outside 2001:db8::1"));
    tcp("container to the host", c1.netns(), outer(81), Some("host"));
    tcp("container to the host's loopback", c1.netns(), address(v4, 81), None);
    tcp("host to 127.0.0.1", &w.home, local(8080), Some("c1"));
    tcp("host to its address", &w.home, outer(8080), Some("c1"));
    tcp("host to a container", &w.home, address(v4, 80), Some("c1"));
    tcp("internal to internal", c4.netns(), address(c5.ip(), 80), Some("c5"));
    tcp("internal to outside", c4.netns(), at("192.0.2.2", 80), None);
    tcp("internal to a port", c4.netns(), outer(8080), None);
    tcp("another network to internal", c1.netns(), address(c5.ip(), 80), None);
    tcp("outside to internal", &w.outside, address(c5.ip(), 80), None);

    for (what, from, to) in [
        ("outside", &w.outside, outer(8053)),
        ("host, loopback", &w.home, local(8053)),
        ("host", &w.home, outer(8053)),
        ("same network", c2.netns(), outer(8053)),
        ("another network", c3.netns(), outer(8053)),
        ("itself", c1.netns(), outer(8053)),
    ] {
        let got = w.udp(from, to).unwrap_or_else(|e| panic!("UDP from {what}: {e}"));
        assert!(got.starts_with("c1"), "UDP from {what}: {got}");
    }
}

#[test]
fn reachability_with_the_bridge_filter() {
    matrix(true);
}

#[test]
fn reachability_without_the_bridge_filter() {
    matrix(false);
}

#[test]
fn a_removed_network_leaves_nothing() {
    let w = World::new();
    let before = w.state();
    w.plain("n");
    let c = w.start("c", &["n"], &[port(80, 8080)]);
    assert!(matches!(Networks::new(&w.root).remove("n"), Err(NetworkError::InUse { .. })));
    w.stop(c);
    Networks::new(&w.root).remove("n").expect("removed");
    assert_eq!(w.state(), before);
}

#[test]
fn a_taken_port_names_the_holder() {
    let w = World::new();
    w.plain("n");
    let c = w.start("first", &["n"], &[port(80, 8080)]);
    let plan = w.prepare("second", vec![w.endpoint("n")], &[port(80, 8080)]).expect("prepared");
    let error = crate::runtime::network::connect(&plan).expect_err("taken");
    assert_eq!(error.to_string(), "cannot publish port 0.0.0.0:8080/tcp: container `first` publishes it");
    disconnect(&plan).expect("undone");
    w.serve(c.netns(), 80, "first");
    assert!(w.tcp(&w.home, local(8080)).expect("still published").starts_with("first"));
    let listener = std::net::TcpListener::bind("127.0.0.1:8081").expect("bound");
    let plan = w.prepare("third", vec![w.endpoint("n")], &[port(80, 8081)]).expect("prepared");
    let error = crate::runtime::network::connect(&plan).expect_err("taken").to_string();
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    drop(listener);
}

#[test]
fn ports_are_picked_from_ranges_and_at_random() {
    let w = World::new();
    w.plain("n");
    let any = PortSpec { published: None, ..port(80, 1) };
    let range = PortSpec { published: Some((8000, 8003)), ..port(80, 1) };
    let c = w.start("c", &["n"], &[any.clone(), range.clone(), range.clone()]);
    let mut numbers: Vec<u16> =
        c.plan.ports.iter().filter(|p| p.host.is_ipv4()).map(|p| p.host.port()).collect();
    assert!(numbers[0] > 60999, "{numbers:?}");
    assert_eq!(numbers.split_off(1), [8000, 8001]);
    let d = w.start("d", &["n"], &[range.clone(), range.clone()]);
    assert_eq!(d.plan.ports[0].host.port(), 8002);
    let error = w.prepare("e", vec![w.endpoint("n")], &[range]).expect_err("none is left");
    assert!(matches!(error, NetworkError::NoPort { low: 8000, high: 8003, .. }), "{error}");
}

/// Does something as a client while the container's sources are turned.
fn meanwhile<T: Send>(c: &mut Container, work: impl FnOnce() -> T + Send) -> T {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            // Also when it panics, else the loop would wait for its deadline.
            struct Done<'a>(&'a AtomicBool);
            impl Drop for Done<'_> {
                fn drop(&mut self) {
                    self.0.store(true, Ordering::Release);
                }
            }
            let _done = Done(&done);
            work()
        });
        turn_until(&mut [c], &|| done.load(Ordering::Acquire));
        client.join().expect("no panic")
    })
}

#[test]
fn the_other_family_and_loopback_are_proxied() {
    let w = World::new();
    w.plain("four");
    let mut c = w.start("c", &["four"], &[port(80, 8080), udp_port(53, 8053)]);
    w.serve(c.netns(), 80, "c");
    w.serve(c.netns(), 53, "c");
    for to in ["[::1]:8080", "[2001:db8::1]:8080"] {
        let to = to.parse().expect("an address");
        let got = meanwhile(&mut c, || w.tcp(&w.home, to)).expect("an answer");
        assert!(got.starts_with("c "), "{to}: {got}");
    }
    for to in ["[::1]:8053", "[2001:db8::1]:8053"] {
        let to = to.parse().expect("an address");
        let got = meanwhile(&mut c, || w.udp(&w.home, to)).expect("an answer");
        assert!(got.starts_with("c "), "{to}: {got}");
    }
    let got = meanwhile(&mut c, || w.tcp(&w.outside, at("2001:db8::1", 8080)));
    assert!(got.expect("an answer").starts_with("c "));
}

#[test]
fn a_proxied_connection_carries_much_both_ways_and_closes_halfway() {
    const SIZE: usize = 20_000_000;
    use std::io::{Read, Write};
    let w = World::new();
    w.plain("four");
    let mut c = w.start("c", &["four"], &[port(80, 8080)]);
    // Echoes until the end of input, then says how much it was.
    w.at(c.netns(), || {
        let listener = std::net::TcpListener::bind("0.0.0.0:80").expect("bound");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut total = 0;
            let mut buffer = vec![0; 100_000];
            loop {
                match stream.read(&mut buffer).expect("read") {
                    0 => break,
                    n => {
                        total += n;
                        stream.write_all(&buffer[..n]).expect("echoed");
                    }
                }
            }
            stream.write_all(format!("{total}").as_bytes()).expect("written");
        });
    });
    let received = meanwhile(&mut c, || {
        w.at(&w.home, || {
            let mut stream = std::net::TcpStream::connect("[::1]:8080").expect("connected");
            let mut writer = stream.try_clone().expect("cloned");
            let sender = std::thread::spawn(move || {
                writer.write_all(&vec![7; SIZE]).expect("written");
                writer.shutdown(std::net::Shutdown::Write).expect("closed halfway");
            });
            let mut all = Vec::new();
            stream.read_to_end(&mut all).expect("read");
            sender.join().expect("no panic");
            all
        })
    });
    assert_eq!(received.len(), SIZE + SIZE.to_string().len());
    assert!(received.ends_with(SIZE.to_string().as_bytes()));
}

fn flush() {
    let netfilter = Socket::netfilter().expect("a socket");
    let mut transaction = Transaction::new();
    transaction.flush_everything();
    transaction.commit(&netfilter).expect("flushed");
}

#[test]
fn a_flush_is_repaired_by_the_running_containers() {
    let w = World::new();
    w.plain("one");
    let mut c = w.start("c", &["one"], &[port(80, 8080)]);
    w.serve(c.netns(), 80, "c");
    flush();
    assert!(w.state().1.is_empty());
    // Answered even before the repair, by the proxy.
    let outer = outer(8080);
    let got = meanwhile(&mut c, || w.tcp(&w.outside, outer)).expect("an answer");
    assert!(got.starts_with("c "), "{got}");
    turn_until(&mut [&mut c], &|| !w.state().1.is_empty());
    assert_eq!(w.tcp(&w.outside, outer).expect("translated again"), "c 192.0.2.2");
}

#[test]
fn repair_restores_exactly_what_should_be_there() {
    let w = World::new();
    w.plain("one");
    let c = w.start("c", &["one"], &[port(80, 8080)]);
    let d = w.start("d", &["one"], &[port(80, 8081)]);
    let netfilter = Socket::netfilter().expect("a socket");
    let name = table::name(&w.root);
    let whole = table::Elements::read(&netfilter, table::table(&name), None).expect("read").expect("there");
    flush();
    repair(&w.root).expect("repaired");
    let again = table::Elements::read(&netfilter, table::table(&name), None).expect("read").expect("there");
    assert_eq!(again, whole);
    // A shim that died leaves its element; its container's removal makes it void.
    std::fs::remove_dir_all(w.root.containers().join(&d.plan.container)).expect("removed");
    repair(&w.root).expect("repaired");
    let fewer = table::Elements::read(&netfilter, table::table(&name), None).expect("read").expect("there");
    assert_ne!(fewer, whole);
    drop((c, d));
}

#[test]
fn other_firewalls_that_drop_let_containers_through() {
    let w = World::new();
    let netfilter = Socket::netfilter().expect("a socket");
    let docker = Table { family: Family::Ip, name: "filter" };
    let own = Table { family: Family::Inet, name: "strict" };
    let forward = |drops| Some(Base { kind: "filter", hook: Hook::Forward, priority: 0, drops });
    let mut t = Transaction::new();
    t.table(docker).chain(docker, "DOCKER-USER", None).chain(docker, "FORWARD", forward(true));
    t.rule(docker, "FORWARD", |r| r.verdict(Verdict::Jump("DOCKER-USER")));
    t.table(own).chain(own, "f", forward(false));
    t.rule(own, "f", |r| r.counter().verdict(Verdict::Drop));
    t.commit(&netfilter).expect("hostile rules");
    let before = w.state();
    w.plain("one");
    w.plain("two");
    let web = w.start("web", &["one"], &[port(80, 8080)]);
    let neighbour = w.start("neighbour", &["one"], &[]);
    let stranger = w.start("stranger", &["two"], &[]);
    w.serve(web.netns(), 80, "c");
    w.serve(&w.outside, 80, "outside");
    assert!(w.tcp(&w.outside, outer(8080)).expect("published").starts_with('c'));
    assert!(w.tcp(neighbour.netns(), address(web.ip(), 80)).expect("same network").starts_with('c'));
    assert!(w.tcp(web.netns(), at("192.0.2.2", 80)).expect("out").starts_with("outside"));
    assert!(w.tcp(stranger.netns(), address(web.ip(), 80)).is_err(), "isolation holds");
    let count = |chain: &str, table: Table<'_>| {
        crate::runtime::network::nft::list_rules(&netfilter, table.family as u8, table.name, chain)
            .expect("listed")
            .len()
    };
    assert_eq!((count("DOCKER-USER", docker), count("FORWARD", docker), count("f", own)), (4, 1, 5));
    for x in [web, neighbour, stranger] {
        w.stop(x);
    }
    for n in ["one", "two"] {
        Networks::new(&w.root).remove(n).expect("removed");
    }
    assert_eq!((count("DOCKER-USER", docker), count("FORWARD", docker), count("f", own)), (0, 1, 1));
    assert_eq!(w.state(), before);
}

#[test]
fn a_udp_client_that_was_early_reaches_the_container() {
    let w = World::new();
    w.plain("one");
    let first = w.start("first", &["one"], &[]);
    let early = w.at(&w.outside, || {
        let socket = std::net::UdpSocket::bind("192.0.2.2:4000").expect("bound");
        socket.connect("192.0.2.1:8053").expect("connected");
        socket.set_read_timeout(Some(std::time::Duration::from_millis(400))).expect("set");
        socket.send(b"?").ok();
        socket
    });
    let c = w.start("c", &["one"], &[udp_port(53, 8053)]);
    w.serve(c.netns(), 53, "c");
    let mut buffer = [0; 64];
    // The first attempt may report the refusal from before.
    let got = (0..3).find_map(|_| {
        early.send(b"?").ok();
        early.recv(&mut buffer).ok()
    });
    assert!(got.is_some(), "the old conversation was not forgotten");
    drop(first);
}

#[test]
fn fixed_addresses_are_kept_and_conflicts_are_named() {
    use crate::spec::IpamPool;
    let w = World::new();
    let pool = IpamPool {
        subnet: Some("10.77.1.0/24".into()),
        ip_range: Some("10.77.1.128/25".into()),
        ..IpamPool::default()
    };
    w.network(&NetworkSpec { name: "n".into(), ipam: vec![pool.clone()], ..NetworkSpec::default() });
    let same = NetworkSpec { name: "m".into(), ipam: vec![pool], ..NetworkSpec::default() };
    let error = Networks::new(&w.root).create(&same).expect_err("the subnet is taken");
    assert!(matches!(error, NetworkError::SubnetTaken { .. }), "{error}");
    let fixed = |ip: &str| crate::spec::EndpointSpec {
        ipv4: Some(ip.parse().expect("an address")),
        ..w.endpoint("n")
    };
    let first = w.prepare("first", vec![fixed("10.77.1.10")], &[]).expect("prepared");
    let error = w.prepare("second", vec![fixed("10.77.1.10")], &[]).expect_err("taken");
    assert_eq!(error.to_string(), "network `n`: address 10.77.1.10 is already in use by container `first`");
    let error = w.prepare("third", vec![fixed("10.77.2.10")], &[]).expect_err("outside");
    assert!(error.to_string().contains("is not in the subnet 10.77.1.0/24"), "{error}");
    let error = w.prepare("fourth", vec![fixed("10.77.1.128")], &[]).expect_err("taken");
    assert!(error.to_string().ends_with("is already in use by gateway"), "{error}");
    let free = w.prepare("free", vec![w.endpoint("n")], &[]).expect("prepared");
    assert_eq!(free.endpoints[0].ipv4.expect("IPv4").to_string(), "10.77.1.129/24");
    disconnect(&first).expect("released");
    w.prepare("second", vec![fixed("10.77.1.10")], &[]).expect("free again");
}
