//! The lane's way into a session.

use std::sync::Arc;

use broker_core::{Class, Deliver, Delivery, Kind, Outbox, Sink, steady_ms};
use bytes::Bytes;

use crate::protocol::{Incoming, Session};

impl Deliver for Session {
    fn deliver(&self, delivery: &Delivery, tags: &[u32], sink: &mut Sink<'_>) {
        if delivery.kind() == Kind::Direct {
            return match self.direct_frame(delivery.message(), steady_ms()) {
                Ok((outbox, frame)) => {
                    sink.redirect(&outbox);
                    sink.send(&frame, Class::Control);
                }
                Err(why) => sink.refuse(why),
            };
        }
        self.handle_delivery(&incoming(delivery), tags, sink);
    }

    fn has_room(&self) -> bool {
        let state = self.lock();
        state.online.is_none() || state.has_room_for_retained()
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
    Incoming {
        message: delivery.message(),
        kind: delivery.kind(),
        publisher: delivery.publisher(),
        lane: Some(delivery),
        clock: &steady_ms,
    }
}
