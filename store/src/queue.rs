//! What waits for the committer, bounded.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use broker_core::{Accepted, Channel, Note, Op, Publish, Reject, Unavailable};
use parking_lot::{Condvar, Mutex};

use crate::gather::Wanted;

/// What a batch holds at most.
pub(crate) const BATCH_OPS: usize = 512;
const BATCH_BYTES: usize = 1 << 20;

/// So many that are released already are written together, or what comes within this time: nobody waits for that.
const MANY_RELEASED: usize = 256;
const LINGER: Duration = Duration::from_millis(10);

/// When a publisher that finds it full may try again.
const BUSY: Unavailable = Unavailable::new(Duration::from_millis(20));

pub(crate) struct Queue {
    state: Mutex<State>,
    come: Condvar,
    max_ops: usize,
    max_bytes: usize,
}

#[derive(Default)]
struct State {
    items: VecDeque<(Item, usize)>,
    bytes: usize,
    /// Those of them that are released already, and since when the oldest is here.
    released: usize,
    released_since: Option<Instant>,
    /// The committer waits for so many that somebody waits for.
    wanted: usize,
    is_closed: bool,
    /// The committer is to look around.
    is_woken: bool,
}

/// What waits for the disk.
pub(crate) enum Item {
    /// What somebody wants to be told of.
    Op(Op),
    /// A message that nobody waits for. It is released with its batch.
    Quiet(Box<Publish>),
    /// One that was released.
    Released(Accepted),
}

/// What the committer finds.
pub(crate) struct Taken {
    pub(crate) items: Vec<Item>,
    /// Nothing comes any more.
    pub(crate) is_over: bool,
}

impl Queue {
    pub(crate) fn new(max_ops: usize, max_bytes: usize) -> Self {
        Self { state: Mutex::default(), come: Condvar::new(), max_ops, max_bytes }
    }

    /// Gives it back if it is full, or closed.
    pub(crate) fn put<T: Waits>(&self, what: T) -> Result<(), (Reject, T)> {
        let weight = what.weight();
        let mut state = self.state.lock();
        if let Err(why) = self.admits(&state, weight) {
            return Err((why, what));
        }
        state.push(what.into(), weight);
        let waiting = state.waiting();
        let wakes = waiting == 1 || waiting == state.wanted;
        drop(state);
        if wakes {
            self.come.notify_one();
        }
        Ok(())
    }

    /// Whether there is room for a message.
    pub(crate) fn has_room_for(&self, publish: &Publish) -> Result<(), Reject> {
        self.admits(&self.state.lock(), weigh(publish))
    }

    /// For a message that was [found room for](Self::has_room_for).
    pub(crate) fn put_released(&self, accepted: Accepted) {
        let weight = weigh(&accepted.publish);
        let mut state = self.state.lock();
        state.push(Item::Released(accepted), weight);
        state.released += 1;
        if state.released == 1 {
            state.released_since = Some(Instant::now());
        }
        let wakes = state.released == 1 || state.released == MANY_RELEASED;
        drop(state);
        if wakes {
            self.come.notify_one();
        }
    }

    fn admits(&self, state: &State, weight: usize) -> Result<(), Reject> {
        if state.is_closed {
            return Err(Reject::Unavailable(BUSY));
        }
        // One of any size finds room in an empty queue.
        let is_full = state.items.len() >= self.max_ops || state.bytes + weight > self.max_bytes;
        if is_full && !state.items.is_empty() && weight > 0 { Err(Reject::Busy(BUSY)) } else { Ok(()) }
    }

    /// What waits, up to a batch; waits for the first, but no longer than `patience`, and from the first on for as many as
    /// are wanted.
    pub(crate) fn take(&self, patience: Duration, wanted: Wanted) -> Taken {
        let until = Instant::now() + patience;
        let mut state = self.state.lock();
        while !state.is_disturbed() && state.waiting() == 0 && state.released < MANY_RELEASED {
            let lingers = state.released_since.map(|since| since + LINGER);
            if self.come.wait_until(&mut state, lingers.map_or(until, |at| at.min(until))).timed_out() {
                break;
            }
        }
        if state.waiting() > 0 && !wanted.wait.is_zero() {
            let until = Instant::now() + wanted.wait;
            state.wanted = wanted.ops.min(BATCH_OPS);
            while !state.is_disturbed() && state.waiting() < state.wanted && state.bytes < BATCH_BYTES {
                if self.come.wait_until(&mut state, until).timed_out() {
                    break;
                }
            }
            state.wanted = 0;
        }
        state.is_woken = false;
        let (mut items, mut bytes) = (Vec::new(), 0);
        while items.len() < BATCH_OPS
            && let Some((_, weight)) = state.items.front()
            && (items.is_empty() || bytes + weight <= BATCH_BYTES)
            && let Some((item, weight)) = state.items.pop_front()
        {
            bytes += weight;
            state.released -= usize::from(matches!(item, Item::Released(_)));
            items.push(item);
        }
        state.bytes -= bytes;
        if state.released == 0 {
            state.released_since = None;
        }
        Taken { is_over: state.is_closed && items.is_empty(), items }
    }

    /// Takes nothing more; what waits is still taken out.
    pub(crate) fn close(&self) {
        self.state.lock().is_closed = true;
        self.come.notify_one();
    }

    /// Has the committer look around although nothing has come.
    pub(crate) fn wake(&self) {
        self.state.lock().is_woken = true;
        self.come.notify_one();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().is_closed
    }

    pub(crate) fn waiting(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.items.len(), state.bytes)
    }

    /// How many of them somebody waits for, or are released with their batch.
    pub(crate) fn unreleased(&self) -> usize {
        self.state.lock().waiting()
    }

    /// How many of them are released already.
    pub(crate) fn released(&self) -> usize {
        self.state.lock().released
    }
}

impl State {
    /// How many are not released yet.
    fn waiting(&self) -> usize {
        self.items.len() - self.released
    }

    /// Something else is to be done.
    fn is_disturbed(&self) -> bool {
        self.is_closed || self.is_woken
    }

    fn push(&mut self, item: Item, weight: usize) {
        self.bytes += weight;
        self.items.push_back((item, weight));
    }
}

/// What is released with its batch.
pub(crate) trait Waits: Into<Item> {
    /// The channel whose order it is part of.
    fn waits_on(&self) -> Option<&Channel>;

    /// What it counts in the bounds; who only asks to be told, nothing, and is never in the way.
    fn weight(&self) -> usize;
}

impl Waits for Op {
    fn waits_on(&self) -> Option<&Channel> {
        match self {
            Self::Publish { publish, .. } => Some(publish.channel()),
            _ => None,
        }
    }

    fn weight(&self) -> usize {
        match self {
            Self::Publish { publish, key, .. } => {
                weigh(publish) + key.as_ref().map_or(0, |key| key.text.len() + key.user.len())
            }
            Self::Session { record, .. } => OVERHEAD + record.as_ref().map_or(0, |record| record.state.len()),
            Self::Notes { notes, .. } => OVERHEAD + notes.iter().map(Note::weight).sum::<usize>(),
            Self::Barrier(_) => 0,
            _ => OVERHEAD,
        }
    }
}

impl Waits for Box<Publish> {
    fn waits_on(&self) -> Option<&Channel> {
        Some(self.channel())
    }

    fn weight(&self) -> usize {
        weigh(self)
    }
}

impl From<Op> for Item {
    fn from(op: Op) -> Self {
        Self::Op(op)
    }
}

impl From<Box<Publish>> for Item {
    fn from(publish: Box<Publish>) -> Self {
        Self::Quiet(publish)
    }
}

const OVERHEAD: usize = 256;

fn weigh(publish: &Publish) -> usize {
    OVERHEAD + publish.payload().len() + publish.channel().as_str().len()
}
