//! What waits for the committer, bounded.

use std::collections::VecDeque;
use std::time::Duration;

use broker_core::{Op, Reject, Unavailable};
use parking_lot::{Condvar, Mutex};

/// What a batch holds at most.
const BATCH_OPS: usize = 512;
const BATCH_BYTES: usize = 1 << 20;

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
    ops: VecDeque<(Op, usize)>,
    bytes: usize,
    is_closed: bool,
}

/// What the committer finds.
pub(crate) struct Taken {
    pub(crate) ops: Vec<Op>,
    /// Nothing comes any more.
    pub(crate) is_over: bool,
}

impl Queue {
    pub(crate) fn new(max_ops: usize, max_bytes: usize) -> Self {
        Self { state: Mutex::default(), come: Condvar::new(), max_ops, max_bytes }
    }

    /// Gives it back if it is full, or closed.
    pub(crate) fn put(&self, op: Op) -> Result<(), (Reject, Op)> {
        let weight = weight(&op);
        let mut state = self.state.lock();
        if state.is_closed {
            return Err((Reject::Unavailable(BUSY), op));
        }
        // One of any size finds room in an empty queue; who only asks to be told is never in the way.
        let is_full = state.ops.len() >= self.max_ops || state.bytes + weight > self.max_bytes;
        if is_full && !state.ops.is_empty() && !matches!(op, Op::Barrier(_)) {
            return Err((Reject::Busy(BUSY), op));
        }
        state.bytes += weight;
        state.ops.push_back((op, weight));
        let was_empty = state.ops.len() == 1;
        drop(state);
        if was_empty {
            self.come.notify_one();
        }
        Ok(())
    }

    /// What waits, up to a batch; waits for the first, but no longer than `patience`.
    pub(crate) fn take(&self, patience: Duration) -> Taken {
        let mut state = self.state.lock();
        if state.ops.is_empty() && !state.is_closed {
            self.come.wait_for(&mut state, patience);
        }
        let (mut ops, mut bytes) = (Vec::new(), 0);
        while ops.len() < BATCH_OPS
            && let Some((_, weight)) = state.ops.front()
            && (ops.is_empty() || bytes + weight <= BATCH_BYTES)
            && let Some((op, weight)) = state.ops.pop_front()
        {
            bytes += weight;
            ops.push(op);
        }
        state.bytes -= bytes;
        Taken { is_over: state.is_closed && ops.is_empty(), ops }
    }

    /// Takes nothing more; what waits is still taken out.
    pub(crate) fn close(&self) {
        self.state.lock().is_closed = true;
        self.come.notify_one();
    }

    /// Has the committer look around although nothing has come.
    pub(crate) fn wake(&self) {
        self.come.notify_one();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().is_closed
    }

    pub(crate) fn waiting(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.ops.len(), state.bytes)
    }
}

fn weight(op: &Op) -> usize {
    const OVERHEAD: usize = 256;
    OVERHEAD
        + match op {
            Op::Publish { publish, key, .. } => {
                publish.payload().len()
                    + publish.channel().as_str().len()
                    + key.as_ref().map_or(0, |key| key.text.len() + key.user.len())
            }
            Op::Session { record, .. } => record.as_ref().map_or(0, |record| record.state.len()),
            _ => 0,
        }
}
