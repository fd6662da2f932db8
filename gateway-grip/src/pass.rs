//! A request goes to its origin, and the answer comes back.

use std::net::IpAddr;
use std::sync::Arc;

use broker_core::unix_ms;
use grip::link::FEATURES;
use http::header::{ACCEPT_ENCODING, HeaderValue, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION};
use http::request::Parts;
use http_edge::websocket::is_opening;
use http_edge::{Body, Response, X_REQUEST_ID, request_id};

use websocket_over_http::{Hub, Rules, open};

use crate::answer::{Refusal, passed};
use crate::backend::{self, Backend};
use crate::config::{Dialect, ForwardedFor};
use crate::cors;
use crate::forward::{self, Told};
use crate::hold::{self, Asking, Holds, instructs};
use crate::route::RouteState;
use crate::tunnel;
use crate::upstream::Asked;

/// Who asks, and by which rules.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub(crate) hub: &'a Hub,
    pub(crate) holds: &'a Holds,
    pub(crate) remote: Option<IpAddr>,
    pub(crate) rule: ForwardedFor,
    pub(crate) is_stopping: bool,
    /// Longest message of a client, and longest answer about a WebSocket, in bytes.
    pub(crate) limits: (usize, usize),
}

/// Answers a request of a route.
pub(crate) async fn pass(state: &Arc<RouteState>, from: Asker<'_>, parts: Parts, body: Body) -> Response {
    let id = request_id(&parts.headers);
    if let Some(mut response) = cors::preflight(&state.route, &parts) {
        response.headers_mut().insert(X_REQUEST_ID, id);
        return response;
    }
    let asked = state.route.cors.is_some().then(|| parts.headers.clone());
    let mut response = match answer(state, from, parts, body, &id).await {
        Ok(response) => response,
        Err(refusal) => refusal.response(state, &id),
    };
    if let Some(asked) = asked {
        cors::allow(&state.route, &asked, response.headers_mut());
    }
    response.headers_mut().entry(X_REQUEST_ID).or_insert(id);
    response
}

async fn answer(
    state: &Arc<RouteState>,
    from: Asker<'_>,
    parts: Parts,
    body: Body,
    id: &HeaderValue,
) -> Result<Response, Refusal> {
    if from.is_stopping {
        return Err(Refusal::Stopping);
    }
    let route = &state.route;
    let place = state.activity.enter().ok_or(Refusal::Room)?;
    let is_upstream = forward::is_upstream(route, &parts.headers, unix_ms() / 1000);
    let told = Told { remote: from.remote, request_id: id, rule: from.rule, is_upstream };
    let mut headers = forward::request(&parts, route, &told).map_err(|forward::Loop| Refusal::Loop)?;
    let path = forward::path(route, &parts);
    let is_passed = route.dialect == Dialect::Proxy || route.origins.iter().any(|origin| origin.is_websocket);
    if is_passed && is_opening(&parts) {
        return tunnel::open(state, place, parts, path, headers).await;
    }
    // Who is in front of this server does what the answer says, and reads it as it is.
    let is_plain = route.dialect != Dialect::Grip || (is_upstream && !is_opening(&parts));
    if !is_plain {
        // What is instructed has to be readable.
        headers.remove(ACCEPT_ENCODING);
        if is_opening(&parts) {
            for name in [SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION] {
                headers.remove(name);
            }
            let mut rules = Rules::new(route.id.clone());
            rules.channel_prefix.clone_from(&route.channel_prefix);
            rules.max_events = route.max_events;
            rules.forward_pings = route.forward_pings;
            rules.subscribe.clone_from(&route.subscribe);
            (rules.max_message_bytes, rules.max_answer_bytes) = from.limits;
            let backend = Arc::new(Backend::new(Arc::clone(state), path, place));
            return Ok(open(from.hub, Arc::new(rules), backend, from.remote, parts, headers).await);
        }
        backend::sign(route, &mut headers);
        headers.insert("grip-feature", HeaderValue::from_static(FEATURES));
    }
    let version = parts.version;
    if is_plain {
        let asked = Asked::new(parts.method, path, headers, body);
        return Ok(passed(state, place, version, state.upstream.send(route, asked).await?));
    }
    let since = from.holds.0.broker.position();
    let asked = Asked::new(parts.method.clone(), path.clone(), headers, body);
    let answer = state.upstream.send(route, asked).await?;
    if !instructs(answer.headers()) {
        return Ok(passed(state, place, version, answer));
    }
    let asking = Asking { state, holds: from.holds, place, parts: &parts, path, id, told: &told, since };
    // Boxed, as most requests are not held.
    Box::pin(hold::follow(asking, answer)).await
}
