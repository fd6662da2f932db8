//! The task of a lane: takes what waits in the inbox, does it, and lets the host's other tasks run in between.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, Weak};
use std::time::Instant;

use ahash::AHashMap;
use smallvec::SmallVec;

use super::command::{Command, Direct, Job, continues, same_list};
use super::drops::MAX_TOLD;
use super::pending::{Occupant, Slot};
use super::{Lane, LaneOwner};
use crate::histogram::Timed;
use crate::key::SubscriberKey;
use crate::outbox::{Flush, OutboxEnd};
use crate::sparing::{Sparing, Telling};

/// Commands taken in one go. More only delays the first one's flush.
const MAX_BATCH: usize = 128;

/// How much a lane does before it lets the host's other tasks run: 64 writes, where an append counts an eighth.
const YIELD_AFTER: u32 = 64 * WRITE;
pub(super) const WRITE: u32 = 8;
pub(super) const APPEND: u32 = 1;

/// The task's own state. However the task ends, by [`Lane::end`], by a panic or with its runtime, dropping this closes
/// its subscribers' outboxes and lets go of everybody who waits for it.
pub(crate) struct Worker {
    pub(super) lane: Arc<Lane>,
    /// Whom it belongs to, to be told if it dies.
    broker: Weak<dyn LaneOwner>,
    pub(super) slots: Vec<Slot>,
    /// Subscribers whose delivering panicked, until their session has a new connection.
    pub(super) broken: AHashMap<u32, Occupant>,
    /// Slots with frames that wait for the end of the batch.
    pub(super) dirty: Vec<u32>,
    /// Tags beyond the first, of subscribers that a job hits more than once.
    pub(super) overlaps: Vec<(u32, u32)>,
    pub(super) tags: Vec<u32>,
    /// Messages of this batch that are timed.
    timed: Vec<Timed>,
    /// Whose losses were told of: each at most once a minute.
    told: Sparing<SubscriberKey>,
    pub(super) job: u64,
    pub(super) budget: u32,
    pub(super) encodings: Arc<AtomicUsize>,
}

/// Commands on their way; those that are not come to when the task ends are refused.
#[derive(Default)]
struct Batch(VecDeque<Command>);

impl Drop for Batch {
    fn drop(&mut self) {
        self.0.drain(..).for_each(Command::refuse);
    }
}

impl Batch {
    /// Runs of jobs on one list.
    fn runs(&self) -> usize {
        let is_job = |command: &Command| matches!(command, Command::Job(_));
        let pairs = self.0.iter().zip(self.0.iter().skip(1));
        let later = pairs.filter(|(before, next)| is_job(next) && !same_list(before, next)).count();
        usize::from(self.0.front().is_some_and(is_job)) + later
    }

    /// The next job, if it goes to the same list as a run.
    fn next_of(&mut self, run: &[Job]) -> Option<Job> {
        if !self.0.front().is_some_and(|next| continues(run, next)) {
            return None;
        }
        match self.0.pop_front() {
            Some(Command::Job(job)) => Some(job),
            _ => None,
        }
    }
}

impl Worker {
    pub(crate) fn new(lane: Arc<Lane>, broker: Weak<dyn LaneOwner>, encodings: Arc<AtomicUsize>) -> Self {
        Self {
            lane,
            broker,
            slots: Vec::new(),
            broken: AHashMap::new(),
            dirty: Vec::new(),
            overlaps: Vec::new(),
            tags: Vec::new(),
            timed: Vec::new(),
            told: Sparing::new(MAX_TOLD),
            job: 0,
            budget: YIELD_AFTER,
            encodings,
        }
    }

    pub(crate) async fn run(mut self) {
        let mut batch = Batch::default();
        while self.next_batch(&mut batch.0).await {
            let flush = if batch.runs() == 1 { Flush::Now } else { Flush::Later };
            while let Some(command) = batch.0.pop_front() {
                let Command::Job(job) = command else {
                    self.handle(command, flush).await;
                    continue;
                };
                // A burst on one channel goes to each subscriber in one piece.
                let mut run = SmallVec::<[Job; 1]>::from_buf([job]);
                while let Some(next) = batch.next_of(&run) {
                    run.push(next);
                }
                self.deliver_run(&run, flush).await;
            }
            self.flush_dirty().await;
            self.timed.drain(..).for_each(Timed::written);
            if self.lane.drops.any() {
                self.tell_drops();
            }
        }
        // What waits for retained messages was published and taken like the rest.
        for slot in 0..self.slots.len() as u32 {
            let delivered = self.guarded(slot, |worker| worker.unpark_all(slot, Flush::Now));
            self.lane.delivered.fetch_add(delivered.unwrap_or(0), Ordering::Relaxed);
        }
    }

    /// Takes what waits, or sleeps; false once the lane has ended.
    async fn next_batch(&mut self, batch: &mut VecDeque<Command>) -> bool {
        loop {
            while batch.len() < MAX_BATCH
                && let Some(command) = self.lane.inbox.pop()
            {
                match command {
                    // Kept out of the batch, where it would part jobs that go to each subscriber in one piece.
                    Command::Timed(timed) => self.timed.push(timed),
                    command => batch.push_back(command),
                }
            }
            if !batch.is_empty() || !self.timed.is_empty() {
                return true;
            }
            if self.lane.ended.load(Ordering::Acquire) {
                return false;
            }
            self.lane.sleeping.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            if self.lane.inbox.is_empty() && !self.lane.ended.load(Ordering::Acquire) {
                self.lane.wake.notified().await;
            }
            self.lane.sleeping.store(false, Ordering::Relaxed);
        }
    }

    async fn handle(&mut self, command: Command, flush: Flush) {
        match command {
            Command::Attach { key, deliver, outbox } => {
                let at = key.slot as usize;
                if self.slots.len() <= at {
                    self.slots.resize_with(at + 1, || Slot { generation: 0, job: 0, subscriber: None });
                }
                let subscriber = Some(Occupant { deliver, outbox, rights: None, pending: None });
                self.slots[at] = Slot { generation: key.generation, job: 0, subscriber };
            }
            Command::Detach(key) => self.detach(key),
            Command::Renew { key, outbox } => {
                if self.holds(key)
                    && let Some(occupant) = self.broken.remove(&key.slot)
                {
                    // Its session has another connection, and with it another try.
                    self.slots[key.slot as usize].subscriber = Some(occupant);
                }
                if let Some(occupant) = self.occupant(key) {
                    let old = std::mem::replace(&mut occupant.outbox, outbox);
                    // What the batch has left in the old one is still for its reader.
                    self.guarded(key.slot, |_| old.flush_batch());
                }
            }
            Command::Rights { key, principal } => {
                // A subscriber that panicked may get another try, and not with rights that were taken from it.
                let held = match self.holds(key) && self.broken.contains_key(&key.slot) {
                    true => self.broken.get_mut(&key.slot),
                    false => self.occupant(key),
                };
                if let Some(occupant) = held {
                    occupant.rights = principal;
                }
            }
            Command::Job(job) => self.deliver_run(&[job], flush).await,
            Command::CatchUp { key, tag, epoch } => {
                if let Some(occupant) = self.occupant(key) {
                    occupant.pending.get_or_insert_default().catching_up.push((tag, epoch));
                }
            }
            Command::Park { key, tag } => {
                if let Some(occupant) = self.occupant(key) {
                    occupant.pending.get_or_insert_default().parked_tags.push(tag);
                }
            }
            Command::Feed(feed) => self.feed(*feed, flush).await,
            Command::Timed(timed) => self.timed.push(timed),
            Command::Direct(direct) => {
                let Direct { key, delivery, done } = *direct;
                let sent = self.guarded(key.slot, |worker| worker.deliver_directly(key, &delivery));
                _ = done.send(sent.unwrap_or(Err(crate::SendError::Gone)));
            }
            Command::Barrier(done) => {
                self.flush_dirty().await;
                _ = done.send(());
            }
        }
    }

    fn detach(&mut self, key: SubscriberKey) {
        if !self.holds(key) {
            return;
        }
        let Some(slot) = self.slots.get_mut(key.slot as usize) else { return };
        slot.generation = slot.generation.wrapping_add(1);
        let gone = (slot.subscriber.take(), self.broken.remove(&key.slot));
        self.lane.release(key);
        // What the front held for its subscriber may go with it, and is the front's own code.
        self.guarded(key.slot, |_| drop(gone));
    }

    /// Says whose messages were thrown away in the batch.
    #[cold]
    fn tell_drops(&mut self) {
        let Some(broker) = self.broker.upgrade() else { return };
        let now = Instant::now();
        for (slot, lost) in self.lane.drops.take() {
            let Some(place) = self.slots.get(slot as usize).filter(|place| place.subscriber.is_some()) else {
                continue;
            };
            let key = SubscriberKey { lane: self.lane.index, slot, generation: place.generation };
            if let Telling::Now(messages) = self.told.note(key, lost, now) {
                self.guarded(slot, |_| broker.dropped(key, messages));
            }
        }
    }

    /// Whether the slot is still this subscriber's.
    fn holds(&self, key: SubscriberKey) -> bool {
        self.slots.get(key.slot as usize).is_some_and(|slot| slot.generation == key.generation)
    }

    pub(super) fn occupant(&mut self, key: SubscriberKey) -> Option<&mut Occupant> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        (slot.generation == key.generation).then_some(slot.subscriber.as_mut()).flatten()
    }

    async fn flush_dirty(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for at in dirty.drain(..) {
            self.guarded(at, |worker| {
                if let Some(occupant) =
                    worker.slots.get(at as usize).and_then(|slot| slot.subscriber.as_ref())
                {
                    occupant.outbox.flush_batch();
                }
            });
            self.spend(WRITE).await;
        }
        self.dirty = dirty;
    }

    pub(super) async fn spend(&mut self, cost: u32) {
        if self.budget > cost + WRITE {
            self.budget -= cost;
            return;
        }
        self.budget = YIELD_AFTER;
        tokio::task::yield_now().await;
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.lane.leave();
        for slot in 0..self.slots.len() as u32 {
            self.guarded(slot, |worker| {
                if let Some(occupant) =
                    worker.slots.get_mut(slot as usize).and_then(|slot| slot.subscriber.take())
                {
                    occupant.outbox.close(OutboxEnd::Shutdown);
                }
            });
        }
        if !self.lane.ended.load(Ordering::Acquire)
            && let Some(broker) = self.broker.upgrade()
        {
            tracing::error!(lane = self.lane.index, "a lane has died, the broker takes nothing more");
            broker.lane_died();
        }
    }
}
