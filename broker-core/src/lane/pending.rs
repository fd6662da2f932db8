//! A lane's subscribers, and their subscriptions that are not live yet: they catch up, or wait for retained messages.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::command::{Feed, Then};
use super::deliver::hand_over;
use super::delivery::{Deliver, Delivery, Kind};
use super::worker::{APPEND, Worker};
use crate::clock::steady_ms;
use crate::message::Message;
use crate::outbox::{Flush, Outbox};
use crate::rights::Principal;

/// A place in the slab; its generation moves when its subscriber leaves.
pub(super) struct Slot {
    pub(super) generation: u32,
    /// The last job that reached this slot: odd while its lists are gone through, even once it was delivered.
    pub(super) job: u64,
    pub(super) subscriber: Option<Occupant>,
}

/// A subscriber.
pub(super) struct Occupant {
    pub(super) deliver: Arc<dyn Deliver>,
    pub(super) outbox: Arc<Outbox>,
    /// Whose rights are asked before each delivery, if they must be.
    pub(super) rights: Option<Principal>,
    pub(super) pending: Option<Box<Pending>>,
}

/// Deliveries that may be parked for one subscriber. Beyond it they go out before the retained messages that are left.
pub(super) const MAX_PARKED: usize = 1_000;

/// Subscriptions that are not live yet.
#[derive(Default)]
pub(super) struct Pending {
    /// With the epoch of the log that is caught up with.
    pub(super) catching_up: Vec<(u32, u64)>,
    pub(super) parked_tags: Vec<u32>,
    pub(super) parked: Vec<(Arc<Delivery>, SmallVec<[u32; 1]>)>,
}

impl Worker {
    /// Ends the wait of all parked subscriptions of a subscriber.
    pub(super) fn unpark_all(&mut self, slot: u32, flush: Flush) -> u64 {
        let Some(occupant) = self.slots.get_mut(slot as usize).and_then(|slot| slot.subscriber.as_mut())
        else {
            return 0;
        };
        let Some(pending) = &mut occupant.pending else { return 0 };
        pending.parked_tags.clear();
        pending.drop_expired();
        let parked = std::mem::take(&mut pending.parked);
        occupant.pending.take_if(|pending| pending.is_empty());
        let deliver = |(delivery, tags): (Arc<Delivery>, SmallVec<[u32; 1]>)| {
            hand_over(&self.lane, occupant, slot, &delivery, &tags, flush, &mut self.dirty)
        };
        parked.into_iter().map(deliver).sum()
    }

    pub(super) async fn feed(&mut self, feed: Feed, flush: Flush) {
        let encodings = self.encodings.load(Ordering::Relaxed);
        let mut messages = feed.messages;
        if feed.kind == Kind::Retained
            && let Some(pending) = self.occupant(feed.key).and_then(|occupant| occupant.pending.as_ref())
        {
            // A retained message that is also parked arrives once, as the live one, in its place.
            messages.retain(|(message, tags)| !pending.has_parked(message, tags));
        }
        let mut delivered = 0;
        for (message, tags) in messages {
            let delivery = Arc::new(Delivery::new(message, feed.kind, None, encodings));
            let to = |worker: &mut Self| worker.deliver_to(feed.key, &delivery, &tags, flush);
            delivered += self.guarded(feed.key.slot, to).unwrap_or(0);
            self.spend(APPEND).await;
        }
        match feed.then {
            Then::More => {}
            Then::GoLive(tags, epoch) => {
                if let Some(occupant) = self.occupant(feed.key)
                    && let Some(pending) = &mut occupant.pending
                {
                    pending
                        .catching_up
                        .retain(|(tag, of)| !tags.contains(tag) || epoch.is_some_and(|epoch| epoch != *of));
                    occupant.pending.take_if(|pending| pending.is_empty());
                }
            }
            Then::Unpark(tag) => {
                let parked = self.occupant(feed.key).map(|occupant| occupant.unpark(tag)).unwrap_or_default();
                for (delivery, tags) in parked {
                    let to = |worker: &mut Self| worker.deliver_to(feed.key, &delivery, &tags, flush);
                    delivered += self.guarded(feed.key.slot, to).unwrap_or(0);
                }
            }
        }
        self.lane.delivered.fetch_add(delivered, Ordering::Relaxed);
        if let Some(done) = feed.done {
            let has_room = |worker: &mut Self| {
                worker.occupant(feed.key).is_none_or(|occupant| occupant.deliver.has_room())
            };
            _ = done.send(self.guarded(feed.key.slot, has_room).unwrap_or(true));
        }
    }
}

impl Pending {
    /// The tags that are live; those that are parked keep the delivery.
    pub(super) fn sort_out(&mut self, delivery: &Arc<Delivery>, tags: &[u32]) -> SmallVec<[u32; 4]> {
        let (recorded, epoch) = (delivery.message().is_recorded(), delivery.message().epoch);
        let (mut live, mut parked) = (SmallVec::new(), SmallVec::new());
        for tag in tags {
            if self.parked_tags.contains(tag) {
                parked.push(*tag);
            } else if !(recorded && self.catching_up.contains(&(*tag, epoch))) {
                live.push(*tag);
            }
        }
        if !parked.is_empty() {
            // One call with all tags, later, rather than two copies.
            parked.extend(live.drain(..));
            self.parked.push((Arc::clone(delivery), parked));
        }
        live
    }

    fn has_parked(&self, message: &Message, tags: &[u32]) -> bool {
        self.parked.iter().any(|(delivery, parked)| {
            let known = delivery.message();
            (known.epoch, known.offset()) == (message.epoch, message.offset())
                && tags.iter().any(|tag| parked.contains(tag))
        })
    }

    /// What will not be sent any more takes no room from what will.
    pub(super) fn drop_expired(&mut self) {
        let now_ms = steady_ms();
        self.parked.retain(|(delivery, _)| !delivery.message().is_expired(now_ms));
    }

    fn is_empty(&self) -> bool {
        self.catching_up.is_empty() && self.parked_tags.is_empty() && self.parked.is_empty()
    }
}

impl Occupant {
    /// Ends one subscription's wait; the deliveries that wait for no other one.
    fn unpark(&mut self, tag: u32) -> Vec<(Arc<Delivery>, SmallVec<[u32; 1]>)> {
        let Some(pending) = &mut self.pending else { return Vec::new() };
        pending.drop_expired();
        if let Some(at) = pending.parked_tags.iter().position(|parked| *parked == tag) {
            pending.parked_tags.swap_remove(at);
        }
        // While another subscription is parked, its deliveries keep their order behind those that wait with it.
        let waits = |tags: &[u32], parked: &[u32]| tags.iter().any(|tag| parked.contains(tag));
        let ready = pending
            .parked
            .iter()
            .position(|(_, tags)| waits(tags, &pending.parked_tags))
            .unwrap_or(pending.parked.len());
        let released = pending.parked.drain(..ready).collect();
        self.pending.take_if(|pending| pending.is_empty());
        released
    }
}
