//! An extra process in a running container.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::mount::MountAttrFlags;
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use super::report::{self, Reporter};
use super::{Executed, LaunchError, ProcessPlan, Stdio, identity, launch, namespace, proc};
use crate::runtime::cgroup::{Cgroup, Entrance};
use crate::runtime::mount;
use crate::runtime::sys::{self, CloneFlags, Cloned, Errno};

/// `DEVPTS_SUPER_MAGIC` of `linux/magic.h`.
const DEVPTS_MAGIC: i64 = 0x1cd1;

/// A running container.
#[derive(Debug, Clone, Copy)]
pub struct ExecTarget<'a> {
    /// Its PID 1, whose namespaces are entered.
    pub pidfd: BorrowedFd<'a>,
    /// Its cgroup. It must not be frozen: the new process would wait in it, and the caller with it.
    pub cgroup: &'a Cgroup,
}

/// Starts an extra process and returns once its command has been executed.
///
/// The process is a child of the caller, which must be single-threaded. Reap it as
/// soon as its pidfd is readable and never wait for the container before that: the
/// kernel keeps a dying PID 1 until every process of its namespace has been reaped.
///
/// # Errors
/// [`LaunchError`] with the step and the object.
pub fn exec(target: &ExecTarget<'_>, plan: &ProcessPlan, stdio: Stdio<'_>) -> Result<Executed, LaunchError> {
    if plan.args.is_empty() {
        return Err(LaunchError::Plan { reason: "there is no command".into() });
    }
    let entrance = target.cgroup.entrance().map_err(launch::cgroup_error)?;
    let (reporter, reports) = report::channel()?;
    identity::hide_memory()?;
    let cloned = namespace::born_in_pid_namespace(target.pidfd, || {
        sys::clone3(CloneFlags(0), entrance.unified.as_ref().map(AsFd::as_fd))
            .map_err(|e| LaunchError::Setup { action: "make the process".into(), source: e.into() })
    })?;
    let (pid, pidfd) = match cloned {
        Cloned::Child => {
            drop(reports);
            run(target, plan, stdio, &entrance, &reporter)
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(reporter);
    match reports.wait() {
        Ok(pty) => Ok(Executed { pid, pidfd, pty }),
        Err(error) => Err(error.with_status(launch::reap(pidfd.as_fd()))),
    }
}

/// Becomes the extra process. Never returns.
fn run(
    target: &ExecTarget<'_>,
    plan: &ProcessPlan,
    stdio: Stdio<'_>,
    entrance: &Entrance,
    reporter: &Reporter,
) -> ! {
    let error = match enter(target, plan, stdio, entrance, reporter) {
        Ok(()) => {
            reporter.ready();
            identity::execute(plan)
        }
        Err(error) => error,
    };
    reporter.error(&error);
    sys::exit_now(i32::from(error.exit_code()))
}

fn enter(
    target: &ExecTarget<'_>,
    plan: &ProcessPlan,
    stdio: Stdio<'_>,
    entrance: &Entrance,
    reporter: &Reporter,
) -> Result<(), LaunchError> {
    identity::guard()?;
    if reporter.is_orphan() {
        sys::exit_now(1);
    }
    sys::reset_signals();
    entrance.enter().map_err(launch::cgroup_error)?;
    let namespaces = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::CONTROL_GROUP;
    move_into_thread_name_spaces(target.pidfd, namespaces)
        .map_err(|e| LaunchError::Namespace { namespace: "container's".into(), source: e.into() })?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    if let Some(score) = plan.oom_score_adj {
        // A procfs of our own: the container's may have been covered.
        let procfs = mount::filesystem("proc", MountAttrFlags::empty(), &[])
            .map_err(|e| LaunchError::Setup { action: "open a private procfs".into(), source: e.source })?;
        proc::set_oom_score(procfs.as_fd(), score)?;
    }
    let slave = match stdio {
        Stdio::Pty { rows, columns } => {
            let failed = |action: &'static str| {
                move |e: rustix::io::Errno| LaunchError::Terminal { action: action.into(), source: e.into() }
            };
            let pts = namespace::open_root()
                .and_then(|root| root.open_without_links("/dev/pts"))
                .map_err(failed("find /dev/pts"))?;
            let kind = rustix::fs::fstatfs(&pts).map_err(failed("look at /dev/pts"))?.f_type;
            if kind != DEVPTS_MAGIC {
                let source = Errno::new(libc::ENODEV);
                return Err(LaunchError::Terminal { action: "/dev/pts is something else".into(), source });
            }
            let (master, slave) =
                mount::open_terminal(pts.as_fd(), rows, columns).map_err(failed("open it"))?;
            reporter.terminal(&master).map_err(failed("hand it over"))?;
            Some(slave)
        }
        Stdio::Fds { .. } => None,
    };
    identity::set_rlimits(plan)?;
    identity::become_user(plan, stdio, slave.as_ref())
}
