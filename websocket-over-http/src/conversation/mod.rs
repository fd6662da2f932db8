//! A connection: the client on one side, its origin on the other, and what is published from above.

mod channels;
mod control;
mod ending;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use broker_core::LeaveReason;
use bytes::Bytes;
use grip::control::{Control, Delayed, Extension, KeepAlive, Sorted};
use grip::events::{self, Event};
use grip::exchange::{AnswerError, End, Exchange, Told};
use grip::publish::WsKind;
use http::{HeaderMap, HeaderValue};
use http_edge::websocket::{Ending, Heard, WebSocket};
use websocket::{DeflateParams, Limits};

use crate::delivery::{Asked, Channels};
use crate::frames::frame;
use crate::hub::{Inner, Rules};
use crate::member::{Close, Member};
use crate::origin::{Answer, Asking, Failed, Origin, Waiting, owned};

/// One connection, from its first request on.
pub(crate) struct Conversation {
    pub(crate) hub: Arc<Inner>,
    pub(crate) rules: Arc<Rules>,
    pub(crate) member: Arc<Member>,
    pub(crate) exchange: Exchange,
    origin: Arc<dyn Origin>,
    /// What each request has of the handshake.
    headers: HeaderMap,
    extension: Option<Extension>,
    channels: Channels,
    keep_alive: Option<(KeepAlive, Instant)>,
    delayed: VecDeque<(Instant, Delayed)>,
    waiting: Waiting,
    in_flight: Option<Asking>,
    filtering: Option<(Box<Asked>, Asking)>,
    /// The origin wants the connection gone without a word.
    is_dropped: bool,
}

/// What came first.
enum Next {
    Answered(Result<Answer, Failed>),
    Filtered(Result<Answer, Failed>),
    Heard(Heard),
}

impl Conversation {
    pub(crate) fn new(
        (hub, rules): (Arc<Inner>, Arc<Rules>),
        member: Arc<Member>,
        origin: Arc<dyn Origin>,
        headers: HeaderMap,
    ) -> Self {
        Self {
            exchange: Exchange::new(rules.max_events, rules.max_answer_bytes),
            waiting: Waiting::new(Arc::clone(&origin)),
            hub,
            rules,
            member,
            origin,
            headers: owned(&headers),
            extension: None,
            channels: Channels::default(),
            keep_alive: None,
            delayed: VecDeque::new(),
            in_flight: None,
            filtering: None,
            is_dropped: false,
        }
    }

    /// Sends the next request, if there is one and none is under way.
    pub(crate) fn begin(&mut self) {
        if self.in_flight.is_some() {
            return;
        }
        let Some(body) = self.exchange.poll_request(Instant::now()) else { return };
        self.hub.counted.events.fetch_add(self.exchange.offered() as u64, Relaxed);
        self.in_flight = Some(self.ask(body));
    }

    fn ask(&self, body: Bytes) -> Asking {
        let mut headers = self.headers.clone();
        self.exchange.write_headers(&mut headers);
        if let Ok(id) = HeaderValue::from_str(&self.member.id) {
            headers.insert("connection-id", id);
        }
        self.origin.ask(headers, body, self.rules.max_answer_bytes)
    }

    /// Asks `OPEN`, and does what the answer says.
    pub(crate) async fn open(&mut self) -> Result<HeaderMap, Refusal> {
        self.begin();
        let answered = done(&mut self.in_flight).await;
        self.in_flight = None;
        let answer = answered.map_err(|failed| {
            self.exchange.handle_failure(Instant::now(), false, Duration::ZERO);
            self.hub.counted.failed.fetch_add(1, Relaxed);
            Refusal::Failed(failed)
        })?;
        let told = self.exchange.handle_answer(Instant::now(), answer.status, &answer.headers, &answer.body);
        let told = told.map_err(|error| {
            self.hub.counted.refused.fetch_add(1, Relaxed);
            match error {
                AnswerError::Status(_) => Refusal::Answered(answer.clone()),
                error => Refusal::Malformed(error.to_string()),
            }
        })?;
        self.hub.counted.answered.fetch_add(1, Relaxed);
        self.extension.clone_from(&told.extension);
        for channel in Arc::clone(&self.rules).subscribe.iter().cloned() {
            let subscribe = Control::Subscribe { channel, filters: Vec::new() };
            self.control(subscribe).await.map_err(Refusal::Malformed)?;
        }
        self.act(told).await;
        if self.is_dropped {
            return Err(Refusal::Malformed("DISCONNECT answers OPEN".to_owned()));
        }
        Ok(answer.headers)
    }

    /// The 101 is written, and here is the socket.
    pub(crate) async fn run(mut self: Box<Self>, socket: link::Socket, deflate: Option<DeflateParams>) {
        let mut limits = Limits::default();
        limits.max_message_bytes = self.rules.max_message_bytes;
        let mut socket = WebSocket::new(socket, Arc::clone(&self.member.outbox), limits, deflate);
        self.hub.counted.open.fetch_add(1, Relaxed);
        if self.hub.is_closing.load(Relaxed) {
            self.member.close_with(Close::restart());
        }
        let ending = self.converse(&mut socket).await;
        self.hub.counted.open.fetch_sub(1, Relaxed);
        // What comes once is not a part of what waits.
        Box::pin(self.end(ending, socket)).await;
    }

    async fn converse(&mut self, socket: &mut WebSocket) -> Ending {
        let hub = Arc::clone(&self.hub);
        loop {
            self.deliver();
            self.handle_timeout();
            self.begin();
            if self.is_dropped {
                return Ending::Gone;
            }
            self.waiting.note(self.exchange.waiting_bytes());
            socket.pause(self.exchange.is_full());
            let due = self.poll_timeout();
            let terms = if self.rules.forward_pings { &hub.terms_with_pings } else { &hub.terms };
            let next = tokio::select! {
                answered = done(&mut self.in_flight) => Next::Answered(answered),
                answered = filtered(&mut self.filtering) => Next::Filtered(answered),
                heard = socket.hear(terms, due) => Next::Heard(heard),
            };
            match next {
                Next::Answered(answered) => {
                    self.in_flight = None;
                    Box::pin(self.answered(answered)).await;
                }
                Next::Filtered(answered) => self.filtered(answered),
                Next::Heard(Heard::Woken | Heard::Due) => {}
                Next::Heard(Heard::Ended(ending)) => return ending,
                // Copied, as they share the memory of what was read with them.
                Next::Heard(Heard::Text(text)) => self.hear(Event::Text(Bytes::copy_from_slice(&text))),
                Next::Heard(Heard::Ping(content)) => self.hear(Event::Ping(Bytes::copy_from_slice(&content))),
                Next::Heard(Heard::Pong(content)) => self.hear(Event::Pong(Bytes::copy_from_slice(&content))),
                Next::Heard(Heard::Binary(bytes)) => self.hear(Event::Binary(Bytes::copy_from_slice(&bytes))),
            }
        }
    }

    fn hear(&mut self, event: Event) {
        // It was told that it is over, and what it says after that counts for nothing.
        if !self.member.is_closing() {
            self.member.note_received(event.len());
            self.exchange.push(event);
        }
    }

    /// What came of the request that was under way.
    async fn answered(&mut self, answered: Result<Answer, Failed>) {
        if self.exchange.is_over() {
            // It was told that it will be asked no more, and there is nothing that it could say to that.
            return;
        }
        let now = Instant::now();
        let counted = &self.hub.counted;
        let answer = match answered {
            Ok(answer) => answer,
            Err(failed) => {
                let jitter = Duration::from_millis(fastrand::u64(..1_000));
                if self.exchange.handle_failure(now, failed.was_unread, jitter) {
                    counted.failed.fetch_add(1, Relaxed);
                    self.give_up(&failed.why);
                } else {
                    counted.retried.fetch_add(1, Relaxed);
                }
                return;
            }
        };
        match self.exchange.handle_answer(now, answer.status, &answer.headers, &answer.body) {
            Ok(told) => {
                counted.answered.fetch_add(1, Relaxed);
                self.act(told).await;
            }
            Err(error) => {
                counted.failed.fetch_add(1, Relaxed);
                self.give_up(&error.to_string());
                // It may hold something for a client that it will not hear of any more.
                self.in_flight = Some(self.ask(events::encode([&Event::Disconnect])));
            }
        }
    }

    /// The client cannot be served.
    fn give_up(&self, why: &str) {
        tracing::warn!(
            target: "fanwire::gateway", route = %self.rules.route, connection = %self.member.id, error = why,
            "a WebSocket is closed, as its origin does not answer as it should"
        );
        let reason = "the server behind this address does not answer as it should";
        self.member.close_with(Close::new(Some(1011), reason, LeaveReason::Closed));
    }

    /// Does what an answer says, in its order.
    async fn act(&mut self, told: Told) {
        for event in told.events {
            let sorted = match &self.extension {
                Some(extension) => extension.sort(event),
                None => Sorted::Message(event),
            };
            match sorted {
                Sorted::Message(Event::Text(content)) => self.send(WsKind::Text, &content),
                Sorted::Message(Event::Binary(content)) => self.send(WsKind::Binary, &content),
                Sorted::Message(Event::Ping(content)) => self.send(WsKind::Ping, &content),
                Sorted::Message(Event::Pong(content)) => self.send(WsKind::Pong, &content),
                Sorted::Message(_) => {}
                Sorted::Neither => _ = self.hub.counted.unsorted.fetch_add(1, Relaxed),
                Sorted::Control(text) => {
                    let done = match Control::parse(&text) {
                        Ok(control) => self.control(control).await,
                        Err(error) => Err(error.to_string()),
                    };
                    if let Err(why) = done {
                        self.hub.counted.failed.fetch_add(1, Relaxed);
                        self.give_up(&why);
                        self.exchange.detach();
                        self.in_flight = Some(self.ask(events::encode([&Event::Disconnect])));
                        return;
                    }
                }
            }
        }
        match told.end {
            None | Some(End::Done) => {}
            Some(End::Drop) => self.is_dropped = true,
            Some(End::Close(close)) => {
                let code = close.as_ref().and_then(|close| close.sendable());
                let reason = close.map(|close| close.reason).unwrap_or_default();
                self.member.close_with(Close::new(code, &reason, LeaveReason::Closed));
            }
        }
    }

    fn send(&self, kind: WsKind, content: &[u8]) {
        self.member.send(frame(kind, content, self.member.frames.deflate));
    }
}

/// Why there is no WebSocket.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The origin says this instead.
    Answered(Answer),
    /// What it says cannot be understood.
    Malformed(String),
    /// It says nothing.
    Failed(Failed),
}

async fn done(in_flight: &mut Option<Asking>) -> Result<Answer, Failed> {
    match in_flight {
        Some(asking) => asking.await,
        None => std::future::pending().await,
    }
}

async fn filtered(filtering: &mut Option<(Box<Asked>, Asking)>) -> Result<Answer, Failed> {
    match filtering {
        Some((_, asking)) => asking.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_socket_costs_a_small_task() {
        fn bytes<C, S, D, F>(_: fn(C, S, D) -> F) -> usize {
            size_of::<F>()
        }
        let task = bytes(Conversation::run);
        assert!(task <= 1_024, "{task} bytes");
        assert!(size_of::<Conversation>() <= 640, "{} bytes", size_of::<Conversation>());
    }
}
