//! GRIP: a backend answers a request with the instruction to hold the client, and publishes to it later.
//!
//! ```text
//! answer of an origin ─▶ instruct   hold, channels, keep-alive, links ─┐
//! POST /publish/ ──────▶ publish    items in all their formats ────────┼─▶ a gateway holds and sends
//!                        sequence   ids seen, what waits for what ─────┤
//!                        filter     what a client gets of it ──────────┘
//! WebSocket over HTTP ─▶ exchange   what is asked when     events    bodies     control   beside messages
//! Grip-Sig, tokens ────▶ signature  signs, verifies       key       keys, GRIP_URL
//! ```
//!
//! Everything is a value or a function of its arguments: time is one, and nothing here has a socket, a clock or a task.
//! It leaves to others: requests and answers, who may publish, where messages are kept.

pub mod control;
mod error;
pub mod events;
pub mod exchange;
mod fields;
pub mod filter;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod instruct;
mod json;
pub mod key;
pub mod link;
mod meta;
pub mod publish;
pub mod sequence;
pub mod signature;

pub use error::{Malformed, Problem};
pub use key::{GripUrl, Key};
pub use meta::Meta;
