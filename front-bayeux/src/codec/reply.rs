//! What the server answers (Bayeux 1.0, "Bayeux Message", "Advice").

use bytes::{BufMut, Bytes};
use websocket::encode::{MAX_HEADER_BYTES, Rsv1, TEXT, put_header};

use super::object::Object;

/// How a client shall go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reconnect {
    Retry,
    Handshake,
    None,
}

/// Times in milliseconds, as on the wire; what is `None` is not sent. `protocol/advice.rs` says which when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Advice {
    pub(crate) reconnect: Reconnect,
    pub(crate) interval_ms: Option<i64>,
    pub(crate) timeout_ms: Option<i64>,
    pub(crate) max_interval_ms: Option<i64>,
    pub(crate) multiple_clients: bool,
}

impl Advice {
    fn put(&self, object: &mut Object<'_>) {
        let reconnect = match self.reconnect {
            Reconnect::Retry => "retry",
            Reconnect::Handshake => "handshake",
            Reconnect::None => "none",
        };
        object.text("reconnect", reconnect);
        for (name, value) in [
            ("interval", self.interval_ms),
            ("timeout", self.timeout_ms),
            ("maxInterval", self.max_interval_ms),
        ] {
            if let Some(value) = value {
                object.number(name, value);
            }
        }
        if self.multiple_clients {
            object.flag("multiple-clients", true);
        }
    }
}

/// Writes one reply. `error` makes it a failure; `fill` adds what this kind of reply has beyond the
/// common fields.
pub(crate) fn put_reply(out: &mut Vec<u8>, common: &Common<'_>, fill: impl FnOnce(&mut Object<'_>)) {
    let mut object = Object::new(out);
    // A message without a channel is answered without one.
    if let Some(channel) = common.channel {
        object.raw("channel", channel);
    }
    if let Some(id) = common.id {
        object.raw("id", id);
    }
    object.flag("successful", common.error.is_none());
    if let Some(error) = common.error {
        object.text("error", error);
    }
    if let Some(advice) = &common.advice {
        object.object("advice", |object| advice.put(object));
    }
    fill(&mut object);
    if let Some(timestamp) = common.timestamp {
        object.text("timestamp", timestamp);
    }
    object.finish();
}

/// What every reply has.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Common<'a> {
    /// JSON text of the request's channel.
    pub(crate) channel: Option<&'a str>,
    /// JSON text of the request's id.
    pub(crate) id: Option<&'a str>,
    pub(crate) error: Option<&'a str>,
    pub(crate) advice: Option<Advice>,
    pub(crate) timestamp: Option<&'a str>,
}

/// `[`, the objects with commas between, `]`.
pub(crate) fn put_array<'a>(out: &mut impl BufMut, objects: impl IntoIterator<Item = &'a [u8]>) {
    out.put_u8(b'[');
    let mut first = true;
    for object in objects {
        if !std::mem::replace(&mut first, false) {
            out.put_u8(b',');
        }
        out.put_slice(object);
    }
    out.put_u8(b']');
}

/// The length of what [`put_array`] writes.
pub(crate) fn array_bytes<'a>(objects: impl IntoIterator<Item = &'a [u8]>) -> usize {
    let (count, bytes) =
        objects.into_iter().fold((0, 0), |(count, bytes), object| (count + 1, bytes + object.len()));
    bytes + 1 + usize::max(count, 1)
}

/// One text frame with all objects as one array.
pub(crate) fn text_frame<'a>(objects: impl IntoIterator<Item = &'a [u8]> + Clone) -> Bytes {
    let length = array_bytes(objects.clone());
    let mut out = Vec::with_capacity(MAX_HEADER_BYTES + length);
    put_header(&mut out, TEXT, length, Rsv1::Clear);
    put_array(&mut out, objects);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_have_their_fields_in_order() {
        let common = Common {
            channel: Some("\"/meta/connect\""),
            id: Some("7"),
            error: Some("402::session_unknown"),
            advice: Some(Advice {
                reconnect: Reconnect::Handshake,
                interval_ms: Some(0),
                timeout_ms: None,
                max_interval_ms: None,
                multiple_clients: false,
            }),
            timestamp: None,
        };
        let mut out = Vec::new();
        put_reply(&mut out, &common, |object| {
            object.object("ext", |ext| {
                ext.number("ack", 3);
            });
        });
        assert_eq!(
            std::str::from_utf8(&out).unwrap(),
            r#"{"channel":"/meta/connect","id":7,"successful":false,"error":"402::session_unknown","advice":{"reconnect":"handshake","interval":0},"ext":{"ack":3}}"#
        );
    }

    #[test]
    fn arrays_have_the_length_that_was_announced() {
        let cases: [(&[&[u8]], &str); 3] =
            [(&[], "[]"), (&[b"{}"], "[{}]"), (&[b"{}", b"{\"a\":1}"], "[{},{\"a\":1}]")];
        for (objects, expected) in cases {
            let mut out = Vec::new();
            put_array(&mut out, objects.iter().copied());
            assert_eq!(std::str::from_utf8(&out).unwrap(), expected);
            assert_eq!(array_bytes(objects.iter().copied()), expected.len());
            assert_eq!(&text_frame(objects.iter().copied())[2..], expected.as_bytes());
        }
    }
}
