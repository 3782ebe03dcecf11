//! Bringing a project up, changing it, and taking it down.

mod root {
    use std::time::{Duration, Instant};

    use rustix::process::Signal;

    use crate::support::{TestEnvironment, eventually, require};

    const TWO: &str = "
services:
  web:
    image: busybox:latest
    command: [sleep, '1000']
    stop_signal: SIGKILL
    environment: {COLOUR: '${COLOUR:-red}'}
  db:
    image: busybox:latest
    command: [sleep, '1000']
    stop_signal: SIGKILL
";

    #[test]
    fn up_starts_every_service_and_down_leaves_nothing() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(
            "
services:
  web:
    image: busybox:latest
    command: [sleep, '1000']
    stop_signal: SIGKILL
    ports: ['8080:80', '127.0.0.1:8053:53/udp', '[::1]:8081:80']
    volumes: ['data:/data', '/anonymous']
    networks: [front, back]
  db:
    image: busybox:latest
    command: [sleep, '1000']
    stop_signal: SIGKILL
    networks: [back]
networks: {front: {}, back: {}}
volumes: {data: {}}
",
        );
        let before = env.snapshot();
        env.hoist(&["up", "-d"]).ok();
        let running = env.ps();
        assert_eq!(running.len(), 2, "{running:?}");
        assert!(running.iter().all(|c| c["State"] == "running"), "{running:?}");
        assert!(env.host(&["nft", "list", "ruleset"]).ok().contains("8080"), "the port is published");
        env.assert_shims(2);

        env.hoist(&["down", "-v"]).ok();
        env.assert_as_before(&before);
    }

    #[test]
    fn an_unchanged_up_is_a_no_op() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(TWO);
        env.hoist(&["up", "-d"]).ok();
        let (ids, shims) = (env.hoist(&["ps", "-q"]).ok(), env.shims());
        env.hoist(&["up", "-d"]).ok();
        assert_eq!(env.hoist(&["ps", "-q"]).ok(), ids);
        assert_eq!(env.shims(), shims);
    }

    #[test]
    fn only_what_changed_is_made_anew() {
        require!(Root);
        let mut env = TestEnvironment::with_busybox();
        env.compose(TWO);
        env.hoist(&["up", "-d"]).ok();
        let (web, db) = (env.ids("web"), env.ids("db"));
        env.set("COLOUR", "blue");
        env.hoist(&["up", "-d", "--no-recreate"]).ok();
        assert_eq!(env.ids("web"), web, "--no-recreate keeps what changed");
        env.hoist(&["up", "-d"]).ok();
        assert_ne!(env.ids("web"), web);
        assert_eq!(env.ids("db"), db);
        assert_eq!(env.hoist(&["exec", "-T", "web", "sh", "-c", "echo $COLOUR"]).ok().trim(), "blue");
        env.hoist(&["up", "-d", "--force-recreate", "db"]).ok();
        assert_ne!(env.ids("db"), db);
    }

    #[test]
    fn replicas_are_added_and_removed_to_the_number_asked_for() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(TWO);
        env.hoist(&["up", "-d", "--scale", "web=3"]).ok();
        let three = env.ids("web");
        assert_eq!(three.len(), 3);
        env.hoist(&["up", "-d", "--scale", "web=1"]).ok();
        let one = env.ids("web");
        assert_eq!(one.len(), 1);
        assert!(three.contains(&one[0]), "the one that stays is one of the three");
        assert_eq!(env.ps().iter().filter(|c| c["Name"] == "project-web-1").count(), 1);
    }

    #[test]
    fn orphans_stay_until_they_are_to_be_removed() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(TWO);
        env.hoist(&["up", "-d"]).ok();
        env.compose(
            "services: {web: {image: 'busybox:latest', command: [sleep, '1000'], stop_signal: SIGKILL}}",
        );
        let said = env.hoist(&["up", "-d"]);
        assert!(said.stderr.contains("orphan") && said.stderr.contains("project-db-1"), "{}", said.stderr);
        said.ok();
        env.assert_shims(2);
        env.hoist(&["up", "-d", "--remove-orphans"]).ok();
        env.assert_shims(1);
    }

    #[test]
    fn the_first_interrupt_stops_gracefully_in_reverse_order() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(
            "
services:
  db:
    image: busybox:latest
    command: [sh, -c, 'trap \"echo db stops; exit 0\" TERM; echo db runs; while :; do sleep 0.05; done']
  web:
    image: busybox:latest
    command: [sh, -c, 'trap \"echo web stops; exit 0\" TERM; echo web runs; while :; do sleep 0.05; done']
    depends_on: [db]
",
        );
        let before = env.snapshot();
        let up = env.start(&["up", "--no-color"]);
        up.wait_for_line("that web runs", |line| line.contains("web runs"));
        up.signal(Signal::INT);
        up.finish().fails_with(130);
        let stamps = env.hoist(&["logs", "-t", "--no-log-prefix"]).ok();
        let at = |text: &str| {
            let line =
                stamps.lines().find(|l| l.ends_with(text)).unwrap_or_else(|| panic!("{text}: {stamps}"));
            line.split(' ').next().expect("a stamp").to_owned()
        };
        assert!(at("web stops") < at("db stops"), "{stamps}");
        assert!(env.ps().iter().all(|c| c["State"] == "exited" && c["ExitCode"] == 0), "{:?}", env.ps());
        env.hoist(&["down"]).ok();
        env.assert_as_before(&before);
    }

    #[test]
    fn the_second_interrupt_kills() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(
            "
services:
  deaf:
    image: busybox:latest
    command: [sh, -c, 'trap \"\" TERM INT; echo deaf runs; while :; do sleep 0.05; done']
    stop_grace_period: 10m
",
        );
        let up = env.start(&["up", "--no-color"]);
        up.wait_for_line("that it runs", |line| line.contains("deaf runs"));
        let started = Instant::now();
        up.signal(Signal::INT);
        crate::support::pause(Duration::from_millis(500));
        assert_eq!(env.ps()[0]["State"], "running", "the first interrupt waits for the grace period");
        up.signal(Signal::INT);
        up.finish().fails_with(130);
        assert!(started.elapsed() < Duration::from_secs(20));
        let state = env.ps();
        assert_eq!((&state[0]["State"], &state[0]["ExitCode"]), (&"exited".into(), &137.into()), "{state:?}");
    }

    #[test]
    fn two_ups_at_once_make_one_set_of_containers() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(TWO);
        for _ in 0..5 {
            let both = [env.start(&["up", "-d"]), env.start(&["up", "-d"])];
            for up in both {
                up.finish().ok();
            }
            assert_eq!(env.ps().len(), 2);
            env.assert_shims(2);
            env.hoist(&["down"]).ok();
        }
    }

    #[test]
    fn the_code_of_the_named_service_is_the_code_of_up() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(
            "
services:
  db: {image: 'busybox:latest', command: [sleep, '1000'], stop_signal: SIGKILL}
  tests: {image: 'busybox:latest', command: [sh, -c, 'echo testing; exit 7'], depends_on: [db]}
",
        );
        env.hoist(&["up", "--abort-on-container-exit", "--exit-code-from", "tests"]).fails_with(7);
        assert!(env.ps().iter().all(|c| c["State"] == "exited"), "{:?}", env.ps());
        env.hoist(&["up", "--abort-on-container-exit"]).fails_with(7);
    }

    #[test]
    fn wait_returns_when_everything_is_healthy_and_fails_when_something_is_not() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        let with_probe = |probe: &str| {
            format!(
                "
services:
  web:
    image: busybox:latest
    command: [sh, -c, 'sleep 0.5; touch /ready; sleep 1000']
    stop_signal: SIGKILL
    healthcheck: {{test: [CMD, {probe}], interval: 100ms, retries: 3, start_period: 2s, start_interval: 100ms}}
"
            )
        };
        env.compose(&with_probe("test, -e, /ready"));
        env.hoist(&["up", "-d", "--wait"]).ok();
        assert_eq!(env.ps()[0]["Health"], "healthy");
        env.compose(&with_probe("'false'"));
        env.hoist(&["up", "-d", "--wait"]).fails_naming(&["web", "unhealthy"]);
    }

    #[test]
    fn a_service_is_restarted_as_its_policy_says() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(
            "
services:
  always: {image: 'busybox:latest', restart: always, command: [sh, -c, 'echo again; exit 0'], volumes: ['data:/data']}
  twice: {image: 'busybox:latest', restart: 'on-failure:2', command: [sh, -c, 'echo failed; exit 3']}
  fine: {image: 'busybox:latest', restart: on-failure, command: ['true']}
  never: {image: 'busybox:latest', command: ['false']}
volumes: {data: {}}
",
        );
        let before = env.snapshot();
        env.hoist(&["up", "-d"]).ok();
        let count = |service: &str, word: &str| {
            env.hoist(&["logs", "--no-color", service]).ok().matches(word).count()
        };
        eventually("three starts of `always`", Duration::from_secs(20), || match count("always", "again") {
            n @ 0..3 => Err(format!("{n} starts")),
            _ => Ok(()),
        });
        eventually("`twice` to give up", Duration::from_secs(20), || {
            let all = env.ps();
            let twice = all.iter().find(|c| c["Service"] == "twice").expect("it is listed").clone();
            if twice["State"] == "exited" { Ok(()) } else { Err(twice.to_string()) }
        });
        assert_eq!(count("twice", "failed"), 3, "one start and two restarts");
        for (service, code) in [("twice", 3), ("fine", 0), ("never", 1)] {
            let all = env.ps();
            let one = all.iter().find(|c| c["Service"] == service).expect("it is listed");
            assert_eq!((&one["State"], &one["ExitCode"]), (&"exited".into(), &code.into()), "{one}");
        }
        env.hoist(&["down", "-v"]).ok();
        env.assert_as_before(&before);
    }

    #[test]
    fn services_are_stopped_started_restarted_killed_and_removed_by_name() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(TWO);
        let state = |service: &str| {
            let all = env.ps();
            all.iter()
                .find(|c| c["Service"] == service)
                .map(|c| c["State"].as_str().expect("text").to_owned())
        };
        env.hoist(&["up", "-d"]).ok();
        let id = env.ids("web");
        env.hoist(&["stop", "web"]).ok();
        assert_eq!((state("web").as_deref(), state("db").as_deref()), (Some("exited"), Some("running")));
        env.hoist(&["start", "web"]).ok();
        assert_eq!(state("web").as_deref(), Some("running"));
        env.hoist(&["restart", "-t", "0", "web"]).ok();
        assert_eq!((state("web").as_deref(), env.ids("web")), (Some("running"), id));
        env.hoist(&["kill", "db"]).ok();
        eventually("db to be gone", Duration::from_secs(5), || match state("db").as_deref() {
            Some("exited") => Ok(()),
            other => Err(format!("{other:?}")),
        });
        env.hoist(&["rm", "-f", "db"]).ok();
        assert_eq!(state("db"), None);
        env.hoist(&["rm", "-f", "-s", "web"]).ok();
        env.assert_shims(0);
    }

    #[test]
    fn stop_asks_first_and_kills_after_the_grace_period() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(
            "
services:
  deaf:
    image: busybox:latest
    command: [sh, -c, 'trap \"\" TERM; echo runs; while :; do sleep 0.05; done']
    stop_grace_period: 1s
  polite:
    image: busybox:latest
    command: [sh, -c, 'trap \"exit 5\" USR1; while :; do sleep 0.05; done']
    stop_signal: SIGUSR1
",
        );
        env.hoist(&["up", "-d"]).ok();
        crate::support::pause(Duration::from_millis(300));
        let started = Instant::now();
        env.hoist(&["stop"]).ok();
        assert!(started.elapsed() >= Duration::from_secs(1), "killed before the grace period");
        assert!(started.elapsed() < Duration::from_secs(8));
        for (service, code) in [("deaf", 137), ("polite", 5)] {
            let all = env.ps();
            let one = all.iter().find(|c| c["Service"] == service).expect("it is listed");
            assert_eq!(one["ExitCode"], code, "{one}");
        }
    }
}
