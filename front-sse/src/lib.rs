//! Server-Sent Events: `GET /sse/{filter…}` is a stream of what is published.
//!
//! A stream is one subscriber of the broker. All streams of one format share one stateless `Deliver`, and each message
//! is encoded once per format. On the broker's own listener the TcpStream is taken back from hyper, so that an idle
//! stream costs a socket, a small task and an outbox; over HTTP/2, TLS or in an embedding service's router the same
//! task writes into the response body instead.
//!
//! ```text
//! request ─▶ codec::request ─▶ Front::handle ─▶ subscriber ─┬─ Takeover ─▶ Link on the socket
//!                                                           └─ pipe ─────▶ Link on the response body
//! message ─▶ protocol::Events ─▶ codec::event ─▶ outbox ─▶ Link
//! ```
//!
//! ```
//! use std::sync::Arc;
//! use broker_core::{AllowAll, Broker};
//! use http_body::Body as _;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let broker = Broker::new(broker_core::Config::default());
//! let front = front_sse::Front::new(broker, Arc::new(AllowAll), front_sse::Config::default());
//! let request = http::Request::get("/sse/chat/room1").body(http_edge::Body::empty()).unwrap();
//! let response = front.handle(request).await;
//! assert_eq!(response.headers()["content-type"], "text/event-stream");
//! # }
//! ```
//!
//! # Slow or vanished readers
//! A stream whose outbox is full, or whose socket took nothing for ten seconds, is closed: the client reconnects with
//! its last id and is told if that is gone. Nothing is ever dropped from a stream that stays open.

mod codec;
mod config;
mod error;
mod front;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod protocol;
mod served;
#[cfg(feature = "settings")]
mod settings;
mod stats;
mod transport;

pub use config::{Config, Format};
pub use front::Front;
#[cfg(feature = "settings")]
pub use settings::Sse as Settings;
pub use stats::Stats;
