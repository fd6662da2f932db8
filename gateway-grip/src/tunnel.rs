//! A WebSocket is passed through: what the origin says of the handshake, and then bytes both ways.

use std::sync::Arc;

use http::header::{
    CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::request::Parts;
use http::{Method, StatusCode};
use http_edge::websocket::HandOver;
use http_edge::{Body, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::activity::Place;
use crate::answer::{Refusal, passed};
use crate::forward;

use crate::route::RouteState;
use crate::splice::splice;
use crate::upstream::{Asked, Failure};

/// Answers an opening handshake with what the origin says to it.
pub(crate) async fn open(
    state: &Arc<RouteState>,
    place: Place,
    mut parts: Parts,
    path: String,
    mut headers: HeaderMap,
) -> Result<Response, Refusal> {
    let version = parts.version;
    let client = HandOver::take(&mut parts).ok_or(Refusal::NoUpgrade)?;
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let is_http2 = parts.method == Method::CONNECT;
    if is_http2 {
        // HTTP/2 has neither (RFC 8441 §5), and the origin asks for both.
        headers.insert(SEC_WEBSOCKET_KEY, key());
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    }
    drop(parts);
    let asked = Asked::new(Method::GET, path, headers, Body::empty());
    let mut answer = state.upstream.send(&state.route, asked).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(passed(state, place, version, answer));
    }
    let Some(origin) = answer.extensions_mut().remove::<OnUpgrade>() else {
        return Err(Failure::Broken("the connection is not handed over".to_owned()).into());
    };
    let mut said = forward::answer(answer.headers(), &state.route);
    let mut response = http::Response::new(Body::empty());
    if is_http2 {
        said.remove(SEC_WEBSOCKET_ACCEPT);
    } else {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        said.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        said.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    *response.headers_mut() = said;
    let state = Arc::clone(state);
    client.then(move |socket| {
        tokio::spawn(async move {
            let Ok(origin) = origin.await else { return };
            let idle = Some(state.route.idle_timeout).filter(|idle| !idle.is_zero());
            splice(socket.into_stream(), TokioIo::new(origin), idle, place, state.stopping.clone()).await;
        });
    });
    Ok(response)
}

/// A key as a client of HTTP/1.1 would choose one: sixteen bytes in base64 (RFC 6455 §4.1).
fn key() -> HeaderValue {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = || DIGITS.get(fastrand::usize(..64)).copied().map_or('A', char::from);
    // Of the last digit before `==` two bits count.
    let last = ['A', 'Q', 'g', 'w'].get(fastrand::usize(..4)).copied().unwrap_or('A');
    let key: String = (0..21).map(|_| digit()).chain([last, '=', '=']).collect();
    HeaderValue::from_str(&key).unwrap_or(HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAA=="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_sixteen_bytes() {
        for _ in 0..100 {
            let key = key();
            assert_eq!(key.len(), 24);
            assert!(key.to_str().unwrap().ends_with("=="));
        }
    }
}
