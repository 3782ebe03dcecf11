//! The common way of `up`, `create`, `scale` and the dependencies of `run`: look, decide, carry out.

use std::collections::{BTreeMap, BTreeSet};

use super::context::Context;
use super::error::{FailureCause, FailureReport};
use super::observe::observe;
use super::options::ConvergeOptions;
use super::{OpsError, Result};
use crate::engine::ImageState;
use crate::graph::Dependencies;
use crate::plan::lower::Lowering;
use crate::plan::{
    Impossible, Observed, OneOff, Plan, PlanError, Policy, Recreate, diverged_volumes, reconcile,
};

/// What is to be done beyond having the containers.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Goal {
    pub(super) start: bool,
    pub(super) ready: bool,
    pub(super) one_off: Option<OneOff>,
}

impl Context {
    /// The services named, all if none is, with what they depend on unless that is left out.
    pub(super) fn select(&self, named: &[String], no_deps: bool) -> BTreeSet<String> {
        if named.is_empty() {
            return self.project.services.keys().cloned().collect();
        }
        if no_deps {
            return named.iter().cloned().collect();
        }
        self.declared().closure(named.iter().map(String::as_str))
    }

    /// Who needs whom, by the files.
    pub(super) fn declared(&self) -> Dependencies {
        Dependencies::new(
            self.project
                .services
                .iter()
                .map(|(name, service)| (name.as_str(), service.depends_on.keys().map(String::as_str))),
        )
    }

    /// Decides what has to be done for these services. Asks about volumes that would have to be made anew.
    pub(super) async fn decide(
        &self,
        named: &[String],
        services: &BTreeSet<String>,
        options: &ConvergeOptions,
        goal: Goal,
        images: BTreeMap<String, ImageState>,
    ) -> Result<(Plan, Observed)> {
        let mut needed = services.clone();
        needed.extend(goal.one_off.iter().map(|one_off| one_off.service.name.clone()));
        let observed = observe(self, &needed, images).await?;
        let read = |path: &std::path::Path| std::fs::read_to_string(path);
        let lowering = Lowering { project: &self.project, naming: self.naming, read: &read };
        let mut renew_volumes = BTreeSet::new();
        for (key, name) in diverged_volumes(&lowering, &observed) {
            let question = format!(
                "Volume \"{name}\" exists but doesn't match configuration in compose file. Recreate (data will be lost)?"
            );
            let used = services.iter().filter_map(|s| self.project.services.get(s));
            let used = used.flat_map(|s| &s.volumes).any(|m| m.source.as_ref() == Some(&key));
            if used && self.prompt.confirm(&question, false) {
                renew_volumes.insert(name);
            }
        }
        let force_by_volumes = options.renew_anonymous_volumes && options.recreate == Recreate::Diverged;
        let policy = Policy {
            services: services.clone(),
            named: named.iter().cloned().collect(),
            recreate: if force_by_volumes { Recreate::Force } else { options.recreate },
            recreate_dependencies: options.recreate_dependencies,
            renew_anonymous_volumes: options.renew_anonymous_volumes,
            remove_orphans: options.remove_orphans,
            ignore_orphans: options.ignore_orphans,
            scale: options.scale.clone(),
            grace: options.timeout,
            start: goal.start,
            ready: goal.ready,
            renew_volumes,
            one_off: goal.one_off,
        };
        let plan = reconcile(&lowering, &self.declared(), &observed, &policy).map_err(plan_error)?;
        Ok((plan, observed))
    }
}

pub(super) fn plan_error(error: PlanError) -> OpsError {
    match error {
        PlanError::Invalid(invalid) => OpsError::Invalid { service: invalid.service, reason: invalid.reason },
        PlanError::Cycle(cycle) => OpsError::Cycle { path: cycle.path.join(" -> ") },
        PlanError::NothingToStart { service } => OpsError::NothingToStart { service },
        PlanError::ExternalMissing { kind, name } => OpsError::ExternalMissing { kind, name },
        PlanError::Impossible { wait, why } => {
            let (cause, hint) = match why {
                Impossible::NoHealthcheck => (
                    FailureCause::NoHealthcheck,
                    format!(
                        "add a `healthcheck` to service `{}`, or wait for `service_started`",
                        wait.service
                    ),
                ),
                Impossible::NeverCompletes => (
                    FailureCause::NeverCompletes,
                    format!("set `restart: on-failure` or `no` for service `{}`", wait.service),
                ),
            };
            OpsError::NotReady(Box::new(FailureReport {
                container: wait.containers.first().map(|c| c.name().to_owned()),
                service: wait.service,
                cause,
                condition: wait.condition.as_str(),
                dependency: true,
                since: None,
                waited: None,
                probes: Vec::new(),
                output: Vec::new(),
                blocked: wait.waiting,
                hint: Some(hint),
            }))
        }
    }
}
