//! System call filters: Docker's default profile and custom ones, as BPF programs made ahead of time.
//!
//! [`compile`] turns a profile into one program for all interfaces of the machine's
//! processor (64-bit, 32-bit, x32): a switch on the interface, then a binary search
//! over ranges of numbers with the same verdict, then argument tests where a rule
//! has them. The program is part of a start's plan; nothing is compiled at start.
//! Installing it is [`crate::runtime::sys::install_seccomp`]'s.

mod default;
mod generate;
mod profile;
mod syscalls;

use crate::runtime::init::SeccompProgram;

pub use profile::SeccompError;

/// Which filter a process gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile<'a> {
    /// Docker's default profile.
    Default,
    /// No filter.
    Unconfined,
    /// The text of a profile in Docker's JSON format.
    Custom(&'a str),
}

/// Processor of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// x86-64 with i386 and x32.
    X86_64,
    /// aarch64 with arm.
    Aarch64,
}

impl Arch {
    /// The machine's; none if there are no system call tables for it.
    pub fn native() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::X86_64),
            "aarch64" => Some(Self::Aarch64),
            _ => None,
        }
    }
}

/// Makes the program for a process with the bounding set `capabilities` (bit *n* is
/// capability *n*): profiles allow some calls only to those who hold a capability.
/// None for [`Profile::Unconfined`].
///
/// # Errors
/// [`SeccompError`] if a custom profile cannot be read or asks for what a filter cannot do.
pub fn compile(
    profile: Profile<'_>,
    capabilities: u64,
    arch: Arch,
) -> Result<Option<SeccompProgram>, SeccompError> {
    let rules = match profile {
        Profile::Unconfined => return Ok(None),
        Profile::Default => default::rules(capabilities, arch),
        Profile::Custom(text) => profile::read(text, capabilities, arch)?,
    };
    generate::program(&rules).map(|bytes| Some(SeccompProgram(bytes)))
}

#[cfg(test)]
mod tests;
