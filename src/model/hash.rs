//! Configuration hashes, byte for byte those of Docker Compose.
//!
//! A container carries the hash of its service as a label; a different hash means
//! it must be recreated. The input is the compact JSON of the canonical object.

use std::fmt::Write as _;

use super::record::{Field, Style};
use super::{Network, Service, Volume, json};

/// Hash of a service, without what does not concern its containers.
///
/// Left out: `build`, `pull_policy`, `scale`, `deploy.replicas`, `depends_on`, `profiles`.
/// `service:X` references must have been replaced by container ids by the caller, where wanted.
pub fn service(service: &Service) -> String {
    let mut stripped = service.clone();
    stripped.build = None;
    stripped.pull_policy = None;
    stripped.scale = None;
    if let Some(deploy) = &mut stripped.deploy {
        deploy.replicas = None;
    }
    stripped.depends_on.clear();
    stripped.profiles.clear();
    digest(&stripped)
}

/// Hash of a network.
pub fn network(network: &Network) -> String {
    digest(network)
}

/// Hash of a volume; a missing driver counts as `local`.
pub fn volume(volume: &Volume) -> String {
    let mut volume = volume.clone();
    if volume.driver.is_none() {
        volume.driver = Some("local".to_owned());
    }
    digest(&volume)
}

fn digest(object: &impl Field) -> String {
    let text = json::compact(&object.render(Style::Json));
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minimal_service_hashes_as_in_docker_compose() {
        let service = Service {
            image: Some("x".to_owned()),
            networks: [("default".to_owned(), None)].into(),
            ..Service::default()
        };
        assert_eq!(
            json::compact(&service.render(Style::Json)),
            r#"{"command":null,"entrypoint":null,"image":"x","networks":{"default":null}}"#
        );
    }
}
