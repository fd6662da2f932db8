//! Code of a front, or of the embedding service, runs in a lane: what it does to itself must not reach its neighbours.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use super::connections::CloseCause;
use super::worker::Worker;
use crate::key::SubscriberKey;
use crate::outbox::OutboxEnd;

impl Worker {
    /// Does something for one subscriber; if that panics, the subscriber is ended and there is no result. The lane goes
    /// on.
    pub(super) fn guarded<T>(&mut self, slot: u32, does: impl FnOnce(&mut Self) -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(|| does(self))) {
            Ok(result) => Some(result),
            Err(_) => {
                self.end_broken(slot);
                None
            }
        }
    }

    /// Ends a subscriber whose delivering panicked: its client is told by its front, if that has registered one, and
    /// sent nothing more; other outboxes close.
    pub(super) fn end_broken(&mut self, slot: u32) {
        self.lane.panicked.fetch_add(1, Ordering::Relaxed);
        let lane = self.lane.index;
        tracing::error!(lane, slot, "delivering to a subscriber panicked, it is closed");
        let Some(place) = self.slots.get_mut(slot as usize) else { return };
        let Some(occupant) = place.subscriber.take() else { return };
        let key = SubscriberKey { lane, slot, generation: place.generation };
        let end = || match self.lane.connections.find(key) {
            Some(connection) => {
                connection.close(&CloseCause::Administrative(Some("internal error".to_owned())))
            }
            None => occupant.outbox.close(OutboxEnd::Broken),
        };
        if catch_unwind(AssertUnwindSafe(end)).is_err() {
            _ = catch_unwind(AssertUnwindSafe(|| occupant.outbox.close(OutboxEnd::Broken)));
        }
        self.broken.insert(slot, occupant);
    }
}
