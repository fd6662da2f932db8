//! From deliveries to events.

use std::sync::Arc;

use broker_core::{Class, Deliver, Delivery, Encoding, Filter, Kind, Outbox, Position, Sink};
use bytes::Bytes;
use parking_lot::Mutex;

use crate::Format;
use crate::codec::event;
use crate::stats::Counters;

/// Writes every delivery as an event. Stateless: all streams of one format share one.
pub(crate) struct Events {
    pub(crate) format: Format,
    pub(crate) encoding: Encoding,
    pub(crate) counters: Arc<Counters>,
}

impl Events {
    fn frame<'d>(&self, delivery: &'d Delivery) -> &'d Bytes {
        delivery.encoded(self.encoding, |message| {
            event::message(message, delivery.kind(), self.format).unwrap_or_else(|| {
                Counters::add(&self.counters.inexpressible);
                Bytes::new()
            })
        })
    }
}

impl Deliver for Events {
    fn deliver(&self, delivery: &Delivery, _tags: &[u32], sink: &mut Sink<'_>) {
        sink.send(self.frame(delivery), Class::Droppable);
    }

    fn shared_frame<'d>(&self, delivery: &'d Delivery, _: &[u32], _: &Arc<Outbox>) -> Option<&'d Bytes> {
        Some(self.frame(delivery))
    }
}

/// For a stream whose filters overlap: each subscription brings its own retained messages, and one that an earlier
/// filter brings too must arrive once.
pub(crate) struct Overlapping {
    pub(crate) events: Arc<Events>,
    /// By tag.
    pub(crate) filters: Vec<Filter>,
}

impl Overlapping {
    /// Whether an earlier filter brings this retained message.
    fn is_repeat(&self, delivery: &Delivery, tags: &[u32]) -> bool {
        let first = tags.iter().min().map_or(0, |tag| *tag as usize);
        let channel = delivery.message().channel();
        delivery.kind() == Kind::Retained
            && self.filters.iter().take(first).any(|earlier| earlier.matches(channel))
    }

    pub(crate) fn is_needed(filters: &[Filter]) -> bool {
        filters
            .iter()
            .enumerate()
            .any(|(at, one)| filters.iter().skip(at + 1).any(|other| one.overlaps(other)))
    }
}

impl Deliver for Overlapping {
    fn deliver(&self, delivery: &Delivery, tags: &[u32], sink: &mut Sink<'_>) {
        if !self.is_repeat(delivery, tags) {
            self.events.deliver(delivery, tags, sink);
        }
    }
}

/// For a stream over what is in memory and what an engine keeps: there is no order between the two, so each of its
/// events has a position in both for its id, and none is shared with another stream.
pub(crate) struct OverBoth {
    pub(crate) inner: Overlapping,
    /// What the stream has brought, or began behind.
    pub(crate) position: Mutex<Position>,
}

impl Deliver for OverBoth {
    fn deliver(&self, delivery: &Delivery, tags: &[u32], sink: &mut Sink<'_>) {
        if self.inner.is_repeat(delivery, tags) {
            return;
        }
        let Events { format, counters, .. } = &*self.inner.events;
        let message = delivery.message();
        let id = message.id().filter(|_| delivery.kind() != Kind::Retained).map(|id| {
            let mut position = self.position.lock();
            *position = position.with(id);
            *position
        });
        match event::message_at(message, id, *format) {
            Some(frame) => sink.send(&frame, Class::Droppable),
            None => Counters::add(&counters.inexpressible),
        }
    }
}
