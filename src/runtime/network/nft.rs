//! `nf_tables` over netlink: tables, chains, rules, sets and maps, in one atomic transaction.
//!
//! Attribute and expression numbers are those of `linux/netfilter/nf_tables.h`.
//! Registers are the 32-bit ones ([`R0`] + n); a 16-byte value takes four.

use rustix::io::Errno;

use super::netlink::{
    APPEND, Batch, CREATE, Failure, ROOT_AND_MATCH, Socket, as_text, attribute, attributes,
};

/// Protocol families of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    Inet = 1,
    Ip = 2,
    Ip6 = 10,
}

/// A table by family and name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table<'a> {
    pub(super) family: Family,
    pub(super) name: &'a str,
}

/// Where a base chain is called, with `NF_INET_*` numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hook {
    Prerouting = 0,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// A base chain's type, hook, priority and policy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Base {
    /// `filter` or `nat`.
    pub(super) kind: &'static str,
    pub(super) hook: Hook,
    pub(super) priority: i32,
    /// What happens to packets that no rule decides about; ours are always accepted.
    pub(super) drops: bool,
}

/// What a rule ends in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Verdict<'a> {
    Accept,
    Drop,
    Return,
    Jump(&'a str),
}

/// `NFT_REG32_00`.
pub(super) const R0: u32 = 8;

const NEWTABLE: u16 = 0;
const GETTABLE: u16 = 1;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const GETCHAIN: u16 = 4;
const NEWRULE: u16 = 6;
const GETRULE: u16 = 7;
const DELRULE: u16 = 8;
const NEWSET: u16 = 9;
const NEWSETELEM: u16 = 12;
const GETSETELEM: u16 = 13;
const DELSETELEM: u16 = 14;

/// Notifications that take something out of a table, in the order a flush sends them.
pub(super) const REMOVALS: [u16; 4] = [kind(DELTABLE), kind(5), kind(DELRULE), kind(11)];

const fn kind(message: u16) -> u16 {
    const NFNL_SUBSYS_NFTABLES: u16 = 10;
    (NFNL_SUBSYS_NFTABLES << 8) | message
}

fn header(family: Family) -> [u8; 4] {
    [family as u8, 0, 0, 0]
}

/// A type of set key or map value, for `nft list` only: the datatype numbers of the nft program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Ipv4 = 7,
    Ipv6 = 8,
    Protocol = 12,
    Port = 13,
    Interface = 41,
}

impl Field {
    const fn length(self) -> u32 {
        match self {
            Self::Ipv4 | Self::Protocol | Self::Port => 4,
            Self::Ipv6 | Self::Interface => 16,
        }
    }
}

/// Concatenated type number and length of fields.
fn concatenation(fields: &[Field]) -> (u32, u32) {
    fields.iter().fold((0, 0), |(kind, length), field| ((kind << 6) | *field as u32, length + field.length()))
}

/// An element of a set, or of a map with its value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Element {
    pub(super) key: Vec<u8>,
    pub(super) value: Option<Vec<u8>>,
}

/// Changes that happen all or not at all.
#[derive(Debug)]
pub(super) struct Transaction {
    batch: Batch,
    sets: u32,
}

impl Transaction {
    pub(super) fn new() -> Self {
        let mut batch = Batch::default();
        batch.message(NFNL_MSG_BATCH_BEGIN, 0, &BATCH_HEADER, "begin a firewall transaction");
        Self { batch, sets: 0 }
    }

    /// Adds the table unless it exists.
    pub(super) fn table(&mut self, table: Table<'_>) -> &mut Self {
        self.batch
            .message(
                kind(NEWTABLE),
                CREATE,
                &header(table.family),
                format!("make the table `{}`", table.name),
            )
            .text(1, table.name)
            .be32(2, 0);
        self
    }

    /// Deletes the table, which must exist (add it first in the same transaction to be sure).
    pub(super) fn delete_table(&mut self, table: Table<'_>) -> &mut Self {
        self.batch
            .message(kind(DELTABLE), 0, &header(table.family), format!("remove the table `{}`", table.name))
            .text(1, table.name);
        self
    }

    /// Adds a chain, called from a hook or only by jumps.
    pub(super) fn chain(&mut self, table: Table<'_>, name: &str, base: Option<Base>) -> &mut Self {
        const NF_DROP: u32 = 0;
        const NF_ACCEPT: u32 = 1;
        let batch = self
            .batch
            .message(kind(NEWCHAIN), CREATE, &header(table.family), format!("make the chain `{name}`"))
            .text(1, table.name)
            .text(3, name);
        if let Some(base) = base {
            batch
                .nest(4, |hook| {
                    hook.be32(1, base.hook as u32).attr(2, &base.priority.to_be_bytes());
                })
                .be32(5, if base.drops { NF_DROP } else { NF_ACCEPT })
                .text(7, base.kind);
        }
        self
    }

    /// Appends a rule.
    pub(super) fn rule(
        &mut self,
        table: Table<'_>,
        chain: &str,
        write: impl FnOnce(&mut Rule<'_>),
    ) -> &mut Self {
        self.put_rule(APPEND, table, chain, "", write)
    }

    /// Puts a rule at the head of a chain, marked with a comment.
    pub(super) fn insert_rule(
        &mut self,
        table: Table<'_>,
        chain: &str,
        comment: &str,
        write: impl FnOnce(&mut Rule<'_>),
    ) -> &mut Self {
        self.put_rule(0, table, chain, comment, write)
    }

    fn put_rule(
        &mut self,
        flags: u16,
        table: Table<'_>,
        chain: &str,
        comment: &str,
        write: impl FnOnce(&mut Rule<'_>),
    ) -> &mut Self {
        let batch = self
            .batch
            .message(
                kind(NEWRULE),
                CREATE | flags,
                &header(table.family),
                format!("add a rule to `{}` `{chain}`", table.name),
            )
            .text(1, table.name)
            .text(2, chain)
            .nest(4, |expressions| write(&mut Rule { batch: expressions }));
        if !comment.is_empty() {
            batch.attr(7, &user_comment(comment));
        }
        self
    }

    /// Deletes a rule by its handle.
    pub(super) fn delete_rule(&mut self, table: Table<'_>, chain: &str, handle: u64) -> &mut Self {
        self.batch
            .message(
                kind(DELRULE),
                0,
                &header(table.family),
                format!("remove a rule from `{}` `{chain}`", table.name),
            )
            .ignoring(&[Errno::NOENT])
            .text(1, table.name)
            .text(2, chain)
            .attr(3, &handle.to_be_bytes());
        self
    }

    /// Adds a set (no value fields) or a map.
    pub(super) fn set(&mut self, table: Table<'_>, name: &str, key: &[Field], value: &[Field]) -> &mut Self {
        const NFT_SET_MAP: u32 = 8;
        // Without this note `nft list` takes interface names for numbers and prints nothing.
        const KEY_IS_IN_HOST_ORDER: [u8; 6] = [0, 4, 1, 0, 0, 0];
        self.sets += 1;
        let id = self.sets;
        let (key_type, key_length) = concatenation(key);
        let batch = self
            .batch
            .message(kind(NEWSET), CREATE, &header(table.family), format!("make the set `{name}`"))
            .text(1, table.name)
            .text(2, name)
            .be32(3, if value.is_empty() { 0 } else { NFT_SET_MAP })
            .be32(4, key_type)
            .be32(5, key_length);
        if !value.is_empty() {
            let (value_type, value_length) = concatenation(value);
            batch.be32(6, value_type).be32(7, value_length);
        }
        batch.be32(10, id);
        if key.first() == Some(&Field::Interface) {
            batch.attr(13, &KEY_IS_IN_HOST_ORDER);
        }
        self
    }

    /// Adds elements; those that exist with the same value stay.
    pub(super) fn add(&mut self, table: Table<'_>, set: &str, elements: &[Element]) -> &mut Self {
        self.elements(NEWSETELEM, CREATE, table, set, elements)
    }

    /// Deletes elements, which must exist.
    pub(super) fn delete(&mut self, table: Table<'_>, set: &str, elements: &[Element]) -> &mut Self {
        self.elements(DELSETELEM, 0, table, set, elements)
    }

    fn elements(
        &mut self,
        message: u16,
        flags: u16,
        table: Table<'_>,
        set: &str,
        elements: &[Element],
    ) -> &mut Self {
        // A nest holds 64 KiB; an element takes at most 80 bytes.
        for chunk in elements.chunks(500) {
            self.batch
                .message(kind(message), flags, &header(table.family), format!("change the set `{set}`"))
                .text(1, table.name)
                .text(2, set)
                .nest(3, |list| {
                    for element in chunk {
                        list.nest(1, |e| {
                            e.nest(1, |key| {
                                key.attr(1, &element.key);
                            });
                            if let (Some(value), NEWSETELEM) = (&element.value, message) {
                                e.nest(2, |data| {
                                    data.attr(1, value);
                                });
                            }
                        });
                    }
                });
        }
        self
    }

    /// Carries everything out.
    pub(super) fn commit(mut self, socket: &Socket) -> Result<(), Failure> {
        // An end message is acknowledged since Linux 6.10 only.
        self.batch.acknowledge();
        self.batch.message(NFNL_MSG_BATCH_END, 0, &BATCH_HEADER, "commit a firewall transaction");
        socket.run(&mut self.batch)
    }

    /// Deletes all tables, as `nft flush ruleset` does.
    #[cfg(test)]
    pub(super) fn flush_everything(&mut self) -> &mut Self {
        self.batch.message(kind(DELTABLE), 0, &[0; 4], "flush the rule set");
        self
    }
}

const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;
/// `struct nfgenmsg` with the subsystem in its resource id, in network order.
const BATCH_HEADER: [u8; 4] = [0, 0, 0, 10];

/// A comment as the nft program writes it into a rule's user data.
fn user_comment(comment: &str) -> Vec<u8> {
    const NFTNL_UDATA_RULE_COMMENT: u8 = 0;
    let mut data = vec![NFTNL_UDATA_RULE_COMMENT, u8::try_from(comment.len() + 1).unwrap_or(u8::MAX)];
    data.extend(comment.as_bytes());
    data.push(0);
    data
}

/// The expressions of one rule, in order. Each matcher ends the rule when it does not match.
pub(super) struct Rule<'a> {
    batch: &'a mut Batch,
}

/// Keys of `meta`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Meta {
    InterfaceIn = 6,
    InterfaceOut = 7,
    NfProto = 15,
    L4Proto = 16,
    /// Kind of link a packet came in by (`bridge`, `veth`, …), Linux 5.6.
    KindIn = 26,
    KindOut = 27,
}

/// Bits of `ct status` and `ct state`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Conntrack {
    /// `ct state established,related`.
    Established,
    /// `ct status dnat`.
    Dnat,
}

/// Which header an offset counts from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Header {
    Network = 1,
    Transport = 2,
}

impl Rule<'_> {
    fn expression(&mut self, name: &str, write: impl FnOnce(&mut Batch)) -> &mut Self {
        self.batch.nest(1, |e| {
            e.text(1, name).nest(2, write);
        });
        self
    }

    /// Loads packet metadata.
    pub(super) fn meta(&mut self, key: Meta, register: u32) -> &mut Self {
        self.expression("meta", |e| {
            e.be32(2, key as u32).be32(1, register);
        })
    }

    /// Matches when the register equals the bytes.
    pub(super) fn equals(&mut self, register: u32, bytes: &[u8]) -> &mut Self {
        self.compare(0, register, bytes)
    }

    /// Matches when the register differs from the bytes.
    pub(super) fn differs(&mut self, register: u32, bytes: &[u8]) -> &mut Self {
        self.compare(1, register, bytes)
    }

    fn compare(&mut self, operator: u32, register: u32, bytes: &[u8]) -> &mut Self {
        self.expression("cmp", |e| {
            e.be32(1, register).be32(2, operator).nest(3, |data| {
                data.attr(1, bytes);
            });
        })
    }

    /// Matches packets of one family: 2 is IPv4, 10 is IPv6.
    pub(super) fn family(&mut self, family: u8) -> &mut Self {
        self.meta(Meta::NfProto, R0).equals(R0, &[family])
    }

    /// Matches one transport protocol.
    pub(super) fn protocol(&mut self, number: u8) -> &mut Self {
        self.meta(Meta::L4Proto, R0).equals(R0, &[number])
    }

    /// Loads bytes of the packet.
    pub(super) fn payload(&mut self, header: Header, offset: u32, length: u32, register: u32) -> &mut Self {
        self.expression("payload", |e| {
            e.be32(1, register).be32(2, header as u32).be32(3, offset).be32(4, length);
        })
    }

    /// Writes a 16-bit field of the transport header and corrects the checksum there.
    pub(super) fn write_port(&mut self, offset: u32, checksum: u32, port: u16) -> &mut Self {
        const NFT_PAYLOAD_CSUM_INET: u32 = 1;
        self.immediate(R0, &port.to_be_bytes()).expression("payload", |e| {
            e.be32(5, R0)
                .be32(2, Header::Transport as u32)
                .be32(3, offset)
                .be32(4, 2)
                .be32(6, NFT_PAYLOAD_CSUM_INET)
                .be32(7, checksum)
                .be32(8, 0);
        })
    }

    fn immediate(&mut self, register: u32, bytes: &[u8]) -> &mut Self {
        self.expression("immediate", |e| {
            e.be32(1, register).nest(2, |data| {
                data.attr(1, bytes);
            });
        })
    }

    /// Matches when the register is in the set.
    pub(super) fn is_in(&mut self, set: &str, register: u32) -> &mut Self {
        self.expression("lookup", |e| {
            e.text(1, set).be32(2, register);
        })
    }

    /// Matches when the register is not in the set.
    pub(super) fn is_not_in(&mut self, set: &str, register: u32) -> &mut Self {
        const NFT_LOOKUP_F_INV: u32 = 1;
        self.expression("lookup", |e| {
            e.text(1, set).be32(2, register).be32(5, NFT_LOOKUP_F_INV);
        })
    }

    /// Matches when the register is in the map, and loads the value.
    pub(super) fn map(&mut self, map: &str, register: u32, into: u32) -> &mut Self {
        self.expression("lookup", |e| {
            e.text(1, map).be32(2, register).be32(3, into);
        })
    }

    /// Matches packets to an address of this host (`fib daddr type local`).
    pub(super) fn for_this_host(&mut self) -> &mut Self {
        const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
        const NFTA_FIB_F_DADDR: u32 = 2;
        const RTN_LOCAL: u32 = 2;
        self.expression("fib", |e| {
            e.be32(3, NFTA_FIB_F_DADDR).be32(2, NFT_FIB_RESULT_ADDRTYPE).be32(1, R0);
        })
        .equals(R0, &RTN_LOCAL.to_ne_bytes())
    }

    /// Matches connections in this condition.
    pub(super) fn conntrack(&mut self, condition: Conntrack) -> &mut Self {
        let (key, mask): (u32, u32) = match condition {
            Conntrack::Established => (0, 2 | 4),
            Conntrack::Dnat => (2, 1 << 5),
        };
        self.expression("ct", |e| {
            e.be32(2, key).be32(1, R0);
        })
        .expression("bitwise", |e| {
            e.be32(1, R0)
                .be32(2, R0)
                .be32(3, 4)
                .nest(4, |data| {
                    data.attr(1, &mask.to_ne_bytes());
                })
                .nest(5, |data| {
                    data.attr(1, &[0; 4]);
                });
        })
        .differs(R0, &[0; 4])
    }

    /// Sends the connection to the address and port in the registers.
    pub(super) fn dnat(&mut self, family: u8, address: u32, port: u32) -> &mut Self {
        const NFT_NAT_DNAT: u32 = 1;
        self.expression("nat", |e| {
            e.be32(1, NFT_NAT_DNAT)
                .be32(2, u32::from(family))
                .be32(3, address)
                .be32(4, address)
                .be32(5, port)
                .be32(6, port);
        })
    }

    /// Gives the connection the outgoing interface's address as its source.
    pub(super) fn masquerade(&mut self) -> &mut Self {
        self.expression("masq", |_| {})
    }

    /// Counts, as iptables expects of every rule it lists.
    pub(super) fn counter(&mut self) -> &mut Self {
        self.expression("counter", |e| {
            e.attr(1, &[0; 8]).attr(2, &[0; 8]);
        })
    }

    /// Ends the rule.
    pub(super) fn verdict(&mut self, verdict: Verdict<'_>) {
        const NFT_RETURN: i32 = -5;
        const NFT_JUMP: i32 = -3;
        let (code, chain) = match verdict {
            Verdict::Drop => (0_i32, None),
            Verdict::Accept => (1, None),
            Verdict::Return => (NFT_RETURN, None),
            Verdict::Jump(chain) => (NFT_JUMP, Some(chain)),
        };
        self.expression("immediate", |e| {
            e.be32(1, 0).nest(2, |data| {
                data.nest(2, |v| {
                    v.attr(1, &code.to_be_bytes());
                    if let Some(chain) = chain {
                        v.text(2, chain);
                    }
                });
            });
        });
    }
}

/// An interface name as a set key or a comparison wants it.
pub(super) fn interface(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (to, from) in bytes[..15].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    bytes
}

fn query(message: u16, flags: u16, family: u8, step: &'static str) -> Batch {
    let mut batch = Batch::default();
    batch.message(kind(message), flags, &[family, 0, 0, 0], step);
    batch
}

/// Whether the table exists.
pub(super) fn table_exists(socket: &Socket, table: Table<'_>) -> Result<bool, Failure> {
    let mut batch = query(GETTABLE, 0, table.family as u8, "look for a firewall table");
    batch.text(1, table.name);
    match socket.request(&mut batch) {
        Ok(_) => Ok(true),
        Err(failure) if failure.errno == Errno::NOENT => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// All elements of a set, sorted; `None` when the set does not exist.
pub(super) fn list_elements(
    socket: &Socket,
    table: Table<'_>,
    set: &str,
) -> Result<Option<Vec<Element>>, Failure> {
    let mut batch = query(GETSETELEM, ROOT_AND_MATCH, table.family as u8, "list a firewall set");
    batch.text(1, table.name).text(2, set);
    let answers = match socket.request(&mut batch) {
        Ok(answers) => answers,
        Err(failure) if failure.errno == Errno::NOENT => return Ok(None),
        Err(failure) => return Err(failure),
    };
    let value =
        |nest: &[u8], kind| attribute(nest, kind).and_then(|data| attribute(data, 1)).map(<[u8]>::to_vec);
    let mut found: Vec<Element> = answers
        .iter()
        .filter_map(|body| attribute(body.get(4..)?, 3))
        .flat_map(attributes)
        .filter_map(|(_, element)| Some(Element { key: value(element, 1)?, value: value(element, 2) }))
        .collect();
    found.sort();
    Ok(Some(found))
}

/// A base chain of some table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BaseChain {
    pub(super) family: u8,
    pub(super) table: String,
    pub(super) name: String,
    pub(super) hook: u32,
    pub(super) drops: bool,
}

/// All chains of all tables: base chains with their hook and policy, others with hook `u32::MAX`.
pub(super) fn list_chains(socket: &Socket) -> Result<Vec<BaseChain>, Failure> {
    let big = |bytes: &[u8]| bytes.first_chunk().map(|b| u32::from_be_bytes(*b));
    let mut batch = query(GETCHAIN, ROOT_AND_MATCH, 0, "list firewall chains");
    let answers = match socket.request(&mut batch) {
        Ok(answers) => answers,
        Err(failure) if failure.errno == Errno::NOENT => return Ok(Vec::new()),
        Err(failure) => return Err(failure),
    };
    Ok(answers
        .iter()
        .filter_map(|body| {
            let family = *body.first()?;
            let body = body.get(4..)?;
            let hook = attribute(body, 4).and_then(|hook| attribute(hook, 1)).and_then(big);
            Some(BaseChain {
                family,
                table: as_text(attribute(body, 1)?),
                name: as_text(attribute(body, 3)?),
                hook: hook.unwrap_or(u32::MAX),
                drops: hook.is_some() && attribute(body, 5).and_then(big) == Some(0),
            })
        })
        .collect())
}

/// A rule as far as we look at others' rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RuleInfo {
    pub(super) handle: u64,
    pub(super) comment: String,
    /// Drops or rejects every packet that gets to it.
    pub(super) drops_all: bool,
}

/// The rules of a chain in order, or of a whole table when `chain` is empty.
pub(super) fn list_rules(
    socket: &Socket,
    family: u8,
    table: &str,
    chain: &str,
) -> Result<Vec<RuleInfo>, Failure> {
    let mut batch = query(GETRULE, ROOT_AND_MATCH, family, "list firewall rules");
    batch.text(1, table);
    if !chain.is_empty() {
        batch.text(2, chain);
    }
    let answers = match socket.request(&mut batch) {
        Ok(answers) => answers,
        Err(failure) if failure.errno == Errno::NOENT => return Ok(Vec::new()),
        Err(failure) => return Err(failure),
    };
    Ok(answers
        .iter()
        .filter_map(|body| {
            let body = body.get(4..)?;
            let handle = attribute(body, 3).and_then(|h| h.first_chunk()).map(|h| u64::from_be_bytes(*h))?;
            let comment = attribute(body, 7).map(read_comment).unwrap_or_default();
            let drops_all = attribute(body, 4).is_some_and(drops_everything);
            Some(RuleInfo { handle, comment, drops_all })
        })
        .collect())
}

fn read_comment(data: &[u8]) -> String {
    match data {
        [0, length, rest @ ..] => as_text(rest.get(..usize::from(*length)).unwrap_or_default()),
        _ => String::new(),
    }
}

/// Whether the expressions are only a drop or reject, counters and logging aside.
fn drops_everything(expressions: &[u8]) -> bool {
    let mut drops = false;
    for (_, expression) in attributes(expressions) {
        let Some(name) = attribute(expression, 1).map(as_text) else { return false };
        match name.as_str() {
            "counter" | "log" => {}
            "reject" => drops = true,
            "immediate" => {
                let code = attribute(expression, 2)
                    .and_then(|data| attribute(data, 2))
                    .and_then(|data| attribute(data, 2))
                    .and_then(|verdict| attribute(verdict, 1));
                if code != Some(&[0; 4]) {
                    return false;
                }
                drops = true;
            }
            _ => return false,
        }
    }
    drops
}

/// Notification group of `nf_tables` changes.
pub(super) const NOTIFICATIONS: u32 = 7;
