//! One WebSocket over HTTP, as requests and answers: what travels when, and what an answer means.
//!
//! ```text
//! push, refresh, vanish ─▶ ┌──────────┐ ─▶ poll_request    a body for a POST; one at a time
//! time ──────────────────▶ │ Exchange │ ◀─ handle_answer   ─▶ what the client gets, and whether it is over
//! poll_timeout ◀────────── └──────────┘ ◀─ handle_failure  ─▶ whether it is tried again
//! ```
//!
//! It has no socket and no clock. Whoever drives it sends the request with [`Exchange::write_headers`], tells what came of
//! it, and asks for the next one after each call.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, SEC_WEBSOCKET_EXTENSIONS};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::control::Extension;
use crate::error::Malformed;
use crate::events::{self, Close, Event, EventsError};
use crate::instruct::is_type;

/// Most events of one request, unless a route says.
pub const MAX_EVENTS: usize = 100;
/// How many bytes travel together; one event may be longer.
pub const MAX_BATCH_BYTES: usize = 200_000;
/// How much waits before the client is not read any more.
pub const MAX_WAITING_BYTES: usize = 1 << 20;
/// How many events wait before the client is not read any more.
pub const MAX_WAITING: usize = 10_000;
/// How often a request is tried again.
pub const MAX_RETRIES: u32 = 5;
/// The shortest time between two requests that say nothing.
const MIN_KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Most bytes of what an origin wants to be told again.
const MAX_META_BYTES: usize = 16 << 10;
/// Most names of it.
const MAX_META: usize = 100;

/// One connection.
#[derive(Debug)]
pub struct Exchange {
    phase: Phase,
    max_events: usize,
    max_content_bytes: usize,
    waiting: VecDeque<Event>,
    waiting_bytes: usize,
    /// How many of `waiting` are in the request that is under way, and their bytes.
    offered: usize,
    offered_bytes: usize,
    /// How much of `waiting` was offered before and not taken.
    replayed: usize,
    replayed_bytes: usize,
    /// What comes behind all that waits.
    end: Option<Event>,
    is_asking: bool,
    has_end: bool,
    wants_refresh: bool,
    keep_alive: Option<Duration>,
    due: Option<Instant>,
    retries: u32,
    meta: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Opening,
    Open,
    Over,
}

/// What an answer says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Told {
    /// What the client gets, or the gateway if the extension says so; messages, pings and pongs.
    pub events: Vec<Event>,
    /// How the WebSocket ends, if it does.
    pub end: Option<End>,
    /// Only of the first answer: the extension `grip`.
    pub extension: Option<Extension>,
}

/// How a WebSocket ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The client gets a close, in answer to its own if it has closed itself.
    Close(Option<Close>),
    /// It gets nothing more, not even that.
    Drop,
    /// It has closed itself, or is gone, and the origin knows and has nothing to say to that.
    Done,
}

/// Why an answer is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// Another status than 200.
    #[error("status {0}")]
    Status(u16),
    /// Another type than that of events.
    #[error("the answer is not of type {}", events::CONTENT_TYPE)]
    Type,
    /// The list cannot be read.
    #[error("{0}")]
    Events(#[from] EventsError),
    /// A header cannot be read.
    #[error("{0}")]
    Header(#[from] Malformed),
    /// It does not begin as it has to: with `OPEN`, or without events and with `Keep-Alive-Interval`.
    #[error("the answer does not open the WebSocket")]
    NotOpened,
    /// `OPEN` in the middle.
    #[error("OPEN comes twice")]
    Again,
    /// It takes more than it was offered.
    #[error("{taken} bytes are accepted of {offered}")]
    TooMuch {
        /// What it says.
        taken: usize,
        /// What there was.
        offered: usize,
    },
    /// It takes nothing where there is more than one request has room for.
    #[error("nothing is accepted, and there is no room to offer more")]
    Stuck,
}

impl Exchange {
    /// A WebSocket that begins: the first request is `OPEN`. `max_events` travel together at most, and an origin's messages
    /// have at most `max_content_bytes`.
    pub fn new(max_events: usize, max_content_bytes: usize) -> Self {
        Self {
            phase: Phase::Opening,
            max_events: max_events.max(1),
            max_content_bytes,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            offered: 0,
            offered_bytes: 0,
            replayed: 0,
            replayed_bytes: 0,
            end: None,
            is_asking: false,
            has_end: false,
            wants_refresh: false,
            keep_alive: None,
            due: None,
            retries: 0,
            meta: Vec::new(),
        }
    }

    /// The client has sent something. After [`Event::Close`] nothing counts any more.
    pub fn push(&mut self, event: Event) {
        if self.end.is_some() || self.phase == Phase::Over {
            return;
        }
        match event {
            Event::Open => {}
            Event::Close(_) | Event::Disconnect => self.end = Some(event),
            event => {
                self.waiting_bytes += event.len();
                self.waiting.push_back(event);
            }
        }
    }

    /// The client is gone without a word. What it said before is told first.
    pub fn vanish(&mut self) {
        self.push(Event::Disconnect);
    }

    /// The origin is to be asked, whether there is something to say or not.
    pub fn refresh(&mut self) {
        self.wants_refresh |= self.phase != Phase::Over;
    }

    /// The origin wants to hear no more.
    pub fn detach(&mut self) {
        self.phase = Phase::Over;
        self.waiting = VecDeque::new();
        self.waiting_bytes = 0;
        self.due = None;
    }

    /// Whether so much waits that the client should not be read.
    pub fn is_full(&self) -> bool {
        self.waiting_bytes >= MAX_WAITING_BYTES || self.waiting.len() >= MAX_WAITING
    }

    /// Whether nothing is asked any more.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// How many events are in the request that is under way.
    pub fn offered(&self) -> usize {
        self.offered
    }

    /// How many bytes wait.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Whether the answer is awaited to a request with the last word.
    pub fn is_ending(&self) -> bool {
        self.is_asking && self.has_end
    }

    /// When to ask for a request again, if nothing else happens.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due.filter(|_| !self.is_asking)
    }

    /// The body of a request that is to be sent now; until it was answered or has failed there is no other one.
    pub fn poll_request(&mut self, now: Instant) -> Option<Bytes> {
        if self.is_asking || self.phase == Phase::Over {
            return None;
        }
        let is_due = self.due.is_some_and(|due| due <= now);
        if self.phase == Phase::Opening {
            self.is_asking = true;
            return Some(events::encode([&Event::Open]));
        }
        if self.retries > 0 && !is_due {
            return None;
        }
        let has_news = self.waiting.len() > self.replayed || self.waiting_bytes > self.replayed_bytes;
        if !(is_due || has_news || self.end.is_some() || self.wants_refresh) {
            return None;
        }
        self.due = None;
        self.wants_refresh = false;
        self.is_asking = true;
        let (mut body, mut count, mut bytes) = (Vec::new(), 0, 0);
        for event in self.waiting.iter().take(self.max_events) {
            if count > 0 && bytes + event.len() > MAX_BATCH_BYTES {
                break;
            }
            event.encode(&mut body);
            count += 1;
            bytes += event.len();
        }
        (self.offered, self.offered_bytes) = (count, bytes);
        self.has_end = false;
        if count == self.waiting.len()
            && (count < self.max_events || count == 0)
            && let Some(end) = &self.end
        {
            end.encode(&mut body);
            self.has_end = true;
        }
        Some(body.into())
    }

    /// Sets what each request has beside the client's own headers, and takes away what is not the client's to say.
    pub fn write_headers(&self, headers: &mut HeaderMap) {
        let foreign = |name: &HeaderName| {
            let own = ["connection-id", "upgrade", "sec-websocket-key", "sec-websocket-version"];
            let name = name.as_str();
            own.contains(&name) || name.starts_with("meta-") || name.starts_with("content-")
        };
        let foreign: Vec<HeaderName> = headers.keys().filter(|name| foreign(name)).cloned().collect();
        for name in foreign {
            headers.remove(name);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(events::CONTENT_TYPE));
        headers.insert(ACCEPT, HeaderValue::from_static(events::CONTENT_TYPE));
        headers.insert(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static("grip"));
        if self.replayed_bytes > 0 {
            headers.insert("content-bytes-replayed", HeaderValue::from(self.replayed_bytes));
        }
        for (name, value) in &self.meta {
            headers.insert(name.clone(), value.clone());
        }
    }

    /// What came back, all of it.
    ///
    /// # Errors
    /// It is no answer, and the exchange is over. Of the first request that means: there is no WebSocket.
    pub fn handle_answer(
        &mut self,
        now: Instant,
        status: u16,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Told, AnswerError> {
        let told = self.answered(now, status, headers, body);
        self.is_asking = false;
        if !matches!(&told, Ok(told) if told.end.is_none()) {
            self.detach();
        }
        told
    }

    fn answered(
        &mut self,
        now: Instant,
        status: u16,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Told, AnswerError> {
        self.retries = 0;
        let is_disconnect = self.has_end && self.end == Some(Event::Disconnect);
        if is_disconnect {
            // Whatever it says: nobody is there to hear it.
            return Ok(Told { end: Some(End::Done), ..Told::default() });
        }
        if status != 200 {
            return Err(AnswerError::Status(status));
        }
        if !is_type(headers.get(CONTENT_TYPE), events::CONTENT_TYPE) {
            return Err(AnswerError::Type);
        }
        let mut told = Told { events: events::decode(body, self.max_content_bytes)?, ..Told::default() };
        if let Some(value) = headers.get("keep-alive-interval") {
            let seconds =
                value.to_str().ok().and_then(|text| text.trim().parse().ok()).filter(|seconds| *seconds > 0);
            self.keep_alive = seconds.map(|seconds| crate::instruct::lasting(seconds).max(MIN_KEEP_ALIVE));
        }
        if self.phase == Phase::Opening {
            match told.events.first() {
                Some(Event::Open) => drop(told.events.remove(0)),
                None if self.keep_alive.is_some() => {}
                _ => return Err(AnswerError::NotOpened),
            }
            told.extension = Extension::answered(headers)?;
            self.phase = Phase::Open;
        } else {
            self.accept(headers)?;
        }
        self.remember(headers);
        let end = told
            .events
            .iter()
            .position(|event| matches!(event, Event::Open | Event::Close(_) | Event::Disconnect));
        if let Some(end) = end {
            told.end = Some(match told.events.drain(end..).next() {
                Some(Event::Close(close)) => End::Close(close),
                Some(Event::Disconnect) => End::Drop,
                _ => return Err(AnswerError::Again),
            });
        } else if self.has_end {
            // It had this one request to answer the close.
            told.end = Some(End::Done);
        }
        self.due = self.keep_alive.map(|interval| now + interval);
        Ok(told)
    }

    /// Takes from what waits what the origin has accepted: all, unless it says how much.
    fn accept(&mut self, headers: &HeaderMap) -> Result<(), AnswerError> {
        let (offered, bytes) = (std::mem::take(&mut self.offered), std::mem::take(&mut self.offered_bytes));
        let said =
            headers.get("content-bytes-accepted").and_then(|value| value.to_str().ok()?.trim().parse().ok());
        // The content of a close counts too, and is accepted with all before it.
        let end = match &self.end {
            Some(Event::Close(Some(close))) if self.has_end => 2 + close.reason.len(),
            _ => 0,
        };
        let taken: usize = said.unwrap_or(bytes + end);
        if taken > bytes + end {
            return Err(AnswerError::TooMuch { taken, offered: bytes + end });
        }
        let is_all = taken >= bytes;
        let (mut left, mut gone) = (taken.min(bytes), 0);
        while gone < offered
            && let Some(first) = self.waiting.front_mut()
        {
            let length = first.len();
            if !is_all && (length > left || left == 0) {
                first.advance(left);
                self.waiting_bytes -= left;
                break;
            }
            left -= length.min(left);
            self.waiting_bytes -= length;
            self.waiting.pop_front();
            gone += 1;
        }
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        self.replayed = offered - gone;
        self.replayed_bytes = if is_all { 0 } else { bytes - taken };
        let is_rest = self.waiting.len() > self.replayed;
        if !is_all && taken == 0 && is_rest && (offered >= self.max_events || bytes >= MAX_BATCH_BYTES) {
            return Err(AnswerError::Stuck);
        }
        Ok(())
    }

    /// What the origin wants to be told with each request.
    fn remember(&mut self, headers: &HeaderMap) {
        for name in headers.keys().filter(|name| name.as_str().starts_with("set-meta-")) {
            let Some(value) = headers.get(name) else { continue };
            let Ok(name) = HeaderName::try_from(&name.as_str()["set-".len()..]) else { continue };
            self.meta.retain(|(known, _)| *known != name);
            let bytes: usize = self.meta.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
            let has_room =
                bytes + name.as_str().len() + value.len() <= MAX_META_BYTES && self.meta.len() < MAX_META;
            if !value.is_empty() && has_room {
                self.meta.push((name, value.clone()));
            }
        }
    }

    /// Nothing came back. Where the origin cannot have read the request (no connection, or the body was not all sent), it
    /// is tried again after a time that doubles, with `jitter` on top; the opening never is. Whether it is over.
    pub fn handle_failure(&mut self, now: Instant, was_unread: bool, jitter: Duration) -> bool {
        self.is_asking = false;
        if self.phase != Phase::Open || !was_unread || self.retries >= MAX_RETRIES {
            self.detach();
            return true;
        }
        self.due = Some(now + Duration::from_secs(1 << self.retries) + jitter);
        self.retries += 1;
        false
    }
}

/// Takes off what of the answer to `OPEN` is not for the client.
pub fn strip_opening(headers: &mut HeaderMap) {
    let own = |name: &HeaderName| {
        let name = name.as_str();
        name.starts_with("set-meta-")
            || name.starts_with("content-")
            || name.starts_with("grip-")
            || matches!(name, "keep-alive-interval" | "sec-websocket-extensions")
    };
    let own: Vec<HeaderName> = headers.keys().filter(|name| own(name)).cloned().collect();
    for name in own {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests;
