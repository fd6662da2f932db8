//! The database, and what lies where in it.

use std::collections::HashSet;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;

use broker_core::{Accepted, unix_ms};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use parking_lot::{Mutex, RwLock};

use crate::bucket::{Bucket, Form, Held};
use crate::error::OpenError;
use crate::journal::{Damage, mend};
use crate::schema::{
    META, NOTES, RETAINED, SCHEMA, SESSIONS, Secret, TAKEN, bucket_key, bucket_name, generation_name,
    group_key, numbers, offset_of, read_numbers, sealed, unseal,
};
use crate::settings::Retention;
use crate::walk::recall;

pub(crate) struct Disk {
    pub(crate) db: Database,
    pub(crate) meta: Keyspace,
    pub(crate) retained: Keyspace,
    pub(crate) sessions: Keyspace,
    pub(crate) taken: Keyspace,
    pub(crate) notes: Keyspace,
    pub(crate) epoch: u64,
    pub(crate) secret: Secret,
    /// In the order of groups and offsets.
    buckets: RwLock<Vec<Arc<Bucket>>>,
    groups: Mutex<Vec<Group>>,
    /// Offsets between two of these were given by a life of this store that a backup does not know.
    pub(crate) lost: Vec<(u64, u64)>,
}

/// Messages that are dropped by the same bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) number: u32,
    /// The newest offset that is gone.
    pub(crate) dropped_through: u64,
}

/// What journals may take together. It bounds how long opening takes after a crash; the database takes no less.
const MAX_JOURNAL_BYTES: u64 = 128 << 20;
const CACHE_BYTES: u64 = 32 << 20;
/// What a table takes in memory before it is written to a file. Whoever commits meanwhile waits for tens of milliseconds, so
/// buckets, which get all messages, have more.
const MEMTABLE_BYTES: u64 = 16 << 20;
const BUCKET_MEMTABLE_BYTES: u64 = 64 << 20;

/// Where the database lies in a store's directory, and where while a backup is being made of it.
pub(crate) const DATABASE: &str = "db";
pub(crate) const UNFINISHED: &str = "db.unfinished";

/// Opens a database, or makes one, which its owner alone may read: it has secrets of those that the broker calls.
pub(crate) fn database(folder: &Path) -> fjall::Result<Database> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    Database::builder(folder)
        .max_journaling_size(MAX_JOURNAL_BYTES)
        // What is written there is soon written again, compressed; whoever waits for it waits for the compression too.
        .journal_compression(CompressionType::None)
        .cache_size(CACHE_BYTES)
        // Of two the first leaves compactions to the second, and goes round and round until that has time for them.
        .worker_threads(1)
        .open()
}

pub(crate) fn options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES)
}

fn bucket_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default().max_memtable_size(BUCKET_MEMTABLE_BYTES)
}

fn damaged(what: impl Into<String>) -> OpenError {
    OpenError::Damaged(what.into())
}

impl Disk {
    /// Opens what is there, or begins anew. With it the newest offset that may have been given.
    pub(crate) fn open(directory: &Path, damage: Damage) -> Result<(Self, u64), OpenError> {
        // To begin anew beside it would look as if the backup were empty.
        if directory.join(UNFINISHED).exists() {
            return Err(OpenError::Unfinished(directory.to_owned()));
        }
        mend(&directory.join(DATABASE), damage)?;
        Self::open_database(&directory.join(DATABASE))
    }

    /// As [`open`](Self::open), of one that was there.
    pub(crate) fn open_again(directory: &Path, damage: Damage) -> Result<(Self, u64), OpenError> {
        // Another file system may lie there by now, or none: that is not begun anew.
        if !directory.join(DATABASE).exists() {
            return Err(OpenError::Missing(directory.to_owned()));
        }
        Self::open(directory, damage)
    }

    /// As [`open`](Self::open), of the folder that the database lies in.
    pub(crate) fn open_database(folder: &Path) -> Result<(Self, u64), OpenError> {
        let db = database(folder)?;
        let meta = db.keyspace(META, options)?;
        let Some(schema) = meta.get("schema")? else { return Self::begin(db, meta) };
        let found = <[u8; 4]>::try_from(&*schema).map(u32::from_be_bytes);
        let found = found.map_err(|_| damaged("its schema is no number"))?;
        if found > SCHEMA {
            return Err(OpenError::NewerSchema { found, known: SCHEMA });
        }
        let number = |name: &str| -> Result<u64, OpenError> {
            let row = meta.get(name)?.ok_or_else(|| damaged(format!("`{name}` is missing")))?;
            read_numbers(&row).map(|[number]| number).ok_or_else(|| damaged(format!("`{name}` is no number")))
        };
        let (epoch, head) = (number("epoch")?, number("head")?);
        let secret = meta.get("secret")?.and_then(|row| <[u8; 32]>::try_from(&*row).ok());
        let secret = Secret(secret.ok_or_else(|| damaged("`secret` is missing"))?);
        let mut groups = Vec::new();
        for row in meta.prefix("g") {
            let (key, value) = row.into_inner()?;
            let name = String::from_utf8(key.get(1..).unwrap_or_default().to_vec());
            let name = name.map_err(|_| damaged("a group's name is no text"))?;
            let [number, dropped_through] =
                read_numbers(&value).ok_or_else(|| damaged(format!("group {name}")))?;
            let number = u32::try_from(number).map_err(|_| damaged(format!("group {name}")))?;
            groups.push(Group { name, number, dropped_through });
        }
        let mut buckets = Vec::new();
        let mut known = HashSet::new();
        for row in meta.prefix("b") {
            let (key, value) = row.into_inner()?;
            let group = key.get(1..5).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
            let (Some(group), Some(first), Some(held)) = (group, offset_of(&key), Held::read(&value)) else {
                return Err(damaged("a bucket's row"));
            };
            let name = bucket_name(group, first);
            let keyspace = db.keyspace(&name, bucket_options)?;
            known.insert(name);
            let bucket = Bucket::new(group, first, keyspace, held);
            recall(&bucket)?;
            buckets.push(Arc::new(bucket));
        }
        for row in meta.prefix("k") {
            let number = offset_of(&row.key()?).ok_or_else(|| damaged("a generation's row"))?;
            known.insert(generation_name(number));
        }
        let mut lost = Vec::new();
        for row in meta.prefix("l") {
            let (key, value) = row.into_inner()?;
            let (Some(from), Some([to])) = (offset_of(&key), read_numbers(&value)) else {
                return Err(damaged("what a backup does not know"));
            };
            lost.push((from, to));
        }
        // What was dropped, and a crash left.
        for name in db.list_keyspace_names() {
            if (name.starts_with("h.") || name.starts_with("keys.")) && !known.contains(&*name) {
                db.delete_keyspace(db.keyspace(&name, options)?)?;
            }
        }
        let retained = db.keyspace(RETAINED, options)?;
        let sessions = db.keyspace(SESSIONS, options)?;
        let taken = db.keyspace(TAKEN, options)?;
        let notes = db.keyspace(NOTES, options)?;
        let (buckets, groups) = (RwLock::new(buckets), Mutex::new(groups));
        Ok((Self { db, meta, retained, sessions, taken, notes, epoch, secret, buckets, groups, lost }, head))
    }

    fn begin(db: Database, meta: Keyspace) -> Result<(Self, u64), OpenError> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| damaged(format!("no random numbers: {error}")))?;
        let epoch = unix_ms();
        let retained = db.keyspace(RETAINED, options)?;
        let sessions = db.keyspace(SESSIONS, options)?;
        let taken = db.keyspace(TAKEN, options)?;
        let notes = db.keyspace(NOTES, options)?;
        let mut batch = db.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(&meta, "schema", SCHEMA.to_be_bytes());
        batch.insert(&meta, "epoch", numbers([epoch]));
        batch.insert(&meta, "head", numbers([0]));
        batch.insert(&meta, "secret", secret);
        batch.commit()?;
        // No broker that starts now has the same epoch.
        while unix_ms() <= epoch {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let (secret, buckets, groups) = (Secret(secret), RwLock::default(), Mutex::default());
        let lost = Vec::new();
        Ok((Self { db, meta, retained, sessions, taken, notes, epoch, secret, buckets, groups, lost }, 0))
    }

    /// To be called before anything is written: an older version, which would not find it, refuses it from here on.
    pub(crate) fn raise_schema(&self) -> fjall::Result<()> {
        if self.meta.get("schema")?.is_some_and(|schema| *schema == SCHEMA.to_be_bytes()) {
            return Ok(());
        }
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(&self.meta, "schema", SCHEMA.to_be_bytes());
        batch.commit()
    }

    pub(crate) fn buckets(&self) -> Vec<Arc<Bucket>> {
        self.buckets.read().clone()
    }

    pub(crate) fn groups(&self) -> Vec<Group> {
        self.groups.lock().clone()
    }

    /// The number of the group of a name; made in `batch` if it is new.
    pub(crate) fn group_in(&self, name: &str, batch: &mut fjall::OwnedWriteBatch) -> u32 {
        let mut groups = self.groups.lock();
        if let Some(group) = groups.iter().find(|group| group.name == name) {
            return group.number;
        }
        let number = groups.iter().map(|group| group.number + 1).max().unwrap_or(0);
        batch.insert(&self.meta, group_key(name), numbers([u64::from(number), 0]));
        groups.push(Group { name: name.to_owned(), number, dropped_through: 0 });
        number
    }

    /// The bucket that a message goes to: offsets of one all follow those of the one before, and messages that were
    /// released before they are written come after later ones.
    pub(crate) fn bucket_for(
        &self,
        group: u32,
        offset: u64,
        bounds: &Retention,
        now_ms: u64,
    ) -> fjall::Result<Arc<Bucket>> {
        let (found, is_newest) = {
            let buckets = self.buckets.read();
            let of_group = |at: usize| buckets.get(at).filter(|bucket| bucket.group == group);
            let behind = buckets.partition_point(|bucket| (bucket.group, bucket.first) <= (group, offset));
            (behind.checked_sub(1).and_then(of_group).cloned(), of_group(behind).is_none())
        };
        match found {
            Some(bucket)
                if bucket.form == Form::Named
                    && (!is_newest
                        || bucket.held().last > offset
                        || !bucket.is_full(bounds, now_ms, || self.begun_lately(group, now_ms))) =>
            {
                Ok(bucket)
            }
            _ => self.begin_bucket(group, offset, now_ms),
        }
    }

    /// How many of a group's buckets were begun within a second.
    pub(crate) fn begun_lately(&self, group: u32, now_ms: u64) -> usize {
        let buckets = self.buckets.read();
        buckets.iter().filter(|bucket| bucket.group == group && bucket.is_young(now_ms)).count()
    }

    /// Begins another bucket. Its row comes with its first batch; without it, it is taken away at the next start.
    fn begin_bucket(&self, group: u32, first: u64, now_ms: u64) -> fjall::Result<Arc<Bucket>> {
        let keyspace = self.db.keyspace(&bucket_name(group, first), bucket_options)?;
        let held = Held { begun_ms: now_ms, newest_ms: now_ms, last: first, messages: 0, bytes: 0 };
        let bucket = Arc::new(Bucket::new(group, first, keyspace, (held, Form::Named, 0)));
        let mut buckets = self.buckets.write();
        buckets.push(Arc::clone(&bucket));
        buckets.sort_by_key(|bucket| (bucket.group, bucket.first));
        Ok(bucket)
    }

    /// Drops a bucket whole.
    pub(crate) fn drop_bucket(&self, bucket: &Bucket) -> fjall::Result<()> {
        let dropped_through = bucket.held().last;
        let mut batch = self.db.batch().durability(Some(PersistMode::Buffer));
        batch.remove(&self.meta, bucket_key(bucket.group, bucket.first));
        {
            let mut groups = self.groups.lock();
            if let Some(group) = groups.iter_mut().find(|group| group.number == bucket.group) {
                group.dropped_through = group.dropped_through.max(dropped_through);
                let row = numbers([u64::from(group.number), group.dropped_through]);
                batch.insert(&self.meta, group_key(&group.name), row);
            }
        }
        batch.commit()?;
        self.buckets.write().retain(|known| (known.group, known.first) != (bucket.group, bucket.first));
        self.db.delete_keyspace(bucket.keyspace.clone())
    }

    /// All retained messages; those whose time is over are taken away.
    pub(crate) fn load_retained(&self) -> Result<Vec<Accepted>, OpenError> {
        let mut all = Vec::new();
        let mut over = Vec::new();
        for row in self.retained.iter() {
            let (key, value) = row.into_inner()?;
            match read_retained(&value) {
                Some(Some(accepted)) => all.push(accepted),
                Some(None) => over.push(key),
                None => {
                    return Err(damaged(format!("retained message of {}", String::from_utf8_lossy(&key))));
                }
            }
        }
        let mut batch = self.db.batch();
        for key in over {
            batch.remove(&self.retained, key);
        }
        batch.commit()?;
        Ok(all)
    }
}

pub(crate) fn retained_row(accepted: &Accepted) -> Vec<u8> {
    sealed(8 + accepted.weight(), |out| {
        out.extend_from_slice(&accepted.offset.to_be_bytes());
        accepted.write_to(out);
    })
}

/// `None`: damaged; inner `None`: its time is over.
pub(crate) fn read_retained(row: &[u8]) -> Option<Option<Accepted>> {
    let (offset, record) = unseal(row)?.split_first_chunk()?;
    Accepted::read_from(record, u64::from_be_bytes(*offset)).ok()
}
