//! Verdicts of compiled programs, by interpreting them, and compared with Docker Engine's.

use super::syscalls::{Abi, X32_BIT, names};
use super::{Arch, Profile, compile};

const DEFAULT_CAPABILITIES: u64 = 0xa804_25fb;
const ALL_CAPABILITIES: u64 = (1 << 41) - 1;
const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;

/// What `program` returns for a call: the instructions of seccomp(2), interpreted.
fn verdict(program: &[u8], audit: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(number.to_ne_bytes());
    data.extend(audit.to_ne_bytes());
    data.extend(0_u64.to_ne_bytes());
    data.extend(arguments.iter().flat_map(|a| a.to_ne_bytes()));
    let (mut at, mut accumulator) = (0_usize, 0_u32);
    loop {
        let i = &program[at * 8..at * 8 + 8];
        let value = u32::from_ne_bytes([i[4], i[5], i[6], i[7]]);
        let jump = |yes: bool| usize::from(if yes { i[2] } else { i[3] });
        at += 1;
        match u16::from_ne_bytes([i[0], i[1]]) {
            0x20 => {
                let o = value as usize;
                accumulator = u32::from_ne_bytes([data[o], data[o + 1], data[o + 2], data[o + 3]]);
            }
            0x05 => at += value as usize,
            0x15 => at += jump(accumulator == value),
            0x25 => at += jump(accumulator > value),
            0x35 => at += jump(accumulator >= value),
            0x54 => accumulator &= value,
            0x06 => return value,
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn program(capabilities: u64) -> Vec<u8> {
    compile(Profile::Default, capabilities, Arch::X86_64).expect("compiles").expect("a filter").0
}

/// Names of calls that are not simply allowed (all arguments zero).
fn refused(program: &[u8], abi: Abi) -> Vec<&'static str> {
    names()
        .filter(|n| abi.number(n).is_some_and(|nr| verdict(program, abi.audit(), nr, [0; 6]) != ALLOW))
        .collect()
}

#[test]
fn the_default_filter_refuses_what_docker_refuses() {
    let program = program(DEFAULT_CAPABILITIES);
    // From the filter of Docker Engine 28.5.2, interpreted with the same tables; the
    // last three calls are newer than its profile and get ENOSYS there, too.
    let expected = "_sysctl acct add_key afs_syscall bpf clock_settime clone3 create_module delete_module \
        fanotify_init file_getattr file_setattr finit_module fsconfig fsmount fsopen fspick get_kernel_syms \
        get_mempolicy getpmsg init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp \
        kexec_file_load kexec_load keyctl lookup_dcookie lsm_get_self_attr lsm_list_modules lsm_set_self_attr \
        mbind migrate_pages mount mount_setattr move_mount move_pages nfsservctl open_by_handle_at open_tree \
        open_tree_attr perf_event_open pidfd_getfd pivot_root process_madvise putpmsg query_module quotactl \
        quotactl_fd reboot request_key security set_mempolicy set_mempolicy_home_node setdomainname sethostname \
        setns settimeofday swapoff swapon sysfs syslog tuxcall umount2 unshare uselib userfaultfd ustat vhangup \
        vserver";
    assert_eq!(refused(&program, Abi::X86_64), expected.split_whitespace().collect::<Vec<_>>());
    let call = |abi: Abi, name: &str, first: u64| {
        verdict(&program, abi.audit(), abi.number(name).expect("known"), [first, 0, 0, 0, 0, 0])
    };
    for abi in [Abi::X86_64, Abi::X32, Abi::I386] {
        assert_eq!(call(abi, "mount", 0), EPERM);
        assert_eq!(call(abi, "clone3", 0), ENOSYS);
        assert_eq!(call(abi, "clone", 0x11), ALLOW);
        assert_eq!(call(abi, "clone", 0x1000_0000), EPERM, "a user namespace");
        assert_eq!(call(abi, "socket", 2), ALLOW);
        assert_eq!(call(abi, "socket", 40), EPERM, "vsock");
        assert_eq!(call(abi, "personality", 0xffff_ffff), ALLOW);
        assert_eq!(call(abi, "personality", 0x004_0000), EPERM, "no address randomisation");
        assert_eq!(call(abi, "chroot", 0), ALLOW);
    }
    // Newer than any known call.
    assert_eq!(verdict(&program, 0xc000_003e, 470, [0; 6]), ENOSYS);
    assert_eq!(verdict(&program, 0xc000_003e, X32_BIT + 600, [0; 6]), ENOSYS);
    assert_eq!(verdict(&program, 0x4000_0003, 470, [0; 6]), ENOSYS);
    // Another machine's interface kills.
    assert_eq!(verdict(&program, 0xc000_00b7, 0, [0; 6]), 0);
}

#[test]
fn capabilities_open_what_they_need() {
    let all = program(ALL_CAPABILITIES);
    for name in ["mount", "clone3", "unshare", "ptrace", "reboot", "bpf", "open_by_handle_at", "kcmp"] {
        let number = Abi::X86_64.number(name).expect("known");
        assert_eq!(verdict(&all, Abi::X86_64.audit(), number, [u64::MAX; 6]), ALLOW, "{name}");
    }
    let without_chroot = program(DEFAULT_CAPABILITIES & !(1 << 18));
    let number = Abi::X86_64.number("chroot").expect("known");
    assert_eq!(verdict(&without_chroot, Abi::X86_64.audit(), number, [0; 6]), EPERM);
    let keyring = Abi::X86_64.number("keyctl").expect("known");
    assert_eq!(verdict(&all, Abi::X86_64.audit(), keyring, [0; 6]), EPERM, "the keyring is not namespaced");
}

#[test]
fn ranges_keep_the_filter_short() {
    let instructions = program(DEFAULT_CAPABILITIES).len() / 8;
    assert!(instructions < 700, "{instructions} instructions for three interfaces (Docker: 1281)");
}

/// A custom profile with one rule.
fn custom(rule: &str) -> Vec<u8> {
    let text = format!(
        r#"{{"defaultAction":"SCMP_ACT_ALLOW","archMap":[{{"architecture":"SCMP_ARCH_X86_64",
        "subArchitectures":["SCMP_ARCH_X86"]}}],"syscalls":[{rule}]}}"#
    );
    compile(Profile::Custom(&text), DEFAULT_CAPABILITIES, Arch::X86_64).expect("compiles").expect("filter").0
}

#[test]
fn every_comparison_looks_at_all_64_bits() {
    let wide = 0x1_0000_0005_u64;
    let around = [5, 0xffff_ffff, 0x1_0000_0004, wide, 0x1_0000_0006, 0x2_0000_0000];
    type Holds = fn(u64, u64) -> bool;
    let cases: [(&str, Holds); 6] = [
        ("SCMP_CMP_NE", |a, v| a != v),
        ("SCMP_CMP_LT", |a, v| a < v),
        ("SCMP_CMP_LE", |a, v| a <= v),
        ("SCMP_CMP_EQ", |a, v| a == v),
        ("SCMP_CMP_GE", |a, v| a >= v),
        ("SCMP_CMP_GT", |a, v| a > v),
    ];
    let number = Abi::X86_64.number("getpid").expect("known");
    for (op, holds) in cases {
        let program = custom(&format!(
            r#"{{"names":["getpid"],"action":"SCMP_ACT_ERRNO","errnoRet":7,"args":[{{"index":2,"value":{wide},"op":"{op}"}}]}}"#
        ));
        for argument in around {
            let expected = if holds(argument, wide) { 0x0005_0007 } else { ALLOW };
            let found = verdict(&program, Abi::X86_64.audit(), number, [0, 0, argument, 0, 0, 0]);
            assert_eq!(found, expected, "{op} {argument:#x}");
        }
    }
}

#[test]
fn tests_of_different_arguments_must_all_hold_and_of_one_are_alternatives() {
    let number = Abi::X86_64.number("getpid").expect("known");
    let refused = |program: &[u8], a: u64, b: u64| {
        verdict(program, Abi::X86_64.audit(), number, [a, b, 0, 0, 0, 0]) == 0x8000_0000
    };
    let rule =
        |args: &str| format!(r#"{{"names":["getpid"],"action":"SCMP_ACT_KILL_PROCESS","args":[{args}]}}"#);
    let both = custom(&rule(
        r#"{"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":1,"value":15,"valueTwo":2,"op":"SCMP_CMP_MASKED_EQ"}"#,
    ));
    assert!(refused(&both, 1, 0xf2));
    assert!(!refused(&both, 1, 3) && !refused(&both, 2, 2));
    let either =
        custom(&rule(r#"{"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":0,"value":2,"op":"SCMP_CMP_EQ"}"#));
    assert!(refused(&either, 1, 0) && refused(&either, 2, 0) && !refused(&either, 3, 0));
}

#[test]
fn profiles_that_make_no_sense_are_refused() {
    let compiled =
        |text: &str| compile(Profile::Custom(text), 0, Arch::X86_64).expect_err("refused").to_string();
    assert_eq!(compiled("{"), "cannot read the seccomp profile");
    assert_eq!(
        compiled(r#"{"defaultAction":"SCMP_ACT_MAYBE"}"#),
        "seccomp profile: action `SCMP_ACT_MAYBE` is not supported"
    );
    let rule = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_LOG","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}]}"#;
    assert_eq!(compiled(rule), "seccomp profile: system calls have no argument 6");
    assert!(compile(Profile::Unconfined, 0, Arch::X86_64).expect("fine").is_none());
}

#[test]
fn the_default_filter_exists_for_arm_too() {
    let program =
        compile(Profile::Default, DEFAULT_CAPABILITIES, Arch::Aarch64).expect("ok").expect("filter").0;
    let call = |name: &str| {
        let abi = Abi::Aarch64;
        verdict(&program, abi.audit(), abi.number(name).expect("known"), [0; 6])
    };
    assert_eq!(call("openat"), ALLOW);
    assert_eq!(call("mount"), EPERM);
    assert_eq!(call("clone3"), ENOSYS);
}
