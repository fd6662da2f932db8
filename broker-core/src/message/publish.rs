//! A message on its way in, and the receipt for it.

use std::time::Duration;

use bytes::Bytes;

use super::content::{ContentType, Properties, Qos};
use super::id::MessageId;
use super::{Message, weigh};
use crate::channel::Channel;
use crate::clock::{steady_ms, unix_ms};
use crate::key::SubscriberKey;

/// Whether a publisher's own subscriptions get its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Echo {
    /// They do.
    #[default]
    Deliver,
    /// They do not (Bayeux `broadcastToPublisher=false`, HTTP `?exclude=`).
    Skip,
}

/// A message on its way in.
///
/// ```
/// use broker_core::{Channel, Publish};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let publish = Publish::new(Channel::parse("chat/room1")?, "{\"text\":\"hi\"}").json().retain(true);
/// # let _ = publish; Ok(()) }
/// ```
#[derive(Debug, Clone, Hash)]
pub struct Publish {
    pub(crate) channel: Channel,
    pub(crate) payload: Bytes,
    pub(crate) content_type: Option<ContentType>,
    pub(crate) event: Option<Box<str>>,
    pub(crate) properties: Option<Box<Properties>>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) retain: bool,
    pub(crate) qos: Qos,
    pub(crate) publisher: Option<SubscriberKey>,
    pub(crate) echo: Echo,
}

impl Publish {
    /// A message for `channel`. The payload is kept as it is: a caller whose buffer is much larger than the payload
    /// copies it first, or the log keeps the whole buffer alive.
    pub fn new(channel: Channel, payload: impl Into<Bytes>) -> Self {
        Self {
            channel,
            payload: payload.into(),
            content_type: None,
            event: None,
            properties: None,
            ttl: None,
            retain: false,
            qos: Qos::default(),
            publisher: None,
            echo: Echo::default(),
        }
    }

    /// Marks the payload as JSON text; it is not checked.
    #[must_use]
    pub fn json(self) -> Self {
        self.content_type(ContentType::JSON)
    }

    /// The payload's media type.
    #[must_use]
    pub fn content_type(mut self, content_type: ContentType) -> Self {
        self.content_type = Some(content_type);
        self
    }

    /// An event name. SSE carries it as `event:`, so fronts refuse one with a line break.
    #[must_use]
    pub fn event(mut self, event: &str) -> Self {
        self.event = Some(event.into());
        self
    }

    /// What travels along.
    #[must_use]
    pub fn properties(mut self, properties: Properties) -> Self {
        self.properties = (properties != Properties::default()).then(|| Box::new(properties));
        self
    }

    /// How long the message may be sent, from now; default for ever. Zero reaches only who is connected and ready.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Keep it as the channel's retained message; with an empty payload, forget the retained message instead.
    #[must_use]
    pub fn retain(mut self, retain: bool) -> Self {
        self.retain = retain;
        self
    }

    /// The delivery effort asked for; default [`Qos::ExactlyOnce`], which leaves it to the subscriptions.
    #[must_use]
    pub fn qos(mut self, qos: Qos) -> Self {
        self.qos = qos;
        self
    }

    /// Who publishes, and whether its own subscriptions get the message.
    #[must_use]
    pub fn from(mut self, publisher: SubscriberKey, echo: Echo) -> Self {
        self.publisher = Some(publisher);
        self.echo = echo;
        self
    }

    /// Leaves one subscriber out (HTTP `?exclude=`).
    #[must_use]
    pub fn exclude(self, subscriber: SubscriberKey) -> Self {
        self.from(subscriber, Echo::Skip)
    }

    /// What is to be published.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The same message with another payload: what a [`Policy`](crate::Policy) makes of it.
    #[must_use]
    pub fn replace_payload(mut self, payload: impl Into<Bytes>) -> Self {
        self.payload = payload.into();
        self
    }

    /// The same message for another channel.
    #[must_use]
    pub fn replace_channel(mut self, channel: Channel) -> Self {
        self.channel = channel;
        self
    }

    /// The payload's media type, if it was said.
    pub fn media_type(&self) -> Option<&ContentType> {
        self.content_type.as_ref()
    }

    /// The event name, if it has one.
    pub fn event_name(&self) -> Option<&str> {
        self.event.as_deref()
    }

    /// Whether it is to be kept as its channel's retained message, or, without a payload, to end that.
    pub fn is_retained(&self) -> bool {
        self.retain
    }

    /// The channel it goes to.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Who publishes, if that was [said](Self::from), and whether its own subscriptions get the message: nothing that is
    /// written of a message has it.
    pub fn publisher(&self) -> (Option<SubscriberKey>, Echo) {
        (self.publisher, self.echo)
    }

    /// What its [`Message`] will weigh.
    pub(crate) fn weight(&self) -> usize {
        weigh(
            &self.payload,
            &self.channel,
            self.content_type.as_ref(),
            self.event.as_deref(),
            self.properties.as_deref(),
        )
    }

    /// The message, published now.
    pub(crate) fn into_message_now(self, epoch: u64) -> Message {
        let steady_ms = if self.ttl.is_some() { steady_ms() } else { 0 };
        self.into_message_at(epoch, unix_ms(), steady_ms)
    }

    #[cfg(test)]
    pub(crate) fn into_message(self, epoch: u64, now_ms: u64) -> Message {
        self.into_message_at(epoch, now_ms, now_ms)
    }

    pub(crate) fn into_message_at(self, epoch: u64, now_ms: u64, steady_ms: u64) -> Message {
        let expires_at_ms = self.ttl.map_or(u64::MAX, |ttl| {
            steady_ms.saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
        });
        Message {
            channel: self.channel,
            payload: self.payload,
            content_type: self.content_type,
            event: self.event,
            properties: self.properties,
            time_ms: now_ms,
            expires_at_ms,
            epoch,
            offset: 0,
            prev: 0,
            qos: self.qos,
            retain: self.retain,
        }
    }
}

impl Message {
    /// What it was made of, but for its publisher. Only for one that has not been published.
    pub(crate) fn into_publish(self, ttl: Option<Duration>) -> Publish {
        Publish {
            channel: self.channel,
            payload: self.payload,
            content_type: self.content_type,
            event: self.event,
            properties: self.properties,
            ttl,
            retain: self.retain,
            qos: self.qos,
            publisher: None,
            echo: Echo::default(),
        }
    }
}

/// What a publisher learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The message's id; `None` where the channel is not recorded.
    pub id: Option<MessageId>,
    /// When it was taken, in milliseconds since 1970.
    pub time_ms: u64,
    /// Subscriptions matched: overlaps of one subscriber counted each, a shared group once.
    pub receivers: u64,
}

impl Receipt {
    /// Of a message that was taken at `time_ms`.
    pub fn new(id: Option<MessageId>, time_ms: u64, receivers: u64) -> Self {
        Self { id, time_ms, receivers }
    }
}

/// What a publisher learns who names its message by a key ([`Broker::publish_once`](crate::Broker::publish_once)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyedReceipt {
    /// Of the message, or of the first one under the key.
    pub receipt: Receipt,
    /// Whether the message had been published before, so that nothing was done now.
    pub duplicate: bool,
}

impl KeyedReceipt {
    /// The message was published now.
    pub fn first(receipt: Receipt) -> Self {
        Self { receipt, duplicate: false }
    }

    /// It had been published before.
    pub fn again(receipt: Receipt) -> Self {
        Self { receipt, duplicate: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_day_ends_no_message_and_keeps_none() {
        for time_of_day in [0, 5_000, u64::MAX] {
            let publish = Publish::new(Channel::parse("a").unwrap(), "x").ttl(Duration::from_millis(10));
            let message = publish.into_message_at(0, time_of_day, 1_000);
            assert!(!message.is_expired(1_009) && message.is_expired(1_010), "{time_of_day}");
        }
        let (before, day, after) = (steady_ms(), unix_ms(), steady_ms());
        assert!(before <= after && day.abs_diff(after) < 60_000, "they begin together");
    }
}
