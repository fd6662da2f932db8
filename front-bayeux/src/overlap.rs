//! Messages that a replay and another subscription of the same session would both bring.
//!
//! The core sends a message once to a session that several live subscriptions hit. A replay is apart from them: it
//! reads the log at its own pace. While one runs, the session remembers which messages of channels that more than one
//! of its subscriptions cover it has had.

use std::collections::HashSet;

use broker_core::{Filter, Message};

/// Offsets remembered at most. Beyond it a message may come twice, but none is lost.
const MAX_SEEN: usize = 262_144;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Overlap {
    /// Replays that run.
    replays: u32,
    /// All subscriptions since the first of them began; one that was given up stays, as something of it may still be
    /// on its way.
    filters: Vec<Filter>,
    seen: HashSet<u64, ahash::RandomState>,
}

impl Overlap {
    /// Another replay runs, beside these subscriptions, its own among them.
    pub(crate) fn begin(&mut self, filters: Vec<Filter>) {
        self.replays += 1;
        for filter in filters {
            self.expect(filter);
        }
    }

    /// A subscription is about to be made.
    pub(crate) fn expect(&mut self, filter: Filter) {
        if !self.filters.contains(&filter) {
            self.filters.push(filter);
        }
    }

    /// A replay has ended and all that went before its end was delivered. True if it was the last.
    pub(crate) fn end(&mut self) -> bool {
        self.replays = self.replays.saturating_sub(1);
        self.replays == 0
    }

    /// Whether the session has not had this message.
    pub(crate) fn admits(&mut self, message: &Message) -> bool {
        let matching = self.filters.iter().filter(|filter| filter.matches(message.channel()));
        if message.offset() == 0 || matching.take(2).count() < 2 || self.seen.len() >= MAX_SEEN {
            return true;
        }
        self.seen.insert(message.offset())
    }
}
