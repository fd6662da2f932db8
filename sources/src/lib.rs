//! Connections that the broker keeps outward, for backends that live for milliseconds.
//!
//! ```text
//! an event stream, a WebSocket  ──▶ ┐            ┌─ channel, at its pace ─▶ Broker::submit(_once)
//! a page that is asked again    ──▶ ┤ Source ────┤
//! a page that answers when ready ─▶ ┘  │         └─ states, counts ─▶ /v1/sources
//!                                      └ back-off ◀ whatever goes wrong
//! POST /v1/requests ─▶ one request, tried again ─▶ one message on its reply channel
//! ```
//!
//! A [`Source`](Settings) is read as fast as its pace and its channel's store allow: nothing that was read is thrown away.
//! It is connected to again after 1 s, and twice as long after each failure, up to 5 minutes, at a random moment of that
//! time. A server that says five times in a row that there is nothing for us is left alone until somebody resumes it.
//!
//! Where a URL comes over HTTP, its address is judged before each connection ([`gateway::address`]).

mod ask;
mod counted;
mod front;
mod keep;
mod kinds;
mod pace;
mod positions;
mod publish;
mod request;
mod settings;
mod source;
mod sources;
mod state;

pub use front::Front;
pub use request::{RequestError, RequestSettings};
pub use settings::{Kind, Settings, Written, Wrong};
pub use source::Upstream;
pub use sources::{Config, PutError, Sources};
pub use state::{Condition, Phase, State};
