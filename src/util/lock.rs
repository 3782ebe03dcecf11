//! Waiting for a [`Lock`] without blocking the caller's tasks, and telling for whom.

use std::io::{self, Read, Seek, Write};
use std::path::Path;

use super::fs::{self, Lock, PathError, Result};

/// Takes the exclusive lock on `path`, which is created with its directories when missing.
///
/// `holder` says who we are to those who wait for us (one line); `waiting`
/// is called at most once, with the line of the present holder (it may be
/// empty), when the lock is not free.
///
/// Dropping the future while it waits leaves a blocked thread behind until
/// the holder lets go; it then lets go as well.
///
/// # Errors
/// [`PathError`] when the file cannot be opened or locked.
pub async fn acquire(path: &Path, holder: &str, waiting: &(dyn Fn(&str) + Send + Sync)) -> Result<Lock> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let lock = if let Some(lock) = Lock::try_exclusive(path)? {
        lock
    } else {
        waiting(&read_holder(path));
        let path = path.to_owned();
        let fail = PathError::at("lock", &path);
        let blocked = {
            let path = path.clone();
            tokio::task::spawn_blocking(move || Lock::exclusive(&path))
        };
        blocked.await.map_err(|stopped| fail(io::Error::other(stopped)))??
    };
    write_holder(&lock, holder).map_err(PathError::at("write", path))?;
    Ok(lock)
}

fn write_holder(lock: &Lock, holder: &str) -> io::Result<()> {
    let mut file = lock.file();
    file.set_len(0)?;
    file.seek(io::SeekFrom::Start(0))?;
    file.write_all(holder.as_bytes())
}

/// The holder's line; empty when it has not written it yet.
fn read_holder(path: &Path) -> String {
    let mut text = String::new();
    match std::fs::File::open(path).and_then(|file| file.take(200).read_to_string(&mut text)) {
        Ok(_) => text.lines().next().unwrap_or_default().to_owned(),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn the_second_waits_and_says_for_whom() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("projects/p/lock");
        let first =
            acquire(&path, "hoist up (pid 1)", &|_| panic!("nobody holds it")).await.expect("first lock");
        let said = Mutex::new(Vec::new());
        let (told, wait_told) = tokio::sync::oneshot::channel();
        let told = Mutex::new(Some(told));
        let say = |holder: &str| {
            said.lock().expect("not poisoned").push(holder.to_owned());
            if let Some(told) = told.lock().expect("not poisoned").take() {
                told.send(()).expect("somebody listens");
            }
        };
        let second = acquire(&path, "hoist down (pid 2)", &say);
        let release = async {
            wait_told.await.expect("told");
            drop(first);
        };
        let (second, ()) = tokio::join!(second, release);
        second.expect("second lock");
        assert_eq!(*said.lock().expect("not poisoned"), ["hoist up (pid 1)"]);
    }
}
