//! Packets a server sends, each one buffer ready for the wire, in the shortest form the standard allows.

use broker_core::Qos;
use bytes::{BufMut, Bytes, BytesMut};

use super::property::id;
use super::{Dialect, Framing, Reason, Version};

/// Longest string MQTT can carry, in bytes.
pub const MAX_STRING_BYTES: usize = 65_535;

const CONNACK: u8 = 0x20;
const SUBACK: u8 = 0x90;
const UNSUBACK: u8 = 0xB0;
const DISCONNECT: u8 = 0xE0;
const AUTH: u8 = 0xF0;

/// Bytes of `value` as a variable byte integer.
pub(crate) fn varint_bytes(value: usize) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

pub(crate) fn put_varint(out: &mut impl BufMut, mut value: usize) {
    while value > 0x7F {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

pub(crate) fn put_string(out: &mut impl BufMut, text: &str) {
    put_binary(out, text.as_bytes());
}

/// Strings come from packets, from channel names and from the configuration, none of which can be longer
/// than [`MAX_STRING_BYTES`]; what is longer all the same is cut so that the packet stays well-formed.
pub(crate) fn put_binary(out: &mut impl BufMut, bytes: &[u8]) {
    let bytes = bytes.get(..MAX_STRING_BYTES).unwrap_or(bytes);
    out.put_u16(bytes.len() as u16);
    out.put_slice(bytes);
}

/// A buffer for a packet with `remaining` bytes after the fixed header, which is written already.
fn begin(framing: Framing, first: u8, remaining: usize, extra: usize) -> BytesMut {
    let packet = 1 + varint_bytes(remaining) + remaining;
    let mut out = BytesMut::with_capacity(websocket::encode::MAX_HEADER_BYTES + packet - extra);
    if framing == Framing::WebSocket {
        websocket::encode::put_header(
            &mut out,
            websocket::encode::BINARY,
            packet,
            websocket::encode::Rsv1::Clear,
        );
    }
    out.put_u8(first);
    put_varint(&mut out, remaining);
    out
}

fn whole(framing: Framing, first: u8, body: &[u8]) -> Bytes {
    let mut out = begin(framing, first, body.len(), 0);
    out.put_slice(body);
    out.freeze()
}

fn put_properties(out: &mut Vec<u8>, properties: &[u8]) {
    put_varint(out, properties.len());
    out.extend_from_slice(properties);
}

/// What CONNACK says (MQTT 5.0 §3.2). Everything but `session_present` and `reason` is left out for version 3.
#[derive(Clone, Debug)]
pub struct ConnAck<'a> {
    /// Only with `Success`.
    pub session_present: bool,
    /// Folded into a return code for version 3.
    pub reason: Reason,
    /// Sent if it differs from what the client asked for.
    pub session_expiry_secs: Option<u32>,
    /// Sent unless it is 65,535.
    pub receive_maximum: u16,
    /// Sent unless it is 2.
    pub maximum_qos: Qos,
    /// Sent if false.
    pub retain_available: bool,
    /// Sent if it is `Some`.
    pub maximum_packet_size: Option<u32>,
    /// Sent if the client gave none.
    pub assigned_client_id: Option<&'a str>,
    /// Sent unless it is 0.
    pub topic_alias_maximum: u16,
    /// Sent if there is one.
    pub reason_string: Option<&'a str>,
    /// Sent if it differs from what the client asked for.
    pub server_keep_alive_secs: Option<u16>,
    /// Sent if the client asked for it.
    pub response_information: Option<&'a str>,
    /// Sent if the client used enhanced authentication.
    pub auth_method: Option<&'a str>,
    /// Sent if the mechanism has a last word.
    pub auth_data: Option<&'a [u8]>,
    /// Sent as far as there are any: names and values.
    pub user_properties: [Option<(&'a str, &'a str)>; 2],
}

impl ConnAck<'_> {
    /// A CONNACK that says nothing but `reason`.
    pub fn only(reason: Reason) -> Self {
        Self {
            session_present: false,
            reason,
            session_expiry_secs: None,
            receive_maximum: u16::MAX,
            maximum_qos: Qos::ExactlyOnce,
            retain_available: true,
            maximum_packet_size: None,
            assigned_client_id: None,
            topic_alias_maximum: 0,
            reason_string: None,
            server_keep_alive_secs: None,
            response_information: None,
            auth_method: None,
            auth_data: None,
            user_properties: [None; 2],
        }
    }

    fn properties(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(secs) = self.session_expiry_secs {
            out.put_u8(id::SESSION_EXPIRY);
            out.put_u32(secs);
        }
        if let Some(client_id) = self.assigned_client_id {
            out.put_u8(id::ASSIGNED_CLIENT_ID);
            put_string(&mut out, client_id);
        }
        if let Some(secs) = self.server_keep_alive_secs {
            out.put_u8(id::SERVER_KEEP_ALIVE);
            out.put_u16(secs);
        }
        if let Some(bytes) = self.maximum_packet_size {
            out.put_u8(id::MAXIMUM_PACKET_SIZE);
            out.put_u32(bytes);
        }
        if self.topic_alias_maximum > 0 {
            out.put_u8(id::TOPIC_ALIAS_MAXIMUM);
            out.put_u16(self.topic_alias_maximum);
        }
        if !self.retain_available {
            out.put_slice(&[id::RETAIN_AVAILABLE, 0]);
        }
        if self.receive_maximum < u16::MAX {
            out.put_u8(id::RECEIVE_MAXIMUM);
            out.put_u16(self.receive_maximum);
        }
        if self.maximum_qos < Qos::ExactlyOnce {
            out.put_u8(id::MAXIMUM_QOS);
            out.put_u8(self.maximum_qos as u8);
        }
        let texts = [
            (id::RESPONSE_INFO, self.response_information.map(str::as_bytes)),
            (id::AUTH_METHOD, self.auth_method.map(str::as_bytes)),
            (id::AUTH_DATA, self.auth_data),
            (id::REASON_STRING, self.reason_string.map(str::as_bytes)),
        ];
        for (id, text) in texts {
            if let Some(text) = text {
                out.put_u8(id);
                put_binary(&mut out, text);
            }
        }
        for (name, value) in self.user_properties.into_iter().flatten() {
            out.put_u8(id::USER_PROPERTY);
            put_string(&mut out, name);
            put_string(&mut out, value);
        }
        out
    }
}

/// CONNACK. A reason that version 3 cannot express becomes an empty buffer: there the answer is the close.
pub fn connack(dialect: Dialect, connack: &ConnAck<'_>) -> Bytes {
    // Version 3.1 knows no session present flag: the byte is reserved there.
    let session_present = connack.session_present && dialect.version != Version::V31;
    let mut body = vec![u8::from(session_present)];
    if dialect.version.is_v5() {
        body.push(connack.reason as u8);
        put_properties(&mut body, &connack.properties());
    } else {
        let Some(code) = connack.reason.connack_v3() else { return Bytes::new() };
        body.push(code);
    }
    whole(dialect.framing, CONNACK, &body)
}

/// The four packets of the acknowledgement shape.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(missing_docs, reason = "the names are the standard's")]
#[repr(u8)]
pub enum AckKind {
    PubAck = 0x40,
    PubRec = 0x50,
    PubRel = 0x62,
    PubComp = 0x70,
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP. Version 3 has no reason: an error is acknowledged as if it were none.
pub fn ack(
    dialect: Dialect,
    kind: AckKind,
    packet_id: u16,
    reason: Reason,
    reason_string: Option<&str>,
) -> Bytes {
    let id = packet_id.to_be_bytes();
    if !dialect.version.is_v5() || reason == Reason::Success {
        return whole(dialect.framing, kind as u8, &id);
    }
    let mut body = vec![id[0], id[1], reason as u8];
    put_reason_string(&mut body, reason_string);
    whole(dialect.framing, kind as u8, &body)
}

fn put_reason_string(body: &mut Vec<u8>, reason_string: Option<&str>) {
    if let Some(text) = reason_string {
        let text = text.get(..text.floor_char_boundary(256)).unwrap_or_default();
        // Whoever decides may say anything, and a string with U+0000 is malformed (MQTT 5.0 §1.5.4).
        let text = text.replace('\0', " ");
        put_varint(body, 3 + text.len());
        body.push(id::REASON_STRING);
        put_string(body, &text);
    }
}

/// SUBACK: one code for each filter, in order. A failure is 0x80 for version 3.
pub fn suback(dialect: Dialect, packet_id: u16, reasons: &[Reason], reason_string: Option<&str>) -> Bytes {
    let mut body = Vec::with_capacity(3 + reasons.len());
    body.put_u16(packet_id);
    if dialect.version.is_v5() {
        match reason_string {
            Some(_) => put_reason_string(&mut body, reason_string),
            None => body.push(0),
        }
    }
    for &reason in reasons {
        let failed = reason.is_error() && !dialect.version.is_v5();
        body.push(if failed { 0x80 } else { reason as u8 });
    }
    whole(dialect.framing, SUBACK, &body)
}

/// UNSUBACK: one code for each filter, in order; version 3 has none.
pub fn unsuback(dialect: Dialect, packet_id: u16, reasons: &[Reason]) -> Bytes {
    let mut body = Vec::with_capacity(3 + reasons.len());
    body.put_u16(packet_id);
    if dialect.version.is_v5() {
        body.push(0);
        body.extend(reasons.iter().map(|&reason| reason as u8));
    }
    whole(dialect.framing, UNSUBACK, &body)
}

/// PINGRESP.
pub fn pingresp(framing: Framing) -> Bytes {
    match framing {
        Framing::Raw => Bytes::from_static(&[0xD0, 0]),
        Framing::WebSocket => Bytes::from_static(&[0x82, 2, 0xD0, 0]),
    }
}

/// DISCONNECT; empty for version 3, where a server only closes.
pub fn disconnect(dialect: Dialect, reason: Reason, reason_string: Option<&str>) -> Bytes {
    if !dialect.version.is_v5() {
        return Bytes::new();
    }
    let mut body = Vec::new();
    if reason != Reason::Success || reason_string.is_some() {
        body.push(reason as u8);
        put_reason_string(&mut body, reason_string);
    }
    whole(dialect.framing, DISCONNECT, &body)
}

/// AUTH (MQTT 5.0 §3.15).
pub fn auth(framing: Framing, reason: Reason, method: &str, data: Option<&[u8]>) -> Bytes {
    let mut properties = Vec::new();
    properties.put_u8(id::AUTH_METHOD);
    put_string(&mut properties, method);
    if let Some(data) = data {
        properties.put_u8(id::AUTH_DATA);
        put_binary(&mut properties, data);
    }
    let mut body = vec![reason as u8];
    put_properties(&mut body, &properties);
    whole(framing, AUTH, &body)
}

/// What differs between subscribers in a PUBLISH of one message.
#[derive(Clone, Copy, Debug)]
pub struct PublishHeader<'a> {
    /// The QoS of this delivery.
    pub qos: Qos,
    /// Set on a repeat after a reconnect.
    pub dup: bool,
    /// Set on retained messages, or as published if the subscription says so.
    pub retain: bool,
    /// Left out with QoS 0.
    pub packet_id: u16,
    /// Empty if `topic_alias` is known to the client.
    pub topic: &'a str,
    /// 0 is none.
    pub topic_alias: u16,
    /// Those of all matching subscriptions of this client.
    pub subscription_ids: &'a [u32],
}

impl PublishHeader<'_> {
    /// A QoS 0 delivery with nothing of its own: the same bytes for every such subscriber.
    pub fn plain(topic: &str) -> PublishHeader<'_> {
        PublishHeader {
            qos: Qos::AtMostOnce,
            dup: false,
            retain: false,
            packet_id: 0,
            topic,
            topic_alias: 0,
            subscription_ids: &[],
        }
    }

    fn own_properties_bytes(&self) -> usize {
        let ids: usize = self.subscription_ids.iter().map(|&id| 1 + varint_bytes(id as usize)).sum();
        ids + if self.topic_alias > 0 { 3 } else { 0 }
    }
}

/// A PUBLISH in one or two slices.
#[derive(Debug)]
pub struct EncodedPublish {
    /// Everything up to the payload, or the whole packet.
    pub head: Bytes,
    /// The payload, shared, if it is large enough that copying it would cost more than a second slice.
    pub tail: Option<Bytes>,
    /// Size of the MQTT packet in bytes, the WebSocket header not counted.
    pub packet_bytes: usize,
}

/// Payloads from this size on are shared instead of copied, in bytes.
pub(crate) const SHARE_FROM_BYTES: usize = 2048;

/// PUBLISH. `properties` are those of the message, already in wire form; they are
/// left out for version 3. `None` if the packet would be larger than MQTT can say.
pub fn publish(
    dialect: Dialect,
    header: &PublishHeader<'_>,
    properties: &[u8],
    payload: &Bytes,
    sharing: Sharing,
) -> Option<EncodedPublish> {
    let v5 = dialect.version.is_v5();
    let property_bytes = header.own_properties_bytes() + properties.len();
    let remaining = 2
        + header.topic.len()
        + if header.qos == Qos::AtMostOnce { 0 } else { 2 }
        + if v5 { varint_bytes(property_bytes) + property_bytes } else { 0 }
        + payload.len();
    if remaining > super::MAX_REMAINING as usize || header.topic.len() > MAX_STRING_BYTES {
        return None;
    }
    let shared = sharing == Sharing::Allowed && payload.len() >= SHARE_FROM_BYTES;
    let flags = u8::from(header.dup) << 3 | (header.qos as u8) << 1 | u8::from(header.retain);
    let mut out = begin(dialect.framing, 0x30 | flags, remaining, if shared { payload.len() } else { 0 });
    put_string(&mut out, header.topic);
    if header.qos != Qos::AtMostOnce {
        out.put_u16(header.packet_id);
    }
    if v5 {
        put_varint(&mut out, property_bytes);
        if header.topic_alias > 0 {
            out.put_u8(id::TOPIC_ALIAS);
            out.put_u16(header.topic_alias);
        }
        for &subscription_id in header.subscription_ids {
            out.put_u8(id::SUBSCRIPTION_ID);
            put_varint(&mut out, subscription_id as usize);
        }
        out.put_slice(properties);
    }
    if !shared {
        out.put_slice(payload);
    }
    Some(EncodedPublish {
        head: out.freeze(),
        tail: shared.then(|| payload.clone()),
        packet_bytes: 1 + varint_bytes(remaining) + remaining,
    })
}

/// Whether a PUBLISH may come in two slices.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sharing {
    /// A large payload is a slice of its own.
    Allowed,
    /// One buffer: it will itself be shared by many connections.
    OneBuffer,
}
