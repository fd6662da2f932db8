//! What a protocol front is to the server that carries it: the seam between listeners and protocols.
//!
//! A server holds a list of fronts and knows nothing else of their protocols. It accepts, counts what one address may
//! take, finds the front that claims a request's path or a listener, and hands over; it collects what the fronts count
//! and tells them when it stops.
//!
//! ```text
//!            ┌ request ─▶ Front::claims(path) ─▶ Front::handle ─▶ Response
//! listeners ─┤                     └ refused ──▶ Front::refuse ─▶ Response
//!            └ stream ──▶ Front::listens ──────▶ Front::serve,  refused ─▶ Front::refuse_stream
//! /metrics ─────────────▶ Front::collect
//! the end ──────────────▶ Front::shut_down(window)
//! ```
//!
//! A protocol of your own implements [`Front`] and is given to the server's configuration; `examples/own_front.rs` of
//! the package `fanwire` is one.
//!
//! With the feature `settings`, a front says what of it can be set in a configuration file: it has a `Section`, and the
//! server fills it without knowing what is in it.
//!
//! It leaves to others: accepting and counting (the server), bodies, origins and problems (`http-edge`), what is
//! published and who receives it (`broker-core`).

mod log;
mod metric;
#[cfg(feature = "settings")]
mod outbox;
mod refusal;
#[cfg(feature = "settings")]
mod section;
mod service;

use std::any::Any;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use broker_core::{Authenticator, Broker, Encryption};
use http::request::Parts;
use http::{Request, Uri};
use http_edge::{Body, Cookies, OriginPolicy, Peer, Response};

pub use broker_core::{Durations, Histogram};
pub use link::{Hold, Socket, SocketStream};
pub use log::{RefusedLine, Repeats, log_problem, shortened, suppressed_lines};
pub use metric::{Label, Metric, MetricSource, Value, inexpressible, refused};
#[cfg(feature = "settings")]
pub use outbox::Outbox;
pub use refusal::{Reason, Refusal};
#[cfg(feature = "settings")]
pub use section::{Common, MetricsReaders, Section};
#[doc(hidden)]
pub use service::exported;

/// A future of its own that a front gives to the server, which drives it.
pub type Task<T = ()> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The request, with where it comes from as its [`Peer`] extension.
pub fn with_peer(peer: Option<Peer>, mut request: Request<Body>) -> Request<Body> {
    if let Some(peer) = peer {
        request.extensions_mut().insert(peer);
    }
    request
}

/// A connection that was accepted on a front's own listener.
#[derive(Debug)]
#[non_exhaustive]
pub struct Accepted {
    /// The stream. It holds the connection's place among those of its address until it is gone, whatever becomes of it.
    pub socket: Socket,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// Whom its TLS certificate names, verified, if it has shown one.
    pub certificate: Option<Arc<str>>,
    /// How it is encrypted, if it is.
    pub encryption: Option<Encryption>,
}

impl Accepted {
    /// A stream, where it comes from, and whom its certificate names.
    pub fn new(socket: Socket, peer: SocketAddr, certificate: Option<Arc<str>>) -> Self {
        Self { socket, peer, certificate, encryption: None }
    }

    /// The same, encrypted so.
    #[must_use]
    pub fn encrypted(mut self, encryption: Option<Encryption>) -> Self {
        self.encryption = encryption;
        self
    }
}

/// What a server gives to the fronts that it makes.
#[derive(Clone)]
#[non_exhaustive]
pub struct Context {
    /// The one channel space.
    pub broker: Broker,
    /// Who clients are and what they may do.
    pub authenticator: Arc<dyn Authenticator>,
}

impl Context {
    /// What the fronts of one server share.
    pub fn new(broker: Broker, authenticator: Arc<dyn Authenticator>) -> Self {
        Self { broker, authenticator }
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("broker", &self.broker).finish_non_exhaustive()
    }
}

/// A protocol, as its server sees it. Only [`name`](Self::name) and [`claims`](Self::claims) have no default: a
/// protocol that has only a listener of its own claims no path, and one over HTTP has no listener.
///
/// Nothing here may block, and every future is driven on the server's runtime.
pub trait Front: Any + Send + Sync {
    /// One short word, unique within a server: what listeners, metrics and logs call it.
    fn name(&self) -> &'static str;

    /// Whether requests for this path belong to it. Asked for each request, in the order of the server's list; the
    /// first that says yes has it, refusals included.
    fn claims(&self, path: &str) -> bool;

    /// Whether all its answers carry `X-Request-Id`. Default no: the server adds it.
    fn names_answers(&self) -> bool {
        false
    }

    /// Answers a request for a path that it claims.
    fn handle(&self, peer: Option<Peer>, request: Request<Body>) -> Task<Response> {
        let _ = (peer, request);
        let problem = http_edge::Problem::not_found("nothing is here; `/` shows what there is");
        Box::pin(std::future::ready(problem.response()))
    }

    /// Answers a request that the server refuses, in the protocol's own terms. `None`, the default: with
    /// [`Refusal::problem`], readable by the pages that [`readers`](Self::readers) lets in.
    fn refuse(&self, refusal: &Refusal, request: &Parts) -> Option<Task<Response>> {
        let _ = (refusal, request);
        None
    }

    /// Which web pages may read its answers, and whether with cookies. `None`, the default: as of the first front of
    /// the list that says it.
    fn readers(&self) -> Option<(&OriginPolicy, Cookies)> {
        None
    }

    /// Whether the answer to a request may be long in coming, as a poll's or a stream's: its client is watched
    /// meanwhile, and one that has ended its side counts as gone. Asked for paths that it claims. Default yes.
    fn holds(&self, uri: &Uri) -> bool {
        let _ = uri;
        true
    }

    /// Whether its requests over HTTP/1 come with the spelling of their header fields, as the extension
    /// [`RawHead`](http_edge::RawHead). Asked once for whether any front wants it, then for paths that it claims. Default
    /// no.
    fn wants_raw_heads(&self) -> bool {
        false
    }

    /// Where it wants a listener of its own, port 0 for a free one. Asked once, before the server serves. Default
    /// nowhere.
    fn listens(&self) -> Option<SocketAddr> {
        None
    }

    /// The server serves from now on. Called once, on its runtime: for what a front does without a client. Default
    /// nothing.
    fn begin(&self) {}

    /// Serves a connection of its own listener. The future may end while the connection lives on in a task of the
    /// front. Default: closes it.
    fn serve(&self, accepted: Accepted) -> Task {
        drop(accepted);
        Box::pin(std::future::ready(()))
    }

    /// Tells a client of its own listener, in the protocol's terms, why it is refused, and closes. The server drops the
    /// future after two seconds, sooner where many wait for theirs. Default: closes it.
    fn refuse_stream(&self, refusal: &Refusal, accepted: Accepted) -> Task {
        let _ = refusal;
        drop(accepted);
        Box::pin(std::future::ready(()))
    }

    /// Appends what it counts, for `/metrics`: names begin with [`name`](Self::name). Default nothing.
    fn collect(&self, out: &mut Vec<Metric>) {
        let _ = out;
    }

    /// Takes numbers of others to show, where it has a page for them. Default: does not.
    fn show(&self, source: Arc<dyn MetricSource>) {
        let _ = source;
    }

    /// Hears whether new clients should come, where it has something that says so. Default: does not care.
    fn set_ready(&self, ready: bool) {
        let _ = ready;
    }

    /// Tells all clients, in the protocol's terms, that the server goes, and lets nobody in any more. Resolves when
    /// they are gone, or soon after `window`. The server waits 2.5 s longer and then goes. Default: at once.
    fn shut_down(&self, window: Duration) -> Task {
        let _ = window;
        Box::pin(std::future::ready(()))
    }
}

impl std::fmt::Debug for dyn Front {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Front").field(&self.name()).finish()
    }
}
