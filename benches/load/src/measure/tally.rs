//! Counts and latencies of a run, mergeable over processes.

use std::ops::AddAssign;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Longest latency told apart, microseconds (5 minutes); longer ones are counted as this.
const MAX_LATENCY_US: u64 = 300_000_000;

/// What went wrong with deliveries. All zero, or the run has failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Faults {
    pub(crate) lost: u64,
    pub(crate) duplicate: u64,
    pub(crate) reordered: u64,
    /// Payloads that are not ours, or came on the wrong channel.
    pub(crate) foreign: u64,
    /// Publishes the server refused.
    pub(crate) refused: u64,
    /// Connections that the server closed, refused, or that broke protocol.
    pub(crate) broken: u64,
}

impl Faults {
    pub(crate) fn any(&self) -> bool {
        *self != Self::default()
    }
}

impl AddAssign for Faults {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicate += other.duplicate;
        self.reordered += other.reordered;
        self.foreign += other.foreign;
        self.refused += other.refused;
        self.broken += other.broken;
    }
}

impl std::fmt::Display for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { lost, duplicate, reordered, foreign, refused, broken } = self;
        write!(
            f,
            "lost {lost}, duplicate {duplicate}, reordered {reordered}, foreign {foreign}, refused {refused}, broken {broken}"
        )
    }
}

/// Deliveries of one measured span.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    pub(crate) deliveries: u64,
    pub(crate) faults: Faults,
    latency_us: Histogram<u32>,
}

impl Default for Tally {
    fn default() -> Self {
        let latency_us = Histogram::new_with_bounds(1, MAX_LATENCY_US, 3).expect("constant bounds are valid");
        Self { deliveries: 0, faults: Faults::default(), latency_us }
    }
}

impl Tally {
    pub(crate) fn record(&mut self, latency_ns: u64) {
        self.deliveries += 1;
        self.latency_us.saturating_record((latency_ns / 1_000).max(1));
    }

    pub(crate) fn merge(&mut self, other: &TallyText) {
        self.deliveries += other.deliveries;
        self.faults += other.faults;
        for (value, count) in &other.latency_us {
            // Within the bounds, because the other process has the same ones.
            let _ = self.latency_us.record_n(*value, *count);
        }
    }

    /// Latency at `quantile` (0 to 1), milliseconds; 0 if nothing arrived.
    pub(crate) fn latency_ms(&self, quantile: f64) -> f64 {
        if self.latency_us.is_empty() {
            return 0.0;
        }
        self.latency_us.value_at_quantile(quantile) as f64 / 1_000.0
    }

    pub(crate) fn max_ms(&self) -> f64 {
        self.latency_us.max() as f64 / 1_000.0
    }

    pub(crate) fn to_text(&self) -> TallyText {
        TallyText {
            deliveries: self.deliveries,
            faults: self.faults,
            latency_us: self
                .latency_us
                .iter_recorded()
                .map(|step| (step.value_iterated_to(), step.count_at_value()))
                .collect(),
        }
    }
}

/// A tally as it travels between processes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TallyText {
    deliveries: u64,
    faults: Faults,
    latency_us: Vec<(u64, u32)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merged_tally_counts_both_sides() {
        let (mut here, mut there) = (Tally::default(), Tally::default());
        for ms in 1..=100 {
            here.record(ms * 1_000_000);
            there.record((ms + 100) * 1_000_000);
        }
        there.faults.lost = 3;
        here.merge(&there.to_text());
        assert_eq!((here.deliveries, here.faults.lost), (200, 3));
        assert!((here.latency_ms(0.5) - 100.0).abs() < 1.0, "{}", here.latency_ms(0.5));
        assert!((here.max_ms() - 200.0).abs() < 1.0);
    }
}
