//! Descriptor ranges and the raw working directory.

use rustix::io::Result;

use super::check;

/// Marks all descriptors from `first` on close-on-exec (Linux 5.11).
///
/// # Errors
/// Those of `close_range(2)`.
pub fn set_cloexec_from(first: u32) -> Result<()> {
    close_range(first, libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes all descriptors from `first` on.
///
/// The caller must not hold an `OwnedFd` at or above `first` that it still uses:
/// it would refer to nothing, or to somebody else's file later.
///
/// # Errors
/// Those of `close_range(2)`.
pub fn close_from(first: u32) -> Result<()> {
    close_range(first, 0)
}

fn close_range(first: u32, flags: libc::c_uint) -> Result<()> {
    // SAFETY: closing descriptors touches no memory; that no `OwnedFd` in use is
    // among them is the documented duty of the caller.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, flags) }).map(drop)
}

/// The working directory as the kernel says it: starts with `(unreachable)` instead
/// of `/` when it lies outside the root (C libraries hide that).
///
/// # Errors
/// Those of `getcwd(2)`.
pub fn getcwd_raw() -> Result<Vec<u8>> {
    let mut buffer = vec![0_u8; libc::PATH_MAX as usize];
    // SAFETY: the kernel writes at most `len` bytes into `buffer`.
    let length = check(unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) })?;
    // The length includes the terminating null byte.
    buffer.truncate(usize::try_from(length).unwrap_or(0).saturating_sub(1));
    Ok(buffer)
}
