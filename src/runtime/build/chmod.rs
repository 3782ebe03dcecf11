//! `--chmod`: octal, or symbolic as `chmod(1)` has it.

/// A change of permission bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Chmod {
    /// These bits.
    Octal(u32),
    /// `u=rwX,go-w`.
    Symbolic(Vec<Clause>),
}

/// `who`, `op`, `what` of one clause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each letter of a clause is a switch of its own")]
pub(super) struct Clause {
    user: bool,
    group: bool,
    other: bool,
    op: char,
    read: bool,
    write: bool,
    execute: bool,
    /// `X`: execute for directories and for what somebody may execute already.
    execute_if: bool,
    set_id: bool,
    sticky: bool,
}

impl Chmod {
    /// Reads a change; none when it is neither form.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit()) {
            return u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777).map(Self::Octal);
        }
        let mut clauses = Vec::new();
        for part in text.split(',') {
            clauses.extend(clause(part)?);
        }
        Some(Self::Symbolic(clauses))
    }

    /// The bits that become of `mode`.
    pub(super) fn apply(&self, mode: u32, directory: bool) -> u32 {
        match self {
            Self::Octal(bits) => *bits,
            Self::Symbolic(clauses) => {
                clauses.iter().fold(mode, |mode, clause| clause.apply(mode, directory))
            }
        }
    }
}

fn clause(text: &str) -> Option<Vec<Clause>> {
    let start = text.find(['+', '-', '='])?;
    let (who, mut rest) = text.split_at(start);
    if who.chars().any(|c| !"ugoa".contains(c)) {
        return None;
    }
    let all = who.is_empty() || who.contains('a');
    let mut clauses = Vec::new();
    while let Some(op) = rest.chars().next() {
        let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |at| at + 1);
        let what = &rest[1..end];
        if what.chars().any(|c| !"rwxXst".contains(c)) {
            return None;
        }
        clauses.push(Clause {
            user: all || who.contains('u'),
            group: all || who.contains('g'),
            other: all || who.contains('o'),
            op,
            read: what.contains('r'),
            write: what.contains('w'),
            execute: what.contains('x'),
            execute_if: what.contains('X'),
            set_id: what.contains('s'),
            sticky: what.contains('t'),
        });
        rest = &rest[end..];
    }
    Some(clauses)
}

impl Clause {
    fn apply(self, mode: u32, directory: bool) -> u32 {
        let execute = self.execute || (self.execute_if && (directory || mode & 0o111 != 0));
        let bits = u32::from(self.read) * 4 + u32::from(self.write) * 2 + u32::from(execute);
        let (mut set, mut all) = (0, 0);
        for (wanted, shift, id) in [(self.user, 6, 0o4000), (self.group, 3, 0o2000), (self.other, 0, 0)] {
            if wanted {
                all |= 0o7 << shift | id;
                set |= bits << shift | if self.set_id { id } else { 0 };
            }
        }
        if self.sticky {
            set |= 0o1000;
        }
        match self.op {
            '+' => mode | set,
            '-' => mode & !set,
            // The set-id bits of a directory stay unless they are named, as chmod(1) has it.
            _ if directory && !self.set_id => mode & !(all & 0o777) | set,
            _ => mode & !all | set,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms() {
        let apply = |text: &str, mode, dir| Chmod::parse(text).map(|c| c.apply(mode, dir));
        assert_eq!(apply("4711", 0o600, false), Some(0o4711));
        assert_eq!(apply("0755", 0o600, false), Some(0o755));
        assert_eq!(apply("u=rwX,go=rX", 0o600, false), Some(0o644));
        assert_eq!(apply("u=rwX,go=rX", 0o750, true), Some(0o755));
        assert_eq!(apply("u=rwX,go=rX", 0o700, false), Some(0o755));
        assert_eq!(apply("+x", 0o644, false), Some(0o755));
        assert_eq!(apply("a-w,u+s", 0o755, false), Some(0o4555));
        assert_eq!(apply("o=", 0o777, false), Some(0o770));
        for bad in ["", "99999", "8", "u", "z+x", "u+q"] {
            assert!(Chmod::parse(bad).is_none(), "{bad}");
        }
    }
}
