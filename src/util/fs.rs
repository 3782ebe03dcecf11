//! Files with paths in their errors, whole-file writes, versioned JSON, and file locks.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A file operation that failed: what was tried, on which path.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{}`", path.display())]
pub struct PathError {
    /// The verb: `read`, `create`, `rename`, ….
    pub action: &'static str,
    /// The path it was tried on.
    pub path: PathBuf,
    /// The operating system's reason.
    #[source]
    pub source: io::Error,
}

impl PathError {
    /// Names the step that failed; for `map_err`.
    pub fn at<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |source| Self { action, path, source: source.into() }
    }

    /// Whether the path does not exist.
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// Result of a file operation.
pub type Result<T> = std::result::Result<T, PathError>;

/// Makes a directory and its parents; succeeds when it exists.
///
/// # Errors
/// [`PathError`] with the directory.
pub fn create_dir_all(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(PathError::at("create the directory", path))
}

/// Sets the top-of-hierarchy flag (`chattr +T`) on a directory that will hold many others.
///
/// ext4 then places each of them into a block group of its own. Without it a
/// group full of recently freed inodes is searched for every new file: on a used
/// file system that was 17 × the time of unpacking a layer, and more than half of
/// the time of starting containers. Other file systems refuse; so what.
pub fn spread(dir: &Path) {
    use rustix::fs::{IFlags, Mode, OFlags};
    let open = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    if let Ok(fd) = open
        && let Ok(flags) = rustix::fs::ioctl_getflags(&fd)
        && !flags.contains(IFlags::TOPDIR)
    {
        let _unsupported = rustix::fs::ioctl_setflags(&fd, flags | IFlags::TOPDIR);
    }
}

/// Reads a whole file.
///
/// # Errors
/// [`PathError`]; see [`PathError::is_not_found`].
pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(PathError::at("read", path))
}

/// Replaces a file in one step: readers see the old content or the new, never a part.
///
/// Survives the death of the process at any instruction; with `durable` also the loss of power.
///
/// # Errors
/// [`PathError`] with the step.
pub fn write_atomic(path: &Path, content: &[u8], durable: bool) -> Result<()> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}", crate::util::ids::random_hex(6)));
    let temporary = path.with_file_name(name);
    let result = (|| {
        let mut file = File::create_new(&temporary).map_err(PathError::at("create", &temporary))?;
        file.write_all(content).map_err(PathError::at("write", &temporary))?;
        if durable {
            file.sync_all().map_err(PathError::at("sync", &temporary))?;
        }
        fs::rename(&temporary, path).map_err(PathError::at("replace", path))
    })();
    if result.is_err() {
        drop(fs::remove_file(&temporary));
    }
    result
}

/// Reads a JSON file; `None` when it does not exist.
///
/// # Errors
/// [`PathError`]; text that is not the expected JSON is `InvalidData`.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map(Some).map_err(PathError::at("understand the JSON in", path))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(PathError::at("read", path)(error)),
    }
}

/// Writes a value as JSON with [`write_atomic`].
///
/// # Errors
/// [`PathError`] with the step.
pub fn write_json<T: Serialize>(path: &Path, value: &T, durable: bool) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value).map_err(PathError::at("encode", path))?;
    text.push(b'\n');
    write_atomic(path, &text, durable)
}

/// A held `flock(2)`; let go when dropped or when the process dies.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Waits for the exclusive lock on the file, made if missing.
    ///
    /// # Errors
    /// [`PathError`] when the file cannot be opened or locked.
    pub fn exclusive(path: &Path) -> Result<Self> {
        Self::take(path, FlockOperation::LockExclusive)
    }

    /// Waits for a shared lock on the file, made if missing.
    ///
    /// # Errors
    /// [`PathError`] when the file cannot be opened or locked.
    pub fn shared(path: &Path) -> Result<Self> {
        Self::take(path, FlockOperation::LockShared)
    }

    /// Takes the exclusive lock if nobody holds it; `None` when somebody does.
    ///
    /// # Errors
    /// [`PathError`] when the file cannot be opened or locked.
    pub fn try_exclusive(path: &Path) -> Result<Option<Self>> {
        match Self::take(path, FlockOperation::NonBlockingLockExclusive) {
            Ok(lock) => Ok(Some(lock)),
            Err(error) if error.source.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits for the exclusive lock, but not longer than `patience`; `None` when it was not free by then.
    ///
    /// A lock whose holder was killed is free a little later than the holder is gone where
    /// that one was about to start a program: between `fork` and `execve` the child has
    /// copies of all its descriptors.
    ///
    /// # Errors
    /// [`PathError`] when the file cannot be opened or locked.
    pub fn exclusive_within(path: &Path, patience: Duration) -> Result<Option<Self>> {
        if let Some(lock) = Self::try_exclusive(path)? {
            return Ok(Some(lock));
        }
        let (sender, receiver) = std::sync::mpsc::channel();
        let path = path.to_owned();
        // flock(2) knows no time-out. A thread that gets the lock too late finds nobody to
        // send it to, and lets go of it.
        std::thread::spawn(move || drop(sender.send(Self::exclusive(&path))));
        receiver.recv_timeout(patience).ok().transpose()
    }

    /// Takes over a descriptor that carries the lock already: it was inherited or sent by whoever took it.
    pub fn inherited(file: File, path: &Path) -> Self {
        Self { file, path: path.to_owned() }
    }

    /// The locked file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn take(path: &Path, operation: FlockOperation) -> Result<Self> {
        loop {
            let file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)
                .map_err(PathError::at("open", path))?;
            match rustix::fs::flock(&file, operation) {
                Ok(()) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(PathError::at("lock", path)(error)),
            }
            // The file may have been removed while we waited; then the lock is nobody's.
            let held = rustix::fs::fstat(&file).map_err(PathError::at("look at", path))?;
            if held.st_nlink > 0 {
                return Ok(Self { file, path: path.to_owned() });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_atomic_write_leaves_one_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a");
        write_atomic(&path, b"1", true).expect("written");
        write_atomic(&path, b"2", false).expect("written");
        assert_eq!(fs::read(&path).expect("read"), b"2");
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1);
    }

    #[test]
    fn an_error_names_step_and_path() {
        let error = read(Path::new("/nonexistent/x")).expect_err("no such file");
        assert_eq!(error.to_string(), "cannot read `/nonexistent/x`");
        assert!(error.is_not_found());
    }

    #[test]
    fn a_second_exclusive_lock_is_refused_while_the_first_lives() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("lock");
        let first = Lock::exclusive(&path).expect("locked");
        assert!(Lock::try_exclusive(&path).expect("tried").is_none());
        drop(first);
        assert!(Lock::try_exclusive(&path).expect("tried").is_some());
    }

    #[test]
    fn a_lock_is_waited_for_as_long_as_patience_lasts() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("lock");
        let first = Lock::shared(&path).expect("locked");
        assert!(Lock::exclusive_within(&path, Duration::from_millis(5)).expect("tried").is_none());
        let waiting = std::thread::spawn({
            let path = path.clone();
            move || Lock::exclusive_within(&path, Duration::from_mins(1)).expect("tried").is_some()
        });
        drop(first);
        assert!(waiting.join().expect("no panic"));
    }
}
