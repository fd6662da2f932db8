//! The task of a lane: takes what waits in the inbox, does it, and lets the host's other tasks run in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering, fence};

use smallvec::SmallVec;

use super::Lane;
use super::command::{Command, Direct, Job, continues, same_list};
use super::pending::{Occupant, Slot};
use crate::outbox::Flush;
use crate::subscriber::SubscriberKey;

/// Commands taken in one go. More only delays the first one's flush.
const MAX_BATCH: usize = 128;

/// How much a lane does before it lets the host's other tasks run: 64 writes, where an append counts an eighth.
const YIELD_AFTER: u32 = 64 * WRITE;
pub(super) const WRITE: u32 = 8;
pub(super) const APPEND: u32 = 1;

/// The task's own state.
pub(crate) struct Worker {
    pub(super) lane: Arc<Lane>,
    pub(super) slots: Vec<Slot>,
    /// Slots with frames that wait for the end of the batch.
    pub(super) dirty: Vec<u32>,
    /// Tags beyond the first, of subscribers that a job hits more than once.
    pub(super) overlaps: Vec<(u32, u32)>,
    pub(super) tags: Vec<u32>,
    pub(super) job: u64,
    pub(super) budget: u32,
    pub(super) encodings: Arc<AtomicUsize>,
}

impl Worker {
    pub(crate) fn new(lane: Arc<Lane>, encodings: Arc<AtomicUsize>) -> Self {
        Self {
            lane,
            slots: Vec::new(),
            dirty: Vec::new(),
            overlaps: Vec::new(),
            tags: Vec::new(),
            job: 0,
            budget: YIELD_AFTER,
            encodings,
        }
    }

    pub(crate) async fn run(mut self) {
        let mut batch = Vec::new();
        while self.next_batch(&mut batch).await {
            let runs =
                batch.chunk_by(same_list).filter(|run| matches!(run.first(), Some(Command::Job(_)))).count();
            let flush = if runs == 1 { Flush::Now } else { Flush::Later };
            let mut waiting = batch.drain(..).peekable();
            while let Some(command) = waiting.next() {
                let Command::Job(job) = command else {
                    self.handle(command, flush).await;
                    continue;
                };
                // A burst on one channel goes to each subscriber in one piece.
                let mut run = SmallVec::<[Job; 1]>::from_buf([job]);
                while let Some(Command::Job(next)) = waiting.next_if(|next| continues(&run, next)) {
                    run.push(next);
                }
                self.deliver_run(&run, flush).await;
            }
            drop(waiting);
            self.flush_dirty().await;
        }
        for slot in &mut self.slots {
            if let Some(occupant) = slot.subscriber.take() {
                occupant.outbox.close(crate::CloseReason::Shutdown);
            }
        }
    }

    /// Takes what waits, or sleeps; false once the lane has ended.
    async fn next_batch(&mut self, batch: &mut Vec<Command>) -> bool {
        loop {
            while batch.len() < MAX_BATCH
                && let Some(command) = self.lane.inbox.pop()
            {
                batch.push(command);
            }
            if !batch.is_empty() {
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
            Command::Attach { key, deliver, outbox, guard } => {
                let at = key.slot as usize;
                if self.slots.len() <= at {
                    self.slots.resize_with(at + 1, || Slot { generation: 0, job: 0, subscriber: None });
                }
                let subscriber = Some(Occupant { deliver, outbox, guard, pending: None });
                self.slots[at] = Slot { generation: key.generation, job: 0, subscriber };
            }
            Command::Detach(key) => {
                if let Some(slot) = self.slots.get_mut(key.slot as usize)
                    && slot.generation == key.generation
                {
                    slot.generation = slot.generation.wrapping_add(1);
                    slot.subscriber = None;
                    self.lane.release(key);
                }
            }
            Command::Renew { key, outbox } => {
                // What the batch has left in the old one is still for its reader.
                self.flush_dirty().await;
                if let Some(occupant) = self.occupant(key) {
                    occupant.outbox = outbox;
                }
            }
            Command::Job(job) => self.deliver_run(&[job], flush).await,
            Command::CatchUp { key, tag } => {
                if let Some(occupant) = self.occupant(key) {
                    occupant.pending.get_or_insert_default().catching_up.push(tag);
                }
            }
            Command::Park { key, tag } => {
                if let Some(occupant) = self.occupant(key) {
                    occupant.pending.get_or_insert_default().parked_tags.push(tag);
                }
            }
            Command::Feed(feed) => self.feed(*feed, flush).await,
            Command::Direct(direct) => {
                let Direct { key, delivery, done } = *direct;
                _ = done.send(self.deliver_directly(key, &delivery));
            }
            Command::Barrier(done) => {
                self.flush_dirty().await;
                _ = done.send(());
            }
        }
    }

    pub(super) fn occupant(&mut self, key: SubscriberKey) -> Option<&mut Occupant> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        (slot.generation == key.generation).then_some(slot.subscriber.as_mut()).flatten()
    }

    async fn flush_dirty(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for at in dirty.drain(..) {
            if let Some(occupant) = self.slots.get(at as usize).and_then(|slot| slot.subscriber.as_ref()) {
                occupant.outbox.flush_batch();
            }
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
