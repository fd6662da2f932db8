//! Server-side WebSocket without IO: handshake, assembly, control frames, silence, close codes, deflate.
//!
//! Bytes go in, messages come out; frames to send are plain [`bytes::Bytes`] which any number of
//! connections can share, because a server does not mask. Who owns the socket and what is queued
//! for it is the caller's business.
//!
//! ```text
//! request ─▶ handshake::accept       ─▶ 101
//! bytes   ─▶ Conversation::poll_turn ─▶ Turn::{Text, Binary, Answer, Pong, Last}, of what Assembler::feed finds in them
//! time    ─▶ Pulse::handle_timeout   ─▶ Silence::{Ping, TooLong}
//! payload ─▶ encode::frame           ─▶ one buffer, ready for the wire
//! ```
//!
//! ```
//! use bytes::BytesMut;
//! use websocket::{Assembler, Incoming, Limits};
//!
//! let mut assembler = Assembler::new(Limits::default(), None);
//! let mut input = BytesMut::from(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i'][..]);
//! assert_eq!(assembler.feed(&mut input).unwrap(), Some(Incoming::Text("hi".into())));
//! assert_eq!(assembler.feed(&mut input).unwrap(), None);
//! ```
//!
//! # Memory
//! An idle [`Assembler`] owns no heap. The states of deflate are one per thread, never one per
//! connection, which is possible because neither side may keep a context between messages.

mod assembler;
mod conversation;
pub mod decode;
mod deflate;
pub mod encode;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod handshake;
mod mask;
mod pulse;

pub use assembler::{Assembler, Incoming, Limits};
pub use conversation::{Conversation, End, Turn};
pub use deflate::DeflateParams;
pub use error::Violation;
pub use pulse::{MIN_PING_INTERVAL, Patience, Pulse, Silence};
pub use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};
