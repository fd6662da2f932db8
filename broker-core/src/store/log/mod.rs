//! The ordered memory of recent messages. It gives a message its id.
//!
//! One lock makes one total order over all channels that are recorded in it: a broker has one for what is in memory, and
//! one with an engine for what that keeps. Under it: take an offset, push to a ring, push to the lanes' inboxes, nothing
//! else. Messages sit in segments behind `Arc`, of which readers clone a few under the lock and
//! scan them outside.

mod reader;
mod segment;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

pub(crate) use self::reader::{Bounds, Page, Reader};
use self::reader::{SEGMENTS_AT_ONCE, Stretch};
pub(crate) use self::segment::SEGMENT_MESSAGES;
use self::segment::{Closed, Segment};
use crate::clock::unix_ms;
use crate::config::{Config, LogConfig};
use crate::filter::Filter;
use crate::message::{Message, MessageId};
use crate::metrics::NamespaceStats;

/// A ring is dropped in about this many steps, so that its budget is met within one of them.
const STEPS: usize = 16;

#[derive(Debug)]
pub(crate) struct Log {
    epoch: u64,
    state: Mutex<State>,
    namespaces: AHashMap<Box<str>, Home>,
    default: Home,
    /// Whether a filter that begins with a wildcard reaches what is in memory alone, and what an engine keeps.
    behind_wildcards: (bool, bool),
}

/// Where the messages of a namespace are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Home {
    /// The ring that records them, if one does.
    pub(crate) ring: Option<usize>,
    /// An engine accepts them.
    pub(crate) kept: bool,
}

/// What the broker says about itself: true now, and kept nowhere.
const OWN_NAMESPACE: &str = "$SYS";

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
    since: Option<Instant>,
    /// How many of them were there when the clock last looked, and when that was.
    seen: Option<(usize, Instant)>,
}

/// Segments that left their ring: to be freed, and their channels looked at, outside every lock.
pub(crate) type Evicted = SmallVec<[Arc<Segment>; 1]>;

impl Log {
    /// The log of what no engine accepts. `keeps` says of a namespace, or of all others by an empty text, whether an
    /// engine accepts its messages.
    pub(crate) fn new(config: &Config, keeps: impl Fn(&str) -> bool) -> Self {
        Self::of(config, keeps, false, MessageId::new(new_epoch(), 0))
    }

    /// The log of what an engine accepts, whose newest message so far is `head`: none of it is in memory.
    pub(crate) fn of_engine(config: &Config, keeps: impl Fn(&str) -> bool, head: MessageId) -> Self {
        Self::of(config, keeps, true, head)
    }

    fn of(config: &Config, keeps: impl Fn(&str) -> bool, of_kept: bool, head: MessageId) -> Self {
        let mut rings = Vec::new();
        let mut home = |log: &LogConfig, kept: bool| {
            let ring = (log.enabled && kept == of_kept).then(|| {
                rings.push(Ring::new(*log, head.offset()));
                rings.len() - 1
            });
            Home { ring, kept }
        };
        let kept_by_default = keeps("");
        let default = home(&config.log, kept_by_default);
        let mut namespaces: AHashMap<Box<str>, Home> = AHashMap::new();
        for space in &config.namespaces {
            let kept = space.name != OWN_NAMESPACE && keeps(&space.name);
            namespaces.insert(space.name.as_str().into(), home(&space.log, kept));
        }
        if kept_by_default {
            let own = || home(&config.log, false);
            namespaces.entry(OWN_NAMESPACE.into()).or_insert_with(own);
        }
        let state = State { head: head.offset(), rings };
        let named = namespaces.iter().filter(|(name, _)| !name.starts_with('$')).map(|(_, home)| home.kept);
        let reached = named.chain([kept_by_default]);
        let behind_wildcards =
            reached.fold((false, false), |(memory, kept), is_kept| (memory || !is_kept, kept || is_kept));
        Self { epoch: head.epoch(), state: Mutex::new(state), namespaces, default, behind_wildcards }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The ring that records a namespace, if one does.
    pub(crate) fn ring_of(&self, namespace: &str) -> Option<usize> {
        self.home_of(namespace).ring
    }

    pub(crate) fn home_of(&self, namespace: &str) -> Home {
        if self.namespaces.is_empty() {
            return self.default;
        }
        self.namespaces.get(namespace).copied().unwrap_or(self.default)
    }

    /// Whether a filter reaches what can be resumed from in this log, which is an engine's, and anything else.
    pub(crate) fn reach_of(&self, filter: &Filter) -> (bool, bool) {
        let resumes = |home: &Home| home.kept && home.ring.is_some();
        match filter.namespace() {
            Some(namespace) => {
                let resumes = resumes(&self.home_of(namespace));
                (resumes, !resumes)
            }
            None => {
                let mut hidden = self.namespaces.values().chain([&self.default]);
                let (in_memory, kept) = self.behind_wildcards;
                (kept, in_memory || hidden.any(|home| home.kept && home.ring.is_none()))
            }
        }
    }

    pub(crate) fn behind_wildcards(&self) -> (bool, bool) {
        self.behind_wildcards
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(crate) fn head(&self) -> u64 {
        self.state.lock().head
    }

    pub(crate) fn id(&self, offset: u64) -> MessageId {
        MessageId::new(self.epoch, offset)
    }

    /// The next few segments of some rings, with what they hold after `after`.
    fn ahead(&self, rings: &[usize], after: u64) -> Stretch {
        let state = self.state.lock();
        let (head, rings) = (state.head, rings.iter().filter_map(|ring| state.rings.get(*ring)));
        let mut stretch =
            Stretch { rings: SmallVec::new(), head, after, through: head, more: false, lost: false };
        for ring in rings {
            let mut later = ring.segments_after(after);
            let segments: SmallVec<[Arc<Segment>; SEGMENTS_AT_ONCE]> =
                later.by_ref().take(SEGMENTS_AT_ONCE).cloned().collect();
            if later.next().is_some() {
                let last = segments.last().and_then(|segment| segment.closed.get());
                stretch.through = stretch.through.min(last.map_or(after, |closed| closed.last));
                stretch.more = true;
            }
            stretch.lost |= after < ring.evicted_through;
            stretch.rings.push(segments);
        }
        stretch
    }

    /// The last few segments of some rings up to `before`, with what they hold after `after`.
    fn behind(&self, rings: &[usize], after: u64, before: u64) -> Stretch {
        let state = self.state.lock();
        let (head, rings) = (state.head, rings.iter().filter_map(|ring| state.rings.get(*ring)));
        let through = head.min(before);
        let mut stretch = Stretch { rings: SmallVec::new(), head, after, through, more: false, lost: false };
        for ring in rings {
            let end = ring.segments.partition_point(|segment| segment.first <= before);
            let from = end.saturating_sub(SEGMENTS_AT_ONCE);
            let segments: SmallVec<[Arc<Segment>; SEGMENTS_AT_ONCE]> =
                ring.segments.range(from..end).cloned().collect();
            let first = segments.first().map_or(0, |segment| segment.first);
            if from > 0 && first > after + 1 {
                stretch.after = stretch.after.max(first - 1);
                stretch.more = true;
            }
            stretch.lost |= after < ring.evicted_through;
            stretch.rings.push(segments);
        }
        stretch
    }

    /// The head, and the oldest position from which all of the rings can be read on.
    pub(crate) fn reach(&self, rings: &[usize]) -> (u64, u64) {
        (self.head(), self.evicted_through(rings))
    }

    /// Whether messages after `after` are gone from one of the rings.
    fn has_lost(&self, rings: &[usize], after: u64) -> bool {
        after < self.evicted_through(rings)
    }

    /// The newest offset that is gone from one of the rings: all of them can be read on from there.
    pub(crate) fn evicted_through(&self, rings: &[usize]) -> u64 {
        let state = self.state.lock();
        let rings = rings.iter().filter_map(|ring| state.rings.get(*ring));
        rings.map(|ring| ring.evicted_through).max().unwrap_or(0)
    }

    /// All rings, for filters that may match any namespace.
    pub(crate) fn all_rings(&self) -> std::ops::Range<usize> {
        0..self.state.lock().rings.len()
    }

    /// Drops what is too old; for a clock to call. Ages are measured by the monotonic clock: the time of day may be
    /// set, and must not empty the log then or keep it for ever.
    pub(crate) fn evict_old(&self, now: Instant) -> Evicted {
        let mut evicted = Evicted::new();
        for ring in &mut self.state.lock().rings {
            ring.close_if_old(now);
            ring.evict(Some(now), &mut evicted);
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

    /// The same by namespace, in the order of their names; those that are not configured stand last, as `*`.
    pub(crate) fn usage_by_namespace(&self) -> Vec<NamespaceStats> {
        let mut named: Vec<_> = self.namespaces.iter().map(|(name, home)| (&**name, home.ring)).collect();
        named.sort_unstable();
        named.push(("*", self.default.ring));
        let state = self.state.lock();
        let recorded = named.into_iter().filter_map(|(name, ring)| Some((name, state.rings.get(ring?)?)));
        recorded
            .map(|(name, ring)| NamespaceStats {
                name: name.into(),
                log_messages: ring.messages,
                log_bytes: ring.bytes,
            })
            .collect()
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

    /// A message has come whose place an engine has given.
    pub(crate) fn advance(&mut self, offset: u64) {
        self.head = self.head.max(offset);
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
        // Offsets have holes, so it is messages that are counted.
        let (mut found, mut left) = (Vec::new(), limit);
        for ring in rings.iter().filter_map(|ring| self.rings.get(*ring)) {
            for message in ring.segments_after(after).flat_map(|segment| segment.between(after, u64::MAX)) {
                left = left.checked_sub(1)?;
                if wanted(message) {
                    found.push(Arc::clone(message));
                }
            }
        }
        if rings.len() > 1 {
            found.sort_unstable_by_key(|message| message.offset());
        }
        Some(found)
    }
}

impl Ring {
    /// What stands before `after` is not in it.
    fn new(config: LogConfig, after: u64) -> Self {
        Self {
            config,
            segments: VecDeque::new(),
            open: Open::default(),
            bytes: 0,
            messages: 0,
            evicted_through: after,
        }
    }

    /// Looks at the clock only where a segment begins or ends: not for each message.
    fn push(&mut self, message: Arc<Message>, evicted: &mut Evicted) {
        if self.open.messages >= SEGMENT_MESSAGES || self.open.bytes > self.config.max_bytes / STEPS {
            self.close(Instant::now());
        }
        if self.open.messages == 0 {
            self.segments.push_back(Arc::new(Segment::new(message.offset())));
            self.open.since = Some(Instant::now());
        }
        let weight = message.weight();
        let Some(segment) = self.segments.back() else { return };
        let fresh = segment.set(self.open.messages, message);
        debug_assert!(fresh, "an open segment has a free slot");
        self.open.messages += 1;
        self.open.bytes += weight;
        self.messages += 1;
        self.bytes += weight;
        if self.bytes > self.config.max_bytes {
            self.evict(None, evicted);
        }
    }

    /// Closes the open segment when it is old, so that dropping whole segments keeps the bound; when it is full or
    /// heavy, the next message does.
    fn close_if_old(&mut self, now: Instant) {
        let (messages, age_step) = (self.open.messages, self.config.max_age / STEPS as u32);
        if messages == 0 {
            return;
        }
        let seen = self.open.seen.filter(|(seen, _)| *seen == messages);
        let newest_at = seen.map_or(now, |(_, at)| at);
        self.open.seen = Some((messages, newest_at));
        if self.open.since.is_some_and(|since| now.saturating_duration_since(since) > age_step) {
            self.close(newest_at);
        }
    }

    fn close(&mut self, last_at: Instant) {
        let Some(segment) = self.segments.back() else { return };
        let last = segment.messages().next_back().map_or(0, |message| message.offset());
        let Open { messages, bytes, .. } = std::mem::take(&mut self.open);
        _ = segment.closed.set(Closed { messages, bytes, last, last_at });
    }

    /// Drops the oldest segments while the ring is too heavy, or they are too old at `now`.
    fn evict(&mut self, now: Option<Instant>, evicted: &mut Evicted) {
        while let Some(closed) = self.segments.front().and_then(|segment| segment.closed.get()) {
            let age = now.map_or(Duration::ZERO, |now| now.saturating_duration_since(closed.last_at));
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interest::{ChannelEntry, Place, Registry};
    use crate::{Channel, Filter, Publish};

    fn log(max_bytes: usize, max_age_ms: u64) -> Log {
        let log = LogConfig { enabled: true, max_bytes, max_age: Duration::from_millis(max_age_ms) };
        Log::new(&Config { log, ..Config::default() }, |_| false)
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
        assert!(log.has_lost(&[0], evicted_through - 1) && !log.has_lost(&[0], evicted_through));
    }

    #[test]
    fn a_quiet_ring_forgets_by_age() {
        let log = log(1 << 20, 16_000);
        push(&log, "a", 1, 0, 0);
        let pushed = Instant::now();
        let after = |ms| log.evict_old(pushed + Duration::from_millis(ms)).len();
        // The clock looks once a second; what it found then is counted as of then.
        assert_eq!([900, 1_900, 16_000, 16_800].map(after), [0; 4]);
        assert_eq!(after(17_000), 1);
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
    fn the_time_of_day_is_nobodys_age() {
        let log = log(1 << 20, 16_000);
        // As if the time of day had been set ahead and back by years between them.
        for time_of_day in [1_000, u64::MAX / 2, 0] {
            push(&log, "a", 1, 0, time_of_day);
        }
        assert!(log.evict_old(Instant::now() + Duration::from_millis(900)).is_empty());
        assert_eq!(log.usage().0, 3);
    }

    #[test]
    fn a_channel_is_read_without_going_through_the_others() {
        let log = log(1 << 20, 1_000_000);
        let registry = Registry::new(10);
        let channel = Channel::parse("b").unwrap();
        let Place::Vacant(place) = registry.place(&channel) else { panic!("new") };
        drop(place.insert(ChannelEntry { last: 5_998, ..ChannelEntry::default() }));
        let mut last = [0, 0];
        for index in 0..6_000 {
            let which = usize::from(index % 3 == 0);
            last[which] = push(&log, ["a", "b"][which], 1, last[which], 0).0;
        }
        let reader = Reader::new(&[Filter::literal(channel)], &log);
        let mut offsets = Vec::new();
        let mut position = 2_000;
        let mut pages = 0;
        loop {
            let page = reader.read(&log, &registry, position, Bounds { messages: 300, bytes: 1 << 20 });
            offsets.extend(page.messages.iter().map(|message| message.offset()));
            (position, pages) = (page.through, pages + 1);
            assert!(page.messages.len() <= 300 && pages < 100);
            if page.complete {
                break;
            }
        }
        let expected: Vec<u64> = (2_001..=6_000).filter(|offset| (offset - 1) % 3 == 0).collect();
        assert_eq!(offsets, expected);
        assert_eq!(position, 6_000);
        let mut back = Vec::new();
        let mut before = 6_000;
        loop {
            let page = reader.read_back(&log, &registry, 2_000, before, usize::MAX);
            back.extend(page.messages.iter().map(|message| message.offset()));
            before = page.through;
            if page.complete {
                break;
            }
        }
        back.reverse();
        assert_eq!(back, expected);
    }
}
