//! Mounts, files, devices and namespaces that a container asks for.

mod root {
    use super::super::rig::{Rig, launch_error, possible, wait};
    use crate::runtime::init::{
        DeviceKind, DeviceNode, LaunchError, MountPlan, MountSource, NameFiles, NamespaceMode, Propagation,
        Recursion, Stdio, launch,
    };
    use crate::spec::FileSpec;
    use std::os::fd::AsFd;

    fn bind(source: std::path::PathBuf, target: &str, read_only: bool) -> MountPlan {
        MountPlan {
            source: MountSource::Bind {
                path: source,
                subpath: None,
                recursive: Recursion::Enabled,
                propagation: Propagation::Rprivate,
            },
            target: target.to_owned(),
            read_only,
        }
    }

    #[test]
    fn a_read_only_root_leaves_volumes_and_memory_writable() {
        if !possible() {
            return;
        }
        let mut rig = Rig::new(
            "echo x > /new; echo x > /ro/new; echo vol > /rw/new; echo mem > /tmp/new; cat /rw/new /tmp/new; \
             grep ' /tmp ' /proc/mounts | cut -d' ' -f4; cat /etc/hosts; pwd",
        );
        std::fs::create_dir(rig.path("volume")).expect("volume");
        std::fs::write(rig.path("hosts"), "127.0.0.1 localhost\n").expect("hosts");
        rig.plan.rootfs.read_only = true;
        rig.plan.process.cwd = "/made/for/us".to_owned();
        rig.plan.name_files = NameFiles { hosts: Some(rig.path("hosts")), ..NameFiles::default() };
        let options = ["uid=5", "exec"].map(str::to_owned).to_vec();
        rig.plan.mounts = vec![
            bind(rig.path("volume"), "/rw", false),
            bind(rig.path("volume"), "/ro", true),
            MountPlan {
                source: MountSource::Tmpfs { size: Some(1 << 20), mode: Some(0o700), options },
                target: "/tmp".to_owned(),
                read_only: false,
            },
        ];
        assert_eq!(
            rig.output(),
            "/bin/sh: can't create /new: Read-only file system\n\
             /bin/sh: can't create /ro/new: Read-only file system\nvol\nmem\n\
             rw,nosuid,nodev,relatime,size=1024k,mode=700,uid=5\n127.0.0.1 localhost\n/made/for/us\n"
        );
        assert_eq!(std::fs::read_to_string(rig.path("volume/new")).expect("written"), "vol\n");
    }

    #[test]
    fn a_secret_is_in_memory_only_and_its_owners_alone() {
        if !possible() {
            return;
        }
        let mut rig = Rig::new(
            "cat /run/secrets/key; stat -c '%u %g %a %s' /run/secrets/key; echo x >> /run/secrets/key; \
             grep /run/secrets/key /proc/mounts | cut -d' ' -f3,4",
        );
        rig.plan.process.uid = 7;
        rig.plan.files = vec![FileSpec {
            target: "/run/secrets/key".to_owned(),
            content: b"top secret\n".to_vec(),
            uid: 7,
            gid: 8,
            mode: 0o400,
        }];
        let outcome = rig.run();
        assert_eq!(
            outcome.output,
            "top secret\n7 8 400 11\n/bin/sh: can't create /run/secrets/key: Permission denied\n\
             tmpfs ro,nosuid,nodev,noexec,relatime,mode=755\n"
        );
        let upper = std::fs::read(rig.path("upper/run/secrets/key")).expect("mount point");
        assert!(upper.is_empty(), "only the place of the mount is in the upper layer");
        rig.plan.process.uid = 9;
        assert!(!rig.run().output.contains("top secret"), "nobody else reads it");
    }

    #[test]
    fn devices_are_made_with_their_owner_and_need_a_rule() {
        if !possible() {
            return;
        }
        let mut rig =
            Rig::new("stat -c '%n %F %u %a %t,%T' /dev/deep/tun; head -c 0 /dev/deep/tun && echo open");
        rig.plan.devices = vec![DeviceNode {
            path: "/dev/deep/tun".to_owned(),
            kind: DeviceKind::Char,
            major: 10,
            minor: 200,
            mode: 0o640,
            uid: 3,
            gid: 4,
        }];
        let seen = "/dev/deep/tun character special file 3 640 a,c8\n";
        let outcome = rig.run();
        let refused = "head: /dev/deep/tun: Operation not permitted\n";
        assert_eq!(outcome.output, format!("{seen}{refused}"));
        rig.plan
            .cgroup
            .devices
            .extend(crate::runtime::init::devices::rules(&["c 10:200 r".to_owned()]).expect("rule"));
        assert_eq!(rig.output(), format!("{seen}open\n"));
    }

    #[test]
    fn a_missing_source_names_path_and_target() {
        if !possible() {
            return;
        }
        let mut rig = Rig::new("true");
        rig.plan.mounts = vec![bind("/no/such/source".into(), "/data", false)];
        let error = launch_error(&rig);
        assert_eq!(error.to_string(), "cannot use `/no/such/source` as source of the mount on `/data`");
        rig.plan.mounts.clear();
        rig.plan.rootfs.layers = vec!["/no/such/layer".into()];
        assert!(
            matches!(launch_error(&rig), LaunchError::Rootfs { object, .. } if object == "/no/such/layer")
        );
    }

    #[test]
    fn namespaces_of_the_host_and_of_another_container_are_shared() {
        if !possible() {
            return;
        }
        let first = Rig::new("echo shared > /dev/shm/mark; exec sleep 1000");
        let script = "while ! [ -s /dev/shm/mark ]; do :; done; cat /dev/shm/mark; hostname; \
                      tr '\\0' ' ' < /proc/1/cmdline; for n in pid ipc uts; do readlink /proc/1/ns/$n; done; \
                      for n in pid ipc uts; do readlink /proc/self/ns/$n; done";
        let mut second = Rig::new(script);
        let output = first.with_running(|running, out| {
            second.plan.namespaces.pid = NamespaceMode::Join(running.pid);
            second.plan.namespaces.ipc = NamespaceMode::Join(running.pid);
            second.plan.namespaces.uts = NamespaceMode::Join(running.pid);
            // The first one's process is another user's for the kernel: reading its links needs ptrace rights.
            let all =
                crate::runtime::init::capabilities::resolve(&["ALL".to_owned()], &[], false).expect("all");
            second.plan.process.capabilities = all;
            let stdio = Stdio::Fds { stdin: out.as_fd(), stdout: out.as_fd(), stderr: out.as_fd() };
            let joined = launch(&second.plan, stdio, None).expect("launch");
            assert_eq!(wait(&joined.pidfd), 0);
            joined.cgroup.remove().expect("remove");
        });
        let lines: Vec<&str> = output.lines().collect();
        assert_eq!(lines[..2], ["shared", "rig"]);
        assert!(lines[2].starts_with("sleep 1000 pid:["), "{output}");
        assert_eq!(lines[2].strip_prefix("sleep 1000 "), Some(lines[5]));
        assert_eq!(lines[3..5], lines[6..8]);

        let mut host = Rig::new("for n in pid ipc uts; do readlink /proc/self/ns/$n; done");
        host.plan.namespaces.pid = NamespaceMode::Host;
        host.plan.namespaces.ipc = NamespaceMode::Host;
        host.plan.namespaces.uts = NamespaceMode::Host;
        let own =
            |n: &str| std::fs::read_link(format!("/proc/self/ns/{n}")).expect("link").display().to_string();
        assert_eq!(host.output(), ["pid", "ipc", "uts"].map(|n| own(n) + "\n").concat());
    }
}
