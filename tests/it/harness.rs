//! The harness itself: what it promises to the other modules.

mod root {
    use crate::support::{TestEnvironment, require};

    #[test]
    fn a_machine_shows_what_was_left_behind() {
        require!(Root);
        let env = TestEnvironment::new();
        let before = env.snapshot();
        assert_eq!(before.difference(&env.snapshot()), "");
        env.host(&["ip", "link", "add", "left", "type", "bridge"]).ok();
        env.host(&["nft", "add", "table", "inet", "forgotten"]).ok();
        env.host(&["mount", "-t", "tmpfs", "none", "/mnt"]).ok();
        env.host(&["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & echo >$HOIST_ROOT/file"]).ok();
        let difference = env.snapshot();
        let difference = before.difference(&difference);
        for thing in [
            "link left behind: left",
            "rule left behind: table inet forgotten",
            "mount left behind: /mnt",
            "sleep",
            "file left behind: file",
        ] {
            assert!(difference.contains(thing), "no `{thing}` in\n{difference}");
        }
    }

    #[test]
    fn a_machine_is_gone_with_its_test() {
        require!(Root);
        let env = TestEnvironment::new();
        env.host(&["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 &"]).ok();
        let first = env.first_process();
        drop(env);
        assert!(!std::path::Path::new(&format!("/proc/{first}")).exists());
    }
}
