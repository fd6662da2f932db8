//! The lane's way into a session.

use std::sync::Arc;

use broker_core::{Deliver, Delivery, Outbox, Sink, unix_ms};
use bytes::Bytes;

use crate::protocol::{Incoming, Session};

impl Deliver for Session {
    fn deliver(&self, delivery: &Delivery, tags: &[u32], sink: &mut Sink<'_>) {
        self.handle_delivery(&incoming(delivery), tags, sink);
    }

    fn shared_frame<'d>(
        &self,
        delivery: &'d Delivery,
        tags: &[u32],
        outbox: &Arc<Outbox>,
    ) -> Option<&'d Bytes> {
        Session::shared_frame(self, delivery, &incoming(delivery), tags, outbox)
    }
}

fn incoming(delivery: &Delivery) -> Incoming<'_> {
    let message = delivery.message();
    Incoming {
        message,
        kind: delivery.kind(),
        publisher: delivery.publisher(),
        lane: Some(delivery),
        now_ms: if message.expires_at_ms().is_some() { unix_ms() } else { 0 },
    }
}
