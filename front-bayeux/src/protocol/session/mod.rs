//! One session: its queue, its connect, its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::queue::{Full, Queue, QueueLimits};
use super::timesync::Timesync;
use crate::codec::reply::{Advice, Reconnect};
use crate::config::{Activity, QueueFull, Timing, Transport};

/// What all sessions of a front have in common.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) limits: QueueLimits,
    pub(crate) websocket: Rules,
    pub(crate) long_polling: Rules,
    pub(crate) callback_polling: Rules,
    pub(crate) max_client_timeout: Duration,
    pub(crate) activity: Option<(Activity, Duration)>,
    pub(crate) tells_max_interval: bool,
}

impl Options {
    fn rules(&self, transport: Transport) -> &Rules {
        match transport {
            Transport::WebSocket => &self.websocket,
            Transport::LongPolling => &self.long_polling,
            Transport::CallbackPolling => &self.callback_polling,
        }
    }
}

/// What holds for the sessions of one transport.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) timing: Timing,
    pub(crate) deliver_only: bool,
    pub(crate) max_processing: Option<Duration>,
}

/// Times of one session alone; what is `None` is as its transport has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionTiming {
    /// How long its connects are held; what its client asks for goes before it.
    pub timeout: Option<Duration>,
    /// How long its client waits between a connect's reply and the next; told with the next advice.
    pub interval: Option<Duration>,
    /// How much longer than `interval` it lives without a connect.
    pub max_interval: Option<Duration>,
}

/// Longest `interval` that a client may ask for: it adds to the session's life.
const MAX_CLIENT_INTERVAL: Duration = Duration::from_secs(300);

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
    /// Held; ask [`Session::poll_connect`] with this number when woken or when the time comes.
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

/// Why a session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The client disconnected.
    Disconnected,
    /// The server ended it.
    Kicked,
    /// Nothing came for too long, or its credentials ran out.
    Expired,
    /// Its queue was full.
    QueueFull,
    /// What it was to be replayed left the log before it could be sent.
    ReplayLost,
    /// The server goes away; another one may be there soon. Not all clients shall come back at once.
    Shutdown { return_after_ms: u32 },
}

/// What a delivery calls for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// Nothing now.
    Queued,
    /// Something is to be written.
    Due,
    /// There is no room for this event; [`Session::overflow`] hears what shall be done.
    Full(Bytes),
    /// The session ended because its queue is full.
    Overflow,
    /// The session is over.
    Ignored,
}

/// Whether events go out at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Push {
    Off,
    On,
}

#[derive(Debug)]
enum Connect {
    Idle,
    Held {
        token: u64,
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

/// The state machine of one session.
#[derive(Debug)]
pub(crate) struct Session {
    options: Arc<Options>,
    /// Events leave with connect replies only, whatever the transport: the ack extension.
    acks: bool,
    own_timing: Option<Box<SessionTiming>>,
    /// When the credentials of the handshake run out.
    credentials_end: Option<Instant>,
    queue: Queue,
    connect: Connect,
    token: u64,
    connected: bool,
    /// The last connect carried a timestamp.
    stamped: bool,
    transport: Transport,
    /// How long its client waits before its next connect, in milliseconds.
    interval_ms: u32,
    push: Push,
    requests: u32,
    /// Events that the last connect acknowledged, for who wants to hear of it.
    acknowledged: u32,
    /// Events lost because the queue was full, up to what fits.
    dropped: u32,
    /// Those that its client has not been told of.
    untold: u32,
    expires: Option<Instant>,
    active: Instant,
    end: Option<End>,
}

impl Session {
    /// A session that has just shaken hands.
    pub(crate) fn new(now: Instant, options: Arc<Options>, transport: Transport) -> Self {
        let timing = options.rules(transport).timing;
        Self {
            options,
            acks: false,
            own_timing: None,
            credentials_end: None,
            queue: Queue::default(),
            connect: Connect::Idle,
            token: 0,
            connected: false,
            stamped: false,
            transport,
            interval_ms: short_millis(timing.interval),
            push: Push::Off,
            requests: 0,
            acknowledged: 0,
            dropped: 0,
            untold: 0,
            // A session that only shook hands expires too.
            expires: Some(now + timing.interval + timing.max_interval),
            active: now,
            end: None,
        }
    }

    /// The session ends when its credentials do.
    pub(crate) fn limit_to(&mut self, credentials_end: Instant) {
        self.credentials_end = Some(credentials_end);
    }

    /// The ack extension was negotiated: events only leave with connect replies, and stay until they
    /// are acknowledged.
    pub(crate) fn enable_ack(&mut self) {
        self.queue.enable_ack();
        self.acks = true;
    }

    /// Gives the session times of its own. They hold from its next connect on; `max_interval` at once.
    pub(crate) fn set_timing(&mut self, now: Instant, timing: SessionTiming) {
        self.own_timing = (timing != SessionTiming::default()).then(|| Box::new(timing));
        if self.expires.is_some() {
            self.start_expiry(now);
        }
    }

    /// The times that hold for the session now.
    pub(crate) fn timing(&self) -> Timing {
        let timing = self.options.rules(self.transport).timing;
        let Some(own) = &self.own_timing else { return timing };
        Timing {
            timeout: own.timeout.unwrap_or(timing.timeout),
            interval: own.interval.unwrap_or(timing.interval),
            max_interval: own.max_interval.unwrap_or(timing.max_interval),
        }
    }

    pub(crate) fn transport(&self) -> Transport {
        self.transport
    }

    fn max_processing(&self) -> Option<Duration> {
        self.options.rules(self.transport).max_processing
    }

    pub(crate) fn end(&self) -> Option<End> {
        self.end
    }

    /// Whether events of non-connect replies are allowed.
    fn delivers_anywhere(&self) -> bool {
        !self.acks && !self.options.rules(self.transport).deliver_only
    }

    /// Whether events go to a socket as they come.
    fn is_pushing(&self) -> bool {
        self.push == Push::On && self.delivers_anywhere()
    }

    /// Whether a delivery can go straight to the socket, past the queue.
    pub(crate) fn pushes(&self) -> bool {
        self.is_pushing() && self.end.is_none() && self.queue.is_empty()
    }

    /// A socket was bound to the session, or went away.
    pub(crate) fn set_push(&mut self, push: Push) {
        self.push = push;
    }

    /// An event for this session. `lazy` is how long it may wait for company, `expires_at` when its time is over.
    pub(crate) fn handle_delivery(
        &mut self,
        now: Instant,
        object: Bytes,
        lazy: Option<Duration>,
        expires_at: Option<Instant>,
    ) -> Delivered {
        if self.end.is_some() {
            return Delivered::Ignored;
        }
        self.note_server_activity(now);
        match self.queue.push(now, object, lazy.map(|delay| now + delay), expires_at, self.options.limits) {
            Err(Full(object)) => Delivered::Full(object),
            Ok(()) if self.is_due(now) => Delivered::Due,
            Ok(()) => Delivered::Queued,
        }
    }

    /// What becomes of an event for which there was no room.
    pub(crate) fn overflow(
        &mut self,
        now: Instant,
        object: Bytes,
        expires_at: Option<Instant>,
        decision: QueueFull,
    ) -> Delivered {
        if self.end.is_some() {
            return Delivered::Ignored;
        }
        match decision {
            QueueFull::Disconnect => {
                self.finish(now, End::QueueFull);
                return Delivered::Overflow;
            }
            QueueFull::DropNewest => {
                self.note_dropped(1);
                return Delivered::Queued;
            }
            QueueFull::DropOldest => {
                let dropped = self.queue.make_room(object.len(), self.options.limits);
                self.note_dropped(dropped);
            }
            QueueFull::Clear => {
                let dropped = u32::try_from(self.queue.waiting().0).unwrap_or(u32::MAX);
                self.note_dropped(dropped);
                self.queue.clear();
            }
        }
        match self.handle_delivery(now, object, None, expires_at) {
            // It may have found room only to lose it again to its own size; one message always fits.
            Delivered::Full(_) => Delivered::Queued,
            delivered => delivered,
        }
    }

    /// Events that wait, and their bytes.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        self.queue.waiting()
    }

    /// Events lost because there was no room.
    pub(crate) fn dropped(&self) -> u32 {
        self.dropped
    }

    /// Events were lost, here or on the socket, for want of room. The next connect's reply says so.
    pub(crate) fn note_dropped(&mut self, dropped: u32) {
        self.dropped = self.dropped.saturating_add(dropped);
        self.untold = self.untold.saturating_add(dropped);
    }

    /// How many events the last connect acknowledged; told once.
    pub(crate) fn take_acknowledged(&mut self) -> u32 {
        std::mem::take(&mut self.acknowledged)
    }

    /// An event went to the socket past the queue.
    pub(crate) fn note_server_activity(&mut self, now: Instant) {
        if let Some((Activity::ClientAndServer, _)) = self.options.activity {
            self.active = now;
        }
    }

    /// Whether something is to be written now, if nothing else carries it.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.queue.is_due(now)
            && self.requests == 0
            && (self.is_pushing() || matches!(self.connect, Connect::Held { .. }))
    }

    /// A request of this session other than a connect begins: its own held connect is not woken until
    /// [`end_request`](Self::end_request), because the reply can carry what comes meanwhile.
    pub(crate) fn begin_request(&mut self, now: Instant) {
        self.requests += 1;
        self.active = now;
        self.extend(now);
    }

    /// #650: who publishes between two connects is alive.
    fn extend(&mut self, now: Instant) {
        let max_interval = self.timing().max_interval;
        if self.end.is_none()
            && let Some(expires) = &mut self.expires
        {
            *expires = (*expires).max(now + max_interval);
        }
    }

    /// The request's replies are complete, or it was given up. However long it took, its client has time to go on.
    pub(crate) fn end_request(&mut self, now: Instant) {
        self.requests = self.requests.saturating_sub(1);
        self.extend(now);
    }

    /// A connect came.
    pub(crate) fn handle_connect(&mut self, now: Instant, request: ConnectRequest) -> ConnectStep {
        let advise = request.has_advice || self.transport != request.transport;
        self.transport = request.transport;
        let timing = self.timing();
        let advice = advise.then(|| Box::new(Advice::retry(timing, self.options.tells_max_interval)));
        let timesync = request.timesync.map(Box::new);
        let reply = ReplySeed { id: request.id, timesync, advice };
        self.stamped = request.stamped;
        if self.end.is_some() {
            return ConnectStep::Answer(Box::new(self.answer(now, reply)));
        }
        let first = !std::mem::replace(&mut self.connected, true);
        let interval = request.interval.unwrap_or_default().min(MAX_CLIENT_INTERVAL).max(timing.interval);
        self.interval_ms = short_millis(interval);
        if let Some(ack) = request.ack {
            self.acknowledged = u32::try_from(self.queue.acknowledge(ack)).unwrap_or(u32::MAX);
        }
        let timeout = request.timeout.unwrap_or(timing.timeout).min(self.options.max_client_timeout);
        self.token += 1;
        self.expires = None;
        if first || !request.alone || timeout.is_zero() || (self.queue.is_due(now) && self.requests == 0) {
            self.connect = Connect::Idle;
            return ConnectStep::Answer(Box::new(self.answer(now, reply)));
        }
        let token = self.token;
        self.connect = Connect::Held { token, until: now + timeout, reply };
        ConnectStep::Hold { token, until: self.wait_until(now + timeout) }
    }

    /// Whether a held connect is to be answered now.
    pub(crate) fn poll_connect(&mut self, now: Instant, token: u64) -> Held {
        let Connect::Held { token: held, until, .. } = &self.connect else { return Held::Superseded };
        let (held, until) = (*held, *until);
        if held != token {
            return Held::Superseded;
        }
        if self.end.is_none() && now < until && !self.is_due(now) {
            return Held::Wait { until: self.wait_until(until) };
        }
        let Connect::Held { reply, .. } = std::mem::replace(&mut self.connect, Connect::Idle) else {
            return Held::Superseded;
        };
        Held::Answer(Box::new(self.answer(now, reply)))
    }

    /// The held connect's number, for a transport that keeps no task per connect.
    pub(crate) fn held(&self) -> Option<u64> {
        match &self.connect {
            Connect::Held { token, .. } => Some(*token),
            Connect::Idle | Connect::Replying => None,
        }
    }

    /// When the held connect is to be looked at again.
    pub(crate) fn held_until(&self) -> Option<Instant> {
        match &self.connect {
            Connect::Held { until, .. } => Some(self.wait_until(*until)),
            Connect::Idle | Connect::Replying => None,
        }
    }

    /// The number of the last connect.
    pub(crate) fn token(&self) -> u64 {
        self.token
    }

    /// The answer that was just given is now written, and [`reply_left`](Self::reply_left) will hear when it is: until
    /// then the session does not expire, however slowly its client reads.
    pub(crate) fn begin_reply(&mut self) {
        if self.end.is_none() && self.held().is_none() {
            self.connect = Connect::Replying;
            self.expires = None;
        }
    }

    pub(crate) fn is_replying(&self) -> bool {
        matches!(self.connect, Connect::Replying)
    }

    /// The reply to the connect `token` was written, or its connection is gone.
    pub(crate) fn reply_left(&mut self, at: Instant, token: u64) {
        if self.is_replying() && token == self.token {
            self.connect = Connect::Idle;
            self.start_expiry(at);
        }
    }

    /// The connection under a held connect is gone; its events stay.
    pub(crate) fn drop_connect(&mut self, now: Instant, token: u64) {
        if self.held() == Some(token) {
            self.connect = Connect::Idle;
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
        let Connect::Held { reply, .. } = std::mem::replace(&mut self.connect, Connect::Idle) else {
            return None;
        };
        let mut advice = match wait {
            Some(wait) => Advice { interval_ms: Some(millis(wait)), ..Advice::new(Reconnect::Retry) },
            None => Advice::NONE,
        };
        advice.multiple_clients = true;
        // The next connect may come that much later.
        self.interval_ms = self.interval_ms.max(short_millis(wait.unwrap_or_default()));
        Some(self.answer(now, ReplySeed { advice: Some(Box::new(advice)), ..reply }))
    }

    /// The socket is gone: the session lives on as if its connect had just been answered.
    pub(crate) fn drop_socket(&mut self, now: Instant) {
        self.push = Push::Off;
        if self.transport == Transport::WebSocket {
            self.connect = Connect::Idle;
            self.start_expiry(now);
        }
    }

    /// Events that were on their way when their socket died, oldest first. They go before what waits.
    pub(crate) fn take_back(&mut self, events: Vec<Bytes>) {
        if self.end.is_none() {
            self.queue.put_back(events);
        }
    }

    /// Events that may go with a reply other than a connect's, or as a push.
    pub(crate) fn poll_events(&mut self, now: Instant) -> Vec<Bytes> {
        if self.delivers_anywhere() && self.end.is_none() && !self.queue.is_empty() {
            self.note_server_activity(now);
            self.queue.take(now).0
        } else {
            Vec::new()
        }
    }

    /// Like [`poll_events`](Self::poll_events), once they are due and nothing else will carry them.
    pub(crate) fn poll_push(&mut self, now: Instant) -> Vec<Bytes> {
        if self.is_pushing() && self.is_due(now) { self.poll_events(now) } else { Vec::new() }
    }

    /// Events that may follow a handshake's reply.
    pub(crate) fn poll_handshake_events(&mut self, now: Instant) -> (Vec<Bytes>, Option<u64>) {
        self.queue.take(now)
    }

    /// Room for a page of replayed events.
    pub(crate) fn has_room(&mut self, now: Instant) -> bool {
        self.queue.has_room(now, self.options.limits)
    }

    /// Ends the session; the first reason counts. A held connect is answered by the next poll.
    pub(crate) fn finish(&mut self, now: Instant, end: End) {
        if self.end.is_none() {
            self.end = Some(end);
            self.push = Push::Off;
            self.queue.clear();
            // Who did not end it itself is told why for as long as it may come back.
            let remembered = match end {
                End::QueueFull | End::ReplayLost | End::Kicked => self.lifetime(),
                End::Disconnected | End::Expired | End::Shutdown { .. } => Duration::ZERO,
            };
            self.expires = Some(now + remembered);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let processing = match (&self.connect, self.max_processing()) {
            (Connect::Held { until, .. }, Some(max)) => Some(*until + max),
            _ => None,
        };
        let held = matches!(self.connect, Connect::Held { .. });
        let lazy = self.queue.lazy_until().filter(|_| held || self.is_pushing());
        let idle = self.options.activity.map(|(_, max)| self.active + max);
        if self.end.is_some() {
            return self.expires;
        }
        [self.expires_when_idle(), processing, lazy, idle, self.credentials_end].into_iter().flatten().min()
    }

    /// Time passed. True if something is to be written: lazy events, or the answer of a session that
    /// just ended.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> bool {
        let overdue = match (&self.connect, self.max_processing()) {
            (Connect::Held { until, .. }, Some(max)) => *until + max <= now,
            _ => false,
        };
        let idle = self.options.activity.is_some_and(|(_, max)| self.active + max <= now);
        if self.end.is_none() && idle {
            self.finish(now, End::Kicked);
            return true;
        }
        let passed = |time: Option<Instant>| time.is_some_and(|time| time <= now);
        if self.end.is_none() && (overdue || passed(self.expires_when_idle()) || passed(self.credentials_end))
        {
            self.finish(now, End::Expired);
            return true;
        }
        self.is_due(now)
    }

    /// When it expires, unless a request of it is in progress.
    fn expires_when_idle(&self) -> Option<Instant> {
        self.expires.filter(|_| self.requests == 0)
    }

    fn wait_until(&self, until: Instant) -> Instant {
        self.queue.lazy_until().map_or(until, |lazy| until.min(lazy))
    }

    fn start_expiry(&mut self, now: Instant) {
        if self.end.is_none() {
            self.expires = Some(now + self.lifetime());
        }
    }

    /// How long it lives without a connect.
    fn lifetime(&self) -> Duration {
        Duration::from_millis(self.interval_ms.into()) + self.timing().max_interval
    }

    fn answer(&mut self, now: Instant, reply: ReplySeed) -> ConnectAnswer {
        let advice = match self.end {
            None => reply.advice.map(|advice| *advice),
            Some(End::Disconnected | End::Kicked) => Some(Advice::NONE),
            Some(End::Expired | End::QueueFull | End::ReplayLost) => Some(Advice::HANDSHAKE),
            Some(End::Shutdown { return_after_ms }) => {
                Some(Advice { interval_ms: Some(i64::from(return_after_ms)), ..Advice::HANDSHAKE })
            }
        };
        let (events, ack) = if self.end.is_none() { self.queue.take(now) } else { (Vec::new(), None) };
        if !events.is_empty() {
            self.note_server_activity(now);
        }
        self.start_expiry(now);
        let timesync = reply.timesync.and_then(|timesync| timesync.answer(now));
        let dropped = std::mem::take(&mut self.untold);
        ConnectAnswer {
            id: reply.id,
            end: self.end,
            advice,
            ack,
            timesync,
            events,
            stamped: self.stamped,
            dropped,
        }
    }
}

impl Advice {
    /// Go on: the times of the transport.
    pub(crate) fn retry(timing: Timing, tells_max_interval: bool) -> Self {
        Self {
            interval_ms: Some(millis(timing.interval)),
            timeout_ms: Some(millis(timing.timeout)),
            max_interval_ms: tells_max_interval.then(|| millis(timing.max_interval)),
            ..Self::new(Reconnect::Retry)
        }
    }
}

fn short_millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
