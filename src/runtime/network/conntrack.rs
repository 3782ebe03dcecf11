//! Forgetting UDP conversations, see `linux/netfilter/nfnetlink_conntrack.h`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::io::Errno;

use super::error::NetworkError;
use super::netlink::{Batch, ROOT_AND_MATCH, Socket, attribute};
use super::plan::Protocol;

const GET: u16 = (1 << 8) | 1;
const DELETE: u16 = (1 << 8) | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_ID: u16 = 12;

/// Deletes the entries of UDP conversations whose first packet went to one of
/// these host addresses and ports. A client that sent before the port was
/// published has an entry without translation and would never reach the
/// container as long as it keeps sending; after an unpublish likewise.
pub(super) fn forget_udp(ports: &[SocketAddr]) -> Result<(), NetworkError> {
    let socket = Socket::kept()?;
    let mut list = Batch::default();
    list.message(GET, ROOT_AND_MATCH, &[0; 4], "list tracked connections");
    let entries = match socket.request(&mut list) {
        Ok(entries) => entries,
        // Without the module nothing of ours can be tracked in a wrong way that we could mend.
        Err(failure) if matches!(failure.errno, Errno::OPNOTSUPP | Errno::INVAL | Errno::PROTONOSUPPORT) => {
            return Ok(());
        }
        Err(failure) => return Err(failure.into()),
    };
    let mut delete = Batch::default();
    for entry in &entries {
        let (Some(family), Some(body)) = (entry.first(), entry.get(4..)) else { continue };
        let Some(tuple) = attribute(body, CTA_TUPLE_ORIG) else { continue };
        let Some(to) = udp_destination(tuple) else { continue };
        let ours = |port: &SocketAddr| {
            port.port() == to.port()
                && port.is_ipv4() == to.is_ipv4()
                && (port.ip().is_unspecified() || port.ip() == to.ip())
        };
        if !ports.iter().any(ours) {
            continue;
        }
        delete
            .message(DELETE, 0, &[*family, 0, 0, 0], format!("forget the UDP conversation with {to}"))
            // It may have ended by itself.
            .ignoring(&[Errno::NOENT])
            .nest(CTA_TUPLE_ORIG, |nest| {
                nest.raw(tuple);
            });
        if let Some(id) = attribute(body, CTA_ID) {
            delete.attr(CTA_ID, id);
        }
    }
    Ok(socket.run(&mut delete)?)
}

/// Destination of a tuple, if it is UDP.
fn udp_destination(tuple: &[u8]) -> Option<SocketAddr> {
    let (ip, protocol) = (attribute(tuple, 1)?, attribute(tuple, 2)?);
    if attribute(protocol, 1)?.first() != Some(&Protocol::Udp.number()) {
        return None;
    }
    let port = u16::from_be_bytes(*attribute(protocol, 3)?.first_chunk()?);
    let address = match (attribute(ip, 2), attribute(ip, 4)) {
        (Some(v4), _) => IpAddr::V4(Ipv4Addr::from(*v4.first_chunk::<4>()?)),
        (_, Some(v6)) => IpAddr::V6(Ipv6Addr::from(*v6.first_chunk::<16>()?)),
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}
