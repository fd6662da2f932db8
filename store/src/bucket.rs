//! Messages of a while, which are dropped together.

use fjall::Keyspace;
use parking_lot::{Mutex, MutexGuard};

use crate::index::{Entry, Index};
use crate::schema::{numbers, read_numbers};
use crate::settings::Retention;

/// Named by its group and its first offset.
pub(crate) struct Bucket {
    pub(crate) group: u32,
    pub(crate) first: u64,
    pub(crate) keyspace: Keyspace,
    pub(crate) form: Form,
    held: Mutex<Held>,
    index: Mutex<Index>,
}

/// How a bucket's messages are written. What wrote those of another form than the last is gone, and nothing is added to
/// them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Each has two rows of its own.
    Single,
    /// In blocks, with a row for each channel of a batch.
    Runs,
    /// In blocks that say whose messages they have.
    Named,
}

/// What a bucket holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    /// When it was begun, and when its newest message came, by the time of day.
    pub(crate) begun_ms: u64,
    pub(crate) newest_ms: u64,
    /// Its newest offset.
    pub(crate) last: u64,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl Held {
    /// The row of a bucket; its channels' rows tell of messages up to `indexed`.
    pub(crate) fn write(&self, indexed: u64) -> Vec<u8> {
        numbers([self.begun_ms, self.newest_ms, self.last, self.messages, self.bytes, NAMED, indexed])
    }

    /// With its form, and up to where its channels' rows tell of messages.
    pub(crate) fn read(row: &[u8]) -> Option<(Self, Form, u64)> {
        let (head, form) = row.split_first_chunk::<40>()?;
        let [begun_ms, newest_ms, last, messages, bytes] = read_numbers(head)?;
        let (form, indexed) = match form.len() {
            0 => (Form::Single, 0),
            8 => read_numbers(form).filter(|form| *form == [RUNS]).map(|_| (Form::Runs, 0))?,
            _ => {
                let [form, indexed] = read_numbers(form)?;
                (form == NAMED).then_some((Form::Named, indexed))?
            }
        };
        Some((Self { begun_ms, newest_ms, last, messages, bytes }, form, indexed))
    }
}

/// The number of a form, in a bucket's row. The first had none.
const RUNS: u64 = 2;
const NAMED: u64 = 3;

/// A group is dropped in about this many steps.
const STEPS: u64 = 8;
/// As what is too old is looked for once a second, no more than these are worth it in that time: each is a keyspace, which
/// takes several writes to make.
const BEGUN_A_SECOND: usize = 16;

impl Bucket {
    pub(crate) fn new(
        group: u32,
        first: u64,
        keyspace: Keyspace,
        (held, form, indexed): (Held, Form, u64),
    ) -> Self {
        let (held, index) = (Mutex::new(held), Mutex::new(Index::through(indexed)));
        Self { group, first, keyspace, form, held, index }
    }

    /// Its row, once the batch is written that has those of its channels.
    pub(crate) fn row(&self) -> Vec<u8> {
        self.held().write(self.index.lock().written_through())
    }

    /// What finds its messages, if it is of the last form.
    pub(crate) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock()
    }

    /// What is told from memory of a channel's messages, and up to where its rows tell of them.
    pub(crate) fn find(&self, channel: [u8; 8]) -> (Vec<Entry>, u64) {
        self.index.lock().find(channel)
    }

    pub(crate) fn held(&self) -> Held {
        *self.held.lock()
    }

    /// A message is in it.
    pub(crate) fn add(&self, offset: u64, time_ms: u64, bytes: u64) {
        let mut held = self.held.lock();
        held.last = held.last.max(offset);
        held.newest_ms = held.newest_ms.max(time_ms);
        held.messages += 1;
        held.bytes += bytes;
    }

    /// Whether the next message begins another one. `others` are those of its group.
    pub(crate) fn is_full(&self, bounds: &Retention, now_ms: u64, others: impl FnOnce() -> usize) -> bool {
        // A rush into small bounds makes few and large ones; with halves of the bounds, as much is kept at least.
        self.has(bounds, STEPS, now_ms) && (self.has(bounds, 2, now_ms) || others() < BEGUN_A_SECOND)
    }

    /// Whether it was begun just now.
    pub(crate) fn is_young(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.held().begun_ms) < 1_000
    }

    /// Whether it has one of so many parts of what there may be.
    fn has(&self, bounds: &Retention, steps: u64, now_ms: u64) -> bool {
        const MINUTE_MS: u64 = 60_000;
        let held = self.held();
        let age_ms = u64::try_from(bounds.max_age.as_millis()).unwrap_or(u64::MAX);
        let step_ms = (age_ms / STEPS).clamp(MINUTE_MS.min(age_ms), 24 * 60 * MINUTE_MS);
        held.messages >= (bounds.max_messages / steps).max(1)
            || held.bytes >= bounds.max_bytes / steps
            || now_ms.saturating_sub(held.begun_ms) >= step_ms
    }
}

/// Which buckets of a group go: so many of its oldest.
pub(crate) fn too_many(buckets: &[Held], bounds: &Retention, now_ms: u64) -> usize {
    let age_ms = u64::try_from(bounds.max_age.as_millis()).unwrap_or(u64::MAX);
    let mut messages: u64 = buckets.iter().map(|held| held.messages).sum();
    let mut bytes: u64 = buckets.iter().map(|held| held.bytes).sum();
    let mut goes = 0;
    for (at, held) in buckets.iter().enumerate() {
        let is_newest = at + 1 == buckets.len();
        let is_old = now_ms.saturating_sub(held.newest_ms) > age_ms;
        let is_much = messages > bounds.max_messages || bytes > bounds.max_bytes;
        if !is_old && (!is_much || is_newest) {
            break;
        }
        messages -= held.messages;
        bytes -= held.bytes;
        goes = at + 1;
    }
    goes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn held(newest_ms: u64, messages: u64, bytes: u64) -> Held {
        Held { begun_ms: newest_ms, newest_ms, last: 1, messages, bytes }
    }

    #[test]
    fn the_oldest_go_by_age_count_and_bytes() {
        let wide = Retention { max_age: Duration::from_millis(1_000), ..Retention::default() };
        let buckets = [held(100, 10, 1_000), held(600, 10, 1_000), held(1_100, 10, 1_000)];
        assert_eq!([1_000, 1_101, 1_601, 2_101].map(|now| too_many(&buckets, &wide, now)), [0, 1, 2, 3]);
        for (bounds, expected) in [
            (Retention { max_messages: 30, ..wide }, 0),
            (Retention { max_messages: 29, ..wide }, 1),
            (Retention { max_messages: 10, ..wide }, 2),
            (Retention { max_bytes: 2_000, ..wide }, 1),
            (Retention { max_bytes: 0, ..wide }, 2),
        ] {
            assert_eq!(too_many(&buckets, &bounds, 1_000), expected, "{bounds:?}");
        }
        assert_eq!(too_many(&[], &wide, 1_000), 0);
    }

    #[test]
    fn what_a_bucket_holds_reads_back() {
        let held = held(5, 6, 7);
        let row = held.write(9);
        assert_eq!(Held::read(&row), Some((held, Form::Named, 9)));
        assert_eq!(Held::read(&row[..40]), Some((held, Form::Single, 0)), "as schema 1 has it");
        let runs = [&row[..40], &numbers([RUNS])].concat();
        assert_eq!(Held::read(&runs), Some((held, Form::Runs, 0)), "as schema 2 has it");
        for damaged in [&b"short"[..], &row[..47], &row[..48], &row[..55], &[&runs[..], &[0; 8]].concat()] {
            assert_eq!(Held::read(damaged), None);
        }
    }
}
