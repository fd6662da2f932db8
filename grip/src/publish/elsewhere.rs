//! What an item is to readers that know nothing of GRIP.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use serde::de::IgnoredAny;

use super::{Answer, Body, HttpResponse, HttpStream, Item, WsKind, WsMessage};
use crate::error::{Malformed, Problem};
use crate::json::{self, Object};

const JSON: &str = "application/json";
const TEXT: &str = "text/plain;charset=utf-8";
const BYTES: &str = "application/octet-stream";

/// A message as others get it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Elsewhere {
    /// Its payload.
    pub payload: Bytes,
    /// What that is.
    pub content_type: String,
    /// The name of the event.
    pub event: Option<String>,
    /// The id that the event had in a stream.
    pub event_id: Option<String>,
}

/// One event of a stream of events (HTML, "Server-sent events").
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its data, lines joined.
    pub data: String,
    /// Its id, if it has one.
    pub id: Option<String>,
}

impl Item {
    /// What readers of the channel get that are no clients of a gateway: what the publisher says they do, else the
    /// content for WebSockets, for streams, or of answers, the first of these that is sent. `None`: the item is not for
    /// them. Whether `bridge` allows it is the caller's question where the item does not say.
    pub fn elsewhere(&self) -> Option<Elsewhere> {
        if self.bridge == Some(false) {
            return None;
        }
        if let Some(shown) = &self.shown {
            return Some(shown.clone());
        }
        if let Some(WsMessage::Send { kind, content, .. }) = &self.message {
            match kind {
                WsKind::Text => return Some(Elsewhere::text(content)),
                WsKind::Binary => return Some(Elsewhere::of(content, BYTES)),
                WsKind::Ping | WsKind::Pong => {}
            }
        }
        if let Some(HttpStream::Send { content, .. }) = &self.stream {
            return Some(Elsewhere::streamed(content));
        }
        match &self.response {
            Some(HttpResponse::Send(answer)) => Elsewhere::answered(answer),
            _ => None,
        }
    }
}

impl Elsewhere {
    fn of(payload: &Bytes, content_type: &str) -> Self {
        let content_type = content_type.to_owned();
        Self { payload: payload.clone(), content_type, event: None, event_id: None }
    }

    /// JSON if it is, or text, or bytes.
    fn text(payload: &Bytes) -> Self {
        let content_type = match std::str::from_utf8(payload) {
            Ok(text) if serde_json::from_str::<IgnoredAny>(text).is_ok() => JSON,
            Ok(_) => TEXT,
            Err(_) => BYTES,
        };
        Self::of(payload, content_type)
    }

    fn streamed(content: &Bytes) -> Self {
        match Event::exactly(content) {
            None => Self::text(content),
            Some(event) => {
                let known = Self::text(&event.data.into());
                Self { event: event.name, event_id: event.id, ..known }
            }
        }
    }

    fn answered(answer: &Answer) -> Option<Self> {
        let Body::Whole(body) = &answer.body else { return None };
        let declared = answer.headers.iter().find(|(name, _)| name == CONTENT_TYPE);
        Some(match declared.and_then(|(_, value)| value.to_str().ok()) {
            Some(declared) => Self::of(body, declared),
            None => Self::text(body),
        })
    }

    /// What a publisher says that others get: `data`, `text` or `base64`, with `content_type` and `event`.
    pub(super) fn read(object: &Object<'_>) -> Result<Self, Malformed> {
        let mut shown = if let Some(data) = object.get("data") {
            Self::of(&Bytes::copy_from_slice(data.get().as_bytes()), JSON)
        } else if object.get("base64").is_some() {
            Self::of(&object.content("base64", "text")?.unwrap_or_default(), BYTES)
        } else {
            let text = object.text("text")?.ok_or_else(|| json::missing("data"))?;
            Self::of(&text.into(), TEXT)
        };
        if let Some(content_type) = object.text("content_type")? {
            if content_type.is_empty() || http::HeaderValue::from_str(&content_type).is_err() {
                let problem = Problem::Header(json::shortened(&content_type));
                return Err(Malformed::new("content_type", problem));
            }
            shown.content_type = content_type;
        }
        shown.event = object.text("event")?.filter(|event| !event.is_empty());
        if let Some(event) = &shown.event
            && event.contains(['\r', '\n', '\0'])
        {
            return Err(Malformed::new("event", Problem::Unknown(json::shortened(event))));
        }
        Ok(shown)
    }
}

impl Event {
    /// What a content says if it is one event, the whole of it and nothing else: no comment, no `retry`, no second event.
    pub fn exactly(content: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(content).ok()?;
        // It ends with an empty line, however lines end.
        let lines = text.replace("\r\n", "\n").replace('\r', "\n");
        let body = lines.strip_suffix("\n\n")?;
        let (mut name, mut id) = (None, None);
        let mut data: Option<String> = None;
        for line in body.split('\n') {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "data" => match &mut data {
                    Some(data) => {
                        data.push('\n');
                        data.push_str(value);
                    }
                    None => data = Some(value.to_owned()),
                },
                "event" => name = Some(value.to_owned()),
                "id" if !value.contains('\0') => id = Some(value.to_owned()),
                _ => return None,
            }
        }
        let some = |text: Option<String>| text.filter(|text| !text.is_empty());
        Some(Self { name: some(name), data: data?, id: some(id) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(formats: &str) -> Option<(String, String, Option<String>)> {
        let item = crate::publish::item(&format!(r#"{{"channel":"a",{formats}}}"#)).unwrap();
        let shown = item.elsewhere()?;
        let payload = String::from_utf8_lossy(&shown.payload).into_owned();
        Some((payload, shown.content_type, shown.event))
    }

    fn is(formats: &str, payload: &str, content_type: &str, event: Option<&str>) {
        let wanted = (payload.to_owned(), content_type.to_owned(), event.map(str::to_owned));
        assert_eq!(shown(formats), Some(wanted), "{formats}");
    }

    #[test]
    fn others_get_the_first_content_that_is_sent() {
        let (ws, stream, response) = (
            r#""ws-message":{"content":"m"}"#,
            r#""http-stream":{"content":"s\n"}"#,
            r#""http-response":{"body":"r"}"#,
        );
        is(&format!("{response},{stream},{ws}"), "m", TEXT, None);
        is(&format!("{response},{stream}"), "s\n", TEXT, None);
        is(response, "r", TEXT, None);
        is(&format!(r#"{stream},"ws-message":{{"action":"close"}}"#), "s\n", TEXT, None);
        is(&format!(r#"{stream},"ws-message":{{"type":"ping"}}"#), "s\n", TEXT, None);
        is(&format!(r#"{response},"http-stream":{{"action":"hint"}}"#), "r", TEXT, None);
    }

    #[test]
    fn what_is_not_sent_is_nothing_to_others() {
        assert_eq!(shown(r#""http-stream":{"action":"hint"},"ws-message":{"action":"refresh"}"#), None);
        assert_eq!(shown(r#""http-response":{"body-patch":[]}"#), None);
        assert_eq!(shown(r#""ws-message":{"content":"m"},"bridge":false"#), None);
        assert_eq!(shown(r#""message":{"data":1},"bridge":false"#), None);
        is(r#""ws-message":{"content":"m"},"bridge":true"#, "m", TEXT, None);
    }

    #[test]
    fn a_content_is_json_if_it_is_valid() {
        is(r#""ws-message":{"content":"{\"a\": 1.0}"}"#, r#"{"a": 1.0}"#, JSON, None);
        is(r#""http-stream":{"content":"{\"a\":1}\n"}"#, "{\"a\":1}\n", JSON, None);
        is(r#""ws-message":{"content-bin":"e30="}"#, "{}", BYTES, None);
        is(r#""http-response":{"body-bin":"e30="}"#, "{}", JSON, None);
        is(
            r#""http-response":{"body":"<a/>","headers":{"content-type":"text/html"}}"#,
            "<a/>",
            "text/html",
            None,
        );
    }

    #[test]
    fn a_publisher_can_say_what_others_get() {
        let ws = r#""ws-message":{"content":"m"}"#;
        is(
            &format!(r#"{ws},"message":{{"data":{{"n": 1.50}},"event":"e"}}"#),
            r#"{"n": 1.50}"#,
            JSON,
            Some("e"),
        );
        is(&format!(r#"{ws},"message":{{"text":"t"}}"#), "t", TEXT, None);
        is(r#""message":{"base64":"aGk=","content_type":"image/png"}"#, "hi", "image/png", None);
        let refused = |text: &str| {
            let text = format!(r#"{{"channel":"a","message":{text}}}"#);
            crate::publish::item(&text).unwrap_err().to_string()
        };
        assert_eq!(refused("{}"), "message.data: is missing");
        assert_eq!(refused(r#"{"base64":"?"}"#), "message.base64: is not base64");
        assert_eq!(refused(r#"{"text":"","event":"a\nb"}"#), r#"message.event: "a\nb" is not known"#);
        assert_eq!(
            refused(r#"{"text":"","content_type":"a\n"}"#),
            r#"message.content_type: "a\n" cannot stand in a header"#
        );
    }

    #[test]
    fn one_event_of_a_stream_becomes_that_event() {
        let stream = |text: &str| format!(r#""http-stream":{{"content":{}}}"#, serde_json::json!(text));
        is(&stream("event: message\ndata: {\"a\":1}\n\n"), r#"{"a":1}"#, JSON, Some("message"));
        is(&stream("id: 7\r\ndata:a\r\ndata: b\r\n\r\n"), "a\nb", TEXT, None);
        let text = format!(r#"{{"channel":"a",{}}}"#, stream("id: 7\ndata: a\n\n"));
        let item = crate::publish::item(&text).unwrap();
        assert_eq!(item.elsewhere().unwrap().event_id.as_deref(), Some("7"));
        // Anything else is a text.
        for text in [
            "data: a\n",
            "data: a\n\ndata: b\n\n",
            "data: a\n\n\n",
            ": comment\ndata: a\n\n",
            "retry: 1\ndata: a\n\n",
            "event: x\n\n",
            "\n\n",
            "{\"data\":1}\n\n",
        ] {
            assert_eq!(Event::exactly(text.as_bytes()), None, "{text:?}");
            assert_eq!(shown(&stream(text)).unwrap().0, text);
        }
    }
}
