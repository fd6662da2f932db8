//! Lanes: the tasks that deliver.
//!
//! Every subscriber belongs to one lane. A publish pushes one job per lane that it hits; the lane goes through its
//! subscribers and writes to their sockets itself, so that nobody is woken per delivery. What a lane knows about its
//! subscribers is its own: other threads only push commands into its inbox.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

use bytes::Bytes;
use crossbeam_queue::SegQueue;
use crossbeam_utils::CachePadded;
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::{Notify, oneshot};

use crate::connections::{SendError, Table};
use crate::delivery::{Deliver, Delivery, Kind, Sink};
use crate::lists::{Entry, LaneList};
use crate::message::Message;
use crate::outbox::{Class, Flush, Outbox, Sent};
use crate::rights::{Action, Principal};
use crate::subscriber::SubscriberKey;

/// Commands taken in one go. More only delays the first one's flush.
const MAX_BATCH: usize = 128;

/// How much a lane does before it lets the host's other tasks run: 64 writes, where an append counts an eighth.
const YIELD_AFTER: u32 = 64 * WRITE;
const WRITE: u32 = 8;
const APPEND: u32 = 1;

/// What one message hits in one lane.
pub(crate) struct Job {
    pub(crate) delivery: Arc<Delivery>,
    /// All lists together: separate jobs could interleave with another publisher's.
    pub(crate) lists: SmallVec<[LaneList; 2]>,
    /// The publisher, if it wants no copy.
    pub(crate) skip: Option<SubscriberKey>,
}

/// Messages for one subscriber that were not just published: a page of a replay, or retained ones.
pub(crate) struct Feed {
    pub(crate) key: SubscriberKey,
    pub(crate) kind: Kind,
    pub(crate) messages: Vec<(Arc<Message>, SmallVec<[u32; 1]>)>,
    pub(crate) then: Then,
    /// Told when the page is in the outbox, and whether the session has room for another.
    pub(crate) done: Option<oneshot::Sender<bool>>,
}

/// A message for one subscriber, whatever it is subscribed to.
pub(crate) struct Direct {
    pub(crate) key: SubscriberKey,
    pub(crate) delivery: Arc<Delivery>,
    /// Told what became of it.
    pub(crate) done: oneshot::Sender<Result<(), SendError>>,
}

/// What follows a [`Feed`].
pub(crate) enum Then {
    /// Another one.
    More,
    /// These subscriptions are caught up and get live messages from here.
    GoLive(SmallVec<[u32; 1]>),
    /// This one has had its retained messages: its parked deliveries follow.
    Unpark(u32),
}

pub(crate) enum Command {
    Attach {
        key: SubscriberKey,
        deliver: Arc<dyn Deliver>,
        outbox: Arc<Outbox>,
        guard: Option<Principal>,
    },
    Detach(SubscriberKey),
    /// The session has a new connection.
    Renew {
        key: SubscriberKey,
        outbox: Arc<Outbox>,
    },
    Job(Job),
    /// The subscription skips recorded messages until its replay goes live.
    CatchUp {
        key: SubscriberKey,
        tag: u32,
    },
    /// The subscription's deliveries wait until its retained messages have been sent.
    Park {
        key: SubscriberKey,
        tag: u32,
    },
    Feed(Box<Feed>),
    /// A message for one subscriber alone.
    Direct(Box<Direct>),
    /// Everything before it has been delivered.
    Barrier(oneshot::Sender<()>),
}

/// Shared frames of a burst on their way to one subscriber.
type Frames<'r> = SmallVec<[(&'r Bytes, &'r Arc<Message>); 16]>;

/// The part of a lane that everybody sees.
pub(crate) struct Lane {
    index: u16,
    inbox: CachePadded<SegQueue<Command>>,
    sleeping: CachePadded<AtomicBool>,
    wake: Notify,
    ended: AtomicBool,
    slots: Mutex<Slots>,
    pub(crate) connections: Table,
    pub(crate) waiting_deliveries: CachePadded<AtomicUsize>,
    pub(crate) waiting_bytes: AtomicUsize,
    pub(crate) delivered: CachePadded<AtomicU64>,
    pub(crate) dropped: AtomicU64,
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
            slots: Mutex::default(),
            connections: Table::default(),
            waiting_deliveries: CachePadded::default(),
            waiting_bytes: AtomicUsize::new(0),
            delivered: CachePadded::default(),
            dropped: AtomicU64::new(0),
        }
    }

    /// Queues a command without waking the lane, for callers that hold a lock. False if the lane has ended.
    pub(crate) fn push(&self, command: Command) -> bool {
        if self.ended.load(Ordering::Acquire) {
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
        // Pairs with the fence in `next_batch`: either the lane sees the command or we see that it sleeps.
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::Relaxed) {
            self.wake.notify_one();
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
            slots.generations.push(0);
            u32::try_from(slots.generations.len() - 1).unwrap_or(u32::MAX)
        });
        let generation = slots.generations.get(slot as usize).copied().unwrap_or(0);
        SubscriberKey { lane: self.index, slot, generation }
    }

    fn release(&self, key: SubscriberKey) {
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
}

impl Job {
    /// Whether both hit one list only, and the same.
    fn has_list_of(&self, other: &Job) -> bool {
        matches!((self.lists.as_slice(), other.lists.as_slice()), ([one], [other]) if Arc::ptr_eq(one, other))
    }

    fn deliveries(&self) -> usize {
        self.lists.iter().map(|list| list.len()).sum()
    }
}

/// Whether two commands are jobs on one and the same list.
fn same_list(one: &Command, other: &Command) -> bool {
    matches!((one, other), (Command::Job(one), Command::Job(other)) if one.has_list_of(other))
}

fn continues(run: &[Job], next: &Command) -> bool {
    matches!((run.first(), next), (Some(job), Command::Job(next)) if job.has_list_of(next))
}

/// The task's own state.
pub(crate) struct Worker {
    lane: Arc<Lane>,
    slots: Vec<Slot>,
    /// Slots with frames that wait for the end of the batch.
    dirty: Vec<u32>,
    /// Tags beyond the first, of subscribers that a job hits more than once.
    overlaps: Vec<(u32, u32)>,
    tags: Vec<u32>,
    job: u64,
    budget: u32,
    encodings: Arc<AtomicUsize>,
}

struct Slot {
    generation: u32,
    /// The last job that reached this slot: odd while its lists are gone through, even once it was delivered.
    job: u64,
    subscriber: Option<Occupant>,
}

struct Occupant {
    deliver: Arc<dyn Deliver>,
    outbox: Arc<Outbox>,
    guard: Option<Principal>,
    pending: Option<Box<Pending>>,
}

/// Deliveries that may be parked for one subscriber. Beyond it they go out before the retained messages that are left.
const MAX_PARKED: usize = 1_000;

/// Subscriptions that are not live yet.
#[derive(Default)]
struct Pending {
    catching_up: Vec<u32>,
    parked_tags: Vec<u32>,
    parked: Vec<(Arc<Delivery>, SmallVec<[u32; 1]>)>,
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

    fn occupant(&mut self, key: SubscriberKey) -> Option<&mut Occupant> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        (slot.generation == key.generation).then_some(slot.subscriber.as_mut()).flatten()
    }

    /// Delivers jobs that hit the same lists.
    async fn deliver_run(&mut self, run: &[Job], flush: Flush) {
        let delivered = match run {
            [job] if job.lists.len() > 1 => self.deliver_overlapping(job, flush).await,
            run => self.deliver_list(run, flush).await,
        };
        let deliveries = run.iter().map(Job::deliveries).sum();
        let bytes = run.iter().map(|job| job.delivery.message().payload().len()).sum();
        self.lane.delivered.fetch_add(delivered, Ordering::Relaxed);
        self.lane.waiting_deliveries.fetch_sub(deliveries, Ordering::Relaxed);
        self.lane.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Delivers jobs whose one list is the same.
    async fn deliver_list(&mut self, run: &[Job], flush: Flush) -> u64 {
        let Some(list) = run.first().and_then(|job| job.lists.first()) else { return 0 };
        let cost = if flush == Flush::Now { WRITE } else { APPEND } + run.len() as u32 - 1;
        let mut delivered = 0;
        let mut frames = Frames::new();
        let mut rest = list.as_slice();
        // In steps that fit the budget, so that nothing awaits between two deliveries.
        while !rest.is_empty() {
            let (step, later) = rest.split_at(rest.len().min((self.budget / cost).max(1) as usize));
            for entry in step {
                delivered += self.deliver_run_to(run, *entry, flush, &mut frames);
            }
            rest = later;
            self.spend(cost * step.len() as u32).await;
        }
        delivered
    }

    /// Delivers to one subscriber: its shared frames in one piece if it has only such. `frames` is scratch space.
    #[inline]
    fn deliver_run_to<'r>(
        &mut self,
        run: &'r [Job],
        entry: Entry,
        flush: Flush,
        frames: &mut Frames<'r>,
    ) -> u64 {
        let Some(slot) =
            self.slots.get(entry.slot as usize).filter(|slot| slot.generation == entry.generation)
        else {
            return 0;
        };
        let Some(occupant) = &slot.subscriber else { return 0 };
        if occupant.pending.is_some() || occupant.guard.is_some() {
            return self.deliver_each(run, entry, flush);
        }
        let sent = if let [job] = run {
            match shared_frame(occupant, job, entry) {
                Some(frame) => {
                    let message = job.delivery.message();
                    occupant.outbox.put(frame, Class::Droppable, Some(message), flush)
                }
                None => return self.deliver_each(run, entry, flush),
            }
        } else {
            frames.clear();
            for job in run {
                match shared_frame(occupant, job, entry) {
                    Some(frame) => frames.push((frame, job.delivery.message())),
                    None => return self.deliver_each(run, entry, flush),
                }
            }
            occupant.outbox.put_shared(frames, flush)
        };
        match sent {
            Sent::Dirty => self.dirty.push(entry.slot),
            Sent::Dropped(count) => _ = self.lane.dropped.fetch_add(count, Ordering::Relaxed),
            Sent::Taken | Sent::Refused => {}
        }
        run.len() as u64
    }

    /// Delivers by the front's own frames; a burst of them waits for one write too.
    fn deliver_each(&mut self, run: &[Job], entry: Entry, flush: Flush) -> u64 {
        let flush = if run.len() > 1 { Flush::Later } else { flush };
        run.iter().map(|job| self.deliver_entry(job, entry, &[entry.tag], flush)).sum()
    }

    /// Delivers a job whose lists may hit a subscriber more than once.
    async fn deliver_overlapping(&mut self, job: &Job, flush: Flush) -> u64 {
        self.find_overlaps(job);
        let cost = if flush == Flush::Now { WRITE } else { APPEND };
        let mut delivered = 0;
        for list in &job.lists {
            for entry in list.iter() {
                delivered += self.deliver_once(job, *entry, flush);
                self.spend(cost).await;
            }
        }
        self.job += 1;
        delivered
    }

    /// Delivers at the first of a subscriber's entries, with the tags of all of them.
    fn deliver_once(&mut self, job: &Job, entry: Entry, flush: Flush) -> u64 {
        let Some(slot) = self.slots.get_mut(entry.slot as usize) else { return 0 };
        if slot.job != self.job {
            return 0;
        }
        slot.job += 1;
        let mut tags = std::mem::take(&mut self.tags);
        tags.push(entry.tag);
        let from = self.overlaps.partition_point(|(slot, _)| *slot < entry.slot);
        let same = self.overlaps.iter().skip(from).take_while(|(slot, _)| *slot == entry.slot);
        tags.extend(same.map(|(_, tag)| *tag));
        let delivered = self.deliver_entry(job, entry, &tags, flush);
        tags.clear();
        self.tags = tags;
        delivered
    }

    /// Marks the slots a job hits and notes the tags of those that it hits again.
    fn find_overlaps(&mut self, job: &Job) {
        self.job += 1 - self.job % 2;
        self.overlaps.clear();
        for entry in job.lists.iter().flat_map(|list| list.iter()) {
            let Some(slot) = self.slots.get_mut(entry.slot as usize) else { continue };
            if slot.generation != entry.generation {
                continue;
            }
            if slot.job == self.job {
                self.overlaps.push((entry.slot, entry.tag));
            } else {
                slot.job = self.job;
            }
        }
        self.overlaps.sort_unstable();
    }

    #[inline]
    fn deliver_entry(&mut self, job: &Job, entry: Entry, tags: &[u32], flush: Flush) -> u64 {
        let Some(slot) = self.slots.get_mut(entry.slot as usize) else { return 0 };
        if slot.generation != entry.generation {
            return 0;
        }
        if job.skip.is_some_and(|key| key.slot == entry.slot && key.generation == entry.generation) {
            return 0;
        }
        let Some(occupant) = &mut slot.subscriber else { return 0 };
        if let Some(pending) = &mut occupant.pending {
            let live = pending.sort_out(&job.delivery, tags);
            if pending.parked.len() > MAX_PARKED {
                return self.unpark_all(entry.slot, flush);
            }
            if live.is_empty() {
                return 0;
            }
            return hand_over(&self.lane, occupant, entry.slot, &job.delivery, &live, flush, &mut self.dirty);
        }
        hand_over(&self.lane, occupant, entry.slot, &job.delivery, tags, flush, &mut self.dirty)
    }

    /// Ends the wait of all parked subscriptions of a subscriber.
    fn unpark_all(&mut self, slot: u32, flush: Flush) -> u64 {
        let Some(occupant) = self.slots.get_mut(slot as usize).and_then(|slot| slot.subscriber.as_mut())
        else {
            return 0;
        };
        let Some(pending) = &mut occupant.pending else { return 0 };
        pending.parked_tags.clear();
        let parked = std::mem::take(&mut pending.parked);
        occupant.pending.take_if(|pending| pending.is_empty());
        let deliver = |(delivery, tags): (Arc<Delivery>, SmallVec<[u32; 1]>)| {
            hand_over(&self.lane, occupant, slot, &delivery, &tags, flush, &mut self.dirty)
        };
        parked.into_iter().map(deliver).sum()
    }

    async fn feed(&mut self, feed: Feed, flush: Flush) {
        let encodings = self.encodings.load(Ordering::Relaxed);
        let mut messages = feed.messages;
        if feed.kind == Kind::Retained
            && let Some(pending) = self.occupant(feed.key).and_then(|occupant| occupant.pending.as_ref())
        {
            // A retained message that is also parked arrives once, as the live one, in its place.
            messages.retain(|(message, tags)| !pending.has_parked(message.offset(), tags));
        }
        let mut delivered = 0;
        for (message, tags) in messages {
            let delivery = Arc::new(Delivery::new(message, feed.kind, None, encodings));
            delivered += self.deliver_to(feed.key, &delivery, &tags, flush);
            self.spend(APPEND).await;
        }
        match feed.then {
            Then::More => {}
            Then::GoLive(tags) => {
                if let Some(occupant) = self.occupant(feed.key)
                    && let Some(pending) = &mut occupant.pending
                {
                    pending.catching_up.retain(|tag| !tags.contains(tag));
                    occupant.pending.take_if(|pending| pending.is_empty());
                }
            }
            Then::Unpark(tag) => {
                let parked = self.occupant(feed.key).map(|occupant| occupant.unpark(tag)).unwrap_or_default();
                for (delivery, tags) in parked {
                    delivered += self.deliver_to(feed.key, &delivery, &tags, flush);
                }
            }
        }
        self.lane.delivered.fetch_add(delivered, Ordering::Relaxed);
        if let Some(done) = feed.done {
            _ = done.send(self.occupant(feed.key).is_none_or(|occupant| occupant.deliver.has_room()));
        }
    }

    fn deliver_to(
        &mut self,
        key: SubscriberKey,
        delivery: &Arc<Delivery>,
        tags: &[u32],
        flush: Flush,
    ) -> u64 {
        let Some(slot) = self.slots.get_mut(key.slot as usize) else { return 0 };
        if slot.generation != key.generation {
            return 0;
        }
        let Some(occupant) = &mut slot.subscriber else { return 0 };
        hand_over(&self.lane, occupant, key.slot, delivery, tags, flush, &mut self.dirty)
    }

    /// Delivers to one subscriber, if there is room for it. What the subscriber is subscribed to, and may be, does not
    /// matter.
    fn deliver_directly(&mut self, key: SubscriberKey, delivery: &Arc<Delivery>) -> Result<(), SendError> {
        let occupant = self.occupant(key).ok_or(SendError::Gone)?;
        let mut sink = Sink::direct(&occupant.outbox, delivery);
        occupant.deliver.deliver(delivery, &[], &mut sink);
        let refused = sink.refused;
        if refused.is_none() {
            self.lane.delivered.fetch_add(1, Ordering::Relaxed);
        }
        refused.map_or(Ok(()), Err)
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

    async fn spend(&mut self, cost: u32) {
        if self.budget > cost + WRITE {
            self.budget -= cost;
            return;
        }
        self.budget = YIELD_AFTER;
        tokio::task::yield_now().await;
    }
}

/// The frame that a job amounts to for a subscriber, if that is one that all share.
#[inline]
fn shared_frame<'r>(occupant: &Occupant, job: &'r Job, entry: Entry) -> Option<&'r Bytes> {
    if job.skip.is_some() {
        return None;
    }
    occupant
        .deliver
        .shared_frame(&job.delivery, &[entry.tag], &occupant.outbox)
        .filter(|frame| !frame.is_empty())
}

#[inline]
fn hand_over(
    lane: &Lane,
    occupant: &Occupant,
    slot: u32,
    delivery: &Arc<Delivery>,
    tags: &[u32],
    flush: Flush,
    dirty: &mut Vec<u32>,
) -> u64 {
    if let Some(principal) = &occupant.guard
        && !principal.allows(Action::Subscribe, delivery.message().channel())
    {
        return 0;
    }
    let mut sink = Sink::new(&occupant.outbox, delivery, flush);
    occupant.deliver.deliver(delivery, tags, &mut sink);
    if sink.dirty {
        dirty.push(slot);
    }
    if sink.dropped > 0 {
        lane.dropped.fetch_add(sink.dropped, Ordering::Relaxed);
    }
    1
}

impl Pending {
    /// The tags that are live; those that are parked keep the delivery.
    fn sort_out(&mut self, delivery: &Arc<Delivery>, tags: &[u32]) -> SmallVec<[u32; 4]> {
        let recorded = delivery.message().offset() != 0;
        let (mut live, mut parked) = (SmallVec::new(), SmallVec::new());
        for tag in tags {
            if self.parked_tags.contains(tag) {
                parked.push(*tag);
            } else if !(recorded && self.catching_up.contains(tag)) {
                live.push(*tag);
            }
        }
        if !parked.is_empty() {
            // One call with all tags, later, rather than two copies.
            parked.extend(live.drain(..));
            self.parked.push((Arc::clone(delivery), parked));
        }
        live
    }

    fn has_parked(&self, offset: u64, tags: &[u32]) -> bool {
        self.parked.iter().any(|(delivery, parked)| {
            delivery.message().offset() == offset && tags.iter().any(|tag| parked.contains(tag))
        })
    }

    fn is_empty(&self) -> bool {
        self.catching_up.is_empty() && self.parked_tags.is_empty() && self.parked.is_empty()
    }
}

impl Occupant {
    /// Ends one subscription's wait; the deliveries that wait for no other one.
    fn unpark(&mut self, tag: u32) -> Vec<(Arc<Delivery>, SmallVec<[u32; 1]>)> {
        let Some(pending) = &mut self.pending else { return Vec::new() };
        if let Some(at) = pending.parked_tags.iter().position(|parked| *parked == tag) {
            pending.parked_tags.swap_remove(at);
        }
        // While another subscription is parked, its deliveries keep their order behind those that wait with it.
        let waits = |tags: &[u32], parked: &[u32]| tags.iter().any(|tag| parked.contains(tag));
        let ready = pending
            .parked
            .iter()
            .position(|(_, tags)| waits(tags, &pending.parked_tags))
            .unwrap_or(pending.parked.len());
        let released = pending.parked.drain(..ready).collect();
        self.pending.take_if(|pending| pending.is_empty());
        released
    }
}
