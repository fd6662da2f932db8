use bytes::{Bytes, BytesMut};
use tungstenite::protocol::frame::coding::CloseCode;

use crate::assembler::{Assembler, Incoming, Limits};
use crate::deflate::DeflateParams;
use crate::encode;
use crate::error::Violation;

/// One WebSocket from its first frame to its last: bytes go in, messages come out, and what the protocol itself wants
/// answered comes out as frames. It owns no socket and no clock; [`Pulse`](crate::Pulse) has the times.
///
/// An idle one owns no heap.
///
/// ```
/// use websocket::{Conversation, Limits, Turn};
///
/// let mut conversation = Conversation::of_messages(Limits::default(), None);
/// conversation.input().extend_from_slice(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i', 0x89, 0x80, 0, 0, 0, 0]);
/// assert_eq!(conversation.poll_turn(), Some(Turn::Text("hi".into())));
/// assert_eq!(conversation.poll_turn(), Some(Turn::Answer(websocket::encode::pong(b""))));
/// assert_eq!(conversation.poll_turn(), None);
/// ```
#[derive(Debug)]
pub struct Conversation {
    assembler: Assembler,
    input: BytesMut,
}

/// What comes next in a [`Conversation`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// A whole text message; valid UTF-8.
    Text(Bytes),
    /// A whole binary message, or a part of one in a conversation that is a [stream](Conversation::of_bytes).
    Binary(Bytes),
    /// Send this frame: it answers a ping, and has what that had.
    Answer(Bytes),
    /// A pong, with what the ping had: a sign of life, which usually nobody wants to see.
    Pong(Bytes),
    /// Send this frame, then end the connection: nothing comes after it.
    Last {
        /// The close frame.
        frame: Bytes,
        /// Why it is the last one.
        end: End,
    },
}

/// Why a peer is not heard any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It has closed.
    Left {
        /// `None` if it did not say why.
        code: Option<CloseCode>,
        /// For people; may be empty.
        reason: String,
    },
    /// It broke a rule or a limit.
    Fault(Violation),
}

impl Conversation {
    /// A conversation in whole messages of both kinds. `deflate` is what the handshake negotiated.
    pub fn of_messages(limits: Limits, deflate: Option<DeflateParams>) -> Self {
        Self { assembler: Assembler::new(limits, deflate), input: BytesMut::new() }
    }

    /// A conversation that carries a stream of bytes (MQTT): see [`Assembler::binary_stream`].
    pub fn of_bytes(limits: Limits) -> Self {
        Self { assembler: Assembler::binary_stream(limits, None), input: BytesMut::new() }
    }

    /// Where what was read is appended. It gives its allocation back when it is used up.
    pub fn input(&mut self) -> &mut BytesMut {
        &mut self.input
    }

    /// Takes the next thing out of the input; `None` means that more bytes are needed, or that it is over. Call it
    /// until then. Payloads may share the input's allocation: copy what is kept for long.
    pub fn poll_turn(&mut self) -> Option<Turn> {
        Some(match self.assembler.feed(&mut self.input) {
            Ok(None) => return None,
            Ok(Some(Incoming::Pong(payload))) => Turn::Pong(payload),
            Ok(Some(Incoming::Text(text))) => Turn::Text(text),
            Ok(Some(Incoming::Binary(bytes) | Incoming::BinaryPart(bytes))) => Turn::Binary(bytes),
            Ok(Some(Incoming::Ping(payload))) => Turn::Answer(encode::pong(&payload)),
            Ok(Some(Incoming::Close { code, reason })) => {
                let frame = encode::close(code.unwrap_or(CloseCode::Status), "");
                Turn::Last { frame, end: End::Left { code, reason } }
            }
            Err(fault) => {
                let frame = encode::close(fault.close_code, fault.reason);
                Turn::Last { frame, end: End::Fault(fault) }
            }
        })
    }

    /// What is held of a message, or of a frame, that is not whole yet, in bytes; `None` if none has begun.
    pub fn unfinished_bytes(&self) -> Option<usize> {
        let message = self.assembler.unfinished_bytes();
        (message.is_some() || !self.input.is_empty()).then(|| message.unwrap_or(0) + self.input.len())
    }

    /// Gives up what is not whole and reads nothing more.
    pub fn finish(&mut self) {
        self.assembler.finish();
        self.input = BytesMut::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; 4] = [0; 4];

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[first, 0x80 | length][..], &MASK, payload].concat()
    }

    fn turns(conversation: &mut Conversation, bytes: &[u8]) -> Vec<Turn> {
        conversation.input().extend_from_slice(bytes);
        std::iter::from_fn(|| conversation.poll_turn()).collect()
    }

    #[test]
    fn what_the_protocol_wants_answered_is_answered() {
        let text = |text: &'static str| Turn::Text(text.into());
        let left = |code: Option<CloseCode>, reason: &str| Turn::Last {
            frame: encode::close(code.unwrap_or(CloseCode::Status), ""),
            end: End::Left { code, reason: reason.into() },
        };
        let unmasked = Violation::protocol("client frame without a mask");
        let fault = Turn::Last {
            frame: encode::close(CloseCode::Protocol, unmasked.reason),
            end: End::Fault(unmasked),
        };
        for (bytes, expected) in [
            (frame(0x81, b"a"), vec![text("a")]),
            (frame(0x82, b"a"), vec![Turn::Binary("a".into())]),
            (frame(0x89, b"x"), vec![Turn::Answer(encode::pong(b"x"))]),
            (frame(0x8a, b"x"), vec![Turn::Pong("x".into())]),
            ([frame(0x8a, b""), frame(0x81, b"b")].concat(), vec![Turn::Pong("".into()), text("b")]),
            (frame(0x88, &[3, 232, b'b', b'y', b'e']), vec![left(Some(CloseCode::Normal), "bye")]),
            (frame(0x88, b""), vec![left(None, "")]),
            ([frame(0x88, b""), frame(0x81, b"late")].concat(), vec![left(None, "")]),
            (vec![0x81, 1, b'a'], vec![fault]),
        ] {
            let mut conversation = Conversation::of_messages(Limits::default(), None);
            assert_eq!(turns(&mut conversation, &bytes), expected, "{bytes:x?}");
            assert_eq!(conversation.unfinished_bytes(), None, "{bytes:x?}");
        }
    }

    #[test]
    fn a_stream_has_parts_and_no_text() {
        let mut conversation = Conversation::of_bytes(Limits::default());
        let (begin, rest) = (frame(0x82, b"abcd"), 2);
        let (begin, rest) = begin.split_at(begin.len() - rest);
        assert_eq!(turns(&mut conversation, begin), [Turn::Binary("ab".into())]);
        assert_eq!(turns(&mut conversation, rest), [Turn::Binary("cd".into())]);
        let ended = turns(&mut conversation, &frame(0x81, b"a"));
        let fault = Violation::unsupported("only binary messages are taken here");
        let frame = encode::close(CloseCode::Unsupported, fault.reason);
        assert_eq!(ended, [Turn::Last { frame, end: End::Fault(fault) }]);
    }

    #[test]
    fn what_is_not_whole_is_counted_until_it_is_given_up() {
        let mut conversation = Conversation::of_messages(Limits::default(), None);
        let whole = frame(0x01, b"abcd");
        for (bytes, held) in [(&whole[..1], Some(1)), (&whole[1..7], Some(1)), (&whole[7..], Some(4))] {
            assert_eq!(turns(&mut conversation, bytes), []);
            assert_eq!(conversation.unfinished_bytes(), held, "{bytes:x?}");
        }
        conversation.finish();
        assert_eq!(conversation.unfinished_bytes(), None);
        assert_eq!(turns(&mut conversation, &frame(0x81, b"late")), []);
    }
}
