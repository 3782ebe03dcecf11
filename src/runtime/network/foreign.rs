//! Other firewalls on the host.
//!
//! An accept in our table does not overrule a drop in another one. Docker sets
//! the policy of FORWARD to DROP; ufw and hand-written rule sets end theirs in a
//! drop. So each bridge gets two accepts at the head of those chains, marked
//! with a comment that names it; our own table still isolates. In Docker's
//! case they go into DOCKER-USER, which it never flushes, and which iptables
//! lists and saves (`-i X -j ACCEPT`).

use super::error::NetworkError;
use super::netlink::Socket;
use super::nft::{self, BaseChain, Family, Hook, Meta, R0, Table, Transaction, Verdict, interface};
use super::table;
use crate::runtime::root::Root;

const DOCKER_USER: &str = "DOCKER-USER";

/// The comment of an accept for one direction of one bridge.
fn mark(root: &Root, bridge: &str, outward: bool) -> String {
    format!("{}: {bridge} {}", table::name(root), if outward { "out" } else { "in" })
}

/// An accept that a chain lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing {
    chain: BaseChain,
    bridge: String,
    outward: bool,
}

/// The accepts that other firewalls lack for these bridges.
pub(super) fn missing(
    root: &Root,
    netfilter: &Socket,
    bridges: &[&str],
) -> Result<Vec<Missing>, NetworkError> {
    let chains = nft::list_chains(netfilter)?;
    let mut found = Vec::new();
    for chain in obstacles(netfilter, &chains)? {
        let rules = nft::list_rules(netfilter, chain.family, &chain.table, &chain.name)?;
        for bridge in bridges {
            for outward in [false, true] {
                let comment = mark(root, bridge, outward);
                if !rules.iter().any(|rule| rule.comment == comment) {
                    found.push(Missing { chain: chain.clone(), bridge: (*bridge).to_owned(), outward });
                }
            }
        }
    }
    Ok(found)
}

/// Makes sure that other firewalls let the bridges' traffic through.
pub(super) fn admit(root: &Root, netfilter: &Socket, bridges: &[&str]) -> Result<(), NetworkError> {
    let missing = missing(root, netfilter, bridges)?;
    if missing.is_empty() {
        return Ok(());
    }
    let mut transaction = Transaction::new();
    for Missing { chain, bridge, outward } in &missing {
        let Some(family) = family(chain.family) else { continue };
        let table = Table { family, name: &chain.table };
        let key = if *outward { Meta::InterfaceOut } else { Meta::InterfaceIn };
        transaction.insert_rule(table, &chain.name, &mark(root, bridge, *outward), |r| {
            r.meta(key, R0).equals(R0, &interface(bridge)).counter().verdict(Verdict::Accept);
        });
    }
    Ok(transaction.commit(netfilter)?)
}

/// Takes the accepts of a bridge out again, wherever they are.
pub(super) fn withdraw(root: &Root, netfilter: &Socket, bridge: &str) -> Result<(), NetworkError> {
    let marks = [mark(root, bridge, false), mark(root, bridge, true)];
    let mut transaction = Transaction::new();
    let mut changed = false;
    for chain in nft::list_chains(netfilter)? {
        if chain.hook != Hook::Forward as u32 && chain.name != DOCKER_USER {
            continue;
        }
        let Some(family) = family(chain.family) else { continue };
        for rule in nft::list_rules(netfilter, chain.family, &chain.table, &chain.name)? {
            if marks.contains(&rule.comment) {
                changed = true;
                let target = Table { family, name: &chain.table };
                transaction.delete_rule(target, &chain.name, rule.handle);
            }
        }
    }
    if changed {
        transaction.commit(netfilter)?;
    }
    Ok(())
}

/// The chains to put accepts into: of each forward chain that drops, its
/// DOCKER-USER if its table has one, else itself.
fn obstacles(netfilter: &Socket, chains: &[BaseChain]) -> Result<Vec<BaseChain>, NetworkError> {
    let mut found: Vec<BaseChain> = Vec::new();
    for chain in chains {
        let ours = chain.family == Family::Inet as u8 && chain.table.starts_with("hoist");
        if ours || chain.hook != Hook::Forward as u32 || family(chain.family).is_none() {
            continue;
        }
        let user = chains
            .iter()
            .find(|c| c.family == chain.family && c.table == chain.table && c.name == DOCKER_USER);
        let drops = chain.drops
            || user.is_some()
            || nft::list_rules(netfilter, chain.family, &chain.table, &chain.name)?
                .last()
                .is_some_and(|rule| rule.drops_all);
        let target = user.unwrap_or(chain);
        if drops && !found.contains(target) {
            found.push(target.clone());
        }
    }
    Ok(found)
}

fn family(number: u8) -> Option<Family> {
    [Family::Inet, Family::Ip, Family::Ip6].into_iter().find(|family| *family as u8 == number)
}
