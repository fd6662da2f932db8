//! SUBSCRIBE and UNSUBSCRIBE (MQTT 5.0 §3.8, §3.10).

use broker_core::Qos;

use super::property::allowed;
use super::reader::Reader;
use super::{DecodeError, Properties, Property, Version};

/// A SUBSCRIBE; its filters are walked with [`Subscribe::filters`].
#[derive(Debug, PartialEq)]
pub struct Subscribe<'a> {
    /// What SUBACK answers.
    pub packet_id: u16,
    /// One for all filters of the packet; `None` takes away the one a subscription had.
    pub subscription_id: Option<u32>,
    filters: &'a [u8],
}

/// What a subscription asks for besides its filter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FilterOptions {
    /// The highest QoS deliveries may have.
    pub qos: Qos,
    /// Not to be given what this client published itself.
    pub no_local: bool,
    /// The RETAIN flag is forwarded as it was published.
    pub retain_as_published: bool,
    /// Whether retained messages are wanted.
    pub retain_handling: RetainHandling,
}

/// MQTT 5.0 §3.8.3.1, "Retain Handling"; version 3 always sends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RetainHandling {
    /// On every SUBSCRIBE.
    Send,
    /// Only if the subscription did not exist.
    SendIfNew,
    /// Never.
    DoNotSend,
}

impl<'a> Subscribe<'a> {
    pub(crate) fn parse(reader: &mut Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let packet_id = reader.packet_id()?;
        let mut subscription_id = None;
        if version.is_v5() {
            Properties::read(reader, allowed::SUBSCRIBE, |property| {
                if let Property::SubscriptionId(id) = property {
                    subscription_id = Some(id);
                }
                Ok(())
            })?;
        }
        if reader.is_empty() {
            return Err(DecodeError::protocol("SUBSCRIBE without a topic filter"));
        }
        let filters = reader.rest();
        let mut check = Reader::new(filters);
        while !check.is_empty() {
            check.string()?;
            options(check.u8()?, version)?;
        }
        Ok(Self { packet_id, subscription_id, filters })
    }

    /// The filters with their options, in the order of the packet.
    pub fn filters(&self) -> Filters<'a> {
        Filters(Reader::new(self.filters))
    }
}

/// See [`Subscribe::filters`].
#[derive(Debug)]
pub struct Filters<'a>(Reader<'a>);

impl<'a> Iterator for Filters<'a> {
    type Item = (&'a str, FilterOptions);

    fn next(&mut self) -> Option<Self::Item> {
        let filter = self.0.string().ok()?;
        // Version 3 allows a subset of the bits of version 5 and `parse` has checked them.
        let options = options(self.0.u8().ok()?, Version::V5).ok()?;
        Some((filter, options))
    }
}

fn options(byte: u8, version: Version) -> Result<FilterOptions, DecodeError> {
    let reserved = match version {
        Version::V31 | Version::V311 => 0b1111_1100,
        Version::V5 => 0b1100_0000,
    };
    if byte & reserved != 0 {
        return Err(DecodeError::malformed("reserved bits of the subscription options are set"));
    }
    Ok(FilterOptions {
        qos: match byte & 3 {
            0 => Qos::AtMostOnce,
            1 => Qos::AtLeastOnce,
            2 => Qos::ExactlyOnce,
            _ => return Err(DecodeError::malformed("QoS of a subscription is 3")),
        },
        no_local: byte & 4 != 0,
        retain_as_published: byte & 8 != 0,
        retain_handling: match (byte >> 4) & 3 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            // MQTT 5.0 §3.8.3.1 calls it a protocol error, but as with QoS 3 there is no such value; brokers and
            // their tests agree on 0x81.
            _ => return Err(DecodeError::malformed("retain handling is 3")),
        },
    })
}

/// An UNSUBSCRIBE; its filters are walked with [`Unsubscribe::filters`].
#[derive(Debug, PartialEq)]
pub struct Unsubscribe<'a> {
    /// What UNSUBACK answers.
    pub packet_id: u16,
    filters: &'a [u8],
}

impl<'a> Unsubscribe<'a> {
    pub(crate) fn parse(reader: &mut Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let packet_id = reader.packet_id()?;
        if version.is_v5() {
            Properties::read(reader, allowed::UNSUBSCRIBE, |_| Ok(()))?;
        }
        if reader.is_empty() {
            return Err(DecodeError::protocol("UNSUBSCRIBE without a topic filter"));
        }
        let filters = reader.rest();
        let mut check = Reader::new(filters);
        while !check.is_empty() {
            check.string()?;
        }
        Ok(Self { packet_id, filters })
    }

    /// The filters in the order of the packet.
    pub fn filters(&self) -> TopicFilters<'a> {
        TopicFilters(Reader::new(self.filters))
    }
}

/// See [`Unsubscribe::filters`].
#[derive(Debug)]
pub struct TopicFilters<'a>(Reader<'a>);

impl<'a> Iterator for TopicFilters<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.string().ok()
    }
}
