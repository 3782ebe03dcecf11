//! Starting in dependency order, under the three conditions.

mod root {
    use crate::support::{TestEnvironment, require};

    #[test]
    fn services_start_after_what_they_depend_on_and_stop_before_it() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        let service = |name: &str, on: &str| {
            format!(
                "  {name}: {{image: 'busybox:latest', volumes: ['order:/order'], depends_on: [{on}], \
                 command: [sh, -c, 'trap \"echo -{name} >>/order/log; exit\" TERM; echo +{name} >>/order/log; \
                 while :; do sleep 0.02; done'], \
                 healthcheck: {{test: [CMD, grep, -q, +{name}, /order/log], interval: 50ms, retries: 100}}}}\n"
            )
        };
        let text = format!(
            "services:\n{}{}{}  look: {{image: 'busybox:latest', profiles: [look], volumes: ['order:/order'], \
             command: [cat, /order/log]}}\nvolumes: {{order: {{}}}}\n",
            service("web", "api"),
            service("api", "db"),
            service("db", "")
        )
        .replace("depends_on: [api]", "depends_on: {api: {condition: service_healthy}}")
        .replace("depends_on: [db]", "depends_on: {db: {condition: service_healthy}}");
        env.compose(&text);
        env.hoist(&["up", "-d", "--wait"]).ok();
        env.hoist(&["stop"]).ok();
        let order = env.hoist(&["run", "--rm", "-T", "--no-deps", "look"]).ok();
        assert_eq!(
            order.split_whitespace().collect::<Vec<_>>(),
            ["+db", "+api", "+web", "-web", "-api", "-db"]
        );
    }

    #[test]
    fn a_dependant_waits_until_a_one_shot_has_succeeded() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(
            "
services:
  setup:
    image: busybox:latest
    command: [sh, -c, 'sleep 0.5; echo done >/shared/file']
    volumes: ['shared:/shared']
  web:
    image: busybox:latest
    command: [cat, /shared/file]
    volumes: ['shared:/shared']
    depends_on: {setup: {condition: service_completed_successfully}}
volumes: {shared: {}}
",
        );
        let up = env.hoist(&["up", "--no-color"]);
        assert!(up.stdout.contains("done"), "{}", up.stdout);
        up.ok();
    }

    #[test]
    fn a_failed_dependency_fails_up_and_is_named_with_what_it_said() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(
            "
services:
  setup: {image: 'busybox:latest', command: [sh, -c, 'echo the disk is on fire >&2; exit 4']}
  web:
    image: busybox:latest
    command: [sleep, '1000']
    depends_on: {setup: {condition: service_completed_successfully}}
",
        );
        env.hoist(&["up", "-d"]).fails_naming(&["setup", "4", "the disk is on fire"]);
        env.assert_shims(0);
    }

    #[test]
    fn an_unhealthy_dependency_fails_up_and_is_named() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(
            "
services:
  db:
    image: busybox:latest
    command: [sleep, '1000']
    stop_signal: SIGKILL
    healthcheck: {test: [CMD-SHELL, 'echo no table; exit 1'], interval: 50ms, retries: 2}
  web:
    image: busybox:latest
    command: [sleep, '1000']
    depends_on: {db: {condition: service_healthy}}
",
        );
        env.hoist(&["up", "-d"]).fails_naming(&["db", "unhealthy"]);
        env.assert_shims(1);
    }

    #[test]
    fn an_optional_dependency_that_is_absent_does_not_hinder() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(
            "
services:
  extra: {image: 'busybox:latest', profiles: [extra]}
  web:
    image: busybox:latest
    command: [sleep, '1000']
    stop_signal: SIGKILL
    depends_on: {extra: {condition: service_started, required: false}}
",
        );
        env.hoist(&["up", "-d"]).ok();
        assert_eq!(env.ps().len(), 1);
    }

    #[test]
    fn a_dependant_that_asks_for_it_restarts_with_its_dependency() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(
            "
services:
  db: {image: 'busybox:latest', command: [sleep, '1000'], stop_signal: SIGKILL}
  web:
    image: busybox:latest
    command: [sh, -c, 'echo web starts; exec sleep 1000']
    stop_signal: SIGKILL
    depends_on: {db: {condition: service_started, restart: true}}
",
        );
        env.hoist(&["up", "-d"]).ok();
        env.hoist(&["restart", "db"]).ok();
        assert_eq!(env.hoist(&["logs", "web"]).ok().matches("web starts").count(), 2);
    }
}
