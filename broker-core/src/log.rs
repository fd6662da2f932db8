//! The ordered memory of recent messages. It gives a message its id.
//!
//! One lock makes one total order over all recorded channels. Under it: take an offset, push to a ring, push to the lanes'
//! inboxes, nothing else. Messages sit in segments behind `Arc`, which readers clone under the lock and scan outside.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ahash::AHashMap;
use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

use crate::config::{Config, LogConfig};
use crate::message::{Message, MessageId, unix_ms};

/// Messages per segment: what a reader scans between two yields, and the unit in which old messages go.
pub(crate) const SEGMENT_MESSAGES: usize = 1_024;

/// A ring is dropped in about this many steps, so that its budget is met within one of them.
const STEPS: usize = 16;

#[derive(Debug)]
pub(crate) struct Log {
    epoch: u64,
    state: Mutex<State>,
    /// Ring of a namespace; `None` = not recorded.
    namespaces: AHashMap<Box<str>, Option<usize>>,
    default: Option<usize>,
}

#[derive(Debug)]
pub(crate) struct State {
    head: u64,
    rings: Vec<Ring>,
}

#[derive(Debug)]
struct Ring {
    config: LogConfig,
    segments: VecDeque<Arc<Segment>>,
    /// Of the open segment, then of all.
    open: Open,
    bytes: usize,
    messages: usize,
    /// The newest offset that is gone; a position at or after it has lost nothing.
    evicted_through: u64,
}

#[derive(Debug, Default)]
struct Open {
    messages: usize,
    bytes: usize,
    since_ms: u64,
}

/// Up to 1,024 messages in order. Filled in place under the log's lock, readable at any time without it.
#[derive(Debug)]
pub(crate) struct Segment {
    first: u64,
    messages: Box<[OnceLock<Arc<Message>>]>,
    closed: OnceLock<Closed>,
}

#[derive(Debug)]
struct Closed {
    messages: usize,
    bytes: usize,
    last: u64,
    last_ms: u64,
}

/// Segments that left their ring: to be freed, and their channels looked at, outside every lock.
pub(crate) type Evicted = SmallVec<[Arc<Segment>; 1]>;

impl Segment {
    fn new(first: u64, capacity: usize) -> Self {
        Self { first, messages: (0..capacity).map(|_| OnceLock::new()).collect(), closed: OnceLock::new() }
    }

    pub(crate) fn messages(&self) -> impl DoubleEndedIterator<Item = &Arc<Message>> {
        let filled = self.messages.partition_point(|slot| slot.get().is_some());
        self.messages.iter().take(filled).filter_map(OnceLock::get)
    }

    /// The message with this offset.
    fn find(&self, offset: u64) -> Option<&Arc<Message>> {
        let at =
            self.messages.partition_point(|slot| slot.get().is_some_and(|message| message.offset() < offset));
        self.messages.get(at)?.get().filter(|message| message.offset() == offset)
    }
}

/// What the rings held at one moment; scanned without any lock.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) head: u64,
    rings: Vec<RingSnapshot>,
}

#[derive(Debug)]
struct RingSnapshot {
    ring: usize,
    segments: Vec<Arc<Segment>>,
    evicted_through: u64,
}

impl Log {
    pub(crate) fn new(config: &Config) -> Self {
        let mut rings = Vec::new();
        let mut ring = |log: &LogConfig| {
            log.enabled.then(|| {
                rings.push(Ring::new(*log));
                rings.len() - 1
            })
        };
        let default = ring(&config.log);
        let namespaces =
            config.namespaces.iter().map(|space| (space.name.as_str().into(), ring(&space.log))).collect();
        Self { epoch: new_epoch(), state: Mutex::new(State { head: 0, rings }), namespaces, default }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The ring that records a namespace, if one does.
    pub(crate) fn ring_of(&self, namespace: &str) -> Option<usize> {
        if self.namespaces.is_empty() {
            return self.default;
        }
        self.namespaces.get(namespace).copied().unwrap_or(self.default)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(crate) fn head(&self) -> u64 {
        self.state.lock().head
    }

    pub(crate) fn id(&self, offset: u64) -> MessageId {
        MessageId { epoch: self.epoch, offset }
    }

    /// The segments of some rings that may hold messages after `after`.
    pub(crate) fn snapshot(&self, rings: impl IntoIterator<Item = usize>, after: u64) -> Snapshot {
        let state = self.state.lock();
        let rings = rings.into_iter().filter_map(|ring| Some((ring, state.rings.get(ring)?)));
        Snapshot { rings: rings.map(|(index, ring)| ring.snapshot(index, after)).collect(), head: state.head }
    }

    /// All rings, for filters that may match any namespace.
    pub(crate) fn all_rings(&self) -> std::ops::Range<usize> {
        0..self.state.lock().rings.len()
    }

    /// Drops what is too old; for a clock to call.
    pub(crate) fn evict_old(&self, now_ms: u64) -> Evicted {
        let mut evicted = Evicted::new();
        for ring in &mut self.state.lock().rings {
            ring.close_if_due(now_ms);
            ring.evict(now_ms, &mut evicted);
        }
        evicted
    }

    /// Messages and bytes that are held, and the oldest position that can be resumed from.
    pub(crate) fn usage(&self) -> (usize, usize, u64) {
        let state = self.state.lock();
        state.rings.iter().fold((0, 0, 0), |(messages, bytes, oldest), ring| {
            (messages + ring.messages, bytes + ring.bytes, oldest.max(ring.evicted_through))
        })
    }
}

/// Milliseconds since 1970, so that a restarted broker has another epoch; two brokers of one process never share one.
fn new_epoch() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = unix_ms();
    let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(now.max(last + 1)));
    now.max(last.unwrap_or_default() + 1)
}

impl State {
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    pub(crate) fn next_offset(&mut self) -> u64 {
        self.head += 1;
        self.head
    }

    pub(crate) fn push(&mut self, ring: usize, message: Arc<Message>, evicted: &mut Evicted) {
        if let Some(ring) = self.rings.get_mut(ring) {
            ring.push(message, evicted);
        }
    }

    /// The messages after `after` in the order of their offsets, at most `limit`; `None` if there may be more. What is
    /// already gone is passed over: the caller has asked for less than a page and has just read the rest.
    pub(crate) fn tail(
        &self,
        rings: &[usize],
        after: u64,
        limit: usize,
        mut wanted: impl FnMut(&Message) -> bool,
    ) -> Option<Vec<Arc<Message>>> {
        if self.head.saturating_sub(after) > limit as u64 {
            return None;
        }
        let mut found = Vec::new();
        for ring in rings.iter().filter_map(|ring| self.rings.get(*ring)) {
            for segment in ring.segments_after(after) {
                found.extend(
                    segment.messages().filter(|message| message.offset() > after && wanted(message)).cloned(),
                );
            }
        }
        if rings.len() > 1 {
            found.sort_unstable_by_key(|message| message.offset());
        }
        Some(found)
    }
}

impl Ring {
    fn new(config: LogConfig) -> Self {
        Self {
            config,
            segments: VecDeque::new(),
            open: Open::default(),
            bytes: 0,
            messages: 0,
            evicted_through: 0,
        }
    }

    fn push(&mut self, message: Arc<Message>, evicted: &mut Evicted) {
        let now_ms = message.time_ms();
        self.close_if_due(now_ms);
        if self.open.messages == 0 {
            self.segments.push_back(Arc::new(Segment::new(message.offset(), SEGMENT_MESSAGES)));
            self.open.since_ms = now_ms;
        }
        let weight = message.weight();
        let Some(segment) = self.segments.back() else { return };
        let slot = segment.messages.get(self.open.messages);
        let fresh = slot.is_some_and(|slot| slot.set(message).is_ok());
        debug_assert!(fresh, "an open segment has a free slot");
        self.open.messages += 1;
        self.open.bytes += weight;
        self.messages += 1;
        self.bytes += weight;
        if self.bytes > self.config.max_bytes {
            self.evict(now_ms, evicted);
        }
    }

    /// Closes the open segment when it is full, heavy or old, so that dropping whole segments keeps the bounds.
    fn close_if_due(&mut self, now_ms: u64) {
        let age_step = self.config.max_age / STEPS as u32;
        let due = self.open.messages >= SEGMENT_MESSAGES
            || self.open.bytes > self.config.max_bytes / STEPS
            || Duration::from_millis(now_ms.saturating_sub(self.open.since_ms)) > age_step;
        if self.open.messages == 0 || !due {
            return;
        }
        let Some(segment) = self.segments.back() else { return };
        let (last, last_ms) = segment.messages().next_back().map_or((0, 0), |m| (m.offset(), m.time_ms()));
        let closed = Closed { messages: self.open.messages, bytes: self.open.bytes, last, last_ms };
        _ = segment.closed.set(closed);
        self.open = Open::default();
    }

    fn evict(&mut self, now_ms: u64, evicted: &mut Evicted) {
        while let Some(closed) = self.segments.front().and_then(|segment| segment.closed.get()) {
            let age = Duration::from_millis(now_ms.saturating_sub(closed.last_ms));
            if self.bytes <= self.config.max_bytes && age <= self.config.max_age {
                return;
            }
            self.bytes -= closed.bytes;
            self.messages -= closed.messages;
            self.evicted_through = closed.last;
            evicted.extend(self.segments.pop_front());
        }
    }

    fn segments_after(&self, after: u64) -> impl Iterator<Item = &Arc<Segment>> {
        let later = self.segments.partition_point(|segment| segment.first <= after);
        self.segments.iter().skip(later.saturating_sub(1))
    }

    fn snapshot(&self, ring: usize, after: u64) -> RingSnapshot {
        RingSnapshot {
            ring,
            segments: self.segments_after(after).cloned().collect(),
            evicted_through: self.evicted_through,
        }
    }
}

impl Snapshot {
    /// Whether messages after `after` are gone from one of the rings.
    pub(crate) fn has_lost(&self, after: u64) -> bool {
        self.rings.iter().any(|ring| after < ring.evicted_through)
    }

    pub(crate) fn has_lost_in(&self, ring: usize, after: u64) -> bool {
        self.rings.iter().any(|known| known.ring == ring && after < known.evicted_through)
    }

    /// The oldest offset from which all of them can be read on.
    pub(crate) fn reaches_back_to(&self) -> u64 {
        self.rings.iter().map(|ring| ring.evicted_through).max().unwrap_or(0)
    }

    pub(crate) fn find(&self, offset: u64) -> Option<&Arc<Message>> {
        self.rings.iter().find_map(|ring| {
            let after = ring.segments.partition_point(|segment| segment.first <= offset);
            ring.segments.get(after.checked_sub(1)?)?.find(offset)
        })
    }

    /// One channel's messages after `after`, newest first, by following `prev` from its `last` one.
    pub(crate) fn chain(&self, last: u64, after: u64) -> impl Iterator<Item = &Arc<Message>> {
        let start = (last > after).then(|| self.find(last)).flatten();
        std::iter::successors(start, move |message| {
            (message.prev() > after).then(|| self.find(message.prev())).flatten()
        })
    }

    /// Segments with their messages after `after`, oldest first; several rings are merged by the caller.
    pub(crate) fn segments(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.rings.iter().flat_map(|ring| &ring.segments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Channel, Publish};

    fn log(max_bytes: usize, max_age_ms: u64) -> Log {
        let log = LogConfig { enabled: true, max_bytes, max_age: Duration::from_millis(max_age_ms) };
        Log::new(&Config { log, ..Config::default() })
    }

    fn push(log: &Log, channel: &str, payload_bytes: usize, prev: u64, now_ms: u64) -> (u64, Evicted) {
        let publish = Publish::new(Channel::parse(channel).unwrap(), vec![0; payload_bytes]);
        let mut message = publish.into_message(log.epoch(), now_ms);
        let mut state = log.lock();
        message.offset = state.next_offset();
        message.prev = prev;
        let (offset, mut evicted) = (message.offset, Evicted::new());
        state.push(0, Arc::new(message), &mut evicted);
        (offset, evicted)
    }

    #[test]
    fn two_lives_never_share_an_epoch() {
        let (one, other) = (log(1, 1), log(1, 1));
        assert!(one.epoch() < other.epoch());
    }

    #[test]
    fn the_byte_budget_holds_and_the_oldest_go_first() {
        let log = log(64 << 10, 1_000_000);
        for _ in 0..5_000 {
            push(&log, "a", 100, 0, 1_000);
            let (_, bytes, _) = log.usage();
            assert!(bytes <= 64 << 10);
        }
        let (messages, bytes, evicted_through) = log.usage();
        assert!(bytes > (64 << 10) * 14 / 16, "{bytes}");
        assert_eq!(evicted_through, 5_000 - messages as u64);
        let snapshot = log.snapshot([0], 0);
        assert!(snapshot.has_lost(evicted_through - 1) && !snapshot.has_lost(evicted_through));
    }

    #[test]
    fn a_quiet_ring_forgets_by_age() {
        let log = log(1 << 20, 16_000);
        push(&log, "a", 1, 0, 0);
        assert!(log.evict_old(1_000).is_empty());
        assert!(log.evict_old(15_999).is_empty());
        assert_eq!(log.evict_old(16_001).len(), 1);
        assert_eq!(log.usage(), (0, 0, 1));
    }

    #[test]
    fn one_message_larger_than_the_budget_stays_until_the_next() {
        let log = log(1_000, 1_000_000);
        push(&log, "a", 5_000, 0, 0);
        assert_eq!(log.usage().0, 1);
        push(&log, "a", 1, 1, 0);
        assert_eq!(log.usage().0, 1);
    }

    #[test]
    fn a_channel_is_read_by_following_prev() {
        let log = log(1 << 20, 1_000_000);
        let mut last = [0, 0];
        for index in 0..3_000 {
            let which = usize::from(index % 3 == 0);
            last[which] = push(&log, ["a", "b"][which], 1, last[which], 0).0;
        }
        let snapshot = log.snapshot([0], 0);
        let offsets: Vec<u64> = snapshot.chain(last[1], 2_000).map(|message| message.offset()).collect();
        let expected: Vec<u64> = (2_001..=3_000).rev().filter(|offset| (offset - 1) % 3 == 0).collect();
        assert_eq!(offsets, expected);
    }
}
