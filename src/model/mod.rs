//! The Compose model in canonical form: what a project is once files, short forms and defaults are gone.
//!
//! Types only: no file is read here and nothing knows where in a file a value
//! stood. `compose` decodes a [`Project`] from a tree ([`record::Source`]),
//! `config` renders it ([`record::Style`]), `plan` lowers it to specs.
//!
//! Field order is the order of Docker Compose's output, and [`record::Field::omit`]
//! its rule for leaving a field out; the compact JSON rendering of a [`Service`] is
//! what the config hash is taken of ([`hash`]).
//!
//! Conventions: an empty string in a file is `None`; a plain integer of 0 is unset
//! (as in Docker Compose); `Option` of a number or flag tells given from not given.

pub mod hash;
pub mod json;
pub mod labels;
mod project;
pub mod record;
mod scalar;
mod service;
mod value;

pub use project::{Config, Ipam, IpamPool, Model, Network, Project, Secret, Volume, default_image_name};
pub use scalar::{
    Bytes, Command, DeviceCount, Duration, FileMode, Gpu, Hosts, Ratio, SshKey, SshKeys, Ulimit, go_float,
    go_float32,
};
pub use service::{
    Blkio, BlkioRate, BlkioWeight, Build, BuildSecret, CredentialSpec, Dependency, DependsOn, Deploy,
    Develop, Device, DeviceRequest, DiscreteResource, Endpoint, EnvFile, GenericResource, Healthcheck, Hook,
    Logging, Mount, MountBind, MountImage, MountTmpfs, MountVolume, Placement, PlacementPreference, Port,
    Provider, Resource, Resources, RestartPolicy, RolloutConfig, Service, ServiceFile, ServiceModel,
    UpdateConfig, Watch, WatchExec,
};
pub use value::{Extensions, Value};

use std::collections::BTreeMap;

/// Labels, annotations, sysctls: names to text.
pub type Labels = BTreeMap<String, String>;
/// Options of a driver.
pub type Options = BTreeMap<String, String>;
/// Variables; `None` is “take it from outside, and it is not set there”.
pub type Environment = BTreeMap<String, Option<String>>;
