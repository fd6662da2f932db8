//! The events of one connection or channel, which go one after the other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::queue::{Event, Failure};

/// An event on its way.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) event: Arc<Event>,
    /// Its place among all events of the queue: the smaller the older.
    pub(super) number: u64,
    /// How often it was sent.
    pub(super) attempts: u32,
    /// Failures that count for its next wait.
    pub(super) failures: usize,
    /// The group of events among which one spoils their batch.
    pub(super) suspects: Option<u64>,
    pub(super) last: Option<Failure>,
}

/// Events that failed together: one of them at least spoils the batch, and they are sent in ever smaller ones until it
/// is alone.
#[derive(Debug)]
pub(super) struct Suspects {
    /// Those that have not been delivered.
    pub(super) left: usize,
    /// Most of them in one batch.
    pub(super) most_together: usize,
    /// Since when the one is looked for; none where the receiver has named it.
    pub(super) since: Option<Instant>,
}

impl Suspects {
    /// Half of them goes first.
    pub(super) fn new(left: usize, since: Option<Instant>) -> Self {
        Self { left, most_together: left.div_ceil(2).max(1), since }
    }
}

/// One connection's or channel's events.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) events: VecDeque<Waiting>,
    /// How many of the first are being sent; while there are any, nothing else of the line is.
    pub(super) in_flight: usize,
    /// Not before this, after a failure.
    pub(super) rests_until: Option<Instant>,
    /// Its entry among the lines that have something to do.
    pub(super) due: Option<(Instant, u64)>,
}

impl Line {
    /// Where the event with this number lies.
    pub(super) fn position(&self, number: u64) -> Option<usize> {
        self.events.binary_search_by_key(&number, |waiting| waiting.number).ok()
    }
}
