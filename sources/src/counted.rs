//! What is counted, for `/metrics`.

use std::sync::atomic::Ordering::Relaxed;

use front::{Metric, MetricSource};

use crate::sources::Sources;
use crate::state::{Phase, State};

impl MetricSource for Sources {
    fn collect(&self, out: &mut Vec<Metric>) {
        let states: Vec<_> = self.list().iter().map(|source| source.state()).collect();
        for phase in Phase::ALL {
            let count = states.iter().filter(|state| state.phase == phase).count();
            let about = "Sources, by what they are at";
            out.push(Metric::gauge("sources", about, count as u64).with("state", phase.name()));
        }
        let sum = |of: fn(&State) -> u64| states.iter().map(of).sum::<u64>();
        let about = "Messages that the sources of now brought";
        out.push(Metric::gauge("sources_received", about, sum(|state| state.received)));
        let about = "Messages of the sources of now that had no channel, or that the broker refused";
        out.push(Metric::gauge("sources_dropped", about, sum(|state| state.dropped)));
        let counted = self.requests().counted();
        let about = "Single requests that wait or are under way";
        out.push(Metric::gauge("outgoing_requests_waiting", about, self.requests().waiting() as u64));
        for (outcome, counter) in
            [("answered", &counted.answered), ("failed", &counted.failed), ("cancelled", &counted.cancelled)]
        {
            let about = "Single requests that are over";
            out.push(
                Metric::counter("outgoing_requests", about, counter.load(Relaxed)).with("outcome", outcome),
            );
        }
    }
}
