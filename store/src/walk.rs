//! The messages of a bucket one after the other, all of them or those of a channel, in either order.

use std::ops::RangeInclusive;

use broker_core::Order;
use fjall::{Guard, Keyspace, UserValue};

use crate::block::{Block, read_index};
use crate::bucket::{Bucket, Form};
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
        (Form::Blocks, None) => {
            let begin = last_before(rows, block_key(0), block_key(first))?;
            let blocks = rows.range(block_key(begin)..=block_key(last));
            Box::new(ordered(blocks, order).flat_map(move |row| {
                let found = of_block(row, &offsets);
                let found = found.unwrap_or_else(|error| vec![Err(error)]);
                ordered(found.into_iter(), order)
            }))
        }
        (Form::Blocks, Some(hash)) => {
            let begin = last_before(rows, index_key(hash, 0), index_key(hash, first))?;
            let runs = rows.range(index_key(hash, begin)..=index_key(hash, last));
            let entries = ordered(runs, order).flat_map(move |row| {
                let entries = of_index(row, &offsets).unwrap_or_else(|error| vec![Err(error)]);
                ordered(entries.into_iter(), order)
            });
            // Those that lie together are usually read together.
            let mut held = None;
            Box::new(
                entries.filter_map(move |entry| {
                    entry.and_then(|entry| indexed(rows, entry, &mut held)).transpose()
                }),
            )
        }
    })
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

fn of_block(row: Guard, offsets: &RangeInclusive<u64>) -> Result<Many<Found>, ReadError> {
    let (key, row) = row.into_inner()?;
    let first = offset_of(&key).ok_or(ReadError::DamagedBlock(0))?;
    let block = Block::read(first, &row).ok_or(ReadError::DamagedBlock(first))?;
    let wanted = block.messages().filter(|(offset, _)| offsets.contains(offset));
    Ok(wanted.map(|(offset, sealed)| Ok(Found { offset, sealed: sealed.into() })).collect())
}

fn of_index(row: Guard, offsets: &RangeInclusive<u64>) -> Result<Many<(u64, u64)>, ReadError> {
    let (key, row) = row.into_inner()?;
    let run = offset_of(&key).ok_or(ReadError::DamagedBlock(0))?;
    Ok(read_index(run, &row).filter(|(offset, _)| offsets.contains(offset)).map(Ok).collect())
}

fn indexed(
    rows: &Keyspace,
    (offset, first): (u64, u64),
    held: &mut Option<(u64, UserValue)>,
) -> Result<Option<Found>, ReadError> {
    if held.as_ref().is_none_or(|(held, _)| *held != first) {
        *held = rows.get(block_key(first))?.map(|row| (first, row));
    }
    // A retention that ran meanwhile takes the whole bucket.
    let Some((_, row)) = held else { return Ok(None) };
    let block = Block::read(first, row).ok_or(ReadError::DamagedBlock(first))?;
    let sealed = block.find(offset).ok_or(ReadError::Damaged(offset))?;
    Ok(Some(Found { offset, sealed: sealed.into() }))
}
