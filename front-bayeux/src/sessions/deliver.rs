//! What a session's lane calls.

use std::sync::Arc;
use std::time::Instant;

use broker_core::{Class, Deliver, Delivery, Kind, Outbox, SendError, Sink, steady_ms};
use bytes::Bytes;

use super::mailbox::Mailbox;
use crate::codec::event::Replay;
use crate::config::Lazy;
use crate::protocol::Delivered;

impl Deliver for Mailbox {
    fn deliver(&self, delivery: &Delivery, _tags: &[u32], sink: &mut Sink<'_>) {
        if delivery.kind() == Kind::Direct {
            return self.deliver_to_one(delivery, sink);
        }
        // The past is late already.
        let lazy = self.laziness(delivery).filter(|_| delivery.kind() != Kind::Replayed);
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if !state.admits(delivery.message(), delivery.kind()) {
            return;
        }
        let shared = &*self.shared;
        if lazy.is_none()
            && let Some(socket) = state.pushing_socket()
        {
            let frame = shared.encodings.frame(&shared.config, state.replay, delivery, socket.deflate);
            if frame.is_empty() {
                shared.counters.inexpressible();
            } else {
                if socket.own {
                    sink.send(frame, Class::Droppable);
                } else {
                    socket.outbox.send(frame.clone(), Class::Droppable);
                }
                state.sent = state.sent.wrapping_add(1);
            }
            if shared.config.extensions.activity.is_some() {
                state.session.note_server_activity(Instant::now());
            }
            return;
        }
        let object = shared.encodings.object(&shared.config, state.replay, delivery);
        if object.is_empty() {
            shared.counters.inexpressible();
            return;
        }
        state.sent = state.sent.wrapping_add(1);
        let now = Instant::now();
        let lazy = lazy.map(|lazy| {
            let longest = || shared.config.max_lazy_timeout_for(state.session.transport());
            lazy.timeout.unwrap_or_else(longest)
        });
        let expires_at = delivery.message().remaining(steady_ms()).and_then(|left| now.checked_add(left));
        match state.session.handle_delivery(now, object, lazy, expires_at) {
            Delivered::Queued | Delivered::Ignored => {}
            Delivered::Due if state.socket.is_some() => self.write_socket(state, now, Some(sink)),
            Delivered::Due => self.woken().notify_waiters(),
            full => {
                drop(guard);
                return self.follow_up(now, full, expires_at);
            }
        }
        self.clock.set(&mut state.session, shared);
    }

    fn has_room(&self) -> bool {
        Mailbox::has_room(self)
    }

    fn shared_frame<'d>(&self, delivery: &'d Delivery, _: &[u32], outbox: &Arc<Outbox>) -> Option<&'d Bytes> {
        let shared = &*self.shared;
        if !shared.config.lazy.is_empty() || shared.config.extensions.activity.is_some() {
            return None;
        }
        let mut state = self.state.lock();
        let socket =
            state.socket.as_ref().filter(|socket| socket.own && Arc::ptr_eq(&socket.outbox, outbox))?;
        let plain = !state.is_replaying() && state.session.pushes() && socket.is_open();
        let frame =
            plain.then(|| shared.encodings.frame(&shared.config, state.replay, delivery, socket.deflate))?;
        state.sent = state.sent.wrapping_add(1);
        Some(frame)
    }
}

impl Mailbox {
    /// An event that was sent to this session alone: taken if there is room, else refused.
    fn deliver_to_one(&self, delivery: &Delivery, sink: &mut Sink<'_>) {
        let now = Instant::now();
        let shared = &*self.shared;
        let delivered = self.with(|state| {
            if state.session.end().is_some() {
                return Err(SendError::Gone);
            }
            let object = shared.encodings.object(&shared.config, Replay::Plain, delivery);
            if object.is_empty() {
                return Err(SendError::Inexpressible);
            }
            let Some(socket) = state.pushing_socket() else {
                return match state.session.handle_delivery(now, object, None, None) {
                    Delivered::Full(_) => Err(SendError::Full),
                    delivered => Ok(delivered),
                };
            };
            let frame = shared.encodings.frame(&shared.config, Replay::Plain, delivery, socket.deflate);
            if socket.own {
                // It asks for room by itself.
                sink.send(frame, Class::Control);
                return Ok(Delivered::Queued);
            }
            if socket.outbox.queued().messages >= shared.config.max_queue_messages {
                return Err(SendError::Full);
            }
            let sent = socket.outbox.send(frame.clone(), Class::Control);
            if sent { Ok(Delivered::Queued) } else { Err(SendError::Gone) }
        });
        match delivered {
            Ok(delivered) => self.follow_up(now, delivered, None),
            Err(why) => sink.refuse(why),
        }
    }

    /// Why an event on this channel may wait; `None` if it must not.
    fn laziness(&self, delivery: &Delivery) -> Option<&Lazy> {
        let channel = delivery.message().channel();
        self.shared.config.lazy.iter().find(|lazy| lazy.filter.matches(channel))
    }
}
