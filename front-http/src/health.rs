//! `/healthz` and `/readyz`, for whoever restarts and balances.

use http::{HeaderValue, StatusCode, header};
use http_edge::{Body, Response};

/// The process answers.
pub(crate) fn live() -> Response {
    plain(StatusCode::OK, "ok\n")
}

/// Whether new clients should be sent here.
pub(crate) enum State {
    Ready,
    /// The service is about to stop, or cannot do all that it is for: its store takes nothing, other nodes are not there.
    Leaving,
    /// The broker takes nothing more, though nobody has said that the service stops.
    Closed,
}

/// The answer to whoever balances.
pub(crate) fn ready(state: State) -> Response {
    let why = match state {
        State::Ready => return plain(StatusCode::OK, "ready\n"),
        State::Leaving => "not ready\n",
        State::Closed => "the broker is closed\n",
    };
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, why);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    let mut response = http::Response::new(Body::full(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain;charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
