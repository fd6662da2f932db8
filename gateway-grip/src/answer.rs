//! What a client is told: the answer of an origin as it comes, or why there is none.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{StatusCode, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_edge::{Body, BoxError, Response};

use crate::activity::Place;
use crate::forward;
use crate::route::RouteState;
use crate::upstream::Failure;

/// When a client may come back for which the route had no room.
const NO_ROOM: Duration = Duration::from_secs(1);

/// Why a request is not answered by its origin.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It came from here.
    Loop,
    /// The route has as many connections as it may have.
    Room,
    /// The server stops.
    Stopping,
    /// The origin instructs what cannot be done; what is wrong with it.
    Hold(String),
    /// A client cannot be held now, and why.
    Later(String),
    /// The connection cannot become a WebSocket.
    NoUpgrade,
    /// The origin.
    Origin(Failure),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Origin(failure)
    }
}

impl Refusal {
    /// Status, and one sentence that says nothing of the origin.
    fn said(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Loop => (StatusCode::LOOP_DETECTED, "This request was here before."),
            Self::Room => {
                (StatusCode::SERVICE_UNAVAILABLE, "There are too many connections to this address.")
            }
            Self::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "The server is stopping."),
            Self::Hold(_) => (
                StatusCode::BAD_GATEWAY,
                "The server behind this address gives an instruction that is wrong.",
            ),
            Self::Later(_) => (StatusCode::SERVICE_UNAVAILABLE, "There is no room now; try again later."),
            Self::NoUpgrade => (StatusCode::NOT_IMPLEMENTED, "This connection cannot become a WebSocket."),
            Self::Origin(Failure::Open(_)) => {
                (StatusCode::SERVICE_UNAVAILABLE, "The server behind this address fails; try again later.")
            }
            Self::Origin(Failure::Full) => {
                (StatusCode::SERVICE_UNAVAILABLE, "The server behind this address is busy; try again later.")
            }
            Self::Origin(Failure::Starting(_)) => {
                (StatusCode::SERVICE_UNAVAILABLE, "The server behind this address is starting; try again.")
            }
            Self::Origin(Failure::Unreachable(_) | Failure::Broken(_)) => {
                (StatusCode::BAD_GATEWAY, "The server behind this address does not answer.")
            }
            Self::Origin(Failure::TimedOut(_)) => {
                (StatusCode::GATEWAY_TIMEOUT, "The server behind this address did not answer in time.")
            }
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Room | Self::Stopping | Self::Later(_) => Some(NO_ROOM),
            Self::Origin(failure) => failure.retry_after(),
            Self::Loop | Self::NoUpgrade | Self::Hold(_) => None,
        }
    }

    pub(crate) fn response(&self, state: &RouteState, id: &HeaderValue) -> Response {
        let (status, sentence) = self.said();
        let detail = match self {
            Self::Origin(failure) => Some(failure.detail()),
            Self::Hold(why) | Self::Later(why) => Some(&**why),
            _ => None,
        };
        tracing::warn!(
            target: "fanwire::gateway", route = %state.route.id, request = id.to_str().unwrap_or_default(),
            status = status.as_u16(), error = detail, "a request of a route has no answer of its origin"
        );
        let text = match detail.filter(|_| state.route.debug) {
            Some(detail) => format!("{sentence} ({detail})\n"),
            None => format!("{sentence}\n"),
        };
        let mut response = http::Response::new(Body::full(text));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(wait) = self.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs_f64().ceil() as u64));
        }
        response
    }
}

/// The answer of an origin, as it comes.
pub(crate) fn passed(
    state: &RouteState,
    place: Place,
    version: Version,
    answer: http::Response<outgoing::Body>,
) -> Response {
    let (head, incoming) = answer.into_parts();
    let mut response = http::Response::new(passing(place, incoming));
    *response.status_mut() = head.status;
    *response.headers_mut() = forward::answer(&head.headers, &state.route);
    if version == Version::HTTP_10 {
        // It knows no other end of a body whose length is not said.
        response.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The body of an answer, as it comes.
pub(crate) fn passing(place: Place, incoming: outgoing::Body) -> Body {
    match incoming.is_end_stream() {
        true => Body::empty(),
        false => Body::stream(Passing { incoming, place }),
    }
}

/// The body of an answer. Its request is under way until it ends.
struct Passing {
    incoming: outgoing::Body,
    place: Place,
}

impl HttpBody for Passing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        self.place.touch();
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
