//! What a container sees, compared with what one of Docker Engine 28 sees.

mod root {
    use super::super::rig::{Rig, possible};

    #[test]
    fn identity_is_dockers() {
        if !possible() {
            return;
        }
        let script = "grep -E '^(Cap|Seccomp:|NoNewPrivs|Uid|Gid|Groups|SigBlk)' /proc/1/status; \
                      cat /proc/1/oom_score_adj; pwd; env | sort";
        assert_eq!(
            Rig::new(script).output(),
            "Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t \n\
             SigBlk:\t0000000000000000\n\
             CapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\n\
             CapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t2\n\
             0\n/\nPATH=/bin\nPWD=/\nSHLVL=1\n"
        );
        let mut user =
            Rig::new("grep -E '^(CapEff|CapPrm|CapBnd|NoNewPrivs|Uid|Gid|Groups)' /proc/self/status");
        user.plan.process.uid = 1000;
        user.plan.process.gid = 1001;
        user.plan.process.groups = vec![7, 1001];
        user.plan.process.no_new_privileges = true;
        assert_eq!(
            user.output(),
            "Uid:\t1000\t1000\t1000\t1000\nGid:\t1001\t1001\t1001\t1001\nGroups:\t7 1001 \n\
             CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t00000000a80425fb\nNoNewPrivs:\t1\n"
        );
    }

    /// Mount point, type and options that matter, in order.
    fn mounts(rig: &Rig) -> Vec<String> {
        let keep = ["ro", "rw", "nosuid", "nodev", "noexec", "size", "mode", "gid", "ptmxmode"];
        rig.output()
            .lines()
            .map(|line| {
                let fields: Vec<&str> = line.split(' ').collect();
                let options: Vec<&str> = fields[3]
                    .split(',')
                    .filter(|o| keep.contains(&o.split('=').next().unwrap_or(o)))
                    .collect();
                format!("{} {} {}", fields[1], fields[2], options.join(","))
            })
            .collect()
    }

    #[test]
    fn the_mount_table_is_dockers() {
        if !possible() {
            return;
        }
        let rig = Rig::new("cat /proc/mounts");
        let found = mounts(&rig);
        let expected = [
            "/ overlay rw",
            "/proc proc rw,nosuid,nodev,noexec",
            "/dev tmpfs rw,nosuid,size=65536k,mode=755",
            "/dev/pts devpts rw,nosuid,noexec,gid=5,mode=620,ptmxmode=666",
            "/dev/mqueue mqueue rw,nosuid,nodev,noexec",
            "/dev/shm tmpfs rw,nosuid,nodev,noexec,size=65536k",
            "/sys sysfs ro,nosuid,nodev,noexec",
            "/proc/bus proc ro,nosuid,nodev,noexec",
            "/proc/fs proc ro,nosuid,nodev,noexec",
            "/proc/irq proc ro,nosuid,nodev,noexec",
            "/proc/sys proc ro,nosuid,nodev,noexec",
        ];
        for line in expected {
            assert!(found.iter().any(|f| f == line), "{line} is missing in {found:#?}");
        }
        for line in found.iter().filter(|f| f.contains("/sys/fs/cgroup/")) {
            assert!(line.ends_with("ro,nosuid,nodev,noexec"), "{line}");
        }
        let privileged = {
            let mut rig = Rig::new("cat /proc/mounts");
            rig.plan.privileged = true;
            rig.plan.masked_paths.clear();
            rig.plan.readonly_paths.clear();
            rig
        };
        let found = mounts(&privileged);
        assert!(found.iter().any(|f| f == "/sys sysfs rw,nosuid,nodev,noexec"), "{found:#?}");
        assert!(!found.iter().any(|f| f.starts_with("/proc/")), "{found:#?}");
    }

    #[test]
    fn devices_are_dockers() {
        if !possible() {
            return;
        }
        let script = "cd /dev; for f in [!c]*; do if [ -L $f ]; then echo $f '->' $(readlink $f); else \
                      stat -c '%n %f %t,%T' $f; fi; done; echo x > /dev/null; head -c 1 /dev/zero | wc -c; \
                      echo > /dev/full 2>&1 || echo full; mknod /tmp/sda b 8 0 && cat /tmp/sda";
        let outcome = Rig::new(script).run();
        assert_eq!(
            outcome.output,
            "fd -> /proc/self/fd\nfull 21b6 1,7\nmqueue 43ff 0,0\nnull 21b6 1,3\n\
             ptmx -> pts/ptmx\npts 41ed 0,0\nrandom 21b6 1,8\nshm 43ff 0,0\n\
             stderr -> /proc/self/fd/2\nstdin -> /proc/self/fd/0\nstdout -> /proc/self/fd/1\n\
             tty 21b6 5,0\nurandom 21b6 1,9\nzero 21b6 1,5\n1\n\
             full\n\
             cat: can't open '/tmp/sda': Operation not permitted\n",
            "a node of a disk can be made and not opened"
        );
    }

    #[test]
    fn masked_paths_are_empty_and_kernel_settings_are_read_only() {
        if !possible() {
            return;
        }
        let script = "cat /proc/keys /proc/timer_list /proc/interrupts | wc -c; ls -A /sys/firmware /proc/acpi | grep -v : | grep -c .; \
                      echo 1 > /proc/sys/kernel/hostname; mkdir /sys/firmware/x; \
                      umount /proc/sys; unshare -m true; hostname evil; mount -t tmpfs x /tmp";
        let outcome = Rig::new(script).run();
        assert_eq!(
            outcome.output,
            "0\n0\n/bin/sh: can't create /proc/sys/kernel/hostname: Read-only file system\n\
             mkdir: can't create directory '/sys/firmware/x': Read-only file system\n\
             umount: can't unmount /proc/sys: Operation not permitted\n\
             unshare: unshare(0x20000): Operation not permitted\n\
             hostname: sethostname: Operation not permitted\n\
             mount: permission denied (are you root?)\n"
        );
        assert_ne!(outcome.code, 0);
    }
}
