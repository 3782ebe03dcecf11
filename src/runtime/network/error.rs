//! Why a network step failed.

use std::net::{IpAddr, SocketAddr};

use super::Protocol;
use crate::util::fs::PathError;

/// A failed step on a network. Callers match on the variant; the text names the object.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// No network has this name or id.
    #[error("no such network: {0}")]
    NotFound(String),
    /// Another network has the name.
    #[error("network name `{0}` is already in use")]
    NameTaken(String),
    /// A short id that several networks start with.
    #[error("network id `{0}` is ambiguous")]
    Ambiguous(String),
    /// Containers are attached.
    #[error("network `{name}` is still in use by {}", containers.join(", "))]
    InUse {
        /// The network.
        name: String,
        /// Names of the containers.
        containers: Vec<String>,
    },
    /// The spec asks for something we do not do.
    #[error("network `{network}`: `{attribute}` is not supported: {reason}")]
    Unsupported {
        /// Network name.
        network: String,
        /// Attribute in compose words.
        attribute: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The spec contradicts itself or the machine.
    #[error("network `{network}`: {reason}")]
    Invalid {
        /// Network name.
        network: String,
        /// What is wrong.
        reason: String,
    },
    /// A container's own network settings are wrong.
    #[error("container `{container}`: {reason}")]
    InvalidEndpoint {
        /// Container name.
        container: String,
        /// What is wrong.
        reason: String,
    },
    /// All private subnets are in use on this host.
    #[error(
        "network `{network}`: no free subnet: every /24 of the pools overlaps a route or another network; give one with `ipam.config.subnet`"
    )]
    NoSubnet {
        /// Network name.
        network: String,
    },
    /// The subnet is in use by a route or another network.
    #[error("network `{network}`: subnet {subnet} overlaps {with}")]
    SubnetTaken {
        /// Network name.
        network: String,
        /// Subnet in CIDR form.
        subnet: String,
        /// Route or network.
        with: String,
    },
    /// All addresses of the network are in use.
    #[error("network `{network}`: no free address in {pool}")]
    NoAddress {
        /// Network name.
        network: String,
        /// Pool in CIDR form.
        pool: String,
    },
    /// A fixed address is in use.
    #[error("network `{network}`: address {address} is already in use by {by}")]
    AddressTaken {
        /// Network name.
        network: String,
        /// The address.
        address: IpAddr,
        /// Container, gateway or reserved name.
        by: String,
    },
    /// A host port is taken.
    #[error("cannot publish port {address}/{protocol}: {reason}")]
    PortTaken {
        /// Host address and port.
        address: SocketAddr,
        /// Protocol.
        protocol: Protocol,
        /// Who holds it.
        reason: String,
    },
    /// All ports of a range are taken.
    #[error("cannot publish target port {target}/{protocol}: no free host port in {low}-{high}")]
    NoPort {
        /// Container port.
        target: u16,
        /// Protocol.
        protocol: Protocol,
        /// First of the range.
        low: u16,
        /// Last of the range.
        high: u16,
    },
    /// Not enough rights for a kernel step.
    #[error("cannot {step}: permission denied; run as root (CAP_NET_ADMIN and CAP_SYS_ADMIN are needed)")]
    Permission {
        /// Step.
        step: String,
    },
    /// The kernel lacks something.
    #[error("cannot {step}: {missing}")]
    Kernel {
        /// Step.
        step: String,
        /// What is missing, and how to get it.
        missing: String,
    },
    /// A kernel step failed.
    #[error("cannot {step}{}", if detail.is_empty() { String::new() } else { format!(" ({detail})") })]
    Step {
        /// Step and object.
        step: String,
        /// The kernel's own words, when it gave some.
        detail: String,
        /// Its error.
        #[source]
        source: std::io::Error,
    },
    /// A state file failed.
    #[error(transparent)]
    Path(#[from] PathError),
}

impl NetworkError {
    /// A failed system call in the step `step` (a phrase after “cannot”).
    pub(crate) fn step<E: Into<std::io::Error>>(step: impl Into<String>) -> impl FnOnce(E) -> Self {
        let step = step.into();
        move |source| {
            let source = source.into();
            if source.kind() == std::io::ErrorKind::PermissionDenied {
                return Self::Permission { step };
            }
            Self::Step { step, detail: String::new(), source }
        }
    }
}
