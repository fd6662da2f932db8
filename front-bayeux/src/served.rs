//! The front as its server sees it.

use std::time::Duration;

use front::{Metric, Task, inexpressible, refused};
use http::Request;
use http_edge::{Body, Cookies, OriginPolicy, Peer, Response};

use crate::front::Front;

fn micros_as_seconds(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64()
}

impl front::Front for Front {
    fn name(&self) -> &'static str {
        "bayeux"
    }

    fn claims(&self, path: &str) -> bool {
        self.serves(path)
    }

    fn names_answers(&self) -> bool {
        true
    }

    fn handle(&self, peer: Option<Peer>, request: Request<Body>) -> Task<Response> {
        let (front, request) = (self.clone(), front::with_peer(peer, request));
        Box::pin(async move { Front::handle(&front, request).await })
    }

    fn readers(&self) -> Option<(&OriginPolicy, Cookies)> {
        Some((self.origins(), Cookies::Include))
    }

    fn collect(&self, out: &mut Vec<Metric>) {
        let stats = self.stats();
        out.extend([
            Metric::gauge("bayeux_sessions", "Bayeux sessions that live now", stats.sessions),
            Metric::gauge("bayeux_websockets", "Bayeux WebSockets open now", stats.websockets),
            Metric::gauge("bayeux_held_polls", "Bayeux connects held over HTTP now", stats.held_polls),
            Metric::counter("bayeux_handshakes", "Bayeux handshakes that succeeded", stats.handshakes),
            Metric::counter(
                "bayeux_handshakes_refused",
                "Bayeux handshakes that failed",
                stats.handshakes_refused,
            ),
            Metric::counter("bayeux_published", "Messages published over Bayeux", stats.published),
            refused("bayeux", "rights", stats.refused_rights),
            refused("bayeux", "rate", stats.rate_limited),
            Metric::counter("bayeux_failed", "Bayeux messages answered as not successful", stats.failed),
            Metric::counter(
                "bayeux_malformed",
                "Requests and frames that were no Bayeux messages",
                stats.malformed,
            ),
            Metric::counter("bayeux_expired", "Bayeux sessions that expired", stats.expired),
            Metric::counter(
                "bayeux_overflowed",
                "Bayeux sessions ended because their queue was full",
                stats.overflowed,
            ),
            Metric::counter(
                "bayeux_dropped",
                "Bayeux events dropped because a session's queue was full (bayeux.queue_full)",
                stats.dropped,
            ),
            Metric::counter(
                "bayeux_replays_lost",
                "Bayeux sessions ended because the log lost what they were to be replayed",
                stats.replays_lost,
            ),
            Metric::counter(
                "bayeux_handshake_timeouts",
                "Bayeux WebSockets closed because no session came to them in time",
                stats.handshake_timeouts,
            ),
            inexpressible("bayeux", stats.inexpressible),
            Metric::counter(
                "bayeux_unhandled_services",
                "Messages to services that no handler took",
                stats.unhandled_services,
            ),
            Metric::counter(
                "bayeux_late_services",
                "Handlers of services that took too long",
                stats.late_services,
            ),
            Metric::seconds(
                "bayeux_last_sweep_seconds",
                "How long the last look for expired Bayeux sessions took",
                micros_as_seconds(stats.last_sweep_us),
            ),
            Metric::seconds(
                "bayeux_longest_sweep_seconds",
                "The longest of these looks",
                micros_as_seconds(stats.longest_sweep_us),
            ),
        ]);
    }

    fn shut_down(&self, window: Duration) -> Task {
        Box::pin(self.shutdown(window))
    }
}
