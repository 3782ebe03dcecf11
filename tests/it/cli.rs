//! The command line itself: what is refused, how it is called, what it prints and with which code it ends.

mod root {
    use std::time::Duration;

    use crate::support::{TestEnvironment, eventually, require};

    #[test]
    fn version_in_all_its_forms() {
        require!(Root);
        let env = TestEnvironment::new();
        let number = env!("CARGO_PKG_VERSION");
        assert_eq!(env.hoist(&["version"]).ok(), format!("hoist version v{number}\n"));
        assert_eq!(env.hoist(&["--version"]).ok(), format!("hoist version v{number}\n"));
        assert_eq!(env.hoist(&["version", "--short"]).ok(), format!("{number}\n"));
        assert_eq!(env.hoist(&["version", "-f", "json"]).ok(), format!("{{\"version\":\"v{number}\"}}\n"));
    }

    #[test]
    fn the_docker_command_line_may_call_it_as_its_plugin() {
        require!(Root);
        let env = TestEnvironment::new();
        let metadata = env.hoist(&["docker-cli-plugin-metadata"]).ok();
        let metadata: serde_json::Value = serde_json::from_str(&metadata).expect("JSON");
        assert_eq!(metadata["SchemaVersion"], "0.1.0");
        env.hoist(&["compose", "version", "--short"]).ok();
        let hoist = crate::support::hoist();
        let called = |name: &str, rest: &str| {
            env.host(&["bash", "-c", &format!("exec -a {name} {hoist} {rest}")]).ok()
        };
        let help = called("/usr/libexec/docker/cli-plugins/docker-compose", "compose up --help");
        assert!(help.contains("Usage: docker compose up"), "{help}");
        called("docker-compose", "version");
    }

    #[test]
    fn what_it_cannot_do_is_refused_by_name() {
        require!(Root);
        let env = TestEnvironment::new();
        env.compose("services: {web: {image: busybox}}");
        for (arguments, word) in [
            (&["up", "--watch"][..], "develop.watch"),
            (&["up", "--menu"], "--menu"),
            (&["watch"], "develop.watch"),
            (&["--host", "tcp://127.0.0.1:1", "ps"], "--host"),
            (&["--dry-run", "run", "web"], "--dry-run"),
            (&["up", "--no-such-flag"], "--no-such-flag"),
            (&["nosuch"], "nosuch"),
            (&["--progress", "bright", "ps"], "bright"),
            (&["--engine", "steam", "ps"], "steam"),
            (&["-p", "Not a name", "ps"], "Not a name"),
            (&["up", "--build", "--no-build"], "--no-build"),
            (&["up", "-d", "--abort-on-container-exit"], "--abort-on-container-exit"),
            (&["up", "--wait-timeout", "-1"], "--wait-timeout"),
            (&["logs", "--tail", "few"], "few"),
            (&["ps", "--status", "tired"], "tired"),
            (&["ps", "--filter", "status"], "KEY=VAL"),
            (&["scale", "web"], "web"),
        ] {
            let out = env.hoist(arguments);
            assert!(out.stderr.contains(word), "{arguments:?}: {}", out.stderr);
            out.fails_with(1);
        }
    }

    #[test]
    fn a_dry_run_says_what_would_be_done_and_does_nothing() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(
            "name: d\nservices:\n  web: {image: busybox, command: sleep 1000, stop_grace_period: 0s}\n",
        );
        env.hoist(&["up", "-d"]).ok();
        let before = env.ps();
        for (words, said) in [
            (&["stop"][..], "Stopped"),
            (&["kill"], "Killed"),
            (&["pause"], "Paused"),
            (&["restart"], "Restarting"),
            (&["rm", "-s"], "Removed"),
            (&["down", "-v"], "Network d_default Removed"),
        ] {
            let mut line = vec!["--dry-run"];
            line.extend(words);
            let out = env.hoist(&line);
            assert!(
                out.stderr.contains("DRY-RUN MODE") && out.stderr.contains(said),
                "{words:?}: {}",
                out.stderr
            );
            out.ok();
            assert_eq!(env.ps()[0]["ID"], before[0]["ID"], "{words:?}");
            assert_eq!(env.ps()[0]["State"], "running", "{words:?}");
        }
        env.hoist(&["exec", "-T", "web", "true"]).ok();
    }

    #[test]
    fn every_command_has_a_manual_page() {
        require!(Root);
        let env = TestEnvironment::new();
        env.hoist(&["man", "pages"]).ok();
        let page = |name: &str| {
            std::fs::read_to_string(env.project().join("pages").join(name))
                .unwrap_or_else(|e| panic!("{name}: {e}"))
        };
        assert!(page("hoist.1").contains("hoist\\-up(1)"));
        assert!(page("hoist-up.1").contains("\\-\\-detach"));
    }

    #[test]
    fn a_shell_completes_services_profiles_and_projects() {
        require!(Root);
        let mut env = TestEnvironment::with_busybox();
        env.compose("name: c\nservices:\n  web: {image: busybox, command: sleep 100, stop_grace_period: 0s}\n  work: {image: busybox, profiles: [extra]}\n");
        env.hoist(&["up", "-d"]).ok();
        env.set("HOIST", crate::support::hoist());
        let completed = |words: &str| {
            let script = format!(
                "hoist() {{ \"$HOIST\" \"$@\"; }}; source <(hoist completion bash); COMP_WORDS=({words}); \
                 COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMP_LINE=\"{words}\"; COMP_POINT=${{#COMP_LINE}}; \
                 _hoist_names hoist \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; echo ${{COMPREPLY[*]}}"
            );
            env.host(&["bash", "-c", &script]).ok().trim().to_owned()
        };
        assert_eq!(completed("hoist up w"), "web");
        assert_eq!(completed("hoist --profile extra logs w"), "web work");
        assert_eq!(completed("hoist --profile e"), "extra");
        assert_eq!(completed("hoist -p c"), "c");
        assert_eq!(completed("hoist up --det"), "--detach");
    }

    #[test]
    fn mistakes_in_files_are_shown_with_their_place() {
        require!(Root);
        let env = TestEnvironment::new();
        env.compose("services:\n  web:\n    image: busybox\n    comand: [sh]\n");
        let out = env.hoist(&["up", "-d"]);
        assert!(out.stderr.contains("compose.yaml:4:5"), "{}", out.stderr);
        assert!(out.stderr.contains("comand") && out.stderr.contains("command"), "{}", out.stderr);
        out.fails_with(1);
        let out = env.hoist(&["--progress", "json", "up", "-d"]);
        let object: serde_json::Value = serde_json::from_str(out.stderr.trim()).expect("one JSON object");
        assert_eq!(object["error"], true);
        out.fails_with(1);
    }

    #[test]
    fn variables_of_dot_env_are_settings_too() {
        require!(Root);
        let env = TestEnvironment::new();
        env.write(".env", "COMPOSE_FILE=other.yaml\nCOMPOSE_PROGRESS=bright\n");
        env.write("other.yaml", "services: {one: {image: busybox}}");
        env.hoist(&["config", "--services"]).fails_naming(&["bright"]);
        env.write(".env", "COMPOSE_FILE=other.yaml\n");
        assert_eq!(env.hoist(&["config", "--services"]).ok(), "one\n");
    }

    #[test]
    fn a_reader_that_has_enough_is_no_error_to_talk_about() {
        require!(Root);
        let env = TestEnvironment::new();
        let hoist = crate::support::hoist();
        let out = env.host(&[
            "bash",
            "-c",
            &format!("{hoist} completion zsh | head -c 10 >/dev/null; echo ${{PIPESTATUS[0]}}"),
        ]);
        assert!(!out.stderr.contains("error"), "{}", out.stderr);
    }

    const TWO: &str = "
services:
  db:
    image: busybox:latest
    command: [sh, -c, 'echo db ready; sleep 1000']
    stop_signal: SIGKILL
  longer-name:
    image: busybox:latest
    command: [sh, -c, 'echo out; echo err >&2; printf rest']
    depends_on: [db]
";

    #[test]
    fn up_prints_names_aligned_and_ends_with_the_code_asked_for() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(TWO);
        let out = env.hoist(&["up", "--exit-code-from", "longer-name"]);
        assert!(out.stdout.contains("db-1           | db ready\n"), "{}", out.stdout);
        assert!(out.stdout.contains("longer-name-1  | out\n"), "{}", out.stdout);
        assert!(out.stdout.contains("longer-name-1  | rest\n"), "{}", out.stdout);
        assert!(out.stdout.contains("longer-name-1 exited with code 0\n"), "{}", out.stdout);
        assert!(out.stderr.contains("longer-name-1  | err\n"), "{}", out.stderr);
        assert!(out.stderr.contains("Aborting on container exit..."), "{}", out.stderr);
        out.ok();
    }

    #[test]
    fn a_project_is_known_by_name_without_its_files() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(TWO);
        env.hoist(&["-p", "named", "up", "-d"]).ok();
        std::fs::remove_file(env.project().join("compose.yaml")).expect("it is there");
        eventually("the one that ends by itself to be out of the list", Duration::from_secs(10), || {
            let services = env.hoist(&["-p", "named", "ps", "--services"]).ok();
            if services == "db\n" { Ok(()) } else { Err(services) }
        });
        assert_eq!(env.hoist(&["-p", "named", "exec", "-T", "db", "echo", "hi"]).ok(), "hi\n");
        assert!(env.hoist(&["ls"]).ok().contains("named"), "ls shows it");
        env.hoist(&["-p", "named", "down"]).ok();
        assert!(!env.hoist(&["ls", "-a"]).ok().contains("named"), "nothing is left of it");
    }

    #[test]
    fn plan_says_what_up_would_do_and_changes_nothing() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(TWO);
        let out = env.hoist(&["plan", "--exit-code"]);
        assert!(out.stdout.contains("create container project-db-1"), "{}", out.stdout);
        out.fails_with(2);
        assert_eq!(env.hoist(&["ps", "-aq"]).ok(), "");
        env.hoist(&["up", "-d"]).ok();
        env.hoist(&["down"]).ok();
    }

    #[test]
    fn ps_tells_ports_health_and_json() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(
            "services:\n  web:\n    image: busybox:latest\n    command: [sleep, '1000']\n    stop_signal: SIGKILL\n    ports: ['8080:80', '8081:81', '127.0.0.1:9000:90']\n    healthcheck: {test: 'true', interval: 100ms}\n",
        );
        env.hoist(&["up", "-d", "--wait"]).ok();
        let table = env.hoist(&["ps"]).ok();
        let (title, row) = table.split_once('\n').expect("a title");
        for column in ["NAME", "IMAGE", "COMMAND", "SERVICE", "CREATED", "STATUS", "PORTS"] {
            assert!(title.contains(column), "{title}");
        }
        assert!(row.contains("(healthy)"), "{row}");
        assert!(row.contains("127.0.0.1:9000->90/tcp"), "{row}");
        let object = &env.ps()[0];
        assert_eq!((object["State"].as_str(), object["Health"].as_str()), (Some("running"), Some("healthy")));
        assert_eq!(env.hoist(&["port", "web", "90"]).ok(), "127.0.0.1:9000\n");
        env.hoist(&["down"]).ok();
    }

    #[test]
    fn rm_asks_and_takes_silence_as_no() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(TWO);
        env.hoist(&["up", "-d"]).ok();
        env.hoist(&["stop"]).ok();
        env.hoist(&["rm"]).ok();
        assert!(!env.ids("db").is_empty() || env.hoist(&["ps", "-aq"]).ok().lines().count() == 2);
        env.hoist(&["rm", "-f"]).ok();
        assert_eq!(env.hoist(&["ps", "-aq"]).ok(), "");
        env.hoist(&["rm", "-f"]).ok();
        env.hoist(&["down"]).ok();
    }
}
