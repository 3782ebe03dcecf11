//! Addresses of registries as text.

/// Host and port of a URL.
pub(super) fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?']).next().unwrap_or(rest)
}

/// A host without its port and without the brackets of an IPv6 address.
pub(super) fn name_of(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    }
}

/// Whether a registry host is this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    let name = name_of(host);
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A location header relative to the address it came from.
pub(super) fn resolve(from: &str, to: &str) -> String {
    if to.contains("://") {
        return to.to_owned();
    }
    let scheme_end = from.find("://").map_or(0, |at| at + 3);
    let authority_end = from[scheme_end..].find('/').map_or(from.len(), |at| scheme_end + at);
    if let Some(rest) = to.strip_prefix("//") {
        return format!("{}//{rest}", &from[..scheme_end - 2]);
    }
    if to.starts_with('/') {
        return format!("{}{to}", &from[..authority_end]);
    }
    let directory = from.rfind('/').filter(|at| *at >= authority_end).unwrap_or(authority_end);
    format!("{}/{to}", &from[..directory])
}

/// A URL with one more query parameter, whose value needs no escaping.
pub(super) fn with_query(url: &str, key: &str, value: &str) -> String {
    let joint = if url.contains('?') { '&' } else { '?' };
    format!("{url}{joint}{key}={value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_resolve() {
        assert_eq!(resolve("https://a/b/c", "https://x/y"), "https://x/y");
        assert_eq!(resolve("https://a/b/c", "/y?z"), "https://a/y?z");
        assert_eq!(resolve("https://a/b/c", "//x/y"), "https://x/y");
        assert_eq!(resolve("https://a/b/c", "d"), "https://a/b/d");
        assert_eq!(resolve("https://a", "d"), "https://a/d");
        assert_eq!(with_query("https://a/b", "digest", "sha256:0"), "https://a/b?digest=sha256:0");
        assert_eq!(with_query("https://a/b?_state=x", "digest", "1"), "https://a/b?_state=x&digest=1");
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.3.2.1", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example.com", "10.0.0.1:5000", "[::2]:5000", "example.com"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
