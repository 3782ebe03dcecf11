//! Who has which name: pure look-ups over the endpoint records of the container's networks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::codec::{self, Data};
use crate::runtime::network::record::Record;
use crate::runtime::network::{DnsPlan, Zone};

/// What there is to say about a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// The name is ours; the records that were asked for, maybe none.
    Ours(Vec<Data>),
    /// The name is ours and nobody has it.
    Nobody,
    /// Somebody else may know.
    Elsewhere,
}

/// The names one container sees.
#[derive(Debug)]
pub(super) struct Names {
    zones: Vec<ZoneNames>,
    search: Vec<String>,
    links: Vec<(String, String)>,
    turn: usize,
}

#[derive(Debug)]
struct ZoneNames {
    zone: Zone,
    network: String,
    declared: BTreeSet<String>,
    addresses: BTreeMap<String, Vec<IpAddr>>,
    pointers: BTreeMap<IpAddr, String>,
    files: BTreeMap<String, (SystemTime, Record)>,
    seen: Option<Seen>,
}

/// When a directory was read and what its modification time was then.
#[derive(Debug, Clone, Copy)]
struct Seen {
    modified: SystemTime,
    read: SystemTime,
}

impl Seen {
    /// Whether nothing can have changed without a new modification time: file
    /// systems count time in ticks, so what was read in the tick of the last
    /// change may have missed a later one in the same tick.
    fn is_settled(&self) -> bool {
        const TICKS: Duration = Duration::from_millis(25);
        self.read.duration_since(self.modified).is_ok_and(|age| age > TICKS)
    }
}

impl Names {
    pub(super) fn new(plan: &DnsPlan) -> Self {
        Self {
            zones: plan
                .zones
                .iter()
                .map(|zone| ZoneNames {
                    zone: zone.clone(),
                    network: zone.network.to_ascii_lowercase(),
                    declared: zone.declared.iter().map(|n| n.to_ascii_lowercase()).collect(),
                    addresses: BTreeMap::new(),
                    pointers: BTreeMap::new(),
                    files: BTreeMap::new(),
                    seen: None,
                })
                .collect(),
            search: plan.search.iter().map(|s| s.trim_matches('.').to_ascii_lowercase()).collect(),
            links: plan
                .links
                .iter()
                .map(|(to, alias)| (alias.to_ascii_lowercase(), to.to_ascii_lowercase()))
                .collect(),
            turn: 0,
        }
    }

    /// Reads what came or went since the last look.
    pub(super) fn refresh(&mut self) {
        for zone in &mut self.zones {
            zone.refresh();
        }
    }

    /// Answers a question; `wants` tells which record types are asked for.
    pub(super) fn look_up(&mut self, name: &str, wants: &dyn Fn(u16) -> bool) -> Found {
        if name == "localhost" || name.ends_with(".localhost") {
            let both = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
            return Found::Ours(of_family(&both, wants));
        }
        if let Some(addresses) = self.addresses(name) {
            self.turn = self.turn.wrapping_add(1);
            let mut records = of_family(&addresses, wants);
            if !records.is_empty() {
                let middle = self.turn % records.len();
                records.rotate_left(middle);
            }
            return Found::Ours(records);
        }
        if let Some(service) = self.service(name) {
            return Found::Ours(if wants(codec::SRV) { vec![service] } else { Vec::new() });
        }
        if self.is_ours(name) {
            return Found::Nobody;
        }
        if let Some(address) = codec::reverse(name)
            && let Some(pointer) = self.zones.iter().find_map(|z| z.pointers.get(&address))
        {
            let pointer = Data::Pointer(pointer.clone());
            return Found::Ours(if wants(codec::PTR) { vec![pointer] } else { Vec::new() });
        }
        Found::Elsewhere
    }

    /// The addresses of a name on the first network that has it.
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        if let Some((_, to)) = self.links.iter().find(|(alias, _)| alias == name)
            && let Some(addresses) = self.zones.iter().find_map(|z| z.addresses.get(to))
        {
            return Some(addresses.clone());
        }
        self.zones
            .iter()
            .find_map(|zone| {
                let short = name.strip_suffix(&zone.network).and_then(|n| n.strip_suffix('.'));
                zone.addresses.get(name).or_else(|| zone.addresses.get(short?))
            })
            .cloned()
    }

    /// `_8080._tcp.web` when `web` is a name of ours.
    fn service(&self, name: &str) -> Option<Data> {
        let (port, rest) = name.strip_prefix('_')?.split_once('.')?;
        let (protocol, target) = rest.split_once('.')?;
        let port = port.parse().ok()?;
        if !matches!(protocol, "_tcp" | "_udp" | "_sctp") {
            return None;
        }
        self.addresses(target)?;
        Some(Data::Service { port, target: target.to_owned() })
    }

    /// Whether no upstream may be asked for the name: it is declared, or a name
    /// of ours with a search domain appended.
    fn is_ours(&self, name: &str) -> bool {
        let known = |name: &str| {
            self.links.iter().any(|(alias, _)| alias == name)
                || self.zones.iter().any(|zone| {
                    let short = name.strip_suffix(&zone.network).and_then(|n| n.strip_suffix('.'));
                    [Some(name), short]
                        .into_iter()
                        .flatten()
                        .any(|n| zone.declared.contains(n) || zone.addresses.contains_key(n))
                })
        };
        known(name)
            || self.search.iter().any(|domain| {
                name.strip_suffix(domain.as_str()).and_then(|n| n.strip_suffix('.')).is_some_and(known)
            })
    }
}

fn of_family(addresses: &[IpAddr], wants: &dyn Fn(u16) -> bool) -> Vec<Data> {
    let kind = |ip: &IpAddr| if ip.is_ipv4() { codec::A } else { codec::AAAA };
    addresses.iter().filter(|ip| wants(kind(ip))).map(|ip| Data::Address(*ip)).collect()
}

impl ZoneNames {
    fn refresh(&mut self) {
        let dir = self.zone.names.clone();
        let Ok(modified) = std::fs::metadata(&dir).and_then(|m| m.modified()) else {
            // The network is gone; so are its names.
            self.files.clear();
            self.index();
            self.seen = None;
            return;
        };
        if self.seen.is_some_and(|seen| seen.modified == modified && seen.is_settled()) {
            return;
        }
        let read = SystemTime::now();
        if self.read(&dir) {
            self.index();
        }
        self.seen = Some(Seen { modified, read });
    }

    /// Reads the records that are new or changed; whether any was, or went.
    fn read(&mut self, dir: &Path) -> bool {
        let Ok(entries) = std::fs::read_dir(dir) else { return false };
        let mut changed = false;
        let mut present = BTreeSet::new();
        for entry in entries.flatten() {
            let Ok(file) = entry.file_name().into_string() else { continue };
            if file.starts_with('.') {
                continue;
            }
            let Ok(modified) = entry.metadata().and_then(|m| m.modified()) else { continue };
            let known = self.files.get(&file).is_some_and(|(m, _)| *m == modified);
            if !known && let Some(record) = Record::read(&entry.path()) {
                self.files.insert(file.clone(), (modified, record));
                changed = true;
            }
            present.insert(file);
        }
        let before = self.files.len();
        self.files.retain(|file, _| present.contains(file));
        changed || self.files.len() != before
    }

    fn index(&mut self) {
        self.addresses.clear();
        self.pointers.clear();
        let boot = crate::util::files::boot_id().unwrap_or_default();
        for (_, record) in self.files.values().filter(|(_, record)| record.boot == boot) {
            for name in &record.names {
                let list = self.addresses.entry(name.to_ascii_lowercase()).or_default();
                list.extend(record.addresses.iter().copied());
            }
            for address in &record.addresses {
                self.pointers.insert(*address, format!("{}.{}", record.name, self.zone.network));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::util::files::boot_id;
    use crate::util::fs::write_json;

    fn record(dir: &Path, id: &str, names: &[&str], addresses: &[&str]) {
        let record = Record {
            version: 1,
            container: id.to_owned(),
            name: names[0].to_owned(),
            boot: boot_id().expect("a boot id"),
            addresses: addresses.iter().map(|a| a.parse().expect("an address")).collect(),
            names: names.iter().map(|n| (*n).to_owned()).collect(),
            ports: Vec::new(),
        };
        write_json(&dir.join(id), &record, false).expect("written");
    }

    fn names(dirs: &[(&str, PathBuf, &[&str])]) -> Names {
        Names::new(&DnsPlan {
            zones: dirs
                .iter()
                .map(|(network, names, declared)| Zone {
                    network: (*network).to_owned(),
                    names: names.clone(),
                    declared: declared.iter().map(|d| (*d).to_owned()).collect(),
                })
                .collect(),
            search: vec!["corp.example".to_owned()],
            upstreams: Vec::new(),
            forward: true,
            ipv6: false,
            links: vec![("db".to_owned(), "database".to_owned())],
        })
    }

    fn addresses(names: &mut Names, name: &str) -> Found {
        names.refresh();
        names.look_up(name, &|kind| kind == codec::A)
    }

    fn of(addresses: &[&str]) -> Found {
        Found::Ours(addresses.iter().map(|a| Data::Address(a.parse().expect("an address"))).collect())
    }

    #[test]
    fn names_come_and_go_with_their_records() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut n = names(&[("net", dir.path().to_owned(), &["web"])]);
        assert_eq!(addresses(&mut n, "web"), Found::Nobody);
        record(dir.path(), "1", &["p-web-1", "web"], &["10.0.0.2", "fd00::2"]);
        assert_eq!(addresses(&mut n, "web"), of(&["10.0.0.2"]));
        assert_eq!(addresses(&mut n, "web.net"), of(&["10.0.0.2"]));
        record(dir.path(), "2", &["p-web-2", "web"], &["10.0.0.3"]);
        assert_eq!(addresses(&mut n, "web"), of(&["10.0.0.3", "10.0.0.2"]).clone());
        assert_eq!(addresses(&mut n, "web"), of(&["10.0.0.2", "10.0.0.3"]));
        record(dir.path(), "1", &["p-web-1", "web"], &["10.0.0.9"]);
        std::fs::remove_file(dir.path().join("2")).expect("removed");
        assert_eq!(addresses(&mut n, "web"), of(&["10.0.0.9"]));
        std::fs::remove_file(dir.path().join("1")).expect("removed");
        assert_eq!(addresses(&mut n, "web"), Found::Nobody);
    }

    #[test]
    fn declared_names_never_leave_also_with_a_search_domain() {
        let dir = tempfile::tempdir().expect("a directory");
        record(dir.path(), "1", &["other"], &["10.0.0.2"]);
        let mut n = names(&[("net", dir.path().to_owned(), &["web"])]);
        for name in
            ["web", "web.corp.example", "web.net", "other.corp.example", "database", "web.net.corp.example"]
        {
            assert_eq!(addresses(&mut n, name), Found::Nobody, "{name}");
        }
        for name in ["web.example", "corp.example", "www.corp.example", "webcorp.example"] {
            assert_eq!(addresses(&mut n, name), Found::Elsewhere, "{name}");
        }
    }

    #[test]
    fn the_first_network_with_the_name_wins() {
        let (a, b) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        record(a.path(), "1", &["x"], &["10.0.0.2"]);
        record(b.path(), "1", &["x"], &["10.1.0.2"]);
        record(b.path(), "2", &["db"], &["10.1.0.3"]);
        let mut n = names(&[("a", a.path().to_owned(), &[]), ("b", b.path().to_owned(), &[])]);
        assert_eq!(addresses(&mut n, "x"), of(&["10.0.0.2"]));
        assert_eq!(addresses(&mut n, "x.b"), of(&["10.1.0.2"]));
        assert_eq!(addresses(&mut n, "database"), of(&["10.1.0.3"]));
    }

    #[test]
    fn a_missing_family_is_empty_not_elsewhere() {
        let dir = tempfile::tempdir().expect("a directory");
        record(dir.path(), "1", &["x"], &["10.0.0.2"]);
        let mut n = names(&[("net", dir.path().to_owned(), &[])]);
        n.refresh();
        assert_eq!(n.look_up("x", &|kind| kind == codec::AAAA), Found::Ours(Vec::new()));
        assert_eq!(
            n.look_up("2.0.0.10.in-addr.arpa", &|kind| kind == codec::PTR),
            Found::Ours(vec![Data::Pointer("x.net".to_owned())])
        );
        assert_eq!(
            n.look_up("_80._tcp.x", &|kind| kind == codec::SRV),
            Found::Ours(vec![Data::Service { port: 80, target: "x".to_owned() }])
        );
    }
}
