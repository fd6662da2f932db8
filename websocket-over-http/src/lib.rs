//! WebSockets whose other end is an origin that answers short HTTP requests.
//!
//! ```text
//! client ─ handshake ─▶ open ─▶ Origin::ask  OPEN ─▶ 101, or what the origin says instead
//!        ◀─ frames ───▶ conversation ─▶ Origin::ask  TEXT …  one request at a time
//!                          │    ◀── messages, control: subscribe, set-meta, keep-alive …
//! publish ─▶ broker ─▶ frames ─▶ the socket, past the origin
//! ```
//!
//! What is asked when, and what an answer means, is [`grip::exchange`]; here are the socket, the channels, and time. It
//! leaves to others: how an origin is reached ([`Origin`]), which requests come here, and who may publish.
//!
//! # Slow and vanished clients
//!
//! What a client says waits for its origin up to a bound, and then the socket is not read. What it is sent waits in its
//! outbox; one that does not read is closed, never left with a hole. Of a client that vanishes the origin hears
//! `DISCONNECT`.

mod backlog;
mod conversation;
mod delivery;
mod frames;
mod hub;
mod member;
mod open;
mod origin;
mod seal;

pub use backlog::{Backlog, NO_TAG};
pub use frames::{id_of, is_after, item_of, outline_of};
pub use hub::{Hub, Rules, Stats};
pub use open::open;
pub use origin::{Answer, Asking, Failed, Origin, headers_of, owned};
pub use seal::{believe, seal_key, seal_with, sealed, secret};
