//! Events that wait for a session, and the memory of those not yet acknowledged.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;

/// Bounds of one queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueLimits {
    pub(crate) max_messages: usize,
    /// Of the events' text, and of their places in the queue.
    pub(crate) max_bytes: usize,
}

/// What an event costs beside its text, which sessions share.
pub(crate) const PLACE_BYTES: usize = 64;

/// How much of a replay or of retained messages may wait in a queue: enough for a reader that keeps up, little for one
/// that does not, as these events are not shared.
const AHEAD: QueueLimits = QueueLimits { max_messages: 256, max_bytes: 64 << 10 };

/// The queue is full; nothing was added, and here is what was to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full(pub(crate) Bytes);

#[derive(Debug)]
struct QueuedEvent {
    object: Bytes,
    /// The first reply that carried it; 0 if none did.
    batch: u64,
    /// When it must not be sent any more.
    expires_at: Option<Instant>,
}

/// Events in the order of delivery. Without acknowledgement an event leaves when it is taken; with it
/// when the client says that it got the batch.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    events: VecDeque<QueuedEvent>,
    bytes: usize,
    /// Whether events are kept until they are acknowledged.
    acks: bool,
    /// Number of the last reply, with acknowledgement.
    batches: u64,
    /// Something waits that is not lazy.
    urgent: bool,
    /// When the first event's time is over, at the earliest.
    expires: Option<Instant>,
    /// When the lazy ones have waited long enough.
    lazy_until: Option<Instant>,
}

impl Queue {
    /// From now on events are kept until they are acknowledged; those that wait already count.
    pub(crate) fn enable_ack(&mut self) {
        self.acks = true;
    }

    /// Adds an event; `lazy_until` tells how long it may wait for company, `expires_at` when its time is over.
    pub(crate) fn push(
        &mut self,
        now: Instant,
        object: Bytes,
        lazy_until: Option<Instant>,
        expires_at: Option<Instant>,
        limits: QueueLimits,
    ) -> Result<(), Full> {
        if !self.fits(object.len(), limits) {
            // What nobody will get takes no room from what somebody may.
            self.drop_expired(now);
        }
        if !self.fits(object.len(), limits) && !self.events.is_empty() {
            return Err(Full(object));
        }
        self.bytes += weight(&object);
        if let Some(end) = expires_at {
            self.expires = Some(self.expires.map_or(end, |known| known.min(end)));
        }
        self.events.push_back(QueuedEvent { object, batch: 0, expires_at });
        match lazy_until {
            None => self.urgent = true,
            Some(until) => self.lazy_until = Some(self.lazy_until.map_or(until, |known| known.min(until))),
        }
        Ok(())
    }

    fn fits(&self, bytes: usize, limits: QueueLimits) -> bool {
        let bytes = self.bytes.saturating_add(bytes).saturating_add(PLACE_BYTES);
        self.events.len() < limits.max_messages && bytes <= limits.max_bytes
    }

    /// Drops the oldest events until one of `bytes` fits; how many.
    pub(crate) fn make_room(&mut self, bytes: usize, limits: QueueLimits) -> u32 {
        let mut dropped: u32 = 0;
        while !self.fits(bytes, limits) {
            let Some(event) = self.events.pop_front() else { break };
            self.bytes -= weight(&event.object);
            dropped = dropped.saturating_add(1);
        }
        dropped
    }

    /// Returns events that were taken but not sent. They were within limits already. Acknowledged
    /// sessions never lost them.
    pub(crate) fn put_back(&mut self, objects: Vec<Bytes>) {
        if self.acks {
            return;
        }
        for object in objects.into_iter().rev() {
            self.bytes += weight(&object);
            self.events.push_front(QueuedEvent { object, batch: 0, expires_at: None });
            self.urgent = true;
        }
    }

    /// The client has batch `batch` and all before it; how many events that were. What it does not have is
    /// due again.
    pub(crate) fn acknowledge(&mut self, batch: u64) -> usize {
        if !self.acks {
            return 0;
        }
        let before = self.events.len();
        // A number we never gave is not believed, or a client could make us lose its events.
        if batch <= self.batches {
            while self.events.front().is_some_and(|event| event.batch != 0 && event.batch <= batch) {
                if let Some(event) = self.events.pop_front() {
                    self.bytes -= weight(&event.object);
                }
            }
        }
        if self.events.front().is_some_and(|event| event.batch != 0) {
            self.urgent = true;
        }
        let acknowledged = before - self.events.len();
        self.shrink();
        acknowledged
    }

    /// Whether something shall be sent now.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.urgent || self.lazy_until.is_some_and(|until| until <= now)
    }

    /// When the lazy events are due, if nothing else is.
    pub(crate) fn lazy_until(&self) -> Option<Instant> {
        self.lazy_until.filter(|_| !self.urgent)
    }

    /// All events for one reply, old before new, and the reply's number if it has one.
    pub(crate) fn take(&mut self, now: Instant) -> (Vec<Bytes>, Option<u64>) {
        self.drop_expired(now);
        self.urgent = false;
        self.lazy_until = None;
        if !self.acks {
            self.bytes = 0;
            self.expires = None;
            return (std::mem::take(&mut self.events).into_iter().map(|event| event.object).collect(), None);
        }
        self.batches += 1;
        let number = self.batches;
        let objects = self.events.iter_mut().map(|event| {
            if event.batch == 0 {
                event.batch = number;
            }
            event.object.clone()
        });
        (objects.collect(), Some(number))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Events and what they hold.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        (self.events.len(), self.bytes)
    }

    /// Whether another page of a replay, or of retained messages, may come.
    pub(crate) fn has_room(&mut self, now: Instant, limits: QueueLimits) -> bool {
        self.drop_expired(now);
        has_room_for_page(self.events.len(), self.bytes, limits)
    }

    pub(crate) fn clear(&mut self) {
        self.events = VecDeque::new();
        self.bytes = 0;
        self.urgent = false;
        self.expires = None;
        self.lazy_until = None;
    }

    fn drop_expired(&mut self, now: Instant) {
        // Looked through only if there is something to find, or a full queue would be for each event.
        if self.expires.is_none_or(|first| first > now) {
            return;
        }
        let bytes = &mut self.bytes;
        let mut next: Option<Instant> = None;
        self.events.retain(|event| {
            let Some(end) = event.expires_at else { return true };
            if end <= now {
                *bytes -= weight(&event.object);
                return false;
            }
            next = Some(next.map_or(end, |known| known.min(end)));
            true
        });
        self.expires = next;
    }

    /// A session that waits for hours keeps no room for the burst it once had.
    fn shrink(&mut self) {
        if self.events.is_empty() && self.events.capacity() > 8 {
            self.events = VecDeque::new();
        }
    }
}

/// What an event holds.
fn weight(object: &Bytes) -> usize {
    object.len() + PLACE_BYTES
}

/// Whether so much leaves room for another page, in a queue or a socket's outbox with these limits.
pub(crate) fn has_room_for_page(messages: usize, bytes: usize, limits: QueueLimits) -> bool {
    messages < AHEAD.max_messages.min(limits.max_messages.div_ceil(2))
        && bytes < AHEAD.max_bytes.min(limits.max_bytes.div_ceil(2))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LIMITS: QueueLimits = QueueLimits { max_messages: 3, max_bytes: 3 * PLACE_BYTES + 10 };

    fn push(queue: &mut Queue, text: &'static str) -> Result<(), Full> {
        queue.push(Instant::now(), Bytes::from_static(text.as_bytes()), None, None, LIMITS)
    }

    fn take(queue: &mut Queue) -> (String, Option<u64>) {
        let (events, number) = queue.take(Instant::now());
        (events.iter().map(|event| std::str::from_utf8(event).unwrap()).collect(), number)
    }

    #[test]
    fn limits_hold_but_one_message_always_fits() {
        let mut queue = Queue::default();
        let long = Bytes::from(vec![b'x'; 1000]);
        assert_eq!(queue.push(Instant::now(), long, None, None, LIMITS), Ok(()));
        assert_eq!(push(&mut queue, "x"), Err(Full("x".into())));
        queue.take(Instant::now());
        for text in ["a", "b", "c"] {
            assert_eq!(push(&mut queue, text), Ok(()));
        }
        assert_eq!(push(&mut queue, "d"), Err(Full("d".into())));
        assert_eq!((take(&mut queue), queue.bytes), (("abc".to_owned(), None), 0));
    }

    #[test]
    fn the_oldest_make_room() {
        let mut queue = Queue::default();
        for text in ["aaaa", "bbbb", "c"] {
            push(&mut queue, text).unwrap();
        }
        assert_eq!(queue.make_room(1, LIMITS), 1);
        assert_eq!((queue.make_room(8, LIMITS), queue.waiting()), (1, (1, 1 + PLACE_BYTES)));
        assert_eq!((queue.make_room(200, LIMITS), queue.waiting()), (1, (0, 0)), "one always fits");
    }

    #[test]
    fn unacknowledged_events_come_again_before_new_ones() {
        let mut queue = Queue::default();
        queue.enable_ack();
        push(&mut queue, "a").unwrap();
        assert_eq!(take(&mut queue), ("a".into(), Some(1)));
        queue.acknowledge(0);
        assert!(queue.is_due(Instant::now()));
        push(&mut queue, "b").unwrap();
        assert_eq!(take(&mut queue), ("ab".into(), Some(2)));
        queue.acknowledge(1);
        assert_eq!(take(&mut queue), ("b".into(), Some(3)));
        queue.acknowledge(99);
        assert_eq!(queue.events.len(), 1, "a number that was never given");
        queue.acknowledge(3);
        assert_eq!((take(&mut queue), queue.bytes), ((String::new(), Some(4)), 0));
    }

    #[test]
    fn events_queued_before_acknowledgement_are_imported() {
        let mut queue = Queue::default();
        push(&mut queue, "a").unwrap();
        queue.enable_ack();
        assert_eq!(take(&mut queue), ("a".into(), Some(1)));
        assert_eq!(queue.events.len(), 1);
    }

    #[test]
    fn an_event_whose_time_is_over_is_not_taken() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.enable_ack();
        queue.push(now, Bytes::from_static(b"short"), None, Some(now), LIMITS).unwrap();
        let end = now + Duration::from_secs(60);
        queue.push(now, Bytes::from_static(b"long"), None, Some(end), LIMITS).unwrap();
        let (events, _) = queue.take(now);
        assert_eq!((events.len(), queue.bytes), (1, 4 + PLACE_BYTES));
    }

    #[test]
    fn what_is_expired_makes_room_before_anything_is_refused() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        for ack in [false, true] {
            let mut queue = Queue::default();
            if ack {
                queue.enable_ack();
            }
            let mut push = |now, text: &'static str, end| {
                queue.push(now, Bytes::from_static(text.as_bytes()), None, end, LIMITS).is_ok()
            };
            assert!(push(now, "a", Some(at(1))) && push(now, "b", Some(at(2))) && push(now, "c", None));
            assert!(!push(now, "d", None), "nothing is expired yet");
            assert!(push(at(1), "e", None) && !push(at(1), "f", None));
            assert!(push(at(2), "g", None) && !push(at(9), "h", None));
            assert_eq!(take(&mut queue).0, "ceg");
        }
    }

    #[test]
    fn expired_events_do_not_hold_a_replay_back() {
        let now = Instant::now();
        let mut queue = Queue::default();
        for text in ["a", "b"] {
            queue.push(now, text.into(), None, Some(now + Duration::from_secs(1)), LIMITS).unwrap();
        }
        assert!(!queue.has_room(now, LIMITS));
        assert!(queue.has_room(now + Duration::from_secs(1), LIMITS));
    }

    #[test]
    fn lazy_events_wait_for_company_or_their_time() {
        let now = Instant::now();
        let until = now + Duration::from_secs(5);
        let mut queue = Queue::default();
        queue.push(now, Bytes::from_static(b"l"), Some(until), None, LIMITS).unwrap();
        assert!(!queue.is_due(now) && queue.is_due(until));
        assert_eq!(queue.lazy_until(), Some(until));
        push(&mut queue, "n").unwrap();
        assert!(queue.is_due(now));
        assert_eq!(take(&mut queue).0, "ln");
        assert_eq!((queue.lazy_until(), queue.is_due(until)), (None, false));
    }
}
