//! From a message to its place in the log and the lanes' inboxes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dashmap::mapref::entry::VacantEntry;
use dashmap::mapref::one::RefMut;
use smallvec::SmallVec;

use crate::channel::{Channel, levels_beyond};
use crate::clock::steady_ms;
use crate::error::{PublishError, Refused};
use crate::filter::Filter;
use crate::histogram::Timed;
use crate::interest::{ChannelEntry, Group, Lists, Place, Registry};
use crate::interest::{Hits, LaneList};
use crate::key::SubscriberKey;
use crate::lane::{Command, Delivery, Job, Kind, Lane};
use crate::message::{Accepted as Kept, Echo, Message, Publish, Receipt};
use crate::shared::Shared;
use crate::store::log::{Evicted, Log};

/// What a busy publisher is told to wait.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// A channel's guard during a publish, whether or not the channel has an entry.
enum Held<'a> {
    Entry(RefMut<'a, Arc<str>, ChannelEntry>),
    /// Not recorded and nobody subscribed: the shard alone is held, for the order.
    Shard(#[expect(dead_code, reason = "holds the shard's lock")] VacantEntry<'a, Arc<str>, ChannelEntry>),
}

impl<'a> Held<'a> {
    fn take(
        place: Place<'a>,
        in_ring: bool,
        registry: &Registry,
        bound: Bound,
    ) -> Result<Self, PublishError> {
        match place {
            Place::Occupied(place) => Ok(Self::Entry(place.into_ref())),
            Place::Vacant(place) if in_ring => {
                match bound {
                    Bound::Checked => {
                        registry.admit().map_err(|max| PublishError::TooManyChannels { max })?;
                    }
                    Bound::Passed => registry.count_in(),
                }
                Ok(Self::Entry(place.insert(ChannelEntry::default())))
            }
            Place::Vacant(place) => Ok(Self::Shard(place)),
        }
    }

    /// Notes the channel's newest offset; the one before it.
    fn record(&mut self, offset: Option<u64>) -> u64 {
        match (self, offset) {
            (Self::Entry(entry), Some(offset)) => std::mem::replace(&mut entry.last, offset),
            _ => 0,
        }
    }
}

/// The lists a message hits, gathered into one job per lane.
type Targets = SmallVec<[(u16, SmallVec<[LaneList; 2]>); 4]>;

/// A message that is accepted: it has its place in its channel's order, as the guard is held until it is released.
struct Accepted<'a> {
    message: Arc<Message>,
    whom: Whom,
    held: Held<'a>,
    ring: Option<usize>,
    /// So many of those whom it reaches are of wildcards; those of its own channel follow.
    wildcard_hits: usize,
    wildcard_receivers: u64,
    exact_receivers: u64,
    /// Of the trie, when it was matched.
    version: u64,
}

/// A message that is released: recorded, and in the lanes' inboxes.
struct Released {
    message: Arc<Message>,
    offset: u64,
    receivers: u64,
    /// The lanes that have something to do.
    woken: SmallVec<[u16; 4]>,
    /// What the log and the retained store let go of, to be freed under no lock.
    evicted: Evicted,
    replaced: Option<Arc<Message>>,
}

/// Who gives a message its place in its log.
#[derive(Clone, Copy)]
enum Offset {
    /// The log does, now.
    Next,
    /// An engine did: the offset, and the one before it on its channel as far as the engine knows.
    Given { offset: u64, prev: u64 },
}

/// Whether a message may still be refused.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bound {
    /// It is refused when there is no room for it.
    Checked,
    /// Somebody was told already that it is kept.
    Passed,
}

/// Who is looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whom {
    All,
    /// All but members of groups, to which it comes by another way: another node sees to them, or an engine.
    Ungrouped,
}

impl Shared {
    /// See [`Broker::publish`](super::Broker::publish).
    pub(super) fn publish(&self, publish: Publish) -> Result<Receipt, Refused> {
        self.publish_as(publish, true, |publish| publish.into_message_now(self.log.epoch()))
    }

    /// Publishes what another node has relayed.
    pub(super) fn publish_relayed(&self, publish: Publish, time_ms: u64) -> Result<Receipt, Refused> {
        let retained = publish.retain.then(|| self.retained.find(&publish.channel, steady_ms())).flatten();
        let is_newest = retained.is_none_or(|retained| retained.time_ms() <= time_ms);
        let retain = publish.retain && is_newest;
        let epoch = self.log.epoch();
        self.publish_as(publish.retain(retain), false, |publish| {
            publish.into_message_at(epoch, time_ms, steady_ms())
        })
    }

    /// Gives one member of a group what another node has relayed; false if the group has none. It is in no log: what all
    /// subscribers get comes by [`publish_relayed`](Self::publish_relayed).
    pub(super) fn relay_to_group(
        &self,
        publish: Publish,
        time_ms: u64,
        name: &str,
        filter: &Filter,
    ) -> Result<bool, Refused> {
        self.check(&publish)?;
        if self.closed.load(Ordering::Relaxed) {
            return Err(PublishError::Closed.into());
        }
        let Some(chosen) = self.group(name, filter).and_then(|group| group.choose()) else {
            return Ok(false);
        };
        let mut hits = Hits::new();
        hits.push(chosen);
        if let Err(error) = self.check_lanes(&hits) {
            return Err(Refused { error, publish: Some(Box::new(publish)) });
        }
        let message = Arc::new(publish.into_message_at(self.log.epoch(), time_ms, steady_ms()));
        let woken = self.push_jobs(&message, &mut hits, None, Echo::default());
        self.wake(&woken);
        Ok(true)
    }

    /// The group of this name on `filter`, as long as it has members.
    pub(super) fn group(&self, name: &str, filter: &Filter) -> Option<Arc<Group>> {
        let find = |lists: &Lists| lists.known_group(name).cloned();
        match filter.as_literal() {
            Some(channel) => {
                let mut found = None;
                self.registry.visit(channel, |lists| found = find(lists));
                found
            }
            None => self.wildcards.look(filter, find).flatten(),
        }
    }

    /// Publishes in memory. What is `own` to this node is timed, and relayed to others.
    #[inline(always)]
    fn publish_as(
        &self,
        publish: Publish,
        own: bool,
        into_message: impl FnOnce(Publish) -> Message,
    ) -> Result<Receipt, Refused> {
        self.check(&publish)?;
        let (publisher, echo, ttl) = (publish.publisher, publish.echo, publish.ttl);
        let message = Arc::new(into_message(publish));
        let time_ms = message.time_ms();
        let timed = if own { self.timing.begin(time_ms) } else { None };
        let bytes = message.payload().len() as u64;
        let channel = message.channel().clone();
        let mut hits = Hits::new();
        let whom = if own { Whom::All } else { Whom::Ungrouped };
        let accepted = self.accept(&self.log, message, &channel, Bound::Checked, whom, &mut hits).map_err(
            |(error, message)| {
                let message = message.and_then(Arc::into_inner);
                let publish = message.map(|message| message.into_publish(ttl));
                let publish = publish.map(|publish| Box::new(Publish { publisher, echo, ..publish }));
                Refused { error, publish }
            },
        )?;
        let released = self.release(&self.log, accepted, Offset::Next, &mut hits, publisher, echo);
        if let Some(timed) = timed {
            self.push_timed(&released.woken, timed);
        }
        self.wake(&released.woken);
        // Outside of the guard: a publisher's own messages come here in their order, and no other order is promised between
        // nodes.
        if own && let Some(relay) = &self.relay {
            relay.relay(&released.message);
        }
        Ok(self.conclude(&self.log, released, time_ms, bytes))
    }

    /// The first step: takes the message's place in the order of its channel. `hits`, empty, becomes those whom it
    /// reaches: large, and therefore the caller's.
    ///
    /// # Errors
    /// With the message, if it is worth another try.
    #[inline(always)]
    fn accept<'a>(
        &'a self,
        log: &Log,
        mut message: Arc<Message>,
        channel: &Channel,
        bound: Bound,
        whom: Whom,
        hits: &mut Hits,
    ) -> Result<Accepted<'a>, (PublishError, Option<Arc<Message>>)> {
        let ring = log.ring_of(channel.namespace());
        // Matched before any lock; looked at again under the log's lock if the trie has changed by then.
        let version = self.wildcards.version();
        let wildcard_receivers = self.match_wildcards(channel, whom, hits);
        let place = self.registry.place(channel);
        // Under the guard: whoever closes waits for it, so that what is taken is in the lanes' inboxes by then.
        if bound == Bound::Checked && self.closed.load(Ordering::Relaxed) {
            return Err((PublishError::Closed, None));
        }
        let wildcard_hits = hits.len();
        let mut exact_receivers = 0;
        if let Place::Occupied(place) = &place {
            let lists = &place.get().lists;
            exact_receivers = match whom {
                Whom::All => lists.collect(hits),
                Whom::Ungrouped => lists.collect_ungrouped(hits),
            };
            // The log then keeps one copy of the name for all messages of the channel.
            if let Some(message) = Arc::get_mut(&mut message) {
                message.channel = Channel::from_shared(Arc::clone(place.key()));
            }
        }
        if bound == Bound::Checked
            && let Err(error) = self.check_lanes(hits)
        {
            return Err((error, Some(message)));
        }
        let held = Held::take(place, ring.is_some(), &self.registry, bound).map_err(|error| (error, None))?;
        Ok(Accepted {
            message,
            whom,
            held,
            ring,
            wildcard_hits,
            wildcard_receivers,
            exact_receivers,
            version,
        })
    }

    /// The second step: records the message and gives the lanes their jobs, then lets the channel go.
    #[inline(always)]
    fn release(
        &self,
        log: &Log,
        accepted: Accepted<'_>,
        place: Offset,
        hits: &mut Hits,
        publisher: Option<SubscriberKey>,
        echo: Echo,
    ) -> Released {
        let Accepted {
            mut message,
            whom,
            mut held,
            ring,
            wildcard_hits,
            wildcard_receivers,
            exact_receivers,
            version,
        } = accepted;
        let mut receivers = wildcard_receivers + exact_receivers;
        let (mut evicted, mut replaced) = (Evicted::new(), None);
        if ring.is_none() && !message.retain() {
            // Whoever finds it at the head of the log, and asks the lanes afterwards, has their jobs before him.
            let held = match place {
                Offset::Given { offset, .. } => {
                    let mut log = log.lock();
                    log.advance(offset);
                    Some(log)
                }
                Offset::Next => None,
            };
            let woken = self.push_jobs(&message, hits, publisher, echo);
            drop(held);
            return Released { message, offset: 0, receivers, woken, evicted, replaced };
        }
        let mut log = log.lock();
        let (offset, known) = match place {
            Offset::Next => (log.next_offset(), 0),
            Offset::Given { offset, prev } => {
                log.advance(offset);
                (offset, prev)
            }
        };
        let prev = match held.record(ring.map(|_| offset)) {
            0 => known,
            prev => prev,
        };
        if let Some(message) = Arc::get_mut(&mut message) {
            (message.offset, message.prev) = (offset, prev);
        }
        if let Some(ring) = ring {
            log.push(ring, Arc::clone(&message), &mut evicted);
        }
        if self.wildcards.version() != version {
            let mut again = Hits::new();
            receivers = exact_receivers + self.match_wildcards(message.channel(), whom, &mut again);
            again.extend(hits.drain(wildcard_hits..));
            *hits = again;
        }
        if message.retain() {
            replaced = if message.payload().is_empty() {
                self.retained.clear(message.channel())
            } else {
                self.retained.set(Arc::clone(&message))
            };
        }
        let woken = self.push_jobs(&message, hits, publisher, echo);
        drop(log);
        Released { message, offset, receivers, woken, evicted, replaced }
    }

    fn wake(&self, lanes: &[u16]) {
        for lane in lanes {
            if let Some(lane) = self.lanes.get(usize::from(*lane)) {
                lane.wake();
            }
        }
    }

    /// Frees what went and counts, under no lock.
    fn conclude(&self, log: &Log, released: Released, time_ms: u64, bytes: u64) -> Receipt {
        let Released { message: _message, offset, receivers, evicted, replaced, .. } = released;
        drop(replaced);
        self.free(evicted);
        self.counters.published.fetch_add(1, Ordering::Relaxed);
        self.counters.published_bytes.fetch_add(bytes, Ordering::Relaxed);
        Receipt { id: (offset != 0).then(|| log.id(offset)), time_ms, receivers }
    }

    /// Releases what an engine has accepted. Nothing of it is refused any more, also while the broker winds down. What
    /// was released before is passed over.
    pub(super) fn release_kept(&self, batch: Vec<Kept>) -> Vec<Receipt> {
        let Some(log) = &self.kept else { return Vec::new() };
        // Groups of several nodes get it by their work.
        let whom = if self.relay.is_some() { Whom::Ungrouped } else { Whom::All };
        let mut woken = SmallVec::<[u16; 4]>::new();
        let mut receipts = Vec::with_capacity(batch.len());
        for kept in batch {
            if kept.offset <= log.head() {
                let id = Some(log.id(kept.offset));
                receipts.push(Receipt { id, time_ms: kept.time_ms, receivers: 0 });
                continue;
            }
            let (publisher, echo) = (kept.publish.publisher, kept.publish.echo);
            let place = Offset::Given { offset: kept.offset, prev: kept.prev };
            let mut message = kept.into_message(log.epoch());
            // As in memory: what is not recorded has no id.
            (message.offset, message.prev) = (0, 0);
            let message = Arc::new(message);
            let (time_ms, bytes) = (message.time_ms(), message.payload().len() as u64);
            let timed = self.timing.begin(time_ms);
            let channel = message.channel().clone();
            // Nothing refuses what has passed its bounds.
            let mut hits = Hits::new();
            let Ok(accepted) = self.accept(log, message, &channel, Bound::Passed, whom, &mut hits) else {
                continue;
            };
            let mut released = self.release(log, accepted, place, &mut hits, publisher, echo);
            if let Some(timed) = timed {
                self.push_timed(&released.woken, timed);
            }
            woken.append(&mut released.woken);
            receipts.push(self.conclude(log, released, time_ms, bytes));
        }
        woken.sort_unstable();
        woken.dedup();
        self.wake(&woken);
        receipts
    }

    /// Whether a message may be given to the engine.
    pub(super) fn check_kept(&self, publish: &Publish) -> Result<(), PublishError> {
        self.check(publish)?;
        if self.closed.load(Ordering::Relaxed) {
            return Err(PublishError::Closed);
        }
        self.registry.has_room_for(publish.channel()).map_err(|max| PublishError::TooManyChannels { max })?;
        // Mostly no lane is full, and whom the message reaches is then found once, when it is released.
        if !self.lanes.iter().any(|lane| self.is_full(lane)) {
            return Ok(());
        }
        let mut hits = Hits::new();
        self.match_wildcards(publish.channel(), Whom::All, &mut hits);
        self.registry.visit(publish.channel(), |lists| _ = lists.collect(&mut hits));
        self.check_lanes(&hits)
    }

    pub(super) fn check(&self, publish: &Publish) -> Result<(), PublishError> {
        let (bytes, max) = (publish.payload.len(), self.config.max_message_bytes);
        if bytes > max {
            return Err(PublishError::TooLarge { bytes, max });
        }
        let (name, max) = (publish.channel.as_str().len(), self.config.max_channel_bytes);
        if name > max {
            return Err(PublishError::ChannelTooLong { bytes: name, max });
        }
        if let Some((at, character)) = self.config.channel_characters.refused_in(publish.channel.as_str()) {
            return Err(PublishError::ChannelCharacter { character, at });
        }
        let max = self.config.max_channel_levels;
        if let Some(levels) = levels_beyond(publish.channel.as_str(), max) {
            return Err(PublishError::TooManyLevels { levels, max });
        }
        if publish.retain && !publish.payload.is_empty() {
            self.retained
                .admits(&publish.channel, publish.weight())
                .map_err(|max| PublishError::RetainedFull { max })?;
        }
        Ok(())
    }

    #[inline(always)]
    fn match_wildcards(&self, channel: &Channel, whom: Whom, hits: &mut Hits) -> u64 {
        match whom {
            _ if self.wildcards.filters() == 0 => 0,
            Whom::All => self.wildcards.collect(channel, hits),
            Whom::Ungrouped => self.wildcards.collect_ungrouped(channel, hits),
        }
    }

    fn check_lanes(&self, hits: &Hits) -> Result<(), PublishError> {
        let mut hit = hits.iter().filter_map(|(lane, _)| self.lanes.get(usize::from(*lane)));
        if hit.any(|lane| self.is_full(lane)) {
            Err(PublishError::Busy { retry_after: RETRY_AFTER })
        } else {
            Ok(())
        }
    }

    fn is_full(&self, lane: &Lane) -> bool {
        lane.waiting_deliveries.load(Ordering::Relaxed) > self.config.max_lane_deliveries
            || lane.waiting_bytes.load(Ordering::Relaxed) > self.config.max_lane_bytes
    }

    /// Sends a message's timing after it, to each lane that it hits.
    #[cold]
    fn push_timed(&self, hit: &[u16], timed: Timed) {
        // Each has its own before the first can be done with it.
        let each = SmallVec::<[(u16, Timed); 4]>::from_iter(hit.iter().map(|lane| (*lane, timed.clone())));
        drop(timed);
        for (lane, timed) in each {
            if let Some(lane) = self.lanes.get(usize::from(lane)) {
                lane.push(Command::Timed(timed));
            }
        }
    }

    /// One job for each lane that is hit; the lanes to wake once the caller's locks are gone.
    fn push_jobs(
        &self,
        message: &Arc<Message>,
        hits: &mut Hits,
        publisher: Option<SubscriberKey>,
        echo: Echo,
    ) -> SmallVec<[u16; 4]> {
        if hits.is_empty() {
            return SmallVec::new();
        }
        let encodings = self.encodings.load(Ordering::Relaxed);
        let delivery = Arc::new(Delivery::new(Arc::clone(message), Kind::Live, publisher, encodings));
        let many = hits.len().div_ceil(self.lanes.len());
        let mut targets = Targets::new();
        for (lane, list) in hits.drain(..) {
            match targets.iter_mut().find(|(known, _)| *known == lane) {
                Some((_, lists)) => lists.push(list),
                None => {
                    // Nearly all publishes hit one list; a wildcard match hits many, shared among few lanes.
                    let mut lists = SmallVec::with_capacity(if many > 2 { many } else { 0 });
                    lists.push(list);
                    targets.push((lane, lists));
                }
            }
        }
        let skip = publisher.filter(|_| echo == Echo::Skip);
        targets
            .into_iter()
            .map(|(lane, lists)| {
                let job =
                    Job { delivery: Arc::clone(&delivery), lists, skip: skip.filter(|key| key.lane == lane) };
                if let Some(target) = self.lanes.get(usize::from(lane)) {
                    target.push(Command::Job(job));
                }
                lane
            })
            .collect()
    }
}
