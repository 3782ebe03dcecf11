//! Becoming another program.

use std::ffi::{CStr, CString};

/// A null-terminated array of C strings, as `execve` wants it.
#[derive(Debug)]
pub struct CStringArray {
    strings: Vec<CString>,
}

impl CStringArray {
    /// Takes the strings over; none if one contains a null byte.
    pub fn new<S: AsRef<str>>(strings: &[S]) -> Option<Self> {
        let strings = strings.iter().map(|s| CString::new(s.as_ref()).ok()).collect::<Option<_>>()?;
        Some(Self { strings })
    }

    fn pointers(&self) -> Vec<*const libc::c_char> {
        self.strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    }
}

/// Replaces the process by `path`. Returns only if that fails, with the reason.
pub fn execve(path: &CStr, args: &CStringArray, env: &CStringArray) -> rustix::io::Errno {
    let (args, env) = (args.pointers(), env.pointers());
    // SAFETY: both arrays end with a null pointer and, like the strings they point to, live until the call returns.
    let result = unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    super::check(libc::c_long::from(result)).err().unwrap_or(rustix::io::Errno::IO)
}
