//! CONNECT into the terms of a connection, and the CONNACK that says them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use broker_core::{Action, Channel, ChannelCharacters, Encryption, Outbox, Principal, Qos};
use bytes::Bytes;

use super::alias::OutgoingAliases;
use super::convert;
use super::end::PendingWill;
use super::session::{Online, Tenths};
use crate::codec::{self, ConnAck, Connect, DecodeError, Dialect, Framing, Reason};
use crate::config::Config;

/// Which reason strings go on acknowledgements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Nothing,
    /// What somebody has decided, in whose words.
    Decided,
    All,
}

/// The terms both sides agreed on.
#[derive(Debug)]
pub(crate) struct Negotiated {
    pub(crate) dialect: Dialect,
    pub(crate) client_id: Arc<str>,
    /// Whether the client learns its identifier from CONNACK.
    pub(crate) assigned: bool,
    pub(crate) clean_start: bool,
    /// Longest silence accepted, one and a half keep alives; zero means no limit.
    pub(crate) max_silence_ms: u32,
    pub(crate) session_expiry_secs: u32,
    pub(crate) will: Option<Box<PendingWill>>,
    /// Whether the client is another broker's bridge.
    pub(crate) is_bridge: bool,
    pub(crate) told: Told,
    server_keep_alive_secs: Option<u16>,
    expiry_was_cut: bool,
    /// Largest packet the client takes, in bytes.
    pub(crate) max_packet_bytes: u32,
    receive_maximum: u16,
    topic_alias_maximum: u16,
    wants_response_info: bool,
}

/// Where a connection comes from, for operators.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller {
    pub(crate) since: Tenths,
    pub(crate) remote: Option<IpAddr>,
    pub(crate) remote_port: u16,
    pub(crate) encryption: Option<Encryption>,
    /// Where it came to.
    pub(crate) local: Option<SocketAddr>,
    /// What the client promised in CONNECT.
    pub(crate) keep_alive_secs: u16,
    /// The `User-Agent` of a WebSocket's request, shortened.
    pub(crate) user_agent: Option<Box<str>>,
    /// Which characters the texts may hold that are sent; kept here because [`Online`] has no place to spare.
    pub(crate) characters: ChannelCharacters,
    /// Why the server ends the connection, once it does from outside of it; here for the same reason.
    pub(crate) kicked: Option<Reason>,
}

/// Judges a CONNECT. `assigned_id` is used if the client gave none.
///
/// # Errors
/// The reason code for CONNACK.
pub(crate) fn negotiate(
    connect: &Connect<'_>,
    framing: Framing,
    config: &Config,
    assigned_id: impl FnOnce() -> Arc<str>,
) -> Result<Negotiated, DecodeError> {
    let dialect = Dialect { version: connect.version, framing };
    let v5 = connect.version.is_v5();
    let assigned = connect.client_id.is_empty();
    if assigned && !v5 && !connect.clean_start {
        return Err(DecodeError::new(
            Reason::ClientIdentifierNotValid,
            "an empty client identifier needs a clean session",
        ));
    }
    let server_keep_alive_secs = config
        .max_keep_alive_secs
        .filter(|&max| max > 0 && (connect.keep_alive_secs == 0 || connect.keep_alive_secs > max));
    // Version 3 has no way to tell the client, so there the override would cut connections that keep
    // their promise.
    let server_keep_alive_secs = server_keep_alive_secs.filter(|_| v5);
    let keep_alive_secs = server_keep_alive_secs.unwrap_or(connect.keep_alive_secs);
    let session_expiry_secs =
        connect.session_expiry_secs.min(config.max_session_expiry_secs.unwrap_or(u32::MAX));
    Ok(Negotiated {
        dialect,
        client_id: if assigned { assigned_id() } else { connect.client_id.into() },
        assigned,
        clean_start: connect.clean_start,
        max_silence_ms: u32::from(keep_alive_secs) * 1500,
        session_expiry_secs,
        will: will(connect, config)?,
        is_bridge: connect.is_bridge,
        told: match connect.request_problem_info {
            _ if !config.reason_strings => Told::Nothing,
            Some(true) => Told::All,
            // The standard lets them be sent to a client that does not say; but there are clients that read only the
            // short form of an acknowledgement, and those never ask.
            None => Told::Decided,
            Some(false) => Told::Nothing,
        },
        server_keep_alive_secs,
        expiry_was_cut: session_expiry_secs != connect.session_expiry_secs,
        receive_maximum: connect.receive_maximum,
        max_packet_bytes: connect.maximum_packet_size.unwrap_or(u32::MAX),
        topic_alias_maximum: connect.topic_alias_maximum.min(config.max_outgoing_topic_aliases),
        wants_response_info: connect.request_response_info,
    })
}

fn will(connect: &Connect<'_>, config: &Config) -> Result<Option<Box<PendingWill>>, DecodeError> {
    // A bridge leaves word of its end on a topic that is the broker's: the word is dropped, the bridge is let in.
    let Some(will) = connect.will.as_ref().filter(|will| !super::publishing::is_bridge_state(will.topic))
    else {
        return Ok(None);
    };
    if will.qos > config.maximum_qos {
        return Err(DecodeError::new(Reason::QosNotSupported, "will QoS is above the maximum"));
    }
    if will.retain && !config.retain_available {
        return Err(DecodeError::new(Reason::RetainNotSupported, "retained wills are not taken here"));
    }
    let channel = Channel::parse(will.topic)
        .map_err(|_| DecodeError::new(Reason::TopicNameInvalid, "will topic is not a valid topic name"))?;
    Ok(Some(Box::new(PendingWill {
        publish: convert::will(channel, will),
        delay_secs: will.properties.will_delay_secs,
        due_ms: 0,
        nonce: 0,
    })))
}

impl Negotiated {
    /// Whether this principal may have this will published.
    pub(crate) fn will_is_allowed(&self, principal: &Principal) -> bool {
        self.will.as_ref().is_none_or(|will| principal.allows(Action::Publish, will.publish.channel()))
    }

    /// What the session has to know of the connection.
    pub(crate) fn online(&self, config: &Config, outbox: Arc<Outbox>, caller: &Caller) -> Online {
        Online {
            outbox,
            caller: Box::new(caller.clone()),
            dialect: self.dialect,
            max_inflight: self.receive_maximum.min(config.max_inflight.max(1)),
            max_packet_bytes: self.max_packet_bytes,
            aliases: (self.topic_alias_maximum > 0)
                .then(|| Box::new(OutgoingAliases::new(self.topic_alias_maximum))),
        }
    }

    /// The CONNACK of success.
    pub(crate) fn connack(
        &self,
        config: &Config,
        session_present: bool,
        auth: Option<(&str, &[u8])>,
        hook: Option<&str>,
        gap: Option<&str>,
    ) -> Bytes {
        let announced = u32::try_from(config.max_packet_bytes).unwrap_or(u32::MAX);
        let connack = ConnAck {
            session_present,
            session_expiry_secs: self.expiry_was_cut.then_some(self.session_expiry_secs),
            receive_maximum: config.receive_maximum,
            maximum_qos: config.maximum_qos,
            retain_available: config.retain_available,
            maximum_packet_size: (announced < codec::MAX_REMAINING).then_some(announced),
            assigned_client_id: self.assigned.then_some(&*self.client_id),
            topic_alias_maximum: config.topic_alias_maximum,
            server_keep_alive_secs: self.server_keep_alive_secs,
            response_information: config.response_information.as_deref().filter(|_| self.wants_response_info),
            auth_method: auth.map(|(method, _)| method),
            auth_data: auth.map(|(_, data)| data).filter(|data| !data.is_empty()),
            user_properties: [hook.map(|hook| ("hook", hook)), gap.map(|gap| ("fanwire-gap", gap))],
            ..ConnAck::only(Reason::Success)
        };
        codec::connack(self.dialect, &connack)
    }
}

/// The highest QoS granted to a subscription.
pub(crate) fn grant(asked: Qos, config: &Config) -> Qos {
    asked.min(config.maximum_qos)
}
