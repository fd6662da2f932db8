//! `[mqtt]`

use broker_core::{ChannelCharacters, Qos};
use front_mqtt::{ClientIdScope, Config, Denied, DeniedSubscribe, QueuePolicy};
use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::broker::Outbox;
use settings::{Period, Setting, Size, Span};

settings::section!(
    /// `[mqtt]`
    pub(in crate::config) Mqtt: Config {
        handshake_timeout: Period,
        max_connections: usize,
        max_connections_per_address: Option<usize>,
        max_sessions: usize,
        max_absent_sessions_per_user: usize,
        max_absent_sessions_per_address: usize,
        client_id_scope: Scope,
        max_packet_bytes: Size,
        receive_maximum: u16,
        max_unreleased_publishes: u16,
        topic_alias_maximum: u16,
        max_outgoing_topic_aliases: u16,
        maximum_qos: QosNumber,
        retain_available: bool,
        max_keep_alive_secs: Option<u16>,
        max_session_expiry_secs: Option<u32>,
        max_inflight: u16,
        max_inflight_bytes: Size,
        max_live_queued_messages: usize,
        max_live_queued_bytes: Size,
        max_queued_messages: usize,
        max_queued_bytes: Size,
        queue_policy: Queue,
        max_group_queued_messages: usize,
        max_group_queued_bytes: Size,
        max_groups_queued_bytes: Size,
        max_waiting_retained: usize,
        queue_qos0_offline: bool,
        max_subscriptions: usize,
        denied_publish: DeniedPublish,
        denied_subscribe: DeniedSubscription,
        outbox: Outbox,
        sys_interval: Span,
        linger: Span,
        response_information: Option<String>,
        reason_strings: bool,
    } beside {
        pub(in crate::config) address: String = crate::Config::default().mqtt.map_or_else(String::new, |address| address.to_string()),
        pub(in crate::config) topics: Topics = Topics::from_value(ChannelCharacters::default()),
    }
);

settings::choice!(
    /// What may be published to, by any protocol: a topic is a channel's name.
    pub(in crate::config) Topics: ChannelCharacters { Strict = "strict", Any = "any" }
);

settings::choice!(
    /// Whose client identifiers are one name space.
    pub(in crate::config) Scope: ClientIdScope { User = "user", Exclusive = "exclusive", Shared = "shared" }
);

settings::choice!(
    /// What a full session loses.
    pub(in crate::config) Queue: QueuePolicy { DropNewest = "drop_newest", DropOldest = "drop_oldest" }
);

settings::choice!(
    /// What a publish without the right is answered with.
    pub(in crate::config) DeniedPublish: Denied { Acknowledge = "acknowledge", Disconnect = "disconnect" }
);

settings::choice!(
    /// What a subscription without the right is answered with.
    pub(in crate::config) DeniedSubscription: DeniedSubscribe { NotAuthorized = "not_authorized", Unspecified = "unspecified" }
);

/// 0, 1 or 2.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct QosNumber(Qos);

impl Setting<Qos> for QosNumber {
    fn from_value(value: Qos) -> Self {
        QosNumber(value)
    }
    fn into_value(self) -> Qos {
        self.0
    }
}

impl Serialize for QosNumber {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(match self.0 {
            Qos::AtMostOnce => 0,
            Qos::AtLeastOnce => 1,
            Qos::ExactlyOnce => 2,
        })
    }
}

impl<'de> Deserialize<'de> for QosNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            0 => Ok(QosNumber(Qos::AtMostOnce)),
            1 => Ok(QosNumber(Qos::AtLeastOnce)),
            2 => Ok(QosNumber(Qos::ExactlyOnce)),
            other => Err(D::Error::invalid_value(Unexpected::Unsigned(other), &"0, 1 or 2")),
        }
    }
}
