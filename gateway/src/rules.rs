//! Messages of a filter are sent to a function, one by one or several together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use broker_core::{Broker, Event as Heard, Filter, Message, SubscribeOptions};
use bytes::Bytes;
use envelope::write_string;
use front::Metric;
use http::{HeaderName, HeaderValue, Request, Uri, header};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use crate::client::Caller;
use crate::courier::{Courier, Load, Receiver};
use crate::dead::{DeadLetters, Owner, is_json};
use crate::delivery::{Bounds, Dead, Event, Outcome};
use crate::kept::Kept;

/// One rule.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Its name, in dead letters `aws.rules.NAME`.
    pub name: String,
    /// Whose messages.
    pub filter: Filter,
    /// Where they go.
    pub url: Uri,
    /// Whether the function is called as by AWS' Invoke API, for an answer that nobody waits for.
    pub is_lambda: bool,
    /// Header fields of the requests; `$topic` in a value is the channel of the first message.
    pub headers: Vec<(HeaderName, String)>,
    /// Whether a request has an array of messages.
    pub is_batch: bool,
    /// Whether messages of several channels go together, in one order.
    pub across_topics: bool,
    /// How long a call may take. Default 29 s.
    pub timeout: Duration,
    /// How messages wait, go together and are tried again.
    pub bounds: Bounds,
}

impl Settings {
    /// A rule whose messages go one by one.
    pub fn new(name: impl Into<String>, filter: Filter, url: Uri) -> Self {
        Self {
            name: name.into(),
            filter,
            url,
            is_lambda: false,
            headers: Vec::new(),
            is_batch: false,
            across_topics: true,
            timeout: Duration::from_secs(29),
            bounds: Bounds::default(),
        }
    }
}

/// A rule while the server runs.
#[derive(Debug)]
pub struct Rule {
    function: Arc<Function>,
    courier: Courier,
    kept: Kept,
    reader: Option<AbortHandle>,
}

/// Where a rule's messages go. Known to the courier, which does not know the rule.
#[derive(Debug)]
struct Function {
    id: String,
    settings: Settings,
    broker: Broker,
    dead: DeadLetters,
    delivered: AtomicU64,
    failed: AtomicU64,
    buried: AtomicU64,
    missed: AtomicU64,
}

impl Rule {
    /// Starts it, on the current tokio runtime.
    pub fn start(settings: Settings, caller: Caller, broker: &Broker) -> Self {
        let id = format!("aws.rules.{}", settings.name);
        let turns = Arc::new(Semaphore::new(settings.bounds.max_in_flight));
        let bounds = settings.bounds.clone();
        let kept = Kept::of(broker, &id);
        let left = kept.take_left();
        let function = Arc::new(Function {
            dead: DeadLetters::kept(&id, &kept, left.letters),
            id,
            settings,
            broker: broker.clone(),
            delivered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            buried: AtomicU64::new(0),
            missed: AtomicU64::new(0),
        });
        let receiver = Arc::clone(&function) as _;
        let courier = Courier::start_kept(bounds, caller, receiver, turns, &kept, left.events);
        let reader = read(Arc::clone(&function), courier.clone());
        Self { function, courier, kept, reader }
    }

    /// What it is called among dead letters.
    pub fn id(&self) -> &str {
        &self.function.id
    }

    /// What waits for its function.
    pub fn load(&self) -> Load {
        self.courier.load()
    }

    /// Resolves when all that it took has been delivered or given up.
    pub async fn drained(&self) {
        self.courier.drained().await;
    }

    /// What is kept of it over a crash.
    pub(crate) fn kept(&self) -> &Kept {
        &self.kept
    }

    pub(crate) fn measure(&self, out: &mut Vec<Metric>) {
        let Function { settings, delivered, failed, buried, missed, .. } = &*self.function;
        let of = |metric: Metric| metric.with("rule", settings.name.clone());
        let help = "Requests to functions of rules that were answered with success";
        out.push(of(Metric::counter("rule_delivered", help, delivered.load(Relaxed))));
        let help = "Requests to functions of rules that failed";
        out.push(of(Metric::counter("rule_failed", help, failed.load(Relaxed))));
        let help = "Messages of rules that became dead letters";
        out.push(of(Metric::counter("rule_dead", help, buried.load(Relaxed))));
        let help = "Messages that rules did not hear of, as too many came at a time";
        out.push(of(Metric::counter("rule_missed", help, missed.load(Relaxed))));
        let help = "Messages of rules that wait for their function or are being sent";
        out.push(of(Metric::gauge("rule_queue", help, self.load().events as u64)));
    }
}

impl Owner for Rule {
    fn dead_letters(&self) -> &DeadLetters {
        &self.function.dead
    }

    fn replay(&self, event: Event) {
        self.courier.push(event);
    }
}

impl Drop for Rule {
    fn drop(&mut self) {
        if let Some(reader) = &self.reader {
            reader.abort();
        }
    }
}

fn read(function: Arc<Function>, courier: Courier) -> Option<AbortHandle> {
    let name = function.settings.name.clone();
    let filters = [function.settings.filter.clone()];
    let mut messages = match function.broker.subscribe_with(&filters, SubscribeOptions::default()) {
        Ok(messages) => messages,
        Err(error) => {
            tracing::warn!(rule = name, %error, "a rule hears of no messages");
            return None;
        }
    };
    let reader = tokio::spawn(async move {
        while let Some(next) = messages.next().await {
            match next {
                Heard::Message(message) => courier.push(function.event(&message)),
                Heard::Lagged(lost) => {
                    function.missed.fetch_add(lost, Relaxed);
                    tracing::warn!(rule = name, lost, "a rule did not hear of messages: there were too many");
                }
                _ => {}
            }
        }
    });
    Some(reader.abort_handle())
}

impl Function {
    fn event(&self, message: &Message) -> Event {
        let channel = message.channel().as_str();
        let order = if self.settings.is_batch && self.settings.across_topics { "" } else { channel };
        let payload = message.payload();
        let body = if self.settings.is_batch && !is_json(payload) {
            // An array has JSON only: text as a string, other bytes as the string of their base64.
            let mut out = Vec::with_capacity(payload.len() + 16);
            match std::str::from_utf8(payload) {
                Ok(text) => write_string(text, &mut out),
                Err(_) => {
                    use base64::Engine as _;
                    write_string(&base64::engine::general_purpose::STANDARD.encode(payload), &mut out);
                }
            }
            out.into()
        } else {
            payload.clone()
        };
        // The channel is behind the id, as headers may name it.
        let id = format!("{:016x}/{channel}", fastrand::u64(..));
        Event::new(id, order, body, Instant::now())
    }
}

fn channel_of(event: &Event) -> &str {
    event.id.split_once('/').map_or("", |(_, channel)| channel)
}

impl Receiver for Function {
    fn url(&self) -> &Uri {
        &self.settings.url
    }

    fn timeout(&self) -> Duration {
        self.settings.timeout
    }

    fn can_leave(&self) -> bool {
        false
    }

    fn request(&self, events: &[Arc<Event>]) -> Request<Bytes> {
        let body: Bytes = match events {
            [event] if !self.settings.is_batch => event.body.clone(),
            _ => {
                let mut body = vec![b'['];
                for (at, event) in events.iter().enumerate() {
                    if at > 0 {
                        body.push(b',');
                    }
                    body.extend_from_slice(&event.body);
                }
                body.push(b']');
                body.into()
            }
        };
        let kind = if self.settings.is_batch || is_json(&body) {
            "application/json"
        } else {
            "application/octet-stream"
        };
        let mut request = Request::new(body);
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.settings.url.clone();
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        let agent = HeaderValue::from_static(concat!("Fanwire/", env!("CARGO_PKG_VERSION")));
        headers.insert(header::USER_AGENT, agent);
        if self.settings.is_lambda {
            headers.insert("x-amz-invocation-type", HeaderValue::from_static("Event"));
        }
        let channel = events.first().map_or("", |event| channel_of(event));
        for (name, value) in &self.settings.headers {
            // A channel that no header can say is left out.
            if let Ok(value) = HeaderValue::from_str(&value.replace("$topic", channel)) {
                headers.insert(name, value);
            }
        }
        request
    }

    fn told(&self, _: &[Arc<Event>], outcome: &Outcome, _: Duration) {
        let count = if matches!(outcome, Outcome::Delivered { .. }) { &self.delivered } else { &self.failed };
        count.fetch_add(1, Relaxed);
    }

    fn buried(&self, dead: Vec<Dead>) {
        for dead in dead {
            self.buried.fetch_add(1, Relaxed);
            self.dead.bury(&self.broker, &dead);
        }
    }
}
