//! What the user sees of single operations: words of the progress tree, and steps in errors.

use super::events::{EventSender, ProjectEvent, ResourceKind, Status};
use super::execute::kind_word;
use crate::plan::{Condition, Operation};

/// Sends an event. A renderer that has gone is no reason to stop.
pub(super) async fn send(events: &EventSender, event: ProjectEvent) {
    drop(events.send(event).await);
}

/// One line of the progress tree, while one operation runs.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    kind: ResourceKind,
    name: String,
    working: Option<&'static str>,
    done: Option<&'static str>,
    details: String,
}

impl Progress {
    /// A line about a resource that changes.
    pub(super) fn new(kind: ResourceKind, name: &str, working: &'static str, done: &'static str) -> Self {
        let (working, done) = (Some(working), Some(done));
        Self { kind, name: name.to_owned(), working, done, details: String::new() }
    }

    /// A line about a container that others wait for.
    pub(super) fn waiting(name: &str, condition: Condition) -> Self {
        let done = match condition {
            Condition::Started => "Started",
            Condition::Healthy | Condition::Ready => "Healthy",
            Condition::Completed => "Exited",
        };
        Self::new(ResourceKind::Container, name, "Waiting", done)
    }

    /// It begins.
    pub(super) async fn working(&self, events: &EventSender) {
        if let Some(text) = self.working {
            send(events, self.event(Status::Working, text, self.details.clone())).await;
        }
    }

    /// Something to add while it lasts; lost when the reader is behind.
    pub(super) fn note(&self, events: &EventSender, details: String) {
        if let Some(text) = self.working {
            drop(events.try_send(self.event(Status::Working, text, details)));
        }
    }

    /// It is finished.
    pub(super) async fn done(&self, events: &EventSender) {
        if let Some(text) = self.done {
            send(events, self.event(Status::Done, text, String::new())).await;
        }
    }

    /// It ended otherwise.
    pub(super) async fn ended(
        &self,
        events: &EventSender,
        status: Status,
        text: &'static str,
        details: String,
    ) {
        send(events, self.event(status, text, details)).await;
    }

    fn event(&self, status: Status, text: &'static str, details: String) -> ProjectEvent {
        ProjectEvent::Progress {
            kind: self.kind,
            name: self.name.clone(),
            parent: None,
            status,
            text,
            details,
            bytes: None,
        }
    }
}

/// The line of an operation; none when the user sees nothing of it.
pub(super) fn progress_of(operation: &Operation, cause: &str) -> Option<Progress> {
    use ResourceKind::{Container, Image, Network, Volume};
    let line = |kind, name: &str, working, done| Some(Progress::new(kind, name, working, done));
    match operation {
        Operation::CreateNetwork { spec } => line(Network, &spec.name, "Creating", "Created"),
        Operation::RemoveNetwork { name, .. } => line(Network, name, "Removing", "Removed"),
        Operation::CreateVolume { spec } => line(Volume, &spec.name, "Creating", "Created"),
        Operation::RemoveVolume { name, .. } => line(Volume, name, "Removing", "Removed"),
        Operation::CreateContainer { name, replaces: None, .. } => {
            line(Container, name, "Creating", "Created")
        }
        Operation::CreateContainer { name, replaces: Some(_), .. } => Some(Progress {
            kind: Container,
            name: name.clone(),
            working: Some("Recreate"),
            done: None,
            details: cause.to_owned(),
        }),
        Operation::RenameContainer { name, replacement: true, .. } => Some(Progress {
            kind: Container,
            name: name.clone(),
            working: None,
            done: Some("Recreated"),
            details: String::new(),
        }),
        Operation::StartContainer { container } => line(Container, container.name(), "Starting", "Started"),
        Operation::StopContainer { container, .. } => {
            line(Container, container.name(), "Stopping", "Stopped")
        }
        Operation::RestartContainer { container, .. } => {
            line(Container, container.name(), "Restarting", "Started")
        }
        Operation::KillContainer { container, .. } => line(Container, container.name(), "Killing", "Killed"),
        Operation::PauseContainer { container } => line(Container, container.name(), "Pausing", "Paused"),
        Operation::UnpauseContainer { container } => {
            line(Container, container.name(), "Unpausing", "Unpaused")
        }
        Operation::RemoveContainer { container, replacement: false, .. } => {
            line(Container, container.name(), "Removing", "Removed")
        }
        Operation::RemoveImage { reference } => line(Image, reference, "Removing", "Removed"),
        Operation::RemoveContainer { .. }
        | Operation::RenameContainer { .. }
        | Operation::Connect { .. }
        | Operation::Disconnect { .. }
        | Operation::Hook { .. }
        | Operation::Wait(_)
        | Operation::Barrier => None,
    }
}

/// The step of an operation as errors name it: verb, kind, name.
pub(super) fn step_of(operation: &Operation) -> (&'static str, &'static str, String) {
    use ResourceKind::{Container, Image, Network, Volume};
    let (step, kind, name) = match operation {
        Operation::CreateNetwork { spec } => ("create", Network, spec.name.as_str()),
        Operation::RemoveNetwork { name, .. } => ("remove", Network, name.as_str()),
        Operation::CreateVolume { spec } => ("create", Volume, spec.name.as_str()),
        Operation::RemoveVolume { name, .. } => ("remove", Volume, name.as_str()),
        Operation::CreateContainer { name, .. } => ("create", Container, name.as_str()),
        Operation::RemoveImage { reference } => ("remove", Image, reference.as_str()),
        Operation::RenameContainer { container, .. } => ("rename", Container, container.name()),
        Operation::StartContainer { container } => ("start", Container, container.name()),
        Operation::StopContainer { container, .. } => ("stop", Container, container.name()),
        Operation::RestartContainer { container, .. } => ("restart", Container, container.name()),
        Operation::KillContainer { container, .. } => ("send a signal to", Container, container.name()),
        Operation::PauseContainer { container } => ("pause", Container, container.name()),
        Operation::UnpauseContainer { container } => ("unpause", Container, container.name()),
        Operation::RemoveContainer { container, .. } => ("remove", Container, container.name()),
        Operation::Connect { container, .. } => ("connect to its network", Container, container.name()),
        Operation::Disconnect { container, .. } => {
            ("disconnect from its network", Container, container.name())
        }
        Operation::Hook { container, .. } => ("run a hook in", Container, container.name()),
        Operation::Wait(wait) => ("wait for", Container, wait.service.as_str()),
        Operation::Barrier => ("finish", Container, ""),
    };
    (step, kind_word(kind), name.to_owned())
}
