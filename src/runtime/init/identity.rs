//! The last steps before a command runs, common to first and extra processes.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno as Os;
use rustix::process::{DumpableBehavior, Resource, Signal, set_dumpable_behavior, setrlimit};
use rustix::thread::{CapabilitySet, Gid, Uid};

use super::{CapabilitySets, LaunchError, ProcessPlan, SeccompProgram, Stdio};
use crate::runtime::sys::{self, CStringArray, Errno};

/// Where a command is looked up when the environment has no `PATH`, as Docker does.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Highest capability number that any kernel has; higher ones are refused with `EINVAL` and skipped.
const LAST_CAPABILITY: u32 = 63;

/// Hides the memory of the caller from other processes of its user, and of every process it clones.
///
/// Done before the clone: a container's processes must not look into the new one for an instant.
pub(super) fn hide_memory() -> Result<(), LaunchError> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|e| LaunchError::Setup { action: "hide the supervisor's memory".into(), source: e.into() })
}

/// The common end of a first and an extra process: session, streams, working
/// directory, user, capabilities, filter. `slave` is the terminal of [`Stdio::Pty`].
pub(super) fn become_user(
    plan: &ProcessPlan,
    stdio: Stdio<'_>,
    slave: Option<&OwnedFd>,
) -> Result<(), LaunchError> {
    rustix::process::setsid()
        .map_err(|e| LaunchError::Setup { action: "start a session".into(), source: e.into() })?;
    match (stdio, slave) {
        (Stdio::Pty { .. }, Some(slave)) => {
            take_terminal(slave)?;
            set_stdio([slave.as_fd(); 3], plan.uid)?;
        }
        (Stdio::Fds { stdin, stdout, stderr }, _) => set_stdio([stdin, stdout, stderr], plan.uid)?,
        (Stdio::Pty { .. }, None) => {
            return Err(LaunchError::Plan { reason: "a terminal was asked for and not made".into() });
        }
    }
    // Entered with root's rights first: a directory only root may enter is allowed as start.
    let entered = enter_directory(&plan.cwd);
    assume(plan)?;
    if entered.is_err() {
        enter_directory(&plan.cwd)?;
    }
    assume_filter(plan)
}

/// Makes the process hard to look into and bound to its maker's life, until it executes something.
pub(super) fn guard() -> Result<(), LaunchError> {
    hide_memory()?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(|e| LaunchError::Setup {
        action: "bind the new process to its supervisor".into(),
        source: e.into(),
    })
}

/// Puts `stdin`, `stdout` and `stderr` on 0, 1 and 2 and gives them to the process's user.
fn set_stdio(streams: [BorrowedFd<'_>; 3], uid: u32) -> Result<(), LaunchError> {
    let failed = |e: Os| LaunchError::Setup { action: "set the standard streams".into(), source: e.into() };
    let mut moved = Vec::with_capacity(3);
    for stream in streams {
        // Above the standard ones first: they may be each other.
        moved.push(rustix::io::fcntl_dupfd_cloexec(stream, 3).map_err(failed)?);
    }
    rustix::stdio::dup2_stdin(&moved[0]).map_err(failed)?;
    rustix::stdio::dup2_stdout(&moved[1]).map_err(failed)?;
    rustix::stdio::dup2_stderr(&moved[2]).map_err(failed)?;
    for stream in &moved {
        let Ok(stat) = rustix::fs::fstat(stream) else { continue };
        let is_null = stat.st_rdev == rustix::fs::makedev(1, 3);
        if stat.st_uid != uid && !is_null {
            // So that `/dev/stdout` can be opened by the user. A stream that cannot be
            // given away (a host's terminal on a read-only file system) still works.
            rustix::fs::fchown(stream, Some(Uid::from_raw(uid)), None).ok();
        }
    }
    Ok(())
}

/// Sets the resource limits.
pub(super) fn set_rlimits(plan: &ProcessPlan) -> Result<(), LaunchError> {
    for limit in &plan.rlimits {
        let resource = super::limits::resource(&limit.name)
            .ok_or_else(|| LaunchError::Plan { reason: format!("there is no limit `{}`", limit.name) })?;
        let wanted = rustix::process::Rlimit { current: limit.soft, maximum: limit.hard };
        setrlimit(resource, wanted)
            .or_else(|error| lower_instead(resource, wanted, error))
            .map_err(|e| LaunchError::Rlimit { name: limit.name.clone(), source: e.into() })?;
    }
    Ok(())
}

/// On a machine without `CAP_SYS_RESOURCE` a hard limit cannot be raised. Takes what
/// is allowed when that still covers the soft limit that was asked for.
fn lower_instead(resource: Resource, wanted: rustix::process::Rlimit, error: Os) -> rustix::io::Result<()> {
    let hard = rustix::process::getrlimit(resource).maximum;
    let covers = match (wanted.current, hard) {
        (_, None) => true,
        (Some(soft), Some(hard)) => soft <= hard,
        (None, Some(_)) => false,
    };
    if error != Os::PERM || !covers {
        return Err(error);
    }
    setrlimit(resource, rustix::process::Rlimit { current: wanted.current, maximum: hard })
}

/// Becomes the plan's user with its capabilities and filter. After this the process
/// has no more rights than the command will have.
pub(super) fn assume(plan: &ProcessPlan) -> Result<(), LaunchError> {
    let failed = |what: String| move |e: Os| LaunchError::Identity { what, source: e.into() };
    let sets = &plan.capabilities;
    for number in 0..=LAST_CAPABILITY {
        if sets.bounding >> number & 1 == 0 {
            let capability = CapabilitySet::from_bits_retain(1 << number);
            match rustix::thread::remove_capability_from_bounding_set(capability) {
                Ok(()) => {}
                Err(Os::INVAL) => break,
                Err(e) => return Err(failed(format!("capability {number} out of the bounding set"))(e)),
            }
        }
    }
    // Keeps the permitted set over the change of user; effective is raised again below.
    rustix::thread::set_keep_capabilities(true).map_err(failed("keep-capabilities".into()))?;
    let groups: Vec<Gid> = plan.groups.iter().map(|g| Gid::from_raw(*g)).collect();
    rustix::thread::set_thread_groups(&groups).map_err(failed(format!("groups {:?}", plan.groups)))?;
    let gid = Gid::from_raw(plan.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(failed(format!("group {}", plan.gid)))?;
    let uid = Uid::from_raw(plan.uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(failed(format!("user {}", plan.uid)))?;

    if plan.no_new_privileges {
        rustix::thread::set_no_new_privs(true).map_err(failed("no_new_privs".into()))?;
    } else if let Some(program) = &plan.seccomp {
        // Without no_new_privs a filter needs CAP_SYS_ADMIN, so it comes before the capabilities go.
        raise_all().map_err(failed("effective capabilities".into()))?;
        install(program)?;
    }
    set_capabilities(sets).map_err(failed("capabilities".into()))
}

/// Installs the filter of a process with `no_new_privs`: as late as possible, so
/// that it need not allow the set-up.
pub(super) fn assume_filter(plan: &ProcessPlan) -> Result<(), LaunchError> {
    match &plan.seccomp {
        Some(program) if plan.no_new_privileges => install(program),
        _ => Ok(()),
    }
}

fn install(program: &SeccompProgram) -> Result<(), LaunchError> {
    sys::install_seccomp(&program.0).map_err(|e| LaunchError::Seccomp { source: e.into() })
}

fn raise_all() -> rustix::io::Result<()> {
    let mut sets = rustix::thread::capabilities(None)?;
    sets.effective = sets.permitted;
    rustix::thread::set_capabilities(None, sets)
}

fn set_capabilities(sets: &CapabilitySets) -> rustix::io::Result<()> {
    rustix::thread::set_capabilities(
        None,
        rustix::thread::CapabilitySets {
            effective: CapabilitySet::from_bits_retain(sets.effective),
            permitted: CapabilitySet::from_bits_retain(sets.permitted),
            inheritable: CapabilitySet::from_bits_retain(sets.inheritable),
        },
    )?;
    rustix::thread::clear_ambient_capability_set()?;
    for number in (0..=LAST_CAPABILITY).filter(|n| sets.ambient >> n & 1 == 1) {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        rustix::thread::configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}

/// Enters the working directory and makes sure that it is inside the root.
///
/// A descriptor of the host's that leaked in could be a way out: `..` of a directory
/// outside the root is the host (CVE-2024-21626).
fn enter_directory(path: &str) -> Result<(), LaunchError> {
    let failed = |source: Errno| LaunchError::WorkingDir { path: path.to_owned(), source };
    rustix::process::chdir(path).map_err(|e| failed(e.into()))?;
    let real = sys::getcwd_raw().map_err(|e| failed(e.into()))?;
    if real.first() != Some(&b'/') {
        return Err(failed(Errno::new(libc::EXDEV)));
    }
    Ok(())
}

/// Executes the command. Returns only if that is impossible.
pub(super) fn execute(plan: &ProcessPlan) -> LaunchError {
    let invalid = |reason: &str| LaunchError::Plan { reason: reason.to_owned() };
    let Some(command) = plan.args.first() else { return invalid("there is no command") };
    let (Some(args), Some(env)) = (CStringArray::new(&plan.args), CStringArray::new(&plan.env)) else {
        return invalid("an argument or variable contains a null byte");
    };
    if let Err(e) = rustix::process::set_parent_process_death_signal(None) {
        return LaunchError::Setup { action: "release the new process".into(), source: e.into() };
    }
    if let Err(e) = sys::set_cloexec_from(3) {
        return LaunchError::Setup { action: "close descriptors".into(), source: e.into() };
    }
    let candidates: Vec<String> = if command.contains('/') {
        vec![command.clone()]
    } else {
        let path = plan.env.iter().rev().find_map(|v| v.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
        path.split(':')
            .map(|d| if d.is_empty() { format!("./{command}") } else { format!("{d}/{command}") })
            .collect()
    };
    let mut refused = None;
    for candidate in candidates {
        let Ok(path) = CString::new(candidate.as_str()) else {
            return invalid("the command contains a null byte");
        };
        let error = sys::execve(&path, &args, &env);
        // A file that is there and cannot be run is remembered; the search goes on like a shell's.
        let there = rustix::fs::access(&path, rustix::fs::Access::EXISTS).is_ok();
        match error {
            Os::NOENT | Os::NOTDIR if !there => {}
            error => {
                refused
                    .get_or_insert(LaunchError::NotExecutable { command: candidate, source: error.into() });
                if !matches!(error, Os::ACCESS | Os::NOENT | Os::NOTDIR) {
                    break;
                }
            }
        }
    }
    refused.unwrap_or_else(|| LaunchError::CommandNotFound { command: command.clone() })
}

/// Makes the terminal `slave` the controlling one of a new session.
fn take_terminal(slave: &impl AsFd) -> Result<(), LaunchError> {
    rustix::process::ioctl_tiocsctty(slave)
        .map_err(|e| LaunchError::Terminal { action: "make it the controlling one".into(), source: e.into() })
}
