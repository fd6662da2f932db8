//! Protocols as the tool speaks them: how to subscribe, recognise a delivery, and publish. No IO here.
//!
//! A protocol joins as one file with a [`Session`] and one line in [`Dialect`].

mod bayeux;
mod floor;
mod grip;
mod http;
mod mqtt;
mod nats;
mod nchan;
mod spoken;
mod sse;
mod websocket;

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Form;
use websocket::{Content, WebSocket};

pub(crate) use floor::{CONTROL_MAGIC, ControlFrame};
pub(crate) use grip::STREAM_PREFIX;
pub(crate) use spoken::{Security, Spoken, TLS_PREFIX};

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

    /// True once after an answer with which the server closes: what follows needs a new connection.
    fn take_closing(&mut self) -> bool {
        false
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
    /// Bayeux over WebSocket at `/cometd`; published to by long-polling.
    BayeuxWebSocket(bayeux::Ack),
    /// The same over long-polling.
    BayeuxLongPolling(bayeux::Ack),
    /// Pushpin: `GET /stream/{channel}` as EventSource; published to at its control port, the server's second.
    Pushpin,
    /// NATS.
    Nats,
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
    const NAMED: [(&'static str, Self); 17] = [
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
        ("bayeux-ws", Self::BayeuxWebSocket(bayeux::Ack::Off)),
        ("bayeux-ws-ack", Self::BayeuxWebSocket(bayeux::Ack::On)),
        ("bayeux-lp", Self::BayeuxLongPolling(bayeux::Ack::Off)),
        ("bayeux-lp-ack", Self::BayeuxLongPolling(bayeux::Ack::On)),
        ("pushpin", Self::Pushpin),
        ("nats", Self::Nats),
    ];

    pub(crate) fn name(self) -> &'static str {
        Self::NAMED.into_iter().find(|(_, dialect)| *dialect == self).map_or("?", |(name, _)| name)
    }

    /// Whether publishes go to the server's second port.
    pub(crate) fn publishes_apart(self) -> bool {
        self == Self::Pushpin
    }

    /// A connection that subscribes to `channel`.
    pub(crate) fn subscriber(self, channel: &str) -> Box<dyn Session> {
        match self {
            Self::Sse | Self::Floor => Box::new(sse::Subscriber::new(format!("/sse/{channel}"))),
            Self::Nchan => Box::new(sse::Subscriber::new(nchan::subscribe_path(channel))),
            Self::Mqtt(options) => Box::new(mqtt_client(options, Some(channel))),
            Self::MqttWebSocket(options) => mqtt_websocket(mqtt_client(options, Some(channel))),
            Self::BayeuxWebSocket(ack) => {
                let streaming = bayeux::Streaming::new(channel, ack);
                Box::new(WebSocket::new(streaming, "/cometd", None, Content::Text))
            }
            Self::BayeuxLongPolling(ack) => Box::new(bayeux::LongPolling::new(channel, ack)),
            Self::Pushpin => Box::new(sse::Subscriber::new(format!("{STREAM_PREFIX}{channel}"))),
            Self::Nats => Box::new(nats::Client::new(Some(channel))),
        }
    }

    /// A connection that publishes.
    pub(crate) fn publisher(self) -> Box<dyn Session> {
        match self {
            Self::Sse => Box::new(http::Publisher::new(Form::Channel(PUBLISH_PREFIX))),
            Self::BayeuxWebSocket(_) | Self::BayeuxLongPolling(_) => Box::new(bayeux::Publisher::new()),
            Self::Floor => Box::new(floor::Publisher),
            Self::Nchan => Box::new(http::Publisher::new(Form::Channel(nchan::PUBLISH_PREFIX))),
            Self::Pushpin => Box::new(http::Publisher::new(Form::Grip)),
            Self::Nats => Box::new(nats::Client::new(None)),
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
