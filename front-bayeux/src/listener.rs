//! What an embedding service may hear and stop.

use broker_core::{Channel, Filter, Principal};

use crate::codec::id::ClientId;

/// Why a session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// It disconnected.
    ByClient,
    /// [`Front::disconnect`](crate::Front::disconnect), or it was not active.
    ByServer,
    /// Nothing came from it for too long, or its credentials ran out.
    Expired,
    /// It did not take its events.
    QueueFull,
    /// The server went away.
    Shutdown,
}

/// Hears of sessions and messages. Called in the middle of a request, so it must be quick; it may call
/// the [`Front`](crate::Front).
pub trait Listener: Send + Sync + 'static {
    /// A session shook hands; its reply is not yet written. What is delivered to it now goes with the
    /// reply if [`Config::deliver_during_handshake`](crate::Config::deliver_during_handshake) is on.
    fn opened(&self, client: &ClientId, principal: &Principal) {
        let _ = (client, principal);
    }

    /// A session is over.
    fn closed(&self, client: &ClientId, why: Closed) {
        let _ = (client, why);
    }

    /// A session subscribed.
    fn subscribed(&self, client: &ClientId, filter: &Filter) {
        let _ = (client, filter);
    }

    /// A session unsubscribed; not called for those that a session's end takes along.
    fn unsubscribed(&self, client: &ClientId, filter: &Filter) {
        let _ = (client, filter);
    }

    /// A message is about to be published; `data` is its JSON text. False takes it: the publisher gets
    /// `404::message_deleted`.
    fn publishing(&self, client: Option<&ClientId>, channel: &Channel, data: &str) -> bool {
        let _ = (client, channel, data);
        true
    }
}
