//! Directory listings, tolerant removal, exclusive claims: what `fs` leaves out.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;

use crate::util::fs::{PathError, Result};
use crate::util::ids::random_hex;

/// Creates a file with this content unless the name exists; `false` when it does.
///
/// The name appears together with its whole content (a hard link of a finished
/// file), so nobody ever sees a claim half-written.
///
/// # Errors
/// Every failure but the name being taken.
pub fn claim(path: &Path, content: &[u8]) -> Result<bool> {
    let claimed = |linked: io::Result<()>| match linked {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(PathError::at("create", path)(error)),
    };
    // A file without a name leaves nothing when this process is killed.
    if let Some(mut file) = path.parent().and_then(nameless) {
        file.write_all(content).map_err(PathError::at("write", path))?;
        let from = format!("/proc/self/fd/{}", file.as_raw_fd());
        let linked = rustix::fs::linkat(
            rustix::fs::CWD,
            from,
            rustix::fs::CWD,
            path,
            rustix::fs::AtFlags::SYMLINK_FOLLOW,
        );
        return claimed(linked.map_err(io::Error::from));
    }
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}", random_hex(6)));
    let temporary = path.with_file_name(name);
    fs::write(&temporary, content).map_err(PathError::at("write", &temporary))?;
    let linked = fs::hard_link(&temporary, path);
    drop(fs::remove_file(&temporary));
    claimed(linked)
}

/// A file in `folder` that has no name yet, where the file system can make one
/// (open(2), `O_TMPFILE`, Linux 3.11).
fn nameless(folder: &Path) -> Option<fs::File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::open(folder, flags, Mode::from_raw_mode(0o644)).ok().map(fs::File::from)
}

/// Reads a whole file; `None` when it does not exist.
///
/// # Errors
/// Every failure but absence.
pub fn read_opt(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(PathError::at("read", path)(error)),
    }
}

/// Removes a file; it may be gone already.
///
/// # Errors
/// Every failure but absence.
pub fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(PathError::at("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Removes a directory with everything below; it may be gone already.
///
/// # Errors
/// Every failure but absence.
pub fn remove_dir_all(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(PathError::at("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Names in a directory, hidden ones (our temporary files) left out; none when it does not exist.
///
/// # Errors
/// Every failure but absence.
pub fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(PathError::at("list", dir)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(PathError::at("list", dir))?.file_name();
        match name.to_str() {
            Some(text) if !text.starts_with('.') => names.push(text.to_owned()),
            _ => {}
        }
    }
    Ok(names)
}

/// Bytes of the files in a tree; a file with several names counts once. 0 if it does not exist.
///
/// # Errors
/// Every failure but absence, also of parts that vanish meanwhile.
pub fn tree_size(top: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let (mut bytes, mut seen) = (0, std::collections::HashSet::new());
    let mut pending = vec![top.to_owned()];
    while let Some(dir) = pending.pop() {
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(PathError::at("list", &dir)(error)),
        };
        for entry in entries {
            let entry = entry.map_err(PathError::at("list", &dir))?;
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => pending.push(entry.path()),
                Ok(meta) if meta.nlink() > 1 && !seen.insert((meta.dev(), meta.ino())) => {}
                Ok(meta) => bytes += meta.len(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(PathError::at("look at", &entry.path())(error)),
            }
        }
    }
    Ok(bytes)
}

/// The kernel's boot id: what files say of processes is void when it differs.
///
/// # Errors
/// `/proc` is not mounted.
pub fn boot_id() -> Result<String> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|mut file| file.read_to_string(&mut text))
        .map_err(PathError::at("read", path))?;
    text.truncate(text.trim_end().len());
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_given_once_and_carries_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("name");
        assert!(claim(&path, b"first").unwrap());
        assert!(!claim(&path, b"second").unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(names(dir.path()).unwrap(), ["name"]);
    }

    #[test]
    fn a_tree_is_measured_with_each_file_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/a"), [0; 100]).unwrap();
        fs::hard_link(dir.path().join("d/a"), dir.path().join("b")).unwrap();
        fs::write(dir.path().join("c"), [0; 11]).unwrap();
        assert_eq!(tree_size(dir.path()).unwrap(), 111);
        assert_eq!(tree_size(&dir.path().join("absent")).unwrap(), 0);
    }

    #[test]
    fn absence_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let absent = dir.path().join("absent");
        assert_eq!(read_opt(&absent).unwrap(), None);
        remove_file(&absent).unwrap();
        remove_dir_all(&absent).unwrap();
        assert!(names(&absent).unwrap().is_empty());
        assert_eq!(boot_id().unwrap().len(), 36);
    }
}
