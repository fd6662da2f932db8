//! Where a session's frames go.

use std::sync::Arc;

use broker_core::{Class, Outbox, Principal, Sink};
use bytes::Bytes;

/// The connection's outbox, or the lane's way into it during a delivery, or a list in a test.
pub(crate) trait Wire {
    /// The lane may still know an earlier connection, with its outbox and its client's rights; these are the present
    /// one's. False if a message that hit the subscriptions `tags` is not for this client.
    fn redirect_as(&mut self, _outbox: &Arc<Outbox>, _principal: Option<&Principal>, _tags: &[u32]) -> bool {
        true
    }

    /// Sends one whole frame.
    fn send(&mut self, frame: &Bytes, class: Class);
    /// Sends one frame in slices; never dropped.
    fn send_parts(&mut self, parts: &[Bytes]);

    /// The session had no room for so many messages.
    fn note_lost(&mut self, _messages: u64) {}
}

impl Wire for Sink<'_> {
    fn redirect_as(&mut self, outbox: &Arc<Outbox>, principal: Option<&Principal>, tags: &[u32]) -> bool {
        Sink::redirect_as(self, outbox, principal, tags)
    }

    fn send(&mut self, frame: &Bytes, class: Class) {
        Sink::send(self, frame, class);
    }

    fn send_parts(&mut self, parts: &[Bytes]) {
        Sink::send_parts(self, parts);
    }

    fn note_lost(&mut self, messages: u64) {
        Sink::note_lost(self, messages);
    }
}

impl Wire for &Arc<Outbox> {
    fn send(&mut self, frame: &Bytes, class: Class) {
        if !frame.is_empty() {
            Outbox::send(self, frame.clone(), class);
        }
    }

    fn send_parts(&mut self, parts: &[Bytes]) {
        Outbox::send_parts(self, parts);
    }
}

/// A wire for sessions without a connection: nothing reaches it, because such a session only queues.
pub(crate) struct Nowhere;

impl Wire for Nowhere {
    fn send(&mut self, _: &Bytes, _: Class) {}

    fn send_parts(&mut self, _: &[Bytes]) {}
}
