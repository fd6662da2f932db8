//! What the server counts beside its fronts, under the names that `/metrics` shows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use front::{Metric, MetricSource};

/// Requests that were for another host.
pub(crate) fn of_hosts(refused: Arc<AtomicU64>) -> Arc<dyn MetricSource> {
    Arc::new(move |out: &mut Vec<Metric>| {
        let help = "HTTP requests refused because they were for a host that is not this server";
        out.push(Metric::counter("refused_hosts", help, refused.load(Relaxed)));
    })
}

/// What waits for clients of HTTP/2 that do not read.
pub(crate) fn of_stalled(stalled: http_edge::Stalled) -> Arc<dyn MetricSource> {
    Arc::new(move |out: &mut Vec<Metric>| {
        let waiting = "Bytes that wait for HTTP/2 clients, of responses that did not go at once";
        let reset = "HTTP/2 streams reset because their clients did not take what waited for them";
        let refused = "HTTP/2 answers replaced by 503 because too much waited for clients already";
        out.extend([
            Metric::gauge("http2_waiting_bytes", waiting, stalled.bytes() as u64),
            Metric::counter("http2_streams_reset", reset, stalled.reset()),
            Metric::counter("http2_answers_refused", refused, stalled.refused()),
        ]);
    })
}
