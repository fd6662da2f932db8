//! Limits and habits of a broker.

use std::time::Duration;

use crate::channel::ChannelCharacters;

/// How a [`Broker`](crate::Broker) is built. Every bound has a default that suits one machine with tens of thousands of
/// connections.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// Lanes, the tasks that deliver. Default `None`: one per worker thread of the runtime.
    pub lanes: Option<usize>,
    /// Largest payload in bytes, one limit for all fronts. Default 4 MiB. Over it:
    /// [`PublishError::TooLarge`](crate::PublishError::TooLarge).
    pub max_message_bytes: usize,
    /// Longest channel name in bytes. Default and most 65,535.
    pub max_channel_bytes: usize,
    /// Which characters a name may hold that is published to, by any front. Default [`ChannelCharacters::Strict`].
    /// Others: [`PublishError::ChannelCharacter`](crate::PublishError::ChannelCharacter).
    pub channel_characters: ChannelCharacters,
    /// Most levels (segments) of a channel name, and of a filter. Default 128, many times what people use; most 65,535.
    /// Matching one message costs up to its levels for each filter that fits so far. Over it:
    /// [`PublishError::TooManyLevels`](crate::PublishError::TooManyLevels) and its twin on subscribing.
    pub max_channel_levels: usize,
    /// Channels with a subscriber or a recorded message. Default 2 million. Over it:
    /// [`PublishError::TooManyChannels`](crate::PublishError::TooManyChannels) and its twin on subscribing.
    pub max_channels: usize,
    /// Retained messages, number. Default 1 million. Over it:
    /// [`PublishError::RetainedFull`](crate::PublishError::RetainedFull).
    pub max_retained_messages: usize,
    /// Retained messages, bytes with names, properties and overhead. Default 256 MiB.
    pub max_retained_bytes: usize,
    /// Filters of all subscribers, bytes with what finding them takes. Default 512 MiB: some two million subscriptions
    /// with filters of their own. Over it: [`SubscribeError::FiltersFull`](crate::SubscribeError::FiltersFull).
    pub max_filter_bytes: usize,
    /// Deliveries that may wait in one lane. Default 2 million. Over it:
    /// [`PublishError::Busy`](crate::PublishError::Busy).
    pub max_lane_deliveries: usize,
    /// Message bytes that may wait in one lane. Default 64 MiB.
    pub max_lane_bytes: usize,
    /// The log of channels whose namespace says nothing else. Default: 64 MiB and 5 minutes.
    pub log: LogConfig,
    /// What differs by the first segment of a channel. Default: nothing.
    pub namespaces: Vec<NamespaceConfig>,
    /// What is remembered of publishes with a key. Default: 5 minutes, 100,000 keys and 64 MiB.
    pub idempotency: IdempotencyConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lanes: None,
            max_message_bytes: 4 << 20,
            max_channel_bytes: crate::Channel::MAX_BYTES,
            channel_characters: ChannelCharacters::default(),
            max_channel_levels: 128,
            max_channels: 2_000_000,
            max_retained_messages: 1_000_000,
            max_retained_bytes: 256 << 20,
            max_filter_bytes: 512 << 20,
            max_lane_deliveries: 2_000_000,
            max_lane_bytes: 64 << 20,
            log: LogConfig::default(),
            namespaces: Vec::new(),
            idempotency: IdempotencyConfig::default(),
        }
    }
}

/// A ring of recent messages with a budget of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogConfig {
    /// Whether messages are recorded at all; if not, they have no id and cannot be replayed. Default true.
    pub enabled: bool,
    /// Budget in bytes: payloads, names, properties and overhead. Default 64 MiB. The oldest go first, a sixteenth of
    /// the budget at a time.
    pub max_bytes: usize,
    /// How long a message is kept. Default 5 minutes. Dropped within a sixteenth of it.
    pub max_age: Duration,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { enabled: true, max_bytes: 64 << 20, max_age: Duration::from_secs(300) }
    }
}

impl LogConfig {
    /// No recording.
    pub const OFF: Self = Self { enabled: false, max_bytes: 0, max_age: Duration::ZERO };
}

/// How publishes with a key are remembered, see [`Broker::publish_once`](crate::Broker::publish_once).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct IdempotencyConfig {
    /// How long a key is remembered. Default 5 minutes.
    pub window: Duration,
    /// Keys remembered. Default 100,000; beyond them the oldest key of whoever holds most is forgotten early.
    pub max_keys: usize,
    /// Bytes that they take. Default 64 MiB; then the same.
    pub max_bytes: usize,
    /// Of these, the keys of one holder: a user at one [`Network`](crate::Network). Default 50,000; then its publishes
    /// with a new key are [`PublishOnceError::Full`](crate::PublishOnceError::Full) rather than forgetting one early,
    /// and nobody else's are.
    pub max_keys_per_holder: usize,
    /// Bytes that the keys of one holder take. Default 32 MiB; then the same.
    pub max_bytes_per_holder: usize,
}

impl Default for IdempotencyConfig {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(300),
            max_keys: 100_000,
            max_bytes: 64 << 20,
            max_keys_per_holder: 50_000,
            max_bytes_per_holder: 32 << 20,
        }
    }
}

/// What differs for channels with one first segment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NamespaceConfig {
    /// The first segment, `chat` for `chat/room1`.
    pub name: String,
    /// Its own ring, or [`LogConfig::OFF`].
    pub log: LogConfig,
}

impl NamespaceConfig {
    /// For the channels below `name`.
    pub fn new(name: impl Into<String>, log: LogConfig) -> Self {
        Self { name: name.into(), log }
    }
}

/// Bounds of what waits for one subscriber, and what happens at them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutboxConfig {
    /// Frames that may wait. Default 1,000; at least the 128 that a lane appends in one go.
    pub max_messages: usize,
    /// Bytes that may wait. Default 1 MiB. An empty outbox takes one frame of any size.
    pub max_bytes: usize,
    /// What happens to droppable frames at the bound. Default [`OutboxPolicy::DropOldest`].
    pub policy: OutboxPolicy,
}

impl OutboxConfig {
    /// With these bounds, and what happens at them.
    pub const fn new(max_messages: usize, max_bytes: usize, policy: OutboxPolicy) -> Self {
        Self { max_messages, max_bytes, policy }
    }
}

impl Default for OutboxConfig {
    fn default() -> Self {
        Self { max_messages: 1_000, max_bytes: 1 << 20, policy: OutboxPolicy::DropOldest }
    }
}

/// What a full outbox does with a droppable frame. Frames that are not droppable are never touched; if they alone
/// exceed the bound, the connection closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutboxPolicy {
    /// The oldest droppable frame goes.
    DropOldest,
    /// The new frame is not taken.
    DropNewest,
    /// The connection is closed with [`OutboxEnd::Overflow`](crate::OutboxEnd::Overflow).
    Disconnect,
    /// A waiting frame of the same channel goes, full or not; if there is none and it is full, the oldest goes.
    Conflate,
}
