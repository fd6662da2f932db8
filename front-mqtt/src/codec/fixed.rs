//! The fixed header (MQTT 5.0 §2.1): type, flags, remaining length.

use super::{DecodeError, Reason, Version};

/// The largest remaining length four bytes can say, in bytes.
pub const MAX_REMAINING: u32 = 268_435_455;

/// The packet types a client may send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(missing_docs, reason = "the names are the standard's")]
pub enum PacketType {
    Connect,
    Publish,
    PubAck,
    PubRec,
    PubRel,
    PubComp,
    Subscribe,
    Unsubscribe,
    PingReq,
    Disconnect,
    Auth,
}

/// A fixed header that was accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Frame {
    /// The packet's type.
    pub kind: PacketType,
    /// The low four bits of the first byte; only PUBLISH has a choice.
    pub flags: u8,
    /// Bytes of the fixed header: 2 to 5.
    pub header: usize,
    /// Bytes after it: the remaining length.
    pub body: usize,
}

impl Frame {
    /// Bytes of the whole packet.
    pub fn total(&self) -> usize {
        self.header + self.body
    }
}

/// Reads a fixed header from the start of `input`. `None`: more bytes are needed to say anything.
///
/// `version` is `None` until CONNECT was seen; then nothing but CONNECT passes. The caller waits until
/// [`Frame::total`] bytes are there before it parses the body.
///
/// # Errors
/// Decided as early as the bytes allow: a wrong type or flag by the first byte, an over-long length by
/// its fourth byte, a packet larger than `max_packet_bytes` before any of its body was read.
pub fn split(
    input: &[u8],
    version: Option<Version>,
    max_packet_bytes: usize,
) -> Result<Option<Frame>, DecodeError> {
    let Some((&first, rest)) = input.split_first() else { return Ok(None) };
    let kind = kind(first, version)?;
    let mut value = 0usize;
    for (index, shift) in [0u32, 7, 14, 21].into_iter().enumerate() {
        let Some(&byte) = rest.get(index) else { return Ok(None) };
        value |= usize::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            let frame = Frame { kind, flags: first & 0x0F, header: index + 2, body: value };
            check_size(&frame, version, max_packet_bytes)?;
            return Ok(Some(frame));
        }
    }
    Err(DecodeError::malformed("remaining length is longer than four bytes"))
}

fn kind(first: u8, version: Option<Version>) -> Result<PacketType, DecodeError> {
    let flags = first & 0x0F;
    let (kind, wanted) = match first >> 4 {
        1 => (PacketType::Connect, 0),
        3 => (PacketType::Publish, flags),
        4 => (PacketType::PubAck, 0),
        5 => (PacketType::PubRec, 0),
        6 => (PacketType::PubRel, 2),
        7 => (PacketType::PubComp, 0),
        8 => (PacketType::Subscribe, 2),
        10 => (PacketType::Unsubscribe, 2),
        12 => (PacketType::PingReq, 0),
        14 => (PacketType::Disconnect, 0),
        15 if version != Some(Version::V31) && version != Some(Version::V311) => (PacketType::Auth, 0),
        0 | 15 => return Err(DecodeError::malformed("packet type is reserved")),
        _ => return Err(DecodeError::protocol("packet type is only sent by servers")),
    };
    if version.is_none() && kind != PacketType::Connect {
        return Err(DecodeError::protocol("the first packet must be CONNECT"));
    }
    if flags != wanted {
        // Version 3.1 had the DUP and QoS bits on these types; its clients set them when they repeat one.
        let lenient = version == Some(Version::V31)
            && matches!(kind, PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe)
            && flags & 0b0111 == 2;
        if !lenient {
            return Err(DecodeError::malformed("reserved flag bits of the fixed header are set"));
        }
    }
    Ok(kind)
}

fn check_size(frame: &Frame, version: Option<Version>, max_packet_bytes: usize) -> Result<(), DecodeError> {
    if frame.total() > max_packet_bytes {
        return Err(DecodeError::new(
            Reason::PacketTooLarge,
            "packet is larger than the maximum packet size",
        ));
    }
    let v3 = matches!(version, Some(Version::V31 | Version::V311));
    let exact = match frame.kind {
        PacketType::PingReq => Some(0),
        PacketType::Disconnect if v3 => Some(0),
        PacketType::PubAck | PacketType::PubRec | PacketType::PubRel | PacketType::PubComp if v3 => Some(2),
        _ => None,
    };
    match exact {
        Some(bytes) if bytes != frame.body => {
            Err(DecodeError::malformed("remaining length is wrong for this packet"))
        }
        _ => Ok(()),
    }
}
