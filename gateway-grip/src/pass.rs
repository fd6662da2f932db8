//! A request goes to its origin, and the answer comes back.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::HeaderValue;
use http::request::Parts;
use http_edge::websocket::is_opening;
use http_edge::{Body, Response, X_REQUEST_ID, request_id};

use crate::answer::{Refusal, passed};
use crate::config::{Dialect, ForwardedFor};
use crate::forward::{self, Told};
use crate::route::RouteState;
use crate::tunnel;
use crate::upstream::Asked;

/// Who asks, and by which rules.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    pub(crate) remote: Option<IpAddr>,
    pub(crate) rule: ForwardedFor,
    pub(crate) is_stopping: bool,
}

/// Answers a request of a route.
pub(crate) async fn pass(state: &Arc<RouteState>, from: Asker, parts: Parts, body: Body) -> Response {
    let id = request_id(&parts.headers);
    let mut response = match answer(state, from, parts, body, &id).await {
        Ok(response) => response,
        Err(refusal) => refusal.response(state, &id),
    };
    response.headers_mut().entry(X_REQUEST_ID).or_insert(id);
    response
}

async fn answer(
    state: &Arc<RouteState>,
    from: Asker,
    parts: Parts,
    body: Body,
    id: &HeaderValue,
) -> Result<Response, Refusal> {
    if from.is_stopping {
        return Err(Refusal::Stopping);
    }
    let route = &state.route;
    let place = state.activity.enter().ok_or(Refusal::Room)?;
    let told = Told { remote: from.remote, request_id: id, rule: from.rule };
    let headers = forward::request(&parts, route, &told).map_err(|forward::Loop| Refusal::Loop)?;
    let path = forward::path(route, &parts);
    let is_passed = route.dialect == Dialect::Proxy || route.origins.iter().any(|origin| origin.is_websocket);
    if is_passed && is_opening(&parts) {
        return tunnel::open(state, place, parts, path, headers).await;
    }
    let version = parts.version;
    let asked = Asked::new(parts.method, path, headers, body);
    let answer = state.upstream.send(route, asked).await?;
    Ok(passed(state, place, version, answer))
}
