//! What attaching and asking cost. Run by hand:
//! `cargo test --release --lib measure -- --ignored --nocapture --test-threads 1`

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use super::world::{World, port};
use crate::runtime::dns::tests::ask;
use crate::runtime::network::{Networks, connect, disconnect};

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e6;
    println!(
        "{what:40} n {:5}  min {:8.0}  p50 {:8.0}  p90 {:8.0}  p99 {:8.0} us",
        times.len(),
        at(0),
        at(50),
        at(90),
        at(99)
    );
}

#[test]
#[ignore = "measures, asserts nothing"]
fn measure_attach() {
    let w = World::new();
    w.plain("one");
    let (mut first, mut prepared, mut connected, mut disconnected, mut with_port, mut kept) =
        (vec![], vec![], vec![], vec![], vec![], vec![]);
    for i in 0..100 {
        let name = format!("c{i}");
        let ports = [port(80, 8000 + i)];
        for (ports, times) in [(&[][..], &mut connected), (&ports[..], &mut with_port)] {
            let began = Instant::now();
            let plan = w.prepare(&name, vec![w.endpoint("one")], ports).expect("prepared");
            prepared.push(began.elapsed());
            let began = Instant::now();
            let c = connect(&plan).expect("connected");
            if first.is_empty() {
                first.push(began.elapsed());
            } else {
                times.push(began.elapsed());
            }
            let began = Instant::now();
            disconnect(&plan).expect("disconnected");
            disconnected.push(began.elapsed());
            kept.push(c);
        }
    }
    report("first connect (bridge, table)", first);
    report("prepare", prepared);
    report("connect", connected);
    report("connect, one port", with_port);
    report("disconnect", disconnected);
    drop(kept);
    let began = Instant::now();
    Networks::new(&w.root).remove("one").expect("removed");
    report("remove the network", vec![began.elapsed()]);
    let mut created = vec![];
    for i in 0..50 {
        let began = Instant::now();
        w.plain(&format!("n{i}"));
        created.push(began.elapsed());
    }
    report("create a network", created);
}

#[test]
#[ignore = "measures, asserts nothing"]
fn measure_dns() {
    let w = World::new();
    w.plain("one");
    let mut all: Vec<_> = (0..50).map(|i| w.start(&format!("c{i}"), &["one"], &[])).collect();
    let mut c = all.pop().expect("fifty");
    let netns = c.netns().try_clone().expect("cloned");
    let done = std::sync::atomic::AtomicBool::new(false);
    let message = ask("c7", 1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            w.at(&netns, || {
                let socket = UdpSocket::bind("0.0.0.0:0").expect("bound");
                socket.connect(("127.0.0.11", 53)).expect("connected");
                let mut buffer = [0; 512];
                let mut times = vec![];
                for _ in 0..20_000 {
                    let began = Instant::now();
                    socket.send(&message).expect("sent");
                    socket.recv(&mut buffer).expect("an answer");
                    times.push(began.elapsed());
                }
                report("dns, one at a time", times);
                let began = Instant::now();
                let (mut sent, mut received) = (0, 0);
                while received < 50_000 {
                    while sent - received < 100 {
                        socket.send(&message).expect("sent");
                        sent += 1;
                    }
                    socket.recv(&mut buffer).expect("an answer");
                    received += 1;
                }
                println!("dns, 100 in flight: {:.0} per second", 50_000.0 / began.elapsed().as_secs_f64());
            });
            done.store(true, std::sync::atomic::Ordering::Release);
        });
        while !done.load(std::sync::atomic::Ordering::Acquire) {
            let source = &mut c.connected.sources[0];
            let fd = source.fd();
            let wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
            let mut fds = [rustix::event::PollFd::from_borrowed_fd(fd, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut fds, Some(&wait)).expect("polled");
            source.turn();
        }
    });
}
