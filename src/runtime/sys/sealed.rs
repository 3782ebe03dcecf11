//! Our own executable, out of reach of what it starts.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::CWD;
use rustix::io::Result;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::{MountAttributes, mount_setattr};

/// A detached read-only clone of the mount of our own executable, to be executed as `/proc/self/fd/N`.
///
/// A process started through it can be reached from a container as
/// `/proc/<pid>/exe`, but that cannot be opened for writing even by root: the clone
/// is read-only and appears in no mount table (CVE-2019-5736). `/proc/self/exe` of
/// the new process then reads `/`, so hand the real path on if it is needed.
/// The descriptor is close-on-exec, which does not keep it from being executed.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`; `ENOENT` if the executable was removed.
pub fn sealed_self() -> Result<OwnedFd> {
    let tree =
        open_tree(CWD, "/proc/self/exe", OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    mount_setattr(
        tree.as_fd(),
        false,
        MountAttributes { set: libc::MOUNT_ATTR_RDONLY, ..MountAttributes::default() },
    )?;
    Ok(tree)
}

#[cfg(test)]
mod root {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn the_sealed_executable_cannot_be_opened_for_writing_and_runs() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let sealed = sealed_self().expect("clone");
        let path = format!("/proc/self/fd/{}", sealed.as_raw_fd());
        // Opening it for writing is refused for two reasons here (it is also running),
        // so the mount is asked with something that only needs a writable one.
        std::fs::OpenOptions::new().write(true).open(&path).expect_err("not writable");
        let mode = std::fs::metadata(&path).expect("stat").permissions();
        let error = std::fs::set_permissions(&path, mode).expect_err("read-only");
        assert_eq!(error.raw_os_error(), Some(libc::EROFS));
        let mut magic = [0_u8; 4];
        std::io::Read::read_exact(&mut std::fs::File::open(&path).expect("readable"), &mut magic)
            .expect("read");
        assert_eq!(&magic, b"\x7fELF");
    }
}
