//! What the API counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use broker_core::Histogram;
use http::Method;

/// A snapshot of the API's counters; they only grow.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Requests answered.
    pub requests: u64,
    /// Messages published.
    pub published: u64,
    /// Publishes answered from a remembered idempotency key.
    pub duplicates: u64,
    /// Answers 401 and 403.
    pub refused_rights: u64,
    /// Answers 429 and 503.
    pub refused_busy: u64,
    /// All other answers from 400 on.
    pub failed: u64,
    /// Items of batches that were refused.
    pub failed_items: u64,
    /// Messages taken for one connection.
    pub direct_messages: u64,
    /// Connections closed.
    pub closed_connections: u64,
    /// Subscriptions made or ended for connections.
    pub forced_subscriptions: u64,
}

/// What is counted here; publishes are by the gate.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) requests: AtomicU64,
    pub(crate) refused_rights: AtomicU64,
    pub(crate) refused_busy: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) failed_items: AtomicU64,
    pub(crate) direct_messages: AtomicU64,
    pub(crate) closed_connections: AtomicU64,
    pub(crate) forced_subscriptions: AtomicU64,
}

/// How long answers took.
#[derive(Debug, Default)]
pub(crate) struct Times {
    publish: Histogram,
    history: Histogram,
    other: Histogram,
}

/// What a request's time is counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Publish,
    History,
    Other,
}

/// Of so many POSTs, which is what publishes are, one is timed: two looks at the clock and two additions.
const POSTS_PER_TIMED: u64 = 16;

impl Times {
    pub(crate) fn by_route(&self) -> [(&'static str, &Histogram); 3] {
        [("publish", &self.publish), ("history", &self.history), ("other", &self.other)]
    }

    pub(crate) fn answered(&self, route: Route, began: Instant) {
        let times = match route {
            Route::Publish => &self.publish,
            Route::History => &self.history,
            Route::Other => &self.other,
        };
        times.observe(began.elapsed());
    }
}

impl Counters {
    /// When a request begins that is to be timed.
    pub(crate) fn begin(&self, method: &Method) -> Option<Instant> {
        let is_timed = method != Method::POST || self.requests.load(Relaxed).is_multiple_of(POSTS_PER_TIMED);
        is_timed.then(Instant::now)
    }

    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }

    /// Counts an answer by its status.
    pub(crate) fn answered(&self, status: u16) {
        Self::add(&self.requests);
        match status {
            ..=399 => {}
            401 | 403 => Self::add(&self.refused_rights),
            429 | 503 => Self::add(&self.refused_busy),
            _ => Self::add(&self.failed),
        }
    }

    /// With what the gate has counted.
    pub(crate) fn snapshot(&self, gate: intake::Stats) -> Stats {
        Stats {
            requests: self.requests.load(Relaxed),
            published: gate.published,
            duplicates: gate.duplicates,
            refused_rights: self.refused_rights.load(Relaxed),
            refused_busy: self.refused_busy.load(Relaxed),
            failed: self.failed.load(Relaxed),
            failed_items: self.failed_items.load(Relaxed),
            direct_messages: self.direct_messages.load(Relaxed),
            closed_connections: self.closed_connections.load(Relaxed),
            forced_subscriptions: self.forced_subscriptions.load(Relaxed),
        }
    }
}
