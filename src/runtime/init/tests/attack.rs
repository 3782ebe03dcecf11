//! What a hostile image, volume or process may try.

mod root {
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;

    use super::super::rig::{Rig, launch_error, possible};
    use crate::runtime::init::{LaunchError, MountPlan, MountSource, Propagation, Recursion};
    use crate::runtime::sys::Errno;

    fn bind(source: std::path::PathBuf, subpath: Option<&str>, target: &str) -> MountPlan {
        MountPlan {
            source: MountSource::Bind {
                path: source,
                subpath: subpath.map(str::to_owned),
                recursive: Recursion::Enabled,
                propagation: Propagation::Rprivate,
            },
            target: target.to_owned(),
            read_only: false,
        }
    }

    #[test]
    fn no_descriptor_leaks_into_a_container() {
        if !possible() {
            return;
        }
        let rig = Rig::new("ls /proc/self/fd");
        // Without close-on-exec, as a careless library would open it.
        let leaked =
            rustix::fs::open("/", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).expect("open");
        let output = rig.output();
        drop(leaked);
        assert_eq!(output, "0\n1\n2\n3\n", "3 is the directory that is being listed");
    }

    #[test]
    fn a_working_directory_outside_the_root_is_refused() {
        if !possible() {
            return;
        }
        // CVE-2024-21626: a descriptor of the host's as working directory.
        let leaked =
            rustix::fs::open("/", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).expect("open");
        let number = std::os::fd::AsRawFd::as_raw_fd(&leaked.as_fd());
        let mut rig = Rig::new("ls ../../../../..");
        for path in [format!("/proc/self/fd/{number}"), "/evil".to_owned()] {
            symlink(format!("/proc/self/fd/{number}"), rig.path("layer/evil")).ok();
            rig.plan.process.cwd = path;
            assert!(matches!(launch_error(&rig), LaunchError::WorkingDir { .. }), "{:?}", launch_error(&rig));
        }
    }

    #[test]
    fn an_image_that_redirects_proc_or_dev_is_refused() {
        if !possible() {
            return;
        }
        for name in ["proc", "sys", "dev"] {
            let rig = Rig::new("true");
            symlink("/tmp", rig.path("layer").join(name)).expect("link");
            let error = launch_error(&rig);
            let expected = Errno::new(libc::ELOOP);
            assert!(matches!(&error, LaunchError::Mount { source, .. } if *source == expected), "{error:?}");
        }
    }

    #[test]
    fn links_in_image_and_volume_cannot_lead_a_mount_out() {
        if !possible() {
            return;
        }
        let host = tempfile::tempdir().expect("dir");
        std::fs::write(host.path().join("secret"), "host").expect("write");
        let mut rig = Rig::new("cat /data/file; ls /sub");
        let volume = rig.path("volume");
        std::fs::create_dir_all(volume.join("inner")).expect("volume");
        std::fs::write(volume.join("inner/file"), "inside\n").expect("write");
        symlink(host.path(), volume.join("escape")).expect("link");
        symlink("../../../../../../../..", rig.path("layer/up")).expect("link");
        symlink(format!("/up{}", host.path().display()), rig.path("layer/data")).expect("link");
        // The target is a link that points at a host directory; it is that path inside.
        rig.plan.mounts =
            vec![bind(volume.clone(), Some("inner"), "/data"), bind(volume.clone(), None, "/sub")];
        assert_eq!(rig.output(), "inside\nescape\ninner\n");
        assert_eq!(std::fs::read_dir(host.path()).expect("read").count(), 1, "nothing was made on the host");
        // A subpath through the volume's own link leads to nowhere inside the volume.
        rig.plan.mounts = vec![bind(volume, Some("escape"), "/data")];
        assert!(matches!(launch_error(&rig), LaunchError::MountSource { .. }));
    }

    #[test]
    fn nothing_appears_in_the_hosts_mount_table() {
        if !possible() {
            return;
        }
        let mut rig = Rig::new("exec sleep 1000");
        let volume = rig.path("volume");
        std::fs::create_dir(&volume).expect("volume");
        rig.plan.mounts = vec![bind(volume, None, "/data")];
        let marker = rig.path("");
        let seen = rig.with_running(|_, out| {
            let table = std::fs::read_to_string("/proc/self/mountinfo").expect("table");
            let lines = table.lines().filter(|l| l.contains(&*marker.to_string_lossy())).count();
            rustix::io::write(out, lines.to_string().as_bytes()).expect("write");
        });
        assert_eq!(seen, "0");
    }

    #[test]
    fn kernel_settings_stay_inside_and_cannot_be_redirected() {
        if !possible() {
            return;
        }
        let mut rig = Rig::new("cat /proc/sys/kernel/msgmax /proc/sys/kernel/domainname");
        rig.plan.sysctls = [("kernel.msgmax".to_owned(), "9999".to_owned())].into();
        rig.plan.domainname = Some("example".to_owned());
        assert_eq!(rig.output(), "9999\nexample\n");
        assert_ne!(std::fs::read_to_string("/proc/sys/kernel/msgmax").expect("host's").trim(), "9999");

        for name in ["kernel/../../self/attr/current", "no.such.parameter", "../uptime"] {
            rig.plan.sysctls = [(name.to_owned(), "1".to_owned())].into();
            assert!(matches!(launch_error(&rig), LaunchError::Sysctl { .. }), "{name}");
        }
    }
}
