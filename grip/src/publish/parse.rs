//! A body of a request to publish, as items.

use bytes::Bytes;
use http::StatusCode;
use serde_json::value::RawValue;

use super::{Answer, Body, Elsewhere, HttpResponse, HttpStream, Item, MAX_ITEMS, Patch, WsKind, WsMessage};
use crate::error::{Malformed, Problem};
use crate::json::{self, Object};

/// Longest name or id of an item, in bytes.
const MAX_NAME_BYTES: usize = 65_535;
/// Most filters that a content is meant for.
const MAX_FILTERS: usize = 16;
/// Longest reason of a close (RFC 6455 §5.5.1).
const MAX_REASON_BYTES: usize = 123;

/// Why nothing of a request is published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The body is no `{"items":[…]}`.
    #[error("{0}")]
    Body(Malformed),
    /// One item is wrong, and so none is taken.
    #[error("{}", .cause.clone().below(&format!("items[{index}]")))]
    Item {
        /// Which, from 0.
        index: usize,
        /// What is wrong with it.
        cause: Malformed,
    },
}

/// An item and how it was written.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Listed<'a> {
    /// What it says.
    pub item: Item,
    /// Its text, from which [`item`] makes the same again.
    pub text: &'a str,
}

/// Reads `{"items":[…]}`: all of them or none.
///
/// # Errors
/// [`PublishError`] names the item and the member.
pub fn parse(body: &[u8]) -> Result<Vec<Listed<'_>>, PublishError> {
    let items = Object::read(body)
        .and_then(|object| object.list("items")?.ok_or_else(|| json::missing("items")))
        .map_err(PublishError::Body)?;
    if items.len() > MAX_ITEMS {
        return Err(PublishError::Body(Malformed::new("items", Problem::TooMany(MAX_ITEMS))));
    }
    let read =
        |(index, raw): (usize, &'_ RawValue)| read(raw).map_err(|cause| PublishError::Item { index, cause });
    let texts = items.iter().map(|raw| raw.get());
    let read: Vec<Item> = items.iter().copied().enumerate().map(read).collect::<Result<_, _>>()?;
    Ok(read.into_iter().zip(texts).map(|(item, text)| Listed { item, text }).collect())
}

/// Reads one item by itself.
///
/// # Errors
/// [`Malformed`] names the member.
pub fn item(text: &str) -> Result<Item, Malformed> {
    let raw: &RawValue =
        serde_json::from_str(text).map_err(|error| Malformed::new("", Problem::Json(error.to_string())))?;
    read(raw)
}

/// A text as libraries write it in the strings of an item, without the quotation marks; `None` never, as far as is known.
pub fn escaped(text: &str) -> Option<String> {
    let mut literal = serde_json::to_string(text).ok()?;
    literal.pop();
    Some(literal.split_off(1))
}

fn read(raw: &RawValue) -> Result<Item, Malformed> {
    let object = Object::of(raw)?;
    let channel = object.needed_text("channel")?;
    // Names with `$` are the broker's own.
    if channel.starts_with('$') || channel.contains('\0') {
        return Err(Malformed::new("channel", Problem::Channel(json::shortened(&channel))));
    }
    if channel.len() > MAX_NAME_BYTES {
        return Err(Malformed::new("channel", Problem::TooLong(MAX_NAME_BYTES)));
    }
    let below = object.object("formats")?;
    let (formats, within) = match &below {
        Some(formats) => (formats, "formats."),
        None => (&object, ""),
    };
    let format = |name: &'static str| {
        let found = formats.object(name);
        (found, format!("{within}{name}"))
    };
    let (found, place) = format("http-response");
    let response = found?.map(|object| response(&object)).transpose();
    let response = response.map_err(|error| error.below(&place))?;
    let (found, place) = format("http-stream");
    let stream = found?.map(|object| stream(&object)).transpose();
    let stream = stream.map_err(|error| error.below(&place))?;
    let (found, place) = format("ws-message");
    let message = found?.map(|object| message(&object)).transpose();
    let message = message.map_err(|error| error.below(&place))?;
    let shown = object.object("message")?.map(|object| Elsewhere::read(&object)).transpose();
    let shown = shown.map_err(|error| error.below("message"))?;
    if response.is_none() && stream.is_none() && message.is_none() && shown.is_none() {
        return Err(json::missing("formats"));
    }
    Ok(Item {
        channel,
        id: id(&object, "id")?,
        prev_id: id(&object, "prev-id")?,
        response,
        stream,
        message,
        meta: object.map("meta")?.into_iter().collect(),
        no_seq: object.flag("no-seq")?.unwrap_or(false),
        size: object.number("size")?,
        bridge: object.flag("bridge")?,
        shown,
    })
}

fn id(object: &Object<'_>, name: &'static str) -> Result<Option<String>, Malformed> {
    let id = object.text(name)?.filter(|id| !id.is_empty());
    match id {
        Some(id) if id.len() > MAX_NAME_BYTES => Err(Malformed::new(name, Problem::TooLong(MAX_NAME_BYTES))),
        id => Ok(id),
    }
}

fn filters(object: &Object<'_>) -> Result<Option<Vec<String>>, Malformed> {
    let filters = object.texts("content-filters")?;
    match filters {
        Some(filters) if filters.len() > MAX_FILTERS => {
            Err(Malformed::new("content-filters", Problem::TooMany(MAX_FILTERS)))
        }
        filters => Ok(filters),
    }
}

fn unknown(name: &'static str, value: &str) -> Malformed {
    Malformed::new(name, Problem::Unknown(json::shortened(value)))
}

fn response(object: &Object<'_>) -> Result<HttpResponse, Malformed> {
    match object.text("action")?.as_deref() {
        None | Some("send") => {}
        Some("hint") => return Ok(HttpResponse::Hint),
        Some(other) => return Err(unknown("action", other)),
    }
    let (status, reason) = object.status()?;
    let body = match object.content("body-bin", "body")? {
        Some(body) => Body::Whole(body),
        None => {
            let patch = object.get("body-patch").ok_or_else(|| json::missing("body"))?;
            Body::Patch(Patch::read(patch).map_err(|problem| Malformed::new("body-patch", problem))?)
        }
    };
    Ok(HttpResponse::Send(Answer {
        status: status.unwrap_or(StatusCode::OK),
        reason,
        headers: object.headers()?,
        body,
        filters: filters(object)?,
    }))
}

fn stream(object: &Object<'_>) -> Result<HttpStream, Malformed> {
    match object.text("action")?.as_deref() {
        None | Some("send") => {}
        Some("hint") => return Ok(HttpStream::Hint),
        Some("close") => return Ok(HttpStream::Close),
        Some(other) => return Err(unknown("action", other)),
    }
    let content = object.content("content-bin", "content")?.ok_or_else(|| json::missing("content"))?;
    Ok(HttpStream::Send { content, filters: filters(object)? })
}

fn message(object: &Object<'_>) -> Result<WsMessage, Malformed> {
    match object.text("action")?.as_deref() {
        None | Some("send") => {}
        Some("refresh") => return Ok(WsMessage::Refresh),
        Some("close") => {
            let code = object.number("code")?;
            let wrong = |_| Malformed::new("code", Problem::Number(code.unwrap_or_default().to_string()));
            let code = code.map(u16::try_from).transpose().map_err(wrong)?;
            let reason = object.text("reason")?.unwrap_or_default();
            if reason.len() > MAX_REASON_BYTES {
                return Err(Malformed::new("reason", Problem::TooLong(MAX_REASON_BYTES)));
            }
            return Ok(WsMessage::Close { code, reason });
        }
        Some(other) => return Err(unknown("action", other)),
    }
    let kind = object.text("type")?;
    let kind = kind.map(|kind| WsKind::parse(&kind).ok_or_else(|| unknown("type", &kind))).transpose()?;
    let is_binary = object.get("content-bin").is_some();
    let kind = kind.unwrap_or(if is_binary { WsKind::Binary } else { WsKind::Text });
    let content = match (object.content("content-bin", "content")?, kind) {
        (Some(content), _) => content,
        (None, WsKind::Ping | WsKind::Pong) => Bytes::new(),
        (None, _) => return Err(json::missing("content")),
    };
    if kind == WsKind::Text && std::str::from_utf8(&content).is_err() {
        return Err(Malformed::new("content-bin", Problem::Utf8));
    }
    if matches!(kind, WsKind::Ping | WsKind::Pong) && content.len() > 125 {
        return Err(Malformed::new("content", Problem::TooLong(125)));
    }
    Ok(WsMessage::Send { kind, content, filters: filters(object)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(rest: &str) -> Result<Item, String> {
        let text = format!(r#"{{"channel":"a",{rest}}}"#);
        item(&text).map_err(|error| error.to_string())
    }

    #[test]
    fn all_formats_stand_in_one_item() {
        let body = r#" {"items":[ {"channel":"räume/1","id":"2","prev-id":"1","no-seq":true,"size":12,"bridge":false,
            "meta":{"sender":"ann"},
            "formats":{"http-response":{"code":201,"reason":"Made","headers":{"X":"1"},"body":"r"},
            "http-stream":{"content":"s\n","content-filters":["build-id"]},"ws-message":{"content":"m"},
            "xmpp-stanza":{"content":"<a/>"}}} ]}"#;
        let listed = parse(body.as_bytes()).unwrap();
        let found = &listed[0].item;
        assert_eq!(found.channel, "räume/1");
        assert_eq!((found.id.as_deref(), found.prev_id.as_deref()), (Some("2"), Some("1")));
        assert_eq!((found.no_seq, found.size, found.bridge), (true, Some(12), Some(false)));
        assert_eq!(found.meta.get("sender"), Some("ann"));
        let Some(HttpResponse::Send(answer)) = &found.response else { panic!("{found:?}") };
        assert_eq!((answer.status.as_u16(), answer.reason.as_deref()), (201, Some("Made")));
        assert_eq!(answer.body, Body::Whole("r".into()));
        assert_eq!((answer.headers[0].0.as_str(), answer.headers[0].1.as_bytes()), ("x", &b"1"[..]));
        let filters = Some(vec!["build-id".to_owned()]);
        assert_eq!(found.stream, Some(HttpStream::Send { content: "s\n".into(), filters }));
        let message = WsMessage::Send { kind: WsKind::Text, content: "m".into(), filters: None };
        assert_eq!(found.message, Some(message));
        assert_eq!(item(listed[0].text).as_ref(), Ok(found), "its text makes the same again");
    }

    #[test]
    fn formats_may_stand_at_the_top() {
        let found = one(r#""http-stream":{"content":"x"}"#).unwrap();
        assert!(found.stream.is_some() && found.id.is_none() && !found.no_seq);
        // Where there are both, what stands in `formats` is meant.
        let found = one(r#""http-stream":{"content":"x"},"formats":{"ws-message":{"content":"y"}}"#).unwrap();
        assert!(found.stream.is_none() && found.message.is_some());
    }

    #[test]
    fn actions_need_nothing_else() {
        let found = one(
            r#""http-response":{"action":"hint"},"http-stream":{"action":"close"},"ws-message":{"action":"refresh"}"#,
        )
        .unwrap();
        assert_eq!(found.response, Some(HttpResponse::Hint));
        assert_eq!(found.stream, Some(HttpStream::Close));
        assert_eq!(found.message, Some(WsMessage::Refresh));
        assert_eq!(one(r#""http-stream":{"action":"hint"}"#).unwrap().stream, Some(HttpStream::Hint));
        let close = |rest: &str| one(&format!(r#""ws-message":{{"action":"close"{rest}}}"#)).unwrap().message;
        assert_eq!(close(""), Some(WsMessage::Close { code: None, reason: String::new() }));
        let closed = WsMessage::Close { code: Some(4001), reason: "bye".into() };
        assert_eq!(close(r#","code":4001,"reason":"bye""#), Some(closed));
        let send =
            |name: &str, content: &str| one(&format!(r#""{name}":{{"action":"send",{content}}}"#)).is_ok();
        assert!(send("http-response", r#""body":"""#));
        assert!(send("http-stream", r#""content":"""#) && send("ws-message", r#""content":"""#));
    }

    #[test]
    fn the_kind_of_a_message_follows_its_content() {
        let kind = |rest: &str| match one(&format!(r#""ws-message":{{{rest}}}"#)).unwrap().message {
            Some(WsMessage::Send { kind, content, .. }) => (kind, content),
            other => panic!("{other:?}"),
        };
        assert_eq!(kind(r#""content":"a""#), (WsKind::Text, "a".into()));
        assert_eq!(kind(r#""content-bin":"/w==""#), (WsKind::Binary, vec![0xff].into()));
        assert_eq!(kind(r#""type":"binary","content":"a""#), (WsKind::Binary, "a".into()));
        assert_eq!(kind(r#""type":"text","content-bin":"YQ==""#), (WsKind::Text, "a".into()));
        assert_eq!(kind(r#""type":"ping""#), (WsKind::Ping, Bytes::new()));
        assert_eq!(kind(r#""type":"pong","content":"x""#), (WsKind::Pong, "x".into()));
    }

    #[test]
    fn an_empty_id_is_none() {
        let found = one(r#""id":"","prev-id":null,"ws-message":{"content":"a"}"#).unwrap();
        assert_eq!((found.id, found.prev_id), (None, None));
    }

    #[test]
    fn a_bad_item_is_named_by_index_and_field() {
        let good = r#"{"channel":"a","ws-message":{"content":"x"}}"#;
        for (bad, why) in [
            ("7", "items[1]: is not an object"),
            ("{}", "items[1].channel: is missing"),
            (r#"{"channel":7}"#, "items[1].channel: is not a text"),
            (r#"{"channel":""}"#, "items[1].channel: is empty"),
            (r#"{"channel":"$dead/1"}"#, r#"items[1].channel: "$dead/1" is not a name of a channel here"#),
            (r#"{"channel":"a\u0000"}"#, r#"items[1].channel: "a\0" is not a name of a channel here"#),
            (r#"{"channel":"a"}"#, "items[1].formats: is missing"),
            (r#"{"channel":"a","formats":{}}"#, "items[1].formats: is missing"),
            (r#"{"channel":"a","formats":[]}"#, "items[1].formats: is not an object"),
            (
                r#"{"channel":"a","formats":{"http-stream":{}}}"#,
                "items[1].formats.http-stream.content: is missing",
            ),
            (r#"{"channel":"a","http-stream":"x"}"#, "items[1].http-stream: is not an object"),
            (
                r#"{"channel":"a","http-stream":{"action":"refresh"}}"#,
                r#"items[1].http-stream.action: "refresh" is not known"#,
            ),
            (r#"{"channel":"a","http-response":{}}"#, "items[1].http-response.body: is missing"),
            (
                r#"{"channel":"a","http-response":{"body":"","code":42}}"#,
                r#"items[1].http-response.code: "42" is not a status of an answer"#,
            ),
            (
                r#"{"channel":"a","http-response":{"body-patch":{}}}"#,
                "items[1].http-response.body-patch: is not a list",
            ),
            (
                r#"{"channel":"a","ws-message":{"action":"close","code":65536}}"#,
                r#"items[1].ws-message.code: "65536" is not a number"#,
            ),
            (
                r#"{"channel":"a","ws-message":{"type":"jpeg","content":""}}"#,
                r#"items[1].ws-message.type: "jpeg" is not known"#,
            ),
            (
                r#"{"channel":"a","ws-message":{"type":"text","content-bin":"/w=="}}"#,
                "items[1].ws-message.content-bin: is not UTF-8",
            ),
            (
                r#"{"channel":"a","ws-message":{"content":"","content-filters":[1]}}"#,
                "items[1].ws-message.content-filters[0]: is not a text",
            ),
            (r#"{"channel":"a","ws-message":{"content":""},"id":1}"#, "items[1].id: is not a text"),
            (
                r#"{"channel":"a","ws-message":{"content":""},"meta":{"a":1}}"#,
                "items[1].meta.a: is not a text",
            ),
            (
                r#"{"channel":"a","ws-message":{"content":""},"no-seq":"yes"}"#,
                "items[1].no-seq: is not true or false",
            ),
        ] {
            let body = format!(r#"{{"items":[{good},{bad}]}}"#);
            assert_eq!(parse(body.as_bytes()).unwrap_err().to_string(), why, "{bad}");
        }
        let why = |body: &str| parse(body.as_bytes()).unwrap_err().to_string();
        assert_eq!(why("{}"), "items: is missing");
        assert_eq!(why(r#"{"items":{}}"#), "items: is not a list");
        assert!(why("x").contains("is not JSON"));
        let many = format!(r#"{{"items":[{}]}}"#, vec![good; MAX_ITEMS + 1].join(","));
        assert_eq!(why(&many), "items: more than 10000");
        let long = format!(r#"{{"items":[{{"channel":"{}"}}]}}"#, "a".repeat(65_536));
        assert_eq!(why(&long), "items[0].channel: longer than 65535 bytes");
    }
}
