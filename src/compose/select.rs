//! Which services take part: profiles, names on the command line, dependencies; and what is then unused.
//!
//! Source: `reference/model.md` §9.

use std::collections::{BTreeMap, BTreeSet};

use crate::diagnostic::{Diagnostic, suggest};
use crate::model::{Project, Service};

/// Moves services that no active profile enables to [`Project::disabled`].
pub(super) fn profiles(project: &mut Project) {
    let active = project.profiles.clone();
    let all = active.iter().any(|p| p == "*");
    // With none given, the profile without a name is active, as in Docker Compose.
    let nameless = |p: &String| active.is_empty() && p.is_empty();
    let enabled = |s: &Service| {
        all || s.profiles.is_empty() || s.profiles.iter().any(|p| active.contains(p) || nameless(p))
    };
    let services = std::mem::take(&mut project.services);
    let parked = std::mem::take(&mut project.disabled);
    for (name, service) in services.into_iter().chain(parked) {
        if enabled(&service) {
            project.services.insert(name, service);
        } else {
            project.disabled.insert(name, service);
        }
    }
}

/// Activates the profiles of services named on the command line.
pub(super) fn activate(project: &mut Project, names: &[String]) {
    let mut more: Vec<String> = Vec::new();
    for name in names {
        if let Some(service) = project.disabled.get(name) {
            more.extend(service.profiles.iter().cloned());
        }
    }
    if !more.is_empty() {
        for profile in more {
            if !project.profiles.contains(&profile) {
                project.profiles.push(profile);
            }
        }
        profiles(project);
    }
}

/// Keeps the named services (globs allowed) and, unless `no_deps`, what they depend on.
pub(super) fn select(project: &mut Project, names: &[String], no_deps: bool, out: &mut Vec<Diagnostic>) {
    if names.is_empty() {
        return;
    }
    let mut wanted: Vec<String> = Vec::new();
    for name in names {
        if name.contains(['*', '?', '['])
            && let Ok(glob) = globset::Glob::new(name)
        {
            let glob = glob.compile_matcher();
            let found: Vec<String> = project.services.keys().filter(|k| glob.is_match(k)).cloned().collect();
            if !found.is_empty() {
                wanted.extend(found);
                continue;
            }
        }
        if project.services.contains_key(name) {
            wanted.push(name.clone());
        } else {
            let mut d = Diagnostic::error("no-such-service", format!("no such service: {name}"));
            if let Some(near) = suggest::nearest(name, project.services.keys().map(String::as_str)) {
                d = d.help(format!("did you mean `{near}`?"));
            }
            out.push(d);
        }
    }
    let mut kept: BTreeSet<String> = BTreeSet::new();
    while let Some(name) = wanted.pop() {
        if !kept.insert(name.clone()) || no_deps {
            continue;
        }
        if let Some(service) = project.services.get(&name) {
            for (other, dependency) in &service.depends_on {
                if project.services.contains_key(other) {
                    wanted.push(other.clone());
                } else if dependency.required {
                    out.push(Diagnostic::error("no-such-service", format!("no such service: {other}")));
                }
            }
        }
    }
    let services = std::mem::take(&mut project.services);
    for (name, mut service) in services {
        if kept.contains(&name) {
            service.depends_on.retain(|other, _| kept.contains(other));
            project.services.insert(name, service);
        } else {
            project.disabled.insert(name, service);
        }
    }
}

/// Drops networks, volumes and so on that no enabled service uses.
pub(super) fn prune(project: &mut Project) {
    let (mut networks, mut volumes, mut secrets, mut configs, mut models) =
        (BTreeSet::new(), BTreeSet::new(), BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for s in project.services.values() {
        networks.extend(s.networks.keys().cloned());
        volumes.extend(
            s.volumes.iter().filter(|v| v.kind.as_deref() == Some("volume")).filter_map(|v| v.source.clone()),
        );
        secrets.extend(s.secrets.iter().filter_map(|f| f.source.clone()));
        if let Some(build) = &s.build {
            secrets.extend(build.secrets.iter().filter_map(|f| f.source.clone()));
        }
        configs.extend(s.configs.iter().filter_map(|f| f.source.clone()));
        models.extend(s.models.keys().cloned());
    }
    keep(&mut project.networks, &networks);
    keep(&mut project.volumes, &volumes);
    keep(&mut project.secrets, &secrets);
    keep(&mut project.configs, &configs);
    keep(&mut project.models, &models);
}

fn keep<T>(map: &mut BTreeMap<String, T>, used: &BTreeSet<String>) {
    map.retain(|k, _| used.contains(k));
}
