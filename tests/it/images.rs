//! Images from files, and what is known about them.

mod root {
    use crate::support::{TestEnvironment, require};

    #[test]
    fn an_imported_image_is_listed_inspected_tagged_and_removed() {
        require!(Root);
        let env = TestEnvironment::new();
        let before = env.snapshot();
        env.import_busybox("mine:1");
        assert!(env.hoist(&["image", "ls"]).ok().contains("mine"));
        let inspected: serde_json::Value =
            serde_json::from_str(&env.hoist(&["image", "inspect", "mine:1"]).ok()).expect("JSON");
        let one = inspected.get(0).unwrap_or(&inspected);
        assert_eq!(one["Config"]["Cmd"], serde_json::json!(["sh"]), "{one}");
        env.hoist(&["image", "tag", "mine:1", "mine:2"]).ok();
        env.hoist(&["image", "rm", "mine:1"]).ok();
        env.compose("services: {a: {image: 'mine:2', command: [echo, it works]}}");
        assert!(env.hoist(&["up", "--no-color"]).ok().contains("it works"));
        env.hoist(&["down"]).ok();
        env.hoist(&["image", "rm", "mine:2"]).ok();
        env.hoist(&["image", "inspect", "mine:2"]).fails_naming(&["mine:2"]);
        // The layers go with the last name.
        let after = env.snapshot();
        let difference = before.difference(&after);
        assert!(!difference.contains("images/layers/"), "{difference}");
    }

    #[test]
    fn an_archive_of_docker_save_is_loaded_under_its_name() {
        require!(Root);
        let env = TestEnvironment::new();
        env.load_example_images(&["python"]);
        env.compose("services: {a: {image: 'python:3.11-slim', command: [python3, -c, 'print(6 * 7)']}}");
        assert!(env.hoist(&["up", "--no-color"]).ok().contains("42"));
    }
}
