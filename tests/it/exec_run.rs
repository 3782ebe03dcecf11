//! Commands in running containers and in containers of their own.

mod root {
    use crate::support::{TestEnvironment, require};

    const WEB: &str = "
services:
  web:
    image: busybox:latest
    command: [sleep, '1000']
    stop_signal: SIGKILL
    environment: {A: one}
    working_dir: /tmp
    ports: ['8080:80']
";

    #[test]
    fn exec_runs_as_the_service_would_and_returns_the_code() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(WEB);
        env.hoist(&["up", "-d"]).ok();
        let out = env.hoist(&[
            "exec",
            "-T",
            "-e",
            "B=two",
            "web",
            "sh",
            "-c",
            "echo $A $B $PWD; echo err >&2; exit 9",
        ]);
        assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("one two /tmp\n", "err\n"));
        out.fails_with(9);
        let who = env.hoist(&["exec", "-T", "-u", "guest", "-w", "/", "web", "sh", "-c", "id; pwd"]).ok();
        assert_eq!(who, "uid=1000(guest) gid=1000(guest) groups=1000(guest),2000(extra)\n/\n");
        env.hoist(&["exec", "-T", "web", "no-such-program"]).fails_with(127);
        env.hoist(&["exec", "-T", "absent", "true"]).fails_naming(&["absent"]);
    }

    #[test]
    fn exec_passes_standard_input_on() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(WEB);
        env.hoist(&["up", "-d"]).ok();
        let hoist = crate::support::hoist();
        let out = env.host(&["sh", "-c", &format!("seq 50000 | {hoist} exec -T web wc -l")]);
        assert_eq!(out.ok().trim(), "50000");
    }

    #[test]
    fn run_makes_a_container_of_its_own_and_leaves_nothing() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(WEB);
        let before = env.snapshot();
        let out = env.hoist(&["run", "--rm", "-T", "-e", "A=three", "web", "sh", "-c", "echo $A; exit 6"]);
        assert_eq!(out.stdout, "three\n");
        out.fails_with(6);
        env.hoist(&["down"]).ok();
        env.assert_as_before(&before);
    }

    #[test]
    fn a_service_that_is_not_running_cannot_be_entered() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(WEB);
        env.hoist(&["exec", "-T", "web", "true"]).fails_naming(&["web", "not running"]);
    }
}
