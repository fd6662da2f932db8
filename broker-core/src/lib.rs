//! What a broker is in any protocol: channels and filters, lanes that deliver, outboxes, the log, retained messages and
//! rights. No HTTP, no JSON, and no socket beyond the [`Wire`] trait: fronts bring those.
//!
//! ```text
//! publish ─▶ channel entry ─▶ one job per lane in use ─▶ lane: for each of its subscribers, append to the outbox, flush
//!            (order is made here)                        └ full socket: the connection's own task finishes the flush
//! ```
//!
//! # Example
//! ```
//! use broker_core::{Broker, Channel, Config, Filter, Publish};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let broker = Broker::new(Config::default());
//! let mut rooms = broker.subscribe(Filter::parse("chat/*")?)?;
//! let receipt = broker.publish(Publish::new(Channel::parse("chat/room1")?, "hello"))?;
//! assert_eq!(receipt.receivers, 1);
//! let message = rooms.message().await.ok_or("the broker is gone")?;
//! assert_eq!(&message.payload()[..], b"hello");
//! assert_eq!(message.id(), receipt.id);
//! # Ok(()) }
//! ```
//!
//! # Lock order
//! Channel entry, then log, then wildcard trie and retained store, then a lane's inbox (which is lock free). A session's
//! own mutex comes before its outbox's; no broker call is made while one is held. The table of connections is locked by
//! itself: nothing else is taken under it. At most one channel entry is held per
//! thread, and nothing awaits, encodes or writes under any of them.

mod broker;
mod channel;
mod config;
mod connections;
mod delivery;
mod error;
mod filter;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod lane;
mod lists;
mod log;
mod message;
mod metrics;
mod outbox;
mod registry;
mod replay;
mod retained;
mod rights;
mod subscriber;
mod subscription;
mod trie;
mod wildcards;

pub use broker::{Broker, ChannelInfo, ChannelPage};
pub use channel::{Channel, ChannelCharacters, ChannelError};
pub use config::{Config, LogConfig, NamespaceConfig, OutboxConfig, Policy};
pub use connections::{Close, Connection, Details, ForcedError, Peer, SendError};
pub use delivery::{Deliver, Delivery, Encoding, Kind, Sink};
pub use error::{Inexpressible, PublishError, SubscribeError};
pub use filter::{Filter, FilterError, Segment};
pub use lists::Room;
pub use message::{
    ContentType, Echo, Message, MessageId, MessageIdError, Properties, Publish, Qos, Receipt, steady_ms,
    unix_ms,
};
pub use metrics::{LaneStats, Stats};
pub use outbox::{Class, CloseReason, Outbox, Passed, Queued, Signal, Wire};
pub use replay::{After, Gap, History, HistoryQuery, Order, Replay};
pub use rights::{
    Action, AllowAll, Anonymous, AuthError, Authenticated, Authenticator, Credentials, Pattern, Principal,
    Rights, RightsTemplate, Rule, Source, SourceKind, Throttle,
};
pub use subscriber::{Start, Subscribed, Subscriber, SubscriberKey};
pub use subscription::{Event, From, SubscribeOptions, Subscription};
