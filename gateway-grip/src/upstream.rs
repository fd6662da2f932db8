//! The origins of a route: turns, deadlines, who is asked next, and who is left alone.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use broker_core::{Histogram, steady_ms};
use bytes::Bytes;
use gateway::delivery::{Breaker, BreakerState, Call, Trip};
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_edge::{Body, BoxError};
use outgoing::{Client, Payload, Unsent};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout, timeout_at};

use crate::config::{Origin, Route};

/// Connections without a request are kept for less long than the shortest usual patience of servers, Node's 5 s: a
/// request that meets a closing connection fails, and is not sent again.
const KEPT: Duration = Duration::from_secs(4);

/// Longest that a phase takes whose time is counted elsewhere.
const A_YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// How long is waited for an origin that starts, between two tries: at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// When a client may come back for whose request there was no turn, or no origin yet.
const COME_BACK: Duration = Duration::from_secs(1);

/// The origins of one route.
#[derive(Debug)]
pub(crate) struct Upstream {
    client: Client,
    origins: Vec<(Origin, Mutex<Breaker>)>,
    turns: Semaphore,
    pub(crate) counted: Counted,
}

/// What is counted of requests.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    pub(crate) answered: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) timed_out: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) in_flight: AtomicU64,
    /// Bytes of what clients of WebSockets said and the origin has not been given or has not answered.
    pub(crate) queue_bytes: AtomicU64,
    pub(crate) seconds: Histogram,
}

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// All origins failed too often; for how long they are left alone.
    Open(Duration),
    /// There was no turn.
    Full,
    /// Nothing accepts connections yet.
    Starting(String),
    /// Nobody can be connected to.
    Unreachable(String),
    /// The request was sent, and what came back is no answer.
    Broken(String),
    /// No answer in time.
    TimedOut(String),
}

impl Failure {
    /// When the client may come back, if it is to.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Open(wait) => Some((*wait).max(COME_BACK)),
            Self::Full | Self::Starting(_) => Some(COME_BACK),
            Self::Unreachable(_) | Self::Broken(_) | Self::TimedOut(_) => None,
        }
    }

    /// What happened, for logs and whoever may read what is wrong with an origin.
    pub(crate) fn detail(&self) -> &str {
        match self {
            Self::Open(_) => "it failed too often and is left alone for a while",
            Self::Full => "as many requests as may are under way",
            Self::Starting(why) | Self::Unreachable(why) | Self::Broken(why) | Self::TimedOut(why) => why,
        }
    }
}

/// A request for an origin, without the address.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// Path and query, as the origin sees them.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Payload,
    pub(crate) progress: Progress,
}

impl Asked {
    pub(crate) fn new(method: Method, path: String, headers: HeaderMap, body: Body) -> Self {
        let progress = Progress::default();
        let body = match body.is_end_stream() {
            true => Payload::full(Bytes::new()),
            false => Payload::stream(Sending { body, progress: progress.clone() }),
        };
        Self { method, path, headers, body, progress }
    }
}

/// When the last piece of a request went out.
#[derive(Clone, Debug)]
pub(crate) struct Progress(Arc<AtomicU64>);

impl Default for Progress {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(steady_ms())))
    }
}

impl Progress {
    fn note(&self) {
        self.0.store(steady_ms(), Relaxed);
    }

    fn idle(&self) -> Duration {
        Duration::from_millis(steady_ms().saturating_sub(self.0.load(Relaxed)))
    }

    /// What comes of a future before nothing has moved for so long.
    async fn within<T>(&self, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        loop {
            let due = Instant::now() + limit.saturating_sub(self.idle());
            if let Ok(done) = timeout_at(due.into(), &mut future).await {
                return Some(done);
            }
            if self.idle() >= limit {
                return None;
            }
        }
    }
}

/// A body that notes that it moves.
struct Sending {
    body: Body,
    progress: Progress,
}

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.progress.note();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Upstream {
    pub(crate) fn new(route: &Route) -> Self {
        let mut config = outgoing::Config::default();
        config.trust = route.trust.clone();
        config.identity = route.identity.clone();
        config.resolve_timeout = route.connect_timeout;
        config.connect_timeout = route.connect_timeout;
        config.tls_timeout = route.connect_timeout;
        config.answer_timeout = A_YEAR;
        // Both are bounded by who asks.
        config.max_requests_per_host = Semaphore::MAX_PERMITS;
        config.max_idle_per_host = 1_024;
        config.idle_timeout = KEPT;
        let origins = route.origins.iter().cloned();
        Self {
            client: Client::new(config),
            origins: origins.map(|origin| (origin, Mutex::new(Breaker::new(Trip::default())))).collect(),
            turns: Semaphore::new(route.max_in_flight),
            counted: Counted::default(),
        }
    }

    /// How each origin is judged.
    pub(crate) fn breakers(&self) -> impl Iterator<Item = (&Origin, BreakerState)> {
        self.origins.iter().map(|(origin, breaker)| (origin, breaker.lock().state()))
    }

    /// Sends a request; the answer is there when its head is.
    ///
    /// # Errors
    /// Why there is none, which is counted.
    ///
    /// # Cancel safety
    /// A future that is dropped may have sent the request.
    pub(crate) async fn send(
        &self,
        route: &Route,
        asked: Asked,
    ) -> Result<Response<outgoing::Body>, Failure> {
        let began = Instant::now();
        let answer = match timeout(route.timeout, self.turns.acquire()).await {
            Ok(Ok(_turn)) => {
                let _busy = Gauge::up(&self.counted.in_flight);
                self.ask(route, asked, began).await
            }
            Ok(Err(_)) | Err(_) => Err(Failure::Full),
        };
        let counted = &self.counted;
        let counter = match &answer {
            Ok(_) => &counted.answered,
            Err(Failure::Open(_) | Failure::Full) => &counted.refused,
            Err(Failure::TimedOut(_)) => &counted.timed_out,
            Err(_) => &counted.failed,
        };
        counter.fetch_add(1, Relaxed);
        counted.seconds.observe(began.elapsed());
        answer
    }

    async fn ask(
        &self,
        route: &Route,
        asked: Asked,
        began: Instant,
    ) -> Result<Response<outgoing::Body>, Failure> {
        let Asked { method, path, headers, body, progress } = asked;
        let names_host = headers.contains_key(HOST);
        let is_safe = matches!(method, Method::GET | Method::HEAD);
        let mut again = if is_safe { route.retry } else { 0 };
        let mut pause = PAUSES.0;
        let mut request = Request::new(body);
        (*request.method_mut(), *request.headers_mut()) = (method, headers);
        loop {
            let (mut unreachable, mut open_until) = (None, None::<Instant>);
            for (origin, breaker) in &self.origins {
                let permit = match Permit::of(breaker, Instant::now()) {
                    Ok(permit) => permit,
                    Err(until) => {
                        open_until = Some(open_until.map_or(until, |known| known.min(until)));
                        continue;
                    }
                };
                let Ok(url) = origin.url(&path) else {
                    return Err(Failure::Broken("the path stands in no URL".to_owned()));
                };
                *request.uri_mut() = url;
                if !names_host && let Ok(host) = HeaderValue::from_str(origin.authority()) {
                    request.headers_mut().insert(HOST, host);
                }
                progress.note();
                match progress.within(route.timeout, self.client.pass(request)).await {
                    Some(Ok(answer)) => {
                        permit.record(Call::Answered);
                        return Ok(answer);
                    }
                    Some(Err(Unsent { error, request: Some(untouched), .. })) => {
                        // What starts does not fail, however long it takes, and is to be found once it has started.
                        if route.cold_start.is_zero() {
                            permit.record(Call::Unreachable);
                        }
                        request = *untouched;
                        unreachable = Some(error);
                    }
                    Some(Err(Unsent { error, .. })) => {
                        permit.record(Call::Failed);
                        return Err(Failure::Broken(format!("{}: {error}", origin.authority())));
                    }
                    None => {
                        permit.record(Call::Failed);
                        let limit = route.timeout.as_secs_f64();
                        return Err(Failure::TimedOut(format!(
                            "{}: no answer came within {limit} s",
                            origin.authority()
                        )));
                    }
                }
            }
            if began.elapsed() < route.cold_start {
                sleep(pause.min(route.cold_start.saturating_sub(began.elapsed()))).await;
                pause = (pause * 2).min(PAUSES.1);
                continue;
            }
            let Some(error) = unreachable else {
                let wait =
                    open_until.map_or(COME_BACK, |until| until.saturating_duration_since(Instant::now()));
                return Err(Failure::Open(wait));
            };
            if again == 0 {
                let tried: Vec<&str> = self.origins.iter().map(|(origin, _)| origin.authority()).collect();
                let why = format!("{}: {error}", tried.join(", "));
                return Err(match error {
                    _ if !route.cold_start.is_zero() => Failure::Starting(why),
                    // However long that took: nothing of the request was sent.
                    _ => Failure::Unreachable(why),
                });
            }
            again -= 1;
        }
    }
}

/// The right to one call of an origin. Dropped without it, another one may go instead.
struct Permit<'a>(Option<&'a Mutex<Breaker>>);

impl<'a> Permit<'a> {
    fn of(breaker: &'a Mutex<Breaker>, now: Instant) -> Result<Self, Instant> {
        breaker.lock().permit(now)?;
        Ok(Self(Some(breaker)))
    }

    fn record(mut self, call: Call) {
        if let Some(breaker) = self.0.take() {
            breaker.lock().record(Instant::now(), call);
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if let Some(breaker) = self.0 {
            breaker.lock().forgo(Instant::now());
        }
    }
}

/// One more, until it is dropped.
struct Gauge<'a>(&'a AtomicU64);

impl<'a> Gauge<'a> {
    fn up(gauge: &'a AtomicU64) -> Self {
        gauge.fetch_add(1, Relaxed);
        Self(gauge)
    }
}

impl Drop for Gauge<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
