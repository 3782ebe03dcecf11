//! Where files are copied from: a context on this machine, or a tree of layers.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, Stat};
use rustix::io::Errno;

use super::beneath::{self, is_directory, join, split};
use super::contexts::Listing;
use super::copy::{names, open_directory};

/// A place to copy from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) root: BorrowedFd<'a>,
    /// Of a context: what is not ignored.
    pub(super) listing: Option<&'a Arc<Listing>>,
}

/// Something to be copied: what is at `path`.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Real path below the root, without links.
    pub(super) path: Vec<u8>,
    pub(super) stat: Stat,
}

impl Source<'_> {
    /// What a path means, links resolved inside; none when there is nothing.
    pub(super) fn look_up(&self, path: &[u8]) -> rustix::io::Result<Option<Found>> {
        let Ok(real) = super::copy::resolve(self.root, path) else { return Ok(None) };
        let found = self.at(&real)?;
        Ok(found.filter(|found| real.is_empty() || self.is_visible(&found.path, is_directory(&found.stat))))
    }

    fn at(&self, real: &[u8]) -> rustix::io::Result<Option<Found>> {
        let (above, name) = split(real);
        let found = match beneath::directory(self.root, above) {
            Ok(dir) if name.is_empty() => rustix::fs::fstat(&dir),
            Ok(dir) => rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW),
            Err(error) => Err(error),
        };
        match found {
            Ok(stat) => Ok(Some(Found { path: real.to_vec(), stat })),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn is_visible(&self, path: &[u8], directory: bool) -> bool {
        self.listing.is_none_or(|listing| listing.has(path, directory))
    }

    /// What matches a pattern, sorted; a pattern without wildcards is a path.
    pub(super) fn matching(&self, pattern: &[u8]) -> rustix::io::Result<Vec<Found>> {
        let mut places = vec![Vec::new()];
        let parts = pattern.split(|c| *c == b'/').filter(|part| !part.is_empty() && *part != b".");
        for part in parts {
            let mut next = Vec::new();
            for place in places {
                if !has_wildcard(part) {
                    next.push(join(&place, part));
                    continue;
                }
                let Some(directory) = self.look_up(&place)?.filter(|found| is_directory(&found.stat)) else {
                    continue;
                };
                let directory = beneath::directory(self.root, &directory.path)?;
                for name in names(&directory)? {
                    if matches(part, &name) {
                        next.push(join(&place, &name));
                    }
                }
            }
            places = next;
        }
        let mut found = Vec::new();
        for place in places {
            found.extend(self.look_up(&place)?);
        }
        Ok(found)
    }

    /// Everything below a directory, parents first, sorted by name within each; paths are relative to it.
    pub(super) fn below(&self, directory: &Found) -> rustix::io::Result<Vec<(Vec<u8>, Stat)>> {
        let fd = beneath::directory(self.root, &directory.path)?;
        let mut found = Vec::new();
        self.walk(&fd, &directory.path, b"", &mut found)?;
        Ok(found)
    }

    fn walk(
        &self,
        directory: &OwnedFd,
        base: &[u8],
        path: &[u8],
        found: &mut Vec<(Vec<u8>, Stat)>,
    ) -> rustix::io::Result<()> {
        for name in names(directory)? {
            let here = join(path, &name);
            let stat = match rustix::fs::statat(directory.as_fd(), &name[..], AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                // Somebody works in the context.
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error),
            };
            let whole = join(base, &here);
            if !self.is_visible(&whole, is_directory(&stat)) {
                continue;
            }
            found.push((here.clone(), stat));
            if is_directory(&stat) {
                let before = found.len();
                let below = open_directory(directory, &name)?;
                self.walk(&below, base, &here, found)?;
                // One that does not count itself is there only for what is in it.
                if found.len() == before && !self.is_visible(&whole, false) {
                    found.pop();
                }
            }
        }
        Ok(())
    }
}

/// Whether a part of a path is a pattern.
pub(super) fn has_wildcard(part: &[u8]) -> bool {
    part.iter().any(|c| matches!(c, b'*' | b'?' | b'['))
}

/// Whether a name matches a pattern as Go's `filepath.Match` has it: `*`, `?`, `[a-z]`, `[^a]`, `\x`.
/// A pattern that does not parse matches nothing.
pub(super) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match pattern {
        [] => name.is_empty(),
        [b'*', rest @ ..] => (0..=name.len()).any(|at| matches(rest, &name[at..])),
        [b'?', rest @ ..] => {
            let Some(length) = first_char(name) else { return false };
            matches(rest, &name[length..])
        }
        [b'\\', literal, rest @ ..] => name.first() == Some(literal) && matches(rest, &name[1..]),
        [b'[', rest @ ..] => {
            let Some(length) = first_char(name) else { return false };
            let Ok(c) = std::str::from_utf8(&name[..length]) else { return false };
            match class(rest, c.chars().next().unwrap_or_default()) {
                Some((inside, rest)) => inside && matches(rest, &name[length..]),
                None => false,
            }
        }
        [literal, rest @ ..] => name.first() == Some(literal) && matches(rest, &name[1..]),
    }
}

/// Bytes of the first character; of one byte where it is no UTF-8.
fn first_char(name: &[u8]) -> Option<usize> {
    let end = name.len().min(4);
    let valid = (1..=end).find(|length| std::str::from_utf8(&name[..*length]).is_ok());
    (!name.is_empty()).then(|| valid.unwrap_or(1))
}

/// Whether `c` is in the class that begins here, and what follows it.
fn class(pattern: &[u8], c: char) -> Option<(bool, &[u8])> {
    let text = pattern.utf8_chunks().next()?.valid();
    let (negated, mut text) = match text.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut inside = false;
    let mut first = true;
    loop {
        if let Some(rest) = text.strip_prefix(']').filter(|_| !first) {
            return Some((inside != negated, &pattern[pattern.len() - (rest.len() + tail(pattern))..]));
        }
        first = false;
        let low;
        (low, text) = class_char(text)?;
        let mut high = low;
        if let Some(rest) = text.strip_prefix('-') {
            (high, text) = class_char(rest)?;
        }
        inside |= (low..=high).contains(&c);
    }
}

/// Bytes of a pattern after its first valid part.
fn tail(pattern: &[u8]) -> usize {
    pattern.len() - pattern.utf8_chunks().next().map_or(0, |chunk| chunk.valid().len())
}

fn class_char(text: &str) -> Option<(char, &str)> {
    let mut chars = text.chars();
    match chars.next()? {
        '\\' => chars.next().map(|c| (c, chars.as_str())),
        '-' | ']' => None,
        c => Some((c, chars.as_str())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_gos() {
        let yes = [
            ("*.txt", "a.txt"),
            ("a?c", "abc"),
            ("a?c", "aéc"),
            ("[a-c]x", "bx"),
            ("[^a]x", "bx"),
            ("\\*", "*"),
            ("*", ""),
        ];
        for (pattern, name) in yes {
            assert!(matches(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
        let no = [
            ("*.txt", "a.tx"),
            ("a?c", "ac"),
            ("[a-c]x", "dx"),
            ("[^a]x", "ax"),
            ("[", "["),
            ("[a", "a"),
            ("[]a]", "]"),
        ];
        for (pattern, name) in no {
            assert!(!matches(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
    }
}
