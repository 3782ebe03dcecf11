//! Processes of ours killed at any moment: the next command repairs.

mod root {
    use std::time::{Duration, Instant};

    use rustix::process::{Pid, Signal, kill_process};

    use crate::support::{TestEnvironment, eventually, pause, require};

    const STACK: &str = "
services:
  db: {image: 'busybox:latest', command: [sleep, '1000'], init: true, volumes: ['data:/data', /more]}
  api: {image: 'busybox:latest', command: [sleep, '1000'], init: true, depends_on: [db], networks: [default, back]}
  web: {image: 'busybox:latest', command: [sleep, '1000'], init: true, depends_on: [api], ports: ['8080:80', '127.0.0.1:8081:80/udp']}
networks: {back: {}}
volumes: {data: {}}
";

    fn kill(process: u32) {
        let pid = i32::try_from(process).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, Signal::KILL).expect("the process can be killed");
    }

    #[test]
    fn up_killed_at_any_moment_leaves_nothing_that_the_next_up_and_down_do_not_mend() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(STACK);
        let before = env.snapshot();
        // How long a whole `up` takes here bounds the moments.
        let started = Instant::now();
        env.hoist(&["up", "-d"]).ok();
        let whole = started.elapsed();
        env.hoist(&["down", "-v"]).ok();
        env.assert_as_before(&before);
        // Seeded by the run, and printed, so that a failure can be looked at again.
        let mut seed = u64::from(std::process::id());
        for round in 0..50 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let thousandths = u32::try_from((seed >> 33) % 1000).expect("below a thousand");
            let moment = whole * thousandths / 1000;
            eprintln!("round {round}: killed after {moment:?} of {whole:?}");
            let up = env.start(&["up", "-d"]);
            pause(moment);
            up.signal(Signal::KILL);
            drop(up);
            env.hoist(&["up", "-d"]).ok();
            let all = env.ps();
            assert!(all.len() == 3 && all.iter().all(|c| c["State"] == "running"), "{all:?}");
            env.assert_shims(3);
            env.hoist(&["down", "-v", "-t", "2"]).ok();
            env.assert_as_before(&before);
        }
    }

    #[test]
    fn down_alone_cleans_up_after_a_killed_up() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(STACK);
        let before = env.snapshot();
        for hundredths in 0..15_u64 {
            let up = env.start(&["up", "-d"]);
            pause(Duration::from_millis(10 * hundredths));
            up.signal(Signal::KILL);
            drop(up);
            env.hoist(&["down", "-v", "-t", "2"]).ok();
            env.assert_as_before(&before);
        }
    }

    #[test]
    fn a_killed_shim_hurts_one_container_and_the_next_command_repairs() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(STACK);
        let before = env.snapshot();
        env.hoist(&["up", "-d"]).ok();
        let all = env.shims();
        for (killed, _) in all.iter().enumerate() {
            let shims = env.shims();
            let (victim, others) = (shims[killed.min(shims.len() - 1)], shims.len() - 1);
            kill(victim);
            eventually("the victim to be gone", Duration::from_secs(5), || {
                if env.shims().contains(&victim) { Err("still there".to_owned()) } else { Ok(()) }
            });
            env.assert_shims(others);
            env.hoist(&["up", "-d"]).ok();
            let all = env.ps();
            assert!(all.len() == 3 && all.iter().all(|c| c["State"] == "running"), "{all:?}");
            env.hoist(&["exec", "-T", "web", "true"]).ok();
            env.hoist(&["exec", "-T", "db", "true"]).ok();
        }
        env.hoist(&["down", "-v", "-t", "2"]).ok();
        env.assert_as_before(&before);
    }

    #[test]
    fn all_shims_killed_at_once_and_down_still_leaves_nothing() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(STACK);
        let before = env.snapshot();
        env.hoist(&["up", "-d"]).ok();
        env.shims().into_iter().for_each(kill);
        env.hoist(&["down", "-v", "-t", "2"]).ok();
        env.assert_as_before(&before);
    }
}
