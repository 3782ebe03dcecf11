//! Checks across services and resources.
//!
//! Source: `reference/model.md` §14, consistency stage. Messages point into the
//! canonical tree, whose values know the file they came from.

use std::collections::BTreeMap;

use crate::diagnostic::{Diagnostic, SourceMap, Span, suggest};
use crate::model::{Project, Service};

use super::damage::Damage;
use super::document::Node;
use super::tree::locate;

struct Check<'a> {
    project: &'a Project,
    root: &'a Node,
    sources: &'a SourceMap,
    damage: &'a Damage,
    out: &'a mut Vec<Diagnostic>,
}

/// Logs every inconsistency of the enabled services, but for what only follows from mistakes logged already.
pub(super) fn consistency(
    project: &Project,
    root: &Node,
    sources: &SourceMap,
    damage: &Damage,
    out: &mut Vec<Diagnostic>,
) {
    if damage.incomplete {
        return;
    }
    let mut check = Check { project, root, sources, damage, out };
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
                        "service `{name}` has the container name `{container}`, as has service `{other}`"
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
            && !damage.touches("secrets", name)
        {
            let at = check.key(&["secrets", name]);
            check.out.push(
                Diagnostic::error(
                    "missing-key",
                    format!("secret `{name}` has neither `file` nor `environment`"),
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
        // Of a short form such as `data:/var/lib/data`, the name alone.
        let whole = locate(self.root, path, true);
        let text = self.sources.snippet(whole);
        let at = text.find(wanted).map_or(whole, |from| whole.part(from, from + wanted.len()));
        let mut d = Diagnostic::error(
            code,
            format!("service `{name}` uses {word} `{wanted}`, which is not declared"),
        )
        .at(at, format!("not found under top-level `{}`", section.0));
        if let Some(similar) = near(wanted, section.1.keys()) {
            d = d
                .also(locate(self.root, &[section.0, similar], true), "a similar name is declared here")
                .help(format!("did you mean `{similar}`?"));
        } else if section.0 == "volumes" && wanted.contains('/') {
            d = d.help(format!("write `./{wanted}` if a directory beside the file is meant"));
        } else {
            d = d.help(format!("declare it: add `{wanted}:` below a top-level `{}:`", section.0));
        }
        self.out.push(d);
    }

    #[expect(clippy::cognitive_complexity, reason = "a flat list of independent rules")]
    fn service(&mut self, name: &str, s: &Service) {
        let p = ["services", name];
        let whole = !self.damage.touches("services", name);
        if s.image.is_none() && s.build.is_none() && s.provider.is_none() && whole {
            self.error(
                "no-image",
                &p,
                format!("service `{name}` has neither `image` nor `build`"),
                "add `image` or `build`",
            );
        }
        if let Some(build) = &s.build {
            if build.dockerfile.is_some() && build.dockerfile_inline.is_some() {
                self.error(
                    "conflicting-keys",
                    &["services", name, "build", "dockerfile_inline"],
                    format!("service `{name}` has both `dockerfile` and `dockerfile_inline`"),
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
                        format!("service `{name}` builds with service `{other}` as context `{key}`, and that does not exist"),
                        "no such service",
                    ),
                    Some(t) if t.build.is_none() => self.error(
                        "no-build",
                        &path,
                        format!("service `{name}` builds with service `{other}` as context `{key}`, and that is not built"),
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
                    format!("service `{name}` runs on platform `{platform}`, for which it is not built"),
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
                let networks = self.key(&["services", name, "networks"]);
                let at = self.key(&["services", name, "network_mode"]);
                let d = Diagnostic::error(
                    "conflicting-keys",
                    format!("service `{name}` has both `network_mode` and `networks`"),
                );
                self.out
                    .push(d.at(at, "one of the two").also(networks, "the other").help("remove one of them"));
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
                format!("the health test of service `{name}` begins with `{first}`"),
                "expected `CMD`, `CMD-SHELL` or `NONE` as the first word",
            );
            if let Some(d) = self.out.last_mut() {
                d.help.push(format!(
                    "write `[CMD, {first}, …]` for a program and its arguments, or one text for a shell line"
                ));
            }
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
                    && whole
                    && !matches!(rule.action.as_deref(), Some("rebuild" | "restart") | None)
                {
                    let index = index.to_string();
                    self.error(
                        "missing-key",
                        &["services", name, "develop", "watch", &index],
                        format!("service `{name}` has a watch rule without `target`, which its action needs"),
                        "`target` is missing",
                    );
                }
            }
        }
    }

    fn depends(&mut self, name: &str, other: &str) {
        let at = locate(self.root, &["services", name, "depends_on", other], true);
        let disabled = self.project.disabled.get(other);
        let (why, note) = match disabled {
            Some(_) => ("is not enabled", "not enabled"),
            None => ("does not exist", "no such service"),
        };
        let message = format!("service `{name}` depends on service `{other}`, which {why}");
        let mut d = Diagnostic::error("undefined-service", message).at(at, note);
        if let Some(disabled) = disabled {
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
                format!("service `{name}` refers to service `{other}`, which does not exist"),
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
                format!("service `{name}` has different values of `scale` and `deploy.replicas`"),
                "remove one",
            );
        }
        let wanted = s.replicas();
        if wanted < 0 {
            let key = if s.scale.is_some() { "scale" } else { "deploy" };
            self.error(
                "out-of-range",
                &["services", name, key],
                format!("service `{name}` has a negative number of replicas"),
                "must not be negative",
            );
        }
        if s.container_name.is_some() && wanted > 1 {
            self.error(
                "conflicting-keys",
                &["services", name, "container_name"],
                format!(
                    "service `{name}` has several replicas and a `container_name`, which only one container can have"
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
                    format!("service `{name}` has different values of `{key}` and `deploy.resources.{twin}`"),
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
        let mut seen: BTreeMap<&str, [String; 2]> = BTreeMap::new();
        for (index, volume) in s.volumes.iter().enumerate() {
            let Some(target) = volume.target.as_deref() else { continue };
            let here = ["volumes".to_owned(), index.to_string()];
            if let Some(first) = seen.insert(target, here.clone()) {
                self.mounted_twice(name, target, &here, &first);
            }
        }
        for (index, tmpfs) in s.tmpfs.iter().enumerate() {
            let target = tmpfs.split(':').next().unwrap_or_default();
            let here = ["tmpfs".to_owned(), index.to_string()];
            if let Some(first) = seen.insert(target, here.clone()) {
                self.mounted_twice(name, target, &here, &first);
            }
        }
    }

    fn mounted_twice(&mut self, name: &str, target: &str, here: &[String; 2], first: &[String; 2]) {
        let place = |of: &[String; 2]| locate(self.root, &["services", name, &of[0], &of[1]], false);
        let message = format!("service `{name}` mounts two things on `{target}`");
        let d = Diagnostic::error("mount-conflict", message).at(place(here), "the second mount");
        let d = d.also(place(first), "the first mount").help("remove one, or give it another target");
        self.out.push(d);
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
                                format!("services wait for one another in a circle: {}", path.join(" -> ")),
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
