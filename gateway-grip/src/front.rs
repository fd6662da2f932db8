//! The front: from a request to its route.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::front::Accepted;
use broker_core::{Authenticator, Broker};
use bytes::Bytes;
use http::Request;
use http_edge::{
    Body, BoxError, Intake, OriginPolicy, Peer, Problem, Response, TokenSources, X_REQUEST_ID, below,
    request_id,
};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::{Instant, sleep};
use websocket_over_http::Hub;

use crate::config::Settings;
use crate::desk::Desk;
use crate::elsewhere::Nodes;
use crate::hold::Holds;
use crate::pass::{Asker, pass};
use crate::publishing::{PATH, Publishing};
use crate::routes::Routes;
use crate::secret::Secret;

/// What the front is made with.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The routes that a server begins with.
    pub settings: Settings,
    /// The handle by which they can be others while it serves.
    pub routes: Routes,
    /// Where items are published beside `/grip/publish/`, on a listener of its own. Default nowhere.
    pub control: Option<SocketAddr>,
    /// Longest body with items, in bytes, and longest answer of an origin about a WebSocket. Default 1 MiB; longer bodies
    /// are 413.
    pub max_request_bytes: usize,
    /// Longest message of a WebSocket whose events an origin gets, in bytes. Default 1 MiB; a longer one ends it with 1009.
    pub max_message_bytes: usize,
    /// What counts the bodies that are not whole yet. Default that of the process.
    pub intake: Intake,
    /// Where a token is read beside the headers. Default nowhere.
    pub token_sources: TokenSources,
    /// Which web pages may publish items at `/grip/publish/`; on the listener of its own none may. Default those of this
    /// machine.
    pub origins: OriginPolicy,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            routes: Routes::default(),
            control: None,
            max_request_bytes: 1 << 20,
            max_message_bytes: 1 << 20,
            intake: Intake::default(),
            token_sources: TokenSources::default(),
            origins: OriginPolicy::default(),
        }
    }
}

/// How long a connection to the control port may be without the head of a request, also between two of them: as long as on
/// the HTTP port, so that a backend that publishes now and then does not meet the end of its connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// Routes to origins. Clones are handles to the same front.
///
/// It is a [`tower` service](front::service!) of whole paths.
#[derive(Clone)]
pub struct Front(pub(crate) Routes, pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) hub: Hub,
    pub(crate) holds: Holds,
    pub(crate) publishing: Publishing,
    pub(crate) control: Option<SocketAddr>,
    limits: (usize, usize),
}

impl Front {
    /// The routes of `config` on the current tokio runtime, and items of GRIP on `broker`, from whom `authenticator` knows
    /// or who has a key of GRIP.
    pub fn new(broker: Broker, authenticator: Arc<dyn Authenticator>, config: Config) -> Self {
        let secret = Secret::new(&broker, config.settings.seal.as_ref());
        config.routes.set(config.settings);
        let hub = Hub::new(broker.clone(), config.intake.clone());
        let desk = Arc::new(Desk::new(broker.clone(), secret));
        let holds = Holds::new(broker, Arc::clone(&desk));
        let publishing = Publishing {
            desk,
            holds: holds.clone(),
            authenticator,
            max_request_bytes: config.max_request_bytes,
            intake: config.intake,
            token_sources: config.token_sources,
            origins: config.origins,
        };
        let limits = (config.max_message_bytes, config.max_request_bytes);
        Self(config.routes, Arc::new(Shared { hub, holds, publishing, control: config.control, limits }))
    }

    /// From now on there are other servers of a cluster, which know the items of this one by their seal, and have their
    /// clients do what items tell. What they tell goes to [`hear`](Self::hear), what they ask to
    /// [`answer_node`](Self::answer_node).
    pub fn join(&self, nodes: Arc<dyn Nodes>) {
        self.1.publishing.desk.join(nodes);
    }

    /// Another server is there, or may have missed something: it is told what it has to know.
    pub fn tell_all(&self) {
        self.1.publishing.desk.elsewhere.tell_key();
    }

    /// Another server tells something. What no version of this one tells is nothing.
    pub fn hear(&self, notice: &[u8]) {
        self.1.publishing.desk.elsewhere.hear(notice);
    }

    /// The answer to a question of another server; `None` to what no version of this one asks.
    pub fn answer_node(&self, question: &[u8]) -> Option<Vec<u8>> {
        self.1.publishing.desk.answer_node(question)
    }

    /// Answers a request of the control port: publishing, and nothing else.
    async fn control<B>(&self, request: Request<B>) -> Response
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path();
        let rest = below(path, PATH).unwrap_or(path).to_owned();
        self.1.publishing.control(&self.0.now().control_keys, &parts, &rest, body).await
    }

    /// Serves a connection of the control port until it ends.
    pub(crate) async fn serve_control(self, accepted: Accepted) {
        let peer = Peer(accepted.peer);
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            let front = self.clone();
            async move { Ok::<_, Infallible>(front.control(request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(accepted.socket.into_stream()), service);
        // A client may end it as it likes.
        let _ = connection.await;
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
        if let Some(rest) = below(parts.uri.path(), PATH) {
            let mut response = self.1.publishing.answer(&now.control_keys, &parts, rest, body).await;
            response.headers_mut().insert(X_REQUEST_ID, request_id(&parts.headers));
            return response;
        }
        let Some(state) = now.table.find(&parts) else {
            let mut response = Problem::not_found("no route leads anywhere from here").response();
            response.headers_mut().insert(X_REQUEST_ID, request_id(&parts.headers));
            return response;
        };
        let from = Asker {
            hub: &self.1.hub,
            holds: &self.1.holds,
            remote,
            rule: now.forwarded_for,
            is_stopping: self.0.is_stopping(),
            limits: self.1.limits,
        };
        pass(state, from, parts, Body::of_request(body)).await
    }

    /// Ends WebSockets and lets nobody in any more. Resolves when nothing is under way, or after `window`.
    pub async fn shutdown(&self, window: Duration) {
        const STEP: Duration = Duration::from_millis(20);
        self.0.stop();
        let until = Instant::now() + window;
        tokio::join!(self.1.hub.shut_down(window), self.1.holds.shut_down(window));
        let is_quiet = || self.0.now().table.all().iter().all(|state| state.activity.open() == 0);
        while !is_quiet() && Instant::now() < until {
            sleep(STEP).await;
        }
    }
}

::front::service!(Front);

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Front").field(&self.0).finish()
    }
}
