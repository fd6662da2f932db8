//! Idempotency keys: two generations, of which the older is dropped whole.

use std::collections::HashMap;

use broker_core::{Accepted, KeptKey, KeyedReceipt, MessageId, PublishOnceError, Receipt};
use fjall::{Keyspace, OwnedWriteBatch, PersistMode};

use crate::disk::{Disk, options};
use crate::schema::{Secret, generation_key, generation_name, numbers, offset_of, read_numbers};

/// Keys of one generation. Beyond them the generation ends early, so that what they take is bounded.
const MAX_KEYS: u64 = 5_000_000;

/// What a publish is known by: user, channel and key.
pub(crate) type Name = [u8; 16];

/// What is kept for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    /// Everything that makes the message.
    pub(crate) fingerprint: [u8; 16],
    pub(crate) offset: u64,
    pub(crate) time_ms: u64,
    /// Known once it is released: written with a later batch.
    pub(crate) receivers: u64,
    /// Whether the message has an id.
    pub(crate) has_id: bool,
}

impl Row {
    fn write(&self) -> Vec<u8> {
        let rest = numbers([self.offset, self.time_ms, self.receivers, u64::from(self.has_id)]);
        [&self.fingerprint[..], &rest].concat()
    }

    fn read(row: &[u8]) -> Option<Self> {
        let (fingerprint, rest) = row.split_first_chunk()?;
        let [offset, time_ms, receivers, has_id] = read_numbers(rest)?;
        Some(Self { fingerprint: *fingerprint, offset, time_ms, receivers, has_id: has_id == 1 })
    }

    /// What somebody is answered who publishes again under the key.
    pub(crate) fn answer(&self, fingerprint: [u8; 16], epoch: u64) -> Result<KeyedReceipt, PublishOnceError> {
        if self.fingerprint != fingerprint {
            return Err(PublishOnceError::Conflict);
        }
        let id = self.has_id.then(|| MessageId::new(epoch, self.offset));
        Ok(KeyedReceipt::again(Receipt::new(id, self.time_ms, self.receivers)))
    }
}

pub(crate) fn name_of(secret: &Secret, key: &KeptKey, channel: &str) -> Name {
    secret.hash(&[b"key", key.user.as_bytes(), channel.as_bytes(), key.text.as_bytes()])
}

/// Of everything that makes the message, and not of when it came.
pub(crate) fn fingerprint(secret: &Secret, accepted: &Accepted) -> [u8; 16] {
    let mut record = Vec::new();
    let mut timeless = accepted.clone();
    (timeless.time_ms, timeless.prev) = (0, 0);
    timeless.write_to(&mut record);
    secret.hash(&[b"message", &record])
}

pub(crate) struct Keys {
    /// The newest, and the one before.
    generations: Vec<Generation>,
    /// What is to be written with the next batch.
    late: HashMap<Name, Row>,
    window_ms: u64,
}

struct Generation {
    number: u64,
    begun_ms: u64,
    keys: u64,
    keyspace: Keyspace,
}

impl Keys {
    pub(crate) fn open(disk: &Disk, window_ms: u64) -> fjall::Result<Self> {
        let mut generations = Vec::new();
        for row in disk.meta.prefix("k") {
            let (key, value) = row.into_inner()?;
            let (Some(number), Some([begun_ms])) = (offset_of(&key), read_numbers(&value)) else { continue };
            let keyspace = disk.db.keyspace(&generation_name(number), options)?;
            generations.push(Generation { number, begun_ms, keys: 0, keyspace });
        }
        generations.reverse();
        Ok(Self { generations, late: HashMap::new(), window_ms })
    }

    /// What is known under a name.
    pub(crate) fn find(&self, name: &Name, now_ms: u64) -> fjall::Result<Option<Row>> {
        let mut found = self.late.get(name).copied();
        for generation in &self.generations {
            if found.is_none() {
                found = generation.keyspace.get(name)?.and_then(|row| Row::read(&row));
            }
        }
        Ok(found.filter(|row| now_ms.saturating_sub(row.time_ms) < self.window_ms))
    }

    /// Sees to it that there is a generation to write to.
    pub(crate) fn turn(&mut self, disk: &Disk, now_ms: u64) -> fjall::Result<()> {
        let newest = self.generations.first();
        let is_current = newest.is_some_and(|newest| {
            now_ms.saturating_sub(newest.begun_ms) < self.window_ms && newest.keys < MAX_KEYS
        });
        if is_current {
            return Ok(());
        }
        let number = newest.map_or(0, |newest| newest.number + 1);
        let keyspace = disk.db.keyspace(&generation_name(number), options)?;
        let mut batch = disk.db.batch().durability(Some(PersistMode::Buffer));
        batch.insert(&disk.meta, generation_key(number), numbers([now_ms]));
        let old = self.generations.split_off(self.generations.len().min(1));
        for generation in &old {
            batch.remove(&disk.meta, generation_key(generation.number));
        }
        batch.commit()?;
        for generation in old {
            disk.db.delete_keyspace(generation.keyspace)?;
        }
        self.generations.insert(0, Generation { number, begun_ms: now_ms, keys: 0, keyspace });
        Ok(())
    }

    pub(crate) fn put(&mut self, batch: &mut OwnedWriteBatch, name: Name, row: &Row) {
        // One row for a name in one batch.
        self.late.remove(&name);
        if let Some(newest) = self.generations.first_mut() {
            newest.keys += 1;
            batch.insert(&newest.keyspace, name, row.write());
        }
    }

    /// What was learnt since its batch: to be written with the next one.
    pub(crate) fn learn(&mut self, name: Name, row: Row) {
        self.late.insert(name, row);
    }

    pub(crate) fn put_late(&mut self, batch: &mut OwnedWriteBatch) {
        if let Some(newest) = self.generations.first() {
            for (name, row) in self.late.drain() {
                batch.insert(&newest.keyspace, name, row.write());
            }
        }
    }
}
