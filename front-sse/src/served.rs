//! The front as its server sees it.

use std::time::Duration;

use front::{Metric, Reason, Refusal, Task, inexpressible, refused};
use http::request::Parts;
use http::{Method, Request};
use http_edge::{Body, Cookies, OriginPolicy, Peer, Response, below};

use crate::Front;

/// When a client for which there was no room may come back, if nobody said it.
const NO_ROOM_RETRY: Duration = Duration::from_secs(5);

impl front::Front for Front {
    fn name(&self) -> &'static str {
        "sse"
    }

    fn claims(&self, path: &str) -> bool {
        below(path, &self.shared().config.path).is_some()
    }

    fn handle(&self, peer: Option<Peer>, request: Request<Body>) -> Task<Response> {
        let (front, request) = (self.clone(), front::with_peer(peer, request));
        Box::pin(async move { Front::handle(&front, request).await })
    }

    /// A browser takes an error status for final. What opens a stream is answered with one that says when to come back,
    /// and ends.
    fn refuse(&self, refusal: &Refusal, request: &Parts) -> Option<Task<Response>> {
        if refusal.reason == Reason::OtherHost || request.method != Method::GET {
            return None;
        }
        let wait = refusal.retry_after().unwrap_or(NO_ROOM_RETRY);
        let (front, version, headers) = (self.clone(), request.version, request.headers.clone());
        let why = refusal.problem.detail.clone();
        Some(Box::pin(async move { front.send_away(version, &headers, &why, wait).await }))
    }

    fn readers(&self) -> Option<(&OriginPolicy, Cookies)> {
        let shared = self.shared();
        Some((&shared.config.origins, shared.cookies()))
    }

    fn collect(&self, out: &mut Vec<Metric>) {
        let stats = self.stats();
        out.extend([
            Metric::gauge("sse_streams", "Event streams open now", stats.streams),
            Metric::counter("sse_opened", "Event streams opened", stats.opened),
            Metric::counter("sse_resumed", "Event streams that resumed from an id", stats.resumed),
            Metric::counter("sse_gaps", "Gaps told to streams that resumed", stats.gaps),
            Metric::counter("sse_closed_slow", "Event streams closed for a slow reader", stats.closed_slow),
            refused("sse", "rights", stats.refused_rights),
            refused("sse", "other", stats.refused),
            inexpressible("sse", stats.inexpressible),
        ]);
    }

    fn shut_down(&self, window: Duration) -> Task {
        let front = self.clone();
        Box::pin(async move { front.shutdown(window).await })
    }
}
