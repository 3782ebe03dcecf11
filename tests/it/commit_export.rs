//! What a container has become: as an image, as an archive. And what all of it takes on the disk.

mod root {
    use std::os::unix::fs::PermissionsExt as _;

    use crate::support::{TestEnvironment, eventually, require};

    /// A service that has changed its files and then does nothing.
    const CHANGED: &str = "
services:
  web:
    image: busybox
    command:
      - sh
      - -c
      - echo made > /made; ln /made /again; rm /etc/group; mkdir -p /d/e; chown 7:8 /d/e; rm -r /root;
        mkdir /root; echo ready > /tmp/ready; exec sleep 1000
    environment: {FROM: compose}
    volumes: ['data:/data']
volumes: {data: {}}
";

    fn changed() -> TestEnvironment {
        let env = TestEnvironment::with_busybox();
        env.compose(CHANGED);
        env.hoist(&["up", "-d"]).ok();
        eventually("the changes", std::time::Duration::from_secs(10), || {
            match env.hoist(&["exec", "-T", "web", "cat", "/tmp/ready"]).stdout.as_str() {
                "ready\n" => Ok(()),
                other => Err(other.to_owned()),
            }
        });
        env.hoist(&["exec", "-T", "web", "sh", "-c", "echo secret > /data/inside"]).ok();
        env
    }

    #[test]
    fn a_committed_container_is_an_image_that_runs() {
        require!(Root);
        let env = changed();
        env.hoist(&[
            "commit",
            "-a",
            "me",
            "-m",
            "a remark",
            "-c",
            "CMD [\"sh\", \"-c\", \"cat /made; ls -ld /d/e /etc/group /root; echo $FROM $A; ls /data\"]",
            "-c",
            "ENV A=b",
            "web",
            "mine:2",
        ])
        .ok();
        // It was frozen for the commit only.
        assert_eq!(env.ps()[0]["State"], "running");
        let inspected: serde_json::Value =
            serde_json::from_str(&env.hoist(&["image", "inspect", "mine:2"]).ok()).expect("JSON");
        let image = &inspected[0];
        assert_eq!((&image["Author"], &image["Comment"]), (&"me".into(), &"a remark".into()));
        assert_eq!(image["RootFS"]["Layers"].as_array().expect("a list").len(), 2);
        assert_eq!(image["Config"]["Labels"]["com.docker.compose.service"], "web");
        let history = env.hoist(&["image", "history", "--no-trunc", "mine:2"]).ok();
        assert!(history.contains("sh -c echo made") && history.contains("a remark"), "{history}");
        env.hoist(&["down", "-v"]).ok();

        env.compose("services: {a: {image: 'mine:2'}}");
        let said = env.hoist(&["up", "--no-color", "--no-log-prefix"]).ok();
        assert!(said.contains("made\n") && said.contains("compose b\n"), "{said}");
        assert!(said.contains(" 7 ") && said.contains(" 8 "), "the owner of /d/e: {said}");
        assert!(!said.contains("secret") && !said.contains("inside"), "a volume is no part of it: {said}");
        env.hoist(&["run", "--rm", "-T", "a", "test", "!", "-e", "/etc/group"]).ok();
        let links = env.hoist(&["run", "--rm", "-T", "a", "stat", "-c", "%h", "/again"]).ok();
        assert_eq!(links.trim(), "2", "hard links stay hard links");
        env.hoist(&["down"]).ok();
    }

    #[test]
    fn a_commit_says_what_is_wrong_and_leaves_the_container_alone() {
        require!(Root);
        let env = changed();
        env.hoist(&["commit", "web", "Mine"]).fails_naming(&["Mine", "lowercase"]);
        env.hoist(&["commit", "-c", "RUN x", "web", "mine"]).fails_naming(&["RUN x"]);
        env.hoist(&["commit", "other", "mine"]).fails_naming(&["other"]);
        assert_eq!(env.ps()[0]["State"], "running");
        env.hoist(&["commit", "--pause=false", "web"]).ok();
        env.hoist(&["stop", "-t", "0"]).ok();
        env.hoist(&["commit", "web", "mine"]).fails_naming(&["web"]);
        env.hoist(&["image", "inspect", "mine"]).fails_naming(&["mine"]);
        env.hoist(&["down", "-v"]).ok();
    }

    #[test]
    fn an_export_is_the_file_system_as_the_container_sees_it() {
        require!(Root);
        let env = changed();
        let out = env.project().join("out.tar");
        env.hoist(&["export", "-o", "out.tar", "web"]).ok();
        assert_eq!(std::fs::metadata(&out).expect("written").permissions().mode() & 0o777, 0o600);
        let list = env.host(&["tar", "tvf", "out.tar"]).ok();
        for wanted in ["bin/busybox", " d/e/", "7/8", "again", " etc/passwd"] {
            assert!(list.contains(wanted), "{wanted}: {list}");
        }
        for unwanted in ["etc/group", "inside", "secret"] {
            assert!(!list.contains(unwanted), "{unwanted}: {list}");
        }
        let piped =
            env.host(&["bash", "-c", "\"$0\" export web | tar tf - | sort", crate::support::hoist()]).ok();
        let sorted = env.host(&["bash", "-c", "tar tf out.tar | sort"]).ok();
        assert_eq!(piped, sorted);
        // What comes out goes in again.
        env.hoist(&["image", "import", "out.tar", "again:1"]).ok();
        env.hoist(&["stop", "-t", "0"]).ok();
        env.hoist(&["export", "web"]).fails_naming(&["web"]);
        env.hoist(&["down", "-v"]).ok();
    }

    #[test]
    fn the_disk_is_measured_and_cleaned_up() {
        require!(Root);
        let env = changed();
        let rows = |env: &TestEnvironment| -> Vec<serde_json::Value> {
            let text = env.hoist(&["system", "df", "--format", "json"]).ok();
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
        };
        let before = rows(&env);
        let counts = |rows: &[serde_json::Value]| -> Vec<String> {
            rows.iter()
                .take(3)
                .map(|row| format!("{}/{}", row["Active"], row["TotalCount"]).replace('"', ""))
                .collect()
        };
        assert_eq!(counts(&before), ["1/1", "1/1", "1/1"], "{before:?}");
        env.import_busybox("unused:1");
        env.hoist(&["image", "rm", "unused:1"]).ok();
        let verbose = env.hoist(&["system", "df", "-v"]).ok();
        assert!(verbose.contains("project-web-1") && verbose.contains("project_data"), "{verbose}");

        env.hoist(&["system", "prune"]).fails_naming(&["--force", "all stopped containers"]);
        // What runs, and what it uses, stays.
        env.hoist(&["system", "prune", "-f", "-a", "--volumes"]).ok();
        assert_eq!(counts(&rows(&env)), ["1/1", "1/1", "1/1"]);
        env.hoist(&["stop", "-t", "0"]).ok();
        let pruned = env.hoist(&["system", "prune", "-f", "-a", "--volumes"]).ok();
        for part in [
            "Deleted Containers:",
            "Deleted Networks:\nproject_default",
            "Deleted Images:",
            "Total reclaimed space:",
        ] {
            assert!(pruned.contains(part), "{part}: {pruned}");
        }
        // A named volume is nobody's to throw away.
        assert_eq!(counts(&rows(&env)), ["0/0", "0/0", "0/1"]);
        env.hoist(&["volume", "rm", "project_data"]).ok();
    }
}
