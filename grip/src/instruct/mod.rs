//! What an origin's answer instructs: to hold the client, on which channels, and what to send meanwhile.
//!
//! An instruction stands in headers of an answer ([`in_headers`]), whose body is then the client's, or is a document that
//! is the body ([`is_document`], [`document`]), in which the client's answer stands too.
//!
//! ```
//! use grip::instruct::{self, Hold};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut headers = http::HeaderMap::new();
//! headers.insert("grip-hold", "stream".parse()?);
//! headers.insert("grip-channel", "room/1; prev-id=7, room/2".parse()?);
//! let instruction = instruct::in_headers(&headers)?.expect("it has one");
//! assert_eq!(instruction.hold, Some(Hold::Stream));
//! assert_eq!(instruction.channels[0].prev_id.as_deref(), Some("7"));
//! assert_eq!(instruction.channels[1].name, "room/2");
//! # Ok(()) }
//! ```

mod document;
mod headers;

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

pub use document::document;
pub use headers::in_headers;

use crate::error::{Malformed, Problem};
use crate::filter::Filter;

/// Most channels of one hold.
pub const MAX_CHANNELS: usize = 200;
/// Most filters of one channel.
pub const MAX_FILTERS: usize = 16;
/// Largest document, in bytes.
pub const MAX_DOCUMENT_BYTES: usize = 1 << 20;
/// Most names of metadata, and the most bytes of them together.
pub const MAX_META: usize = 100;
const MAX_META_BYTES: usize = 16 << 10;

/// How long a hold waits, unless the origin says.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(55);
const MIN_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_LINK_TIMEOUT: Duration = Duration::from_secs(120);
/// Whatever an origin says; clocks can add it to any time.
const MAX_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);

/// What an origin instructs.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Instruction {
    /// What is held open; `None`: the answer ends, or goes on with what the next link brings.
    pub hold: Option<Hold>,
    /// On what, each once, in the origin's order. Up to [`MAX_CHANNELS`].
    pub channels: Vec<Channel>,
    /// How long a response is held. Default 55 s, at least 5 s.
    pub timeout: Duration,
    /// What is sent while nothing is published; of a stream.
    pub keep_alive: Option<KeepAlive>,
    /// Where the stream goes on.
    pub next: Option<NextLink>,
    /// What is asked when the client has left; as it was written, relative to the address of the request.
    pub gone: Option<String>,
    /// The status that the client gets, with words for it; `None`: that of the answer.
    pub status: Option<StatusCode>,
    /// The words for the status, if the origin has its own.
    pub reason: Option<String>,
    /// What is known of the client from now on, for filters.
    pub meta: Vec<(String, String)>,
    /// The only headers that the client gets; empty: all.
    pub expose_headers: Vec<HeaderName>,
    /// The client's answer, where it stands in a document; `None`: it is the rest of the origin's.
    pub response: Option<Response>,
}

/// What is held open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The answer waits for the first message, which it then is: a long poll.
    Response,
    /// The answer begins at once and goes on with each message.
    Stream,
}

/// A channel that a client is held on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Channel {
    /// Its name.
    pub name: String,
    /// The id of the last message that the origin knows of, after which messages are wanted.
    pub prev_id: Option<String>,
    /// What its messages go through, in this order.
    pub filters: Vec<Filter>,
}

/// What keeps a quiet stream alive.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeepAlive {
    /// What is sent.
    pub content: Bytes,
    /// When.
    pub mode: KeepAliveMode,
    /// After how long. Default 55 s, at least 1 s.
    pub timeout: Duration,
}

/// When something is sent to keep a connection alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAliveMode {
    /// When nothing was sent for so long.
    Idle,
    /// Again and again after so long, whatever else is sent.
    Interval,
}

/// Where a stream goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NextLink {
    /// As it was written; relative to the address of the request.
    pub uri: String,
    /// How long the stream may be without traffic before it is asked. Default 120 s.
    pub timeout: Duration,
}

/// An answer that stands in a document.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Response {
    /// Its headers; the status is the instruction's.
    pub headers: HeaderMap,
    /// All of it.
    pub body: Bytes,
}

impl Default for Instruction {
    fn default() -> Self {
        Self {
            hold: None,
            channels: Vec::new(),
            timeout: DEFAULT_TIMEOUT,
            keep_alive: None,
            next: None,
            gone: None,
            status: None,
            reason: None,
            meta: Vec::new(),
            expose_headers: Vec::new(),
            response: None,
        }
    }
}

impl Instruction {
    /// A channel from whose middle a stream is wanted, where the origin gave no link to fill the gap by: only a log can,
    /// and where none can, the instruction is malformed.
    pub fn without_link(&self) -> Option<&Channel> {
        if self.hold != Some(Hold::Stream) || self.next.is_some() {
            return None;
        }
        self.channels.iter().find(|channel| channel.prev_id.is_some())
    }

    /// Leaves only those headers that the origin wants to be seen.
    pub fn expose(&self, headers: &mut HeaderMap) {
        if self.expose_headers.is_empty() {
            return;
        }
        let hidden: Vec<HeaderName> =
            headers.keys().filter(|name| !self.expose_headers.contains(name)).cloned().collect();
        for name in hidden {
            headers.remove(name);
        }
    }

    fn add_channel(&mut self, channel: Channel) -> Result<(), Problem> {
        if channel.name.is_empty() {
            return Err(Problem::Empty);
        }
        if self.channels.iter().any(|known| known.name == channel.name) {
            return Ok(());
        }
        if self.channels.len() == MAX_CHANNELS {
            return Err(Problem::TooMany(MAX_CHANNELS));
        }
        self.channels.push(channel);
        Ok(())
    }

    fn set_meta(&mut self, name: String, value: String) -> Result<(), Problem> {
        if name.is_empty() {
            return Err(Problem::Empty);
        }
        self.meta.retain(|(known, _)| *known != name);
        let bytes: usize = self.meta.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes + name.len() + value.len() > MAX_META_BYTES {
            return Err(Problem::TooLong(MAX_META_BYTES));
        }
        if self.meta.len() == MAX_META {
            return Err(Problem::TooMany(MAX_META));
        }
        self.meta.push((name, value));
        Ok(())
    }
}

impl Hold {
    fn parse(text: &str) -> Result<Self, Problem> {
        match text {
            "response" => Ok(Self::Response),
            "stream" => Ok(Self::Stream),
            _ => Err(Problem::Unknown(text.to_owned())),
        }
    }
}

impl KeepAliveMode {
    /// By its name, `idle` or `interval`.
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        match text {
            "idle" => Ok(Self::Idle),
            "interval" => Ok(Self::Interval),
            _ => Err(Problem::Unknown(text.to_owned())),
        }
    }
}

impl KeepAlive {
    /// With bounds kept.
    pub(crate) fn new(content: Bytes, mode: KeepAliveMode, seconds: Option<u64>) -> Self {
        let timeout = seconds.map_or(DEFAULT_TIMEOUT, lasting).max(Duration::from_secs(1));
        Self { content, mode, timeout }
    }
}

/// So many seconds, or the most that there may be.
pub(crate) fn lasting(seconds: u64) -> Duration {
    Duration::from_secs(seconds).min(MAX_TIMEOUT)
}

fn filters(names: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Vec<Filter>, Problem> {
    let filter = |name: &str| Filter::parse(name).ok_or_else(|| Problem::Unknown(name.to_owned()));
    let filters = names.into_iter().map(|name| filter(name.as_ref())).collect::<Result<Vec<_>, _>>()?;
    if filters.len() > MAX_FILTERS { Err(Problem::TooMany(MAX_FILTERS)) } else { Ok(filters) }
}

/// Whether the body is a document that instructs; to be read whole, up to [`MAX_DOCUMENT_BYTES`].
pub fn is_document(headers: &HeaderMap) -> bool {
    is_type(headers.get(CONTENT_TYPE), "application/grip-instruct")
}

/// Whether a value of `Content-Type` is this, parameters and case aside.
pub(crate) fn is_type(value: Option<&HeaderValue>, wanted: &str) -> bool {
    let media = value.and_then(|value| value.as_bytes().split(|byte| *byte == b';').next());
    media.is_some_and(|media| media.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes()))
}

/// Takes off what is not for the client: all headers of GRIP, and the length, which is another one.
pub fn strip(headers: &mut HeaderMap) {
    let own: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("grip-")).cloned().collect();
    for name in own {
        headers.remove(name);
    }
    headers.remove(CONTENT_LENGTH);
}

fn at(place: &'static str) -> impl Fn(Problem) -> Malformed {
    move |problem| Malformed::new(place, problem)
}
