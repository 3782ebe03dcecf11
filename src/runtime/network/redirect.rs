//! Port 53 of 127.0.0.11 inside a container, without taking it.

use std::net::Ipv4Addr;

use super::error::NetworkError;
use super::netlink::Socket;
use super::nft::{self, Base, Family, Header, Hook, R0, Table, Transaction};

/// Makes port 53 of `server` lead to `port` there, for UDP and TCP, in the
/// calling thread's namespace. Both directions are rewritten without state, so
/// that the container's traffic needs no connection tracking, and port 53 stays
/// free for a server of the container.
///
/// # Errors
/// [`NetworkError::Kernel`] without `nf_tables`.
pub(crate) fn redirect_dns(server: Ipv4Addr, port: u16) -> Result<(), NetworkError> {
    const DNS: u16 = 53;
    const SOURCE: u32 = 0;
    const DESTINATION: u32 = 2;
    let table = Table { family: Family::Ip, name: "hoist-dns" };
    let socket = Socket::netfilter()?;
    let mut transaction = Transaction::new();
    if nft::table_exists(&socket, table)? {
        // A server that died has left its rules. Only then: whoever closes a
        // netfilter socket waits for the kernel to free what was deleted, 10 ms and more.
        transaction.table(table).delete_table(table);
    }
    transaction.table(table).chain(
        table,
        "output",
        Some(Base { kind: "filter", hook: Hook::Output, priority: -300, drops: false }),
    );
    // Protocol number, and where its checksum is.
    for (protocol, checksum) in [(17, 6), (6, 16)] {
        transaction.rule(table, "output", |r| {
            r.payload(Header::Network, 16, 4, R0).equals(R0, &server.octets()).protocol(protocol);
            r.payload(Header::Transport, DESTINATION, 2, R0).equals(R0, &DNS.to_be_bytes());
            r.write_port(DESTINATION, checksum, port);
        });
        transaction.rule(table, "output", |r| {
            r.payload(Header::Network, 12, 4, R0).equals(R0, &server.octets()).protocol(protocol);
            r.payload(Header::Transport, SOURCE, 2, R0).equals(R0, &port.to_be_bytes());
            r.write_port(SOURCE, checksum, DNS);
        });
    }
    Ok(transaction.commit(&socket)?)
}
