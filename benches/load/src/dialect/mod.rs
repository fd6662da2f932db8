//! Protocols as the tool speaks them: how to subscribe, recognise a delivery, and publish. No IO here.
//!
//! A protocol joins as one file with a [`Session`] and one line in [`Dialect`].

mod floor;
mod http;
mod nchan;
mod sse;

use std::fmt;
use std::str::FromStr;

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
}

impl Dialect {
    pub(crate) const ALL: [Self; 3] = [Self::Sse, Self::Floor, Self::Nchan];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sse => "sse",
            Self::Floor => "floor",
            Self::Nchan => "nchan",
        }
    }

    /// A connection that subscribes to `channel`.
    pub(crate) fn subscriber(self, channel: &str) -> Box<dyn Session> {
        match self {
            Self::Sse | Self::Floor => Box::new(sse::Subscriber::new(format!("/sse/{channel}"))),
            Self::Nchan => Box::new(sse::Subscriber::new(nchan::subscribe_path(channel))),
        }
    }

    /// A connection that publishes.
    pub(crate) fn publisher(self) -> Box<dyn Session> {
        match self {
            Self::Sse => Box::new(http::Publisher::new("/v1/publish/")),
            Self::Floor => Box::new(floor::Publisher),
            Self::Nchan => Box::new(http::Publisher::new(nchan::PUBLISH_PREFIX)),
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Dialect {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|dialect| dialect.name() == text).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|dialect| dialect.name()).collect();
            format!("`{text}` is not a dialect; known are {}", names.join(", "))
        })
    }
}
