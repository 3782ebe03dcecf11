//! Extra processes, attached clients, and what a container's processes see.

use std::fs::File;
use std::io::{Read as _, Write as _};

use hoist::runtime::error::{RuntimeError, ShimError};
use hoist::spec::ExecSpec;

use crate::rig::{Rig, eventually};

fn exec(words: &[&str]) -> ExecSpec {
    ExecSpec { command: words.iter().map(|w| (*w).to_owned()).collect(), ..ExecSpec::default() }
}

fn read(fd: std::os::fd::OwnedFd) -> String {
    let mut text = String::new();
    // A terminal ends with an error instead of an end.
    File::from(fd).read_to_string(&mut text).ok();
    text
}

#[test]
fn extra_processes_have_their_streams_identity_and_exit_code() {
    let Some(rig) = Rig::new() else { return };
    let id = rig.run(&rig.spec("host", "exec sleep 100"));
    let line = "id -u; id -g; pwd; echo $COLOUR; echo oops >&2; cat; exit 9";
    let spec = ExecSpec {
        user: Some("web".into()),
        working_dir: Some("/data".into()),
        env: vec![("COLOUR".into(), Some("blue".into()))],
        stdin: true,
        ..exec(&["sh", "-c", line])
    };
    let mut process = rig.runtime.exec(&id, &spec).unwrap();
    let streams = process.streams.take().unwrap();
    let mut stdin = File::from(streams.stdin.unwrap());
    stdin.write_all(b"typed").unwrap();
    drop(stdin);
    assert_eq!(read(streams.stdout), "33\n34\n/data\nblue\ntyped");
    assert_eq!(read(streams.stderr.unwrap()), "oops\n");
    assert_eq!(process.wait().unwrap(), 9);
    let killed = rig.runtime.exec(&id, &exec(&["sleep", "100"])).unwrap();
    killed.signal("TERM").unwrap();
    assert_eq!(killed.wait().unwrap(), 143);
    match rig.runtime.exec(&id, &exec(&["nothing-like-it"])) {
        Err(RuntimeError::Exec { source, .. }) => assert_eq!(source.code(), 127),
        other => panic!("{other:?}"),
    }
    match rig.runtime.exec(&id, &exec(&["/etc/passwd"])) {
        Err(RuntimeError::Exec { source: source @ ShimError::Launch { .. }, .. }) => {
            assert_eq!(source.code(), 126);
        }
        other => panic!("{other:?}"),
    }
    rig.runtime.stop(&id, Some(std::time::Duration::ZERO)).unwrap();
    assert!(matches!(rig.runtime.exec(&id, &exec(&["true"])), Err(RuntimeError::NotRunning { .. })));
}

#[test]
fn an_extra_process_can_have_a_terminal() {
    let Some(rig) = Rig::new() else { return };
    let id = rig.run(&rig.spec("host", "exec sleep 100"));
    let spec = ExecSpec { tty: true, stdin: true, ..exec(&["sh", "-c", "tty; read x; echo got $x"]) };
    let mut process = rig.runtime.exec(&id, &spec).unwrap();
    let streams = process.streams.take().unwrap();
    assert!(streams.terminal && streams.stderr.is_none());
    File::from(streams.stdin.unwrap()).write_all(b"line\n").unwrap();
    let output = read(streams.stdout);
    assert!(output.contains("/dev/pts/") && output.contains("got line"), "{output}");
    assert_eq!(process.wait().unwrap(), 0);
}

#[test]
fn a_client_attached_before_the_start_misses_nothing_and_gives_input() {
    let Some(rig) = Rig::new() else { return };
    let mut spec = rig.spec("talks", "echo first; cat; echo last >&2");
    spec.process.stdin_open = true;
    spec.process.stdin_once = true;
    let id = rig.runtime.create(&spec).unwrap();
    let streams = rig.runtime.attach(&id, true).unwrap();
    rig.runtime.start(&id).unwrap();
    let mut stdin = File::from(streams.stdin.unwrap());
    let big = "x".repeat(100_000);
    stdin.write_all(big.as_bytes()).unwrap();
    drop(stdin);
    assert_eq!(read(streams.stdout), format!("first\n{big}"));
    assert_eq!(read(streams.stderr.unwrap()), "last\n");
    assert_eq!(rig.runtime.wait(&id).unwrap(), 0);
    rig.assert_idle();
}

#[test]
fn a_client_that_reads_late_gets_everything() {
    let Some(rig) = Rig::new() else { return };
    let id = rig.runtime.create(&rig.spec("much", "seq 1 200000")).unwrap();
    let streams = rig.runtime.attach(&id, false).unwrap();
    rig.runtime.start(&id).unwrap();
    let text = read(streams.stdout);
    assert_eq!(text.lines().count(), 200_000);
    assert_eq!(text.lines().last(), Some("200000"));
    assert_eq!(rig.runtime.wait(&id).unwrap(), 0);
    assert_eq!(rig.output(&id), text, "the log has the same");
}

#[test]
fn a_terminal_is_the_containers_and_is_logged() {
    let Some(rig) = Rig::new() else { return };
    let mut spec = rig.spec("tty", "tty; read x; echo got $x; stty size");
    spec.process.tty = true;
    spec.process.stdin_open = true;
    let id = rig.runtime.create(&spec).unwrap();
    let streams = rig.runtime.attach(&id, true).unwrap();
    rig.runtime.start(&id).unwrap();
    rig.runtime.resize(&id, 100, 40).unwrap();
    File::from(streams.stdin.unwrap()).write_all(b"me\n").unwrap();
    let output = read(streams.stdout);
    assert!(output.contains("/dev/pts/0") || output.contains("/dev/console"), "{output}");
    assert!(output.contains("got me\r\n40 100\r\n"), "{output:?}");
    assert_eq!(rig.runtime.wait(&id).unwrap(), 0);
    assert!(rig.output(&id).contains("got me"));
}

#[test]
fn nothing_of_ours_is_open_inside_and_the_shim_has_one_thread() {
    let Some(rig) = Rig::new() else { return };
    let id = rig.run(&rig.spec("closed", "ls /proc/self/fd; exec sleep 100"));
    let fds = eventually("the list", || {
        let text = rig.output(&id);
        (text.lines().count() >= 4).then_some(text.clone()).ok_or(text)
    });
    assert_eq!(fds, "0\n1\n2\n3\n", "3 is the directory that is being listed");
    let mut process = rig.runtime.exec(&id, &exec(&["ls", "/proc/self/fd"])).unwrap();
    assert_eq!(read(process.streams.take().unwrap().stdout), "0\n1\n2\n3\n");
    assert_eq!(process.wait().unwrap(), 0);
    let shim = rig.shim_pid(&id);
    assert_eq!(std::fs::read_dir(format!("/proc/{shim}/task")).unwrap().count(), 1);
}
