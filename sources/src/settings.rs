//! What is said about a source, in a configuration or over HTTP.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use ::settings::{Span, Text};
use broker_core::Channel;
use bytes::Bytes;
use gateway::written;
use http::{HeaderName, HeaderValue, Method, Uri};
use serde::{Deserialize, Serialize};

/// Shortest time between two polls.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// Longest times of a source.
const MAX_TIME: Duration = Duration::from_secs(24 * 3600);
/// Largest message that may be asked for.
const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// Messages that are sent when a WebSocket opens.
const MAX_ON_OPEN: usize = 16;

/// How a source is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Kind {
    /// An event stream (`text/event-stream`), read from its last id on.
    Sse,
    /// A WebSocket.
    Websocket,
    /// A page that is asked for again after [`Settings::interval`].
    Poll,
    /// A page that answers when there is something, and is asked again at once.
    Longpoll,
}

impl Kind {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sse => "sse",
            Self::Websocket => "websocket",
            Self::Poll => "poll",
            Self::Longpoll => "longpoll",
        }
    }
}

/// Where messages go.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Goal {
    /// All to one channel.
    Channel(Channel),
    /// Each to the channel that stands in it, at this JSON pointer.
    Pointer(String),
}

/// One source.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// Its name, for operators.
    pub id: String,
    /// How it is heard.
    pub kind: Kind,
    /// Where it is: http or https; of a WebSocket too, ws being http and wss https.
    pub url: Uri,
    /// Headers of each request. They are not sent to another host that a redirect leads to.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Where messages go.
    pub goal: Goal,
    /// Texts that a WebSocket is sent once it is open.
    pub on_open: Vec<String>,
    /// From one answer of a poll to the next request: 1 s to a day. Default 5 s.
    pub interval: Duration,
    /// The part of a poll's JSON that counts, as a JSON pointer.
    pub select: Option<String>,
    /// Whether a poll publishes the whole once and then what has changed (RFC 6902).
    pub diff: bool,
    /// After how much silence a WebSocket is pinged, and given up after as much again. Default 30 s.
    pub ping: Duration,
    /// After how much silence an event stream is given up. Default 5 minutes.
    pub idle: Duration,
    /// Largest message, in bytes. Default 1 MiB, at most 16 MiB.
    pub max_message: usize,
    /// Of polls: GET or POST. Default GET.
    pub method: Method,
    /// Of polls: what they send.
    pub body: Bytes,
    /// Messages a second, over a second of saving up. Beyond it the source is read more slowly. Default 100.
    pub messages_per_second: u32,
    /// Bytes a second, likewise. Default 1 MiB.
    pub bytes_per_second: usize,
}

impl fmt::Debug for Settings {
    /// Nothing of its headers and its body, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .field("goal", &self.goal)
            .finish_non_exhaustive()
    }
}

/// How a source is written: an element of `gateway.sources`, and the body of `PUT /v1/sources/{id}`.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    id: String,
    kind: Kind,
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    channel: Option<Text<Channel>>,
    channel_from: Option<String>,
    on_open: Option<Vec<String>>,
    interval: Option<Span>,
    select: Option<String>,
    diff: Option<bool>,
    ping: Option<Span>,
    idle: Option<Span>,
    max_message: Option<usize>,
    method: Option<String>,
    body: Option<String>,
    messages_per_second: Option<u32>,
    bytes_per_second: Option<usize>,
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Written").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What is wrong with a source. Nothing of a header's value stands here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
#[non_exhaustive]
pub struct Wrong {
    /// The key of the source.
    pub key: &'static str,
    /// In words.
    pub message: String,
}

fn wrong(key: &'static str, message: impl Into<String>) -> Wrong {
    Wrong { key, message: message.into() }
}

impl Written {
    /// Its name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it says.
    ///
    /// # Errors
    /// The first thing that cannot be meant.
    pub fn settings(&self) -> Result<Settings, Wrong> {
        written::id(&self.id).map_err(|message| wrong("id", message))?;
        self.only_of_kind()?;
        let headers = self.headers.iter().map(|(name, value)| written::header(name, value));
        let method = match self.method.as_deref() {
            None | Some("GET") => Method::GET,
            Some("POST") => Method::POST,
            Some(_) => return Err(wrong("method", "GET or POST")),
        };
        if self.body.is_some() && method == Method::GET {
            return Err(wrong("body", "a GET has none; `method = \"POST\"` sends it"));
        }
        let max_message = self.max_message.unwrap_or(1 << 20);
        if !(1..=MAX_MESSAGE_BYTES).contains(&max_message) {
            return Err(wrong("max_message", format!("1 to {MAX_MESSAGE_BYTES} bytes")));
        }
        let on_open = self.on_open.clone().unwrap_or_default();
        if on_open.len() > MAX_ON_OPEN || on_open.iter().any(|text| text.len() > max_message) {
            let message = format!("at most {MAX_ON_OPEN} texts, none longer than `max_message`");
            return Err(wrong("on_open", message));
        }
        let messages_per_second = self.messages_per_second.unwrap_or(100);
        let bytes_per_second = self.bytes_per_second.unwrap_or(1 << 20);
        if messages_per_second == 0 {
            return Err(wrong("messages_per_second", "at least 1"));
        }
        if bytes_per_second == 0 {
            return Err(wrong("bytes_per_second", "at least 1"));
        }
        Ok(Settings {
            id: self.id.clone(),
            kind: self.kind,
            url: self.url()?,
            headers: headers.collect::<Result<_, _>>().map_err(|message| wrong("headers", message))?,
            goal: self.goal()?,
            on_open,
            interval: time("interval", self.interval, Duration::from_secs(5), MIN_INTERVAL)?,
            select: pointer("select", self.select.as_ref())?,
            diff: self.diff.unwrap_or(false),
            ping: time("ping", self.ping, Duration::from_secs(30), MIN_INTERVAL)?,
            idle: time("idle", self.idle, Duration::from_secs(300), MIN_INTERVAL)?,
            max_message,
            method,
            body: self.body.clone().map(Bytes::from).unwrap_or_default(),
            messages_per_second,
            bytes_per_second,
        })
    }

    /// A key that another kind has is a mistake, not a wish.
    fn only_of_kind(&self) -> Result<(), Wrong> {
        use Kind::{Longpoll, Poll, Sse, Websocket};
        let keys: [(&'static str, bool, &[Kind]); 8] = [
            ("on_open", self.on_open.is_some(), &[Websocket]),
            ("ping", self.ping.is_some(), &[Websocket]),
            ("idle", self.idle.is_some(), &[Sse]),
            ("interval", self.interval.is_some(), &[Poll]),
            ("select", self.select.is_some(), &[Poll]),
            ("diff", self.diff.is_some(), &[Poll]),
            ("method", self.method.is_some(), &[Poll, Longpoll]),
            ("body", self.body.is_some(), &[Poll, Longpoll]),
        ];
        match keys.into_iter().find(|(_, is_said, kinds)| *is_said && !kinds.contains(&self.kind)) {
            Some((key, ..)) => {
                Err(wrong(key, format!("a source of the kind {:?} has none", self.kind.name())))
            }
            None => Ok(()),
        }
    }

    fn url(&self) -> Result<Uri, Wrong> {
        let text = match (self.kind, self.url.split_once("://")) {
            (Kind::Websocket, Some(("ws", rest))) => format!("http://{rest}"),
            (Kind::Websocket, Some(("wss", rest))) => format!("https://{rest}"),
            (Kind::Websocket, _) => return Err(wrong("url", "a WebSocket is at ws:// or wss://")),
            _ => self.url.clone(),
        };
        written::url(&text).map_err(|message| wrong("url", message))
    }

    fn goal(&self) -> Result<Goal, Wrong> {
        match (&self.channel, &self.channel_from) {
            (Some(channel), None) if channel.0.is_reserved() => {
                Err(wrong("channel", "names that begin with `$` are the broker's own"))
            }
            (Some(channel), None) => Ok(Goal::Channel(channel.0.clone())),
            (None, Some(text)) => match pointer("channel_from", Some(text))? {
                Some(pointer) => Ok(Goal::Pointer(pointer)),
                None => Err(wrong("channel_from", "a JSON pointer such as \"/type\"")),
            },
            (Some(_), Some(_)) => Err(wrong("channel_from", "there is a `channel` already")),
            (None, None) => Err(wrong("channel", "where its messages go; or `channel_from`")),
        }
    }
}

/// A JSON pointer (RFC 6901): empty, or parts that each begin with a slash.
fn pointer(key: &'static str, text: Option<&String>) -> Result<Option<String>, Wrong> {
    match text {
        None => Ok(None),
        Some(text) if text.is_empty() || text.starts_with('/') => {
            Ok(Some(text.clone()).filter(|text| !text.is_empty()))
        }
        Some(text) => Err(wrong(key, format!("{text:?} is no JSON pointer: \"/items\" is one"))),
    }
}

fn time(
    key: &'static str,
    said: Option<Span>,
    default: Duration,
    least: Duration,
) -> Result<Duration, Wrong> {
    let time = said.map_or(default, |span| span.0);
    if time < least || time > MAX_TIME { Err(wrong(key, "1s to 1day")) } else { Ok(time) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, String> {
        let mut value = serde_json::json!({"id": "feed", "kind": "poll", "url": "https://a.example/x"});
        let change: serde_json::Value = serde_json::from_str(text).unwrap();
        for (key, one) in change.as_object().unwrap() {
            value[key] = one.clone();
        }
        let written: Written = serde_json::from_value(value).map_err(|error| error.to_string())?;
        written.settings().map_err(|wrong| wrong.to_string())
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        let settings = read(r#"{"channel":"feed/x"}"#).unwrap();
        assert_eq!((settings.interval, settings.max_message), (Duration::from_secs(5), 1 << 20));
        assert_eq!((settings.messages_per_second, settings.bytes_per_second), (100, 1 << 20));
        assert_eq!((settings.method, settings.diff, settings.select), (Method::GET, false, None));
        let socket = read(r#"{"kind":"websocket","url":"wss://a.example/s","channel":"a"}"#).unwrap();
        assert_eq!(
            (socket.url.to_string(), socket.ping),
            ("https://a.example/s".to_owned(), Duration::from_secs(30))
        );
    }

    #[test]
    fn what_cannot_be_meant_is_said_with_its_key() {
        for (text, said) in [
            ("{}", "channel: where its messages go; or `channel_from`"),
            (r#"{"channel":"$SYS/a"}"#, "channel: names that begin with `$` are the broker's own"),
            (r#"{"channel":"a","channel_from":"/b"}"#, "channel_from: there is a `channel` already"),
            (r#"{"channel_from":"b"}"#, "channel_from: \"b\" is no JSON pointer: \"/items\" is one"),
            (r#"{"channel_from":""}"#, "channel_from: a JSON pointer such as \"/type\""),
            (r#"{"channel":"a","interval":"10ms"}"#, "interval: 1s to 1day"),
            (r#"{"channel":"a","ping":"10s"}"#, "ping: a source of the kind \"poll\" has none"),
            (r#"{"channel":"a","body":"x"}"#, "body: a GET has none; `method = \"POST\"` sends it"),
            (r#"{"channel":"a","method":"PUT"}"#, "method: GET or POST"),
            (
                r#"{"channel":"a","url":"ftp://a/"}"#,
                "url: `a` is no address: http:// and https:// are spoken",
            ),
            (r#"{"channel":"a","kind":"websocket"}"#, "url: a WebSocket is at ws:// or wss://"),
            (r#"{"channel":"a","headers":{"Host":"x"}}"#, "headers: \"Host\" is set by the broker alone"),
            (r#"{"channel":"a","max_message":0}"#, "max_message: 1 to 16777216 bytes"),
            (r#"{"channel":"a","id":"a b"}"#, "id: 1 to 64 letters, digits, `-`, `_` and `.` are an id"),
        ] {
            assert_eq!(read(text).unwrap_err(), said, "{text}");
        }
        assert!(read(r#"{"chanel":"a"}"#).unwrap_err().starts_with("unknown field `chanel`"));
    }

    #[test]
    fn nothing_secret_is_shown() {
        let settings = read(r#"{"channel":"a","headers":{"x-key":"secret"}}"#).unwrap();
        assert!(!format!("{settings:?} {:?}", settings.headers).contains("secret"));
    }
}
