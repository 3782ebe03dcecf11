//! `commit`: an image of what a container has become.

use std::io::{self, BufReader, BufWriter};

use rustix::fs::{FileType, Stat};

use super::Runtime;
use super::error::{Result, RuntimeError};
use super::image::pack::{self, Tree};
use super::image::{Digest, Empty, ImageConfig, ImageError, NameError, NewImage, Reference, RunConfig};
use super::state::{Life, Record};
use crate::spec::CommitSpec;

impl Runtime {
    /// Makes an image of a container's image and changes, and gives its id.
    ///
    /// What the container has in volumes and other mounts is not part of it. The
    /// container is frozen meanwhile if the spec says so.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`]; [`RuntimeError::Image`] for the name and the instructions;
    /// [`RuntimeError::Commit`] with the step and the file.
    pub fn commit(&self, container: &str, spec: &CommitSpec) -> Result<Digest> {
        let found = self.inspect(container)?.ok_or_else(|| RuntimeError::NotFound(container.to_owned()))?;
        let record = found.record;
        let image = |error: NameError| RuntimeError::Image(error.into());
        let reference = spec.reference.as_deref().map(str::parse::<Reference>).transpose().map_err(image)?;
        if let Some(reference) = reference.as_ref().filter(|reference| reference.digest().is_some()) {
            let text = format!("{reference} (a new image cannot be given a digest)");
            return Err(image(NameError::Reference(text)));
        }
        let base = self
            .images()
            .resolve(&record.image_id, None)?
            .ok_or_else(|| ImageError::NotFound(record.image_id.clone()))?;
        let new = NewImage {
            config: config_of(&record, &base.config),
            base: base.id,
            changes: spec.changes.clone(),
            created_by: record.args.join(" "),
            author: spec.author.clone(),
            message: spec.message.clone(),
            reference,
        };
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| RuntimeError::Commit {
            container: record.name.clone(),
            source,
        };
        let upper = pack::open(&self.container_dir(&record.id).join("upper"))
            .map_err(|error| failed(error.into()))?;
        let frozen = if spec.pause && matches!(found.state.life, Life::Running { .. }) {
            self.pause(&record.id)?;
            Some(Frozen { runtime: self, id: &record.id })
        } else {
            None
        };
        let (reader, writer) = io::pipe().map_err(|error| failed(error.into()))?;
        let (packed, made) = std::thread::scope(|scope| {
            let packing = scope.spawn(|| {
                // Let go as soon as everything is read, however long storing it takes.
                let _frozen = frozen;
                pack::pack(&upper, Tree::Changes, &is_ours, BufWriter::with_capacity(64 << 10, writer))
            });
            let made = self.images().commit(new, BufReader::new(reader));
            (packing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), made)
        });
        // A tree that could not be read makes an archive that ends early: that is the reason, then.
        match (packed, made) {
            (_, Ok(id)) => Ok(id),
            (Err(error), Err(_)) if !error.is_broken_pipe() => Err(failed(error.into())),
            (_, Err(error)) => Err(error.into()),
        }
    }
}

/// A container that is frozen until this is dropped.
struct Frozen<'a> {
    runtime: &'a Runtime,
    id: &'a str,
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.runtime.unpause(self.id) {
            tracing::warn!(%error, "the container was not thawed");
        }
    }
}

/// Whether something in an upper directory is a place that we have made to mount over, not a
/// change of the container's. Docker keeps these in a layer of their own that is in no image.
fn is_ours(path: &[u8], stat: &Stat) -> bool {
    let kind = FileType::from_raw_mode(stat.st_mode);
    match path {
        b"proc" | b"sys" | b"dev" => kind == FileType::Directory,
        b"etc/hosts" | b"etc/hostname" | b"etc/resolv.conf" => {
            kind == FileType::RegularFile && stat.st_size == 0
        }
        _ => false,
    }
}

/// What a container runs, as an image's config.
///
/// # Source
/// moby's `daemon/commit.go`: the container's own config, not the image's.
fn config_of(record: &Record, image: &ImageConfig) -> RunConfig {
    let (spec, base) = (&record.spec, &image.config);
    let process = &spec.process;
    let or = |own: &Option<String>, other: &String| own.clone().unwrap_or_else(|| other.clone());
    // A changed entrypoint drops the image's command.
    let cmd = match (&process.command, &process.entrypoint) {
        (Some(command), _) => command.clone(),
        (None, Some(_)) => Vec::new(),
        (None, None) => base.cmd.clone(),
    };
    // Not what the runtime has added (`PATH`): it adds it to every container.
    let asked = |entry: &&String| {
        let name = entry.split('=').next().unwrap_or_default();
        base.env.iter().any(|known| known.split('=').next() == Some(name))
            || process.env.iter().any(|(known, _)| known == name)
    };
    RunConfig {
        user: record.user.clone(),
        exposed_ports: record.exposed.iter().map(|port| (port.clone(), Empty {})).collect(),
        env: record.env.iter().filter(asked).cloned().collect(),
        entrypoint: process.entrypoint.clone().unwrap_or_else(|| base.entrypoint.clone()),
        cmd,
        working_dir: or(&process.working_dir, &base.working_dir),
        labels: spec.labels.clone(),
        stop_signal: or(&spec.stop_signal, &base.stop_signal),
        on_build: Vec::new(),
        ..base.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_places_to_mount_over_are_left_out() {
        let path = tempfile::tempdir().expect("a directory");
        let of = |path: &std::path::Path| rustix::fs::stat(path).expect("there");
        let directory = of(path.path());
        std::fs::write(path.path().join("empty"), "").expect("written");
        std::fs::write(path.path().join("full"), "x").expect("written");
        let (empty, full) = (of(&path.path().join("empty")), of(&path.path().join("full")));
        assert!(is_ours(b"proc", &directory) && is_ours(b"etc/hosts", &empty));
        assert!(!is_ours(b"etc/hosts", &full) && !is_ours(b"srv/proc", &directory));
        assert!(!is_ours(b"etc/passwd", &empty) && !is_ours(b"dev", &full));
    }
}
