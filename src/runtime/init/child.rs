//! The first process of a container, from its birth to `execve`.
//!
//! Runs in the new namespaces with the shim's memory. The order matters: cgroup
//! before the cgroup namespace; kernel parameters through a procfs that is not
//! attached yet; everything that needs the host's files before `pivot_root`;
//! masked and read-only paths after all mounts; identity last.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::mount::{MountAttrFlags, MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::{fchdir, pivot_root, umask};
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType};

use super::launch::Prepared;
use super::namespace::Joined;
use super::report::Reporter;
use super::{DeviceKind, DeviceNode, LaunchError, LaunchPlan, NamespaceMode, Stdio, identity, pid1, proc};
use crate::runtime::cgroup::{Cgroup, Entrance, Layout};
use crate::runtime::mount::{self, MountError, Root};
use crate::runtime::sys::{self, CloneFlags, Cloned, Errno};

/// Attributes of kernel file systems inside a container.
const KERNEL_FS: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Docker's size of `/dev/shm`.
const SHM_SIZE: u64 = 64 << 20;

/// All that the new process needs; made before the clone.
#[derive(Debug)]
pub(super) struct Child<'a> {
    pub(super) plan: &'a LaunchPlan,
    pub(super) stdio: Stdio<'a>,
    pub(super) netns: Option<BorrowedFd<'a>>,
    /// The detached overlay.
    pub(super) rootfs: &'a OwnedFd,
    pub(super) mounts: Vec<Prepared<'a>>,
    /// The detached devpts.
    pub(super) pts: OwnedFd,
    /// Master and slave.
    pub(super) terminal: Option<&'a (OwnedFd, OwnedFd)>,
    pub(super) entrance: &'a Entrance,
    pub(super) joined: Joined,
}

/// Becomes the container's first process. Never returns.
pub(super) fn run(child: &Child<'_>, reporter: &Reporter) -> ! {
    let error = match child.become_container(reporter) {
        Ok(()) => {
            reporter.ready();
            identity::execute(&child.plan.process)
        }
        Err(error) => error,
    };
    reporter.error(&error);
    sys::exit_now(i32::from(error.exit_code()))
}

fn setup(action: &str) -> impl FnOnce(rustix::io::Errno) -> LaunchError + '_ {
    move |e| LaunchError::Setup { action: action.to_owned(), source: e.into() }
}

fn on<'t>(what: &'t str, target: &'t str) -> impl FnOnce(rustix::io::Errno) -> LaunchError + 't {
    move |e| LaunchError::Mount { what: what.to_owned(), target: target.to_owned(), source: e.into() }
}

fn unmade(target: &str) -> impl FnOnce(MountError) -> LaunchError + '_ {
    move |e| LaunchError::Mount { what: e.object, target: target.to_owned(), source: e.source }
}

impl Child<'_> {
    fn become_container(&self, reporter: &Reporter) -> Result<(), LaunchError> {
        identity::guard()?;
        if reporter.is_orphan() {
            sys::exit_now(1);
        }
        sys::reset_signals();
        self.entrance.enter().map_err(super::launch::cgroup_error)?;
        self.join_namespaces()?;
        umask(Mode::empty());
        let root = self.assemble_root()?;
        umask(Mode::from_raw_mode(0o022));
        self.name_host()?;
        enter(&root)?;
        drop(root);

        let process = &self.plan.process;
        identity::set_rlimits(process)?;
        if self.plan.init {
            self.split_off_init()?;
        }
        identity::become_user(process, self.stdio, self.terminal.map(|(_, slave)| slave))
    }

    fn join_namespaces(&self) -> Result<(), LaunchError> {
        let failed = |namespace: &str| {
            let namespace = namespace.to_owned();
            move |e: rustix::io::Errno| LaunchError::Namespace { namespace, source: e.into() }
        };
        let spaces = &self.plan.namespaces;
        if let Some(netns) = self.netns {
            rustix::thread::move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))
                .map_err(failed("network"))?;
        }
        for (process, kind, name) in [
            (&self.joined.ipc, ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION, "ipc"),
            (&self.joined.uts, ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME, "uts"),
            (&self.joined.cgroup, ThreadNameSpaceType::CONTROL_GROUP, "cgroup"),
        ] {
            if let Some(process) = process {
                rustix::thread::move_into_thread_name_spaces(process.as_fd(), kind).map_err(failed(name))?;
            }
        }
        if spaces.cgroup == NamespaceMode::Own {
            sys::unshare_cgroup().map_err(failed("cgroup"))?;
        }
        Ok(())
    }

    fn name_host(&self) -> Result<(), LaunchError> {
        if self.plan.namespaces.uts != NamespaceMode::Own {
            return Ok(());
        }
        let name = self.plan.hostname.as_bytes();
        rustix::system::sethostname(name).map_err(setup("set the host name"))?;
        if let Some(domain) = &self.plan.domainname {
            rustix::system::setdomainname(domain.as_bytes()).map_err(setup("set the domain name"))?;
        }
        Ok(())
    }

    /// Puts the whole tree together, in the container's mount namespace but still
    /// below the host's root.
    fn assemble_root(&self) -> Result<Root, LaunchError> {
        let plan = self.plan;
        // Nothing that happens here may travel to the host.
        let quiet = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        mount_change("/", quiet).map_err(setup("separate the mounts from the host's"))?;
        let upper = place(&plan.rootfs.upper)?;
        Root::attach(self.rootfs.as_fd(), upper.as_fd()).map_err(on("the root file system", "/"))?;
        let root = Root::new(
            self.rootfs
                .try_clone()
                .map_err(|e| LaunchError::Setup { action: "keep the root".into(), source: e.into() })?,
        );

        self.attach_proc(&root)?;
        self.attach_dev(&root)?;
        self.attach_sys(&root)?;
        self.attach_name_files(&root)?;
        for prepared in &self.mounts {
            let target = &prepared.plan.target;
            let place = if prepared.is_file { root.make_file(target) } else { root.make_directory(target) };
            let place = place.map_err(on("a mount", target))?;
            Root::attach(prepared.mount.as_fd(), place.as_fd()).map_err(on("a mount", target))?;
        }
        for device in &plan.devices {
            make_device(&root, device)?;
        }
        let staging = self.attach_files(&root)?;
        root.make_directory(&plan.process.cwd)
            .map_err(|e| LaunchError::WorkingDir { path: plan.process.cwd.clone(), source: e.into() })?;
        self.protect(&root, &staging)?;
        if plan.rootfs.read_only {
            mount::set_attributes(root.as_fd(), false, MountAttrFlags::MOUNT_ATTR_RDONLY, 0)
                .map_err(on("the root file system", "/ (read-only)"))?;
        }
        Ok(root)
    }

    fn attach_proc(&self, root: &Root) -> Result<(), LaunchError> {
        let procfs = mount::filesystem("proc", KERNEL_FS, &[]).map_err(unmade("/proc"))?;
        proc::set_parameters(procfs.as_fd(), &self.plan.sysctls)?;
        if let Some(score) = self.plan.process.oom_score_adj {
            proc::set_oom_score(procfs.as_fd(), score)?;
        }
        attach_strictly(root, procfs, "/proc")
    }

    fn attach_dev(&self, root: &Root) -> Result<(), LaunchError> {
        let dev = mount::devices().map_err(unmade("/dev"))?;
        attach_strictly(root, dev, "/dev")?;
        let pts = root.open_without_links("/dev/pts").map_err(on("devpts", "/dev/pts"))?;
        Root::attach(self.pts.as_fd(), pts.as_fd()).map_err(on("devpts", "/dev/pts"))?;
        let queues = mount::filesystem("mqueue", KERNEL_FS, &[]).map_err(unmade("/dev/mqueue"))?;
        attach_strictly(root, queues, "/dev/mqueue")?;
        let shm = self.shared_memory().map_err(unmade("/dev/shm"))?;
        attach_strictly(root, shm, "/dev/shm")?;
        if let Some((_, slave)) = self.terminal {
            let console = root.make_file("/dev/console").map_err(on("the terminal", "/dev/console"))?;
            let clone =
                mount::clone_tree(slave.as_fd(), false).map_err(on("the terminal", "/dev/console"))?;
            Root::attach(clone.as_fd(), console.as_fd()).map_err(on("the terminal", "/dev/console"))?;
        }
        Ok(())
    }

    fn shared_memory(&self) -> Result<OwnedFd, MountError> {
        if let Some(process) = &self.joined.ipc {
            return super::namespace::tree_of(process.as_fd(), "/dev/shm");
        }
        if self.plan.namespaces.ipc == NamespaceMode::Host {
            return mount::bind(std::path::Path::new("/dev/shm"), false);
        }
        let size = self.plan.shm_size.unwrap_or(SHM_SIZE).to_string();
        let options = [("mode", Some("1777")), ("size", Some(size.as_str())), ("source", Some("shm"))];
        mount::filesystem("tmpfs", KERNEL_FS, &options)
    }

    fn attach_sys(&self, root: &Root) -> Result<(), LaunchError> {
        let read_only =
            if self.plan.privileged { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_RDONLY };
        let sysfs = mount::filesystem("sysfs", KERNEL_FS | read_only, &[]).map_err(unmade("/sys"))?;
        attach_strictly(root, sysfs, "/sys")?;
        let target = "/sys/fs/cgroup";
        let layout = Layout::get();
        if layout.is_pure_unified() {
            let tree = match self.plan.namespaces.cgroup {
                NamespaceMode::Host => {
                    let tree =
                        mount::bind(layout.hierarchies()[0].mount_point(), false).map_err(unmade(target))?;
                    mount::set_attributes(tree.as_fd(), false, KERNEL_FS | read_only, libc::MS_PRIVATE)
                        .map_err(on("cgroup2", target))?;
                    tree
                }
                NamespaceMode::Own | NamespaceMode::Join(_) => {
                    mount::filesystem("cgroup2", KERNEL_FS | read_only, &[("source", Some("cgroup"))])
                        .map_err(unmade(target))?
                }
            };
            return attach_strictly(root, tree, target);
        }
        let tmpfs =
            mount::filesystem("tmpfs", KERNEL_FS, &[("mode", Some("755"))]).map_err(unmade(target))?;
        let top = tmpfs.try_clone().map_err(|e| LaunchError::Mount {
            what: "tmpfs".into(),
            target: target.into(),
            source: e.into(),
        })?;
        attach_strictly(root, tmpfs, target)?;
        let group = Cgroup::at(self.plan.cgroup.path.trim_matches('/'));
        for hierarchy in layout.hierarchies().iter().filter(|h| !h.is_unified()) {
            let Some(name) = hierarchy.mount_point().file_name().and_then(|n| n.to_str()) else { continue };
            let place = format!("{target}/{name}");
            let made = || -> rustix::io::Result<()> {
                rustix::fs::mkdirat(&top, name, Mode::from_raw_mode(0o755))?;
                for controller in hierarchy.controllers().iter().filter(|c| *c != name) {
                    rustix::fs::symlinkat(name, &top, controller.as_str())?;
                }
                Ok(())
            };
            made().map_err(on("cgroup", &place))?;
            let tree = mount::bind(&group.directory(hierarchy), false).map_err(unmade(&place))?;
            mount::set_attributes(tree.as_fd(), false, KERNEL_FS | read_only, libc::MS_PRIVATE)
                .map_err(on("cgroup", &place))?;
            attach_strictly(root, tree, &place)?;
        }
        Ok(())
    }

    fn attach_name_files(&self, root: &Root) -> Result<(), LaunchError> {
        let files = &self.plan.name_files;
        for (source, target) in [
            (&files.resolv_conf, "/etc/resolv.conf"),
            (&files.hostname, "/etc/hostname"),
            (&files.hosts, "/etc/hosts"),
        ] {
            let Some(source) = source else { continue };
            let tree = mount::bind(source, false).map_err(unmade(target))?;
            mount::set_attributes(tree.as_fd(), false, MountAttrFlags::empty(), libc::MS_PRIVATE)
                .map_err(on("a name file", target))?;
            let place = root.make_file(target).map_err(on("a name file", target))?;
            Root::attach(tree.as_fd(), place.as_fd()).map_err(on("a name file", target))?;
        }
        Ok(())
    }

    /// Puts the files given by value on a memory file system, and each on its target.
    ///
    /// Returns the staging mount, whose `empty` directory hides masked directories.
    /// It hangs below the host's root, which goes away with `pivot_root`.
    fn attach_files(&self, root: &Root) -> Result<Root, LaunchError> {
        let what = "memory for files";
        let memory = mount::filesystem("tmpfs", KERNEL_FS, &[("mode", Some("755"))]).map_err(unmade(what))?;
        // The work directory is not looked at any more: overlay has its own reference.
        let work = place(&self.plan.rootfs.work)?;
        Root::attach(memory.as_fd(), work.as_fd()).map_err(on(what, "work"))?;
        rustix::fs::mkdirat(&memory, "empty", Mode::from_raw_mode(0o755)).map_err(on(what, "empty"))?;
        for (index, file) in self.plan.files.iter().enumerate() {
            let target = &file.target;
            let name = index.to_string();
            write_file(&memory, &name, file).map_err(|source| LaunchError::Mount {
                what: "a file".into(),
                target: target.clone(),
                source,
            })?;
            let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let source = rustix::fs::openat(&memory, name.as_str(), flags, Mode::empty())
                .map_err(on("a file", target))?;
            let clone = mount::clone_tree(source.as_fd(), false).map_err(on("a file", target))?;
            mount::set_attributes(
                clone.as_fd(),
                false,
                KERNEL_FS | MountAttrFlags::MOUNT_ATTR_RDONLY,
                libc::MS_PRIVATE,
            )
            .map_err(on("a file", target))?;
            let place = root.make_file(target).map_err(on("a file", target))?;
            Root::attach(clone.as_fd(), place.as_fd()).map_err(on("a file", target))?;
        }
        Ok(Root::new(memory))
    }

    /// Makes the read-only paths read-only and hides the masked ones.
    fn protect(&self, root: &Root, staging: &Root) -> Result<(), LaunchError> {
        for path in &self.plan.readonly_paths {
            let Some(place) = existing(root, path)? else { continue };
            let clone = mount::clone_tree(place.as_fd(), true).map_err(on("itself (read-only)", path))?;
            let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
            mount::set_attributes(clone.as_fd(), true, attributes, 0)
                .map_err(on("itself (read-only)", path))?;
            Root::attach(clone.as_fd(), place.as_fd()).map_err(on("itself (read-only)", path))?;
        }
        let null = null_device()?;
        let empty = staging.open_without_links("/empty").map_err(on("an empty directory", "empty"))?;
        for path in &self.plan.masked_paths {
            let Some(place) = existing(root, path)? else { continue };
            let stat = rustix::fs::fstat(&place).map_err(on("a mask", path))?;
            let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            let (source, attributes) = if is_directory {
                (&empty, KERNEL_FS | MountAttrFlags::MOUNT_ATTR_RDONLY)
            } else {
                (&null, MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC)
            };
            let mask = mount::clone_tree(source.as_fd(), false).map_err(on("a mask", path))?;
            mount::set_attributes(mask.as_fd(), false, attributes, libc::MS_PRIVATE)
                .map_err(on("a mask", path))?;
            Root::attach(mask.as_fd(), place.as_fd()).map_err(on("a mask", path))?;
        }
        Ok(())
    }

    /// With `init: true` the process splits here: the parent stays as PID 1, the child goes on.
    fn split_off_init(&self) -> Result<(), LaunchError> {
        // Before the clone: a SIGCHLD that arrives unblocked is lost.
        sys::block_all_signals();
        let cloned = sys::clone3(CloneFlags(0), None).map_err(setup("split off the init process"))?;
        match cloned {
            Cloned::Child => {
                identity::guard()?;
                sys::reset_signals();
                Ok(())
            }
            Cloned::Parent { pid, .. } => pid1::run(pid, &self.plan.process),
        }
    }
}

/// Opens a host directory of ours to mount upon.
fn place(path: &std::path::Path) -> Result<OwnedFd, LaunchError> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| LaunchError::Rootfs { object: path.display().to_string(), source: e.into() })
}

/// Attaches a kernel file system; a symbolic link in its place is refused, because
/// whoever redirects `/proc` or `/sys` redirects what is written there.
fn attach_strictly(root: &Root, tree: OwnedFd, target: &str) -> Result<(), LaunchError> {
    let place = match root.open_without_links(target) {
        Err(rustix::io::Errno::NOENT) => {
            root.make_directory(target).and_then(|_| root.open_without_links(target))
        }
        result => result,
    }
    .map_err(on("a system directory", target))?;
    Root::attach(tree.as_fd(), place.as_fd()).map_err(on("a system directory", target))?;
    drop(tree);
    Ok(())
}

/// Opens a path that is to be protected; none if the machine does not have it.
fn existing(root: &Root, path: &str) -> Result<Option<OwnedFd>, LaunchError> {
    match root.open(path) {
        Ok(place) => Ok(Some(place)),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
        Err(e) => Err(on("a mask", path)(e)),
    }
}

fn make_device(root: &Root, device: &DeviceNode) -> Result<(), LaunchError> {
    let failed = |e: rustix::io::Errno| LaunchError::Device { path: device.path.clone(), source: e.into() };
    let (parent, name) = match device.path.trim_end_matches('/').rsplit_once('/') {
        Some((parent, name)) if !name.is_empty() && name != ".." && name != "." => (parent, name),
        _ => return Err(failed(rustix::io::Errno::INVAL)),
    };
    let parent = root.make_directory(parent).map_err(failed)?;
    let kind = match device.kind {
        DeviceKind::Char => FileType::CharacterDevice,
        DeviceKind::Block => FileType::BlockDevice,
    };
    let numbers = (device.major, device.minor);
    match mount::make_node(parent.as_fd(), name, kind, device.mode, numbers) {
        Ok(()) => {}
        // A standard node that is asked for again, or one that the image brings.
        Err(rustix::io::Errno::EXIST) => {
            rustix::fs::unlinkat(&parent, name, rustix::fs::AtFlags::empty()).map_err(failed)?;
            mount::make_node(parent.as_fd(), name, kind, device.mode, numbers).map_err(failed)?;
        }
        Err(e) => return Err(failed(e)),
    }
    let (uid, gid) = (rustix::thread::Uid::from_raw(device.uid), rustix::thread::Gid::from_raw(device.gid));
    rustix::fs::chownat(&parent, name, Some(uid), Some(gid), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
        .map_err(failed)
}

fn write_file(directory: &OwnedFd, name: &str, file: &crate::spec::FileSpec) -> Result<(), Errno> {
    use std::io::Write;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut out =
        std::fs::File::from(rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o600))?);
    out.write_all(&file.content)?;
    let (uid, gid) = (rustix::thread::Uid::from_raw(file.uid), rustix::thread::Gid::from_raw(file.gid));
    rustix::fs::fchown(&out, Some(uid), Some(gid))?;
    rustix::fs::fchmod(&out, Mode::from_raw_mode(file.mode & 0o7777))?;
    Ok(())
}

/// Makes `root` the root directory of the process and lets go of the host's.
fn enter(root: &Root) -> Result<(), LaunchError> {
    fchdir(root.as_fd()).map_err(setup("enter the root"))?;
    // The old root ends up stacked on the new one and is detached from there (pivot_root(2), NOTES).
    pivot_root(".", ".").map_err(setup("change the root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(setup("detach the host's root"))?;
    rustix::process::chdir("/").map_err(setup("enter the root"))
}

/// The host's null device as source for masked files, checked to be that: a mask made
/// of something else hides nothing (CVE-2025-31133). Opened in the own mount
/// namespace, because only a mount of one's own namespace can be cloned.
fn null_device() -> Result<OwnedFd, LaunchError> {
    let failed = |source: Errno| LaunchError::Mount {
        what: "/dev/null".into(),
        target: "masked paths".into(),
        source,
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let null = rustix::fs::open("/dev/null", flags, Mode::empty()).map_err(|e| failed(e.into()))?;
    let stat = rustix::fs::fstat(&null).map_err(|e| failed(e.into()))?;
    let is_char = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    if !is_char || stat.st_rdev != rustix::fs::makedev(1, 3) {
        return Err(failed(Errno::new(libc::ENODEV)));
    }
    Ok(null)
}
