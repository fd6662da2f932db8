//! Broker messages as Bayeux events (Bayeux 1.0, "Deliver Event message").

use broker_core::{Filter, Message};
use bytes::Bytes;
use envelope::JsonValue;

use super::channel::is_expressible;
use super::object::{Object, put_text};
use super::{replay_id, z85};

/// What goes into events beside channel, data and the publisher's `ext`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventOptions {
    /// A `timestamp` on every message the server sends (the timestamp extension); default false.
    pub timestamp: bool,
    /// Channels whose events carry the offset as `data.event.replayId`, as Salesforce's do; default
    /// none: sessions with the replay extension find the id in `ext.replay`.
    pub replay_in_data: Vec<Filter>,
}

/// One event object, `{"channel":…,"data":…}`; empty if Bayeux cannot express the channel.
///
/// The publisher's `clientId` and `id` never get this far: one is a credential, the other could equal
/// an id that the receiver waits for.
pub(crate) fn object(message: &Message, options: &EventOptions, replay: Replay) -> Bytes {
    if !is_expressible(message.channel()) {
        return Bytes::new();
    }
    let value = envelope::json_value(message);
    let mut out = Vec::with_capacity(64 + message.channel().as_str().len() + message.payload().len());
    out.extend_from_slice(b"{\"channel\":");
    put_channel(&mut out, message.channel().as_str());
    out.extend_from_slice(b",\"data\":");
    let in_data = || options.replay_in_data.iter().any(|filter| filter.matches(message.channel()));
    let id_in_data = message.id().filter(|_| in_data());
    match (&value, id_in_data) {
        (JsonValue::Raw(text), Some(id)) => put_with_replay_id(&mut out, text, replay_id::integer(id)),
        (JsonValue::Raw(text), None) => out.extend_from_slice(text),
        (JsonValue::Text(text), _) => put_text(&mut out, &String::from_utf8_lossy(text)),
        (JsonValue::Base64(bytes), _) => {
            out.extend_from_slice(b"{\"data\":\"");
            z85::encode(bytes, &mut out);
            out.extend_from_slice(b"\",\"last\":true,\"meta\":{}}");
        }
    }
    let replay_id = message.id().filter(|_| replay == Replay::InExt && id_in_data.is_none());
    put_ext(&mut out, message, matches!(value, JsonValue::Base64(_)), replay_id.map(|id| id.to_string()));
    if options.timestamp {
        out.extend_from_slice(b",\"timestamp\":");
        put_text(&mut out, &envelope::timestamp(message.time_ms()));
    }
    out.push(b'}');
    out.into()
}

/// Whether an event says where it stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replay {
    /// Only in `data`, on channels configured that way.
    Plain,
    /// Elsewhere as `ext.replay` too: the session asked for the replay extension.
    InExt,
}

fn put_channel(out: &mut Vec<u8>, channel: &str) {
    let start = out.len();
    put_text(out, channel);
    // The quote first, then the slash that the broker's names lack.
    if let Some(quote) = out.get_mut(start) {
        *quote = b'/';
    }
    out.insert(start, b'"');
}

/// The publisher's `ext` as it was, with what the broker adds in front.
fn put_ext(out: &mut Vec<u8>, message: &Message, binary: bool, replay_id: Option<String>) {
    let ext = message.properties().and_then(|properties| properties.ext.as_deref()).and_then(inner_fields);
    if ext.is_none() && !binary && replay_id.is_none() {
        return;
    }
    out.extend_from_slice(b",\"ext\":");
    let mut object = Object::new(out);
    if binary {
        object.raw("binary", "{}");
    }
    if let Some(id) = replay_id {
        object.text("replay", &id);
    }
    if let Some(fields) = ext {
        object.fields(fields);
    }
    object.finish();
}

/// The text between the braces of an object; `None` if it is empty or no object.
fn inner_fields(ext: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(ext).ok()?.trim();
    let inner = text.strip_prefix('{')?.strip_suffix('}')?;
    (!inner.trim().is_empty()).then_some(inner)
}

/// Salesforce's form: `data.event.replayId` as an integer. Only objects can carry it; the publisher's
/// text is kept around it.
pub(crate) fn put_with_replay_id(out: &mut Vec<u8>, text: &[u8], replay_id: u64) {
    let leading = text.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    let Some([b'{', rest @ ..]) = text.get(leading..) else {
        out.extend_from_slice(text);
        return;
    };
    out.extend_from_slice(format!("{{\"event\":{{\"replayId\":{replay_id}}}").as_bytes());
    if rest.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'}') {
        out.push(b',');
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_get_their_slash_inside_the_string() {
        for (name, expected) in [("a/b", "\"/a/b\""), ("a\"b", "\"/a\\\"b\""), ("grüße", "\"/grüße\"")] {
            let mut out = Vec::new();
            put_channel(&mut out, name);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn replay_ids_go_in_front_of_the_publishers_fields() {
        let cases = [
            ("{\"a\":1}", "{\"event\":{\"replayId\":7},\"a\":1}"),
            (" { } ", "{\"event\":{\"replayId\":7} } "),
            ("[1]", "[1]"),
            ("5", "5"),
        ];
        for (text, expected) in cases {
            let mut out = Vec::new();
            put_with_replay_id(&mut out, text.as_bytes(), 7);
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{text}");
        }
    }
}
