//! What a caller is told when the broker refuses.

use std::borrow::Cow;
use std::time::Duration;

use crate::channel::Channel;
use crate::message::Publish;
use crate::rights::Denied;

/// Whoever keeps messages cannot do it now: its disk is full, it cannot be reached. Nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store does not answer, try again in {} ms", retry_after.as_millis())]
#[non_exhaustive]
pub struct Unavailable {
    /// When to try again.
    pub retry_after: Duration,
}

impl Unavailable {
    /// It may go again after this time.
    pub const fn new(retry_after: Duration) -> Self {
        Self { retry_after }
    }
}

/// Why a message was not taken. Nothing of it was stored or delivered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The payload is larger than [`Config::max_message_bytes`](crate::Config::max_message_bytes).
    #[error("the payload has {bytes} bytes, {max} are allowed")]
    TooLarge {
        /// Size of the payload.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// The channel name is longer than [`Config::max_channel_bytes`](crate::Config::max_channel_bytes).
    #[error("the channel name has {bytes} bytes, {max} are allowed")]
    ChannelTooLong {
        /// Size of the name.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// The channel name holds a character that [`Config::channel_characters`](crate::Config::channel_characters) does
    /// not let through.
    #[error("the channel name holds U+{:04X} at byte {at}, a control character or none at all", u32::from(*.character))]
    ChannelCharacter {
        /// The character.
        character: char,
        /// Byte position of the first one.
        at: usize,
    },
    /// The channel name has more levels than [`Config::max_channel_levels`](crate::Config::max_channel_levels).
    #[error("the channel name has {levels} levels, {max} are allowed")]
    TooManyLevels {
        /// Levels of the name.
        levels: usize,
        /// The bound.
        max: usize,
    },
    /// A lane that would deliver it has too much waiting.
    #[error("the broker is busy, try again in {} ms", retry_after.as_millis())]
    Busy {
        /// When to try again.
        retry_after: Duration,
    },
    /// A new channel would exceed [`Config::max_channels`](crate::Config::max_channels).
    #[error("{max} channels are in use, no more are allowed")]
    TooManyChannels {
        /// The bound.
        max: usize,
    },
    /// The retained store is full.
    #[error("the retained store is full ({max} allowed)")]
    RetainedFull {
        /// The bound that was met: messages or bytes.
        max: usize,
    },
    /// A [`Policy`](crate::Policy) denies it; the text is for the publisher.
    #[error("{0}")]
    Forbidden(Cow<'static, str>),
    /// Whoever decides or keeps it cannot now.
    #[error("the {what} does not answer, try again in {} ms", retry_after.as_millis())]
    Unavailable {
        /// Who that is: `policy` or `store`.
        what: &'static str,
        /// When to try again.
        retry_after: Duration,
    },
    /// An engine keeps the channel's messages, so the answer comes later: [`Broker::submit`](crate::Broker::submit) has
    /// it, or [`Broker::publish_wait`](crate::Broker::publish_wait).
    #[error("the messages of this channel are kept by the store, which answers later")]
    Durable,
    /// Whether it was taken is not known: whoever keeps it did not say in time. With an idempotency key the same
    /// publish can be sent again. Unlike all others, this one may have been stored and delivered.
    #[error("it is not known whether the message was taken")]
    Unknown,
    /// The session that it was [taken](crate::Taken) for belongs to another connection by now, which is to say again
    /// whether it is to be published.
    #[error("the session was claimed by another connection")]
    Fenced,
    /// The broker was closed.
    #[error("the broker is shutting down")]
    Closed,
}

impl From<Unavailable> for PublishError {
    fn from(Unavailable { retry_after }: Unavailable) -> Self {
        Self::Unavailable { what: "store", retry_after }
    }
}

impl From<Denied> for PublishError {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Forbidden(why) => Self::Forbidden(why),
            Denied::Unavailable { retry_after } => Self::Unavailable { what: "policy", retry_after },
        }
    }
}

/// A publish that was not taken, from [`Broker::try_publish`](crate::Broker::try_publish).
#[derive(Debug, Clone, thiserror::Error)]
#[error("{error}")]
#[non_exhaustive]
pub struct Refused {
    /// Why.
    pub error: PublishError,
    /// What was to be published, if it is worth another try: the broker was [`Busy`](PublishError::Busy).
    pub publish: Option<Box<Publish>>,
}

impl Refused {
    /// Of a publish that is worth another try, or of none.
    pub fn new(error: PublishError, publish: Option<Publish>) -> Self {
        Self { error, publish: publish.map(Box::new) }
    }
}

impl From<PublishError> for Refused {
    fn from(error: PublishError) -> Self {
        Self { error, publish: None }
    }
}

/// Why a publish with a key was not taken, from [`Broker::publish_once`](crate::Broker::publish_once). Nothing of it
/// was stored, delivered or remembered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishOnceError {
    /// The broker refused the message.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The key was used within the window with another message.
    #[error("the idempotency key was used with another message on this channel")]
    Conflict,
    /// The holder of the key has as many as
    /// [`IdempotencyConfig::max_keys_per_holder`](crate::IdempotencyConfig::max_keys_per_holder) or
    /// [`max_bytes_per_holder`](crate::IdempotencyConfig::max_bytes_per_holder) allow.
    #[error("too many idempotency keys of yours are remembered")]
    Full,
}

/// Why a subscription was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The filter has more levels than [`Config::max_channel_levels`](crate::Config::max_channel_levels).
    #[error("the filter has {levels} levels, {max} are allowed")]
    TooManyLevels {
        /// Levels of the filter.
        levels: usize,
        /// The bound.
        max: usize,
    },
    /// All filters together would weigh more than [`Config::max_filter_bytes`](crate::Config::max_filter_bytes).
    #[error("the filters of all subscribers weigh {max} bytes, no more are allowed")]
    FiltersFull {
        /// The bound.
        max: usize,
    },
    /// A new channel would exceed [`Config::max_channels`](crate::Config::max_channels).
    #[error("{max} channels are in use, no more are allowed")]
    TooManyChannels {
        /// The bound.
        max: usize,
    },
    /// A new group that shares messages an [`Engine`](crate::engine::Engine) keeps would exceed the engine's bound.
    #[error("{max} groups share kept messages, no more are allowed")]
    TooManyGroups {
        /// The bound.
        max: usize,
    },
    /// A [`Policy`](crate::Policy) denies it; the text is for the subscriber.
    #[error("{0}")]
    Forbidden(Cow<'static, str>),
    /// Whoever decides or keeps it cannot now.
    #[error("the {what} does not answer, try again in {} ms", retry_after.as_millis())]
    Unavailable {
        /// Who that is: `policy` or `store`.
        what: &'static str,
        /// When to try again.
        retry_after: Duration,
    },
    /// The broker was closed.
    #[error("the broker is shutting down")]
    Closed,
}

impl From<Unavailable> for SubscribeError {
    fn from(Unavailable { retry_after }: Unavailable) -> Self {
        Self::Unavailable { what: "store", retry_after }
    }
}

impl From<Denied> for SubscribeError {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Forbidden(why) => Self::Forbidden(why),
            Denied::Unavailable { retry_after } => Self::Unavailable { what: "policy", retry_after },
        }
    }
}

/// A channel that a protocol cannot express, for fronts that want to say so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("channel {0:?} cannot be expressed in this protocol")]
pub struct Inexpressible(pub Channel);
