//! Images to and from a real registry.

mod root {
    use std::os::unix::fs::PermissionsExt as _;

    use crate::support::{Door, TestEnvironment, require};

    #[test]
    fn what_is_pushed_can_be_pulled_and_runs() {
        require!(Root);
        let env = TestEnvironment::new();
        let registry = env.registry(5000, Door::Open);
        env.import_busybox("localhost:5000/team/a:1");
        env.hoist(&["image", "tag", "localhost:5000/team/a:1", "localhost:5000/team/a:extra"]).ok();
        env.compose(
            "services:
               a: {image: 'localhost:5000/team/a:1', build: {context: ., tags: ['localhost:5000/team/a:extra']},
                   command: [echo, it works]}
               other: {image: 'localhost:5000/team/other:1'}",
        );
        let pushed = env.hoist(&["--progress", "plain", "push"]);
        assert!(pushed.stderr.contains("other Skipped"), "{}", pushed.stderr);
        pushed.ok();
        let id = env.hoist(&["image", "ls", "-q", "--no-trunc"]).ok();
        let (_, tags) = env.get("127.0.0.1:5000", "/v2/team/a/tags/list").expect("an answer");
        assert!(tags.contains("\"1\"") && tags.contains("\"extra\""), "{} has {tags}", registry.host);
        env.hoist(&["image", "rm", "localhost:5000/team/a:1", "localhost:5000/team/a:extra"]).ok();
        assert!(env.hoist(&["up", "--no-build", "--no-color", "a"]).ok().contains("it works"));
        let again = env.hoist(&["image", "ls", "-q", "--no-trunc"]).ok();
        assert_eq!(again, id, "the image that came back is the one that was pushed");
        env.hoist(&["down"]).ok();
    }

    #[test]
    fn what_is_built_can_be_pushed_at_once() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        let _registry = env.registry(5000, Door::Open);
        env.write("context/Dockerfile", "FROM busybox\nRUN echo built > /made\n");
        env.compose(
            "services: {a: {image: 'localhost:5000/built:1', build: context, command: [cat, /made]}}",
        );
        env.hoist(&["build", "--push"]).ok();
        env.hoist(&["image", "rm", "localhost:5000/built:1"]).ok();
        assert!(env.hoist(&["up", "--no-build", "--no-color"]).ok().contains("built"));
        env.hoist(&["down"]).ok();
    }

    #[test]
    fn config_names_images_by_the_digests_they_have_in_the_registry() {
        require!(Root);
        let env = TestEnvironment::new();
        let registry = env.registry(5000, Door::Open);
        env.import_busybox("localhost:5000/app:1");
        env.hoist(&["image", "push", "localhost:5000/app:1"]).ok();
        env.compose(
            "services:
               a: {image: 'localhost:5000/app:1', command: [echo, it works]}
               b: {build: .}
               c: {image: 'busybox@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',
                   volumes: [{type: image, source: 'localhost:5000/app:1', target: /app}]}",
        );
        let digests = env.hoist(&["image", "ls", "--digests", "--format", "{{.Digest}}"]).ok();
        let pinned = format!("localhost:5000/app:1@{}", digests.trim());
        let whole = env.hoist(&["config", "--resolve-image-digests"]).ok();
        assert!(whole.contains(&format!("image: {pinned}\n")), "{} says {digests}: {whole}", registry.host);
        assert!(whole.contains(&format!("source: {pinned}\n")), "{whole}");
        assert!(whole.contains("image: busybox@sha256:aaaa"), "{whole}");
        let lock = env.hoist(&["config", "--lock-image-digests", "-o", "lock.yaml"]);
        assert_eq!(lock.code, 0, "{}", lock.stderr);
        let text = std::fs::read_to_string(env.project().join("lock.yaml")).expect("it was written");
        assert!(text.starts_with("services:\n") && !text.contains("command") && !text.contains("networks"));
        assert_eq!(text.matches(&pinned).count(), 2, "{text}");
        // It is an override file that works.
        env.hoist(&["image", "rm", "localhost:5000/app:1"]).ok();
        let files = ["-f", "compose.yaml", "-f", "lock.yaml"];
        let up = env.hoist(&[&files[..], &["up", "--no-build", "--no-color", "a"]].concat()).ok();
        assert!(up.contains("it works"), "{up}");
        env.hoist(&["down"]).ok();
        env.compose("services: {a: {image: 'localhost:5000/gone:1'}}");
        env.hoist(&["config", "--resolve-image-digests"]).fails_naming(&["localhost:5000/gone:1", "digest"]);
    }

    #[test]
    fn a_locked_registry_wants_its_authority_and_a_login() {
        require!(Root);
        let mut env = TestEnvironment::new();
        let registry = env.registry(5443, Door::Locked);
        let image = "registry.test:5443/app:1";
        env.import_busybox(image);
        let push = ["image", "push", image];
        // Nobody has said that this authority may be trusted.
        env.hoist(&push).fails_naming(&["registry.test:5443", "certificate"]);
        let authority = env.project().join("ca.crt");
        env.set("SSL_CERT_FILE", authority.to_str().expect("a plain path"));
        env.hoist(&push).fails_naming(&["denies access", "hoist login registry.test:5443"]);

        let login = |password: &str| {
            let line = format!("echo {password} | \"$0\" login -u me --password-stdin {}", registry.host);
            env.host(&["bash", "-c", &line, crate::support::hoist()])
        };
        login("wrong").fails_naming(&["login to registry.test:5443 was refused"]);
        let config = env.root().with_file_name("home").join(".docker/config.json");
        assert!(!config.exists(), "a login that was refused is not kept");
        assert!(login("secret").ok().contains("Login Succeeded"));
        let mode = std::fs::metadata(&config).expect("kept").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        env.hoist(&push).ok();
        env.hoist(&["image", "rm", image]).ok();
        env.hoist(&["image", "pull", image]).ok();

        assert!(env.hoist(&["logout", &registry.host]).ok().contains("Removing login credentials"));
        assert!(!std::fs::read_to_string(&config).expect("there").contains("registry.test"));
        env.hoist(&["image", "pull", image]).fails_naming(&["denies access"]);
    }

    #[test]
    fn a_registry_has_its_own_authority_in_certs_d() {
        require!(Root);
        let env = TestEnvironment::new();
        let _registry = env.registry(5443, Door::Locked);
        let script = "mount -t tmpfs none /etc/docker && mkdir -p /etc/docker/certs.d/registry.test:5443 \
                      && cp ca.crt /etc/docker/certs.d/registry.test:5443/";
        env.host(&["bash", "-c", script]).ok();
        let line = "echo secret | \"$0\" login -u me --password-stdin registry.test:5443";
        assert!(env.host(&["bash", "-c", line, crate::support::hoist()]).ok().contains("Login Succeeded"));
    }

    #[test]
    fn failed_pushes_are_told_and_may_be_ignored() {
        require!(Root);
        let env = TestEnvironment::new();
        env.import_busybox("localhost:5999/a:1");
        env.compose("services: {a: {image: 'localhost:5999/a:1', build: .}}");
        env.hoist(&["push"]).fails_naming(&["service `a`", "localhost:5999/a:1", "cannot reach registry"]);
        let ignored = env.hoist(&["push", "--ignore-push-failures"]);
        assert!(ignored.stderr.contains("cannot reach registry"), "{}", ignored.stderr);
        ignored.ok();
    }

    #[test]
    fn a_mirror_is_asked_first_and_its_original_when_it_has_nothing() {
        require!(Root);
        let mut env = TestEnvironment::new();
        let _mirror = env.registry(5001, Door::Open);
        let _original = env.registry(5002, Door::Open);
        env.import_busybox("localhost:5001/both:1");
        env.hoist(&["image", "tag", "localhost:5001/both:1", "localhost:5002/only:1"]).ok();
        env.hoist(&["image", "push", "localhost:5001/both:1"]).ok();
        env.hoist(&["image", "push", "localhost:5002/only:1"]).ok();
        env.hoist(&["image", "rm", "localhost:5001/both:1", "localhost:5002/only:1"]).ok();
        env.set("HOIST_REGISTRY_MIRRORS", "localhost:5002=http://localhost:5001");
        // The mirror alone has the first, the original alone the second.
        env.hoist(&["image", "pull", "localhost:5002/both:1"]).ok();
        env.hoist(&["image", "pull", "localhost:5002/only:1"]).ok();
    }
}
