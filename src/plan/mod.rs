//! Pure decisions: what has to be done to bring observed resources in line with a project.
//!
//! Owns the comparison, the order of operations and the reasons the user
//! reads. It awaits nothing, asks nothing and reads no clock: everything it
//! needs is in the project, the [`Observed`](observed) snapshot and the policy.

mod dag;
mod diff;
mod first_start;
mod lifecycle;
pub mod lower;
pub mod observed;
mod operation;
mod reconcile;

pub use dag::{Node, NodeId, Plan};
pub use lifecycle::{Scope, StopHooks, TakeDown};
pub use observed::{Observed, ObservedContainer};
pub use operation::{Borrow, Borrowed, Condition, Operation, Target, Wait};
pub use reconcile::{Impossible, OneOff, PlanError, Policy, Recreate, diverged_volumes, reconcile, start};
