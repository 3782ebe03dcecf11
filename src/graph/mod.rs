//! The dependency graph of named things: order, levels, cycles as printable paths, reachability.
//!
//! petgraph stays behind [`Dependencies`]; nobody else sees node indices. It
//! knows names only; what an edge means (started, healthy, …) is kept by the
//! model.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use petgraph::Direction;
use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};

/// Who needs whom. An edge goes from the dependent to its dependency.
#[derive(Debug, Clone, Default)]
pub struct Dependencies {
    graph: DiGraph<String, ()>,
    index: BTreeMap<String, NodeIndex>,
}

/// Dependencies that go round: the first name is repeated at the end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("dependency cycle detected: {}", path.join(" -> "))]
pub struct Cycle {
    /// `["a", "b", "a"]`.
    pub path: Vec<String>,
}

impl Dependencies {
    /// Builds the graph of things and what they need. Needs that are not things themselves are left out.
    pub fn new<'a, I, D>(things: I) -> Self
    where
        I: IntoIterator<Item = (&'a str, D)>,
        D: IntoIterator<Item = &'a str>,
    {
        let mut this = Self::default();
        let mut edges = Vec::new();
        for (name, needs) in things {
            let node = this.graph.add_node(name.to_owned());
            this.index.insert(name.to_owned(), node);
            edges.extend(needs.into_iter().map(|need| (node, need)));
        }
        for (node, need) in edges {
            if let Some(target) = this.index.get(need) {
                this.graph.update_edge(node, *target, ());
            }
        }
        this
    }

    /// Whether there is a thing of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// A cycle, if there is one: of the alphabetically first thing on any, the shortest way round.
    pub fn cycle(&self) -> Option<Cycle> {
        let start = tarjan_scc(&self.graph)
            .into_iter()
            .filter(|group| group.len() > 1 || self.graph.contains_edge(group[0], group[0]))
            .flatten()
            .min_by(|a, b| self.graph[*a].cmp(&self.graph[*b]))?;
        // Breadth first from the start until an edge leads back to it.
        let mut came_from = BTreeMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(node) = queue.pop_front() {
            for next in self.sorted(node, Direction::Outgoing) {
                if next == start {
                    let mut path = vec![self.graph[start].clone()];
                    let mut at = node;
                    while at != start {
                        path.push(self.graph[at].clone());
                        at = came_from[&at];
                    }
                    path.push(self.graph[start].clone());
                    path.reverse();
                    return Some(Cycle { path });
                }
                if let std::collections::btree_map::Entry::Vacant(entry) = came_from.entry(next) {
                    entry.insert(node);
                    queue.push_back(next);
                }
            }
        }
        None
    }

    /// Things that can be worked on together, dependencies first; names sorted within a level.
    ///
    /// # Errors
    /// [`Cycle`] when there is no such order.
    pub fn levels(&self) -> Result<Vec<Vec<String>>, Cycle> {
        if let Some(cycle) = self.cycle() {
            return Err(cycle);
        }
        let mut missing: BTreeMap<NodeIndex, usize> =
            self.graph.node_indices().map(|node| (node, self.graph.neighbors(node).count())).collect();
        let mut ready: Vec<NodeIndex> =
            missing.iter().filter(|(_, count)| **count == 0).map(|(node, _)| *node).collect();
        let mut levels = Vec::new();
        while !ready.is_empty() {
            let mut next = Vec::new();
            for node in &ready {
                for dependent in self.graph.neighbors_directed(*node, Direction::Incoming) {
                    let count = missing.entry(dependent).or_default();
                    *count -= 1;
                    if *count == 0 {
                        next.push(dependent);
                    }
                }
            }
            let mut level: Vec<String> = ready.iter().map(|node| self.graph[*node].clone()).collect();
            level.sort_unstable();
            levels.push(level);
            ready = next;
        }
        Ok(levels)
    }

    /// All things, dependencies first.
    ///
    /// # Errors
    /// [`Cycle`] when there is no such order.
    pub fn order(&self) -> Result<Vec<String>, Cycle> {
        Ok(self.levels()?.into_iter().flatten().collect())
    }

    /// What `name` needs itself, sorted.
    pub fn needs(&self, name: &str) -> Vec<&str> {
        self.direct(name, Direction::Outgoing)
    }

    /// What needs `name` itself, sorted.
    pub fn needed_by(&self, name: &str) -> Vec<&str> {
        self.direct(name, Direction::Incoming)
    }

    /// The names and everything they need, directly or not.
    pub fn closure<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
        self.reach(names, Direction::Outgoing)
    }

    /// The names and everything that needs them, directly or not.
    pub fn dependents<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
        self.reach(names, Direction::Incoming)
    }

    fn direct(&self, name: &str, direction: Direction) -> Vec<&str> {
        self.index.get(name).map_or_else(Vec::new, |node| {
            self.sorted(*node, direction).into_iter().map(|n| self.graph[n].as_str()).collect()
        })
    }

    fn sorted(&self, node: NodeIndex, direction: Direction) -> Vec<NodeIndex> {
        let mut nodes: Vec<_> = self.graph.neighbors_directed(node, direction).collect();
        nodes.sort_unstable_by(|a, b| self.graph[*a].cmp(&self.graph[*b]));
        nodes
    }

    fn reach<'a>(&self, names: impl IntoIterator<Item = &'a str>, direction: Direction) -> BTreeSet<String> {
        let mut queue: Vec<NodeIndex> =
            names.into_iter().filter_map(|name| self.index.get(name).copied()).collect();
        let mut seen: BTreeSet<NodeIndex> = queue.iter().copied().collect();
        while let Some(node) = queue.pop() {
            for next in self.graph.neighbors_directed(node, direction) {
                if seen.insert(next) {
                    queue.push(next);
                }
            }
        }
        seen.into_iter().map(|node| self.graph[node].clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn graph(edges: &[(&'static str, &[&'static str])]) -> Dependencies {
        Dependencies::new(edges.iter().map(|(name, needs)| (*name, needs.iter().copied())))
    }

    #[test]
    fn levels_put_dependencies_first() {
        let deps = graph(&[("web", &["api", "db"]), ("api", &["db"]), ("db", &[]), ("cron", &["db"])]);
        assert_eq!(
            deps.levels().expect("no cycle"),
            [vec!["db".to_owned()], vec!["api".into(), "cron".into()], vec!["web".into()]]
        );
        assert_eq!(deps.needs("web"), ["api", "db"]);
        assert_eq!(deps.needed_by("db"), ["api", "cron", "web"]);
        assert_eq!(deps.closure(["api"]).into_iter().collect::<Vec<_>>(), ["api", "db"]);
        assert_eq!(deps.dependents(["api"]).into_iter().collect::<Vec<_>>(), ["api", "web"]);
    }

    #[test]
    fn a_cycle_is_a_path() {
        let deps = graph(&[("a", &["b"]), ("b", &["c", "d"]), ("c", &["a"]), ("d", &[])]);
        let cycle = deps.levels().expect_err("cycle");
        assert_eq!(cycle.to_string(), "dependency cycle detected: a -> b -> c -> a");
        let own = graph(&[("x", &["x"])]).cycle().expect("cycle");
        assert_eq!(own.to_string(), "dependency cycle detected: x -> x");
    }

    #[test]
    fn unknown_needs_are_left_out() {
        assert_eq!(graph(&[("a", &["gone"])]).order().expect("no cycle"), ["a"]);
    }

    proptest! {
        #[test]
        fn an_order_respects_every_edge_or_there_is_a_cycle(edges in proptest::collection::vec((0..12_usize, 0..12_usize), 0..40)) {
            let names: Vec<String> = (0..12).map(|n| format!("s{n:02}")).collect();
            let deps = Dependencies::new(names.iter().enumerate().map(|(n, name)| {
                (name.as_str(), edges.iter().filter(|(a, _)| *a == n).map(|(_, b)| names[*b].as_str()).collect::<Vec<_>>())
            }));
            match deps.order() {
                Ok(order) => {
                    prop_assert_eq!(order.len(), 12);
                    let at = |n: usize| order.iter().position(|x| *x == names[n]).expect("in the order");
                    for (a, b) in edges {
                        prop_assert!(at(b) < at(a));
                    }
                }
                Err(cycle) => {
                    prop_assert!(cycle.path.len() > 1);
                    for pair in cycle.path.windows(2) {
                        prop_assert!(deps.needs(&pair[0]).contains(&pair[1].as_str()));
                    }
                    prop_assert_eq!(cycle.path.first(), cycle.path.last());
                }
            }
        }
    }
}
