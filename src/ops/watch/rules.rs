//! `develop.watch` → rules with resolved paths, and what a batch of changed paths asks for. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::patterns::Patterns;
use crate::model::{Project, Service};
use crate::ops::{OpsError, Result};
use crate::plan::lower;
use crate::spec::ExecSpec;

/// What a rule does about a change.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    /// Build the image and make the containers anew.
    Rebuild,
    /// Restart the containers.
    Restart,
    /// Bring the path into the containers, and then:
    Sync { target: String, then: Then },
}

/// What follows a sync.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Then {
    Nothing,
    Restart,
    Execute(ExecSpec),
}

/// One rule of one service.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) service: String,
    /// Absolute; what it refers to may be missing for a while.
    pub(super) path: PathBuf,
    pub(super) action: Action,
    pub(super) initial_sync: bool,
    ignore: Patterns,
    include: Patterns,
    /// The build context's `.dockerignore`, with the directory it is about.
    context: Option<(PathBuf, Patterns)>,
    always: Patterns,
}

impl Rule {
    /// The path relative to the rule's, when the rule is about it.
    pub(super) fn covers<'p>(&self, path: &'p Path) -> Option<&'p Path> {
        let relative = path.strip_prefix(&self.path).ok()?;
        let context =
            self.context.as_ref().and_then(|(top, p)| Some(p.matches(path.strip_prefix(top).ok()?)));
        let left_out =
            self.always.matches(relative) || self.ignore.matches(relative) || context == Some(true);
        (!left_out).then_some(relative)
    }

    /// Whether a file at this relative path is included; directories lead to files and always are.
    pub(super) fn includes(&self, relative: &Path, is_directory: bool) -> bool {
        is_directory
            || relative.as_os_str().is_empty()
            || self.include.is_empty()
            || self.include.matches(relative)
    }

    /// Where a covered path is inside the containers.
    pub(super) fn target(&self, relative: &Path) -> Option<String> {
        let Action::Sync { target, .. } = &self.action else { return None };
        let target = target.trim_end_matches('/');
        Some(match relative.to_string_lossy() {
            relative if relative.is_empty() && target.is_empty() => "/".into(),
            relative if relative.is_empty() => target.to_owned(),
            relative => format!("{target}/{relative}"),
        })
    }
}

/// The rules of services, and warnings about those that cannot have an effect.
///
/// # Errors
/// [`OpsError::Invalid`] for a rule that makes no sense; [`OpsError::InvalidProject`] when there is none.
pub(super) fn rules(project: &Project, services: &[String]) -> Result<(Vec<Rule>, Vec<String>)> {
    let (mut rules, mut warnings) = (Vec::new(), Vec::new());
    let chosen = project.services.iter().filter(|(name, _)| services.is_empty() || services.contains(name));
    for (name, service) in chosen {
        let Some(develop) = &service.develop else { continue };
        for watch in &develop.watch {
            let invalid = |reason: String| OpsError::Invalid { service: name.clone(), reason };
            let path = watch.path.as_deref().unwrap_or_default();
            let in_rule = |what: String| invalid(format!("develop.watch of `{path}`: {what}"));
            let target =
                || watch.target.clone().ok_or_else(|| in_rule("`target` is needed to sync to".to_owned()));
            let action = match watch.action.as_deref().unwrap_or_default() {
                "rebuild" if service.build.is_none() => {
                    return Err(in_rule("`rebuild` needs a `build` section".to_owned()));
                }
                "rebuild" => Action::Rebuild,
                "restart" => Action::Restart,
                "sync" => Action::Sync { target: target()?, then: Then::Nothing },
                "sync+restart" => Action::Sync { target: target()?, then: Then::Restart },
                "sync+exec" if watch.exec.command.0.as_ref().is_none_or(Vec::is_empty) => {
                    return Err(in_rule("`sync+exec` needs a command in `exec`".to_owned()));
                }
                "sync+exec" => {
                    Action::Sync { target: target()?, then: Then::Execute(lower::hook(&watch.exec)) }
                }
                other => return Err(in_rule(format!("there is no action `{other}`"))),
            };
            let watched = PathBuf::from(path);
            if matches!(action, Action::Sync { .. })
                && let Some(bind) = bound(service, &watched)
            {
                warnings.push(format!(
                    "service `{name}`: `{path}` is bind mounted by `{bind}` and is not synced: the containers see it anyway"
                ));
                continue;
            }
            let patterns =
                |lines: &[String]| Patterns::new(lines.iter().map(String::as_str)).map_err(&in_rule);
            rules.push(Rule {
                service: name.clone(),
                action,
                initial_sync: watch.initial_sync,
                ignore: patterns(&watch.ignore)?,
                include: patterns(&watch.include)?,
                context: context(service).map_err(invalid)?,
                always: Patterns::always(),
                path: watched,
            });
        }
    }
    if rules.is_empty() && warnings.is_empty() {
        return Err(OpsError::InvalidProject {
            reason:
                "none of the selected services is configured for watch: it takes a `develop.watch` section"
                    .into(),
        });
    }
    Ok((rules, warnings))
}

/// The bind mount that has a path in it.
fn bound<'s>(service: &'s Service, path: &Path) -> Option<&'s str> {
    let binds = service.volumes.iter().filter(|mount| mount.kind.as_deref() == Some("bind"));
    binds.filter_map(|mount| mount.source.as_deref()).find(|source| path.starts_with(source))
}

/// The build context with its `.dockerignore`, when it is a directory that has one.
fn context(service: &Service) -> std::result::Result<Option<(PathBuf, Patterns)>, String> {
    let Some(context) = service.build.as_ref().and_then(|build| build.context.clone()) else {
        return Ok(None);
    };
    let context = PathBuf::from(context);
    match std::fs::read_to_string(context.join(".dockerignore")) {
        Ok(text) => Ok(Some((context, Patterns::new(text.lines())?))),
        // No file, or a context that is no directory.
        Err(_) => Ok(None),
    }
}

/// What a batch of changed paths asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    /// Services to rebuild.
    pub(super) rebuild: BTreeSet<String>,
    /// Services to restart.
    pub(super) restart: BTreeSet<String>,
    /// Paths to bring into containers, by rule.
    pub(super) sync: BTreeMap<usize, BTreeSet<PathBuf>>,
}

impl Batch {
    /// Sorts changed paths by what the rules say. A path below another one of the batch is left to that one.
    pub(super) fn new(rules: &[Rule], changed: &BTreeSet<PathBuf>) -> Self {
        let mut batch = Self::default();
        for (index, rule) in rules.iter().enumerate() {
            for path in changed {
                let Some(relative) = rule.covers(path) else { continue };
                // A file that is not included may be a directory that was there; then it has nothing synced below.
                if !rule.includes(relative, path.is_dir()) {
                    continue;
                }
                match &rule.action {
                    Action::Rebuild => drop(batch.rebuild.insert(rule.service.clone())),
                    Action::Restart => drop(batch.restart.insert(rule.service.clone())),
                    Action::Sync { .. } => {
                        let paths = batch.sync.entry(index).or_default();
                        if !path.ancestors().skip(1).any(|above| paths.contains(above)) {
                            paths.insert(path.clone());
                        }
                    }
                }
            }
        }
        // A new container has everything that was to be done to the old one.
        let rebuilt = batch.rebuild.clone();
        batch.restart.retain(|service| !rebuilt.contains(service));
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(action: Action, ignore: &[&str], include: &[&str]) -> Rule {
        Rule {
            service: "web".into(),
            path: "/src".into(),
            action,
            initial_sync: false,
            ignore: Patterns::new(ignore.iter().copied()).expect("patterns"),
            include: Patterns::new(include.iter().copied()).expect("patterns"),
            context: None,
            always: Patterns::always(),
        }
    }

    #[test]
    fn a_batch_is_sorted_by_the_rules() {
        let sync = || Action::Sync { target: "/app/".into(), then: Then::Nothing };
        let rules = [
            rule(sync(), &["vendor"], &[]),
            rule(Action::Restart, &[], &["*.conf"]),
            rule(sync(), &[], &["*.html"]),
        ];
        let changed = ["/src/a.html", "/src/vendor/x", "/src/d", "/src/d/e", "/other", "/src/x.conf"];
        let batch = Batch::new(&rules, &changed.iter().map(PathBuf::from).collect());
        let paths = |index| batch.sync[&index].iter().map(|p| p.to_str().unwrap_or("")).collect::<Vec<_>>();
        assert_eq!(paths(0), ["/src/a.html", "/src/d", "/src/x.conf"]);
        assert_eq!(paths(2), ["/src/a.html"]);
        assert_eq!(batch.restart, ["web".to_owned()].into());
        assert_eq!(rules[0].target(Path::new("d/e")).as_deref(), Some("/app/d/e"));
        assert_eq!(rules[0].target(Path::new("")).as_deref(), Some("/app"));
    }
}
