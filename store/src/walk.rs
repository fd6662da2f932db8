//! The messages of a bucket one after the other, all of them or those of a channel, in either order.

use std::ops::RangeInclusive;

use broker_core::Order;
use fjall::{Guard, Keyspace, UserValue};

use crate::block::{Block, read_index};
use crate::bucket::{Bucket, Form};
use crate::index::{Entry, read_row};
use crate::schema::{block_key, channel_key, index_key, message_key, offset_of};

/// Why nothing could be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Database(#[from] fjall::Error),
    #[error("the record of message {0} is damaged")]
    Damaged(u64),
    #[error("the block of messages that begins with {0} is damaged")]
    DamagedBlock(u64),
}

/// A message's record with its sum.
pub(crate) struct Found {
    pub(crate) offset: u64,
    pub(crate) sealed: UserValue,
}

type Walk<'b> = Box<dyn Iterator<Item = Result<Found, ReadError>> + 'b>;

/// What a bucket has between two offsets; of a channel, what has its hash.
pub(crate) fn walk(
    bucket: &Bucket,
    channel: Option<[u8; 8]>,
    offsets: RangeInclusive<u64>,
    order: Order,
) -> fjall::Result<Walk<'_>> {
    let rows = &bucket.keyspace;
    let (first, last) = (*offsets.start(), *offsets.end());
    Ok(match (bucket.form, channel) {
        (Form::Single, None) => {
            let rows = rows.range(message_key(first)..=message_key(last));
            Box::new(ordered(rows, order).map(single))
        }
        (Form::Single, Some(hash)) => {
            let keys = rows.range(channel_key(hash, first)..=channel_key(hash, last));
            Box::new(ordered(keys, order).filter_map(|key| named(rows, key).transpose()))
        }
        (form, None) => {
            let begin = last_before(rows, block_key(0), block_key(first))?;
            let blocks = rows.range(block_key(begin)..=block_key(last));
            Box::new(ordered(blocks, order).flat_map(move |row| {
                let found = of_block(form, row, &offsets);
                let found = found.unwrap_or_else(|error| vec![Err(error)]);
                ordered(found.into_iter(), order)
            }))
        }
        (form, Some(hash)) => {
            // Looked at before the rows are: what is told from memory now may have become rows meanwhile.
            let (fresh, told) = bucket.find(hash);
            let fresh: Vec<_> = fresh.into_iter().filter(|(offset, _)| offsets.contains(offset)).collect();
            let told = if form == Form::Named { first..=last.min(told) } else { offsets };
            let begin = last_before(rows, index_key(hash, 0), index_key(hash, first))?;
            let runs = rows.range(index_key(hash, begin)..=index_key(hash, (*told.end()).max(begin)));
            let rowed = ordered(runs, order).flat_map(move |row| {
                let entries = of_index(form, row, &told).unwrap_or_else(|error| vec![Err(error)]);
                ordered(entries.into_iter(), order)
            });
            let fresh = ordered(fresh.into_iter().map(Ok), order);
            let entries: Box<dyn Iterator<Item = Result<Entry, ReadError>>> = match order {
                Order::Oldest => Box::new(rowed.chain(fresh)),
                _ => Box::new(fresh.chain(rowed)),
            };
            // Those that lie together are usually read together.
            let mut held = None;
            Box::new(entries.filter_map(move |entry| {
                entry.and_then(|entry| indexed(bucket, entry, &mut held)).transpose()
            }))
        }
    })
}

/// Notes what a crash has left without rows that tell whose it is. A block that is damaged is passed over: reading and
/// looking (`check.rs`) find that.
pub(crate) fn recall(bucket: &Bucket) -> fjall::Result<()> {
    if bucket.form != Form::Named {
        return Ok(());
    }
    let told = bucket.index().written_through();
    let begin = last_before(&bucket.keyspace, block_key(0), block_key(told))?;
    for row in bucket.keyspace.range(block_key(begin)..=block_key(u64::MAX)) {
        let (key, row) = row.into_inner()?;
        let Some(first) = offset_of(&key) else { continue };
        let Some(block) = Block::read(bucket.form, first, &row) else { continue };
        for (channel, offset, bytes) in block.names().filter(|(_, offset, _)| *offset > told) {
            bucket.index().add(channel, (offset, first), bytes);
        }
    }
    Ok(())
}

/// The first offset of the block that a channel's message is said to be in.
pub(crate) fn told(bucket: &Bucket, channel: [u8; 8], offset: u64) -> fjall::Result<Option<u64>> {
    let (fresh, told) = bucket.find(channel);
    let is_it = |entry: &Entry| entry.0 == offset;
    if offset > told {
        return Ok(fresh.iter().copied().find(is_it).map(|(_, block)| block));
    }
    let keys = index_key(channel, 0)..=index_key(channel, offset);
    let Some(row) = bucket.keyspace.range(keys).next_back() else { return Ok(None) };
    let (key, row) = row.into_inner()?;
    let first = offset_of(&key).unwrap_or(0);
    Ok(read_row(first, &row).find(is_it).map(|(_, block)| block))
}

fn ordered<'i, I>(items: I, order: Order) -> Box<dyn Iterator<Item = I::Item> + 'i>
where
    I: DoubleEndedIterator + 'i,
{
    match order {
        Order::Oldest => Box::new(items),
        _ => Box::new(items.rev()),
    }
}

/// Where the row begins that an offset lies in: the last one that does not begin behind it.
fn last_before<const N: usize>(rows: &Keyspace, least: [u8; N], key: [u8; N]) -> fjall::Result<u64> {
    let found = rows.range(least..=key).next_back().map(Guard::key).transpose()?;
    Ok(found.and_then(|key| offset_of(&key)).or_else(|| offset_of(&key)).unwrap_or(0))
}

fn single(row: Guard) -> Result<Found, ReadError> {
    let (key, sealed) = row.into_inner()?;
    let offset = offset_of(&key).ok_or(ReadError::Damaged(0))?;
    Ok(Found { offset, sealed })
}

fn named(rows: &Keyspace, key: Guard) -> Result<Option<Found>, ReadError> {
    let offset = offset_of(&key.key()?).ok_or(ReadError::Damaged(0))?;
    // A retention that ran meanwhile takes the whole bucket.
    Ok(rows.get(message_key(offset))?.map(|sealed| Found { offset, sealed }))
}

type Many<T> = Vec<Result<T, ReadError>>;

fn of_block(form: Form, row: Guard, offsets: &RangeInclusive<u64>) -> Result<Many<Found>, ReadError> {
    let (key, row) = row.into_inner()?;
    let first = offset_of(&key).ok_or(ReadError::DamagedBlock(0))?;
    let block = Block::read(form, first, &row).ok_or(ReadError::DamagedBlock(first))?;
    let wanted = block.messages().filter(|(offset, _)| offsets.contains(offset));
    Ok(wanted.map(|(offset, sealed)| Ok(Found { offset, sealed: sealed.into() })).collect())
}

fn of_index(form: Form, row: Guard, offsets: &RangeInclusive<u64>) -> Result<Many<Entry>, ReadError> {
    let (key, row) = row.into_inner()?;
    let first = offset_of(&key).ok_or(ReadError::DamagedBlock(0))?;
    let entries: Vec<_> = match form {
        Form::Named => read_row(first, &row).collect(),
        _ => read_index(first, &row).collect(),
    };
    Ok(entries.into_iter().filter(|(offset, _)| offsets.contains(offset)).map(Ok).collect())
}

fn indexed(
    bucket: &Bucket,
    (offset, first): Entry,
    held: &mut Option<(u64, UserValue)>,
) -> Result<Option<Found>, ReadError> {
    if held.as_ref().is_none_or(|(held, _)| *held != first) {
        *held = bucket.keyspace.get(block_key(first))?.map(|row| (first, row));
    }
    // A retention that ran meanwhile takes the whole bucket.
    let Some((_, row)) = held else { return Ok(None) };
    let block = Block::read(bucket.form, first, row).ok_or(ReadError::DamagedBlock(first))?;
    let sealed = block.find(offset).ok_or(ReadError::Damaged(offset))?;
    Ok(Some(Found { offset, sealed: sealed.into() }))
}
