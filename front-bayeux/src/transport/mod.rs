//! HTTP and WebSocket: loops that drive the sessions.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use front::log_problem;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_edge::websocket::is_opening;
use http_edge::{
    Body, BoxError, Cookies, Decoded, Fields, Park, Peer, Response, X_REQUEST_ID, request_id,
    request_id_among, take_body,
};

use crate::codec::batch::BatchParser;
use crate::codec::message::{Bounds, Message, ParseError};
use crate::config::Transport;
use crate::dispatch::turn::Turn;
use crate::error::RequestFault;

mod answer;
mod callback_polling;
mod cookie;
mod endpoint;
mod long_polling;
mod polling;
mod websocket;

pub(crate) use self::endpoint::Endpoint;
use self::polling::Step;

const METHODS: &str = "GET, POST, OPTIONS";

/// One request, whatever it is.
pub(crate) async fn handle<B>(endpoint: Arc<Endpoint>, request: http::Request<B>) -> Response
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (mut parts, body) = request.into_parts();
    if parts.method == Method::OPTIONS {
        let mut response = endpoint.config().origins.preflight(&parts.headers, Cookies::Include, METHODS);
        response.headers_mut().insert(X_REQUEST_ID, request_id_among(&parts.headers));
        return response;
    }
    if is_opening(&parts) {
        let id = request_id_among(&parts.headers);
        let answer = match endpoint.config().origins.allows(&parts) {
            true => Ok(websocket::upgrade(&endpoint, &mut parts, &id)),
            false => Err(RequestFault::OriginDenied),
        };
        return conclude(&endpoint, &parts, id, answer);
    }
    let fields = Fields::from(&parts);
    let id = request_id(fields);
    let step = if endpoint.config().origins.allows(fields) {
        // Boxed, so that a connect that is held has no room for it any more.
        Box::pin(poll(&endpoint, &parts, (fields, &id), body)).await
    } else {
        Err(RequestFault::OriginDenied)
    };
    let hold = match step {
        Ok(Step::Hold(hold)) => hold,
        Ok(Step::Answer(response)) => return conclude(&endpoint, &parts, id, Ok(response)),
        Err(fault) => return conclude(&endpoint, &parts, id, Err(fault)),
    };
    let headers = kept_headers(fields);
    let park = parts.extensions.remove::<Park>();
    drop(parts);
    let answer = async move {
        let mut response = hold.run(&endpoint).await;
        finish(&endpoint, &headers, &mut response);
        response.headers_mut().insert(X_REQUEST_ID, id);
        response
    };
    match park {
        Some(park) => park.wait(answer).await,
        None => answer.await,
    }
}

/// Makes a request's answer whole.
fn conclude(
    endpoint: &Endpoint,
    parts: &Parts,
    id: HeaderValue,
    answer: Result<Response, RequestFault>,
) -> Response {
    let mut response = answer.unwrap_or_else(|fault| {
        endpoint.counters().malformed();
        let problem = fault.problem();
        let remote = Peer::of(&parts.extensions).map(|peer| peer.0.ip());
        log_problem("bayeux", &problem, parts, remote, &id);
        problem.response()
    });
    response.headers_mut().insert(X_REQUEST_ID, id);
    let is_websocket = response.status() == StatusCode::SWITCHING_PROTOCOLS
        || (parts.method == Method::CONNECT && response.status().is_success());
    if !is_websocket {
        finish(endpoint, &parts.headers, &mut response);
    }
    if parts.method == Method::HEAD {
        *response.body_mut() = Body::empty();
    }
    response
}

/// Adds the headers that every answer has.
fn finish(endpoint: &Endpoint, request: &HeaderMap, response: &mut Response) {
    let headers = response.headers_mut();
    endpoint.config().origins.cors_headers(request, Cookies::Include, headers);
    headers.insert(header::CACHE_CONTROL, const { HeaderValue::from_static("no-store") });
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, const { HeaderValue::from_static("nosniff") });
}

/// Of a request's headers those that its answer depends on, copied: each is a piece of the connection's read buffer,
/// and would keep all of that as long as the connect is held.
fn kept_headers(fields: Fields<'_>) -> HeaderMap {
    let Some(origin) = fields.origin else { return HeaderMap::new() };
    let kept = [(header::ORIGIN, Some(origin)), (header::HOST, fields.host)];
    let copy = |value: &HeaderValue| HeaderValue::from_bytes(value.as_bytes()).ok();
    kept.into_iter().filter_map(|(name, value)| Some((name, copy(value?)?))).collect()
}

/// A request of one of the two polling transports.
async fn poll<B>(
    endpoint: &Arc<Endpoint>,
    parts: &Parts,
    (fields, id): (Fields<'_>, &HeaderValue),
    body: B,
) -> Result<Step, RequestFault>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let config = endpoint.config();
    let (transport, sources, callback) = match parts.method {
        Method::POST => {
            let body = Decoded::found(&fields, &parts.headers, body).map_err(RequestFault::Coding)?;
            let body = take_body(body, config.max_request_bytes, &config.intake).await;
            let body = body.map_err(RequestFault::Body)?;
            (
                Transport::LongPolling,
                long_polling::messages(fields.content_type, body, config.max_batch_messages)?,
                None,
            )
        }
        Method::GET => {
            let (callback, sources) = callback_polling::messages(parts, config.max_batch_messages)?;
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
        Err(several) => join(&several, bounds).await?,
    };
    let messages = read_batch(&source, bounds).await.map_err(RequestFault::Parse)?;
    let poll = polling::Poll { parts, fields, id, transport, callback };
    polling::run(endpoint, &source, &messages, poll).await
}

/// Reads a batch, and lets other tasks have their turn in between.
async fn read_batch(body: &[u8], bounds: Bounds) -> Result<Vec<Message<'_>>, ParseError> {
    let mut parser = BatchParser::new(body, bounds);
    loop {
        if let ControlFlow::Break(read) = parser.step() {
            return read;
        }
        tokio::task::yield_now().await;
    }
}

/// Several `message` parameters, each an object or an array, as one array.
async fn join(sources: &[Bytes], bounds: Bounds) -> Result<Bytes, RequestFault> {
    let mut joined = vec![b'['];
    let mut turn = Turn::default();
    for source in sources {
        turn.spend(1).await;
        // Each must stand for itself, or brackets could pair up across parameters.
        read_batch(source, bounds).await.map_err(RequestFault::Parse)?;
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
