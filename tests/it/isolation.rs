//! What a container may and may not do: Docker's defaults, and what changes them.

mod root {
    use std::fmt::Write as _;

    use crate::support::{TestEnvironment, require};

    /// One service per line of `services`, which all run `sleep`.
    fn with(services: &[(&str, &str)]) -> TestEnvironment {
        let env = TestEnvironment::with_busybox();
        let mut text = "services:\n".to_owned();
        for (name, settings) in services {
            let comma = if settings.is_empty() { "" } else { ", " };
            writeln!(
                text,
                "  {name}: {{image: 'busybox:latest', command: [sleep, '1000'], stop_signal: SIGKILL{comma}{settings}}}"
            )
            .expect("a string");
        }
        env.compose(&text);
        env.hoist(&["up", "-d"]).ok();
        env
    }

    fn sh(env: &TestEnvironment, service: &str, script: &str) -> String {
        env.hoist(&["exec", "-T", service, "sh", "-c", script]).ok().trim().to_owned()
    }

    fn status(env: &TestEnvironment, service: &str, field: &str) -> String {
        // Of the service's own process: what `exec` adds is another matter.
        let text = sh(env, service, &format!("grep ^{field}: /proc/1/status"));
        text.split_whitespace().nth(1).unwrap_or_default().to_owned()
    }

    #[test]
    fn capabilities_are_dockers_and_change_as_asked() {
        require!(Root);
        let env = with(&[
            ("plain", ""),
            ("guest", "user: '1000:1000'"),
            ("less", "cap_drop: [ALL], cap_add: [CHOWN]"),
            ("more", "cap_add: [NET_ADMIN]"),
            ("all", "privileged: true"),
        ]);
        assert_eq!(status(&env, "plain", "CapEff"), "00000000a80425fb");
        assert_eq!(status(&env, "plain", "CapBnd"), "00000000a80425fb");
        assert_eq!(status(&env, "guest", "CapEff"), "0000000000000000");
        assert_eq!(status(&env, "less", "CapEff"), "0000000000000001");
        assert_eq!(status(&env, "more", "CapEff"), "00000000a80435fb");
        let own = std::fs::read_to_string("/proc/self/status").expect("proc is mounted");
        let own = own.lines().find_map(|l| l.strip_prefix("CapBnd:")).expect("a field").trim();
        assert_eq!(status(&env, "all", "CapEff"), own);
    }

    #[test]
    fn system_calls_are_filtered_unless_told_otherwise() {
        require!(Root);
        let env = with(&[
            ("plain", ""),
            ("open", "security_opt: ['seccomp:unconfined']"),
            ("strict", "security_opt: ['no-new-privileges:true']"),
        ]);
        assert_eq!(status(&env, "plain", "Seccomp"), "2");
        assert_eq!(status(&env, "open", "Seccomp"), "0");
        assert_eq!(status(&env, "plain", "NoNewPrivs"), "0");
        assert_eq!(status(&env, "strict", "NoNewPrivs"), "1");
        env.hoist(&["exec", "-T", "plain", "unshare", "-U", "true"]).fails_with(1);
        env.hoist(&["exec", "-T", "plain", "mount", "-t", "tmpfs", "none", "/tmp"]).fails_with(1);
    }

    #[test]
    fn what_the_kernel_shows_is_masked_or_read_only() {
        require!(Root);
        let env = with(&[("plain", ""), ("sealed", "read_only: true, tmpfs: [/run]")]);
        // Not every kernel has all of these.
        for path in ["/proc/kcore", "/proc/timer_list", "/proc/keys", "/proc/interrupts"] {
            if std::path::Path::new(path).exists() {
                assert_eq!(sh(&env, "plain", &format!("wc -c <{path}")), "0", "{path}");
            }
        }
        assert_eq!(sh(&env, "plain", "ls /sys/firmware | wc -l"), "0");
        for path in ["/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/sys/kernel/mm/ksm/run"] {
            let write = format!("echo 0 >{path}");
            env.hoist(&["exec", "-T", "plain", "sh", "-c", &write]).fails_with(1);
        }
        env.hoist(&["exec", "-T", "sealed", "touch", "/file"]).fails_with(1);
        env.hoist(&["exec", "-T", "sealed", "touch", "/run/file"]).ok();
        let devices = sh(&env, "plain", "ls /dev");
        for device in ["null", "zero", "random", "tty", "ptmx", "shm", "stdout"] {
            assert!(devices.lines().any(|d| d == device), "no /dev/{device} in {devices}");
        }
        assert!(!devices.contains("vda") && !devices.contains("kmsg"), "{devices}");
        // A node of a device of the host can be made, and must not be opened.
        env.hoist(&["exec", "-T", "plain", "sh", "-c", "mknod /kmsg c 1 11 && head -c 1 /kmsg"])
            .fails_with(1);
    }

    #[test]
    fn limits_hold() {
        require!(Root);
        let env = with(&[
            ("memory", "mem_limit: 32m, memswap_limit: 32m"),
            ("processes", "pids_limit: 20"),
            ("files", "ulimits: {nofile: 100}"),
        ]);
        // A variable of 64 MB.
        let eat = env.hoist(&[
            "exec",
            "-T",
            "memory",
            "sh",
            "-c",
            "x=$(head -c 64000000 /dev/zero | tr '\\0' x); echo alive",
        ]);
        assert!(eat.code == 137 && !eat.stdout.contains("alive"), "{eat:?}");
        let fork = "i=0; while [ $i -lt 40 ]; do sleep 5 & i=$((i+1)); done; wait";
        assert_ne!(env.hoist(&["exec", "-T", "processes", "sh", "-c", fork]).code, 0);
        assert_eq!(sh(&env, "files", "grep 'open files' /proc/1/limits | awk '{ print $4 }'"), "100");
    }

    #[test]
    fn the_processes_and_names_of_the_host_are_not_seen() {
        require!(Root);
        let env = with(&[("plain", "hostname: here"), ("reaper", "init: true")]);
        assert_eq!(sh(&env, "plain", "hostname"), "here");
        assert_eq!(sh(&env, "plain", "pidof sleep"), "1");
        assert_eq!(sh(&env, "plain", "grep -c . /proc/net/unix"), "1", "only the heading");
        // An orphan that ends is reaped by `init`.
        let orphan = "(sleep 0.1 &) ; sleep 0.5; ps | grep -c '[Zz]ombie\\|\\[sleep\\]'";
        env.hoist(&["exec", "-T", "reaper", "sh", "-c", orphan]).fails_with(1);
        assert!(sh(&env, "reaper", "ps").contains("sleep 1000"));
    }
}
