//! Images built from Dockerfiles: what they hold, what is done again, and what mistakes look like.

mod root {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use crate::support::{Finished, TestEnvironment, require};

    /// What a build that succeeded told.
    fn built(finished: Finished) -> String {
        let told = finished.stderr.clone();
        finished.ok();
        told
    }

    /// The number of each outcome in a build's output.
    fn count(output: &str, word: &str) -> usize {
        output.lines().filter(|line| line.split_whitespace().nth(1) == Some(word)).count()
    }

    #[test]
    fn up_builds_what_is_missing_and_not_again() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose("services: {web: {build: ., environment: {B: two}}}");
        env.write("greeting", "hello\n");
        env.write(
            "Dockerfile",
            "FROM busybox\nARG WHO=world\nENV A=one\nWORKDIR /srv/app\nCOPY greeting .\nRUN echo $WHO >>greeting\n\
             CMD [\"sh\", \"-c\", \"cat greeting; echo $A $B; pwd\"]\n",
        );
        assert!(
            env.hoist(&["up", "--no-color", "--no-log-prefix"])
                .ok()
                .contains("hello\nworld\none two\n/srv/app\n")
        );
        env.hoist(&["down"]).ok();
        env.assert_shims(0);
        let before = env.snapshot();
        let again = env.hoist(&["up", "-d"]);
        assert!(again.code == 0 && !again.stderr.contains("Building"), "{}", again.stderr);
        env.hoist(&["up", "-d", "--no-build"]).ok();
        // Nothing of the commands that built it is left.
        env.hoist(&["down"]).ok();
        env.assert_as_before(&before);
    }

    #[test]
    fn only_what_depends_on_a_change_is_done_again() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose("services: {web: {image: 'web:1', build: {context: ., args: {X: '1'}}}}");
        env.write("a", "1");
        env.write("b", "1");
        env.write(
            "Dockerfile",
            "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid >/first\nCOPY a /\nARG X\nRUN cat /proc/sys/kernel/random/uuid >/second\nCOPY b /\nRUN cat /proc/sys/kernel/random/uuid >/third\n",
        );
        let build = |args: &[&str]| built(env.hoist(&[&["build"], args].concat()));
        let read = || env.hoist(&["run", "--rm", "-T", "web", "cat", "/first", "/second", "/third"]).ok();
        assert_eq!(count(&build(&[]), "CACHED"), 0);
        let one = read();
        // A new time is no change.
        fs::write(env.project().join("b"), "1").expect("written");
        assert_eq!(count(&build(&[]), "CACHED"), 5);
        assert_eq!(read(), one);
        env.write("b", "2");
        build(&[]);
        let two = read();
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(lines(&one)[..2], lines(&two)[..2]);
        assert_ne!(lines(&one)[2], lines(&two)[2]);
        build(&["--build-arg", "X=2"]);
        let three = read();
        assert_eq!(lines(&two)[0], lines(&three)[0]);
        assert_ne!(lines(&two)[1], lines(&three)[1]);
        assert_eq!(count(&build(&["--no-cache"]), "CACHED"), 0);
        assert_ne!(lines(&read())[0], lines(&one)[0]);
    }

    #[test]
    fn stages_give_files_to_each_other_and_unused_ones_are_not_made() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(
            "
services:
  web: {build: {context: ., target: final, additional_contexts: {other: 'service:base'}}}
  base: {build: {dockerfile_inline: \"FROM busybox\\nRUN echo base >/from-base\\n\"}}
",
        );
        env.write(
            "Dockerfile",
            "FROM busybox AS unused\nRUN false\nFROM busybox AS make\nRUN mkdir /out && echo made >/out/f && chown 7:8 /out/f\n\
             FROM scratch AS final\nCOPY --from=busybox /bin /bin\nCOPY --from=make /out /out\nCOPY --from=other /from-base /\n\
             CMD [\"/bin/sh\", \"-c\", \"stat -c %u:%g /out/f; cat /out/f /from-base\"]\nFROM unused\n",
        );
        env.hoist(&["build", "web"]).ok();
        assert_eq!(env.hoist(&["run", "--rm", "-T", "web"]).ok(), "7:8\nmade\nbase\n");
    }

    #[test]
    fn files_keep_modes_links_and_times_and_ignored_ones_stay_away() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose("services: {web: {build: .}}");
        env.write(".dockerignore", "**/*.log\n!keep.log\nsecret/*\n!secret/public\n");
        for file in ["src/run", "src/a.log", "keep.log", "secret/key", "secret/public"] {
            env.write(file, "x");
        }
        fs::set_permissions(env.project().join("src/run"), fs::Permissions::from_mode(0o4750))
            .expect("changed");
        symlink("run", env.project().join("src/link")).expect("linked");
        let time = fs::metadata(env.project().join("src/run")).expect("there").mtime();
        env.write(
            "Dockerfile",
            "FROM busybox\nCOPY . /all/\nCOPY --chown=5:6 --chmod=u=rwX,go= src/run /own\n",
        );
        env.hoist(&["build"]).ok();
        let script =
            "cd /all; find . | sort; stat -c '%a %u %Y' src/run; readlink src/link; stat -c '%a %u:%g' /own";
        let found = env.hoist(&["run", "--rm", "-T", "web", "sh", "-c", script]).ok();
        let expected = format!(
            ".\n./.dockerignore\n./Dockerfile\n./compose.yaml\n./keep.log\n./secret\n./secret/public\n./src\n./src/link\n./src/run\n\
             4750 0 {time}\nrun\n700 5:6\n"
        );
        let lines: Vec<&str> = found.lines().filter(|line| !line.starts_with("./.env")).collect();
        assert_eq!(lines.join("\n") + "\n", expected);
    }

    #[test]
    fn a_link_in_the_image_cannot_lead_a_copy_out() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        let outside = env.project().join("outside");
        fs::create_dir(&outside).expect("made");
        env.compose("services: {web: {build: {context: ctx}}}");
        env.write("ctx/f", "in the image");
        env.write(
            "ctx/Dockerfile",
            &format!("FROM busybox\nRUN ln -s {0} /link && ln -s ../../../../../../../../{0} /up\nCOPY f /link/\nCOPY f /up/g\n", outside.display()),
        );
        env.hoist(&["build"]).ok();
        assert_eq!(fs::read_dir(&outside).expect("listed").count(), 0);
        let inside = format!("cat {0}/f {0}/g", outside.display());
        assert_eq!(
            env.hoist(&["run", "--rm", "-T", "web", "sh", "-c", &inside]).ok(),
            "in the imagein the image"
        );
    }

    #[test]
    fn mounts_are_there_for_their_command_only() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(
            "
services: {web: {build: {context: ., secrets: [token]}}}
secrets: {token: {environment: TOKEN}}
",
        );
        env.write(".env", "TOKEN=s3cret\n");
        env.write("data", "bound\n");
        env.write(
            "Dockerfile",
            "FROM busybox\n\
             RUN --mount=type=secret,id=token,env=T --mount=type=secret,id=token test \"$T\" = s3cret && grep -q s3cret /run/secrets/token\n\
             RUN --mount=type=bind,target=/b --mount=type=tmpfs,target=/t --mount=type=cache,target=/c cat /b/data >/seen && touch /t/x && echo 1 >>/c/n\n\
             RUN --mount=type=cache,target=/c cp /c/n /count\n",
        );
        env.hoist(&["build"]).ok();
        let script = "ls -d /b /t /c /run/secrets 2>/dev/null; cat /seen /count; env | grep T=; grep -r s3cret /etc /root /seen; true";
        assert_eq!(env.hoist(&["run", "--rm", "-T", "web", "sh", "-c", script]).ok(), "bound\n1\n");
        // The cache outlives the image; the secret is nowhere.
        env.hoist(&["build", "--no-cache"]).ok();
        assert_eq!(env.hoist(&["run", "--rm", "-T", "web", "cat", "/count"]).ok(), "1\n1\n");
        let history = env.hoist(&["config"]).ok();
        assert!(!history.contains("s3cret"));
    }

    #[test]
    fn a_failing_command_is_shown_with_its_place_output_and_code() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose("services: {web: {build: .}}");
        env.write("Dockerfile", "FROM busybox\n# why\nRUN echo the reason >&2; exit 7\n");
        let text = env.hoist(&["build"]).fails_with(1);
        let before = env.snapshot();
        for part in ["the reason", "exit code: 7", "Dockerfile:3:1", "RUN echo the reason"] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
        // `up` says the same and starts nothing.
        env.hoist(&["up", "-d"]).fails_with(1);
        env.assert_as_before(&before);
    }

    #[test]
    fn mistakes_and_what_cannot_be_done_are_named() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        let says = |dockerfile: &str, compose: &str, part: &str| {
            env.write("Dockerfile", dockerfile);
            env.compose(compose);
            let text = env.hoist(&["build"]).fails_with(1);
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        };
        let plain = "services: {web: {build: .}}";
        says("FROM busybox\nCOPY gone /\n", plain, "Dockerfile:2:6");
        says("FROM busybox\nRUNN x\n", plain, "Dockerfile:2:1");
        says("FROM busybox\nRUN --network=host true\n", plain, "network.host");
        says("FROM busybox\nRUN --security=insecure true\n", plain, "security.insecure");
        says("FROM busybox\nRUN --mount=type=secret,id=x,required=true true\n", plain, "secret `x`");
        let with = |rest: &str| format!("services: {{web: {{build: {{context: ., {rest}}}}}}}");
        says("FROM busybox\n", &with("cache_to: ['type=inline']"), "cache_to");
        says("FROM busybox\n", &with("provenance: true"), "provenance");
        says("FROM busybox\n", &with("platforms: [linux/amd64, linux/arm64]"), "several platforms");
        says("FROM busybox\n", &with("target: nope"), "`nope`");
    }

    #[test]
    fn the_same_inputs_and_source_date_give_the_same_image() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose("services: {web: {image: 'web:1', build: .}}");
        env.write(".env", "SOURCE_DATE_EPOCH=1700000000\n");
        env.write("f", "x");
        env.write("Dockerfile", "FROM busybox\nCOPY f /d/\nRUN echo y >/d/g && rm /etc/passwd\nWORKDIR /w\n");
        let id = || {
            env.hoist(&["build", "--no-cache"]).ok();
            env.hoist(&["image", "inspect", "--format", "{{.Id}} {{.Created}}", "web:1"]).ok()
        };
        let first = id();
        assert!(first.contains("2023-11-14"), "{first}");
        env.write("f", "x");
        assert_eq!(id(), first);
        assert_eq!(env.hoist(&["run", "--rm", "-T", "web", "stat", "-c", "%Y", "/d/g"]).ok(), "1700000000\n");
    }

    #[test]
    fn a_pruned_cache_is_gone_and_images_stay() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose("services: {web: {image: 'web:1', build: .}}");
        env.write(
            "Dockerfile",
            "FROM busybox\nRUN --mount=type=cache,target=/c echo kept >/f && echo 1 >>/c/n\n",
        );
        env.hoist(&["build"]).ok();
        env.hoist(&["builder", "prune"]).fails_with(1);
        // An image has the layer.
        env.hoist(&["builder", "prune", "--force"]).ok();
        assert_eq!(count(&built(env.hoist(&["build"])), "CACHED"), 1);
        assert!(env.hoist(&["builder", "prune", "--force", "--all"]).ok().contains("cache /c"));
        assert_eq!(env.hoist(&["run", "--rm", "-T", "web", "cat", "/f"]).ok(), "kept\n");
        assert_eq!(count(&built(env.hoist(&["build"])), "CACHED"), 0);
    }
}
