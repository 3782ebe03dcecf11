//! Names, asked from inside containers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::world::{Container, World, turn_until};
use crate::runtime::dns::tests::{ask, read};
use crate::runtime::network::connect;
use crate::spec::{EndpointSpec, NetworkSpec};

const A: u16 = 1;
const SERVER: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 0, 0, 11), 53);

/// One question over UDP from inside the container while its sources are turned.
fn resolve(w: &World, c: &mut Container, name: &str, kind: u16) -> (u8, Vec<Vec<u8>>) {
    let done = AtomicBool::new(false);
    let netns = c.netns().try_clone().expect("cloned");
    let message = ask(name, kind);
    std::thread::scope(|scope| {
        let asker = scope.spawn(|| {
            let answer = w.at(&netns, || {
                let socket = UdpSocket::bind("0.0.0.0:0").expect("bound");
                socket.connect(SERVER).expect("connected");
                socket.set_read_timeout(Some(Duration::from_secs(4))).expect("set");
                socket.send(&message).expect("sent");
                let mut buffer = vec![0; 4096];
                let length = socket.recv(&mut buffer).expect("an answer");
                buffer.truncate(length);
                buffer
            });
            done.store(true, Ordering::Release);
            answer
        });
        turn_until(&mut [c], &|| done.load(Ordering::Acquire));
        let answer = asker.join().expect("no panic");
        assert_eq!(answer[..2], message[..2], "the id is kept");
        let (code, records) = read(&answer);
        (code, records.into_iter().map(|(_, data)| data).collect())
    })
}

fn v4(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn alias(network: &str, alias: &str) -> EndpointSpec {
    EndpointSpec {
        network: network.to_owned(),
        aliases: vec![alias.to_owned()],
        declared: vec!["web".to_owned(), "later".to_owned()],
        ..EndpointSpec::default()
    }
}

impl World {
    fn with_alias(&self, name: &str, network: &str, a: &str) -> Container {
        let plan = self.prepare(name, vec![alias(network, a)], &[]).expect("prepared");
        let connected = connect(&plan).expect("connected");
        Container { plan, connected }
    }
}

#[test]
fn replicas_answer_in_turn_and_other_networks_do_not() {
    let w = World::new();
    w.plain("one");
    w.plain("two");
    let mut asker = w.with_alias("asker", "one", "client");
    let a = w.with_alias("p-web-1", "one", "web");
    let b = w.with_alias("p-web-2", "one", "web");
    let other = w.with_alias("p-db-1", "two", "db");
    let (code, first) = resolve(&w, &mut asker, "web", A);
    assert_eq!((code, first.len()), (0, 2));
    let (_, second) = resolve(&w, &mut asker, "WEB", A);
    assert_eq!(first.iter().rev().collect::<Vec<_>>(), second.iter().collect::<Vec<_>>());
    assert!(first.contains(&v4(a.ip())) && first.contains(&v4(b.ip())));
    assert_eq!(resolve(&w, &mut asker, "p-web-2", A).1, [v4(b.ip())]);
    assert_eq!(resolve(&w, &mut asker, &b.plan.container[..12], A).1, [v4(b.ip())]);
    assert_eq!(resolve(&w, &mut asker, "later", A).0, 3);
    w.stop(b);
    assert_eq!(resolve(&w, &mut asker, "web", A).1, [v4(a.ip())]);
    drop(other);
}

#[test]
fn the_container_may_have_its_own_server_on_port_53() {
    let w = World::new();
    w.plain("one");
    let mut c = w.with_alias("c", "one", "web");
    w.at(c.netns(), || {
        let own = UdpSocket::bind("0.0.0.0:53").expect("port 53 is free");
        let tcp = std::net::TcpListener::bind("0.0.0.0:53").expect("port 53 is free");
        drop((own, tcp));
    });
    let ip = v4(c.ip());
    assert_eq!(resolve(&w, &mut c, "web", A).1, [ip]);
}

/// Answers every question outside with 203.0.113.9 after dropping or failing some.
fn upstream(w: &World, fail_first: usize) -> &'static AtomicUsize {
    let asked: &'static AtomicUsize = Box::leak(Box::new(AtomicUsize::new(0)));
    w.at(&w.outside, || {
        let socket = UdpSocket::bind("192.0.2.2:53").expect("bound");
        std::thread::spawn(move || {
            let mut buffer = vec![0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let count = asked.fetch_add(1, Ordering::SeqCst);
                let mut answer = buffer[..length].to_vec();
                answer[2] |= 0x80;
                if count < fail_first {
                    answer[3] = 2;
                } else {
                    answer[7] = 1;
                    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 9]);
                }
                socket.send_to(&answer, from).ok();
            }
        });
    });
    asked
}

fn with_upstreams(w: &World, name: &str, servers: &[&str], search: &[&str]) -> Container {
    let mut plan = w.prepare(name, vec![alias("one", name)], &[]).expect("prepared");
    let dns = plan.dns.as_mut().expect("a name service");
    dns.upstreams = servers.iter().map(|s| s.parse().expect("an address")).collect();
    dns.search = search.iter().map(|s| (*s).to_owned()).collect();
    let connected = connect(&plan).expect("connected");
    Container { plan, connected }
}

#[test]
fn other_names_are_passed_on_and_declared_ones_never() {
    let w = World::new();
    w.plain("one");
    let asked = upstream(&w, 0);
    let mut c = with_upstreams(&w, "c", &["192.0.2.2"], &["corp.example"]);
    assert_eq!(resolve(&w, &mut c, "www.example", A), (0, vec![vec![203, 0, 113, 9]]));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    for name in ["later", "later.corp.example", "web.corp.example", "later.one"] {
        assert_eq!(resolve(&w, &mut c, name, A).0, 3, "{name}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1, "a declared name got out");
}

#[test]
fn a_failing_or_silent_server_is_followed_by_the_next() {
    let w = World::new();
    w.plain("one");
    let asked = upstream(&w, 1);
    // The first one fails at first; 192.0.2.7 does not exist.
    let mut c = with_upstreams(&w, "c", &["192.0.2.2", "192.0.2.7"], &[]);
    let (code, _) = resolve(&w, &mut c, "www.example", A);
    assert_eq!(code, 0);
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    let mut d = with_upstreams(&w, "d", &["192.0.2.7", "192.0.2.2"], &[]);
    let began = Instant::now();
    assert_eq!(resolve(&w, &mut d, "www.example", A).0, 0);
    assert!(began.elapsed() < Duration::from_millis(1200), "{:?}", began.elapsed());
    let mut e = with_upstreams(&w, "e", &["192.0.2.2"], &[]);
    assert_eq!(resolve(&w, &mut e, "www.example", A).0, 0);
}

#[test]
fn internal_networks_ask_nobody() {
    let w = World::new();
    w.network(&NetworkSpec { name: "one".into(), internal: true, ..NetworkSpec::default() });
    let asked = upstream(&w, 0);
    let mut c = with_upstreams(&w, "c", &["192.0.2.2"], &[]);
    assert_eq!(resolve(&w, &mut c, "www.example", A).0, 2);
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    let ip = v4(c.ip());
    assert_eq!(resolve(&w, &mut c, "c", A).1, [ip]);
}

#[test]
fn tcp_answers_too_and_survives_nonsense() {
    use std::io::{Read, Write};
    let w = World::new();
    w.plain("one");
    let mut c = w.with_alias("c", "one", "web");
    let done = AtomicBool::new(false);
    let netns = c.netns().try_clone().expect("cloned");
    let to = SocketAddr::from(SERVER);
    std::thread::scope(|scope| {
        let asker = scope.spawn(|| {
            let out = w.at(&netns, || {
                for nonsense in [&b"\xff\xff\x00"[..], b"\x00\x00", b"\x00\x02hi", b"x"] {
                    let mut s = std::net::TcpStream::connect(to).expect("connected");
                    s.write_all(nonsense).expect("written");
                }
                let mut s = std::net::TcpStream::connect(to).expect("connected");
                s.set_read_timeout(Some(Duration::from_secs(3))).expect("set");
                let message = ask("web", A);
                // Two questions in one go, the second in pieces.
                let mut both = vec![0, u8::try_from(message.len()).expect("short")];
                both.extend(&message);
                let again = both.clone();
                both.extend(&again);
                let (head, tail) = both.split_at(both.len() - 5);
                s.write_all(head).expect("written");
                let mut answers = Vec::new();
                for i in 0..2 {
                    let mut length = [0; 2];
                    s.read_exact(&mut length).expect("a length");
                    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
                    s.read_exact(&mut answer).expect("an answer");
                    answers.push(read(&answer));
                    if i == 0 {
                        s.write_all(tail).expect("written");
                    }
                }
                answers
            });
            done.store(true, Ordering::Release);
            out
        });
        turn_until(&mut [&mut c], &|| done.load(Ordering::Acquire));
        let answers = asker.join().expect("no panic");
        assert_eq!(answers.len(), 2);
        assert!(answers.iter().all(|(code, records)| *code == 0 && records.len() == 1));
    });
}
