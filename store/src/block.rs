//! Messages that came together lie in one row, a block, as each row costs the database more than a message. A block says
//! whose each of its messages is: what finds those of a channel is made of that, [later](crate::index).
//!
//! ```text
//! block   key: its first offset   value: sum, nothing, count, (channel, offset, end of record)..., records
//! ```
//!
//! Offsets in it are counted from its first. Each record has a sum of its own. A block has messages of one batch whose
//! offsets lie in a row, so that nothing that is written later lies between them.
//!
//! Schema 2 had no channels in its blocks, and in the place of nothing how far into its run a block begins: what a batch had
//! with offsets in a row. A row for each channel and run told which messages are the channel's:
//!
//! ```text
//! index   key: channel, run       value: (offset, block)..., counted from the run's first
//! ```

use std::ops::Range;

use broker_core::Accepted;

use crate::bucket::Form;
use crate::schema::{SUM_BYTES, block_key};

/// A block ends with the message that makes it so long: about what is read of the disk at once for one of them.
const BLOCK_BYTES: usize = 8 << 10;
const BLOCK_MESSAGES: usize = 64;

/// Of a block, before its table.
const HEAD_BYTES: usize = SUM_BYTES + 4;
/// Of a message in the table: whose it is, and the rest.
const NAME_BYTES: usize = 8;
const LINE_BYTES: usize = 6;
/// Of a message in a row of schema 2.
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

    /// Gives away all blocks, and before each what it has.
    pub(crate) fn write(mut self, mut put: impl FnMut(usize, Put<'_>)) {
        self.messages.sort_unstable_by_key(|message| message.offset);
        for run in self.messages.chunk_by(|one, other| one.offset + 1 == other.offset) {
            let mut run: Vec<&Packed> = run.iter().collect();
            run.sort_by_key(|message| message.bucket);
            for part in run.chunk_by(|one, other| one.bucket == other.bucket) {
                write_part(&self.records, part, &mut put);
            }
        }
    }
}

/// What is done with a bucket.
pub(crate) enum Put<'p> {
    /// A message of so many bytes is in the block that begins with `first`.
    Message { channel: [u8; 8], offset: u64, first: u64, bytes: u64 },
    /// A row.
    Block { key: &'p [u8], row: Vec<u8> },
}

/// Writes what one bucket has of a run.
fn write_part(records: &[u8], part: &[&Packed], put: &mut impl FnMut(usize, Put<'_>)) {
    let mut rest = part;
    while let Some(first) = rest.first() {
        let (bucket, first, mut bytes) = (first.bucket, first.offset, 0);
        let count = rest.iter().take(BLOCK_MESSAGES).take_while(|message| {
            let fits = bytes < BLOCK_BYTES && message.offset - first <= u64::from(u16::MAX);
            bytes += message.record.len();
            fits
        });
        let (block, behind) = rest.split_at(count.count());
        rest = behind;
        for Packed { offset, channel, record, .. } in block {
            let (channel, offset, bytes) = (*channel, *offset, record.len() as u64);
            put(bucket, Put::Message { channel, offset, first, bytes });
        }
        put(bucket, Put::Block { key: &block_key(first), row: block_of(records, first, block) });
    }
}

fn block_of(records: &[u8], first: u64, block: &[&Packed]) -> Vec<u8> {
    let bytes: usize = block.iter().map(|message| message.record.len()).sum();
    let mut row = Vec::with_capacity(HEAD_BYTES + block.len() * (NAME_BYTES + LINE_BYTES) + bytes);
    row.extend_from_slice(&[0; SUM_BYTES + 2]);
    row.extend_from_slice(&(block.len() as u16).to_be_bytes());
    let mut end = 0;
    for message in block {
        end += message.record.len() as u32;
        row.extend_from_slice(&message.channel);
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
    /// The first offset of its run, in schema 2.
    pub(crate) run: u64,
    first: u64,
    /// How long the name is that a message has in the table.
    name: usize,
    table: &'r [u8],
    records: &'r [u8],
}

impl<'r> Block<'r> {
    /// `None`: it is damaged.
    pub(crate) fn read(form: Form, first: u64, row: &'r [u8]) -> Option<Self> {
        let name = if form == Form::Named { NAME_BYTES } else { 0 };
        let (sum, rest) = row.split_first_chunk::<SUM_BYTES>()?;
        let (head, _) = rest.split_first_chunk::<4>()?;
        let [start, count] = [[head[0], head[1]], [head[2], head[3]]].map(u16::from_be_bytes);
        let (summed, records) =
            rest.split_at_checked(head.len() + usize::from(count) * (name + LINE_BYTES))?;
        if crc32fast::hash(summed) != u32::from_be_bytes(*sum) {
            return None;
        }
        Some(Self {
            run: first.checked_sub(u64::from(start))?,
            first,
            name,
            table: summed.get(4..)?,
            records,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len() / (self.name + LINE_BYTES)
    }

    /// Whose its messages are, their offsets, and how long each is.
    pub(crate) fn names(&self) -> impl Iterator<Item = ([u8; NAME_BYTES], u64, u64)> {
        (0..self.len()).filter_map(|at| {
            let (offset, record) = self.message(at)?;
            let name = self.table.get(at * (self.name + LINE_BYTES)..)?.first_chunk()?;
            Some((*name, offset, record.len() as u64))
        })
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
        let line =
            self.table.get(at * (self.name + LINE_BYTES) + self.name..)?.first_chunk::<LINE_BYTES>()?;
        let [o0, o1, end @ ..] = *line;
        Some((self.first + u64::from(u16::from_be_bytes([o0, o1])), u32::from_be_bytes(end) as usize))
    }
}

/// A channel's messages of a run, as schema 2 has them: their offsets, and the first ones of their blocks.
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
    /// Bucket, channel, offset, block.
    type Told = Vec<(usize, u8, u64, u64)>;

    fn accepted(offset: u64, bytes: usize) -> Accepted {
        Accepted::new(Publish::new(Channel::parse("a").unwrap(), vec![7; bytes]), offset, 1)
    }

    fn rows(messages: &[(u64, usize, u8, usize)]) -> (Rows, Told) {
        let mut packing = Packing::default();
        for (offset, bucket, channel, bytes) in messages {
            packing.add(*bucket, [*channel; 8], &accepted(*offset, *bytes));
        }
        let (mut rows, mut told) = (Rows::new(), Told::new());
        packing.write(|bucket, put| match put {
            Put::Message { channel, offset, first, bytes } => {
                assert!(bytes > 0);
                told.push((bucket, channel[0], offset, first));
            }
            Put::Block { key, row } => {
                assert!(rows.insert((bucket, key.to_vec()), row).is_none(), "one row, once");
            }
        });
        (rows, told)
    }

    fn block(rows: &Rows, bucket: usize, first: u64) -> Block<'_> {
        let row = &rows[&(bucket, block_key(first).to_vec())];
        Block::read(Form::Named, first, row).expect("it is whole")
    }

    fn offsets(block: &Block<'_>) -> Vec<u64> {
        block.messages().map(|(offset, _)| offset).collect()
    }

    #[test]
    fn what_came_together_lies_together_and_says_whose_it_is() {
        // Two that were released before, the batch, and another bucket between.
        let (rows, told) =
            rows(&[(8, 0, 1, 0), (9, 0, 2, 3), (80, 0, 1, 4), (81, 5, 1, 0), (82, 0, 1, 0), (83, 0, 2, 0)]);
        let keys: Vec<_> = rows.keys().cloned().collect();
        let expected = [(0, 8), (0, 80), (5, 81)].map(|(bucket, first)| (bucket, block_key(first).to_vec()));
        assert_eq!(keys, expected);
        assert_eq!(offsets(&block(&rows, 0, 80)), [80, 82, 83]);
        let record = block(&rows, 0, 80).find(80).and_then(unseal).map(<[u8]>::to_vec);
        let mut written = Vec::new();
        accepted(80, 4).write_to(&mut written);
        assert_eq!(record, Some(written));
        assert_eq!(block(&rows, 0, 80).find(81), None);
        let expected =
            [(0, 1, 8, 8), (0, 2, 9, 8), (0, 1, 80, 80), (0, 1, 82, 80), (0, 2, 83, 80), (5, 1, 81, 81)];
        assert_eq!(told, expected);
        // The blocks say the same.
        for first in [8, 80] {
            let names = block(&rows, 0, first);
            let names = names.names().map(|(channel, offset, _)| (0, channel[0], offset, first));
            let of_block =
                expected.iter().filter(|(bucket, .., block)| (*bucket, *block) == (0, first)).copied();
            assert_eq!(names.collect::<Vec<_>>(), of_block.collect::<Vec<_>>());
        }
    }

    #[test]
    fn blocks_are_bounded() {
        let large: Vec<_> = (10..14).map(|offset| (offset, 0, 1, BLOCK_BYTES / 2)).collect();
        let many: Vec<_> = (1_000..1_300).map(|offset| (offset, 0, 1, 0)).collect();
        // All but the first and the last are another bucket's.
        let apart: Vec<_> = (2_000..72_000)
            .map(|offset| (offset, usize::from(![2_000, 71_999].contains(&offset)), 1, 0))
            .collect();
        let (rows, _) = rows(&[large, many, apart].concat());
        assert_eq!(offsets(&block(&rows, 0, 10)), [10, 11]);
        assert_eq!(offsets(&block(&rows, 0, 12)), [12, 13]);
        let next = 1_000 + BLOCK_MESSAGES as u64;
        assert_eq!(offsets(&block(&rows, 0, 1_000)), (1_000..next).collect::<Vec<_>>());
        assert!(offsets(&block(&rows, 0, next)).starts_with(&[next, next + 1]));
        assert_eq!([2_000, 71_999].map(|first| offsets(&block(&rows, 0, first))), [[2_000], [71_999]]);
    }

    #[test]
    fn damage_to_a_table_is_that_of_a_block_and_to_a_record_that_of_a_message() {
        let (rows, _) = rows(&[(1, 0, 1, 5), (2, 0, 1, 5)]);
        let row = &rows[&(0, block_key(1).to_vec())];
        for at in 0..row.len() {
            let mut damaged = row.clone();
            damaged[at] ^= 1;
            match Block::read(Form::Named, 1, &damaged) {
                None => assert!(at < HEAD_BYTES + 2 * (NAME_BYTES + LINE_BYTES)),
                Some(block) => {
                    let whole = block.messages().filter(|(_, sealed)| unseal(sealed).is_some());
                    assert_eq!(whole.count(), 1, "{at}");
                }
            }
            let cut = Block::read(Form::Named, 1, &row[..at]);
            let whole = cut.iter().flat_map(Block::messages).filter(|(_, sealed)| unseal(sealed).is_some());
            assert!(whole.count() < 2, "{at}");
        }
    }
}
