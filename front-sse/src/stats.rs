//! What the front counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A snapshot of the front's counters. All but `streams` only grow.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Streams open now.
    pub streams: u64,
    /// Streams opened.
    pub opened: u64,
    /// Of these, those that resumed from an id.
    pub resumed: u64,
    /// Gaps told to streams that resumed.
    pub gaps: u64,
    /// Streams closed because their reader was too slow.
    pub closed_slow: u64,
    /// Requests refused for lack of credentials or rights.
    pub refused_rights: u64,
    /// Requests refused for any other reason, and streams sent away because there were too many.
    pub refused: u64,
    /// Messages that an event stream cannot express, once per format.
    pub inexpressible: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) opened: AtomicU64,
    pub(crate) resumed: AtomicU64,
    pub(crate) gaps: AtomicU64,
    pub(crate) closed_slow: AtomicU64,
    pub(crate) refused_rights: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) inexpressible: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }

    pub(crate) fn snapshot(&self, streams: usize) -> Stats {
        Stats {
            streams: streams as u64,
            opened: self.opened.load(Relaxed),
            resumed: self.resumed.load(Relaxed),
            gaps: self.gaps.load(Relaxed),
            closed_slow: self.closed_slow.load(Relaxed),
            refused_rights: self.refused_rights.load(Relaxed),
            refused: self.refused.load(Relaxed),
            inexpressible: self.inexpressible.load(Relaxed),
        }
    }
}
