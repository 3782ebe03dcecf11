//! Container networks: bridges, addresses, published ports, and the way out.
//!
//! Owns `networks/` of a [`Root`](super::root::Root), the bridges and veth pairs it makes, one
//! `nf_tables` table, and nothing else on the host. It runs no external program
//! and keeps no process of its own: what outlives a command lives in the shims.
//! DNS is [`super::dns`].
//!
//! # Protocol
//! 1. [`Networks::create`] writes the definition and picks subnets. No kernel
//!    object exists before the first container connects.
//! 2. [`prepare`] (command, any thread) claims addresses and ports by exclusive
//!    file creation. The result, a [`NetPlan`], is all that later steps read.
//! 3. [`connect`] (shim, single-threaded) reserves the host ports, writes the
//!    container's endpoint records, makes bridge, namespace, veth and routes, and
//!    publishes the ports. It returns the [`Connected`] that the shim's event loop turns.
//! 4. [`disconnect`] (shim, or any later command after a crash) takes everything
//!    of the plan back. It is idempotent. The interfaces need no removal: they
//!    die with the namespace.
//! 5. [`Networks::remove`] deletes the definition, the bridge, and with the last
//!    network the table.
//!
//! [`repair`] puts the table back when somebody flushed it; [`adopt`] is for a
//! shim that takes over a running container.
//!
//! # On disk
//! ```text
//! networks/.lock                 flock: create, remove, subnet choice
//! networks/.rules                flock: shared to add elements, exclusive to rebuild the table
//! networks/by-name/<name>        the id; a hard link, so that two creators cannot both have the name
//! networks/<id>/config.json      definition (versioned)
//! networks/<id>/leases/<address> who holds it: container id and boot id
//! networks/<id>/names/<container id>  endpoint record (versioned): names, addresses, published ports
//! networks/ports/<proto>-<address>-<port>  a host port picked for a container
//! ```
//! A record or lease counts while its boot id is this boot's and its container's
//! directory exists; all others are void and are taken over.

mod cidr;
mod connect;
mod conntrack;
mod error;
mod foreign;
pub(crate) mod hosts;
mod ipam;
mod leave;
mod netlink;
pub(crate) mod netns;
mod nft;
mod plan;
mod ports;
mod prepare;
mod proxy;
pub(crate) mod record;
mod redirect;
mod route;
mod store;
mod table;
mod watch;

pub use cidr::Cidr;
pub use connect::{adopt, connect, disconnect, repair};
pub use error::NetworkError;
pub use leave::dispatch;
pub use plan::{
    Connected, DnsPlan, Endpoint, EndpointKind, Mac, Namespace, NetPlan, Protocol, Publish, Request, Zone,
};
pub use prepare::prepare;
pub(crate) use redirect::redirect_dns;
pub use store::{Network, Networks, Pool};

#[cfg(test)]
mod tests;
