//! Names of signals.

use crate::runtime::error::{Result, RuntimeError};

/// Number by name, as on Linux for x86, arm and riscv.
const NAMES: [(&str, i32); 34] = [
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("IOT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("POLL", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

/// First and last real-time signal of programs (the C library keeps 32 and 33).
const REAL_TIME: (i32, i32) = (34, 64);

/// The number of `SIGTERM`, `term`, `15`, `RTMIN+3` or `SIGRTMAX-1`.
///
/// # Errors
/// [`RuntimeError::Signal`] with the word.
pub fn parse(word: &str) -> Result<i32> {
    let unknown = || RuntimeError::Signal(word.to_owned());
    let (first, last) = REAL_TIME;
    let number = if let Ok(number) = word.parse::<i32>() {
        number
    } else {
        let upper = word.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
            *number
        } else if let Some(rest) = name.strip_prefix("RTMIN") {
            let add = if rest.is_empty() {
                0
            } else {
                rest.strip_prefix('+').ok_or_else(unknown)?.parse().map_err(|_| unknown())?
            };
            first.checked_add(add).filter(|n| (first..=last).contains(n)).ok_or_else(unknown)?
        } else if let Some(rest) = name.strip_prefix("RTMAX") {
            let take: i32 = if rest.is_empty() {
                0
            } else {
                rest.strip_prefix('-').ok_or_else(unknown)?.parse().map_err(|_| unknown())?
            };
            last.checked_sub(take).filter(|n| (first..=last).contains(n)).ok_or_else(unknown)?
        } else {
            return Err(unknown());
        }
    };
    if (1..=last).contains(&number) { Ok(number) } else { Err(unknown()) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn words_are_understood_as_by_docker() {
        for (word, number) in [
            ("SIGTERM", 15),
            ("kill", 9),
            ("1", 1),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("rtmax-1", 63),
            ("SIGRTMAX", 64),
        ] {
            assert_eq!(super::parse(word).unwrap(), number, "{word}");
        }
        for word in ["", "0", "65", "-1", "SIGNOPE", "RTMIN+99", "RTMIN3", "RTMAX-99"] {
            assert!(super::parse(word).is_err(), "{word}");
        }
    }
}
