//! Limits and choices of the MQTT front.

use std::time::Duration;

use broker_core::{OutboxConfig, Qos};
use http_edge::{Intake, OriginPolicy, TokenSources};

/// What the front accepts and how much it holds for each client. The defaults suit browsers and backends
/// that behave; everything a client can grow has a bound.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Where MQTT over WebSocket is; the front answers HTTP there and below, and requests elsewhere are 404. Default
    /// `/mqtt`. Not looked at by [`Front::nested`](crate::Front::nested), nor over TCP.
    pub path: String,
    /// Time from accept to a complete CONNECT, authentication included. Default 10 s; then the
    /// connection is closed.
    pub handshake_timeout: Duration,
    /// Connections at a time, over TCP and WebSocket together. Default 1,000,000. One more is answered
    /// with CONNACK 0x97 (version 3: 0x03) and closed.
    pub max_connections: usize,
    /// Connections at a time from one address. Default `None`, no bound: many clients share one behind a
    /// proxy.
    pub max_connections_per_address: Option<usize>,
    /// Sessions, connected and detached together. Default 1,000,000. At the bound only clients whose
    /// session exists can connect; others get CONNACK 0x97.
    pub max_sessions: usize,
    /// Sessions of one user whose clients are away. Default 10,000, because the devices of a fleet may share one user.
    /// At the bound a client that would begin one more session that outlives its connection gets CONNACK 0x97 (version
    /// 3: 0x03); sessions that exist are resumed as ever.
    pub max_absent_sessions_per_user: usize,
    /// The same for clients without a user, by their address (IPv6: by /64). Default 10,000: clients that come through
    /// a proxy share its address, but rarely as many are away and new ones coming at a time.
    pub max_absent_sessions_per_address: usize,
    /// Whose client identifiers are one name space. Default [`ClientIdScope::User`].
    pub client_id_scope: ClientIdScope,
    /// Largest packet taken from a client, in bytes of the whole packet. Default 5 MiB, which leaves room
    /// for topic and properties around the broker's largest payload. Decided from the fixed header; over
    /// it: DISCONNECT 0x95. Announced to version 5 clients unless it is 268,435,455 or more.
    pub max_packet_bytes: usize,
    /// What counts the packets that are not whole yet, and how slowly they may come. Default that of the process. Over
    /// it: DISCONNECT 0x97 (CONNACK 0x97) for the one that makes the least progress, 0x8D for one that is too slow.
    pub intake: Intake,
    /// Unfinished QoS 2 publishes that a version 5 client is told it may have. Default 100, announced.
    ///
    /// So many of any client's publishes are under way at a time to channels that an engine keeps; what follows waits.
    pub receive_maximum: u16,
    /// Unfinished QoS 2 publishes that are borne from a version 5 client all the same. Default 65,535, as many as there
    /// are identifiers, because some clients, MQTT.js among them, do not look at the maximum, and because all of them
    /// cost 8 KiB. Over it: DISCONNECT 0x93. Never less than `receive_maximum`.
    pub max_unreleased_publishes: u16,
    /// Topic aliases a client may set. Default 10, announced; 0 takes none. Over it: DISCONNECT 0x94.
    pub topic_alias_maximum: u16,
    /// Topic aliases the front sets toward one client, at most; the client's own maximum counts too.
    /// Default 16; 0 sets none.
    pub max_outgoing_topic_aliases: u16,
    /// Highest QoS a client may publish with; announced if it is not 2. Default 2. Over it: DISCONNECT
    /// 0x9B. Subscriptions are granted at most this.
    pub maximum_qos: Qos,
    /// Whether clients may publish retained messages; announced if not. Default true. If not: DISCONNECT
    /// 0x9A.
    pub retain_available: bool,
    /// Longest keep alive, in seconds; longer ones, and none at all, are replaced by it (server keep alive).
    /// Default `None`: what the client asks for.
    pub max_keep_alive_secs: Option<u16>,
    /// Longest time a session outlives its connection, in seconds; version 5 clients are told if theirs is
    /// cut. Default `None`: for ever, as the client asks.
    pub max_session_expiry_secs: Option<u32>,
    /// Unacknowledged QoS 1 and 2 publishes toward one client; the client's receive maximum counts too.
    /// Default 500. Later messages wait in the session's queue.
    pub max_inflight: u16,
    /// Bytes of those publishes. Default 512 KiB; one larger message is sent alone. Kept below the
    /// outbox's bound so that a slow reader fills its queue instead of losing its connection.
    pub max_inflight_bytes: usize,
    /// Messages at QoS 1 and 2 that wait for one client that is connected. Default 100,000, so that a burst finds room
    /// until the client has read it. Then nothing is dropped in silence: the connection is closed, in version 5 with
    /// DISCONNECT 0x97, and the session goes on as an absent client's, with what waits in it.
    pub max_live_queued_messages: usize,
    /// Bytes of those messages, overhead included. Default 16 MiB, some 60,000 small ones; one larger message always
    /// has a place. Then as [`Config::max_live_queued_messages`] says.
    pub max_live_queued_bytes: usize,
    /// Messages that wait in one session while its client is away; what waited before counts, and stays. Default 1,000;
    /// then [`Config::queue_policy`] says what is dropped.
    pub max_queued_messages: usize,
    /// Bytes of those messages, overhead included. Default 1 MiB; then [`Config::queue_policy`] says what is
    /// dropped.
    pub max_queued_bytes: usize,
    /// Which message a full session loses while its client is away; it is counted. Messages whose time is over go
    /// first. Default [`QueuePolicy::DropNewest`].
    pub queue_policy: QueuePolicy,
    /// Messages that wait in one shared subscription because none of its members has room, or none is connected.
    /// Default 100,000, as for one client that is connected; then the newest is dropped, counted and logged.
    pub max_group_queued_messages: usize,
    /// Bytes of those messages, overhead included. Default 16 MiB; then as above.
    pub max_group_queued_bytes: usize,
    /// Bytes that wait in all shared subscriptions together, because one client may hold thousands of them. Default
    /// 256 MiB; then as above.
    pub max_groups_queued_bytes: usize,
    /// Retained messages that wait for one client after it has subscribed, besides those: they are in the
    /// retained store anyway, and what waits is only a reference. Default 100,000; then the newest is dropped
    /// and counted.
    pub max_waiting_retained: usize,
    /// Whether QoS 0 messages are queued for a detached session too. Default false: they are dropped.
    pub queue_qos0_offline: bool,
    /// Subscriptions of one session. Default 10,000. Over it: SUBACK 0x97.
    pub max_subscriptions: usize,
    /// What happens to a publish the client has no right to. Default [`Denied::Acknowledge`].
    pub denied_publish: Denied,
    /// What a SUBSCRIBE without the right is answered with. Default [`DeniedSubscribe::NotAuthorized`].
    pub denied_subscribe: DeniedSubscribe,
    /// What waits to be written to one client. Default 1,000 frames, 1 MiB, drop oldest (QoS 0 only).
    pub outbox: OutboxConfig,
    /// How often `$SYS/broker/...` is published. Default 10 s; zero never.
    pub sys_interval: Duration,
    /// How long a connection is read on after the last packet to it, so that a client sees why it was
    /// closed. Default 1 s.
    pub linger: Duration,
    /// Response information for version 5 clients that ask for it. Default `None`.
    pub response_information: Option<String>,
    /// Whether a version 5 client is told in words why something was refused, besides the code. Default true: in
    /// CONNACK and DISCONNECT always, in acknowledgements if its CONNECT asks for problem information. False for
    /// clients that fail over a reason string anywhere.
    pub reason_strings: bool,
    /// Pages that may open a WebSocket. Default: those of the same origin and of this machine
    /// ([`OriginPolicy::Loopback`]).
    pub origins: OriginPolicy,
    /// Where a WebSocket's request may carry a token besides its headers, because pages cannot set those.
    /// Default nowhere.
    pub token_sources: TokenSources,
}

/// Whose client identifiers are one name space, so that a second connection with one takes the session of the first
/// over. Clients without a user always share one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum ClientIdScope {
    /// Each user's: nobody can end the connection of another user by its name.
    #[default]
    User,
    /// The server's, and whose session it is stays so: another user's CONNECT with its name gets CONNACK 0x85 (version
    /// 3: 0x02).
    Exclusive,
    /// The server's, and whoever comes later takes the session over, whoever it is.
    Shared,
}

/// What a session loses when as much waits in it as may.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum QueuePolicy {
    /// The message that just came: what is kept has no gap, which suits commands and logs.
    #[default]
    DropNewest,
    /// The message that has waited longest: what is kept is fresh, which suits states.
    DropOldest,
}

/// What happens to a publish the client has no right to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Denied {
    /// QoS 0 is dropped; QoS 1 and 2 are acknowledged with 0x87, or as if nothing had happened for
    /// version 3, which has no code for it.
    #[default]
    Acknowledge,
    /// The connection is closed, for version 5 with DISCONNECT 0x87.
    Disconnect,
}

/// The reason code of a subscription the client has no right to. Version 3 has one code for everything, 0x80.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum DeniedSubscribe {
    /// 0x87, which says why.
    #[default]
    NotAuthorized,
    /// 0x80, which does not; also for clients that know no other code.
    Unspecified,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            path: "/mqtt".to_owned(),
            handshake_timeout: Duration::from_secs(10),
            max_connections: 1_000_000,
            max_connections_per_address: None,
            max_sessions: 1_000_000,
            max_absent_sessions_per_user: 10_000,
            max_absent_sessions_per_address: 10_000,
            client_id_scope: ClientIdScope::default(),
            max_packet_bytes: 5 << 20,
            intake: Intake::default(),
            receive_maximum: 100,
            max_unreleased_publishes: u16::MAX,
            topic_alias_maximum: 10,
            max_outgoing_topic_aliases: 16,
            maximum_qos: Qos::ExactlyOnce,
            retain_available: true,
            max_keep_alive_secs: None,
            max_session_expiry_secs: None,
            max_inflight: 500,
            max_inflight_bytes: 512 << 10,
            max_live_queued_messages: 100_000,
            max_live_queued_bytes: 16 << 20,
            max_queued_messages: 1_000,
            max_group_queued_messages: 100_000,
            max_group_queued_bytes: 16 << 20,
            max_groups_queued_bytes: 256 << 20,
            max_waiting_retained: 100_000,
            max_queued_bytes: 1 << 20,
            queue_policy: QueuePolicy::default(),
            queue_qos0_offline: false,
            max_subscriptions: 10_000,
            denied_publish: Denied::default(),
            denied_subscribe: DeniedSubscribe::default(),
            outbox: OutboxConfig::default(),
            sys_interval: Duration::from_secs(10),
            linger: Duration::from_secs(1),
            response_information: None,
            reason_strings: true,
            origins: OriginPolicy::default(),
            token_sources: TokenSources::default(),
        }
    }
}
