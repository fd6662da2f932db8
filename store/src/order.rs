//! The order of the log: which place a message has in it, and which ones are released while a batch is on its way to
//! the disk.
//!
//! One rule makes positions whole: *messages are released in the order of their places*, over all channels. A batch gets
//! its places when it is made, and they lie a little ahead: in the room before them are those that nobody waits for and
//! that come while the disk is at it. They are released at once and so before the batch, whose places are larger. On a
//! channel that has something waiting for the disk none is released, so that it keeps its order.
//!
//! ```text
//! ... 17 18 │ 19 20 21 ·  ·  · │ 82 83 84      82 to 84: a batch on its way to the disk, released when it is there
//! released  │ released now     │               19 to 21: came meanwhile. The room behind them stays empty
//! ```

use std::sync::atomic::{AtomicU32, Ordering};

use ahash::{AHashMap, RandomState};
use broker_core::{Accepted, Channel, Publish, unix_ms};
use parking_lot::Mutex;

use crate::schema::BLOCK;

/// Channels whose newest place is remembered.
const MAX_LAST: usize = 100_000;
/// Marks of channels that something waits on. Two channels may share one, and then wait for each other.
const MARKS: usize = 1_024;
/// Room that is left before a batch.
const MIN_ROOM: u64 = 64;
const MAX_ROOM: u64 = 8_192;
/// Messages that wait for a batch to be released, not for the disk.
const MAX_HELD: usize = 1_024;

pub(crate) struct Order {
    state: Mutex<State>,
    /// How many that are not released yet are on the channels of a mark.
    marks: Box<[AtomicU32]>,
    hasher: RandomState,
}

struct State {
    /// The newest place that was given to what is released.
    head: u64,
    /// What is released at once has its places up to here: before those of the batch on its way, within what the disk
    /// knows to be given.
    limit: u64,
    /// The newest place that the disk knows to be given.
    reserved: u64,
    /// The newest place on channels that were published to lately.
    last: AHashMap<Channel, u64>,
    /// A batch is being released: what is not to wait for the disk follows it.
    held: Option<Vec<Publish>>,
    /// The room before the next batch, and what came before this one. None is left until it was wanted once.
    room: u64,
    came: u64,
    /// It was used up: something had to wait that would not have with more.
    is_tight: bool,
}

/// Where a message stands that nobody waits for.
pub(crate) enum Posted {
    /// It was released.
    Released,
    /// It will be, right behind the batch that is being released.
    Held,
    /// It has to go with a batch.
    Waits(Publish),
}

impl Order {
    /// Goes on after `head`, of which the disk knows.
    pub(crate) fn new(head: u64) -> Self {
        let state = State {
            head,
            limit: head,
            reserved: head,
            last: AHashMap::new(),
            held: None,
            room: 0,
            came: 0,
            is_tight: false,
        };
        let marks = (0..MARKS).map(|_| AtomicU32::new(0)).collect();
        Self { state: Mutex::new(state), marks, hasher: RandomState::new() }
    }

    /// The mark of a channel: one index of [`MARKS`].
    pub(crate) fn mark_of(&self, channel: &Channel) -> u16 {
        (self.hasher.hash_one(channel.as_str()) % MARKS as u64) as u16
    }

    fn mark(&self, mark: u16) -> Option<&AtomicU32> {
        self.marks.get(usize::from(mark))
    }

    /// Something on a channel of this mark waits for the disk from now on.
    pub(crate) fn wait_on(&self, mark: Option<u16>) {
        if let Some(mark) = mark.and_then(|mark| self.mark(mark)) {
            mark.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// It waits no more. What waits on its channel and came later is released later: whoever says so has begun to
    /// release, or releases nothing.
    pub(crate) fn wait_no_more(&self, marks: &[u16]) {
        for mark in marks.iter().filter_map(|mark| self.mark(*mark)) {
            mark.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Gives a place to a message that nobody waits for, and has it released, if nothing is before it on its channel.
    pub(crate) fn post(&self, publish: Publish, release: impl FnOnce(Accepted)) -> Posted {
        let mark = self.mark_of(publish.channel());
        let mut state = self.state.lock();
        state.came += 1;
        let is_free = self.mark(mark).is_some_and(|mark| mark.load(Ordering::Relaxed) == 0);
        let held = state.held.as_ref().map_or(0, Vec::len);
        let is_full = state.head + held as u64 >= state.limit;
        state.is_tight |= is_full;
        if !is_free || held >= MAX_HELD || is_full {
            return Posted::Waits(publish);
        }
        if let Some(held) = &mut state.held {
            held.push(publish);
            return Posted::Held;
        }
        release(state.accept(publish, unix_ms()));
        Posted::Released
    }

    /// The same between two batches, of one that had to wait and that nothing is before any more on its channel.
    pub(crate) fn release_now<T>(
        &self,
        publish: Box<Publish>,
        release: impl FnOnce(Accepted) -> T,
    ) -> Result<T, Box<Publish>> {
        let mark = self.mark_of(publish.channel());
        let mut state = self.state.lock();
        if state.held.is_some() || state.head >= state.limit {
            return Err(publish);
        }
        let released = release(state.accept(*publish, unix_ms()));
        self.wait_no_more(&[mark]);
        Ok(released)
    }

    /// Whether the disk is to know of more places soon.
    pub(crate) fn is_short(&self) -> bool {
        let state = self.state.lock();
        state.head + MAX_ROOM + BLOCK / 2 > state.reserved
    }

    /// Up to where the disk is to know of places next.
    pub(crate) fn to_reserve(&self) -> u64 {
        self.state.lock().head + MAX_ROOM + BLOCK
    }

    /// Up to where the disk knows of places.
    pub(crate) fn reserved(&self) -> u64 {
        self.state.lock().reserved
    }

    /// The disk knows that all up to `through` may have been given.
    pub(crate) fn reserve(&self, through: u64) {
        let mut state = self.state.lock();
        let is_free = state.limit == state.reserved;
        state.reserved = state.reserved.max(through);
        if is_free {
            state.limit = state.reserved;
        }
    }

    /// The place before those of a batch of so many messages, with room for what comes while it is on its way. `None`: the
    /// disk has to know of more places first.
    pub(crate) fn begin_batch(&self, messages: u64) -> Option<u64> {
        let mut state = self.state.lock();
        if state.room > 0 || state.came > 0 {
            // Who waits for a message that waits publishes nothing meanwhile: what came then says little of what would come.
            let room = if state.is_tight { 2 * state.room } else { state.room - state.room / 8 };
            state.room = room.max(2 * state.came).clamp(MIN_ROOM, MAX_ROOM);
        }
        // What is held while the batch before is released has come since that began: there is room for it as well.
        let before = state.head + state.room;
        if before + messages > state.reserved {
            return None;
        }
        (state.came, state.is_tight) = (0, false);
        state.limit = before;
        Some(before)
    }

    /// Notes a message of a batch; the place before it on its channel, as far as that is known.
    pub(crate) fn place(&self, channel: &Channel, offset: u64) -> u64 {
        self.state.lock().place(channel, offset)
    }

    /// The batch is released now, and nothing else meanwhile. `last` is its last place.
    pub(crate) fn begin_release(&self, last: u64, marks: &[u16]) {
        let mut state = self.state.lock();
        state.head = state.head.max(last);
        state.limit = state.reserved;
        state.held = Some(Vec::new());
        self.wait_no_more(marks);
    }

    /// The batch is released: what came meanwhile and nobody waits for follows.
    pub(crate) fn end_release(&self, mut release: impl FnMut(Vec<Accepted>)) {
        loop {
            let mut state = self.state.lock();
            let Some(held) = state.held.take_if(|held| !held.is_empty()) else {
                state.held = None;
                return;
            };
            state.held = Some(Vec::new());
            let now_ms = unix_ms();
            let accepted = held.into_iter().map(|publish| state.accept(publish, now_ms)).collect();
            drop(state);
            release(accepted);
        }
    }

    /// Nothing of a batch is released: its places are skipped.
    pub(crate) fn give_up(&self, last: u64, marks: &[u16]) {
        self.begin_release(last, marks);
        self.end_release(|_| {});
    }

    pub(crate) fn head(&self) -> u64 {
        self.state.lock().head
    }

    /// What `look` sees while nothing is released but by a batch: with the newest place that was given.
    pub(crate) fn settled<T>(&self, look: impl FnOnce(u64) -> T) -> T {
        let state = self.state.lock();
        look(state.head)
    }
}

impl State {
    fn accept(&mut self, publish: Publish, now_ms: u64) -> Accepted {
        self.head += 1;
        let prev = self.place(publish.channel(), self.head);
        let mut accepted = Accepted::new(publish, self.head, now_ms);
        accepted.prev = prev;
        accepted
    }

    fn place(&mut self, channel: &Channel, offset: u64) -> u64 {
        if let Some(last) = self.last.get_mut(channel) {
            return std::mem::replace(last, offset);
        }
        if self.last.len() >= MAX_LAST {
            self.last.clear();
        }
        self.last.insert(channel.clone(), offset);
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish() -> Publish {
        Publish::new(Channel::parse("chat").unwrap(), "x")
    }

    /// What becomes of a chat that would publish so much during each flush, and stops as soon as something of it waits: how
    /// many flushes it waited for.
    fn waits(order: &Order, flushes: usize, wanted: usize) -> usize {
        let (mut waits, mut waiting) = (0, 0);
        for _ in 0..flushes {
            let messages = 1 + waiting;
            let before = order.begin_batch(messages).unwrap_or_else(|| {
                order.reserve(order.to_reserve());
                order.begin_batch(messages).expect("there is room now")
            });
            let marks = vec![order.mark_of(publish().channel()); waiting as usize];
            let comes = if waiting == 0 { wanted } else { 0 };
            waiting = 0;
            for _ in 0..comes {
                if let Posted::Waits(publish) = order.post(publish(), |_| {}) {
                    order.wait_on(Some(order.mark_of(publish.channel())));
                    waiting = 1;
                    waits += 1;
                    break;
                }
            }
            order.begin_release(before + messages, &marks);
            order.end_release(|_| {});
        }
        waits
    }

    #[test]
    fn a_chat_that_had_to_wait_finds_more_room_and_waits_no_more() {
        let order = Order::new(0);
        order.reserve(order.to_reserve());
        assert!(waits(&order, 100, 1_000) <= 10);
        assert_eq!(waits(&order, 100, 1_000), 0, "it found its room");
        // Silence for a while takes the room away by and by.
        assert_eq!(waits(&order, 100, 0), 0);
        assert!(waits(&order, 100, 1_000) <= 10);
    }

    #[test]
    fn what_is_released_keeps_the_order_of_places() {
        let order = Order::new(0);
        order.reserve(order.to_reserve());
        let mut released = Vec::new();
        for round in 0..50_u64 {
            let before = order.begin_batch(3).expect("there is room");
            for _ in 0..round % 7 * 30 {
                _ = order.post(publish(), |accepted| released.push(accepted.offset));
            }
            order.begin_release(before + 3, &[]);
            released.extend(before + 1..=before + 3);
            assert!(matches!(order.post(publish(), |_| panic!("it is held")), Posted::Held));
            order.end_release(|held| released.extend(held.iter().map(|accepted| accepted.offset)));
        }
        assert!(released.is_sorted_by(|one, other| one < other));
    }

    #[test]
    fn what_comes_while_a_batch_is_released_has_its_places_before_the_next_batch() {
        let order = Order::new(0);
        let mut released = Vec::new();
        for _ in 0..20 {
            order.reserve(order.to_reserve());
            let before = order.begin_batch(3).expect("there is room");
            order.begin_release(before + 3, &[]);
            released.extend(before + 1..=before + 3);
            for _ in 0..MAX_HELD {
                _ = order.post(publish(), |_| panic!("it is held"));
            }
            // The next one is written before this one is released.
            let next = order.begin_batch(2).expect("there is room");
            order.end_release(|held| released.extend(held.iter().map(|accepted| accepted.offset)));
            assert!(released.last().is_some_and(|last| *last <= next), "{released:?}, {next}");
            order.begin_release(next + 2, &[]);
            released.extend([next + 1, next + 2]);
            order.end_release(|_| {});
        }
        assert!(released.len() > 20 * MAX_HELD && released.is_sorted_by(|one, other| one < other));
    }
}
