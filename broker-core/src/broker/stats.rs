//! What the broker counts.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Broker;
use crate::lane::Lane;
use crate::metrics::{LaneStats, Stats};

impl Broker {
    /// Counters and gauges.
    pub fn stats(&self) -> Stats {
        let shared = self.shared();
        let counters = &shared.counters;
        let (retained_messages, retained_bytes) = shared.retained.usage();
        let (mut log_messages, mut log_bytes) = (0, 0);
        for log in shared.logs() {
            let (messages, bytes, _) = log.usage();
            (log_messages, log_bytes) = (log_messages + messages, log_bytes + bytes);
        }
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let lanes: Vec<LaneStats> = shared.lanes.iter().map(|lane| lane.stats()).collect();
        Stats {
            published: load(&counters.published),
            published_bytes: load(&counters.published_bytes),
            refused_busy: load(&counters.refused_busy),
            refused: load(&counters.refused),
            refused_levels: load(&counters.refused_levels),
            refused_filters: load(&counters.refused_filters),
            delivered: shared.lanes.iter().map(|lane| load(&lane.delivered)).sum(),
            dropped: shared.lanes.iter().map(|lane| load(&lane.dropped)).sum(),
            panicked: shared.lanes.iter().map(|lane| load(&lane.panicked)).sum(),
            channels: shared.registry.len(),
            wildcard_filters: shared.wildcards.filters(),
            filter_bytes: shared.filter_bytes(),
            subscribers: lanes.iter().map(|lane| lane.subscribers).sum(),
            subscriptions: shared.subscriptions.load(Ordering::Relaxed),
            retained_messages,
            retained_bytes,
            log_messages,
            log_bytes,
            log_head: shared.log.head(),
            kept_head: shared.kept.as_ref().map(|kept| kept.head()),
            idempotency_keys: shared.idempotency.len(),
            idempotency_forgotten_early: shared.idempotency.forgotten_early(),
            delivery_times: shared.timing.durations(),
            namespaces: {
                let mut all: Vec<_> = shared.logs().flat_map(|log| log.usage_by_namespace()).collect();
                // The rest, `*`, is in one of them and stays last.
                all.sort_by(|one, other| {
                    (&*one.name == "*", &one.name).cmp(&(&*other.name == "*", &other.name))
                });
                all
            },
            lanes,
        }
    }
}

impl Lane {
    fn stats(&self) -> LaneStats {
        LaneStats {
            waiting_deliveries: self.waiting_deliveries.load(Ordering::Relaxed),
            waiting_bytes: self.waiting_bytes.load(Ordering::Relaxed),
            subscribers: self.subscribers(),
        }
    }
}
