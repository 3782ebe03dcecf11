//! From rules to a BPF program.

use std::collections::BTreeMap;

use super::SeccompError;
use super::syscalls::{Abi, X32_BIT};

/// What a filter returns: the `SECCOMP_RET_*` value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict(pub(super) u32);

impl Verdict {
    pub(super) const ALLOW: Self = Self(0x7fff_0000);
    pub(super) const KILL_PROCESS: Self = Self(0x8000_0000);
    pub(super) const KILL_THREAD: Self = Self(0);
    pub(super) const TRAP: Self = Self(0x0003_0000);
    pub(super) const LOG: Self = Self(0x7ffc_0000);

    /// Fail with an error number.
    pub(super) fn errno(number: u16) -> Self {
        Self(0x0005_0000 | u32::from(number))
    }

    /// Notify a tracer.
    pub(super) fn trace(number: u16) -> Self {
        Self(0x7ff0_0000 | u32::from(number))
    }
}

/// How an argument is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    NotEqual,
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
    /// Equal after masking with the first value.
    Masked {
        mask: u64,
    },
}

/// A test of one argument (0–5), all 64 bits of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) argument: u32,
    pub(super) comparison: Comparison,
    pub(super) value: u64,
}

/// What happens to one call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Decision {
    /// Whatever the arguments are. It wins over tests, as in libseccomp.
    always: Option<Verdict>,
    /// First of these whose conditions all hold.
    tests: Vec<(Vec<Condition>, Verdict)>,
}

/// A profile with names resolved to what this machine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rules {
    /// For calls without a rule.
    pub(super) default: Verdict,
    /// Calls newer than any that the profile knows fail with `ENOSYS` instead of the
    /// default, so that programs fall back to older ones (runc does this, too).
    pub(super) unknown_is_missing: bool,
    interfaces: BTreeMap<Abi, BTreeMap<u32, Decision>>,
}

impl Rules {
    /// No rules yet.
    pub(super) fn new(default: Verdict, interfaces: &[Abi]) -> Self {
        Self {
            default,
            unknown_is_missing: false,
            interfaces: interfaces.iter().map(|abi| (*abi, BTreeMap::new())).collect(),
        }
    }

    /// Adds a rule for `name` on every interface that has it.
    pub(super) fn add(&mut self, name: &str, conditions: &[Condition], verdict: Verdict) {
        for (abi, calls) in &mut self.interfaces {
            let Some(number) = abi.number(name) else { continue };
            let decision = calls.entry(number).or_default();
            if conditions.is_empty() {
                decision.always.get_or_insert(verdict);
            } else {
                decision.tests.push((conditions.to_vec(), verdict));
            }
        }
    }
}

/// One instruction: `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    value: u32,
}

const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_GREATER: u16 = 0x25;
const IF_AT_LEAST: u16 = 0x35;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const INTERFACE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// Most instructions that the kernel takes (`BPF_MAXINSNS`).
const LONGEST: usize = 4096;

const ENOSYS: u16 = 38;

fn plain(code: u16, value: u32) -> Instruction {
    Instruction { code, if_true: 0, if_false: 0, value }
}

fn ret(verdict: Verdict) -> Instruction {
    plain(RETURN, verdict.0)
}

/// The program, as bytes of `sock_filter` in host order.
pub(super) fn program(rules: &Rules) -> Result<Vec<u8>, SeccompError> {
    let mut sections: BTreeMap<u32, Vec<Instruction>> = BTreeMap::new();
    for (abi, calls) in &rules.interfaces {
        if *abi != Abi::X32 {
            sections.insert(abi.audit(), search(&ranges(rules, calls)));
        }
    }
    if let Some(calls) = rules.interfaces.get(&Abi::X32) {
        // Entered with the number loaded: those with the bit go to their own part.
        let part = search(&ranges(rules, calls));
        let native = sections.remove(&Abi::X32.audit()).unwrap_or_else(|| vec![ret(Verdict::KILL_THREAD)]);
        sections.insert(Abi::X32.audit(), branch(IF_AT_LEAST, X32_BIT, part, native));
    }
    let mut code = vec![plain(LOAD, INTERFACE)];
    for (audit, section) in sections {
        // Skip the section unless it is this interface's.
        let length = u32::try_from(section.len()).map_err(|_| SeccompError::TooLong)? + 1;
        code.push(Instruction { code: IF_EQUAL, if_true: 1, if_false: 0, value: audit });
        code.push(plain(JUMP, length));
        code.push(plain(LOAD, NUMBER));
        code.extend(section);
    }
    // An interface that the profile does not speak about.
    code.push(ret(Verdict::KILL_THREAD));
    if code.len() > LONGEST {
        return Err(SeccompError::TooLong);
    }
    Ok(code
        .iter()
        .flat_map(|i| {
            let (code, value) = (i.code.to_ne_bytes(), i.value.to_ne_bytes());
            [code[0], code[1], i.if_true, i.if_false, value[0], value[1], value[2], value[3]]
        })
        .collect())
}

/// Numbers from `first` up to the next range's.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Range {
    first: u32,
    decision: Decision,
}

/// Covers all numbers by ranges of equal decisions.
fn ranges(rules: &Rules, calls: &BTreeMap<u32, Decision>) -> Vec<Range> {
    let always = |verdict| Decision { always: Some(verdict), tests: Vec::new() };
    let mut ranges: Vec<Range> = Vec::new();
    let mut push = |first: u32, decision: Decision| {
        if ranges.last().is_none_or(|last| last.decision != decision) {
            ranges.push(Range { first, decision });
        }
    };
    push(0, always(rules.default));
    for (number, decision) in calls {
        let decision = if decision.always.is_some() {
            Decision { tests: Vec::new(), ..decision.clone() }
        } else {
            Decision { always: Some(rules.default), tests: decision.tests.clone() }
        };
        push(*number, decision);
        // Unless the next number has a rule of its own, the default begins again behind.
        if !calls.contains_key(&(number + 1)) {
            push(number + 1, always(rules.default));
        }
    }
    if rules.unknown_is_missing
        && let Some(last) = calls.keys().next_back()
    {
        push(last + 1, always(Verdict::errno(ENOSYS)));
    }
    // The range behind the last rule was begun twice.
    ranges.dedup_by(|next, range| {
        next.first == range.first && {
            *range = next.clone();
            true
        }
    });
    ranges
}

/// A binary search for the number that is loaded.
fn search(ranges: &[Range]) -> Vec<Instruction> {
    match ranges {
        [] => Vec::new(),
        [only] => leaf(&only.decision),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            branch(IF_AT_LEAST, high[0].first, search(high), search(low))
        }
    }
}

/// `yes` if the test holds, else `no`. Both end with a return.
fn branch(code: u16, value: u32, yes: Vec<Instruction>, no: Vec<Instruction>) -> Vec<Instruction> {
    let mut out = Vec::with_capacity(yes.len() + no.len() + 2);
    if let Ok(distance) = u8::try_from(no.len()) {
        out.push(Instruction { code, if_true: distance, if_false: 0, value });
    } else {
        // Conditional jumps reach 255 instructions only.
        out.push(Instruction { code, if_true: 0, if_false: 1, value });
        out.push(plain(JUMP, u32::try_from(no.len()).unwrap_or(u32::MAX)));
    }
    out.extend(no);
    out.extend(yes);
    out
}

fn leaf(decision: &Decision) -> Vec<Instruction> {
    let mut out = Vec::new();
    for (conditions, verdict) in &decision.tests {
        out.extend(guarded(conditions, *verdict));
    }
    out.push(ret(decision.always.unwrap_or(Verdict::KILL_THREAD)));
    out
}

/// Returns `verdict` if all conditions hold, else falls through.
fn guarded(conditions: &[Condition], verdict: Verdict) -> Vec<Instruction> {
    let mut out = vec![ret(verdict)];
    for condition in conditions.iter().rev() {
        out = tested(*condition, &out);
    }
    out
}

/// `then` if the condition holds, else falls through behind it. `then` is short (a
/// few conditions), so all jumps fit. Arguments are 64 bits wide and are compared
/// as two halves, the high one first.
fn tested(condition: Condition, then: &[Instruction]) -> Vec<Instruction> {
    let offset = ARGUMENTS + 8 * condition.argument;
    let (low_at, high_at) =
        if cfg!(target_endian = "little") { (offset, offset + 4) } else { (offset + 4, offset) };
    let halves = |v: u64| {
        let bytes = v.to_be_bytes();
        let half = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        (half(0), half(4))
    };
    let (high, low) = halves(condition.value);
    let skip = u8::try_from(then.len()).unwrap_or(u8::MAX);
    let jump = |code, value, if_true, if_false| Instruction { code, if_true, if_false, value };
    let mut out = match condition.comparison {
        Comparison::Equal => vec![
            plain(LOAD, high_at),
            jump(IF_EQUAL, high, 0, skip + 2),
            plain(LOAD, low_at),
            jump(IF_EQUAL, low, 0, skip),
        ],
        Comparison::NotEqual => vec![
            plain(LOAD, high_at),
            jump(IF_EQUAL, high, 0, 2),
            plain(LOAD, low_at),
            jump(IF_EQUAL, low, skip, 0),
        ],
        Comparison::Masked { mask } => {
            let (mask_high, mask_low) = halves(mask);
            vec![
                plain(LOAD, high_at),
                plain(AND, mask_high),
                jump(IF_EQUAL, high, 0, skip + 3),
                plain(LOAD, low_at),
                plain(AND, mask_low),
                jump(IF_EQUAL, low, 0, skip),
            ]
        }
        Comparison::Greater => vec![
            plain(LOAD, high_at),
            jump(IF_GREATER, high, 3, 0),
            jump(IF_EQUAL, high, 0, skip + 2),
            plain(LOAD, low_at),
            jump(IF_GREATER, low, 0, skip),
        ],
        Comparison::GreaterOrEqual => vec![
            plain(LOAD, high_at),
            jump(IF_GREATER, high, 3, 0),
            jump(IF_EQUAL, high, 0, skip + 2),
            plain(LOAD, low_at),
            jump(IF_AT_LEAST, low, 0, skip),
        ],
        Comparison::Less => vec![
            plain(LOAD, high_at),
            jump(IF_GREATER, high, skip + 3, 0),
            jump(IF_EQUAL, high, 0, 2),
            plain(LOAD, low_at),
            jump(IF_AT_LEAST, low, skip, 0),
        ],
        Comparison::LessOrEqual => vec![
            plain(LOAD, high_at),
            jump(IF_GREATER, high, skip + 3, 0),
            jump(IF_EQUAL, high, 0, 2),
            plain(LOAD, low_at),
            jump(IF_GREATER, low, skip, 0),
        ],
    };
    out.extend(then);
    out
}
