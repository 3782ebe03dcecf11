//! Tests that start containers (need root).

use std::os::fd::{AsFd, OwnedFd};

use super::rig::{Rig, launch_error, possible, wait};
use crate::runtime::init::{ExecTarget, LaunchError, ProcessPlan, Stdio, exec, launch};
use crate::spec::ResourceSpec;

#[test]
fn a_command_runs_in_its_own_world() {
    if !possible() {
        return;
    }
    let rig = Rig::new("echo pid=$$ host=$(hostname); ls /; umask; exit 7");
    let outcome = rig.run();
    assert_eq!(outcome.code, 7, "{}", outcome.output);
    assert_eq!(outcome.output, "pid=1 host=rig\nbin\ndev\netc\nproc\nsys\ntmp\n0022\n");
}

#[test]
fn a_missing_command_and_one_that_cannot_run_are_told_apart() {
    if !possible() {
        return;
    }
    let mut rig = Rig::new("");
    rig.plan.process.args = vec!["nosuch".to_owned()];
    let error = launch_error(&rig);
    assert_eq!(error, LaunchError::CommandNotFound { command: "nosuch".to_owned() });
    assert_eq!(error.exit_code(), 127);

    rig.plan.process.args = vec!["/etc/passwd".to_owned()];
    let error = launch_error(&rig);
    assert_eq!(error.exit_code(), 126, "{error:?}");
    assert_eq!(error.to_string(), "cannot run `/etc/passwd`");
}

/// An extra process that runs `script` in the container's shell.
fn extra(rig: &Rig, script: &str) -> ProcessPlan {
    ProcessPlan { args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(), ..rig.plan.process.clone() }
}

#[test]
fn an_extra_process_joins_all_that_the_container_is() {
    if !possible() {
        return;
    }
    let rig = Rig::new("echo mark > /tmp/mark; exec sleep 1000");
    let output = rig.with_running(|running, out| {
        let target = ExecTarget { pidfd: running.pidfd.as_fd(), cgroup: &running.cgroup };
        let script = "while ! [ -s /tmp/mark ]; do :; done; cat /tmp/mark; hostname; tr '\\0' ' ' < /proc/1/cmdline; \
             for n in mnt pid net ipc uts cgroup; do [ $(readlink /proc/1/ns/$n) = $(readlink /proc/self/ns/$n) ] || echo other $n; done; \
             cmp /proc/1/cgroup /proc/self/cgroup && exit 3";
        let stdio = Stdio::Fds { stdin: out.as_fd(), stdout: out.as_fd(), stderr: out.as_fd() };
        let process = exec(&target, &extra(&rig, script), stdio).expect("exec");
        assert!(running.cgroup.processes().contains(&running.pid));
        assert_eq!(wait(&process.pidfd), 3);

        let missing = ProcessPlan { args: vec!["nosuch".to_owned()], ..extra(&rig, "") };
        let error = exec(&target, &missing, stdio).expect_err("missing");
        assert_eq!(error, LaunchError::CommandNotFound { command: "nosuch".to_owned() });
        // Our own children are still born in our own PID namespace.
        let code = std::process::Command::new("/bin/sh").args(["-c", "exit $(( $$ == 1 ))"]).status();
        assert!(code.expect("sh").success());
    });
    assert_eq!(output, "mark\nrig\nsleep 1000 ");
}

#[test]
fn a_terminal_is_one_for_first_and_extra_processes() {
    if !possible() {
        return;
    }
    let script =
        "tty; stty size; [ -c /dev/console ] && echo console; ls -1 /dev/pts; echo to-tty > /dev/tty";
    let rig = Rig::new(&format!("{script}; read line; sleep 1000"));
    let mut output = String::new();
    let code = Rig::in_child(&mut output, |_, out| {
        let pty = Stdio::Pty { rows: 33, columns: 77 };
        let launched = launch(&rig.plan, pty, None).expect("launch");
        let master = launched.pty.as_ref().expect("master");
        let seen = read_until(master, "to-tty");
        rustix::io::write(out, format!("{seen}\n--\n").as_bytes()).expect("write");
        let target = ExecTarget { pidfd: launched.pidfd.as_fd(), cgroup: &launched.cgroup };
        let process = exec(&target, &extra(&rig, script), pty).expect("exec");
        let seen = read_until(process.pty.as_ref().expect("master"), "to-tty");
        rustix::io::write(out, seen.as_bytes()).expect("write");
        launched.cgroup.kill().expect("kill");
        wait(&process.pidfd);
        wait(&launched.pidfd);
        launched.cgroup.remove().expect("remove");
        0
    });
    assert_eq!(code, 0, "{output}");
    let output = output.replace('\r', "");
    assert_eq!(
        output,
        "/dev/pts/0\n33 77\nconsole\n0\nptmx\nto-tty\n--\n/dev/pts/1\n33 77\nconsole\n0\n1\nptmx\nto-tty"
    );
}

/// Reads a terminal until `end` has appeared.
fn read_until(master: &OwnedFd, end: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 1024];
    while !text.contains(end) {
        let n = rustix::io::read(master, &mut buffer).expect("terminal");
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    text.trim_end().to_owned()
}

#[test]
fn the_own_init_reaps_forwards_and_hands_the_exit_code_on() {
    if !possible() {
        return;
    }
    let mut rig = Rig::new(
        "trap 'echo got term; exit 9' TERM; (sleep 0.01 & exec true); \
         echo pid=$$; readlink /proc/1/exe; cat /proc/1/mem; ls /proc/1/fd; \
         while ps | grep -q '[Z] .*sleep'; do :; done; kill -TERM 1; while :; do sleep 0.01; done",
    );
    rig.plan.init = true;
    let outcome = rig.run();
    assert_eq!(outcome.code, 9, "{}", outcome.output);
    assert_eq!(
        outcome.output, "pid=2\ncat: can't open '/proc/1/mem': Permission denied\n0\n1\n2\ngot term\n",
        "its executable and memory are out of reach, and it holds the standard streams only"
    );
}

#[test]
fn limits_are_the_kernels() {
    if !possible() {
        return;
    }
    let mut rig = Rig::new("exec sleep 1000");
    rig.plan.cgroup.resources = ResourceSpec {
        memory: Some(48 << 20),
        nano_cpus: Some(250_000_000),
        pids: Some(17),
        cpuset_cpus: Some("0".to_owned()),
        ..ResourceSpec::default()
    };
    rig.plan.process.rlimits = crate::runtime::init::rlimits(&[("nofile".into(), 99, 100)]).expect("limits");
    let output = rig.with_running(|running, out| {
        let used = running.cgroup.stats();
        assert_eq!(used.memory.limit, Some(48 << 20));
        assert_eq!(used.pids.limit, Some(17));
        assert!(used.pids.current >= 1);
        assert!(used.cpu.usage > std::time::Duration::ZERO);
        let read = |path: String| std::fs::read_to_string(path).expect("file");
        let limits = read(format!("/proc/{}/limits", running.pid));
        let line = limits.lines().find(|l| l.starts_with("Max open files")).expect("line");
        assert_eq!(line.split_whitespace().collect::<Vec<_>>()[3..5], ["99", "100"]);
        let status = read(format!("/proc/{}/status", running.pid));
        assert!(status.contains("Cpus_allowed_list:\t0\n"));

        running.cgroup.freeze().expect("freeze");
        assert!(running.cgroup.is_frozen());
        running.cgroup.thaw().expect("thaw");
        assert!(!running.cgroup.is_frozen());
        rustix::io::write(out, b"done").expect("write");
    });
    assert_eq!(output, "done");
}

#[test]
fn a_container_that_takes_too_much_memory_is_killed_and_counted() {
    if !possible() {
        return;
    }
    let mut rig = Rig::new("");
    rig.plan.process.args = ["/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=64M"].map(str::to_owned).to_vec();
    rig.plan.cgroup.resources =
        ResourceSpec { memory: Some(16 << 20), memory_swap: Some(16 << 20), ..ResourceSpec::default() };
    let mut output = String::new();
    let code = Rig::in_child(&mut output, |null, _| {
        let stdio = Stdio::Fds { stdin: null.as_fd(), stdout: null.as_fd(), stderr: null.as_fd() };
        let launched = launch(&rig.plan, stdio, None).expect("launch");
        let code = wait(&launched.pidfd);
        assert_eq!(launched.cgroup.oom_kills(), 1);
        launched.cgroup.remove().expect("remove");
        code
    });
    assert_eq!(code, 128 + 9);
}
