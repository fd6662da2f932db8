//! An origin that answers short requests, for a WebSocket whose events it gets.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use broker_core::unix_ms;
use bytes::Bytes;
use grip::signature::MAX_LIFE;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use http_edge::Body;
use websocket_over_http::{Answer, Asking, Failed, Origin};

use crate::activity::Place;
use crate::config::Route;
use crate::forward::GRIP_SIG;
use crate::route::RouteState;
use crate::upstream::{Asked, Failure};

/// How much is read of an answer in which nobody is interested.
const MAX_TOLD_BYTES: usize = 64 << 10;

/// Signs a request, if the route has what with.
pub(crate) fn sign(route: &Route, headers: &mut HeaderMap) {
    let token = route.signer.as_ref().and_then(|signer| signer.sign(unix_ms() / 1000, MAX_LIFE));
    if let Some(token) = token.and_then(|token| HeaderValue::from_str(&token).ok()) {
        headers.insert(GRIP_SIG, token);
    }
}

/// The origins of a route, for one client. It is under way for as long as the client is there.
pub(crate) struct Backend(Arc<Client>);

struct Client {
    state: Arc<RouteState>,
    path: String,
    place: Place,
}

impl Backend {
    pub(crate) fn new(state: Arc<RouteState>, path: String, place: Place) -> Self {
        Self(Arc::new(Client { state, path, place }))
    }

    /// What it is the origin of.
    pub(crate) fn route(&self) -> &Route {
        &self.0.state.route
    }

    /// The path of the request that the client came with.
    pub(crate) fn path(&self) -> &str {
        &self.0.path
    }

    /// Tells another path that the client has left.
    pub(crate) fn tell(&self, path: String, headers: HeaderMap) -> impl Future<Output = ()> + Send + use<> {
        let client = Arc::clone(&self.0);
        async move {
            if let Err(failed) = client.ask(Method::POST, path, headers, Bytes::new(), MAX_TOLD_BYTES).await {
                tracing::warn!(
                    target: "fanwire::gateway", route = %client.state.route.id, error = failed.why,
                    "the origin of a stream does not hear that it is over"
                );
            }
        }
    }

    /// Asks another path.
    pub(crate) async fn get(
        &self,
        path: &str,
        headers: HeaderMap,
        max_bytes: usize,
    ) -> Result<Answer, Failed> {
        self.0.ask(Method::GET, path.to_owned(), headers, Bytes::new(), max_bytes).await
    }
}

impl Client {
    async fn ask(
        &self,
        method: Method,
        path: String,
        mut headers: HeaderMap,
        body: Bytes,
        max_bytes: usize,
    ) -> Result<Answer, Failed> {
        self.place.touch();
        let route = &self.state.route;
        headers.remove(CONTENT_LENGTH);
        sign(route, &mut headers);
        let asked = Asked::new(method, path, headers, Body::full(body));
        let answer = self.state.upstream.send(route, asked).await.map_err(failed)?;
        let (head, body) = answer.into_parts();
        let body = body.collect(max_bytes, route.timeout).await;
        let body = body.map_err(|error| Failed::new(StatusCode::BAD_GATEWAY, false, error.to_string()))?;
        Ok(Answer::new(head.status.as_u16(), head.headers, body))
    }
}

impl Origin for Backend {
    fn ask(&self, headers: HeaderMap, body: Bytes, max_bytes: usize) -> Asking {
        let client = Arc::clone(&self.0);
        Box::pin(async move { client.ask(Method::POST, client.path.clone(), headers, body, max_bytes).await })
    }

    fn note_waiting(&self, bytes: usize, before: usize) {
        // Wraps round below nothing and back.
        let counter = &self.0.state.upstream.counted.queue_bytes;
        counter.fetch_add((bytes as u64).wrapping_sub(before as u64), Relaxed);
    }

    fn call(&self, url: &str, headers: HeaderMap, body: Bytes, max_bytes: usize) -> Asking {
        let (client, path) = (Arc::clone(&self.0), url.to_owned());
        Box::pin(async move {
            if !path.starts_with('/') || path.starts_with("//") {
                let why = "filters ask at a path of the origin, and nobody else";
                return Err(Failed::new(StatusCode::BAD_GATEWAY, true, why));
            }
            client.ask(Method::POST, path, headers, body, max_bytes).await
        })
    }
}

fn failed(failure: Failure) -> Failed {
    let why = failure.detail().to_owned();
    match failure {
        Failure::Open(_) | Failure::Full | Failure::Starting(_) => {
            Failed::new(StatusCode::SERVICE_UNAVAILABLE, true, why)
        }
        Failure::Unreachable(_) => Failed::new(StatusCode::BAD_GATEWAY, true, why),
        Failure::Broken(_) => Failed::new(StatusCode::BAD_GATEWAY, false, why),
        Failure::TimedOut(_) => Failed::new(StatusCode::GATEWAY_TIMEOUT, false, why),
    }
}
