//! MQTT 3.1, 3.1.1 and 5.0 over TCP and WebSocket, on a [`Broker`](broker_core::Broker).
//!
//! The MQTT topic is the channel name as it is. What other protocols publish arrives here at the QoS of the
//! subscription; what is published here reaches them with content type, properties and expiry.
//!
//! ```text
//! TcpStream ─▶ Front::serve_tcp ─┐
//! request ───▶ Front::handle ────┴▶ CONNECT ─▶ task: Link ⇄ protocol::Connection ─▶ Broker
//!                                             lane ─▶ protocol::Session ─▶ outbox
//! ```
//!
//! It leaves to others: listening, TLS, who may do what (the `Authenticator`), where `/mqtt` is.
//!
//! ```no_run
//! use std::sync::Arc;
//! use broker_core::{AllowAll, Broker};
//!
//! # async fn run() -> std::io::Result<()> {
//! let broker = Broker::new(broker_core::Config::default());
//! let mqtt = front_mqtt::Front::new(broker, Arc::new(AllowAll), front_mqtt::Config::default());
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:1883").await?;
//! loop {
//!     let (stream, peer) = listener.accept().await?;
//!     let mqtt = mqtt.clone();
//!     tokio::spawn(async move { mqtt.serve_tcp(stream, peer).await });
//! }
//! # }
//! ```
//!
//! # A slow or vanished client
//! QoS 0 waits in the connection's outbox and its oldest is dropped there. QoS 1 and 2 wait in the session: up to
//! [`Config::max_live_queued_messages`] while the client is connected, then it is disconnected; up to
//! [`Config::max_queued_messages`] while it is away, then the newest is dropped and counted. A client that sends
//! without reading its acknowledgements is not read either.

mod auth;
pub mod codec;
mod config;
mod error;
mod front;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod protocol;
#[cfg(feature = "scram")]
mod scram;
mod served;
#[cfg(feature = "settings")]
mod settings;
mod transport;

pub use auth::{Exchange, Mechanism, Step, Stepping};
pub use config::{ClientIdScope, Config, Denied, DeniedSubscribe, QueuePolicy};
pub use front::{ClientStats, Front, Stats};
#[cfg(feature = "scram")]
pub use scram::{ScramSha256, ScramUser, ScramUsers};
#[cfg(feature = "settings")]
pub use settings::Mqtt as Settings;
pub use transport::{Claim, Nodes};
