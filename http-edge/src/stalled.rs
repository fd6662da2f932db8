//! What waits for HTTP/2 clients that take nothing, over all connections of a server.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::held::{Held, Which};

/// The account that connections share. Clones are handles to the same one.
#[derive(Clone, Debug, Default)]
pub struct Stalled(Arc<Account>);

#[derive(Debug, Default)]
struct Account {
    bytes: AtomicUsize,
    reset: AtomicU64,
    refused: AtomicU64,
    /// Those that hold enough for it to matter.
    connections: Mutex<Vec<Weak<Held>>>,
}

impl Stalled {
    /// Bytes that wait now, of responses that do not go at once.
    pub fn bytes(&self) -> usize {
        self.0.bytes.load(Relaxed)
    }

    /// Streams that were reset because too much waited for their clients.
    pub fn reset(&self) -> u64 {
        self.0.reset.load(Relaxed)
    }

    /// Responses that were replaced by a 503 because too much waited already.
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Relaxed)
    }

    /// Has a connection found when room is needed. To be called when what it holds has come to matter.
    pub(crate) fn list(&self, held: &Arc<Held>) {
        let mut connections = self.0.connections.lock();
        if held.mark_listed(true) {
            return;
        }
        if connections.len() == connections.capacity() {
            connections.retain(|connection| connection.strong_count() > 0);
        }
        connections.push(Arc::downgrade(held));
    }

    /// The connections that hold enough for it to matter, and how much, the largest first.
    fn largest_first(&self) -> Vec<(usize, Arc<Held>)> {
        let mut found = Vec::new();
        self.0.connections.lock().retain(|connection| {
            let Some(held) = connection.upgrade() else { return false };
            let mut matters = held.matters();
            if !matters {
                held.mark_listed(false);
                // It may have grown, and seen itself listed still.
                matters = held.matters();
                if matters {
                    held.mark_listed(true);
                }
            }
            // Also one that is not kept: dropped here, it could be the last handle, under the lock.
            found.push((held.counted(), held));
            matters
        });
        found.sort_unstable_by_key(|(counted, _)| Reverse(*counted));
        found
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn take_off(&self, bytes: usize) {
        self.0.bytes.fetch_sub(bytes, Relaxed);
    }

    /// Adds them if all are within `max` then, and says whether they are.
    fn reserve(&self, bytes: usize, max: usize) -> bool {
        let within = |held: usize| held.checked_add(bytes).filter(|sum| *sum <= max);
        self.0.bytes.fetch_update(Relaxed, Relaxed, within).is_ok()
    }

    /// Adds what a response of `asking` holds if that is within `max`, or once others have given up enough: connections that would
    /// still hold more than this one, or that hold more than it does now, of what makes no progress. So a client that holds little
    /// is served however much others hold, and one that holds most makes nobody give way.
    pub(crate) fn admit(&self, asking: &Held, bytes: usize, max: usize) -> bool {
        let admits = bytes <= max && self.make_room(asking, bytes, max);
        if !admits {
            self.0.refused.fetch_add(1, Relaxed);
        }
        admits
    }

    fn make_room(&self, asking: &Held, bytes: usize, max: usize) -> bool {
        while !self.reserve(bytes, max) {
            let need = self.bytes().saturating_add(bytes).saturating_sub(max).max(1);
            let own = asking.counted();
            let freed = self.largest_first().iter().any(|(holds, held)| {
                let beyond = holds.saturating_sub(own.saturating_add(bytes));
                beyond > 0 && held.give_up(need.min(beyond), Which::Any) > 0
                    || *holds > own && held.give_up(need, Which::Stalled) > 0
            });
            if !freed {
                return false;
            }
        }
        true
    }

    /// Has the connections that hold most give up what is beyond `max`, first of what makes no progress.
    pub(crate) fn relieve(&self, max: usize) {
        while self.bytes() > max {
            let largest = self.largest_first();
            let gives = |which| {
                let excess = || self.bytes().saturating_sub(max);
                largest.iter().any(|(_, held)| held.give_up(excess(), which) > 0)
            };
            if !gives(Which::Stalled) && !gives(Which::Any) {
                return;
            }
        }
    }

    pub(crate) fn count_reset(&self, streams: usize) {
        self.0.reset.fetch_add(streams as u64, Relaxed);
    }
}
