//! Who came and who left, by protocol and reason.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use broker_core::{Account, Connection, LeaveReason, Left, Lifecycle, SubscriberKey};
use front::{Metric, MetricSource};

/// Protocols whose clients are counted; those of a front of the embedding service's own are `other`.
const PROTOCOLS: [&str; 6] = ["aws", "bayeux", "grip", "mqtt", "sse", "other"];

/// Counts what [`Broker::hear`](broker_core::Broker::hear) tells it.
#[derive(Default)]
pub(crate) struct Clients {
    joined: [AtomicU64; PROTOCOLS.len()],
    left: [[AtomicU64; LeaveReason::ALL.len()]; PROTOCOLS.len()],
}

impl Clients {
    fn place(protocol: &str) -> usize {
        PROTOCOLS.iter().position(|known| *known == protocol).unwrap_or(PROTOCOLS.len() - 1)
    }

    /// Clients that are connected now.
    #[cfg(all(feature = "cluster", feature = "http"))]
    pub(crate) fn here(&self) -> u64 {
        // Who has left meanwhile is not to be one too many.
        let left: u64 = self.left.iter().flatten().map(|left| left.load(Relaxed)).sum();
        let joined: u64 = self.joined.iter().map(|joined| joined.load(Relaxed)).sum();
        joined.saturating_sub(left)
    }
}

impl Lifecycle for Clients {
    fn joined(&self, _: SubscriberKey, connection: &Arc<dyn Connection>) {
        let protocol = connection.peer().map_or("", |peer| peer.protocol);
        if let Some(joined) = self.joined.get(Self::place(protocol)) {
            joined.fetch_add(1, Relaxed);
        }
    }

    fn left(&self, _: SubscriberKey, how: Left, account: &Account<'_>) {
        let reasons = self.left.get(Self::place(account.protocol)).filter(|_| account.was_here);
        let of_reason = reasons.zip(LeaveReason::ALL.iter().position(|reason| *reason == how.why));
        if let Some(left) = of_reason.and_then(|(reasons, at)| reasons.get(at)) {
            left.fetch_add(1, Relaxed);
        }
    }
}

impl MetricSource for Clients {
    fn collect(&self, out: &mut Vec<Metric>) {
        for (protocol, joined) in PROTOCOLS.iter().zip(&self.joined) {
            let help = "Clients that were let in";
            out.push(
                Metric::counter("clients_joined", help, joined.load(Relaxed)).with("protocol", *protocol),
            );
        }
        for (protocol, reasons) in PROTOCOLS.iter().zip(&self.left) {
            for (reason, left) in LeaveReason::ALL.iter().zip(reasons) {
                let help = "Clients whose connection is over, by why they left";
                let metric = Metric::counter("clients_left", help, left.load(Relaxed));
                out.push(metric.with("protocol", *protocol).with("reason", reason.name()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_of_gateways_are_not_counted_with_those_of_fronts_that_nobody_knows() {
        let places: std::collections::BTreeSet<_> =
            ["aws", "bayeux", "grip", "mqtt", "sse", "of an embedding service"].map(Clients::place).into();
        assert_eq!(places.len(), PROTOCOLS.len());
    }
}
