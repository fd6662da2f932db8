//! The front: from a request to its route.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_edge::{Body, BoxError, Peer, Problem, Response, X_REQUEST_ID, request_id};
use tokio::time::{Instant, sleep};

use crate::config::Settings;
use crate::pass::{Asker, pass};
use crate::routes::Routes;

/// What the front is made with.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Config {
    /// The routes that a server begins with.
    pub settings: Settings,
    /// The handle by which they can be others while it serves.
    pub routes: Routes,
}

/// Routes to origins. Clones are handles to the same front.
///
/// It is a [`tower` service](front::service!) of whole paths.
#[derive(Clone)]
pub struct Front(pub(crate) Routes);

impl Front {
    /// The routes of `config`, on the current tokio runtime.
    pub fn new(config: Config) -> Self {
        config.routes.set(config.settings);
        Self(config.routes)
    }

    /// Answers one request: by the origin of its route; 404 where there is none.
    pub async fn handle<B>(&self, request: Request<B>) -> Response
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let remote = Peer::of(request.extensions()).map(|peer| peer.0.ip());
        let (parts, body) = request.into_parts();
        let now = self.0.now();
        let Some(state) = now.table.find(&parts) else {
            let mut response = Problem::not_found("no route leads anywhere from here").response();
            response.headers_mut().insert(X_REQUEST_ID, request_id(&parts.headers));
            return response;
        };
        let from = Asker { remote, rule: now.forwarded_for, is_stopping: self.0.is_stopping() };
        pass(state, from, parts, Body::of_request(body)).await
    }

    /// Ends WebSockets and lets nobody in any more. Resolves when nothing is under way, or after `window`.
    pub async fn shutdown(&self, window: Duration) {
        const STEP: Duration = Duration::from_millis(20);
        self.0.stop();
        let until = Instant::now() + window;
        let is_quiet = || self.0.now().table.all().iter().all(|state| state.activity.open() == 0);
        while !is_quiet() && Instant::now() < until {
            sleep(STEP).await;
        }
    }
}

front::service!(Front);

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Front").field(&self.0).finish()
    }
}
