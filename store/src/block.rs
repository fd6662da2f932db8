//! Messages that came together lie in one row, a block, as each row costs the database more than a message. What finds a
//! channel's among them is a row for each channel and each run: messages of one batch with offsets in a row, so that
//! nothing that is written later lies between them.
//!
//! ```text
//! block   key: its first offset   value: sum, how far into its run it begins, count, (offset, end of record)..., records
//! index   key: channel, run       value: (offset, block)...
//! ```
//!
//! All offsets in a value are counted from the block's or the run's first. Each record has a sum of its own.

use std::ops::Range;

use broker_core::Accepted;

use crate::schema::{SUM_BYTES, block_key, index_key};

/// A block ends with the message that makes it so long: about what is read of the disk at once for one of them.
const BLOCK_BYTES: usize = 8 << 10;
const BLOCK_MESSAGES: usize = 64;

/// Of a block, before its table; and of a message in the table.
const HEAD_BYTES: usize = SUM_BYTES + 4;
const LINE_BYTES: usize = 6;
/// Of a message in an index.
const ENTRY_BYTES: usize = 4;

/// What a batch has to write, until it is known which messages it has.
#[derive(Default)]
pub(crate) struct Packing {
    records: Vec<u8>,
    messages: Vec<Packed>,
}

struct Packed {
    offset: u64,
    bucket: usize,
    channel: [u8; 8],
    record: Range<usize>,
}

impl Packing {
    /// Adds a message of a bucket, which has that number for its writer. Of how many bytes its record is.
    pub(crate) fn add(&mut self, bucket: usize, channel: [u8; 8], accepted: &Accepted) -> u64 {
        let begin = self.records.len();
        self.records.extend_from_slice(&[0; SUM_BYTES]);
        accepted.write_to(&mut self.records);
        let sealed = self.records.get_mut(begin..).and_then(|sealed| sealed.split_first_chunk_mut());
        if let Some((sum, record)) = sealed {
            *sum = crc32fast::hash(record).to_be_bytes();
        }
        let end = self.records.len();
        self.messages.push(Packed { offset: accepted.offset, bucket, channel, record: begin..end });
        (end - begin - SUM_BYTES) as u64
    }

    /// Gives away all rows: bucket, key and value.
    pub(crate) fn write(mut self, mut put: impl FnMut(usize, &[u8], Vec<u8>)) {
        self.messages.sort_unstable_by_key(|message| message.offset);
        for run in self.messages.chunk_by(|one, other| one.offset + 1 == other.offset) {
            // Offsets in an index have two bytes. A batch has far fewer.
            for run in run.chunks(usize::from(u16::MAX)) {
                let mut run: Vec<&Packed> = run.iter().collect();
                run.sort_by_key(|message| message.bucket);
                for part in run.chunk_by(|one, other| one.bucket == other.bucket) {
                    write_part(&self.records, part, &mut put);
                }
            }
        }
    }
}

/// Writes what one bucket has of a run.
fn write_part(records: &[u8], part: &[&Packed], put: &mut impl FnMut(usize, &[u8], Vec<u8>)) {
    let Some((run, bucket)) = part.first().map(|first| (first.offset, first.bucket)) else { return };
    let mut entries = Vec::with_capacity(part.len());
    let mut rest = part;
    while let Some(first) = rest.first() {
        let mut bytes = 0;
        let count = rest.iter().take(BLOCK_MESSAGES).take_while(|message| {
            let fits = bytes < BLOCK_BYTES;
            bytes += message.record.len();
            fits
        });
        let (block, behind) = rest.split_at(count.count());
        rest = behind;
        let start = (first.offset - run) as u16;
        entries.extend(block.iter().map(|message| (message.channel, (message.offset - run) as u16, start)));
        put(bucket, &block_key(first.offset), block_of(records, block, start));
    }
    entries.sort_unstable();
    for of_channel in entries.chunk_by(|one, other| one.0 == other.0) {
        let Some((channel, ..)) = of_channel.first() else { continue };
        let mut value = Vec::with_capacity(of_channel.len() * ENTRY_BYTES);
        for (_, offset, start) in of_channel {
            value.extend_from_slice(&offset.to_be_bytes());
            value.extend_from_slice(&start.to_be_bytes());
        }
        put(bucket, &index_key(*channel, run), value);
    }
}

fn block_of(records: &[u8], block: &[&Packed], start: u16) -> Vec<u8> {
    let first = block.first().map_or(0, |first| first.offset);
    let bytes: usize = block.iter().map(|message| message.record.len()).sum();
    let mut row = Vec::with_capacity(HEAD_BYTES + block.len() * LINE_BYTES + bytes);
    row.extend_from_slice(&[0; SUM_BYTES]);
    row.extend_from_slice(&start.to_be_bytes());
    row.extend_from_slice(&(block.len() as u16).to_be_bytes());
    let mut end = 0;
    for message in block {
        end += message.record.len() as u32;
        row.extend_from_slice(&((message.offset - first) as u16).to_be_bytes());
        row.extend_from_slice(&end.to_be_bytes());
    }
    if let Some((sum, table)) = row.split_first_chunk_mut() {
        *sum = crc32fast::hash(table).to_be_bytes();
    }
    for message in block {
        row.extend_from_slice(records.get(message.record.clone()).unwrap_or_default());
    }
    row
}

/// A block that was read: where its messages lie in its row.
pub(crate) struct Block<'r> {
    /// The first offset of its run in the bucket.
    pub(crate) run: u64,
    first: u64,
    table: &'r [u8],
    records: &'r [u8],
}

impl<'r> Block<'r> {
    /// `None`: it is damaged.
    pub(crate) fn read(first: u64, row: &'r [u8]) -> Option<Self> {
        let (sum, rest) = row.split_first_chunk::<SUM_BYTES>()?;
        let (head, _) = rest.split_first_chunk::<4>()?;
        let [start, count] = [[head[0], head[1]], [head[2], head[3]]].map(u16::from_be_bytes);
        let (summed, records) = rest.split_at_checked(head.len() + usize::from(count) * LINE_BYTES)?;
        if crc32fast::hash(summed) != u32::from_be_bytes(*sum) {
            return None;
        }
        Some(Self { run: first.checked_sub(u64::from(start))?, first, table: summed.get(4..)?, records })
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len() / LINE_BYTES
    }

    /// The offset of a message and its record with its sum. `None`: there are not so many.
    pub(crate) fn message(&self, at: usize) -> Option<(u64, &'r [u8])> {
        let (offset, end) = self.line(at)?;
        let begin = at.checked_sub(1).map_or(Some(0), |before| self.line(before).map(|(_, end)| end))?;
        // One that is cut is damaged, and its sum says so.
        let end = end.min(self.records.len());
        Some((offset, self.records.get(begin.min(end)..end)?))
    }

    pub(crate) fn messages(&self) -> impl DoubleEndedIterator<Item = (u64, &'r [u8])> {
        (0..self.len()).filter_map(|at| self.message(at))
    }

    /// The record of one offset.
    pub(crate) fn find(&self, offset: u64) -> Option<&'r [u8]> {
        self.messages().find(|(found, _)| *found == offset).map(|(_, record)| record)
    }

    fn line(&self, at: usize) -> Option<(u64, usize)> {
        let line = self.table.get(at * LINE_BYTES..)?.first_chunk::<LINE_BYTES>()?;
        let [o0, o1, end @ ..] = *line;
        Some((self.first + u64::from(u16::from_be_bytes([o0, o1])), u32::from_be_bytes(end) as usize))
    }
}

/// A channel's messages of a run: their offsets, and the first ones of their blocks.
pub(crate) fn read_index(run: u64, row: &[u8]) -> impl DoubleEndedIterator<Item = (u64, u64)> {
    let (entries, _) = row.as_chunks::<ENTRY_BYTES>();
    entries.iter().map(move |[o0, o1, b0, b1]| {
        let [offset, block] =
            [[*o0, *o1], [*b0, *b1]].map(|bytes| run + u64::from(u16::from_be_bytes(bytes)));
        (offset, block)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use broker_core::{Channel, Publish};

    use super::*;
    use crate::schema::unseal;

    type Rows = BTreeMap<(usize, Vec<u8>), Vec<u8>>;

    fn accepted(offset: u64, bytes: usize) -> Accepted {
        Accepted::new(Publish::new(Channel::parse("a").unwrap(), vec![7; bytes]), offset, 1)
    }

    fn rows(messages: &[(u64, usize, u8, usize)]) -> Rows {
        let mut packing = Packing::default();
        for (offset, bucket, channel, bytes) in messages {
            packing.add(*bucket, [*channel; 8], &accepted(*offset, *bytes));
        }
        let mut rows = Rows::new();
        packing.write(|bucket, key, value| {
            assert!(rows.insert((bucket, key.to_vec()), value).is_none(), "one row, once");
        });
        rows
    }

    fn block(rows: &Rows, bucket: usize, first: u64) -> Block<'_> {
        Block::read(first, &rows[&(bucket, block_key(first).to_vec())]).expect("it is whole")
    }

    fn offsets(block: &Block<'_>) -> Vec<u64> {
        block.messages().map(|(offset, _)| offset).collect()
    }

    #[test]
    fn what_came_together_lies_together_and_is_found_by_its_channel() {
        // Two that were released before, the batch, and another bucket between.
        let rows =
            rows(&[(8, 0, 1, 0), (9, 0, 2, 3), (80, 0, 1, 4), (81, 5, 1, 0), (82, 0, 1, 0), (83, 0, 2, 0)]);
        let keys: Vec<_> = rows
            .keys()
            .filter(|(_, key)| key[0] == b'b')
            .map(|(bucket, key)| (*bucket, key.clone()))
            .collect();
        let expected = [(0, 8), (0, 80), (5, 81)].map(|(bucket, first)| (bucket, block_key(first).to_vec()));
        assert_eq!(keys, expected);
        assert_eq!(offsets(&block(&rows, 0, 80)), [80, 82, 83]);
        let record = block(&rows, 0, 80).find(80).and_then(unseal).map(<[u8]>::to_vec);
        let mut written = Vec::new();
        accepted(80, 4).write_to(&mut written);
        assert_eq!(record, Some(written));
        assert_eq!(block(&rows, 0, 80).find(81), None);
        let index = |bucket, channel, run| -> Vec<(u64, u64)> {
            read_index(run, &rows[&(bucket, index_key([channel; 8], run).to_vec())]).collect()
        };
        assert_eq!(index(0, 1, 80), [(80, 80), (82, 80)]);
        assert_eq!(
            (index(0, 2, 80), index(0, 2, 8), index(5, 1, 81)),
            (vec![(83, 80)], vec![(9, 8)], vec![(81, 81)])
        );
    }

    #[test]
    fn blocks_are_bounded_and_say_where_their_run_began() {
        let large: Vec<_> = (10..14).map(|offset| (offset, 0, 1, BLOCK_BYTES / 2)).collect();
        let many: Vec<_> = (100..300).map(|offset| (offset, 0, 1, 0)).collect();
        let rows = rows(&[large, many].concat());
        assert_eq!(offsets(&block(&rows, 0, 10)), [10, 11]);
        assert_eq!(offsets(&block(&rows, 0, 12)), [12, 13]);
        assert_eq!((block(&rows, 0, 12).run, block(&rows, 0, 164).run), (10, 100));
        let index: Vec<_> = read_index(100, &rows[&(0, index_key([1; 8], 100).to_vec())]).collect();
        assert_eq!((index.len(), index[64], index[199]), (200, (164, 164), (299, 292)));
    }

    #[test]
    fn damage_to_a_table_is_that_of_a_block_and_to_a_record_that_of_a_message() {
        let rows = rows(&[(1, 0, 1, 5), (2, 0, 1, 5)]);
        let row = &rows[&(0, block_key(1).to_vec())];
        for at in 0..row.len() {
            let mut damaged = row.clone();
            damaged[at] ^= 1;
            match Block::read(1, &damaged) {
                None => assert!(at < HEAD_BYTES + 2 * LINE_BYTES),
                Some(block) => {
                    let whole = block.messages().filter(|(_, sealed)| unseal(sealed).is_some());
                    assert_eq!(whole.count(), 1, "{at}");
                }
            }
            let cut = Block::read(1, &row[..at]);
            let whole = cut.iter().flat_map(Block::messages).filter(|(_, sealed)| unseal(sealed).is_some());
            assert!(whole.count() < 2, "{at}");
        }
    }
}
