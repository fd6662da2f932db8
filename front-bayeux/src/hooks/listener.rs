//! What an embedding service may hear and stop.

use std::borrow::Cow;

use broker_core::{Channel, Filter, LeaveReason, Principal};

use crate::codec::id::ClientId;
use crate::config::QueueFull;

/// A message as it came, before anything is done about it. What was absent is `None`; all else is the JSON text.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Incoming<'a> {
    /// The session it names, if the sender may use it; none in a handshake.
    pub client: Option<&'a ClientId>,
    /// Its channel, e.g. `/meta/subscribe` or `/chat/room1`.
    pub channel: &'a str,
    /// `subscription`.
    pub subscription: Option<&'a str>,
    /// `data`.
    pub data: Option<&'a str>,
    /// `ext`, where extensions put what they want to say.
    pub ext: Option<&'a str>,
}

/// Hears of sessions and messages of Bayeux, in its own terms; of the clients of all fronts
/// [`Lifecycle`](broker_core::Lifecycle) hears. What both hear of, the core tells: the front passes on what concerns its
/// sessions. Called in the middle of a request, so it must be quick; it may call the [`Front`](crate::Front).
pub trait Listener: Send + Sync + 'static {
    /// A session shook hands; its reply is not yet written. What is delivered to it now goes with the
    /// reply if [`Config::deliver_during_handshake`](crate::Config::deliver_during_handshake) is on.
    fn opened(&self, client: &ClientId, principal: &Principal) {
        let _ = (client, principal);
    }

    /// A session is over.
    fn closed(&self, client: &ClientId, why: LeaveReason) {
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

    /// A message came, also one to `/meta/...`: the place of an incoming server extension, e.g. one that wants a
    /// token in `ext` with each subscribe. It may refuse the message with an error, `CCC:args:text`.
    ///
    /// # Errors
    /// The message's reply is `successful:false` with this text.
    fn incoming(&self, message: &Incoming<'_>) -> Result<(), Cow<'static, str>> {
        let _ = message;
        Ok(())
    }

    /// The queue of a session is full; `waiting` events are in it. `None` leaves the decision to
    /// [`Config::queue_full`](crate::Config::queue_full). Not asked about what waits on a socket, which follows the
    /// configuration.
    fn queue_full(&self, client: &ClientId, waiting: usize) -> Option<QueueFull> {
        let _ = (client, waiting);
        None
    }

    /// A client with the ack extension said that it has so many more events.
    fn acknowledged(&self, client: &ClientId, events: u32) {
        let _ = (client, events);
    }

    /// A message is about to be published; `data` is its JSON text. False takes it: the publisher gets
    /// `404::message_deleted`.
    fn publishing(&self, client: Option<&ClientId>, channel: &Channel, data: &str) -> bool {
        let _ = (client, channel, data);
        true
    }
}
