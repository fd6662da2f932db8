//! Reading behind the broker's memory: a page at a time, on threads that may wait for the disk.

use std::sync::Arc;

use broker_core::{Accepted, Channel, Filter, LogPage, Message, Order, Read};

use crate::bucket::Bucket;
use crate::disk::Disk;
use crate::schema::unseal;
use crate::settings::Settings;
use crate::walk::{ReadError, walk};

/// Messages that a wildcard looks at in one bucket group for one page.
const MAX_LOOKED_AT: usize = 4_096;

/// What one source has: messages in the order that was asked for, and how far it has looked.
struct Found {
    messages: Vec<(u64, Accepted)>,
    through: u64,
}

/// What is wanted of a source.
#[derive(Clone, Copy)]
enum Wanted<'f> {
    Channel(&'f Channel),
    Matching(&'f [Filter]),
}

pub(crate) fn read(disk: &Disk, settings: &Settings, read: &Read) -> Result<LogPage, ReadError> {
    let buckets = disk.buckets();
    let literal: Option<Vec<&Channel>> = read.filters.iter().map(Filter::as_literal).collect();
    let mut groups: Vec<u32> = buckets.iter().map(|bucket| bucket.group).collect();
    groups.dedup();
    let oldest = read.order == Order::Oldest;
    let mut found = Vec::new();
    let mut through = if oldest { read.through } else { read.after };
    for group in groups {
        let buckets = buckets.iter().filter(|bucket| bucket.group == group);
        let buckets: Vec<_> = if oldest { buckets.collect() } else { buckets.rev().collect() };
        let wanted: Vec<Wanted<'_>> = match &literal {
            Some(channels) => channels.iter().map(|channel| Wanted::Channel(channel)).collect(),
            None => vec![Wanted::Matching(&read.filters)],
        };
        for wanted in wanted {
            let of_source = look(disk, &buckets, wanted, read)?;
            through = if oldest { through.min(of_source.through) } else { through.max(of_source.through) };
            found.extend(of_source.messages);
        }
    }
    found.sort_unstable_by_key(|(offset, _)| *offset);
    // Filters may overlap.
    found.dedup_by_key(|(offset, _)| *offset);
    if !oldest {
        found.reverse();
    }
    let (mut messages, mut bytes) = (Vec::<Arc<Message>>::new(), 0);
    for (offset, accepted) in found {
        let is_beyond = if oldest { offset > through } else { offset <= through };
        if is_beyond {
            break;
        }
        bytes += accepted.weight();
        if messages.len() >= read.max_messages || bytes > read.max_bytes && !messages.is_empty() {
            through = if oldest { offset - 1 } else { offset };
            break;
        }
        messages.push(Arc::new(accepted.into_message(disk.epoch)));
    }
    let kept = first_of(disk, settings, &read.filters);
    Ok(LogPage::new(messages, through, kept.max(lost_around(disk, read.after))))
}

/// The oldest position from which all that the filters reach is there: nothing of their groups was dropped behind it.
fn first_of(disk: &Disk, settings: &Settings, filters: &[Filter]) -> u64 {
    let groups = disk.groups();
    let reached = |name: &str| {
        filters.iter().any(|filter| filter.namespace().is_none_or(|space| settings.group_of(space) == name))
    };
    groups.iter().filter(|group| reached(&group.name)).map(|group| group.dropped_through).max().unwrap_or(0)
}

/// Where what is there begins again, for who has a position that this store does not know, as a backup was made before it
/// was given.
fn lost_around(disk: &Disk, after: u64) -> u64 {
    let around = |(from, to): &&(u64, u64)| *from < after && after < *to;
    disk.lost.iter().filter(around).map(|(_, to)| *to).max().unwrap_or(0)
}

fn look(disk: &Disk, buckets: &[&Arc<Bucket>], wanted: Wanted<'_>, read: &Read) -> Result<Found, ReadError> {
    let oldest = read.order == Order::Oldest;
    let mut messages = Vec::new();
    let (mut bytes, mut looked_at) = (0, 0);
    for bucket in buckets {
        if bucket.held().last <= read.after || bucket.first > read.through {
            continue;
        }
        let (first, last) = (read.after + 1, read.through);
        if first > last {
            break;
        }
        let hash = match wanted {
            Wanted::Channel(channel) => Some(disk.secret.channel(channel.as_str())),
            Wanted::Matching(_) => None,
        };
        for found in walk(bucket, hash, first..=last, read.order)? {
            let found = found?;
            let offset = found.offset;
            looked_at += 1;
            let record = unseal(&found.sealed).ok_or(ReadError::Damaged(offset))?;
            let accepted = Accepted::read_from(record, offset).map_err(|_| ReadError::Damaged(offset))?;
            let is_wanted = |accepted: &Accepted| match wanted {
                Wanted::Channel(channel) => accepted.publish.channel() == channel,
                Wanted::Matching(filters) => {
                    filters.iter().any(|filter| filter.matches(accepted.publish.channel()))
                }
            };
            if let Some(accepted) = accepted.filter(is_wanted) {
                bytes += accepted.weight();
                messages.push((offset, accepted));
            }
            if messages.len() >= read.max_messages || bytes >= read.max_bytes || looked_at >= MAX_LOOKED_AT {
                let through = if oldest { offset } else { offset - 1 };
                return Ok(Found { messages, through });
            }
        }
    }
    Ok(Found { messages, through: if oldest { read.through } else { read.after } })
}
