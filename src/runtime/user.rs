//! Who a process runs as: user and group words looked up in the container's own files.
//!
//! Owns the rules of `/etc/passwd` and `/etc/group` look-ups and where these
//! files are before a container runs (in its layers) and while it runs (below
//! its root). Image content is hostile: it is read through `openat2` inside the
//! layer, up to a limit, and never followed out.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

/// Bytes of a file looked at, at most.
const LIMIT: u64 = 16 << 20;

/// Who a process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups, ascending; the primary one is among them, as Docker has it.
    pub groups: Vec<u32>,
    /// Home directory; `/` when the user is not in `/etc/passwd`.
    pub home: String,
}

/// A word that names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// The user is not in `/etc/passwd`.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    /// The group is not in `/etc/group`.
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    /// A number that is none, or too big.
    #[error("invalid user or group id {0}: expected 0 to 2147483647")]
    Number(String),
    /// The files cannot be read.
    #[error("cannot read /etc/{file} of the container: {reason}")]
    Read {
        /// `passwd` or `group`.
        file: &'static str,
        /// Why.
        reason: String,
    },
}

/// Looks up `user[:group]` and further groups.
///
/// A user by name must exist; a number need not, and then has group 0 and home
/// `/`. Without a group the user's own is taken, and the groups of `/etc/group`
/// that list the user's name are added; with a group they are not.
///
/// # Errors
/// [`UserError`].
///
/// # Source
/// `moby/sys/user`, `GetExecUser` and `GetAdditionalGroups` (behaviour).
pub fn identify(words: &str, more: &[String], passwd: &[u8], group: &[u8]) -> Result<Identity, UserError> {
    let (user, chosen) = match words.split_once(':') {
        Some((user, chosen)) => (user, (!chosen.is_empty()).then_some(chosen)),
        None => (words, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = parse_id(user)?;
    let entry = lines(passwd).find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid: u32 = fields.nth(1)?.parse().ok()?;
        let gid: u32 = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or_default();
        (name == user || number == Some(uid)).then(|| (name.to_owned(), uid, gid, home.to_owned()))
    });
    let (name, uid, own_gid, home) = match (entry, number) {
        (Some(entry), _) => entry,
        (None, Some(uid)) => (String::new(), uid, 0, String::new()),
        (None, None) => return Err(UserError::NoUser(user.to_owned())),
    };
    let mut groups = Vec::new();
    let gid = if let Some(chosen) = chosen {
        group_id(chosen, group)?
    } else {
        if !name.is_empty() {
            groups.extend(
                group_lines(group).filter(|g| g.members.split(',').any(|m| m == name)).map(|g| g.gid),
            );
        }
        own_gid
    };
    groups.push(gid);
    for word in more {
        groups.push(group_id(word, group)?);
    }
    groups.sort_unstable();
    groups.dedup();
    Ok(Identity { uid, gid, groups, home: if home.is_empty() { "/".to_owned() } else { home } })
}

fn parse_id(word: &str) -> Result<Option<u32>, UserError> {
    if word.is_empty() || !word.bytes().all(|c| c.is_ascii_digit()) {
        return Ok(None);
    }
    match word.parse::<u32>() {
        Ok(id) if i32::try_from(id).is_ok() => Ok(Some(id)),
        _ => Err(UserError::Number(word.to_owned())),
    }
}

fn group_id(word: &str, group: &[u8]) -> Result<u32, UserError> {
    if let Some(line) = group_lines(group).find(|g| g.name == word) {
        return Ok(line.gid);
    }
    parse_id(word)?.ok_or_else(|| UserError::NoGroup(word.to_owned()))
}

struct GroupLine<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn group_lines(text: &[u8]) -> impl Iterator<Item = GroupLine<'_>> {
    lines(text).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(GroupLine { name, gid, members: fields.next().unwrap_or_default() })
    })
}

fn lines(text: &[u8]) -> impl Iterator<Item = &str> {
    text.split(|b| *b == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok())
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// A container's root file system, for reading single files of it.
#[derive(Debug)]
pub enum RootFiles {
    /// Not mounted: these directories over each other, topmost first.
    Layers(Vec<PathBuf>),
    /// Mounted: the directory `/proc/<pid>/root`.
    Mounted(OwnedFd),
}

impl RootFiles {
    /// The root of a running process.
    ///
    /// # Errors
    /// The process is gone.
    pub fn of_process(pid: i32) -> io::Result<Self> {
        let path = format!("/proc/{pid}/root");
        Ok(Self::Mounted(rustix::fs::open(
            path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?))
    }

    /// `/etc/<name>`; empty when it does not exist.
    ///
    /// # Errors
    /// It exists and cannot be read.
    pub fn etc(&self, name: &'static str) -> Result<Vec<u8>, UserError> {
        let failed = |e: io::Error| UserError::Read { file: name, reason: e.to_string() };
        match self {
            Self::Mounted(root) => match open_inside(root, &format!("etc/{name}")) {
                Ok(file) => read_limited(file).map_err(failed),
                Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(Vec::new()),
                Err(error) => Err(failed(error.into())),
            },
            Self::Layers(layers) => merged(layers, &format!("etc/{name}")).map_err(failed),
        }
    }
}

fn open_inside(root: impl AsFd, path: &str) -> rustix::io::Result<File> {
    // NONBLOCK: the name may be a FIFO, and must not hold us up.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
        .map(File::from)
}

fn read_limited(file: File) -> io::Result<Vec<u8>> {
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut text = Vec::new();
    file.take(LIMIT).read_to_end(&mut text)?;
    Ok(text)
}

/// What overlay would show at a path, read without a mount.
///
/// Each component is looked up from the topmost layer down, honouring
/// whiteouts, opaque directories and symbolic links (relative to the merged
/// root). Empty when it does not exist.
fn merged(layers: &[PathBuf], path: &str) -> io::Result<Vec<u8>> {
    let mut todo: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
    let mut at = PathBuf::new();
    // Layers in which the directory `at` is visible.
    let mut visible: Vec<&Path> = layers.iter().map(PathBuf::as_path).collect();
    let mut links = 0;
    while let Some(part) = todo.pop() {
        match part.as_str() {
            "" | "." => continue,
            ".." => {
                at.pop();
                let parts: Vec<String> = at.iter().map(|p| p.to_string_lossy().into_owned()).collect();
                todo.extend(parts.into_iter().rev());
                at = PathBuf::new();
                visible = layers.iter().map(PathBuf::as_path).collect();
                continue;
            }
            _ => {}
        }
        let here = at.join(&part);
        let mut below = Vec::new();
        let mut followed = false;
        for layer in &visible {
            let full = layer.join(&here);
            let Ok(meta) = std::fs::symlink_metadata(&full) else { continue };
            let kind = meta.file_type();
            if below.is_empty() {
                if is_whiteout(&meta) {
                    return Ok(Vec::new());
                }
                if kind.is_symlink() {
                    links += 1;
                    if links > 40 {
                        return Err(io::Error::other("too many symbolic links"));
                    }
                    let target = std::fs::read_link(&full)?;
                    if target.is_absolute() {
                        at = PathBuf::new();
                        visible = layers.iter().map(PathBuf::as_path).collect();
                    }
                    let parts: Vec<String> = target.to_string_lossy().split('/').map(str::to_owned).collect();
                    todo.extend(parts.into_iter().rev());
                    followed = true;
                    break;
                }
                if kind.is_file() {
                    if todo.is_empty() {
                        let dir = rustix::fs::openat2(
                            CWD,
                            *layer,
                            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                            Mode::empty(),
                            ResolveFlags::empty(),
                        )?;
                        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
                        let file = openat2(
                            &dir,
                            &here,
                            flags,
                            Mode::empty(),
                            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
                        )?;
                        return read_limited(File::from(file));
                    }
                    return Ok(Vec::new());
                }
                if !kind.is_dir() {
                    return Ok(Vec::new());
                }
            } else if !kind.is_dir() {
                break; // a file or whiteout hides what is further below
            }
            below.push(*layer);
            if is_opaque(&full) {
                break;
            }
        }
        if followed {
            continue;
        }
        if below.is_empty() {
            return Ok(Vec::new());
        }
        visible = below;
        at = here;
    }
    Ok(Vec::new())
}

fn is_whiteout(meta: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
    meta.file_type().is_char_device() && meta.rdev() == 0
}

fn is_opaque(dir: &Path) -> bool {
    let mut value = [0_u8; 1];
    ["trusted.overlay.opaque", "user.overlay.opaque"]
        .iter()
        .any(|name| matches!(rustix::fs::lgetxattr(dir, *name, &mut value), Ok(1)) && value[0] == b'y')
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nwww:x:33:34:w:/var/www:/bin/false\n# c\nbad\n";
    const GROUP: &[u8] = b"root:x:0:\nwheel:x:10:root\nweb:x:34:\nlogs:x:50:nobody,www\n7:x:70:\n";

    fn id(words: &str, more: &[&str]) -> Result<(u32, u32, Vec<u32>, String), UserError> {
        let more: Vec<String> = more.iter().map(|s| (*s).to_owned()).collect();
        identify(words, &more, PASSWD, GROUP).map(|i| (i.uid, i.gid, i.groups, i.home))
    }

    #[test]
    fn words_become_ids_as_on_docker() {
        assert_eq!(id("", &[]).unwrap(), (0, 0, vec![0, 10], "/root".into()));
        assert_eq!(id("www", &[]).unwrap(), (33, 34, vec![34, 50], "/var/www".into()));
        assert_eq!(id("33", &[]).unwrap(), (33, 34, vec![34, 50], "/var/www".into()));
        assert_eq!(id("www:logs", &[]).unwrap(), (33, 50, vec![50], "/var/www".into()));
        assert_eq!(id("1234", &[]).unwrap(), (1234, 0, vec![0], "/".into()));
        assert_eq!(id("1234:99", &["web", "5"]).unwrap(), (1234, 99, vec![5, 34, 99], "/".into()));
        assert_eq!(id("0:7", &[]).unwrap().1, 70, "a group named by digits wins over the number");
        assert_eq!(id("nobody", &[]), Err(UserError::NoUser("nobody".into())));
        assert_eq!(id("0:nogroup", &[]), Err(UserError::NoGroup("nogroup".into())));
        assert_eq!(id("4294967295", &[]), Err(UserError::Number("4294967295".into())));
    }

    #[test]
    fn files_are_found_as_overlay_would_show_them() {
        let dir = tempfile::tempdir().unwrap();
        let layer = |name: &str, files: &[(&str, &str)]| {
            let path = dir.path().join(name);
            for (file, text) in files {
                let file = path.join(file);
                std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                std::fs::write(file, text).unwrap();
            }
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        let base = layer("base", &[("etc/passwd", "base"), ("etc/group", "base"), ("outside", "base")]);
        let middle = layer("middle", &[("etc/group", "middle")]);
        let top = layer("top", &[]);
        let files = |layers: &[&PathBuf]| RootFiles::Layers(layers.iter().map(|p| (*p).clone()).collect());
        assert_eq!(files(&[&top, &middle, &base]).etc("group").unwrap(), b"middle");
        assert_eq!(files(&[&top, &middle, &base]).etc("passwd").unwrap(), b"base");
        assert_eq!(files(&[&top]).etc("passwd").unwrap(), b"");
        // A link is followed inside the merged root, never out of it.
        let links = layer("links", &[("real/passwd", "linked")]);
        std::os::unix::fs::symlink("/real", links.join("etc")).unwrap();
        assert_eq!(files(&[&links, &base]).etc("passwd").unwrap(), b"linked");
        let out = layer("out", &[]);
        std::fs::create_dir(out.join("etc")).unwrap();
        std::os::unix::fs::symlink("../../../../outside", out.join("etc/passwd")).unwrap();
        assert_eq!(files(&[&out, &base]).etc("passwd").unwrap(), b"base");
        std::os::unix::fs::symlink("group", out.join("etc/group")).unwrap();
        assert!(files(&[&out, &base]).etc("group").is_err(), "a loop ends");
    }

    mod root {
        use super::*;

        #[test]
        fn whiteouts_hide_what_is_below() {
            let dir = tempfile::tempdir().unwrap();
            let (base, top) = (dir.path().join("base"), dir.path().join("top"));
            std::fs::create_dir_all(base.join("etc")).unwrap();
            std::fs::create_dir_all(top.join("etc")).unwrap();
            std::fs::write(base.join("etc/passwd"), "x").unwrap();
            let node = rustix::fs::mknodat(
                CWD,
                top.join("etc/passwd"),
                rustix::fs::FileType::CharacterDevice,
                Mode::empty(),
                0,
            );
            if node.is_err() {
                assert!(!rustix::process::geteuid().is_root(), "root makes nodes");
                return;
            }
            assert_eq!(RootFiles::Layers(vec![top, base]).etc("passwd").unwrap(), b"");
        }
    }
}
