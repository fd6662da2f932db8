//! One payload as one JSON value.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use broker_core::ContentType;
use bytes::Bytes;

use crate::{MAX_DEPTH, is_valid_json};

/// How a payload goes into JSON. Each variant holds the payload as it was published.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum JsonValue {
    /// It is JSON text: to be written as it is.
    Raw(Bytes),
    /// It is other UTF-8 text: to be written as a JSON string.
    Text(Bytes),
    /// It is anything else: to be written as base64.
    Base64(Bytes),
}

/// The shape of a payload under its content type. Scans it at most twice; looks into no JSON deeper than
/// [`MAX_DEPTH`].
pub fn classify(payload: &Bytes, content_type: Option<&ContentType>) -> JsonValue {
    let may_be_json = content_type.is_none_or(ContentType::is_json);
    if may_be_json && is_valid_json(payload, MAX_DEPTH) {
        JsonValue::Raw(payload.clone())
    } else if std::str::from_utf8(payload).is_ok() {
        JsonValue::Text(payload.clone())
    } else {
        JsonValue::Base64(payload.clone())
    }
}

impl JsonValue {
    /// The envelope's member for this shape: `data`, `text` or `base64`.
    pub fn member(&self) -> &'static str {
        match self {
            JsonValue::Raw(_) => "data",
            JsonValue::Text(_) => "text",
            JsonValue::Base64(_) => "base64",
        }
    }

    /// Appends the value as JSON: the text itself, or a string in quotes.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        match self {
            JsonValue::Raw(text) => out.extend_from_slice(text),
            JsonValue::Text(text) => write_string(&String::from_utf8_lossy(text), out),
            JsonValue::Base64(bytes) => {
                out.push(b'"');
                out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
                out.push(b'"');
            }
        }
    }
}

/// Appends `text` as a JSON string in quotes.
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    // Writing to a Vec cannot fail, and every str has a JSON form.
    let _ = serde_json::to_writer(out, text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_json_by_type_and_by_syntax() {
        let types = [
            None,
            Some(ContentType::JSON),
            Some(ContentType::new("application/vnd.x+json; charset=utf-8")),
            Some(ContentType::TEXT),
            Some(ContentType::BYTES),
        ];
        let cases: [(&[u8], [&str; 5]); 5] = [
            (b"{\"a\": 1}", ["data", "data", "data", "text", "text"]),
            (b"hello", ["text"; 5]),
            (b"", ["text"; 5]),
            (b"\xff\x00", ["base64"; 5]),
            (b"1e400", ["data", "data", "data", "text", "text"]),
        ];
        for (payload, members) in cases {
            for (content_type, member) in types.iter().zip(members) {
                let value = classify(&Bytes::from_static(payload), content_type.as_ref());
                assert_eq!(value.member(), member, "{payload:?} as {content_type:?}");
            }
        }
    }

    #[test]
    fn json_is_written_as_it_came_and_text_is_escaped() {
        let cases: [(JsonValue, &str); 4] = [
            (JsonValue::Raw(Bytes::from_static(b" {\"b\":1, \"a\":1e400}")), " {\"b\":1, \"a\":1e400}"),
            (JsonValue::Text(Bytes::from_static("a\"\n\u{0}é".as_bytes())), "\"a\\\"\\n\\u0000é\""),
            (JsonValue::Base64(Bytes::from_static(b"\xff")), "\"/w==\""),
            (JsonValue::Text(Bytes::new()), "\"\""),
        ];
        for (value, expected) in cases {
            let mut out = Vec::new();
            value.write_to(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
