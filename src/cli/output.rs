//! A file that a command writes its answer to.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// A file that appears whole or not at all: it is written under another name and then renamed.
///
/// What is there already and is no regular file (a device, a pipe) is written to as it is: it
/// must never be replaced.
pub(crate) struct OutputFile {
    file: File,
    path: PathBuf,
    /// Where it is written until it is whole; gone with this.
    temporary: Option<PathBuf>,
}

impl OutputFile {
    /// Opens a file to be written with these permissions.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn create(path: &Path, mode: u32) -> anyhow::Result<Self> {
        if path.metadata().is_ok_and(|meta| !meta.is_file()) {
            let file = File::options().write(true).open(path);
            let file = file.with_context(|| format!("cannot write to `{}`", path.display()))?;
            return Ok(Self { file, path: path.to_owned(), temporary: None });
        }
        let mut name = path.file_name().context("the output is not a file name")?.to_owned();
        name.push(format!(".{}", std::process::id()));
        let temporary = path.with_file_name(name);
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)
            .with_context(|| format!("cannot create `{}`", temporary.display()))?;
        Ok(Self { file, path: path.to_owned(), temporary: Some(temporary) })
    }

    /// What to write to.
    pub(crate) const fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// It is whole: gives it its name.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        if let Some(temporary) = self.temporary.take() {
            let renamed = std::fs::rename(&temporary, &self.path);
            if renamed.is_err() {
                self.temporary = Some(temporary);
            }
            renamed.with_context(|| format!("cannot write `{}`", self.path.display()))?;
        }
        Ok(())
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if let Some(temporary) = self.temporary.take() {
            // What failed is being told already.
            drop(std::fs::remove_file(temporary));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};

    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("out");
        let mut output = OutputFile::create(&path, 0o600).expect("created");
        output.file().write_all(b"half").expect("written");
        assert!(!path.exists());
        drop(output);
        assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 0);
        let mut output = OutputFile::create(&path, 0o600).expect("created");
        output.file().write_all(b"whole").expect("written");
        output.finish().expect("renamed");
        assert_eq!(std::fs::read(&path).expect("read"), b"whole");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_pipe_is_written_to_and_not_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let pipe = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &path, pipe, mode, 0).expect("made");
        let reader = std::thread::spawn({
            let path = path.clone();
            move || std::fs::read(path).expect("read")
        });
        let mut output = OutputFile::create(&path, 0o600).expect("opened");
        output.file().write_all(b"through").expect("written");
        output.finish().expect("nothing to rename");
        assert_eq!(reader.join().expect("no panic"), b"through");
        assert!(std::fs::metadata(&path).expect("there").file_type().is_fifo());
    }
}
