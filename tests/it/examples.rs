//! The examples do what their texts say, on real databases and servers.

mod root {
    use std::time::Duration;

    use crate::support::{TestEnvironment, eventually, require};

    const SITE: &str = "127.0.0.1:8080";

    /// Waits until the page at `path` contains `text`.
    #[track_caller]
    fn wait_for_page(env: &TestEnvironment, path: &str, text: &str) {
        eventually(text, Duration::from_secs(90), || match env.get(SITE, path)? {
            (200, page) if page.contains(text) => Ok(()),
            (status, page) => Err(format!("{status} {}", page.chars().take(300).collect::<String>())),
        });
    }

    #[test]
    fn wordpress_is_installed_survives_down_and_up_and_goes_with_its_volume() {
        require!(Root);
        let mut env = TestEnvironment::new();
        env.load_example_images(&["mariadb", "wordpress"]);
        env.example("wordpress");
        env.set("WORDPRESS_PORT", "8080");
        let before = env.snapshot();
        env.hoist(&["up", "-d"]).ok();
        // The site's own redirect leads there.
        wait_for_page(&env, "/wp-admin/install.php", "<title>WordPress &rsaquo; Installation</title>");
        let (status, page) = env
            .post(
                SITE,
                "/wp-admin/install.php?step=2",
                &[
                    ("weblog_title", "Hoisted"),
                    ("user_name", "captain"),
                    ("admin_password", "correct horse battery"),
                    ("admin_password2", "correct horse battery"),
                    ("pw_weak", "on"),
                    ("admin_email", "captain@example.org"),
                    ("blog_public", "0"),
                    ("language", ""),
                ],
            )
            .expect("the form is answered");
        assert!(status == 200 && page.contains("Success!"), "{status} {page}");
        wait_for_page(&env, "/", "<title>Hoisted</title>");
        let query = "SELECT user_login FROM wp_users";
        let users = env.hoist(&[
            "exec",
            "-T",
            "db",
            "mariadb",
            "-uwordpress",
            "-pwordpress",
            "wordpress",
            "-Ne",
            query,
        ]);
        assert_eq!(users.ok(), "captain\n");

        env.hoist(&["down"]).ok();
        env.hoist(&["up", "-d"]).ok();
        wait_for_page(&env, "/", "<title>Hoisted</title>");

        env.hoist(&["down", "-v"]).ok();
        // The image declares a volume for the site's files; the anonymous one of the
        // first container stayed when that went without `-v`, as with Docker.
        env.hoist(&["volume", "prune", "-f"]).ok();
        env.assert_as_before(&before);
        env.hoist(&["up", "-d"]).ok();
        wait_for_page(&env, "/wp-admin/install.php", "<title>WordPress &rsaquo; Installation</title>");
        env.hoist(&["down", "-v"]).ok();
        env.assert_as_before(&before);
    }

    #[test]
    fn the_tiers_of_the_guest_book_work_together() {
        require!(Root);
        let env = TestEnvironment::new();
        env.load_example_images(&["postgres", "python", "nginx"]);
        env.example("three-tier");
        let before = env.snapshot();
        env.hoist(&["up", "-d"]).ok();
        // Health gates the start, so the whole chain answers at once.
        eventually("the guest book", Duration::from_secs(5), || match env.get(SITE, "/")? {
            (200, page) if page.contains("<title>Guest book</title>") => Ok(()),
            other => Err(format!("{other:?}")),
        });
        let (status, _) = env.post(SITE, "/api/entries", &[("a", "line")]).expect("an answer");
        assert_eq!(status, 201);
        env.hoist(&["down"]).ok();
        env.hoist(&["up", "-d", "--wait"]).ok();
        wait_for_page(&env, "/api/entries", "[\"a=line\"]");
        let secret = env.hoist(&["exec", "-T", "web", "getent", "hosts", "db"]);
        assert_ne!(secret.code, 0, "the database is not reachable from the web tier");
        env.hoist(&["down", "-v"]).ok();
        env.assert_as_before(&before);
    }

    #[test]
    fn the_ci_run_returns_what_its_tests_return() {
        require!(Root);
        let mut env = TestEnvironment::new();
        env.load_example_images(&["postgres"]);
        env.example("ci");
        let before = env.snapshot();
        let arguments = ["up", "--no-color", "--abort-on-container-exit", "--exit-code-from", "tests"];
        let good = env.hoist(&arguments);
        assert!(good.stdout.contains("0 failed"), "{}", good.stdout);
        good.ok();
        env.hoist(&["down", "-v"]).ok();
        env.set("EXPECTED_TOTAL", "1");
        let bad = env.hoist(&arguments);
        assert!(bad.stdout.contains("FAILED  the total is what was sold"), "{}", bad.stdout);
        bad.fails_with(1);
        env.hoist(&["down", "-v"]).ok();
        env.assert_as_before(&before);
    }
}
