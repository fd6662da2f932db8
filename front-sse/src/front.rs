//! The front: from a request to a stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ::front::log_problem;
use broker_core::{
    Action, After, AuthError, Authenticator, Broker, Client, Connection as _, Deliver, Denied, Filter,
    MessageId, Position, Principal, Reserved, Start, SubscribeError, Subscriber, unix_ms,
};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version, header};
use http_edge::{
    Body, BoxError, ChunkedAnswer, Cookies, Decoded, Encrypted, Paths, Peer, Problem, Response, X_REQUEST_ID,
    below, connection_id, credentials_from, pipe, request_id, take_body, user_agent,
};
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;

use crate::codec::event;
use crate::codec::request::{self, StreamRequest};
use crate::error::{METHODS, Refusal};
use crate::protocol::{Events, OverBoth, Overlapping, Stream};
use crate::stats::Counters;
use crate::transport::{Attached, Opened, Origin, Registry, catch_up, keep, retry_within};
use crate::{Config, Format, Stats};

/// Server-Sent Events over one broker. Clones are handles to the same front.
///
/// It is a [`tower` service](front::service!): whole paths as it is, [`nested`](Self::nested) below a prefix that its
/// router takes off.
#[derive(Clone)]
pub struct Front(Arc<Shared>, Paths);

pub(crate) struct Shared {
    broker: Broker,
    authenticator: Arc<dyn Authenticator>,
    pub(crate) config: Config,
    raw: Arc<Events>,
    json: Arc<Events>,
    streams: Arc<Registry>,
    pub(crate) counters: Arc<Counters>,
}

/// When a client that found no room may come back, at the latest.
const OVERLOAD_RETRY: Duration = Duration::from_secs(10);

/// When a client whose stream was ended from here may come back, at the latest.
pub(crate) const RECONNECT_SOON: Duration = Duration::from_secs(2);

/// What carries a stream to a client that does not speak HTTP/2.
const HTTP_1: &str = "http/1.1";

/// The longest life of credentials that is watched: a year. A clock is not to be set further ahead.
const MAX_EXPIRY: Duration = Duration::from_secs(365 * 24 * 3600);

impl Front {
    /// A front on `broker`. Streams are opened for whom `authenticator` knows and whose rights say `subscribe`.
    pub fn new(broker: Broker, authenticator: Arc<dyn Authenticator>, config: Config) -> Self {
        let counters = Arc::new(Counters::default());
        let events = |format| {
            let encoding = broker.register_encoding();
            Arc::new(Events { format, encoding, counters: Arc::clone(&counters) })
        };
        let (raw, json) = (events(Format::Raw), events(Format::Json));
        let streams = Arc::default();
        let shared = Shared { broker, authenticator, config, raw, json, streams, counters };
        Front(Arc::new(shared), Paths::Whole)
    }

    /// The same front for a router that takes the path before it off, as axum's `nest_service` does: at `/`, whatever
    /// [`Config::path`] says.
    #[must_use]
    pub fn nested(&self) -> Self {
        Front(Arc::clone(&self.0), Paths::Rest)
    }

    /// Answers one request at [`Config::path`] or below; elsewhere 404. A body is read where it names filters, and nowhere
    /// else.
    ///
    /// Where the request carries a [`Takeover`](http_edge::Takeover) and opens a stream, the future does not resolve: it is dropped with the
    /// hyper connection.
    pub async fn handle<B>(&self, request: Request<B>) -> Response
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = request.into_parts();
        let front = &self.0;
        let rest = below(parts.uri.path(), self.1.mount(&front.config.path));
        if parts.method == Method::OPTIONS && rest.is_some() {
            return front.config.origins.preflight(&parts.headers, front.cookies(), METHODS);
        }
        let opened = match rest {
            None => Err(Refusal::Path),
            Some(rest) if takes_body(&parts.method) => match Box::pin(front.read(&parts, body)).await {
                Ok(body) => front.open(&parts, rest, Some(&body)).await,
                Err(refusal) => Err(refusal),
            },
            Some(rest) => {
                drop(body);
                front.open(&parts, rest, None).await
            }
        };
        match opened {
            Ok(response) => response,
            Err(refusal) => {
                Counters::add(match refusal {
                    Refusal::Auth(_)
                    | Refusal::Denied(_)
                    | Refusal::Forbidden(_)
                    | Refusal::Unidentified(_)
                    | Refusal::Origin => &front.counters.refused_rights,
                    _ => &front.counters.refused,
                });
                let (problem, id) = (Problem::from(refusal), request_id(&parts.headers));
                let remote = Peer::of(&parts.extensions).map(|peer| peer.0.ip());
                log_problem("sse", &problem, &parts, remote, &id);
                let mut response = problem.response();
                let headers = response.headers_mut();
                headers.insert(X_REQUEST_ID, id);
                front.config.origins.cors_headers(&parts.headers, front.cookies(), headers);
                response
            }
        }
    }

    /// Tells every stream when to come back and ends it, evenly across `window`; later requests are told the same at
    /// once. Resolves when all are gone, at most two seconds after the window.
    pub async fn shutdown(&self, window: Duration) {
        self.0.streams.shut_down(window).await;
    }

    /// Answers a request that a limit of somebody else's refuses, before the front has looked at it: a stream that says
    /// `why`, when to come back (after `wait` at the earliest), and ends. An error status would be final for a browser.
    ///
    /// Pages of allowed origins can read it. `version` and `headers` are the request's.
    pub async fn send_away(
        &self,
        version: Version,
        headers: &HeaderMap,
        why: &str,
        wait: Duration,
    ) -> Response {
        Counters::add(&self.0.counters.refused);
        send_away(self.0.head(headers), transport_of(version), why, retry_after(wait)).await
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.0
    }

    /// Counters and gauges.
    pub fn stats(&self) -> Stats {
        self.0.counters.snapshot(self.0.streams.len())
    }
}

::front::service!(Front);

impl std::fmt::Debug for Front {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Front").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn broker(&self) -> &Broker {
        &self.broker
    }

    pub(crate) fn cookies(&self) -> Cookies {
        self.config.origins.cookies(&self.config.token_sources)
    }

    /// The body of a request that names its filters there.
    async fn read<B>(&self, parts: &Parts, body: B) -> Result<Bytes, Refusal>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        if !self.config.origins.allows(parts) {
            return Err(Refusal::Origin);
        }
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let kind = parts.headers.get(header::CONTENT_TYPE).map(text).unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            return Err(Refusal::MediaType(kind));
        }
        let body = Decoded::new(&parts.headers, body)?;
        Ok(take_body(body, self.config.max_request_bytes, &self.config.intake).await?)
    }

    /// `rest` is the path behind the front's own.
    async fn open(
        self: &Arc<Self>,
        parts: &Parts,
        rest: &str,
        body: Option<&Bytes>,
    ) -> Result<Response, Refusal> {
        if body.is_none() && parts.method != Method::GET && parts.method != Method::HEAD {
            return Err(Refusal::Method);
        }
        let body = body.map(|body| &body[..]);
        let asked = request::parse(rest, parts.uri.query(), &parts.headers, body, self.config.max_filters)?;
        if !self.config.origins.allows(parts) {
            return Err(Refusal::Origin);
        }
        for filter in &asked.filters {
            let deep = |error| Refusal::TooManyLevels { text: shorten(filter), error };
            self.broker.check_levels(filter).map_err(deep)?;
        }
        let mut credentials = credentials_from(parts, &self.config.token_sources);
        // Who decides about connections is told by which name it will know this one.
        let place =
            (self.broker.policy().is_some() && parts.method != Method::HEAD).then(|| self.broker.reserve());
        (credentials.transport, credentials.filters) = (transport_of(parts.version), &asked.filters);
        credentials.key = place.as_ref().map(Reserved::key);
        let is_read = AtomicBool::new(false);
        credentials.asked = Some(&is_read);
        let principal = match credentials.authenticate(&*self.authenticator, "sse").await {
            Ok(principal) => principal,
            Err(AuthError::Denied(why)) => return Err(Refusal::Denied(why.into())),
            Err(error) => {
                let (AuthError::Busy { .. } | AuthError::Undecided { .. } | AuthError::Unavailable(_)) =
                    &error
                else {
                    return Err(error.into());
                };
                let is_undecided = matches!(error, AuthError::Undecided { .. });
                if parts.method == Method::HEAD || (is_undecided && !is_browser(&parts.headers)) {
                    return Err(error.into());
                }
                // Nobody knows yet whether these credentials are right, and soon somebody will: see below.
                let wait = match &error {
                    AuthError::Busy { retry_after } | AuthError::Undecided { retry_after } => *retry_after,
                    _ => Duration::ZERO,
                };
                Counters::add(&self.counters.refused);
                let (head, transport) = (self.head(&parts.headers), transport_of(parts.version));
                let why = "the credentials cannot be checked now";
                return Ok(send_away(head, transport, why, retry_after(wait)).await);
            }
        };
        // `chanel=a` would otherwise lose what it asks for. Who looks at requests may have parameters of its own.
        if let Some(unknown) = &asked.unknown
            && !is_read.load(Relaxed)
        {
            return Err(Refusal::Unknown(unknown.clone()));
        }
        if let Some(filter) =
            asked.filters.iter().find(|filter| !principal.allows_filter(Action::Subscribe, filter))
        {
            let filter = filter.to_string();
            return Err(match principal.is_unidentified() {
                true => Refusal::Unidentified(filter),
                false => Refusal::Forbidden(filter),
            });
        }
        let head = self.head(&parts.headers);
        if parts.method == Method::HEAD {
            return Ok(answer(head, Body::empty()));
        }
        self.check_retained(&asked).await?;
        if let Err(wait) = principal.admit(1) {
            // As where there is no room: a browser comes back after this, and after no error status.
            Counters::add(&self.counters.refused);
            return Ok(
                send_away(head, transport_of(parts.version), "too many requests", retry_after(wait)).await
            );
        }
        if let Some(policy) = self.broker.policy() {
            let mut client = Client::new(&principal, "sse");
            client.remote = credentials.remote.map(|remote| remote.ip());
            client.key = place.as_ref().map(Reserved::key);
            for filter in &asked.filters {
                match policy.subscribe(&client, filter).await {
                    Ok(()) => {}
                    Err(Denied::Forbidden(why)) => return Err(Refusal::Denied(why)),
                    Err(Denied::Unavailable { retry_after: wait }) if !is_browser(&parts.headers) => {
                        return Err(Refusal::Undecided(wait));
                    }
                    Err(Denied::Unavailable { retry_after: wait }) => {
                        Counters::add(&self.counters.refused);
                        let why = "whoever decides about subscriptions does not answer";
                        return Ok(send_away(head, transport_of(parts.version), why, retry_after(wait)).await);
                    }
                    Err(_) => return Err(Refusal::Denied("the policy denies it".into())),
                }
            }
        }
        let origin = Origin {
            principal,
            transport: transport_of(parts.version),
            remote: credentials.remote.map(|remote| remote.ip()),
            encryption: Encrypted::of(&parts.extensions),
            user_agent: user_agent(&parts.headers).map(Box::from),
        };
        Ok(self.stream(asked, origin, place, head, parts).await)
    }

    /// Retained messages are sent in one go. More than an outbox takes would end the stream at once, each time anew.
    async fn check_retained(&self, asked: &StreamRequest) -> Result<(), Refusal> {
        // One channel has one, and an empty outbox takes that whatever its size.
        let is_one = matches!(&asked.filters[..], [one] if one.as_literal().is_some());
        if is_one || !asked.retained || asked.last_event_id.is_some() {
            return Ok(());
        }
        let (max_messages, max_bytes) =
            (self.config.outbox.max_messages / 2, self.config.outbox.max_bytes / 2);
        let (messages, bytes) = self.broker.retained_usage(&asked.filters, max_messages, max_bytes).await;
        if messages > 1 && (messages > max_messages || bytes > max_bytes) {
            return Err(Refusal::TooManyRetained { messages, bytes });
        }
        Ok(())
    }

    fn head(&self, request: &HeaderMap) -> HeaderMap {
        let mut head = HeaderMap::with_capacity(8);
        head.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        head.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
        head.insert("x-accel-buffering", HeaderValue::from_static("no"));
        head.insert(X_REQUEST_ID, request_id(request));
        self.config.origins.cors_headers(request, self.cookies(), &mut head);
        head
    }

    async fn stream(
        self: &Arc<Self>,
        asked: StreamRequest,
        origin: Origin,
        place: Option<Reserved>,
        mut head: HeaderMap,
        parts: &Parts,
    ) -> Response {
        // Noted before the subscription: what is published between them comes again rather than never.
        let begins = self.config.announce_position && asked.last_event_id.is_none();
        let position = self.broker.position_of(&asked.filters);
        let mut first = event::opening(begins.then_some(position));
        if let Some(reply) = origin.principal.welcome().and_then(|welcome| welcome.reply.as_ref()) {
            first.push_str(&event::hook(reply));
        }
        let subscriber = self.attach(&asked, position, &origin.principal, place);
        let answer = ChunkedAnswer::to(parts, first);
        answer.begin(&subscriber.outbox());
        let room = if self.streams.is_closing() { 0 } else { self.config.max_streams };
        let open = self.streams.enter(subscriber.outbox(), room);
        let (Some(open), Ok(replay)) = (open, self.subscribe(&subscriber, &asked)) else {
            Counters::add(&self.counters.refused);
            return send_away(head, origin.transport, "no room now", retry_within(OVERLOAD_RETRY)).await;
        };
        for filter in &asked.filters {
            if let Err(error) = self.broker.settled(filter).await {
                Counters::add(&self.counters.refused);
                let wait = match error {
                    SubscribeError::Unavailable { retry_after: wait, .. } => retry_after(wait),
                    _ => retry_within(OVERLOAD_RETRY),
                };
                return send_away(head, origin.transport, "whoever keeps messages does not answer", wait)
                    .await;
            }
        }
        Counters::add(&self.counters.opened);
        if let Ok(id) = HeaderValue::from_str(&connection_id(subscriber.key())) {
            head.insert("x-connection-id", id);
        }

        let expires_at = origin
            .principal
            .expires_at_ms()
            .map(|end| Instant::now() + Duration::from_millis(end.saturating_sub(unix_ms())).min(MAX_EXPIRY));
        let stream = Stream::new(Instant::now(), self.config.keep_alive, fastrand::f64(), expires_at);
        let attached = Arc::new(Attached::new(subscriber, Arc::clone(self), origin));
        attached.subscriber.register_connection(&attached);
        attached.subscriber.join();
        for filter in attached.welcome() {
            // One that cannot be is one that an operator could not have either.
            let _ = attached.subscribe(filter);
        }
        let opened = Opened { attached, stream, _open: open };
        let replay = replay.map(|replay| {
            Counters::add(&self.counters.resumed);
            catch_up(replay, &opened, asked.filters, asked.last_event_id.unwrap_or_default())
        });
        let outbox = opened.attached.subscriber.outbox();
        let head = with_head(head, ());
        answer.open(head, outbox, self.config.max_pipe_bytes, move |link| keep(link, opened, replay)).await
    }

    /// `stands` is where the logs that it reaches stand.
    fn attach(
        &self,
        asked: &StreamRequest,
        stands: Position,
        principal: &Principal,
        place: Option<Reserved>,
    ) -> Subscriber {
        let events = match asked.format {
            Format::Raw => &self.raw,
            Format::Json => &self.json,
        };
        let overlapping = || Overlapping { events: Arc::clone(events), filters: asked.filters.clone() };
        let deliver: Arc<dyn Deliver> = if stands.only().is_none() {
            let position = Mutex::new(begins_at(asked, stands));
            Arc::new(OverBoth { inner: overlapping(), position })
        } else if Overlapping::is_needed(&asked.filters) {
            Arc::new(overlapping())
        } else {
            Arc::clone(events) as Arc<dyn Deliver>
        };
        match place {
            Some(place) => self.broker.attach_reserved(place, deliver, self.config.outbox, principal),
            None => self.broker.attach_as(deliver, self.config.outbox, principal),
        }
    }

    fn subscribe(
        &self,
        subscriber: &Subscriber,
        asked: &StreamRequest,
    ) -> Result<Option<broker_core::Replay>, broker_core::SubscribeError> {
        let tagged = asked.filters.iter().zip(0..);
        if let Some(id) = &asked.last_event_id {
            let tagged: Vec<_> = tagged.map(|(filter, tag)| (filter.clone(), tag)).collect();
            return subscriber.subscribe_after(&tagged, after(id)).map(Some);
        }
        // What waits for one filter's retained messages would come behind what does not wait for another's, under an id that
        // is behind the one that its client has seen.
        let start = match asked.filters.len() {
            _ if !asked.retained => Start::Live,
            1 => Start::Retained,
            _ => Start::RetainedBeside,
        };
        for (filter, tag) in tagged {
            subscriber.subscribe(filter, tag, start)?;
        }
        Ok(None)
    }
}

/// Behind what a stream over two logs begins: in a log of which its client names no position, behind nothing.
fn begins_at(asked: &StreamRequest, stands: Position) -> Position {
    let Some(text) = &asked.last_event_id else { return stands };
    let named: Option<Position> = text.parse().ok();
    let in_log = |id: MessageId| {
        let offset = named.and_then(|named| named.in_epoch(id.epoch()));
        MessageId::new(id.epoch(), offset.filter(|offset| *offset <= id.offset()).unwrap_or(0))
    };
    stands.ids().map(in_log).fold(stands, Position::with)
}

/// Whether filters may stand in the body: `QUERY` is safe, `POST` is what every client can send.
fn takes_body(method: &Method) -> bool {
    method == Method::POST || method.as_str() == "QUERY"
}

/// The beginning of a filter that is too long to be repeated.
fn shorten(filter: &Filter) -> String {
    const MAX_CHARS: usize = 64;
    let text = filter.to_string();
    if text.chars().nth(MAX_CHARS).is_none() {
        return text;
    }
    text.chars().take(MAX_CHARS).chain(['…']).collect()
}

/// What carries the stream.
fn transport_of(version: Version) -> &'static str {
    if version < Version::HTTP_2 { HTTP_1 } else { "http/2" }
}

/// Spread over as much time again, so that not all come back at once.
fn retry_after(wait: Duration) -> Duration {
    wait.max(Duration::from_millis(500)).mul_f64(1.0 + fastrand::f64())
}

/// An id that is none of ours is treated as one whose past is gone: the client is told so, and gets what is left.
fn after(id: &str) -> After {
    match id {
        "earliest" => After::Earliest,
        id => id.parse().map_or(After::Id(MessageId::new(u64::MAX, u64::MAX)), After::Position),
    }
}

/// An answer for whom there is no room, or whose rate is used up. A browser takes an error status as final; this one it
/// tries again.
async fn send_away(mut head: HeaderMap, transport: &str, why: &str, retry: Duration) -> Response {
    if transport == HTTP_1 {
        head.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    // Without a length, like every stream.
    let text = event::goodbye(why, retry);
    let (mut io, body) = pipe(text.len());
    // It fits, and the other end is here.
    let _ = io.write_all(text.as_bytes()).await;
    let _ = io.shutdown().await;
    answer(head, body)
}

fn with_head<T>(head: HeaderMap, body: T) -> http::Response<T> {
    let mut response = http::Response::new(body);
    *response.status_mut() = StatusCode::OK;
    *response.headers_mut() = head;
    response
}

/// Whether the request is of a browser: its `EventSource` comes back after a stream that ends and never after an error
/// status. It says so by itself, over plain HTTP to another machine by its name alone.
fn is_browser(headers: &HeaderMap) -> bool {
    let agent = headers.get(header::USER_AGENT);
    headers.contains_key("sec-fetch-dest")
        || agent.is_some_and(|agent| agent.as_bytes().starts_with(b"Mozilla/"))
}

fn answer(head: HeaderMap, body: Body) -> Response {
    with_head(head, body)
}
