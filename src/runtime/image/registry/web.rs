//! Plain downloads, with the same names, certificates and proxies as registries.

use std::time::Duration;

use ureq::Agent;
use ureq::unversioned::transport::DefaultConnector;

use super::lookup::Lookup;
use super::{RegistryError, trust};

/// Follows at most this many redirects.
const REDIRECTS: u32 = 10;

/// A client for one host; its answers are given whatever their status is.
pub(crate) fn agent(host: &str) -> Result<Agent, RegistryError> {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(REDIRECTS)
        .user_agent(concat!("hoist/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(Duration::from_secs(20)))
        .timeout_recv_response(Some(Duration::from_mins(1)))
        .timeout_per_read(Some(Duration::from_mins(1)))
        .input_buffer_size(256 << 10)
        .tls_config(trust::tls(host, true)?);
    Ok(Agent::with_parts(config.build(), DefaultConnector::new(), Lookup))
}
