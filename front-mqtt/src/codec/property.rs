//! Property sets (MQTT 5.0 §2.2.2): one validating walk, then a view on the raw bytes.

use super::DecodeError;
use super::reader::Reader;

/// One property a client may send, by its name in the standard.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are the standard's")]
pub enum Property<'a> {
    PayloadFormat(bool),
    MessageExpiry(u32),
    ContentType(&'a str),
    ResponseTopic(&'a str),
    CorrelationData(&'a [u8]),
    SubscriptionId(u32),
    SessionExpiry(u32),
    AuthMethod(&'a str),
    AuthData(&'a [u8]),
    RequestProblemInfo(bool),
    WillDelay(u32),
    RequestResponseInfo(bool),
    ReasonString(&'a str),
    ReceiveMaximum(u16),
    TopicAliasMaximum(u16),
    TopicAlias(u16),
    User(&'a str, &'a str),
    MaximumPacketSize(u32),
}

/// Identifiers of the properties, for writing and for the sets of what is allowed where.
pub(crate) mod id {
    pub(crate) const PAYLOAD_FORMAT: u8 = 1;
    pub(crate) const MESSAGE_EXPIRY: u8 = 2;
    pub(crate) const CONTENT_TYPE: u8 = 3;
    pub(crate) const RESPONSE_TOPIC: u8 = 8;
    pub(crate) const CORRELATION_DATA: u8 = 9;
    pub(crate) const SUBSCRIPTION_ID: u8 = 11;
    pub(crate) const SESSION_EXPIRY: u8 = 17;
    pub(crate) const ASSIGNED_CLIENT_ID: u8 = 18;
    pub(crate) const SERVER_KEEP_ALIVE: u8 = 19;
    pub(crate) const AUTH_METHOD: u8 = 21;
    pub(crate) const AUTH_DATA: u8 = 22;
    pub(crate) const REQUEST_PROBLEM_INFO: u8 = 23;
    pub(crate) const WILL_DELAY: u8 = 24;
    pub(crate) const REQUEST_RESPONSE_INFO: u8 = 25;
    pub(crate) const RESPONSE_INFO: u8 = 26;
    pub(crate) const SERVER_REFERENCE: u8 = 28;
    pub(crate) const REASON_STRING: u8 = 31;
    pub(crate) const RECEIVE_MAXIMUM: u8 = 33;
    pub(crate) const TOPIC_ALIAS_MAXIMUM: u8 = 34;
    pub(crate) const TOPIC_ALIAS: u8 = 35;
    pub(crate) const MAXIMUM_QOS: u8 = 36;
    pub(crate) const RETAIN_AVAILABLE: u8 = 37;
    pub(crate) const USER_PROPERTY: u8 = 38;
    pub(crate) const MAXIMUM_PACKET_SIZE: u8 = 39;
    pub(crate) const WILDCARDS_AVAILABLE: u8 = 40;
    pub(crate) const SUBSCRIPTION_IDS_AVAILABLE: u8 = 41;
    pub(crate) const SHARED_AVAILABLE: u8 = 42;
}

const fn set(ids: &[u8]) -> u64 {
    let mut bits = 0;
    let mut index = 0;
    while index < ids.len() {
        bits |= 1 << ids[index];
        index += 1;
    }
    bits
}

/// Which properties a packet may carry: bit n stands for identifier n.
pub(crate) mod allowed {
    use super::{id::*, set};
    pub(crate) const CONNECT: u64 = set(&[
        SESSION_EXPIRY,
        AUTH_METHOD,
        AUTH_DATA,
        REQUEST_PROBLEM_INFO,
        REQUEST_RESPONSE_INFO,
        RECEIVE_MAXIMUM,
        TOPIC_ALIAS_MAXIMUM,
        USER_PROPERTY,
        MAXIMUM_PACKET_SIZE,
    ]);
    pub(crate) const WILL: u64 = set(&[
        WILL_DELAY,
        PAYLOAD_FORMAT,
        MESSAGE_EXPIRY,
        CONTENT_TYPE,
        RESPONSE_TOPIC,
        CORRELATION_DATA,
        USER_PROPERTY,
    ]);
    pub(crate) const PUBLISH: u64 = set(&[
        PAYLOAD_FORMAT,
        MESSAGE_EXPIRY,
        TOPIC_ALIAS,
        RESPONSE_TOPIC,
        CORRELATION_DATA,
        USER_PROPERTY,
        CONTENT_TYPE,
    ]);
    pub(crate) const ACK: u64 = set(&[REASON_STRING, USER_PROPERTY]);
    pub(crate) const SUBSCRIBE: u64 = set(&[SUBSCRIPTION_ID, USER_PROPERTY]);
    pub(crate) const UNSUBSCRIBE: u64 = set(&[USER_PROPERTY]);
    pub(crate) const DISCONNECT: u64 = set(&[SESSION_EXPIRY, REASON_STRING, USER_PROPERTY]);
    pub(crate) const AUTH: u64 = set(&[AUTH_METHOD, AUTH_DATA, REASON_STRING, USER_PROPERTY]);
    /// Every identifier MQTT 5.0 defines.
    pub(crate) const KNOWN: u64 = CONNECT
        | WILL
        | PUBLISH
        | DISCONNECT
        | set(&[
            SUBSCRIPTION_ID,
            ASSIGNED_CLIENT_ID,
            SERVER_KEEP_ALIVE,
            RESPONSE_INFO,
            SERVER_REFERENCE,
            MAXIMUM_QOS,
            RETAIN_AVAILABLE,
            WILDCARDS_AVAILABLE,
            SUBSCRIPTION_IDS_AVAILABLE,
            SHARED_AVAILABLE,
        ]);
}

/// A property set that was checked: its bytes without the length.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Properties<'a>(&'a [u8]);

impl<'a> Properties<'a> {
    /// Reads a set with its length, checks every property and gives each to `each`.
    pub(crate) fn read(
        reader: &mut Reader<'a>,
        allowed: u64,
        mut each: impl FnMut(Property<'a>) -> Result<(), DecodeError>,
    ) -> Result<Self, DecodeError> {
        let bytes = reader.varint()?;
        let raw = reader.take(bytes as usize)?;
        let mut inner = Reader::new(raw);
        let mut seen = 0u64;
        while !inner.is_empty() {
            let id = inner.varint()?;
            let bit = if id < 64 { 1u64 << id } else { 0 };
            if bit & allowed::KNOWN == 0 {
                return Err(DecodeError::malformed("unknown property identifier"));
            }
            if bit & allowed == 0 {
                return Err(DecodeError::protocol("property is not allowed in this packet"));
            }
            let property = one(id as u8, &mut inner)?;
            if seen & bit != 0 && !matches!(property, Property::User(..)) {
                return Err(DecodeError::protocol("property is repeated"));
            }
            seen |= bit;
            each(property)?;
        }
        Ok(Self(raw))
    }

    /// All properties in the order they were sent.
    pub fn iter(&self) -> impl Iterator<Item = Property<'a>> + use<'a> {
        let mut reader = Reader::new(self.0);
        std::iter::from_fn(move || {
            let id = reader.varint().ok()?;
            one(u8::try_from(id).ok()?, &mut reader).ok()
        })
    }

    /// The user properties in the order they were sent, repeats included.
    pub fn user(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.iter().filter_map(|property| match property {
            Property::User(name, value) => Some((name, value)),
            _ => None,
        })
    }
}

fn one<'a>(id: u8, reader: &mut Reader<'a>) -> Result<Property<'a>, DecodeError> {
    Ok(match id {
        id::PAYLOAD_FORMAT => Property::PayloadFormat(flag(reader)?),
        id::MESSAGE_EXPIRY => Property::MessageExpiry(reader.u32()?),
        id::CONTENT_TYPE => Property::ContentType(reader.string()?),
        id::RESPONSE_TOPIC => Property::ResponseTopic(reader.string()?),
        id::CORRELATION_DATA => Property::CorrelationData(reader.binary()?),
        id::SUBSCRIPTION_ID => match reader.varint()? {
            0 => return Err(DecodeError::protocol("subscription identifier is 0")),
            id => Property::SubscriptionId(id),
        },
        id::SESSION_EXPIRY => Property::SessionExpiry(reader.u32()?),
        id::AUTH_METHOD => Property::AuthMethod(reader.string()?),
        id::AUTH_DATA => Property::AuthData(reader.binary()?),
        id::REQUEST_PROBLEM_INFO => Property::RequestProblemInfo(flag(reader)?),
        id::WILL_DELAY => Property::WillDelay(reader.u32()?),
        id::REQUEST_RESPONSE_INFO => Property::RequestResponseInfo(flag(reader)?),
        id::REASON_STRING => Property::ReasonString(reader.string()?),
        id::RECEIVE_MAXIMUM => match reader.u16()? {
            0 => return Err(DecodeError::protocol("receive maximum is 0")),
            maximum => Property::ReceiveMaximum(maximum),
        },
        id::TOPIC_ALIAS_MAXIMUM => Property::TopicAliasMaximum(reader.u16()?),
        // 0 is refused with its own code, 0x94, where the connection's maximum is known.
        id::TOPIC_ALIAS => Property::TopicAlias(reader.u16()?),
        id::USER_PROPERTY => Property::User(reader.string()?, reader.string()?),
        id::MAXIMUM_PACKET_SIZE => match reader.u32()? {
            0 => return Err(DecodeError::protocol("maximum packet size is 0")),
            maximum => Property::MaximumPacketSize(maximum),
        },
        _ => return Err(DecodeError::malformed("unknown property identifier")),
    })
}

fn flag(reader: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::protocol("flag property is neither 0 nor 1")),
    }
}
