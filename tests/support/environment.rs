//! A private machine for one test.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use tempfile::TempDir;

use super::command::{Finished, Running};
use super::host::Snapshot;

/// Network, mount and process namespaces of its own, a state directory, a home and
/// a project folder, and an environment that holds nothing of the developer's.
///
/// Nothing that a test starts here outlives it: the first process of the namespace
/// ends with the test's own process, whatever happens to that.
pub(crate) struct TestEnvironment {
    first: Child,
    // Closing it ends the first process, and with it all others.
    life: Option<ChildStdin>,
    top: TempDir,
    variables: Vec<(String, String)>,
}

impl TestEnvironment {
    /// A machine without images, and an empty project folder called `project`.
    pub(crate) fn new() -> Self {
        let top = tempfile::Builder::new().prefix("hoist-test-").tempdir().expect("a temporary folder");
        for folder in ["root", "home", "project"] {
            fs::create_dir(top.path().join(folder)).expect("a folder of the test");
        }
        let mut first = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["--propagation", "private", "bash", "-c"])
            // Bash reaps what is orphaned to it, as the first process must.
            .arg("ip link set lo up && echo ready && read -r _")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare can be started");
        let life = first.stdin.take();
        let mut said = String::new();
        BufReader::new(first.stdout.take().expect("piped")).read_line(&mut said).expect("a line");
        assert_eq!(said.trim(), "ready", "cannot make the namespaces of the test");
        Self { first, life, top, variables: Vec::new() }
    }

    /// [`Self::new`] with `busybox:latest` in the store.
    pub(crate) fn with_busybox() -> Self {
        let env = Self::new();
        env.import_busybox("busybox:latest");
        env
    }

    /// Puts an image with busybox and nothing else into the store.
    pub(crate) fn import_busybox(&self, reference: &str) {
        let archive = busybox_archive();
        self.hoist(&[
            "image",
            "import",
            archive.to_str().expect("a plain path"),
            reference,
            "--change",
            "CMD [\"sh\"]",
        ])
        .ok();
    }

    /// Puts the image of a folder in `examples/images` into the store.
    pub(crate) fn load_example_images(&self, names: &[&str]) {
        let provide = repository().join("examples/images/provide");
        let made = Command::new(&provide)
            .arg("--archives")
            .args(names)
            .stderr(Stdio::inherit())
            .output()
            .expect("provide can be started");
        assert!(made.status.success(), "{} --archives {names:?} failed", provide.display());
        for archive in String::from_utf8_lossy(&made.stdout).lines() {
            self.hoist(&["image", "load", "-i", archive]).ok();
        }
    }

    /// Copies `examples/<name>` into the project folder.
    pub(crate) fn example(&self, name: &str) {
        let from = repository().join("examples").join(name);
        let done = Command::new("cp").arg("-a").arg(from.join(".")).arg(self.project()).status();
        assert!(done.is_ok_and(|status| status.success()), "cannot copy {}", from.display());
    }

    /// Writes the project's `compose.yaml`.
    pub(crate) fn compose(&self, text: &str) {
        self.write("compose.yaml", text);
    }

    /// Writes a file of the project.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.project().join(name);
        fs::create_dir_all(path.parent().expect("below the project")).expect("a folder of the project");
        fs::write(&path, text).expect("a file of the project");
    }

    /// The project folder.
    pub(crate) fn project(&self) -> PathBuf {
        self.top.path().join("project")
    }

    /// Where hoist keeps everything: `HOIST_ROOT`.
    pub(crate) fn root(&self) -> PathBuf {
        self.top.path().join("root")
    }

    /// Sets a variable of all commands to come.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.variables.retain(|(n, _)| n != name);
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Process id of the first process of the machine, as seen from outside.
    pub(crate) fn first_process(&self) -> u32 {
        let unshare = self.first.id();
        super::eventually("the first process", Duration::from_secs(5), || {
            fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children"))
                .ok()
                .and_then(|children| children.split_whitespace().next()?.parse().ok())
                .ok_or_else(|| "no child of unshare".to_owned())
        })
    }

    /// A command on this machine, in the project folder, not yet started.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg("-t")
            .arg(self.first_process().to_string())
            .args(["-n", "-m", "-p"])
            .arg(format!("--wdns={}", self.project().display()))
            .arg("--")
            .arg(program)
            .current_dir(self.project())
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LANG", "C.UTF-8")
            .env("HOME", self.top.path().join("home"))
            .env("HOIST_ROOT", self.root())
            .envs(self.variables.iter().map(|(n, v)| (n, v)))
            .stdin(Stdio::null());
        command
    }

    /// Runs `hoist` with these arguments to its end.
    #[track_caller]
    pub(crate) fn hoist(&self, arguments: &[&str]) -> Finished {
        self.start(arguments).finish()
    }

    /// Starts `hoist` with these arguments.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        let mut command = self.command(hoist());
        command.args(arguments);
        Running::start(command, format!("hoist {}", arguments.join(" ")))
    }

    /// Runs another program on this machine, such as `ip`, to its end.
    #[track_caller]
    pub(crate) fn host(&self, arguments: &[&str]) -> Finished {
        let mut command = self.command(arguments[0]);
        command.args(&arguments[1..]);
        Running::start(command, arguments.join(" ")).finish()
    }

    /// What `ps` says about the services: lines of `--format json`.
    #[track_caller]
    pub(crate) fn ps(&self) -> Vec<serde_json::Value> {
        self.hoist(&["ps", "-a", "--format", "json"])
            .ok()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("ps printed `{line}`: {e}")))
            .collect()
    }

    /// The ids of all containers of a service, running or not.
    #[track_caller]
    pub(crate) fn ids(&self, service: &str) -> Vec<String> {
        let text = self.hoist(&["ps", "-aq", service]).ok();
        text.lines().map(str::to_owned).collect()
    }

    /// Everything a person could look at to see what is on this machine.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot::take(self)
    }

    /// Fails if anything is on this machine that was not there `before`, or the
    /// other way round. What is on its way out gets a few seconds.
    #[track_caller]
    pub(crate) fn assert_as_before(&self, before: &Snapshot) {
        super::eventually("the machine to be as before", Duration::from_secs(5), || {
            let difference = before.difference(&self.snapshot());
            if difference.is_empty() { Ok(()) } else { Err(difference) }
        });
    }

    /// Fails unless so many shims run; one whose container has ended gets a moment to go.
    #[track_caller]
    pub(crate) fn assert_shims(&self, wanted: usize) {
        super::eventually("the number of shims", Duration::from_secs(5), || match self.shims().len() {
            found if found == wanted => Ok(()),
            found => Err(format!("{found} shims, not {wanted}")),
        });
    }

    /// The process ids, seen from outside, of the shims that run on this machine.
    pub(crate) fn shims(&self) -> Vec<u32> {
        super::host::processes(self)
            .into_iter()
            .filter(|process| process.depth == 1 && process.name.starts_with("hoist-shim"))
            .map(|process| process.pid)
            .collect()
    }
}

impl Drop for TestEnvironment {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show();
        }
        // The first process ends, the kernel kills the others, and unshare reaps it.
        drop(self.life.take());
        self.first.wait().ok();
        // What the kernel kept by name only. Without processes these are empty.
        super::host::remove_cgroups(&self.root());
    }
}

impl TestEnvironment {
    /// Prints what helps to understand a failed test.
    fn show(&self) {
        let hoist = hoist();
        let looks: [&[&str]; 5] = [
            &[hoist, "ps", "-a"],
            &[hoist, "logs", "--tail", "20", "--no-color"],
            &["ps", "-eo", "pid,ppid,stat,args"],
            &["ip", "-br", "address"],
            &["nft", "list", "ruleset"],
        ];
        for look in looks {
            let Ok(output) = self.command(look[0]).args(&look[1..]).output() else { continue };
            eprintln!(
                "--- {}\n{}{}",
                look.join(" "),
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
}

/// The checkout.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The command under test: `HOIST_TEST_BIN` (CI names the product there), otherwise
/// what this build made.
pub(crate) fn hoist() -> &'static str {
    static PATH: OnceLock<String> = OnceLock::new();
    PATH.get_or_init(|| {
        std::env::var("HOIST_TEST_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_hoist").to_owned())
    })
}

/// A root file system with busybox under all its names, as a tar file.
fn busybox_archive() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let program = ["/bin/busybox", "/usr/bin/busybox"]
            .into_iter()
            .find(|path| Path::new(path).exists())
            .expect("busybox is installed (Debian's busybox-static)");
        let names = Command::new(program).arg("--list").output().expect("busybox runs").stdout;
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("busybox.tar");
        let unfinished = path.with_extension(std::process::id().to_string());
        let mut archive = tar::Builder::new(fs::File::create(&unfinished).expect("a temporary file"));
        let mut folder = |name: &str, mode| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Directory);
            header.set_size(0);
            header.set_mode(mode);
            archive.append_data(&mut header, name, std::io::empty()).expect("a folder entry");
        };
        for name in ["bin/", "etc/", "root/", "usr/", "usr/bin/", "var/"] {
            folder(name, 0o755);
        }
        folder("tmp/", 0o1777);
        archive.append_path_with_name(program, "bin/busybox").expect("busybox can be read");
        for name in String::from_utf8_lossy(&names).lines().filter(|name| *name != "busybox") {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            header.set_mode(0o777);
            archive.append_link(&mut header, format!("bin/{name}"), "busybox").expect("a link entry");
        }
        for (name, text) in [
            ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nguest:x:1000:1000:guest:/tmp:/bin/sh\n"),
            ("etc/group", "root:x:0:\nguest:x:1000:\nextra:x:2000:guest\n"),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, name, text.as_bytes()).expect("a file entry");
        }
        archive.finish().expect("the archive can be written");
        fs::rename(&unfinished, &path).expect("the archive gets its name");
        path
    })
}
