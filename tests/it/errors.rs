//! Bad input: each message names the thing and what to do, nothing is half-made.

mod root {
    use crate::support::{TestEnvironment, require};

    /// `up -d` of this file fails, naming all of these, and leaves nothing.
    #[track_caller]
    fn refused(compose: &str, words: &[&str]) {
        let env = TestEnvironment::with_busybox();
        env.compose(compose);
        let before = env.snapshot();
        let said = env.hoist(&["up", "-d"]).fails_naming(words);
        assert!(!said.contains("os error"), "a raw error number reached the user:\n{said}");
        env.assert_as_before(&before);
    }

    #[test]
    fn no_compose_file() {
        require!(Root);
        let env = TestEnvironment::new();
        let before = env.snapshot();
        env.hoist(&["up", "-d"]).fails_naming(&["compose.yaml"]);
        env.hoist(&["-f", "other.yaml", "up", "-d"]).fails_naming(&["other.yaml"]);
        env.assert_as_before(&before);
    }

    #[test]
    fn broken_yaml() {
        require!(Root);
        refused("services:\n  web:\n    image: [busybox\n", &["compose.yaml:"]);
        refused("services:\n\tweb: {}\n", &["compose.yaml:2:"]);
    }

    #[test]
    fn an_unknown_or_ill_typed_key() {
        require!(Root);
        refused(
            "services:\n  web:\n    imagee: busybox\n",
            &["compose.yaml:3:5", "imagee", "^", "did you mean", "image"],
        );
        refused(
            "services:\n  web:\n    image: busybox\n    privileged: [1]\n",
            &["compose.yaml:4:", "privileged"],
        );
    }

    #[test]
    fn a_cycle() {
        require!(Root);
        refused(
            "services:\n  a: {image: busybox, depends_on: [b]}\n  b: {image: busybox, depends_on: [c]}\n  c: {image: busybox, depends_on: [a]}\n",
            &["a", "b", "c", "->"],
        );
    }

    #[test]
    fn an_undefined_network_volume_or_secret() {
        require!(Root);
        refused(
            "services:\n  web: {image: busybox, networks: [backnd]}\nnetworks: {backend: {}}\n",
            &["web", "backnd", "compose.yaml:2:", "backend"],
        );
        refused(
            "services:\n  web: {image: busybox, volumes: ['data:/data']}\n",
            &["web", "data", "compose.yaml:2:"],
        );
        refused("services:\n  web: {image: busybox, secrets: [key]}\n", &["web", "key", "compose.yaml:2:"]);
    }

    #[test]
    fn an_unknown_service_on_the_command_line() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose("services: {web: {image: 'busybox:latest'}}");
        for verb in ["up", "stop", "logs", "restart", "kill"] {
            env.hoist(&[verb, "wbe"]).fails_naming(&["wbe"]);
        }
    }

    #[test]
    fn an_image_that_is_not_found() {
        require!(Root);
        // A registry that is not there: nothing listens on this port.
        refused("services: {web: {image: 'localhost:5999/no/such:1'}}", &["web", "localhost:5999/no/such:1"]);
    }

    #[test]
    fn a_port_that_is_taken() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(
            "
services:
  db: {image: 'busybox:latest', command: [sleep, '1000'], stop_signal: SIGKILL}
  web: {image: 'busybox:latest', command: [sleep, '1000'], stop_signal: SIGKILL, ports: ['8080:80'], depends_on: [db]}
",
        );
        let holder = env.in_network(|| std::net::TcpListener::bind("0.0.0.0:8080").expect("a free port"));
        let before = env.snapshot();
        env.hoist(&["up", "-d"]).fails_naming(&["8080", "web"]);
        env.hoist(&["down"]).ok();
        env.assert_as_before(&before);
        drop(holder);
        env.hoist(&["up", "-d"]).ok();
    }

    #[test]
    fn a_command_that_is_not_there() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose("services: {web: {image: 'busybox:latest', command: [no-such-program]}}");
        env.hoist(&["up", "-d"]).fails_naming(&["web", "no-such-program"]);
        env.assert_shims(0);
    }

    #[test]
    fn a_file_to_bind_that_is_not_there() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(
            "services: {web: {image: 'busybox:latest', volumes: [{type: bind, source: ./absent, target: /x, bind: {create_host_path: false}}]}}",
        );
        env.hoist(&["up", "-d"]).fails_naming(&["web", "absent"]);
        env.assert_shims(0);
    }

    #[test]
    fn not_enough_rights() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose("services: {web: {image: 'busybox:latest'}}");
        // The checkout's binary may lie where only root may go.
        let copy = env.project().join("hoist");
        std::fs::copy(crate::support::hoist(), &copy).expect("the binary can be copied");
        env.host(&["chmod", "-R", "a+rX", env.project().parent().and_then(|p| p.to_str()).expect("a path")])
            .ok();
        let copy = copy.to_str().expect("a plain path");
        env.host(&["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", copy, "up", "-d"])
            .fails_naming(&["root"]);
    }
}
