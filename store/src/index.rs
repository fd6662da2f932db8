//! What finds a channel's messages in a bucket. Blocks say themselves whose each of their messages is, so that nothing else
//! has to be written with them. What was written lately is told from memory, where it is again after a crash as the blocks
//! are read. By and by rows are written that tell of many batches at once, each of a channel:
//!
//! ```text
//! key: channel, offset of its first message      value: (offset, block)...
//! ```
//!
//! An offset is counted from the first, a block's from its message. Rows of one channel follow each other: they are written
//! of what nothing comes before any more, and the bucket's own row says up to where there are any.

use ahash::AHashMap;
use smallvec::SmallVec;

use crate::schema::index_key;

/// Of a message in a row.
const ENTRY_BYTES: usize = 6;
/// Messages in a row.
const ROW_ENTRIES: usize = 1_024;
/// Rows are begun once so many messages, or so many bytes of them, are told from memory: a crash has them read again.
const MANY: usize = 8_192;
const MANY_BYTES: u64 = 8 << 20;

/// Where a message is: its offset, and the one that its block begins with.
pub(crate) type Entry = (u64, u64);

/// Of each channel, in the order of offsets.
type Entries = AHashMap<[u8; 8], SmallVec<[Entry; 1]>>;

#[derive(Default)]
pub(crate) struct Index {
    /// Rows on the disk tell of all up to here, and of nothing behind it that counts.
    through: u64,
    /// Of which rows are being written.
    merge: Option<Merge>,
    fresh: Entries,
    messages: usize,
    bytes: u64,
}

struct Merge {
    through: u64,
    entries: Entries,
    /// Channels whose rows are not written yet.
    left: Vec<[u8; 8]>,
}

impl Index {
    /// What the rows of a bucket tell already.
    pub(crate) fn through(through: u64) -> Self {
        Self { through, ..Self::default() }
    }

    /// Up to where rows tell of messages, once the batch is written that has those of now.
    pub(crate) fn written_through(&self) -> u64 {
        self.merge.as_ref().filter(|merge| merge.left.is_empty()).map_or(self.through, |merge| merge.through)
    }

    /// That batch was written.
    pub(crate) fn note_written(&mut self) {
        if let Some(merge) = self.merge.take_if(|merge| merge.left.is_empty()) {
            self.through = merge.through;
        }
    }

    /// Notes a message of so many bytes that no row tells of.
    pub(crate) fn add(&mut self, channel: [u8; 8], entry: Entry, bytes: u64) {
        let entries = self.fresh.entry(channel).or_default();
        // What was released before it is written comes after later ones.
        let at = match entries.last() {
            Some(last) if *last > entry => entries.partition_point(|known| *known < entry),
            _ => entries.len(),
        };
        entries.insert(at, entry);
        self.messages += 1;
        self.bytes += bytes;
    }

    /// Whether it is time to write rows.
    pub(crate) fn is_long(&self) -> bool {
        self.merge.is_some() || self.messages >= MANY || self.bytes >= MANY_BYTES
    }

    /// Whether messages are told from memory.
    pub(crate) fn is_pending(&self) -> bool {
        self.merge.is_some() || self.messages > 0
    }

    /// Gives away about as many rows as `most`. All up to `settled` is there.
    pub(crate) fn write(&mut self, most: usize, settled: u64, mut put: impl FnMut([u8; 17], Vec<u8>)) {
        let merge = match &mut self.merge {
            Some(merge) => merge,
            None => {
                let entries = self.take(settled);
                if entries.is_empty() {
                    return;
                }
                let left = entries.keys().copied().collect();
                self.merge.insert(Merge { through: settled, entries, left })
            }
        };
        let mut rows = 0;
        while rows < most
            && let Some(channel) = merge.left.pop()
        {
            let entries = merge.entries.get(&channel).map(SmallVec::as_slice).unwrap_or_default();
            for (first, row) in rows_of(entries) {
                put(index_key(channel, first), row);
                rows += 1;
            }
        }
    }

    /// Takes what is fresh up to an offset.
    fn take(&mut self, settled: u64) -> Entries {
        let mut taken = Entries::default();
        self.fresh.retain(|channel, entries| {
            let count = entries.partition_point(|(offset, _)| *offset <= settled);
            if count > 0 {
                taken.insert(*channel, entries.drain(..count).collect());
            }
            !entries.is_empty()
        });
        self.messages = self.fresh.values().map(SmallVec::len).sum();
        self.bytes = 0;
        taken
    }

    /// What is told from memory of a channel; up to where rows tell of it.
    pub(crate) fn find(&self, channel: [u8; 8]) -> (Vec<Entry>, u64) {
        let merged = self.merge.as_ref().and_then(|merge| merge.entries.get(&channel));
        let entries = merged.into_iter().chain(self.fresh.get(&channel)).flatten().copied();
        (entries.collect(), self.through)
    }
}

/// The rows of a channel's messages, and what each begins with.
fn rows_of(entries: &[Entry]) -> impl Iterator<Item = (u64, Vec<u8>)> {
    let mut rest = entries;
    std::iter::from_fn(move || {
        let (first, _) = *rest.first()?;
        let fits = |(offset, _): &&Entry| u32::try_from(offset - first).is_ok();
        let count = rest.iter().take(ROW_ENTRIES).take_while(fits).count();
        let (of_row, behind) = rest.split_at(count);
        rest = behind;
        let mut row = Vec::with_capacity(count * ENTRY_BYTES);
        for (offset, block) in of_row {
            row.extend_from_slice(&((offset - first) as u32).to_be_bytes());
            row.extend_from_slice(&((offset - block) as u16).to_be_bytes());
        }
        Some((first, row))
    })
}

/// What a row says of a channel's messages, the first of which has that offset.
pub(crate) fn read_row(first: u64, row: &[u8]) -> impl DoubleEndedIterator<Item = Entry> {
    let (entries, _) = row.as_chunks::<ENTRY_BYTES>();
    entries.iter().filter_map(move |[o0, o1, o2, o3, b0, b1]| {
        let offset = first.checked_add(u64::from(u32::from_be_bytes([*o0, *o1, *o2, *o3])))?;
        Some((offset, offset.checked_sub(u64::from(u16::from_be_bytes([*b0, *b1])))?))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    type Rows = BTreeMap<[u8; 17], Vec<u8>>;

    fn write(index: &mut Index, most: usize, settled: u64, rows: &mut Rows) {
        index.write(most, settled, |key, row| assert!(rows.insert(key, row).is_none(), "one row, once"));
    }

    fn told(rows: &Rows, channel: u8) -> Vec<Entry> {
        let of_channel = rows.iter().filter(|(key, _)| key[1..9] == [channel; 8]);
        let first = |key: &[u8; 17]| u64::from_be_bytes(key[9..].try_into().unwrap());
        of_channel.flat_map(|(key, row)| read_row(first(key), row).collect::<Vec<_>>()).collect()
    }

    #[test]
    fn all_is_told_once_by_memory_or_by_rows_whenever_one_looks() {
        let (mut index, mut rows) = (Index::through(9), Rows::new());
        for offset in 10..40_u64 {
            index.add([(offset % 3) as u8; 8], (offset, offset / 10 * 10), 1);
            if offset % 7 == 0 {
                write(&mut index, 1, offset - 2, &mut rows);
                index.note_written();
            }
            for channel in 0..3 {
                let (fresh, through) = index.find([channel; 8]);
                let on_disk = told(&rows, channel).into_iter().filter(|(offset, _)| *offset <= through);
                let all: Vec<_> = on_disk.chain(fresh).collect();
                let expected = (10..=offset).filter(|offset| offset % 3 == u64::from(channel));
                assert_eq!(all, expected.map(|offset| (offset, offset / 10 * 10)).collect::<Vec<_>>());
            }
        }
        assert!(index.through > 9 && index.is_pending());
        while index.is_pending() {
            write(&mut index, 9, 100, &mut rows);
            assert_eq!(index.written_through(), if index.messages > 0 { index.through.max(33) } else { 100 });
            index.note_written();
        }
        assert_eq!((index.find([0; 8]), told(&rows, 0).len()), ((vec![], 100), 10));
    }

    #[test]
    fn a_batch_that_was_not_written_leaves_all_in_memory() {
        let (mut index, mut rows) = (Index::default(), Rows::new());
        index.add([1; 8], (5, 5), 1);
        write(&mut index, 9, 5, &mut rows);
        assert_eq!((index.find([1; 8]), index.written_through()), ((vec![(5, 5)], 0), 5));
        index.note_written();
        assert_eq!(index.find([1; 8]), (vec![], 5));
    }

    #[test]
    fn what_comes_late_lies_before_what_came_early() {
        let mut index = Index::default();
        for offset in [8, 9, 3, 5, 4, 10] {
            index.add([1; 8], (offset, offset), 1);
        }
        let offsets: Vec<_> = index.find([1; 8]).0.into_iter().map(|(offset, _)| offset).collect();
        assert_eq!(offsets, [3, 4, 5, 8, 9, 10]);
    }

    #[test]
    fn rows_are_bounded_and_offsets_may_be_far_apart() {
        let mut entries: Vec<Entry> = (0..2_500).map(|n| (n * 3, n * 3 - n % 2)).collect();
        entries.push((1 << 40, (1 << 40) - u64::from(u16::MAX)));
        let rows: Vec<_> = rows_of(&entries).collect();
        assert_eq!(rows.iter().map(|(first, _)| *first).collect::<Vec<_>>(), [0, 3_072, 6_144, 1 << 40]);
        let read: Vec<_> = rows.iter().flat_map(|(first, row)| read_row(*first, row)).collect();
        assert_eq!(read, entries);
        assert_eq!(read_row(0, &[0, 0, 0, 1, 0, 2]).count(), 0, "no block begins before the first offset");
    }

    #[test]
    fn many_messages_or_large_ones_are_enough_for_rows() {
        let (mut many, mut large) = (Index::default(), Index::default());
        for offset in 1..MANY as u64 {
            many.add([1; 8], (offset, offset), 1);
        }
        assert!(!many.is_long());
        many.add([1; 8], (MANY as u64, 1), 1);
        large.add([1; 8], (1, 1), MANY_BYTES);
        assert!(many.is_long() && large.is_long());
    }
}
