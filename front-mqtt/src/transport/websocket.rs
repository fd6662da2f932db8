//! MQTT over WebSocket (MQTT 5.0 §6.0): the upgrade of an HTTP request.

use std::sync::Arc;

use http::{HeaderValue, Method, Request, StatusCode, header};
use http_edge::websocket::Upgrade;
use http_edge::{Body, Problem, Response, Visitor};
use websocket::handshake::Options;

use super::handshake::{Arrival, accept};
use crate::codec::Framing;
use crate::front::Inner;

/// `mqttv3.1` is what clients offered before the name was registered.
const PROTOCOLS: &[&str] = &["mqtt", "mqttv3.1"];

const METHODS: &str = "GET, HEAD, OPTIONS";

/// Answers an opening handshake; the connection lives in a task of its own.
pub(crate) fn upgrade<B>(inner: Arc<Inner>, request: Request<B>) -> Response {
    let (mut parts, _) = request.into_parts();
    if parts.method == Method::OPTIONS {
        // A WebSocket is opened without a preflight, and nothing else is here for pages.
        let mut response = http::Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(METHODS));
        return response;
    }
    if !inner.shared.config.origins.allows(&parts) {
        return Problem::forbidden("this origin may not open a WebSocket here").response();
    }
    if parts.method == Method::HEAD {
        // What a GET is told that does not ask for a WebSocket.
        parts.method = Method::GET;
        parts.headers.remove(header::UPGRADE);
    }
    // A client that offers nothing is served without a subprotocol: some old ones do.
    let offers = parts.headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL);
    let mut options = Options::default();
    options.protocols = PROTOCOLS;
    options.protocol_required = offers;
    options.deflate = false;
    let upgrade = match Upgrade::accept(&mut parts, &options) {
        Ok(upgrade) => upgrade,
        Err(refused) => return refused.response(METHODS),
    };
    let visitor = Visitor::of(&parts, &inner.shared.config.token_sources).with_request(parts);
    upgrade.then(move |socket| {
        let framing = Framing::WebSocket;
        tokio::spawn(accept(inner, Arrival { socket, framing, visitor, refusal: None }));
    })
}
