//! The front: from a request to a connection, or to an answer of `@connections`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use broker_core::{Authenticator, Broker, LeaveReason};
use bytes::Bytes;
use http::Request;
use http_edge::{BoxError, Peer, Problem, Response};
use tokio::time::{Instant, sleep};

use crate::api::ApiState;
use crate::config::Config;
use crate::connections;
use crate::member::Close;
use crate::opening::open;
use crate::state::Shared;

/// WebSocket APIs on one broker. Clones are handles to the same front.
///
/// It is a [`tower` service](front::service!) of whole paths.
#[derive(Clone)]
pub struct Front(pub(crate) Arc<Shared>);

impl Front {
    /// The APIs of `config` on `broker`. `authenticator` knows who may use `@connections` with a key of the broker's
    /// own.
    pub fn new(broker: Broker, authenticator: Arc<dyn Authenticator>, config: Config) -> Self {
        Self(Arc::new(Shared::new(broker, authenticator, config)))
    }

    /// Answers one request: an upgrade at the path of an API, anything below its `@connections`; elsewhere 404.
    pub async fn handle<B>(&self, request: Request<B>) -> Response
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let peer = Peer::of(request.extensions());
        let (parts, body) = request.into_parts();
        if connections::split(parts.uri.path()).is_some() {
            return connections::handle(&self.0, &parts, body).await;
        }
        drop(body);
        match self.find(parts.uri.path()) {
            Some(state) => open(&self.0, state, peer, parts).await,
            None => Problem::not_found("no API is here").response(),
        }
    }

    /// The API at a path.
    pub(crate) fn find(&self, path: &str) -> Option<&Arc<ApiState>> {
        let path = path.strip_suffix('/').unwrap_or(path);
        self.0.apis.iter().find(|state| state.api.path == path)
    }

    /// Closes all connections with 1001 and lets nobody in any more. Resolves when functions were told of all of them,
    /// or soon after `window`.
    pub async fn shutdown(&self, window: Duration) {
        const STEP: Duration = Duration::from_millis(10);
        self.0.is_closing.store(true, Relaxed);
        for api in &self.0.apis {
            api.pace.hurry();
        }
        let until = Instant::now() + window;
        for member in self.0.all() {
            member.close_with(Close::going_away(LeaveReason::Shutdown));
        }
        while !self.0.is_quiet() && Instant::now() < until {
            sleep(STEP).await;
        }
        let untold = self.0.telling.load(Relaxed);
        if untold > 0 {
            tracing::warn!(
                target: "fanwire::gateway", connections = untold,
                "the server stops before functions were told of the end of all connections"
            );
        }
    }
}

front::service!(Front);

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Front").field(&self.0).finish()
    }
}
