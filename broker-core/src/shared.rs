//! What broker handles, subscribers and the janitor share.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use ahash::AHashMap;
use crossbeam_queue::SegQueue;
use crossbeam_utils::CachePadded;
use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;
use tokio::runtime::Handle as Runtime;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::channel::Channel;
use crate::config::Config;
use crate::engine::Engine;
use crate::error::{PublishError, SubscribeError};
use crate::filter::Filter;
use crate::histogram::Timing;
use crate::interest::{Registry, Wildcards};
use crate::key::SubscriberKey;
use crate::lane::{Lane, LaneOwner};
use crate::lifecycle::Listeners;
use crate::message::{MessageId, Position};
use crate::rights::Policy;
use crate::service::Services;
use crate::store::idempotency::Idempotency;
use crate::store::log::{Evicted, Log, State};
use crate::store::retained::{Retained, Scan};

/// What broker handles, subscribers and the janitor share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) registry: Registry,
    pub(crate) wildcards: Wildcards,
    /// Of what is in this process' memory alone.
    pub(crate) log: Log,
    /// Of what an engine keeps, with what it has of that in memory.
    pub(crate) kept: Option<Log>,
    pub(crate) retained: Retained,
    pub(crate) idempotency: Idempotency,
    /// Who keeps messages beyond this process' memory, if anybody does.
    pub(crate) engine: Option<Arc<dyn Engine>>,
    /// The engine, if it brings what nobody keeps to other nodes.
    pub(crate) relay: Option<Arc<dyn Engine>>,
    pub(crate) feeds: Feeds,
    pub(crate) lanes: Vec<Arc<Lane>>,
    /// Where the lanes run, and what else needs a task.
    pub(crate) runtime: Runtime,
    pub(crate) next_lane: AtomicUsize,
    pub(crate) encodings: Arc<AtomicUsize>,
    pub(crate) janitor: Janitor,
    pub(crate) listeners: Listeners,
    pub(crate) services: Services,
    pub(crate) policy: OnceLock<Arc<dyn Policy>>,
    pub(crate) closed: AtomicBool,
    pub(crate) subscriptions: AtomicUsize,
    /// What the subscriptions weigh, the wildcards' tree aside.
    pub(crate) subscription_bytes: AtomicUsize,
    pub(crate) counters: CachePadded<Counters>,
    /// Read by every publisher and seldom written: on a line of its own.
    pub(crate) timing: CachePadded<Timing>,
}

/// The subscribers that are being brought retained messages: one task each, however many filters it has.
#[derive(Debug, Default)]
pub(crate) struct Feeds(pub(crate) Mutex<AHashMap<SubscriberKey, Feeding>>);

#[derive(Debug)]
pub(crate) struct Feeding {
    pub(crate) scan: Arc<Mutex<Scan>>,
    pub(crate) task: AbortHandle,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) published: AtomicU64,
    pub(crate) published_bytes: AtomicU64,
    pub(crate) refused_busy: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) refused_levels: AtomicU64,
    pub(crate) refused_filters: AtomicU64,
}

/// Segments that left the log, to be freed away from the publishers.
#[derive(Default)]
pub(crate) struct Janitor {
    pub(crate) evicted: SegQueue<Evicted>,
    pub(crate) wake: Notify,
}

/// Beyond this many waiting segments a publisher frees one itself, so that the log's budget holds.
const MAX_EVICTED_SEGMENTS: usize = 8;

/// What a subscription weighs: its filter's text, its places in the subscriber's list and in those of the lanes, and a
/// part of the channel's entry if it is for one. The tree of wildcards weighs by itself.
fn subscription_bytes(filter: &Filter) -> usize {
    let places = if filter.as_literal().is_some() { 240 } else { 80 };
    places + filter.text_bytes()
}

impl LaneOwner for Shared {
    fn lane_died(&self) {
        self.close();
    }

    fn dropped(&self, subscriber: SubscriberKey, messages: u64) {
        if self.listeners.any()
            && let Some(connection) = self.lane(subscriber).connections.find(subscriber)
        {
            self.listeners.tell(|listener| listener.dropped(subscriber, messages, &connection));
        }
    }
}

impl Shared {
    pub(crate) fn check_levels(&self, filter: &Filter) -> Result<(), SubscribeError> {
        let (levels, max) = (filter.levels(), self.config.max_channel_levels);
        if levels > max {
            self.counters.refused_levels.fetch_add(1, Ordering::Relaxed);
            return Err(SubscribeError::TooManyLevels { levels, max });
        }
        Ok(())
    }

    /// Whether one more subscription may come in.
    pub(crate) fn admit_filter(&self, filter: &Filter) -> Result<(), SubscribeError> {
        let max = self.config.max_filter_bytes;
        if self.filter_bytes() + subscription_bytes(filter) > max {
            self.counters.refused_filters.fetch_add(1, Ordering::Relaxed);
            return Err(SubscribeError::FiltersFull { max });
        }
        Ok(())
    }

    pub(crate) fn count_subscription(&self, filter: &Filter) {
        if let Some(engine) = &self.engine {
            engine.interest(filter, true);
        }
        self.subscriptions.fetch_add(1, Ordering::Relaxed);
        self.subscription_bytes.fetch_add(subscription_bytes(filter), Ordering::Relaxed);
    }

    pub(crate) fn count_out_subscription(&self, filter: &Filter) {
        if let Some(engine) = &self.engine {
            engine.interest(filter, false);
        }
        self.subscriptions.fetch_sub(1, Ordering::Relaxed);
        self.subscription_bytes.fetch_sub(subscription_bytes(filter), Ordering::Relaxed);
    }

    /// Counts a publish that was not taken.
    pub(crate) fn count_refused(&self, error: &PublishError) {
        let counters = &self.counters;
        match error {
            PublishError::Busy { .. } => _ = counters.refused_busy.fetch_add(1, Ordering::Relaxed),
            PublishError::TooManyLevels { .. } => {
                counters.refused.fetch_add(1, Ordering::Relaxed);
                counters.refused_levels.fetch_add(1, Ordering::Relaxed);
            }
            _ => _ = counters.refused.fetch_add(1, Ordering::Relaxed),
        }
    }

    pub(crate) fn filter_bytes(&self) -> usize {
        self.subscription_bytes.load(Ordering::Relaxed) + self.wildcards.bytes()
    }

    /// The lane of a key that came from outside, if there is one.
    pub(crate) fn lane_of(&self, key: SubscriberKey) -> Option<&Arc<Lane>> {
        self.lanes.get(usize::from(key.lane))
    }

    pub(crate) fn lane(&self, key: SubscriberKey) -> &Arc<Lane> {
        &self.lanes[usize::from(key.lane) % self.lanes.len()]
    }

    /// The newest offset of the channel's ring that is gone.
    pub(crate) fn evicted_through(&self, channel: &Channel) -> u64 {
        let log = self.log_of(channel);
        log.ring_of(channel.namespace()).map_or(u64::MAX, |ring| log.evicted_through(&[ring]))
    }

    /// The log that a channel's messages are recorded in.
    pub(crate) fn log_of(&self, channel: &Channel) -> &Log {
        match &self.kept {
            Some(kept) if self.log.home_of(channel.namespace()).kept => kept,
            _ => &self.log,
        }
    }

    /// All logs that there are.
    pub(crate) fn logs(&self) -> impl Iterator<Item = &Log> {
        std::iter::once(&self.log).chain(&self.kept)
    }

    /// The logs that `filters` reach: the only one, or one after the other.
    pub(crate) fn logs_of<'f>(&self, filters: impl Iterator<Item = &'f Filter>) -> SmallVec<[&Log; 2]> {
        let Some(kept) = &self.kept else { return SmallVec::from_slice(&[&self.log]) };
        let (mut in_memory, mut is_kept) = (false, false);
        for filter in filters {
            match filter.namespace() {
                Some(namespace) if self.log.home_of(namespace).kept => is_kept = true,
                Some(_) => in_memory = true,
                None => {
                    let (memory, kept) = self.log.behind_wildcards();
                    (in_memory, is_kept) = (in_memory || memory, is_kept || kept);
                }
            }
        }
        let logs = [(in_memory || !is_kept, &self.log), (is_kept, kept)];
        logs.into_iter().filter_map(|(reached, log)| reached.then_some(log)).collect()
    }

    /// Where the logs that `filters` reach stand.
    pub(crate) fn head_of<'f>(&self, filters: impl Iterator<Item = &'f Filter>) -> Position {
        positions(self.logs_of(filters).into_iter().map(|log| log.id(log.head())))
    }

    /// Locks all logs, in their order: meanwhile nothing is recorded.
    pub(crate) fn lock_logs(&self) -> (MutexGuard<'_, State>, Option<MutexGuard<'_, State>>, Position) {
        let log = self.log.lock();
        let head = Position::from(self.log.id(log.head()));
        match &self.kept {
            None => (log, None, head),
            Some(kept) => {
                let state = kept.lock();
                let head = head.with(kept.id(state.head()));
                (log, Some(state), head)
            }
        }
    }

    /// Takes nothing more. When this returns, every message that was taken has its place in the lanes' inboxes.
    pub(crate) fn refuse(&self) {
        {
            let _logs = self.lock_logs();
            self.closed.store(true, Ordering::Relaxed);
        }
        // Publishers look at the flag under their channel's guard, and a recorded message reaches the inboxes under it too.
        self.registry.wait_for_guards();
        self.janitor.wake.notify_one();
    }

    pub(crate) fn close(&self) {
        self.refuse();
        for lane in &self.lanes {
            lane.end();
        }
    }

    pub(crate) fn free(&self, evicted: Evicted) {
        if evicted.is_empty() {
            return;
        }
        self.janitor.evicted.push(evicted);
        self.janitor.wake.notify_one();
        if self.janitor.evicted.len() > MAX_EVICTED_SEGMENTS
            && let Some(evicted) = self.janitor.evicted.pop()
        {
            self.forget(&evicted);
        }
    }

    pub(crate) fn forget(&self, evicted: &Evicted) {
        for message in evicted.iter().flat_map(|segment| segment.messages()) {
            self.registry.forget(message.channel(), message.offset());
        }
    }
}

/// One position of several ids, of which there is one at least.
pub(crate) fn positions(mut ids: impl Iterator<Item = MessageId>) -> Position {
    let first = ids.next().map_or_else(|| MessageId::new(0, 0).into(), Position::from);
    ids.fold(first, Position::with)
}
