//! Ports of `EXPOSE`.

use super::ast::Word;
use crate::diagnostic::Diagnostic;

/// What one word of `EXPOSE` says, once expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposed {
    /// As image configs have them, ascending: `80/tcp`.
    pub ports: Vec<String>,
    /// An address or a host's port stood before it, which exposing has no use for.
    pub mapping: bool,
    /// The protocol was not in lower case.
    pub casing: Option<String>,
}

/// Reads `PORT[-PORT][/PROTOCOL]`; as Docker, also with `[ADDRESS:][HOST]:` before it, which means nothing.
///
/// # Errors
/// A number beyond 1–65535, a range that descends, or an unknown protocol.
pub fn exposed_ports(text: &str, word: &Word) -> Result<Exposed, Diagnostic> {
    let wrong = |why: String| {
        Diagnostic::error("invalid-port", format!("`{text}` is no port to expose: {why}"))
            .at(word.span, "")
            .help("write `EXPOSE 80`, `EXPOSE 53/udp` or `EXPOSE 8000-8010`")
    };
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let lower = protocol.to_ascii_lowercase();
    // `80/` is TCP.
    let known = if lower.is_empty() { "tcp" } else { lower.as_str() };
    if !["tcp", "udp", "sctp"].contains(&known) {
        return Err(wrong(format!("the protocol `{protocol}` is not tcp, udp or sctp")));
    }
    let (mapping, range) = match numbers.rsplit_once(':') {
        Some((_, range)) => (true, range),
        None => (false, numbers),
    };
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let number = |text: &str| {
        let valid = text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty();
        text.parse::<u16>()
            .ok()
            .filter(|_| valid)
            .ok_or_else(|| wrong(format!("`{text}` is no number up to 65535")))
    };
    let (from, to) = (number(first)?, number(last)?);
    if from > to {
        return Err(wrong("the range descends".to_owned()));
    }
    Ok(Exposed {
        ports: (from..=to).map(|port| format!("{port}/{known}")).collect(),
        mapping,
        casing: (protocol != lower).then(|| protocol.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Span;

    #[test]
    fn ports() {
        let word = Word { text: String::new(), span: Span::default() };
        let read =
            |text| exposed_ports(text, &word).map(|e| (e.ports.join(" "), e.mapping, e.casing.is_some()));
        let ok = |ports: &str, mapping, casing| Ok((ports.to_owned(), mapping, casing));
        assert_eq!(read("80"), ok("80/tcp", false, false));
        assert_eq!(read("80-82/UDP"), ok("80/udp 81/udp 82/udp", false, true));
        assert_eq!(read("127.0.0.1:8080:80/sctp"), ok("80/sctp", true, false));
        for wrong in ["", "x", "65536", "82-80", "80/foo", "+80", "80-"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
