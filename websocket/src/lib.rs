//! Server-side WebSocket without IO: handshake, assembly, control frames, close codes, deflate.
//!
//! Bytes go in, messages come out; frames to send are plain [`bytes::Bytes`] which any number of
//! connections can share, because a server does not mask. Who owns the socket and what is queued
//! for it is the caller's business.
//!
//! ```text
//! request ─▶ handshake::accept ─▶ 101
//! bytes   ─▶ Assembler::feed   ─▶ Incoming::{Text, Binary, Ping, Pong, Close} or a Violation
//! payload ─▶ encode::frame     ─▶ one buffer, ready for the wire
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
pub mod decode;
mod deflate;
pub mod encode;
mod error;
pub mod handshake;
mod mask;

pub use assembler::{Assembler, Incoming, Limits};
pub use deflate::DeflateParams;
pub use error::Violation;
pub use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};
