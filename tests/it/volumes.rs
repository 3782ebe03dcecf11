//! Named, anonymous and bind volumes.

mod root {
    use std::fs;

    use crate::support::{TestEnvironment, require};

    #[test]
    fn a_named_volume_outlives_down_and_goes_with_v() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(
            "
services:
  web: {image: 'busybox:latest', command: [sh, -c, 'date >>/data/starts; exec sleep 1000'], stop_signal: SIGKILL, volumes: ['data:/data']}
volumes: {data: {}}
",
        );
        let before = env.snapshot();
        let starts = || env.hoist(&["run", "--rm", "-T", "web", "cat", "/data/starts"]).ok().lines().count();
        for _ in 0..2 {
            env.hoist(&["up", "-d"]).ok();
            env.hoist(&["down"]).ok();
        }
        assert_eq!(starts(), 2);
        env.hoist(&["down", "-v"]).ok();
        env.assert_as_before(&before);
    }

    #[test]
    fn an_empty_named_volume_takes_the_content_of_the_image() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(
            "
services:
  web: {image: 'busybox:latest', command: [cat, /etc/passwd], volumes: ['settings:/etc']}
volumes: {settings: {}}
",
        );
        assert!(env.hoist(&["up", "--no-color"]).ok().contains("guest:x:1000"));
    }

    #[test]
    fn an_anonymous_volume_is_kept_when_its_container_is_made_anew() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(
            "services: {web: {image: 'busybox:latest', command: [sleep, '1000'], stop_signal: SIGKILL, volumes: [/data]}}",
        );
        env.hoist(&["up", "-d"]).ok();
        env.hoist(&["exec", "-T", "web", "sh", "-c", "echo kept >/data/file"]).ok();
        let id = env.ids("web");
        env.hoist(&["up", "-d", "--force-recreate"]).ok();
        assert_ne!(env.ids("web"), id);
        assert_eq!(env.hoist(&["exec", "-T", "web", "cat", "/data/file"]).ok(), "kept\n");
        env.hoist(&["up", "-d", "--force-recreate", "-V"]).ok();
        env.hoist(&["exec", "-T", "web", "test", "-e", "/data/file"]).fails_with(1);
    }

    #[test]
    fn a_bind_shows_the_folder_of_the_host_and_read_only_is_that() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.write("shared/file", "from the host\n");
        env.compose(
            "
services:
  web:
    image: busybox:latest
    command: [sleep, '1000']
    stop_signal: SIGKILL
    volumes:
      - ./shared:/shared
      - ./shared:/fixed:ro
      - {type: tmpfs, target: /scratch}
",
        );
        env.hoist(&["up", "-d"]).ok();
        assert_eq!(env.hoist(&["exec", "-T", "web", "cat", "/fixed/file"]).ok(), "from the host\n");
        env.hoist(&["exec", "-T", "web", "sh", "-c", "echo from inside >/shared/file"]).ok();
        let file = env.project().join("shared/file");
        assert_eq!(fs::read_to_string(file).expect("the bound file"), "from inside\n");
        env.hoist(&["exec", "-T", "web", "touch", "/fixed/new"]).fails_naming(&["Read-only file system"]);
        env.hoist(&["exec", "-T", "web", "touch", "/scratch/new"]).ok();
    }

    #[test]
    fn a_new_password_for_old_data_is_a_warning_without_the_password() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        let compose = |password: &str| {
            env.compose(&format!(
                "
services:
  db:
    image: 'busybox:latest'
    command: [sleep, '1000']
    stop_signal: SIGKILL
    environment: {{MYSQL_ROOT_PASSWORD: {password}}}
    volumes: ['data:/var/lib/mysql']
volumes: {{data: {{}}}}
"
            ));
        };
        compose("hunter2");
        let said = env.hoist(&["up", "-d"]);
        assert!(said.code == 0 && !said.stderr.contains("MYSQL_ROOT_PASSWORD"), "{}", said.stderr);
        compose("swordfish");
        let said = env.hoist(&["up", "-d"]);
        assert_eq!(said.code, 0, "{}", said.stderr);
        assert!(said.stderr.contains("service `db`: `MYSQL_ROOT_PASSWORD` has changed"), "{}", said.stderr);
        assert!(said.stderr.contains("project_data"), "{}", said.stderr);
        assert!(!said.stderr.contains("hunter2") && !said.stderr.contains("swordfish"), "{}", said.stderr);
    }
}
