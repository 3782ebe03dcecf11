//! New file systems and clones of existing trees, detached.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, open_tree,
};

use super::{MountError, about};
use crate::runtime::sys::{MountAttributes, mount_setattr};

/// Makes a new instance of file system `kind` and returns its detached mount.
///
/// An option without a value is a flag. The instance belongs to the namespaces of
/// the caller (`proc` to its PID namespace, `mqueue` to its IPC namespace, …).
///
/// # Errors
/// [`MountError`] with the file system, or the option that was refused.
pub fn filesystem(
    kind: &str,
    attributes: MountAttrFlags,
    options: &[(&str, Option<&str>)],
) -> Result<OwnedFd, MountError> {
    let context = about(kind, fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC))?;
    // The name that mount tables show.
    if !options.iter().any(|(key, _)| *key == "source") {
        about(kind, fsconfig_set_string(&context, "source", kind))?;
    }
    for (key, value) in options {
        let result = match value {
            Some(value) => fsconfig_set_string(&context, *key, *value),
            None => fsconfig_set_flag(&context, *key),
        };
        about(format!("{kind} option {key}"), result)?;
    }
    about(kind, fsconfig_create(&context))?;
    about(kind, fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes))
}

/// Clones the tree at host path `path`, following symbolic links.
///
/// # Errors
/// [`MountError`] with the path.
pub fn bind(path: &Path, recursive: bool) -> Result<OwnedFd, MountError> {
    about(path.display().to_string(), open_tree(CWD, path, clone_flags(recursive)))
}

/// Clones the tree that `place` refers to.
///
/// # Errors
/// `EINVAL` if it is in another mount namespace.
pub fn clone_tree(place: BorrowedFd<'_>, recursive: bool) -> rustix::io::Result<OwnedFd> {
    // AT_EMPTY_PATH has no name among rustix's flags.
    let empty_path = OpenTreeFlags::from_bits_retain(libc::AT_EMPTY_PATH.cast_unsigned());
    open_tree(place, "", clone_flags(recursive) | empty_path)
}

fn clone_flags(recursive: bool) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let deep = OpenTreeFlags::from_bits_retain(libc::AT_RECURSIVE.cast_unsigned());
    if recursive { flags | deep } else { flags }
}

/// Sets attribute bits and the propagation of a detached mount.
///
/// # Errors
/// Those of `mount_setattr(2)`.
pub fn set_attributes(
    mount: BorrowedFd<'_>,
    recursive: bool,
    set: MountAttrFlags,
    propagation: u64,
) -> rustix::io::Result<()> {
    mount_setattr(mount, recursive, MountAttributes { set: u64::from(set.bits()), clear: 0, propagation })
}

/// Makes a `tmpfs` as `tmpfs:` in Compose asks for: `nosuid`, `nodev` and `noexec`
/// unless an option says otherwise.
///
/// `options` are those of `mount(8)`: flags, and keys of the file system.
///
/// # Errors
/// [`MountError`] with the option that was refused.
pub fn tmpfs(
    size: Option<u64>,
    mode: Option<u32>,
    options: &[String],
    read_only: bool,
) -> Result<OwnedFd, MountError> {
    use MountAttrFlags as A;
    let mut attributes = A::MOUNT_ATTR_NOSUID | A::MOUNT_ATTR_NODEV | A::MOUNT_ATTR_NOEXEC;
    if read_only {
        attributes |= A::MOUNT_ATTR_RDONLY;
    }
    let size = size.map(|s| s.to_string());
    let mode = format!("{:o}", mode.unwrap_or(0o1777));
    let mut keys: Vec<(&str, Option<&str>)> = vec![("mode", Some(&mode))];
    if let Some(size) = &size {
        keys.push(("size", Some(size)));
    }
    for option in options {
        match option.as_str() {
            "ro" => attributes |= A::MOUNT_ATTR_RDONLY,
            "rw" => attributes -= A::MOUNT_ATTR_RDONLY,
            "suid" => attributes -= A::MOUNT_ATTR_NOSUID,
            "nosuid" => attributes |= A::MOUNT_ATTR_NOSUID,
            "dev" => attributes -= A::MOUNT_ATTR_NODEV,
            "nodev" => attributes |= A::MOUNT_ATTR_NODEV,
            "exec" => attributes -= A::MOUNT_ATTR_NOEXEC,
            "noexec" => attributes |= A::MOUNT_ATTR_NOEXEC,
            "noatime" => attributes |= A::MOUNT_ATTR_NOATIME,
            "strictatime" => attributes |= A::MOUNT_ATTR_STRICTATIME,
            "nodiratime" => attributes |= A::MOUNT_ATTR_NODIRATIME,
            "relatime" | "atime" | "diratime" | "defaults" | "async" => {}
            other => match other.split_once('=') {
                Some((key, value)) => {
                    keys.retain(|(k, _)| *k != key);
                    keys.push((key, Some(value)));
                }
                None => keys.push((other, None)),
            },
        }
    }
    filesystem("tmpfs", attributes, &keys)
}
