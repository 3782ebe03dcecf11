//! Label keys shared with Docker Compose, so that either tool sees the other's resources.

/// Name of the project a resource belongs to.
pub const PROJECT: &str = "com.docker.compose.project";
/// Service of a container or built image.
pub const SERVICE: &str = "com.docker.compose.service";
/// Hex SHA-256 of the configuration ([`super::hash`]).
pub const CONFIG_HASH: &str = "com.docker.compose.config-hash";
/// Number of a replica, from 1.
pub const CONTAINER_NUMBER: &str = "com.docker.compose.container-number";
/// `True` for containers made by `run`, else `False`.
pub const ONE_OFF: &str = "com.docker.compose.oneoff";
/// Random id of a one-off container.
pub const SLUG: &str = "com.docker.compose.slug";
/// Digest of the image a container was made from.
pub const IMAGE: &str = "com.docker.compose.image";
/// `target=digest,…` of image mounts, sorted.
pub const IMAGE_VOLUME_DIGEST: &str = "com.docker.compose.image-volume-digest";
/// `service:condition:restart` joined by commas.
pub const DEPENDS_ON: &str = "com.docker.compose.depends_on";
/// Absolute project directory.
pub const WORKING_DIR: &str = "com.docker.compose.project.working_dir";
/// Absolute compose files joined by commas.
pub const CONFIG_FILES: &str = "com.docker.compose.project.config_files";
/// Env files joined by commas, if any were given.
pub const ENVIRONMENT_FILE: &str = "com.docker.compose.project.environment_file";
/// Version of the tool.
pub const VERSION: &str = "com.docker.compose.version";
/// Name of the container this one replaced.
pub const REPLACE: &str = "com.docker.compose.replace";
/// Key of a network in the model.
pub const NETWORK: &str = "com.docker.compose.network";
/// Key of a volume in the model.
pub const VOLUME: &str = "com.docker.compose.volume";
/// Set on `pre_start` containers.
pub const HOOK: &str = "com.docker.compose.hook";
