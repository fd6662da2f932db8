//! PUBLISH from a client (MQTT 5.0 §3.3).

use broker_core::Qos;

use super::property::allowed;
use super::reader::Reader;
use super::topic::topic_is_valid;
use super::{DecodeError, Properties, Property, Reason, Version};

/// A PUBLISH, borrowed from the input.
#[derive(Debug, PartialEq)]
pub struct Publish<'a> {
    /// Set on a repeat after a reconnect.
    pub dup: bool,
    /// The delivery the client asks for.
    pub qos: Qos,
    /// Whether the message is to be kept for later subscribers.
    pub retain: bool,
    /// Empty only if `properties.topic_alias` stands for it.
    pub topic: &'a str,
    /// 0 with QoS 0, which has none.
    pub packet_id: u16,
    /// What the properties say; empty for version 3.
    pub properties: PublishProperties<'a>,
    /// The application message.
    pub payload: &'a [u8],
}

/// The properties of a PUBLISH or of a will.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PublishProperties<'a> {
    /// Whether the payload is said to be UTF-8; absent is not the same as false.
    pub payload_is_utf8: Option<bool>,
    /// Seconds until the message is of no more use.
    pub message_expiry_secs: Option<u32>,
    /// MIME type, or whatever the application calls it.
    pub content_type: Option<&'a str>,
    /// Where an answer is expected.
    pub response_topic: Option<&'a str>,
    /// What the asker wants back with the answer.
    pub correlation_data: Option<&'a [u8]>,
    /// Stands for the topic on this connection.
    pub topic_alias: Option<u16>,
    /// Only in a will: seconds between the end of the connection and the will.
    pub will_delay_secs: u32,
    /// Whether there is at least one user property.
    pub has_user: bool,
    /// The whole set, for the user properties.
    pub raw: Properties<'a>,
}

impl<'a> PublishProperties<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>, allowed: u64) -> Result<Self, DecodeError> {
        let mut found = Self::default();
        let raw = Properties::read(reader, allowed, |property| {
            match property {
                Property::PayloadFormat(utf8) => found.payload_is_utf8 = Some(utf8),
                Property::MessageExpiry(secs) => found.message_expiry_secs = Some(secs),
                Property::ContentType(text) => found.content_type = Some(text),
                Property::ResponseTopic(topic) if !topic_is_valid(topic) => {
                    return Err(DecodeError::protocol("response topic is not a valid topic name"));
                }
                Property::ResponseTopic(topic) => found.response_topic = Some(topic),
                Property::CorrelationData(data) => found.correlation_data = Some(data),
                Property::TopicAlias(alias) => found.topic_alias = Some(alias),
                Property::WillDelay(secs) => found.will_delay_secs = secs,
                Property::User(..) => found.has_user = true,
                _ => {}
            }
            Ok(())
        })?;
        found.raw = raw;
        Ok(found)
    }
}

impl<'a> Publish<'a> {
    pub(crate) fn parse(flags: u8, reader: &mut Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let dup = flags & 0b1000 != 0;
        let qos = match (flags >> 1) & 3 {
            0 => Qos::AtMostOnce,
            1 => Qos::AtLeastOnce,
            2 => Qos::ExactlyOnce,
            _ => return Err(DecodeError::malformed("QoS is 3")),
        };
        // Version 3.1 did not forbid it, and its clients did send it.
        if dup && qos == Qos::AtMostOnce && version != Version::V31 {
            return Err(DecodeError::malformed("DUP is set with QoS 0"));
        }
        let topic = reader.string()?;
        let packet_id = if qos == Qos::AtMostOnce { 0 } else { reader.packet_id()? };
        let properties = if version.is_v5() {
            PublishProperties::read(reader, allowed::PUBLISH)?
        } else {
            PublishProperties::default()
        };
        if topic.is_empty() {
            if properties.topic_alias.is_none() {
                return Err(DecodeError::protocol("topic is empty and there is no topic alias"));
            }
        } else if !topic_is_valid(topic) {
            return Err(DecodeError::new(Reason::TopicNameInvalid, "topic name holds a wildcard"));
        }
        Ok(Self { dup, qos, retain: flags & 1 != 0, topic, packet_id, properties, payload: reader.rest() })
    }
}
