//! Which proxy a request goes through: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`.
//!
//! Chosen per address as curl and Go's programs do it; ureq by itself knows one
//! proxy for everything.

use std::net::IpAddr;

use ureq::Proxy;

use super::url::{host_of, is_loopback, name_of};
use crate::runtime::network::Cidr;

/// The proxies of this process's environment.
#[derive(Debug, Clone, Default)]
pub(super) struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    /// Hosts that are reached without: `*`, names with all below them, addresses, CIDR blocks.
    direct: Vec<String>,
}

impl Proxies {
    pub(super) fn from_environment() -> Self {
        Self::new(&|name| std::env::var(name).or_else(|_| std::env::var(name.to_lowercase())).ok())
    }

    /// A variable that does not parse counts as not set, as it does for Go's programs.
    fn new(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let of = |name| {
            let text = variable(name).or_else(|| variable("ALL_PROXY"))?;
            Proxy::new(text.trim()).ok()
        };
        let direct = variable("NO_PROXY").unwrap_or_default();
        let direct = direct.split([',', ' ']).map(|text| text.trim().to_ascii_lowercase());
        Self {
            http: of("HTTP_PROXY"),
            https: of("HTTPS_PROXY"),
            direct: direct.filter(|text| !text.is_empty()).collect(),
        }
    }

    /// The proxy for a URL; this machine itself is always reached directly.
    pub(super) fn of(&self, url: &str) -> Option<Proxy> {
        let proxy = if url.starts_with("https://") { &self.https } else { &self.http };
        let host = host_of(url);
        if is_loopback(host) || self.direct.iter().any(|pattern| is_direct(pattern, host)) {
            return None;
        }
        proxy.clone()
    }
}

/// Whether one element of `NO_PROXY` is about a host (with its port, if it has one).
fn is_direct(pattern: &str, host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    let name = name_of(&host);
    if pattern == "*" || pattern == host {
        return true;
    }
    if let Ok(address) = name.parse::<IpAddr>() {
        return pattern.parse() == Ok(address)
            || pattern.parse::<Cidr>().is_ok_and(|block| block.contains(address));
    }
    let domain = pattern.trim_start_matches('*');
    match domain.strip_prefix('.') {
        Some(_) => name.ends_with(domain),
        None => name == domain || name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scheme_has_its_proxy_and_some_hosts_have_none() {
        let proxies = Proxies::new(&|name| match name {
            "HTTPS_PROXY" => Some("http://secure:3128".to_owned()),
            "ALL_PROXY" => Some("http://rest:3128".to_owned()),
            "NO_PROXY" => Some("internal, .lan,10.0.0.0/8,one.example:5000".to_owned()),
            _ => None,
        });
        let of = |url| proxies.of(url).map(|proxy| proxy.host().to_owned());
        assert_eq!(of("https://ghcr.io/v2/"), Some("secure".to_owned()));
        assert_eq!(of("http://r.example:5000/v2/"), Some("rest".to_owned()));
        for direct in [
            "https://internal",
            "https://a.internal:5000/x",
            "https://x.lan/",
            "https://10.2.3.4:5000/",
            "https://one.example:5000/v2/",
            "http://localhost:5000/",
            "http://127.0.0.1:5000/",
        ] {
            assert_eq!(of(direct), None, "{direct}");
        }
        for far in ["https://notinternal/", "https://lan/", "https://11.0.0.1/", "https://one.example/"] {
            assert!(of(far).is_some(), "{far}");
        }
    }
}
