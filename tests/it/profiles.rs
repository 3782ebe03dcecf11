//! Services that run only when asked for.

mod root {
    use crate::support::{TestEnvironment, require};

    #[test]
    fn a_service_with_a_profile_runs_only_when_that_is_active() {
        require!(Root);
        let mut env = TestEnvironment::with_busybox();
        let service = "{image: 'busybox:latest', command: [sleep, '1000'], stop_signal: SIGKILL";
        env.compose(&format!(
            "services:\n  web: {service}}}\n  debug: {service}, profiles: [debug]}}\n  tools: {service}, profiles: [tools]}}\n"
        ));
        let services = |env: &TestEnvironment| {
            let mut names: Vec<String> =
                env.ps().iter().map(|c| c["Service"].as_str().expect("text").to_owned()).collect();
            names.sort();
            names
        };
        env.hoist(&["up", "-d"]).ok();
        assert_eq!(services(&env), ["web"]);
        env.hoist(&["--profile", "debug", "up", "-d"]).ok();
        assert_eq!(services(&env), ["debug", "web"]);
        env.hoist(&["up", "-d", "tools"]).ok();
        assert_eq!(services(&env), ["debug", "tools", "web"], "a service that is named is asked for");
        env.set("COMPOSE_PROFILES", "debug,tools");
        env.hoist(&["down"]).ok();
        env.assert_shims(0);
    }
}
