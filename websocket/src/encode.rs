//! Frames a server sends: unmasked and unfragmented, each one buffer.

use bytes::{BufMut, Bytes, BytesMut};
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use crate::deflate;

/// Text frame's opcode.
pub const TEXT: OpCode = OpCode::Data(Data::Text);
/// Binary frame's opcode.
pub const BINARY: OpCode = OpCode::Data(Data::Binary);
/// Ping frame's opcode.
pub const PING: OpCode = OpCode::Control(Control::Ping);
/// Pong frame's opcode.
pub const PONG: OpCode = OpCode::Control(Control::Pong);

/// Longest header of an unmasked frame, in bytes.
pub const MAX_HEADER_BYTES: usize = 10;

/// Whether a frame is compressed (RFC 7692's reserved bit 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rsv1 {
    /// Plain payload.
    Clear,
    /// Deflated payload; only after it was negotiated.
    Set,
}

/// A final, unmasked frame of `opcode` around `payload`.
///
/// The caller keeps control frames within 125 bytes; [`pong`] and [`close`] see to it themselves.
pub fn frame(opcode: OpCode, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(MAX_HEADER_BYTES + payload.len());
    put_header(&mut out, opcode, payload.len(), Rsv1::Clear);
    out.put_slice(payload);
    out.freeze()
}

/// The header alone, for a payload that is sent as slices of its own.
pub fn header(opcode: OpCode, payload_bytes: usize, rsv1: Rsv1) -> Bytes {
    let mut out = BytesMut::with_capacity(MAX_HEADER_BYTES);
    put_header(&mut out, opcode, payload_bytes, rsv1);
    out.freeze()
}

/// Appends the header of a final, unmasked frame to `out`.
pub fn put_header(out: &mut impl BufMut, opcode: OpCode, payload_bytes: usize, rsv1: Rsv1) {
    let rsv1 = if rsv1 == Rsv1::Set { 0x40 } else { 0 };
    out.put_u8(0x80 | rsv1 | u8::from(opcode));
    if payload_bytes < 126 {
        out.put_u8(payload_bytes as u8);
    } else if let Ok(short) = u16::try_from(payload_bytes) {
        out.put_u8(126);
        out.put_u16(short);
    } else {
        out.put_u8(127);
        out.put_u64(payload_bytes as u64);
    }
}

/// A compressed text frame, or the plain one where compression would not make it smaller; both are
/// legal once permessage-deflate was negotiated (RFC 7692 §6).
pub fn deflated(payload: &[u8]) -> Bytes {
    deflated_as(TEXT, payload)
}

/// [`deflated`] for either kind of data frame.
pub fn deflated_as(opcode: OpCode, payload: &[u8]) -> Bytes {
    let mut compressed = Vec::with_capacity(payload.len() / 2 + 64);
    if !deflate::deflate(payload, &mut compressed) || compressed.len() >= payload.len() {
        return frame(opcode, payload);
    }
    let mut out = BytesMut::with_capacity(MAX_HEADER_BYTES + compressed.len());
    put_header(&mut out, opcode, compressed.len(), Rsv1::Set);
    out.put_slice(&compressed);
    out.freeze()
}

/// The answer to a ping: the same payload (RFC 6455 §5.5.3).
pub fn pong(ping: &[u8]) -> Bytes {
    frame(PONG, ping.get(..125).unwrap_or(ping))
}

/// A close frame; `reason` is cut at a character so that it fits 123 bytes.
///
/// A code that must not be on the wire (1005, 1006, ...) gives an empty close frame, which is also
/// the right echo of one (RFC 6455 §5.5.1).
pub fn close(code: CloseCode, reason: &str) -> Bytes {
    if !code.is_allowed() {
        return frame(OpCode::Control(Control::Close), &[]);
    }
    let mut end = reason.len().min(123);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut payload = Vec::with_capacity(2 + end);
    payload.extend_from_slice(&u16::from(code).to_be_bytes());
    payload.extend_from_slice(reason.as_bytes().get(..end).unwrap_or_default());
    frame(OpCode::Control(Control::Close), &payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_have_the_shortest_length_form() {
        let cases: [(usize, &[u8]); 6] = [
            (0, &[0x81, 0]),
            (125, &[0x81, 125]),
            (126, &[0x81, 126, 0, 126]),
            (65_535, &[0x81, 126, 0xff, 0xff]),
            (65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
            (1 << 32, &[0x81, 127, 0, 0, 0, 1, 0, 0, 0, 0]),
        ];
        for (length, expected) in cases {
            assert_eq!(&header(TEXT, length, Rsv1::Clear)[..], expected, "{length}");
        }
        assert_eq!(&header(BINARY, 3, Rsv1::Set)[..], [0xc2, 3]);
    }

    #[test]
    fn close_reasons_are_cut_at_a_character() {
        let frame = close(CloseCode::Policy, &"é".repeat(80));
        assert_eq!(frame.len(), 2 + 2 + 122);
        assert!(std::str::from_utf8(&frame[4..]).is_ok());
        assert_eq!(&close(CloseCode::Status, "never sent")[..], [0x88, 0]);
    }

    #[test]
    fn what_does_not_shrink_is_sent_plain() {
        assert_eq!(deflated(b"ab"), frame(TEXT, b"ab"));
        assert_eq!(deflated(&[b'a'; 300])[0], 0xc1);
    }
}
