//! From a message to its place in the log and the lanes' inboxes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dashmap::mapref::entry::VacantEntry;
use dashmap::mapref::one::RefMut;
use smallvec::SmallVec;

use crate::channel::{Channel, levels_beyond};
use crate::error::{PublishError, Refused};
use crate::interest::{ChannelEntry, Place, Registry};
use crate::interest::{Hits, LaneList};
use crate::key::SubscriberKey;
use crate::lane::{Command, Job};
use crate::lane::{Delivery, Kind};
use crate::message::{Echo, Message, Publish, Receipt};
use crate::shared::Shared;
use crate::store::log::Evicted;

/// What a busy publisher is told to wait.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// A channel's guard during a publish, whether or not the channel has an entry.
enum Held<'a> {
    Entry(RefMut<'a, Arc<str>, ChannelEntry>),
    /// Not recorded and nobody subscribed: the shard alone is held, for the order.
    Shard(#[expect(dead_code, reason = "holds the shard's lock")] VacantEntry<'a, Arc<str>, ChannelEntry>),
}

impl<'a> Held<'a> {
    fn take(place: Place<'a>, in_ring: bool, registry: &Registry) -> Result<Self, PublishError> {
        match place {
            Place::Occupied(place) => Ok(Self::Entry(place.into_ref())),
            Place::Vacant(place) if in_ring => {
                registry.admit().map_err(|max| PublishError::TooManyChannels { max })?;
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

impl Shared {
    /// See [`Broker::publish`](super::Broker::publish).
    pub(super) fn publish(&self, publish: Publish) -> Result<Receipt, Refused> {
        self.check(&publish)?;
        let (publisher, echo, ttl) = (publish.publisher, publish.echo, publish.ttl);
        let mut message = Arc::new(publish.into_message_now(self.log.epoch()));
        let (time_ms, bytes) = (message.time_ms(), message.payload().len() as u64);
        let ring = self.log.ring_of(message.channel().namespace());
        let recorded = ring.is_some() || message.retain();

        // Matched before any lock; looked at again under the log's lock if the trie has changed by then.
        let version = self.wildcards.version();
        let mut hits = Hits::new();
        let mut receivers = self.match_wildcards(message.channel(), &mut hits);

        let mut evicted = Evicted::new();
        let mut freed = None;
        let woken;
        let mut offset = 0;
        {
            let channel = message.channel().clone();
            let place = self.registry.place(&channel);
            // Under the guard: whoever closes waits for it, so that what is taken is in the lanes' inboxes by then.
            if self.closed.load(Ordering::Relaxed) {
                return Err(PublishError::Closed.into());
            }
            let exact_hits = hits.len();
            let mut exact = 0;
            if let Place::Occupied(place) = &place {
                exact = place.get().lists.collect(&mut hits);
                // The log then keeps one copy of the name for all messages of the channel.
                if let Some(message) = Arc::get_mut(&mut message) {
                    message.channel = Channel::from_shared(Arc::clone(place.key()));
                }
            }
            receivers += exact;
            if let Err(error) = self.check_lanes(&hits) {
                let publish = Arc::into_inner(message).map(|message| message.into_publish(ttl));
                let publish = publish.map(|publish| Box::new(Publish { publisher, echo, ..publish }));
                return Err(Refused { error, publish });
            }
            let mut held = Held::take(place, ring.is_some(), &self.registry)?;
            if recorded {
                let mut log = self.log.lock();
                offset = log.next_offset();
                let prev = held.record(ring.map(|_| offset));
                if let Some(message) = Arc::get_mut(&mut message) {
                    (message.offset, message.prev) = (offset, prev);
                }
                if let Some(ring) = ring {
                    log.push(ring, Arc::clone(&message), &mut evicted);
                }
                if self.wildcards.version() != version {
                    let mut again = Hits::new();
                    receivers = exact + self.match_wildcards(message.channel(), &mut again);
                    again.extend(hits.drain(exact_hits..));
                    hits = again;
                }
                if message.retain() {
                    freed = if message.payload().is_empty() {
                        self.retained.clear(message.channel())
                    } else {
                        self.retained.set(Arc::clone(&message))
                    };
                }
                woken = self.push_jobs(&message, hits, publisher, echo);
            } else {
                woken = self.push_jobs(&message, hits, publisher, echo);
            }
        }
        for lane in woken {
            if let Some(lane) = self.lanes.get(usize::from(lane)) {
                lane.wake();
            }
        }
        drop(freed);
        self.free(evicted);
        self.counters.published.fetch_add(1, Ordering::Relaxed);
        self.counters.published_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(Receipt { id: (offset != 0).then(|| self.log.id(offset)), time_ms, receivers })
    }

    fn check(&self, publish: &Publish) -> Result<(), PublishError> {
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

    fn match_wildcards(&self, channel: &Channel, hits: &mut Hits) -> u64 {
        if self.wildcards.filters() == 0 { 0 } else { self.wildcards.collect(channel, hits) }
    }

    fn check_lanes(&self, hits: &Hits) -> Result<(), PublishError> {
        let full = hits.iter().filter_map(|(lane, _)| self.lanes.get(usize::from(*lane))).any(|lane| {
            lane.waiting_deliveries.load(Ordering::Relaxed) > self.config.max_lane_deliveries
                || lane.waiting_bytes.load(Ordering::Relaxed) > self.config.max_lane_bytes
        });
        if full { Err(PublishError::Busy { retry_after: RETRY_AFTER }) } else { Ok(()) }
    }

    /// One job for each lane that is hit; the lanes to wake once the caller's locks are gone.
    fn push_jobs(
        &self,
        message: &Arc<Message>,
        hits: Hits,
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
        for (lane, list) in hits {
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
