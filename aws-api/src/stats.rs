//! Counters.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) requests: Counter,
    pub(crate) not_signed: Counter,
    pub(crate) refused_rights: Counter,
    pub(crate) throttled: Counter,
    pub(crate) direct_messages: Counter,
    pub(crate) closed_connections: Counter,
    pub(crate) events: Counter,
    pub(crate) events_lost: Counter,
}

/// What the front has counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Requests.
    pub requests: u64,
    /// Of those, the ones whose signature was missing, unreadable or wrong.
    pub not_signed: u64,
    /// Of those, the ones that the rights of their key did not allow.
    pub refused_rights: u64,
    /// Of those, the ones that were told to come later.
    pub throttled: u64,
    /// Messages published.
    pub published: u64,
    /// Messages sent to one client alone.
    pub direct_messages: u64,
    /// Connections closed.
    pub closed_connections: u64,
    /// Events of clients' lives that were published.
    pub events: u64,
    /// Events that were not, as too many waited for a busy broker.
    pub events_lost: u64,
}

impl Counters {
    pub(crate) fn snapshot(&self, published: u64) -> Stats {
        Stats {
            requests: self.requests.value(),
            not_signed: self.not_signed.value(),
            refused_rights: self.refused_rights.value(),
            throttled: self.throttled.value(),
            published,
            direct_messages: self.direct_messages.value(),
            closed_connections: self.closed_connections.value(),
            events: self.events.value(),
            events_lost: self.events_lost.value(),
        }
    }
}
