//! CONNECT (MQTT 3.1.1 §3.1, MQTT 5.0 §3.1).

use broker_core::Qos;

use super::property::allowed;
use super::reader::Reader;
use super::topic::topic_is_valid;
use super::{DecodeError, Properties, Property, PublishProperties, Reason, Version};

/// A CONNECT, borrowed from the input.
#[derive(Debug, PartialEq)]
pub struct Connect<'a> {
    /// From the protocol name and level.
    pub version: Version,
    /// The client is another broker's bridge and says so by bit 0x80 of the protocol level: mosquitto's convention. It
    /// wants nothing back that it has published, and RETAIN as it was published.
    pub is_bridge: bool,
    /// "Clean Session" in version 3: the old session is thrown away.
    pub clean_start: bool,
    /// Longest silence the client promises, in seconds; 0 means no limit.
    pub keep_alive_secs: u16,
    /// Empty if the server is to choose one.
    pub client_id: &'a str,
    /// What to publish when the connection is lost.
    pub will: Option<LastWill<'a>>,
    /// The user name.
    pub user: Option<&'a str>,
    /// The password: bytes, not text.
    pub password: Option<&'a [u8]>,
    /// Seconds the session outlives the connection; absent in a v5 CONNECT is 0, `u32::MAX` is for ever.
    pub session_expiry_secs: u32,
    /// Unfinished QoS 1 and 2 publishes the client takes at a time.
    pub receive_maximum: u16,
    /// Largest packet the client takes, in bytes; `None` is no limit.
    pub maximum_packet_size: Option<u32>,
    /// Highest alias the client takes; 0 is none.
    pub topic_alias_maximum: u16,
    /// Whether the client wants response information.
    pub request_response_info: bool,
    /// Whether reason strings may be sent on any packet. If the client does not say, they may (MQTT 5.0 §3.1.2.11.7).
    pub request_problem_info: Option<bool>,
    /// Enhanced authentication: the mechanism's name.
    pub auth_method: Option<&'a str>,
    /// Enhanced authentication: the client's first data.
    pub auth_data: Option<&'a [u8]>,
    /// The whole set, for the user properties.
    pub properties: Properties<'a>,
}

/// The will of a CONNECT (MQTT 5.0 §3.1.2.5).
#[derive(Debug, PartialEq)]
pub struct LastWill<'a> {
    /// Where it goes.
    pub topic: &'a str,
    /// What it says.
    pub payload: &'a [u8],
    /// How it is delivered.
    pub qos: Qos,
    /// Whether it is kept.
    pub retain: bool,
    /// With the will delay among them.
    pub properties: PublishProperties<'a>,
}

/// The bit of the protocol level by which a bridge says what it is.
const BRIDGE: u8 = 0x80;

/// The version that a protocol name and level stand for, and whether a bridge speaks it.
fn spoken(name: &[u8], level: u8) -> Option<(Version, bool)> {
    let version = match (name, level & !BRIDGE) {
        (b"MQIsdp", 3) => Version::V31,
        (b"MQTT", 4) => Version::V311,
        (b"MQTT", 5) => Version::V5,
        _ => return None,
    };
    Some((version, level & BRIDGE != 0))
}

/// In which version's shape a CONNECT is answered that cannot be accepted, if its body says so much. A level that
/// nobody speaks is answered as version 3 is, because that is what clients read that are older than version 5; only a
/// level above 5 whose body is one of version 5 gets the shape of that (MQTT 3.1.1 §3.1.2.2, MQTT 5.0 §3.1.2.2).
pub fn shape_of_answer(body: &[u8]) -> Option<Version> {
    let mut reader = Reader::new(body);
    let name = reader.binary().ok().filter(|name| *name == b"MQTT" || *name == b"MQIsdp")?;
    let level = reader.u8().ok()?;
    if let Some((version, _)) = spoken(name, level) {
        return Some(version);
    }
    let is_later = name == b"MQTT" && level > 5 && level & BRIDGE == 0;
    let like_5 =
        is_later && Connect::parse_as(Version::V5, false, &mut reader).is_ok_and(|_| reader.finish().is_ok());
    Some(if like_5 { Version::V5 } else { Version::V311 })
}

impl<'a> Connect<'a> {
    pub(crate) fn parse(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let name = reader.binary()?;
        if name != b"MQTT" && name != b"MQIsdp" {
            return Err(DecodeError::new(Reason::UnsupportedProtocolVersion, "protocol name is not MQTT"));
        }
        let Some((version, is_bridge)) = spoken(name, reader.u8()?) else {
            return Err(DecodeError::new(
                Reason::UnsupportedProtocolVersion,
                "protocol level is not one of 3, 4 and 5",
            ));
        };
        Self::parse_as(version, is_bridge, reader)
    }

    /// What follows the protocol level.
    fn parse_as(version: Version, is_bridge: bool, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let flags = Flags::parse(reader.u8()?, version)?;
        let mut connect = Self {
            version,
            is_bridge,
            clean_start: flags.clean_start,
            keep_alive_secs: reader.u16()?,
            client_id: "",
            will: None,
            user: None,
            password: None,
            session_expiry_secs: if version.is_v5() || flags.clean_start { 0 } else { u32::MAX },
            receive_maximum: u16::MAX,
            maximum_packet_size: None,
            topic_alias_maximum: 0,
            request_response_info: false,
            request_problem_info: None,
            auth_method: None,
            auth_data: None,
            properties: Properties::default(),
        };
        if version.is_v5() {
            connect.read_properties(reader)?;
        }
        connect.client_id = reader.string()?;
        if let Some((qos, retain)) = flags.will {
            let properties = if version.is_v5() {
                PublishProperties::read(reader, allowed::WILL)?
            } else {
                PublishProperties::default()
            };
            let topic = reader.string()?;
            if !topic_is_valid(topic) {
                return Err(DecodeError::new(
                    Reason::TopicNameInvalid,
                    "will topic is not a valid topic name",
                ));
            }
            let payload = reader.binary()?;
            connect.will = Some(LastWill { topic, payload, qos, retain, properties });
        }
        if flags.user {
            connect.user = Some(reader.string()?);
        }
        if flags.password {
            connect.password = Some(reader.binary()?);
        }
        Ok(connect)
    }

    fn read_properties(&mut self, reader: &mut Reader<'a>) -> Result<(), DecodeError> {
        self.properties = Properties::read(reader, allowed::CONNECT, |property| {
            match property {
                Property::SessionExpiry(secs) => self.session_expiry_secs = secs,
                Property::ReceiveMaximum(maximum) => self.receive_maximum = maximum,
                Property::MaximumPacketSize(bytes) => self.maximum_packet_size = Some(bytes),
                Property::TopicAliasMaximum(maximum) => self.topic_alias_maximum = maximum,
                Property::RequestResponseInfo(wanted) => self.request_response_info = wanted,
                Property::RequestProblemInfo(wanted) => self.request_problem_info = Some(wanted),
                Property::AuthMethod(method) => self.auth_method = Some(method),
                Property::AuthData(data) => self.auth_data = Some(data),
                _ => {}
            }
            Ok(())
        })?;
        if self.auth_data.is_some() && self.auth_method.is_none() {
            return Err(DecodeError::protocol("authentication data without an authentication method"));
        }
        Ok(())
    }
}

/// The connect flags byte (MQTT 5.0 §3.1.2.3).
struct Flags {
    clean_start: bool,
    will: Option<(Qos, bool)>,
    user: bool,
    password: bool,
}

impl Flags {
    fn parse(byte: u8, version: Version) -> Result<Self, DecodeError> {
        if byte & 1 != 0 {
            return Err(DecodeError::malformed("reserved connect flag is set"));
        }
        let will_retain = byte & 0x20 != 0;
        let will_qos = match (byte >> 3) & 3 {
            0 => Qos::AtMostOnce,
            1 => Qos::AtLeastOnce,
            2 => Qos::ExactlyOnce,
            _ => return Err(DecodeError::malformed("will QoS is 3")),
        };
        let has_will = byte & 4 != 0;
        if !has_will && (will_retain || will_qos != Qos::AtMostOnce) {
            return Err(DecodeError::malformed("will QoS or will retain without a will"));
        }
        let (user, password) = (byte & 0x80 != 0, byte & 0x40 != 0);
        if password && !user && !version.is_v5() {
            return Err(DecodeError::malformed("password without a user name"));
        }
        Ok(Self {
            clean_start: byte & 2 != 0,
            will: has_will.then_some((will_qos, will_retain)),
            user,
            password,
        })
    }
}
