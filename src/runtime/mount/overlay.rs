//! Overlays, detached.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};

use super::{MountError, about, bind, set_attributes};

/// What an overlay is made of.
#[derive(Debug, Clone, Copy)]
pub struct Overlay<'a> {
    /// Lower directories, base first. At least one.
    pub layers: &'a [PathBuf],
    /// Where changes go.
    pub upper: &'a Path,
    /// Overlay's own directory, on the same file system as `upper`.
    pub work: &'a Path,
    /// Never sync: the upper directory is worthless after a crash.
    pub volatile: bool,
}

/// Makes the overlay and returns its detached mount.
///
/// # Errors
/// [`MountError`] with the directory or option that was refused.
pub fn overlay(parts: &Overlay<'_>) -> Result<OwnedFd, MountError> {
    // A volatile overlay marks its work directory and refuses it ever after;
    // whoever uses volatile has decided that the content does not matter.
    let mark = parts.work.join("work/incompat/volatile");
    if std::fs::remove_file(mark.join("dirty")).is_ok() {
        std::fs::remove_dir(&mark).ok();
    }
    let directories = [("upperdir", parts.upper), ("workdir", parts.work)];
    create(parts.layers, &directories, parts.volatile)
}

/// A read-only tree of `layers`, base first.
///
/// # Errors
/// [`MountError`] with the directory or option that was refused.
pub fn read_only_layers(layers: &[PathBuf]) -> Result<OwnedFd, MountError> {
    let layers = &without_repetitions(layers)[..];
    match layers {
        // An overlay without an upper directory needs two lower ones.
        [only] => {
            let tree = bind(only, false)?;
            let done =
                set_attributes(tree.as_fd(), false, MountAttrFlags::MOUNT_ATTR_RDONLY, libc::MS_PRIVATE);
            about(only.display().to_string(), done)?;
            Ok(tree)
        }
        _ => create(layers, &[], false),
    }
}

/// The kernel refuses a directory that comes twice (images have the same layer twice, often
/// the empty one). The uppermost shows all that the others would.
fn without_repetitions(layers: &[PathBuf]) -> Vec<PathBuf> {
    let repeats_above = |(at, layer): &(usize, &PathBuf)| !layers[at + 1..].contains(layer);
    layers.iter().enumerate().filter(repeats_above).map(|(_, layer)| layer.clone()).collect()
}

/// How lower directories are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Naming {
    /// One option each, `lowerdir+` (Linux 6.8).
    Each,
    /// All in one string.
    Together,
}

fn create(layers: &[PathBuf], directories: &[(&str, &Path)], volatile: bool) -> Result<OwnedFd, MountError> {
    let layers = &without_repetitions(layers)[..];
    match create_named(Naming::Each, layers, directories, volatile) {
        // Kernels before 6.8 say so when the option is set, those before 6.5 at the end.
        Err(error) if error.source.is(rustix::io::Errno::INVAL) => {
            create_named(Naming::Together, layers, directories, volatile)
        }
        result => result,
    }
}

fn create_named(
    naming: Naming,
    layers: &[PathBuf],
    directories: &[(&str, &Path)],
    volatile: bool,
) -> Result<OwnedFd, MountError> {
    let context = about("overlay", fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC))?;
    about("overlay", fsconfig_set_string(&context, "source", "overlay"))?;
    let mut by_descriptor = Vec::new();
    match naming {
        Naming::Each => {
            for layer in layers.iter().rev() {
                let set = fsconfig_set_string(&context, "lowerdir+", layer.as_path());
                about(layer.display().to_string(), set)?;
            }
        }
        Naming::Together => by_descriptor = add_layers_as_one(&context, layers)?,
    }
    if !directories.is_empty() {
        // What is written must be a layer by itself: whole files, no pointers to other directories.
        for feature in ["redirect_dir", "metacopy"] {
            about(feature, fsconfig_set_string(&context, feature, "off"))?;
        }
    }
    for (key, directory) in directories {
        about(directory.display().to_string(), fsconfig_set_string(&context, *key, *directory))?;
    }
    if volatile {
        about("volatile", fsconfig_set_flag(&context, "volatile"))?;
    }
    let object = match directories {
        [(_, upper), ..] => upper.display().to_string(),
        [] => "overlay".to_owned(),
    };
    // Before Linux 6.5 the names of the layers are looked up only now.
    if !by_descriptor.is_empty() {
        about("/proc/self/fd", rustix::process::chdir("/proc/self/fd"))?;
    }
    let created = about(object.clone(), fsconfig_create(&context));
    if !by_descriptor.is_empty() {
        about("/", rustix::process::chdir("/"))?;
    }
    created?;
    about(object, fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()))
}

/// Names all lower directories in one string of at most 255 bytes: by descriptor
/// number relative to `/proc/self/fd`, two or three digits each, which is room for
/// 64 layers and more. Leaves the working directory at `/`.
fn add_layers_as_one(context: &OwnedFd, layers: &[PathBuf]) -> Result<Vec<OwnedFd>, MountError> {
    let mut opened = Vec::with_capacity(layers.len());
    for layer in layers.iter().rev() {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        opened.push(about(layer.display().to_string(), rustix::fs::open(layer, flags, Mode::empty()))?);
    }
    let names: Vec<String> = opened.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
    about("/proc/self/fd", rustix::process::chdir("/proc/self/fd"))?;
    let result = fsconfig_set_string(context, "lowerdir", names.join(":"));
    about("/", rustix::process::chdir("/"))?;
    about(format!("{} layers", layers.len()), result)?;
    Ok(opened)
}

#[cfg(test)]
mod root {
    use super::*;
    use crate::runtime::mount::Root;

    /// The way of older kernels is taken on this one: upper layers still win over lower ones.
    #[test]
    fn layers_named_by_descriptor_are_stacked_in_order() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let dir = tempfile::tempdir().expect("dir");
        let layers: Vec<PathBuf> = (0..40).map(|n| dir.path().join(format!("layer-{n}"))).collect();
        for (n, layer) in layers.iter().enumerate() {
            std::fs::create_dir(layer).expect("layer");
            std::fs::write(layer.join("top"), n.to_string()).expect("file");
        }
        for sub in ["upper", "work"] {
            std::fs::create_dir(dir.path().join(sub)).expect("dir");
        }
        let (upper, work) = (dir.path().join("upper"), dir.path().join("work"));
        let directories = [("upperdir", upper.as_path()), ("workdir", work.as_path())];
        for naming in [Naming::Each, Naming::Together] {
            // In a process of its own: the working directory is changed.
            let code = crate::runtime::sys::in_forked_child(|| {
                let mounted = create_named(naming, &layers, &directories, false).expect("overlay");
                let mut text = String::new();
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                let file = rustix::fs::openat(&mounted, "top", flags, Mode::empty()).expect("file");
                std::io::Read::read_to_string(&mut std::fs::File::from(file), &mut text).expect("read");
                assert!(Root::new(mounted).open("/top").is_ok());
                text.parse().expect("number")
            });
            assert_eq!(code, 39, "the last layer is the uppermost ({naming:?})");
        }
    }
}
