//! Start, exit, restart, health, removal.

use std::time::{Duration, Instant};

use hoist::runtime::error::{RuntimeError, ShimError};
use hoist::runtime::events::{Action, EventReader};
use hoist::runtime::state::{HealthStatus, Life};
use hoist::spec::{HealthSpec, HealthTest, RestartPolicy};

use crate::rig::{Rig, eventually};

#[test]
fn a_container_runs_and_its_output_and_exit_code_are_kept() {
    let Some(rig) = Rig::new() else { return };
    let id = rig.run(&rig.spec("one", "echo out; echo err >&2; id; exit 7"));
    assert_eq!(rig.runtime.wait(&id).unwrap(), 7);
    let output = rig.output(&id);
    assert!(output.contains("out\n") && output.contains("err\n"), "{output}");
    assert!(output.contains("uid=0(root) gid=0(root) groups=0(root),10(wheel)"), "{output}");
    let state = rig.runtime.inspect("one").unwrap().unwrap().state;
    assert!(matches!(state.life, Life::Exited { end } if end.code == 7 && !end.unknown), "{:?}", state.life);
    rig.assert_idle();
    rig.runtime.remove("one", false, true).unwrap();
    assert!(rig.runtime.inspect("one").unwrap().is_none());
}

#[test]
fn stop_asks_first_and_kills_after_the_grace_period() {
    let Some(rig) = Rig::new() else { return };
    let polite = rig.run(&rig.spec("polite", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done"));
    let stubborn = rig.run(&rig.spec("stubborn", "trap '' TERM; echo ready; while :; do sleep 0.05; done"));
    for id in [&polite, &stubborn] {
        eventually("the trap", || {
            rig.output(id).contains("ready").then_some(()).ok_or_else(|| rig.output(id))
        });
    }
    rig.runtime.stop(&polite, None).unwrap();
    let begin = Instant::now();
    rig.runtime.stop(&stubborn, Some(Duration::from_millis(300))).unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(300));
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert_eq!(rig.runtime.wait(&polite).unwrap(), 3);
    assert_eq!(rig.runtime.wait(&stubborn).unwrap(), 137);
    rig.assert_idle();
}

#[test]
fn a_failing_container_is_restarted_as_often_as_asked() {
    let Some(rig) = Rig::new() else { return };
    let mut spec = rig.spec("fails", "echo run; exit 4");
    spec.restart = RestartPolicy::OnFailure { max: Some(2) };
    let mut events = EventReader::open(&rig.root, None).unwrap();
    let id = rig.run(&spec);
    assert_eq!(rig.runtime.wait(&id).unwrap(), 4);
    assert_eq!(rig.output(&id), "run\nrun\nrun\n");
    let state = rig.runtime.inspect(&id).unwrap().unwrap().state;
    assert_eq!(state.restarts, 2);
    let mut seen: Vec<Action> = events.batch().unwrap().into_iter().map(|e| e.action).collect();
    let die = |restarting| Action::Die { code: 4, restarting };
    seen.retain(|a| matches!(a, Action::Start | Action::Die { .. }));
    assert_eq!(
        seen,
        [Action::Start, die(true), Action::Start, die(true), Action::Start, die(false)],
        "each run begins and ends once"
    );
    rig.assert_idle();
}

#[test]
fn a_stopped_container_stays_stopped_whatever_its_policy() {
    let Some(rig) = Rig::new() else { return };
    let mut spec = rig.spec("always", "echo run; exec sleep 100");
    spec.restart = RestartPolicy::Always;
    spec.stop_signal = Some("KILL".into());
    let id = rig.run(&spec);
    // Killed by somebody else it comes back …
    let pid = rig.runtime.state_of(&id).unwrap().life.process().unwrap().pid;
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    eventually("a second run", || match rig.output(&id) {
        twice if twice == "run\nrun\n" => Ok(()),
        other => Err(other),
    });
    // … stopped on request it does not.
    rig.runtime.stop(&id, None).unwrap();
    rig.assert_idle();
    assert_eq!(rig.output(&id), "run\nrun\n");
    rig.runtime.start(&id).unwrap();
    rig.runtime.restart(&id, Some(Duration::ZERO)).unwrap();
    eventually("the fourth run", || match rig.output(&id).lines().count() {
        4 => Ok(()),
        n => Err(format!("{n}")),
    });
}

#[test]
fn a_stop_calls_off_a_restart_that_is_due() {
    let Some(rig) = Rig::new() else { return };
    let mut spec = rig.spec("loops", "exit 1");
    spec.restart = RestartPolicy::Always;
    let id = rig.run(&spec);
    eventually("a longer wait", || {
        let state = rig.runtime.state_of(&id).unwrap();
        let waits = state.restarts >= 3 && matches!(state.life, Life::Restarting { .. });
        waits.then_some(()).ok_or(format!("{state:?}"))
    });
    let begin = Instant::now();
    rig.runtime.stop(&id, None).unwrap();
    assert!(begin.elapsed() < Duration::from_millis(500));
    assert!(matches!(rig.runtime.state_of(&id).unwrap().life, Life::Exited { end } if end.code == 1));
    rig.assert_idle();
}

#[test]
fn probes_decide_over_health_and_their_output_is_kept() {
    let Some(rig) = Rig::new() else { return };
    let mut spec = rig.spec("probed", "touch /ok; exec sleep 100");
    spec.health = Some(HealthSpec {
        test: Some(HealthTest::Shell("echo checking; test -e /ok".into())),
        interval: Some(Duration::from_millis(50)),
        retries: Some(2),
        ..HealthSpec::default()
    });
    let id = rig.run(&spec);
    let health = || rig.runtime.state_of(&id).unwrap().health;
    assert_eq!(health().status, HealthStatus::Starting);
    let reach = |status: HealthStatus| {
        eventually("the verdict", || {
            let now = health();
            if now.status == status { Ok(now) } else { Err(format!("{now:?}")) }
        })
    };
    let good = reach(HealthStatus::Healthy);
    assert_eq!(good.probes[0].output, "checking\n");
    let remove =
        hoist::spec::ExecSpec { command: ["rm", "/ok"].map(str::to_owned).to_vec(), ..Default::default() };
    // busybox has no rm applet in the test image but knows it by name.
    let remove =
        hoist::spec::ExecSpec { command: vec!["busybox".into(), "rm".into(), "/ok".into()], ..remove };
    assert_eq!(rig.runtime.exec(&id, &remove).unwrap().wait().unwrap(), 0);
    let bad = reach(HealthStatus::Unhealthy);
    assert!(bad.streak >= 2 && bad.probes.len() <= 5);
    assert_eq!(bad.probes.last().unwrap().code, 1);
}

#[test]
fn a_command_that_does_not_exist_fails_the_start_and_leaves_nothing() {
    let Some(rig) = Rig::new() else { return };
    let mut spec = rig.spec("nothing", "");
    spec.process.command = Some(vec!["no-such-command".into()]);
    let id = rig.runtime.create(&spec).unwrap();
    let error = rig.runtime.start(&id).unwrap_err();
    assert!(matches!(&error, RuntimeError::Start { source: ShimError::Launch { .. }, .. }), "{error:?}");
    assert!(matches!(rig.runtime.state_of(&id).unwrap().life, Life::Failed { code: 127, .. }));
    rig.assert_idle();
    rig.runtime.remove(&id, false, false).unwrap();
}

#[test]
fn a_container_that_removes_itself_is_gone() {
    let Some(rig) = Rig::new() else { return };
    let mut spec = rig.spec("gone", "exit 0");
    spec.auto_remove = true;
    let id = rig.run(&spec);
    eventually("its removal", || match rig.runtime.inspect(&id).unwrap() {
        None => Ok(()),
        Some(left) => Err(format!("{:?}", left.state.life)),
    });
    rig.assert_idle();
    assert!(!rig.runtime.container_dir(&id).exists());
    rig.runtime.create(&rig.spec("gone", "exit 0")).expect("the name is free again");
}

#[test]
fn memory_limits_kill_and_the_kill_is_known() {
    let Some(rig) = Rig::new() else { return };
    let mut spec = rig.spec("hungry", "head -c 200m /dev/zero | busybox tail -c 190m | wc -c");
    spec.process.command =
        Some(["busybox", "sh", "-c", "x=a; while :; do x=$x$x; done"].map(str::to_owned).to_vec());
    spec.resources.memory = Some(20 << 20);
    let id = rig.run(&spec);
    assert_eq!(rig.runtime.wait(&id).unwrap(), 137);
    assert!(matches!(rig.runtime.state_of(&id).unwrap().life, Life::Exited { end } if end.oom_killed));
}

#[test]
fn a_paused_container_does_nothing_and_goes_on() {
    let Some(rig) = Rig::new() else { return };
    let id = rig.run(&rig.spec("frozen", "n=0; while :; do n=$((n+1)); echo $n; sleep 0.01; done"));
    eventually("output", || (rig.output(&id).lines().count() > 3).then_some(()).ok_or(String::new()));
    rig.runtime.pause(&id).unwrap();
    let pid = rig.runtime.state_of(&id).unwrap().life.process().unwrap().pid;
    let ticks = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let before = ticks();
    let lines = rig.output(&id);
    assert!(rig.runtime.pause(&id).is_err(), "it is paused already");
    assert_eq!(ticks(), before);
    rig.runtime.unpause(&id).unwrap();
    eventually("more output", || (rig.output(&id) != lines).then_some(()).ok_or(String::new()));
    rig.runtime.pause(&id).unwrap();
    rig.runtime.stop(&id, Some(Duration::from_millis(50))).unwrap();
    rig.assert_idle();
}

#[test]
fn one_of_two_creators_gets_a_name() {
    let Some(rig) = Rig::new() else { return };
    let won: Vec<bool> = std::thread::scope(|scope| {
        let create = || rig.runtime.create(&rig.spec("same", "true"));
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(create)).collect();
        threads
            .into_iter()
            .map(|t| match t.join().expect("no panic") {
                Ok(_) => true,
                Err(RuntimeError::NameTaken { .. }) => false,
                Err(other) => panic!("{other}"),
            })
            .collect()
    });
    assert_eq!(won.iter().filter(|w| **w).count(), 1);
    assert_eq!(rig.runtime.list().unwrap().len(), 1);
    rig.runtime.rename("same", "other").unwrap();
    assert!(rig.runtime.inspect("same").unwrap().is_none());
    assert_eq!(rig.runtime.inspect("other").unwrap().unwrap().record.name, "other");
}

#[test]
fn volumes_are_filled_kept_and_removed() {
    let Some(rig) = Rig::new() else { return };
    let mut spec = rig.spec("data", "cat /data/seed; echo more >> /data/seed; cat /tmp/bound");
    let source = rig.path().join("bound");
    std::fs::write(&source, "bound\n").unwrap();
    let volume = |name: Option<&str>| hoist::spec::MountSource::Volume {
        name: name.map(str::to_owned),
        nocopy: false,
        subpath: None,
        labels: std::collections::BTreeMap::new(),
        driver_opts: std::collections::BTreeMap::new(),
    };
    let bind = hoist::spec::MountSource::Bind {
        path: source,
        create: false,
        propagation: None,
        recursive: None,
        selinux: None,
    };
    let mount =
        |source, target: &str| hoist::spec::MountSpec { source, target: target.into(), read_only: false };
    spec.mounts = vec![mount(volume(None), "/data"), mount(bind, "/tmp/bound")];
    let id = rig.run(&spec);
    assert_eq!(rig.runtime.wait(&id).unwrap(), 0);
    assert_eq!(rig.output(&id), "from the image\nbound\n");
    // A successor takes the anonymous volume over.
    let mut next = rig.spec("data2", "cat /data/seed");
    next.mounts = vec![mount(volume(None), "/data")];
    next.inherit_anonymous_from = Some(id.clone());
    let successor = rig.run(&next);
    assert_eq!(rig.runtime.wait(&successor).unwrap(), 0);
    assert_eq!(rig.output(&successor), "from the image\nmore\n");
    rig.runtime.remove(&id, false, true).unwrap();
    assert_eq!(rig.runtime.volumes().list().unwrap().len(), 1, "it is still used");
    rig.runtime.remove(&successor, false, true).unwrap();
    assert!(rig.runtime.volumes().list().unwrap().is_empty());
}
