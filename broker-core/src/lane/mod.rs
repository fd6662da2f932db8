//! Lanes: the tasks that deliver.
//!
//! Every subscriber belongs to one lane. A publish pushes one job per lane that it hits; the lane goes through its
//! subscribers and writes to their sockets itself, so that nobody is woken per delivery. What a lane knows about its
//! subscribers is its own: other threads only push commands into its inbox.
//!
//! ```text
//! publisher ─▶ Lane (inbox, wake) ─▶ Worker ─┬ deliver: a job to its subscribers ─▶ Outbox
//!             commands                       ├ pending: subscriptions that replay, or wait for retained messages
//!                                            └ guard: a panic in a front's code ends its subscriber, not the lane
//! ```

mod command;
mod connections;
mod deliver;
mod delivery;
mod drops;
mod encryption;
mod guard;
mod pending;
mod worker;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

use ahash::RandomState;
use crossbeam_queue::SegQueue;
use crossbeam_utils::CachePadded;
use parking_lot::Mutex;
use tokio::sync::Notify;

pub(crate) use self::command::{Command, Direct, Feed, Job, Then};
use self::connections::Table;
pub use self::connections::{CloseCause, Connection, Details, Dismissal, ForcedError, Held, Peer, SendError};
pub use self::delivery::{Deliver, Delivery, Encoding, Kind, Sink};
use self::drops::Drops;
pub use self::encryption::Encryption;
pub(crate) use self::worker::Worker;
use crate::key::SubscriberKey;

/// Whom a lane belongs to.
pub(crate) trait LaneOwner: Send + Sync {
    /// The lane's task has ended by a panic: what is left of it delivers nothing.
    fn lane_died(&self);

    /// Messages of a subscriber were thrown away. Called at most once a minute for each.
    fn dropped(&self, subscriber: SubscriberKey, messages: u64);
}

/// The part of a lane that everybody sees.
pub(crate) struct Lane {
    index: u16,
    inbox: CachePadded<SegQueue<Command>>,
    sleeping: CachePadded<AtomicBool>,
    wake: Notify,
    /// It is to end once its inbox is empty.
    ended: AtomicBool,
    /// Its task is no more, whatever ended it.
    gone: AtomicBool,
    slots: Mutex<Slots>,
    /// Drawn, so that a key of another life, or of another node, names nobody here.
    first_generation: u32,
    pub(crate) connections: Table,
    pub(crate) waiting_deliveries: CachePadded<AtomicUsize>,
    pub(crate) waiting_bytes: AtomicUsize,
    pub(crate) delivered: CachePadded<AtomicU64>,
    pub(crate) dropped: AtomicU64,
    /// Whose they were.
    drops: Drops,
    /// Subscribers that were ended because delivering to them panicked.
    pub(crate) panicked: AtomicU64,
}

#[derive(Default)]
struct Slots {
    free: Vec<u32>,
    generations: Vec<u32>,
}

impl Lane {
    pub(crate) fn new(index: u16) -> Self {
        Self {
            index,
            inbox: CachePadded::default(),
            sleeping: CachePadded::default(),
            wake: Notify::new(),
            ended: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            slots: Mutex::default(),
            // The lower half of what is as good as drawn.
            first_generation: RandomState::new().hash_one(index) as u32,
            connections: Table::default(),
            waiting_deliveries: CachePadded::default(),
            waiting_bytes: AtomicUsize::new(0),
            delivered: CachePadded::default(),
            dropped: AtomicU64::new(0),
            drops: Drops::default(),
            panicked: AtomicU64::new(0),
        }
    }

    /// Messages of the subscriber in `slot` were thrown away.
    fn note_dropped(&self, slot: u32, count: u64) {
        self.dropped.fetch_add(count, Ordering::Relaxed);
        self.drops.note(slot, count);
    }

    /// Queues a command without waking the lane, for callers that hold a lock. False if the lane is gone; whoever waits
    /// for the command is told.
    pub(crate) fn push(&self, command: Command) -> bool {
        if self.gone.load(Ordering::Acquire) {
            command.refuse();
            return false;
        }
        if let Command::Job(job) = &command {
            self.waiting_deliveries.fetch_add(job.deliveries(), Ordering::Relaxed);
            self.waiting_bytes.fetch_add(job.delivery.message().payload().len(), Ordering::Relaxed);
        }
        self.inbox.push(command);
        true
    }

    /// Wakes the lane if it sleeps.
    pub(crate) fn wake(&self) {
        // Pairs with the fences in `next_batch` and `refuse_waiting`: either the lane sees the command or we see that it
        // sleeps.
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::Acquire) {
            if self.gone.load(Ordering::Acquire) {
                self.refuse_waiting();
            } else {
                self.wake.notify_one();
            }
        }
    }

    pub(crate) fn send(&self, command: Command) -> bool {
        let taken = self.push(command);
        self.wake();
        taken
    }

    pub(crate) fn allocate(&self) -> SubscriberKey {
        let mut slots = self.slots.lock();
        let slot = slots.free.pop().unwrap_or_else(|| {
            slots.generations.push(self.first_generation);
            u32::try_from(slots.generations.len() - 1).unwrap_or(u32::MAX)
        });
        let generation = slots.generations.get(slot as usize).copied().unwrap_or(self.first_generation);
        SubscriberKey { lane: self.index, slot, generation }
    }

    pub(crate) fn release(&self, key: SubscriberKey) {
        let mut slots = self.slots.lock();
        if let Some(generation) = slots.generations.get_mut(key.slot as usize) {
            *generation = generation.wrapping_add(1);
            slots.free.push(key.slot);
        }
    }

    /// Subscribers that hold a slot.
    pub(crate) fn subscribers(&self) -> usize {
        let slots = self.slots.lock();
        slots.generations.len() - slots.free.len()
    }

    /// Ends the lane once its inbox is empty.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Whether its task is no more.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// The task says that it is no more. Nothing is taken from now on, and nobody waits for what was.
    fn leave(&self) {
        self.gone.store(true, Ordering::Release);
        self.refuse_waiting();
    }

    /// What came while the task went. A lane that is gone sleeps for ever, so that whoever pushed behind it looks here
    /// too.
    fn refuse_waiting(&self) {
        self.sleeping.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        while let Some(command) = self.inbox.pop() {
            command.refuse();
        }
    }
}
