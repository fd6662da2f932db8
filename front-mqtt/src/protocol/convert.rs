//! MQTT's words into the core's and back.

use std::time::Duration;

use broker_core::{Channel, ChannelCharacters, ContentType, Message, Properties, Publish};
use bytes::{BufMut, Bytes};

use crate::codec::{
    LastWill, MAX_STRING_BYTES, PublishProperties, id, put_binary, put_string, topic_is_valid,
};

/// Payloads below this are copied out of the read buffer, so that a message never keeps one alive.
const COPY_BELOW_BYTES: usize = 2048;

/// The core's message for a PUBLISH. `packet` is the buffer `payload` lies in, if it may be kept.
pub(crate) fn publish(
    channel: Channel,
    payload: &[u8],
    packet: Option<&Bytes>,
    properties: &PublishProperties<'_>,
) -> Publish {
    let payload = match packet {
        Some(packet) if payload.len() >= COPY_BELOW_BYTES => packet.slice_ref(payload),
        _ => Bytes::copy_from_slice(payload),
    };
    with_properties(Publish::new(channel, payload), properties)
}

/// The core's message for a will.
pub(crate) fn will(channel: Channel, will: &LastWill<'_>) -> Publish {
    with_properties(Publish::new(channel, Bytes::copy_from_slice(will.payload)), &will.properties)
        .qos(will.qos)
        .retain(will.retain)
}

fn with_properties(mut publish: Publish, from: &PublishProperties<'_>) -> Publish {
    if let Some(content_type) = from.content_type {
        publish = publish.content_type(ContentType::new(content_type));
    }
    if let Some(secs) = from.message_expiry_secs {
        publish = publish.ttl(Duration::from_secs(u64::from(secs)));
    }
    let carries = from.has_user
        || from.response_topic.is_some()
        || from.correlation_data.is_some()
        || from.payload_is_utf8.is_some();
    if !carries {
        return publish;
    }
    let mut given = Properties::default();
    given.user = from.raw.user().map(|(name, value)| (name.into(), value.into())).collect();
    given.ext = None;
    given.reply_to = from.response_topic.map(Into::into);
    given.correlation = from.correlation_data.map(Bytes::copy_from_slice);
    given.payload_is_utf8 = from.payload_is_utf8;
    publish.properties(given)
}

/// A message's properties in the wire form of a version 5 PUBLISH, without the length and without what differs between
/// subscribers. The message expiry is what is left of it at `now_ms`. Texts with characters that are not let through
/// are left out, as topics with them are refused: a client that closes its connection over one would do so again and
/// again.
pub(crate) fn message_properties(message: &Message, characters: ChannelCharacters, now_ms: u64) -> Vec<u8> {
    let is_text = |text: &str| is_text(text) && characters.refused_in(text).is_none();
    let mut out = Vec::new();
    let properties = message.properties();
    if let Some(utf8) = properties.and_then(|properties| properties.payload_is_utf8) {
        out.put_slice(&[id::PAYLOAD_FORMAT, u8::from(utf8)]);
    }
    if let Some(left) = message.remaining(now_ms) {
        out.put_u8(id::MESSAGE_EXPIRY);
        // Rounded up: a message that is sent at once carries what its publisher wrote.
        let secs = left.as_millis().div_ceil(1000);
        out.put_u32(u32::try_from(secs).unwrap_or(u32::MAX));
    }
    if let Some(content_type) = message.content_type().filter(|text| is_text(text.as_str())) {
        out.put_u8(id::CONTENT_TYPE);
        put_string(&mut out, content_type.as_str());
    }
    if let Some(properties) = properties {
        if let Some(topic) =
            properties.reply_to.as_deref().filter(|topic| topic_is_valid(topic) && is_text(topic))
        {
            out.put_u8(id::RESPONSE_TOPIC);
            put_string(&mut out, topic);
        }
        if let Some(data) = &properties.correlation {
            out.put_u8(id::CORRELATION_DATA);
            put_binary(&mut out, data);
        }
        for (name, value) in properties.user.iter().filter(|(name, value)| is_text(name) && is_text(value)) {
            out.put_u8(id::USER_PROPERTY);
            put_string(&mut out, name);
            put_string(&mut out, value);
        }
    }
    out
}

/// Whether MQTT can carry it (MQTT 5.0 §1.5.4): other protocols have longer texts, and U+0000 in them.
fn is_text(text: &str) -> bool {
    text.len() <= MAX_STRING_BYTES && !text.as_bytes().contains(&0)
}
