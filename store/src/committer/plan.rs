//! A batch while it is made of operations.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use broker_core::{Accepted, Channel, Op, PublishError, PublishOnceError, RecordError, unix_ms};
use fjall::{OwnedWriteBatch, PersistMode};

use super::Open;
use super::answers::{Step, Waiting};
use super::channels::About;
use crate::block::{Packing, Put};
use crate::bucket::Bucket;
use crate::disk::{Disk, retained_row};
use crate::keys::{Name, Row, fingerprint, name_of};
use crate::queue::Item;
use crate::schema::{bucket_key, note_key, seal};
use crate::sessions::Rows;
use crate::settings::Durability;
use crate::shared::Shared;

/// Rows that tell where messages are, in a batch, where it is time to write some: so many, or two for each message.
const MIN_ROWS: usize = 64;

/// A batch that is being made.
pub(super) struct Plan {
    write: OwnedWriteBatch,
    /// The newest offset that was given in it.
    pub(super) head: u64,
    /// The newest that is written with it.
    pub(super) newest: u64,
    accepted: Vec<Accepted>,
    steps: Vec<Step>,
    /// What becomes of a channel's retained message: one row in one batch.
    retained: HashMap<Channel, Option<Vec<u8>>>,
    keys: HashMap<Name, (usize, [u8; 16])>,
    sessions: Rows,
    /// What becomes of notes, by their keys.
    notes: HashMap<Vec<u8>, Option<Vec<u8>>>,
    packing: Packing,
    /// Those that it writes to, by the numbers that they have in it.
    buckets: Vec<Arc<Bucket>>,
    pub(super) is_urgent: bool,
    pub(super) has_quiet: bool,
    messages: u64,
    bytes: u64,
}

impl Plan {
    /// An empty one, whose offsets follow `before`.
    pub(super) fn new(disk: &Disk, before: u64) -> Self {
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
            packing: Packing::default(),
            buckets: Vec::new(),
            is_urgent: false,
            has_quiet: false,
            messages: 0,
            bytes: 0,
        }
    }

    pub(super) fn make(&mut self, items: Vec<Item>, open: &mut Open, shared: &Shared) -> fjall::Result<()> {
        let now_ms = unix_ms();
        for item in items {
            match item {
                Item::Op(op) => self.add(op, open, shared, now_ms)?,
                Item::Quiet(publish) => {
                    let about = open.about(publish.channel(), shared, &mut self.write);
                    // One that is retained goes the way of those that are acknowledged.
                    self.is_urgent |= publish.is_retained() && about.is_urgent;
                    self.has_quiet |= about.is_urgent;
                    let accepted = Accepted::new(*publish, self.head + 1, now_ms);
                    self.take(accepted, &about, (None, None, None), &open.disk, shared)?;
                }
                Item::Released(accepted) => {
                    let about = open.about(accepted.publish.channel(), shared, &mut self.write);
                    self.has_quiet |= about.is_urgent;
                    self.write(&accepted, &about, &open.disk)?;
                }
            }
        }
        Ok(())
    }

    /// About how many rows it has, and what is in them.
    pub(super) fn takes(&self) -> (u64, u64) {
        (self.messages + self.steps.len() as u64, self.bytes)
    }

    /// Writes it; the messages to release, and what is to be done then.
    pub(super) fn commit(
        self,
        open: &mut Open,
        shared: &Shared,
    ) -> fjall::Result<(Vec<Accepted>, Vec<Step>)> {
        let Plan {
            mut write,
            accepted,
            steps,
            retained,
            sessions,
            notes,
            packing,
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
        packing.write(|bucket, put| match (buckets.get(bucket), put) {
            (Some(bucket), Put::Message { channel, offset, first, bytes }) => {
                bucket.index().add(channel, (offset, first), bytes);
            }
            (Some(bucket), Put::Block { key, row }) => write.insert(&bucket.keyspace, key, row),
            (None, _) => {}
        });
        let settled = *shared.stored.borrow();
        for bucket in &buckets {
            if bucket.index().is_long() {
                let most = MIN_ROWS.max(2 * accepted.len());
                bucket.index().write(most, settled, |key, row| write.insert(&bucket.keyspace, key, row));
            }
            write.insert(&open.disk.meta, bucket_key(bucket.group, bucket.first), bucket.row());
        }
        if !write.is_empty() {
            open.keys.put_late(&mut write);
            if is_urgent {
                shared.synced(|| write.durability(Some(PersistMode::SyncData)).commit())?;
            } else {
                shared.timed(|| write.durability(Some(PersistMode::Buffer)).commit())?;
            }
        }
        buckets.iter().for_each(|bucket| bucket.index().note_written());
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
                let about = open.about(accepted.publish.channel(), shared, &mut self.write);
                self.is_urgent |= about.is_urgent;
                if let Some(taken) = &taken {
                    self.sessions.set_taken(taken, true);
                }
                self.take(accepted, &about, (row, taken, Some(done)), &open.disk, shared)?;
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
        about: &About,
        (key, taken, done): Waiting,
        disk: &Disk,
        shared: &Shared,
    ) -> fjall::Result<()> {
        accepted.prev = shared.order.place(accepted.publish.channel(), accepted.offset);
        self.head = accepted.offset;
        self.write(&accepted, about, disk)?;
        self.steps.push(Step::Publish { number: self.accepted.len(), key, taken, done });
        self.accepted.push(accepted);
        Ok(())
    }

    fn write(&mut self, accepted: &Accepted, about: &About, disk: &Disk) -> fjall::Result<()> {
        let bucket = disk.bucket_for(about.group, accepted.offset, &about.bounds, accepted.time_ms)?;
        if accepted.publish.is_retained() {
            let is_kept = !accepted.publish.payload().is_empty();
            let row = is_kept.then(|| retained_row(accepted));
            self.retained.insert(accepted.publish.channel().clone(), row);
        }
        // Few are written to at once, and mostly the same as before.
        let known = self.buckets.iter().rposition(|known| Arc::ptr_eq(known, &bucket));
        let number = known.unwrap_or(self.buckets.len());
        let bytes = self.packing.add(number, about.hash, accepted);
        bucket.add(accepted.offset, accepted.time_ms, bytes);
        if known.is_none() {
            self.buckets.push(bucket);
        }
        self.bytes += bytes;
        self.messages += 1;
        self.newest = self.newest.max(accepted.offset);
        Ok(())
    }
}
