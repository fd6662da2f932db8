//! How each kind of source is read.

mod poll;
mod sse;
mod websocket;

pub(crate) use poll::Memory as PollMemory;

use broker_core::Broker;

use crate::ask::Clients;
use crate::settings::Kind;
use crate::source::{End, Memory, Source};

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
