//! What a session owes its client: messages in flight at QoS 1 and 2, and those that wait for a place.

use std::collections::VecDeque;
use std::sync::Arc;

use broker_core::{Message, Qos, Queued};

use super::confirming::Awaited;
use super::queue::{Bounds, Clock, Queue, give_back};
use super::session::Tenths;
use super::ticket::Ticket;
use crate::config::{Config, QueuePolicy};

/// A message on its way to one client.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) message: Arc<Message>,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    /// Subscription identifiers, those of this client only.
    pub(crate) ids: Box<[u32]>,
    /// The tag of the shared subscription it came by: if the session ends first, another member gets it.
    pub(crate) shared: Option<u32>,
    /// It is a retained message for a new subscription: the store holds it too, so it counts as nothing.
    pub(crate) from_store: bool,
    /// Of a shared subscription whose messages are kept: it is finished with the last copy of this.
    pub(super) ticket: Option<Arc<Ticket>>,
}

impl Outgoing {
    /// What it counts in a session's budgets, in bytes: all that it may keep alive. Most messages are shared with other
    /// sessions and the log, but nobody knows who lets go of one last.
    pub(crate) fn weight(&self) -> usize {
        self.message.weight() + 64
    }
}

/// Where an exchange stands.
#[derive(Clone, Debug)]
pub(crate) enum Stage {
    /// PUBLISH sent, PUBACK or PUBREC awaited.
    Publish(Outgoing),
    /// PUBREC received, PUBREL sent, PUBCOMP awaited.
    Release,
}

/// An unfinished exchange.
#[derive(Clone, Debug)]
pub(crate) struct Inflight {
    pub(crate) packet_id: u16,
    /// Whether it was sent on the present connection; if not it waits for a place there.
    pub(crate) sent: bool,
    pub(crate) stage: Stage,
}

impl Inflight {
    fn weight(&self) -> usize {
        match &self.stage {
            Stage::Publish(outgoing) => outgoing.weight(),
            Stage::Release => 0,
        }
    }
}

/// Created with a session's first QoS 1 or 2 message.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    queue: Queue,
    /// In the order they were started, which is the order they are repeated in.
    inflight: VecDeque<Inflight>,
    inflight_bytes: usize,
    /// Those of `inflight` that were sent on the present connection.
    outstanding: usize,
    last_id: u16,
    /// Identifiers of an earlier life of the server are among those in flight, in any order.
    is_restored: bool,
    /// When it was last logged that too much waits here.
    overrun_logged: Option<Tenths>,
    /// Whoever waits for acknowledgements.
    pub(super) awaited: Option<Box<Awaited>>,
}

/// How often that is logged, in tenths of a second.
const LOG_EVERY: u32 = 600;

impl Outbound {
    pub(crate) fn is_queue_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Messages that wait for a place, those from the store included, and the bytes they count.
    pub(crate) fn queued(&self) -> Queued {
        let mut given = Queued::default();
        given.messages = self.queue.len();
        given.bytes = self.queue.counted_bytes();
        given
    }

    /// Too much waits: what that is, if it is to be logged.
    pub(crate) fn note_overrun(&mut self, now: Tenths) -> Option<Queued> {
        let is_quiet = self.overrun_logged.is_some_and(|last| now.0.saturating_sub(last.0) < LOG_EVERY);
        if is_quiet {
            return None;
        }
        self.overrun_logged = Some(now);
        Some(self.queued())
    }

    /// Messages that wait for a place, oldest first.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Outgoing> {
        self.queue.iter()
    }

    /// Lets go of messages that wait, and can be read again.
    pub(super) fn discard(&mut self, goes: impl Fn(&Outgoing) -> bool) {
        self.queue.discard(goes);
    }

    pub(super) fn exchanges(&self) -> impl Iterator<Item = &Inflight> {
        self.inflight.iter()
    }

    pub(super) fn last_id(&self) -> u16 {
        self.last_id
    }

    /// The last identifier that an earlier life of the server gave.
    pub(super) fn begin_behind(&mut self, last_id: u16) {
        (self.last_id, self.is_restored) = (last_id, true);
    }

    /// An exchange of an earlier life of the server, of which PUBCOMP is awaited.
    pub(super) fn restore_release(&mut self, packet_id: u16) {
        self.inflight.push_back(Inflight { packet_id, sent: false, stage: Stage::Release });
    }

    /// Exchanges that are not finished.
    pub(crate) fn inflight(&self) -> usize {
        self.inflight.len()
    }

    /// Appends to a connected client's queue.
    ///
    /// # Errors
    /// There is no place for it: here it is again.
    pub(crate) fn enqueue(
        &mut self,
        outgoing: Outgoing,
        config: &Config,
        clock: Clock<'_>,
    ) -> Result<(), Outgoing> {
        let bounds =
            Bounds { messages: config.max_live_queued_messages, bytes: config.max_live_queued_bytes };
        if !self.queue.has_place(outgoing.weight(), bounds, clock) {
            return Err(outgoing);
        }
        self.queue.push_back(outgoing);
        Ok(())
    }

    /// Appends a retained message for a new subscription; false if too many of them wait.
    pub(crate) fn enqueue_retained(&mut self, outgoing: Outgoing, config: &Config, clock: Clock<'_>) -> bool {
        let is_full = |queue: &Queue| queue.len() - queue.counted() >= config.max_waiting_retained;
        if is_full(&self.queue) {
            self.queue.expire(clock);
        }
        if is_full(&self.queue) {
            return false;
        }
        self.queue.push_back(outgoing);
        true
    }

    /// Appends to the queue of a session whose client is away; how many messages were dropped because it is full, this
    /// one perhaps among them. What waited already when the client went may be more than the bounds: it stays, and for
    /// each newer message at least as much of it goes, if it is the oldest that go.
    pub(crate) fn enqueue_absent(&mut self, outgoing: Outgoing, config: &Config, clock: Clock<'_>) -> u64 {
        let bounds = Bounds { messages: config.max_queued_messages, bytes: config.max_queued_bytes };
        let weight = outgoing.weight();
        let (mut dropped, mut freed) = (0, 0);
        while !self.queue.has_place(weight, bounds, clock) {
            if config.queue_policy == QueuePolicy::DropNewest || bounds.messages == 0 {
                return dropped + 1;
            }
            match self.queue.drop_oldest() {
                Some(bytes) => freed += bytes,
                None => return dropped + 1,
            }
            dropped += 1;
            if freed >= weight {
                break;
            }
        }
        self.queue.push_back(outgoing);
        dropped
    }

    /// Takes back what the client may not see any more and was not sent on this connection; how many
    /// messages that was. A QoS 2 exchange that an earlier connection began is only ended: the client may
    /// have the message, and its identifier must not stand for another one before it has let go of it.
    pub(crate) fn withdraw(&mut self, is_allowed: impl Fn(&Message) -> bool) -> u64 {
        let mut withdrawn = self.queue.retain(&is_allowed);
        let mut bytes = 0;
        self.inflight.retain_mut(|inflight| {
            let Stage::Publish(outgoing) = &inflight.stage else { return true };
            if inflight.sent || is_allowed(&outgoing.message) {
                return true;
            }
            withdrawn += 1;
            bytes += outgoing.weight();
            let begun = outgoing.qos == Qos::ExactlyOnce;
            if begun {
                inflight.stage = Stage::Release;
            }
            begun
        });
        self.inflight_bytes = self.inflight_bytes.saturating_sub(bytes);
        withdrawn
    }

    /// The next to be started, whose time is not over; expired ones before it are thrown away.
    pub(crate) fn dequeue(&mut self, now_ms: u64) -> Option<Outgoing> {
        self.queue.pop(now_ms)
    }

    /// Whether the queue's head would fit beside what is in flight.
    pub(crate) fn has_room(&self, max_inflight: u16, max_bytes: usize) -> bool {
        let next = self.queue.front().map_or(0, Outgoing::weight);
        self.has_room_for(next, max_inflight, max_bytes)
    }

    pub(crate) fn has_room_for(&self, weight: usize, max_inflight: u16, max_bytes: usize) -> bool {
        self.outstanding == self.inflight.len()
            && self.inflight.len() < usize::from(max_inflight)
            && (self.inflight.is_empty() || self.inflight_bytes + weight <= max_bytes)
    }

    /// The packet identifier the next started exchange will have; nothing is taken yet.
    pub(crate) fn next_id(&self) -> u16 {
        let mut id = self.last_id;
        loop {
            // Packet identifier 0 is reserved, so wrapping skips it (MQTT 5.0 §2.2.1).
            id = id.checked_add(1).unwrap_or(1);
            if !self.is_in_use(id) {
                return id;
            }
        }
    }

    /// Identifiers are given in rising order, so an identifier behind the newest one is free without a look
    /// at each; there are fewer exchanges than identifiers, so `next_id` ends.
    fn is_in_use(&self, id: u16) -> bool {
        let (Some(first), Some(last)) = (self.inflight.front(), self.inflight.back()) else { return false };
        let distance = |other: u16| other.wrapping_sub(first.packet_id);
        (self.is_restored || distance(id) <= distance(last.packet_id))
            && self.inflight.iter().any(|inflight| inflight.packet_id == id)
    }

    /// Begins an exchange that was sent on this connection.
    pub(crate) fn start(&mut self, packet_id: u16, outgoing: Outgoing) {
        self.last_id = packet_id;
        self.resume(packet_id, outgoing);
    }

    /// As [`start`](Self::start), under an identifier that was given before.
    pub(super) fn resume(&mut self, packet_id: u16, outgoing: Outgoing) {
        self.inflight_bytes += outgoing.weight();
        self.outstanding += 1;
        self.inflight.push_back(Inflight { packet_id, sent: true, stage: Stage::Publish(outgoing) });
    }

    pub(crate) fn find(&mut self, packet_id: u16) -> Option<&mut Inflight> {
        self.inflight.iter_mut().find(|inflight| inflight.packet_id == packet_id)
    }

    /// Ends an exchange.
    pub(crate) fn finish(&mut self, packet_id: u16) -> Option<Inflight> {
        let index = self.inflight.iter().position(|inflight| inflight.packet_id == packet_id)?;
        let ended = self.inflight.remove(index)?;
        self.inflight_bytes = self.inflight_bytes.saturating_sub(ended.weight());
        self.outstanding -= usize::from(ended.sent);
        give_back(&mut self.inflight);
        Some(ended)
    }

    /// Ends an exchange by the client's acknowledgement, which is one of success or not.
    pub(crate) fn acknowledge(&mut self, packet_id: u16, is_taken: bool) {
        if let Some(Inflight { stage: Stage::Publish(outgoing), .. }) = self.finish(packet_id)
            && self.awaited.is_some()
        {
            self.settle(&outgoing.message, is_taken);
        }
    }

    /// Tells whoever waits for the acknowledgement of this message.
    pub(super) fn settle(&mut self, message: &Arc<Message>, is_taken: bool) {
        let Some(awaited) = &mut self.awaited else { return };
        awaited.settle(message, is_taken);
        if awaited.is_empty() {
            self.awaited = None;
        }
    }

    /// Whether the message that was queued last waits still, or is in flight.
    pub(super) fn has(&self, message: &Arc<Message>) -> bool {
        let is_it = |outgoing: &Outgoing| Arc::ptr_eq(&outgoing.message, message);
        let in_flight = |inflight: &Inflight| match &inflight.stage {
            Stage::Publish(outgoing) => is_it(outgoing),
            Stage::Release => false,
        };
        !self.queue.is_empty() || self.inflight.iter().rev().any(in_flight)
    }

    /// PUBREC was received: the message is not needed any more, its identifier is.
    pub(crate) fn release(&mut self, packet_id: u16) {
        let mut weight = 0;
        if let Some(inflight) = self.find(packet_id) {
            weight = inflight.weight();
            inflight.stage = Stage::Release;
        }
        self.inflight_bytes = self.inflight_bytes.saturating_sub(weight);
    }

    /// A new connection: everything in flight is to be sent again, in order.
    pub(crate) fn restart(&mut self) {
        self.outstanding = 0;
        for inflight in &mut self.inflight {
            inflight.sent = false;
        }
    }

    /// The next exchange to repeat on this connection, if there is a place for it.
    pub(crate) fn next_repeat(&mut self, max_inflight: u16) -> Option<Inflight> {
        if self.outstanding >= usize::from(max_inflight) {
            return None;
        }
        let next = self.inflight.get_mut(self.outstanding)?;
        next.sent = true;
        self.outstanding += 1;
        Some(next.clone())
    }

    /// What another member of a shared subscription should get because this session ends: what the client
    /// has not taken responsibility for.
    pub(crate) fn undelivered(self) -> impl Iterator<Item = Outgoing> {
        let started = self.inflight.into_iter().filter_map(|inflight| match inflight.stage {
            Stage::Publish(outgoing) => Some(outgoing),
            Stage::Release => None,
        });
        started.chain(self.queue.into_messages())
    }
}
