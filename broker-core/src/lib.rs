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

mod answer;
mod attach;
mod broker;
mod channel;
mod clock;
mod config;
mod engine;
mod error;
mod filter;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod histogram;
mod interest;
mod key;
mod lane;
mod lifecycle;
mod message;
mod metrics;
mod outbox;
mod rights;
mod service;
mod shared;
mod sparing;
mod store;

pub use answer::Answer;
pub use attach::{Event, Replay, Reserved, StartFrom, SubscribeOptions, Subscriber, Subscription};
pub use broker::{Broker, ChannelInfo, ChannelPage, Notes, Presence, Present, WeakBroker};
pub use channel::{Channel, ChannelCharacters, ChannelError};
pub use clock::{steady_ms, unix_ms};
pub use config::{Config, IdempotencyConfig, LogConfig, NamespaceConfig, OutboxConfig, OutboxPolicy};
pub use engine::{
    Claim, Claimed, Done, Ends, Engine, Fence, Ingest, Kept, LogPage, Note, Op, Owner, Reach, Read,
    RecordError, Reject, Rejected, SessionRecord, Taken, Task, Terms, Work, WorkError,
};
pub use error::{Inexpressible, PublishError, PublishOnceError, Refused, SubscribeError, Unavailable};
pub use filter::{Filter, FilterError, Segment};
pub use histogram::{Durations, Histogram};
pub use interest::{Group, GroupMember, Room};
pub use key::{GRANTED_TAG, Start, Subscribed, SubscriberKey};
pub use lane::{
    CloseCause, Connection, Deliver, Delivery, Details, Dismissal, Encoding, Encryption, ForcedError, Held,
    Kind, Peer, SendError, Sink,
};
pub use lifecycle::{Account, Interest, LeaveReason, Left, Lifecycle};
pub use message::{
    Accepted, ContentType, Echo, KeyedReceipt, Message, MessageId, MessageIdError, Position, Properties,
    Publish, Qos, Receipt, RecordDamaged,
};
pub use metrics::{LaneStats, NamespaceStats, Stats};
pub use outbox::{Class, Outbox, OutboxEnd, Passed, Queued, Signal, Wire};
pub use rights::{
    Action, AllowAll, Anonymous, AuthError, Authenticated, Authenticator, Client, Credentials, Denied,
    Governed, Network, Pattern, Policy, Principal, RequestHead, Rights, RightsTemplate, Rule, Source,
    SourceKind, Throttle, Welcome,
};
pub use service::Service;
pub use sparing::{Sparing, Telling};
pub use store::history::{After, Gap, History, HistoryQuery, Order};
pub use store::idempotency::{IdempotencyKey, KeptKey};
