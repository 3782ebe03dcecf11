//! Short syntaxes of one scalar: ports, volumes, devices, commands.
//!
//! Source: `reference/model.md` §12, checked against the peer. Pure text in, parts out.

/// A short volume, taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Volume {
    /// `bind` or `volume`.
    pub(super) kind: &'static str,
    pub(super) source: Option<String>,
    pub(super) target: String,
    pub(super) read_only: bool,
    pub(super) propagation: Option<String>,
    pub(super) selinux: Option<String>,
    pub(super) nocopy: bool,
    /// Too short to get a `volume: {}`, an artefact that shows in the hash.
    pub(super) tiny: bool,
}

/// Takes `[SOURCE:]TARGET[:OPTIONS]` apart.
pub(super) fn volume(spec: &str) -> Result<Volume, String> {
    let mut out = Volume { kind: "volume", ..Volume::default() };
    if spec.is_empty() {
        return Err("invalid empty volume spec".to_owned());
    }
    if spec.chars().count() <= 2 {
        out.target = clean(spec);
        out.tiny = true;
        return Ok(out);
    }
    let mut fields: Vec<String> = Vec::new();
    let mut field = String::new();
    let mut chars = spec.chars().peekable();
    let mut depth = 0_usize;
    while let Some(c) = chars.next() {
        if c == '$' && chars.peek() == Some(&'{') {
            depth += 1;
        } else if c == '}' && depth > 0 {
            depth -= 1;
        }
        if c == ':' && depth == 0 {
            let mut letters = field.chars();
            let drive = matches!((letters.next(), letters.next()), (Some(l), None) if l.is_alphabetic());
            if !drive {
                if field.is_empty() {
                    return Err(format!("invalid spec: {spec}: empty section between colons"));
                }
                fields.push(std::mem::take(&mut field));
                continue;
            }
        }
        field.push(c);
    }
    if field.is_empty() {
        return Err(format!("invalid spec: {spec}: empty section between colons"));
    }
    fields.push(field);
    match fields.len() {
        1 => {
            out.target = clean(&fields[0]);
            return Ok(out);
        }
        2 | 3 => {}
        _ => return Err(format!("invalid spec: {spec}: too many colons")),
    }
    if let Some(options) = fields.get(2) {
        for option in options.split(',') {
            match option {
                "ro" => out.read_only = true,
                "rw" => out.read_only = false,
                "nocopy" => out.nocopy = true,
                "z" | "Z" => out.selinux = Some(option.to_owned()),
                "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => {
                    out.propagation = Some(option.to_owned());
                }
                // Docker Compose drops all others silently, `cached` and its kin included.
                _ => {}
            }
        }
    }
    let source = fields.swap_remove(0);
    let target = if fields.len() == 2 { fields.swap_remove(1) } else { fields.swap_remove(0) };
    out.target = clean(&target);
    let bytes = source.as_bytes();
    let drive = bytes.len() > 1 && bytes[1] == b':' && bytes[0].is_ascii_alphabetic();
    if source.starts_with(['.', '/', '~']) || source.starts_with("\\\\") || drive {
        out.kind = "bind";
    }
    out.source = Some(source);
    Ok(out)
}

/// A slash path without `.`, `..` and double slashes; empty stays empty.
pub(super) fn clean(path: &str) -> String {
    if path.is_empty() {
        return String::new();
    }
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.last().is_some_and(|p| *p != "..") {
                    parts.pop();
                } else if !rooted {
                    parts.push("..");
                }
            }
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// One published port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) host_ip: Option<String>,
    pub(super) target: u16,
    pub(super) published: Option<String>,
    pub(super) protocol: String,
}

/// Expands `[[IP:][HOST]:]CONTAINER[/PROTO]` into one port per container port.
pub(super) fn ports(spec: &str) -> Result<Vec<Port>, String> {
    let mut parts = spec.split('/');
    let rest = parts.next().unwrap_or_default();
    // What follows a second slash is not looked at.
    let protocol = parts.next().filter(|p| !p.is_empty()).unwrap_or("tcp").to_lowercase();
    let (ip, host, container) = match rest.rsplit_once(':') {
        None => ("", "", rest),
        Some((front, container)) => match front.rsplit_once(':') {
            None => ("", front, container),
            Some((ip, host)) => (ip, host, container),
        },
    };
    if container.is_empty() {
        return Err(format!("no port specified: {spec}<empty>"));
    }
    let (from, to) = range(container).ok_or_else(|| format!("invalid containerPort: {container}"))?;
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("invalid proto: {protocol}"));
    }
    let host_range = if host.is_empty() {
        None
    } else {
        Some(range(host).ok_or_else(|| format!("invalid hostPort: {host}"))?)
    };
    let host_ip = if ip.is_empty() {
        None
    } else {
        let bare = match ip.strip_prefix('[').and_then(|i| i.strip_suffix(']')) {
            Some(bare) => bare,
            None if ip.contains(':') => return Err(format!("invalid IP address: {ip}, put it in brackets")),
            None => ip,
        };
        bare.parse::<std::net::IpAddr>().map_err(|_| format!("invalid IP address: {ip}"))?;
        Some(bare.to_owned())
    };
    if let Some((first, last)) = host_range
        && last - first != to - from
        && to != from
    {
        return Err(format!("invalid ranges specified for container and host Ports: {container} and {host}"));
    }
    let mut out: Vec<Port> = (from..=to)
        .map(|target| {
            let published = host_range.map(|(first, last)| {
                if to == from && first != last {
                    format!("{first}-{last}")
                } else {
                    (first + (target - from)).to_string()
                }
            });
            Port { host_ip: host_ip.clone(), target, published, protocol: protocol.clone() }
        })
        .collect();
    out.sort_by_key(|p| format!("{}/{}", p.target, p.protocol));
    Ok(out)
}

fn range(text: &str) -> Option<(u16, u16)> {
    let number = |t: &str| t.bytes().all(|b| b.is_ascii_digit()).then(|| t.parse::<u16>().ok()).flatten();
    match text.split_once('-') {
        None => number(text).map(|n| (n, n)),
        Some((a, b)) => {
            let (a, b) = (number(a)?, number(b)?);
            (a <= b).then_some((a, b))
        }
    }
}

/// Splits a command line into words as Compose does: quotes and backslashes, no variables;
/// everything from an unquoted `;`, `&`, `|`, `<` or `>` on is dropped.
pub(super) fn words(line: &str) -> Result<Vec<String>, String> {
    let invalid = || "invalid command line string".to_owned();
    let mut out: Vec<String> = Vec::new();
    let mut word = String::new();
    let mut started = false;
    let (mut single, mut double, mut back) = (false, false, false);
    let mut dollar = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\\' && !single {
            let Some(next) = chars.next() else { return Err(invalid()) };
            word.push(next);
            started = true;
            continue;
        }
        if single {
            if c == '\'' {
                single = false;
            } else {
                word.push(c);
            }
            continue;
        }
        match c {
            '`' if !dollar => {
                back = !back;
                word.push(c);
                started = true;
            }
            '(' if dollar => return Err(invalid()),
            '(' if !back && !double && word.ends_with('$') => {
                dollar = true;
                word.push(c);
            }
            ')' if dollar => {
                dollar = false;
                word.push(c);
            }
            _ if back || dollar => {
                word.push(c);
            }
            '"' => {
                double = !double;
                started = true;
            }
            _ if double => word.push(c),
            '\'' => {
                single = true;
                started = true;
            }
            c if c.is_ascii_whitespace() => {
                if started {
                    out.push(std::mem::take(&mut word));
                    started = false;
                }
            }
            '(' | ')' => return Err(invalid()),
            ';' | '&' | '|' | '<' | '>' => {
                if c == '>' && !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit()) {
                    started = false;
                }
                if started {
                    out.push(std::mem::take(&mut word));
                }
                return Ok(out);
            }
            c => {
                word.push(c);
                started = true;
            }
        }
    }
    if single || double || back || dollar {
        return Err(invalid());
    }
    if started {
        out.push(word);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_every_form() {
        let one = |spec| {
            let p = ports(spec).expect(spec).remove(0);
            (p.host_ip, p.published, p.target, p.protocol)
        };
        let text = |s: &str| Some(s.to_owned());
        assert_eq!(one("80"), (None, None, 80, "tcp".into()));
        assert_eq!(one("8080:80/UDP"), (None, text("8080"), 80, "udp".into()));
        assert_eq!(one("127.0.0.1::80"), (text("127.0.0.1"), None, 80, "tcp".into()));
        assert_eq!(one("[::1]:1:2"), (text("::1"), text("1"), 2, "tcp".into()));
        assert_eq!(one("1-3:2"), (None, text("1-3"), 2, "tcp".into()));
        assert_eq!(ports("1-3:4-6").expect("a range").len(), 3);
        assert_eq!(one("1:2/udp/x"), (None, text("1"), 2, "udp".into()));
        for bad in ["", "a", "1:", "127.0.0.1:80", "3-1", "1-2:1-3", "80/x", "70000"] {
            assert!(ports(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn volumes_of_every_form() {
        let parts = |spec| {
            let v = volume(spec).expect(spec);
            (v.kind, v.source.unwrap_or_default(), v.target)
        };
        assert_eq!(parts("./a:/b:ro"), ("bind", "./a".into(), "/b".into()));
        assert_eq!(parts("data:/b/../c/"), ("volume", "data".into(), "/c".into()));
        assert_eq!(parts("v:/data"), ("volume", String::new(), "v:/data".into()));
        assert_eq!(parts("C:\\x:/y:ro"), ("bind", "C:\\x".into(), "/y".into()));
        assert!(volume("aa:bb:cc:dd").is_err());
        assert!(volume("aa::cc").is_err());
    }

    #[test]
    fn words_of_a_command_line() {
        let all = |line| words(line).expect(line);
        assert_eq!(all("a  'b c' \"d e\" f\\ g"), ["a", "b c", "d e", "f g"]);
        assert_eq!(all("echo hi; rm"), ["echo", "hi"]);
        assert_eq!(all("echo 2> x"), ["echo"]);
        assert_eq!(all("echo $(date +%s) x"), ["echo", "$(date +%s)", "x"]);
        assert!(words("a 'b").is_err());
        assert!(words("a (b").is_err());
        assert!(words("a $(b (c)) d").is_err(), "parentheses do not nest");
    }
}
