//! The image store when commands are killed at any moment, and when the disk is full.

mod root {
    use std::fs;
    use std::io::Write as _;
    use std::path::Path;
    use std::time::Instant;

    use rustix::process::Signal;

    use crate::support::{Door, TestEnvironment, pause, require};

    /// Moments at which each kind of command is killed; a longer run sets `HOIST_KILL_POINTS`.
    fn points() -> u32 {
        std::env::var("HOIST_KILL_POINTS").ok().and_then(|n| n.parse().ok()).unwrap_or(7)
    }

    /// Bytes that do not compress, different for each seed.
    fn noise(seed: u32, length: usize) -> Vec<u8> {
        let mut state = seed.wrapping_mul(2_654_435_761) | 1;
        let next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()
        };
        std::iter::repeat_with(next).take(length / 4).flatten().collect()
    }

    fn add(archive: &mut tar::Builder<impl std::io::Write>, name: &str, data: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, data).expect("appended");
    }

    /// An archive, as `docker save` writes it, of an image `localhost:5000/app:1` with three layers of many files.
    fn layered_archive(path: &Path) {
        let mut out = tar::Builder::new(fs::File::create(path).expect("a file of the test"));
        let mut digests = Vec::new();
        for layer in 0..3_u32 {
            let mut tarball = tar::Builder::new(Vec::new());
            for file in 0..150 {
                add(&mut tarball, &format!("layer-{layer}/{file}"), &noise(layer * 1000 + file, 6000));
            }
            let bytes = tarball.into_inner().expect("finished");
            digests.push(hoist::runtime::image::Digest::of(&bytes).to_string());
            add(&mut out, &format!("{layer}.tar"), &bytes);
        }
        let config = serde_json::json!({"architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": digests}});
        add(&mut out, "config.json", config.to_string().as_bytes());
        let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": ["localhost:5000/app:1"],
            "Layers": ["0.tar", "1.tar", "2.tar"]}]);
        add(&mut out, "manifest.json", manifest.to_string().as_bytes());
        out.into_inner().and_then(|mut file| file.flush()).expect("written");
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("listed");
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
    }

    /// Every layer that can be seen is whole, and what is listed can be read to the last byte.
    fn assert_whole(env: &TestEnvironment) {
        let layers = env.root().join("images/layers");
        for layer in names(&layers) {
            let mut parts = names(&layers.join(&layer));
            parts.retain(|part| part != "gzip" && part != "shadow" && !part.starts_with('.'));
            parts.sort();
            assert_eq!(parts, ["fs", "journal", "meta"], "layer {layer}");
        }
        let listed = env.hoist(&["image", "ls", "-q"]).ok();
        for id in listed.lines() {
            // Saving checks each layer against its digest.
            env.hoist(&["image", "save", "-o", "checked.tar", id]).ok();
        }
    }

    /// With the last image nothing stays.
    fn assert_empties(env: &TestEnvironment) {
        env.hoist(&["image", "prune", "-a", "-f"]).ok();
        for part in ["blobs/sha256", "layers", "records", "refs", "staging", "trash"] {
            let left = names(&env.root().join("images").join(part));
            assert!(left.is_empty(), "{part}: {left:?}");
        }
    }

    /// Kills `command` at moments spread over its run; each time the store is whole and the same
    /// command then succeeds.
    fn kill_everywhere(env: &TestEnvironment, command: &[&str], prepare: &dyn Fn(&TestEnvironment)) {
        prepare(env);
        let started = Instant::now();
        env.hoist(command).ok();
        let whole = started.elapsed();
        for point in 0..points() {
            prepare(env);
            let moment = whole * point / points();
            let running = env.start(command);
            pause(moment);
            running.signal(Signal::KILL);
            drop(running);
            eprintln!("{command:?} killed after {moment:?} of {whole:?}");
            assert_whole(env);
            env.hoist(command).ok();
            assert_whole(env);
        }
    }

    #[test]
    fn load_pull_and_prune_killed_at_any_moment_leave_the_store_whole() {
        require!(Root);
        let env = TestEnvironment::new();
        let _registry = env.registry(5000, Door::Open);
        layered_archive(&env.project().join("app.tar"));
        let clear = |env: &TestEnvironment| drop(env.hoist(&["image", "prune", "-a", "-f"]).ok());
        let load = ["image", "load", "-q", "-i", "app.tar"];
        kill_everywhere(&env, &load, &clear);
        env.hoist(&["image", "push", "-q", "localhost:5000/app:1"]).ok();
        kill_everywhere(&env, &["image", "pull", "-q", "localhost:5000/app:1"], &clear);
        kill_everywhere(&env, &["image", "prune", "-a", "-f"], &|env| drop(env.hoist(&load).ok()));
        assert_empties(&env);
    }

    #[test]
    fn a_push_killed_at_any_moment_can_be_repeated() {
        require!(Root);
        let env = TestEnvironment::new();
        let _registry = env.registry(5000, Door::Open);
        layered_archive(&env.project().join("app.tar"));
        env.hoist(&["image", "load", "-q", "-i", "app.tar"]).ok();
        // A repository of its own each time: what is there is not sent again.
        for turn in 1..=points() {
            let name = format!("localhost:5000/push-{turn}:1");
            env.hoist(&["image", "tag", "localhost:5000/app:1", &name]).ok();
            let running = env.start(&["image", "push", "-q", &name]);
            pause(std::time::Duration::from_millis(15) * turn);
            running.signal(Signal::KILL);
            drop(running);
            env.hoist(&["image", "push", "-q", &name]).ok();
            // Forgotten, so that the next repository cannot take the layers over from this one.
            env.hoist(&["image", "rm", &name]).ok();
        }
        assert_whole(&env);
        assert_empties(&env);
    }

    #[test]
    fn a_full_disk_stops_an_import_and_harms_nothing() {
        require!(Root);
        let env = TestEnvironment::new();
        let root = env.root();
        env.host(&["mount", "-t", "tmpfs", "-o", "size=12m", "none", root.to_str().expect("plain")]).ok();
        env.import_busybox("busybox:1");
        let mut large = tar::Builder::new(fs::File::create(env.project().join("large.tar")).expect("a file"));
        add(&mut large, "large", &noise(1, 20 << 20));
        large.into_inner().expect("written");
        let stopped = env.hoist(&["image", "import", "large.tar", "large:1"]);
        stopped.fails_naming(&["large", "No space left on device"]);
        // The tests see the folder from outside, where nothing is mounted.
        let inside = |path: &str| env.host(&["ls", "-A", root.join(path).to_str().expect("plain")]).ok();
        assert_eq!(inside("images/staging"), "");
        assert_eq!(inside("images/layers").lines().count(), 1);
        assert!(!env.hoist(&["image", "ls"]).ok().contains("large"));
        // There is room again, and what was there is as it was.
        env.hoist(&["image", "save", "-o", "busybox.tar", "busybox:1"]).ok();
        env.hoist(&["image", "import", "busybox.tar", "other:1"]).ok();
    }
}
