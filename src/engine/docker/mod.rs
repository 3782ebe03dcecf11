//! The Docker Engine as an engine, through bollard: the only place that names bollard's types.
//!
//! The API version is the newest that both sides know. It costs one `_ping`
//! (0.5 ms; asking for `/version`, as bollard does, costs 12): an Engine that
//! is older than we are refuses it and says which version it takes.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::models::{
    Ipam, IpamConfig, NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest,
    VolumeCreateRequest,
};
use bollard::query_parameters as query;
use bollard::{API_DEFAULT_VERSION, ClientVersion, Docker as Client};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    ArchiveSink, ArchiveSource, Attached, BoxStream, ContainerState, Engine, EngineError, EngineEvent,
    ImageState, LockWaiting, LogFrame, LogOptions, NetworkState, PathState, ProcessTable, ProjectLock,
    PullEvent, PullProgress, Result, UsageState, VolumeState,
};
use crate::spec::{
    CommitSpec, ContainerSpec, EndpointSpec, ExecSpec, MountSource, NetworkMode, NetworkSpec, VolumeSpec,
};

mod connect;
mod create;
mod error;
mod inside;
mod state;
mod streams;

pub use connect::DockerAddress;
use error::About;

/// The oldest API version that says all we need: Engine 20.10, Debian 12's.
const OLDEST: usize = 41;
/// Seconds without any answer after which a call fails; streams are not bounded by it.
const TIMEOUT: u64 = 120;
/// Inspections under way at once.
const PARALLEL: usize = 16;

/// A connection to one Docker Engine.
#[derive(Debug, Clone)]
pub struct DockerEngine {
    client: Client,
    /// Minor version of the API: 51 is 1.51.
    api: usize,
    locks: PathBuf,
    logins: Option<Arc<dyn Logins>>,
}

/// Where the logins of registries are kept: an Engine has none, its clients send theirs along.
pub trait Logins: std::fmt::Debug + Send + Sync {
    /// What is known for a registry host (`docker.io` for Docker Hub).
    ///
    /// # Errors
    /// What keeps them cannot be asked; the text says why.
    fn login(&self, registry: &str) -> std::result::Result<Option<Login>, String>;
}

/// A login of a registry.
pub struct Login {
    /// User name.
    pub user: String,
    /// Password, or a token that stands for user and password.
    pub secret: String,
    /// It is a token.
    pub is_token: bool,
}

impl DockerEngine {
    /// Connects and settles the API version. `locks` is a directory for project locks.
    ///
    /// # Errors
    /// [`EngineError::Unreachable`] when nobody answers there, or an Engine older than 20.10 does.
    pub async fn connect(address: &DockerAddress, locks: PathBuf) -> Result<Self> {
        let url = address.url()?;
        let newest = API_DEFAULT_VERSION;
        let client = client(&url, address.tls_verify, newest)?;
        let unreachable = |reason: String| EngineError::Unreachable { engine: "docker", reason };
        let api = match client.ping().await {
            Ok(_) => newest.minor_version,
            Err(bollard::errors::Error::DockerResponseServerError { message, .. }) => {
                let known = message.rsplit("API version is 1.").next().and_then(|text| {
                    text.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok())
                });
                known.ok_or_else(|| unreachable(format!("{url}: {message}")))?
            }
            Err(error) => {
                return Err(unreachable(format!(
                    "{url}: {error}; is the Docker Engine running, and does DOCKER_HOST name it?"
                )));
            }
        };
        if api < OLDEST {
            return Err(unreachable(format!(
                "{url}: its API 1.{api} is older than 1.{OLDEST} (Engine 20.10)"
            )));
        }
        let version = ClientVersion { major_version: 1, minor_version: api };
        let client = self::client(&url, address.tls_verify, &version)?;
        Ok(Self { client, api, locks, logins: None })
    }

    /// The same, with logins for the registries that it is to pull from and push to.
    #[must_use]
    pub fn with_logins(self, logins: Arc<dyn Logins>) -> Self {
        Self { logins: Some(logins), ..self }
    }

    /// What to tell the Engine of us for the registry of an image.
    fn login(&self, reference: &str) -> Result<Option<bollard::auth::DockerCredentials>> {
        let Some(logins) = &self.logins else { return Ok(None) };
        let registry = registry_of(reference);
        let found = logins.login(registry).map_err(|reason| EngineError::Failed {
            step: format!("cannot look up the login of registry {registry}"),
            source: reason.into(),
        })?;
        Ok(found.map(|login| {
            let mut known = bollard::auth::DockerCredentials {
                serveraddress: Some(registry.to_owned()),
                ..Default::default()
            };
            if login.is_token {
                known.identitytoken = Some(login.secret);
            } else {
                known.username = Some(login.user);
                known.password = Some(login.secret);
            }
            known
        }))
    }

    /// Refuses an attribute that this Engine's API does not know.
    fn needs(&self, minor: usize, attribute: &str) -> Result<()> {
        if self.api >= minor {
            return Ok(());
        }
        Err(EngineError::Unsupported {
            engine: "docker",
            attribute: attribute.to_owned(),
            reason: format!("it needs API 1.{minor}, and this Engine's is 1.{}; update the Engine", self.api),
        })
    }

    /// Attributes by the API version that brought them (`docs/api/version-history.md` of moby).
    fn check(&self, spec: &ContainerSpec) -> Result<()> {
        if spec.health.as_ref().is_some_and(|health| health.start_interval.is_some()) {
            self.needs(44, "healthcheck.start_interval")?;
        }
        for mount in &spec.mounts {
            match &mount.source {
                MountSource::Volume { subpath: Some(_), .. } => self.needs(45, "volumes.volume.subpath")?,
                MountSource::Image { .. } => self.needs(48, "volumes of type image")?,
                MountSource::Bind { recursive: Some(_), .. } => self.needs(44, "volumes.bind.recursive")?,
                _ => {}
            }
        }
        if !spec.annotations.is_empty() {
            self.needs(43, "annotations")?;
        }
        let NetworkMode::Networks { endpoints } = &spec.network else { return Ok(()) };
        if endpoints.iter().any(|endpoint| endpoint.gw_priority != 0) {
            self.needs(48, "networks.gw_priority")?;
        }
        if endpoints.iter().any(|endpoint| endpoint.interface.is_some()) {
            self.needs(49, "networks.interface_name")?;
        }
        Ok(())
    }

    async fn inspect_image(&self, reference: &str) -> Result<Option<ImageState>> {
        match self.client.inspect_image(reference).await {
            Ok(image) => Ok(Some(state::image(image))),
            Err(error) => absent(About::new("inspect", "image", reference).error(error)),
        }
    }
}

/// A client of that address; nothing is sent yet.
fn client(url: &str, tls: bool, version: &ClientVersion) -> Result<Client> {
    let unreachable = |reason: String| EngineError::Unreachable { engine: "docker", reason };
    let client = if url.starts_with("unix://") || url.starts_with('/') {
        Client::connect_with_unix(url, TIMEOUT, version)
    } else if url.starts_with("ssh://") {
        Client::connect_with_ssh(url, TIMEOUT, version, None)
    } else if tls || url.starts_with("https://") {
        Client::connect_with_host(url)
    } else if url.starts_with("tcp://") || url.starts_with("http://") {
        Client::connect_with_http(url, TIMEOUT, version)
    } else {
        return Err(unreachable(format!(
            "`{url}` is not an address of an Engine; it begins with unix://, tcp://, https:// or ssh://"
        )));
    };
    client.map_err(|error| unreachable(format!("{url}: {error}")))
}

/// “Not found” is an answer here, not a failure.
fn absent<T>(error: EngineError) -> Result<Option<T>> {
    match error {
        EngineError::NotFound { .. } => Ok(None),
        error => Err(error),
    }
}

fn label_filter(labels: &[String]) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), labels.to_vec())])
}

async fn wait(client: &Client, container: &str) -> Result<i32> {
    let options = query::WaitContainerOptionsBuilder::default().condition("not-running").build();
    let mut answers = Box::pin(client.wait_container(container, Some(options)));
    let code = match answers.next().await {
        None => 0,
        Some(Ok(answer)) => answer.status_code,
        // bollard hands a non-zero exit over as an error.
        Some(Err(bollard::errors::Error::DockerContainerWaitError { code, .. })) => code,
        Some(Err(error)) => return Err(About::new("wait for", "container", container).error(error)),
    };
    Ok(i32::try_from(code).unwrap_or(i32::MAX))
}

/// The registry host of a reference.
fn registry_of(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((first, _)) if first == "localhost" || first.contains(['.', ':']) => first,
        _ => "docker.io",
    }
}

/// `name[:tag|@digest]` with the tag the Engine is to fetch; without one it would fetch all.
fn with_tag(reference: &str) -> String {
    let last = reference.rsplit('/').next().unwrap_or(reference);
    if last.contains(':') || reference.contains('@') {
        reference.to_owned()
    } else {
        format!("{reference}:latest")
    }
}

#[async_trait]
impl Engine for DockerEngine {
    fn name(&self) -> &'static str {
        "docker"
    }

    async fn image(&self, reference: &str, platform: Option<&str>) -> Result<Option<ImageState>> {
        let image = self.inspect_image(reference).await?;
        // An image of another platform is as good as none: it has to be pulled.
        Ok(image.filter(|image| platform.is_none_or(|want| image.platform.starts_with(want))))
    }

    async fn images(&self) -> Result<Vec<ImageState>> {
        let options = query::ListImagesOptionsBuilder::default().build();
        let list = self.client.list_images(Some(options)).await;
        let list = list.map_err(|e| About::new("list", "image", "*").error(e))?;
        let found =
            stream::iter(list.into_iter().map(|image| async move { self.inspect_image(&image.id).await }));
        let images: Vec<Option<ImageState>> = found.buffered(PARALLEL).try_collect().await?;
        Ok(images.into_iter().flatten().collect())
    }

    async fn pull(
        &self,
        reference: &str,
        platform: Option<&str>,
        progress: PullProgress<'_>,
    ) -> Result<ImageState> {
        let about = About::new("pull", "image", reference);
        let options = query::CreateImageOptionsBuilder::default()
            .from_image(&with_tag(reference))
            .platform(platform.unwrap_or_default())
            .build();
        let login = self.login(reference)?;
        let mut steps = Box::pin(self.client.create_image(Some(options), None, login));
        while let Some(step) = steps.next().await {
            let step = step.map_err(|error| about.error(error))?;
            if let Some(error) = step.error_detail {
                return Err(EngineError::Failed {
                    step: format!("cannot pull image `{reference}`"),
                    source: error.message.unwrap_or_default().into(),
                });
            }
            let detail = step.progress_detail.unwrap_or_default();
            report(progress, step.id, step.status.unwrap_or_default(), detail.current, detail.total);
        }
        self.inspect_image(reference)
            .await?
            .ok_or_else(|| EngineError::NotFound { kind: "image", name: reference.to_owned() })
    }

    async fn push(&self, reference: &str, progress: PullProgress<'_>) -> Result<()> {
        let about = About::new("push", "image", reference);
        let with_tag = with_tag(reference);
        let (name, tag) = with_tag.rsplit_once(':').unwrap_or((&with_tag, "latest"));
        let options = query::PushImageOptionsBuilder::default().tag(tag).build();
        let login = self.login(reference)?;
        let mut steps = Box::pin(self.client.push_image(name, Some(options), login));
        while let Some(step) = steps.next().await {
            let step = step.map_err(|error| about.error(error))?;
            // bollard does not say which layer a step is about.
            progress(PullEvent::Status(step.status.unwrap_or_default()));
        }
        Ok(())
    }

    async fn remote_digest(&self, reference: &str) -> Result<String> {
        let about = About::new("find out the digest of", "image", reference);
        let login = self.login(reference)?;
        let found = self.client.inspect_registry_image(&with_tag(reference), login).await;
        let found = found.map_err(|error| about.error(error))?;
        found.descriptor.digest.ok_or_else(|| EngineError::Failed {
            step: format!("cannot find out the digest of image {reference}"),
            source: "the registry does not say it".into(),
        })
    }

    async fn commit(&self, container: &str, spec: &CommitSpec) -> Result<String> {
        let mut options = query::CommitContainerOptionsBuilder::default()
            .container(container)
            .author(&spec.author)
            .comment(&spec.message)
            .pause(spec.pause);
        // None at all is another thing to the Engine than an empty list.
        if !spec.changes.is_empty() {
            options = options.changes(&spec.changes.join("\n"));
        }
        if let Some(reference) = &spec.reference {
            let with_tag = with_tag(reference);
            let (name, tag) = with_tag.rsplit_once(':').unwrap_or((&with_tag, "latest"));
            options = options.repo(name).tag(tag);
        }
        let made = self.client.commit_container(options.build(), bollard::models::ContainerConfig::default());
        let made = made.await.map_err(|e| About::new("commit", "container", container).error(e))?;
        Ok(made.id)
    }

    async fn export(&self, container: &str) -> Result<BoxStream<Result<Vec<u8>>>> {
        let name = container.to_owned();
        let pieces = self.client.export_container(container);
        let pieces = pieces.map(move |piece| match piece {
            Ok(bytes) => Ok(bytes.to_vec()),
            Err(error) => Err(About::new("export", "container", &name).error(error)),
        });
        Ok(Box::pin(pieces))
    }

    async fn remove_image(&self, reference: &str, force: bool) -> Result<()> {
        let options = query::RemoveImageOptionsBuilder::default().force(force).build();
        let done = self.client.remove_image(reference, Some(options), None).await;
        done.map(drop).map_err(|e| About::new("remove", "image", reference).error(e))
    }

    async fn build(
        &self,
        spec: &crate::spec::BuildSpec,
        _progress: crate::engine::BuildProgress<'_>,
        _stop: &tokio_util::sync::CancellationToken,
    ) -> Result<String> {
        let tags = spec.tags.join(", ");
        Err(EngineError::Unsupported {
            engine: "docker",
            attribute: "build".into(),
            reason: format!(
                "hoist does not drive BuildKit; build `{tags}` with `docker compose build`, or leave `--engine docker` out"
            ),
        })
    }

    async fn create_network(&self, spec: &NetworkSpec) -> Result<String> {
        let pools = spec
            .ipam
            .iter()
            .map(|pool| IpamConfig {
                subnet: pool.subnet.clone(),
                ip_range: pool.ip_range.clone(),
                gateway: pool.gateway.clone(),
                auxiliary_addresses: (!pool.aux_addresses.is_empty())
                    .then(|| create::map(&pool.aux_addresses)),
            })
            .collect::<Vec<_>>();
        let given = spec.ipam_driver.is_some() || !spec.ipam_options.is_empty() || !pools.is_empty();
        let request = NetworkCreateRequest {
            name: spec.name.clone(),
            driver: spec.driver.clone(),
            internal: Some(spec.internal),
            attachable: Some(spec.attachable),
            enable_ipv4: spec.enable_ipv4,
            enable_ipv6: spec.enable_ipv6,
            options: Some(create::map(&spec.driver_opts)),
            labels: Some(create::map(&spec.labels)),
            ipam: given.then(|| Ipam {
                driver: spec.ipam_driver.clone(),
                config: Some(pools),
                options: (!spec.ipam_options.is_empty()).then(|| create::map(&spec.ipam_options)),
            }),
            ..NetworkCreateRequest::default()
        };
        let made = self.client.create_network(request).await;
        made.map(|made| made.id).map_err(|e| About::new("create", "network", &spec.name).error(e))
    }

    async fn network(&self, name: &str) -> Result<Option<NetworkState>> {
        let found = match self.client.inspect_network(name, None::<query::InspectNetworkOptions>).await {
            Ok(found) => found,
            Err(error) => return absent(About::new("inspect", "network", name).error(error)),
        };
        let pools = found.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
        Ok(Some(NetworkState {
            id: found.id.unwrap_or_default(),
            name: found.name.unwrap_or_default(),
            driver: found.driver.unwrap_or_default(),
            labels: state::sorted(found.labels),
            internal: found.internal.unwrap_or(false),
            subnets: pools.into_iter().filter_map(|pool| pool.subnet).collect(),
            containers: found.containers.unwrap_or_default().into_keys().collect(),
        }))
    }

    async fn networks(&self, labels: &[String]) -> Result<Vec<NetworkState>> {
        let options = query::ListNetworksOptionsBuilder::default().filters(&label_filter(labels)).build();
        let list = self.client.list_networks(Some(options)).await;
        let list = list.map_err(|e| About::new("list", "network", "*").error(e))?;
        Ok(list
            .into_iter()
            .map(|found| NetworkState {
                id: found.id.unwrap_or_default(),
                name: found.name.unwrap_or_default(),
                driver: found.driver.unwrap_or_default(),
                labels: state::sorted(found.labels),
                internal: found.internal.unwrap_or(false),
                subnets: found
                    .ipam
                    .and_then(|ipam| ipam.config)
                    .unwrap_or_default()
                    .into_iter()
                    .filter_map(|pool| pool.subnet)
                    .collect(),
                containers: Vec::new(),
            })
            .collect())
    }

    async fn remove_network(&self, name: &str) -> Result<()> {
        let done = self.client.remove_network(name).await;
        done.map_err(|e| About::new("remove", "network", name).error(e))
    }

    async fn disconnect(&self, network: &str, container: &str, force: bool) -> Result<()> {
        let request = NetworkDisconnectRequest { container: container.to_owned(), force: Some(force) };
        let done = self.client.disconnect_network(network, request).await;
        done.map_err(|e| About::new("disconnect from", "network", network).error(e))
    }

    async fn connect(&self, container: &str, endpoint: &EndpointSpec) -> Result<()> {
        let request = NetworkConnectRequest {
            container: container.to_owned(),
            endpoint_config: Some(create::endpoint(endpoint)),
        };
        let done = self.client.connect_network(&endpoint.network, request).await;
        done.map_err(|e| About::new("connect to", "network", &endpoint.network).error(e))
    }

    async fn create_volume(&self, spec: &VolumeSpec) -> Result<()> {
        let request = VolumeCreateRequest {
            name: Some(spec.name.clone()),
            driver: spec.driver.clone(),
            driver_opts: Some(create::map(&spec.driver_opts)),
            labels: Some(create::map(&spec.labels)),
            ..VolumeCreateRequest::default()
        };
        let made = self.client.create_volume(request).await;
        made.map(drop).map_err(|e| About::new("create", "volume", &spec.name).error(e))
    }

    async fn volume(&self, name: &str) -> Result<Option<VolumeState>> {
        match self.client.inspect_volume(name).await {
            Ok(found) => Ok(Some(volume(found))),
            Err(error) => absent(About::new("inspect", "volume", name).error(error)),
        }
    }

    async fn volumes(&self, labels: &[String]) -> Result<Vec<VolumeState>> {
        let options = query::ListVolumesOptionsBuilder::default().filters(&label_filter(labels)).build();
        let list = self.client.list_volumes(Some(options)).await;
        let list = list.map_err(|e| About::new("list", "volume", "*").error(e))?;
        Ok(list.volumes.unwrap_or_default().into_iter().map(volume).collect())
    }

    async fn remove_volume(&self, name: &str) -> Result<()> {
        let done = self.client.remove_volume(name, None::<query::RemoveVolumeOptions>).await;
        done.map_err(|e| About::new("remove", "volume", name).error(e))
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<String> {
        self.check(spec)?;
        let inherited = match &spec.inherit_anonymous_from {
            None => Vec::new(),
            Some(old) => self
                .inspect(old)
                .await?
                .map(|old| old.mounts)
                .unwrap_or_default()
                .into_iter()
                .filter(|mount| mount.anonymous)
                .filter_map(|mount| Some((mount.target, mount.name?)))
                .collect(),
        };
        let options = query::CreateContainerOptionsBuilder::default()
            .name(&spec.name)
            .platform(spec.platform.as_deref().unwrap_or_default())
            .build();
        let mut body = create::body(spec, &inherited)?;
        let mut later: &[EndpointSpec] = &[];
        if self.api < 44
            && let NetworkMode::Networks { endpoints } = &spec.network
            && let Some((first, rest)) = endpoints.split_first()
        {
            // Before 1.44 a container is made with one endpoint; the others follow.
            body.networking_config = Some(create::networking(std::slice::from_ref(first)));
            later = rest;
        }
        let made = self.client.create_container(Some(options), body).await;
        let id = made.map_err(|e| About::new("create", "container", &spec.name).error(e))?.id;
        let completed = async {
            for endpoint in later {
                self.connect(&id, endpoint).await?;
            }
            self.put_files(&id, spec).await
        };
        if let Err(error) = completed.await {
            // Half-made: without its files it must not be found by a later `up`.
            drop(self.remove(&id, true, true).await);
            return Err(error);
        }
        Ok(id)
    }

    async fn start(&self, container: &str) -> Result<()> {
        let done = self.client.start_container(container, None).await;
        done.map_err(|e| About::new("start", "container", container).error(e))
    }

    async fn stop(&self, container: &str, grace: Option<Duration>) -> Result<()> {
        let options = grace.map(|grace| {
            let seconds = i32::try_from(create::seconds(grace)).unwrap_or(i32::MAX);
            query::StopContainerOptionsBuilder::default().t(seconds).build()
        });
        let done = self.client.stop_container(container, options).await;
        done.map_err(|e| About::new("stop", "container", container).error(e))
    }

    async fn kill(&self, container: &str, signal: &str) -> Result<()> {
        let options = query::KillContainerOptionsBuilder::default().signal(signal).build();
        let done = self.client.kill_container(container, Some(options)).await;
        done.map_err(|e| About::new("kill", "container", container).error(e))
    }

    async fn restart(&self, container: &str, grace: Option<Duration>) -> Result<()> {
        let options = grace.map(|grace| {
            let seconds = i32::try_from(create::seconds(grace)).unwrap_or(i32::MAX);
            query::RestartContainerOptionsBuilder::default().t(seconds).build()
        });
        let done = self.client.restart_container(container, options).await;
        done.map_err(|e| About::new("restart", "container", container).error(e))
    }

    async fn pause(&self, container: &str) -> Result<()> {
        let done = self.client.pause_container(container).await;
        done.map_err(|e| About::new("pause", "container", container).error(e))
    }

    async fn unpause(&self, container: &str) -> Result<()> {
        let done = self.client.unpause_container(container).await;
        done.map_err(|e| About::new("unpause", "container", container).error(e))
    }

    async fn remove(&self, container: &str, force: bool, volumes: bool) -> Result<()> {
        let options = query::RemoveContainerOptionsBuilder::default().force(force).v(volumes).build();
        let done = self.client.remove_container(container, Some(options)).await;
        done.map_err(|e| About::new("remove", "container", container).error(e))
    }

    async fn rename(&self, container: &str, name: &str) -> Result<()> {
        let options = query::RenameContainerOptionsBuilder::default().name(name).build();
        let done = self.client.rename_container(container, options).await;
        done.map_err(|e| About::new("rename", "container", container).error(e))
    }

    async fn inspect(&self, container: &str) -> Result<Option<ContainerState>> {
        match self.client.inspect_container(container, None).await {
            Ok(found) => Ok(Some(state::container(found))),
            Err(error) => absent(About::new("inspect", "container", container).error(error)),
        }
    }

    async fn list(&self, labels: &[String]) -> Result<Vec<ContainerState>> {
        let options =
            query::ListContainersOptionsBuilder::default().all(true).filters(&label_filter(labels)).build();
        let list = self.client.list_containers(Some(options)).await;
        let list = list.map_err(|e| About::new("list", "container", "*").error(e))?;
        // The list knows neither exit codes nor times; one that has gone meanwhile is left out.
        let ids = list.into_iter().filter_map(|container| container.id);
        let states = stream::iter(ids.map(|id| async move { self.inspect(&id).await }));
        let states: Vec<Option<ContainerState>> = states.buffered(PARALLEL).try_collect().await?;
        Ok(states.into_iter().flatten().collect())
    }

    async fn processes(&self, container: &str) -> Result<ProcessTable> {
        self.process_table(container).await
    }

    async fn usage(&self, container: &str) -> Result<Option<UsageState>> {
        self.usage_state(container).await
    }

    async fn path_state(&self, container: &str, path: &str) -> Result<Option<PathState>> {
        self.look_at_path(container, path).await
    }

    async fn pack(&self, container: &str, path: &str, sink: ArchiveSink) -> Result<()> {
        self.download(container, path, sink).await
    }

    async fn unpack(&self, container: &str, path: &str, source: ArchiveSource, as_user: bool) -> Result<()> {
        self.upload(container, path, source, as_user).await
    }

    async fn delete_paths(&self, container: &str, paths: &[String]) -> Result<()> {
        self.remove_paths(container, paths).await
    }

    async fn wait(&self, container: &str) -> Result<i32> {
        wait(&self.client, container).await
    }

    async fn lock_project(&self, project: &str, waiting: LockWaiting<'_>) -> Result<ProjectLock> {
        let path = self.locks.join(project).join("lock");
        let holder = format!("hoist (pid {})", std::process::id());
        match crate::util::lock::acquire(&path, &holder, waiting).await {
            Ok(lock) => Ok(Box::new(lock)),
            Err(error) => Err(EngineError::Failed {
                step: format!("cannot lock project `{project}`"),
                source: Box::new(error),
            }),
        }
    }

    async fn logs(&self, container: &str, options: &LogOptions) -> Result<BoxStream<Result<Vec<LogFrame>>>> {
        let seconds = |time: jiff::Timestamp| i32::try_from(time.as_second()).unwrap_or(i32::MAX);
        let mut builder = query::LogsOptionsBuilder::default()
            .follow(options.follow)
            .stdout(true)
            .stderr(true)
            .timestamps(true)
            .tail(&options.tail.map_or_else(|| "all".to_owned(), |n| n.to_string()));
        if let Some(since) = options.since {
            builder = builder.since(seconds(since));
        }
        if let Some(until) = options.until {
            builder = builder.until(seconds(until).saturating_add(1));
        }
        let frames =
            streams::frames(self.client.logs(container, Some(builder.build())), container.to_owned());
        // The call takes whole seconds; the rest is cut here.
        let (since, until) = (options.since, options.until);
        Ok(Box::pin(frames.map_ok(move |mut batch| {
            batch.retain(|frame| {
                since.is_none_or(|since| frame.time >= since) && until.is_none_or(|until| frame.time <= until)
            });
            batch
        })))
    }

    async fn events(
        &self,
        labels: &[String],
        since: Option<jiff::Timestamp>,
    ) -> Result<BoxStream<Result<EngineEvent>>> {
        let mut filters = label_filter(labels);
        filters.insert("type".to_owned(), vec!["container".to_owned()]);
        let mut builder = query::EventsOptionsBuilder::default().filters(&filters);
        // Without a start the subscription begins when the Engine gets to it;
        // with the present moment nothing between this call and that is lost.
        let from = since.unwrap_or_else(jiff::Timestamp::now);
        builder = builder.since(&format!("{}.{:09}", from.as_second(), from.subsec_nanosecond()));
        let events = self.client.events(Some(builder.build()));
        let client = self.client.clone();
        Ok(Box::pin(events.filter_map(move |event| {
            let client = client.clone();
            async move {
                match event {
                    Ok(event) => Some(Ok(say_whether_restarting(&client, state::event(event)?).await)),
                    Err(error) => Some(Err(error::unreachable_or_failed("cannot follow the events", error))),
                }
            }
        })))
    }

    async fn exec(&self, container: &str, spec: &ExecSpec) -> Result<Attached> {
        let about = About::new("run a process in", "container", container);
        let config = CreateExecOptions {
            attach_stdin: Some(spec.stdin && !spec.detach),
            attach_stdout: Some(!spec.detach),
            attach_stderr: Some(!spec.detach),
            tty: Some(spec.tty),
            env: Some(create::environment(&spec.env)),
            cmd: Some(spec.command.clone()),
            privileged: Some(spec.privileged),
            user: spec.user.clone(),
            working_dir: spec.working_dir.clone(),
            detach_keys: None,
        };
        let id = self.client.create_exec(container, config).await.map_err(|e| about.error(e))?.id;
        let options = StartExecOptions { detach: spec.detach, tty: spec.tty, output_capacity: None };
        let started = self.client.start_exec(&id, Some(options)).await.map_err(|e| about.error(e))?;
        let target = streams::Target::Exec(id);
        Ok(match started {
            StartExecResults::Attached { output, input } => {
                let input = spec.stdin.then_some(input);
                streams::attached(self.client.clone(), output, input, spec.tty, target)
            }
            StartExecResults::Detached => {
                streams::attached(self.client.clone(), Box::pin(stream::empty()), None, spec.tty, target)
            }
        })
    }

    async fn attach(&self, container: &str, stdin: bool) -> Result<Attached> {
        let about = About::new("attach to", "container", container);
        let state = self.client.inspect_container(container, None).await.map_err(|e| about.error(e))?;
        let tty = state.config.and_then(|config| config.tty).unwrap_or(false);
        let options = query::AttachContainerOptionsBuilder::default()
            .stream(true)
            .stdout(true)
            .stderr(true)
            .stdin(stdin)
            .build();
        let streams =
            self.client.attach_container(container, Some(options)).await.map_err(|e| about.error(e))?;
        let target = streams::Target::Container(container.to_owned());
        Ok(streams::attached(
            self.client.clone(),
            streams.output,
            stdin.then_some(streams.input),
            tty,
            target,
        ))
    }
}

impl DockerEngine {
    /// Copies secrets and configs given by value into a made container, as a tar archive.
    async fn put_files(&self, id: &str, spec: &ContainerSpec) -> Result<()> {
        if spec.files.is_empty() {
            return Ok(());
        }
        let failed = |source: std::io::Error| EngineError::Failed {
            step: format!("cannot copy secrets and configs into container `{}`", spec.name),
            source: Box::new(source),
        };
        let mut archive = tar::Builder::new(Vec::new());
        for file in &spec.files {
            let mut header = tar::Header::new_gnu();
            header.set_size(file.content.len() as u64);
            header.set_mode(file.mode);
            header.set_uid(u64::from(file.uid));
            header.set_gid(u64::from(file.gid));
            let path = file.target.trim_start_matches('/');
            archive.append_data(&mut header, path, file.content.as_slice()).map_err(failed)?;
        }
        let bytes = archive.into_inner().map_err(failed)?;
        let options = query::UploadToContainerOptionsBuilder::default().path("/").copy_uidgid("true").build();
        let done = self.client.upload_to_container(id, Some(options), bollard::body_full(bytes.into())).await;
        done.map_err(|e| About::new("copy files into", "container", &spec.name).error(e))
    }
}

/// A `die` says whether the policy starts the container again only in the container's state.
async fn say_whether_restarting(client: &Client, mut event: EngineEvent) -> EngineEvent {
    if let super::EventAction::Die { restarting, .. } = &mut event.action
        && let Ok(now) = client.inspect_container(&event.id, None).await
    {
        let policy = now.host_config.and_then(|host| host.restart_policy).and_then(|policy| policy.name);
        let state = now.state.unwrap_or_default();
        *restarting = state.restarting.unwrap_or(false)
            || state.running.unwrap_or(false)
                && !matches!(policy, None | Some(bollard::models::RestartPolicyNameEnum::NO));
    }
    event
}

fn volume(found: bollard::models::Volume) -> VolumeState {
    VolumeState {
        name: found.name,
        driver: found.driver,
        labels: found.labels.into_iter().collect(),
        options: found.options.into_iter().collect(),
        mountpoint: found.mountpoint,
        created: state::time(found.created_at.as_deref()),
    }
}

/// The step words that the renderer knows.
/// Passes a step of the Engine's progress on.
fn report(
    progress: PullProgress<'_>,
    id: Option<String>,
    status: String,
    current: Option<i64>,
    total: Option<i64>,
) {
    let (Some(id), Some(text)) = (id, layer_text(&status)) else {
        return progress(PullEvent::Status(status));
    };
    let bytes = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok());
    progress(PullEvent::Layer { id, text, current: bytes(current).unwrap_or(0), total: bytes(total) });
}

fn layer_text(status: &str) -> Option<&'static str> {
    [
        "Pulling fs layer",
        "Waiting",
        "Downloading",
        "Verifying Checksum",
        "Download complete",
        "Extracting",
        "Pull complete",
        "Already exists",
    ]
    .into_iter()
    .find(|text| *text == status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_without_a_tag_means_latest() {
        assert_eq!(with_tag("busybox"), "busybox:latest");
        assert_eq!(with_tag("localhost:5000/x"), "localhost:5000/x:latest");
        assert_eq!(with_tag("x:1"), "x:1");
        assert_eq!(with_tag("x@sha256:00"), "x@sha256:00");
    }

    #[test]
    fn the_registry_is_what_looks_like_a_host() {
        for (reference, registry) in [
            ("busybox", "docker.io"),
            ("user/app:1", "docker.io"),
            ("localhost/app", "localhost"),
            ("localhost:5000/app", "localhost:5000"),
            ("ghcr.io/a/b", "ghcr.io"),
        ] {
            assert_eq!(registry_of(reference), registry, "{reference}");
        }
    }
}
