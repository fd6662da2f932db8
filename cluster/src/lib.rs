//! Several nodes as one broker, over NATS: an [`Engine`](broker_core::Engine) that brings what is published in
//! memory to the nodes that have somebody for it, and has what is to last in a stream of JetStream.
//!
//! ```text
//!  publisher ─▶ broker ─▶ its own subscribers
//!                 │ relay (the task `send`: one frame, whoever wants it)
//!                 ▼
//!               NATS ─▶ nodes that asked for the channel (the task `ask`) ─▶ broker ─▶ subscribers
//!                        (the task `receive`: what came twice is dropped)
//! ```
//!
//! It leaves to others: who is subscribed (`broker-core`), the protocols, and NATS' own clustering. In memory nothing is
//! kept: memory is memory, on each node. Messages of [durable namespaces](Settings::namespaces) are NATS' from the moment
//! that their publisher has its answer; every node takes all of them, in one order.
//!
//! # Slow and vanished nodes
//! What NATS does not take waits within bounds, and beyond them stays on its node and is counted. While NATS is away each
//! node serves its own clients. What is published meanwhile does not reach the other nodes later. Durable messages are
//! refused then, and what a node has missed it reads from the stream.
//!
//! # Example
//! ```no_run
//! use std::sync::Arc;
//!
//! use broker_core::{Broker, Channel, Config, Publish};
//! use cluster::{Cluster, Settings};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let settings = Settings::new(vec!["nats://127.0.0.1:4222".to_owned()]);
//! let cluster = Arc::new(Cluster::join(settings).await?);
//! let broker = Broker::with_engine(Config::default(), Arc::clone(&cluster) as _);
//! broker.publish(Publish::new(Channel::parse("chat/room1")?, "for all nodes"))?;
//! broker.drained().await;
//! cluster.leave().await;
//! # Ok(()) }
//! ```

mod ask;
mod cluster;
mod control;
mod desk;
mod durable;
mod error;
mod frame;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod groups;
mod interests;
mod link;
mod node;
mod peers;
mod receive;
mod repeats;
mod send;
mod settings;
mod share;
mod stats;
mod subject;
mod watch;

pub use cluster::Cluster;
pub use control::{Answers, Control, TooLarge};
pub use desk::{Peer, Service};
pub use durable::SESSIONS;
pub use error::JoinError;
pub use peers::Heard;
pub use settings::{Login, Settings, Tls};
pub use stats::{Standing, State, Stats};
