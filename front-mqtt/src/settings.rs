//! `[mqtt]`

use broker_core::{ChannelCharacters, Qos};
use front::{Common, Outbox, Section};
use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use settings::{Period, Setting, Size, Span};

use crate::config::{ClientIdScope, Config, Denied, DeniedSubscribe, QueuePolicy};

settings::section!(
    /// `[mqtt]`: what of the front can be set in a configuration.
    pub Mqtt: Config {
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
        // The broker's, as what is a legal topic is a legal channel for all.
        topics: Topics = Topics::from_value(ChannelCharacters::default()),
    }
);

impl Section for Mqtt {
    type Config = Config;
    const NAME: &'static str = "mqtt";
    const ADDRESS: Option<&'static str> = Some("127.0.0.1:1883");

    fn set_broker(&self, broker: &mut broker_core::Config) {
        broker.channel_characters = self.topics.into_value();
    }

    fn into_config(self, common: &Common) -> Config {
        let config: Config = self.into_value();
        let usual = Config::default().max_packet_bytes;
        Config {
            origins: common.origins.clone(),
            token_sources: common.token_sources.clone(),
            intake: common.intake.clone(),
            max_packet_bytes: common.with_room(config.max_packet_bytes, usual),
            ..config
        }
    }
}

settings::choice!(
    /// What may be published to, by any protocol: a topic is a channel's name.
    Topics: non_exhaustive ChannelCharacters { Strict = "strict", Any = "any" }
);

settings::choice!(
    /// Whose client identifiers are one name space.
    Scope: ClientIdScope { User = "user", Exclusive = "exclusive", Shared = "shared" }
);

settings::choice!(
    /// What a full session loses.
    Queue: QueuePolicy { DropNewest = "drop_newest", DropOldest = "drop_oldest" }
);

settings::choice!(
    /// What a publish without the right is answered with.
    DeniedPublish: Denied { Acknowledge = "acknowledge", Disconnect = "disconnect" }
);

settings::choice!(
    /// What a subscription without the right is answered with.
    DeniedSubscription: DeniedSubscribe { NotAuthorized = "not_authorized", Unspecified = "unspecified" }
);

/// 0, 1 or 2.
#[derive(Clone, Copy, Debug)]
struct QosNumber(Qos);

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
