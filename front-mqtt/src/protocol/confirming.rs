//! Messages for one client alone whose sender waits until the client has acknowledged them.

use std::sync::Arc;

use broker_core::{Message, Qos, SendError, steady_ms};
use tokio::sync::oneshot;

use super::outbound::Outgoing;
use super::session::Session;

/// Those who wait for the acknowledgements of one session.
#[derive(Debug, Default)]
pub(super) struct Awaited(Vec<(Arc<Message>, oneshot::Sender<()>)>);

impl Awaited {
    /// So many may wait for one client at a time.
    const MAX: usize = 1_000;

    fn add(&mut self, message: Arc<Message>, done: oneshot::Sender<()>) -> Result<(), SendError> {
        self.0.retain(|(_, done)| !done.is_closed());
        if self.0.len() >= Self::MAX {
            return Err(SendError::Full);
        }
        self.0.push((message, done));
        Ok(())
    }

    fn take(&mut self, message: &Arc<Message>) -> Option<oneshot::Sender<()>> {
        let at = self.0.iter().position(|(awaited, _)| Arc::ptr_eq(awaited, message))?;
        Some(self.0.swap_remove(at).1)
    }

    /// Whoever waits for this message is told; dropped unanswered, it is told that nothing more comes.
    pub(super) fn settle(&mut self, message: &Arc<Message>, is_taken: bool) {
        if let Some(done) = self.take(message)
            && is_taken
        {
            // Nobody may wait any more.
            _ = done.send(());
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Session {
    /// A message for this client alone, at QoS 1. What waits before it goes first.
    ///
    /// # Errors
    /// Nobody is connected, or too much waits already.
    pub(crate) fn send_awaited(&self, message: &Arc<Message>) -> Result<oneshot::Receiver<()>, SendError> {
        let (done, acknowledged) = oneshot::channel();
        let mut state = self.lock();
        let Some(online) = &state.online else { return Err(SendError::Gone) };
        if state.is_overrun {
            return Err(SendError::Full);
        }
        let outbox = online.outbox.clone();
        let outgoing = Outgoing {
            message: message.clone(),
            qos: Qos::AtLeastOnce,
            retain: false,
            ids: Box::default(),
            shared: None,
            from_store: false,
            ticket: None,
        };
        let dropped = state.dropped;
        let outbound = state.outbound.get_or_insert_default();
        outbound.awaited.get_or_insert_default().add(message.clone(), done)?;
        if outbound.enqueue(outgoing, self.config(), &steady_ms).is_err() {
            outbound.settle(message, false);
            return Err(SendError::Full);
        }
        state.pump(self.config(), steady_ms(), &mut &outbox);
        // The client takes no packet of that size, so it was thrown away at once: it is not in flight, and nobody would
        // ever hear of it.
        let is_gone = state.dropped != dropped
            && state.outbound.as_ref().is_some_and(|outbound| !outbound.has(message));
        if is_gone && let Some(outbound) = &mut state.outbound {
            outbound.settle(message, false);
            return Err(SendError::Inexpressible);
        }
        Ok(acknowledged)
    }
}
