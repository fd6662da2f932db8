//! Protocols as the tool speaks them: how to subscribe, recognise a delivery, and publish. No IO here.
//!
//! A protocol joins as one file with a [`Session`] and one line in [`Dialect`].

mod bayeux;
mod floor;
mod http;
mod mqtt;
mod nchan;
mod sse;
mod websocket;

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use websocket::{Content, WebSocket};

pub(crate) use floor::{CONTROL_MAGIC, ControlFrame};

/// What a session tells about the bytes it was given.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// Subscribed (or, for a publisher, ready to publish).
    Ready,
    /// One delivery's payload as published.
    Payload(&'a [u8]),
    /// The server has taken one publish.
    Accepted,
    /// The server has refused one publish, with this status or reason code.
    Refused(u16),
}

/// The peer sent what the protocol does not allow or the tool does not expect.
#[derive(Debug)]
pub(crate) struct Violation(pub(crate) String);

/// One connection's protocol state. Bytes in, bytes and events out.
pub(crate) trait Session {
    /// The first bytes to send once connected.
    fn start(&mut self, out: &mut Vec<u8>, on: &mut dyn FnMut(Event<'_>));

    /// Takes what it can from `input`, returns how many bytes that was; the rest is given again with more.
    ///
    /// # Errors
    /// When the peer broke the protocol; the connection is then closed and counted as broken.
    fn receive(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        on: &mut dyn FnMut(Event<'_>),
    ) -> Result<usize, Violation>;

    /// Appends one publish. Called with at most [`Session::window`] not yet accepted.
    fn publish(
        &mut self,
        _channel: &str,
        _payload: &[u8],
        _out: &mut Vec<u8>,
        _on: &mut dyn FnMut(Event<'_>),
    ) {
    }

    /// How many publishes may wait for their answer; 0 for a session that cannot publish.
    fn window(&self) -> usize {
        0
    }
}

/// Which protocol a server under test is spoken to in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Fanwire: `GET /sse/{channel}`, `POST /v1/publish/{channel}`.
    Sse,
    /// The bare server: subscribes as SSE, publishes by control frames without answers.
    Floor,
    /// nginx with nchan: `GET /sub/{channel}` as EventSource, `POST /pub/{channel}`.
    Nchan,
    /// MQTT over TCP.
    Mqtt(mqtt::Options),
    /// MQTT over WebSocket at `/mqtt`.
    MqttWebSocket(mqtt::Options),
    /// Bayeux over WebSocket at `/cometd`; published to by `POST /v1/publish/{channel}`.
    BayeuxWebSocket,
    /// The same over long-polling.
    BayeuxLongPolling,
}

const MQTT: mqtt::Options = mqtt::Options { level: 4, qos: 0 };
const MQTT_QOS1: mqtt::Options = mqtt::Options { level: 4, qos: 1 };
const MQTT5: mqtt::Options = mqtt::Options { level: 5, qos: 0 };
const MQTT5_QOS1: mqtt::Options = mqtt::Options { level: 5, qos: 1 };

/// Where Fanwire takes publishes over HTTP.
const PUBLISH_PREFIX: &str = "/v1/publish/";

/// Makes the client ids of one process differ; the process id makes those of several.
static NEXT_CLIENT: AtomicU64 = AtomicU64::new(0);

impl Dialect {
    const NAMED: [(&'static str, Self); 13] = [
        ("sse", Self::Sse),
        ("floor", Self::Floor),
        ("nchan", Self::Nchan),
        ("mqtt", Self::Mqtt(MQTT)),
        ("mqtt-qos1", Self::Mqtt(MQTT_QOS1)),
        ("mqtt5", Self::Mqtt(MQTT5)),
        ("mqtt5-qos1", Self::Mqtt(MQTT5_QOS1)),
        ("mqtt-ws", Self::MqttWebSocket(MQTT)),
        ("mqtt-ws-qos1", Self::MqttWebSocket(MQTT_QOS1)),
        ("mqtt5-ws", Self::MqttWebSocket(MQTT5)),
        ("mqtt5-ws-qos1", Self::MqttWebSocket(MQTT5_QOS1)),
        ("bayeux-ws", Self::BayeuxWebSocket),
        ("bayeux-lp", Self::BayeuxLongPolling),
    ];

    pub(crate) fn name(self) -> &'static str {
        Self::NAMED.into_iter().find(|(_, dialect)| *dialect == self).map_or("?", |(name, _)| name)
    }

    /// A connection that subscribes to `channel`.
    pub(crate) fn subscriber(self, channel: &str) -> Box<dyn Session> {
        match self {
            Self::Sse | Self::Floor => Box::new(sse::Subscriber::new(format!("/sse/{channel}"))),
            Self::Nchan => Box::new(sse::Subscriber::new(nchan::subscribe_path(channel))),
            Self::Mqtt(options) => Box::new(mqtt_client(options, Some(channel))),
            Self::MqttWebSocket(options) => mqtt_websocket(mqtt_client(options, Some(channel))),
            Self::BayeuxWebSocket => {
                Box::new(WebSocket::new(bayeux::Streaming::new(channel), "/cometd", None, Content::Text))
            }
            Self::BayeuxLongPolling => Box::new(bayeux::LongPolling::new(channel)),
        }
    }

    /// A connection that publishes.
    pub(crate) fn publisher(self) -> Box<dyn Session> {
        match self {
            Self::Sse | Self::BayeuxWebSocket | Self::BayeuxLongPolling => {
                Box::new(http::Publisher::new(PUBLISH_PREFIX))
            }
            Self::Floor => Box::new(floor::Publisher),
            Self::Nchan => Box::new(http::Publisher::new(nchan::PUBLISH_PREFIX)),
            Self::Mqtt(options) => Box::new(mqtt_client(options, None)),
            Self::MqttWebSocket(options) => mqtt_websocket(mqtt_client(options, None)),
        }
    }
}

fn mqtt_client(options: mqtt::Options, topic: Option<&str>) -> mqtt::Client {
    let number = NEXT_CLIENT.fetch_add(1, Ordering::Relaxed);
    mqtt::Client::new(options, format!("load-{}-{number}", std::process::id()), topic.map(str::to_owned))
}

fn mqtt_websocket(client: mqtt::Client) -> Box<dyn Session> {
    Box::new(WebSocket::new(client, "/mqtt", Some("mqtt"), Content::Binary))
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Dialect {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::NAMED.into_iter().find(|(name, _)| *name == text).map(|(_, dialect)| dialect).ok_or_else(|| {
            let names: Vec<&str> = Self::NAMED.iter().map(|(name, _)| *name).collect();
            format!("`{text}` is not a dialect; known are {}", names.join(", "))
        })
    }
}
