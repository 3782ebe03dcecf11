//! Plans for containers that exist: stop, kill, restart, pause, remove, and taking a project down.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::dag::{NodeId, Plan};
use super::observed::ObservedContainer;
use super::operation::{Operation, Target};
use crate::graph::Dependencies;
use crate::spec::ExecSpec;

/// Commands that are run in a container before it is stopped, by service.
pub type StopHooks = BTreeMap<String, Vec<ExecSpec>>;

/// Containers to be worked on, and the order of their services.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// The containers.
    pub containers: &'a [ObservedContainer],
    /// Who needs whom; services that are not in it come without order.
    pub order: &'a Dependencies,
    /// What runs before a stop.
    pub hooks: &'a StopHooks,
}

/// What else goes when a project is taken down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TakeDown {
    /// Grace period; none means the container's own.
    pub grace: Option<Duration>,
    /// Anonymous volumes go with their containers.
    pub anonymous_volumes: bool,
    /// Networks by name.
    pub networks: Vec<String>,
    /// Volumes by name.
    pub volumes: Vec<String>,
    /// Images by reference.
    pub images: Vec<String>,
}

/// Takes over the target of an observed container.
pub(super) fn existing(container: &ObservedContainer) -> Target {
    Target::Existing { id: container.state.id.clone(), name: container.state.name.clone() }
}

impl Scope<'_> {
    /// Stops containers, dependents first.
    pub fn stop(&self, grace: Option<Duration>) -> Plan {
        let mut plan = self.teardown();
        self.reverse(&mut plan, |plan, container, after| {
            if container.is_up() { self.stop_one(plan, container, grace, after) } else { after }
        });
        plan
    }

    /// Stops and removes containers, dependents first, then networks, volumes and images.
    pub fn down(&self, what: &TakeDown) -> Plan {
        let mut plan = self.teardown();
        let mut removed = Vec::new();
        self.reverse(&mut plan, |plan, container, after| {
            let stopped = if container.is_up() {
                self.stop_one(plan, container, what.grace, after.clone())
            } else {
                after.clone()
            };
            let remove = Operation::RemoveContainer {
                container: existing(container),
                volumes: what.anonymous_volumes,
                replacement: false,
            };
            removed.push(plan.add(remove, "", stopped.iter().copied()));
            // Whatever this one depends on may stop as soon as this one has.
            stopped
        });
        for name in &what.networks {
            let remove = Operation::RemoveNetwork { name: name.clone(), tolerate_use: true };
            plan.add(remove, "", removed.iter().copied());
        }
        for name in &what.volumes {
            let remove = Operation::RemoveVolume { name: name.clone(), tolerate_use: true };
            plan.add(remove, "", removed.iter().copied());
        }
        for reference in &what.images {
            plan.add(Operation::RemoveImage { reference: reference.clone() }, "", removed.iter().copied());
        }
        plan
    }

    /// Removes containers, which are stopped first when asked for; running ones are left otherwise.
    pub fn remove(&self, stop: bool, volumes: bool) -> Plan {
        let mut plan = self.teardown();
        self.reverse(&mut plan, |plan, container, after| {
            if container.is_up() && !stop {
                return after;
            }
            let stopped = if container.is_up() { self.stop_one(plan, container, None, after) } else { after };
            let remove =
                Operation::RemoveContainer { container: existing(container), volumes, replacement: false };
            plan.add(remove, "", stopped.iter().copied());
            stopped
        });
        plan
    }

    /// Restarts containers, dependencies first.
    pub fn restart(&self, grace: Option<Duration>) -> Plan {
        let mut plan = self.teardown();
        plan.keep_going = false;
        let mut of_service: BTreeMap<&str, Vec<NodeId>> = BTreeMap::new();
        for service in self.services() {
            let after: Vec<NodeId> = self
                .order
                .closure([service])
                .iter()
                .filter(|needed| *needed != service)
                .filter_map(|needed| of_service.get(needed.as_str()))
                .flatten()
                .copied()
                .collect();
            let mut nodes = Vec::new();
            for container in self.containers.iter().filter(|c| c.service == service) {
                let hooked = if container.is_up() {
                    self.hooks_before_stop(&mut plan, container, after.clone())
                } else {
                    after.clone()
                };
                let restart = Operation::RestartContainer { container: existing(container), grace };
                nodes.push(plan.add(restart, "", hooked));
            }
            of_service.insert(service, nodes);
        }
        plan
    }

    /// Sends a signal to containers that run.
    pub fn kill(&self, signal: &str) -> Plan {
        self.all_at_once(ObservedContainer::is_up, |container| Operation::KillContainer {
            container,
            signal: signal.to_owned(),
        })
    }

    /// Freezes containers.
    pub fn pause(&self) -> Plan {
        self.all_at_once(|_| true, |container| Operation::PauseContainer { container })
    }

    /// Thaws containers.
    pub fn unpause(&self) -> Plan {
        self.all_at_once(|_| true, |container| Operation::UnpauseContainer { container })
    }

    fn teardown(&self) -> Plan {
        let services = self.containers.iter().map(|c| (c.state.id.clone(), c.service.clone())).collect();
        Plan::new(services, true)
    }

    fn all_at_once(
        &self,
        wanted: impl Fn(&ObservedContainer) -> bool,
        operation: impl Fn(Target) -> Operation,
    ) -> Plan {
        let mut plan = self.teardown();
        for container in self.containers.iter().filter(|c| wanted(c)) {
            plan.add(operation(existing(container)), "", []);
        }
        plan
    }

    /// Services with containers, dependencies first; those of a cycle or without order by name at the end.
    fn services(&self) -> Vec<&str> {
        let present: BTreeSet<&str> = self.containers.iter().map(|c| c.service.as_str()).collect();
        let ordered = self.order.order().unwrap_or_default();
        let mut services: Vec<&str> =
            ordered.iter().filter_map(|name| present.get(name.as_str()).copied()).collect();
        let rest: Vec<&str> = present.into_iter().filter(|name| !ordered.iter().any(|o| o == name)).collect();
        services.extend(rest);
        services
    }

    /// Calls `each` for every container, dependents first, with the nodes it has to wait for; it gives the nodes its dependencies have to wait for.
    fn reverse(
        &self,
        plan: &mut Plan,
        mut each: impl FnMut(&mut Plan, &ObservedContainer, Vec<NodeId>) -> Vec<NodeId>,
    ) {
        let mut of_service: BTreeMap<&str, Vec<NodeId>> = BTreeMap::new();
        for service in self.services().into_iter().rev() {
            let after: Vec<NodeId> = self
                .order
                .dependents([service])
                .iter()
                .filter(|dependent| *dependent != service)
                .filter_map(|dependent| of_service.get(dependent.as_str()))
                .flatten()
                .copied()
                .collect();
            let mut nodes = Vec::new();
            for container in self.containers.iter().filter(|c| c.service == service) {
                nodes.extend(each(plan, container, after.clone()));
            }
            of_service.insert(service, nodes);
        }
    }

    fn hooks_before_stop(
        &self,
        plan: &mut Plan,
        container: &ObservedContainer,
        mut after: Vec<NodeId>,
    ) -> Vec<NodeId> {
        for spec in self.hooks.get(&container.service).into_iter().flatten() {
            let hook = Operation::Hook {
                container: existing(container),
                stage: "pre_stop",
                spec: Box::new(spec.clone()),
            };
            after = vec![plan.add(hook, "", after)];
        }
        after
    }

    fn stop_one(
        &self,
        plan: &mut Plan,
        container: &ObservedContainer,
        grace: Option<Duration>,
        after: Vec<NodeId>,
    ) -> Vec<NodeId> {
        let after = self.hooks_before_stop(plan, container, after);
        vec![plan.add(Operation::StopContainer { container: existing(container), grace }, "", after)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{ContainerState, Phase};

    fn container(service: &str, number: u32, phase: Phase) -> ObservedContainer {
        let name = format!("p-{service}-{number}");
        ObservedContainer {
            service: service.into(),
            number: Some(number),
            oneoff: false,
            state: ContainerState { id: name.clone(), name, phase, ..ContainerState::default() },
        }
    }

    fn scope_of(containers: &[ObservedContainer], f: impl FnOnce(Scope<'_>) -> Plan) -> String {
        let order = Dependencies::new([("web", vec!["api"]), ("api", vec!["db"]), ("db", vec![])]);
        f(Scope { containers, order: &order, hooks: &StopHooks::new() }).to_string()
    }

    #[test]
    fn down_stops_dependents_first_and_removes_networks_last() {
        let all = [
            container("api", 1, Phase::Exited),
            container("db", 1, Phase::Running),
            container("old", 1, Phase::Running),
            container("web", 1, Phase::Running),
            container("web", 2, Phase::Created),
        ];
        let what = TakeDown {
            networks: vec!["p_default".into()],
            volumes: vec!["p_data".into()],
            ..TakeDown::default()
        };
        insta::assert_snapshot!(scope_of(&all, |s| s.down(&what)), @r"
         1 stop container p-old-1
         2 remove container p-old-1 (after 1)
         3 stop container p-web-1
         4 remove container p-web-1 (after 3)
         5 remove container p-web-2
         6 remove container p-api-1 (after 3)
         7 stop container p-db-1 (after 3)
         8 remove container p-db-1 (after 7)
         9 remove network p_default (after 2, 4, 5, 6, 8)
        10 remove volume p_data (after 2, 4, 5, 6, 8)
        ");
    }

    #[test]
    fn restart_goes_the_other_way() {
        let all = [container("db", 1, Phase::Running), container("web", 1, Phase::Exited)];
        insta::assert_snapshot!(scope_of(&all, |s| s.restart(None)), @r"
        1 restart container p-db-1
        2 restart container p-web-1 (after 1)
        ");
    }

    #[test]
    fn a_stop_leaves_alone_what_does_not_run() {
        let all = [container("db", 1, Phase::Restarting), container("web", 1, Phase::Exited)];
        insta::assert_snapshot!(scope_of(&all, |s| s.stop(None)), @r"
        1 stop container p-db-1
        ");
    }
}
