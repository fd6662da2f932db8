//! The lane's way into a session.

use broker_core::{Deliver, Delivery, Sink, unix_ms};

use crate::protocol::{Incoming, Session};

impl Deliver for Session {
    fn deliver(&self, delivery: &Delivery, tags: &[u32], sink: &mut Sink<'_>) {
        let message = delivery.message();
        let incoming = Incoming {
            message,
            kind: delivery.kind(),
            publisher: delivery.publisher(),
            lane: Some(delivery),
            now_ms: if message.expires_at_ms().is_some() { unix_ms() } else { 0 },
        };
        self.handle_delivery(&incoming, tags, sink);
    }
}
