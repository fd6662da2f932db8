//! The connects of a session: the one that is held, its reply, and what goes with it.

use std::time::{Duration, Instant};

use super::Session;
use super::connect::{ConnectAnswer, ConnectRequest, ConnectStep, Held};
use crate::codec::reply::Advice;
use crate::protocol::timesync::Timesync;

/// Longest `interval` that a client may ask for: it adds to the session's life.
pub(super) const MAX_CLIENT_INTERVAL: Duration = Duration::from_secs(300);

/// Where the session's last connect stands.
#[derive(Debug, Default)]
pub(super) struct Connecting {
    state: State,
    /// The number of the last connect.
    token: u64,
    /// There was one.
    connected: bool,
    /// The last one carried a timestamp.
    stamped: bool,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    Held {
        until: Instant,
        reply: ReplySeed,
    },
    /// Its reply is on its way to the client.
    Replying,
}

/// What a held connect's reply will need of its request.
#[derive(Debug)]
struct ReplySeed {
    id: Option<Box<str>>,
    timesync: Option<Box<Timesync>>,
    advice: Option<Box<Advice>>,
}

impl Connecting {
    /// When the time of the connect that is held is over.
    pub(super) fn held_until(&self) -> Option<Instant> {
        match &self.state {
            State::Held { until, .. } => Some(*until),
            State::Idle | State::Replying => None,
        }
    }

    pub(super) fn is_held(&self) -> bool {
        self.held_until().is_some()
    }

    /// It is neither held nor being replied to any more.
    pub(super) fn clear(&mut self) {
        self.state = State::Idle;
    }

    fn take_held(&mut self) -> Option<ReplySeed> {
        match std::mem::take(&mut self.state) {
            State::Held { reply, .. } => Some(reply),
            other => {
                self.state = other;
                None
            }
        }
    }
}

impl Session {
    /// A connect came.
    pub(crate) fn handle_connect(&mut self, now: Instant, request: ConnectRequest) -> ConnectStep {
        let advise = request.has_advice || self.transport != request.transport;
        self.transport = request.transport;
        let timing = self.timing();
        let advice = advise.then(|| Box::new(Advice::retry(timing, self.options.tells_max_interval)));
        let timesync = request.timesync.map(Box::new);
        let reply = ReplySeed { id: request.id, timesync, advice };
        self.connecting.stamped = request.stamped;
        if self.end.is_some() {
            return ConnectStep::Answer(Box::new(self.answer(now, reply)));
        }
        let first = !std::mem::replace(&mut self.connecting.connected, true);
        let interval = request.interval.unwrap_or_default().min(MAX_CLIENT_INTERVAL).max(timing.interval);
        self.lifetime.set_interval(interval);
        if let Some(ack) = request.ack {
            self.acknowledged = u32::try_from(self.queue.acknowledge(ack)).unwrap_or(u32::MAX);
        }
        let timeout = request.timeout.unwrap_or(timing.timeout).min(self.options.max_client_timeout);
        self.connecting.token += 1;
        self.lifetime.suspend();
        let has_events = self.queue.is_due(now) && !self.lifetime.has_requests();
        if first || !request.alone || timeout.is_zero() || has_events {
            self.connecting.clear();
            return ConnectStep::Answer(Box::new(self.answer(now, reply)));
        }
        let until = now + timeout;
        self.connecting.state = State::Held { until, reply };
        ConnectStep::Hold { token: self.connecting.token, until: self.wait_until(until) }
    }

    /// Whether a held connect is to be answered now.
    pub(crate) fn poll_connect(&mut self, now: Instant, token: u64) -> Held {
        let Some(until) = self.connecting.held_until().filter(|_| token == self.connecting.token) else {
            return Held::Superseded;
        };
        if self.end.is_none() && now < until && !self.is_due(now) {
            return Held::Wait { until: self.wait_until(until) };
        }
        let Some(reply) = self.connecting.take_held() else { return Held::Superseded };
        Held::Answer(Box::new(self.answer(now, reply)))
    }

    /// The held connect's number, for a transport that keeps no task per connect.
    pub(crate) fn held(&self) -> Option<u64> {
        self.connecting.is_held().then_some(self.connecting.token)
    }

    /// When the held connect is to be looked at again.
    pub(crate) fn held_until(&self) -> Option<Instant> {
        self.connecting.held_until().map(|until| self.wait_until(until))
    }

    /// The number of the last connect.
    pub(crate) fn token(&self) -> u64 {
        self.connecting.token
    }

    /// How many events the last connect acknowledged; told once.
    pub(crate) fn take_acknowledged(&mut self) -> u32 {
        std::mem::take(&mut self.acknowledged)
    }

    /// The answer that was just given is now written, and [`reply_written`](Self::reply_written) will hear when it is:
    /// until then the session does not expire, however slowly its client reads.
    pub(crate) fn begin_reply(&mut self) {
        if self.end.is_none() && !self.connecting.is_held() {
            self.connecting.state = State::Replying;
            self.lifetime.suspend();
        }
    }

    pub(crate) fn is_replying(&self) -> bool {
        matches!(self.connecting.state, State::Replying)
    }

    /// The reply to the connect `token` was written, or its connection is gone.
    pub(crate) fn reply_written(&mut self, at: Instant, token: u64) {
        if self.is_replying() && token == self.connecting.token {
            self.connecting.clear();
            self.start_expiry(at);
        }
    }

    /// The connection under a held connect is gone; its events stay.
    pub(crate) fn drop_connect(&mut self, now: Instant, token: u64) {
        if self.held() == Some(token) {
            self.connecting.clear();
            self.start_expiry(now);
        }
    }

    /// Answers a connect that was about to be held, because its browser holds another session's.
    /// `wait` is when to try again; without it the client shall stay away.
    pub(crate) fn refuse_hold(
        &mut self,
        now: Instant,
        token: u64,
        wait: Option<Duration>,
    ) -> Option<ConnectAnswer> {
        if self.held() != Some(token) {
            return None;
        }
        let reply = self.connecting.take_held()?;
        self.lifetime.wait_at_least(wait.unwrap_or_default());
        let advice = Some(Box::new(Advice::not_held(wait)));
        Some(self.answer(now, ReplySeed { advice, ..reply }))
    }

    fn answer(&mut self, now: Instant, reply: ReplySeed) -> ConnectAnswer {
        let advice = match self.end {
            None => reply.advice.map(|advice| *advice),
            Some(end) => Some(Advice::after(end)),
        };
        let (events, ack) = if self.end.is_none() { self.queue.take(now) } else { (Vec::new(), None) };
        if !events.is_empty() {
            self.note_server_activity(now);
        }
        self.start_expiry(now);
        ConnectAnswer {
            id: reply.id,
            end: self.end,
            advice,
            ack,
            timesync: reply.timesync.and_then(|timesync| timesync.answer(now)),
            events,
            stamped: self.connecting.stamped,
            dropped: self.losses.tell(),
        }
    }

    /// When a connect is to be looked at again that is held until this time.
    fn wait_until(&self, until: Instant) -> Instant {
        self.queue.lazy_until().map_or(until, |lazy| until.min(lazy))
    }
}
