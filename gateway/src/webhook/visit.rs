//! One connection, as backends are told of it.

use std::net::IpAddr;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use parking_lot::Mutex;

use super::event::Members;

/// One connection, from the question whether it may be to its end. Its requests go one after the other.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) protocol: &'static str,
    pub(super) since: Instant,
    /// Headers of its own request that decisions carry.
    pub(super) forwarded: Vec<(HeaderName, HeaderValue)>,
    /// Held while a backend is asked.
    pub(super) turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Its id for the HTTP API.
    connection: String,
    user: Option<String>,
    transport: &'static str,
    remote: Option<IpAddr>,
    context: Option<Bytes>,
    /// Events so far.
    seq: u64,
    is_over: bool,
}

/// What is known when it begins.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) connection: String,
    pub(super) user: Option<String>,
    pub(super) transport: &'static str,
    pub(super) remote: Option<IpAddr>,
}

impl Visit {
    pub(super) fn new(
        protocol: &'static str,
        known: Known,
        forwarded: Vec<(HeaderName, HeaderValue)>,
    ) -> Self {
        let Known { connection, user, transport, remote } = known;
        Self {
            protocol,
            since: Instant::now(),
            forwarded,
            turn: tokio::sync::Mutex::new(()),
            state: Mutex::new(State { connection, user, transport, remote, ..State::default() }),
        }
    }

    /// It was let in, as whom, and with what its backend wants to hear again.
    pub(super) fn let_in(&self, user: Option<&str>, context: Option<Bytes>) {
        let mut state = self.state.lock();
        state.user = user.map(str::to_owned);
        if context.is_some() {
            state.context = context;
        }
    }

    /// It is attached: what was not known before is now.
    pub(super) fn attached(&self, known: Known) {
        let mut state = self.state.lock();
        if state.connection.is_empty() {
            state.connection = known.connection;
        }
        if state.transport.is_empty() {
            state.transport = known.transport;
        }
        state.user = known.user;
        state.remote = state.remote.or(known.remote);
    }

    /// What its events have one after the other.
    pub(super) fn connection(&self) -> String {
        self.state.lock().connection.clone()
    }

    /// It is over after the next event.
    pub(super) fn end(&self) {
        self.state.lock().is_over = true;
    }

    pub(super) fn is_over(&self) -> bool {
        self.state.lock().is_over
    }

    /// Writes what is said of it in each event, with the event's own number.
    pub(super) fn write(&self, data: &mut Members<'_>) {
        let mut state = self.state.lock();
        state.seq += 1;
        data.optional("connection", Some(&state.connection).filter(|id| !id.is_empty()).map(|id| &**id));
        data.number("seq", state.seq);
        data.optional("user", state.user.as_deref());
        data.text("protocol", self.protocol).text("transport", state.transport);
        data.object("remote", |remote| {
            remote.optional("ip", state.remote.map(|ip| ip.to_canonical().to_string()).as_deref());
        });
        data.raw("context", state.context.as_deref().unwrap_or(b"{}"));
    }
}
