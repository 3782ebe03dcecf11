//! Making a volume's content reachable: the local driver's mounts, and the first filling from an image.

use std::net::ToSocketAddrs as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use super::copy::copy_tree;
use super::{Result, Volume, VolumeError, Volumes};
use crate::util::files;
use crate::util::fs::{Lock, PathError};

/// A volume ready to be bound into a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// Absolute host directory.
    pub directory: PathBuf,
    /// The driver's options say `ro`.
    pub read_only: bool,
}

impl Volumes {
    /// Makes a volume's directory usable: mounts what its options say, unless that is done already.
    ///
    /// `o=bind` volumes are used in place; `tmpfs`, `nfs` and devices are mounted
    /// on the volume's `data` directory, once for all containers, until [`Volumes::detach`].
    ///
    /// # Errors
    /// [`VolumeError::Device`] if the device is not there or cannot be mounted.
    pub fn attach(&self, volume: &Volume) -> Result<Attached> {
        let options = MountOptions::parse(volume.options.get("o").map_or("", String::as_str));
        let read_only = options.flags.contains(MountFlags::RDONLY);
        if let Some(directory) = volume.directory() {
            if !directory.is_dir() {
                let source = std::io::Error::from(std::io::ErrorKind::NotFound);
                return Err(device_error(volume, directory.display().to_string(), source));
            }
            return Ok(Attached { directory: directory.to_owned(), read_only });
        }
        let _lock = Lock::exclusive(&self.dir.join(&volume.name).join("lock"))?;
        if !is_mounted(&volume.data)? {
            let device = volume.options.get("device").map_or("", String::as_str);
            let kind = volume.options.get("type").map_or("", String::as_str);
            let data =
                options.data(kind).map_err(|source| device_error(volume, device.to_owned(), source))?;
            let data = std::ffi::CString::new(data)
                .map_err(|error| device_error(volume, device.to_owned(), error.into()))?;
            rustix::mount::mount(device, &volume.data, kind, options.flags, Some(data.as_c_str()))
                .map_err(|error| device_error(volume, device.to_owned(), error.into()))?;
            // What containers mount below must not come back to the host.
            rustix::mount::mount_change(&volume.data, MountPropagationFlags::PRIVATE)
                .map_err(PathError::at("make private", &volume.data))?;
        }
        Ok(Attached { directory: volume.data.clone(), read_only })
    }

    /// Unmounts what [`Volumes::attach`] has mounted, once the last container that used it is gone.
    /// Nothing happens to a volume without a mount.
    ///
    /// # Errors
    /// [`VolumeError::File`] if it cannot be unmounted.
    pub fn detach(&self, volume: &Volume) -> Result<()> {
        if volume.directory().is_some() {
            return Ok(());
        }
        let _lock = Lock::exclusive(&self.dir.join(&volume.name).join("lock"))?;
        if is_mounted(&volume.data)? {
            rustix::mount::unmount(&volume.data, UnmountFlags::DETACH)
                .map_err(PathError::at("unmount", &volume.data))?;
        }
        Ok(())
    }

    /// Fills an empty volume with what the image has at `target`: content, owner, mode.
    ///
    /// `layers` are the image's, topmost first. Does nothing, `false`, when the
    /// volume has content or the image has no directory there. Safe against others
    /// doing the same, and against being killed: a half-made copy is completed
    /// before the next use.
    ///
    /// # Errors
    /// [`VolumeError::Copy`] with the file; [`VolumeError::Layers`] if the layers cannot be merged.
    pub fn fill(&self, volume: &Volume, layers: &[PathBuf], target: &str) -> Result<bool> {
        let attached = self.attach(volume)?;
        let dir = self.dir.join(&volume.name);
        let unfinished = dir.join("filling");
        // Without the lock first: nearly always it is filled, or nothing is to be copied.
        if !is_empty(&attached.directory)? && !unfinished.exists() {
            return Ok(false);
        }
        if layers.is_empty() {
            return Ok(false);
        }
        let _lock = Lock::exclusive(&dir.join("lock"))?;
        if !is_empty(&attached.directory)? && !unfinished.exists() {
            return Ok(false);
        }
        let merged = merge(layers)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let Ok(from) = rustix::fs::openat2(&merged, target, flags, Mode::empty(), inside) else {
            return Ok(false);
        };
        crate::util::fs::write_atomic(&unfinished, b"", false)?;
        let to = rustix::fs::open(&attached.directory, flags, Mode::empty())
            .map_err(PathError::at("open", &attached.directory))?;
        copy_tree(&from, &to).map_err(|source| VolumeError::Copy { name: volume.name.clone(), source })?;
        files::remove_file(&unfinished)?;
        Ok(true)
    }
}

/// The merged tree of an image's layers, read-only.
fn merge(layers: &[PathBuf]) -> Result<std::os::fd::OwnedFd> {
    if let [only] = layers {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        return Ok(rustix::fs::open(only, flags, Mode::empty()).map_err(PathError::at("open", only))?);
    }
    let base_first: Vec<PathBuf> = layers.iter().rev().cloned().collect();
    crate::runtime::mount::read_only_layers(&base_first).map_err(|error| VolumeError::Layers(Box::new(error)))
}

fn is_empty(dir: &Path) -> Result<bool> {
    let mut entries = std::fs::read_dir(dir).map_err(PathError::at("list", dir))?;
    // A fresh ext4 file system has its own directory, which counts as nothing.
    Ok(entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == "lost+found")))
}

/// Whether something is mounted exactly here (`STATX_ATTR_MOUNT_ROOT`, Linux 5.8).
fn is_mounted(path: &Path) -> Result<bool> {
    let stat = rustix::fs::statx(rustix::fs::CWD, path, AtFlags::NO_AUTOMOUNT, StatxFlags::BASIC_STATS)
        .map_err(PathError::at("look at", path))?;
    Ok(stat.stx_attributes.contains(rustix::fs::StatxAttributes::MOUNT_ROOT))
}

fn device_error(volume: &Volume, device: String, source: std::io::Error) -> VolumeError {
    VolumeError::Device { name: volume.name.clone(), device, source }
}

/// `o=`, split into what the kernel takes as flags and what the file system takes as text.
struct MountOptions {
    flags: MountFlags,
    rest: Vec<String>,
}

impl MountOptions {
    fn parse(text: &str) -> Self {
        let mut flags = MountFlags::empty();
        let mut rest = Vec::new();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let (flag, set) = match word {
                "ro" => (MountFlags::RDONLY, true),
                "rw" => (MountFlags::RDONLY, false),
                "nosuid" => (MountFlags::NOSUID, true),
                "suid" => (MountFlags::NOSUID, false),
                "nodev" => (MountFlags::NODEV, true),
                "dev" => (MountFlags::NODEV, false),
                "noexec" => (MountFlags::NOEXEC, true),
                "exec" => (MountFlags::NOEXEC, false),
                "sync" => (MountFlags::SYNCHRONOUS, true),
                "async" => (MountFlags::SYNCHRONOUS, false),
                "dirsync" => (MountFlags::DIRSYNC, true),
                "noatime" => (MountFlags::NOATIME, true),
                "atime" => (MountFlags::NOATIME, false),
                "nodiratime" => (MountFlags::NODIRATIME, true),
                "relatime" => (MountFlags::RELATIME, true),
                "strictatime" => (MountFlags::STRICTATIME, true),
                "defaults" => (MountFlags::empty(), true),
                other => {
                    rest.push(other.to_owned());
                    continue;
                }
            };
            flags.set(flag, set);
        }
        Self { flags, rest }
    }

    /// The file system's options; for NFS a host name in `addr=` becomes an address, as the kernel wants.
    fn data(&self, kind: &str) -> std::io::Result<String> {
        let mut words = Vec::new();
        for word in &self.rest {
            match word.strip_prefix("addr=") {
                Some(host) if kind.starts_with("nfs") && host.parse::<std::net::IpAddr>().is_err() => {
                    let address = (host, 0).to_socket_addrs()?.next().ok_or_else(|| {
                        std::io::Error::new(std::io::ErrorKind::NotFound, format!("unknown host {host}"))
                    })?;
                    words.push(format!("addr={}", address.ip()));
                }
                _ => words.push(word.clone()),
            }
        }
        Ok(words.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_split_into_flags_and_text() {
        let options = MountOptions::parse("size=100m,ro,nosuid,uid=1000,rw");
        assert_eq!(options.flags, MountFlags::NOSUID);
        assert_eq!(options.data("tmpfs").expect("no names"), "size=100m,uid=1000");
    }
}
