//! Output of the services: complete, in order, with its service's name.

mod root {
    use std::time::Duration;

    use crate::support::{TestEnvironment, pause, require};

    #[test]
    fn no_line_is_lost_or_torn_and_each_has_its_prefix() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(
            "
services:
  a: {image: 'busybox:latest', command: [sh, -c, 'seq 20000 | sed s/^/a.line./']}
  longer: {image: 'busybox:latest', command: [sh, -c, 'seq 20000 | sed s/^/b.line./ >&2']}
",
        );
        let up = env.hoist(&["up", "--no-color"]);
        for (prefix, word) in [("a-1       | ", "a"), ("longer-1  | ", "b")] {
            let text = format!("{}{}", up.stdout, up.stderr);
            let numbers: Vec<u32> = text
                .lines()
                .filter_map(|line| line.strip_prefix(prefix)?.strip_prefix(word)?.strip_prefix(".line."))
                .map(|number| number.parse().expect("a whole line"))
                .collect();
            assert!(numbers.iter().copied().eq(1..=20000), "{} lines of {word}", numbers.len());
        }
        up.ok();
    }

    #[test]
    fn long_lines_and_odd_bytes_come_through() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(
            "
services:
  long: {image: 'busybox:latest', command: [sh, -c, 'head -c 300000 /dev/zero | tr \"\\\\0\" x; echo; printf \"no newline\"']}
",
        );
        env.hoist(&["up", "-d"]).ok();
        let logs = crate::support::eventually("the last line", Duration::from_secs(10), || {
            let logs = env.hoist(&["logs", "--no-log-prefix", "--no-color"]).ok();
            if logs.contains("no newline") { Ok(logs) } else { Err(format!("{} bytes", logs.len())) }
        });
        let lines: Vec<&str> = logs.lines().collect();
        assert_eq!((lines[0].len(), lines[1]), (300_000, "no newline"));
    }

    #[test]
    fn logs_are_limited_stamped_and_unprefixed_as_asked() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose("services: {a: {image: 'busybox:latest', command: [seq, '100']}}");
        env.hoist(&["up"]).ok();
        assert_eq!(env.hoist(&["logs", "--no-log-prefix"]).ok().lines().count(), 100);
        assert_eq!(env.hoist(&["logs", "--no-log-prefix", "--tail", "3"]).ok(), "98\n99\n100\n");
        assert_eq!(env.hoist(&["logs", "--tail", "0"]).ok(), "");
        let stamped = env.hoist(&["logs", "-t", "--no-color", "--tail", "1"]).ok();
        let stamp = stamped.strip_prefix("a-1  | ").and_then(|rest| rest.split(' ').next()).expect("a stamp");
        let stamp: jiff::Timestamp = stamp.parse().expect("RFC 3339");
        assert!(jiff::Timestamp::now().duration_since(stamp).as_secs() < 60);
        assert_eq!(env.hoist(&["logs", "--since", "10m", "--no-log-prefix"]).ok().lines().count(), 100);
        assert_eq!(env.hoist(&["logs", "--until", "10m"]).ok(), "");
        assert_eq!(env.hoist(&["logs", "--since", "2100-01-01T00:00:00Z"]).ok(), "");
    }

    #[test]
    fn a_follower_sees_restarts_and_new_containers() {
        require!(Root);
        let mut env = TestEnvironment::with_busybox();
        env.compose(
            "
services:
  web:
    image: busybox:latest
    command: [sh, -c, 'echo web runs $$GENERATION; exec sleep 1000']
    stop_signal: SIGKILL
    environment: {GENERATION: '${GENERATION:-1}'}
",
        );
        env.hoist(&["up", "-d"]).ok();
        let follower = env.start(&["logs", "-f", "--no-color"]);
        follower.wait_for_line("the first start", |line| line.ends_with("web runs 1"));
        env.hoist(&["restart", "web"]).ok();
        crate::support::eventually("the restart", Duration::from_secs(10), || {
            let text = follower.stdout();
            if text.matches("web runs 1").count() == 2 { Ok(()) } else { Err(text) }
        });
        env.set("GENERATION", "2");
        env.hoist(&["up", "-d"]).ok();
        follower.wait_for_line("the new container", |line| line.ends_with("web runs 2"));
    }

    #[test]
    fn a_slow_reader_loses_nothing() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose("services: {a: {image: 'busybox:latest', command: [seq, '300000']}}");
        let mut command = env.command("sh");
        let hoist = crate::support::hoist();
        command.arg("-c").arg(format!("{hoist} up --no-color --no-log-prefix | (sleep 1; cat)"));
        let up = crate::support::Running::start(command, "hoist up | slow".to_owned());
        pause(Duration::from_millis(500));
        let text = up.finish().ok();
        let numbers = text.lines().filter(|line| line.parse::<u32>().is_ok()).count();
        assert_eq!(numbers, 300_000);
    }
}
