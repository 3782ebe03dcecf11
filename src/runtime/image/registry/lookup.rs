//! Host names of registries to addresses: `/etc/hosts`, then the servers of `/etc/resolv.conf`.
//!
//! Our own, because the product is linked statically and glibc's resolver then
//! loads shared libraries that have to be of exactly its own version. A dynamic
//! build asks the system's resolver if we find nothing (mDNS and the like).

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// A server that does not answer in this time is passed over.
const PATIENCE: Duration = Duration::from_secs(3);
/// Rounds over all servers.
const ROUNDS: usize = 2;
/// Addresses handed out at most; [`ResolvedSocketAddrs`] holds 16.
const MOST: usize = 16;

/// For [`ureq::Agent::with_parts`].
#[derive(Debug)]
pub(super) struct Lookup;

impl Resolver for Lookup {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().ok_or(ureq::Error::HostNotFound)?;
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
        let found = addresses(host, &Sources::system(), port)?;
        let mut out = self.empty();
        for address in found.into_iter().take(MOST) {
            out.push(address);
        }
        if out.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(out) }
    }
}

/// What the system says about names.
struct Sources {
    hosts: String,
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    ndots: usize,
}

impl Sources {
    fn system() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        Self::parse(read("/etc/hosts"), &read("/etc/resolv.conf"))
    }

    /// # Source
    /// hosts(5), resolv.conf(5).
    fn parse(hosts: String, resolv: &str) -> Self {
        let mut sources = Self { hosts, servers: Vec::new(), search: Vec::new(), ndots: 1 };
        for line in resolv.lines() {
            let mut words = line.split(['#', ';']).next().unwrap_or("").split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    // A zone (`%eth0`) is left out: link-local servers are asked without it.
                    let address =
                        words.next().and_then(|text| text.split('%').next()?.parse::<IpAddr>().ok());
                    sources.servers.extend(address.map(|address| SocketAddr::new(address, 53)));
                }
                Some("search" | "domain") => sources.search = words.map(str::to_owned).collect(),
                Some("options") => {
                    for option in words {
                        if let Some(count) = option.strip_prefix("ndots:").and_then(|n| n.parse().ok()) {
                            sources.ndots = count;
                        }
                    }
                }
                _ => {}
            }
        }
        sources.servers.truncate(3);
        if sources.servers.is_empty() {
            sources.servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 53));
        }
        sources
    }

    fn in_hosts(&self, name: &str) -> Vec<IpAddr> {
        let matching = |line: &str| {
            let mut words = line.split('#').next().unwrap_or("").split_whitespace();
            let address = words.next()?.parse().ok()?;
            words.any(|word| word.eq_ignore_ascii_case(name)).then_some(address)
        };
        self.hosts.lines().filter_map(matching).collect()
    }

    /// The full names a name may stand for, in the order to try.
    fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(absolute) = name.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let searched = self.search.iter().map(|domain| format!("{name}.{}", domain.trim_matches('.')));
        if name.matches('.').count() >= self.ndots {
            std::iter::once(name.to_owned()).chain(searched).collect()
        } else {
            searched.chain([name.to_owned()]).collect()
        }
    }
}

/// IPv4 first, as containers' hosts more often have working IPv4.
fn addresses(host: &str, sources: &Sources, port: u16) -> io::Result<Vec<SocketAddr>> {
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let with_port = |found: Vec<IpAddr>| found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
    if let Ok(address) = name.parse() {
        return Ok(with_port(vec![address]));
    }
    let known = sources.in_hosts(name);
    if !known.is_empty() {
        return Ok(with_port(known));
    }
    if name == "localhost" || name.ends_with(".localhost") {
        return Ok(with_port(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]));
    }
    let mut failure = None;
    for candidate in sources.candidates(name) {
        match ask_all(&candidate, &sources.servers) {
            Ok(found) if found.is_empty() => {}
            Ok(found) => return Ok(with_port(found)),
            Err(error) => failure = Some(error),
        }
    }
    if cfg!(not(target_feature = "crt-static"))
        && let Ok(found) = std::net::ToSocketAddrs::to_socket_addrs(&(name, port))
    {
        return Ok(found.collect());
    }
    failure.map_or(Ok(Vec::new()), Err)
}

/// Both families from the first server that answers.
fn ask_all(name: &str, servers: &[SocketAddr]) -> io::Result<Vec<IpAddr>> {
    let mut failure = io::Error::from(io::ErrorKind::TimedOut);
    for _ in 0..ROUNDS {
        for server in servers {
            let both = ask(name, 1, *server).map(|mut found| {
                // A server may refuse the second family; the first is good enough then.
                found.extend(ask(name, 28, *server).unwrap_or_default());
                found
            });
            match both {
                Ok(found) => return Ok(found),
                Err(error) => failure = error,
            }
        }
    }
    Err(failure)
}

/// One question of type A (1) or AAAA (28).
fn ask(name: &str, kind: u16, server: SocketAddr) -> io::Result<Vec<IpAddr>> {
    let query = question(name, kind)?;
    let local: SocketAddr =
        if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(local)?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(&query)?;
    let mut buffer = [0; 4096];
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        let length = socket.recv(&mut buffer)?;
        // Somebody else's answer, or a late one: not ours.
        if length >= 12 && buffer[..2] == query[..2] {
            if buffer[2] & 2 != 0 {
                return ask_by_tcp(&query, server);
            }
            return parse(&buffer[..length]);
        }
        if std::time::Instant::now() > end {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

fn ask_by_tcp(query: &[u8], server: SocketAddr) -> io::Result<Vec<IpAddr>> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], query].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    parse(&answer)
}

/// # Source
/// RFC 1035, section 4.
fn question(name: &str, kind: u16) -> io::Result<Vec<u8>> {
    let id = crate::util::ids::random_hex(2);
    let id = u16::from_str_radix(&id, 16).map_err(io::Error::other)?;
    let mut query = Vec::with_capacity(name.len() + 18);
    query.extend(id.to_be_bytes());
    query.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length));
        query
            .push(length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "impossible host name"))?);
        query.extend(label.as_bytes());
    }
    query.push(0);
    query.extend(kind.to_be_bytes());
    query.extend([0, 1]);
    Ok(query)
}

/// The addresses in an answer, whatever aliases lead to them; none for an unknown name.
fn parse(message: &[u8]) -> io::Result<Vec<IpAddr>> {
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "a DNS answer does not parse");
    let number =
        |at: usize| Some(usize::from(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?])));
    match message.get(3).map(|flags| flags & 15) {
        Some(0) => {}
        Some(3) => return Ok(Vec::new()),
        _ => return Err(io::Error::other("the DNS server could not answer")),
    }
    let mut at = 12;
    for _ in 0..number(4).ok_or_else(bad)? {
        at = after_name(message, at).ok_or_else(bad)? + 4;
    }
    let mut found = Vec::new();
    for _ in 0..number(6).ok_or_else(bad)? {
        at = after_name(message, at).ok_or_else(bad)?;
        let (kind, length) = (number(at).ok_or_else(bad)?, number(at + 8).ok_or_else(bad)?);
        let data = message.get(at + 10..at + 10 + length).ok_or_else(bad)?;
        match (kind, <[u8; 4]>::try_from(data), <[u8; 16]>::try_from(data)) {
            (1, Ok(v4), _) => found.push(IpAddr::from(v4)),
            (28, _, Ok(v6)) => found.push(IpAddr::from(v6)),
            _ => {}
        }
        at += 10 + length;
    }
    Ok(found)
}

/// The position after a name, which ends with a zero or a pointer.
fn after_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length if length & 0xc0 == 0xc0 => return Some(at + 2),
            length => at += usize::from(length) + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hosts_come_before_servers_and_search_domains_are_tried() {
        let sources = Sources::parse(
            "127.0.0.1 localhost\n10.1.2.3 reg reg.example # comment\n".to_owned(),
            "search a.example b.example\noptions ndots:2\nnameserver 10.0.0.1 # x\n",
        );
        let reg = addresses("reg", &sources, 5000).expect("known");
        assert_eq!(reg, ["10.1.2.3:5000".parse().expect("valid")]);
        assert_eq!(sources.candidates("x.y"), ["x.y.a.example", "x.y.b.example", "x.y"]);
        assert_eq!(sources.candidates("x.y.z")[0], "x.y.z");
        assert_eq!(sources.candidates("x."), ["x"]);
        assert_eq!(addresses("[::1]", &sources, 1).expect("literal"), ["[::1]:1".parse().expect("valid")]);
        assert!(addresses("a.localhost", &sources, 1).expect("local").len() == 2);
    }

    #[test]
    fn a_server_is_asked_for_both_families() {
        let server = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let address = server.local_addr().expect("bound");
        let thread = std::thread::spawn(move || {
            for _ in 0..2 {
                let mut buffer = [0; 512];
                let (length, from) = server.recv_from(&mut buffer).expect("asked");
                let v6 = buffer[length - 3] == 28;
                let mut answer = buffer[..length].to_vec();
                answer[2..8].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1]);
                answer.extend([0xc0, 12, 0, if v6 { 28 } else { 1 }, 0, 1, 0, 0, 0, 9]);
                if v6 {
                    answer.extend([0, 16]);
                    answer.extend(Ipv6Addr::LOCALHOST.octets());
                } else {
                    answer.extend([0, 4, 10, 9, 8, 7]);
                }
                server.send_to(&answer, from).expect("answered");
            }
        });
        let found = ask_all("registry.example", &[address]).expect("answered");
        assert_eq!(found, [IpAddr::from([10, 9, 8, 7]), Ipv6Addr::LOCALHOST.into()]);
        thread.join().expect("no panic");
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _parsed = parse(&bytes);
        }
    }
}
