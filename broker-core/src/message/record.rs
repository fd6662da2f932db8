//! A message as it is kept outside of this process' memory.

use std::time::Duration;

use bytes::Bytes;

use super::Message;
use super::content::{ContentType, Properties, Qos};
use super::publish::Publish;
use crate::channel::Channel;
use crate::clock::{steady_ms, unix_ms};

/// A message that an [`Engine`](crate::Engine) has accepted: it has its place in the engine's log.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Accepted {
    /// The message. Its time to live counts from now.
    pub publish: Publish,
    /// Its place in the engine's log; each has a larger one than the one before.
    pub offset: u64,
    /// The offset before it on its channel, as far as the engine knows; 0 = unknown.
    pub prev: u64,
    /// When it was published, in milliseconds since 1970.
    pub time_ms: u64,
}

/// Bytes that are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the record of a message is damaged")]
pub struct RecordDamaged;

/// How a record is written; another number is of another version.
const VERSION: u8 = 1;

/// The first byte behind the version.
mod flag {
    pub(super) const QOS: u8 = 0b11;
    pub(super) const RETAIN: u8 = 1 << 2;
    pub(super) const TTL: u8 = 1 << 3;
    pub(super) const CONTENT_TYPE: u8 = 1 << 4;
    pub(super) const EVENT: u8 = 1 << 5;
    pub(super) const PROPERTIES: u8 = 1 << 6;
}

/// The first byte of properties.
mod property {
    pub(super) const EXT: u8 = 1;
    pub(super) const REPLY_TO: u8 = 1 << 1;
    pub(super) const CORRELATION: u8 = 1 << 2;
    pub(super) const KNOWS_UTF8: u8 = 1 << 3;
    pub(super) const IS_UTF8: u8 = 1 << 4;
}

impl Accepted {
    /// A message with its place, published at `time_ms`. What was before it on its channel is not known.
    pub fn new(publish: Publish, offset: u64, time_ms: u64) -> Self {
        Self { publish, offset, prev: 0, time_ms }
    }

    /// Appends all of it but for the place in the log and the publisher, who is gone when it is read. Expiry is written
    /// by the time of day, as no other clock outlives a process.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let publish = &self.publish;
        let ttl = publish.ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        let written = Written {
            time_ms: self.time_ms,
            prev: self.prev,
            channel: &publish.channel,
            end_ms: ttl.map(|ttl| self.time_ms.saturating_add(ttl)),
            content_type: publish.content_type.as_ref(),
            event: publish.event.as_deref(),
            properties: publish.properties.as_deref(),
            qos: publish.qos,
            retain: publish.retain,
            payload: &publish.payload,
        };
        written.write_to(out);
    }

    /// Reads what [`write_to`](Self::write_to) wrote. `None`: its time is over.
    ///
    /// # Errors
    /// The bytes are no record of this version.
    pub fn read_from(record: &[u8], offset: u64) -> Result<Option<Self>, RecordDamaged> {
        Self::read_at(record, offset, unix_ms())
    }

    /// As [`read_from`](Self::read_from), also if its time is over: for who looks at what is there, and does not deliver it.
    /// What it says of its time to live means nothing.
    ///
    /// # Errors
    /// The bytes are no record of this version.
    pub fn read_as_written(record: &[u8], offset: u64) -> Result<Self, RecordDamaged> {
        Self::read_at(record, offset, 0)?.ok_or(RecordDamaged)
    }

    fn read_at(record: &[u8], offset: u64, now_ms: u64) -> Result<Option<Self>, RecordDamaged> {
        let mut rest = Rest(record);
        let [version, flags] = rest.array()?;
        let (time_ms, prev) = (rest.u64()?, rest.u64()?);
        if version != VERSION {
            return Err(RecordDamaged);
        }
        let channel = Channel::parse(rest.text()?).map_err(|_| RecordDamaged)?;
        let is_set = |flag| flags & flag != 0;
        let end_ms = if is_set(flag::TTL) { Some(rest.u64()?) } else { None };
        let content_type =
            if is_set(flag::CONTENT_TYPE) { Some(ContentType::new(rest.text()?)) } else { None };
        let event = if is_set(flag::EVENT) { Some(rest.text()?.into()) } else { None };
        let properties = if is_set(flag::PROPERTIES) { Some(Box::new(rest.properties()?)) } else { None };
        let qos = match flags & flag::QOS {
            0 => Qos::AtMostOnce,
            1 => Qos::AtLeastOnce,
            _ => Qos::ExactlyOnce,
        };
        if end_ms.is_some_and(|end| end <= now_ms) {
            return Ok(None);
        }
        let mut publish = Publish::new(channel, Bytes::copy_from_slice(rest.0)).retain(is_set(flag::RETAIN));
        publish.qos = qos;
        publish.ttl = end_ms.map(|end| Duration::from_millis(end - now_ms));
        (publish.content_type, publish.event, publish.properties) = (content_type, event, properties);
        Ok(Some(Self { publish, offset, prev, time_ms }))
    }

    /// As [`write_to`](Self::write_to), of a message that is not published yet, whose time to live begins when it is.
    pub fn write_unpublished(publish: &Publish, out: &mut Vec<u8>) {
        Self::new(publish.clone(), 0, 0).write_to(out);
    }

    /// Reads what [`write_unpublished`](Self::write_unpublished) wrote. `None`: it has no time to live at all.
    ///
    /// # Errors
    /// The bytes are no record of this version.
    pub fn read_unpublished(record: &[u8]) -> Result<Option<Publish>, RecordDamaged> {
        Ok(Self::read_at(record, 0, 0)?.map(|accepted| accepted.publish))
    }

    /// Appends a message that goes to another node, with what is left of its time to live: clocks of two machines differ.
    pub fn write_relayed(message: &Message, out: &mut Vec<u8>) {
        let left = message.remaining(steady_ms());
        let written = Written {
            time_ms: message.time_ms(),
            prev: 0,
            channel: message.channel(),
            end_ms: left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
            content_type: message.content_type(),
            event: message.event(),
            properties: message.properties(),
            qos: message.qos(),
            retain: message.retain(),
            payload: message.payload(),
        };
        written.write_to(out);
    }

    /// Reads what [`write_relayed`](Self::write_relayed) wrote, and when it was published there, in milliseconds since 1970.
    /// `None`: its time is over.
    ///
    /// # Errors
    /// The bytes are no record of this version.
    pub fn read_relayed(record: &[u8]) -> Result<Option<(Publish, u64)>, RecordDamaged> {
        let accepted = Self::read_at(record, 0, 0)?;
        Ok(accepted.map(|Self { publish, time_ms, .. }| (publish, time_ms)))
    }

    /// What it counts in budgets: payload, names, properties and overhead, in bytes.
    pub fn weight(&self) -> usize {
        self.publish.weight()
    }

    /// The message, in the log of `epoch`.
    pub fn into_message(self, epoch: u64) -> Message {
        let steady_ms = if self.publish.ttl.is_some() { steady_ms() } else { 0 };
        let mut message = self.publish.into_message_at(epoch, self.time_ms, steady_ms);
        (message.offset, message.prev) = (self.offset, self.prev);
        message
    }
}

/// What is written of a message.
struct Written<'m> {
    time_ms: u64,
    prev: u64,
    channel: &'m Channel,
    /// When its time is over, by the clock that whoever reads it takes.
    end_ms: Option<u64>,
    content_type: Option<&'m ContentType>,
    event: Option<&'m str>,
    properties: Option<&'m Properties>,
    qos: Qos,
    retain: bool,
    payload: &'m [u8],
}

impl Written<'_> {
    fn write_to(&self, out: &mut Vec<u8>) {
        let mut flags = self.qos as u8;
        let mut set = |flag, is_set| flags |= if is_set { flag } else { 0 };
        set(flag::RETAIN, self.retain);
        set(flag::TTL, self.end_ms.is_some());
        set(flag::CONTENT_TYPE, self.content_type.is_some());
        set(flag::EVENT, self.event.is_some());
        set(flag::PROPERTIES, self.properties.is_some());
        out.extend_from_slice(&[VERSION, flags]);
        out.extend_from_slice(&self.time_ms.to_be_bytes());
        out.extend_from_slice(&self.prev.to_be_bytes());
        put(out, self.channel.as_str().as_bytes());
        if let Some(end_ms) = self.end_ms {
            out.extend_from_slice(&end_ms.to_be_bytes());
        }
        for text in [self.content_type.map(ContentType::as_str), self.event].into_iter().flatten() {
            put(out, text.as_bytes());
        }
        if let Some(properties) = self.properties {
            put_properties(out, properties);
        }
        out.extend_from_slice(self.payload);
    }
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    // Payloads and names are far below this.
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn put_properties(out: &mut Vec<u8>, properties: &Properties) {
    let Properties { user, ext, reply_to, correlation, payload_is_utf8 } = properties;
    let mut flags = 0;
    let mut set = |flag, is_set| flags |= if is_set { flag } else { 0 };
    set(property::EXT, ext.is_some());
    set(property::REPLY_TO, reply_to.is_some());
    set(property::CORRELATION, correlation.is_some());
    set(property::KNOWS_UTF8, payload_is_utf8.is_some());
    set(property::IS_UTF8, *payload_is_utf8 == Some(true));
    out.push(flags);
    out.extend_from_slice(&u32::try_from(user.len()).unwrap_or(u32::MAX).to_be_bytes());
    for (name, value) in user {
        put(out, name.as_bytes());
        put(out, value.as_bytes());
    }
    let reply_to = reply_to.as_ref().map(|text| text.as_bytes());
    for bytes in [ext.as_deref(), reply_to, correlation.as_deref()].into_iter().flatten() {
        put(out, bytes);
    }
}

/// What is left of a record.
struct Rest<'r>(&'r [u8]);

impl<'r> Rest<'r> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordDamaged> {
        let (array, rest) = self.0.split_first_chunk::<N>().ok_or(RecordDamaged)?;
        self.0 = rest;
        Ok(*array)
    }

    fn u32(&mut self) -> Result<usize, RecordDamaged> {
        self.array().map(|bytes| u32::from_be_bytes(bytes) as usize)
    }

    fn u64(&mut self) -> Result<u64, RecordDamaged> {
        self.array().map(u64::from_be_bytes)
    }

    fn bytes(&mut self) -> Result<&'r [u8], RecordDamaged> {
        let length = self.u32()?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(RecordDamaged)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn text(&mut self) -> Result<&'r str, RecordDamaged> {
        std::str::from_utf8(self.bytes()?).map_err(|_| RecordDamaged)
    }

    fn properties(&mut self) -> Result<Properties, RecordDamaged> {
        let [flags] = self.array()?;
        let is_set = |flag| flags & flag != 0;
        let mut properties = Properties::default();
        for _ in 0..self.u32()? {
            properties.user.push((self.text()?.into(), self.text()?.into()));
        }
        if is_set(property::EXT) {
            properties.ext = Some(Bytes::copy_from_slice(self.bytes()?));
        }
        if is_set(property::REPLY_TO) {
            properties.reply_to = Some(self.text()?.into());
        }
        if is_set(property::CORRELATION) {
            properties.correlation = Some(Bytes::copy_from_slice(self.bytes()?));
        }
        properties.payload_is_utf8 = is_set(property::KNOWS_UTF8).then(|| is_set(property::IS_UTF8));
        Ok(properties)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000;

    fn accepted(publish: Publish) -> Accepted {
        Accepted { publish, offset: 9, prev: 7, time_ms: NOW }
    }

    fn record(accepted: &Accepted) -> Vec<u8> {
        let mut record = Vec::new();
        accepted.write_to(&mut record);
        record
    }

    fn everything() -> Accepted {
        let properties = Properties {
            user: vec![("a".into(), "b".into()), ("a".into(), "".into())],
            ext: Some(Bytes::from_static(b"{}")),
            reply_to: Some("r/é".into()),
            correlation: Some(Bytes::from_static(&[0, 1, 255])),
            payload_is_utf8: Some(false),
        };
        let publish = Publish::new(Channel::parse("orders/ü").unwrap(), vec![0, 255, 10])
            .content_type(ContentType::new("application/x-own"))
            .event("made")
            .properties(properties)
            .retain(true)
            .qos(Qos::AtLeastOnce)
            .ttl(Duration::from_secs(5));
        accepted(publish)
    }

    #[test]
    fn what_goes_to_another_node_takes_along_what_is_left_of_its_time() {
        let message = everything().into_message(3);
        let mut record = Vec::new();
        Accepted::write_relayed(&message, &mut record);
        let (publish, time_ms) = Accepted::read_relayed(&record).unwrap().unwrap();
        assert_eq!(time_ms, NOW, "the time of day there is shown, not reckoned with");
        let ttl = publish.ttl.unwrap();
        assert!(ttl > Duration::from_secs(1) && ttl <= Duration::from_secs(5), "{ttl:?}");
        let without = |publish| format!("{:?}", Publish { ttl: None, ..publish });
        assert_eq!(without(publish), without(everything().publish));
        let over = accepted(Publish::new(Channel::parse("a").unwrap(), "x").ttl(Duration::ZERO));
        record.clear();
        Accepted::write_relayed(&over.into_message(3), &mut record);
        assert!(Accepted::read_relayed(&record).unwrap().is_none());
        assert_eq!(Accepted::read_relayed(&record[..5]).unwrap_err(), RecordDamaged);
    }

    #[test]
    fn a_message_reads_back_as_it_was_written() {
        let bare = accepted(Publish::new(Channel::parse("a").unwrap(), ""));
        for accepted in [bare, everything()] {
            let read = Accepted::read_at(&record(&accepted), 9, NOW).unwrap().unwrap();
            assert_eq!(format!("{read:?}"), format!("{accepted:?}"));
        }
    }

    #[test]
    fn time_goes_on_while_nobody_runs() {
        let record = record(&everything());
        let left = |now| Accepted::read_at(&record, 9, now).unwrap().map(|read| read.publish.ttl.unwrap());
        assert_eq!(left(NOW + 2_000), Some(Duration::from_secs(3)));
        assert_eq!((left(NOW + 4_999), left(NOW + 5_000)), (Some(Duration::from_millis(1)), None));
    }

    #[test]
    fn what_is_cut_or_of_another_version_is_damaged() {
        let whole = record(&everything());
        // The payload's end is the record's: whoever keeps it has a sum over all of it.
        for length in 0..whole.len() - 3 {
            assert!(Accepted::read_at(&whole[..length], 9, NOW).is_err(), "{length}");
        }
        let mut other = whole;
        other[0] = VERSION + 1;
        assert!(Accepted::read_at(&other, 9, NOW).is_err());
    }
}
