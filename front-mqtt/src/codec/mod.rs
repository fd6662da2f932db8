//! Bytes ↔ packets for MQTT 3.1, 3.1.1 and 5.0, pure and without a panicking path.
//!
//! Decoding is two steps. [`split`] looks at the fixed header only and decides from it whether the
//! packet is allowed at all (type, flags, size), so that nothing is buffered for a packet that will be
//! refused. [`parse`] then walks the body once; every string, payload and property set it returns borrows
//! from the input, nothing is copied.
//!
//! Encoding writes the shortest form the standard allows, straight into one buffer, with the WebSocket
//! frame header in front if the connection wants one ([`Framing`]).

mod ack;
mod connect;
mod encode;
mod error;
mod fixed;
mod property;
mod publish;
mod reader;
mod reason;
mod subscribe;
mod topic;

pub use ack::{Ack, Auth, Disconnect};
pub use connect::{Connect, LastWill, shape_of_answer};
pub use encode::{
    AckKind, ConnAck, EncodedPublish, MAX_STRING_BYTES, PublishHeader, Sharing, ack, auth, connack,
    disconnect, pingresp, publish, suback, unsuback,
};
pub use error::DecodeError;
pub use fixed::{Frame, MAX_REMAINING, PacketType, split};
pub use property::{Properties, Property};
pub use publish::{Publish, PublishProperties};
pub use reason::Reason;
pub use subscribe::{FilterOptions, Filters, RetainHandling, Subscribe, TopicFilters, Unsubscribe};
pub use topic::{Share, channel_filter, split_share, topic_is_valid};

#[cfg(any(test, fuzzing))]
pub(crate) use encode::put_varint;
pub(crate) use encode::{put_binary, put_string};
pub(crate) use property::id;

use reader::Reader;

/// The protocol a connection speaks, from the protocol name and level of its CONNECT.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub enum Version {
    /// MQTT 3.1: `MQIsdp`, level 3.
    V31,
    /// MQTT 3.1.1: `MQTT`, level 4.
    V311,
    /// MQTT 5.0: `MQTT`, level 5.
    V5,
}

impl Version {
    /// Whether packets carry properties and reason codes.
    pub fn is_v5(self) -> bool {
        self == Self::V5
    }
}

/// What surrounds each packet on the wire.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Framing {
    /// TCP or TLS: packets follow each other.
    Raw,
    /// Each packet is the payload of one unmasked binary WebSocket frame (RFC 6455 §5.2).
    WebSocket,
}

/// How to write to one connection: version and framing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Dialect {
    /// Shape of the packets.
    pub version: Version,
    /// Shape around the packets.
    pub framing: Framing,
}

/// A packet a client may send. Borrows from the bytes it was parsed from.
#[derive(Debug, PartialEq)]
pub enum Packet<'a> {
    /// MQTT 5.0 §3.1.
    Connect(Box<Connect<'a>>),
    /// MQTT 5.0 §3.3.
    Publish(Publish<'a>),
    /// MQTT 5.0 §3.4.
    PubAck(Ack),
    /// MQTT 5.0 §3.5.
    PubRec(Ack),
    /// MQTT 5.0 §3.6.
    PubRel(Ack),
    /// MQTT 5.0 §3.7.
    PubComp(Ack),
    /// MQTT 5.0 §3.8.
    Subscribe(Subscribe<'a>),
    /// MQTT 5.0 §3.10.
    Unsubscribe(Unsubscribe<'a>),
    /// MQTT 5.0 §3.12.
    PingReq,
    /// MQTT 5.0 §3.14.
    Disconnect(Disconnect),
    /// MQTT 5.0 §3.15; never parsed for version 3.
    Auth(Auth<'a>),
}

/// Parses the body of a packet whose fixed header is `frame`.
///
/// `version` is the connection's; for CONNECT, which announces it, the argument is not used.
///
/// # Errors
/// A [`DecodeError`] with the reason code MQTT 5.0 names for it, also for version 3 connections, whose only
/// answer is to be closed.
pub fn parse<'a>(frame: &Frame, body: &'a [u8], version: Version) -> Result<Packet<'a>, DecodeError> {
    let mut reader = Reader::new(body);
    let packet = match frame.kind {
        PacketType::Connect => Packet::Connect(Box::new(Connect::parse(&mut reader)?)),
        PacketType::Publish => Packet::Publish(Publish::parse(frame.flags, &mut reader, version)?),
        PacketType::PubAck => Packet::PubAck(Ack::parse(&mut reader, version, ack::PUBACK_REASONS)?),
        PacketType::PubRec => Packet::PubRec(Ack::parse(&mut reader, version, ack::PUBACK_REASONS)?),
        PacketType::PubRel => Packet::PubRel(Ack::parse(&mut reader, version, ack::PUBREL_REASONS)?),
        PacketType::PubComp => Packet::PubComp(Ack::parse(&mut reader, version, ack::PUBREL_REASONS)?),
        PacketType::Subscribe => Packet::Subscribe(Subscribe::parse(&mut reader, version)?),
        PacketType::Unsubscribe => Packet::Unsubscribe(Unsubscribe::parse(&mut reader, version)?),
        PacketType::PingReq => Packet::PingReq,
        PacketType::Disconnect => Packet::Disconnect(Disconnect::parse(&mut reader, version)?),
        PacketType::Auth => Packet::Auth(Auth::parse(&mut reader, version)?),
    };
    reader.finish()?;
    Ok(packet)
}

#[cfg(test)]
mod tests;
