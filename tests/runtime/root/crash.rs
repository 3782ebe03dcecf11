//! Shims and commands that are killed, and what the next command makes of it.

use std::time::Duration;

use hoist::runtime::state::Life;
use hoist::spec::RestartPolicy;
use rustix::process::{Pid, Signal, kill_process};

use crate::rig::{Rig, eventually};

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).expect("a pid"), Signal::KILL).expect("killed");
    eventually("its death", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(()).ok_or(stat)
    });
}

#[test]
fn a_container_whose_shim_was_killed_goes_on_and_gets_another() {
    let Some(rig) = Rig::new() else { return };
    let id = rig.run(
        &rig.spec("orphan", "n=0; while [ ! -e /stop ]; do n=$((n+1)); echo $n; sleep 0.01; done; exit 42"),
    );
    let before = rig.runtime.state_of(&id).unwrap().life.process().unwrap();
    let first = rig.shim_pid(&id);
    kill(first);
    let next = rig.again();
    let second = rig.shim_pid(&id);
    assert_ne!(first, second);
    assert_eq!(next.state_of(&id).unwrap().life.process(), Some(before), "the same process runs");
    let stop = hoist::spec::ExecSpec {
        command: ["touch", "/stop"].map(str::to_owned).to_vec(),
        ..hoist::spec::ExecSpec::default()
    };
    assert_eq!(next.exec(&id, &stop).unwrap().wait().unwrap(), 0);
    assert_eq!(next.wait(&id).unwrap(), 42, "its exit code is known although it is nobody's child");
    let numbers: Vec<u32> = rig.output(&id).lines().map(|l| l.parse().unwrap()).collect();
    assert!(numbers.windows(2).all(|w| w[0] + 1 == w[1]), "no line was lost: {numbers:?}");
    rig.assert_idle();
}

#[test]
fn stop_works_on_a_container_whose_shim_was_killed() {
    let Some(rig) = Rig::new() else { return };
    let id = rig.run(&rig.spec("orphan", "trap 'exit 6' TERM; while :; do sleep 0.02; done"));
    kill(rig.shim_pid(&id));
    rig.runtime.stop(&id, None).unwrap();
    assert_eq!(rig.runtime.wait(&id).unwrap(), 6);
    rig.assert_idle();
}

#[test]
fn a_container_that_died_unseen_is_cleaned_up_and_restarted_by_its_policy() {
    let Some(rig) = Rig::new() else { return };
    for (name, restart) in [("no", RestartPolicy::No), ("always", RestartPolicy::Always)] {
        let mut spec = rig.spec(name, "exec sleep 1000");
        spec.restart = restart;
        let id = rig.run(&spec);
        let main = rig.runtime.state_of(&id).unwrap().life.process().unwrap().pid;
        kill(rig.shim_pid(&id));
        kill(main);
        let next = rig.again();
        let life = next.state_of(&id).unwrap().life;
        match restart {
            RestartPolicy::No => assert!(matches!(life, Life::Exited { end } if end.unknown), "{life:?}"),
            _ => assert!(matches!(life, Life::Running { .. }), "{life:?}"),
        }
        next.remove(&id, true, true).unwrap();
    }
    rig.assert_idle();
}

#[test]
fn half_made_things_are_swept_by_the_next_command() {
    let Some(rig) = Rig::new() else { return };
    let kept = rig.runtime.create(&rig.spec("kept", "true")).unwrap();
    // A command killed while creating: a name and a directory without a record.
    let half = "ab".repeat(32);
    std::fs::create_dir_all(rig.root.containers().join(&half).join("upper")).unwrap();
    std::fs::write(rig.root.data().join("names/half"), &half).unwrap();
    // One killed while starting: a run directory with nothing but its lock.
    std::fs::create_dir_all(rig.root.live().join(&kept)).unwrap();
    std::fs::write(rig.root.live().join(&kept).join("lock"), "").unwrap();
    let next = rig.again();
    assert!(!rig.root.containers().join(&half).exists());
    assert!(!rig.root.data().join("names/half").exists());
    rig.assert_idle();
    next.create(&rig.spec("half", "true")).expect("the name is free");
    next.start(&kept).unwrap();
    assert_eq!(next.wait(&kept).unwrap(), 0);
}

#[test]
fn another_boot_voids_what_was_running() {
    let Some(rig) = Rig::new() else { return };
    let id = rig.run(&rig.spec("old", "exec sleep 1000"));
    let main = rig.runtime.state_of(&id).unwrap().life.process().unwrap().pid;
    kill(rig.shim_pid(&id));
    kill(main);
    // The machine comes up again: same files, another boot id.
    let path = rig.runtime.container_dir(&id).join("state.json");
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let text =
        std::fs::read_to_string(&path).unwrap().replace(boot.trim(), "00000000-0000-0000-0000-000000000000");
    std::fs::write(&path, text).unwrap();
    std::fs::write(rig.root.run().join("boot"), "00000000-0000-0000-0000-000000000000").unwrap();
    let next = rig.again();
    assert!(matches!(next.state_of(&id).unwrap().life, Life::Exited { end } if end.unknown));
    rig.assert_idle();
    next.start(&id).unwrap();
    next.stop(&id, Some(Duration::ZERO)).unwrap();
}

#[test]
fn many_starts_stops_and_removals_at_once_end_in_one_state() {
    let Some(rig) = Rig::new() else { return };
    let id = rig.runtime.create(&rig.spec("busy", "exec sleep 1000")).unwrap();
    std::thread::scope(|scope| {
        for n in 0..6 {
            let (rig, id) = (&rig, &id);
            scope.spawn(move || {
                let own = rig.again();
                for _ in 0..5 {
                    if n % 2 == 0 {
                        own.start(id).unwrap_or_else(|e| panic!("{}", hoist::runtime::error::chain(&e)));
                    } else {
                        own.stop(id, Some(Duration::ZERO))
                            .unwrap_or_else(|e| panic!("{}", hoist::runtime::error::chain(&e)));
                    }
                }
            });
        }
    });
    rig.runtime.start(&id).unwrap();
    assert!(matches!(rig.runtime.state_of(&id).unwrap().life, Life::Running { .. }));
    rig.runtime.remove(&id, true, true).unwrap();
    rig.assert_idle();
}
