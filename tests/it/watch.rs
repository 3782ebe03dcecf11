//! `watch`: what is in the containers equals the working tree, whatever happens to it.

mod root {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use rustix::process::Signal;

    use crate::support::{Running, TestEnvironment, eventually, require};

    const STACK: &str = r#"
name: w
services:
  web:
    image: busybox
    command: sleep 1000
    stop_grace_period: 0s
    develop:
      watch:
        - {action: sync, path: ./src, target: /app, ignore: [node_modules/], initial_sync: true}
        - {action: sync+exec, path: ./conf, target: /conf, exec: {command: [sh, -c, "cat /conf/* >/applied"]}}
        - {action: restart, path: ./restart}
"#;

    fn start() -> (TestEnvironment, Running) {
        let env = TestEnvironment::with_busybox();
        env.compose(STACK);
        for (name, text) in [("src/a", "1"), ("src/sub/b", "2"), ("conf/c", "3"), ("restart/r", "4")] {
            env.write(name, text);
        }
        let watch = env.start(&["watch"]);
        // What was there before is copied at the start.
        holds(&env, "cat /app/a /app/sub/b", "12");
        (env, watch)
    }

    /// Waits until a command in the container says this.
    fn holds(env: &TestEnvironment, script: &str, wanted: &str) {
        eventually(&format!("`{script}` to say `{wanted}`"), Duration::from_secs(10), || {
            let said = env.hoist(&["exec", "-T", "web", "sh", "-c", script]);
            match said.stdout.trim() {
                text if text == wanted => Ok(()),
                text => Err(format!("{text}{}", said.stderr)),
            }
        });
    }

    #[test]
    fn changes_of_all_kinds_must_reach_the_container() {
        require!(Root);
        let (env, watch) = start();
        let src = env.project().join("src");
        env.write("src/a", "changed");
        env.write("src/new/deep/c", "made");
        env.write("src/node_modules/x", "ignored");
        fs::remove_file(src.join("sub/b")).expect("remove");
        // As an editor writes: a file beside it, then a rename over it.
        env.write("src/.d.swp", "half");
        env.write("src/d.tmp", "whole");
        fs::rename(src.join("d.tmp"), src.join("d")).expect("rename");
        symlink("d", src.join("link")).expect("link");
        holds(
            &env,
            "cd /app; cat a new/deep/c d; readlink link; ls -A . sub",
            "changedmadewholed\n.:\na\nd\nlink\nnew\nsub\n\nsub:",
        );
        // A directory where a file was, and the other way round.
        fs::remove_file(src.join("a")).expect("remove");
        env.write("src/a/inner", "dir");
        fs::remove_dir_all(src.join("new")).expect("remove");
        env.write("src/new", "file");
        holds(&env, "cat /app/a/inner /app/new", "dirfile");

        watch.signal(Signal::INT);
        watch.finish().fails_with(130);
    }

    #[test]
    fn thousands_of_files_at_once_must_all_arrive_and_all_go() {
        require!(Root);
        let (env, _watch) = start();
        for n in 0..2000 {
            env.write(&format!("src/many/{}/f{n}", n % 10), "x");
        }
        holds(&env, "find /app/many -type f | wc -l", "2000");
        fs::remove_dir_all(env.project().join("src/many")).expect("remove");
        holds(&env, "ls -d /app/many 2>/dev/null; ls /app", "a\nsub");
    }

    #[test]
    fn what_follows_a_sync_must_happen_after_it() {
        require!(Root);
        let (env, _watch) = start();
        env.write("conf/c", "new");
        holds(&env, "cat /applied", "new");
        let before = env.ids("web");
        env.write("conf/marker", "-");
        env.hoist(&["exec", "-T", "web", "touch", "/dev/shm/of-this-run"]).ok();
        env.write("restart/r", "again");
        holds(&env, "ls /dev/shm && echo up", "up");
        assert_eq!(env.ids("web"), before, "a restart keeps the container");
    }

    #[test]
    fn a_container_that_is_made_anew_must_get_all_that_has_changed() {
        require!(Root);
        let (env, _watch) = start();
        env.write("conf/later", "kept");
        holds(&env, "cat /conf/later", "kept");
        let before = env.ids("web");
        env.hoist(&["up", "-d", "--force-recreate"]).ok();
        assert_ne!(env.ids("web"), before);
        holds(&env, "cat /conf/later /app/a", "kept1");
    }

    #[test]
    fn an_attached_up_must_follow_the_working_tree_too() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(STACK);
        env.write("src/a", "1");
        let up = env.start(&["up", "--watch"]);
        holds(&env, "cat /app/a", "1");
        env.write("src/a", "2");
        holds(&env, "cat /app/a", "2");
        up.signal(Signal::INT);
        up.finish().fails_with(130);
        assert!(env.ps().iter().all(|c| c["State"] == "exited"), "the first Ctrl-C stops the project");
    }

    #[test]
    fn a_rebuild_must_bring_the_change_in_a_new_container() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(
            "name: w\nservices:\n  web:\n    build: .\n    command: sleep 1000\n    stop_grace_period: 0s\n    develop: {watch: [{action: rebuild, path: ./f}]}\n",
        );
        env.write("Dockerfile", "FROM busybox\nCOPY f /f\n");
        env.write("f", "1");
        let _watch = env.start(&["watch"]);
        holds(&env, "cat /f", "1");
        let before = env.ids("web");
        env.write("f", "2");
        holds(&env, "cat /f", "2");
        assert_ne!(env.ids("web"), before);
    }

    #[test]
    fn rules_that_make_no_sense_must_be_refused() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose("name: w\nservices:\n  web:\n    image: busybox\n");
        env.hoist(&["watch"]).fails_naming(&["develop.watch"]);
        env.compose(
            "name: w\nservices:\n  web:\n    image: busybox\n    develop: {watch: [{action: rebuild, path: .}]}\n",
        );
        env.hoist(&["watch"]).fails_naming(&["web", "build"]);
    }
}
