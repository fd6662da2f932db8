//! Where a session's frames go.

use std::sync::Arc;

use broker_core::{Class, Outbox, Sink};
use bytes::Bytes;

/// The connection's outbox, or the lane's way into it during a delivery, or a list in a test.
pub(crate) trait Wire {
    /// The lane may still know the outbox of an earlier connection; this is the present one's.
    fn redirect(&mut self, _outbox: &Arc<Outbox>) {}

    /// Sends one whole frame.
    fn send(&mut self, frame: &Bytes, class: Class);
    /// Sends one frame in slices; never dropped.
    fn send_parts(&mut self, parts: &[Bytes]);
}

impl Wire for Sink<'_> {
    fn redirect(&mut self, outbox: &Arc<Outbox>) {
        Sink::redirect(self, outbox);
    }

    fn send(&mut self, frame: &Bytes, class: Class) {
        Sink::send(self, frame, class);
    }

    fn send_parts(&mut self, parts: &[Bytes]) {
        Sink::send_parts(self, parts);
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
