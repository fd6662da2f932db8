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
        let (log_messages, log_bytes, _) = shared.log.usage();
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
            idempotency_keys: shared.idempotency.len(),
            idempotency_forgotten_early: shared.idempotency.forgotten_early(),
            delivery_times: shared.timing.durations(),
            namespaces: shared.log.usage_by_namespace(),
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
