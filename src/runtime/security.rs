//! Isolation settings of a spec, settled: capabilities, paths, filter.

use crate::runtime::error::{Result, RuntimeError};
use crate::runtime::init::{self, CapabilitySets, SeccompProgram};
use crate::runtime::seccomp::{self, Arch, Profile};
use crate::runtime::start::capability_sets;
use crate::spec::ContainerSpec;

/// What a container's processes may do.
#[derive(Debug, Clone)]
pub(super) struct Security {
    pub(super) capabilities: CapabilitySets,
    pub(super) seccomp: Option<SeccompProgram>,
    pub(super) no_new_privileges: bool,
    pub(super) masked_paths: Vec<String>,
    pub(super) readonly_paths: Vec<String>,
}

/// Settles capabilities, `security_opt` and paths.
///
/// # Errors
/// [`RuntimeError::Invalid`] for names that do not exist; [`RuntimeError::Unsupported`] for modules that are not built in.
pub(super) fn resolve(spec: &ContainerSpec) -> Result<Security> {
    let privileged = spec.security.privileged;
    let invalid = |reason: String| RuntimeError::Invalid { container: spec.name.clone(), reason };
    let mut no_new_privileges = false;
    let mut profile: Option<&str> = None;
    let mut confined_paths = !privileged;
    for option in &spec.security.security_opt {
        // Docker takes `=` and, for old files, `:`.
        let (key, value) = match option.split_once('=').or_else(|| option.split_once(':')) {
            Some((key, value)) => (key, value),
            None => (option.as_str(), ""),
        };
        match (key, value) {
            ("no-new-privileges", "" | "true") => no_new_privileges = true,
            ("no-new-privileges", "false") => no_new_privileges = false,
            ("seccomp", text) => profile = Some(text),
            ("systempaths", "unconfined") => confined_paths = false,
            ("apparmor", "unconfined") | ("label", "disable") => {}
            ("apparmor" | "label", _) => {
                return Err(RuntimeError::Unsupported {
                    container: spec.name.clone(),
                    attribute: format!("security_opt: {option}"),
                    reason:
                        "this build knows neither AppArmor nor SELinux; leave it out or use the docker engine"
                            .into(),
                });
            }
            _ => return Err(invalid(format!("`{option}` is no security option"))),
        }
    }
    let capabilities = capability_sets(spec, privileged)?;
    let profile = match profile {
        Some("unconfined") => Profile::Unconfined,
        None if privileged => Profile::Unconfined,
        None | Some("" | "builtin") => Profile::Default,
        Some(text) => Profile::Custom(text),
    };
    let seccomp = match Arch::native() {
        Some(arch) => seccomp::compile(profile, capabilities.bounding, arch)
            .map_err(|e| invalid(crate::runtime::error::chain(&e)))?,
        None => None,
    };
    let paths = |list: &[&str]| {
        if confined_paths { list.iter().map(|p| (*p).to_owned()).collect() } else { Vec::new() }
    };
    Ok(Security {
        capabilities,
        seccomp,
        no_new_privileges,
        masked_paths: paths(init::MASKED_PATHS),
        readonly_paths: paths(init::READONLY_PATHS),
    })
}
