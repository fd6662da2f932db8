//! What is published: a message, its id, and the receipt for it.

mod content;
mod id;
mod position;
mod publish;
mod record;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

pub use self::content::{ContentType, Properties, Qos};
pub use self::id::{MessageId, MessageIdError};
pub use self::position::Position;
pub use self::publish::{Echo, KeyedReceipt, Publish, Receipt};
pub use self::record::{Accepted, RecordDamaged};
use crate::channel::Channel;

/// An immutable published message, shared by reference by everybody who holds it.
pub struct Message {
    pub(crate) channel: Channel,
    payload: Bytes,
    content_type: Option<ContentType>,
    event: Option<Box<str>>,
    properties: Option<Box<Properties>>,
    time_ms: u64,
    expires_at_ms: u64,
    pub(crate) epoch: u64,
    pub(crate) offset: u64,
    pub(crate) prev: u64,
    qos: Qos,
    retain: bool,
}

impl Message {
    /// Where it was published.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// The bytes as they were published.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The payload's media type, if the publisher gave one.
    pub fn content_type(&self) -> Option<&ContentType> {
        self.content_type.as_ref()
    }

    /// The event name, if the publisher gave one (SSE `event:`).
    pub fn event(&self) -> Option<&str> {
        self.event.as_deref()
    }

    /// What travels along, if anything does.
    pub fn properties(&self) -> Option<&Properties> {
        self.properties.as_deref()
    }

    /// The effort the publisher asked for.
    pub fn qos(&self) -> Qos {
        self.qos
    }

    /// Whether it was published to be kept as the channel's retained message.
    pub fn retain(&self) -> bool {
        self.retain
    }

    /// When it was published, in milliseconds since 1970.
    pub fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// When it must no longer be sent, in [`steady_ms`](crate::steady_ms); `None` = never.
    pub fn expires_at_ms(&self) -> Option<u64> {
        (self.expires_at_ms != u64::MAX).then_some(self.expires_at_ms)
    }

    /// Whether its time was over at `now_ms`, in [`steady_ms`](crate::steady_ms).
    pub fn is_expired(&self, now_ms: u64) -> bool {
        now_ms >= self.expires_at_ms
    }

    /// How long it may still be sent at `now_ms`, in [`steady_ms`](crate::steady_ms); `None` = for ever.
    pub fn remaining(&self, now_ms: u64) -> Option<Duration> {
        self.expires_at_ms().map(|end| Duration::from_millis(end.saturating_sub(now_ms)))
    }

    /// Its place in the log; 0 if it was not recorded.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The offset before it on its channel, so that a stream with holes can be seen; 0 = unknown.
    pub fn prev(&self) -> u64 {
        self.prev
    }

    /// Whether it has a place in a log.
    pub fn is_recorded(&self) -> bool {
        self.offset != 0
    }

    /// Its id; `None` if it was not recorded.
    pub fn id(&self) -> Option<MessageId> {
        self.is_recorded().then_some(MessageId::new(self.epoch, self.offset))
    }

    /// Whether `position` has it: it lies in a log that the position knows, and not behind it.
    pub(crate) fn is_within(&self, position: &Position) -> bool {
        position.in_epoch(self.epoch).is_some_and(|offset| self.offset <= offset)
    }

    /// What it counts in budgets: payload, names, properties and overhead, in bytes.
    pub fn weight(&self) -> usize {
        weigh(
            &self.payload,
            &self.channel,
            self.content_type.as_ref(),
            self.event.as_deref(),
            self.properties.as_deref(),
        )
    }
}

fn weigh(
    payload: &Bytes,
    channel: &Channel,
    content_type: Option<&ContentType>,
    event: Option<&str>,
    properties: Option<&Properties>,
) -> usize {
    const OVERHEAD: usize = 192;
    payload.len()
        + channel.as_str().len()
        + content_type.map_or(0, ContentType::own_bytes)
        + event.map_or(0, str::len)
        + properties.map_or(0, Properties::bytes)
        + OVERHEAD
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("channel", &self.channel)
            .field("offset", &self.offset)
            .field("payload", &self.payload)
            .finish_non_exhaustive()
    }
}
