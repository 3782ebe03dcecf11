//! A throw-away container made of the machine's static busybox.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::runtime::init::{
    CgroupPlan, LaunchError, LaunchPlan, Launched, MASKED_PATHS, NameFiles, NamespaceMode, Namespaces,
    ProcessPlan, READONLY_PATHS, RootfsPlan, Stdio, capabilities, default_device_rules, launch,
};
use crate::runtime::sys;

/// Whether containers can be started here; says so when not.
pub(super) fn possible() -> bool {
    let possible = rustix::process::geteuid().is_root() && Path::new("/bin/busybox").exists();
    if !possible {
        assert!(std::env::var_os("TEST_REQUIRE").is_none(), "root and /bin/busybox are required");
        eprintln!("skipped: needs root and /bin/busybox (Debian's busybox-static)");
    }
    possible
}

/// Directories of one container; removed when dropped.
#[derive(Debug)]
pub(super) struct Rig {
    dir: tempfile::TempDir,
    pub(super) plan: LaunchPlan,
}

/// What a container left.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) code: i32,
    pub(super) output: String,
}

impl Rig {
    /// A container that runs `script` in busybox's shell.
    pub(super) fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let layer = dir.path().join("layer");
        for sub in ["layer/bin", "layer/etc", "layer/tmp", "upper", "work"] {
            std::fs::create_dir_all(dir.path().join(sub)).expect("dir");
        }
        std::fs::copy("/bin/busybox", layer.join("bin/busybox")).expect("busybox");
        let list = std::process::Command::new("/bin/busybox").arg("--list").output().expect("list");
        for applet in String::from_utf8(list.stdout).expect("names").lines() {
            std::os::unix::fs::symlink("busybox", layer.join("bin").join(applet)).ok();
        }
        std::fs::write(layer.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").expect("passwd");
        let name = dir.path().file_name().and_then(|n| n.to_str()).expect("name").replace('.', "");
        let plan = LaunchPlan {
            rootfs: RootfsPlan {
                layers: vec![layer],
                upper: dir.path().join("upper"),
                work: dir.path().join("work"),
                volatile: true,
                read_only: false,
            },
            mounts: Vec::new(),
            files: Vec::new(),
            devices: Vec::new(),
            masked_paths: MASKED_PATHS.iter().map(|p| (*p).to_owned()).collect(),
            readonly_paths: READONLY_PATHS.iter().map(|p| (*p).to_owned()).collect(),
            process: ProcessPlan {
                args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
                env: vec!["PATH=/bin".to_owned()],
                cwd: "/".to_owned(),
                uid: 0,
                gid: 0,
                groups: Vec::new(),
                capabilities: capabilities::resolve(&[], &[], false).expect("defaults"),
                seccomp: seccomp_default(),
                no_new_privileges: false,
                rlimits: Vec::new(),
                oom_score_adj: None,
            },
            hostname: "rig".to_owned(),
            domainname: None,
            sysctls: std::collections::BTreeMap::default(),
            name_files: NameFiles::default(),
            namespaces: Namespaces { cgroup: NamespaceMode::Host, ..Namespaces::default() },
            cgroup: CgroupPlan {
                path: format!("hoist-test/{name}"),
                devices: default_device_rules(),
                ..CgroupPlan::default()
            },
            privileged: false,
            shm_size: None,
            init: false,
        };
        Self { dir, plan }
    }

    /// A path in the throw-away directory.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs the container to its end and returns exit code and output (both streams).
    pub(super) fn run(&self) -> Outcome {
        let mut output = String::new();
        let code = Self::in_child(&mut output, |stdin, out| {
            let stdio = Stdio::Fds { stdin: stdin.as_fd(), stdout: out.as_fd(), stderr: out.as_fd() };
            match launch(&self.plan, stdio, None) {
                Ok(launched) => {
                    let code = wait(&launched.pidfd);
                    launched.cgroup.remove().expect("cgroup is removed");
                    code
                }
                Err(error) => {
                    let mut text = error.to_string();
                    if let Some(source) = std::error::Error::source(&error) {
                        text = format!("{text}: {source}");
                    }
                    rustix::io::write(out, text.as_bytes()).expect("report");
                    i32::from(error.exit_code())
                }
            }
        });
        Outcome { code, output }
    }

    /// Starts the container with its output thrown away, runs `work` on it, kills it and cleans up.
    /// `work` runs in a single-threaded process and what it returns must be 0; it may print to the output.
    pub(super) fn with_running(&self, work: impl FnOnce(&Launched, &OwnedFd)) -> String {
        let mut output = String::new();
        let code = Self::in_child(&mut output, |null, out| {
            let stdio = Stdio::Fds { stdin: null.as_fd(), stdout: null.as_fd(), stderr: null.as_fd() };
            let launched = launch(&self.plan, stdio, None).expect("launch");
            let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&launched, out)));
            launched.cgroup.kill().expect("kill");
            wait(&launched.pidfd);
            launched.cgroup.remove().expect("remove");
            assert!(!launched.cgroup.exists());
            if let Err(panic) = worked {
                let text = panic.downcast_ref::<String>().map_or("panicked", String::as_str);
                rustix::io::write(out, text.as_bytes()).expect("report");
                return 1;
            }
            0
        });
        assert_eq!(code, 0, "{output}");
        output
    }

    /// Runs the container and returns what it printed; fails unless it ended well.
    pub(super) fn output(&self) -> String {
        let outcome = self.run();
        assert_eq!(outcome.code, 0, "{}", outcome.output);
        outcome.output
    }

    /// Runs `work` in a single-threaded process, with the reading end of its output here.
    pub(super) fn in_child(output: &mut String, work: impl FnOnce(&OwnedFd, &OwnedFd) -> i32) -> i32 {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("pipe");
        let reader = std::thread::spawn(move || {
            let mut text = Vec::new();
            std::fs::File::from(read).read_to_end(&mut text).expect("read");
            String::from_utf8_lossy(&text).into_owned()
        });
        let code = sys::in_forked_child(|| {
            let null = rustix::fs::open(
                "/dev/null",
                rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
                rustix::fs::Mode::empty(),
            )
            .expect("null");
            work(&null, &write)
        });
        drop(write);
        output.push_str(&reader.join().expect("reader"));
        code
    }
}

/// The filter that every container gets.
fn seccomp_default() -> Option<crate::runtime::init::SeccompProgram> {
    use crate::runtime::seccomp::{Arch, Profile, compile};
    let capabilities = capabilities::resolve(&[], &[], false).expect("defaults").bounding;
    compile(Profile::Default, capabilities, Arch::native().expect("tables")).expect("compiles")
}

/// Waits for the end of a process: its exit code, or 128 + the signal.
pub(super) fn wait(pidfd: &OwnedFd) -> i32 {
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).expect("wait").expect("exited");
    status.exit_status().or(status.terminating_signal().map(|s| 128 + s)).expect("ended")
}

/// The error of a start that must fail.
pub(super) fn launch_error(rig: &Rig) -> LaunchError {
    let mut output = String::new();
    let code = Rig::in_child(&mut output, |stdin, out| {
        let stdio = Stdio::Fds { stdin: stdin.as_fd(), stdout: out.as_fd(), stderr: out.as_fd() };
        let error = launch(&rig.plan, stdio, None).expect_err("must fail");
        rustix::io::write(out, serde_json::to_string(&error).expect("json").as_bytes()).expect("report");
        0
    });
    assert_eq!(code, 0, "{output}");
    serde_json::from_str(&output).expect("error")
}
