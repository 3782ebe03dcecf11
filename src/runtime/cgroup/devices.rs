//! Device access control: list files on v1, a BPF program on v2.

use rustix::fs::{Mode, OFlags};

use super::{Cgroup, CgroupError, Layout, set};
use crate::runtime::init::{DeviceKind, DeviceRule};
use crate::runtime::sys::{BpfInstruction, attach_device_filter};

/// Allows exactly what `rules` say together. Where v1 has the controller, it decides;
/// else a program on the v2 group.
pub(super) fn apply(group: &Cgroup, layout: &Layout, rules: &[DeviceRule]) -> Result<(), CgroupError> {
    if let Some(hierarchy) = layout.legacy("devices") {
        let directory = group.directory(hierarchy);
        let everything = |r: &DeviceRule| {
            r.kind.is_none() && r.major.is_none() && r.minor.is_none() && r.read && r.write && r.mknod
        };
        if rules.iter().any(everything) {
            return set(&directory.join("devices.allow"), "a");
        }
        set(&directory.join("devices.deny"), "a")?;
        for rule in rules {
            set(&directory.join("devices.allow"), &line(rule))?;
        }
        return Ok(());
    }
    let Some(hierarchy) = layout.unified() else { return Ok(()) };
    attach(&group.directory(hierarchy), rules)
}

fn attach(directory: &std::path::Path, rules: &[DeviceRule]) -> Result<(), CgroupError> {
    let failed = |e: rustix::io::Errno| {
        CgroupError::new("attach the device filter to", directory.display().to_string(), e)
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(directory, flags, Mode::empty()).map_err(failed)?;
    attach_device_filter(std::os::fd::AsFd::as_fd(&opened), &program(rules)).map_err(failed)
}

/// A rule as v1 wants it: `c 1:3 rwm`.
fn line(rule: &DeviceRule) -> String {
    let kind = match rule.kind {
        None => 'a',
        Some(DeviceKind::Char) => 'c',
        Some(DeviceKind::Block) => 'b',
    };
    let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
    let mut access = String::new();
    for (allowed, letter) in [(rule.read, 'r'), (rule.write, 'w'), (rule.mknod, 'm')] {
        if allowed {
            access.push(letter);
        }
    }
    format!("{kind} {}:{} {access}", number(rule.major), number(rule.minor))
}

// Numbers of `struct bpf_cgroup_dev_ctx`.
const BLOCK: i32 = 1;
const CHAR: i32 = 2;
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;

// Operation codes of `linux/bpf.h`, all on 32 bits.
const LOAD: u8 = 0x61;
const MOVE_CONSTANT: u8 = 0xb4;
const MOVE: u8 = 0xbc;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const SKIP_UNLESS_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

/// A program that returns 1 if some rule covers the access, else 0.
///
/// Registers: 2 kind, 3 access, 4 major, 5 minor, 1 scratch.
fn program(rules: &[DeviceRule]) -> Vec<BpfInstruction> {
    let op = |code, to: u8, from: u8, offset, constant| BpfInstruction {
        code,
        registers: from << 4 | to,
        offset,
        constant,
    };
    let mut code = vec![
        op(LOAD, 2, 1, 0, 0),
        op(MOVE, 3, 2, 0, 0),
        op(AND, 2, 0, 0, 0xffff),
        op(SHIFT_RIGHT, 3, 0, 0, 16),
        op(LOAD, 4, 1, 4, 0),
        op(LOAD, 5, 1, 8, 0),
    ];
    for rule in rules {
        // Tests in order; each skips to behind the rule, which its offset is filled in for at the end.
        let mut tests = Vec::new();
        if let Some(kind) = rule.kind {
            tests.push(op(SKIP_UNLESS_EQUAL, 2, 0, 0, if kind == DeviceKind::Block { BLOCK } else { CHAR }));
        }
        let mut allowed = 0;
        for (granted, bit) in [(rule.read, READ), (rule.write, WRITE), (rule.mknod, MKNOD)] {
            allowed |= if granted { bit } else { 0 };
        }
        let refused = (READ | WRITE | MKNOD) & !allowed;
        if refused != 0 {
            tests.push(op(MOVE, 1, 3, 0, 0));
            tests.push(op(AND, 1, 0, 0, refused));
            tests.push(op(SKIP_UNLESS_EQUAL, 1, 0, 0, 0));
        }
        for (number, register) in [(rule.major, 4), (rule.minor, 5)] {
            if let Some(number) = number {
                tests.push(op(SKIP_UNLESS_EQUAL, register, 0, 0, number.cast_signed()));
            }
        }
        let length = tests.len();
        for (index, test) in tests.iter_mut().enumerate() {
            if test.code == SKIP_UNLESS_EQUAL {
                // Over the remaining tests and the two instructions that allow.
                test.offset = i16::try_from(length - index - 1 + 2).unwrap_or(0);
            }
        }
        code.append(&mut tests);
        code.extend([op(MOVE_CONSTANT, 0, 0, 0, 1), op(EXIT, 0, 0, 0, 0)]);
    }
    code.extend([op(MOVE_CONSTANT, 0, 0, 0, 0), op(EXIT, 0, 0, 0, 0)]);
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_become_lines() {
        let rule = DeviceRule {
            kind: Some(DeviceKind::Char),
            major: Some(136),
            minor: None,
            read: true,
            write: true,
            mknod: false,
        };
        assert_eq!(line(&rule), "c 136:* rw");
    }

    mod root {
        use super::super::*;
        use crate::runtime::init::default_device_rules;
        use crate::runtime::sys::{CloneFlags, Cloned, clone3, exit_now, in_forked_child};

        /// The program is attached to a real v2 group and asked by opening devices in it.
        #[test]
        fn the_v2_program_allows_what_the_rules_say() {
            let Some(unified) = Layout::get().unified() else {
                eprintln!("skipped: no v2 tree is mounted");
                return;
            };
            let group = unified.mount_point().join(format!("hoist-test-dev-{}", std::process::id()));
            if std::fs::create_dir(&group).is_err() {
                eprintln!("skipped: needs root");
                return;
            }
            attach(&group, &default_device_rules()).expect("attach");
            let directory = tempfile::tempdir().expect("dir");
            let code = in_forked_child(|| {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let entered = rustix::fs::open(&group, flags, Mode::empty()).expect("group");
                match clone3(CloneFlags(0), Some(std::os::fd::AsFd::as_fd(&entered))).expect("clone") {
                    Cloned::Parent { pidfd, .. } => {
                        let id = rustix::process::WaitId::PidFd(std::os::fd::AsFd::as_fd(&pidfd));
                        let options = rustix::process::WaitIdOptions::EXITED;
                        let status = rustix::process::waitid(id, options).expect("wait");
                        status.and_then(|s| s.exit_status()).unwrap_or(100)
                    }
                    Cloned::Child => {
                        let open = |p: &str| std::fs::File::options().read(true).write(true).open(p);
                        let node = |name: &str, kind, (major, minor)| {
                            let path = directory.path().join(name);
                            rustix::fs::mknodat(
                                rustix::fs::CWD,
                                &path,
                                kind,
                                Mode::from_raw_mode(0o600),
                                rustix::fs::makedev(major, minor),
                            )
                            .is_ok()
                                && open(&path.display().to_string()).is_ok()
                        };
                        let checks = [
                            open("/dev/null").is_ok(),
                            open("/dev/zero").is_ok(),
                            // A node may be made, but memory and disks not opened.
                            !node("mem", rustix::fs::FileType::CharacterDevice, (1, 1)),
                            directory.path().join("mem").exists(),
                            !node("disk", rustix::fs::FileType::BlockDevice, (254, 0)),
                            directory.path().join("disk").exists(),
                        ];
                        let wrong = checks.iter().position(|ok| !ok).map_or(0, |n| n + 1);
                        exit_now(i32::try_from(wrong).unwrap_or(99))
                    }
                }
            });
            std::fs::remove_dir(&group).expect("group is empty");
            assert_eq!(code, 0, "the number of the first check that failed");
        }
    }
}
