//! A plan: single operations, what each has to wait for, and why it is done.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};

use super::operation::{Operation, Target};

/// A node of a [`Plan`]. Numbers are handed out in order, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub usize);

/// One operation and why it is done.
#[derive(Debug, Clone)]
pub struct Node {
    /// What.
    pub operation: Operation,
    /// Why, as the user reads it; may be empty.
    pub cause: String,
}

/// A DAG of operations. Nodes are added after everything they wait for, so their numbers are an order.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    graph: DiGraph<Node, ()>,
    /// Service by container id, of containers that were there before.
    services: BTreeMap<String, String>,
    /// What the user should know before it runs.
    pub warnings: Vec<String>,
    /// Containers that stay as they are, by display name, and run.
    pub kept: Vec<String>,
    /// A failed operation does not keep the others from being tried (tearing down).
    pub keep_going: bool,
}

impl Plan {
    /// An empty plan over containers whose services are given by id.
    pub(super) fn new(services: BTreeMap<String, String>, keep_going: bool) -> Self {
        Self { services, keep_going, ..Self::default() }
    }

    /// Adds an operation that waits for the given nodes.
    pub fn add(
        &mut self,
        operation: Operation,
        cause: impl Into<String>,
        after: impl IntoIterator<Item = NodeId>,
    ) -> NodeId {
        let node = self.graph.add_node(Node { operation, cause: cause.into() });
        for earlier in after {
            self.graph.update_edge(NodeIndex::new(earlier.0), node, ());
        }
        NodeId(node.index())
    }

    /// Makes `later` wait for `earlier`, which must have been added before it.
    pub fn order(&mut self, earlier: NodeId, later: NodeId) {
        debug_assert!(earlier < later, "numbers of nodes are an order");
        self.graph.update_edge(NodeIndex::new(earlier.0), NodeIndex::new(later.0), ());
    }

    /// Notes that one more service waits at a node that is a wait.
    pub(super) fn add_waiting(&mut self, id: NodeId, service: &str) {
        if let Operation::Wait(wait) = &mut self.graph[NodeIndex::new(id.0)].operation {
            wait.waiting.push(service.to_owned());
        }
    }

    /// The operation of a node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.graph[NodeIndex::new(id.0)]
    }

    /// All nodes in order.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.graph.node_indices().map(|index| (NodeId(index.index()), &self.graph[index]))
    }

    /// What a node waits for, ascending.
    pub fn before(&self, id: NodeId) -> BTreeSet<NodeId> {
        self.neighbors(id, Direction::Incoming)
    }

    /// What waits for a node, ascending.
    pub fn after(&self, id: NodeId) -> BTreeSet<NodeId> {
        self.neighbors(id, Direction::Outgoing)
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.graph.node_count()
    }

    /// Nothing changes: there is no node, or only waits for what runs already.
    pub fn is_empty(&self) -> bool {
        !self.nodes().any(|(_, node)| node.operation.changes_something())
    }

    /// Whether anything waits for a condition.
    pub fn has_waits(&self) -> bool {
        self.nodes().any(|(_, node)| matches!(node.operation, Operation::Wait(_)))
    }

    /// The service of a container of this plan.
    pub fn service_of(&self, target: &Target) -> Option<&str> {
        match target {
            Target::Existing { id, .. } => self.services.get(id).map(String::as_str),
            Target::Created { by, .. } => match &self.node(*by).operation {
                Operation::CreateContainer { service, .. } => Some(service),
                _ => None,
            },
        }
    }

    fn neighbors(&self, id: NodeId, direction: Direction) -> BTreeSet<NodeId> {
        self.graph.neighbors_directed(NodeIndex::new(id.0), direction).map(|n| NodeId(n.index())).collect()
    }
}

/// One line per node: its number, what is done, why, and the numbers it waits for.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Numbers as printed start at 1 and leave out nodes that only order others.
        let mut printed = Vec::with_capacity(self.len());
        let mut count = 0;
        for (_, node) in self.nodes() {
            let shown = !matches!(node.operation, Operation::Barrier);
            count += usize::from(shown);
            printed.push(shown.then_some(count));
        }
        let width = count.to_string().len();
        for (id, node) in self.nodes() {
            let Some(number) = printed[id.0] else { continue };
            write!(f, "{number:>width$} {}", node.operation)?;
            if !node.cause.is_empty() {
                write!(f, ": {}", node.cause)?;
            }
            let mut after = BTreeSet::new();
            let mut queue: Vec<NodeId> = self.before(id).into_iter().collect();
            while let Some(earlier) = queue.pop() {
                match printed[earlier.0] {
                    Some(number) => {
                        after.insert(number);
                    }
                    None => queue.extend(self.before(earlier)),
                }
            }
            if !after.is_empty() {
                let numbers: Vec<String> = after.iter().map(ToString::to_string).collect();
                write!(f, " (after {})", numbers.join(", "))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{NetworkSpec, VolumeSpec};

    #[test]
    fn a_plan_prints_one_line_per_operation() {
        let mut plan = Plan::default();
        let network = NetworkSpec { name: "p_default".into(), ..NetworkSpec::default() };
        let a = plan.add(Operation::CreateNetwork { spec: network }, "missing", []);
        let volume = VolumeSpec { name: "p_data".into(), ..VolumeSpec::default() };
        let b = plan.add(Operation::CreateVolume { spec: volume }, "missing", []);
        let barrier = plan.add(Operation::Barrier, "", [a, b]);
        let existing = Target::Existing { id: "1".into(), name: "p-web-1".into() };
        plan.add(Operation::StartContainer { container: existing }, "", [barrier]);
        insta::assert_snapshot!(plan, @r"
        1 create network p_default: missing
        2 create volume p_data: missing
        3 start container p-web-1 (after 1, 2)
        ");
        assert_eq!(plan.before(barrier).len(), 2);
    }
}
