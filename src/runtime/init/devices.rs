//! Host devices for a container: from paths and rule lines to nodes and access rules.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::{DeviceKind, DeviceNode, DeviceRule};
use crate::runtime::sys::Errno;
use crate::spec::DeviceSpec;

/// A device that cannot be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// The path cannot be looked at.
    #[error("cannot use device `{path}`")]
    Path {
        /// Host path.
        path: PathBuf,
        /// Cause.
        source: Errno,
    },
    /// The path is neither a device nor a directory with devices in it.
    #[error("`{path}` is not a device")]
    NotADevice {
        /// Host path.
        path: PathBuf,
    },
    /// Permissions other than letters of `rwm`.
    #[error("device permissions `{permissions}` of `{path}` are not letters of `rwm`")]
    Permissions {
        /// Host path.
        path: PathBuf,
        /// As written.
        permissions: String,
    },
    /// A rule line that is not like `c 1:3 rwm`.
    #[error("device rule `{rule}` is not of the form `c MAJOR:MINOR rwm`")]
    Rule {
        /// As written.
        rule: String,
    },
}

/// The nodes to make and the access to allow for `devices:` of a container.
///
/// Symbolic links are followed (the user chose the path). A directory gives all
/// devices below it, at the same places below the target. Nodes keep the host's
/// permission bits and owner.
///
/// # Errors
/// [`DeviceError`].
pub fn nodes(devices: &[DeviceSpec]) -> Result<(Vec<DeviceNode>, Vec<DeviceRule>), DeviceError> {
    let (mut nodes, mut rules) = (Vec::new(), Vec::new());
    for device in devices {
        let access = access(&device.permissions).ok_or_else(|| DeviceError::Permissions {
            path: device.source.clone(),
            permissions: device.permissions.clone(),
        })?;
        let found = below(&device.source, &device.target)?;
        if found.is_empty() {
            return Err(DeviceError::NotADevice { path: device.source.clone() });
        }
        for node in found {
            let (read, write, mknod) = access;
            let (kind, major, minor) = (Some(node.kind), Some(node.major), Some(node.minor));
            rules.push(DeviceRule { kind, major, minor, read, write, mknod });
            nodes.push(node);
        }
    }
    Ok((nodes, rules))
}

/// Nodes for all devices of the host, for a privileged container: what is in `/dev`
/// without what a container has of its own (`pts`, `shm`, `mqueue`, `console`, …).
///
/// # Errors
/// [`DeviceError::Path`] if `/dev` cannot be read.
pub fn all_nodes() -> Result<Vec<DeviceNode>, DeviceError> {
    let own = [
        "pts",
        "shm",
        "mqueue",
        "fd",
        "stdin",
        "stdout",
        "stderr",
        "console",
        "ptmx",
        "null",
        "zero",
        "full",
        "random",
        "urandom",
        "tty",
        ".lxc",
        ".lxd-mounts",
        ".udev",
    ];
    let failed = |e: std::io::Error| DeviceError::Path { path: "/dev".into(), source: e.into() };
    let mut nodes = Vec::new();
    for entry in std::fs::read_dir("/dev").map_err(failed)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_link = entry.file_type().is_ok_and(|t| t.is_symlink());
        if !is_link && !own.contains(&name.as_str()) {
            nodes.extend(below(&entry.path(), &format!("/dev/{name}"))?);
        }
    }
    nodes.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(nodes)
}

/// Access rules from lines such as `c 1:3 rwm` or `a *:* rwm` (`device_cgroup_rules`).
///
/// # Errors
/// [`DeviceError::Rule`] with the first line of another form.
pub fn rules(lines: &[String]) -> Result<Vec<DeviceRule>, DeviceError> {
    lines.iter().map(|line| rule(line).ok_or_else(|| DeviceError::Rule { rule: line.clone() })).collect()
}

fn rule(line: &str) -> Option<DeviceRule> {
    let mut words = line.split_whitespace();
    let (kind, numbers, letters) = (words.next()?, words.next()?, words.next()?);
    let kind = match kind {
        "a" => None,
        "b" => Some(DeviceKind::Block),
        "c" => Some(DeviceKind::Char),
        _ => return None,
    };
    let (major, minor) = numbers.split_once(':')?;
    let number = |text: &str| if text == "*" { Some(None) } else { text.parse::<u32>().ok().map(Some) };
    let (read, write, mknod) = access(letters)?;
    let rule = DeviceRule { kind, major: number(major)?, minor: number(minor)?, read, write, mknod };
    words.next().is_none().then_some(rule)
}

/// Read, write and mknod from letters; none for others.
fn access(letters: &str) -> Option<(bool, bool, bool)> {
    let valid = !letters.is_empty() && letters.chars().all(|c| "rwm".contains(c));
    valid.then(|| (letters.contains('r'), letters.contains('w'), letters.contains('m')))
}

/// The device at `source`, or all below it; empty if it is something else.
fn below(source: &Path, target: &str) -> Result<Vec<DeviceNode>, DeviceError> {
    let failed = |e: std::io::Error| DeviceError::Path { path: source.to_owned(), source: e.into() };
    let metadata = match std::fs::metadata(source) {
        Ok(metadata) => metadata,
        Err(error) => return Err(failed(error)),
    };
    let kind = metadata.file_type();
    if kind.is_dir() {
        let mut nodes = Vec::new();
        let mut entries: Vec<_> = std::fs::read_dir(source).map_err(failed)?.flatten().collect();
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            // Links would give devices twice, and may dangle.
            if entry.file_type().is_ok_and(|t| !t.is_symlink()) {
                let name = entry.file_name().to_string_lossy().into_owned();
                nodes.extend(below(&entry.path(), &format!("{}/{name}", target.trim_end_matches('/')))?);
            }
        }
        return Ok(nodes);
    }
    let kind = if kind.is_char_device() {
        DeviceKind::Char
    } else if kind.is_block_device() {
        DeviceKind::Block
    } else {
        return Ok(Vec::new());
    };
    Ok(vec![DeviceNode {
        path: target.to_owned(),
        kind,
        major: rustix::fs::major(metadata.rdev()),
        minor: rustix::fs::minor(metadata.rdev()),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
    }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_gives_a_node_and_its_access() {
        let spec = DeviceSpec {
            source: "/dev/null".into(),
            target: "/dev/nothing".to_owned(),
            permissions: "rw".to_owned(),
        };
        let (nodes, rules) = nodes(&[spec]).expect("device");
        assert_eq!((nodes[0].path.as_str(), nodes[0].major, nodes[0].minor), ("/dev/nothing", 1, 3));
        assert_eq!(rules[0].kind, Some(DeviceKind::Char));
        assert!(rules[0].read && rules[0].write && !rules[0].mknod);
    }

    #[test]
    fn what_is_no_device_is_refused() {
        let spec = |source: &str, permissions: &str| DeviceSpec {
            source: source.into(),
            target: "/x".to_owned(),
            permissions: permissions.to_owned(),
        };
        assert!(matches!(nodes(&[spec("/etc/passwd", "r")]), Err(DeviceError::NotADevice { .. })));
        assert!(matches!(nodes(&[spec("/nowhere", "r")]), Err(DeviceError::Path { .. })));
        assert!(matches!(nodes(&[spec("/dev/null", "rx")]), Err(DeviceError::Permissions { .. })));
    }

    #[test]
    fn rule_lines_are_read_whole() {
        let read = |line: &str| rules(&[line.to_owned()]);
        let rule = &read("b 8:* rm").expect("rule")[0];
        assert_eq!((rule.kind, rule.major, rule.minor), (Some(DeviceKind::Block), Some(8), None));
        assert!(rule.read && !rule.write && rule.mknod);
        for line in ["", "c 1:3", "x 1:3 r", "c 1 r", "c 1:3 rx", "c 1:3 r more"] {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
