//! Reads what some filters want, in order, a few segments at a time.

use std::sync::Arc;

use smallvec::SmallVec;

use super::Log;
use super::segment::{Segment, hash_of};
use crate::channel::Channel;
use crate::clock::steady_ms;
use crate::filter::Filter;
use crate::interest::Registry;
use crate::message::Message;
use crate::store::history::Order;

/// Holds no position and nothing of the log: many may wait.
pub(crate) struct Reader {
    filters: SmallVec<[Filter; 1]>,
    /// The filters' channels, if all are literal: a segment then finds their messages without going through the others.
    literal: Option<SmallVec<[(Channel, u32); 1]>>,
    rings: SmallVec<[usize; 2]>,
}

/// How much one page may have; a message that is heavier makes a page of its own.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

/// What was found in a few segments.
pub(crate) struct Page {
    pub(crate) messages: Vec<Arc<Message>>,
    /// All up to here, or down to here, has been read.
    pub(crate) through: u64,
    pub(crate) bytes: usize,
    /// Nothing wanted is left.
    pub(crate) complete: bool,
    /// A ring has lost something behind the position: [`Reader::has_lost`] says whether it was wanted.
    pub(crate) lost: bool,
}

/// Segments of a ring read at once.
pub(super) const SEGMENTS_AT_ONCE: usize = 4;

/// A part of the log, to be read without its lock.
pub(super) struct Stretch {
    pub(super) rings: SmallVec<[SmallVec<[Arc<Segment>; SEGMENTS_AT_ONCE]>; 1]>,
    pub(super) head: u64,
    /// All messages after `after` up to `through` are here.
    pub(super) after: u64,
    pub(super) through: u64,
    /// There is more beyond.
    pub(super) more: bool,
    pub(super) lost: bool,
}

impl Reader {
    pub(crate) fn new(filters: &[Filter], log: &Log) -> Self {
        let channels: Option<SmallVec<[&Channel; 1]>> = filters.iter().map(Filter::as_literal).collect();
        let mut rings: SmallVec<[usize; 2]> = SmallVec::new();
        match &channels {
            Some(channels) => {
                rings.extend(channels.iter().filter_map(|channel| log.ring_of(channel.namespace())));
                rings.sort_unstable();
                rings.dedup();
            }
            None => rings.extend(log.all_rings()),
        }
        let literal = channels.map(|channels| {
            let mut hashed: SmallVec<[(Channel, u32); 1]> =
                channels.into_iter().map(|channel| (channel.clone(), hash_of(channel))).collect();
            hashed.sort_unstable_by(|one, other| one.0.as_str().cmp(other.0.as_str()));
            hashed.dedup_by(|one, other| one.0 == other.0);
            hashed
        });
        Self { filters: filters.into(), literal, rings }
    }

    pub(crate) fn rings(&self) -> &[usize] {
        &self.rings
    }

    pub(crate) fn filters(&self) -> &[Filter] {
        &self.filters
    }

    pub(crate) fn wants(&self, message: &Message) -> bool {
        self.filters.iter().any(|filter| filter.matches(message.channel()))
    }

    /// Reads on after a position.
    pub(crate) fn read(&self, log: &Log, registry: &Registry, after: u64, bounds: Bounds) -> Page {
        let stretch = log.ahead(&self.rings, after);
        let mut page =
            Page { messages: Vec::new(), through: after, bytes: 0, complete: false, lost: stretch.lost };
        // Looked at behind the stretch: what is newer than these comes later than it.
        let newest = self.newest(registry);
        let now_ms = steady_ms();
        if newest > after {
            for message in self.merged(&stretch, Order::Oldest) {
                if !message.is_expired(now_ms) {
                    let bytes = page.bytes + message.weight();
                    let full = page.messages.len() >= bounds.messages || bytes > bounds.bytes;
                    if full && (!page.messages.is_empty() || bounds.messages == 0) {
                        return page;
                    }
                    page.bytes = bytes;
                    page.messages.push(Arc::clone(message));
                }
                page.through = message.offset();
            }
        }
        page.complete = !stretch.more || newest <= stretch.through;
        page.through = if page.complete { stretch.head.max(after) } else { stretch.through };
        page
    }

    /// Reads back from `before`, which is among what is read, to `after`, which is not.
    pub(crate) fn read_back(
        &self,
        log: &Log,
        registry: &Registry,
        after: u64,
        before: u64,
        limit: usize,
    ) -> Page {
        let before = before.min(self.newest(registry));
        let stretch = log.behind(&self.rings, after, before);
        let now_ms = steady_ms();
        let mut page = Page {
            messages: Vec::new(),
            through: stretch.after,
            bytes: 0,
            complete: !stretch.more || before <= after,
            lost: stretch.lost,
        };
        let alone = self.literal.as_ref().is_some_and(|channels| channels.len() == 1);
        for message in self.merged(&stretch, Order::Newest).take_while(|_| before > after) {
            if page.messages.len() == limit {
                break;
            }
            if !message.is_expired(now_ms) {
                page.messages.push(Arc::clone(message));
            }
            if alone {
                // The next one is known, however far back it is.
                page.through = message.prev();
                page.complete = message.prev() <= after;
            }
        }
        page
    }

    /// Whether wanted messages after `after` are gone. Exact for a channel that is known; otherwise what the ring lost.
    pub(crate) fn has_lost(&self, log: &Log, registry: &Registry, after: u64) -> bool {
        let Some(channels) = &self.literal else { return log.has_lost(&self.rings, after) };
        channels.iter().any(|known| {
            let ring = log.ring_of(known.0.namespace());
            if !log.has_lost(ring.as_slice(), after) {
                return false;
            }
            match registry.last(&known.0).unwrap_or(0) {
                0 => true,
                last if last <= after => false,
                // Its predecessor is at or before the position, or it is a loss; or all of them are gone.
                _ => {
                    oldest_of(log, ring.as_slice(), known, after).is_none_or(|prev| prev > after || prev == 0)
                }
            }
        })
    }

    /// The newest offset of its channels that anybody was told of.
    fn newest(&self, registry: &Registry) -> u64 {
        match &self.literal {
            None => u64::MAX,
            Some(channels) => {
                let known = channels.iter().filter_map(|(channel, _)| registry.last(channel));
                known.max().unwrap_or(0)
            }
        }
    }

    fn wanted_in<'s>(&'s self, segment: &'s Segment, stretch: &Stretch) -> Wanted<'s> {
        let (after, through) = (stretch.after, stretch.through);
        match &self.literal {
            Some(channels) => Box::new(segment.of_channels(channels, after, through).into_iter()),
            None => Box::new(segment.between(after, through).filter(|message| self.wants(message))),
        }
    }

    /// What is wanted of a stretch, in one order over all rings.
    fn merged<'s>(
        &'s self,
        stretch: &'s Stretch,
        order: Order,
    ) -> impl Iterator<Item = &'s Arc<Message>> + use<'s> {
        let of_ring = |segments: &'s SmallVec<[Arc<Segment>; SEGMENTS_AT_ONCE]>| {
            let wanted = segments.iter().flat_map(|segment| self.wanted_in(segment, stretch));
            let wanted: Wanted<'s> = match order {
                Order::Oldest => Box::new(wanted),
                Order::Newest => Box::new(wanted.rev()),
            };
            wanted.peekable()
        };
        let mut rings: SmallVec<[_; 1]> = stretch.rings.iter().map(of_ring).collect();
        std::iter::from_fn(move || {
            let next =
                rings.iter_mut().enumerate().filter_map(|(at, ring)| Some((ring.peek()?.offset(), at)));
            let (_, at) = match order {
                Order::Oldest => next.min(),
                Order::Newest => next.max(),
            }?;
            rings.get_mut(at)?.next()
        })
    }
}

type Wanted<'s> = Box<dyn DoubleEndedIterator<Item = &'s Arc<Message>> + 's>;

/// The predecessor of a channel's oldest message after `after`, if there is such a message.
fn oldest_of(log: &Log, rings: &[usize], channel: &(Channel, u32), after: u64) -> Option<u64> {
    let channel = std::slice::from_ref(channel);
    let mut position = after;
    loop {
        let stretch = log.ahead(rings, position);
        let mut segments = stretch.rings.iter().flatten();
        let prev = segments.find_map(|segment| {
            segment.of_channels(channel, position, stretch.through).first().map(|message| message.prev())
        });
        if prev.is_some() || !stretch.more {
            return prev;
        }
        position = stretch.through;
    }
}
