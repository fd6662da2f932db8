//! The thread that makes the order, writes it, and has it released.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use broker_core::{
    Accepted, Channel, Done, Ends, Fence, Ingest, KeyedReceipt, Op, Publish, PublishError, PublishOnceError,
    Receipt, RecordError, Taken, Unavailable, unix_ms,
};
use fjall::{OwnedWriteBatch, PersistMode};

use crate::bucket::{Bucket, too_many};
use crate::copying::Moment;
use crate::disk::{Disk, retained_row};
use crate::gather::{Gather, Wanted};
use crate::keys::{Keys, Name, Row, fingerprint, name_of};
use crate::queue::Item;
use crate::schema::{SUM_BYTES, bucket_key, channel_key, message_key, note_key, numbers, seal, sealed};
use crate::sessions::{Rows, Sessions};
use crate::settings::Durability;
use crate::shared::{REFUSED, Shared, State};

pub(crate) struct Committer {
    shared: Arc<Shared>,
    ingest: Arc<dyn Ingest>,
    /// What is written to, and what the keys of earlier publishes are found by. `None` after a failure.
    open: Option<Open>,
    epoch: u64,
    /// The newest offset that was written, and the newest that is known to be on the disk.
    written: u64,
    safe: u64,
    unsynced_since: Option<Instant>,
    /// Among what is not known to be on the disk are messages that nobody waited for.
    has_unsynced_quiet: bool,
    looked_at: Instant,
    failed_at: Instant,
}

struct Open {
    disk: Arc<Disk>,
    keys: Keys,
}

/// How long what nobody waits for may be on its way to the disk, where an acknowledgement means that it is there.
const QUIET_SYNC: Duration = Duration::from_secs(1);
/// How often the disk is looked at, and what is too old on it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

type Published = Done<Result<KeyedReceipt, PublishOnceError>>;

/// What a message has beside itself: its key, its session's number for it, and who waits for it.
type Waiting = (Option<(Name, Row)>, Option<Box<Taken>>, Option<Published>);

/// What is done with an operation once the batch is on the disk.
enum Step {
    /// The message of this number in the batch; with what its key has to learn.
    Publish {
        number: usize,
        key: Option<(Name, Row)>,
        /// What its session calls it.
        taken: Option<Box<Taken>>,
        /// Whoever waits for it.
        done: Option<Published>,
    },
    /// A key that was used before, or by the message of this number in this batch.
    Known {
        answer: Result<KeyedReceipt, PublishOnceError>,
        done: Published,
    },
    Repeat {
        number: usize,
        done: Published,
    },
    Clear {
        channel: Channel,
        done: Done<Result<bool, Unavailable>>,
    },
    Session {
        session: Box<str>,
        fence: Fence,
        record: Option<(Ends, Option<Ends>)>,
        done: Done<Result<(), RecordError>>,
    },
    Free {
        taken: Box<Taken>,
        done: Done<Result<(), RecordError>>,
    },
    Notes(Done<Result<(), Unavailable>>),
    Barrier(Done<()>),
}

/// A batch that is being made.
struct Plan {
    write: OwnedWriteBatch,
    /// The newest offset that was given in it.
    head: u64,
    /// The newest that is written with it.
    newest: u64,
    accepted: Vec<Accepted>,
    steps: Vec<Step>,
    /// What becomes of a channel's retained message: one row in one batch.
    retained: HashMap<Channel, Option<Vec<u8>>>,
    keys: HashMap<Name, (usize, [u8; 16])>,
    sessions: Rows,
    /// What becomes of notes, by their keys.
    notes: HashMap<Vec<u8>, Option<Vec<u8>>>,
    buckets: HashMap<(u32, u64), Arc<Bucket>>,
    is_urgent: bool,
    has_quiet: bool,
    messages: u64,
    bytes: u64,
}

impl Committer {
    pub(crate) fn new(shared: Arc<Shared>, disk: Arc<Disk>, ingest: Arc<dyn Ingest>) -> Self {
        let mut committer = Self {
            shared,
            ingest,
            open: None,
            epoch: disk.epoch,
            written: 0,
            safe: 0,
            unsynced_since: None,
            has_unsynced_quiet: false,
            looked_at: Instant::now(),
            failed_at: Instant::now(),
        };
        committer.take_up(disk);
        committer
    }

    pub(crate) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        // What has become too old since the last life, or is too much by other bounds.
        shared.watched(|| self.look_around());
        let (mut gather, mut wanted) = (Gather::default(), Wanted::NOTHING);
        loop {
            let taken = self.shared.queue.take(self.patience(), wanted);
            let asked = taken.items.iter().filter(|item| matches!(item, Item::Op(_))).count();
            gather.note(wanted, asked);
            shared.watched(|| {
                if !taken.items.is_empty() {
                    self.do_all(taken.items);
                }
                wanted = gather.next(asked, shared.queue.unreleased(), shared.last_commit());
                self.show_moment();
                self.sync_if_due();
                if self.looked_at.elapsed() >= LOOK_EVERY {
                    self.look_around();
                }
            });
            if taken.is_over {
                shared.moments.lock().clear();
                return shared.watched(|| self.finish());
            }
        }
    }

    fn take_up(&mut self, disk: Arc<Disk>) {
        let window_ms = self.shared.settings.idempotency_window.as_millis();
        match Keys::open(&disk, u64::try_from(window_ms).unwrap_or(u64::MAX)) {
            Ok(keys) => self.open = Some(Open { disk, keys }),
            Err(error) => self.fail("open its keys", &error),
        }
    }

    /// How long nothing is to be done if nothing comes.
    fn patience(&self) -> Duration {
        let look = LOOK_EVERY.saturating_sub(self.looked_at.elapsed());
        self.sync_due().map_or(look, |due| due.saturating_duration_since(Instant::now()).min(look))
    }

    fn sync_due(&self) -> Option<Instant> {
        let settings = &self.shared.settings;
        let all = settings.namespaces.iter().map(|space| space.durability).chain([settings.durability]);
        let interval = all.filter_map(|durability| match durability {
            Durability::Interval(interval) => Some(interval),
            _ => None,
        });
        let interval = interval.chain(self.has_unsynced_quiet.then_some(QUIET_SYNC)).min()?;
        Some(self.unsynced_since? + interval)
    }

    fn sync_if_due(&mut self) {
        let is_due = self.sync_due().is_some_and(|due| due <= Instant::now());
        let Some(open) = self.open.as_ref().filter(|_| is_due) else { return };
        (self.unsynced_since, self.has_unsynced_quiet) = (None, false);
        let synced = self.shared.synced(|| open.disk.db.persist(PersistMode::SyncData));
        match synced {
            Ok(()) => self.safe = self.written,
            Err(error) => self.fail("write to the disk", &error),
        }
    }

    fn do_all(&mut self, items: Vec<Item>) {
        let marks: Vec<u16> = items.iter().filter_map(|item| self.shared.mark_of(item)).collect();
        let early = items.iter().rev().find_map(|item| match item {
            Item::Released(accepted) => Some(accepted.offset),
            _ => None,
        });
        if self.open.is_none() {
            self.shared.order.wait_no_more(&marks);
            refuse_all(items);
        } else if let Err(error) = self.commit(items, &marks) {
            self.fail("commit", &error);
        }
        self.shared.note_stored(early.unwrap_or(0));
    }

    fn commit(&mut self, items: Vec<Item>, marks: &[u16]) -> fjall::Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let order = &self.shared.order;
        let before = match self.shared.begin_batch(&open.disk, marks.len() as u64) {
            Ok(before) => before,
            Err(error) => {
                order.wait_no_more(marks);
                return Err(error);
            }
        };
        let mut plan = Plan::new(&open.disk, before);
        let planned = plan.make(items, open, &self.shared);
        let (last, newest) = (plan.head, plan.newest);
        let written = planned.and_then(|()| {
            let (is_urgent, has_quiet) = (plan.is_urgent, plan.has_quiet);
            let (accepted, steps) = plan.commit(open, &self.shared)?;
            self.written = self.written.max(newest);
            self.shared.counters.head.fetch_max(newest, Ordering::Relaxed);
            if is_urgent {
                (self.safe, self.unsynced_since, self.has_unsynced_quiet) = (self.written, None, false);
            } else if newest > 0 {
                self.unsynced_since.get_or_insert_with(Instant::now);
                self.has_unsynced_quiet |= has_quiet;
            }
            Ok((accepted, steps))
        });
        match written {
            Ok((accepted, steps)) => {
                order.begin_release(last, marks);
                conclude(&*self.ingest, accepted, steps, &mut open.keys, &self.shared.sessions);
                order.end_release(|accepted| self.shared.release(&*self.ingest, accepted));
                Ok(())
            }
            Err(error) => {
                // Some of it may be on the disk, under these offsets.
                order.give_up(last, marks);
                Err(error)
            }
        }
    }

    /// What became of the last batch is not known. Nothing is acknowledged, and nothing taken, until the database was
    /// opened anew and has what it said it had.
    fn fail(&mut self, what: &str, error: &dyn std::fmt::Display) {
        tracing::error!(%error, what, "the store cannot write");
        *self.shared.state.write() = State::Refusing(format!("it cannot {what}: {error}"));
        self.open = None;
        self.failed_at = Instant::now();
        (self.unsynced_since, self.has_unsynced_quiet) = (None, false);
    }

    /// Between two batches everything belongs together.
    fn show_moment(&self) {
        for waiting in std::mem::take(&mut *self.shared.moments.lock()) {
            // Who gets none is told that there is none now.
            let Some(open) = &self.open else { continue };
            // Of what was released, all up to here is in it.
            match Moment::of(&open.disk, *self.shared.stored.borrow()) {
                Ok(moment) => _ = waiting.try_send(moment),
                Err(error) => tracing::error!(%error, "the store cannot be copied"),
            }
        }
    }

    fn look_around(&mut self) {
        self.looked_at = Instant::now();
        self.shared.look_for_room();
        if self.open.is_none() {
            if self.failed_at.elapsed() >= self.shared.settings.reopen_after {
                self.failed_at = Instant::now();
                self.reopen();
            }
            return;
        }
        let ended = self.open.as_ref().map_or(Ok(()), |open| {
            let shared = &self.shared;
            shared.sessions.end_old(&open.disk, |batch| shared.synced(|| batch.commit()))
        });
        if let Err(error) = ended.and_then(|()| self.drop_old()) {
            self.fail("drop what is too old", &error);
        }
    }

    fn reopen(&mut self) {
        if matches!(*self.shared.state.read(), State::Broken(_)) {
            return;
        }
        self.shared.stop_copying();
        // Readers hold it for a page at a time.
        let old = self.shared.disk.write().take();
        if let Some(old) = old {
            match Arc::try_unwrap(old) {
                Ok(old) => drop(old),
                Err(old) => {
                    *self.shared.disk.write() = Some(old);
                    return;
                }
            }
        }
        let disk = match Disk::open_again(&self.shared.settings.directory, self.shared.settings.damage()) {
            Ok((disk, head)) => {
                self.shared.order.reserve(head);
                Arc::new(disk)
            }
            Err(error) if error.may_pass() => {
                tracing::error!(%error, "the store does not open");
                return;
            }
            Err(error) => {
                *self.shared.state.write() = State::Broken(error.to_string());
                return;
            }
        };
        let newest = disk.buckets().iter().map(|bucket| bucket.held().last).max().unwrap_or(0);
        let dropped = disk.groups().iter().map(|group| group.dropped_through).max().unwrap_or(0);
        *self.shared.disk.write() = Some(Arc::clone(&disk));
        if disk.epoch != self.epoch {
            *self.shared.state.write() = State::Broken("another store lies in its place".to_owned());
            return;
        }
        if newest.max(dropped) < self.safe {
            let why = format!("it lost what it had acknowledged: {newest} is its newest, not {}", self.safe);
            *self.shared.state.write() = State::Broken(why);
            return;
        }
        // Only what can be written is open again.
        let mut batch = disk.db.batch().durability(Some(PersistMode::SyncData));
        batch.insert(&disk.meta, "head", numbers([self.shared.order.reserved()]));
        if let Err(error) = batch.commit() {
            tracing::error!(%error, "the store does not open");
            return;
        }
        // What became of the last batch shows only now.
        if let Err(error) = self.shared.sessions.load_taken(&disk) {
            tracing::error!(%error, "the store does not open");
            return;
        }
        self.take_up(disk);
        if self.open.is_some() {
            tracing::info!("the store was opened again");
            self.shared.take_again();
        }
    }

    /// Drops buckets that are too many.
    fn drop_old(&mut self) -> fjall::Result<()> {
        let Some(open) = &self.open else { return Ok(()) };
        let (settings, now_ms) = (&self.shared.settings, unix_ms());
        let mut total: u64 = open.disk.buckets().iter().map(|bucket| bucket.held().bytes).sum();
        for group in open.disk.groups() {
            let buckets: Vec<_> =
                open.disk.buckets().into_iter().filter(|bucket| bucket.group == group.number).collect();
            let held: Vec<_> = buckets.iter().map(|bucket| bucket.held()).collect();
            let goes = too_many(&held, &settings.retention_of(&group.name), now_ms);
            for (bucket, held) in buckets.iter().zip(held).take(goes) {
                open.disk.drop_bucket(bucket)?;
                total -= held.bytes;
            }
        }
        while total > settings.retention.max_bytes {
            // The oldest bucket of the largest group, as long as it has another one.
            let mut by_group = HashMap::<u32, (u64, Vec<Arc<Bucket>>)>::new();
            for bucket in open.disk.buckets() {
                let (bytes, buckets) = by_group.entry(bucket.group).or_default();
                *bytes += bucket.held().bytes;
                buckets.push(bucket);
            }
            let largest = by_group.into_values().filter(|(_, buckets)| buckets.len() > 1);
            let Some((_, buckets)) = largest.max_by_key(|(bytes, _)| *bytes) else { break };
            let Some(oldest) = buckets.first() else { break };
            total -= oldest.held().bytes;
            open.disk.drop_bucket(oldest)?;
        }
        Ok(())
    }

    /// The next life goes on right behind this one.
    fn finish(self) {
        let Some(open) = self.open else { return };
        let mut batch = open.disk.db.batch().durability(Some(PersistMode::SyncAll));
        let mut keys = open.keys;
        keys.put_late(&mut batch);
        batch.insert(&open.disk.meta, "head", numbers([self.shared.order.head()]));
        if let Err(error) = batch.commit() {
            tracing::error!(%error, "the store cannot write its end");
        }
    }
}

impl Plan {
    /// An empty one, whose offsets follow `before`.
    fn new(disk: &Disk, before: u64) -> Self {
        Self {
            write: disk.db.batch(),
            head: before,
            newest: 0,
            accepted: Vec::new(),
            steps: Vec::new(),
            retained: HashMap::new(),
            keys: HashMap::new(),
            sessions: Rows::default(),
            notes: HashMap::new(),
            buckets: HashMap::new(),
            is_urgent: false,
            has_quiet: false,
            messages: 0,
            bytes: 0,
        }
    }

    fn make(&mut self, items: Vec<Item>, open: &mut Open, shared: &Shared) -> fjall::Result<()> {
        let now_ms = unix_ms();
        for item in items {
            match item {
                Item::Op(op) => self.add(op, open, shared, now_ms)?,
                Item::Quiet(publish) => {
                    // One that is retained goes the way of those that are acknowledged.
                    self.is_urgent |= publish.is_retained() && is_urgent(&publish, shared);
                    self.has_quiet |= is_urgent(&publish, shared);
                    let accepted = Accepted::new(*publish, self.head + 1, now_ms);
                    self.take(accepted, (None, None, None), &open.disk, shared)?;
                }
                Item::Released(accepted) => {
                    self.has_quiet |= is_urgent(&accepted.publish, shared);
                    self.write(&accepted, &open.disk, shared)?;
                }
            }
        }
        Ok(())
    }

    /// Writes it; the messages to release, and what is to be done then.
    fn commit(self, open: &mut Open, shared: &Shared) -> fjall::Result<(Vec<Accepted>, Vec<Step>)> {
        let Plan {
            mut write,
            accepted,
            steps,
            retained,
            sessions,
            notes,
            buckets,
            is_urgent,
            messages,
            bytes,
            ..
        } = self;
        sessions.write(&open.disk, &mut write);
        for (channel, row) in retained {
            match row {
                Some(row) => write.insert(&open.disk.retained, channel.as_str(), row),
                None => write.remove(&open.disk.retained, channel.as_str()),
            }
        }
        for (key, row) in notes {
            match row {
                Some(row) => write.insert(&open.disk.notes, key, row),
                None => write.remove(&open.disk.notes, key),
            }
        }
        for ((group, first), bucket) in buckets {
            write.insert(&open.disk.meta, bucket_key(group, first), bucket.held().write());
        }
        if !write.is_empty() {
            open.keys.put_late(&mut write);
            if is_urgent {
                shared.synced(|| write.durability(Some(PersistMode::SyncData)).commit())?;
            } else {
                shared.timed(|| write.durability(Some(PersistMode::Buffer)).commit())?;
            }
        }
        let counters = &shared.counters;
        counters.commits.fetch_add(1, Ordering::Relaxed);
        counters.messages.fetch_add(messages, Ordering::Relaxed);
        if messages > 0 {
            counters.last_batch.store(messages, Ordering::Relaxed);
        }
        counters.written_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok((accepted, steps))
    }

    fn add(&mut self, op: Op, open: &mut Open, shared: &Shared, now_ms: u64) -> fjall::Result<()> {
        match op {
            Op::Publish { taken: Some(taken), done, .. }
                if !shared.sessions.admits(&taken.session, taken.fence) =>
            {
                done.complete(Err(PublishError::Fenced.into()));
            }
            Op::Publish { publish, key, taken, done } => {
                let accepted = Accepted::new(*publish, self.head + 1, now_ms);
                let mut row = None;
                if let Some(key) = key {
                    let disk = &open.disk;
                    let name = name_of(&disk.secret, &key, accepted.publish.channel().as_str());
                    let print = fingerprint(&disk.secret, &accepted);
                    if let Some((number, first)) = self.keys.get(&name) {
                        self.steps.push(if *first == print {
                            Step::Repeat { number: *number, done }
                        } else {
                            Step::Known { answer: Err(PublishOnceError::Conflict), done }
                        });
                        return Ok(());
                    }
                    open.keys.turn(disk, now_ms)?;
                    if let Some(known) = open.keys.find(&name, now_ms)? {
                        self.steps.push(Step::Known { answer: known.answer(print, disk.epoch), done });
                        return Ok(());
                    }
                    self.keys.insert(name, (self.accepted.len(), print));
                    let (offset, time_ms) = (accepted.offset, now_ms);
                    let new = Row { fingerprint: print, offset, time_ms, receivers: 0, has_id: true };
                    open.keys.put(&mut self.write, name, &new);
                    row = Some((name, new));
                }
                self.is_urgent |= is_urgent(&accepted.publish, shared);
                if let Some(taken) = &taken {
                    self.sessions.set_taken(taken, true);
                }
                self.take(accepted, (row, taken, Some(done)), &open.disk, shared)?;
            }
            Op::ClearRetained { channel, done } => {
                self.is_urgent |= shared.settings.durability_of(channel.namespace()) == Durability::Always;
                self.retained.insert(channel.clone(), None);
                self.steps.push(Step::Clear { channel, done });
            }
            Op::Session { session, done, fence, .. } if !shared.sessions.admits(&session, fence) => {
                done.complete(Err(RecordError::Fenced));
            }
            Op::Session { session, fence, record, done } => {
                self.is_urgent |= shared.settings.is_ever_urgent();
                self.sessions.set(&session, record.as_deref(), &shared.sessions);
                let record = record.map(|record| (record.ends, record.will));
                self.steps.push(Step::Session { session, fence, record, done });
            }
            Op::Free { taken, done } if !shared.sessions.admits(&taken.session, taken.fence) => {
                done.complete(Err(RecordError::Fenced));
            }
            Op::Free { taken, done } => {
                self.is_urgent |= shared.settings.is_ever_urgent();
                self.sessions.set_taken(&taken, false);
                self.steps.push(Step::Free { taken, done });
            }
            Op::Notes { notes, done } => {
                self.is_urgent |= shared.settings.is_ever_urgent();
                for note in notes {
                    let row = note.text.as_ref().map(|text| seal(text));
                    self.notes.insert(note_key(&note.room, &note.name), row);
                }
                self.steps.push(Step::Notes(done));
            }
            Op::Barrier(done) => self.steps.push(Step::Barrier(done)),
            // Dropped: whoever waits for it is told that nobody knows.
            _ => {}
        }
        Ok(())
    }

    /// Takes a message that follows all others.
    fn take(
        &mut self,
        mut accepted: Accepted,
        (key, taken, done): Waiting,
        disk: &Disk,
        shared: &Shared,
    ) -> fjall::Result<()> {
        accepted.prev = shared.order.place(accepted.publish.channel(), accepted.offset);
        self.head = accepted.offset;
        self.write(&accepted, disk, shared)?;
        self.steps.push(Step::Publish { number: self.accepted.len(), key, taken, done });
        self.accepted.push(accepted);
        Ok(())
    }

    fn write(&mut self, accepted: &Accepted, disk: &Disk, shared: &Shared) -> fjall::Result<()> {
        let (channel, settings) = (accepted.publish.channel(), &shared.settings);
        let group_name = settings.group_of(channel.namespace());
        let group = disk.group_in(group_name, &mut self.write);
        let bounds = settings.retention_of(group_name);
        let bucket = disk.bucket_for(group, accepted.offset, &bounds, accepted.time_ms)?;
        let record = sealed(accepted.weight(), |out| accepted.write_to(out));
        let bytes = (record.len() - SUM_BYTES) as u64;
        let hash = disk.secret.channel(channel.as_str());
        if accepted.publish.is_retained() {
            let is_kept = !accepted.publish.payload().is_empty();
            self.retained.insert(channel.clone(), is_kept.then(|| retained_row(accepted)));
        }
        self.write.insert(&bucket.keyspace, message_key(accepted.offset), record);
        self.write.insert(&bucket.keyspace, channel_key(hash, accepted.offset), []);
        bucket.add(accepted.offset, accepted.time_ms, bytes);
        self.bytes += bytes;
        self.messages += 1;
        self.newest = self.newest.max(accepted.offset);
        self.buckets.insert((bucket.group, bucket.first), bucket);
        Ok(())
    }
}

/// Whether an acknowledgement of it means that it is on the disk.
fn is_urgent(publish: &Publish, shared: &Shared) -> bool {
    shared.settings.durability_of(publish.channel().namespace()) == Durability::Always
}

/// Releases what is on the disk, in order, and answers.
fn conclude(
    ingest: &dyn Ingest,
    accepted: Vec<Accepted>,
    steps: Vec<Step>,
    keys: &mut Keys,
    sessions: &Sessions,
) {
    let mut receipts: Vec<Receipt> = Vec::with_capacity(accepted.len());
    let mut cleared = Vec::new();
    let mut rest = accepted.into_iter();
    for step in &steps {
        // What was retained before it is cleared is released before.
        if let Step::Clear { channel, .. } = step {
            let before = steps_before(&steps, step);
            receipts.extend(ingest.release(rest.by_ref().take(before - receipts.len()).collect()));
            cleared.push(ingest.clear_retained(channel));
        }
    }
    receipts.extend(ingest.release(rest.collect()));
    let mut cleared = cleared.into_iter();
    for step in steps {
        match step {
            Step::Publish { number, key, taken, done } => match receipts.get(number) {
                Some(receipt) => {
                    if let Some(taken) = taken {
                        sessions.note_taken(&taken);
                    }
                    if let Some((name, row)) = key {
                        let has_id = receipt.id.is_some();
                        keys.learn(name, Row { receivers: receipt.receivers, has_id, ..row });
                    }
                    if let Some(done) = done {
                        done.complete(Ok(KeyedReceipt::first(*receipt)));
                    }
                }
                None => drop(done),
            },
            Step::Known { answer, done } => done.complete(answer),
            Step::Repeat { number, done } => match receipts.get(number) {
                Some(receipt) => done.complete(Ok(KeyedReceipt::again(*receipt))),
                None => drop(done),
            },
            Step::Clear { done, .. } => done.complete(Ok(cleared.next().unwrap_or(false))),
            Step::Session { session, fence, record, done } => {
                sessions.note_written(&session, fence, record);
                done.complete(Ok(()));
            }
            Step::Free { taken, done } => {
                sessions.note_freed(&taken);
                done.complete(Ok(()));
            }
            Step::Notes(done) => done.complete(Ok(())),
            Step::Barrier(done) => done.complete(()),
        }
    }
}

/// Messages of a batch that stand before a step.
fn steps_before(steps: &[Step], step: &Step) -> usize {
    let before = steps.iter().take_while(|other| !std::ptr::eq(*other, step));
    before.filter(|step| matches!(step, Step::Publish { .. })).count()
}

/// Nothing of them was begun. What nobody waits for is forgotten.
fn refuse_all(items: Vec<Item>) {
    for item in items {
        let Item::Op(op) = item else { continue };
        match op {
            Op::Publish { done, .. } => {
                done.complete(Err(PublishOnceError::Publish(PublishError::from(REFUSED))));
            }
            Op::ClearRetained { done, .. } => done.complete(Err(REFUSED)),
            Op::Session { done, .. } | Op::Free { done, .. } => {
                done.complete(Err(RecordError::Unavailable(REFUSED)));
            }
            Op::Notes { done, .. } => done.complete(Err(REFUSED)),
            Op::Barrier(done) => done.complete(()),
            _ => {}
        }
    }
}
