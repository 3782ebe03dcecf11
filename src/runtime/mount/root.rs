//! A container's root directory and paths inside it.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat2, readlinkat};
use rustix::io::{Errno, Result};
use rustix::mount::{MoveMountFlags, move_mount};

/// How many symbolic links one path may go through, as in the kernel.
const MAX_LINKS: u32 = 40;

/// The root of a container's file system as one descriptor.
///
/// All lookups happen inside it (`RESOLVE_IN_ROOT`): `..` and absolute links stop
/// at the root, and magic links such as `/proc/1/root` are refused.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

impl Root {
    /// Takes the descriptor of a root directory.
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// The descriptor.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Gives the descriptor back.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Opens what `path` names inside the root (`O_PATH`), following symbolic links inside it.
    ///
    /// # Errors
    /// Those of `openat2(2)`.
    pub fn open(&self, path: &str) -> Result<OwnedFd> {
        self.open_with(path, ResolveFlags::empty())
    }

    /// The same, but a symbolic link anywhere in the path is an error (`ELOOP`): for `/proc`, `/sys` and `/dev`.
    ///
    /// # Errors
    /// Those of `openat2(2)`.
    pub fn open_without_links(&self, path: &str) -> Result<OwnedFd> {
        self.open_with(path, ResolveFlags::NO_SYMLINKS)
    }

    fn open_with(&self, path: &str, resolve: ResolveFlags) -> Result<OwnedFd> {
        openat2(
            &self.fd,
            relative(path),
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | resolve,
        )
    }

    /// Opens the directory `path`, making it and its missing parents (owner root, mode 755).
    ///
    /// # Errors
    /// `ENOTDIR` if something else is in the way; those of the system calls.
    pub fn make_directory(&self, path: &str) -> Result<OwnedFd> {
        match self.open(path) {
            Ok(place) => {
                if FileType::from_raw_mode(fstat(&place)?.st_mode) != FileType::Directory {
                    return Err(Errno::NOTDIR);
                }
                Ok(place)
            }
            Err(Errno::NOENT) => self.make(path, false),
            Err(errno) => Err(errno),
        }
    }

    /// Opens what `path` names, making an empty file (and missing parents) if there is nothing.
    ///
    /// # Errors
    /// Those of the system calls.
    pub fn make_file(&self, path: &str) -> Result<OwnedFd> {
        match self.open(path) {
            Err(Errno::NOENT) => self.make(path, true),
            result => result,
        }
    }

    /// Walks `path` component by component, resolving symbolic links itself, and
    /// makes what is missing. `walked` never contains a link, so a name is made in
    /// the very directory that was looked at.
    fn make(&self, path: &str, file: bool) -> Result<OwnedFd> {
        let mut walked: Vec<String> = Vec::new();
        let mut rest: VecDeque<String> = components(path).collect();
        let mut links = 0;
        let mut place = self.open_without_links("/")?;
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                walked.pop();
                place = self.open_without_links(&walked.join("/"))?;
                continue;
            }
            let last = rest.is_empty();
            walked.push(name.clone());
            match self.open_nofollow(&walked.join("/")) {
                Ok(next) if FileType::from_raw_mode(fstat(&next)?.st_mode) == FileType::Symlink => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP);
                    }
                    let target = readlinkat(&next, "", Vec::new())?;
                    let target = target.into_string().map_err(|_| Errno::ILSEQ)?;
                    if target.starts_with('/') {
                        walked.clear();
                    } else {
                        walked.pop();
                    }
                    place = self.open_without_links(&walked.join("/"))?;
                    for component in components(&target).collect::<Vec<_>>().into_iter().rev() {
                        rest.push_front(component);
                    }
                }
                Ok(next) => place = next,
                Err(Errno::NOENT) => {
                    if last && file {
                        create_file(place.as_fd(), &name)?;
                    } else {
                        match mkdirat(&place, name.as_str(), Mode::from_raw_mode(0o755)) {
                            Ok(()) | Err(Errno::EXIST) => {}
                            Err(errno) => return Err(errno),
                        }
                    }
                    place = self.open_without_links(&walked.join("/"))?;
                }
                Err(errno) => return Err(errno),
            }
        }
        Ok(place)
    }

    fn open_nofollow(&self, path: &str) -> Result<OwnedFd> {
        openat2(
            &self.fd,
            relative(path),
            OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
    }

    /// Moves a detached mount onto `place`, both by descriptor.
    ///
    /// # Errors
    /// Those of `move_mount(2)`.
    pub fn attach(mount: BorrowedFd<'_>, place: BorrowedFd<'_>) -> Result<()> {
        let by_descriptor = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(mount, "", place, "", by_descriptor)
    }
}

fn create_file(directory: BorrowedFd<'_>, name: &str) -> Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o755)) {
        Ok(_) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// The path without its leading slashes, `.` for the root itself.
fn relative(path: &str) -> &str {
    let path = path.trim_start_matches('/');
    if path.is_empty() { "." } else { path }
}

fn components(path: &str) -> impl Iterator<Item = String> + '_ {
    path.split('/').filter(|c| !c.is_empty() && *c != ".").map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn root(dir: &std::path::Path) -> Root {
        Root::new(
            rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .expect("open"),
        )
    }

    #[test]
    fn links_that_lead_out_of_the_root_end_inside_it() {
        let dir = tempfile::tempdir().expect("dir");
        let outside = tempfile::tempdir().expect("dir");
        std::fs::create_dir(dir.path().join("etc")).expect("etc");
        symlink(outside.path(), dir.path().join("absolute")).expect("link");
        symlink("../../../../../../../../../../etc", dir.path().join("relative")).expect("link");
        let root = root(dir.path());

        root.make_directory("/absolute/made").expect("make");
        root.make_file("/relative/../relative/file").expect("make");

        assert_eq!(std::fs::read_dir(outside.path()).expect("read").count(), 0);
        let inside = dir.path().join(outside.path().strip_prefix("/").expect("absolute"));
        assert!(inside.join("made").is_dir(), "the link's target was made inside the root");
        assert!(dir.path().join("etc/file").is_file());
    }

    #[test]
    fn a_dangling_link_is_filled_and_a_loop_is_refused() {
        let dir = tempfile::tempdir().expect("dir");
        std::fs::create_dir(dir.path().join("var")).expect("var");
        symlink("/run", dir.path().join("var/run")).expect("link");
        symlink("loop", dir.path().join("loop")).expect("link");
        let root = root(dir.path());

        root.make_file("/var/run/secrets/key").expect("make");
        assert!(dir.path().join("run/secrets/key").is_file());
        assert_eq!(root.make_directory("/loop/x").expect_err("loop"), Errno::LOOP);
    }

    #[test]
    fn a_file_in_the_way_of_a_directory_is_an_error() {
        let dir = tempfile::tempdir().expect("dir");
        std::fs::write(dir.path().join("file"), "x").expect("write");
        let root = root(dir.path());
        assert_eq!(root.make_directory("/file").expect_err("file"), Errno::NOTDIR);
        assert_eq!(root.make_directory("/file/below").expect_err("file"), Errno::NOTDIR);
    }
}
