//! A container's `/dev`, filled while it is still detached.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, makedev, mkdirat, mknodat, symlinkat};
use rustix::mount::MountAttrFlags;
use rustix::pty::OpenptFlags;

use super::{MountError, about, filesystem};

/// Device nodes that every container has, all readable and writable by everyone (Docker's list).
const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Symbolic links that every container has.
const LINKS: [(&str, &str); 5] = [
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Directories that are mounted upon.
const DIRECTORIES: [&str; 3] = ["pts", "shm", "mqueue"];

/// Makes the `tmpfs` for `/dev` with the standard nodes, links and directories.
/// Expects a umask of 0.
///
/// # Errors
/// [`MountError`] with the node.
pub fn devices() -> Result<OwnedFd, MountError> {
    let options = [("mode", Some("755")), ("size", Some("65536k"))];
    let dev = filesystem("tmpfs", MountAttrFlags::MOUNT_ATTR_NOSUID, &options)?;
    for (name, major, minor) in NODES {
        about(
            format!("/dev/{name}"),
            make_node(dev.as_fd(), name, FileType::CharacterDevice, 0o666, (major, minor)),
        )?;
    }
    for (name, target) in LINKS {
        about(format!("/dev/{name}"), symlinkat(target, &dev, name))?;
    }
    if std::path::Path::new("/proc/kcore").exists() {
        about("/dev/core", symlinkat("/proc/kcore", &dev, "core"))?;
    }
    for name in DIRECTORIES {
        about(format!("/dev/{name}"), mkdirat(&dev, name, Mode::from_raw_mode(0o755)))?;
    }
    Ok(dev)
}

/// Makes a device node `name` in `directory`.
///
/// # Errors
/// Those of `mknodat(2)`.
pub fn make_node(
    directory: BorrowedFd<'_>,
    name: &str,
    kind: FileType,
    mode: u32,
    (major, minor): (u32, u32),
) -> rustix::io::Result<()> {
    mknodat(directory, name, kind, Mode::from_raw_mode(mode), makedev(major, minor))
}

/// Makes a new instance of `devpts` for `/dev/pts`.
///
/// # Errors
/// [`MountError`].
pub fn pseudo_terminals() -> Result<OwnedFd, MountError> {
    let options = [
        ("newinstance", None),
        ("ptmxmode", Some("0666")),
        ("mode", Some("0620")),
        ("gid", Some("5")), // group tty, by convention
    ];
    filesystem("devpts", MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC, &options)
}

/// Opens a new terminal of the instance `pts`: master and slave.
///
/// # Errors
/// Those of the system calls.
pub fn open_terminal(pts: BorrowedFd<'_>, rows: u16, columns: u16) -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    use rustix::fs::OFlags;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let master = rustix::fs::openat(pts, "ptmx", flags, Mode::empty())?;
    rustix::pty::unlockpt(&master)?;
    // By descriptor, not by name: a name could be anything by now (CVE-2025-52565).
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    if rows > 0 || columns > 0 {
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&master, size)?;
    }
    Ok((master, slave))
}
