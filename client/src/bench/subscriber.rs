//! One event stream, and what comes on it.

use bytes::Bytes;
use form_urlencoded::Serializer;
use http::{Method, header};
use outgoing::Body;
use outgoing::events::{Parser, Piece};

use super::tally::{Clock, Tally};
use crate::endpoint::Endpoint;
use crate::failure::Failure;
use crate::subscribe::MAX_EVENT_BYTES;

pub(super) struct Subscriber {
    endpoint: Endpoint,
    body: Body,
}

impl Subscriber {
    pub(super) async fn open(endpoint: &Endpoint, channel: &str) -> Result<Self, Failure> {
        let query = Serializer::new(String::new()).append_pair("channel", channel).finish();
        let request = endpoint.request(Method::GET, &format!("/sse?{query}"));
        let request = request.header(header::ACCEPT, "text/event-stream").body(Bytes::new());
        let request = request.map_err(|error| Failure::Arguments(error.to_string()))?;
        let body = endpoint.send(request).await?.into_body();
        Ok(Subscriber { endpoint: endpoint.clone(), body })
    }

    /// Counts messages until the stream ends, or this future is dropped.
    pub(super) async fn read(mut self, clock: Clock, tally: &Tally) -> Result<(), Failure> {
        let mut parser = Parser::new(MAX_EVENT_BYTES);
        tally.listens();
        loop {
            let next = self.body.next().await.map_err(|error| self.endpoint.unreachable(&error))?;
            let Some(mut bytes) = next else { return Ok(()) };
            loop {
                let fed = parser.feed(&bytes).map_err(|error| self.endpoint.foreign(error.to_string()))?;
                let Some((piece, taken)) = fed else { break };
                let _ = bytes.split_to(taken);
                if let Piece::Block(block) = piece
                    && let Some(sent) = block.data.as_deref().and_then(Clock::read)
                {
                    tally.delivers(clock.since(sent));
                }
            }
        }
    }
}
