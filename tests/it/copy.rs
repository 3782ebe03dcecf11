//! `cp`, `top` and `stats`: a look inside containers from outside.

mod root {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use crate::support::{TestEnvironment, require};

    const STACK: &str = r#"
name: c
services:
  web:
    image: busybox
    command: sleep 1000
    user: "4321:4321"
    volumes: [data:/data]
    tmpfs: [/scratch]
    deploy: {replicas: 2}
    stop_grace_period: 0s
  off:
    image: busybox
    command: "true"
    volumes: [data:/data]
volumes: {data: }
"#;

    fn stack() -> TestEnvironment {
        let env = TestEnvironment::with_busybox();
        env.compose(STACK);
        env.hoist(&["up", "-d"]).ok();
        env
    }

    /// What a shell in a replica says.
    fn inside(env: &TestEnvironment, index: &str, script: &str) -> String {
        env.hoist(&["exec", "-T", "-u", "0", "--index", index, "web", "sh", "-c", script])
            .ok()
            .trim()
            .to_owned()
    }

    #[test]
    fn a_file_must_reach_every_replica_with_its_owner_mode_and_time() {
        require!(Root);
        let env = stack();
        env.write("a", "content\n");
        let path = env.project().join("a");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("mode");
        std::os::unix::fs::chown(&path, Some(123), Some(456)).expect("owner");

        env.hoist(&["cp", "a", "web:/tmp/b"]).ok();
        for index in ["1", "2"] {
            assert_eq!(inside(&env, index, "stat -c '%u:%g %a' /tmp/b"), "123:456 640");
        }
        env.hoist(&["cp", "--index", "2", "-a", "a", "web:/tmp/owned"]).ok();
        assert_eq!(inside(&env, "2", "stat -c '%u:%g' /tmp/owned"), "4321:4321");
        assert_eq!(inside(&env, "2", "cat /tmp/owned"), "content");
        assert_eq!(inside(&env, "1", "ls /tmp"), "b", "--index means one replica only");

        env.hoist(&["--dry-run", "cp", "a", "web:/tmp/dry"]).ok();
        assert_eq!(inside(&env, "1", "ls /tmp"), "b", "--dry-run copies nothing");
        // Memory file systems of a running container are seen, too.
        env.hoist(&["cp", "a", "web:/scratch/a"]).ok();
        assert_eq!(inside(&env, "1", "stat -c %u /scratch/a"), "123");
    }

    #[test]
    fn a_tree_must_come_back_as_it_went_and_belong_to_the_caller() {
        require!(Root);
        let env = stack();
        env.write("tree/sub/file", "x");
        let tree = env.project().join("tree");
        symlink("sub/file", tree.join("link")).expect("link");
        symlink("/etc/passwd", tree.join("absolute")).expect("link");
        fs::hard_link(tree.join("sub/file"), tree.join("hard")).expect("hard link");
        fs::set_permissions(tree.join("sub"), fs::Permissions::from_mode(0o500)).expect("mode");
        std::os::unix::fs::chown(tree.join("sub/file"), Some(5), Some(6)).expect("owner");

        // A new name, an existing directory, and its content only.
        env.hoist(&["cp", "tree", "web:/tmp/new"]).ok();
        env.hoist(&["cp", "tree", "web:/tmp"]).ok();
        env.hoist(&["cp", "tree/.", "web:/tmp/content"]).ok();
        for place in ["/tmp/new", "/tmp/tree", "/tmp/content"] {
            assert_eq!(
                inside(&env, "1", &format!("cat {place}/sub/file; readlink {place}/absolute")),
                "x/etc/passwd"
            );
            assert_eq!(
                inside(&env, "1", &format!("stat -c %h {place}/hard")),
                "2",
                "{place}: one file, two names"
            );
        }

        env.hoist(&["cp", "web:/tmp/new", "back"]).ok();
        let back = env.project().join("back");
        assert_eq!(fs::read_to_string(back.join("sub/file")).expect("read"), "x");
        assert_eq!(fs::read_link(back.join("link")).expect("link").to_str(), Some("sub/file"));
        assert_eq!(fs::read_link(back.join("absolute")).expect("link").to_str(), Some("/etc/passwd"));
        let metadata = fs::metadata(back.join("sub")).expect("metadata");
        assert_eq!((metadata.mode() & 0o777, metadata.uid()), (0o500, 0));
        assert_eq!(fs::metadata(back.join("hard")).expect("metadata").nlink(), 2);
        // Into a directory that exists, under its own name.
        env.hoist(&["cp", "web:/tmp/new", "back"]).ok();
        assert!(back.join("new/sub/file").is_file());
    }

    #[test]
    fn links_must_be_followed_only_when_told() {
        require!(Root);
        let env = stack();
        env.write("file", "x");
        symlink("file", env.project().join("link")).expect("link");
        env.hoist(&["cp", "link", "web:/tmp/l"]).ok();
        env.hoist(&["cp", "-L", "link", "web:/tmp/f"]).ok();
        assert_eq!(inside(&env, "1", "readlink /tmp/l; cat /tmp/f"), "file\nx");
        inside(
            &env,
            "1",
            "mkdir -p /tmp/real; echo y >/tmp/real/target; ln -s real/target /tmp/out; ln -s real /tmp/dir",
        );
        env.hoist(&["cp", "web:/tmp/out", "as-link"]).ok();
        env.hoist(&["cp", "-L", "web:/tmp/out", "as-file"]).ok();
        assert!(fs::symlink_metadata(env.project().join("as-link")).expect("there").is_symlink());
        assert_eq!(fs::read_to_string(env.project().join("as-file")).expect("read"), "y\n");
        // A link as the destination stands for what it points to.
        env.hoist(&["cp", "file", "web:/tmp/dir"]).ok();
        env.hoist(&["cp", "file", "web:/tmp/out"]).ok();
        assert_eq!(
            inside(&env, "1", "cat /tmp/real/file /tmp/real/target; readlink /tmp/out"),
            "xxreal/target"
        );
    }

    #[test]
    fn archives_must_pass_through_standard_input_and_output() {
        require!(Root);
        let env = stack();
        inside(&env, "1", "mkdir /tmp/d; echo 1 >/tmp/d/one");
        let mut copy = env.command("sh");
        copy.args(["-c", "$0 cp web:/tmp/d - | $0 cp --index 2 - web:/tmp/", crate::support::hoist()]);
        assert!(copy.status().expect("sh").success());
        assert_eq!(inside(&env, "2", "cat /tmp/d/one"), "1");
        env.hoist(&["cp", "-", "web:/tmp/"]).fails_naming(&["--index"]);
        env.hoist(&["cp", "--index", "1", "-", "web:/tmp/d/one"]).fails_naming(&["must be a directory"]);
    }

    #[test]
    fn a_stopped_container_must_show_its_files_and_volumes() {
        require!(Root);
        let env = stack();
        // The two of `web`; `off` has ended.
        env.assert_shims(2);
        let before = env.snapshot();
        env.write("a", "into a volume");
        env.hoist(&["cp", "a", "off:/data/a"]).ok();
        assert_eq!(inside(&env, "1", "cat /data/a"), "into a volume");
        env.hoist(&["cp", "a", "off:/etc/own"]).ok();
        env.hoist(&["cp", "off:/etc/own", "back"]).ok();
        assert_eq!(fs::read_to_string(env.project().join("back")).expect("read"), "into a volume");
        let left = before.difference(&env.snapshot());
        // What belonged to `off` may still have been going away when the snapshot was taken.
        let stays = |line: &str| !line.starts_with("file left behind") && !line.contains(" gone: ");
        assert!(!left.lines().any(stays), "no mount stays:\n{left}");
        env.hoist(&["start", "off"]).ok();
    }

    #[test]
    fn what_cannot_be_copied_must_be_said_and_change_nothing() {
        require!(Root);
        let env = stack();
        env.write("a", "x");
        env.write("dir/b", "x");
        for (words, named) in [
            (["cp", "a", "b"], "SERVICE:PATH"),
            (["cp", "web:/a", "web:/b"], "between services"),
            (["cp", "a", "web:"], "SERVICE:PATH"),
            (["cp", "a", "nope:/x"], "nope"),
            (["cp", "missing", "web:/x"], "`missing`"),
            (["cp", "web:/missing", "x"], "/missing"),
            (["cp", "a", "web:/missing/x"], "/missing"),
            (["cp", "a", "web:/missing/"], "/missing/"),
            (["cp", "dir", "web:/etc/passwd"], "is a directory"),
            (["cp", "web:/etc", "a"], "is a directory"),
            (["cp", "web:/etc/passwd", "missing/x"], "`missing`"),
            (["cp", "a", "web:/dev/null"], "device"),
        ] {
            env.hoist(&words).fails_naming(&[named]);
        }
        env.hoist(&["cp", "--index", "7", "a", "web:/x"]).fails_naming(&["#7"]);
        assert_eq!(fs::read_to_string(env.project().join("a")).expect("read"), "x");
        assert!(
            fs::read_dir(env.project())
                .expect("dir")
                .flatten()
                .all(|e| !e.file_name().to_string_lossy().starts_with(".hoist"))
        );
    }

    #[test]
    fn no_link_of_a_container_may_lead_a_copy_out_of_it() {
        require!(Root);
        let env = stack();
        let secret = env.root().join("secret");
        fs::write(&secret, "of the host").expect("write");
        inside(
            &env,
            "1",
            &format!(
                "mkdir -p /tmp/a; ln -s {} /tmp/a/abs; ln -s ../../../../../../../..{} /tmp/a/rel; ln -s / /tmp/a/top",
                secret.display(),
                secret.display()
            ),
        );
        for name in ["abs", "rel"] {
            env.hoist(&["cp", "-L", &format!("web:/tmp/a/{name}"), "out"]).fails_naming(&["no such"]);
            env.write("mine", "x");
            env.hoist(&["cp", "--index", "1", "mine", &format!("web:/tmp/a/{name}")])
                .fails_naming(&["no such"]);
        }
        assert_eq!(fs::read_to_string(&secret).expect("read"), "of the host");
        env.hoist(&["cp", "--index", "1", "mine", "web:/tmp/a/top/tmp/inside"]).ok();
        assert_eq!(inside(&env, "1", "cat /tmp/inside"), "x");
    }

    #[test]
    fn top_must_list_the_processes_of_the_services() {
        require!(Root);
        let env = stack();
        let text = env.hoist(&["top"]).ok();
        let mut lines = text.lines();
        let titles: Vec<_> = lines.next().expect("titles").split_whitespace().collect();
        assert_eq!(titles, ["SERVICE", "#", "UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
        let rows: Vec<Vec<_>> = lines.map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows.len(), 2, "{text}");
        for (row, number) in rows.iter().zip(["1", "2"]) {
            assert_eq!((row[0], row[1], row[2]), ("web", number, "4321"));
            assert_eq!(row[9..], ["sleep", "1000"]);
            let pid = fs::read_to_string(format!(
                "/proc/{}/task/{}/children",
                env.first_process(),
                env.first_process()
            ));
            assert!(pid.is_ok() && row[3].parse::<u32>().is_ok());
        }
        assert_eq!(env.hoist(&["top", "off"]).ok(), "");
        env.hoist(&["top", "nope"]).fails_naming(&["nope"]);
    }

    #[test]
    fn stats_must_show_what_a_busy_container_uses() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(
            "name: s\nservices:\n  busy:\n    image: busybox\n    command: sh -c 'while :; do :; done'\n    stop_grace_period: 0s\n    mem_limit: 64m\n  idle:\n    image: busybox\n    command: sleep 1000\n    stop_grace_period: 0s\n  off:\n    image: busybox\n    command: 'true'\n",
        );
        env.hoist(&["up", "-d"]).ok();
        let text = env.hoist(&["stats", "--no-stream", "--format", "json"]).ok();
        let rows: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let of = |name: &str| {
            rows.iter().find(|r| r["Name"] == name).unwrap_or_else(|| panic!("{name} in {text}"))
        };
        let percent = |value: &serde_json::Value| {
            value.as_str().and_then(|t| t.trim_end_matches('%').parse::<f64>().ok()).expect("a percentage")
        };
        assert!(percent(&of("s-busy-1")["CPUPerc"]) > 10.0, "{text}");
        assert!(percent(&of("s-idle-1")["CPUPerc"]) < 5.0, "{text}");
        assert!(of("s-busy-1")["MemUsage"].as_str().is_some_and(|m| m.ends_with("/ 64MiB")), "{text}");
        assert_eq!(of("s-idle-1")["PIDs"], "1");
        assert_eq!(rows.len(), 2, "what does not run is left out: {text}");
        let all = env.hoist(&["stats", "--no-stream", "-a", "off"]).ok();
        assert!(all.contains("0B / 0B") && all.lines().count() == 2, "{all}");
        assert_eq!(env.hoist(&["stats", "--no-stream", "--format", "{{.Name}}", "idle"]).ok(), "s-idle-1\n");
    }
}
