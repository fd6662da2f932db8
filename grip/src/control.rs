//! The extension `grip` of WebSocket over HTTP: what an origin says beside its messages.
//!
//! With the extension, a text that begins with `c:` is for the gateway, JSON, and one that begins with the prefix of
//! messages, `m:` unless the origin has another, is for the client, without it.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::SEC_WEBSOCKET_EXTENSIONS;

use crate::error::{Malformed, Problem};
use crate::events::Event;
use crate::fields;
use crate::filter::Filter;
use crate::instruct::{KeepAliveMode, MAX_FILTERS, lasting};
use crate::json::{self, Object};
use crate::publish::WsKind;

/// What a text for the gateway begins with.
const PREFIX: &str = "c:";
/// What messages begin with, unless the origin says.
const MESSAGE_PREFIX: &str = "m:";
const MAX_PREFIX_BYTES: usize = 64;
/// How long something is delayed, or a connection is quiet, unless the origin says.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(55);
/// Longest name or value of metadata, in bytes.
const MAX_META_BYTES: usize = 8 << 10;

/// What is asked of the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Control {
    /// The client gets what is published to a channel.
    Subscribe {
        /// Its name.
        channel: String,
        /// What its items go through.
        filters: Vec<Filter>,
    },
    /// It does not any more.
    Unsubscribe {
        /// The name of the channel.
        channel: String,
    },
    /// The origin wants to hear no more; the client stays, with its channels.
    Detach,
    /// Something is known of the client from now on; an empty value: not any more.
    SetMeta {
        /// Its name.
        name: String,
        /// What it is.
        value: String,
    },
    /// The client is sent something when it is quiet; `None`: nothing any more.
    KeepAlive(Option<KeepAlive>),
    /// The client is sent something after a while, unless the origin has it sent before.
    SendDelayed(Delayed),
    /// What is delayed is sent now.
    FlushDelayed,
    /// Connections with the same id are of one client.
    Session {
        /// The id; `None`: of none.
        id: Option<String>,
    },
}

/// What keeps a quiet WebSocket alive.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeepAlive {
    /// What is sent.
    pub message: Message,
    /// After how long. Default 55 s, at least 1 s.
    pub timeout: Duration,
    /// When.
    pub mode: KeepAliveMode,
}

/// Something for later.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delayed {
    /// What is sent.
    pub message: Message,
    /// After how long. Default 55 s.
    pub timeout: Duration,
}

/// What is sent to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// As what.
    pub kind: WsKind,
    /// The content.
    pub content: Bytes,
}

/// The extension, as both sides have agreed on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    prefix: String,
}

/// For whom an event of an origin is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sorted {
    /// For the client; this is what it gets.
    Message(Event),
    /// For the gateway.
    Control(Bytes),
    /// It begins with neither, and nobody gets it.
    Neither,
}

impl Extension {
    /// What an origin has answered to the offer of it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn answered(headers: &HeaderMap) -> Result<Option<Self>, Malformed> {
        let wrong = |problem| Malformed::new("Sec-WebSocket-Extensions", problem);
        for value in headers.get_all(SEC_WEBSOCKET_EXTENSIONS) {
            let text = std::str::from_utf8(value.as_bytes()).map_err(|_| wrong(Problem::Utf8))?;
            for element in fields::list(text).map_err(wrong)? {
                if element.first.eq_ignore_ascii_case("grip") {
                    let prefix = element.parameter("message-prefix").unwrap_or(MESSAGE_PREFIX).to_owned();
                    let is_long = prefix.len() > MAX_PREFIX_BYTES;
                    return if is_long {
                        Err(wrong(Problem::TooLong(MAX_PREFIX_BYTES)))
                    } else {
                        Ok(Some(Self { prefix }))
                    };
                }
            }
        }
        Ok(None)
    }

    /// For whom an event is.
    pub fn sort(&self, event: Event) -> Sorted {
        match event {
            Event::Text(content) if content.starts_with(PREFIX.as_bytes()) => {
                Sorted::Control(content.slice(PREFIX.len()..))
            }
            Event::Text(content) if content.starts_with(self.prefix.as_bytes()) => {
                Sorted::Message(Event::Text(content.slice(self.prefix.len()..)))
            }
            Event::Binary(content) if content.starts_with(self.prefix.as_bytes()) => {
                Sorted::Message(Event::Binary(content.slice(self.prefix.len()..)))
            }
            Event::Text(_) | Event::Binary(_) => Sorted::Neither,
            other => Sorted::Message(other),
        }
    }
}

impl Control {
    /// Reads what stands behind `c:`.
    ///
    /// # Errors
    /// It is none of these.
    pub fn parse(text: &[u8]) -> Result<Self, Malformed> {
        let object = Object::read(text).map_err(|error| error.below("control"))?;
        read(&object).map_err(|error| error.below("control"))
    }
}

fn read(object: &Object<'_>) -> Result<Control, Malformed> {
    let kind = object.needed_text("type")?;
    Ok(match kind.as_str() {
        "subscribe" => Control::Subscribe { channel: channel(object)?, filters: filters(object)? },
        "unsubscribe" => Control::Unsubscribe { channel: channel(object)? },
        "detach" => Control::Detach,
        "set-meta" => {
            let name = object.needed_text("name")?;
            let value = object.text("value")?.unwrap_or_default();
            if name.len() + value.len() > MAX_META_BYTES {
                return Err(Malformed::new("value", Problem::TooLong(MAX_META_BYTES)));
            }
            Control::SetMeta { name, value }
        }
        "keep-alive" => Control::KeepAlive(keep_alive(object)?),
        "send-delayed" => {
            let message = message(object)?.ok_or_else(|| json::missing("content"))?;
            let timeout = object.number("timeout")?.map_or(DEFAULT_TIMEOUT, lasting);
            Control::SendDelayed(Delayed { message, timeout })
        }
        "flush-delayed" => Control::FlushDelayed,
        "session" => Control::Session { id: object.text("id")?.filter(|id| !id.is_empty()) },
        other => return Err(Malformed::new("type", Problem::Unknown(json::shortened(other)))),
    })
}

fn channel(object: &Object<'_>) -> Result<String, Malformed> {
    let channel = object.needed_text("channel")?;
    if channel.starts_with('$') || channel.contains('\0') {
        return Err(Malformed::new("channel", Problem::Channel(json::shortened(&channel))));
    }
    Ok(channel)
}

fn filters(object: &Object<'_>) -> Result<Vec<Filter>, Malformed> {
    let names = object.texts("filters")?.unwrap_or_default();
    if names.len() > MAX_FILTERS {
        return Err(Malformed::new("filters", Problem::TooMany(MAX_FILTERS)));
    }
    let read = |name: &String| {
        let unknown = || Malformed::new("filters", Problem::Unknown(json::shortened(name)));
        Filter::parse(name).ok_or_else(unknown)
    };
    names.iter().map(read).collect()
}

fn message(object: &Object<'_>) -> Result<Option<Message>, Malformed> {
    let Some(content) = object.content("content-bin", "content")? else { return Ok(None) };
    let kind = match object.text("message-type")? {
        None => WsKind::Text,
        Some(name) => {
            let unknown = || Malformed::new("message-type", Problem::Unknown(json::shortened(&name)));
            WsKind::parse(&name).ok_or_else(unknown)?
        }
    };
    match kind {
        WsKind::Text if std::str::from_utf8(&content).is_err() => {
            Err(Malformed::new("content-bin", Problem::Utf8))
        }
        WsKind::Ping | WsKind::Pong if content.len() > 125 => {
            Err(Malformed::new("content", Problem::TooLong(125)))
        }
        kind => Ok(Some(Message { kind, content })),
    }
}

fn keep_alive(object: &Object<'_>) -> Result<Option<KeepAlive>, Malformed> {
    let Some(message) = message(object)? else { return Ok(None) };
    let mode = object.text("mode")?;
    let mode = mode.as_deref().map_or(Ok(KeepAliveMode::Idle), KeepAliveMode::parse);
    let mode = mode.map_err(|problem| Malformed::new("mode", problem))?;
    let timeout = object.number("timeout")?.map_or(DEFAULT_TIMEOUT, lasting);
    Ok(Some(KeepAlive { message, timeout: timeout.max(Duration::from_secs(1)), mode }))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn control(text: &str) -> Result<Control, String> {
        Control::parse(text.as_bytes()).map_err(|error| error.to_string())
    }

    fn extension(text: &'static str) -> Option<Extension> {
        let mut headers = HeaderMap::new();
        headers.insert(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static(text));
        Extension::answered(&headers).unwrap()
    }

    #[test]
    fn an_extension_has_a_prefix() {
        let prefix = |text| extension(text).map(|extension| extension.prefix);
        assert_eq!(prefix("grip").as_deref(), Some("m:"));
        assert_eq!(prefix(r#"x; y=1, GRIP; message-prefix="d;""#).as_deref(), Some("d;"));
        assert_eq!(prefix(r#"grip; message-prefix="""#).as_deref(), Some(""));
        assert_eq!(prefix("permessage-deflate"), None);
        assert_eq!(Extension::answered(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn messages_and_control_are_told_apart() {
        let grip = extension("grip").unwrap();
        let text = |text: &'static str| Event::Text(text.into());
        assert_eq!(grip.sort(text("m:hello")), Sorted::Message(text("hello")));
        assert_eq!(grip.sort(text("m:")), Sorted::Message(text("")));
        assert_eq!(grip.sort(text("c:{}")), Sorted::Control("{}".into()));
        assert_eq!(grip.sort(text("hello")), Sorted::Neither);
        let binary = |bytes: &'static str| Event::Binary(bytes.into());
        assert_eq!(grip.sort(binary("m:x")), Sorted::Message(binary("x")));
        assert_eq!(grip.sort(binary("c:x")), Sorted::Neither);
        assert_eq!(grip.sort(Event::Ping("a".into())), Sorted::Message(Event::Ping("a".into())));
        let all = extension(r#"grip; message-prefix="""#).unwrap();
        assert_eq!(all.sort(text("hello")), Sorted::Message(text("hello")));
        assert_eq!(all.sort(text("c:x")), Sorted::Control("x".into()));
    }

    #[test]
    fn every_control_is_read() {
        let subscribe = control(r#"{"type":"subscribe","channel":"a","filters":["skip-self"]}"#);
        let filters = vec![Filter::SkipSelf];
        assert_eq!(subscribe, Ok(Control::Subscribe { channel: "a".into(), filters }));
        let unsubscribe = Control::Unsubscribe { channel: "a".into() };
        assert_eq!(control(r#"{"type":"unsubscribe","channel":"a"}"#), Ok(unsubscribe));
        assert_eq!(control(r#"{"type":"detach"}"#), Ok(Control::Detach));
        let set = |value: &str| Control::SetMeta { name: "user".into(), value: value.into() };
        assert_eq!(control(r#"{"type":"set-meta","name":"user","value":"ann"}"#), Ok(set("ann")));
        assert_eq!(control(r#"{"type":"set-meta","name":"user"}"#), Ok(set("")));
        let message = |kind, content: &'static str| Message { kind, content: content.into() };
        let kept = KeepAlive {
            message: message(WsKind::Ping, ""),
            timeout: Duration::from_secs(1),
            mode: KeepAliveMode::Interval,
        };
        let text =
            r#"{"type":"keep-alive","content":"","message-type":"ping","timeout":0,"mode":"interval"}"#;
        assert_eq!(control(text), Ok(Control::KeepAlive(Some(kept))));
        assert_eq!(control(r#"{"type":"keep-alive"}"#), Ok(Control::KeepAlive(None)));
        let delayed = Delayed { message: message(WsKind::Text, "hi"), timeout: Duration::from_secs(55) };
        let text = r#"{"type":"send-delayed","content-bin":"aGk="}"#;
        assert_eq!(control(text), Ok(Control::SendDelayed(delayed)));
        assert_eq!(control(r#"{"type":"flush-delayed"}"#), Ok(Control::FlushDelayed));
        let session = Control::Session { id: Some("s".into()) };
        assert_eq!(control(r#"{"type":"session","id":"s"}"#), Ok(session));
        assert_eq!(control(r#"{"type":"session"}"#), Ok(Control::Session { id: None }));
    }

    #[test]
    fn what_is_malformed_is_named() {
        for (text, why) in [
            ("[]", "control: is not an object"),
            ("{}", "control.type: is missing"),
            (r#"{"type":"dance"}"#, r#"control.type: "dance" is not known"#),
            (r#"{"type":"subscribe"}"#, "control.channel: is missing"),
            (r#"{"type":"subscribe","channel":""}"#, "control.channel: is empty"),
            (
                r#"{"type":"subscribe","channel":"$x"}"#,
                r#"control.channel: "$x" is not a name of a channel here"#,
            ),
            (r#"{"type":"subscribe","channel":"a","filters":["x"]}"#, r#"control.filters: "x" is not known"#),
            (r#"{"type":"set-meta","value":"x"}"#, "control.name: is missing"),
            (r#"{"type":"send-delayed"}"#, "control.content: is missing"),
            (
                r#"{"type":"keep-alive","content":"","message-type":"gif"}"#,
                r#"control.message-type: "gif" is not known"#,
            ),
            (r#"{"type":"keep-alive","content":"","mode":"x"}"#, r#"control.mode: "x" is not known"#),
            (
                r#"{"type":"keep-alive","content":"","timeout":"x"}"#,
                r#"control.timeout: "\"x\"" is not a number"#,
            ),
            (r#"{"type":"keep-alive","content-bin":"/w=="}"#, "control.content-bin: is not UTF-8"),
        ] {
            assert_eq!(control(text), Err(why.to_owned()), "{text}");
        }
        assert!(control("x").unwrap_err().starts_with("control: is not JSON"));
    }
}
