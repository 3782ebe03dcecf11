//! An installation of its own with one small image, removed with everything it runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hoist::runtime::Runtime;
use hoist::runtime::image::Import;
use hoist::runtime::log::reader::{LogReader, Range};
use hoist::runtime::root::Root;
use hoist::spec::{ContainerSpec, NetworkMode};

pub(crate) struct Rig {
    pub(crate) runtime: Runtime,
    pub(crate) root: Root,
    dir: tempfile::TempDir,
}

impl Rig {
    /// `None`, with a reason on stderr, where the machine does not allow it.
    pub(crate) fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            let wanted = std::env::var("TEST_REQUIRE").unwrap_or_default();
            assert!(
                !wanted.split(',').any(|w| w == "root" || w == "all"),
                "needs root, TEST_REQUIRE={wanted}"
            );
            eprintln!("skipped: this test needs root");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("hoist-rt-").tempdir().expect("a directory");
        let root = Root::new(Some(dir.path()));
        let rig = Self { runtime: open(&root), root, dir };
        let import = Import {
            reference: Some("busybox:latest".into()),
            changes: vec!["CMD [\"sh\"]".into()],
            ..Import::default()
        };
        let tarball = std::fs::File::open(busybox()).expect("the archive");
        rig.runtime.images().import(tarball, &import, &|_| {}).expect("imported");
        Some(rig)
    }

    /// Another command of the same installation.
    pub(crate) fn again(&self) -> Runtime {
        open(&self.root)
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A container that runs a shell line without any network.
    #[expect(clippy::unused_self, reason = "the image it names is this rig's")]
    pub(crate) fn spec(&self, name: &str, line: &str) -> ContainerSpec {
        let mut spec = ContainerSpec {
            name: name.into(),
            image: "busybox:latest".into(),
            network: NetworkMode::None,
            ..ContainerSpec::default()
        };
        spec.process.command = Some(vec!["sh".into(), "-c".into(), line.into()]);
        spec.labels = BTreeMap::from([("test".into(), name.into())]);
        spec
    }

    /// Creates and starts.
    pub(crate) fn run(&self, spec: &ContainerSpec) -> String {
        let id = self.runtime.create(spec).expect("created");
        self.runtime.start(&id).unwrap_or_else(|e| panic!("started: {}", hoist::runtime::error::chain(&e)));
        id
    }

    /// All output so far, stdout and stderr together.
    pub(crate) fn output(&self, id: &str) -> String {
        let mut reader = LogReader::open(&self.runtime.container_dir(id), Range::default()).expect("a log");
        let mut text = String::new();
        loop {
            let batch = reader.batch().expect("readable");
            if batch.is_empty() {
                return text;
            }
            for frame in batch {
                text.push_str(&String::from_utf8_lossy(&frame.data));
                if frame.newline {
                    text.push('\n');
                }
            }
        }
    }

    pub(crate) fn shim_pid(&self, id: &str) -> i32 {
        let lock = self.root.live().join(id).join("lock");
        let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(lock).expect("a lock"));
        let locks = std::fs::read_to_string("/proc/locks").expect("locks");
        let line = locks.lines().find(|l| l.contains("FLOCK") && l.contains(&format!(":{inode} ")));
        // The kernel names the process that took the lock, which was the command; so look who has it open.
        assert!(line.is_some(), "nobody holds the lock of {id}");
        std::fs::read_dir("/proc")
            .expect("proc")
            .flatten()
            .filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok())
            .find(|pid| {
                let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                command.starts_with(format!("hoist-shim\0{}", &id[..12]).as_bytes())
            })
            .expect("a shim")
    }

    /// No process, cgroup or run directory is left.
    pub(crate) fn assert_idle(&self) {
        eventually("the run directories to go", || {
            let left: Vec<_> = std::fs::read_dir(self.root.live()).expect("listed").flatten().collect();
            left.is_empty().then_some(()).ok_or(format!("{left:?}"))
        });
        let tag = self.root.tag();
        for hierarchy in ["", "memory", "pids", "unified"] {
            let dir = Path::new("/sys/fs/cgroup").join(hierarchy).join(format!("hoist-{tag}"));
            let groups: Vec<PathBuf> = std::fs::read_dir(&dir)
                .into_iter()
                .flatten()
                .flatten()
                .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
                .map(|e| e.path())
                .collect();
            assert!(groups.is_empty(), "cgroups left: {groups:?}");
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for container in self.runtime.list().unwrap_or_default() {
            self.runtime.remove(&container.record.id, true, true).ok();
        }
        let tag = self.root.tag();
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            std::fs::remove_dir(hierarchy.path().join(format!("hoist-{tag}"))).ok();
        }
    }
}

fn open(root: &Root) -> Runtime {
    Runtime::with_shim(root, env!("CARGO_BIN_EXE_hoist").into()).expect("opened")
}

pub(crate) fn eventually<T>(what: &str, mut check: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match check() {
            Ok(value) => return value,
            Err(last) => assert!(Instant::now() < deadline, "waited for {what}; at last: {last}"),
        }
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "between two looks of `eventually`")]
fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}

/// A tarball with a static busybox and its applets.
fn busybox() -> PathBuf {
    let path = std::env::temp_dir().join(format!("hoist-rt-busybox-{}.tar", std::process::id()));
    if path.exists() {
        return path;
    }
    let mut tar = tar::Builder::new(Vec::new());
    let program =
        std::fs::read("/usr/bin/busybox").or_else(|_| std::fs::read("/bin/busybox")).expect("busybox-static");
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_size(program.len() as u64);
    tar.append_data(&mut header, "bin/busybox", &program[..]).expect("appended");
    for applet in [
        "sh", "sleep", "cat", "echo", "true", "false", "id", "ls", "env", "kill", "dd", "seq", "ps", "stty",
        "head", "wc", "tr", "hostname", "ip", "nslookup", "wget", "nc", "test", "touch", "mkdir", "readlink",
        "grep", "yes", "trap", "tty", "mount",
    ] {
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        link.set_mode(0o777);
        tar.append_link(&mut link, format!("bin/{applet}"), "busybox").expect("appended");
    }
    let mut file = |name: &str, text: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        tar.append_data(&mut header, name, text.as_bytes()).expect("appended");
    };
    file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/home/web:/bin/sh\n");
    file("etc/group", "root:x:0:\nwheel:x:10:root\nweb:x:34:\nlogs:x:50:web\n");
    file("data/seed", "from the image\n");
    let mut dir = |name: &str, mode: u32| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(mode);
        header.set_size(0);
        tar.append_data(&mut header, name, std::io::empty()).expect("appended");
    };
    dir("tmp/", 0o1777);
    dir("root/", 0o700);
    let bytes = tar.into_inner().expect("finished");
    let fresh = path.with_extension(format!("{:?}", std::thread::current().id()).replace(['(', ')'], ""));
    std::fs::write(&fresh, bytes).expect("written");
    std::fs::rename(&fresh, &path).expect("renamed");
    path
}
