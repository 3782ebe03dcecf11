//! The built-in engine: [`crate::runtime`] behind the engine's trait. No daemon.
//!
//! The runtime's calls are synchronous. Those that only read small files are
//! made in place; those that wait (for a start, an exit, a lock) go to a thread.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustix::thread::CapabilitySet;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{
    ArchiveSink, ArchiveSource, Attached, BoxStream, BuildProgress, ContainerState, Engine, EngineError,
    EngineEvent, ImageState, LockWaiting, LogFrame, LogOptions, NetworkState, PathState, ProcessTable,
    ProjectLock, PullEvent, PullProgress, Result, UsageState, VolumeState,
};
use crate::runtime::Runtime;
use crate::runtime::image::{self, User};
use crate::runtime::network::{NetworkError, Networks};
use crate::runtime::root::Root;
use crate::spec::{
    BuildSpec, CommitSpec, ContainerSpec, EndpointSpec, ExecSpec, NetworkMode, NetworkSpec, VolumeSpec,
};

mod build;
mod error;
mod inside;
mod state;
mod streams;

use error::{engine_error, failed};

/// Kernel in which `mount_setattr(2)` came, the newest call we cannot do without.
const OLDEST_KERNEL: (u32, u32) = (5, 12);

/// hoist's own runtime on this machine.
#[derive(Debug, Clone)]
pub struct BuiltinEngine {
    runtime: Arc<Runtime>,
    networks: Networks,
    /// More starts at once than processors only make each one slower.
    starts: Arc<Semaphore>,
}

impl BuiltinEngine {
    /// Opens the installation at `root`, repairing what crashes have left.
    ///
    /// # Errors
    /// [`EngineError::Permission`] without the rights to make containers; [`EngineError::Unreachable`]
    /// on a kernel that is too old; [`EngineError::Failed`] when the state cannot be read.
    pub fn open(root: &Root) -> Result<Self> {
        check_rights()?;
        check_kernel(&rustix::system::uname().release().to_string_lossy())?;
        let runtime = Runtime::open(root).map_err(engine_error)?;
        Ok(Self::over(runtime))
    }

    /// Over a runtime that is open already.
    pub fn over(runtime: Runtime) -> Self {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            networks: Networks::new(runtime.root()),
            runtime: Arc::new(runtime),
            starts: Arc::new(Semaphore::new(processors.max(2))),
        }
    }

    /// The runtime below.
    pub fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    /// Makes a call that may wait.
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Runtime) -> crate::runtime::error::Result<T> + Send + 'static,
    ) -> Result<T> {
        let runtime = Arc::clone(&self.runtime);
        match tokio::task::spawn_blocking(move || work(&runtime)).await {
            Ok(done) => done.map_err(engine_error),
            Err(stopped) => Err(failed("a call of the runtime was interrupted", stopped)),
        }
    }

    fn network_state(&self, network: crate::runtime::network::Network) -> Result<NetworkState> {
        let containers = self.networks.containers(&network.id).map_err(|e| engine_error(e.into()))?;
        Ok(state::network(network, containers))
    }
}

/// Root with the capabilities that mounts, namespaces and networks take.
fn check_rights() -> Result<()> {
    let denied = |step: String| {
        Err(EngineError::Permission {
            step,
            remedy: "run hoist as root (`sudo hoist …`), or use a Docker Engine with `--engine docker`"
                .into(),
        })
    };
    let uid = rustix::process::geteuid();
    if !uid.is_root() {
        return denied(format!("user {} cannot run containers with the built-in engine", uid.as_raw()));
    }
    let have = rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    for (name, needed) in
        [("CAP_SYS_ADMIN", CapabilitySet::SYS_ADMIN), ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN)]
    {
        if !have.contains(needed) {
            return denied(format!("root without {name} cannot run containers with the built-in engine"));
        }
    }
    Ok(())
}

fn check_kernel(release: &str) -> Result<()> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= OLDEST_KERNEL {
        return Ok(());
    }
    let (major, minor) = OLDEST_KERNEL;
    Err(EngineError::Unreachable {
        engine: "builtin",
        reason: format!(
            "it needs Linux {major}.{minor} or newer and this is {release}; update the kernel, or use a Docker Engine with `--engine docker`"
        ),
    })
}

/// Whether labels match all of `key` or `key=value`.
fn matches(labels: &std::collections::BTreeMap<String, String>, wanted: &[String]) -> bool {
    wanted.iter().all(|want| match want.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|v| v == value),
        None => labels.contains_key(want),
    })
}

#[async_trait]
impl Engine for BuiltinEngine {
    fn name(&self) -> &'static str {
        "builtin"
    }

    async fn image(&self, reference: &str, platform: Option<&str>) -> Result<Option<ImageState>> {
        let image = self.runtime.images().resolve(reference, platform).map_err(|e| engine_error(e.into()))?;
        Ok(image.map(state::image))
    }

    async fn images(&self) -> Result<Vec<ImageState>> {
        let images = self.runtime.images().list().map_err(|e| engine_error(e.into()))?;
        Ok(images.into_iter().map(state::image).collect())
    }

    async fn pull(
        &self,
        reference: &str,
        platform: Option<&str>,
        progress: PullProgress<'_>,
    ) -> Result<ImageState> {
        streams::pull(&self.runtime, reference, platform, progress).await
    }

    async fn push(&self, reference: &str, progress: PullProgress<'_>) -> Result<()> {
        streams::push(&self.runtime, reference, progress).await
    }

    async fn remote_digest(&self, reference: &str) -> Result<String> {
        let reference = reference.to_owned();
        streams::transfer(&self.runtime, &|_| {}, move |_, registries, _| {
            image::remote_digest(&reference, registries)
        })
        .await
        .map(|digest| digest.to_string())
    }

    async fn remove_image(&self, reference: &str, force: bool) -> Result<()> {
        let reference = reference.to_owned();
        self.call(move |runtime| {
            let containers = runtime.list()?;
            let users = |id: &image::Digest| {
                let id = id.to_string();
                containers
                    .iter()
                    .filter(|c| c.record.image_id == id)
                    .map(|c| User { container: c.record.name.clone(), running: c.state.life.is_live() })
                    .collect()
            };
            runtime.images().remove(&reference, force, &users)?;
            Ok(())
        })
        .await
    }

    async fn build(
        &self,
        spec: &BuildSpec,
        progress: BuildProgress<'_>,
        stop: &CancellationToken,
    ) -> Result<String> {
        build::build(&self.runtime, spec, progress, stop).await
    }

    async fn create_network(&self, spec: &NetworkSpec) -> Result<String> {
        self.networks.create(spec).map_err(|e| engine_error(e.into()))
    }

    async fn network(&self, name: &str) -> Result<Option<NetworkState>> {
        match self.networks.get(name) {
            Ok(network) => Ok(Some(self.network_state(network)?)),
            Err(NetworkError::NotFound(_)) => Ok(None),
            Err(error) => Err(engine_error(error.into())),
        }
    }

    async fn networks(&self, labels: &[String]) -> Result<Vec<NetworkState>> {
        let networks = self.networks.list().map_err(|e| engine_error(e.into()))?;
        networks.into_iter().filter(|n| matches(&n.labels, labels)).map(|n| self.network_state(n)).collect()
    }

    async fn remove_network(&self, name: &str) -> Result<()> {
        let (networks, name) = (self.networks.clone(), name.to_owned());
        self.call(move |_| Ok(networks.remove(&name)?)).await
    }

    async fn disconnect(&self, network: &str, container: &str, _force: bool) -> Result<()> {
        let network = self.networks.get(network).map_err(|e| engine_error(e.into()))?;
        let container = container.to_owned();
        self.call(move |runtime| {
            runtime.amend(&container, |record| {
                if let NetworkMode::Networks { endpoints } = &mut record.spec.network {
                    endpoints.retain(|e| e.network != network.name && e.network != network.id);
                }
            })
        })
        .await
    }

    async fn connect(&self, container: &str, endpoint: &EndpointSpec) -> Result<()> {
        self.networks.get(&endpoint.network).map_err(|e| engine_error(e.into()))?;
        let (container, endpoint) = (container.to_owned(), endpoint.clone());
        self.call(move |runtime| {
            runtime.amend(&container, |record| match &mut record.spec.network {
                NetworkMode::Networks { endpoints } => {
                    endpoints.retain(|e| e.network != endpoint.network);
                    endpoints.push(endpoint);
                }
                other => *other = NetworkMode::Networks { endpoints: vec![endpoint] },
            })
        })
        .await
    }

    async fn create_volume(&self, spec: &VolumeSpec) -> Result<()> {
        self.runtime.volumes().create(spec).map_err(|e| engine_error(e.into()))?;
        Ok(())
    }

    async fn volume(&self, name: &str) -> Result<Option<VolumeState>> {
        let volume = self.runtime.volumes().get(name).map_err(|e| engine_error(e.into()))?;
        Ok(volume.map(state::volume))
    }

    async fn volumes(&self, labels: &[String]) -> Result<Vec<VolumeState>> {
        let volumes = self.runtime.volumes().list().map_err(|e| engine_error(e.into()))?;
        Ok(volumes.into_iter().filter(|v| matches(&v.labels, labels)).map(state::volume).collect())
    }

    async fn remove_volume(&self, name: &str) -> Result<()> {
        let name = name.to_owned();
        self.call(move |runtime| {
            let users = |volume: &str| runtime.volume_users(volume);
            Ok(runtime.volumes().remove(&name, &users)?)
        })
        .await
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<String> {
        let _turn = self.starts.acquire().await;
        let spec = spec.clone();
        self.call(move |runtime| runtime.create(&spec)).await
    }

    async fn start(&self, container: &str) -> Result<()> {
        let _turn = self.starts.acquire().await;
        let container = container.to_owned();
        self.call(move |runtime| runtime.start(&container)).await
    }

    async fn stop(&self, container: &str, grace: Option<Duration>) -> Result<()> {
        let container = container.to_owned();
        self.call(move |runtime| runtime.stop(&container, grace)).await
    }

    async fn kill(&self, container: &str, signal: &str) -> Result<()> {
        let (container, signal) = (container.to_owned(), signal.to_owned());
        self.call(move |runtime| runtime.kill(&container, &signal)).await
    }

    async fn restart(&self, container: &str, grace: Option<Duration>) -> Result<()> {
        let container = container.to_owned();
        self.call(move |runtime| runtime.restart(&container, grace)).await
    }

    async fn pause(&self, container: &str) -> Result<()> {
        let container = container.to_owned();
        self.call(move |runtime| runtime.pause(&container)).await
    }

    async fn unpause(&self, container: &str) -> Result<()> {
        let container = container.to_owned();
        self.call(move |runtime| runtime.unpause(&container)).await
    }

    async fn remove(&self, container: &str, force: bool, volumes: bool) -> Result<()> {
        let container = container.to_owned();
        self.call(move |runtime| runtime.remove(&container, force, volumes)).await
    }

    async fn rename(&self, container: &str, name: &str) -> Result<()> {
        let (container, name) = (container.to_owned(), name.to_owned());
        self.call(move |runtime| runtime.rename(&container, &name)).await
    }

    async fn inspect(&self, container: &str) -> Result<Option<ContainerState>> {
        let found = self.runtime.inspect(container).map_err(engine_error)?;
        Ok(found.map(|c| state::container(c, &self.networks)))
    }

    async fn asked(&self, container: &str) -> Result<Option<ContainerSpec>> {
        let found = self.runtime.inspect(container).map_err(engine_error)?;
        Ok(found.map(|c| c.record.spec))
    }

    async fn list(&self, labels: &[String]) -> Result<Vec<ContainerState>> {
        let all = self.runtime.list().map_err(engine_error)?;
        Ok(all
            .into_iter()
            .filter(|c| matches(&c.record.spec.labels, labels))
            .map(|c| state::container(c, &self.networks))
            .collect())
    }

    async fn processes(&self, container: &str) -> Result<ProcessTable> {
        self.runtime.processes(container).map(|found| inside::table(&found)).map_err(engine_error)
    }

    async fn usage(&self, container: &str) -> Result<Option<UsageState>> {
        let usage = self.runtime.usage(container).map_err(engine_error)?;
        Ok(usage.map(|usage| inside::usage(&usage, jiff::Timestamp::now())))
    }

    async fn path_state(&self, container: &str, path: &str) -> Result<Option<PathState>> {
        let (container, path) = (container.to_owned(), path.to_owned());
        let found = self.call(move |runtime| runtime.file_state(&container, &path)).await?;
        Ok(found.map(inside::path_state))
    }

    async fn pack(&self, container: &str, path: &str, mut sink: ArchiveSink) -> Result<()> {
        let (container, path) = (container.to_owned(), path.to_owned());
        self.call(move |runtime| runtime.pack(&container, &path, &mut *sink)).await
    }

    async fn unpack(
        &self,
        container: &str,
        path: &str,
        mut source: ArchiveSource,
        as_user: bool,
    ) -> Result<()> {
        let (container, path) = (container.to_owned(), path.to_owned());
        self.call(move |runtime| runtime.unpack(&container, &path, &mut *source, as_user)).await
    }

    async fn delete_paths(&self, container: &str, paths: &[String]) -> Result<()> {
        let (container, paths) = (container.to_owned(), paths.to_vec());
        self.call(move |runtime| runtime.delete_paths(&container, &paths)).await
    }

    async fn wait(&self, container: &str) -> Result<i32> {
        let container = container.to_owned();
        self.call(move |runtime| runtime.wait(&container)).await
    }

    async fn lock_project(&self, project: &str, waiting: LockWaiting<'_>) -> Result<ProjectLock> {
        let path = self.runtime.root().run().join("locks").join(project).join("lock");
        let holder = format!("hoist (pid {})", std::process::id());
        match crate::util::lock::acquire(&path, &holder, waiting).await {
            Ok(lock) => Ok(Box::new(lock)),
            Err(error) => Err(failed(&format!("cannot lock project `{project}`"), error)),
        }
    }

    async fn commit(&self, container: &str, spec: &CommitSpec) -> Result<String> {
        let (container, spec) = (container.to_owned(), spec.clone());
        self.call(move |runtime| Ok(runtime.commit(&container, &spec)?.to_string())).await
    }

    async fn export(&self, container: &str) -> Result<BoxStream<Result<Vec<u8>>>> {
        streams::export(&self.runtime, container)
    }

    async fn logs(&self, container: &str, options: &LogOptions) -> Result<BoxStream<Result<Vec<LogFrame>>>> {
        streams::logs(&self.runtime, container, options)
    }

    async fn events(
        &self,
        labels: &[String],
        since: Option<jiff::Timestamp>,
    ) -> Result<BoxStream<Result<EngineEvent>>> {
        streams::events(&self.runtime, labels, since)
    }

    async fn exec(&self, container: &str, spec: &ExecSpec) -> Result<Attached> {
        let (name, spec) = (container.to_owned(), spec.clone());
        let process = self.call(move |runtime| runtime.exec(&name, &spec)).await?;
        streams::exec(process)
    }

    async fn attach(&self, container: &str, stdin: bool) -> Result<Attached> {
        let name = container.to_owned();
        let attached = self.call(move |runtime| runtime.attach(&name, stdin)).await?;
        streams::attached(&self.runtime, container, attached)
    }
}

/// A step of the store's progress in the engine's words.
fn pull_event(event: image::Event) -> PullEvent {
    match event {
        image::Event::Status(text) => PullEvent::Status(text),
        image::Event::Layer { id, text, current, total } => PullEvent::Layer { id, text, current, total },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_are_refused_with_the_way_out() {
        for good in ["5.12.0", "5.15.0-91-generic", "6.18.44-fc-v595", "10.0"] {
            check_kernel(good).unwrap();
        }
        let error = check_kernel("4.19.0-26-amd64").unwrap_err().to_string();
        assert!(error.contains("5.12") && error.contains("--engine docker"), "{error}");
    }

    #[test]
    fn label_filters_are_keys_or_pairs() {
        let labels = [("a".to_owned(), "1".to_owned()), ("b".to_owned(), String::new())].into();
        let wanted = |words: &[&str]| words.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        assert!(matches(&labels, &wanted(&[])));
        assert!(matches(&labels, &wanted(&["a", "b="])));
        assert!(matches(&labels, &wanted(&["a=1"])));
        assert!(!matches(&labels, &wanted(&["a=2"])));
        assert!(!matches(&labels, &wanted(&["a", "c"])));
    }
}
