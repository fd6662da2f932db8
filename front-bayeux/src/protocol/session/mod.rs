//! One session: its queue, its connect, its end. The state machine is spread over the files of this folder: connects
//! are in `connecting.rs`, deliveries and time here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use self::connecting::Connecting;
use self::lifetime::Lifetime;
use self::losses::Losses;
use super::end::End;
use super::queue::{Full, Queue};
use crate::config::{Activity, QueueFull, Timing, Transport};

mod connect;
mod connecting;
mod lifetime;
mod losses;
mod options;
#[cfg(test)]
mod tests;

pub(crate) use connect::{ConnectAnswer, ConnectRequest, ConnectStep, Held};
pub(crate) use options::Options;
pub use options::SessionTiming;

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

/// The state machine of one session.
#[derive(Debug)]
pub(crate) struct Session {
    options: Arc<Options>,
    queue: Queue,
    connecting: Connecting,
    lifetime: Lifetime,
    losses: Losses,
    /// Events that the last connect acknowledged, for who wants to hear of it.
    acknowledged: u32,
    /// That of the last connect.
    transport: Transport,
    /// Events leave with connect replies only, whatever the transport: the ack extension.
    acks: bool,
    push: Push,
    end: Option<End>,
}

impl Session {
    /// A session that has just shaken hands.
    pub(crate) fn new(now: Instant, options: Arc<Options>, transport: Transport) -> Self {
        let timing = options.rules(transport).timing;
        Self {
            options,
            queue: Queue::default(),
            connecting: Connecting::default(),
            lifetime: Lifetime::new(now, timing),
            losses: Losses::default(),
            acknowledged: 0,
            transport,
            acks: false,
            push: Push::Off,
            end: None,
        }
    }

    /// The session ends when its credentials do.
    pub(crate) fn limit_to(&mut self, credentials_end: Instant) {
        self.lifetime.limit_to(credentials_end);
    }

    /// The ack extension was negotiated: events only leave with connect replies, and stay until they
    /// are acknowledged.
    pub(crate) fn enable_ack(&mut self) {
        self.queue.enable_ack();
        self.acks = true;
    }

    /// Gives the session times of its own. They hold from its next connect on; `max_interval` at once.
    pub(crate) fn set_timing(&mut self, now: Instant, timing: SessionTiming) {
        self.lifetime.set_timing(timing);
        if self.lifetime.is_running() {
            self.start_expiry(now);
        }
    }

    /// The times that hold for the session now.
    pub(crate) fn timing(&self) -> Timing {
        self.lifetime.timing(self.options.rules(self.transport).timing)
    }

    pub(crate) fn transport(&self) -> Transport {
        self.transport
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
        self.losses.all()
    }

    /// Events were lost, here or on the socket, for want of room. The next connect's reply says so.
    pub(crate) fn note_dropped(&mut self, dropped: u32) {
        self.losses.note(dropped);
    }

    /// An event went to the socket past the queue.
    pub(crate) fn note_server_activity(&mut self, now: Instant) {
        if let Some((Activity::ClientAndServer, _)) = self.options.activity {
            self.lifetime.note_active(now);
        }
    }

    /// Whether something is to be written now, if nothing else carries it.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.queue.is_due(now)
            && !self.lifetime.has_requests()
            && (self.is_pushing() || self.connecting.is_held())
    }

    /// A request of this session other than a connect begins: its own held connect is not woken until
    /// [`end_request`](Self::end_request), because the reply can carry what comes meanwhile.
    pub(crate) fn begin_request(&mut self, now: Instant) {
        self.lifetime.begin_request();
        self.lifetime.note_active(now);
        self.extend(now);
    }

    /// The request's replies are complete, or it was given up. However long it took, its client has time to go on.
    pub(crate) fn end_request(&mut self, now: Instant) {
        self.lifetime.end_request();
        self.extend(now);
    }

    fn extend(&mut self, now: Instant) {
        if self.end.is_none() {
            self.lifetime.extend(now, self.timing());
        }
    }

    /// The socket is gone: the session lives on as if its connect had just been answered.
    pub(crate) fn drop_socket(&mut self, now: Instant) {
        self.push = Push::Off;
        if self.transport == Transport::WebSocket {
            self.connecting.clear();
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
                End::QueueFull | End::ReplayLost | End::Kicked => self.lifetime.span(self.timing()),
                End::Disconnected | End::Expired | End::Shutdown { .. } => Duration::ZERO,
            };
            self.lifetime.expire_at(now + remembered);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        if self.end.is_some() {
            return self.lifetime.expires();
        }
        let carries = self.connecting.is_held() || self.is_pushing();
        let lazy = self.queue.lazy_until().filter(|_| carries);
        let life = &self.lifetime;
        let times =
            [life.expires_when_idle(), self.overdue_at(), lazy, self.inactive_at(), life.credentials_end()];
        times.into_iter().flatten().min()
    }

    /// Time passed. True if something is to be written: lazy events, or the answer of a session that
    /// just ended.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> bool {
        let passed = |time: Option<Instant>| time.is_some_and(|time| time <= now);
        let end = if self.end.is_some() {
            None
        } else if passed(self.inactive_at()) {
            Some(End::Kicked)
        } else {
            let times =
                [self.overdue_at(), self.lifetime.expires_when_idle(), self.lifetime.credentials_end()];
            times.into_iter().any(passed).then_some(End::Expired)
        };
        match end {
            Some(end) => self.finish(now, end),
            None => return self.is_due(now),
        }
        true
    }

    /// When it is too late for the answer to its held connect.
    fn overdue_at(&self) -> Option<Instant> {
        let max = self.options.rules(self.transport).max_processing?;
        Some(self.connecting.held_until()? + max)
    }

    /// When it ends for doing nothing but connecting.
    fn inactive_at(&self) -> Option<Instant> {
        let (_, max) = self.options.activity?;
        Some(self.lifetime.inactive_at(max))
    }

    fn start_expiry(&mut self, now: Instant) {
        if self.end.is_none() {
            self.lifetime.expire_at(now + self.lifetime.span(self.timing()));
        }
    }
}
