//! Ports as Docker prints them, ranges collapsed.

use std::net::IpAddr;

use hoist::engine::PortState;

/// `0.0.0.0:80->80/tcp, [::]:80->80/tcp, 9000-9002/tcp`.
///
/// Equal published and target ports in a row are shown as a range; mappings
/// to a different host port stand alone, at the end. Order: target port, then
/// address, then host port.
pub(crate) fn display(ports: &[PortState]) -> String {
    let mut sorted: Vec<&PortState> = ports.iter().collect();
    sorted.sort_by_key(|p| (p.target, p.published, p.protocol.as_str()));
    let mut ranges: Vec<Range<'_>> = Vec::new();
    let mut single = Vec::new();
    for port in sorted {
        let address = match port.published {
            Some((ip, published)) if published != port.target => {
                single.push(format!(
                    "{}->{}/{}",
                    host(ip, &published.to_string()),
                    port.target,
                    port.protocol
                ));
                continue;
            }
            Some((ip, _)) => Some(ip),
            None => None,
        };
        let open = ranges
            .iter_mut()
            .rev()
            .find(|r| r.address == address && r.protocol == port.protocol)
            .filter(|r| r.last == port.target || r.last.checked_add(1) == Some(port.target));
        match open {
            Some(range) => range.last = port.target,
            None => ranges.push(Range {
                address,
                protocol: &port.protocol,
                first: port.target,
                last: port.target,
            }),
        }
    }
    let mut all: Vec<String> = ranges.iter().map(Range::display).collect();
    all.extend(single);
    all.join(", ")
}

/// Consecutive ports with the same address and protocol.
struct Range<'a> {
    address: Option<IpAddr>,
    protocol: &'a str,
    first: u16,
    last: u16,
}

impl Range<'_> {
    fn display(&self) -> String {
        let span = if self.first == self.last {
            self.first.to_string()
        } else {
            format!("{}-{}", self.first, self.last)
        };
        match self.address {
            Some(ip) => format!("{}->{span}/{}", host(ip, &span), self.protocol),
            None => format!("{span}/{}", self.protocol),
        }
    }
}

/// `1.2.3.4:80` or `[::1]:80`.
fn host(ip: IpAddr, port: &str) -> String {
    match ip {
        IpAddr::V4(ip) => format!("{ip}:{port}"),
        IpAddr::V6(ip) => format!("[{ip}]:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(target: u16, published: Option<(&str, u16)>) -> PortState {
        PortState {
            target,
            protocol: "tcp".into(),
            published: published.map(|(ip, p)| (ip.parse().expect("address"), p)),
        }
    }

    #[test]
    fn ranges_are_collapsed_per_address() {
        let ports = [
            port(81, Some(("0.0.0.0", 81))),
            port(80, Some(("0.0.0.0", 80))),
            port(80, Some(("::", 80))),
            port(81, Some(("::", 81))),
            port(9000, None),
            port(9001, None),
            port(9005, None),
            port(443, Some(("127.0.0.1", 8443))),
        ];
        assert_eq!(
            display(&ports),
            "0.0.0.0:80-81->80-81/tcp, [::]:80-81->80-81/tcp, 9000-9001/tcp, 9005/tcp, 127.0.0.1:8443->443/tcp"
        );
    }

    #[test]
    fn nothing_is_empty() {
        assert_eq!(display(&[]), "");
    }
}
