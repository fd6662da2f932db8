//! The loop of one conversation in messages, over a link.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use broker_core::{Class, Outbox, OutboxEnd};
use bytes::Bytes;
use link::{Intake, Link, LinkEvent, Socket, Unfinished};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep_until};
use websocket::{
    CloseCode, Conversation, DeflateParams, End, Limits, Patience, Pulse, Silence, Turn, Violation, encode,
};

/// How long a goodbye may take to be written and answered: a good value for [`WebSocket::finish`].
pub const LINGER: Duration = Duration::from_secs(2);

/// A WebSocket that carries messages. It answers pings and closes, asks a silent client whether it is there, and gives
/// up one that is silent for too long, sends a message too slowly or breaks a rule.
///
/// What is sent goes through the outbox, as frames of [`websocket::encode`].
#[derive(Debug)]
pub struct WebSocket {
    link: Link,
    conversation: Conversation,
    /// The message that is not whole yet.
    unfinished: Unfinished,
    pulse: Pulse,
}

/// Whether the caller hears of pings and pongs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Pings {
    /// No: pings are answered, and that is all.
    #[default]
    Answered,
    /// Yes, besides: [`Heard::Ping`] and [`Heard::Pong`], but for pongs without content, as our own pings have none.
    Told,
}

/// Who answers the close of a client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Closes {
    /// The WebSocket, at once, with the client's own code.
    #[default]
    Answered,
    /// The caller, by [`WebSocket::close`] after [`Ending::Left`].
    Told,
}

/// What all WebSockets of a front have in common.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Terms {
    /// How long a client may be silent.
    pub patience: Patience,
    /// Where messages count that are not whole, and how slowly they may come.
    pub intake: Intake,
    /// Whether pings and pongs are heard of. Default no.
    pub pings: Pings,
    /// Who answers a client's close. Default: the WebSocket.
    pub closes: Closes,
}

/// What happened.
#[derive(Debug)]
pub enum Heard {
    /// A whole text message; valid UTF-8.
    Text(Bytes),
    /// A whole binary message.
    Binary(Bytes),
    /// A ping, which was answered. With [`Pings::Told`] alone.
    Ping(Bytes),
    /// A pong. With [`Pings::Told`] alone.
    Pong(Bytes),
    /// Somebody called [`Outbox::notify`]: the session has something to do.
    Woken,
    /// Time has passed: that until the caller's `due`, or less.
    Due,
    /// It is over. Nothing comes after it.
    Ended(Ending),
}

/// Why it is over.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Ending {
    /// Nobody is there.
    Gone,
    /// The client did not read what it was sent.
    Overflow,
    /// The outbox takes nothing more: the caller, a lane or an operator has closed it.
    Closed(OutboxEnd),
    /// The client has closed, and was answered; with [`Closes::Told`] it waits for that.
    Left {
        /// `None` if it did not say why.
        code: Option<CloseCode>,
        /// For people; may be empty.
        reason: String,
    },
    /// The client broke a rule or a limit, and was told.
    Fault(Violation),
    /// The message came too slowly, and the client was told.
    Slow,
    /// Other unfinished messages needed the room of this one, and the client was told.
    Shed,
    /// Nothing came for too long, and the client was told.
    Idle,
}

impl Ending {
    /// Whether a close frame is on its way, for which [`WebSocket::finish`] waits.
    pub fn is_told(&self) -> bool {
        !matches!(self, Ending::Gone | Ending::Overflow)
    }
}

impl WebSocket {
    /// Takes a socket over whose handshake is done. `deflate` is what that negotiated.
    pub fn new(socket: Socket, outbox: Arc<Outbox>, limits: Limits, deflate: Option<DeflateParams>) -> Self {
        Self {
            link: Link::new(socket, outbox),
            conversation: Conversation::of_messages(limits, deflate),
            unfinished: Unfinished::default(),
            pulse: Pulse::new(Instant::now()),
        }
    }

    /// Where what is sent waits.
    pub fn outbox(&self) -> &Arc<Outbox> {
        self.link.outbox()
    }

    /// Stops hearing the client, or goes on: what it sends waits in the kernel, which then holds it back, and what was
    /// read already waits here. What is sent to it is written as ever. Its silence meanwhile is not its own.
    pub fn pause(&mut self, paused: bool) {
        if self.link.is_paused() && !paused {
            self.pulse.handle_read(Instant::now());
        }
        self.link.pause_reading(paused);
    }

    /// When the client sent something last, whatever it was.
    pub fn last_read(&self) -> Instant {
        self.pulse.last_read()
    }

    /// Waits for the next thing to happen, writing meanwhile what the outbox holds; no longer than until `due`, and
    /// perhaps not so long.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is taken that is not returned.
    pub fn hear<'a>(&'a mut self, terms: &'a Terms, due: Option<Instant>) -> Hearing<'a> {
        Hearing { socket: self, terms, waiting: Waiting::Not { due } }
    }

    /// What lies in the input.
    fn take(&mut self, terms: &Terms) -> Option<Heard> {
        let pings = terms.pings;
        if self.link.is_paused() {
            return None;
        }
        loop {
            match self.conversation.poll_turn()? {
                Turn::Text(text) => {
                    self.unfinished.finish();
                    return Some(Heard::Text(text));
                }
                Turn::Binary(bytes) => {
                    self.unfinished.finish();
                    return Some(Heard::Binary(bytes));
                }
                Turn::Answer(pong) => {
                    // Two bytes stand before what a control frame has.
                    let payload = (pings == Pings::Told).then(|| pong.slice(pong.len().min(2)..));
                    self.outbox().send(pong, Class::Control);
                    if let Some(payload) = payload {
                        return Some(Heard::Ping(payload));
                    }
                }
                Turn::Pong(payload) if pings == Pings::Told && !payload.is_empty() => {
                    return Some(Heard::Pong(payload));
                }
                Turn::Pong(_) => {}
                Turn::Last { frame, end } => {
                    if terms.closes == Closes::Answered || matches!(end, End::Fault(_)) {
                        self.outbox().send_last(frame);
                    }
                    return Some(Heard::Ended(match end {
                        End::Left { code, reason } => Ending::Left { code, reason },
                        End::Fault(violation) => Ending::Fault(violation),
                    }));
                }
            }
        }
    }

    /// Counts what is not whole, once it was read.
    fn count(&mut self, intake: &Intake) {
        match self.conversation.unfinished_bytes() {
            Some(bytes) => self.unfinished.hold(intake, bytes, self.pulse.last_read()),
            None => self.unfinished.finish(),
        }
    }

    fn poll_timeout(&self, terms: &Terms) -> Option<Instant> {
        if self.link.is_paused() {
            return None;
        }
        let unfinished = self.conversation.unfinished_bytes();
        let late = unfinished.and_then(|bytes| self.unfinished.due(&terms.intake, bytes));
        late.into_iter().chain(self.pulse.poll_timeout(&terms.patience)).min()
    }

    fn handle_timeout(&mut self, now: Instant, terms: &Terms) -> Option<Heard> {
        if self.link.is_paused() {
            return None;
        }
        let unfinished = self.conversation.unfinished_bytes();
        if unfinished.is_some_and(|bytes| self.unfinished.is_late(&terms.intake, bytes, now)) {
            return Some(self.give_up(CloseCode::Policy, "the message came too slowly", Ending::Slow));
        }
        match self.pulse.handle_timeout(now, &terms.patience)? {
            Silence::Ping => {
                self.outbox().send(encode::frame(encode::PING, &[]), Class::Control);
                None
            }
            Silence::TooLong => Some(self.give_up(CloseCode::Normal, "idle timeout", Ending::Idle)),
        }
    }

    /// Tells the client that it is over. Whatever it still says counts for nothing: call [`finish`](Self::finish) next.
    pub fn close(&self, code: CloseCode, reason: &str) -> Ending {
        self.outbox().send_last(encode::close(code, reason));
        Ending::Closed(OutboxEnd::Finished)
    }

    /// As [`close`](Self::close), and what came of a message is let go of at once.
    fn give_up(&mut self, code: CloseCode, reason: &str, ending: Ending) -> Heard {
        self.unfinished.finish();
        self.conversation.finish();
        self.outbox().send_last(encode::close(code, reason));
        Heard::Ended(ending)
    }

    /// Writes what still waits and hears the client out, within `linger`: see [`Link::finish`].
    pub fn finish(self, linger: Duration) -> impl Future<Output = ()> + Send {
        // What came of a message is let go of at once: the rest of `self` ends here.
        self.link.finish(linger)
    }
}

pin_project! {
    /// What [`WebSocket::hear`] returns. By hand, because an idle connection has room for all of it, and an `async fn`
    /// would hold each argument twice.
    #[must_use = "futures do nothing unless polled"]
    pub struct Hearing<'a> {
        socket: &'a mut WebSocket,
        terms: &'a Terms,
        #[pin]
        waiting: Waiting,
    }
}

pin_project! {
    #[project = Which]
    enum Waiting {
        /// There may be something in the input, or nothing to wait for.
        Not { due: Option<Instant> },
        /// For the client, and for this.
        For {
            #[pin]
            timer: Sleep,
        },
    }
}

impl Future for Hearing<'_> {
    type Output = Heard;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Heard> {
        let mut this = self.project();
        let (socket, terms) = (&mut **this.socket, *this.terms);
        let mut has_read = matches!(*this.waiting, Waiting::Not { .. });
        loop {
            if std::mem::take(&mut has_read) {
                if let Some(heard) = socket.take(terms) {
                    return Poll::Ready(heard);
                }
                socket.count(&terms.intake);
            }
            if let Poll::Ready(event) = socket.link.poll_next(socket.conversation.input(), cx) {
                return Poll::Ready(match event {
                    LinkEvent::Read(_) => {
                        socket.pulse.handle_read(Instant::now());
                        has_read = true;
                        continue;
                    }
                    LinkEvent::Woken => Heard::Woken,
                    LinkEvent::Eof | LinkEvent::Failed(_) => Heard::Ended(Ending::Gone),
                    LinkEvent::Stalled | LinkEvent::Closed(OutboxEnd::Overflow) => {
                        Heard::Ended(Ending::Overflow)
                    }
                    LinkEvent::Closed(reason) => Heard::Ended(Ending::Closed(reason)),
                });
            }
            if socket.unfinished.poll_shed(cx).is_ready() {
                let why = "no room for unfinished messages";
                return Poll::Ready(socket.give_up(CloseCode::Again, why, Ending::Shed));
            }
            let own = socket.poll_timeout(terms);
            match this.waiting.as_mut().project() {
                Which::Not { due } => {
                    let Some(until) = due.iter().copied().chain(own).min() else { return Poll::Pending };
                    this.waiting.set(Waiting::For { timer: sleep_until(until.into()) });
                }
                Which::For { mut timer } => {
                    // Not moved when the client was heard: a busy connection does not touch it for that.
                    if let Some(own) =
                        own.map(tokio::time::Instant::from).filter(|own| *own < timer.deadline())
                    {
                        timer.as_mut().reset(own);
                    }
                    ready!(timer.poll(cx));
                    return Poll::Ready(socket.handle_timeout(Instant::now(), terms).unwrap_or(Heard::Due));
                }
            }
        }
    }
}
