//! Single requests, whose answer is one message.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::settings::{Span, Text};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use broker_core::{Broker, Channel, ContentType, Publish, PublishError};
use bytes::Bytes;
use envelope::{classify, write_string};
use gateway::client::retry_after;
use gateway::written;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, sleep, timeout};

use crate::ask::{Clients, Failure};

/// Requests that wait or are under way.
const MAX_WAITING: usize = 1_000;
/// Of them, those to one host at a time.
const MAX_PER_HOST: usize = 64;
/// Bytes that those of them that wait may send together.
const MAX_WAITING_BYTES: usize = 64 << 20;
/// Bytes that the answers of those under way may have together, until they are published; in KiB.
const MAX_ANSWERS_KIB: u32 = 256 << 10;
/// Keys that are remembered, and for how long.
const MAX_KEYS: usize = 10_000;
const KEY_TIME: Duration = Duration::from_secs(3_600);
/// Longest key.
const MAX_KEY_BYTES: usize = 256;
const MAX_TIMEOUT: Duration = Duration::from_secs(300);
const MAX_RETRIES: u32 = 10;
const MAX_RESPONSE_BYTES: usize = 16 << 20;
/// The longest time between two tries.
const MAX_BACKOFF: Duration = Duration::from_secs(60);
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// How a request is written: the body of `POST /v1/requests`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Written {
    method: Option<String>,
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    data: Option<Box<RawValue>>,
    text: Option<String>,
    base64: Option<String>,
    timeout: Option<Span>,
    reply_channel: Text<Channel>,
    key: Option<String>,
    max_response: Option<usize>,
    retry: Option<u32>,
}

/// One request.
#[derive(Clone)]
#[non_exhaustive]
pub struct RequestSettings {
    /// Default GET, or POST with a body.
    pub method: Method,
    /// http or https.
    pub url: Uri,
    /// Without those that the broker sets.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What is sent.
    pub body: Bytes,
    /// How long one try may take, with the body of its answer. Default 30 s, at most 5 minutes.
    pub timeout: Duration,
    /// Where the answer goes.
    pub reply_channel: Channel,
    /// What names it: a second one under the same key is not sent.
    pub key: Option<String>,
    /// Largest body of an answer, in bytes. Default 1 MiB, at most 16 MiB.
    pub max_response: usize,
    /// How often it is sent again where nobody answered, or the answer was 429 or 5xx. Default never, at most 10 times.
    pub retry: u32,
}

impl std::fmt::Debug for RequestSettings {
    /// Nothing of what may be secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestSettings").field("reply_channel", &self.reply_channel).finish_non_exhaustive()
    }
}

impl Written {
    /// What it says.
    ///
    /// # Errors
    /// With the member that cannot be meant.
    pub(crate) fn settings(self) -> Result<RequestSettings, String> {
        let wrong = |member: &str, why: String| format!("{member}: {why}");
        let bodies = [self.data.is_some(), self.text.is_some(), self.base64.is_some()];
        if bodies.iter().filter(|is_said| **is_said).count() > 1 {
            return Err("one of `data`, `text` and `base64` is the body".to_owned());
        }
        let has_body = bodies.contains(&true);
        let mut headers = self.headers.iter().map(|(name, value)| written::header(name, value));
        let mut headers: Vec<_> =
            headers.by_ref().collect::<Result<_, _>>().map_err(|why| wrong("headers", why))?;
        let (body, content_type) = match (self.data, self.text, self.base64) {
            (Some(data), ..) => (Bytes::from(data.get().to_owned()), "application/json"),
            (_, Some(text), _) => (Bytes::from(text), "text/plain;charset=utf-8"),
            (.., Some(base64)) => {
                let bytes = STANDARD.decode(base64).map_err(|error| wrong("base64", error.to_string()))?;
                (Bytes::from(bytes), "application/octet-stream")
            }
            _ => (Bytes::new(), ""),
        };
        if has_body {
            headers.push((header::CONTENT_TYPE, HeaderValue::from_static(content_type)));
        }
        let method = match self.method.as_deref() {
            None if has_body => Method::POST,
            None => Method::GET,
            Some(name) => match name.parse() {
                Ok(method) if method != Method::CONNECT && method != Method::TRACE => method,
                _ => return Err(wrong("method", format!("{name:?} is none that is sent"))),
            },
        };
        let time = self.timeout.map_or(Duration::from_secs(30), |span| span.0);
        if time.is_zero() || time > MAX_TIMEOUT {
            return Err(wrong("timeout", "more than nothing, at most 5m".to_owned()));
        }
        let max_response = self.max_response.unwrap_or(1 << 20);
        if max_response > MAX_RESPONSE_BYTES {
            return Err(wrong("max_response", format!("at most {MAX_RESPONSE_BYTES} bytes")));
        }
        let retry = self.retry.unwrap_or(0);
        if retry > MAX_RETRIES {
            return Err(wrong("retry", format!("at most {MAX_RETRIES} times")));
        }
        if self.key.as_ref().is_some_and(|key| key.is_empty() || key.len() > MAX_KEY_BYTES) {
            return Err(wrong("key", format!("1 to {MAX_KEY_BYTES} bytes")));
        }
        if self.reply_channel.0.is_reserved() {
            return Err(wrong("reply_channel", "names that begin with `$` are the broker's own".to_owned()));
        }
        Ok(RequestSettings {
            method,
            url: written::url(&self.url).map_err(|why| wrong("url", why))?,
            headers,
            body,
            timeout: time,
            reply_channel: self.reply_channel.0,
            key: self.key,
            max_response,
            retry,
        })
    }
}

/// Why a request is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Its address may not be connected to.
    #[error("{0}")]
    Policy(String),
    /// Another one has its key.
    #[error("another request has this key")]
    Conflict,
    /// As many wait as may.
    #[error("{MAX_WAITING} requests, or 64 MiB of them, wait already")]
    TooMany,
}

#[derive(Clone, Debug)]
pub(crate) struct Requests(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    broker: Broker,
    clients: Clients,
    state: Mutex<State>,
    hasher: RandomState,
    counted: Counted,
    /// Room for answers, from before a request is sent until its reply is published.
    room: Semaphore,
}

#[derive(Debug, Default)]
pub(crate) struct Counted {
    pub(crate) answered: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) cancelled: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    newest: u64,
    /// What is waiting to be sent, until its reply is published.
    bytes: usize,
    waiting: HashMap<String, Waiting>,
    hosts: HashMap<String, Arc<Semaphore>>,
    keys: HashMap<(String, String), Known>,
    /// The keys in the order of their age.
    ages: VecDeque<((String, String), Instant)>,
}

#[derive(Debug)]
struct Waiting {
    owner: String,
    bytes: usize,
    /// `None`: it was taken back.
    cancel: Option<oneshot::Sender<()>>,
}

#[derive(Debug, Clone)]
struct Known {
    id: String,
    print: u64,
}

impl Requests {
    pub(crate) fn new(broker: Broker, clients: Clients) -> Self {
        Self(Arc::new(Inner {
            broker,
            clients,
            state: Mutex::default(),
            hasher: RandomState::new(),
            counted: Counted::default(),
            room: Semaphore::new(MAX_ANSWERS_KIB as usize),
        }))
    }

    /// Takes one, and gives its id: that of an earlier one under the same key, which is not sent again.
    pub(crate) fn take(&self, owner: &str, settings: RequestSettings) -> Result<String, RequestError> {
        let inner = &self.0;
        inner.clients.of(&settings.url, false).map_err(|failure| RequestError::Policy(failure.detail))?;
        let mut state = inner.state.lock();
        state.forget_old_keys();
        let key = settings.key.clone().map(|key| (owner.to_owned(), key));
        let print = inner.print(&settings);
        if let Some(known) = key.as_ref().and_then(|key| state.keys.get(key)) {
            return if known.print == print { Ok(known.id.clone()) } else { Err(RequestError::Conflict) };
        }
        let bytes = settings.body.len();
        if state.waiting.len() >= MAX_WAITING || state.bytes + bytes > MAX_WAITING_BYTES {
            return Err(RequestError::TooMany);
        }
        state.bytes += bytes;
        state.newest += 1;
        let id = format!("req_{:x}_{:x}", inner.broker.epoch(), state.newest);
        if let Some(key) = key {
            state.remember(key, Known { id: id.clone(), print });
        }
        let host =
            settings.url.authority().map(|host| host.as_str().to_ascii_lowercase()).unwrap_or_default();
        let turns = state.hosts.entry(host.clone()).or_insert_with(|| Arc::new(Semaphore::new(MAX_PER_HOST)));
        let turns = Arc::clone(turns);
        let (cancel, cancelled) = oneshot::channel();
        state.waiting.insert(id.clone(), Waiting { owner: owner.to_owned(), bytes, cancel: Some(cancel) });
        drop(state);
        let (requests, own) = (self.clone(), id.clone());
        tokio::spawn(async move { requests.carry_out(own, settings, &host, turns, cancelled).await });
        Ok(id)
    }

    /// Takes one back: its reply says so. False if it is over, or another's.
    pub(crate) fn cancel(&self, id: &str, may: impl Fn(&str) -> bool) -> bool {
        let mut state = self.0.state.lock();
        let waiting = state.waiting.get_mut(id).filter(|waiting| may(&waiting.owner));
        waiting.and_then(|waiting| waiting.cancel.take()).is_some_and(|cancel| cancel.send(()).is_ok())
    }

    pub(crate) fn waiting(&self) -> usize {
        self.0.state.lock().waiting.len()
    }

    pub(crate) fn counted(&self) -> &Counted {
        &self.0.counted
    }

    async fn carry_out(
        self,
        id: String,
        settings: RequestSettings,
        host: &str,
        turns: Arc<Semaphore>,
        mut cancelled: oneshot::Receiver<()>,
    ) {
        let began = Instant::now();
        let counted = &self.0.counted;
        let kib = u32::try_from(settings.max_response >> 10).unwrap_or(MAX_ANSWERS_KIB) + 1;
        // Until the reply is published; never closed.
        let mut room = None;
        let asked = async {
            room = self.0.room.acquire_many(kib).await.ok();
            self.ask(&settings, &turns).await
        };
        let answer = tokio::select! {
            answer = asked => answer.map_err(|failure| {
                counted.failed.fetch_add(1, Ordering::Relaxed);
                (failure.condition.name(), failure.detail)
            }),
            Ok(()) = &mut cancelled => {
                counted.cancelled.fetch_add(1, Ordering::Relaxed);
                Err(("cancelled", "it was taken back".to_owned()))
            }
        };
        // Taken back from now on it is over.
        drop(cancelled);
        {
            let mut state = self.0.state.lock();
            // Two are left: this one and the one in the map.
            if Arc::strong_count(&turns) <= 2 {
                state.hosts.remove(host);
            }
        }
        let mut json = b"{\"id\":".to_vec();
        write_string(&id, &mut json);
        match &answer {
            Ok(answer) => {
                counted.answered.fetch_add(1, Ordering::Relaxed);
                write_answer(answer, began.elapsed(), &mut json);
            }
            Err((condition, detail)) => {
                json.extend_from_slice(b",\"error\":{\"condition\":");
                write_string(condition, &mut json);
                json.extend_from_slice(b",\"detail\":");
                write_string(detail, &mut json);
                json.push(b'}');
            }
        }
        json.push(b'}');
        self.reply(settings.reply_channel, json).await;
        drop(room);
        let mut state = self.0.state.lock();
        if let Some(waiting) = state.waiting.remove(&id) {
            state.bytes -= waiting.bytes;
        }
    }

    async fn ask(&self, settings: &RequestSettings, turns: &Semaphore) -> Result<Response<Bytes>, Failure> {
        let client = self.0.clients.of(&settings.url, false)?;
        let mut tries = 0;
        loop {
            let mut request = Request::new(settings.body.clone());
            (*request.method_mut(), *request.uri_mut()) = (settings.method.clone(), settings.url.clone());
            request.headers_mut().extend(settings.headers.iter().cloned());
            let asked = {
                // Never closed.
                let _turn = turns.acquire().await;
                let fetched = client.fetch(request, settings.max_response, settings.timeout);
                let limit = settings.timeout;
                timeout(limit, fetched).await.unwrap_or_else(|_| {
                    Err(outgoing::Error::Timeout { phase: outgoing::Phase::Whole, limit })
                })
            };
            let after = match &asked {
                Ok(answer) if answer.status().as_u16() == 429 || answer.status().is_server_error() => {
                    retry_after(answer.headers())
                }
                // Again it would be no smaller.
                Ok(_) | Err(outgoing::Error::TooLarge { .. } | outgoing::Error::Forbidden { .. }) => {
                    return Ok(asked?);
                }
                Err(_) => None,
            };
            if tries >= settings.retry {
                return Ok(asked?);
            }
            let most = Duration::from_secs(1).saturating_mul(1 << tries.min(16));
            let wait = most.mul_f64(fastrand::f64()).max(after.unwrap_or_default()).min(MAX_BACKOFF);
            sleep(wait).await;
            tries += 1;
        }
    }

    /// Publishes the one reply, however long the broker or its store are busy.
    async fn reply(&self, channel: Channel, json: Vec<u8>) {
        let publish = Publish::new(channel, json).content_type(ContentType::JSON);
        loop {
            match self.0.broker.submit(publish.clone()).await.map_err(|refused| refused.error) {
                Ok(_) => return,
                Err(PublishError::Busy { .. }) => sleep(BUSY_PAUSE).await,
                Err(PublishError::Unavailable { retry_after, .. }) => sleep(retry_after).await,
                Err(error) => {
                    tracing::warn!(%error, "the reply to a request is lost");
                    return;
                }
            }
        }
    }
}

impl Inner {
    /// What two requests under one key have in common if they are the same.
    fn print(&self, settings: &RequestSettings) -> u64 {
        let headers: Vec<_> =
            settings.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        self.hasher.hash_one((
            settings.method.as_str(),
            settings.url.to_string(),
            headers,
            &settings.body,
            settings.reply_channel.as_str(),
        ))
    }
}

impl State {
    fn remember(&mut self, key: (String, String), known: Known) {
        if self.ages.len() >= MAX_KEYS
            && let Some((oldest, _)) = self.ages.pop_front()
        {
            self.keys.remove(&oldest);
        }
        self.ages.push_back((key.clone(), Instant::now()));
        self.keys.insert(key, known);
    }

    fn forget_old_keys(&mut self) {
        while let Some((_, since)) = self.ages.front()
            && since.elapsed() >= KEY_TIME
            && let Some((key, _)) = self.ages.pop_front()
        {
            self.keys.remove(&key);
        }
    }
}

fn write_answer(answer: &Response<Bytes>, took: Duration, out: &mut Vec<u8>) {
    out.extend_from_slice(format!(",\"status\":{},\"headers\":[", answer.status().as_u16()).as_bytes());
    for (at, (name, value)) in answer.headers().iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.push(b'[');
        write_string(name.as_str(), out);
        out.push(b',');
        write_string(&String::from_utf8_lossy(value.as_bytes()), out);
        out.push(b']');
    }
    out.extend_from_slice(b"],");
    let body = classify(answer.body(), content_type(answer.headers()).as_ref());
    write_string(body.member(), out);
    out.push(b':');
    body.write_to(out);
    out.extend_from_slice(format!(",\"duration_ms\":{}", took.as_millis()).as_bytes());
}

fn content_type(headers: &HeaderMap) -> Option<ContentType> {
    headers.get(header::CONTENT_TYPE)?.to_str().ok().map(ContentType::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<RequestSettings, String> {
        let written: Written = serde_json::from_str(text).map_err(|error| error.to_string())?;
        written.settings()
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        let settings = read(r#"{"url":"https://a.example/","reply_channel":"jobs/7"}"#).unwrap();
        assert_eq!((settings.method, settings.timeout), (Method::GET, Duration::from_secs(30)));
        assert_eq!((settings.max_response, settings.retry), (1 << 20, 0));
        let settings = read(r#"{"url":"https://a.example/","reply_channel":"j","data":{"n":1.0}}"#).unwrap();
        assert_eq!((settings.method, &*settings.body), (Method::POST, &br#"{"n":1.0}"#[..]));
        assert_eq!(settings.headers[0].1, "application/json");
        let settings = read(r#"{"url":"https://a.example/","reply_channel":"j","base64":"AP8="}"#).unwrap();
        assert_eq!(&*settings.body, [0, 255]);
    }

    #[test]
    fn what_cannot_be_meant_is_said_with_its_member() {
        let (url, channel) = (r#""url":"https://a.example/""#, r#""reply_channel":"j""#);
        for (text, said) in [
            (
                format!(r#"{{{url},{channel},"text":"a","data":1}}"#),
                "one of `data`, `text` and `base64` is the body",
            ),
            (
                format!(r#"{{{url},{channel},"method":"CONNECT"}}"#),
                "method: \"CONNECT\" is none that is sent",
            ),
            (format!(r#"{{{url},{channel},"timeout":"10m"}}"#), "timeout: more than nothing, at most 5m"),
            (format!(r#"{{{url},{channel},"retry":11}}"#), "retry: at most 10 times"),
            (format!(r#"{{{url},{channel},"key":""}}"#), "key: 1 to 256 bytes"),
            (
                format!(r#"{{{url},{channel},"headers":{{"Host":"x"}}}}"#),
                "headers: \"Host\" is set by the broker alone",
            ),
            (
                format!(r#"{{{url},"reply_channel":"$SYS/x"}}"#),
                "reply_channel: names that begin with `$` are the broker's own",
            ),
            (
                format!(r#"{{"url":"a",{channel}}}"#),
                "url: `a` is no address: http:// and https:// are spoken",
            ),
        ] {
            assert_eq!(read(&text).unwrap_err(), said, "{text}");
        }
    }
}
