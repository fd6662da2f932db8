//! The front: from a request to its answer.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use ::front::{MetricSource, log_problem};
use broker_core::{Authenticator, Broker};
use bytes::Bytes;
use futures_util::future::Either;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Uri, header};
use http_edge::{
    Body, BoxError, Cookies, Decoded, Fields, Park, Paths, Peer, Problem, Response, X_REQUEST_ID, below,
    credentials_among, request_id, take_body,
};
use intake::{Gate, Published, Publisher};

use crate::answer::{json, json_document, no_content};
use crate::asked;
use crate::channels;
use crate::cluster;
use crate::config::{Config, MetricsAccess};
use crate::connections::{self, Forced};
use crate::error::Error;
use crate::events::{publish_events, webhook_handshake};
use crate::figures::{Figures, Sources};
use crate::health;
use crate::history::Pages;
use crate::metrics::{self, Scraped};
use crate::nodes::{Elsewhere, Nodes};
use crate::openapi;
use crate::presence;
use crate::publish::{Desk, Retain, key_of, publish_items, publish_lines, publish_raw, write_published};
use crate::query::{invalid, no_parameters};
use crate::retained;
use crate::revocations;
use crate::route::Resource;
use crate::stats::{Counters, Route, Stats, Times};

/// The HTTP API over one broker. Clones are handles to the same front.
///
/// It is a [`tower` service](front::service!): whole paths as it is, [`nested`](Self::nested) below a prefix that its
/// router takes off.
#[derive(Clone)]
pub struct Front(Arc<Shared>, Paths);

struct Shared {
    broker: Broker,
    authenticator: Arc<dyn Authenticator>,
    config: Config,
    counters: Arc<Counters>,
    times: Times,
    desk: Arc<Desk>,
    history: Pages,
    ready: AtomicBool,
    figures: Arc<Figures>,
    sources: Arc<Sources>,
    elsewhere: Elsewhere,
}

impl Front {
    /// The API on `broker`, for whom `authenticator` knows. It is ready at once.
    pub fn new(broker: Broker, authenticator: Arc<dyn Authenticator>, config: Config) -> Self {
        let counters = Arc::<Counters>::default();
        let desk = Desk {
            gate: Gate::new(broker.clone(), authenticator.clone()),
            counters: counters.clone(),
            max_batch: config.max_batch,
        };
        let sources = Arc::<Sources>::default();
        let figures =
            Figures::new(broker.clone(), authenticator.clone(), sources.clone(), config.max_watchers);
        let shared = Shared {
            history: Pages::new(broker.clone(), authenticator.clone(), &config),
            broker,
            authenticator,
            config,
            counters,
            times: Times::default(),
            desk: Arc::new(desk),
            ready: AtomicBool::new(true),
            figures,
            sources,
            elsewhere: Elsewhere::default(),
        };
        Front(Arc::new(shared), Paths::Whole)
    }

    /// The same front for a router that takes the path before it off, as axum's `nest_service` does: at `/`, whatever
    /// [`Config::path`] says. `/healthz`, `/readyz` and `/metrics` are there too.
    #[must_use]
    pub fn nested(&self) -> Self {
        Front(Arc::clone(&self.0), Paths::Rest)
    }

    /// Answers one request. Every answer carries `X-Request-Id`: the request's own, or a new one. A [`Peer`] extension
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
    ///
    /// Not an `async fn`, whose future would have room for the request twice; it is copied on its way to the
    /// connection.
    pub fn handle_from<B>(
        &self,
        peer: Option<Peer>,
        request: Request<B>,
    ) -> impl Future<Output = Response> + Send + use<B>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let front = self.clone();
        let (mut parts, body) = request.into_parts();
        // A request that may be held costs its connection no more than a socket meanwhile. A stream is no such request: its
        // answer is written for as long as it lasts.
        if let Some(park) = parts.extensions.remove::<Park>()
            && body.is_end_stream()
            && !Resource::streams(parts.uri.path(), front.mount())
        {
            drop(body);
            return Either::Left(Box::pin(park.wait(front.respond(peer, parts, Body::empty()))));
        }
        Either::Right(front.respond(peer, parts, body))
    }

    #[expect(clippy::manual_async_fn, reason = "an `async fn` has room for its arguments twice")]
    fn respond<B>(
        self,
        peer: Option<Peer>,
        parts: Parts,
        body: B,
    ) -> impl Future<Output = Response> + Send + use<B>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        async move {
            let shared = &self.0;
            let began = shared.counters.begin(&parts.method);
            let fields = Fields::from(&parts);
            let answer = shared.answer(&peer, self.1, &parts, &fields, body).await;
            let id = request_id(fields);
            let mut response = match answer {
                Ok(response) => response,
                Err(error) => {
                    let problem = Problem::from(error);
                    log_problem("http", &problem, &parts, peer.map(|peer| peer.0.ip()), &id);
                    problem.response()
                }
            };
            shared.counters.answered(response.status().as_u16());
            if let Some(began) = began
                && let Some(route) = shared.route_of(self.mount(), &parts)
            {
                shared.times.answered(route, began);
            }
            let headers = response.headers_mut();
            if parts.method != Method::OPTIONS {
                shared.config.origins.cors_headers(fields, shared.cookies(), headers);
            }
            headers.insert(X_REQUEST_ID, id);
            response
        }
    }

    /// Adds what `/metrics` shows, e.g. another front's counters.
    pub fn add_metrics(&self, source: Arc<dyn MetricSource>) {
        self.0.sources.write().push(source);
    }

    /// What `/readyz` says: 200 or 503. Set to false when the service is about to stop, before it does. A broker that
    /// takes nothing more ([`Broker::is_closed`]) is not ready, whatever is said here.
    pub fn set_ready(&self, ready: bool) {
        self.0.ready.store(ready, Relaxed);
    }

    /// Fails readiness, answers the requests that are held and ends the streams of figures, at once. `window` is not
    /// needed: nothing here outlives an answer.
    pub async fn shutdown(&self, window: Duration) {
        let _ = window;
        self.set_ready(false);
        self.0.history.hold_no_more();
        self.0.figures.close();
    }

    /// There are other nodes: who is connected to them is listed too, and clients there are found. The first call counts.
    pub fn join(&self, nodes: Arc<dyn Nodes>) {
        self.0.elsewhere.join(nodes);
    }

    /// The answer to what another node asks by [`Nodes::ask`]; `None` for a question that this version does not know. The
    /// other node has looked at the rights: what asks here can do everything.
    pub async fn answer_node(&self, question: Bytes) -> Option<Vec<u8>> {
        let shared = &self.0;
        let (counters, elsewhere) = (&shared.counters, &shared.elsewhere);
        asked::answer(&shared.broker, counters, elsewhere, shared.config.max_page, &question).await
    }

    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }

    pub(crate) fn cookies(&self) -> Cookies {
        self.0.cookies()
    }

    /// Where it is in the paths that it is given.
    fn mount(&self) -> &str {
        self.1.mount(&self.0.config.path)
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        self.0.stats()
    }
}

::front::service!(Front);

impl std::fmt::Debug for Front {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Front").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Shared {
    fn stats(&self) -> Stats {
        self.counters.snapshot(self.desk.gate.stats())
    }

    /// What the time of a request is counted under; `None` if it is held, as then it is the client's own time.
    fn route_of(&self, mount: &str, parts: &Parts) -> Option<Route> {
        let rest = below(parts.uri.path(), mount).unwrap_or_default();
        if rest.starts_with("publish") {
            Some(Route::Publish)
        } else if !rest.starts_with("history/") {
            Some(Route::Other)
        } else {
            (!asks_to_wait(&parts.uri)).then_some(Route::History)
        }
    }

    fn connections(&self) -> connections::Desk<'_> {
        connections::Desk {
            broker: &self.broker,
            counters: &self.counters,
            elsewhere: &self.elsewhere,
            max_page: self.config.max_page,
        }
    }

    fn scraped(&self) -> Scraped<'_> {
        Scraped {
            broker: &self.broker,
            stats: self.stats(),
            times: &self.times,
            unfinished: &self.config.intake,
            sources: &self.sources,
        }
    }

    fn cookies(&self) -> Cookies {
        self.config.origins.cookies(&self.config.token_sources)
    }

    #[expect(clippy::manual_async_fn, reason = "an `async fn` has room for its arguments twice")]
    fn answer<'a, B>(
        &'a self,
        peer: &'a Option<Peer>,
        paths: Paths,
        parts: &'a Parts,
        fields: &'a Fields<'_>,
        body: B,
    ) -> impl Future<Output = Result<Response, Error>> + Send
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        async move {
            let mount = paths.mount(&self.config.path);
            let resource = Resource::find(parts.uri.path(), mount)?;
            let method = &parts.method;
            if method == Method::OPTIONS {
                if resource == Resource::Events
                    && let Some(handshake) = webhook_handshake(&parts.headers)
                {
                    return Ok(handshake);
                }
                return Ok(self.config.origins.preflight(&parts.headers, self.cookies(), resource.methods()));
            }
            if !resource.answers(method) {
                return Err(Error::Method(resource.methods()));
            }
            // A page can send some POSTs without asking first, so refusing it the answer is not enough.
            if !self.config.origins.allows(fields) {
                return Err(Error::Origin);
            }
            if let Some(name) = fields.repeated {
                return Err(invalid(name.as_str(), "given twice"));
            }
            // Kept as it is, a compressed payload would reach its readers without anything saying so.
            let body = Decoded::of_field(fields.content_encoding, body)?;
            match resource {
                Resource::Health => return Ok(health::live()),
                Resource::Ready => {
                    let state = match self.ready.load(Relaxed) {
                        true if self.broker.is_closed() => health::State::Closed,
                        true => health::State::Ready,
                        false => health::State::Leaving,
                    };
                    return Ok(health::ready(state));
                }
                Resource::Metrics if self.config.metrics == MetricsAccess::Open => {
                    return Ok(metrics::answer(&self.scraped(), &parts.headers));
                }
                Resource::OpenApi => {
                    no_parameters(parts.uri.query())?;
                    return Ok(openapi::answer(mount));
                }
                _ => {}
            }
            let principal = {
                let remote = peer.map(|peer| peer.0);
                let credentials = credentials_among(fields, parts, remote, &self.config.token_sources);
                credentials.authenticate(&*self.authenticator, "http").await?
            };
            let mut publisher = Publisher::new(principal, "http");
            publisher.address = peer.map(|peer| peer.0.ip());
            let principal = &publisher.principal;
            // A publish is counted message by message, below.
            let is_publish = matches!(resource, Resource::Publish(_) | Resource::Events)
                || matches!(resource, Resource::Retained(_) if method == Method::PUT);
            if !is_publish {
                principal.admit(1).map_err(intake::Error::RateLimited)?;
            }
            let retain = if method == Method::PUT { Retain::Always } else { Retain::IfAsked };
            // What waits long or holds much is boxed: every connection has room for the rest of this future.
            match resource {
                Resource::Publish(_)
                | Resource::Events
                | Resource::ConnectionMessages(_)
                | Resource::ConnectionSubscription { .. }
                | Resource::Revocations
                    if method == Method::HEAD =>
                {
                    Ok(nothing(&resource))
                }
                Resource::Publish(None) => Box::pin(self.publish_many(parts, fields, &publisher, body)).await,
                Resource::Events => {
                    let body = take_body(body, self.config.max_request_bytes, &self.config.intake).await?;
                    Box::pin(publish_events(&self.desk, &publisher, parts, &body)).await.map(json)
                }
                Resource::History(filter) => {
                    Box::pin(self.history.answer(principal, &filter, parts.uri.query())).await.map(json)
                }
                Resource::RetainedChannels => {
                    let (max, query) = (self.config.max_page, parts.uri.query());
                    Box::pin(retained::list(&self.broker, max, principal, query)).await.map(json)
                }
                Resource::Retained(channel) if method == Method::DELETE => {
                    no_parameters(parts.uri.query())?;
                    retained::clear(&self.broker, principal, &channel).await
                }
                Resource::Retained(channel) if method != Method::PUT => {
                    retained::show(&self.broker, principal, &channel, parts.uri.query()).await
                }
                // A PUT retains.
                Resource::Publish(Some(channel)) | Resource::Retained(channel) => {
                    let body =
                        take_body(body, self.broker.config().max_message_bytes, &self.config.intake).await?;
                    publish_raw(
                        &self.desk.gate,
                        &publisher,
                        &channel,
                        parts.uri.query(),
                        fields,
                        &body,
                        retain,
                    )?
                    .await
                    .map_or_else(|error| Err(error.into()), |done| Ok(published(&done)))
                }
                Resource::Presence(channel) => Box::pin(presence::answer(
                    &self.broker,
                    &self.elsewhere,
                    self.config.max_page,
                    principal,
                    &channel,
                    parts.uri.query(),
                ))
                .await
                .map(json),
                Resource::Connections => {
                    Box::pin(self.connections().list(principal, parts.uri.query())).await.map(json)
                }
                Resource::Connection(id) if method == Method::DELETE => {
                    Box::pin(self.connections().close(principal, &id, parts.uri.query())).await
                }
                Resource::Connection(id) => {
                    no_parameters(parts.uri.query())?;
                    Box::pin(self.connections().one(principal, &id)).await.map(json)
                }
                Resource::ConnectionMessages(id) => {
                    let body =
                        take_body(body, self.broker.config().max_message_bytes, &self.config.intake).await?;
                    Box::pin(self.connections().send(principal, &id, parts, body)).await.map(json)
                }
                Resource::ConnectionSubscription { id, filter } => {
                    no_parameters(parts.uri.query())?;
                    let change = if method == Method::PUT { Forced::Subscribe } else { Forced::Unsubscribe };
                    Box::pin(self.connections().change_subscription(principal, &id, &filter, change)).await
                }
                Resource::Revocations => {
                    no_parameters(parts.uri.query())?;
                    let body = take_body(body, revocations::MAX_BYTES, &self.config.intake).await?;
                    let (counters, elsewhere) = (&self.counters, &self.elsewhere);
                    Box::pin(revocations::revoke(&self.broker, counters, elsewhere, principal, &body))
                        .await
                        .map(json)
                }
                Resource::Channels(None) => {
                    channels::list(&self.broker, self.config.max_page, principal, parts.uri.query()).map(json)
                }
                Resource::Channels(Some(channel)) => {
                    no_parameters(parts.uri.query())?;
                    channels::one(&self.broker, principal, &channel).map(json)
                }
                Resource::Figures => {
                    let (headers, query) = (&parts.headers, parts.uri.query());
                    Box::pin(self.figures.answer(principal, method, headers, query)).await
                }
                Resource::Nodes => {
                    Box::pin(cluster::answer(&self.elsewhere, principal, parts.uri.query())).await.map(json)
                }
                Resource::Metrics => metrics::answer_to(&self.scraped(), principal, &parts.headers),
                Resource::Health | Resource::Ready | Resource::OpenApi => Err(Error::NotFound),
            }
        }
    }

    async fn publish_many<B>(
        &self,
        parts: &Parts,
        fields: &Fields<'_>,
        publisher: &Publisher,
        body: B,
    ) -> Result<Response, Error>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        no_parameters(parts.uri.query())?;
        let key = key_of(fields)?;
        match media_type(fields)? {
            Media::Json => {
                let body = take_body(body, self.config.max_request_bytes, &self.config.intake).await?;
                let results = publish_items(&self.desk, publisher, key.as_deref(), &body).await;
                results.map(json)
            }
            Media::Lines => {
                let key = key.map(Cow::into_owned);
                let lines = publish_lines(Arc::clone(&self.desk), &self.config, publisher.clone(), key, body);
                let mut response = http::Response::new(lines);
                let ndjson = const { HeaderValue::from_static("application/x-ndjson") };
                response.headers_mut().insert(header::CONTENT_TYPE, ndjson);
                Ok(response)
            }
        }
    }
}

/// Whether a question for history is held until there is something to answer.
pub(crate) fn asks_to_wait(uri: &Uri) -> bool {
    uri.query().is_some_and(|query| query.split('&').any(|part| part.starts_with("wait=")))
}

enum Media {
    Json,
    Lines,
}

/// What a body of items is sent as. None, and curl's default, count as JSON.
fn media_type(fields: &Fields<'_>) -> Result<Media, Error> {
    let Some(value) = fields.content_type else { return Ok(Media::Json) };
    let text = String::from_utf8_lossy(value.as_bytes());
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match &*essence {
        "" | "application/json" | "application/x-www-form-urlencoded" => Ok(Media::Json),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Ok(Media::Lines),
        _ => Err(Error::MediaType(text.into_owned(), "application/json or application/x-ndjson")),
    }
}

fn published(done: &Published) -> Response {
    let mut out = Vec::with_capacity(160);
    write_published(done, &mut out);
    json_document(out)
}

/// `HEAD` where only `POST` does something: what may be done, and nothing else.
fn nothing(resource: &Resource<'_>) -> Response {
    let mut response = no_content();
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(resource.methods()));
    response
}
