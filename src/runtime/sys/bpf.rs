//! Attaching a device filter to a v2 cgroup.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::{Errno, Result};

use super::check;

/// One eBPF instruction: opcode, registers (source << 4 | destination), offset, constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct BpfInstruction {
    /// Operation code.
    pub code: u8,
    /// Source register in the high, destination in the low four bits.
    pub registers: u8,
    /// Jump distance or memory offset.
    pub offset: i16,
    /// Constant.
    pub constant: i32,
}

/// `BPF_PROG_LOAD` of `linux/bpf.h`, as far as we fill it in; the kernel takes the rest as zero.
#[repr(C)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
}

/// `BPF_PROG_ATTACH`.
#[repr(C)]
struct AttachAttributes {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const CGROUP_DEVICE: u32 = 6;
/// Other programs on the group stay and must agree, too.
const ALLOW_MULTI: u32 = 2;

/// Loads `program` as device filter and attaches it to the v2 cgroup directory `group` (Linux 4.15).
/// It lives as long as the group.
///
/// # Errors
/// Those of `bpf(2)`; `EINVAL` and `EACCES` if the kernel's verifier refuses the program.
pub fn attach_device_filter(group: BorrowedFd<'_>, program: &[BpfInstruction]) -> Result<()> {
    let license = c"Apache-2.0";
    let load = LoadAttributes {
        program_type: PROG_TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(program.len()).map_err(|_| Errno::INVAL)?,
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
    };
    // SAFETY: `load` points to the slice and the string, which live over the call; its size is passed.
    let loaded = check(unsafe {
        libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const load, std::mem::size_of::<LoadAttributes>())
    })?;
    let loaded = libc::c_int::try_from(loaded).map_err(|_| Errno::BADF)?;
    // SAFETY: a successful BPF_PROG_LOAD returns a new descriptor that nobody else owns.
    let loaded = unsafe { OwnedFd::from_raw_fd(loaded) };
    let attach = AttachAttributes {
        target: group.as_raw_fd().cast_unsigned(),
        program: loaded.as_raw_fd().cast_unsigned(),
        attach_type: CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    // SAFETY: `attach` lives over the call and its size is passed.
    check(unsafe {
        libc::syscall(libc::SYS_bpf, PROG_ATTACH, &raw const attach, std::mem::size_of::<AttachAttributes>())
    })
    .map(drop)
}
