//! Checks across services and resources.
//!
//! Source: `reference/model.md` §14, consistency stage. Messages point into the
//! canonical tree, whose values know the file they came from.

use std::collections::BTreeMap;

use crate::diagnostic::{Diagnostic, Span, suggest};
use crate::model::{Project, Service};

use super::document::Node;
use super::tree::locate;

struct Check<'a> {
    project: &'a Project,
    root: &'a Node,
    out: &'a mut Vec<Diagnostic>,
}

/// Logs every inconsistency of the enabled services.
pub(super) fn consistency(project: &Project, root: &Node, out: &mut Vec<Diagnostic>) {
    let mut check = Check { project, root, out };
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, service) in &project.services {
        check.service(name, service);
        if let Some(container) = &service.container_name
            && let Some(other) = names.insert(container, name)
        {
            let at = check.key(&["services", name, "container_name"]);
            let there = check.key(&["services", other, "container_name"]);
            check.out.push(
                Diagnostic::error(
                    "container-name-taken",
                    format!(
                        "services.{name}: container name \"{container}\" is already in use by service {other}"
                    ),
                )
                .at(at, "must be unique")
                .also(there, "used here"),
            );
        }
    }
    for (name, secret) in &project.secrets {
        if !secret.external
            && secret.file.is_none()
            && secret.environment.is_none()
            && secret.content.is_none()
        {
            let at = check.key(&["secrets", name]);
            check.out.push(
                Diagnostic::error(
                    "missing-key",
                    format!("secret \"{name}\" must declare either `file` or `environment`: invalid compose project"),
                )
                .at(at, "says nothing about its value"),
            );
        }
    }
    check.cycle();
}

fn near<'k>(name: &str, keys: impl IntoIterator<Item = &'k String>) -> Option<&'k str> {
    suggest::nearest(name, keys.into_iter().map(String::as_str))
}

impl Check<'_> {
    fn key(&self, path: &[&str]) -> Span {
        locate(self.root, path, true)
    }

    fn error(&mut self, code: &'static str, path: &[&str], message: String, note: &str) {
        let at = locate(self.root, path, path.len() < 3);
        self.out.push(Diagnostic::error(code, message).at(at, note.to_owned()));
    }

    fn undefined<T>(
        &mut self,
        name: &str,
        path: &[&str],
        word: &str,
        code: &'static str,
        wanted: &str,
        section: (&str, &BTreeMap<String, T>),
    ) {
        if section.1.contains_key(wanted) {
            return;
        }
        let at = locate(self.root, path, true);
        let mut d = Diagnostic::error(
            code,
            format!("service \"{name}\" refers to undefined {word} {wanted}: invalid compose project"),
        )
        .at(at, format!("not found under top-level `{}`", section.0));
        if let Some(similar) = near(wanted, section.1.keys()) {
            d = d
                .also(locate(self.root, &[section.0, similar], true), "a similar name is declared here")
                .help(format!("did you mean `{similar}`?"));
        } else {
            d = d.help(format!("declare it: add `{wanted}:` below a top-level `{}:`", section.0));
        }
        self.out.push(d);
    }

    #[expect(clippy::cognitive_complexity, reason = "a flat list of independent rules")]
    fn service(&mut self, name: &str, s: &Service) {
        let p = ["services", name];
        if s.image.is_none() && s.build.is_none() && s.provider.is_none() {
            self.error(
                "no-image",
                &p,
                format!("service \"{name}\" has neither an image nor a build context specified: invalid compose project"),
                "add `image` or `build`",
            );
        }
        if let Some(build) = &s.build {
            if build.dockerfile.is_some() && build.dockerfile_inline.is_some() {
                self.error(
                    "conflicting-keys",
                    &["services", name, "build", "dockerfile_inline"],
                    format!(
                        "service \"{name}\" declares mutualy exclusive dockerfile and dockerfile_inline: invalid compose project"
                    ),
                    "remove one",
                );
            }
            for (key, context) in &build.additional_contexts {
                let Some(other) = context.strip_prefix("service:") else { continue };
                let path = ["services", name, "build", "additional_contexts", key];
                match self.project.services.get(other).or_else(|| self.project.disabled.get(other)) {
                    None => self.error(
                        "undefined-service",
                        &path,
                        format!("service \"{name}\" declares unknown service \"{other}\" as additional contexts {key}"),
                        "no such service",
                    ),
                    Some(t) if t.build.is_none() => self.error(
                        "no-build",
                        &path,
                        format!("service \"{name}\" declares non-buildable service \"{other}\" as additional contexts {key}"),
                        "has no `build`",
                    ),
                    Some(_) => {}
                }
            }
            if let Some(platform) = &s.platform
                && !build.platforms.is_empty()
                && !build.platforms.contains(platform)
            {
                self.error(
                    "platform-mismatch",
                    &["services", name, "platform"],
                    format!(
                        "service.build.platforms MUST include service.platform \"{platform}\": invalid compose project"
                    ),
                    "not among the platforms of the build",
                );
            }
            for secret in &build.secrets {
                let source = secret.source.clone().unwrap_or_default();
                let path = ["services", name, "build", "secrets", &source];
                self.undefined(
                    name,
                    &path,
                    "build secret",
                    "undefined-secret",
                    &source,
                    ("secrets", &self.project.secrets),
                );
            }
        }
        if let Some(mode) = &s.network_mode {
            if !s.networks.is_empty() {
                self.error(
                    "conflicting-keys",
                    &["services", name, "network_mode"],
                    format!(
                        "service {name} declares mutually exclusive `network_mode` and `networks`: invalid compose project"
                    ),
                    "remove one",
                );
            }
            if let Some(other) = mode.strip_prefix("service:") {
                self.dependency(name, other, "network_mode");
            }
        }
        for (key, value) in [("ipc", &s.ipc), ("pid", &s.pid), ("uts", &s.uts)] {
            if let Some(other) = value.as_ref().and_then(|v| v.strip_prefix("service:")) {
                self.dependency(name, other, key);
            }
        }
        for network in s.networks.keys() {
            let path = ["services", name, "networks", network];
            let declared = ("networks", &self.project.networks);
            self.undefined(name, &path, "network", "undefined-network", network, declared);
        }
        for (other, d) in &s.depends_on {
            if !self.project.services.contains_key(other)
                && (d.required || !self.project.disabled.contains_key(other))
            {
                self.depends(name, other);
            }
        }
        if let Some(h) = &s.healthcheck
            && let Some(first) = h.test.first()
            && !matches!(first.as_str(), "CMD" | "CMD-SHELL" | "NONE")
        {
            self.error(
                "invalid-healthcheck",
                &["services", name, "healthcheck", "test"],
                "healthcheck.test must start either by \"CMD\", \"CMD-SHELL\" or \"NONE\"".to_owned(),
                "add one of them as the first word",
            );
        }
        for (index, volume) in s.volumes.iter().enumerate() {
            if volume.kind.as_deref() == Some("volume")
                && let Some(source) = &volume.source
            {
                let index = index.to_string();
                let path = ["services", name, "volumes", &index, "source"];
                let declared = ("volumes", &self.project.volumes);
                self.undefined(name, &path, "volume", "undefined-volume", source, declared);
            }
        }
        for (index, file) in s.secrets.iter().enumerate() {
            let (source, index) = (file.source.clone().unwrap_or_default(), index.to_string());
            let path = ["services", name, "secrets", &index, "source"];
            let declared = ("secrets", &self.project.secrets);
            self.undefined(name, &path, "secret", "undefined-secret", &source, declared);
        }
        for (index, file) in s.configs.iter().enumerate() {
            let (source, index) = (file.source.clone().unwrap_or_default(), index.to_string());
            let path = ["services", name, "configs", &index, "source"];
            let declared = ("configs", &self.project.configs);
            self.undefined(name, &path, "config", "undefined-config", &source, declared);
        }
        for model in s.models.keys() {
            let path = ["services", name, "models", model];
            self.undefined(name, &path, "model", "undefined-model", model, ("models", &self.project.models));
        }
        self.amounts(name, s);
        self.mounts(name, s);
        if let Some(develop) = &s.develop {
            for (index, rule) in develop.watch.iter().enumerate() {
                if rule.target.is_none()
                    && !matches!(rule.action.as_deref(), Some("rebuild" | "restart") | None)
                {
                    let index = index.to_string();
                    self.error(
                        "missing-key",
                        &["services", name, "develop", "watch", &index],
                        format!("services.{name}.develop.watch: target is required for non-rebuild actions"),
                        "`target` is missing",
                    );
                }
            }
        }
    }

    fn depends(&mut self, name: &str, other: &str) {
        let at = locate(self.root, &["services", name, "depends_on", other], true);
        let mut d = Diagnostic::error(
            "undefined-service",
            format!("service \"{name}\" depends on undefined service \"{other}\": invalid compose project"),
        )
        .at(at, "no such service");
        if let Some(disabled) = self.project.disabled.get(other) {
            d = d
                .also(self.key(&["services", other]), "declared here, but no active profile enables it")
                .help(format!("enable it with `--profile {}`", disabled.profiles.join("` or `--profile ")));
        } else if let Some(similar) = near(other, self.project.services.keys()) {
            d = d
                .also(self.key(&["services", similar]), "a similar name is declared here")
                .help(format!("did you mean `{similar}`?"));
        }
        self.out.push(d);
    }

    fn dependency(&mut self, name: &str, other: &str, key: &str) {
        if !self.project.services.contains_key(other)
            && !self.project.services[name].depends_on.contains_key(other)
        {
            self.error(
                "undefined-service",
                &["services", name, key],
                format!(
                    "service \"{name}\" refers to undefined service \"{other}\": invalid compose project"
                ),
                "no such service",
            );
        }
    }

    fn amounts(&mut self, name: &str, s: &Service) {
        let replicas = s.deploy.as_ref().and_then(|d| d.replicas);
        if let (Some(scale), Some(replicas)) = (s.scale, replicas)
            && scale != replicas
        {
            self.error(
                "conflicting-keys",
                &["services", name, "scale"],
                format!("services.{name}: can't set distinct values on 'scale' and 'deploy.replicas': invalid compose project"),
                "remove one",
            );
        }
        let wanted = s.replicas();
        if wanted < 0 {
            let key = if s.scale.is_some() { "scale" } else { "deploy" };
            self.error(
                "out-of-range",
                &["services", name, key],
                format!("services.{name}.scale: must be greater than or equal to 0"),
                "must not be negative",
            );
        }
        if s.container_name.is_some() && wanted > 1 {
            self.error(
                "conflicting-keys",
                &["services", name, "container_name"],
                format!(
                    "services.{name}: can't set container_name and scale (deploy.replicas) as container name must be unique"
                ),
                "several containers cannot share a name",
            );
        }
        let resources = s.deploy.as_ref().map(|d| &d.resources);
        let limits = resources.and_then(|r| r.limits.as_ref());
        let reserved = resources.and_then(|r| r.reservations.as_ref());
        let mut distinct = |key: &'static str, twin: &str, differ: bool| {
            if differ {
                self.error(
                    "conflicting-keys",
                    &["services", name, key],
                    format!(
                        "services.{name}: can't set distinct values on '{key}' and 'deploy.resources.{twin}': invalid compose project"
                    ),
                    "remove one",
                );
            }
        };
        if let Some(limits) = limits {
            distinct("cpus", "limits.cpus", s.cpus != 0.0 && s.cpus.to_bits() != limits.cpus.to_bits());
            distinct("mem_limit", "limits.memory", s.mem_limit.0 != 0 && s.mem_limit != limits.memory);
            distinct("pids_limit", "limits.pids", s.pids_limit != 0 && s.pids_limit != limits.pids);
        }
        if let Some(reserved) = reserved {
            let differ = s.mem_reservation.0 != 0 && s.mem_reservation != reserved.memory;
            distinct("mem_reservation", "reservations.memory", differ);
        }
    }

    fn mounts(&mut self, name: &str, s: &Service) {
        let mut seen: BTreeMap<&str, String> = BTreeMap::new();
        for (index, volume) in s.volumes.iter().enumerate() {
            let Some(target) = volume.target.as_deref() else { continue };
            if seen.insert(target, format!("services.{name}.volumes[{index}]")).is_some() {
                let index = index.to_string();
                self.error(
                    "mount-conflict",
                    &["services", name, "volumes", &index],
                    format!("services.{name}.volumes[{index}]: target {target} already mounted"),
                    "something is mounted there already",
                );
            }
        }
        for (index, tmpfs) in s.tmpfs.iter().enumerate() {
            let target = tmpfs.split(':').next().unwrap_or_default();
            if let Some(other) = seen.insert(target, format!("services.{name}.tmpfs[{index}]")) {
                let index = index.to_string();
                self.error(
                    "mount-conflict",
                    &["services", name, "tmpfs", &index],
                    format!("services.{name}.tmpfs[{index}]: target {target} already mounted as {other}"),
                    "something is mounted there already",
                );
            }
        }
    }

    /// Depth first over `depends_on`; the first cycle found is shown as a path.
    fn cycle(&mut self) {
        #[derive(Clone, Copy, PartialEq)]
        enum Mark {
            Open,
            Done,
        }
        let project = self.project;
        let mut marks: BTreeMap<&str, Mark> = BTreeMap::new();
        for start in project.services.keys() {
            if marks.contains_key(start.as_str()) {
                continue;
            }
            marks.insert(start, Mark::Open);
            let first = project.services[start].depends_on.keys().collect::<Vec<_>>();
            let mut stack = vec![(start.as_str(), first.into_iter())];
            while let Some((name, rest)) = stack.last_mut() {
                let name = *name;
                match rest.next() {
                    None => {
                        marks.insert(name, Mark::Done);
                        stack.pop();
                    }
                    Some(next) => match marks.get(next.as_str()) {
                        Some(Mark::Done) => {}
                        Some(Mark::Open) => {
                            let from = stack.iter().position(|(n, _)| n == next).unwrap_or(0);
                            let mut path: Vec<&str> = stack[from..].iter().map(|(n, _)| *n).collect();
                            path.push(next);
                            let mut d = Diagnostic::error(
                                "dependency-cycle",
                                format!("dependency cycle detected: {}", path.join(" -> ")),
                            );
                            for (number, pair) in path.windows(2).enumerate() {
                                let at =
                                    locate(self.root, &["services", pair[0], "depends_on", pair[1]], true);
                                let text = format!("`{}` waits for `{}`", pair[0], pair[1]);
                                d = if number == 0 { d.at(at, text) } else { d.also(at, text) };
                            }
                            self.out.push(d.help("remove one of these dependencies"));
                            return;
                        }
                        None => {
                            if let Some(service) = project.services.get(next) {
                                marks.insert(next, Mark::Open);
                                let deps = service.depends_on.keys().collect::<Vec<_>>();
                                stack.push((next, deps.into_iter()));
                            }
                        }
                    },
                }
            }
        }
    }
}
