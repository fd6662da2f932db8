//! What is to be done beside batches: what is too old goes, a store that failed is opened anew, and the end of a life.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use broker_core::unix_ms;
use fjall::PersistMode;

use super::Committer;
use crate::bucket::{Bucket, too_many};
use crate::disk::Disk;
use crate::schema::{bucket_key, numbers};
use crate::shared::State;

/// Rows that tell where messages are, in a bucket that nothing is written to, each time one looks around.
const ROWS_A_LOOK: usize = 1_024;

/// Buckets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    /// That nothing is written to any more but what comes late.
    NotWritten,
    All,
}

impl Committer {
    pub(super) fn look_around(&mut self) {
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
            return self.fail("drop what is too old", &error);
        }
        if let Err(error) = self.tell(Which::NotWritten, ROWS_A_LOOK) {
            self.fail("write what finds messages", &error);
        }
    }

    /// Writes rows that tell where messages are, so many of a bucket. Nobody waits for them, and a disk that is nearly full
    /// has no room for them.
    fn tell(&self, which: Which, most: usize) -> fjall::Result<()> {
        let Some(open) = self.open.as_ref().filter(|_| self.shared.is_ready()) else { return Ok(()) };
        let settled = *self.shared.stored.borrow();
        let buckets = open.disk.buckets();
        let mut batch = open.disk.db.batch().durability(Some(PersistMode::Buffer));
        let mut told = Vec::new();
        for (at, bucket) in buckets.iter().enumerate() {
            let is_newest = buckets.get(at + 1).is_none_or(|next| next.group != bucket.group);
            if which == Which::NotWritten && is_newest || !bucket.index().is_pending() {
                continue;
            }
            bucket.index().write(most, settled, |key, row| batch.insert(&bucket.keyspace, key, row));
            batch.insert(&open.disk.meta, bucket_key(bucket.group, bucket.first), bucket.row());
            told.push(bucket);
        }
        batch.commit()?;
        told.iter().for_each(|bucket| bucket.index().note_written());
        Ok(())
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
    pub(super) fn finish(mut self) {
        self.settle();
        if let Some(releaser) = self.releaser.take() {
            releaser.end();
        }
        // What is told of by rows is not read again at the next start: the rest of those on their way, then all others.
        for _ in 0..2 {
            if let Err(error) = self.tell(Which::All, usize::MAX) {
                tracing::error!(%error, "the store cannot write its end");
            }
        }
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
