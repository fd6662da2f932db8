//! A whole message as one JSON object.

use std::cell::Cell;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use broker_core::{Message, Properties};
use bytes::Bytes;

use crate::{JsonValue, MAX_DEPTH, classify, is_valid_json, write_string};

/// The shape in which a message's payload goes into JSON.
pub fn json_value(message: &Message) -> JsonValue {
    classify(message.payload(), message.content_type())
}

/// The message as
/// `{"channel","id","time","data"|"text"|"base64","event","content_type","properties"}`.
///
/// `id` is `null` for a message that was not recorded; the last three members are there only if the message has them.
/// `properties` holds `user` (pairs, in the publisher's order), `ext` (raw JSON), `reply_to`, `correlation` (base64).
/// It is one line of JSON unless the payload is JSON text with line breaks of its own.
pub fn envelope(message: &Message) -> Bytes {
    let mut out = Vec::with_capacity(128 + message.channel().as_str().len() + message.payload().len());
    out.extend_from_slice(b"{\"channel\":");
    write_string(message.channel().as_str(), &mut out);
    out.extend_from_slice(b",\"id\":");
    match message.id() {
        Some(id) => write_string(&id.to_string(), &mut out),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"time\":");
    write_string(&timestamp(message.time_ms()), &mut out);
    let value = json_value(message);
    out.extend_from_slice(b",\"");
    out.extend_from_slice(value.member().as_bytes());
    out.extend_from_slice(b"\":");
    value.write_to(&mut out);
    if let Some(event) = message.event() {
        out.extend_from_slice(b",\"event\":");
        write_string(event, &mut out);
    }
    if let Some(content_type) = message.content_type() {
        out.extend_from_slice(b",\"content_type\":");
        write_string(content_type.as_str(), &mut out);
    }
    if let Some(properties) = message.properties() {
        write_properties(properties, &mut out);
    }
    out.push(b'}');
    out.into()
}

fn write_properties(properties: &Properties, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(b",\"properties\":{");
    let empty = out.len();
    let comma = |out: &mut Vec<u8>| {
        if out.len() > empty {
            out.push(b',');
        }
    };
    if !properties.user.is_empty() {
        out.extend_from_slice(b"\"user\":[");
        for (at, (name, value)) in properties.user.iter().enumerate() {
            out.extend_from_slice(if at == 0 { b"[" } else { b",[" });
            write_string(name, out);
            out.push(b',');
            write_string(value, out);
            out.push(b']');
        }
        out.push(b']');
    }
    if let Some(ext) = &properties.ext
        && is_valid_json(ext, MAX_DEPTH)
    {
        comma(out);
        out.extend_from_slice(b"\"ext\":");
        out.extend_from_slice(ext);
    }
    if let Some(reply_to) = &properties.reply_to {
        comma(out);
        out.extend_from_slice(b"\"reply_to\":");
        write_string(reply_to, out);
    }
    if let Some(correlation) = &properties.correlation {
        comma(out);
        out.extend_from_slice(b"\"correlation\":");
        write_string(&STANDARD.encode(correlation), out);
    }
    if out.len() == empty {
        out.truncate(start);
    } else {
        out.push(b'}');
    }
}

/// Milliseconds since 1970 as RFC 3339 in UTC with three digits, e.g. `2026-11-20T20:16:00.000Z`. A time past the
/// year 9999 is shown as that year's end.
pub fn timestamp(time_ms: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_millis(time_ms.min(YEAR_9999_ENDS_MS));
    humantime::format_rfc3339_millis(time).to_string()
}

/// Appends what [`timestamp`] says; it has nothing to escape in JSON. Most times fall into the second of the one
/// before, whose text is kept.
pub fn write_timestamp(time_ms: u64, out: &mut Vec<u8>) {
    thread_local! {
        static LAST: Cell<(u64, [u8; 20])> = const { Cell::new((u64::MAX, [0; 20])) };
    }
    let time_ms = time_ms.min(YEAR_9999_ENDS_MS);
    let (secs, millis) = (time_ms / 1_000, time_ms % 1_000);
    let (known, mut until_dot) = LAST.get();
    if known != secs {
        let text = timestamp(time_ms);
        let Some(start) = text.as_bytes().first_chunk() else { return };
        until_dot = *start;
        LAST.set((secs, until_dot));
    }
    out.extend_from_slice(&until_dot);
    let digit = |value: u64| b'0' + (value % 10) as u8;
    out.extend_from_slice(&[digit(millis / 100), digit(millis / 10), digit(millis), b'Z']);
}

const YEAR_9999_ENDS_MS: u64 = 253_402_300_799_999;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_with_milliseconds() {
        let cases = [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_795_205_760_042, "2026-11-20T20:16:00.042Z"),
            (1_795_205_760_999, "2026-11-20T20:16:00.999Z"),
            (1_795_205_761_000, "2026-11-20T20:16:01.000Z"),
            (u64::MAX, "9999-12-31T23:59:59.999Z"),
        ];
        for (time_ms, expected) in cases {
            assert_eq!(timestamp(time_ms), expected);
            let mut out = Vec::new();
            write_timestamp(time_ms, &mut out);
            assert_eq!(out, expected.as_bytes());
        }
    }

    #[test]
    fn properties_are_written_if_there_are_any() {
        let [mut all, mut no_json, mut one] = [(); 3].map(|()| Properties::default());
        all.user = vec![("a".into(), "1".into()), ("a".into(), "\"".into())];
        all.ext = Some(Bytes::from_static(b"{\"x\": 1.0}"));
        all.reply_to = Some("r/1".into());
        all.correlation = Some(Bytes::from_static(b"\x00"));
        all.payload_is_utf8 = Some(true);
        no_json.ext = Some(Bytes::from_static(b"{oops"));
        one.reply_to = Some("r".into());
        let cases = [
            (Properties::default(), ""),
            (no_json, ""),
            (
                all,
                r#","properties":{"user":[["a","1"],["a","\""]],"ext":{"x": 1.0},"reply_to":"r/1","correlation":"AA=="}"#,
            ),
            (one, r#","properties":{"reply_to":"r"}"#),
        ];
        for (properties, expected) in cases {
            let mut out = Vec::new();
            write_properties(&properties, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
