//! Content of `/etc/hosts` and `/etc/resolv.conf` inside a container.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::plan::{Endpoint, Request};

/// Address of a container's name service: real configurations name it (`resolver 127.0.0.11`).
pub(crate) const SERVER: std::net::Ipv4Addr = std::net::Ipv4Addr::new(127, 0, 0, 11);

const LOCAL: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\n\
    ff02::1\tip6-allnodes\n\
    ff02::2\tip6-allrouters\n";

/// The host's `/etc/resolv.conf`; empty when it cannot be read, which means no upstream server.
pub(crate) fn host_resolv_conf() -> String {
    std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()
}

/// What a `resolv.conf` says, as far as we use it; see `resolv.conf(5)`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ResolvConf {
    pub(crate) nameservers: Vec<IpAddr>,
    pub(crate) search: Vec<String>,
    pub(crate) options: Vec<String>,
}

impl ResolvConf {
    /// Reads the lines we know; the last `search` or `domain` counts.
    pub(crate) fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    // A scope (`fe80::1%eth0`) means nothing in another namespace.
                    found.nameservers.extend(words.next().and_then(|w| w.parse::<IpAddr>().ok()));
                }
                Some("search" | "domain") => found.search = words.map(str::to_owned).collect(),
                Some("options") => found.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        found
    }
}

/// The name servers in a `resolv.conf`.
pub(super) fn nameservers(text: &str) -> Vec<IpAddr> {
    ResolvConf::parse(text).nameservers
}

/// Search domains and options of a container: its own, else the host's.
pub(super) fn settle(request: &Request<'_>, host: &ResolvConf) -> ResolvConf {
    let search = match request.dns_search {
        [] => host.search.clone(),
        [only] if only == "." => Vec::new(),
        given => given.to_vec(),
    };
    let options =
        if request.dns_options.is_empty() { host.options.clone() } else { request.dns_options.to_vec() };
    let nameservers = if request.dns.is_empty() { host.nameservers.clone() } else { request.dns.to_vec() };
    ResolvConf { nameservers, search, options }
}

/// A `resolv.conf` that asks our server. Names without a dot are tried as they
/// are first (`ndots:0`), as Docker does, unless the user says otherwise.
pub(super) fn resolv_conf_ours(settled: &ResolvConf) -> String {
    let mut text = format!("# written by hoist\nnameserver {SERVER}\n");
    if !settled.search.is_empty() {
        writeln!(text, "search {}", settled.search.join(" ")).expect("a String takes all");
    }
    let mut options = settled.options.clone();
    if !options.iter().any(|o| o.starts_with("ndots:")) {
        options.push("ndots:0".to_owned());
    }
    writeln!(text, "options {}", options.join(" ")).expect("a String takes all");
    text
}

/// A `resolv.conf` that asks the upstream servers directly.
pub(super) fn resolv_conf_upstream(request: &Request<'_>, host_text: &str, settled: &ResolvConf) -> String {
    if request.dns.is_empty() && request.dns_search.is_empty() && request.dns_options.is_empty() {
        return host_text.to_owned();
    }
    let mut text = "# written by hoist\n".to_owned();
    for server in &settled.nameservers {
        writeln!(text, "nameserver {server}").expect("a String takes all");
    }
    if !settled.search.is_empty() {
        writeln!(text, "search {}", settled.search.join(" ")).expect("a String takes all");
    }
    if !settled.options.is_empty() {
        writeln!(text, "options {}", settled.options.join(" ")).expect("a String takes all");
    }
    text
}

/// `/etc/hosts` of a container with its own namespace: the local names, the
/// extra ones, then its own addresses. `gateway` is what `host-gateway` means.
pub(super) fn hosts(request: &Request<'_>, endpoints: &[Endpoint], gateway: Option<IpAddr>) -> String {
    let mut text = LOCAL.to_owned();
    text.push_str(&extra(request, gateway));
    for endpoint in endpoints {
        for address in [&endpoint.ipv4, &endpoint.ipv6].into_iter().flatten() {
            match request.domainname.filter(|d| !d.is_empty()) {
                Some(domain) => {
                    writeln!(text, "{}\t{1}.{domain} {1}", address.address(), request.hostname)
                }
                None => writeln!(text, "{}\t{}", address.address(), request.hostname),
            }
            .expect("a String takes all");
        }
    }
    text
}

/// `/etc/hosts` of a container in the host's namespace.
pub(super) fn hosts_of_host(request: &Request<'_>) -> String {
    let mut text = std::fs::read_to_string("/etc/hosts").unwrap_or_else(|_| LOCAL.to_owned());
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text + &extra(request, Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)))
}

fn extra(request: &Request<'_>, gateway: Option<IpAddr>) -> String {
    let mut text = String::new();
    for (name, address) in request.extra_hosts {
        let address = match (address.as_str(), gateway) {
            ("host-gateway", Some(gateway)) => gateway.to_string(),
            (address, _) => address.to_owned(),
        };
        writeln!(text, "{address}\t{name}").expect("a String takes all");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read_as_the_man_page_says() {
        let text = "# c\nnameserver 10.0.0.1 # x\nnameserver fe80::1%eth0\nnameserver ::1\ndomain a.b\nsearch c.d e.f\noptions edns0 ndots:2\noptions rotate\n";
        let parsed = ResolvConf::parse(text);
        assert_eq!(
            parsed.nameservers.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.0.0.1", "::1"]
        );
        assert_eq!(parsed.search, ["c.d", "e.f"]);
        assert_eq!(parsed.options, ["edns0", "ndots:2", "rotate"]);
    }

    #[test]
    fn our_resolv_conf_keeps_a_given_ndots() {
        let settled = ResolvConf { options: vec!["ndots:3".to_owned()], ..ResolvConf::default() };
        assert_eq!(
            resolv_conf_ours(&settled),
            "# written by hoist\nnameserver 127.0.0.11\noptions ndots:3\n"
        );
    }
}
