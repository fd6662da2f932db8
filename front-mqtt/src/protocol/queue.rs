//! Messages that wait, oldest first, and what they count.

use std::collections::{BTreeSet, VecDeque};

use broker_core::Message;

use super::outbound::Outgoing;

/// The time in milliseconds since 1970, read only where it matters: most messages never expire.
pub(crate) type Clock<'a> = &'a dyn Fn() -> u64;

/// The time as far as it matters to one message: 0 if it does not expire.
pub(super) fn time_for(message: &Message, clock: Clock<'_>) -> u64 {
    if message.expires_at_ms().is_some() { clock() } else { 0 }
}

/// How much may wait, besides what comes from the retained store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

/// A bounded line of messages.
///
/// A message that leaves from the middle leaves a gap, so that nothing is moved for it; there are never more gaps than
/// messages for long, and none in front.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    places: VecDeque<Place>,
    messages: usize,
    /// Those that do not come from the store, and their bytes.
    counted: usize,
    counted_bytes: usize,
    /// When messages expire, and the numbers of their places.
    expiring: BTreeSet<(u64, u64)>,
}

#[derive(Debug)]
struct Place {
    /// Rises from place to place.
    number: u64,
    message: Option<Outgoing>,
}

/// The first place's number, so that there are numbers before it too.
const MIDDLE: u64 = 1 << 63;

/// Gaps that are borne in any case.
const FEW_GAPS: usize = 16;

impl Queue {
    pub(crate) fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// Messages, those from the store included.
    pub(crate) fn len(&self) -> usize {
        self.messages
    }

    /// Messages that do not come from the store.
    pub(crate) fn counted(&self) -> usize {
        self.counted
    }

    /// Bytes of those.
    pub(crate) fn counted_bytes(&self) -> usize {
        self.counted_bytes
    }

    pub(crate) fn front(&self) -> Option<&Outgoing> {
        self.places.front().and_then(|place| place.message.as_ref())
    }

    pub(crate) fn push_back(&mut self, message: Outgoing) {
        let number = self.places.back().map_or(MIDDLE, |last| last.number + 1);
        self.count_in(number, &message);
        self.places.push_back(Place { number, message: Some(message) });
    }

    /// Puts a message before all others.
    pub(crate) fn push_front(&mut self, message: Outgoing) {
        let number = self.places.front().map_or(MIDDLE, |first| first.number - 1);
        self.count_in(number, &message);
        self.places.push_front(Place { number, message: Some(message) });
    }

    /// The oldest message whose time is not over; expired ones before it are thrown away.
    pub(crate) fn pop(&mut self, now_ms: u64) -> Option<Outgoing> {
        loop {
            let Place { number, message } = self.places.pop_front()?;
            let Some(message) = message else { continue };
            self.count_out(number, &message);
            self.tidy();
            if !message.message.is_expired(now_ms) {
                return Some(message);
            }
        }
    }

    /// Whether there is a place for one more message; if need be, once those whose time is over have left. One message
    /// always has a place, however large.
    pub(crate) fn has_place(&mut self, weight: usize, bounds: Bounds, clock: Clock<'_>) -> bool {
        self.fits(weight, bounds) || self.expire(clock) && self.fits(weight, bounds)
    }

    fn fits(&self, weight: usize, bounds: Bounds) -> bool {
        let fits = self.counted == 0 || self.counted_bytes + weight <= bounds.bytes;
        fits && self.counted < bounds.messages
    }

    /// Throws away what nobody may get any more; whether there was any.
    pub(crate) fn expire(&mut self, clock: Clock<'_>) -> bool {
        if self.expiring.is_empty() {
            return false;
        }
        let (now_ms, before) = (clock(), self.messages);
        while let Some((at, number)) = self.expiring.first().copied()
            && at <= now_ms
        {
            self.expiring.pop_first();
            if let Ok(at) = self.places.binary_search_by_key(&number, |place| place.number) {
                self.take(at);
            }
        }
        self.tidy();
        self.messages < before
    }

    /// The message that has waited longest goes, except those from the store, which are bounded by themselves: how many
    /// bytes that is.
    pub(crate) fn drop_oldest(&mut self) -> Option<usize> {
        let counts = |place: &Place| place.message.as_ref().is_some_and(|message| !message.from_store);
        let oldest = self.places.iter().position(counts)?;
        let gone = self.take(oldest)?;
        self.tidy();
        Some(gone.weight())
    }

    /// Throws away what is not to be kept; how many messages that was.
    pub(crate) fn retain(&mut self, is_kept: impl Fn(&Message) -> bool) -> u64 {
        let before = self.messages;
        for at in 0..self.places.len() {
            let message = self.places.get(at).and_then(|place| place.message.as_ref());
            if message.is_some_and(|message| !is_kept(&message.message)) {
                self.take(at);
            }
        }
        self.tidy();
        (before - self.messages) as u64
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Outgoing> {
        self.places.iter().filter_map(|place| place.message.as_ref())
    }

    /// Lets go of what is somewhere else, too.
    pub(crate) fn discard(&mut self, goes: impl Fn(&Outgoing) -> bool) {
        for at in 0..self.places.len() {
            if self.places.get(at).and_then(|place| place.message.as_ref()).is_some_and(&goes) {
                self.take(at);
            }
        }
        self.tidy();
    }

    pub(crate) fn into_messages(self) -> impl DoubleEndedIterator<Item = Outgoing> {
        self.places.into_iter().filter_map(|place| place.message)
    }

    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.places.len()
    }

    fn take(&mut self, at: usize) -> Option<Outgoing> {
        let place = self.places.get_mut(at)?;
        let (number, message) = (place.number, place.message.take()?);
        self.count_out(number, &message);
        Some(message)
    }

    fn count_in(&mut self, number: u64, message: &Outgoing) {
        self.messages += 1;
        if !message.from_store {
            self.counted += 1;
            self.counted_bytes += message.weight();
        }
        if let Some(at) = message.message.expires_at_ms() {
            self.expiring.insert((at, number));
        }
    }

    fn count_out(&mut self, number: u64, message: &Outgoing) {
        self.messages -= 1;
        if !message.from_store {
            self.counted -= 1;
            self.counted_bytes -= message.weight();
        }
        if let Some(at) = message.message.expires_at_ms() {
            self.expiring.remove(&(at, number));
        }
    }

    fn tidy(&mut self) {
        while self.places.pop_front_if(|first| first.message.is_none()).is_some() {}
        if self.places.len() > 2 * self.messages + FEW_GAPS {
            self.places.retain(|place| place.message.is_some());
        }
        give_back(&mut self.places);
    }
}

/// An empty queue that once was long does not keep its memory.
pub(super) fn give_back<T>(queue: &mut VecDeque<T>) {
    if queue.is_empty() && queue.capacity() > 8 {
        *queue = VecDeque::new();
    }
}
