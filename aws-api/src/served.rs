//! The front as its server sees it.

use front::{Metric, Reason, Refusal, Task, refused};
use http::request::Parts;
use http::{Request, Uri};
use http_edge::{Body, Peer, Response};

use crate::error::AwsError;
use crate::front::{Front, NAME};

impl front::Front for Front {
    fn name(&self) -> &'static str {
        NAME
    }

    fn claims(&self, path: &str) -> bool {
        Front::claims(self, path)
    }

    fn names_answers(&self) -> bool {
        true
    }

    fn handle(&self, peer: Option<Peer>, request: Request<Body>) -> Task<Response> {
        let front = self.clone();
        Box::pin(async move { front.handle_from(peer, request).await })
    }

    fn refuse(&self, refusal: &Refusal, request: &Parts) -> Option<Task<Response>> {
        let detail = refusal.problem.detail.clone();
        let error = match refusal.reason {
            Reason::AddressFull | Reason::TooFast => AwsError::throttled(detail),
            Reason::ServerFull => AwsError::unavailable(detail),
            _ => return None,
        };
        let error = AwsError { retry_after: refusal.retry_after(), ..error };
        Some(Box::pin(std::future::ready(Front::refuse(&error, request))))
    }

    /// Who waits for a client's acknowledgement waits long.
    fn holds(&self, uri: &Uri) -> bool {
        uri.path().ends_with("/messages")
    }

    fn collect(&self, out: &mut Vec<Metric>) {
        let stats = self.stats();
        let about = "Requests to AWS' APIs";
        out.push(Metric::counter("aws_requests", about, stats.requests));
        let about = "Requests to AWS' APIs whose signature was missing, unreadable or wrong";
        out.push(Metric::counter("aws_unsigned_requests", about, stats.not_signed));
        let about = "Messages published through AWS' APIs";
        out.push(Metric::counter("aws_published_messages", about, stats.published));
        let about = "Messages sent to one MQTT client alone through AWS' APIs";
        out.push(Metric::counter("aws_direct_messages", about, stats.direct_messages));
        let about = "Connections of MQTT clients that were closed through AWS' APIs";
        out.push(Metric::counter("aws_closed_connections", about, stats.closed_connections));
        let about = "Events of MQTT clients' lives that were published below `$aws/events/`";
        out.push(Metric::counter("aws_events", about, stats.events));
        let about =
            "Events of MQTT clients' lives that were not published, as too many waited for a busy broker";
        out.push(Metric::counter("aws_events_lost", about, stats.events_lost));
        out.push(refused(NAME, "rights", stats.refused_rights));
        out.push(refused(NAME, "rate", stats.throttled));
    }
}
