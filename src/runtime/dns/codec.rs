//! DNS messages as far as a stub's server needs them, see RFC 1035, 3596, 2782, 6891.
//!
//! Reading is bounded: every offset is checked, a query's name is never compressed.

use std::net::IpAddr;

pub(super) const A: u16 = 1;
pub(super) const PTR: u16 = 12;
pub(super) const AAAA: u16 = 28;
pub(super) const SRV: u16 = 33;
const OPT: u16 = 41;
const ANY: u16 = 255;
const IN: u16 = 1;
const HEADER: usize = 12;
/// Longest UDP answer without EDNS.
const PLAIN_UDP: usize = 512;

/// Response codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    NoError = 0,
    FormatError = 1,
    ServerFailure = 2,
    NoSuchName = 3,
    NotImplemented = 4,
}

/// A question we understand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query {
    /// Lower-case labels with dots between them, without a final dot. `None`
    /// when a label holds bytes that no name of ours has.
    pub(super) name: Option<String>,
    pub(super) kind: u16,
    pub(super) class: u16,
    /// Where the question ends.
    end: usize,
    /// Longest UDP answer the asker takes.
    udp_size: usize,
    edns: bool,
}

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Malformed {
    /// Too short for an answer, or itself an answer.
    Ignore,
    /// To be answered with this code.
    Answer(Code),
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

impl Query {
    /// Reads a message that asks one question.
    pub(super) fn parse(message: &[u8]) -> Result<Self, Malformed> {
        let flags = message.get(2).ok_or(Malformed::Ignore)?;
        if message.len() < HEADER || flags & 0x80 != 0 {
            return Err(Malformed::Ignore);
        }
        if flags & 0x78 != 0 {
            return Err(Malformed::Answer(Code::NotImplemented));
        }
        if number(message, 4) != Some(1) {
            return Err(Malformed::Answer(Code::FormatError));
        }
        Self::question(message).ok_or(Malformed::Answer(Code::FormatError))
    }

    fn question(message: &[u8]) -> Option<Self> {
        let (name, after) = read_name(message, HEADER)?;
        let (kind, class) = (number(message, after)?, number(message, after + 2)?);
        let end = after + 4;
        let mut query = Self { name, kind, class, end, udp_size: PLAIN_UDP, edns: false };
        // EDNS in the place where every resolver puts it: alone after the question.
        let alone = number(message, 6)? == 0 && number(message, 8)? == 0 && number(message, 10)? >= 1;
        if alone && message.get(end) == Some(&0) && number(message, end + 1) == Some(OPT) {
            query.edns = true;
            query.udp_size = usize::from(number(message, end + 3)?).max(PLAIN_UDP);
        }
        Some(query)
    }

    /// Whether the class is one we have names in.
    pub(super) fn is_internet(&self) -> bool {
        self.class == IN || self.class == ANY
    }

    /// Whether a record of this type is asked for.
    pub(super) fn wants(&self, kind: u16) -> bool {
        self.kind == kind || self.kind == ANY
    }

    /// The question as it was asked: name, type, class.
    pub(super) fn bytes<'a>(&self, message: &'a [u8]) -> &'a [u8] {
        &message[HEADER..self.end]
    }
}

/// Reads an uncompressed name: its text if plain, and the offset after it.
fn read_name(message: &[u8], mut at: usize) -> Option<(Option<String>, usize)> {
    const LONGEST: usize = 255;
    let start = at;
    let mut text = String::new();
    let mut plain = true;
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        if length > 63 || at + length - start > LONGEST {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        for byte in message.get(at..at + length)? {
            plain &= byte.is_ascii_graphic() && *byte != b'.';
            text.push(char::from(byte.to_ascii_lowercase()));
        }
        at += length;
    }
    Some((plain.then_some(text), at))
}

/// One record of an answer; its owner is the name that was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Data {
    Address(IpAddr),
    Pointer(String),
    Service { port: u16, target: String },
}

/// An answer of ours. `udp` limits its length to what the asker takes.
pub(super) fn answer(message: &[u8], query: &Query, code: Code, records: &[Data], udp: bool) -> Vec<u8> {
    let reserve = if query.edns { 11 } else { 0 };
    let limit = if udp { query.udp_size } else { usize::from(u16::MAX) } - reserve;
    let mut out = message[..query.end].to_vec();
    // Response, authoritative, recursion as asked and available.
    out[2] = 0x84 | (message[2] & 1);
    out[3] = 0x80 | code as u8;
    out[6..HEADER].fill(0);
    let mut count: u16 = 0;
    for record in records {
        let (kind, data) = match record {
            Data::Address(IpAddr::V4(ip)) => (A, ip.octets().to_vec()),
            Data::Address(IpAddr::V6(ip)) => (AAAA, ip.octets().to_vec()),
            Data::Pointer(name) => (PTR, write_name(name)),
            Data::Service { port, target } => {
                let mut data = vec![0, 0, 0, 0];
                data.extend(port.to_be_bytes());
                data.extend(write_name(target));
                (SRV, data)
            }
        };
        if out.len() + 12 + data.len() > limit {
            out[2] |= 2;
            break;
        }
        // The owner is the name in the question; live for 0 s.
        out.extend([0xc0, 12]);
        out.extend(kind.to_be_bytes());
        out.extend(IN.to_be_bytes());
        out.extend([0; 4]);
        out.extend(u16::try_from(data.len()).expect("a name is short").to_be_bytes());
        out.extend(data);
        count += 1;
    }
    out[6..8].copy_from_slice(&count.to_be_bytes());
    if query.edns {
        out[11] = 1;
        // Root name, OPT, our longest UDP message, no flags, no options.
        out.extend([0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0]);
    }
    out
}

/// An answer without records to a message that may be no proper query.
pub(super) fn refusal(message: &[u8], code: Code) -> Vec<u8> {
    let mut out = vec![0; HEADER];
    out[..2].copy_from_slice(&message[..2]);
    out[2] = 0x80 | (message[2] & 0x79);
    out[3] = 0x80 | code as u8;
    out
}

/// “It failed” to a question that was passed on in vain, with the question.
pub(super) fn failure(message: &[u8]) -> Vec<u8> {
    match Query::parse(message) {
        Ok(query) => answer(message, &query, Code::ServerFailure, &[], true),
        Err(_) => refusal(message, Code::ServerFailure),
    }
}

fn write_name(name: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + 2);
    for label in name.split('.').filter(|l| !l.is_empty()) {
        let label = &label.as_bytes()[..label.len().min(63)];
        out.push(u8::try_from(label.len()).expect("at most 63"));
        out.extend(label);
    }
    out.push(0);
    out
}

/// Whether an upstream's message answers this question with this id.
pub(super) fn answers(message: &[u8], id: u16, question: &[u8]) -> bool {
    let asked = message.get(HEADER..HEADER + question.len());
    number(message, 0) == Some(id)
        && message.get(2).is_some_and(|flags| flags & 0x80 != 0)
        && number(message, 4) == Some(1)
        // Case may be changed on the way (and mixed by askers), bytes above it not.
        && asked.is_some_and(|asked| asked.eq_ignore_ascii_case(question))
}

/// Whether another server should be asked.
pub(super) fn is_failure(message: &[u8]) -> bool {
    const REFUSED: u8 = 5;
    message.get(3).is_none_or(
        |flags| matches!(flags & 15, code if code == Code::ServerFailure as u8 || code == REFUSED),
    )
}

/// The address that a name under `in-addr.arpa` or `ip6.arpa` stands for.
pub(super) fn reverse(name: &str) -> Option<IpAddr> {
    if let Some(rest) = name.strip_suffix(".in-addr.arpa") {
        let mut bytes = [0_u8; 4];
        let mut labels = rest.split('.');
        for byte in bytes.iter_mut().rev() {
            let label = labels.next()?;
            *byte = label.parse().ok().filter(|_| label == "0" || !label.starts_with(['0', '+']))?;
        }
        return labels.next().is_none().then(|| IpAddr::V4(bytes.into()));
    }
    let rest = name.strip_suffix(".ip6.arpa")?;
    let mut bits: u128 = 0;
    let mut count = 0_u32;
    for label in rest.split('.') {
        let digit = u128::from(char::from(*label.as_bytes().first()?).to_digit(16)?);
        if label.len() != 1 || count == 32 {
            return None;
        }
        bits |= digit << (4 * count);
        count += 1;
    }
    (count == 32).then(|| IpAddr::V6(bits.into()))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A query as a resolver writes it.
    pub(crate) fn ask(name: &str, kind: u16) -> Vec<u8> {
        let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend(write_name(name));
        message.extend(kind.to_be_bytes());
        message.extend([0, 1]);
        message
    }

    /// The answer's code and records, read independently of the writer.
    pub(crate) fn read(message: &[u8]) -> (u8, Vec<(u16, Vec<u8>)>) {
        let (_, mut at) = read_name(message, HEADER).expect("a question");
        at += 4;
        let mut found = Vec::new();
        for _ in 0..number(message, 6).expect("a count") {
            if message[at] & 0xc0 == 0xc0 {
                at += 2;
            } else {
                at = read_name(message, at).expect("a name").1;
            }
            let kind = number(message, at).expect("a type");
            let length = usize::from(number(message, at + 8).expect("a length"));
            found.push((kind, message[at + 10..at + 10 + length].to_vec()));
            at += 10 + length;
        }
        (message[3] & 15, found)
    }

    #[test]
    fn a_question_is_read_in_lower_case() {
        let query = Query::parse(&ask("Web.Example", A)).expect("a query");
        assert_eq!(query.name.as_deref(), Some("web.example"));
        assert!(query.wants(A) && !query.wants(AAAA) && query.is_internet());
    }

    #[test]
    fn what_is_no_query_is_ignored_or_refused() {
        let good = ask("a", A);
        assert_eq!(Query::parse(&good[..11]), Err(Malformed::Ignore));
        let mut response = good.clone();
        response[2] |= 0x80;
        assert_eq!(Query::parse(&response), Err(Malformed::Ignore));
        let mut two = good.clone();
        two[5] = 2;
        assert_eq!(Query::parse(&two), Err(Malformed::Answer(Code::FormatError)));
        let mut notify = good.clone();
        notify[2] = 0x20;
        assert_eq!(Query::parse(&notify), Err(Malformed::Answer(Code::NotImplemented)));
        let mut compressed = good;
        compressed[12] = 0xc0;
        assert_eq!(Query::parse(&compressed), Err(Malformed::Answer(Code::FormatError)));
    }

    #[test]
    fn a_long_udp_answer_is_cut_and_says_so() {
        let message = ask("many", A);
        let query = Query::parse(&message).expect("a query");
        let records: Vec<Data> = (0..100).map(|i| Data::Address(IpAddr::V4([10, 0, 0, i].into()))).collect();
        let cut = answer(&message, &query, Code::NoError, &records, true);
        assert!(cut.len() <= 512 && cut[2] & 2 != 0);
        let whole = answer(&message, &query, Code::NoError, &records, false);
        assert!(whole[2] & 2 == 0);
        assert_eq!(read(&whole).1.len(), 100);
    }

    #[test]
    fn edns_is_answered_and_raises_the_limit() {
        let mut message = ask("many", A);
        message[11] = 1;
        message.extend([0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
        let query = Query::parse(&message).expect("a query");
        let records: Vec<Data> = (0..60).map(|i| Data::Address(IpAddr::V4([10, 0, 0, i].into()))).collect();
        let out = answer(&message, &query, Code::NoError, &records, true);
        assert!(out.len() > 512 && out.len() <= 1232 && out[2] & 2 == 0);
        assert_eq!(out[out.len() - 11..][..3], [0, 0, 41]);
    }

    #[test]
    fn reverse_names_are_addresses() {
        assert_eq!(reverse("4.3.2.1.in-addr.arpa"), Some("1.2.3.4".parse().expect("an address")));
        assert_eq!(reverse("04.3.2.1.in-addr.arpa"), None);
        assert_eq!(reverse("3.2.1.in-addr.arpa"), None);
        let v6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
        assert_eq!(reverse(v6), Some("fd00::1".parse().expect("an address")));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(query) = Query::parse(&bytes) {
                let records = [Data::Address(IpAddr::V4([1, 2, 3, 4].into())), Data::Pointer("a.b".to_owned())];
                for udp in [true, false] {
                    let out = answer(&bytes, &query, Code::NoError, &records, udp);
                    prop_assert!(!udp || out.len() <= query.udp_size.max(query.end + 11));
                }
                query.bytes(&bytes);
            }
            is_failure(&bytes);
            answers(&bytes, 7, b"x");
            if bytes.len() > 3 { refusal(&bytes, Code::FormatError); }
        }

        #[test]
        fn damaged_queries_do_not_make_it_panic(at in 0_usize..40, to in any::<u8>(), cut in 0_usize..45) {
            let mut message = ask("web.example.internal", A);
            message[11] = 1;
            message.extend([0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
            let at = at.min(message.len() - 1);
            message[at] = to;
            message.truncate(cut.max(1));
            if let Ok(query) = Query::parse(&message) {
                answer(&message, &query, Code::NoSuchName, &[], true);
            }
        }

        #[test]
        fn names_survive(labels in prop::collection::vec("[a-z0-9_-]{1,20}", 1..6)) {
            let name = labels.join(".");
            let query = Query::parse(&ask(&name, SRV)).expect("a query");
            prop_assert_eq!(query.name, Some(name));
        }

        #[test]
        fn reverse_takes_any_text(text in ".{0,80}") {
            reverse(&text);
            reverse(&format!("{text}.ip6.arpa"));
            reverse(&format!("{text}.in-addr.arpa"));
        }
    }
}
