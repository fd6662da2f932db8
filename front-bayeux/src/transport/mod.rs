//! HTTP and WebSocket: loops that drive the sessions.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use http_edge::{Body, BoxError, Cookies, Response, read_body};

use crate::codec::message::{Bounds, parse_batch};
use crate::config::Transport;
use crate::error::RequestFault;
use crate::front::Shared;

mod callback_polling;
mod cookie;
mod long_polling;
mod polling;
mod websocket;

const METHODS: &str = "GET, POST, OPTIONS";

/// One request, whatever it is.
pub(crate) async fn handle<B>(shared: Arc<Shared>, request: http::Request<B>) -> Response
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (mut parts, body) = request.into_parts();
    if parts.method == Method::OPTIONS {
        return shared.config().origins.preflight(&parts.headers, Cookies::Include, METHODS);
    }
    let answer = if !shared.config().origins.allows(&parts.headers) {
        Err(RequestFault::OriginDenied)
    } else if parts.method == Method::GET && ::websocket::handshake::is_upgrade(&parts.headers) {
        Ok(websocket::upgrade(&shared, &mut parts))
    } else {
        poll(&shared, &parts, body).await
    };
    let mut response = answer.unwrap_or_else(|fault| {
        shared.counters().malformed();
        fault.problem().response()
    });
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        shared.config().origins.cors_headers(&parts.headers, Cookies::Include, response.headers_mut());
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, const { HeaderValue::from_static("no-store") });
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, const { HeaderValue::from_static("nosniff") });
    }
    if parts.method == Method::HEAD {
        *response.body_mut() = Body::empty();
    }
    response
}

/// The client's name for itself, if it is text.
fn user_agent(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::USER_AGENT)?.to_str().ok()
}

/// A request of one of the two polling transports.
async fn poll<B>(shared: &Arc<Shared>, parts: &Parts, body: B) -> Result<Response, RequestFault>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let config = shared.config();
    let (transport, sources, callback) = match parts.method {
        Method::POST => {
            let body = read_body(body, config.max_request_bytes).await.map_err(RequestFault::Body)?;
            (Transport::LongPolling, long_polling::messages(parts, body)?, None)
        }
        Method::GET => {
            let (callback, sources) = callback_polling::messages(parts)?;
            (Transport::CallbackPolling, sources, Some(callback))
        }
        _ => return Err(RequestFault::MethodNotAllowed),
    };
    if !config.transports.contains(&transport) {
        return Err(RequestFault::TransportDenied);
    }
    let bounds = Bounds { max_depth: config.max_depth, max_messages: config.max_batch_messages };
    let source = match <[Bytes; 1]>::try_from(sources) {
        Ok([only]) => only,
        Err(several) => join(&several, bounds)?,
    };
    let messages = parse_batch(&source, bounds).map_err(RequestFault::Parse)?;
    let poll = polling::Poll { parts, transport, http2: parts.version == Version::HTTP_2 };
    let answer = polling::run(shared, &source, &messages, &poll).await?;
    Ok(match callback {
        None => answer.json(),
        Some(callback) => callback_polling::wrap(answer, &callback),
    })
}

/// Several `message` parameters, each an object or an array, as one array.
fn join(sources: &[Bytes], bounds: Bounds) -> Result<Bytes, RequestFault> {
    let mut joined = vec![b'['];
    for source in sources {
        // Each must stand for itself, or brackets could pair up across parameters.
        parse_batch(source, bounds).map_err(RequestFault::Parse)?;
        let text = source.trim_ascii();
        let inner = text.strip_prefix(b"[").and_then(|text| text.strip_suffix(b"]")).unwrap_or(text);
        if !inner.trim_ascii().is_empty() {
            if joined.len() > 1 {
                joined.push(b',');
            }
            joined.extend_from_slice(inner);
        }
    }
    joined.push(b']');
    Ok(joined.into())
}
