//! The subscriptions of a session whose past is still to be sent.

use std::collections::{HashMap, VecDeque};

use broker_core::{After, Filter, Position, Replay};
use parking_lot::Mutex;

/// A subscription whose past is still to be sent.
pub(super) struct Waiting {
    pub(super) replay: Replay,
    pub(super) filter: Filter,
    pub(super) tag: u32,
    pub(super) after: After,
    pub(super) asked_at: Position,
}

/// A session's replays, and what they must know of its other subscriptions. Most sessions have none, and pay for a
/// pointer.
#[derive(Default)]
pub(super) struct Replays(Mutex<Option<Box<Known>>>);

#[derive(Default)]
struct Known {
    /// Those that wait for their turn.
    waiting: VecDeque<Waiting>,
    running: bool,
    /// The live subscriptions, and the position after which each brings all.
    live: HashMap<Filter, Position, ahash::RandomState>,
}

impl Replays {
    /// True if nobody runs them yet.
    pub(super) fn push(&self, waiting: Waiting) -> bool {
        let mut known = self.0.lock();
        let known = known.get_or_insert_default();
        known.waiting.push_back(waiting);
        !std::mem::replace(&mut known.running, true)
    }

    /// The next one; whoever gets `None` has stopped running them.
    pub(super) fn next(&self) -> Option<Waiting> {
        let mut known = self.0.lock();
        let known = known.as_mut()?;
        let next = known.waiting.pop_front();
        known.running = next.is_some();
        next
    }

    /// A live subscription has been made; it brings all after `since`.
    pub(super) fn note_live(&self, filter: &Filter, since: Position) {
        self.0.lock().get_or_insert_default().live.insert(filter.clone(), since);
    }

    pub(super) fn forget_live(&self, filter: &Filter) {
        if let Some(known) = self.0.lock().as_mut() {
            known.live.remove(filter);
        }
    }

    /// The position after which a live subscription brings all; `None` while it is being made.
    pub(super) fn live_since(&self, filter: &Filter) -> Option<Position> {
        self.0.lock().as_ref()?.live.get(filter).copied()
    }
}
