//! One backend: how it is called, what it is asked and told, and how that went.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use broker_core::{Broker, Durations, Histogram, unix_ms};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Uri, header};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::answer::{self, Granted, MAX_ANSWER_BYTES, Verdict};
use super::event::{Kind, Told};
use super::settings::{OnFailure, Settings};
use crate::client::{Answer, CallError, Caller};
use crate::courier::{Courier, Load, Receiver};
use crate::dead::{DeadLetters, Owner};
use crate::delivery::{BreakerState, Cause, Dead, Event, Outcome};
use crate::kept::Kept;

/// How a request ended, by name.
const OUTCOMES: [&str; 6] = ["ok", "denied", "rejected", "failed", "unreachable", "open"];

/// Kinds of events, and requests that carry several.
const TYPES: usize = Kind::ALL.len() + 1;

/// One webhook while the server runs.
#[derive(Debug)]
pub struct Hook {
    backend: Arc<Backend>,
    courier: Courier,
    kept: Kept,
    /// Reads the messages that it is told of.
    reader: Mutex<Option<AbortHandle>>,
}

/// Where its events go. Known to the courier, which does not know the hook.
struct Backend {
    settings: Settings,
    caller: Caller,
    broker: Broker,
    turns: Arc<Semaphore>,
    dead: DeadLetters,
    requests: [[AtomicU64; OUTCOMES.len()]; TYPES],
    buried: [AtomicU64; 4],
    took: Histogram,
    last_error: Mutex<Option<(String, u64)>>,
    /// The last call was none, as its address may not be called.
    is_denied: AtomicBool,
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backend").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// What a hook has counted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Counted {
    /// Requests by the kind of event and how they ended.
    pub requests: Vec<(&'static str, &'static str, u64)>,
    /// Events that were not delivered, by cause.
    pub dead: Vec<(&'static str, u64)>,
    /// How long requests took.
    pub took: Durations,
    /// How its host is judged.
    pub breaker: BreakerState,
    /// What went wrong last, and when in milliseconds since 1970.
    pub last_error: Option<(String, u64)>,
    /// Nothing was sent at the last call: the address of its host may not be called.
    pub is_denied: bool,
}

/// What came of a question.
#[derive(Debug)]
pub(super) enum Decided {
    Yes(Box<Granted>),
    No(Option<String>),
    /// Nobody can say now.
    Unavailable,
}

impl Hook {
    /// Starts its courier, on the current tokio runtime, with what `kept` has of an earlier life.
    pub(super) fn start(settings: Settings, caller: Caller, broker: Broker, kept: Kept) -> Self {
        let turns = Arc::new(Semaphore::new(settings.bounds.max_in_flight));
        let bounds = settings.bounds.clone();
        let left = kept.take_left();
        let backend = Arc::new(Backend {
            dead: DeadLetters::kept(&settings.id, &kept, left.letters),
            settings,
            caller: caller.clone(),
            broker,
            turns: Arc::clone(&turns),
            requests: Default::default(),
            buried: Default::default(),
            took: Histogram::default(),
            last_error: Mutex::default(),
            is_denied: AtomicBool::new(false),
        });
        let courier = Courier::start_kept(bounds, caller, backend.clone(), turns, &kept, left.events);
        Self { backend, courier, kept, reader: Mutex::default() }
    }

    /// What is said about it.
    pub fn settings(&self) -> &Settings {
        &self.backend.settings
    }

    /// What waits for it.
    pub fn load(&self) -> Load {
        self.courier.load()
    }

    /// What it has counted.
    pub fn counted(&self) -> Counted {
        let backend = &self.backend;
        let mut requests = Vec::new();
        let types = Kind::ALL.iter().map(|kind| kind.name()).chain(["several"]);
        for (kind, outcomes) in types.zip(&backend.requests) {
            for (outcome, count) in OUTCOMES.iter().zip(outcomes) {
                let count = count.load(Relaxed);
                if count > 0 {
                    requests.push((kind, *outcome, count));
                }
            }
        }
        let dead = Cause::ALL.iter().zip(&backend.buried);
        Counted {
            requests,
            dead: dead.map(|(cause, count)| (cause.name(), count.load(Relaxed))).collect(),
            took: backend.took.durations(),
            breaker: backend.caller.breaker_state(&backend.settings.url),
            last_error: backend.last_error.lock().clone(),
            is_denied: backend.is_denied.load(Relaxed),
        }
    }

    /// Tells it of something, in order for one connection or channel.
    pub(super) fn tell(&self, order: &str, told: Told) {
        self.courier.push(Event::new(told.id, order, told.body, Instant::now()));
    }

    /// Asks it, once; a failure is what its settings say of one.
    pub(super) async fn ask(
        &self,
        kind: Kind,
        told: &Told,
        forwarded: &[(HeaderName, HeaderValue)],
    ) -> Decided {
        let (backend, began) = (&self.backend, Instant::now());
        let whole = backend.settings.timeout;
        let asked = async {
            let turn = timeout(whole, backend.turns.acquire()).await;
            let Ok(Ok(_turn)) = turn else {
                return Err(CallError::Failed("too many requests to it are under way".to_owned()));
            };
            let left = whole.saturating_sub(began.elapsed());
            let request = backend.request_of(&told.id, told.body.clone(), forwarded);
            backend.caller.call(request, MAX_ANSWER_BYTES, left).await
        };
        let answered = asked.await;
        backend.took.observe(began.elapsed());
        backend.is_denied.store(matches!(answered, Err(CallError::Forbidden(_))), Relaxed);
        let (outcome, decided) = match answered {
            Ok(said) => match answer::read(said.status, &said.body) {
                Ok(Verdict::Allow(granted)) => ("ok", Ok(Decided::Yes(granted))),
                Ok(Verdict::Deny(reason)) if matches!(said.status, 200..=299 | 401 | 403) => {
                    ("denied", Ok(Decided::No(reason)))
                }
                Ok(Verdict::Deny(reason)) => {
                    backend.note_error(&format!("status {}", said.status));
                    ("rejected", Ok(Decided::No(reason)))
                }
                Err(error) => ("failed", Err(error.to_string())),
            },
            Err(error) => {
                let outcome = match &error {
                    CallError::Open(_) => "open",
                    CallError::Unreachable(_) | CallError::Forbidden(_) => "unreachable",
                    CallError::TimedOut(_) | CallError::Failed(_) => "failed",
                };
                (outcome, Err(error.to_string()))
            }
        };
        backend.count(Some(kind), outcome);
        decided.unwrap_or_else(|why| {
            backend.note_error(&why);
            match backend.settings.on_failure {
                OnFailure::Allow => Decided::Yes(Box::default()),
                OnFailure::Deny => Decided::Unavailable,
            }
        })
    }

    pub(super) fn read_by(&self, reader: AbortHandle) {
        if let Some(before) = self.reader.lock().replace(reader) {
            before.abort();
        }
    }

    /// What is kept of it over a crash.
    pub(super) fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Another one has its place, and what is kept: it gets what waits here.
    pub(super) fn hand_over(&self, next: &Hook) {
        self.courier.take().into_iter().for_each(|event| next.courier.push(event));
        self.backend.dead.hand_over(&next.backend.dead);
    }

    /// Nothing that waits is told any more.
    pub(super) fn let_go(&self) {
        self.courier.take();
    }

    /// Resolves when all that it was told has been delivered or given up.
    pub(super) async fn drained(&self) {
        self.courier.drained().await;
    }
}

impl Owner for Hook {
    fn dead_letters(&self) -> &DeadLetters {
        &self.backend.dead
    }

    fn replay(&self, event: Event) {
        self.courier.push(event);
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.lock().take() {
            reader.abort();
        }
    }
}

impl Backend {
    fn count(&self, kind: Option<Kind>, outcome: &str) {
        let row = kind.and_then(|kind| Kind::ALL.iter().position(|known| *known == kind));
        let column = OUTCOMES.iter().position(|known| *known == outcome);
        let of_kind = self.requests.get(row.unwrap_or(TYPES - 1));
        if let Some(counter) = of_kind.zip(column).and_then(|(of_kind, column)| of_kind.get(column)) {
            counter.fetch_add(1, Relaxed);
        }
    }

    fn note_error(&self, why: &str) {
        tracing::debug!(hook = self.settings.id, why, "a webhook failed");
        *self.last_error.lock() = Some((why.to_owned(), unix_ms()));
    }

    /// A signed request.
    fn request_of(&self, id: &str, body: Bytes, forwarded: &[(HeaderName, HeaderValue)]) -> Request<Bytes> {
        let unix_secs = unix_ms() / 1000;
        let signature = self.settings.secrets.sign(id, unix_secs, &body);
        let mut request = Request::new(body);
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.settings.url.clone();
        let headers = request.headers_mut();
        for (name, value) in forwarded {
            headers.append(name, value.clone());
        }
        for (name, value) in &self.settings.headers {
            headers.insert(name, value.clone());
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let agent = HeaderValue::from_static(concat!("Fanwire/", env!("CARGO_PKG_VERSION")));
        headers.insert(header::USER_AGENT, agent);
        let own = [
            ("webhook-id", id.to_owned()),
            ("webhook-timestamp", unix_secs.to_string()),
            ("webhook-signature", signature),
        ];
        for (name, value) in own {
            if let Ok(value) = value.parse() {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        request
    }
}

impl Receiver for Backend {
    fn url(&self) -> &Uri {
        &self.settings.url
    }

    fn timeout(&self) -> Duration {
        self.settings.timeout
    }

    fn max_answer_bytes(&self) -> usize {
        MAX_ANSWER_BYTES
    }

    /// A batch is an array, and named by its first event and how many there are: the same events have the same name.
    fn request(&self, events: &[Arc<Event>]) -> Request<Bytes> {
        if self.settings.bounds.batch == 1
            && let [event] = events
        {
            return self.request_of(&event.id, event.body.clone(), &[]);
        }
        let mut body = Vec::with_capacity(events.iter().map(|event| event.body.len() + 1).sum::<usize>() + 1);
        for (at, event) in events.iter().enumerate() {
            body.push(if at == 0 { b'[' } else { b',' });
            body.extend_from_slice(&event.body);
        }
        body.push(b']');
        let first = events.first().map_or("", |event| &event.id);
        let id = if events.len() == 1 { first.to_owned() } else { format!("{first}_{}", events.len()) };
        self.request_of(&id, body.into(), &[])
    }

    fn failures(&self, _: &[Arc<Event>], answer: &Answer) -> Vec<String> {
        #[derive(serde::Deserialize)]
        struct Said {
            failures: Vec<String>,
        }
        serde_json::from_slice::<Said>(&answer.body).map(|said| said.failures).unwrap_or_default()
    }

    fn told(&self, events: &[Arc<Event>], outcome: &Outcome, took: Duration) {
        let (outcome, failure) = match outcome {
            Outcome::Delivered { .. } => ("ok", None),
            Outcome::Rejected(failure) | Outcome::Gone(failure) => ("rejected", Some(failure)),
            Outcome::Failed(failure, _) => ("failed", Some(failure)),
            Outcome::Unreachable(failure) => ("unreachable", Some(failure)),
        };
        self.is_denied.store(failure.is_some_and(|failure| failure.is_policy), Relaxed);
        if let Some(failure) = failure {
            self.note_error(&failure.error);
        }
        let mut kinds = events.iter().map(|event| kind_of(&event.body));
        let first = kinds.next().flatten();
        self.count(first.filter(|first| kinds.all(|kind| kind == Some(*first))), outcome);
        self.took.observe(took);
    }

    fn buried(&self, dead: Vec<Dead>) {
        for dead in &dead {
            let at = Cause::ALL.iter().position(|cause| *cause == dead.cause);
            if let Some(count) = at.and_then(|at| self.buried.get(at)) {
                count.fetch_add(1, Relaxed);
            }
            self.dead.bury(&self.broker, dead);
        }
    }
}

/// What an event is, by how its text begins.
fn kind_of(body: &[u8]) -> Option<Kind> {
    let name = body.strip_prefix(b"{\"type\":\"")?;
    let end = name.iter().position(|byte| *byte == b'"')?;
    Kind::from_name(std::str::from_utf8(name.get(..end)?).ok()?)
}
