//! How long a request may keep others from their turn.

use broker_core::{Broker, Position};

/// What a request may do before other tasks get their turn: so many messages, or names in subscriptions.
const BEFORE_YIELD: usize = 64;

/// How much a request has done since others had their turn.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    spent: usize,
    /// Where the logs stood at the request's first subscribe that may ask for the past.
    asked_at: Option<Position>,
}

impl Turn {
    /// Counts what is about to be done, and lets others go first when it has become much.
    pub(crate) async fn spend(&mut self, cost: usize) {
        self.spent += cost;
        if self.spent >= BEFORE_YIELD {
            self.spent = 0;
            tokio::task::yield_now().await;
        }
    }

    /// Where the logs stood when this request began to subscribe: what came before has been sent by then, and a replay of it
    /// is asked for again.
    pub(super) fn asked_at(&mut self, broker: &Broker) -> Position {
        *self.asked_at.get_or_insert_with(|| broker.position())
    }
}
