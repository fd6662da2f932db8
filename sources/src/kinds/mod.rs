//! How each kind of source is read.

mod poll;
mod sse;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use broker_core::Broker;

use crate::ask::{Clients, Failure};
use crate::pace::Pace;
use crate::positions::Positions;
use crate::settings::{Kind, Settings};
use crate::source::Source;

/// Reads one connection of it, or its page, until that ends.
pub(crate) async fn read(source: &Source, broker: &Broker, clients: &Clients, memory: &mut Memory) -> End {
    let read = match source.settings().kind {
        Kind::Sse => sse::read(source, broker, clients, memory).await,
        Kind::Websocket => websocket::read(source, broker, clients, memory).await,
        Kind::Poll => poll::read(source, broker, clients, memory).await,
        Kind::Longpoll => poll::read_long(source, broker, clients, memory).await,
    };
    read.err().unwrap_or(End::Over)
}

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum End {
    /// As it may: it is connected to again.
    Over,
    /// There is nothing more.
    Stop,
    /// The broker is closed.
    Closed,
    Failed(Failure),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<outgoing::Error> for End {
    fn from(error: outgoing::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<crate::publish::Closed> for End {
    fn from(_: crate::publish::Closed) -> Self {
        Self::Closed
    }
}

/// What a source remembers from one connection to the next.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) pace: Pace,
    /// The last id of an event stream.
    pub(crate) last_id: Option<String>,
    /// When an event stream wants to be asked again.
    pub(crate) retry: Option<Duration>,
    pub(crate) poll: poll::Memory,
    /// Where the last id of an event stream outlives it.
    positions: Arc<Positions>,
}

impl Memory {
    /// Of one that was not connected to in this life.
    pub(crate) fn new(settings: &Settings, positions: Arc<Positions>) -> Self {
        Self {
            pace: Pace::new(settings.messages_per_second, settings.bytes_per_second),
            last_id: if settings.kind == Kind::Sse { positions.of(settings) } else { None },
            retry: None,
            poll: poll::Memory::default(),
            positions,
        }
    }
}
