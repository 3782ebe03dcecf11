//! One subscription to the engine's events of a project, shared by all who wait or follow.

use std::sync::Arc;

use futures_util::StreamExt;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

use crate::engine::{Engine, EngineEvent, Result};

/// What a listener gets.
#[derive(Debug, Clone)]
pub(super) enum Heard {
    /// An event.
    Event(Arc<EngineEvent>),
    /// Events were lost (the listener was slow, or the engine's stream broke off): look again at everything.
    Gap,
    /// There will be no more.
    End,
}

/// Passes the events of a project on until it is dropped.
#[derive(Debug)]
pub(super) struct Monitor {
    sender: broadcast::Sender<Arc<EngineEvent>>,
    task: JoinHandle<()>,
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Monitor {
    /// Subscribes; every event after the return of this is heard by listeners that exist when it happens.
    pub(super) async fn new(engine: &Arc<dyn Engine>, label: &str) -> Result<Self> {
        let mut events = engine.events(&[label.to_owned()], None).await?;
        let (sender, _) = broadcast::channel(4096);
        let passing = sender.clone();
        let task = tokio::spawn(async move {
            while let Some(Ok(event)) = events.next().await {
                // Nobody listening at the moment is fine.
                drop(passing.send(Arc::new(event)));
            }
        });
        Ok(Self { sender, task })
    }

    /// Hears everything from now on.
    pub(super) fn listen(&self) -> Listener {
        Listener { receiver: self.sender.subscribe() }
    }
}

/// One reader of a [`Monitor`].
#[derive(Debug)]
pub(super) struct Listener {
    receiver: broadcast::Receiver<Arc<EngineEvent>>,
}

impl Listener {
    /// The next event. Safe to cancel.
    pub(super) async fn hear(&mut self) -> Heard {
        match self.receiver.recv().await {
            Ok(event) => Heard::Event(event),
            Err(broadcast::error::RecvError::Lagged(_)) => Heard::Gap,
            Err(broadcast::error::RecvError::Closed) => Heard::End,
        }
    }
}
