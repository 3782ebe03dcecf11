//! Installing a system call filter.

use rustix::io::{Errno, Result};

use super::check;

/// Installs a classic BPF program (array of 8-byte `sock_filter`) for the calling thread.
///
/// Needs `no_new_privs` or effective `CAP_SYS_ADMIN`. The CPU's speculation state is
/// left alone (`SECCOMP_FILTER_FLAG_SPEC_ALLOW`), as Docker's runc does.
///
/// # Errors
/// `EINVAL` if the program is empty, too long (65535 instructions) or refused by the
/// kernel's checker; `EACCES` without the rights above.
pub fn install_seccomp(program: &[u8]) -> Result<()> {
    let size = std::mem::size_of::<libc::sock_filter>();
    if program.is_empty() || !program.len().is_multiple_of(size) {
        return Err(Errno::INVAL);
    }
    // `sock_filter` is 4-byte aligned; a byte vector need not be.
    let mut filter: Vec<libc::sock_filter> = program
        .chunks_exact(size)
        .map(|b| libc::sock_filter {
            code: u16::from_ne_bytes([b[0], b[1]]),
            jt: b[2],
            jf: b[3],
            k: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
        })
        .collect();
    let program = libc::sock_fprog {
        len: libc::c_ushort::try_from(filter.len()).map_err(|_| Errno::INVAL)?,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: `program` describes exactly the `filter` vector, which lives over the call;
    // the kernel copies it.
    check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            &raw const program,
        )
    })
    .map(drop)
}
