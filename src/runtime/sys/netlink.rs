//! The socket options of netlink and the namespace call that rustix has no safe function for.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

/// Values of `linux/netlink.h`.
const SOL_NETLINK: libc::c_int = 270;

/// A boolean or small-number option of `SOL_NETLINK`; see `netlink(7)`.
#[derive(Debug, Clone, Copy)]
pub enum NetlinkOption {
    /// `NETLINK_ADD_MEMBERSHIP`: receive the notifications of a group.
    AddMembership,
    /// `NETLINK_CAP_ACK`: do not echo the request in an acknowledgement (Linux 4.3).
    CapAck,
    /// `NETLINK_EXT_ACK`: the kernel adds its reason in words (Linux 4.12).
    ExtAck,
    /// `NETLINK_GET_STRICT_CHK`: dumps honour their filters (Linux 4.20).
    StrictCheck,
}

/// Sets an option of a netlink socket.
///
/// # Errors
/// `ENOPROTOOPT` on kernels older than the option.
pub fn set_netlink_option(fd: BorrowedFd<'_>, option: NetlinkOption, value: u32) -> Result<(), Errno> {
    let name: libc::c_int = match option {
        NetlinkOption::AddMembership => 1,
        NetlinkOption::CapAck => 10,
        NetlinkOption::ExtAck => 11,
        NetlinkOption::StrictCheck => 12,
    };
    // SAFETY: the pointer is to a live u32 and the length is its size; the
    // kernel copies it before returning.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            SOL_NETLINK,
            name,
            std::ptr::from_ref(&value).cast(),
            length_of::<u32>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Attaches a classic BPF program to a socket: messages it returns 0 for never
/// reach the socket and wake nobody. Each instruction is `(code, jt, jf, k)`.
///
/// # Errors
/// `EINVAL` for a program the kernel's checker refuses.
pub fn attach_socket_filter(fd: BorrowedFd<'_>, program: &[(u16, u8, u8, u32)]) -> Result<(), Errno> {
    let mut code: Vec<libc::sock_filter> =
        program.iter().map(|&(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k }).collect();
    let program = libc::sock_fprog {
        len: u16::try_from(code.len()).map_err(|_| Errno::INVAL)?,
        filter: code.as_mut_ptr(),
    };
    // SAFETY: `program` points to `code`, which lives until after the call, and
    // its length is the number of elements; the kernel copies both.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            std::ptr::from_ref(&program).cast(),
            length_of::<libc::sock_fprog>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Moves the calling thread into a new, empty network namespace.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`; `ENOSPC` at the limit of namespaces.
pub fn unshare_network() -> Result<(), Errno> {
    // SAFETY: CLONE_NEWNET alone does not touch the descriptor table, which is
    // the one thing that makes `unshare` unsafe.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
}

fn length_of<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).expect("an option is a few bytes long")
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
