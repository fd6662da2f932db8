//! A connect as it comes, what becomes of it, and what it is answered.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::codec::reply::Advice;
use crate::config::Transport;
use crate::protocol::end::End;
use crate::protocol::timesync::Timesync;

/// A connect as it came.
#[derive(Debug, Clone)]
pub(crate) struct ConnectRequest {
    /// JSON text of its `id`.
    pub(crate) id: Option<Box<str>>,
    pub(crate) transport: Transport,
    /// `advice.timeout`.
    pub(crate) timeout: Option<Duration>,
    /// `advice.interval`.
    pub(crate) interval: Option<Duration>,
    /// It sent advice, so it may have forgotten ours.
    pub(crate) has_advice: bool,
    /// `ext.ack`.
    pub(crate) ack: Option<u64>,
    pub(crate) timesync: Option<Timesync>,
    /// Nothing else came with it.
    pub(crate) alone: bool,
    /// It carried a timestamp.
    pub(crate) stamped: bool,
}

/// What becomes of a connect.
#[derive(Debug)]
pub(crate) enum ConnectStep {
    Answer(Box<ConnectAnswer>),
    /// Held; ask [`Session::poll_connect`](super::Session::poll_connect) with this number when woken or when the time
    /// comes.
    Hold {
        token: u64,
        until: Instant,
    },
}

/// What a held connect's handler finds.
#[derive(Debug)]
pub(crate) enum Held {
    Wait {
        until: Instant,
    },
    Answer(Box<ConnectAnswer>),
    /// A newer connect took its place.
    Superseded,
}

/// A reply to a connect, with the events that go before it.
#[derive(Debug)]
pub(crate) struct ConnectAnswer {
    pub(crate) id: Option<Box<str>>,
    pub(crate) end: Option<End>,
    pub(crate) advice: Option<Advice>,
    pub(crate) ack: Option<u64>,
    pub(crate) timesync: Option<[(&'static str, i64); 4]>,
    pub(crate) events: Vec<Bytes>,
    /// Its request carried a timestamp.
    pub(crate) stamped: bool,
    /// Events lost since the last answer, because there was no room for them.
    pub(crate) dropped: u32,
}
