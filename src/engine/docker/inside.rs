//! What is inside a container of a Docker Engine: processes, usage, files.

use bollard::models::{ContainerBlkioStatEntry, ContainerStatsResponse};
use bollard::query_parameters as query;
use futures_util::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::error::About;
use super::{DockerEngine, state};
use crate::engine::{
    ArchiveSink, ArchiveSource, EngineError, PathKind, PathState, ProcessTable, Result, UsageState,
};
use crate::spec::ExecSpec;

/// Bytes that are handed over at a time, and pieces that may wait.
const PIECE: usize = 128 << 10;
const WAITING: usize = 4;

fn broken(step: &str, container: &str, source: std::io::Error) -> EngineError {
    EngineError::Failed { step: format!("cannot {step} container `{container}`"), source: Box::new(source) }
}

impl DockerEngine {
    pub(super) async fn process_table(&self, container: &str) -> Result<ProcessTable> {
        let about = About::new("list the processes of", "container", container);
        let options = query::TopOptionsBuilder::default().ps_args("-ef").build();
        let found = self.client.top_processes(container, Some(options)).await.map_err(|e| about.error(e))?;
        Ok(ProcessTable {
            titles: found.titles.unwrap_or_default(),
            rows: found.processes.unwrap_or_default(),
        })
    }

    pub(super) async fn usage_state(&self, container: &str) -> Result<Option<UsageState>> {
        let about = About::new("look at the usage of", "container", container);
        let options = query::StatsOptionsBuilder::default().stream(false).one_shot(true).build();
        let mut answers = Box::pin(self.client.stats(container, Some(options)));
        let Some(answer) = answers.next().await else { return Ok(None) };
        let answer = answer.map_err(|e| about.error(e))?;
        // A container that does not run has nothing but names in its answer.
        let runs = answer.pids_stats.as_ref().is_some_and(|pids| pids.current.is_some());
        Ok(runs.then(|| usage(answer)))
    }

    pub(super) async fn look_at_path(&self, container: &str, path: &str) -> Result<Option<PathState>> {
        let about = About::new("look into", "container", container);
        let options = query::ContainerArchiveInfoOptionsBuilder::default().path(path).build();
        match self.client.get_container_archive_info(container, Some(options)).await {
            Ok(found) => Ok(Some(PathState {
                kind: kind(found.file_mode),
                size: u64::try_from(found.size).unwrap_or(0),
                link: Some(found.link_target).filter(|link| !link.is_empty()),
            })),
            Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => {
                // The answer to HEAD has no text: the container itself may be what is missing.
                let found = self.client.inspect_container(container, None).await;
                found.map(|_| None).map_err(|e| about.error(e))
            }
            Err(error) => Err(about.error(error)),
        }
    }

    pub(super) async fn download(&self, container: &str, path: &str, mut sink: ArchiveSink) -> Result<()> {
        let about = About::new("copy from", "container", container);
        let options = query::DownloadFromContainerOptionsBuilder::default().path(path).build();
        let mut pieces = Box::pin(self.client.download_from_container(container, Some(options)));
        let (sender, mut received) = mpsc::channel(WAITING);
        let writing = tokio::task::spawn_blocking(move || {
            while let Some(piece) = received.blocking_recv() {
                let piece: &[u8] = AsRef::as_ref(&piece);
                sink.write_all(piece)?;
            }
            sink.flush()
        });
        let mut outcome = Ok(());
        while let Some(piece) = pieces.next().await {
            match piece {
                Ok(piece) => {
                    // Whoever writes has failed then, and says why below.
                    if sender.send(piece).await.is_err() {
                        break;
                    }
                }
                Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => {
                    outcome = Err(EngineError::NotFound { kind: "file or directory", name: path.to_owned() });
                    break;
                }
                Err(error) => {
                    outcome = Err(about.error(error));
                    break;
                }
            }
        }
        drop(sender);
        outcome?;
        let written = writing.await.unwrap_or_else(|stopped| Err(std::io::Error::other(stopped)));
        written.map_err(|e| broken("write what was copied from", container, e))
    }

    pub(super) async fn upload(
        &self,
        container: &str,
        path: &str,
        mut source: ArchiveSource,
        as_user: bool,
    ) -> Result<()> {
        let about = About::new("copy into", "container", container);
        let (sender, received) = mpsc::channel::<std::io::Result<Vec<u8>>>(WAITING);
        let reading = tokio::task::spawn_blocking(move || {
            loop {
                let mut piece = vec![0; PIECE];
                match source.read(&mut piece) {
                    Ok(0) => return Ok(()),
                    Ok(got) => {
                        piece.truncate(got);
                        // The Engine has refused it and says why below.
                        if sender.blocking_send(Ok(piece)).is_err() {
                            return Ok(());
                        }
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        drop(sender.blocking_send(Err(std::io::Error::other("the archive is not whole"))));
                        return Err(error);
                    }
                }
            }
        });
        let options = query::UploadToContainerOptionsBuilder::default()
            .path(path)
            .no_overwrite_dir_non_dir("true")
            .copy_uidgid(if as_user { "true" } else { "false" })
            .build();
        let pieces = futures_util::stream::unfold(received, |mut received| async {
            received.recv().await.map(|piece| (piece, received))
        });
        let body = bollard::body_try_stream(pieces.map_ok(Into::into));
        let done = self.client.upload_to_container(container, Some(options), body).await;
        let read = reading.await.unwrap_or_else(|stopped| Err(std::io::Error::other(stopped)));
        read.map_err(|e| broken("read what is to be copied into", container, e))?;
        match done {
            Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => {
                Err(EngineError::NotFound { kind: "file or directory", name: path.to_owned() })
            }
            done => done.map_err(|e| about.error(e)),
        }
    }

    /// The Engine has no call for it, so the container's own `rm` does it.
    pub(super) async fn remove_paths(&self, container: &str, paths: &[String]) -> Result<()> {
        use crate::engine::Engine as _;
        let mut command = vec!["rm".to_owned(), "-rf".to_owned(), "--".to_owned()];
        command.extend_from_slice(paths);
        let spec = ExecSpec { command, user: Some("0".into()), ..ExecSpec::default() };
        let mut process = self.exec(container, &spec).await?;
        let mut said = Vec::new();
        if let Some(stderr) = &mut process.stderr {
            tokio::io::AsyncReadExt::read_to_end(stderr, &mut said)
                .await
                .map_err(|e| broken("remove files of", container, e))?;
        }
        match process.control.wait().await? {
            0 => Ok(()),
            code => Err(EngineError::Invalid(format!(
                "cannot remove files of container `{container}`: `rm` ended with {code}: {}",
                String::from_utf8_lossy(&said).trim()
            ))),
        }
    }
}

/// # Source
/// The mode is Go's `io/fs.FileMode`: bit 31 directory, 27 link, 26 device, 25 FIFO, 24 socket, 19 irregular.
fn kind(mode: u32) -> PathKind {
    if mode & (1 << 31) != 0 {
        PathKind::Directory
    } else if mode & (1 << 27) != 0 {
        PathKind::Link
    } else if mode & (1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19) != 0 {
        PathKind::Special
    } else {
        PathKind::File
    }
}

/// The numbers that `docker stats` shows.
fn usage(answer: ContainerStatsResponse) -> UsageState {
    let memory = answer.memory_stats.unwrap_or_default();
    let cache = memory.stats.as_ref().and_then(|stats| {
        // The first is cgroup v1's name, the second v2's.
        stats.get("total_inactive_file").or_else(|| stats.get("inactive_file")).copied()
    });
    let networks = answer.networks.unwrap_or_default();
    let blocks = answer.blkio_stats.and_then(|b| b.io_service_bytes_recursive).unwrap_or_default();
    let total = |operation: &str| {
        let is_it = |e: &&ContainerBlkioStatEntry| {
            e.op.as_deref().is_some_and(|op| op.eq_ignore_ascii_case(operation))
        };
        blocks.iter().filter(is_it).filter_map(|entry| entry.value).sum()
    };
    UsageState {
        at: state::time(answer.read.as_deref()).unwrap_or_else(Timestamp::now),
        cpu: std::time::Duration::from_nanos(
            answer.cpu_stats.and_then(|cpu| cpu.cpu_usage?.total_usage).unwrap_or(0),
        ),
        memory: memory.usage.unwrap_or(0).saturating_sub(cache.unwrap_or(0)),
        memory_limit: memory.limit.unwrap_or(0),
        received: networks.values().filter_map(|n| n.rx_bytes).sum(),
        sent: networks.values().filter_map(|n| n.tx_bytes).sum(),
        read: total("read"),
        written: total("write"),
        tasks: answer.pids_stats.and_then(|pids| pids.current).unwrap_or(0),
    }
}
