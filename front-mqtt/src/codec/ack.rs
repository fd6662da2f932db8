//! The packets that are little more than a reason: acknowledgements, DISCONNECT, AUTH.

use super::property::allowed;
use super::reader::Reader;
use super::{DecodeError, Properties, Property, Reason, Version};

/// PUBACK, PUBREC, PUBREL or PUBCOMP (MQTT 5.0 §3.4 to §3.7).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ack {
    /// The exchange it belongs to.
    pub packet_id: u16,
    /// `Success` if the packet does not say.
    pub reason: Reason,
}

/// What a client may say in PUBACK and PUBREC.
pub(crate) const PUBACK_REASONS: &[Reason] = &[
    Reason::Success,
    Reason::NoMatchingSubscribers,
    Reason::UnspecifiedError,
    Reason::ImplementationSpecific,
    Reason::NotAuthorized,
    Reason::TopicNameInvalid,
    Reason::PacketIdentifierInUse,
    Reason::QuotaExceeded,
    Reason::PayloadFormatInvalid,
];

/// What a client may say in PUBREL and PUBCOMP.
pub(crate) const PUBREL_REASONS: &[Reason] = &[Reason::Success, Reason::PacketIdentifierNotFound];

/// What a client may say in DISCONNECT (MQTT 5.0 §3.14.2.1).
const DISCONNECT_REASONS: &[Reason] = &[
    Reason::Success,
    Reason::DisconnectWithWill,
    Reason::UnspecifiedError,
    Reason::MalformedPacket,
    Reason::ProtocolError,
    Reason::ImplementationSpecific,
    Reason::TopicNameInvalid,
    Reason::ReceiveMaximumExceeded,
    Reason::TopicAliasInvalid,
    Reason::PacketTooLarge,
    Reason::MessageRateTooHigh,
    Reason::QuotaExceeded,
    Reason::AdministrativeAction,
    Reason::PayloadFormatInvalid,
];

const AUTH_REASONS: &[Reason] = &[Reason::ContinueAuthentication, Reason::ReAuthenticate];

impl Ack {
    pub(crate) fn parse(
        reader: &mut Reader<'_>,
        version: Version,
        reasons: &[Reason],
    ) -> Result<Self, DecodeError> {
        let packet_id = reader.packet_id()?;
        let mut reason = Reason::Success;
        // A length of 2 means success, a length of 3 that there are no properties (MQTT 5.0 §3.4.2.1).
        if version.is_v5() && !reader.is_empty() {
            reason = read_reason(reader, reasons)?;
            if !reader.is_empty() {
                Properties::read(reader, allowed::ACK, |_| Ok(()))?;
            }
        }
        Ok(Self { packet_id, reason })
    }
}

/// DISCONNECT from a client (MQTT 5.0 §3.14).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Disconnect {
    /// `Success`: the will is thrown away. Anything else: it is published.
    pub reason: Reason,
    /// A new session expiry, in seconds.
    pub session_expiry_secs: Option<u32>,
}

impl Disconnect {
    pub(crate) fn parse(reader: &mut Reader<'_>, version: Version) -> Result<Self, DecodeError> {
        let mut disconnect = Self { reason: Reason::Success, session_expiry_secs: None };
        if version.is_v5() && !reader.is_empty() {
            disconnect.reason = read_reason(reader, DISCONNECT_REASONS)?;
            if !reader.is_empty() {
                Properties::read(reader, allowed::DISCONNECT, |property| {
                    if let Property::SessionExpiry(secs) = property {
                        disconnect.session_expiry_secs = Some(secs);
                    }
                    Ok(())
                })?;
            }
        }
        Ok(disconnect)
    }
}

/// AUTH from a client (MQTT 5.0 §3.15).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Auth<'a> {
    /// `ContinueAuthentication` or `ReAuthenticate`.
    pub reason: Reason,
    /// The mechanism's name, which must be the one of CONNECT.
    pub method: Option<&'a str>,
    /// What the mechanism says.
    pub data: Option<&'a [u8]>,
}

impl<'a> Auth<'a> {
    pub(crate) fn parse(reader: &mut Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        if !version.is_v5() {
            return Err(DecodeError::malformed("AUTH does not exist before version 5"));
        }
        let mut auth = Self { reason: Reason::Success, method: None, data: None };
        if reader.is_empty() {
            return Err(DecodeError::protocol("a client's AUTH must continue or ask to authenticate again"));
        }
        auth.reason = read_reason(reader, AUTH_REASONS)?;
        if !reader.is_empty() {
            Properties::read(reader, allowed::AUTH, |property| {
                match property {
                    Property::AuthMethod(method) => auth.method = Some(method),
                    Property::AuthData(data) => auth.data = Some(data),
                    _ => {}
                }
                Ok(())
            })?;
        }
        Ok(auth)
    }
}

fn read_reason(reader: &mut Reader<'_>, allowed: &[Reason]) -> Result<Reason, DecodeError> {
    Reason::from_byte(reader.u8()?, allowed)
        .ok_or(DecodeError::protocol("reason code is not one a client may send in this packet"))
}
