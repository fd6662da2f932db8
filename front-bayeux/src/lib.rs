//! Bayeux (CometD) over long-polling, callback-polling and WebSocket.
//!
//! [`Front::handle`] answers every request below one path; what clients publish goes into the
//! broker's channel space and comes back to whoever is subscribed there in any protocol. The Bayeux
//! channel `/a/b` is the broker channel `a/b`; `/meta/**` is the protocol's own and `/service/**`
//! belongs to handlers of the embedding service.
//!
//! ```text
//! request ─▶ transport ─▶ dispatch ─▶ protocol::Session (sans-IO, behind a small mutex)
//!               ▲             └────▶ broker: subscribe, publish
//!               └── reply, events ◀── Mailbox ◀── lane
//! ```
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use broker_core::{AllowAll, Broker};
//! use front_bayeux::{Config, Front};
//!
//! # async fn example(request: http::Request<http_edge::Body>) {
//! let broker = Broker::new(broker_core::Config::default());
//! let bayeux = Front::new(broker, Arc::new(AllowAll), Config::default());
//! let response = bayeux.handle(request).await;
//! # }
//! ```
//!
//! # Slow or vanished subscribers
//! A session keeps its events while it lives: `interval + max_interval` after its last connect was
//! answered or its socket closed. Its queue is bounded; when it is full the session ends, and its next
//! connect is told `402:queue_full:session_unknown` with the advice to shake hands again. Without the
//! ack extension what was being written when a connection died is lost; with it nothing is.
//!
//! # What it leaves to others
//! Listening and TLS (`http-edge` or any HTTP server), who may do what ([`Policy`], by default the
//! broker's rights), and what is behind `/service/**`.

mod codec;
mod config;
mod dispatch;
mod error;
mod front;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod hooks;
mod protocol;
mod served;
mod sessions;
#[cfg(feature = "settings")]
mod settings;
mod stats;
mod transport;

pub use codec::channel::Grammar;
pub use codec::id::ClientId;
pub use config::{
    Activity, BrowserCookie, Config, EventOptions, Extensions, Lazy, QueueFull, Timing, Transport,
    TransportOptions, WebSocketConfig,
};
pub use error::{Denial, HandshakeDenial};
pub use front::Front;
pub use hooks::authorizers::{Authorizers, Operation, Verdict};
pub use hooks::listener::{Incoming, Listener};
pub use hooks::policy::{ByRights, Handshaken, Policy};
pub use hooks::service::{Handling, ServiceReply, ServiceRequest};
pub use protocol::SessionTiming;
#[cfg(feature = "settings")]
pub use settings::Bayeux as Settings;
pub use stats::Stats;
