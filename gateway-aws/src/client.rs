//! Calls: one event, one deadline, one answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use broker_core::Histogram;
use bytes::Bytes;
use gateway::client::{Answer, CallError, Caller};
use gateway::delivery::{Breaker, BreakerState, Call, Trip};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, header};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout, timeout_at};

use crate::answer::Failure;
use crate::verify::Sign;

/// Largest answer of a function, in bytes.
const MAX_ANSWER_BYTES: usize = 6 << 20;

/// Waits before a call that cannot have run is made again, within its time.
const RETRIES: [Duration; 3] =
    [Duration::from_millis(50), Duration::from_millis(100), Duration::from_millis(200)];

/// Whom to call: an integration or an authorizer.
pub(crate) struct Target {
    caller: Caller,
    url: Uri,
    timeout: Duration,
    sign: Option<Arc<dyn Sign>>,
    breaker: Mutex<Breaker>,
    /// Calls that its API makes at a time.
    turns: Arc<Semaphore>,
    pub(crate) counted: Counted,
}

/// What is counted of a target.
#[derive(Default)]
pub(crate) struct Counted {
    pub(crate) answered: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) timed_out: AtomicU64,
    /// Not called: it is left alone, or too many calls are under way.
    pub(crate) refused: AtomicU64,
    pub(crate) in_flight: AtomicU64,
    pub(crate) seconds: Histogram,
}

/// The right to a call, and how long it may take.
pub(crate) struct Turn {
    _permit: OwnedSemaphorePermit,
}

/// Takes one call out of what is under way.
struct InFlight<'a>(&'a AtomicU64);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Gives a probe's turn to the next if the call is dropped.
struct Permitted<'a>(Option<&'a Mutex<Breaker>>);

impl Permitted<'_> {
    fn record(mut self, call: Call) -> bool {
        self.0.take().is_some_and(|breaker| breaker.lock().record(Instant::now(), call))
    }
}

impl Drop for Permitted<'_> {
    fn drop(&mut self) {
        if let Some(breaker) = self.0 {
            breaker.lock().forgo(Instant::now());
        }
    }
}

impl Target {
    pub(crate) fn new(
        caller: Caller,
        url: Uri,
        timeout: Duration,
        trip: Trip,
        turns: Arc<Semaphore>,
    ) -> Self {
        let breaker = Mutex::new(Breaker::new(trip));
        Self { sign: None, caller, url, timeout, breaker, turns, counted: Counted::default() }
    }

    /// With its requests signed.
    pub(crate) fn signed(mut self, sign: Option<Arc<dyn Sign>>) -> Self {
        self.sign = sign;
        self
    }

    pub(crate) fn url(&self) -> &Uri {
        &self.url
    }

    pub(crate) fn breaker_state(&self) -> BreakerState {
        self.breaker.lock().state()
    }

    /// When it may be called again, if it is left alone now.
    pub(crate) fn opens_at(&self) -> Option<Instant> {
        let mut breaker = self.breaker.lock();
        let now = Instant::now();
        match breaker.permit(now) {
            Ok(()) => {
                breaker.forgo(now);
                None
            }
            Err(until) => Some(until),
        }
    }

    /// Waits for a turn, at most so long, or as long as a call may take.
    pub(crate) async fn turn(&self, patience: Option<Duration>) -> Result<Turn, Failure> {
        let patience = patience.unwrap_or(self.timeout).min(self.timeout);
        match timeout(patience, Arc::clone(&self.turns).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Turn { _permit: permit }),
            _ => {
                self.counted.refused.fetch_add(1, Relaxed);
                Err(Failure::Full)
            }
        }
    }

    /// Sends a body with these header fields, and has `read` say what the answer means.
    ///
    /// # Errors
    /// [`Failure`]: of the call, or what `read` says.
    ///
    /// # Cancel safety
    /// A future that is dropped may have sent the request.
    pub(crate) async fn call<T>(
        &self,
        _turn: Turn,
        headers: HeaderMap,
        body: Bytes,
        read: impl FnOnce(&Answer) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        if self.breaker.lock().permit(Instant::now()).is_err() {
            self.counted.refused.fetch_add(1, Relaxed);
            return Err(Failure::Open);
        }
        let permitted = Permitted(Some(&self.breaker));
        self.counted.in_flight.fetch_add(1, Relaxed);
        let _in_flight = InFlight(&self.counted.in_flight);
        let began = Instant::now();
        let answer = self.attempt(began, &headers, &body).await;
        // To a client an answer of a backend, and to the breaker none.
        let is_unable = answer.as_ref().is_ok_and(|answer| answer.status >= 500);
        let outcome = answer.and_then(|answer| read(&answer));
        self.counted.seconds.observe(began.elapsed());
        let counter = match &outcome {
            Ok(_) => &self.counted.answered,
            Err(Failure::TimedOut) => &self.counted.timed_out,
            Err(_) => &self.counted.failed,
        };
        counter.fetch_add(1, Relaxed);
        let failed = is_unable || outcome.as_ref().is_err_and(Failure::is_outage);
        if permitted.record(if failed { Call::Failed } else { Call::Answered }) {
            let url = self.url.host().unwrap_or_default();
            match self.breaker_state() {
                BreakerState::Closed => {
                    tracing::info!(target: "fanwire::gateway", host = url, "an integration answers again")
                }
                _ => tracing::warn!(
                    target: "fanwire::gateway", host = url,
                    "an integration fails and is left alone for a while"
                ),
            }
        }
        outcome
    }

    /// Tries until something was sent, within the time.
    async fn attempt(&self, began: Instant, headers: &HeaderMap, body: &Bytes) -> Result<Answer, Failure> {
        let deadline = tokio::time::Instant::from_std(began + self.timeout);
        let mut waits = RETRIES.iter();
        loop {
            let left = self.timeout.saturating_sub(began.elapsed());
            let sent = self.caller.send(self.request(headers, body), MAX_ANSWER_BYTES, left);
            let outcome = match timeout_at(deadline, sent).await {
                Err(_) => return Err(Failure::TimedOut),
                Ok(answered) => answered.map_err(meant),
            };
            let is_unsent = match &outcome {
                Ok(answer) => answer.status == 429,
                Err(failure) => matches!(failure, Failure::Unreachable(_)),
            };
            let wait =
                waits.next().filter(|_| is_unsent).map(|wait| wait.mul_f64(0.8 + 0.4 * fastrand::f64()));
            match wait {
                Some(wait) if began.elapsed() + wait < self.timeout => sleep(wait).await,
                _ => return outcome,
            }
        }
    }

    fn request(&self, headers: &HeaderMap, body: &Bytes) -> Request<Bytes> {
        let mut request = Request::new(body.clone());
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.url.clone();
        *request.headers_mut() = headers.clone();
        if let Some(sign) = &self.sign {
            sign.sign(&mut request);
        }
        request
    }
}

fn meant(error: CallError) -> Failure {
    match error {
        CallError::Unreachable(why) | CallError::Forbidden(why) => Failure::Unreachable(why),
        CallError::TimedOut(_) => Failure::TimedOut,
        error => Failure::Broken(error.to_string()),
    }
}

/// Whether the Invoke API says that the function failed.
pub(crate) fn has_failed(answer: &Answer) -> bool {
    answer.headers.contains_key("x-amz-function-error")
}

/// Header fields of the client's request that go out with each call of its connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace(Vec<(HeaderName, HeaderValue)>);

impl Trace {
    /// Those that name a trace or a request.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        const NAMES: [&str; 3] = ["traceparent", "x-amzn-trace-id", "x-request-id"];
        let found = NAMES.iter().filter_map(|name| {
            let value = headers.get(*name).filter(|value| value.len() <= 512)?;
            Some((HeaderName::from_static(name), value.clone()))
        });
        Self(found.collect())
    }

    /// The header fields of a call to the Invoke API.
    pub(crate) fn lambda(&self) -> HeaderMap {
        let mut headers = self.bare();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("x-amz-invocation-type", HeaderValue::from_static("RequestResponse"));
        headers
    }

    /// Those of any call.
    pub(crate) fn bare(&self) -> HeaderMap {
        self.0.iter().cloned().collect()
    }
}
