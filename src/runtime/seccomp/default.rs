//! Docker's default profile, as data.
//!
//! Derived from the filter that Docker Engine 28.5.2 installs (read back with
//! `PTRACE_SECCOMP_GET_FILTER`, without and with `--cap-add`), and from the published
//! profile for what depends on a capability or an architecture. The tests compare
//! verdicts with the Engine's.

use super::Arch;
use super::generate::{Comparison, Condition, Rules, Verdict};
use super::syscalls::Abi;
use crate::runtime::init::capabilities;

/// `EPERM`, for everything that is not allowed.
const EPERM: u16 = 1;
/// `ENOSYS`, so that the C library falls back from `clone3`, whose flags a filter cannot see, to `clone`.
const ENOSYS: u16 = 38;

/// `CLONE_NEW*` without `CLONE_NEWTIME`: what `clone` may not be asked for.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// Address family `AF_VSOCK`, which reaches out of a virtual machine.
const VSOCK: u64 = 40;

/// Harmless values of `personality`: Linux, Linux32, both with uname26, and the query.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Calls that need a capability to be worth anything, allowed with it.
const BY_CAPABILITY: &[(&str, &str)] = &[
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr \
         lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl \
         quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    ("SYS_MODULE", "delete_module init_module finit_module"),
    ("SYS_PACCT", "acct"),
    ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("SYS_RAWIO", "iopl ioperm"),
    ("SYS_TIME", "settimeofday stime clock_settime clock_settime64"),
    ("SYS_TTY_CONFIG", "vhangup"),
    ("SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("SYSLOG", "syslog"),
    ("BPF", "bpf"),
    ("PERFMON", "perf_event_open"),
];

/// Calls of 32-bit ARM.
const ARM: &str = "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls";

/// Calls that every container may make.
const ALLOWED: &str = "\
_llseek _newselect accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset \
chdir chmod chown chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 \
clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range connect \
copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait \
epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat \
faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown \
fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr \
fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue \
futex_time64 futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu \
getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 \
getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 \
getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid \
getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel \
io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl ioprio_get \
ioprio_set ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 \
lgetxattr link linkat listen listmount listxattr listxattrat llistxattr lremovexattr lseek lsetxattr \
lstat lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat \
mknod mknodat mlock mlock2 mlockall mmap mmap2 modify_ldt mprotect mq_getsetattr mq_notify mq_open \
mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal \
msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat \
open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect \
poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease process_vm_readv \
process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead readlink \
readlinkat readv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr \
removexattrat rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending \
rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 \
rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr \
sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 \
sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl \
semget semop semtimedop semtimedop_time64 sendfile sendfile64 sendmmsg sendmsg sendto \
set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid \
setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid \
setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 \
setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask \
sigreturn socketcall socketpair splice stat stat64 statfs statfs64 statmount statx symlink symlinkat \
sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun \
timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime \
timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask \
uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid \
waitpid write writev \
    recv send";

/// The rules for a process with these capabilities.
pub(super) fn rules(held: u64, arch: Arch) -> Rules {
    let interfaces: &[Abi] = match arch {
        Arch::X86_64 => &[Abi::X86_64, Abi::X32, Abi::I386],
        Arch::Aarch64 => &[Abi::Aarch64, Abi::Arm],
    };
    let has = |name: &str| capabilities::number(name).is_some_and(|n| held >> n & 1 == 1);
    let mut rules = Rules::new(Verdict::errno(EPERM), interfaces);
    rules.unknown_is_missing = true;
    for name in ALLOWED.split_whitespace() {
        // These belong to one architecture, whatever number another may have for the name.
        let foreign = arch == Arch::Aarch64 && matches!(name, "arch_prctl" | "modify_ldt");
        if !foreign {
            rules.add(name, &[], Verdict::ALLOW);
        }
    }
    if arch == Arch::Aarch64 {
        for name in ARM.split_whitespace() {
            rules.add(name, &[], Verdict::ALLOW);
        }
    }
    for (capability, calls) in BY_CAPABILITY {
        if has(capability) {
            for name in calls.split_whitespace() {
                rules.add(name, &[], Verdict::ALLOW);
            }
        }
    }
    let first = |comparison, value| Condition { argument: 0, comparison, value };
    rules.add("socket", &[first(Comparison::NotEqual, VSOCK)], Verdict::ALLOW);
    for value in PERSONALITIES {
        rules.add("personality", &[first(Comparison::Equal, value)], Verdict::ALLOW);
    }
    if !has("SYS_ADMIN") {
        let no_namespaces = first(Comparison::Masked { mask: NEW_NAMESPACES }, 0);
        rules.add("clone", &[no_namespaces], Verdict::ALLOW);
        rules.add("clone3", &[], Verdict::errno(ENOSYS));
    }
    rules
}
