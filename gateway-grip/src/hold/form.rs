//! What a message is to a stream. Pure.

use broker_core::{Encoding, Kind, Message, Position};
use bytes::Bytes;
use envelope::{envelope, is_reserved_event, is_valid_json, write_string};
use grip::publish::{HttpResponse, HttpStream, Item};
use http::header::{CONTENT_TYPE, HeaderMap};
use http_edge::{Chunk, event_chunk};
use websocket_over_http::{item_of, outline_of};

/// How deep JSON may be that is written on one line.
const MAX_DEPTH: usize = 128;

/// What a stream holds, and so how messages are written that are no items of GRIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Server-Sent Events; their ids are the origin's.
    Events,
    /// Server-Sent Events with ids of the broker.
    EventsWithIds,
    /// A JSON text on each line.
    Lines,
    /// Anything else: the payload, and a line end.
    Text,
    /// Items alone.
    Items,
}

impl Form {
    pub(crate) const ALL: usize = 5;

    /// By the type of a stream, and whether its origin has said behind which id it begins.
    pub(crate) fn of(headers: &HeaderMap, has_ids: bool) -> Self {
        let declared = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media = declared.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match (&*media, has_ids) {
            ("text/event-stream", true) => Self::Events,
            ("text/event-stream", false) => Self::EventsWithIds,
            ("application/x-ndjson" | "application/json", _) => Self::Lines,
            _ => Self::Text,
        }
    }

    pub(crate) fn index(self) -> usize {
        match self {
            Self::Events => 0,
            Self::EventsWithIds => 1,
            Self::Lines => 2,
            Self::Text => 3,
            Self::Items => 4,
        }
    }

    /// A message as a chunk, where nothing needs to be known of the client; empty if there is nothing to send.
    pub(crate) fn chunk(self, message: &Message, kind: Kind) -> Bytes {
        match item_of(message) {
            None => self.plain(message, kind),
            Some(Item { stream: Some(HttpStream::Send { content, .. }), .. }) => chunk(&content),
            Some(_) => Bytes::new(),
        }
    }

    /// A message that is no item.
    fn plain(self, message: &Message, kind: Kind) -> Bytes {
        let payload = message.payload();
        match self {
            Self::Items => Bytes::new(),
            Self::Events | Self::EventsWithIds => {
                let is_known = self == Self::EventsWithIds && kind != Kind::Direct;
                let id = message.id().filter(|_| is_known).map(Position::from);
                let name = message.event().filter(|name| !is_reserved_event(name));
                match name {
                    Some(name) if name.contains(['\r', '\n']) => Bytes::new(),
                    name if std::str::from_utf8(payload).is_ok() => event_chunk(id, name, payload),
                    _ => event_chunk(id, Some("binary"), &envelope(message)),
                }
            }
            Self::Lines => {
                let mut line = Vec::with_capacity(payload.len() + 1);
                match std::str::from_utf8(payload) {
                    Ok(_) if is_valid_json(payload, MAX_DEPTH) => compact(payload, &mut line),
                    Ok(text) => write_string(text, &mut line),
                    Err(_) => line.extend_from_slice(&envelope(message)),
                }
                line.push(b'\n');
                Chunk::of(&line)
            }
            Self::Text if payload.ends_with(b"\n") => Chunk::of(payload),
            Self::Text => {
                let mut chunk = Chunk::with_capacity(payload.len() + 1);
                chunk.push(payload);
                chunk.push(b"\n");
                chunk.finish()
            }
        }
    }
}

/// A content as a chunk; nothing if it is empty, as that would end the body.
pub(crate) fn chunk(content: &[u8]) -> Bytes {
    if content.is_empty() { Bytes::new() } else { Chunk::of(content) }
}

/// JSON without the space between its parts.
fn compact(json: &[u8], out: &mut Vec<u8>) {
    let (mut is_text, mut is_escaped) = (false, false);
    for byte in json {
        if !is_text && byte.is_ascii_whitespace() {
            continue;
        }
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_text => is_escaped = true,
            b'"' => is_text = !is_text,
            _ => {}
        }
        out.push(*byte);
    }
}

/// What there is to know of a message before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trait {
    /// It is sent as it is.
    Plain,
    /// There is more to it: an action, or a content that is meant for certain filters.
    Special,
    /// It is not for such clients.
    Nothing,
}

/// What a message is to a stream, in the slot of its traits.
pub(crate) fn stream_trait(traits: &[u8]) -> Trait {
    match traits.first() {
        Some(b'p') => Trait::Plain,
        Some(b's') => Trait::Special,
        _ => Trait::Nothing,
    }
}

/// Whether a response that waits may be this message.
pub(crate) fn is_response(traits: &[u8]) -> bool {
    traits.get(1) == Some(&b'y')
}

/// The traits of a message, for their slot.
pub(crate) fn traits(message: &Message) -> Bytes {
    let Some(item) = outline_of(message) else { return Bytes::from_static(b"py") };
    let is_response = matches!(&item.response, Some(HttpResponse::Send(_) | HttpResponse::Hint));
    Bytes::from_static(match (&item.stream, is_response) {
        (None, false) => b"nn",
        (None, true) => b"ny",
        (Some(HttpStream::Send { filters: None, .. }), false) => b"pn",
        (Some(HttpStream::Send { filters: None, .. }), true) => b"py",
        (Some(_), false) => b"sn",
        (Some(_), true) => b"sy",
    })
}

/// Slots for what is made of a message once for all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slots {
    pub(crate) traits: Encoding,
    pub(crate) forms: [Encoding; Form::ALL],
}

#[cfg(test)]
mod tests {
    use broker_core::{Broker, Channel, ContentType, Filter, HistoryQuery, Publish};
    use http::HeaderValue;

    use super::*;

    fn published(publish: Publish) -> std::sync::Arc<Message> {
        let broker = Broker::new(broker_core::Config::default());
        let filter = Filter::literal(publish.channel().clone());
        broker.publish(publish).unwrap();
        broker.history(&filter, HistoryQuery::default()).messages.remove(0)
    }

    fn text(form: Form, payload: impl Into<Bytes>) -> String {
        let message = published(Publish::new(Channel::parse("a").unwrap(), payload));
        let chunk = form.chunk(&message, Kind::Live);
        let (_, rest) = std::str::from_utf8(&chunk).unwrap().split_once("\r\n").unwrap();
        rest.strip_suffix("\r\n").unwrap().to_owned()
    }

    #[tokio::test]
    async fn the_type_of_a_stream_says_how_messages_are_written() {
        let of = |text: &'static str, has_ids| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(text));
            Form::of(&headers, has_ids)
        };
        assert_eq!(of("Text/Event-Stream; charset=utf-8", true), Form::Events);
        assert_eq!(of("text/event-stream", false), Form::EventsWithIds);
        assert_eq!(of("application/x-ndjson", false), Form::Lines);
        assert_eq!(of("application/json", true), Form::Lines);
        assert_eq!(Form::of(&HeaderMap::new(), false), Form::Text);
        assert_eq!(text(Form::Events, "a\nb"), "data: a\ndata: b\n\n");
        let with_id = text(Form::EventsWithIds, "x");
        assert!(with_id.starts_with("id: ") && with_id.ends_with("\ndata: x\n\n"), "{with_id}");
        assert_eq!(
            text(Form::Lines, "{ \"a b\": [1,\n 2], \"c\": \"\\\" d\" }"),
            "{\"a b\":[1,2],\"c\":\"\\\" d\"}\n"
        );
        assert_eq!(text(Form::Lines, "no json"), "\"no json\"\n");
        assert_eq!(text(Form::Text, "x"), "x\n");
        assert_eq!(text(Form::Text, "x\n"), "x\n");
    }

    #[tokio::test]
    async fn a_message_from_elsewhere_is_for_everybody() {
        let message = published(
            Publish::new(Channel::parse("a").unwrap(), "x").content_type(ContentType::new("text/plain")),
        );
        let known = traits(&message);
        assert_eq!((stream_trait(&known), is_response(&known)), (Trait::Plain, true));
    }
}
