//! What is published: a message, its id, and the receipt for it.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::channel::Channel;
use crate::subscriber::SubscriberKey;

/// The delivery effort a publisher asked for; each subscription caps it with its own. In order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Qos {
    /// At most once: dropped rather than queued for a slow reader.
    AtMostOnce,
    /// At least once.
    AtLeastOnce,
    /// Exactly once. The default for publishers without such a notion (HTTP, Bayeux, in process): the subscription
    /// alone decides.
    #[default]
    ExactlyOnce,
}

/// The media type of a payload, such as `application/json`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ContentType(Media);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Media {
    Fixed(&'static str),
    Other(Arc<str>),
}

impl ContentType {
    /// `application/json`
    pub const JSON: Self = Self(Media::Fixed("application/json"));
    /// `text/plain;charset=utf-8`
    pub const TEXT: Self = Self(Media::Fixed("text/plain;charset=utf-8"));
    /// `application/octet-stream`
    pub const BYTES: Self = Self(Media::Fixed("application/octet-stream"));

    /// Takes a media type as the publisher wrote it; nothing is checked. Those of [`well_known`](Self::well_known) cost no
    /// allocation.
    pub fn new(text: &str) -> Self {
        Self::well_known(text.as_bytes()).unwrap_or_else(|| Self(Media::Other(Arc::from(text))))
    }

    /// The type if it is one of the constants, or `text/plain`, written exactly so.
    pub fn well_known(text: &[u8]) -> Option<Self> {
        const PLAIN: ContentType = ContentType(Media::Fixed("text/plain"));
        let known = [Self::JSON, PLAIN, Self::TEXT, Self::BYTES];
        known.into_iter().find(|known| known.as_str().as_bytes() == text)
    }

    /// The type as text, parameters included.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Media::Fixed(text) => text,
            Media::Other(text) => text,
        }
    }

    /// Whether it is `application/json` or ends in `+json`, parameters and case aside (RFC 6839 §3.1).
    pub fn is_json(&self) -> bool {
        let essence = self.essence();
        let json = b"+json";
        essence.eq_ignore_ascii_case("application/json")
            || essence.len() > json.len()
                && essence.as_bytes()[essence.len() - json.len()..].eq_ignore_ascii_case(json)
    }

    /// Whether it is one of `text/*`.
    pub fn is_text(&self) -> bool {
        self.as_str().get(..5).is_some_and(|start| start.eq_ignore_ascii_case("text/"))
    }

    /// Bytes that are its own.
    fn own_bytes(&self) -> usize {
        if let Media::Other(text) = &self.0 { text.len() } else { 0 }
    }

    fn essence(&self) -> &str {
        self.as_str().split(';').next().unwrap_or_default().trim()
    }
}

impl fmt::Debug for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What travels with a message beside its payload; each protocol carries what it can express.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties {
    /// Name and value pairs in the publisher's order, duplicates kept (MQTT 5.0 §3.3.2.3.7).
    pub user: Vec<(Box<str>, Box<str>)>,
    /// A JSON object as raw text: Bayeux `ext`.
    pub ext: Option<Bytes>,
    /// Where a reply is expected (MQTT 5.0 §3.3.2.3.5, *Response Topic*).
    pub reply_to: Option<Box<str>>,
    /// What the reply should carry along (MQTT 5.0 §3.3.2.3.6).
    pub correlation: Option<Bytes>,
    /// Whether the publisher says that the payload is UTF-8 (MQTT 5.0 §3.3.2.3.2); `None` if it said nothing.
    pub payload_is_utf8: Option<bool>,
}

impl Properties {
    fn bytes(&self) -> usize {
        self.user.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>()
            + self.ext.as_ref().map_or(0, Bytes::len)
            + self.reply_to.as_ref().map_or(0, |topic| topic.len())
            + self.correlation.as_ref().map_or(0, Bytes::len)
            + 128
    }
}

/// The place of a recorded message in the broker's one order: `<epoch>-<offset>`, opaque to clients.
///
/// The epoch is base36 in lower case, the offset decimal. Ids of different epochs cannot be compared: the past of the
/// older one is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageId {
    /// Which life of the log; changes when the past is gone.
    pub epoch: u64,
    /// Position in that life, from 1; 0 stands for *before the first*.
    pub offset: u64,
}

/// A text that is not a message id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a message id is <epoch>-<offset>, such as k3-18")]
pub struct MessageIdError;

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_text(|text| f.write_str(std::str::from_utf8(text).unwrap_or_default()))
    }
}

impl MessageId {
    /// Thirteen digits of base36, a dash, twenty decimal ones.
    const MAX_TEXT_BYTES: usize = 34;

    /// Appends the text, for hot paths: [`ToString`] costs an allocation and several times the work.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        self.with_text(|text| out.extend_from_slice(text));
    }

    fn with_text<T>(&self, then: impl FnOnce(&[u8]) -> T) -> T {
        const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        /// Writes `rest` in front of `at`; where it begins. The base is a constant, as dividing by a variable takes several
        /// times as long.
        fn write<const BASE: u64>(mut rest: u64, text: &mut [u8], mut at: usize) -> usize {
            loop {
                at -= 1;
                text[at] = DIGITS[(rest % BASE) as usize];
                rest /= BASE;
                if rest == 0 {
                    return at;
                }
            }
        }
        let mut text = [b'-'; Self::MAX_TEXT_BYTES];
        let offset = write::<10>(self.offset, &mut text, Self::MAX_TEXT_BYTES);
        // The dash between the two is there already.
        let epoch = write::<36>(self.epoch, &mut text, offset - 1);
        then(&text[epoch..])
    }
}

impl FromStr for MessageId {
    type Err = MessageIdError;

    fn from_str(text: &str) -> Result<Self, MessageIdError> {
        let (epoch, offset) = text.split_once('-').ok_or(MessageIdError)?;
        // `from_str_radix` takes signs and upper case, an id has neither.
        let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase());
        if !plain(epoch) || !plain(offset) {
            return Err(MessageIdError);
        }
        Ok(Self {
            epoch: u64::from_str_radix(epoch, 36).map_err(|_| MessageIdError)?,
            offset: offset.parse().map_err(|_| MessageIdError)?,
        })
    }
}

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

    /// When it must no longer be sent, in [`steady_ms`]; `None` = never.
    pub fn expires_at_ms(&self) -> Option<u64> {
        (self.expires_at_ms != u64::MAX).then_some(self.expires_at_ms)
    }

    /// Whether its time was over at `now_ms`, in [`steady_ms`].
    pub fn is_expired(&self, now_ms: u64) -> bool {
        now_ms >= self.expires_at_ms
    }

    /// How long it may still be sent at `now_ms`, in [`steady_ms`]; `None` = for ever.
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

    /// Its id; `None` if it was not recorded.
    pub fn id(&self) -> Option<MessageId> {
        (self.offset != 0).then_some(MessageId { epoch: self.epoch, offset: self.offset })
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

/// Whether a publisher's own subscriptions get its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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
#[derive(Debug, Clone)]
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

    /// The channel it goes to.
    pub fn channel(&self) -> &Channel {
        &self.channel
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

    fn into_message_at(self, epoch: u64, now_ms: u64, steady_ms: u64) -> Message {
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

/// What a publisher learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The message's id; `None` where the channel is not recorded.
    pub id: Option<MessageId>,
    /// When it was taken, in milliseconds since 1970.
    pub time_ms: u64,
    /// Subscriptions matched: overlaps of one subscriber counted each, a shared group once.
    pub receivers: u64,
}

/// Now, in milliseconds since 1970 as they were when the process began, and counted by the monotonic clock since then. What
/// is measured by it lasts as long as it should, whether or not somebody sets the time of day.
pub fn steady_ms() -> u64 {
    static BEGAN: LazyLock<(Instant, u64)> = LazyLock::new(|| (Instant::now(), unix_ms()));
    let (began, at_ms) = *BEGAN;
    at_ms.saturating_add(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX))
}

/// Now, in milliseconds since 1970, by the time of day: for what people and other systems are shown, and for tokens, whose
/// ends are times of day.
pub fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_it_was_written() {
        for (epoch, offset, text) in
            [(723, 18, "k3-18"), (0, 0, "0-0"), (u64::MAX, u64::MAX, "3w5e11264sgsf-18446744073709551615")]
        {
            let id = MessageId { epoch, offset };
            assert_eq!(id.to_string(), text);
            let mut out = b"<".to_vec();
            id.write_to(&mut out);
            assert_eq!(out, [b"<", text.as_bytes()].concat());
            assert_eq!(text.parse(), Ok(id));
        }
        for text in
            ["", "-", "k3", "k3-", "-3", "K3-1", "k3-+1", "k3-1a", "k3-1-1", "k 3-1", "zzzzzzzzzzzzzzz-1"]
        {
            assert_eq!(text.parse::<MessageId>(), Err(MessageIdError), "{text}");
        }
    }

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

    #[test]
    fn json_types_are_told_by_their_essence() {
        for (text, json) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/cloudevents+json", true),
            ("application/json-seq", false),
            ("text/plain", false),
            ("+json", false),
        ] {
            assert_eq!(ContentType::new(text).is_json(), json, "{text}");
        }
        assert!(ContentType::new("TEXT/html").is_text());
        assert!(!ContentType::new("te").is_text());
    }
}
