//! The answer to a polling request, before its transport wraps it.

use http::{HeaderValue, header};
use http_edge::{Body, Response};

use crate::codec::reply::{array_bytes, put_array};
use crate::dispatch::outcome::Outcome;
use crate::sessions::mailbox::UnwrittenReply;
use crate::sessions::unwritten::carrying;

/// The response's head, and its JSON text for the transport to wrap.
pub(super) struct Answer {
    pub(super) head: Response,
    pub(super) body: Vec<u8>,
    /// The replies to connects that it contains.
    pub(super) unwritten: Vec<UnwrittenReply>,
}

impl Answer {
    pub(super) fn new(body: Vec<u8>, unwritten: Vec<UnwrittenReply>) -> Self {
        Answer { head: http::Response::new(Body::empty()), body, unwritten }
    }

    /// Events first, then replies; but a handshake's reply comes before its events.
    pub(super) fn of(outcome: Outcome) -> Self {
        let mut body = Vec::with_capacity(array_bytes(outcome.objects()));
        put_array(&mut body, outcome.objects());
        for reply in &outcome.unwritten {
            reply.note_bytes(body.len());
        }
        Self::new(body, outcome.unwritten)
    }

    /// The answer of long-polling.
    pub(super) fn json(self) -> Response {
        let mut response = self.head;
        if response.status().is_success() {
            let kind = const { HeaderValue::from_static("application/json;charset=UTF-8") };
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            *response.body_mut() = Body::full(carrying(self.body, self.unwritten));
        }
        response
    }
}
