//! Custom profiles in Docker's JSON format.

use serde::Deserialize;

use super::Arch;
use super::generate::{Comparison, Condition, Rules, Verdict};
use super::syscalls::Abi;
use crate::runtime::init::capabilities;

/// A profile that cannot become a filter.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// Not JSON, or not of the right shape.
    #[error("cannot read the seccomp profile")]
    Syntax(#[source] serde_json::Error),
    /// A word that has no meaning, or none for a filter of ours.
    #[error("seccomp profile: {what} `{value}` is not supported")]
    Unsupported {
        /// `action`, `operator`, …
        what: &'static str,
        /// As written.
        value: String,
    },
    /// An argument index beyond 5.
    #[error("seccomp profile: system calls have no argument {index}")]
    Argument {
        /// As written.
        index: u32,
    },
    /// More instructions than the kernel takes.
    #[error("the seccomp profile is too long for a filter")]
    TooLong,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    default_action: String,
    default_errno_ret: Option<u16>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    arch_map: Vec<ArchMap>,
    #[serde(default)]
    syscalls: Vec<Rule>,
    listener_path: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    name: String,
    #[serde(default)]
    names: Vec<String>,
    action: String,
    errno_ret: Option<u16>,
    args: Option<Vec<Argument>>,
    #[serde(default)]
    includes: Filter,
    #[serde(default)]
    excludes: Filter,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Filter {
    caps: Vec<String>,
    arches: Vec<String>,
    min_kernel: String,
}

/// Reads the profile for a process with these capabilities on this machine.
pub(super) fn read(text: &str, held: u64, arch: Arch) -> Result<Rules, SeccompError> {
    let file: File = serde_json::from_str(text).map_err(SeccompError::Syntax)?;
    if let Some(path) = file.listener_path.filter(|p| !p.is_empty()) {
        return Err(SeccompError::Unsupported { what: "listenerPath", value: path });
    }
    let default = verdict(&file.default_action, file.default_errno_ret)?;
    let mut rules = Rules::new(default, &interfaces(&file.architectures, &file.arch_map, arch));
    // As in runc: only where the default is a plain refusal.
    rules.unknown_is_missing = default == Verdict::errno(1) || default == Verdict::KILL_THREAD;
    for rule in &file.syscalls {
        if !applies(&rule.includes, &rule.excludes, held, arch) {
            continue;
        }
        let verdict = verdict(&rule.action, rule.errno_ret)?;
        if verdict == default {
            continue;
        }
        let conditions = rule.args.iter().flatten().map(condition).collect::<Result<Vec<_>, _>>()?;
        let names = rule.names.iter().chain(Some(&rule.name).filter(|n| !n.is_empty()));
        // Names that this kernel's tables lack are skipped, as Docker does.
        for name in names {
            // Several tests of one argument are alternatives, tests of different ones must all hold (runc).
            let alternatives = (0..6).any(|i| conditions.iter().filter(|c| c.argument == i).count() > 1);
            if alternatives {
                for condition in &conditions {
                    rules.add(name, &[*condition], verdict);
                }
            } else {
                rules.add(name, &conditions, verdict);
            }
        }
    }
    Ok(rules)
}

fn interfaces(listed: &[String], map: &[ArchMap], arch: Arch) -> Vec<Abi> {
    let (native, name) = match arch {
        Arch::X86_64 => (Abi::X86_64, "SCMP_ARCH_X86_64"),
        Arch::Aarch64 => (Abi::Aarch64, "SCMP_ARCH_AARCH64"),
    };
    let subs =
        map.iter().filter(|m| m.architecture == name).flat_map(|m| m.sub_architectures.iter().flatten());
    let mut interfaces = vec![native];
    for name in listed.iter().chain(subs) {
        let abi = match (arch, name.as_str()) {
            (Arch::X86_64, "SCMP_ARCH_X86") => Abi::I386,
            (Arch::X86_64, "SCMP_ARCH_X32") => Abi::X32,
            (Arch::Aarch64, "SCMP_ARCH_ARM") => Abi::Arm,
            // Other machines' interfaces cannot be called here.
            _ => continue,
        };
        interfaces.push(abi);
    }
    interfaces
}

fn verdict(action: &str, errno: Option<u16>) -> Result<Verdict, SeccompError> {
    Ok(match action {
        "SCMP_ACT_ALLOW" => Verdict::ALLOW,
        "SCMP_ACT_ERRNO" => Verdict::errno(errno.unwrap_or(1)),
        "SCMP_ACT_TRACE" => Verdict::trace(errno.unwrap_or(1)),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Verdict::KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => Verdict::KILL_PROCESS,
        "SCMP_ACT_TRAP" => Verdict::TRAP,
        "SCMP_ACT_LOG" => Verdict::LOG,
        other => return Err(SeccompError::Unsupported { what: "action", value: other.to_owned() }),
    })
}

fn condition(argument: &Argument) -> Result<Condition, SeccompError> {
    if argument.index > 5 {
        return Err(SeccompError::Argument { index: argument.index });
    }
    let simple = |comparison| Condition { argument: argument.index, comparison, value: argument.value };
    Ok(match argument.op.as_str() {
        "SCMP_CMP_NE" => simple(Comparison::NotEqual),
        "SCMP_CMP_LT" => simple(Comparison::Less),
        "SCMP_CMP_LE" => simple(Comparison::LessOrEqual),
        "SCMP_CMP_EQ" => simple(Comparison::Equal),
        "SCMP_CMP_GE" => simple(Comparison::GreaterOrEqual),
        "SCMP_CMP_GT" => simple(Comparison::Greater),
        "SCMP_CMP_MASKED_EQ" => Condition {
            argument: argument.index,
            comparison: Comparison::Masked { mask: argument.value },
            // A bit outside the mask could never be equal; libseccomp drops such bits.
            value: argument.value_two & argument.value,
        },
        other => return Err(SeccompError::Unsupported { what: "operator", value: other.to_owned() }),
    })
}

/// Whether a rule counts here: all `includes` met and no `excludes`.
fn applies(includes: &Filter, excludes: &Filter, held: u64, arch: Arch) -> bool {
    let has = |name: &String| capabilities::number(name).is_some_and(|n| held >> n & 1 == 1);
    let own = match arch {
        Arch::X86_64 => "amd64",
        Arch::Aarch64 => "arm64",
    };
    let here = |f: &Filter| f.arches.iter().any(|a| a == own);
    let new_enough = |f: &Filter| kernel_is_at_least(&f.min_kernel);
    (includes.arches.is_empty() || here(includes))
        && includes.caps.iter().all(has)
        && (includes.min_kernel.is_empty() || new_enough(includes))
        && !here(excludes)
        && !excludes.caps.iter().any(has)
        && (excludes.min_kernel.is_empty() || !new_enough(excludes))
}

/// Whether the running kernel has at least version `wanted` (`4.8`).
fn kernel_is_at_least(wanted: &str) -> bool {
    let version = |text: &str| -> Option<(u32, u32)> {
        let mut parts = text.split(|c: char| !c.is_ascii_digit());
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    let running = rustix::system::uname();
    match (version(&running.release().to_string_lossy()), version(wanted)) {
        (Some(running), Some(wanted)) => running >= wanted,
        _ => false,
    }
}
