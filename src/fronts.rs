//! From a path to a front: the one place where the fronts of a server stand together.

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_core::{Broker, Encryption};
use bytes::Bytes;
use front::{Context, Front, MetricSource};
use futures_util::future::{Either, join_all};
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_edge::{
    Body, BoxError, Cookies, Encrypted, OriginPolicy, Peer, Problem, Response, X_REQUEST_ID, request_id_among,
};

#[cfg(feature = "cli")]
use crate::config::FrontSection;
use crate::{Config, page};

/// The protocols of this build, in the order in which they are asked whether a path is theirs: feature, crate, its name
/// in this one, the field of [`Config`] for it and that field's documentation. A new protocol is a line here.
/// Everything that has to name each of them is generated from this list, by a macro that is given it:
/// `built_in!(that_macro)`.
macro_rules! built_in {
    ($given_to:ident) => {
        $given_to! {
            #[cfg(feature = "http")] front_http as api, config.api: "The HTTP API.";
            #[cfg(feature = "sse")] front_sse as sse, config.sse: "Server-Sent Events, at `/sse`.";
            #[cfg(feature = "bayeux")] front_bayeux as bayeux, config.bayeux: "Bayeux, at `/cometd`.";
            #[cfg(feature = "mqtt")] front_mqtt as mqtt, config.mqtt_front: "MQTT, over TCP and at `/mqtt`.";
        }
    };
}
pub(crate) use built_in;

macro_rules! makers {
    ($(#[$feature:meta] $front:ident as $name:ident, config.$field:ident: $about:literal;)*) => {
        /// All of them, on the broker of `context`.
        fn made(context: &Context, config: &Config) -> Vec<Arc<dyn Front>> {
            let given = || (context.broker.clone(), Arc::clone(&context.authenticator));
            let _ = (&given, config);
            Vec::from([$(
                #[$feature]
                {
                    let (broker, authenticator) = given();
                    let front: Arc<dyn Front> =
                        Arc::new($front::Front::new(broker, authenticator, config.$field.clone()));
                    front
                },
            )*])
        }

        /// Their sections in a configuration.
        #[cfg(feature = "cli")]
        pub(crate) fn sections() -> Vec<FrontSection> {
            Vec::from([$(
                #[$feature]
                FrontSection::of::<$front::Settings>(|config, own| config.$field = own),
            )*])
        }
    };
}
built_in!(makers);

/// How a front of the embedding service's own is made, once there is a broker: see [`Config::with_front`].
#[derive(Clone)]
pub struct OwnFront {
    make: Arc<Make>,
    #[cfg(feature = "cli")]
    section: Option<FrontSection>,
}

type Make = dyn Fn(&Context) -> Arc<dyn Front> + Send + Sync;

impl OwnFront {
    /// A front that nothing is set of, or that is set up in code.
    pub fn new<F: Front>(make: impl Fn(&Context) -> F + Send + Sync + 'static) -> Self {
        Self {
            make: Arc::new(move |context| Arc::new(make(context))),
            #[cfg(feature = "cli")]
            section: None,
        }
    }

    /// A front with a section of its own in the configuration. It is made with what
    /// [`Loader::load`](crate::Loader::load) read there, and with the defaults if it is given to a [`Config`] that was
    /// not loaded.
    #[cfg(feature = "cli")]
    pub fn with_section<S: front::Section, F: Front>(
        make: impl Fn(&Context, S::Config) -> F + Send + Sync + 'static,
    ) -> Self {
        let make = Arc::new(make);
        let with = move |own: S::Config| {
            let make = Arc::clone(&make);
            OwnFront::new(move |context: &Context| make(context, own.clone()))
        };
        let of_defaults = with(S::Config::default());
        let section = FrontSection::of::<S>(move |config, own| config.own_fronts.push(with(own)));
        Self { section: Some(section), ..of_defaults }
    }

    #[cfg(feature = "cli")]
    pub(crate) fn section(&self) -> Option<&FrontSection> {
        self.section.as_ref()
    }
}

impl std::fmt::Debug for OwnFront {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OwnFront")
    }
}

/// All fronts on one broker, behind one [`handle`](Fronts::handle). Clones are handles to the same fronts.
///
/// | path | front |
/// | --- | --- |
/// | `/cometd` and below (`bayeux.mount`) | Bayeux |
/// | `/mqtt` | MQTT over WebSocket |
/// | `/sse` and below | Server-Sent Events |
/// | `/v1/…`, `/healthz`, `/readyz`, `/metrics` | the HTTP API |
/// | what no front above claims, and one of your own does | [`Config::with_front`] |
/// | `/grip` and below | publishing by GRIP |
/// | what is left and a route of [`Config::grip`](crate::Config) is for | its origin |
/// | `/`, `/page/…` | the page that shows it working |
///
/// Anything else, and a front that was left out of the build, is 404.
///
/// Which web pages may come is each front's own `origins` in its `Config`; by default those of the same origin and of
/// this machine. The same origin is judged by `Host`. [`Server`](crate::Server) answers on loopback to `localhost` and
/// addresses only; a service that mounts these fronts in an HTTP server of its own decides for itself which hosts it
/// answers to.
///
/// They are one [`tower` service](front::service!), for whole paths or below a prefix that its router takes off.
#[derive(Clone)]
pub struct Fronts {
    list: Arc<[Arc<dyn Front>]>,
    page: Arc<page::Facts>,
    /// Resources of operators, before the HTTP API: webhooks, and sources.
    #[cfg(feature = "gateway")]
    resources: Arc<[Arc<dyn Front>]>,
    /// Routes for operators, the same way.
    #[cfg(all(feature = "grip", feature = "http"))]
    routes: Arc<dyn Front>,
    /// Whether each request is a line of the log.
    access_log: bool,
}

impl Fronts {
    /// The fronts on `broker`, as `config` sets them up. `/metrics` shows the counters of all.
    pub fn new(broker: &Broker, config: &Config) -> Self {
        let context = Context::new(broker.clone(), Arc::clone(&config.authenticator));
        let mut list = made(&context, config);
        list.extend(config.own_fronts.iter().map(|own| (own.make)(&context)));
        #[cfg(feature = "grip")]
        list.push(Arc::new(gateway_grip::Front::new(
            broker.clone(),
            Arc::clone(&config.authenticator),
            config.grip.clone(),
        )));
        let fronts = Fronts {
            list: list.into(),
            page: Arc::new(page::Facts::new(config)),
            #[cfg(feature = "gateway")]
            resources: Arc::default(),
            #[cfg(all(feature = "grip", feature = "http"))]
            routes: Arc::new(gateway_grip::Api::new(
                config.grip.routes.clone(),
                gateway_grip::Door::new(
                    Arc::clone(&config.authenticator),
                    config.api.origins.clone(),
                    config.api.token_sources.clone(),
                ),
            )),
            access_log: config.access_log,
        };
        for front in fronts.list() {
            // Weakly: the front that shows the numbers has some of its own.
            let front = Arc::downgrade(front);
            fronts.show(Arc::new(move |out: &mut Vec<_>| {
                if let Some(front) = front.upgrade() {
                    front.collect(out);
                }
            }));
        }
        fronts
    }

    /// The front of a type, for what only that protocol has: services of Bayeux, counters, connections that were
    /// accepted elsewhere. `None` if it is not in this build.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # let broker = fanwire::Broker::new(fanwire::core::Config::default());
    /// let fronts = fanwire::Fronts::new(&broker, &fanwire::Config::default());
    /// let streams = fronts.get::<fanwire::sse::Front>().map(|sse| sse.stats().streams);
    /// assert_eq!(streams, Some(0));
    /// # }
    /// ```
    pub fn get<F: Front>(&self) -> Option<&F> {
        self.list().iter().find_map(|front| {
            let front: &dyn Any = &**front;
            front.downcast_ref()
        })
    }

    /// All of them, in the order in which they are asked whose a path is.
    pub fn list(&self) -> &[Arc<dyn Front>] {
        &self.list
    }

    /// The same with the resources of webhooks and sources, for whom the HTTP API is.
    #[cfg(feature = "gateway")]
    pub(crate) fn with_resources(
        mut self,
        webhooks: &gateway::webhook::Webhooks,
        sources: &sources::Sources,
        config: &Config,
    ) -> Self {
        #[cfg(feature = "http")]
        {
            let door = gateway::resource::Door::new(
                Arc::clone(&config.authenticator),
                config.api.origins.clone(),
                config.api.token_sources.clone(),
            );
            let api = gateway::webhook::Api::new(webhooks.clone(), door.clone());
            let front = sources::Front::new(sources.clone(), door.clone());
            let both: [Arc<dyn Front>; 2] = [Arc::new(api), Arc::new(front)];
            self.resources = both.into_iter().chain(self.gateways(door)).collect();
        }
        #[cfg(not(feature = "http"))]
        let _ = (webhooks, sources, config, &mut self);
        self
    }

    /// The resource of gateways, in builds that have some.
    #[cfg(all(feature = "gateway-aws", feature = "gateway", feature = "http"))]
    fn gateways(&self, door: gateway::resource::Door) -> Option<Arc<dyn Front>> {
        Some(Arc::new(gateway_aws::Operators::new(self.get().cloned(), door)))
    }

    #[cfg(all(not(feature = "gateway-aws"), feature = "gateway", feature = "http"))]
    fn gateways(&self, _: gateway::resource::Door) -> Option<Arc<dyn Front>> {
        None
    }

    /// What the page is told of the server around these fronts.
    pub(crate) fn page(&self) -> &page::Facts {
        &self.page
    }

    /// Whose requests for `path` are. Nobody else decides it.
    pub(crate) fn of(&self, path: &str) -> Option<&Arc<dyn Front>> {
        // Of `/v1/…` by its next letter first, as most requests are for others.
        #[cfg(feature = "gateway")]
        if matches!(path.as_bytes().get(4), Some(b'w' | b'd' | b's' | b'r' | b'g'))
            && let Some(front) = self.resources.iter().find(|front| front.claims(path))
        {
            return Some(front);
        }
        #[cfg(all(feature = "grip", feature = "http"))]
        if path.as_bytes().get(4) == Some(&b'r') && self.routes.claims(path) {
            return Some(&self.routes);
        }
        self.list().iter().find(|front| front.claims(path))
    }

    /// Answers one request of any HTTP server that can hand over hyper's upgrades (for WebSocket). A [`Peer`] extension
    /// says where it comes from.
    pub async fn handle<B>(&self, request: Request<B>) -> Response
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let peer = Peer::of(request.extensions());
        self.handle_from(peer, request).await
    }

    /// As [`handle`](Self::handle), for a request that comes from `peer`, whether or not it says so itself.
    pub fn handle_from<B>(
        &self,
        peer: Option<Peer>,
        request: Request<B>,
    ) -> impl Future<Output = Response> + Send + use<B>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        // Boxed, so that connections have no room for it while it is off.
        if self.access_log {
            let logged: Pin<Box<dyn Future<Output = Response> + Send>> =
                Box::pin(self.clone().answer_logged(peer, request));
            return Either::Left(logged);
        }
        Either::Right(self.answer(peer, request))
    }

    /// The same, as a line of the access log.
    async fn answer_logged<B>(self, peer: Option<Peer>, mut request: Request<B>) -> Response
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let began = Instant::now();
        let id = request_id_among(request.headers());
        // Whoever names the answer, here or in the front, then names it so.
        request.headers_mut().insert(X_REQUEST_ID, id.clone());
        let method = request.method().clone();
        // What is behind the path may be a token.
        let path = front::shortened(request.uri().path()).to_owned();
        let front = self.of(request.uri().path()).map_or("", |front| front.name());
        let tls = Encrypted::of(request.extensions()).map(Encryption::version);
        let response = self.answer(peer, request).await;
        tracing::info!(
            target: "fanwire::access",
            front,
            method = %method,
            path,
            status = response.status().as_u16(),
            seconds = began.elapsed().as_micros() as f64 / 1e6,
            remote = peer.map(|peer| tracing::field::display(peer.0.ip())),
            tls,
            request = id.to_str().unwrap_or_default(),
            "request"
        );
        response
    }

    fn answer<B>(
        &self,
        peer: Option<Peer>,
        request: Request<B>,
    ) -> impl Future<Output = Response> + Send + use<B>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let Some(front) = self.of(request.uri().path()) else {
            let id = request_id_among(request.headers());
            return Either::Right(named(
                id,
                Either::Right(std::future::ready(self.answer_elsewhere(&request))),
            ));
        };
        let id = (!front.names_answers()).then(|| request_id_among(request.headers()));
        // Boxed by the front, so that a connection has room for the one that it talks to and not for the largest.
        let answer = front.handle(peer, request.map(Body::of_request));
        match id {
            None => Either::Left(answer),
            Some(id) => Either::Right(named(id, Either::Left(answer))),
        }
    }

    /// The page, and what no front answers.
    fn answer_elsewhere<B>(&self, request: &Request<B>) -> Response {
        let path = request.uri().path();
        match path.split('/').nth(1).unwrap_or_default() {
            "" if path == "*" && request.method() == Method::OPTIONS => self.readable(any_of_them(), request),
            "" | "page" => self.page.answer(request.method(), path),
            _ => {
                let problem = Problem::not_found("nothing is here; `/` shows what there is");
                self.readable(problem.response(), request)
            }
        }
    }

    /// The answer, for the pages that may read what no front says.
    fn readable<B>(&self, mut answer: Response, request: &Request<B>) -> Response {
        if let Some((origins, cookies)) = self.readers_of(request.uri().path()) {
            origins.cors_headers(request.headers(), cookies, answer.headers_mut());
        }
        answer
    }

    /// The pages that may read what is said at a path. Where its front does not say, or there is none: as of the first
    /// front that does.
    pub(crate) fn readers_of(&self, path: &str) -> Option<(&OriginPolicy, Cookies)> {
        let own = self.of(path).and_then(|front| front.readers());
        own.or_else(|| self.list().iter().find_map(|front| front.readers()))
    }

    /// Shows these numbers where a front has a page for them: `/metrics`.
    pub(crate) fn show(&self, source: Arc<dyn MetricSource>) {
        for front in self.list() {
            front.show(Arc::clone(&source));
        }
    }

    /// The server serves from now on.
    pub(crate) fn begin(&self) {
        for front in self.list() {
            front.begin();
        }
    }

    /// Makes `/readyz` say whether new clients should come here. `true` until somebody says otherwise.
    pub fn set_ready(&self, ready: bool) {
        for front in self.list() {
            front.set_ready(ready);
        }
    }

    /// Tells all clients, each in its protocol's terms, that the server goes. Resolves when they are gone, or soon
    /// after `window`.
    pub async fn shutdown(&self, window: Duration) {
        join_all(self.list().iter().map(|front| front.shut_down(window))).await;
    }
}

/// An answer with the request's id.
async fn named(id: HeaderValue, answer: impl Future<Output = Response>) -> Response {
    let mut response = answer.await;
    response.headers_mut().entry(X_REQUEST_ID).or_insert(id);
    response
}

/// `OPTIONS *` asks about the server as a whole (RFC 9110 §9.3.7): every method that is answered somewhere.
fn any_of_them() -> Response {
    let mut response = http::Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let methods = HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, QUERY, OPTIONS");
    response.headers_mut().insert(header::ALLOW, methods);
    response
}

front::service!(Fronts);

impl std::fmt::Debug for Fronts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use broker_core::Broker;

    use super::*;

    /// A broker ends with its last handle, and fronts that show each other's numbers must not be one for ever.
    #[tokio::test]
    async fn fronts_that_are_dropped_let_go_of_their_broker() {
        let broker = Broker::new(broker_core::Config::default());
        let mut messages = broker.subscribe("a".parse().unwrap()).unwrap();
        let fronts = Fronts::new(&broker, &Config::default());
        drop((fronts, broker));
        let end = tokio::time::timeout(Duration::from_secs(10), messages.message()).await;
        assert!(end.expect("the broker has ended").is_none());
    }
}
